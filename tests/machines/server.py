"""The server of one example: the real application over a simulated disk; it settles when a step says so.

Its intake runs as in production. The settle stage is stepped, so that an answer can leave before a change is settled,
and so that a blow can fall into the middle of a round.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Coroutine
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from clientcore.ports import SeededRandom
from syncserver.app import Server, create_app, open_server
from syncserver.config import Config
from syncserver.errors import StoreFailed
from syncserver.ports import InlineAside, ServerPorts
from syncserver.restore import raise_epoch
from syncserver.store.sqlite import SqliteDatabase
from tests.machines.troubles import Blow
from tests.machines.victim import Victim
from tests.simulator.asgi import Answered, ask
from tests.simulator.clock import WorldClock
from tests.simulator.disk import Disk, MachineDead
from tests.simulator.lab import Lab
from tests.simulator.ledger import ChangeName
from tests.simulator.machine import Machine
from tests.simulator.server import MEDIA, NoPages, Unreachable
from tests.simulator.sqlite import AsyncConnector
from tests.support.quick import QuickHasher

STORE = Path("store.db")
_CHANGES = "SELECT school || '/' || class_id || '/' || date || '/' || session, hash FROM changes"
_CONFIRMED = """
SELECT c.school || '/' || c.class_id || '/' || c.date || '/' || c.session, c.hash FROM settlements s
JOIN changes c ON c.log_offset = s.log_offset WHERE s.state = 1"""


class Host(Victim):
    """One server and its disk. Shaped so that `tests.simulator`'s feed reader and last checks take it."""

    def __init__(self, lab: Lab, disk: Disk, clock: WorldClock) -> None:
        super().__init__(disk)
        self.lab, self.clock = lab, clock
        self.config = Config(store=STORE, env="sim")
        self.server: Server | None = None
        self.restores = 0
        self._db: SqliteDatabase | None = None
        self._app: Any = None
        self._machine = Machine("server")
        self._halting: asyncio.Task[None] | None = None
        self._starts = 0
        self._settling = asyncio.Lock()

    # ---- life ----

    async def start(self, blow: Blow | None = None) -> bool:
        """Open the store and serve; whether that worked. `blow` falls while it opens."""
        if self.server is not None:
            return True
        if self._halting is not None:
            await self._halting
            self._halting = None
        self.is_struck = False
        self.aim(blow)
        opening = self._machine.spawn(self._open())
        await asyncio.wait({opening})
        error = opening.exception()
        if error is None:
            await self.check_log()
        elif isinstance(error, (MachineDead, StoreFailed)):
            self.die()
        else:
            raise error
        self.aim(None)
        return error is None

    async def up(self) -> Server:
        """It serves, whatever it died of before."""
        while not await self.start():
            pass
        assert self.server is not None
        return self.server

    async def stop(self) -> None:
        """An orderly end."""
        server, db = self.server, self._db
        if server is None or db is None:
            return
        self.server = None
        await server.intake.drain()
        await db.close()
        self.die()

    def die(self) -> None:
        """The process is gone: nobody is served any more, nothing it began goes on."""
        self.strike()
        self.server, self._db = None, None
        if self._halting is None:
            self._halting = asyncio.get_running_loop().create_task(self._machine.halt())

    async def _open(self) -> None:
        self._starts += 1
        db = SqliteDatabase(STORE, connector=AsyncConnector(self.disk))
        await db.open()
        ports = ServerPorts(
            clock=self.clock,
            random=SeededRandom(1_000 + self._starts),
            hasher=QuickHasher(),
            aside=InlineAside(),
            reached=self.reached,
        )
        server = await open_server(self.config, db, ports)
        self._app = create_app(server, pages=NoPages())
        writer = self._machine.spawn(server.intake.run())
        writer.add_done_callback(self._writer_ended)
        self.server, self._db = server, db

    def _writer_ended(self, task: asyncio.Task[Any]) -> None:
        if task.cancelled() or self.server is None:
            return
        error = task.exception()
        self.lab.ledger.check("I7", isinstance(error, MachineDead), f"the writer ended by {error!r}")
        self.die()

    async def _run(self, work: Coroutine[Any, Any, Any], what: str) -> Any:
        """Do something on this machine.

        Raises:
            Unreachable: it died of it, or of something else meanwhile.
            StoreFailed: its disk failed.
        """
        task = self._machine.spawn(work)
        await asyncio.wait({task})
        if task.cancelled():
            raise Unreachable("died")
        error = task.exception()
        if isinstance(error, MachineDead):
            self.die()
            raise Unreachable("died")
        if isinstance(error, StoreFailed):
            raise error
        if error is not None:
            self.lab.ledger.check("I7", False, f"{what} raised {type(error).__name__}: {error}")
            raise Unreachable("fault")
        return task.result()

    # ---- requests ----

    async def request(
        self, method: str, path: str, body: bytes = b"", *, query: str = "", arrives: int | None = None
    ) -> Answered:
        """One request; of its body the first `arrives` bytes come (all by default).

        Raises:
            Unreachable: no answer.
        """
        if self.server is None:
            raise Unreachable("down")
        types = {"/v1/sync": MEDIA, "/v1/enrol": MEDIA, "/v1/bundles": MEDIA, "/v1/call": MEDIA}
        headers = ((b"content-type", types.get(path, b"application/octet-stream")),)
        asking = ask(self._app, method, path, body, query=query, headers=headers, arrives=arrives)
        answered: Answered = await self._run(asking, f"{method} {path}")
        self.lab.ledger.check("I7", answered.status != 500, f"{path}: 500 {answered.body[:200]!r}")
        if answered.status == 200 and path in ("/v1/sync", "/v1/bundles") and self.server is not None:
            await self._promised(path, body, answered.body)
        return answered

    async def _promised(self, path: str, body: bytes, answer: bytes) -> None:
        """I3, and what from now on may never be lost."""
        assert self.server is not None
        ledger = self.lab.ledger
        ledger.answered(path, body, answer, server_key=self.server.meta.key.public, at_ms=self.lab.now_ms)
        await self.look()

    async def feed(self, after: int, *, limit: int) -> list[dict[str, Any]]:
        """One page of the events feed."""
        reply = await self.request("GET", "/v1/events", query=urlencode({"after": after, "limit": limit}))
        if reply.status != 200:
            raise Unreachable(str(reply.status))
        page: list[dict[str, Any]] = json.loads(reply.body)
        return page

    async def code(self, user: str) -> str:
        """A code to enrol with."""
        args = urlencode({"args": json.dumps({"user": user})})
        reply = await self.request("POST", "/v1/operator/code", query=args)
        assert reply.status == 200, reply.body
        return str(json.loads(reply.body)["code"])

    # ---- settling, backups ----

    async def settle(self) -> None:
        """Settle what is in the log, as the background stage does; a failing disk or a death leaves it for later."""
        try:
            async with self._settling:  # there is one settle stage, however many conversations wait for it
                if self.server is not None:
                    await self._run(self._settle(self.server), "settling")
                    await self.look()
        except (Unreachable, StoreFailed):
            return

    @staticmethod
    async def _settle(server: Server) -> None:
        while await server.settler.round():
            pass
        await server.settler.bury_pending()

    async def restore(self, disk: Disk, *, whole_offer: bool) -> None:
        """`disk`, a copy of a backup, is in place of the store's, under a new log epoch."""
        await self.stop()
        if self._halting is not None:
            await self._halting
            self._halting = None
        self.disk = disk
        db = SqliteDatabase(STORE, connector=AsyncConnector(disk))
        await db.open()
        await raise_epoch(db, now_ms=self.clock.wall_ms(), whole_offer=whole_offer)
        await db.close()
        self.disk.kill()
        self.restores += 1
        self.lab.ledger.epochs += 1
        self.lab.ledger.owed = set(self.lab.ledger.promised)  # what the backup holds is crossed out at the start
        await self.up()

    # ---- what must hold ----

    @property
    def database(self) -> SqliteDatabase:
        """The open store."""
        assert self._db is not None
        return self._db

    async def stored(self) -> set[ChangeName]:
        """Every change of the log."""
        return {(register, digest) for register, digest in await self.database.fetch_all(_CHANGES)}

    async def check_log(self) -> None:
        """I2: everything promised is in the log, or owed since a restore until the phones have offered it."""
        if self.server is None:
            return
        try:
            stored = await self.stored()
        except StoreFailed:
            return  # the disk failed in this step; the next look comes after the reopening
        ledger = self.lab.ledger
        ledger.owed -= stored  # once back it may not be lost again
        missing = sorted(name for name in ledger.promised if name not in stored and name not in ledger.owed)
        told = ", ".join(f"{register} {digest.hex()[:12]}" for register, digest in missing[:3])
        ledger.check("I2", not missing, f"promised and not in the log: {told}")

    async def look(self) -> None:
        """Keep what the store calls confirmed: a phone may show only that."""
        if self.server is None or self.database.failed:
            return
        try:
            self.lab.ledger.confirmed.update((row[0], row[1]) for row in await self.database.fetch_all(_CONFIRMED))
        except StoreFailed:
            return
