-- Written and read by servers of version 4, which may run beside this one on PostgreSQL: summaries stand in the rows of their outcomes now
-- (`outcomes.counts`). The version after this one drops it.
CREATE TABLE summaries (
  school TEXT NOT NULL,
  class_id TEXT NOT NULL,
  date TEXT NOT NULL,
  session TEXT NOT NULL,
  revision INTEGER NOT NULL,
  roster INTEGER NOT NULL,
  present INTEGER NOT NULL,
  late INTEGER NOT NULL,
  left_early INTEGER NOT NULL,
  absent INTEGER NOT NULL,
  absent_excused INTEGER NOT NULL,
  absent_unexcused INTEGER NOT NULL,
  official_duty INTEGER NOT NULL,
  suspended INTEGER NOT NULL,
  not_taken INTEGER NOT NULL,
  late_arrivals INTEGER NOT NULL,
  adjustments INTEGER NOT NULL,
  waiting INTEGER NOT NULL,
  disputed INTEGER NOT NULL,
  held INTEGER NOT NULL,
  occasion TEXT NOT NULL,
  closed TEXT,
  first_captured_ms INTEGER,
  last_captured_ms INTEGER,
  PRIMARY KEY (school, class_id, date, session)
) STRICT, WITHOUT ROWID;
