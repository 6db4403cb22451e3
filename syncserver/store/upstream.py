"""Rows about the school system: the status feed, what was handed over, what was refused, imports and nights."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from syncserver.store.key import BY_KEY, flat, wanted
from syncserver.store.packed import unpack_outcome, unpack_revisions
from syncserver.store.port import Reader, Transaction, placeholders

WAITING, REQUEUED, ACCEPTED = "waiting", "requeued", "accepted"
SUPERSEDED = "superseded"  # a later word about the same pupil has been told since: this one is never sent again
PULLED = ("applied", "unchanged")
_ONE = 1  # the only row of tables that have one


# ---- the status feed --------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class FeedState:
    """Where the status feed stands; see `upstream.sql`."""

    started_ms: int
    looked_ms: int | None
    horizon_ms: int
    enrolments_ms: int
    failures: int
    next_try_ms: int
    last_result: str
    ended: int

    def age_ms(self, now_ms: int) -> int:
        """How long ago upstream was heard, or first asked in vain."""
        return max(0, now_ms - (self.started_ms if self.looked_ms is None else self.looked_ms))


async def read_feed(reader: Reader) -> FeedState | None:
    """The status feed, or None before its first try."""
    row = await reader.fetch_one(
        """SELECT started_ms, looked_ms, horizon_ms, enrolments_ms, failures, next_try_ms, last_result, ended
        FROM upstream_feed WHERE id = ?""",
        (_ONE,),
    )
    if row is None:
        return None
    started_ms, looked_ms, horizon_ms, enrolments_ms, failures, next_try_ms, last_result, ended = row
    return FeedState(
        started_ms=started_ms, looked_ms=looked_ms, horizon_ms=horizon_ms, enrolments_ms=enrolments_ms,
        failures=failures, next_try_ms=next_try_ms, last_result=last_result, ended=ended,
    )  # fmt: skip


async def start_feed(tx: Transaction, *, now_ms: int, horizon_ms: int) -> None:
    """The first try."""
    await tx.execute(
        "INSERT INTO upstream_feed VALUES (?, ?, NULL, ?, ?, 0, 0, '', 0) ON CONFLICT (id) DO NOTHING",
        (_ONE, now_ms, horizon_ms, horizon_ms),
    )


async def write_looked(
    tx: Transaction, *, now_ms: int, next_try_ms: int, horizon_ms: int, enrolments_ms: int, ended: int
) -> None:
    """A look that succeeded. The horizon never goes back."""
    await tx.execute(
        """UPDATE upstream_feed SET looked_ms = ?, next_try_ms = ?, failures = 0, last_result = 'ok', ended = ended + ?,
        horizon_ms = CASE WHEN horizon_ms < ? THEN ? ELSE horizon_ms END,
        enrolments_ms = CASE WHEN enrolments_ms < ? THEN ? ELSE enrolments_ms END WHERE id = ?""",
        (now_ms, next_try_ms, ended, horizon_ms, horizon_ms, enrolments_ms, enrolments_ms, _ONE),
    )


async def write_unheard(tx: Transaction, *, next_try_ms: int, result: str) -> None:
    """A look that failed."""
    await tx.execute(
        "UPDATE upstream_feed SET failures = failures + 1, next_try_ms = ?, last_result = ? WHERE id = ?",
        (next_try_ms, result, _ONE),
    )


async def active_staff(reader: Reader, user_ids: Sequence[str]) -> dict[str, list[str]]:
    """Of the given people, those who are staff here and not ended: id to schools."""
    found: dict[str, list[str]] = {}
    for at in range(0, len(user_ids), 500):
        some = user_ids[at : at + 500]
        for user_id, school in await reader.fetch_all(
            f"""SELECT id, school FROM users WHERE active = 1 AND role <> 'pupil' AND id IN ({placeholders(len(some))})
            ORDER BY id, school""",
            some,
        ):
            found.setdefault(user_id, []).append(school)
    return found


# ---- attendance handed over -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class SentState:
    """How far attendance was handed over; see `upstream.sql`."""

    sent_seq: int = 0
    failures: int = 0
    next_try_ms: int = 0
    last_result: str = ""
    taken_ms: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Letter:
    """An event that upstream refused."""

    seq: int
    event: str
    school: str
    register: str
    pupil: str
    cause: str


async def read_sent(reader: Reader) -> SentState:
    """How far it is."""
    row = await reader.fetch_one(
        "SELECT sent_seq, failures, next_try_ms, last_result, taken_ms FROM upstream_sent WHERE id = ?", (_ONE,)
    )
    if row is None:
        return SentState()
    names = ("sent_seq", "failures", "next_try_ms", "last_result", "taken_ms")
    return SentState(**dict(zip(names, row, strict=True)))


async def write_taken(
    tx: Transaction, *, sent_seq: int, refused: Sequence[Letter], accepted: Sequence[int], now_ms: int
) -> None:
    """A batch has its answers.

    Args:
        tx: The transaction.
        sent_seq: Every event up to it was answered.
        refused: With what cause.
        accepted: Sequences of events that were accepted.
        now_ms: Server time.
    """
    await tx.execute(
        """INSERT INTO upstream_sent VALUES (?, ?, 0, 0, 'ok', ?) ON CONFLICT (id) DO UPDATE SET
        sent_seq = excluded.sent_seq, failures = 0, next_try_ms = 0, last_result = 'ok',
        taken_ms = excluded.taken_ms""",
        (_ONE, sent_seq, now_ms),
    )
    await tx.executemany(
        """INSERT INTO upstream_letters (seq, event, school, register, pupil, cause, state, tries, at_ms)
        VALUES (?, ?, ?, ?, ?, ?, ?, 1, ?) ON CONFLICT (seq) DO UPDATE SET
        cause = excluded.cause, state = excluded.state, tries = upstream_letters.tries + 1, at_ms = excluded.at_ms""",
        [(one.seq, one.event, one.school, one.register, one.pupil, one.cause, WAITING, now_ms) for one in refused],
    )
    await tx.executemany(
        "UPDATE upstream_letters SET state = ?, at_ms = ?, tries = tries + 1 WHERE seq = ?",
        [(ACCEPTED, now_ms, seq) for seq in accepted],
    )


async def write_failed(tx: Transaction, *, next_try_ms: int, result: str) -> None:
    """A batch has no answer."""
    await tx.execute(
        """INSERT INTO upstream_sent VALUES (?, 0, 1, ?, ?, NULL) ON CONFLICT (id) DO UPDATE SET
        failures = upstream_sent.failures + 1, next_try_ms = excluded.next_try_ms,
        last_result = excluded.last_result""",
        (_ONE, next_try_ms, result),
    )


async def requeued(reader: Reader, limit: int) -> list[int]:
    """Sequences of refused events that a person wants sent again, oldest first."""
    rows = await reader.fetch_all(
        "SELECT seq FROM upstream_letters WHERE state = ? ORDER BY seq LIMIT ?", (REQUEUED, limit)
    )
    return [seq for (seq,) in rows]


async def write_superseded(tx: Transaction, sequences: Sequence[int], *, now_ms: int) -> None:
    """These refused events are history: a later word about the same pupil stands."""
    await tx.executemany(
        "UPDATE upstream_letters SET state = ?, at_ms = ? WHERE seq = ?",
        [(SUPERSEDED, now_ms, seq) for seq in sequences],
    )


async def last_revisions(reader: Reader, registers: Sequence[str]) -> dict[str, dict[str, int]]:
    """Register to pupil to the number of the last event about them."""
    found: dict[str, dict[str, int]] = {}
    keys = [(a, b, c, d) for a, b, c, d in (one.split("/") for one in sorted(set(registers)) if one.count("/") == 3)]
    for at in range(0, len(keys), 200):
        some = keys[at : at + 200]
        for *key, body, revisions in await reader.fetch_all(
            f"""{wanted(some)} SELECT o.school, o.class_id, o.date, o.session, o.body, o.revisions
            FROM wanted w JOIN whole_outcomes o ON {BY_KEY}""",
            flat(some),
        ):
            register = "/".join(key)
            found[register] = unpack_revisions(revisions, unpack_outcome(body, register))
    return found


def revision_of(event: str) -> int:
    """The revision in an event's id, `<register>/<pupil>/<revision>`; 0 where it has none."""
    tail = event.rpartition("/")[2]
    return int(tail) if tail.isdecimal() else 0


