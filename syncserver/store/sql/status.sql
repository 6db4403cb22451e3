-- What the public status page says of past days. One row an hour (UTC, hours since 1970) about which something is known; each column has
-- one bit a minute, bit 0 the first. A minute that is not in `measured` is unknown, whatever the others say.
CREATE TABLE status_hours (
  hour INTEGER PRIMARY KEY,
  measured INTEGER NOT NULL,
  shed INTEGER NOT NULL,
  delayed INTEGER NOT NULL,
  failed INTEGER NOT NULL
) STRICT;
