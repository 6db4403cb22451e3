-- What people typed from signed paper, what the comparison with the digital registers gave, and when paper retired at a school.

-- One person's reading of one sheet. Rows are only added: the last of each person counts, see reconciliation/paper.py.
-- `marks_json`: pupil id to code letter, only who was absent or late. `signed_by`, `entered_by`: ids or roles, never names.
CREATE TABLE paper_entries (
  id INTEGER PRIMARY KEY,
  school TEXT NOT NULL,
  class_id TEXT NOT NULL,
  date TEXT NOT NULL,
  session TEXT NOT NULL,
  document TEXT NOT NULL,
  signed_by TEXT NOT NULL,
  marks_json TEXT NOT NULL,
  entered_by TEXT NOT NULL,
  at_ms INTEGER NOT NULL,
  audit_id INTEGER NOT NULL
) STRICT;
CREATE INDEX paper_entries_by_day ON paper_entries (school, date);

-- Which document is compared and whether two people must have typed the same, from a week on that had not begun when it was decided.
-- `school` '*': every school. A school's own rule outweighs the one for all.
CREATE TABLE paper_rules (
  id INTEGER PRIMARY KEY,
  school TEXT NOT NULL,
  from_week TEXT NOT NULL,
  document TEXT NOT NULL,
  two_person INTEGER NOT NULL,
  at_ms INTEGER NOT NULL,
  audit_id INTEGER NOT NULL
) STRICT;

-- Verdicts. Rows are only added: what comes later changes a past week by a new row, and the last one counts. `log_offset`: how far the
-- log was settled. `body`: every expected register, canonical JSON, zlib.
CREATE TABLE parity_weeks (
  id INTEGER PRIMARY KEY,
  school TEXT NOT NULL,
  week TEXT NOT NULL,
  judged_ms INTEGER NOT NULL,
  log_offset INTEGER NOT NULL,
  status TEXT NOT NULL,
  document TEXT NOT NULL,
  matched INTEGER NOT NULL,
  compared INTEGER NOT NULL,
  against INTEGER NOT NULL,
  covered INTEGER NOT NULL,
  expected INTEGER NOT NULL,
  excluded INTEGER NOT NULL,
  body BLOB NOT NULL
) STRICT;
CREATE INDEX parity_weeks_by_school ON parity_weeks (school, week);

-- Digest of what went into a week when it was last weighed: as long as it is the same, the verdict is.
CREATE TABLE parity_inputs (
  school TEXT NOT NULL,
  week TEXT NOT NULL,
  digest BLOB NOT NULL,
  PRIMARY KEY (school, week)
) STRICT;

-- On which civil date a school was last looked at: once a day, whoever asks and however often.
CREATE TABLE parity_runs (school TEXT PRIMARY KEY, evaluated_on TEXT NOT NULL, at_ms INTEGER NOT NULL) STRICT;

-- Schools at which paper has retired. Written by the evaluation alone, never changed. `weeks_json`: the decisive weeks.
CREATE TABLE gates (
  school TEXT PRIMARY KEY,
  week TEXT NOT NULL,
  weeks_json TEXT NOT NULL,
  fired_ms INTEGER NOT NULL,
  log_offset INTEGER NOT NULL,
  audit_id INTEGER NOT NULL
) STRICT;

-- A correction that came after a gate had fired and that would change it. `resolved_ms`: a still later one took it back.
CREATE TABLE gate_findings (
  id INTEGER PRIMARY KEY,
  school TEXT NOT NULL,
  name TEXT NOT NULL,
  detail_json TEXT NOT NULL,
  at_ms INTEGER NOT NULL,
  resolved_ms INTEGER,
  audit_id INTEGER NOT NULL
) STRICT;
CREATE INDEX gate_findings_by_school ON gate_findings (school);
