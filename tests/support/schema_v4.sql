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
-- The school calendar as central offices decided it. `scope` is '*' (every school) or a governorate, never a school: a school cannot
-- decide its own calendar. Every row names its decision (`reference`) and the audit row that tells the story (`audit_id`).

-- Where a school lies. Said by an operator or the central office, not by upstream. `governorate` names the scope that holds for it.
CREATE TABLE places (
  school TEXT PRIMARY KEY,
  district TEXT NOT NULL,
  governorate TEXT NOT NULL,
  audit_id INTEGER NOT NULL
) STRICT;
CREATE INDEX places_by_governorate ON places (governorate);

-- The open days of the week for a span of dates, `open_days` as digits (0 is Monday). `until_date` NULL: until somebody decides otherwise.
CREATE TABLE calendar_weeks (
  id INTEGER PRIMARY KEY,
  scope TEXT NOT NULL,
  from_date TEXT NOT NULL,
  until_date TEXT,
  open_days TEXT NOT NULL,
  reference TEXT NOT NULL,
  audit_id INTEGER NOT NULL,
  ended_ms INTEGER
) STRICT;

-- Dates that differ from the week's pattern. `is_open` NULL: the exception was taken back and the layer below speaks again.
CREATE TABLE calendar_exceptions (
  scope TEXT NOT NULL,
  date TEXT NOT NULL,
  is_open INTEGER,
  reason TEXT NOT NULL,
  reference TEXT NOT NULL,
  audit_id INTEGER NOT NULL,
  PRIMARY KEY (scope, date)
) STRICT;

-- Session times for a span of dates, `sessions_json` as [[session, starts_min, ends_min, closes_min or null], ...] in minutes since
-- local midnight. `provisional` 1: the dates await an announcement.
CREATE TABLE timetables (
  id INTEGER PRIMARY KEY,
  scope TEXT NOT NULL,
  kind TEXT NOT NULL,
  from_date TEXT NOT NULL,
  until_date TEXT NOT NULL,
  sessions_json TEXT NOT NULL,
  provisional INTEGER NOT NULL,
  reference TEXT NOT NULL,
  audit_id INTEGER NOT NULL,
  ended_ms INTEGER
) STRICT;

-- The last audit row that touched the calendar of a scope, or the place of a school: tells a pull in one look that nothing is new.
CREATE TABLE calendar_heads (name TEXT PRIMARY KEY, audit_id INTEGER NOT NULL) STRICT;
-- The road of a mark on the server: frames as evidence, changes as the log, what was settled from them.
-- All times are milliseconds since 1970 UTC (`_ms`). A register is named by four columns: school, class_id, date, session.

CREATE TABLE schema_version (version INTEGER NOT NULL) STRICT;

CREATE TABLE meta (name TEXT PRIMARY KEY, value BLOB NOT NULL) STRICT;

-- Every authentic frame, whole, once. `carrier`: the device that brought it in a bundle, NULL when it came itself.
-- `offset_floor_ms`: what earlier frames had proved of the phone's clock when this one came (reconciliation/clocks.py).
CREATE TABLE frames (
  id INTEGER PRIMARY KEY,
  hash BLOB NOT NULL UNIQUE,
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
  PRIMARY KEY (school, class_id, date, session)
) STRICT;
CREATE INDEX outcomes_by_seq ON outcomes (last_seq) WHERE last_seq IS NOT NULL;

-- What one settling of one register told downstream, unless it follows from an outcome that still stands: events first_seq to last_seq,
-- a JSON array, zlib (40 marks: 28 kB plain, 2 kB here).
CREATE TABLE events (
  first_seq INTEGER PRIMARY KEY,
  last_seq INTEGER NOT NULL UNIQUE,
  school TEXT NOT NULL,
  register TEXT NOT NULL,
  body BLOB NOT NULL
) STRICT;

