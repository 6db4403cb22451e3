"""What a round of the settle stage sees: the next registers of its part of the log and all that settling them asks for.

Everything is read at one moment of the store, each table once for all registers of the round.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from reconciliation.model import Context
from syncserver.settling import Task, settle
from syncserver.store import consuming
from syncserver.store import settled as rows
from syncserver.store.key import Key
from syncserver.store.port import Database, Reader, Row
from syncserver.store.registers import StoredChange, changes_of_all, stored_outcome
from syncserver.store.surroundings import contexts_of

LARGE_CHANGES_MIN = 9  # with fewer, of 256 operations at most, a register is settled in passing
OPERATIONS_PER_ROUND_MAX = 20_000  # 256 ordinary registers of 60 pupils; a commit waits for no more than half a second
AGAIN_MAX = 64  # registers settled again per round, so that new changes never wait behind a roster import


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One partition of the log, the tables it is read from, and how its outcomes are written (`Database.refers`)."""

    number: int
    is_whole: bool
    changes: str
    orders: str
    settlements: str
    refers: bool

    @classmethod
    def of(cls, db: Database, number: int) -> Part:
        """A partition of a store."""
        return cls(
            number=number,
            is_whole=db.partitions == 1,
            changes=db.part("changes", number),
            orders=db.part("settle_again", number),
            settlements=db.part("settlements", number),
            refers=db.refers,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Sight:
    """What one round has read, all of it at one moment: of large registers the surroundings only.

    Attributes:
        orders: Whole classes or dates wait to be settled again; then nothing else was read.
        position: Offset up to which everything will be settled after the round.
        settled: Offset up to which it is now.
        fresh: New changes.
        again: Orders to settle a register again.
        tasks: The registers of both.
        previous: Their last outcomes, as stored.
        sizes: How many changes they have.
        contexts: What surrounds them.
        changes: Those of the registers that are not large.
        results: Of registers that the helper has settled: nothing else of them is here then.
        refers: See `Part`.
    """

    orders: bool
    position: int
    settled: int
    fresh: Sequence[consuming.Fresh] = ()
    again: Sequence[consuming.Again] = ()
    tasks: Sequence[Task] = ()
    previous: Mapping[Key, Row] = field(default_factory=dict)
    sizes: Mapping[Key, int] = field(default_factory=dict)
    contexts: Mapping[Key, Context] = field(default_factory=dict)
    changes: Mapping[Key, list[StoredChange]] = field(default_factory=dict)
    results: Mapping[Key, rows.Result] = field(default_factory=dict)
    refers: bool = False

    def is_large(self, task: Task) -> bool:
        """Whether a register takes its turn among the large ones."""
        return self.sizes.get(task.key, 0) >= LARGE_CHANGES_MIN

    def settle(self, task: Task, stored: Sequence[StoredChange], above: int) -> rows.Result:
        """Settle a register from `stored`, its changes or some of them. Pure; `above`: see `reconciliation.events`."""
        previous = self.previous.get(task.key)
        before = None if previous is None else stored_outcome(task.key, previous)
        return settle(task, stored, before=before, context=self.contexts[task.key], above=above, refers=self.refers)


async def look(reader: Reader, part: Part, limit: int, zone: str) -> Sight:
    """Everything a round needs to know.

    Args:
        reader: The store at one moment.
        part: Which part of the log.
        limit: New changes at most; 1: one thing at a time, to find what cannot be looked at.
        zone: The schools' time zone (IANA name).
    """
    settled = await consuming.read_position(reader, part.number)
    if await consuming.has_orders(reader, orders=part.orders):
        return Sight(orders=True, position=settled, settled=settled)
    fresh, again = await next_of(reader, part, settled, limit)
    tasks = _tasks(fresh, again)
    keys = [task.key for task in tasks]
    if not keys:  # whoever asks how far everything is settled must not wait for a part with nothing to do
        position = settled if part.is_whole else await consuming.read_head(reader)
        return Sight(orders=False, position=position, settled=settled)
    position = fresh[-1].log_offset if fresh else settled
    sizes = await rows.read_sizes(reader, keys)
    small = [key for key in keys if sizes.get(key, 0) < LARGE_CHANGES_MIN]
    return Sight(
        orders=False,
        position=position,
        settled=settled,
        fresh=fresh,
        again=again,
        tasks=tasks,
        previous=await rows.read_outcomes(reader, keys),
        sizes=sizes,
        contexts=await contexts_of(reader, keys, zone),
        changes=await changes_of_all(reader, small, position),
        refers=part.refers,
    )


async def next_of(
    reader: Reader, part: Part, position: int, limit: int
) -> tuple[list[consuming.Fresh], list[consuming.Again]]:
    """The next new changes and the next orders."""
    fresh = await consuming.read_fresh(reader, position, limit, changes=part.changes)
    again: list[consuming.Again] = []
    if limit > 1 or not fresh:
        again = await consuming.read_again(reader, min(AGAIN_MAX, limit), orders=part.orders)
    return fresh, again


def _tasks(fresh: Sequence[consuming.Fresh], again: Sequence[consuming.Again]) -> list[Task]:
    """Registers to settle, in the order in which the log names them."""
    offsets: dict[Key, list[int]] = {}
    orders: dict[Key, list[int]] = {}
    causes: dict[Key, int] = {}
    for new in fresh:
        offsets.setdefault(new.key, []).append(new.log_offset)
        causes[new.key] = max(causes.get(new.key, 0), new.received_ms)
    for old in again:
        offsets.setdefault(old.key, [])
        orders.setdefault(old.key, []).append(old.id)
        causes[old.key] = max(causes.get(old.key, 0), old.at_ms)
    return [
        Task(key=key, new_offsets=tuple(new), cause_ms=causes[key], again_ids=tuple(orders.get(key, ())))
        for key, new in offsets.items()
    ]
