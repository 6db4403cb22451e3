-- What named people decided, laid over the marks and never written into them. Rows are only added; `undone_ms` says since when one
-- does not count any more. `actor` and `at_ms` are those of the audit row `audit_id`, which holds the rest of the story.

-- One decision about one register. kind: release, approve, reject, choose, rule. `by_id`: user id or token name, never a person's name.
-- `body_json`: what the kind needs, see store/decisions.py. `bulk_id`: the bulk operation a ruling belongs to.
CREATE TABLE decisions (
  id INTEGER PRIMARY KEY,
  kind TEXT NOT NULL,
  school TEXT NOT NULL,
  class_id TEXT NOT NULL,
  date TEXT NOT NULL,
  session TEXT NOT NULL,
  pupil TEXT,
  change_hash BLOB,
  body_json TEXT NOT NULL,
  by_id TEXT NOT NULL,
  level TEXT NOT NULL,
  reference TEXT NOT NULL,
  at_ms INTEGER NOT NULL,
  bulk_id INTEGER,
  undone_ms INTEGER,
  audit_id INTEGER NOT NULL
) STRICT;
CREATE INDEX decisions_by_register ON decisions (school, class_id, date, session);
CREATE INDEX decisions_by_bulk ON decisions (bulk_id);

-- A duplicate record of a pupil (`alias`) and the record it was merged into.
CREATE TABLE aliases (
  id INTEGER PRIMARY KEY,
  school TEXT NOT NULL,
  alias TEXT NOT NULL,
  canonical TEXT NOT NULL,
  reason TEXT NOT NULL,
  by_id TEXT NOT NULL,
  at_ms INTEGER NOT NULL,
  undone_ms INTEGER,
  audit_id INTEGER NOT NULL
) STRICT;
CREATE INDEX aliases_by_school ON aliases (school);

-- A bulk operation. state: waiting (for a second person), applied, undone. `plan_json`: what was previewed and asked for.
CREATE TABLE bulks (
  id INTEGER PRIMARY KEY,
  school TEXT NOT NULL,
  state TEXT NOT NULL,
  cells INTEGER NOT NULL,
  plan_json TEXT NOT NULL,
  reason TEXT NOT NULL,
  by_id TEXT NOT NULL,
  second_by TEXT,
  asked_ms INTEGER NOT NULL,
  applied_ms INTEGER,
  undone_ms INTEGER,
  audit_id INTEGER NOT NULL
) STRICT;

-- `to_user` may mark the class from `from_ms` until `until_ms` in `by_user`'s stead. One row for each class.
CREATE TABLE delegations (
  id TEXT PRIMARY KEY,
  school TEXT NOT NULL,
  class_id TEXT NOT NULL,
  by_user TEXT NOT NULL,
  to_user TEXT NOT NULL,
  from_ms INTEGER NOT NULL,
  until_ms INTEGER NOT NULL,
  reason TEXT NOT NULL,
  made_ms INTEGER NOT NULL,
  ended_ms INTEGER,
  audit_id INTEGER NOT NULL
) STRICT;
CREATE INDEX delegations_by_class ON delegations (school, class_id);
CREATE INDEX delegations_by_user ON delegations (school, to_user);