-- The whole feed: `body` as in `events`, or the outcome from which it follows and when that was settled.
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
-- What `hudur explain` looks up: the events of one register, and the audit rows about one thing.
CREATE INDEX events_by_register ON events (register);
CREATE INDEX audit_by_subject ON audit (subject);
-- When the store last lived: one row, written every second where servers read from a replica. What a replica shows here says how old it is.
CREATE TABLE heartbeat (
  id INTEGER PRIMARY KEY,
  at_ms INTEGER NOT NULL
) STRICT;
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
-- Who is in which class and when. Nothing is ever removed: what upstream withdraws is ended, and the roster of a past day stays readable.
-- Dates are civil dates YYYY-MM-DD; periods are half-open: from_date is the first day, until_date the first day after, NULL is open.
-- `active` 0: upstream withdrew the row (`ended_at_ms` says when we learnt it); a period that has run out is no withdrawal.

-- `roster_version` rises with every import that changes any row of the school; `sessions`: the sessions in use, by spaces.
CREATE TABLE schools (
  school TEXT PRIMARY KEY,
  name TEXT NOT NULL,
  sessions TEXT NOT NULL,
  roster_version INTEGER NOT NULL,
  active INTEGER NOT NULL,
  ended_at_ms INTEGER
) STRICT;

CREATE TABLE users (
  school TEXT NOT NULL,
  id TEXT NOT NULL,
  name TEXT NOT NULL,
  role TEXT NOT NULL,
  from_date TEXT,
  until_date TEXT,
  active INTEGER NOT NULL,
  ended_at_ms INTEGER,
  PRIMARY KEY (school, id)
) STRICT;
CREATE INDEX users_by_role ON users (school, role) WHERE role <> 'pupil';

-- What somebody was before an import gave them another role (`users.role`): the role of a register's day decides about it.
CREATE TABLE past_roles (
  id INTEGER PRIMARY KEY,
  school TEXT NOT NULL,
  user_id TEXT NOT NULL,
  role TEXT NOT NULL,
  from_date TEXT,
  until_date TEXT NOT NULL
) STRICT;
CREATE INDEX past_roles_by_school ON past_roles (school, role);

-- `version` rises with every import that changes what a phone shows of the class; see store/roster.py for what is served.
CREATE TABLE classes (
  school TEXT NOT NULL,
  id TEXT NOT NULL,
  name TEXT NOT NULL,
  grade TEXT NOT NULL,
  version INTEGER NOT NULL,
  active INTEGER NOT NULL,
  ended_at_ms INTEGER,
  PRIMARY KEY (school, id)
) STRICT;

-- One row for each stay of a person in a class; who leaves and comes back has two (`spell` 1, 2). `roll`: place in the list.
CREATE TABLE members (
  school TEXT NOT NULL,
  class_id TEXT NOT NULL,
  user_id TEXT NOT NULL,
  role TEXT NOT NULL,
  spell INTEGER NOT NULL,
  from_date TEXT NOT NULL,
  until_date TEXT,
  roll INTEGER NOT NULL,
  active INTEGER NOT NULL,
  ended_at_ms INTEGER,
  PRIMARY KEY (school, class_id, user_id, role, spell)
) STRICT;
CREATE INDEX members_by_user ON members (school, user_id);

-- Every import that was applied: what file, by whom, what it did and what it left at the door. Counts only, no names.
CREATE TABLE roster_imports (
  id INTEGER PRIMARY KEY,
  at_ms INTEGER NOT NULL,
  digest TEXT NOT NULL,
  made_by TEXT NOT NULL,
  counts_json TEXT NOT NULL,
  dropped_json TEXT NOT NULL
) STRICT;
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
-- What the public status page says of past days. One row an hour (UTC, hours since 1970) about which something is known; each column has
-- one bit a minute, bit 0 the first. A minute that is not in `measured` is unknown, whatever the others say.
CREATE TABLE status_hours (
  hour INTEGER PRIMARY KEY,
  measured INTEGER NOT NULL,
  shed INTEGER NOT NULL,
  delayed INTEGER NOT NULL,
  failed INTEGER NOT NULL
) STRICT;
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
