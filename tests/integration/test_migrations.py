"""A store of an earlier version: opened, brought to this one with everything in it, and gone on with.

The old stores are made by their own schemas (tests/support/schema_v3.sql, schema_v4.sql) and hold what a server of
today wrote, put back into the old form. Version 3: outcomes as plain JSON, every event written down. Version 4: every
outcome written whole, its summary in a table.
"""

from __future__ import annotations

import asyncio
import sqlite3
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from reconciliation.wire import canonical
from syncserver.errors import StoreFailed
from syncserver.feed import read_page
from syncserver.store.dialect import create
from syncserver.store.packed import pack_json, unpack_outcome, unpack_revisions, unpack_wire
from syncserver.store.port import Reader
from syncserver.store.postgres import open_postgres
from syncserver.store.schema import SCHEMA_VERSION
from syncserver.store.sqlite import open_sqlite
from syncserver.store.told import read_told
from tests.support import packed_v4
from tests.support.postgres import shared_cluster
from tests.support.server.world import SCHOOL, TODAY, World, open_world

REGISTER = f"c-3a/{TODAY}/day"
OTHER = f"c-3b/{TODAY}/day"
SUPPORT = Path(__file__).parents[1] / "support"
VERSIONS = (3, 4)
WRITTEN = 60  # rows that go on being written while PostgreSQL is migrated, at least


def old_statements(version: int) -> Iterator[str]:
    schema = (SUPPORT / f"schema_v{version}.sql").read_text("utf-8")
    text = "\n".join(line.split("--", 1)[0] for line in schema.splitlines())
    yield from (statement.strip() for statement in text.split(";") if statement.strip())


