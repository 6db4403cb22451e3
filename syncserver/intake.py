"""Intake: the group commit. Checked pushes in, what they say on disk, verdicts out. No merge and no rule on this path.

Invariants:
  1. Nothing is told to a device before the commit that holds its changes is on disk.
  2. All requests waiting at one moment share one commit, and those on their way to it as well, until half of what may
     be inside is here or 20 ms have passed; one bad push never fails the others of its batch.
  3. After a failed commit nothing is acknowledged until the store was reopened, checked, and the last acknowledged
     change was read back.
  4. received = durable + duplicate + held + refused, for every frame.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass

from clientcore.errors import HudurError
from syncserver.config import Config
from syncserver.entrance import BUSY
from syncserver.errors import ConstraintBroken, RequestProblem, StoreBusy, StoreFailed
from syncserver.metrics import Metrics
from syncserver.ports import ServerPorts
from syncserver.problems import trace
from syncserver.store.log import Appended, Push, append
from syncserver.store.port import Database, Transaction

_LOG = logging.getLogger("hudur.intake")
_REOPEN_BASE_MS = 500
_REOPEN_CAP_MS = 30_000
NONCE_BYTES = 8
_QUIET_ROUNDS = 3  # of the event loop; with more, commits were no fuller
_GATHER_MAX_MS = 20  # a round in which something else works takes time: settling, a large request


@dataclass(slots=True)
class _Waiting:
    push: Push
    done: asyncio.Future[Appended]


class Intake:
    """Makes pushes durable, many in one commit."""

    def __init__(self, config: Config, db: Database, ports: ServerPorts, metrics: Metrics) -> None:
        self._config, self._db, self._ports, self._metrics = config, db, ports, metrics
        self._waiting: deque[_Waiting] = deque()
        self._wake = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._last_acknowledged: int = 0
        self._draining = False
        self.last_commit_ms: int | None = None
        self.failures = 0
        self.settled_wake = asyncio.Event()
        db.when_failed(self._mend)

    def nonce(self) -> bytes:
        """A fresh nonce for an answer."""
        return self._ports.random.bytes(NONCE_BYTES)

    async def commit(self, push: Push) -> Appended:
        """Wait until `push` is on disk.

        Raises:
            RequestProblem: `busy` while the server drains.
            StoreFailed: nothing was acknowledged.
        """
        if self._db.failed:
            raise StoreFailed("storage", "the store is being reopened")
        if self._draining:
            raise RequestProblem("busy", BUSY, retry_after_s=self._jitter_s())
        waiting = _Waiting(push, asyncio.get_running_loop().create_future())
        self._waiting.append(waiting)
        self._idle.clear()
        self._wake.set()
        return await waiting.done

    def _jitter_s(self) -> int:
        return 5 + int(self._ports.random.fraction() * 25)

    def _mend(self) -> None:
        """Somebody's transaction failed on the disk: the writer reopens the store."""
        self._idle.clear()
        self._wake.set()

    async def run(self) -> None:
        """The one writer of the log; runs until cancelled."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            if self._db.failed:  # not by a push: the settle stage's commit, an enrolment, an order
                await self._recover()
            while self._waiting:
                await self._gather()
                size = min(len(self._waiting), self._config.batch_max)
                batch = [self._waiting.popleft() for _ in range(size)]
                await self._commit_batch(batch)
            self._metrics.waiting.set(0)
            self._idle.set()

    async def _gather(self) -> None:
        """Let those come along who are on their way; whoever is alone waits for no time (docs/decisions/0042)."""
        here, quiet, began_ms = len(self._waiting), 0, self._ports.clock.mono_ms()
        while quiet < _QUIET_ROUNDS and here < min(self._config.batch_max, self._config.inside_max // 2):
            if self._ports.clock.mono_ms() - began_ms >= _GATHER_MAX_MS:
                return
            await self._ports.clock.sleep_ms(0)
            quiet = quiet + 1 if len(self._waiting) == here else 0
            here = len(self._waiting)

    async def drain(self) -> None:
        """Take no more pushes and finish those that wait, unless the store has failed."""
        self._draining = True
        if not self._db.failed:
            await self.idle()

    async def idle(self) -> None:
        """Come back when nothing waits, nothing is being written, and a failed store is at work again."""
        await self._idle.wait()

    async def _commit_batch(self, batch: list[_Waiting]) -> None:
        self._metrics.waiting.set(len(self._waiting) + len(batch))
        self._metrics.commit_size.observe(len(batch))
        started_ms = self._ports.clock.mono_ms()
        try:
            await self._write(batch)
        except ConstraintBroken as broken:
            if len(batch) == 1:
                _LOG.error("a push contradicts the schema: %s", broken)
                _fail(batch, broken)
            else:
                for one in batch:
                    await self._commit_batch([one])
        except StoreFailed as failed:
            self._metrics.store_failures.inc()
            self.failures += 1
            _LOG.error("commit failed, nothing acknowledged: %s", failed)
            _fail(batch, failed)
            if not isinstance(failed, StoreBusy):
                await self._recover()
        except Exception as fault:  # a fault of ours must answer everyone and must not end the writer
            _LOG.error("fault in the writer: %s", trace(fault))
            _fail(batch, StoreFailed("storage", type(fault).__name__))
        finally:
            self._metrics.commit_s.observe((self._ports.clock.mono_ms() - started_ms) / 1000)

    async def _write(self, batch: list[_Waiting]) -> None:
        now_ms = self._ports.clock.wall_ms()

        async def work(tx: Transaction) -> list[Appended]:
            stored = await append(tx, [one.push for one in batch], now_ms=now_ms)
            self._ports.reached("intake.before_commit")
            return stored

        appended = await self._db.atomically(work, lane="log", is_short=True)
        self._ports.reached("intake.after_commit")
        self._last_acknowledged, self.last_commit_ms = appended[-1].last_offset, now_ms
        self._count(appended)
        for one, result in zip(batch, appended, strict=True):
            if not one.done.done():
                one.done.set_result(result)
        if any(result.new_changes for result in appended):
            self.settled_wake.set()

    def _count(self, appended: Sequence[Appended]) -> None:
        kinds = Counter(verdict.kind for result in appended for frame in result.verdicts for verdict in frame)
        for kind, count in kinds.items():
            self._metrics.verdicts[kind].inc(count)
        self._metrics.frames.inc(sum(len(result.verdicts) for result in appended))

    async def _recover(self) -> None:
        """Everyone waiting is told `storage`; then reopen and verify until it works."""
        wait_ms = _REOPEN_BASE_MS
        while True:
            _fail(list(self._waiting), StoreFailed("storage", "the store is being reopened"))
            self._waiting.clear()
            try:
                await self._db.reopen()
                found = await self._db.fetch_one("SELECT max(log_offset) FROM changes")
            except HudurError as failed:
                _LOG.error("the store cannot be reopened yet: %s", failed)
            else:
                if found is not None and (found[0] or 0) >= self._last_acknowledged:
                    return
                _LOG.critical("acknowledged changes are missing: restore the store; nothing is acknowledged")
            await self._ports.clock.sleep_ms(wait_ms)
            wait_ms = min(wait_ms * 2, _REOPEN_CAP_MS)


def _fail(batch: Sequence[_Waiting], error: HudurError) -> None:
    for one in batch:
        if not one.done.done():
            one.done.set_exception(error)