async def letters_by_cause(reader: Reader) -> list[dict[str, Any]]:
    """Refused events that wait for a person, by cause; the most first."""
    rows = await reader.fetch_all(
        """SELECT cause, count(*), min(at_ms), count(DISTINCT school) FROM upstream_letters WHERE state = ?
        GROUP BY cause ORDER BY 2 DESC, 1""",
        (WAITING,),
    )
    return [dict(zip(("cause", "letters", "oldest_ms", "schools"), row, strict=True)) for row in rows]


async def requeue(tx: Transaction, *, letter: int | None, cause: str | None) -> list[tuple[int, str]]:
    """Send refused events again: one, those of a cause, or all; returns their ids and causes."""
    which, params = ("1 = 1", ()) if cause is None else ("cause = ?", (cause,))  # type: tuple[str, tuple[object, ...]]
    if letter is not None:
        which, params = "id = ?", (letter,)
    rows = await tx.fetch_all(
        f"SELECT id, cause FROM upstream_letters WHERE state = ? AND {which} ORDER BY id", (WAITING, *params)
    )
    await tx.execute(f"UPDATE upstream_letters SET state = ? WHERE state = ? AND {which}", (REQUEUED, WAITING, *params))
    return [(row[0], row[1]) for row in rows]


async def refused_cells(reader: Reader, registers: Sequence[str]) -> set[tuple[str, str]]:
    """Registers and pupils of whom the last word upstream had was refused."""
    found: set[tuple[str, str]] = set()
    revisions = await last_revisions(reader, registers)
    for at in range(0, len(registers), 500):
        some = registers[at : at + 500]
        rows = await reader.fetch_all(
            f"""SELECT register, pupil, event FROM upstream_letters WHERE state <> ? AND state <> ?
            AND register IN ({placeholders(len(some))})""",
            (ACCEPTED, SUPERSEDED, *some),
        )
        found |= {
            (register, pupil)
            for register, pupil, event in rows
            if revision_of(event) >= revisions.get(register, {}).get(pupil, 0)
        }
    return found