def old_columns(version: int) -> dict[str, list[str]]:
    scratch = sqlite3.connect(":memory:")
    for statement in old_statements(version):
        scratch.execute(statement)
    tables = [row[0] for row in scratch.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")]
    found = {name: [row[1] for row in scratch.execute(f"PRAGMA table_info({name})")] for name in tables}
    scratch.close()
    return found


async def old_rows(db: Reader, version: int) -> dict[str, list[tuple[Any, ...]]]:
    """Every table's rows as an earlier version would hold them."""
    rows = {
        name: await db.fetch_all(f"SELECT {', '.join(columns)} FROM {name}")
        for name, columns in old_columns(version).items()
        if name not in ("schema_version", "outcomes", "summaries")
    }
    rows["schema_version"] = [(version,)]
    rows["summaries"] = [("none", "c", "2026-11-22", "day", 1, *[0] * 15, "unstated", None, None, None)]
    rows["outcomes"] = []
    for *key, revision, settled_ms, body, revisions, first, last in await db.fetch_all(
        """SELECT school, class_id, date, session, revision, settled_ms, body, revisions, first_seq, last_seq
        FROM whole_outcomes"""
    ):
        register = "/".join(key)
        outcome = unpack_outcome(body, register)
        if version == 4:
            whole = packed_v4.pack_outcome(outcome)
            rows["outcomes"].append((*key, revision, settled_ms, whole, revisions, first, last))
        else:
            plain = zlib.compress(canonical(unpack_wire(body, register)), 1)
            numbers = pack_json(unpack_revisions(revisions, outcome))
            rows["outcomes"].append((*key, revision, settled_ms, plain, numbers))
    if version == 4:
        return rows
    told = await read_told(db, after=0, limit=1_000, schools=None)
    rows["events"] = [
        (seq, seq + len(events) - 1, events[0]["data"]["school"], events[0]["data"]["register"], pack_json(events))
        for seq, events in told
    ]
    return rows


async def history(folder: Path, version: int) -> tuple[dict[str, list[tuple[Any, ...]]], bytes, Any]:
    """What a server wrote: two registers and a correction; its rows in the old form, its feed, its phone."""
    async with open_world(folder / "before.db", background=False, db=await open_sqlite(folder / "before.db")) as world:
        phone = await world.phone()
        await phone.sync((REGISTER, phone.take(REGISTER, {"s001": "P", "s002": "A"})))
        await phone.sync((OTHER, phone.take(OTHER, {"s003": "P"})))
        await world.settle()
        await phone.sync((REGISTER, phone.take(REGISTER, {"s002": "L"})))
        await world.settle()
        return await old_rows(world.db, version), (await read_page(world.db, after=0)).to_bytes(), phone


async def goes_on(world: World, feed: bytes, phone: Any) -> None:
    """The feed reads as before, settling everything again tells nothing, and the phone's next mark counts."""
    assert (await read_page(world.db, after=0)).to_bytes() == feed
    async with world.db.transaction() as tx:
        await tx.execute("INSERT INTO settle_again (school, cause, at_ms) VALUES (?, 'test', 1)", (SCHOOL,))
    await world.settle()
    assert (await read_page(world.db, after=0)).to_bytes() == feed
    phone.http = world.http
    await phone.sync((REGISTER, phone.take(REGISTER, {"s001": "L"})))
    await world.settle()
    events = (await read_page(world.db, after=0)).events
    assert [event["sequence"] for event in events] == [f"{n:020d}" for n in range(1, len(events) + 1)]
    assert events[-1]["data"]["pupil"] == "s001"
    assert events[-1]["data"]["revision"] == 2
    assert await world.db.fetch_all("SELECT version FROM schema_version") == [(SCHEMA_VERSION,)]


@pytest.mark.parametrize("version", VERSIONS)
async def test_a_sqlite_store_of_an_earlier_version_is_migrated_when_it_is_opened(tmp_path: Path, version: int) -> None:
    rows, feed, phone = await history(tmp_path, version)
    path = tmp_path / "old.db"
    old = sqlite3.connect(path)
    for statement in old_statements(version):
        old.execute(statement)
    for name, some in rows.items():
        for row in some:
            old.execute(f"INSERT INTO {name} VALUES ({', '.join('?' * len(row))})", row)
    old.commit()
    old.close()
    async with open_world(path, background=False, db=await open_sqlite(path)) as world:
        await goes_on(world, feed, phone)
    migrated = shape(path)
    fresh_path = tmp_path / "fresh.db"
    await (await open_sqlite(fresh_path)).close()
    fresh = shape(fresh_path)
    assert fresh.keys() <= migrated.keys(), "a table, index or view is missing"
    assert {name: set(columns) for name, columns in fresh.items()} == {name: set(migrated[name]) for name in fresh}


def shape(path: Path) -> dict[str, list[str]]:
    store = sqlite3.connect(path)
    names = [row[0] for row in store.execute("SELECT name FROM sqlite_schema WHERE name NOT LIKE 'sqlite_%'")]
    found = {name: [row[1] for row in store.execute(f"PRAGMA table_info({name})")] for name in names}
    store.close()
    return found


async def test_a_store_that_is_too_old_or_too_new_is_refused_and_left_alone(tmp_path: Path) -> None:
    for version in (2, SCHEMA_VERSION + 1):
        path = tmp_path / f"{version}.db"
        old = sqlite3.connect(path)
        old.execute("CREATE TABLE schema_version (version INTEGER NOT NULL)")
        old.execute("INSERT INTO schema_version VALUES (?)", (version,))
        old.commit()
        old.close()
        with pytest.raises(StoreFailed, match="schema"):
            await open_sqlite(path)
        assert shape(path) == {"schema_version": ["version"]}


@pytest.mark.parametrize("version", VERSIONS)
async def test_a_postgresql_store_is_migrated_while_somebody_writes(tmp_path: Path, version: int) -> None:
    rows, feed, phone = await history(tmp_path, version)
    dsn = shared_cluster().database()
    old = await asyncpg.connect(dsn)
    for statement in create(old_statements(version), 4):
        await old.execute(statement)
    await old.execute("INSERT INTO meta VALUES ('partitions', $1)", b"4")
    for name, some in rows.items():
        for row in some:
            marks = ", ".join(f"${n}" for n in range(1, len(row) + 1))
            await old.execute(f"INSERT INTO {name} VALUES ({marks})", *row)
    await old.execute(
        """INSERT INTO consumers (partition_no, log_offset)
        SELECT n, (SELECT log_offset FROM consumers) FROM generate_series(1, 3) n"""
    )
    written, enough, stop = 0, asyncio.Event(), asyncio.Event()

    async def write() -> None:
        nonlocal written
        while not stop.is_set():
            written += 1
            await old.execute("INSERT INTO security_events (at_ms, device, kind, detail) VALUES (1, 'd', 'x', 'y')")
            await old.execute("UPDATE outcomes SET settled_ms = settled_ms WHERE school = $1", SCHOOL)
            if written >= WRITTEN:
                enough.set()

    writer = asyncio.create_task(write())
    db = await open_postgres(dsn)
    await enough.wait()
    stop.set()
    await writer
    assert await db.fetch_one("SELECT count(*) FROM security_events WHERE kind = 'x'") == (written,)
    assert (
        await db.fetch_all(
            "SELECT c.relname FROM pg_class c JOIN pg_index i ON i.indexrelid = c.oid WHERE NOT i.indisvalid"
        )
        == []
    )
    async with open_world(tmp_path / "none.db", background=False, db=db) as world:
        await goes_on(world, feed, phone)
        stored = await db.fetch_all("SELECT school, class_id, date, session, body FROM outcomes")
        assert len(stored) == 2
        for *key, body in stored:  # servers of the version before may be beside this one
            register = "/".join(key)
            assert packed_v4.unpack_outcome(body, register) == unpack_outcome(body, register)
    again = await open_postgres(dsn)  # nothing is left to do
    await again.close()
    await old.close()


def test_what_a_version_adds_is_what_its_schema_has() -> None:
    """A column that is in the schema and in no migration would be missing in every older store."""
    from syncserver.store.migrations import COLUMNS
    from syncserver.store.schema import schema_statements

    scratch = sqlite3.connect(":memory:")
    for statement in schema_statements():
        scratch.execute(statement)
    for version in VERSIONS:
        added = {(one.table, one.name) for later, columns in COLUMNS.items() if later > version for one in columns}
        for name, columns in old_columns(version).items():
            now = [row[1] for row in scratch.execute(f"PRAGMA table_info({name})")]
            assert {(name, column) for column in now} - {(name, column) for column in columns} <= added
    scratch.close()
