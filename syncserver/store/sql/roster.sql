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
