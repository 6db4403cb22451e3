"""Settle: the log by offset → merge → reconcile → outcome, events, words, and the offset, in one commit.

Invariants:
  1. Outcome, events, settlements, dead letters and the consumer's offset change in one transaction or not at all: after
     a crash the same registers are settled again and give the same bytes.
  2. A change that cannot be processed becomes a dead letter with its cause; its register is settled without it and no
     other register waits for it.
  3. A failing disk is nobody's dead letter: the round is tried again.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from clientcore.change import Change, parse
from clientcore.history import merge
from clientcore.register import RegisterId
from reconciliation.events import events
from reconciliation.model import Context, Settled, State
from reconciliation.reconcile import reconcile
from reconciliation.wire import canonical
from syncserver.config import Config
from syncserver.errors import StoreFailed
from syncserver.metrics import Metrics
from syncserver.ports import ServerPorts
from syncserver.store import settled as rows
from syncserver.store.port import Database
from syncserver.store.registers import (
    CHANGES_PER_REGISTER_MAX,
    POISON,
    Key,
    SchoolFacts,
    StoredChange,
    StoredOutcome,
    changes_of,
    context_of,
    facts_of,
    outcomes_of,
)

_LOG = logging.getLogger("hudur.settle")
PARTITION = 0  # one partition so far; the seam for hash(school) is this number and `rows.read_position`
FULL = Settled(state=State.NEEDS_REVIEW, slug="register-full")
_AGAIN_MAX = 64  # registers settled again per round, so that new changes never wait behind a roster import
_FAILED_WAIT_MS = 1_000
_DAY_MS = 86_400_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """One register to settle, the new changes that ask for it, and when the newest of its causes came (ms)."""

    key: Key
    new_offsets: tuple[int, ...]
    cause_ms: int


@dataclass(slots=True)
class Round:
    """Everything one commit will write."""

    position: int
    results: list[rows.Result] = field(default_factory=list)
    dead: list[rows.Dead] = field(default_factory=list)
    again_ids: list[int] = field(default_factory=list)
    overflow: list[tuple[Key, rows.Word]] = field(default_factory=list)


@dataclass(slots=True)
class Sight:
    """What one round has read and its registers share."""

    previous: dict[Key, StoredOutcome]
    facts: dict[str, SchoolFacts] = field(default_factory=dict)
    contexts: dict[tuple[str, str, str], Context] = field(default_factory=dict)


class Settler:
    """The consumer of one partition of the log."""

    def __init__(self, config: Config, db: Database, ports: ServerPorts, metrics: Metrics, wake: asyncio.Event) -> None:
        self._config, self._db, self._ports, self._metrics, self._wake = config, db, ports, metrics, wake
        self._limit = config.settle_batch
        self.alive = False

    async def run(self) -> None:
        """Settle whatever comes; runs until cancelled."""
        self.alive = True
        try:
            while True:
                self._wake.clear()
                try:
                    while await self.round():
                        pass
                    await self.bury_pending()
                except StoreFailed as failed:
                    _LOG.error("settling waits for the store: %s", failed)
                    await self._ports.clock.sleep_ms(_FAILED_WAIT_MS)
                    continue
                except Exception:  # a fault of ours outside any register: the lag shows it, the consumer lives on
                    _LOG.exception("fault in the settle stage")
                await self._wait()
        finally:
            self.alive = False

    async def _wait(self) -> None:
        try:
            async with asyncio.timeout(self._config.poll_ms / 1000):
                await self._wake.wait()
        except TimeoutError:
            pass  # nobody woke us; look anyway

    async def round(self) -> bool:
        """Settle one batch; returns whether there was anything to do."""
        if await rows.has_orders(self._db):
            async with self._db.transaction() as tx:
                await rows.spread_again(tx)
        position = await rows.read_position(self._db, PARTITION)
        fresh = await rows.read_fresh(self._db, position, self._limit)
        again = await rows.read_again(self._db, min(_AGAIN_MAX, self._limit)) if self._limit > 1 or not fresh else []
        if not fresh and not again:
            return False
        done = Round(position=fresh[-1].log_offset if fresh else position, again_ids=[one.id for one in again])
        try:
            await self._settle_all(_tasks(fresh, again), done)
            await self._write(done)
        except StoreFailed:
            raise
        except Exception as cause:  # what no single register answers for: find it in steps of one
            _LOG.exception("a batch cannot be settled")
            if len(fresh) + len(again) > 1:
                self._limit = 1
                return True
            dead = [
                rows.Dead(key=one.key, log_offset=one.log_offset, code=POISON, detail=_describe(cause)) for one in fresh
            ]
            await self._write(Round(position=done.position, again_ids=done.again_ids, dead=dead))
        self._limit = self._config.settle_batch
        return True

    async def _settle_all(self, tasks: Sequence[Task], done: Round) -> None:
        sight = Sight(previous=await outcomes_of(self._db, [task.key for task in tasks]))
        for task in tasks:
            await self._settle_isolated(task, done, sight)

    async def _write(self, done: Round) -> None:
        async with self._db.transaction() as tx:
            self._ports.reached("settle.before_outcome")
            await rows.write_results(tx, done.results, now_ms=self._ports.clock.wall_ms())
            if done.overflow:
                await rows.write_overflow(tx, done.overflow)
            await rows.write_dead(tx, done.dead, now_ms=self._ports.clock.wall_ms())
            self._ports.reached("settle.between_outcome_and_offset")
            await rows.finish_again(tx, done.again_ids)
            await rows.write_position(tx, PARTITION, done.position)
        self._ports.reached("settle.after_commit")
        self._metrics.settled.inc(len(done.results))
        self._metrics.events.inc(sum(len(result.events) for result in done.results))

    async def _settle_isolated(self, task: Task, done: Round, sight: Sight) -> None:
        """Settle one register; when that raises, find the new change that makes it raise and leave it out."""
        context = await self._context(task.key, sight)
        stored = await changes_of(self._db, task.key, done.position, CHANGES_PER_REGISTER_MAX)
        if len(stored) == CHANGES_PER_REGISTER_MAX:
            await self._hold_overflow(task, stored[-1].log_offset, done)
        previous = sight.previous.get(task.key)
        try:
            done.results.append(_settle(task, stored, previous, context))
        except Exception:  # any fault of processing: it must not stop the others
            _LOG.exception("register %s cannot be settled", "/".join(task.key))
            suspects = set(task.new_offsets) or await rows.read_requeued(self._db, task.key)
            self._settle_without(
                suspects or {one.log_offset for one in stored[-1:]}, task, stored, previous, context, done
            )

    async def _context(self, key: Key, sight: Sight) -> Context:
        """What surrounds a register, read once a round for all sessions of its class and day."""
        school, day = key[0], key[:3]
        if school not in sight.facts:
            sight.facts[school] = await facts_of(self._db, school)
        if day not in sight.contexts:
            sight.contexts[day] = await context_of(self._db, key, self._config.zone, sight.facts[school])
        return sight.contexts[day]

    @staticmethod
    def _settle_without(
        suspects: set[int],
        task: Task,
        stored: Sequence[StoredChange],
        previous: StoredOutcome | None,
        context: Context,
        done: Round,
    ) -> None:
        """Add the suspected changes one by one; those with which settling raises become dead letters."""
        kept = [one for one in stored if one.log_offset not in suspects]
        best: rows.Result | None = None
        for one in stored:
            if one.log_offset in suspects:
                try:
                    best = _settle(task, [*kept, one], previous, context)
                    kept.append(one)
                except Exception as cause:
                    done.dead.append(
                        rows.Dead(key=task.key, log_offset=one.log_offset, code=POISON, detail=_describe(cause))
                    )
        if best is not None:
            done.results.append(best)

    async def _hold_overflow(self, task: Task, last_taken: int, done: Round) -> None:
        """New changes of a register that is full: kept, and told so."""
        beyond = [one for one in task.new_offsets if one > last_taken]
        for log_offset, device in await rows.read_devices(self._db, beyond) if beyond else ():
            done.overflow.append((task.key, _word(log_offset, device, FULL)))

    async def bury_pending(self) -> None:
        """Changes whose dependencies have not come for days become dead letters; they may still join later."""
        before_ms = self._ports.clock.wall_ms() - self._config.pending_days * _DAY_MS
        lost = await rows.read_expired_pending(self._db, before_ms)
        if lost:
            async with self._db.transaction() as tx:
                await rows.write_dead(tx, lost, now_ms=self._ports.clock.wall_ms())

    async def tell_lag(self) -> None:
        """Bring the gauges up to date: asked at every scrape, so that a consumer that stands still is seen."""
        position = await rows.read_position(self._db, PARTITION)
        lag = await rows.read_lag(self._db, position)
        self._metrics.lag_offsets.set(lag.offsets)
        age_ms = 0 if lag.oldest_ms is None else self._ports.clock.wall_ms() - lag.oldest_ms
        self._metrics.lag_s.set(max(age_ms, 0) / 1000)
        self._metrics.dead_letters.set(lag.dead_letters)


def _tasks(fresh: Sequence[rows.Fresh], again: Sequence[rows.Again]) -> list[Task]:
    """Registers to settle, in the order in which the log names them."""
    offsets: dict[Key, list[int]] = {}
    causes: dict[Key, int] = {}
    for new in fresh:
        offsets.setdefault(new.key, []).append(new.log_offset)
        causes[new.key] = max(causes.get(new.key, 0), new.received_ms)
    for old in again:
        offsets.setdefault(old.key, [])
        causes[old.key] = max(causes.get(old.key, 0), old.at_ms)
    return [Task(key=key, new_offsets=tuple(new), cause_ms=causes[key]) for key, new in offsets.items()]


def _settle(
    task: Task, stored: Sequence[StoredChange], previous: StoredOutcome | None, context: Context
) -> rows.Result:
    """The pure middle: changes and context in, everything to be written out."""
    parsed: list[Change] = [parse(one.chunk) for one in stored]
    register = RegisterId(*task.key)
    outcome = reconcile(register, merge(parsed), {one.hash: one.receipt for one in stored}, context)
    told, revisions = events(
        None if previous is None else previous.outcome,
        outcome,
        {} if previous is None else previous.revisions,
        time_ms=task.cause_ms,
    )
    body = canonical(outcome.to_wire())
    changed = previous is None or body != previous.body
    return rows.Result(
        key=task.key,
        revision=(0 if previous is None else previous.revision) + changed,
        changed=changed,
        settled_ms=task.cause_ms,
        body=body,
        is_first=previous is None,
        revisions=revisions,
        events=[event.to_wire() for event in told],
        words=[_word(one.log_offset, one.receipt.device, outcome.changes[one.hash]) for one in stored],
    )


def _word(log_offset: int, device: bytes, settled: Settled) -> rows.Word:
    return rows.Word(
        log_offset=log_offset,
        device=device,
        state=int(settled.state),
        slug=settled.slug,
        detail=settled.detail,
        dead=settled.dead_letter,
    )


def _describe(cause: BaseException) -> str:
    """The cause without any value of the data: type and place in our code."""
    place: Any = cause.__traceback__
    while place is not None and place.tb_next is not None:
        place = place.tb_next
    where = "" if place is None else f" at {place.tb_frame.f_globals.get('__name__')}:{place.tb_lineno}"
    return f"{type(cause).__name__}{where}"
