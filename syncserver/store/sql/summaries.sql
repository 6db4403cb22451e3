-- Counts of each settled register, so that a report reads some hundred bytes and no outcome. Derived: a row counts only as long as its
-- `revision` is the outcome's, and where it is missing or older the report reads the outcome itself. Codes that a register does
-- not have are 0. `held` are marks, the codes are pupils.
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

-- The audit rows of a school that came with its file (`hudur import school`). They belong to the chain of the server they were written on
-- and keep its numbers and hashes. The chain here begins with the row that tells of the import.
CREATE TABLE imported_audit (
  school TEXT NOT NULL,
  id INTEGER NOT NULL,
  at_ms INTEGER NOT NULL,
  actor TEXT NOT NULL,
  action TEXT NOT NULL,
  subject TEXT NOT NULL,
  reason TEXT NOT NULL,
  before_json TEXT NOT NULL,
  after_json TEXT NOT NULL,
  prev_hash BLOB NOT NULL,
  hash BLOB NOT NULL,
  PRIMARY KEY (school, id)
) STRICT;
