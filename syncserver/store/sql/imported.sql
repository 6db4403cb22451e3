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
