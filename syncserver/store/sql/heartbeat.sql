-- When the store last lived: one row, written every second where servers read from a replica. What a replica shows here says how old it is.
CREATE TABLE heartbeat (
  id INTEGER PRIMARY KEY,
  at_ms INTEGER NOT NULL
) STRICT;
