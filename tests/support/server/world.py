"""A school in a real store, a server over it, and what a test asks of both."""

from __future__ import annotations

import json
import os
import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import httpx
import pytest

from clientcore.ports import ManualClock, SeededRandom
from syncserver.app import Server, create_app, open_server
from syncserver.calendar import local_date
from syncserver.config import Config
from syncserver.enrol import make_code
from syncserver.ports import InlineAside, ServerPorts
from syncserver.settle_helper import Helper
from syncserver.store.port import Database
from syncserver.store.postgres import PostgresDatabase, open_postgres
from syncserver.store.schema import schema_statements
from syncserver.store.sqlite import SqliteDatabase, open_sqlite
from tests.support.postgres import new_store
from tests.support.quick import QuickHasher
from tests.support.server.phone import Phone

SCHOOL = "eg-07-113"
OTHER_SCHOOL = "eg-07-200"
PUPILS = tuple(f"s{n:03d}" for n in range(1, 41))
TODAY = "2026-11-22"  # ManualClock's day: a Sunday
ON_POSTGRES = os.environ.get("HUDUR_TEST_STORE") == "postgresql"
_DATABASES: dict[Path, str] = {}
sqlite_only = pytest.mark.skipif(ON_POSTGRES, reason="about the file of SQLite")


@dataclass(slots=True)
class Points:
    """Notes every named point that was passed; a test may hang an act on one."""

    passed: list[str] = field(default_factory=list)
    acts: dict[str, Callable[[], None]] = field(default_factory=dict)

    def __call__(self, point: str) -> None:
        self.passed.append(point)
        if point in self.acts:
            self.acts[point]()


@dataclass(slots=True)
class World:
    """One server and everything around it."""

    server: Server
    db: Database
    clock: ManualClock
    points: Points
    http: httpx.AsyncClient

    async def phone(self, user_id: str = "t1", *, school: str = SCHOOL, seed: int = 1, label: str = "") -> Phone:
        """A phone enrolled by a code, with its first payload read."""
        code, _ = await make_code(self.db, self.server.ports, school=school, user_id=user_id, made_by="operator")
        phone = Phone(http=self.http, clock=self.clock, seed=seed)
        await phone.enrol(school, code, label=label or f"phone {seed}")
        return phone

    async def frames(self, register: str, count: int) -> list[bytes]:
        """So many frames with a change of `register` each, of one phone that the server knows already."""
        phone = await self.phone()
        made = [phone.frame([(register, phone.take(register, {PUPILS[0]: "P"}).chunk)]) for _ in range(count)]
        await self.server.checker.identify(made[0])
        return [frame.raw for frame in made]

    async def settle(self) -> None:
        """Settle everything that is in the log."""
        while await self.server.settler.round():
            pass

    async def events(self, after: int = 0) -> list[dict[str, Any]]:
        """The whole feed behind `after`, through HTTP, page by page."""
        found: list[dict[str, Any]] = []
        while True:
            reply = await self.http.get("/v1/events", params={"after": after, "limit": 100})
            assert reply.status_code == 200
            if not reply.json():
                return found
            found += reply.json()
            after = int(reply.headers["hudur-next-after"])

    async def order(self, name: str, **args: object) -> dict[str, object]:
        """An operator's order that must be carried out."""
        reply = await self.http.post(
            f"/v1/operator/{name}",
            params={"args": json.dumps(args)},
            headers={"content-type": "application/octet-stream"},
        )
        assert reply.status_code == 200, reply.text
        result: dict[str, object] = reply.json()
        return result

    async def count(self, table: str) -> int:
        """Rows of a table."""
        row = await self.db.fetch_one(f"SELECT count(*) FROM {table}")
        assert row is not None
        return int(row[0])


