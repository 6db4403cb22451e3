-- What `hudur explain` looks up: the events of one register, and the audit rows about one thing.
CREATE INDEX events_by_register ON events (register);
CREATE INDEX audit_by_subject ON audit (subject);