async def unsent(reader: Reader, sent_seq: int) -> int:
    """How many events wait to be handed over."""
    row = await reader.fetch_one(
        """SELECT coalesce(sum(CASE WHEN first_seq > ? THEN last_seq - first_seq + 1 ELSE last_seq - ? END), 0)
        FROM told WHERE last_seq > ?""",
        (sent_seq, sent_seq, sent_seq),
    )
    assert row is not None
    return int(row[0])


async def unsent_registers(reader: Reader, sent_seq: int, date: str) -> set[str]:
    """Registers of a date of which an event waits to be handed over."""
    rows = await reader.fetch_all(
        "SELECT DISTINCT register FROM told WHERE last_seq > ? AND register LIKE ?", (sent_seq, f"%/{date}/%")
    )
    return {row[0] for row in rows}


# ---- imports and nights -----------------------------------------------------------------------------------------


async def last_pull(reader: Reader) -> dict[str, Any] | None:
    """The last import that was applied (or found nothing to change)."""
    row = await reader.fetch_one(
        f"""SELECT at_ms, made_by, state, digest, fields_json, dropped_json FROM upstream_pulls
        WHERE state IN ({placeholders(len(PULLED))}) ORDER BY id DESC LIMIT 1""",
        PULLED,
    )
    if row is None:
        return None
    at_ms, made_by, state, digest, fields, dropped = row
    return {"at_ms": at_ms, "made_by": made_by, "state": state, "digest": digest, "fields": json.loads(fields),
            "dropped": json.loads(dropped)}  # fmt: skip


async def write_pull(
    tx: Transaction, *, at_ms: int, made_by: str, state: str, digest: str, fields: Mapping[str, Any],
    dropped: Mapping[str, int],
) -> None:  # fmt: skip
    """An import was tried."""
    await tx.execute(
        """INSERT INTO upstream_pulls (at_ms, made_by, state, digest, fields_json, dropped_json)
        VALUES (?, ?, ?, ?, ?, ?)""",
        (at_ms, made_by, state, digest, json.dumps(dict(fields)), json.dumps(dict(dropped))),
    )


async def write_night(
    tx: Transaction, *, date: str, night: str | None, at_ms: int, made_by: str, state: str, body: bytes
) -> None:
    """A date was compared."""
    await tx.execute(
        "INSERT INTO nightly_runs (date, night, at_ms, made_by, state, body) VALUES (?, ?, ?, ?, ?, ?)",
        (date, night, at_ms, made_by, state, body),
    )


async def compared_on(reader: Reader, night: str) -> set[str]:
    """Dates that were compared in a night, with both sides heard."""
    rows = await reader.fetch_all(
        "SELECT date FROM nightly_runs WHERE night = ? AND state IN ('same', 'different')", (night,)
    )
    return {row[0] for row in rows}


async def last_runs(reader: Reader, limit: int) -> list[dict[str, Any]]:
    """The last comparisons, newest first."""
    rows = await reader.fetch_all(
        "SELECT date, night, at_ms, made_by, state FROM nightly_runs ORDER BY id DESC LIMIT ?", (limit,)
    )
    return [dict(zip(("date", "night", "at_ms", "made_by", "state"), row, strict=True)) for row in rows]


async def outcome_bodies(reader: Reader, school: str, date: str) -> list[tuple[str, bytes]]:
    """Official registers of a school and date: register and body."""
    rows = await reader.fetch_all(
        "SELECT class_id, session, body FROM whole_outcomes WHERE school = ? AND date = ? ORDER BY class_id, session",
        (school, date),
    )
    return [(f"{school}/{class_id}/{date}/{session}", body) for class_id, session, body in rows]


async def class_bodies(reader: Reader, school: str, class_id: str, date: str) -> list[tuple[str, bytes]]:
    """The same of one class."""
    rows = await reader.fetch_all(
        "SELECT session, body FROM whole_outcomes WHERE school = ? AND class_id = ? AND date = ? ORDER BY session",
        (school, class_id, date),
    )
    return [(f"{school}/{class_id}/{date}/{session}", body) for session, body in rows]
