-- Who downstream is sent events (webhooks), how far each has come, and what became of the last try.

-- `secret`: whsec_ and base64, kept to sign with, as the server's own key is: a backup is a secret. state: `active`, `paused`, `ended` (for ever:
-- rows are only added, so that a name in the audit trail means one consumer).
-- `sent_seq`: everything up to it was taken by the consumer, or is not for it. `planned_seq`: last event of the batch that is being sent, written
-- before its first try, so that every try of a batch carries the same bytes under the same id. `generation` rises when events are sent anew.
-- `failures`: tries since the last that was taken.
CREATE TABLE sinks (
  name TEXT PRIMARY KEY,
  url TEXT NOT NULL,
  secret TEXT NOT NULL,
  every_school INTEGER NOT NULL,
  state TEXT NOT NULL,
  sent_seq INTEGER NOT NULL,
  planned_seq INTEGER,
  generation INTEGER NOT NULL,
  failures INTEGER NOT NULL,
  next_try_ms INTEGER NOT NULL,
  last_result TEXT NOT NULL,
  last_try_ms INTEGER,
  last_taken_ms INTEGER,
  made_by TEXT NOT NULL,
  made_ms INTEGER NOT NULL,
  ended_ms INTEGER,
  audit_id INTEGER NOT NULL
) STRICT;

-- The schools of a sink that is not for every school.
CREATE TABLE sink_schools (
  name TEXT NOT NULL,
  school TEXT NOT NULL,
  PRIMARY KEY (name, school)
) STRICT;
