"""The server of a simulated world: the real application and the real settle stage over a disk that can fail.

It is opened, killed at named points or in the middle of a disk operation, cut from its power, stopped in order, and
opened again, as often as the seed says. A request in flight when it dies gets no answer.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Coroutine
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from clientcore.keys import SigningKey
from clientcore.ports import SeededRandom
from syncserver.app import Server, create_app, open_server
from syncserver.config import Config
from syncserver.errors import StoreFailed
from syncserver.pages import Pages
from syncserver.ports import InlineAside, ServerPorts
from syncserver.restore import raise_epoch
from syncserver.store.port import T, Transaction
from syncserver.store.sqlite import SqliteDatabase
from tests.simulator.asgi import Answered, ask
from tests.simulator.clock import WorldClock
from tests.simulator.disk import Disk, How, MachineDead
from tests.simulator.lab import Lab
from tests.simulator.machine import Machine
from tests.simulator.sqlite import AsyncConnector
from tests.support.quick import QuickHasher

STORE = "store.db"
POLL_MS = 1_800_000  # nothing waits for the poll: every commit and every order wakes the settle stage
HOW: tuple[How, ...] = ("none", "some", "some", "all")
DOWN_MS = (200, 2_000, 20_000, 300_000)
MEDIA = b"application/x-hudur"


class Unreachable(Exception):
    """No answer: the server is down, or died with the request in its hands."""


class NoPages(Pages):
    """The phone's page is not needed here."""

    def __init__(self) -> None:
        """Nothing to load."""

    def routes(self) -> list[Any]:
        """None."""
        return []


