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
import contextlib
import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from syncserver.config import Config
from syncserver.errors import Fenced, StoreFailed
from syncserver.metrics import Metrics
from syncserver.ports import ServerPorts
from syncserver.problems import trace
from syncserver.settle_helper import Helper
from syncserver.settling import (
    CHANGES_PER_REGISTER_MAX,
    FULL,
    POISONED,
    Task,
    word_of,
)
from syncserver.sight import AGAIN_MAX, OPERATIONS_PER_ROUND_MAX, Part, Sight, look, next_of
from syncserver.store import consuming
from syncserver.store import settled as rows
from syncserver.store.key import Key
from syncserver.store.port import Database, Reader, Transaction
from syncserver.store.registers import POISON, StoredChange, changes_of

_LOG = logging.getLogger("hudur.settle")
PARTITION = 0  # the only one of a store that is not divided
_BREATH = 8  # ordinary registers between two looks at what else there is to do
# At most, whatever a crowd asks for; how often to look whether it is gone.
_GIVE_WAY_MAX_MS, _GIVE_WAY_MS = 5_000, 10
_FAILED_WAIT_MS = 1_000
_HELPED_FROM = 32  # changes in a round: with fewer, telling another process costs as much as it saves
LANE = "settle"
_BURY_EVERY_MS = 60_000
_MOVE_EVERY_MS = 1_000
UNSETTLED = "unsettled"  # dead letter of a register that could not even be looked at again
_DAY_MS = 86_400_000


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
    is_cut: bool = False
    operations: int = 0

    def add(self, result: rows.Result) -> None:
        """One more register."""
        self.results.append(result)
        self.operations += result.operations


