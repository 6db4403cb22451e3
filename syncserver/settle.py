"""Settle: the log by offset → merge → reconcile → outcome, events, words, and the offset, in one commit.

Invariants:
  1. Outcome, events, settlements, dead letters and the consumer's offset change in one transaction or not at all: after
     a crash the same registers are settled again and give the same bytes.
  2. A change that cannot be processed becomes a dead letter with its cause; its register is settled without it and no
     other register waits for it.
  3. A failing disk is nobody's dead letter: the round is tried again.
  4. A register has bounds, a round settles one large register at most, and that away from the event loop: whatever one
     device sends, the registers of the others are settled in the next rounds.
"""

from __future__ import annotations

import asyncio
import logging
import zlib
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from clientcore.change import Change, parse
from clientcore.history import merge
from clientcore.register import RegisterId
from reconciliation.decisions import NONE, Decisions
from reconciliation.events import events
from reconciliation.model import Context, Outcome, Settled, State
from reconciliation.reconcile import reconcile
from reconciliation.reports import summary_of
from reconciliation.wire import canonical
from syncserver.config import Config
from syncserver.errors import StoreFailed
from syncserver.metrics import Metrics
from syncserver.ports import ServerPorts
from syncserver.problems import trace
from syncserver.store import settled as rows
from syncserver.store.decisions import decisions_of_all
from syncserver.store.key import Key
from syncserver.store.port import Database, Row, Transaction
from syncserver.store.registers import (
    POISON,
    SchoolFacts,
    StoredChange,
    changes_of,
    day_context_of,
    facts_of,
    pack_json,
    register_context,
    stored_outcome,
)

_LOG = logging.getLogger("hudur.settle")
PARTITION = 0  # one partition so far; the seam for hash(school) is this number and `rows.read_position`
FULL = Settled(state=State.NEEDS_REVIEW, slug="register-full")
POISONED = Settled(state=State.NEEDS_REVIEW, slug=POISON)
# A class of 60 taken whole 80 times. The worst register within both bounds takes 0.35 s of CPU, an ordinary one 1 ms.
CHANGES_PER_REGISTER_MAX = 500
OPERATIONS_PER_REGISTER_MAX = 5_000
OPERATIONS_PER_ROUND_MAX = 20_000  # 256 ordinary registers of 60 pupils; a commit waits for no more than half a second
LARGE_CHANGES_MIN = 9  # with fewer, of 256 operations at most, a register is settled in passing
_AGAIN_MAX = 64  # registers settled again per round, so that new changes never wait behind a roster import
_FAILED_WAIT_MS = 1_000
_DAY_MS = 86_400_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """One register to settle, the new changes that ask for it, and when the newest of its causes came (ms).

    `again_ids` are the orders in `settle_again` that name it.
    """

    key: Key
    new_offsets: tuple[int, ...]
    cause_ms: int
    again_ids: tuple[int, ...] = ()


@dataclass(slots=True)
class Round:
    """Everything one commit will write."""

    position: int
    results: list[rows.Result] = field(default_factory=list)
    dead: list[rows.Dead] = field(default_factory=list)
    again_ids: list[int] = field(default_factory=list)
    told: list[tuple[Key, rows.Word]] = field(default_factory=list)
    deferred: list[Task] = field(default_factory=list)
    has_large: bool = False


@dataclass(slots=True)
class Sight:
    """What one round has read and its registers share."""

    previous: dict[Key, Row]
    sizes: dict[Key, int]
    decisions: Mapping[Key, Decisions] = field(default_factory=dict)
    facts: dict[str, SchoolFacts] = field(default_factory=dict)
    days: dict[tuple[str, str, str], Context] = field(default_factory=dict)


