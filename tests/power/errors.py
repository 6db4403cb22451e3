"""A disk that fails once: every sync of a short run of the server, one at a time, and what leaves the server then."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from pathlib import Path

from syncserver.errors import StoreFailed
from syncserver.store.sqlite import SqliteDatabase
from tests.power.controls import FrequentCheckpoints
from tests.power.runs import STORE, StoreRun
from tests.simulator.disk import Disk
from tests.support.server.phone import Phone
from tests.support.server.world import PUPILS, TODAY, World, open_world

TRIES_MAX = 12
NEVER = 1 << 30


class _Watched(SqliteDatabase):
    """Notes when it has been reopened and verified."""

    notes: list[str]

    async def reopen(self) -> None:
        await super().reopen()
        self.notes.append("verified")


@dataclass(slots=True)
class FailingRun:
    """Pushes one after the other, each repeated with the same bytes until it is acknowledged; settling now and then.

    Attributes:
        at_sync: Which sync fails (from 1), counted from the moment the server serves an enrolled phone.
        at_opening_sync: Which sync fails while the store is made; counted apart.
        notes: What happened, in order: `failed` (the sync), `refused` (an answer that is no acknowledgement),
            `verified` (the store was reopened), `acknowledged`,
            `settling waits`, `restarted` (the server could not be opened).
        where: The file whose sync failed.
        store: What was acknowledged, and the check of an image.
        syncs: How many there were.
    """

    at_sync: int = NEVER
    at_opening_sync: int = NEVER
    pushes: int = 24
    notes: list[str] = field(default_factory=list)
    where: str = ""
    syncs: int = 0
    store: StoreRun = field(default_factory=StoreRun)

    async def go(self) -> Disk:
        """The run; returns its disk."""
        disk = Disk("failing", random.Random(self.at_sync))
        disk.watch = lambda kind, path: self._before(disk, kind, path, self.at_opening_sync)
        db = await self._open(disk)
        disk.watch = None
        async with open_world(Path(STORE), db=db, background=False) as world:
            phone = await world.phone(seed=1)
            self.syncs = 0
            disk.watch = lambda kind, path: self._before(disk, kind, path, self.at_sync)
            for number in range(self.pushes):
                await self._push(world, phone, number)
                if number % 6 == 5:
                    await self._settle(world)
        disk.watch = None  # until the store is closed: closing checkpoints
        return disk

    def _before(self, disk: Disk, kind: str, path: str, at: int) -> None:
        if kind == "sync":
            self.syncs += 1
            if self.syncs == at:
                disk.arm(0, "eio")
                self.where = path
                self.notes.append("failed")

    async def _open(self, disk: Disk) -> SqliteDatabase:
        for _ in range(2):
            db = _Watched(Path(STORE), FrequentCheckpoints(disk))
            db.notes = self.notes
            try:
                await db.open()
            except StoreFailed:
                self.notes.append("restarted")
                disk.kill()
            else:
                return db
        raise AssertionError("the store cannot be opened although the disk works again")

    async def _push(self, world: World, phone: Phone, number: int) -> None:
        name = f"c-3a/{TODAY}/am{number % 8 + 1}"
        change = phone.take(name, {PUPILS[number]: "A"}, session=number.to_bytes(8, "big"))
        self.store.sent[change.hash] = change.chunk
        frame = phone.frame([(name, change.chunk)], ask=False)
        for _ in range(TRIES_MAX):
            world.clock.advance(1_000)
            if await self.store.push(phone, [frame], change):
                self.notes.append("acknowledged")
                return
            self.notes.append("refused")
            await world.server.intake.idle()
        raise AssertionError(f"push {number} was never taken again: {self.notes[-TRIES_MAX:]}")

    async def _settle(self, world: World) -> None:
        for _ in range(2):
            try:
                await world.settle()
            except StoreFailed:
                self.notes.append("settling waits")
                await world.server.intake.idle()
        self.store.told = await world.events()
