"""The two fixed runs that are cut at every I/O operation: pushes into the real server, acts of the real device.

Each is a coroutine over a `Disk` that notes, as it goes, what it was told is saved; `Found` then says whether the files
of an image keep that. Images are opened as production would: the standard library's SQLite, the real `Log`.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections import Counter
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from clientcore.change import Change
from clientcore.exchange import DUPLICATE, DURABLE, Verdict, read_answer, write_sync
from clientcore.frame import Frame
from clientcore.journal import Journal
from clientcore.log import Act, Log, LogFiles, Row
from clientcore.ports import ManualClock, SeededRandom
from clientcore.register import RegisterId
from clientcore.states import Enrolment
from syncserver.feed import read_page
from syncserver.store.connector import Connector
from syncserver.store.inline import read_inline
from syncserver.store.sqlite import open_sqlite
from tests.simulator.disk import Disk
from tests.simulator.sqlite import AsyncConnector
from tests.support.quick import key_of
from tests.support.server.phone import Phone
from tests.support.server.world import PUPILS, TODAY, open_world

STORE, LOG = "store.db", "log.db"
_SETTLE_EVERY = 20
_TOGETHER = (1, 1, 1, 4, 1, 8)  # pushes that share a commit, again and again


class Lost(AssertionError):
    """Something that was told as saved is not there, or is not what it was, or the file is damaged."""


class Run(Protocol):
    """A fixed run."""

    async def go(self, disk: Disk) -> None:
        """Run it to its end on a new disk."""
        ...

    def check(self, image: Mapping[str, bytes], folder: Path) -> None:
        """Whether an image of the disk at this instant keeps what was told by now.

        Raises:
            Lost: it does not.
        """
        ...

    def told_count(self) -> int:
        """How many things somebody was told are saved."""
        ...

    async def recover(self, disk: Disk) -> None:
        """Start the program again over what a power cut left, and stop it in order. Never suspends."""
        ...


@dataclass(slots=True)
class StoreRun:
    """Pushes of one register each, some sharing a commit, and the settle stage every 20 of them.

    Attributes:
        durable: Hashes of changes with a durable receipt.
        told: Events somebody has read, in order.
        sent: Everything that was ever sent, by hash.
        statuses: Answers by HTTP status.
    """

    pushes: int = 200
    connector: Callable[[Disk], Connector] = AsyncConnector
    durable: set[bytes] = field(default_factory=set)
    told: list[dict[str, Any]] = field(default_factory=list)
    sent: dict[bytes, bytes] = field(default_factory=dict)
    statuses: Counter[int] = field(default_factory=Counter)

    async def go(self, disk: Disk) -> None:
        """See `Run`."""
        db = await open_sqlite(Path(STORE), self.connector(disk))
        async with open_world(Path(STORE), db=db, background=False) as world:
            phone = await world.phone(seed=1)
            number = since_settled = 0
            while number < self.pushes:
                pushing: list[Coroutine[Any, Any, bool]] = []
                for _ in range(min(_TOGETHER[number % len(_TOGETHER)], self.pushes - number)):
                    name = f"c-3a/{TODAY}/am{number % 8 + 1}"
                    marks = {PUPILS[number % 40]: "AP"[number % 2]}
                    change = phone.take(name, marks, session=number.to_bytes(8, "big"))
                    self.sent[change.hash] = change.chunk
                    pushing.append(self.push(phone, [phone.frame([(name, change.chunk)], ask=False)], change))
                    number, since_settled = number + 1, since_settled + 1
                world.clock.advance(1_000 * len(pushing))  # within the device's quota
                await asyncio.gather(*pushing)
                if since_settled >= _SETTLE_EVERY:
                    since_settled = 0
                    await world.settle()
                    self.told = await world.events()

    async def push(self, phone: Phone, frames: Sequence[Frame], change: Change) -> bool:
        """Send frames with `change` in the first; returns, and notes, whether it was acknowledged."""
        body = write_sync([frame.raw for frame in frames])
        reply = await phone.post("/v1/sync", body)
        self.statuses[reply.status_code] += 1
        if reply.status_code != 200:
            return False
        answer = read_answer(reply.content, server_key=phone.me.server_key, request=body).answer
        verdict = answer.receipts[0][0]
        if not isinstance(verdict, Verdict) or verdict.kind not in (DURABLE, DUPLICATE):
            return False
        self.durable.add(change.hash)
        return True

    def told_count(self) -> int:
        """See `Run`."""
        return len(self.durable) + len(self.told)

    async def recover(self, disk: Disk) -> None:
        """See `Run`."""
        await (await open_sqlite(Path(STORE), self.connector(disk))).close()

    def check(self, image: Mapping[str, bytes], folder: Path) -> None:
        """See `Run`."""
        path = lay_out(image, folder, STORE)
        if not path.exists():
            if self.durable:
                raise Lost("the store is gone")
            return
        try:
            with closing(sqlite3.connect(path, isolation_level=None)) as connection:
                connection.execute("PRAGMA synchronous=OFF")  # of this look only
                self._check(connection)
        except sqlite3.DatabaseError as broken:
            raise Lost(f"damaged: {broken}") from None

    def _check(self, connection: sqlite3.Connection) -> None:
        found = connection.execute("PRAGMA integrity_check(1)").fetchall()
        if found != [("ok",)]:
            raise Lost(f"damaged: {found}")
        if connection.execute("SELECT count(*) FROM sqlite_schema WHERE name = 'changes'").fetchone() == (0,):
            if self.durable:
                raise Lost("the tables are gone")
            return
        rows = connection.execute(
            "SELECT c.log_offset, c.hash, substr(f.body, c.chunk_at, c.chunk_bytes)"
            " FROM changes c JOIN frames f ON f.id = c.frame_id ORDER BY c.log_offset"
        ).fetchall()
        offsets = [offset for offset, _, _ in rows]
        if offsets != list(range(1, len(rows) + 1)):
            raise Lost(f"offsets are not dense: {offsets[-3:]} of {len(rows)}")
        found_chunks = {bytes(digest): bytes(chunk) for _, digest, chunk in rows}
        if missing := self.durable - found_chunks.keys():
            raise Lost(f"{len(missing)} of {len(self.durable)} acknowledged changes are gone")
        if not found_chunks.items() <= self.sent.items():
            raise Lost("a change nobody sent, or other bytes than were sent")
        events = read_inline(connection, lambda reader: read_page(reader, after=0, limit=1 << 20)).events
        if events[: len(self.told)] != self.told:
            raise Lost(f"{len(self.told)} events were read, the feed of {len(events)} begins otherwise")


@dataclass(slots=True)
class DeviceRun:
    """Taps one by one, now and then sealed and framed, as taking a register does.

    Attributes:
        saved: The rows of every act that returned, in order.
    """

    taps: int = 60
    files: Callable[[Disk], LogFiles] = Disk.files
    saved: list[Row] = field(default_factory=list)

    async def go(self, disk: Disk) -> None:
        """See `Run`."""
        clock = ManualClock()
        log = _Noting.open(LOG, files=self.files(disk))
        assert isinstance(log, _Noting)
        log.saved = self.saved
        journal = Journal(log, key=key_of("device"), clock=clock, random=SeededRandom(3), app="test")
        with journal.act() as act:
            journal.append_enrolment(act, enrolment_of(journal.device))
        register = RegisterId("eg-07-113", "c-3a", TODAY, "day")
        for number in range(self.taps):
            clock.advance(700)
            journal.tap(register, [(PUPILS[number % 40], f"A{36_000_000 + number}")])
            if number % 10 == 9:
                journal.seal()
                journal.frame()
        log.close()

    def told_count(self) -> int:
        """See `Run`."""
        return len(self.saved)

    async def recover(self, disk: Disk) -> None:
        """See `Run`."""
        log = Log.open(LOG, files=self.files(disk))
        log.read()
        log.close()

    def check(self, image: Mapping[str, bytes], folder: Path) -> None:
        """See `Run`."""
        path = lay_out(image, folder, LOG)
        log = Log.open(path)
        try:
            rows = log.read()
        finally:
            log.close()
        if any(name.name.startswith(f"{LOG}.damaged") for name in folder.iterdir()):
            raise Lost("damaged: the log was put aside")
        if rows[: len(self.saved)] != self.saved:
            raise Lost(f"{len(self.saved)} rows were saved, {len(rows)} are there")


class _Noting(Log):
    """Notes the rows of each act once it has returned."""

    saved: list[Row]

    @contextmanager
    def act(self) -> Iterator[Act]:
        """See `Log`."""
        with super().act() as act:
            yield act
        self.saved.extend(act.appended)


def enrolment_of(device: bytes) -> Enrolment:
    """A teacher of the test school."""
    return Enrolment(
        env="test", school="eg-07-113", device=device, user_id="t1", role="teacher",
        server_key=key_of("server").public, epoch=1,
    )  # fmt: skip


def lay_out(image: Mapping[str, bytes], folder: Path, name: str) -> Path:
    """Write an image's files where nothing else is; returns the path of `name`."""
    for old in folder.iterdir():
        old.unlink()
    for file, data in image.items():
        (folder / file).write_bytes(data)
    return folder / name