class Settler:
    """The consumer of one partition of the log."""

    def __init__(
        self,
        config: Config,
        db: Database,
        ports: ServerPorts,
        metrics: Metrics,
        wake: asyncio.Event,
        *,
        revisions_above: int = 0,
    ) -> None:
        self._config, self._db, self._ports, self._metrics, self._wake = config, db, ports, metrics, wake
        self._revisions_above = revisions_above  # see `Meta.feed_from`
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
                except Exception as fault:  # ours, outside any register: the lag shows it, the consumer lives on
                    _LOG.error("fault in the settle stage: %s", trace(fault))
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
        done = Round(position=fresh[-1].log_offset if fresh else position)
        try:
            await self._settle_all(_tasks(fresh, again), done)
            await self._write(done)
        except StoreFailed:
            raise
        except Exception as cause:  # what no single register answers for: find it in steps of one
            _LOG.error("a batch cannot be settled: %s", trace(cause))
            if len(fresh) + len(again) > 1:
                self._limit = 1
                return True
            dead = [
                rows.Dead(key=one.key, log_offset=one.log_offset, code=POISON, detail=_describe(cause)) for one in fresh
            ]
            await self._write(Round(position=done.position, again_ids=[one.id for one in again], dead=dead))
        self._limit = self._config.settle_batch
        return True

    async def _settle_all(self, tasks: Sequence[Task], done: Round) -> None:
        keys = [task.key for task in tasks]
        sight = Sight(
            previous=await rows.read_outcomes(self._db, keys),
            sizes=await rows.read_sizes(self._db, keys),
            decisions=await decisions_of_all(self._db, keys),
        )
        waited = any(task.again_ids and _is_large(task, sight) for task in tasks)
        for at, task in enumerate(tasks):
            if sum(result.operations for result in done.results) >= OPERATIONS_PER_ROUND_MAX:
                _stop_before(tasks[at:], done)
                break
            if not _is_large(task, sight):
                await self._settle_isolated(task, done, sight)
            elif not await self._is_overflow_only(task, done):
                await self._settle_large(task, done, sight, waited=waited)

    async def _settle_large(self, task: Task, done: Round, sight: Sight, *, waited: bool) -> None:
        """One large register a round, those that have waited first; the others wait without holding anybody up."""
        if done.has_large or (waited and not task.again_ids):
            done.deferred.append(task)
        else:
            done.has_large = True
            await self._settle_isolated(task, done, sight)

    async def _is_overflow_only(self, task: Task, done: Round) -> bool:
        """Whether a register was full before the new changes: they get their word, and nothing else is to be done."""
        if task.again_ids:
            return False
        full_from = await rows.read_first_beyond(self._db, task.key, str(FULL.slug))
        if full_from is None or min(task.new_offsets) <= full_from:
            return False
        for log_offset, device in await rows.read_devices(self._db, task.new_offsets):
            done.told.append((task.key, _word(log_offset, device, FULL)))
        return True

    async def _write(self, done: Round) -> None:
        await self._db.atomically(partial(self._write_in, done=done))
        self._ports.reached("settle.after_commit")
        self._metrics.settled.inc(len(done.results))
        self._metrics.events.inc(sum(result.event_count for result in done.results))

    async def _write_in(self, tx: Transaction, *, done: Round) -> None:
        now_ms = self._ports.clock.wall_ms()
        self._ports.reached("settle.before_outcome")
        await rows.write_results(tx, done.results, now_ms=now_ms)
        poisoned = {one.log_offset: one.key for one in done.dead}
        if poisoned:
            done.told += [
                (poisoned[log_offset], _word(log_offset, device, POISONED))
                for log_offset, device in await rows.read_devices(tx, sorted(poisoned))
            ]
        if done.told:
            await rows.write_told(tx, done.told)
        for task in done.deferred:
            if not task.again_ids:
                await rows.defer(tx, task.key, at_ms=task.cause_ms)
        await rows.write_dead(tx, done.dead, now_ms=now_ms)
        self._ports.reached("settle.between_outcome_and_offset")
        await rows.finish_again(tx, done.again_ids)
        await rows.write_position(tx, PARTITION, done.position)

    async def _settle_isolated(self, task: Task, done: Round, sight: Sight) -> None:
        """Settle one register; when that raises, find the new changes that make it raise and leave them out."""
        context = await self._context(task.key, sight)
        stored = await changes_of(self._db, task.key, done.position, CHANGES_PER_REGISTER_MAX)
        work = partial(
            _settle, task, previous=sight.previous.get(task.key), context=context, above=self._revisions_above
        )
        is_large = _is_large(task, sight)
        try:
            done.results.append(await self._run(partial(work, stored), is_large))
        except Exception as fault:  # any fault of processing: it must not stop the others
            _LOG.error("register %s cannot be settled: %s", "/".join(task.key), trace(fault))
            suspects = set(task.new_offsets) | (await rows.read_unsettled(self._db, task.key)).keys()
            await self._settle_without(
                suspects & {one.log_offset for one in stored} or {one.log_offset for one in stored[-1:]},
                stored, lambda some: self._run(partial(work, some), is_large), task, done,
            )  # fmt: skip
        done.again_ids += task.again_ids
        if len(stored) == CHANGES_PER_REGISTER_MAX:
            last = stored[-1].log_offset
            for log_offset, device in (await rows.read_unsettled(self._db, task.key)).items():
                if last < log_offset <= done.position:
                    done.told.append((task.key, _word(log_offset, device, FULL)))

    async def _run(self, work: Callable[[], rows.Result], is_large: bool) -> rows.Result:
        return await self._ports.aside.run(work) if is_large else work()

    async def _context(self, key: Key, sight: Sight) -> Context:
        """What surrounds a register; what all sessions of its class and day share is read once a round."""
        school, day = key[0], key[:3]
        if school not in sight.facts:
            sight.facts[school] = await facts_of(self._db, school)
        if day not in sight.days:
            sight.days[day] = await day_context_of(self._db, key, self._config.zone, sight.facts[school])
        return register_context(key, sight.days[day], sight.decisions.get(key, NONE))

    @staticmethod
    async def _settle_without(
        suspects: set[int],
        stored: Sequence[StoredChange],
        settle: Callable[[Sequence[StoredChange]], Awaitable[rows.Result]],
        task: Task,
        done: Round,
    ) -> None:
        """Add the suspected changes by halves; those with which settling raises become dead letters."""
        kept = [one for one in stored if one.log_offset not in suspects]
        groups = [[one for one in stored if one.log_offset in suspects]]
        best: rows.Result | None = None
        while groups:
            group = groups.pop()
            try:
                best = await settle([*kept, *group])
                kept += group
            except Exception as cause:
                if len(group) > 1:
                    middle = len(group) // 2
                    groups += [group[middle:], group[:middle]]
                    continue
                done.dead.append(
                    rows.Dead(key=task.key, log_offset=group[0].log_offset, code=POISON, detail=_describe(cause))
                )
        if best is not None:
            done.results.append(best)

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