class Settler:
    """The consumer of one partition of the log.

    Raises (every method that writes):
        Fenced: another consumer has the partition now; this one is done.
    """

    def __init__(
        self,
        config: Config,
        db: Database,
        ports: ServerPorts,
        metrics: Metrics,
        wake: asyncio.Event,
        *,
        revisions_above: int = 0,
        partition: int = PARTITION,
        crowding: Callable[[], int] = lambda: 0,
        helper: Helper | None = None,
    ) -> None:
        self._config, self._db, self._ports, self._metrics, self._wake = config, db, ports, metrics, wake
        self.partition, self._crowding, self._helper = partition, crowding, helper
        self._part = Part.of(db, partition)
        self._fence: int | None = None
        self._revisions_above = revisions_above  # see `Meta.feed_from`
        self._limit = config.settle_batch
        self._is_busy = False  # whether the last round was large enough to be worth another process
        self._has_more = True  # whether the last round left something that it knew of
        self._buried_ms: int | None = None
        self._moved_ms = -_MOVE_EVERY_MS
        self._took_ms = 0  # how long the last round took
        self.alive = False

    async def run(self) -> None:
        """Settle whatever comes; runs until cancelled."""
        self.alive = True
        try:
            while True:
                self._wake.clear()
                try:
                    while await self.round() and self._has_more:
                        pass
                    await self._bury_in_time()
                except Fenced:
                    raise
                except StoreFailed as failed:
                    _LOG.error("settling waits for the store: %s", failed)
                    await self._ports.clock.sleep_ms(_FAILED_WAIT_MS)
                    continue
                except Exception as fault:  # ours, outside any register: the lag shows it, the consumer lives on
                    _LOG.error("fault in the settle stage: %s", trace(fault))
                await self._wait()
                await self._gather()
        finally:
            self.alive = False

    async def _wait(self) -> None:
        try:
            async with asyncio.timeout(self._config.poll_ms / 1000):
                await self._wake.wait()
        except TimeoutError:
            pass  # nobody woke us; look anyway

    async def _gather(self) -> None:
        """Let some more come together: a round costs as much for one register as for twenty."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._config.gather_ms / 1000):
                await asyncio.Event().wait()

    async def _bury_in_time(self) -> None:
        now_ms = self._ports.clock.mono_ms()
        if self._buried_ms is None or now_ms - self._buried_ms >= _BURY_EVERY_MS:
            self._buried_ms = now_ms
            await self.bury_pending()

    async def round(self) -> bool:
        """Settle one batch; returns whether there was anything to do."""
        if self._fence is None:
            self._fence = await self._db.atomically(partial(consuming.take_fence, partition=self.partition), lane=LANE)
        await self._give_way()
        began_ms = self._ports.clock.mono_ms()
        try:
            sight = await self._see()
            if sight.orders:
                await self._db.atomically(self._spread, lane=LANE)
                sight = await self._see()
            self._is_busy = len(sight.fresh) >= _HELPED_FROM
            if not sight.fresh and not sight.again:
                await self._move_on(sight)
                return sight.orders  # one more came while the others were spread
            done = Round(position=sight.position)
            await self._settle_all(done, sight)
            await self._write(done)
            self._has_more = (
                len(sight.fresh) >= self._limit
                or len(sight.again) >= min(AGAIN_MAX, self._limit)
                or done.is_cut
                or bool(done.deferred)
            )
        except (StoreFailed, Fenced):
            raise
        except Exception as cause:  # what no single register answers for: find it in steps of one
            _LOG.error("a batch cannot be settled: %s", trace(cause))
            self._has_more = True
            if self._limit > 1:
                self._limit = 1
                return True
            await self._bury_first(cause)
        self._took_ms = self._ports.clock.mono_ms() - began_ms
        self._limit = self._config.settle_batch
        return True

    async def _move_on(self, sight: Sight) -> None:
        """Say how far everything is settled where there was nothing to do; once a second, not with every push."""
        now_ms = self._ports.clock.mono_ms()
        if sight.position > sight.settled and not 0 <= now_ms - self._moved_ms < _MOVE_EVERY_MS:
            self._moved_ms = now_ms
            await self._write(Round(position=sight.position))

    async def _spread(self, tx: Transaction) -> None:
        position = await consuming.read_position(tx, self.partition)
        await consuming.spread_again(tx, position, orders=self._part.orders)
        await consuming.write_position(tx, self.partition, position, self._need_fence())

    async def _see(self) -> Sight:
        if self._helper is not None and self._is_busy:
            sight = await self._helper.see(self._part, self._limit, self._revisions_above)
            if sight is not None:
                return sight
        return await self._db.snapshot(self._look)

    async def _look(self, reader: Reader) -> Sight:
        return await look(reader, self._part, self._limit, self._config.zone)

    def _need_fence(self) -> int:
        assert self._fence is not None  # taken before the first round
        return self._fence

    async def _bury_first(self, cause: Exception) -> None:
        """What comes next cannot even be looked at: it becomes a dead letter, and the round behind it goes on."""
        position = await consuming.read_position(self._db, self.partition)
        fresh, again = await next_of(self._db, self._part, position, self._limit)
        detail = _describe(cause)
        dead = [rows.Dead(key=one.key, log_offset=one.log_offset, code=POISON, detail=detail) for one in fresh]
        for one in [] if fresh else again:  # its outcome stands; whoever mends the cause puts the letter back
            last = await consuming.read_last_offset(self._db, one.key)
            dead += [rows.Dead(key=one.key, log_offset=last, code=UNSETTLED, detail=detail)] if last else []
        await self._write(
            Round(
                position=fresh[-1].log_offset if fresh else position,
                again_ids=[] if fresh else [one.id for one in again],
                dead=dead,
            )
        )

    async def _settle_all(self, done: Round, sight: Sight) -> None:
        waited = any(task.again_ids and sight.is_large(task) for task in sight.tasks)
        for at, task in enumerate(sight.tasks):
            if done.operations >= OPERATIONS_PER_ROUND_MAX:
                _stop_before(sight.tasks[at:], done)
                done.is_cut = True
                break
            if (ready := sight.results.get(task.key)) is not None:
                done.add(ready)
                done.again_ids += task.again_ids
            elif not sight.is_large(task):
                await self._settle_isolated(task, done, sight)
                if at % _BREATH == 0:
                    await self._ports.clock.sleep_ms(0)  # requests are answered in between
            elif not await self._is_overflow_only(task, done):
                await self._settle_large(task, done, sight, waited=waited)

    async def _give_way(self) -> None:
        """A crowd first: for as many times as the last round took as `Entrance.crowding` says, 5 s at most.

        A phone's receipt cannot wait, its *confirmed* can: what is settled later is settled in larger rounds. Not only
        the processor is given: a round that is written holds the only writer of SQLite.
        """
        began_ms = self._ports.clock.mono_ms()
        while self._ports.clock.mono_ms() - began_ms < min(self._crowding() * self._took_ms, _GIVE_WAY_MAX_MS):
            await self._ports.clock.sleep_ms(_GIVE_WAY_MS)

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
            done.told.append((task.key, word_of(log_offset, device, FULL)))
        return True

    async def _write(self, done: Round) -> None:
        await self._db.atomically(partial(self._write_in, done=done), lane=LANE)
        self._ports.reached("settle.after_commit")
        self._metrics.settled.inc(len(done.results))
        self._metrics.events.inc(sum(result.event_count for result in done.results))

    async def _write_in(self, tx: Transaction, *, done: Round) -> None:
        now_ms = self._ports.clock.wall_ms()
        self._ports.reached("settle.before_outcome")
        await rows.write_results(tx, done.results, now_ms=now_ms)
        poisoned = {one.log_offset: one.key for one in done.dead if one.code == POISON}
        if poisoned:
            done.told += [
                (poisoned[log_offset], word_of(log_offset, device, POISONED))
                for log_offset, device in await rows.read_devices(tx, sorted(poisoned))
            ]
        if done.told:
            await rows.write_told(tx, done.told)
        for task in done.deferred:
            if not task.again_ids:
                await consuming.defer(tx, task.key, at_ms=task.cause_ms)
        await rows.write_dead(tx, done.dead, now_ms=now_ms)
        self._ports.reached("settle.between_outcome_and_offset")
        await consuming.finish_again(tx, done.again_ids)
        await consuming.write_position(tx, self.partition, done.position, self._need_fence())

    async def _settle_isolated(self, task: Task, done: Round, sight: Sight) -> None:
        """Settle one register; when that raises, find the new changes that make it raise and leave them out."""
        is_large = sight.is_large(task)
        if is_large:
            stored = await changes_of(self._db, task.key, sight.position, CHANGES_PER_REGISTER_MAX)
        else:
            stored = sight.changes[task.key]
        work = partial(sight.settle, task, above=self._revisions_above)
        try:
            done.add(await self._run(partial(work, stored), is_large))
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
                if last < log_offset <= sight.position:
                    done.told.append((task.key, word_of(log_offset, device, FULL)))

    async def _run(self, work: Callable[[], rows.Result], is_large: bool) -> rows.Result:
        return await self._ports.aside.run(work) if is_large else work()

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
            done.add(best)

    async def bury_pending(self) -> None:
        """Changes whose dependencies have not come for days become dead letters; they may still join later."""
        before_ms = self._ports.clock.wall_ms() - self._config.pending_days * _DAY_MS
        lost = await rows.read_expired_pending(self._db, before_ms, settlements=self._part.settlements)
        if lost:
            async with self._db.transaction() as tx:
                await rows.write_dead(tx, lost, now_ms=self._ports.clock.wall_ms())


def _stop_before(rest: Sequence[Task], done: Round) -> None:
    """Leave the rest to the next round. What was settled already of later offsets is then seen again, unchanged."""
    done.position = min((offset for task in rest for offset in task.new_offsets), default=done.position + 1) - 1


def _describe(cause: BaseException) -> str:
    """The cause without any value of the data: type and place in our code."""
    place: Any = cause.__traceback__
    while place is not None and place.tb_next is not None:
        place = place.tb_next
    where = "" if place is None else f" at {place.tb_frame.f_globals.get('__name__')}:{place.tb_lineno}"
    return f"{type(cause).__name__}{where}"