async def make_school(db: Database, school: str = SCHOOL, *, pupils: tuple[str, ...] = PUPILS) -> None:
    """Three people, two classes: t1 teaches c-3a and c-3b, t2 teaches c-3a, ch1 is the champion."""
    people = [("t1", "معلمة أولى", "teacher"), ("t2", "معلم ثان", "teacher"), ("ch1", "منسقة", "champion")]
    people += [(pupil, f"تلميذ {pupil}", "pupil") for pupil in pupils]
    members = [("c-3a", "t1", "teacher", 0), ("c-3a", "t2", "teacher", 0), ("c-3b", "t1", "teacher", 0)]
    members += [("c-3a", pupil, "pupil", n) for n, pupil in enumerate(pupils)]
    async with db.transaction() as tx:
        await tx.execute("INSERT INTO schools VALUES (?, ?, ?, 1, 1, NULL)", (school, "مدرسة النيل", "day"))
        await tx.executemany(
            "INSERT INTO users VALUES (?, ?, ?, ?, NULL, NULL, 1, NULL)", [(school, *one) for one in people]
        )
        await tx.executemany(
            "INSERT INTO classes VALUES (?, ?, ?, '3', 1, 1, NULL)",
            [(school, "c-3a", "٣/أ"), (school, "c-3b", "٣/ب")],
        )
        await tx.executemany(
            "INSERT INTO members VALUES (?, ?, ?, ?, 1, '2026-09-01', NULL, ?, 1, NULL)",
            [(school, *one) for one in members],
        )


def address_of(path: Path) -> str:
    """How a command names the store that `open_store` opened here."""
    return _DATABASES[path] if ON_POSTGRES else f"sqlite:{path}"


def tables() -> list[str]:
    """Every table of the schema."""
    found = (re.match(r"CREATE TABLE (\w+)", statement) for statement in schema_statements())
    return sorted(one[1] for one in found if one is not None)


async def open_store(path: Path) -> Database:
    """The store of a test: the file, or its own database of PostgreSQL where HUDUR_TEST_STORE says `postgresql`."""
    if ON_POSTGRES:
        if path not in _DATABASES:  # a path opened again is the same store
            _DATABASES[path] = await new_store()
        return await open_postgres(_DATABASES[path])
    return await open_sqlite(path)


@asynccontextmanager
async def open_world(
    path: Path,
    *,
    db: Database | None = None,
    background: bool = True,
    config: Config | None = None,
    clock: ManualClock | None = None,
    helper: Helper | None = None,
) -> AsyncIterator[World]:
    """A server over the store at `path` (made with two schools when it is new).

    Args:
        path: The store file.
        db: Another database to serve from, e.g. one that fails on demand.
        background: Whether the writer and consumer run; without them a test settles by hand (the writer always runs).
        config: Overrides.
        clock: One that goes on, for a store that is served again.
        helper: Of the settle stage; ended with the server.
    """
    database = db or await open_store(path)
    if await database.fetch_one("SELECT 1 FROM schools LIMIT 1") is None:
        await make_school(database)
        await make_school(database, OTHER_SCHOOL)
    clock, points = clock or ManualClock(), Points()
    ports = ServerPorts(clock=clock, random=SeededRandom(7), hasher=QuickHasher(), aside=InlineAside(), reached=points)
    server = await open_server(config or Config(store=path, poll_ms=50), database, ports, helper=helper)
    if not background:
        server.stages.clear()
    app = create_app(server)
    transport = httpx.ASGITransport(app=app, raise_app_exceptions=True)
    try:
        async with server.running(), httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as http:
            yield World(server=server, db=database, clock=clock, points=points, http=http)
    finally:
        if isinstance(database, (SqliteDatabase, PostgresDatabase)):
            await database.close()  # also after a failed test: its thread would keep the process alive


__all__ = [
    "OTHER_SCHOOL",
    "PUPILS",
    "SCHOOL",
    "TODAY",
    "Phone",
    "Points",
    "World",
    "local_date",
    "open_world",
    "replace",
]
