"""What was told downstream, as rows: the events of one settling of one register are one row.

What a register's first outcome told follows from it, and is not stored as long as that outcome stands: its row is the
feed's too. When it is replaced, the events are written down in the same transaction, at the same place. The view `told`
shows both as one feed.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from syncserver.store.key import BY_KEY, Key
from syncserver.store.packed import first_events, unpack_json, unpack_outcome
from syncserver.store.port import Reader, Row, placeholders

LAST_SEQ = """coalesce((SELECT max(ends.seq) FROM (SELECT max(last_seq) AS seq FROM events
UNION ALL SELECT max(last_seq) FROM outcomes WHERE last_seq IS NOT NULL) AS ends), 0)"""
"""SQL: the sequence of the last event; 0 before the first."""

# Each half is cut by itself: through the view, a page would sort everything behind it. Bodies are read of what is left.
_FEED = """
SELECT * FROM (SELECT first_seq, last_seq, register, body, CAST(NULL AS BLOB) AS outcome,
  CAST(NULL AS INTEGER) AS settled_ms FROM events WHERE last_seq > ? {0} ORDER BY last_seq LIMIT ?) AS written
UNION ALL
SELECT o.first_seq, o.last_seq, o.school || '/' || o.class_id || '/' || o.date || '/' || o.session AS register,
  CAST(NULL AS BLOB) AS body, {1} AS outcome, o.settled_ms
FROM (SELECT first_seq, last_seq, school, class_id, date, session, settled_ms
  FROM outcomes WHERE last_seq > ? {0} ORDER BY last_seq LIMIT ?) AS o
ORDER BY 2 LIMIT ?"""
_BODY = f"(SELECT w.body FROM whole_outcomes w WHERE {BY_KEY})"
_NO_BODY = "CAST(NULL AS BLOB)"

Told = tuple[int, list[dict[str, Any]]]
"""Sequence of the first event, and the events."""


async def last_seq(reader: Reader) -> int:
    """Sequence of the last event; 0 before the first."""
    row = await reader.fetch_one(f"SELECT {LAST_SEQ}")
    assert row is not None
    return int(row[0])


async def read_told(reader: Reader, *, after: int, limit: int, schools: Sequence[str] | None) -> Iterator[Told]:
    """Rows of the feed with what they tell, in order; each is unpacked when it is asked for.

    Args:
        reader: The store.
        after: Rows with an event of a greater sequence.
        limit: Rows at most.
        schools: Only theirs; None: everybody's.
    """
    return (_told(row) for row in await _rows(reader, _BODY, after, limit, schools))


async def read_spans(reader: Reader, *, after: int, limit: int, schools: Sequence[str] | None) -> list[tuple[int, int]]:
    """First and last sequence of rows of the feed; see `read_told`."""
    return [(row[0], row[1]) for row in await _rows(reader, _NO_BODY, after, limit, schools)]


async def _rows(reader: Reader, outcome: str, after: int, limit: int, schools: Sequence[str] | None) -> list[Row]:
    names = () if schools is None else tuple(schools)
    where = "" if schools is None else f"AND school IN ({placeholders(len(names))})"
    half = (after, *names, limit)
    return await reader.fetch_all(_FEED.format(where, outcome), (*half, *half, limit))


async def told_of(reader: Reader, key: Key) -> list[Told]:
    """Everything that was told of one register, in order."""
    register = "/".join(key)
    rows = await reader.fetch_all(
        """SELECT first_seq, last_seq, register, body, NULL, NULL FROM events WHERE register = ?
        UNION ALL SELECT first_seq, last_seq, CAST(? AS TEXT), NULL, body, settled_ms FROM whole_outcomes
        WHERE school = ? AND class_id = ? AND date = ? AND session = ? AND last_seq IS NOT NULL ORDER BY 1""",
        (register, register, *key),
    )
    return [_told(row) for row in rows]


def _told(row: Row) -> Told:
    seq, _, register, body, outcome, settled_ms = row
    if outcome is None:
        return seq, unpack_json(body)
    return seq, first_events(unpack_outcome(outcome, register), time_ms=settled_ms)
