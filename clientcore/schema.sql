-- The device, whole: one append-only table, the same on the phone and here (docs/protocol.md section 10).
CREATE TABLE IF NOT EXISTS log (seq INTEGER PRIMARY KEY, kind TEXT NOT NULL, register TEXT, at_ms INTEGER NOT NULL, body BLOB NOT NULL)
