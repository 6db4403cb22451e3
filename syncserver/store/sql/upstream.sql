-- The school system: how long ago it was heard, how far it has our attendance, what it refused, what the nights found. Ids only, no name.

-- The status feed, one row. `horizon_ms`: the last change we know of, by the clock of the school system. `looked_ms`: the last look that
-- succeeded, by ours, and `started_ms` the first try of all: the feed is as old as the later of both. `enrolments_ms`: the last change of an
-- enrolment we know of, which the next import brings.
CREATE TABLE upstream_feed (
  id INTEGER PRIMARY KEY,
  started_ms INTEGER NOT NULL,
  looked_ms INTEGER,
  horizon_ms INTEGER NOT NULL,
  enrolments_ms INTEGER NOT NULL,
  failures INTEGER NOT NULL,
  next_try_ms INTEGER NOT NULL,
  last_result TEXT NOT NULL,
  ended INTEGER NOT NULL
) STRICT;

-- How far attendance was handed over, one row. `sent_seq`: every event up to it has its answer.
CREATE TABLE upstream_sent (
  id INTEGER PRIMARY KEY,
  sent_seq INTEGER NOT NULL,
  failures INTEGER NOT NULL,
  next_try_ms INTEGER NOT NULL,
  last_result TEXT NOT NULL,
  taken_ms INTEGER
) STRICT;

-- Events that were refused, each with the cause it was given; `seq` is its place in our feed. state: `waiting` for a person, `requeued`,
-- `accepted` at last.
CREATE TABLE upstream_letters (
  id INTEGER PRIMARY KEY,
  seq INTEGER NOT NULL UNIQUE,
  event TEXT NOT NULL,
  school TEXT NOT NULL,
  register TEXT NOT NULL,
  pupil TEXT NOT NULL,
  cause TEXT NOT NULL,
  state TEXT NOT NULL,
  tries INTEGER NOT NULL,
  at_ms INTEGER NOT NULL
) STRICT;
CREATE INDEX upstream_letters_by_state ON upstream_letters (state, cause);

-- Every import of a roster from the school system. `fields_json`: which fields we use were filled at least once, so that one that vanishes is
-- noticed. `dropped_json`: what stayed outside, counted.
CREATE TABLE upstream_pulls (
  id INTEGER PRIMARY KEY,
  at_ms INTEGER NOT NULL,
  made_by TEXT NOT NULL,
  state TEXT NOT NULL,
  digest TEXT NOT NULL,
  fields_json TEXT NOT NULL,
  dropped_json TEXT NOT NULL
) STRICT;

-- Every comparison of a date with the school system. `night`: the civil date on which the server made it by itself, NULL where a person
-- asked. state: `same`, `different`, `silent`, `contract`. `body`: the report, JSON, zlib.
CREATE TABLE nightly_runs (
  id INTEGER PRIMARY KEY,
  date TEXT NOT NULL,
  night TEXT,
  at_ms INTEGER NOT NULL,
  made_by TEXT NOT NULL,
  state TEXT NOT NULL,
  body BLOB NOT NULL
) STRICT;
CREATE INDEX nightly_runs_by_night ON nightly_runs (night, date);
