"""A school whose server is backed up, lost and restored, while its phones live on."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from clientcore.errors import TransportError
from clientcore.ports import HttpReply, ManualClock
from syncserver.backup import Backup, make_backup
from syncserver.ports import ServerPorts
from syncserver.restore import Restored, Wish, restore
from syncserver.store.port import Reader
from tests.integration.test_device_server import Line, join
from tests.support.devices import Phone
from tests.support.server.world import Points, World, open_world

ZONE = "Africa/Cairo"
QUICK = Wish(zone=ZONE, proof=False)


class Killed(BaseException):
    """The app ends here, as by kill -9: nothing of ours catches it."""


@dataclass(slots=True)
class Road:
    """The phones' network: leads to whichever server stands, nowhere when none does. `asked` keeps every body.

    `answers_left`: how many answers come before the app is killed while it waits for one; None: all.
    """

    line: Line | None = None
    answers_left: int | None = None
    asked: list[tuple[str, bytes]] = field(default_factory=list)

    async def post(self, path: str, body: bytes, *, content_type: str, deadline_s: float) -> HttpReply:
        self.asked.append((path, body))
        if self.line is None:
            raise TransportError("offline", "no server stands")
        reply = await self.line.post(path, body, content_type=content_type, deadline_s=deadline_s)
        if self.answers_left is not None:
            self.answers_left -= 1
            if self.answers_left < 0:
                raise Killed
        return reply


@dataclass(slots=True)
class School:
    """A store's place, its phones, and the time they share."""

    folder: Path
    clock: ManualClock = field(default_factory=ManualClock)
    road: Road = field(default_factory=Road)
    points: Points = field(default_factory=Points)

    @property
    def store(self) -> Path:
        return self.folder / "store.db"

    @asynccontextmanager
    async def served(self) -> AsyncIterator[World]:
        """A server over the store, settled by hand."""
        async with open_world(self.store, background=False, clock=self.clock) as world:
            self.road.line = line = Line(world)
            try:
                yield world
            finally:
                self.road.line = None
                await line.close()

    async def join(self, world: World, name: str, *, user: str = "t1", seed: int = 1) -> Phone:
        return await join(world, self.road, self.folder / name, user=user, seed=seed)  # type: ignore[arg-type]

    async def backup(self, name: str = "backup.db") -> Backup:
        self.clock.advance(1_000)
        return await make_backup(self.store, self.folder / name, self.clock)

    async def restore(self, name: str = "backup.db", wish: Wish = QUICK) -> Restored:
        self.clock.advance(1_000)
        return await restore(self.folder / name, self.store, wish, ServerPorts(clock=self.clock, reached=self.points))


async def names(reader: Reader) -> set[tuple[bytes, str]]:
    """Every change of the log, by hash and register."""
    rows = await reader.fetch_all(
        "SELECT hash, school || '/' || class_id || '/' || date || '/' || session FROM changes"
    )
    return {(row[0], row[1]) for row in rows}


async def talk(world: World, *phones: Phone, rounds: int = 3) -> None:
    """Every phone makes its contacts; the consumer works in between."""
    for _ in range(rounds):
        for phone in phones:
            report = await phone.sync()
            assert report.outcome == "ok", report.error
            await world.settle()
