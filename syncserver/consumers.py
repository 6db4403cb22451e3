"""Which process settles which part of the log, and which one runs the stages of which there is one.

Invariants:
  1. A partition has one consumer at a time: its claim is a session of the database, and a consumer that lost it without
     knowing writes nothing more, because its fence is old (`store/settled.py`).
  2. Every partition has a consumer as long as one process lives: claims end with their session, and whoever has fewer
     than its share takes what is free.
  3. With one process everything is its own, as on SQLite.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any

from syncserver.config import Config
from syncserver.errors import Fenced, StoreFailed
from syncserver.metrics import Metrics
from syncserver.ports import ServerPorts
from syncserver.problems import trace
from syncserver.settle import Settler
from syncserver.settle_helper import Helper
from syncserver.store.claims import Claims
from syncserver.store.consuming import read_lag
from syncserver.store.port import Database

_LOG = logging.getLogger("hudur.consumers")
Stage = Callable[[], Coroutine[Any, Any, None]]


class Consumers:
    """The partitions and stages of this process."""

    def __init__(
        self,
        config: Config,
        db: Database,
        ports: ServerPorts,
        metrics: Metrics,
        wake: asyncio.Event,
        *,
        revisions_above: int = 0,
        stages: dict[str, Stage] | None = None,
        crowding: Callable[[], int] = lambda: 0,
        helper: Helper | None = None,
    ) -> None:
        self._config, self._db, self._ports, self._metrics, self._wake = config, db, ports, metrics, wake
        self._above, self._stages, self._crowding = revisions_above, stages or {}, crowding
        self._helper = helper
        self._claims: Claims | None = None
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._wakes: dict[str, asyncio.Event] = {}
        self.held: dict[int, Settler] = {}
        self.alive = False

    async def run(self) -> None:
        """Hold this process's share, whatever comes; runs until cancelled."""
        self.alive = True
        try:
            if self._db.partitions == 1:  # of a store that one process alone can write
                await self._take_all()
                await self.held[0].run()
            while True:
                try:
                    await self._share()
                except StoreFailed as failed:
                    _LOG.error("claims are lost: %s", failed)
                    await self._drop_all()
                except Exception as fault:  # ours: it must not end the stage
                    _LOG.error("fault in the claims: %s", trace(fault))
                await self._wait()
        finally:
            self.alive = False
            await self._drop_all()

    async def round(self) -> bool:
        """One round of every partition this process holds; for tests and tools that settle by hand."""
        if not self.held:
            await self._take_all()
        return any([await settler.round() for settler in list(self.held.values())])

    async def bury_pending(self) -> None:
        """See `Settler.bury_pending`; for whoever settles by hand."""
        for settler in list(self.held.values()):
            await settler.bury_pending()

    async def tell_lag(self) -> None:
        """Bring the gauges up to date: asked at every scrape, so that a consumer that stands still is seen."""
        parts = [self._db.part("changes", number) for number in range(self._db.partitions)]
        lag = await self._db.snapshot(partial(read_lag, parts=parts))
        self._metrics.lag_offsets.set(lag.offsets)
        age_ms = 0 if lag.oldest_ms is None else self._ports.clock.wall_ms() - lag.oldest_ms
        self._metrics.lag_s.set(max(age_ms, 0) / 1000)
        self._metrics.dead_letters.set(lag.dead_letters)

    async def close(self) -> None:
        """Let everything go."""
        await self._drop_all()
        if self._helper is not None:
            self._helper.close()

    # ---- claims ---------------------------------------------------------------------------------------------------

    def _names(self) -> list[str]:
        return [f"partition {number}" for number in range(self._db.partitions)]

    async def _take_all(self) -> None:
        if self._claims is None:
            self._claims = await self._db.claims()
        for number, name in enumerate(self._names()):
            if await self._claims.claim(name):
                self.held[number] = self._settler(number, self._wake)

    def _settler(self, number: int, wake: asyncio.Event) -> Settler:
        return Settler(
            self._config, self._db, self._ports, self._metrics, wake, revisions_above=self._above, partition=number,
            crowding=self._crowding, helper=self._helper,
        )  # fmt: skip

    async def _share(self) -> None:
        """Take what is free up to our share, give back what is beyond it."""
        if self._claims is None:
            self._claims = await self._db.claims()
        present = max(await self._claims.present(), 1)
        for names in (self._names(), sorted(self._stages)):
            share = -(-len(names) // present)
            for name in [name for name in names if name in self._tasks and self._tasks[name].done()]:
                await self._end(name)
            ours = [name for name in names if name in self._tasks]
            for name in ours[share:]:
                await self._end(name)
            for name in names:
                if len([one for one in names if one in self._tasks]) >= share:
                    break
                if name not in self._tasks and await self._claims.claim(name):
                    self._begin(name)

    def _begin(self, name: str) -> None:
        if name in self._stages:
            self._tasks[name] = asyncio.create_task(self._stages[name]())
            return
        number = int(name.rpartition(" ")[2])
        wake = self._wakes[name] = asyncio.Event()
        self.held[number] = self._settler(number, wake)
        self._tasks[name] = asyncio.create_task(self._settle(number))

    async def _settle(self, number: int) -> None:
        try:
            await self.held[number].run()
        except Fenced as fenced:
            _LOG.warning("%s", fenced)

    async def _end(self, name: str) -> None:
        """Stop the work first, then let the claim go."""
        await self._stop(name)
        if self._claims is not None:
            await self._claims.release(name)

    async def _stop(self, name: str) -> None:
        task = self._tasks.pop(name)
        task.cancel()
        await asyncio.wait([task])  # unlike awaiting it, this tells our own cancellation from the task's
        if not task.cancelled() and (fault := task.exception()) is not None:
            _LOG.error("%s ended: %s", name, trace(fault))
        self._wakes.pop(name, None)
        if name.startswith("partition "):
            self.held.pop(int(name.rpartition(" ")[2]), None)

    async def _drop_all(self) -> None:
        for name in list(self._tasks):
            await self._stop(name)
        self.held.clear()
        if self._claims is not None:
            claims, self._claims = self._claims, None
            await claims.close()

    async def _wait(self) -> None:
        """Until new changes come or it is time to look at the claims again."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._config.poll_ms / 1000):
                while True:
                    await self._wake.wait()
                    self._wake.clear()
                    for wake in self._wakes.values():
                        wake.set()
