"""What was told downstream, as rows: the events of one settling of one register are one row.

What a register's first outcome told follows from it, so the row is kept without a body until a second outcome takes its
place: then the body is written down in the same transaction. Whoever reads a row without a body and finds a later
outcome looks at the row again.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from syncserver.errors import StoreFailed
from syncserver.store.key import BY_KEY, Key, flat, wanted
from syncserver.store.packed import FOLLOWS, first_events, unpack_json, unpack_outcome
from syncserver.store.port import Params, Reader, Row, placeholders

_AT_ONCE = 200  # registers whose outcomes are asked for at once

Told = tuple[int, list[dict[str, Any]]]
"""Sequence of the first event, and the events."""


async def read_told(reader: Reader, where: str, params: Params) -> list[Told]:
    """Rows of events with what they tell.

    Args:
        reader: The store.
        where: What follows `WHERE` in a query of the table `events`, with ORDER BY and LIMIT.
        params: Its parameters.
    """
    rows = await reader.fetch_all(f"SELECT first_seq, register, body FROM events WHERE {where}", params)
    first = await _first_told(reader, [row for row in rows if row[2] == FOLLOWS])
    return [(seq, first[seq] if body == FOLLOWS else unpack_json(body)) for seq, _, body in rows]


async def _first_told(reader: Reader, rows: Sequence[Row]) -> dict[int, list[dict[str, Any]]]:
    found: dict[int, list[dict[str, Any]]] = {}
    for at in range(0, len(rows), _AT_ONCE):
        seqs = {_key(register): seq for seq, register, _ in rows[at : at + _AT_ONCE]}
        for *key, revision, settled_ms, body in await reader.fetch_all(
            f"""{wanted(list(seqs))} SELECT o.school, o.class_id, o.date, o.session, o.revision, o.settled_ms, o.body
            FROM wanted w JOIN outcomes o ON {BY_KEY}""",
            flat(list(seqs)),
        ):
            if revision == 1:
                outcome = unpack_outcome(body, "/".join(key))
                found[seqs[key[0], key[1], key[2], key[3]]] = first_events(outcome, time_ms=settled_ms)
        missing = sorted(set(seqs.values()) - found.keys())
        if missing:  # settled again since the rows were read: by now their bodies are written down
            for seq, body in await reader.fetch_all(
                f"SELECT first_seq, body FROM events WHERE first_seq IN ({placeholders(len(missing))})", missing
            ):
                if body != FOLLOWS:
                    found[seq] = unpack_json(body)
        if len(found) < min(len(rows), at + _AT_ONCE):
            raise StoreFailed("storage", "events of a first outcome that is not here")
    return found


def _key(register: str) -> Key:
    school, class_id, date, session = register.split("/")
    return school, class_id, date, session
