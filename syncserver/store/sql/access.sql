-- Who may speak to the server without a phone: offices and programs, each by a bearer token of its own.

-- `digest`: SHA-256 of the token, which is shown once and stored nowhere. scope: `all`, `district` (its schools as `places` has them on
-- the day of the request) or `schools`. A name belongs to one holder for ever, so that the audit stays readable: rows are only added.
CREATE TABLE tokens (
  name TEXT PRIMARY KEY,
  digest BLOB NOT NULL UNIQUE,
  role TEXT NOT NULL,
  scope TEXT NOT NULL,
  district TEXT,
  made_by TEXT NOT NULL,
  made_ms INTEGER NOT NULL,
  revoked_ms INTEGER,
  audit_id INTEGER NOT NULL
) STRICT;

-- The schools of a token with the scope `schools`.
CREATE TABLE token_schools (
  name TEXT NOT NULL,
  school TEXT NOT NULL,
  PRIMARY KEY (name, school)
) STRICT;

-- The dates on which a delegated class stands on the substitute's phone: from a few days before the span, so that a phone that has no network
-- that morning has the list, through its last day. `until_date` is the first date after. An end taken early moves it. The right itself
-- is the row of the same id in `delegations`.
CREATE TABLE delegated_lists (
  delegation TEXT PRIMARY KEY,
  school TEXT NOT NULL,
  class_id TEXT NOT NULL,
  user_id TEXT NOT NULL,
  from_date TEXT NOT NULL,
  until_date TEXT NOT NULL
) STRICT;
CREATE INDEX delegated_lists_by_user ON delegated_lists (school, user_id);