def _stop_before(rest: Sequence[Task], done: Round) -> None:
    """Leave the rest to the next round. What was settled already of later offsets is then seen again, unchanged."""
    done.position = min((offset for task in rest for offset in task.new_offsets), default=done.position + 1) - 1


def _is_large(task: Task, sight: Sight) -> bool:
    return sight.sizes.get(task.key, 0) >= LARGE_CHANGES_MIN


def settle_anew(key: Key, stored: Sequence[StoredChange], context: Context) -> bytes:
    """A register's outcome from nothing but its changes, as canonical JSON: what a restored store must hold.

    Args:
        key: The register.
        stored: Its changes in the order of the log, `CHANGES_PER_REGISTER_MAX` at most.
        context: Its surroundings.
    """
    parsed = [parse(one.chunk) for one in stored]
    return canonical(_outcome(key, stored, parsed, _within_bounds(parsed), context).to_wire())


def _outcome(
    key: Key, stored: Sequence[StoredChange], parsed: Sequence[Change], taken: int, context: Context
) -> Outcome:
    receipts = {one.hash: one.receipt for one in stored[:taken]}
    return reconcile(RegisterId(*key), merge(parsed[:taken]), receipts, context)


def _settle(
    task: Task, stored: Sequence[StoredChange], *, previous: Row | None, context: Context, above: int
) -> rows.Result:
    """The pure middle: changes and context in, everything to be written out, packed."""
    before = None if previous is None else stored_outcome(previous)
    parsed = [parse(one.chunk) for one in stored]
    taken = _within_bounds(parsed)
    outcome = _outcome(task.key, stored, parsed, taken, context)
    told, revisions = events(
        None if before is None else before.outcome,
        outcome,
        {} if before is None else before.revisions,
        time_ms=task.cause_ms,
        above=above,
    )
    body = canonical(outcome.to_wire())
    changed = before is None or body != before.body
    settled = [outcome.changes[one.hash] for one in stored[:taken]] + [FULL] * (len(stored) - taken)
    return rows.Result(
        key=task.key,
        revision=(0 if before is None else before.revision) + changed,
        changed=changed,
        settled_ms=task.cause_ms,
        body=zlib.compress(body, 1) if changed else b"",
        summary=summary_of(outcome) if changed else None,
        is_first=before is None,
        revisions=revisions,
        events=pack_json([event.to_wire() for event in told]) if told else b"",
        event_count=len(told),
        words=[_word(one.log_offset, one.receipt.device, word) for one, word in zip(stored, settled, strict=True)],
        operations=sum(len(change.ops) for change in parsed[:taken]),
    )


def _within_bounds(parsed: Sequence[Change]) -> int:
    """How many changes, from the first, a register has room for; once one does not fit, none behind it does."""
    operations = 0
    for at, change in enumerate(parsed):
        operations += len(change.ops)
        if operations > OPERATIONS_PER_REGISTER_MAX:
            return at
    return len(parsed)


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
