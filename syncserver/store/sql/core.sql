-- The road of a mark on the server: frames as evidence, changes as the log, what was settled from them.
-- All times are milliseconds since 1970 UTC (`_ms`). A register is named by four columns: school, class_id, date, session.

CREATE TABLE schema_version (version INTEGER NOT NULL) STRICT;

CREATE TABLE meta (name TEXT PRIMARY KEY, value BLOB NOT NULL) STRICT;

-- Every authentic frame, whole, once: `hash` is SHA-256 of what the device signed, and what comes again is found by its device and number,
-- which no index on 32 random bytes has to follow. `carrier`: the device that brought it in a bundle, NULL when it came itself.
-- `offset_floor_ms`: what earlier frames had proved of the phone's clock when this one came (reconciliation/clocks.py).
CREATE TABLE frames (
  id INTEGER PRIMARY KEY,
  hash BLOB NOT NULL,
  device BLOB NOT NULL,
  number INTEGER NOT NULL,
  received_ms INTEGER NOT NULL,
  carrier BLOB,
  wall_ms INTEGER NOT NULL,
  mono_ms INTEGER NOT NULL,
  app_session BLOB NOT NULL,
  beacon_server_ms INTEGER,
  beacon_mono_ms INTEGER,
  offset_floor_ms INTEGER,
  body BLOB NOT NULL
) STRICT;
CREATE INDEX frames_by_number ON frames (device, number);

-- The log. Dense offsets from 1. A change is known by its hash *and* its register: the hash does not cover the register, and
-- two registers of one app session may hold the same bytes (e.g. "held" in both, in the same millisecond). The chunk is a slice of its frame's body (`chunk_at` counts from 1), never a second copy.
CREATE TABLE changes (
  log_offset INTEGER PRIMARY KEY,
  hash BLOB NOT NULL,
  school TEXT NOT NULL,
  class_id TEXT NOT NULL,
  date TEXT NOT NULL,
  session TEXT NOT NULL,
  frame_id INTEGER NOT NULL,
  chunk_at INTEGER NOT NULL,
  chunk_bytes INTEGER NOT NULL,
  delegation TEXT,
  held TEXT,
  UNIQUE (school, class_id, date, session, hash)
) STRICT;

CREATE TABLE devices (
  id BLOB PRIMARY KEY,
  school TEXT NOT NULL,
  user_id TEXT NOT NULL,
  public_key BLOB NOT NULL,
  label TEXT NOT NULL,
  app TEXT NOT NULL,
  enrolled_ms INTEGER NOT NULL,
  revoked_ms INTEGER,
  nonce BLOB,
  last_number INTEGER NOT NULL,
  last_contact_ms INTEGER,
  unsent INTEGER NOT NULL,
  clock_offset_ms INTEGER,
  offset_floor_ms INTEGER,
  done INTEGER NOT NULL,
  flag TEXT,
  flag_ms INTEGER
) STRICT;
CREATE INDEX devices_by_user ON devices (school, user_id);

-- Enrolment codes: `name` is the code's first three letters, `digest` an argon2id digest of the rest.
CREATE TABLE codes (
  id INTEGER PRIMARY KEY,
  school TEXT NOT NULL,
  name TEXT NOT NULL,
  digest TEXT NOT NULL,
  user_id TEXT NOT NULL,
  made_ms INTEGER NOT NULL,
  expires_ms INTEGER NOT NULL,
  tries INTEGER NOT NULL,
  used_ms INTEGER,
  used_device BLOB
) STRICT;
CREATE INDEX codes_by_name ON codes (school, name);

CREATE TABLE directives (
  id INTEGER PRIMARY KEY,
  device BLOB NOT NULL,
  level TEXT NOT NULL,
  reason TEXT NOT NULL,
  made_by TEXT NOT NULL,
  made_ms INTEGER NOT NULL,
  delivered_ms INTEGER,
  done_ms INTEGER
) STRICT;
CREATE INDEX directives_by_device ON directives (device);

-- Every decision of a person or of the server about people's work; `hash` chains each row to the one before. `witness`, its first
-- 4 bytes, travels in every nonce and comes back signed by a phone: what a phone has seen must still be here.
CREATE TABLE audit (
  id INTEGER PRIMARY KEY,
  at_ms INTEGER NOT NULL,
  actor TEXT NOT NULL,
  action TEXT NOT NULL,
  subject TEXT NOT NULL,
  reason TEXT NOT NULL,
  before_json TEXT NOT NULL,
  after_json TEXT NOT NULL,
  prev_hash BLOB NOT NULL,
  hash BLOB NOT NULL,
  witness BLOB NOT NULL
) STRICT;
CREATE INDEX audit_by_witness ON audit (witness);

CREATE TABLE security_events (
  id INTEGER PRIMARY KEY,
  at_ms INTEGER NOT NULL,
  device BLOB NOT NULL,
  kind TEXT NOT NULL,
  detail TEXT NOT NULL
) STRICT;

