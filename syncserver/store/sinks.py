"""Rows of sinks: who is sent events, and how far each has come."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from syncserver.feed import EVERY_SCHOOL
from syncserver.store.port import Reader, Row, Transaction
from syncserver.store.told import read_spans

ACTIVE, PAUSED, ENDED = "active", "paused", "ended"
BACKLOG_ROWS_MAX = 10_000  # rows of `events` that are looked at to count what waits for one sink

_COLUMNS = (
    "name, url, secret, every_school, state, sent_seq, planned_seq, generation, failures, next_try_ms, last_result, "
    "last_try_ms, last_taken_ms, made_by, made_ms, ended_ms"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sink:
    """One consumer of events.

    Attributes:
        name: For ever, of a program or office.
        url: Where events are sent.
        secret: `whsec_…`; in no listing, log or message.
        schools: Whose events; None: every school's.
        state: `ACTIVE`, `PAUSED` or `ENDED`.
        sent_seq: Everything up to it was taken, or is not for it.
        planned_seq: Last event of the batch on its way.
        generation: How often events were ordered anew.
        failures: Tries since the last that was taken.
        next_try_ms: No try before it.
        last_result: What became of the last try: `http 200`, `timeout`, …; empty before the first.
        last_try_ms: When it was.
        last_taken_ms: When the consumer last took a batch.
        made_by: Who added it.
        made_ms: When.
        ended_ms: When it ended.
    """

    name: str
    url: str
    secret: str = field(repr=False)
    schools: frozenset[str] | None
    state: str
    sent_seq: int
    planned_seq: int | None
    generation: int
    failures: int
    next_try_ms: int
    last_result: str
    last_try_ms: int | None
    last_taken_ms: int | None
    made_by: str
    made_ms: int
    ended_ms: int | None


async def read_sink(reader: Reader, name: str) -> Sink | None:
    """One sink."""
    row = await reader.fetch_one(f"SELECT {_COLUMNS} FROM sinks WHERE name = ?", (name,))
    if row is None:
        return None
    schools = await reader.fetch_all("SELECT school FROM sink_schools WHERE name = ?", (name,))
    return _sink(row, [school for (school,) in schools])


async def read_sinks(reader: Reader) -> list[Sink]:
    """Every sink there ever was, by name."""
    schools: dict[str, list[str]] = {}
    for name, school in await reader.fetch_all("SELECT name, school FROM sink_schools"):
        schools.setdefault(name, []).append(school)
    rows = await reader.fetch_all(f"SELECT {_COLUMNS} FROM sinks ORDER BY name")
    return [_sink(row, schools.get(row[0], ())) for row in rows]


def _sink(row: Row, schools: Sequence[str]) -> Sink:
    name, url, secret, every_school, *rest = row
    state, sent_seq, planned_seq, generation, failures, next_try_ms, last_result, *times = rest
    last_try_ms, last_taken_ms, made_by, made_ms, ended_ms = times
    return Sink(
        name=name,
        url=url,
        secret=secret,
        schools=None if every_school else frozenset(schools),
        state=state,
        sent_seq=sent_seq,
        planned_seq=planned_seq,
        generation=generation,
        failures=failures,
        next_try_ms=next_try_ms,
        last_result=last_result,
        last_try_ms=last_try_ms,
        last_taken_ms=last_taken_ms,
        made_by=made_by,
        made_ms=made_ms,
        ended_ms=ended_ms,
    )


async def active_names(reader: Reader) -> list[str]:
    """Sinks that are to be served."""
    return [name for (name,) in await reader.fetch_all("SELECT name FROM sinks WHERE state = ?", (ACTIVE,))]


async def write_sink(tx: Transaction, sink: Sink, *, audit_id: int) -> None:
    """Add a new sink."""
    await tx.execute(
        f"INSERT INTO sinks ({_COLUMNS}, audit_id) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            sink.name, sink.url, sink.secret, int(sink.schools is None), sink.state, sink.sent_seq, sink.planned_seq,
            sink.generation, sink.failures, sink.next_try_ms, sink.last_result, sink.last_try_ms, sink.last_taken_ms,
            sink.made_by, sink.made_ms, sink.ended_ms, audit_id,
        ),
    )  # fmt: skip
    schools = sorted(sink.schools or ())
    await tx.executemany("INSERT INTO sink_schools VALUES (?, ?)", [(sink.name, school) for school in schools])


# ---- decisions of people ----------------------------------------------------------------------------------------


async def set_state(tx: Transaction, name: str, state: str, *, ended_ms: int | None = None) -> None:
    """Pause, go on (without waiting for the next try), or end for ever."""
    await tx.execute(
        "UPDATE sinks SET state = ?, ended_ms = ?, next_try_ms = 0 WHERE name = ?", (state, ended_ms, name)
    )


async def send_anew(tx: Transaction, name: str, *, sent_seq: int) -> None:
    """Go on behind `sent_seq`; a batch on its way does not count for it any more."""
    await tx.execute(
        """UPDATE sinks SET sent_seq = ?, planned_seq = NULL, generation = generation + 1, failures = 0,
        next_try_ms = 0 WHERE name = ?""",
        (sent_seq, name),
    )


# ---- deliveries -------------------------------------------------------------------------------------------------


async def plan(tx: Transaction, sink: Sink, planned_seq: int) -> bool:
    """Write down how far the next batch goes; False when somebody has changed the sink meanwhile."""
    changed = await tx.execute(
        "UPDATE sinks SET planned_seq = ? WHERE name = ? AND generation = ? AND sent_seq = ? AND state = ?",
        (planned_seq, sink.name, sink.generation, sink.sent_seq, ACTIVE),
    )
    return changed == 1


async def pass_over(tx: Transaction, sink: Sink, to_seq: int) -> None:
    """Nothing up to `to_seq` is for this sink."""
    await tx.execute(
        "UPDATE sinks SET sent_seq = ? WHERE name = ? AND generation = ? AND sent_seq = ? AND planned_seq IS NULL",
        (to_seq, sink.name, sink.generation, sink.sent_seq),
    )


async def write_taken(tx: Transaction, sink: Sink, to_seq: int, *, result: str, now_ms: int) -> None:
    """The consumer has taken everything up to `to_seq`, also when the sink was paused meanwhile."""
    await tx.execute(
        """UPDATE sinks SET sent_seq = ?, planned_seq = NULL, failures = 0, next_try_ms = 0, last_result = ?,
        last_try_ms = ?, last_taken_ms = ? WHERE name = ? AND generation = ?""",
        (to_seq, result, now_ms, now_ms, sink.name, sink.generation),
    )


async def write_failed(tx: Transaction, sink: Sink, *, result: str, now_ms: int, next_try_ms: int) -> None:
    """The batch was not taken."""
    await tx.execute(
        """UPDATE sinks SET failures = failures + 1, next_try_ms = ?, last_result = ?, last_try_ms = ?
        WHERE name = ? AND generation = ?""",
        (next_try_ms, result, now_ms, sink.name, sink.generation),
    )


# ---- what waits -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Backlog:
    """What waits for a sink, among the next `BACKLOG_ROWS_MAX` registers that were settled.

    Attributes:
        events: How many.
        first_seq: The oldest.
    """

    events: int
    first_seq: int | None


async def read_backlog(reader: Reader, sink: Sink) -> Backlog:
    """Count what waits for a sink."""
    names = None if sink.schools is None else sorted({*sink.schools, EVERY_SCHOOL})
    rows = await read_spans(reader, after=sink.sent_seq, limit=BACKLOG_ROWS_MAX, schools=names)
    waiting = [(max(first_seq, sink.sent_seq + 1), last_seq) for first_seq, last_seq in rows]
    return Backlog(
        events=sum(last_seq - first_seq + 1 for first_seq, last_seq in waiting),
        first_seq=waiting[0][0] if waiting else None,
    )
