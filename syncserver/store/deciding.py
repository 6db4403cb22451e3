"""Decisions as they are written down, and the registers that wait for one."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping

from reconciliation.decisions import Level
from syncserver.store.key import Key
from syncserver.store.port import Reader, Transaction, placeholders

CAUSE = "decision"
"""Cause of the orders in `settle_again` that a decision leaves."""

_IN_REVIEW = """
SELECT c.school, c.class_id, c.date, c.session FROM settlements s JOIN changes c ON c.log_offset = s.log_offset
WHERE s.school = ? AND s.state = 2 AND c.date >= ? AND c.date <= ?"""
_FIRST, _LAST = "0001-01-01", "9999-12-31"


async def write_decision(
    tx: Transaction,
    key: Key,
    *,
    kind: str,
    body: Mapping[str, object],
    by: str,
    level: Level,
    reference: str,
    at_ms: int,
    audit_id: int,
    pupil: str | None = None,
    change: bytes | None = None,
    bulk_id: int | None = None,
) -> None:
    """Add one decision; see `store/decisions.py` for the bodies."""
    body_json = json.dumps(body, sort_keys=True)
    row = (kind, *key, pupil, change, body_json, by, level.value, reference, at_ms, bulk_id, audit_id)
    await write_decisions(tx, [row])


async def write_decisions(tx: Transaction, rows: Iterable[tuple[object, ...]]) -> None:
    """Add many: kind, register (4), pupil, change, body, by, level, reference, moment, bulk, audit row."""
    await tx.executemany(
        """INSERT INTO decisions (kind, school, class_id, date, session, pupil, change_hash, body_json, by_id, level,
        reference, at_ms, bulk_id, audit_id) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)""",
        rows,
    )


async def settle_again(tx: Transaction, keys: Iterable[Key], *, at_ms: int) -> None:
    """Have registers settled again."""
    await tx.executemany(
        "INSERT INTO settle_again (school, class_id, date, session, cause, at_ms) VALUES (?, ?, ?, ?, ?, ?)",
        [(*key, CAUSE, at_ms) for key in sorted(set(keys))],
    )


async def is_settling(reader: Reader, school: str) -> bool:
    """Whether a decision about the school has not reached the outcomes yet."""
    found = await reader.fetch_one("SELECT 1 FROM settle_again WHERE school = ? AND cause = ? LIMIT 1", (school, CAUSE))
    return found is not None


async def review_keys(
    reader: Reader, school: str, *, kinds: tuple[str, ...] = (), first: str = _FIRST, last: str = _LAST, limit: int
) -> list[Key]:
    """Registers of a school in which something asks for a person, or about which one of `kinds` was decided.

    Args:
        reader: The store.
        school: Which.
        kinds: Kinds of decisions.
        first: First date.
        last: Last date.
        limit: At most so many, the newest dates first.
    """
    sql, params = _IN_REVIEW, [school, first, last]
    if kinds:
        sql += f""" UNION SELECT school, class_id, date, session FROM decisions
        WHERE school = ? AND date >= ? AND date <= ? AND undone_ms IS NULL AND kind IN ({placeholders(len(kinds))})"""
        params += [school, first, last, *kinds]
    rows = await reader.fetch_all(
        f"""SELECT DISTINCT found.school, found.class_id, found.date, found.session FROM ({sql}) AS found
        ORDER BY found.date DESC, found.class_id, found.session LIMIT ?""",
        [*params, limit],
    )
    return [(row[0], row[1], row[2], row[3]) for row in rows]


async def keys_of_pupils(reader: Reader, school: str, pupils: Iterable[str]) -> list[Key]:
    """Settled registers that may hold something of one of the pupils: of their classes, and those in review.

    A mark for a pupil outside the roster is in review (`unknown-pupil`), whatever its class.
    """
    names = sorted(set(pupils))
    rows = await reader.fetch_all(
        f"""SELECT school, class_id, date, session FROM outcomes WHERE school = ? AND class_id IN
        (SELECT class_id FROM members WHERE school = ? AND user_id IN ({placeholders(len(names))}))
        UNION {_IN_REVIEW}""",
        [school, school, *names, school, _FIRST, _LAST],
    )
    return [(row[0], row[1], row[2], row[3]) for row in rows]