-- How far each partition of the log is settled. `fence` rises with every claim: whoever holds an older one writes nothing.
CREATE TABLE consumers (
  partition_no INTEGER PRIMARY KEY,
  log_offset INTEGER NOT NULL,
  fence INTEGER NOT NULL DEFAULT 0
) STRICT;

-- Work that is not caused by a new change: a roster import, a calendar exception, a requeue.
-- `class_id` or `date` NULL: every class, every date of the school.
CREATE TABLE settle_again (
  id INTEGER PRIMARY KEY,
  school TEXT NOT NULL,
  class_id TEXT,
  date TEXT,
  session TEXT,
  cause TEXT NOT NULL,
  at_ms INTEGER NOT NULL
) STRICT;
CREATE INDEX settle_again_by_register ON settle_again (school, class_id, date, session);
CREATE INDEX settle_again_whole ON settle_again (id) WHERE session IS NULL;
CREATE INDEX settle_again_large ON settle_again (at_ms) WHERE cause = 'large';

-- `body` and `revisions` (the last event number per pupil) as store/packed.py writes them. `first_seq`, `last_seq`: the place in the feed
-- of what this outcome told, as long as it is its register's first; what it told follows from it and is not stored.
-- `source_offset`: the change that `body` refers to, NULL where it stands for itself: read bodies from `whole_outcomes`, not from here.
-- `counts`: what reports need of it, see store/summaries.py. Derived: it counts only as long as the revision in it is the row's.
CREATE TABLE outcomes (
  school TEXT NOT NULL,
  class_id TEXT NOT NULL,
  date TEXT NOT NULL,
  session TEXT NOT NULL,
  revision INTEGER NOT NULL,
  settled_ms INTEGER NOT NULL,
  body BLOB NOT NULL,
  revisions BLOB NOT NULL,
  first_seq INTEGER,
  last_seq INTEGER,
  source_offset INTEGER,
  counts BLOB,
  PRIMARY KEY (school, class_id, date, session)
) STRICT;
CREATE INDEX outcomes_by_seq ON outcomes (last_seq) WHERE last_seq IS NOT NULL;

-- Outcomes as they are read: behind a body that refers to a change stands the chunk of that change. A subquery and no join: whatever a
-- planner believes of the tables, the change is looked up by its offset; one of another register is none.
CREATE VIEW whole_outcomes AS
SELECT school, class_id, date, session, revision, settled_ms,
  coalesce(CAST(body || (SELECT substr(f.body, c.chunk_at, c.chunk_bytes) FROM changes c JOIN frames f ON f.id = c.frame_id
    WHERE c.log_offset = outcomes.source_offset AND c.school = outcomes.school AND c.class_id = outcomes.class_id
    AND c.date = outcomes.date AND c.session = outcomes.session) AS BLOB), body) AS body,
  revisions, first_seq, last_seq, source_offset, counts
FROM outcomes;

-- What one settling of one register told downstream, unless it follows from an outcome that still stands: events first_seq to last_seq,
-- a JSON array, zlib (40 marks: 28 kB plain, 2 kB here).
CREATE TABLE events (
  first_seq INTEGER PRIMARY KEY,
  last_seq INTEGER NOT NULL UNIQUE,
  school TEXT NOT NULL,
  register TEXT NOT NULL,
  body BLOB NOT NULL
) STRICT;

-- Where everything stands in the feed: `body` as in `events`, or the outcome from which it follows, as stored, and when it was settled.
CREATE VIEW told AS
SELECT first_seq, last_seq, school, register, body, NULL AS outcome, NULL AS settled_ms FROM events
UNION ALL
SELECT first_seq, last_seq, school, school || '/' || class_id || '/' || date || '/' || session, NULL, body, settled_ms
FROM outcomes WHERE last_seq IS NOT NULL;

-- The word on each settled change. `seq` rises whenever the word changes, `merged_seq` is the seq at which it was first merged.
CREATE TABLE settlements (
  log_offset INTEGER PRIMARY KEY,
  seq INTEGER NOT NULL UNIQUE,
  merged_seq INTEGER,
  school TEXT NOT NULL,
  class_id TEXT NOT NULL,
  device BLOB NOT NULL,
  state INTEGER NOT NULL,
  slug TEXT,
  revision INTEGER NOT NULL
) STRICT;
CREATE INDEX settlements_by_class ON settlements (school, class_id, merged_seq);
CREATE INDEX settlements_by_device ON settlements (device, seq);
CREATE INDEX settlements_waiting ON settlements (log_offset) WHERE state = 3;

-- Greatest settlement sequence per school: tells a pull in one look that there is nothing new.
CREATE TABLE settled_heads (school TEXT PRIMARY KEY, seq INTEGER NOT NULL) STRICT;

CREATE TABLE dead_letters (
  id INTEGER PRIMARY KEY,
  log_offset INTEGER NOT NULL UNIQUE,
  school TEXT NOT NULL,
  class_id TEXT NOT NULL,
  date TEXT NOT NULL,
  session TEXT NOT NULL,
  code TEXT NOT NULL,
  detail TEXT NOT NULL,
  at_ms INTEGER NOT NULL,
  requeued INTEGER NOT NULL
) STRICT;