class ServerHost:
    """One server and its disk."""

    def __init__(self, lab: Lab, *, clock: WorldClock, folder: Path) -> None:
        self.lab, self.clock = lab, clock
        self.disk = Disk("server", lab.swarm.stream("disk.server"))
        self.server: Server | None = None
        self.config = Config(store=folder / STORE, poll_ms=POLL_MS, env="sim")
        self.key: SigningKey | None = None
        self.deaths = 0
        self.restores = 0
        self._epoch = 0
        self._db: SqliteDatabase | None = None
        self._app: Any = None
        self._machine = Machine("server")
        self._starts = 0
        self._dead = asyncio.Event()
        self._up = asyncio.Event()
        self._calm = False
        self.wanted_up = False
        self._keeper: asyncio.Task[None] | None = None

    # ---- life ----

    def switch_on(self) -> None:
        """Begin to keep the server alive until `switch_off`."""
        self.wanted_up = True
        self._keeper = asyncio.get_running_loop().create_task(self._keep())

    async def up(self) -> Server:
        """Wait until it serves."""
        while self.server is None:
            await self._up.wait()
        return self.server

    async def switch_off(self) -> None:
        """An orderly stop: pushes that wait are finished."""
        self.wanted_up = False
        if self.server is not None:
            await self._stop_in_order()
        if self._keeper is not None:
            self._dead.set()
            await self._keeper

    async def restart(self) -> None:
        """An orderly stop and a new start."""
        await self.switch_off()
        self.switch_on()

    def die(self, why: str) -> None:
        """End the process now; by the seed also the power."""
        if self._dead.is_set():
            return
        self.deaths += 1
        swarm = self.lab.swarm
        if swarm.hits("server.power"):
            how = swarm.stream("server.power|how").choice(HOW)
            lost = self.disk.cut_power(how)
            self.lab.fault("server.power")
            self.lab.faults["server.write-lost"] += lost
        else:
            self.disk.kill()
        self.lab.fault("server.death")
        self.lab.trace("server", f"died {why}")
        self._dead.set()

    async def _keep(self) -> None:
        while self.wanted_up:
            self._dead.clear()
            opening = self._machine.spawn(self._open())
            await asyncio.wait({opening})
            error = None if opening.cancelled() else opening.exception()
            if isinstance(error, MachineDead):
                self.die("while opening")
            elif isinstance(error, StoreFailed):
                self.lab.trace("server", f"cannot open: {error.code}")
                self.disk.kill()
            elif error is not None:
                raise error
            else:
                self.lab.trace("server", "up")
                self._up.set()
                await self._dead.wait()
            self._up.clear()
            self.server = None
            await self._machine.halt()
            self._db = None
            if self.wanted_up:
                down_ms = self.lab.swarm.stream("server.down").choice(DOWN_MS)
                await self.lab.sleep_while_faulty(down_ms, DOWN_MS[0])

    async def _open(self) -> None:
        self._starts += 1
        self._db = SqliteDatabase(Path(str(self.config.store)), connector=AsyncConnector(self.disk))
        await self._db.open()
        self._watch_failures(self._db)
        ports = ServerPorts(
            clock=self.clock,
            random=SeededRandom(self.lab.swarm.seed * 1_000_003 + self._starts),
            hasher=QuickHasher(),
            aside=InlineAside(),
            reached=self._reached,
        )
        await self.lab.prepare_store(self._db)
        server = await open_server(self.config, self._db, ports)
        self.key, self._epoch = server.meta.key, server.meta.epoch
        self._app = create_app(server, pages=NoPages())
        for name, work in (("intake", server.intake.run()), ("settle", server.settler.run())):
            task = self._machine.spawn(work)
            task.add_done_callback(lambda done, name=name: self._ended(name, done))  # type: ignore[misc]
        self.server = server
        await self.lab.server_opened(self)

    def _watch_failures(self, db: SqliteDatabase) -> None:
        """I2: after a commit failed, nothing is committed before the store was opened again and checked."""
        inner = db.atomically

        async def atomically(
            work: Callable[[Transaction], Coroutine[Any, Any, T]], *, lane: str | None = None, is_short: bool = False
        ) -> T:
            try:
                return await inner(work, lane=lane, is_short=is_short)
            except StoreFailed:
                self.lab.ledger.check("I2", db.failed, "a commit failed and the store goes on unverified")
                raise

        db.atomically = atomically  # type: ignore[method-assign]

    def _ended(self, name: str, task: asyncio.Task[Any]) -> None:
        """A stage of the server ended although nobody stopped it."""
        if task.cancelled():
            return
        error = task.exception()
        if isinstance(error, MachineDead):
            self.die(f"in {name}")
        elif error is not None:
            self.lab.ledger.check("I7", False, f"{name} ended by {type(error).__name__}: {error}")
            self.die(f"{name} failed")

    async def _stop_in_order(self) -> None:
        server, db = self.server, self._db
        self.server = None
        self._up.clear()
        assert server is not None
        assert db is not None
        stopping = self._machine.spawn(self._drain(server, db))
        await asyncio.wait({stopping})
        if not stopping.cancelled() and isinstance(stopping.exception(), MachineDead):
            self.die("while stopping")
        else:
            self.disk.kill()  # nothing of this process may touch the disk any more
        self._dead.set()

    @staticmethod
    async def _drain(server: Server, db: SqliteDatabase) -> None:
        await server.intake.drain()
        with suppress(StoreFailed):
            await db.close()

    def _reached(self, point: str) -> None:
        self.lab.points[point] += 1
        if self.lab.swarm.hits("server.kill_point", point):
            self.lab.fault(f"server.{point}")
            self.die(f"at {point}")
            raise MachineDead(point)
        self.lab.server_reached(self, point)

    # ---- backups ----

    async def backup(self) -> Disk:
        """A copy of the store at an instant at which nothing is half done."""
        await self.up()
        name = f"backup-{len(self.lab.journal.lines)}-{self.lab.now_ms}"
        return self.disk.clone(name, self.lab.swarm.stream(f"disk.{name}"))

    async def restore(self, backup: Disk) -> None:
        """The disk is lost; a copy of `backup` takes its place, under a new log epoch."""
        await self.switch_off()
        self.restores += 1
        self.disk = backup.clone(f"server{self.restores}", self.lab.swarm.stream(f"disk.server{self.restores}"))
        db = SqliteDatabase(Path(str(self.config.store)), connector=AsyncConnector(self.disk))
        await db.open()
        # Nothing was ever called archived in this world, so a whole offer is needed no more often than the chance says.
        whole = self.lab.swarm.stream("server.restore|whole").random() < 0.5
        await raise_epoch(db, now_ms=self.clock.wall_ms(), whole_offer=whole)
        await db.close()
        self.disk.kill()
        self.lab.trace("server", "restored")
        self.lab.ledger.owed = set(
            self.lab.ledger.promised
        )  # what of them is in the backup is crossed out at the start
        self.lab.server_restored()
        self.switch_on()

    # ---- requests ----

    async def request(
        self,
        method: str,
        path: str,
        body: bytes = b"",
        *,
        query: str = "",
        headers: tuple[tuple[bytes, bytes], ...] = (),
    ) -> Answered:
        """One request to the application, on the server's own machine.

        Raises:
            Unreachable: no answer.
        """
        if self.server is None:
            raise Unreachable("down")
        asking = ask(self._app, method, path, body, query=query, headers=headers)
        handling = self._machine.spawn(asking)
        await asyncio.wait({handling})  # `wait` and not `await`: when the phone dies, the server goes on
        if handling.cancelled():
            raise Unreachable("died")
        error = handling.exception()
        if isinstance(error, MachineDead):
            self.die("in a request")
            raise Unreachable("died")
        if error is not None:
            self.lab.ledger.check("I7", False, f"{method} {path} raised {type(error).__name__}: {error}")
            raise Unreachable("fault")
        answered: Answered = handling.result()
        watching = self._machine.spawn(self.lab.server_answered(self, path, body, answered))  # dies with the server
        await asyncio.wait({watching})
        if watching.cancelled():
            raise Unreachable("died")
        error = watching.exception()
        if isinstance(error, MachineDead):
            self.die("while being looked at")
            raise Unreachable("died")
        if error is not None:
            raise error
        return answered

    @property
    def is_open(self) -> bool:
        """Whether its store is open."""
        return self._db is not None

    def rows(self, sql: str, params: tuple[object, ...]) -> list[tuple[Any, ...]]:
        """Rows as the writing connection sees them, at once: for looks that must not let anything else happen."""
        writer = self.database._writer
        assert writer is not None
        return [tuple(row) for row in writer.inner._conn.execute(sql, params).fetchall()]

    @property
    def database(self) -> SqliteDatabase:
        """The open store."""
        assert self._db is not None
        return self._db

    @property
    def epoch(self) -> int:
        """The log's epoch, as the last open server knew it."""
        return self._epoch

    async def feed(self, after: int, *, limit: int) -> list[dict[str, Any]]:
        """One page of the events feed.

        Raises:
            Unreachable: no answer, or none that can be used now.
        """
        reply = await self.request("GET", "/v1/events", query=urlencode({"after": after, "limit": limit}))
        if reply.status != 200:
            raise Unreachable(str(reply.status))
        page: list[dict[str, Any]] = json.loads(reply.body)
        return page

    async def device_request(self, path: str, body: bytes) -> Answered:
        """A device's POST."""
        return await self.request("POST", path, body, headers=((b"content-type", MEDIA),))

    async def order(self, name: str, data: bytes = b"", **args: object) -> dict[str, Any]:
        """An operator's order; tried again until a living server has carried it out.

        Raises:
            ValueError: it was refused.
        """
        query = urlencode({"args": json.dumps(args)})
        while True:
            await self.up()
            try:
                reply = await self.request(
                    "POST", f"/v1/operator/{name}", data, query=query,
                    headers=((b"content-type", b"application/octet-stream"),),
                )  # fmt: skip
            except Unreachable:
                await self.clock.sleep_ms(5_000)
                continue
            if reply.status == 503:
                await self.clock.sleep_ms(10_000)
                continue
            if reply.status != 200:
                raise ValueError(f"{name}: {reply.status} {reply.body[:200]!r}")
            result: dict[str, Any] = json.loads(reply.body)
            return result
