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
