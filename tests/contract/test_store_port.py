"""The promises of the database port, kept by every store behind it; PostgreSQL joins this list when it comes."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from syncserver.errors import ConstraintBroken, StoreFailed, StoreInUse
from syncserver.store.port import Database, Transaction
from syncserver.store.sqlite import SqliteDatabase, open_sqlite, open_sqlite_reader

INSERT = "INSERT INTO meta (name, value) VALUES (?, ?)"


@pytest.fixture
async def db(tmp_path: Path) -> AsyncIterator[Database]:
    """An empty store."""
    database = await open_sqlite(tmp_path / "store.db")
    yield database
    await database.close()


async def names(db: Database) -> list[str]:
    """Committed rows."""
    return [row[0] for row in await db.fetch_all("SELECT name FROM meta ORDER BY name")]


async def test_a_block_that_ends_is_committed_and_one_that_raises_is_not(db: Database) -> None:
    """All or nothing, and reads outside see committed rows only."""
    async with db.transaction() as tx:
        assert await tx.execute(INSERT, ("a", b"1")) == 1
        assert await names(db) == []
        assert await tx.fetch_one("SELECT value FROM meta WHERE name = ?", ("a",)) == (b"1",)
    assert await names(db) == ["a"]
    with pytest.raises(ZeroDivisionError):  # noqa: PT012  (the block is what is tested)
        async with db.transaction() as tx:
            await tx.executemany(INSERT, [("b", b""), ("c", b"")])
            raise ZeroDivisionError
    assert await names(db) == ["a"]


async def test_a_cancelled_block_leaves_nothing_behind(db: Database) -> None:
    """A request whose task is cancelled in a transaction rolls back, and the next one can write."""
    entered = asyncio.Event()

    async def stuck() -> None:
        async with db.transaction() as tx:
            await tx.execute(INSERT, ("a", b""))
            entered.set()
            await asyncio.Event().wait()

    task = asyncio.create_task(stuck())
    await entered.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    async with db.transaction() as tx:
        await tx.execute(INSERT, ("b", b""))
    assert await names(db) == ["b"]


async def test_blocks_run_one_after_another(db: Database) -> None:
    """Twenty read-modify-write blocks at once lose no update."""
    async with db.transaction() as tx:
        await tx.execute(INSERT, ("n", b"0"))

    async def add_one() -> None:
        async with db.transaction() as tx:
            row = await tx.fetch_one("SELECT value FROM meta WHERE name = 'n'")
            assert row is not None
            await tx.execute("UPDATE meta SET value = ? WHERE name = 'n'", (b"%d" % (int(row[0]) + 1),))

    await asyncio.gather(*(add_one() for _ in range(20)))
    assert await db.fetch_one("SELECT value FROM meta WHERE name = 'n'") == (b"20",)


async def test_rows_that_contradict_the_schema_do_not_stop_the_store(db: Database) -> None:
    """A broken constraint is a fault of the caller: nothing is written, the store goes on."""
    with pytest.raises(ConstraintBroken):
        async with db.transaction() as tx:
            await tx.executemany(INSERT, [("a", b""), ("a", b"")])
    assert not db.failed
    async with db.transaction() as tx:
        await tx.execute(INSERT, ("a", b""))


async def test_a_failed_disk_stops_every_writer_until_it_was_verified(db: Database) -> None:
    """A real `database or disk is full`: refused from then on, until `reopen` has checked the file."""
    assert isinstance(db, SqliteDatabase)
    assert db._writer is not None
    (pages,) = await db._writer.fetch_one("PRAGMA page_count") or (0,)
    await db._writer.execute(f"PRAGMA max_page_count = {pages}")
    for _ in range(2):
        with pytest.raises(StoreFailed):
            async with db.transaction() as tx:
                await tx.execute(INSERT, ("a", bytes(1_000_000)))
        assert db.failed
    await db.reopen()
    assert not db.failed
    async with db.transaction() as tx:
        await tx.execute(INSERT, ("a", bytes(1_000_000)))
    assert await names(db) == ["a"]


async def test_a_damaged_file_is_not_reopened(tmp_path: Path) -> None:
    """`reopen` runs the check of the whole file and refuses what does not pass."""
    path = tmp_path / "store.db"
    database = await open_sqlite(path)
    async with database.transaction() as tx:
        await tx.executemany(INSERT, [(f"n{n}", bytes(3_000)) for n in range(100)])
    assert database._writer is not None
    await database._writer.fetch_all("PRAGMA wal_checkpoint(TRUNCATE)")
    with path.open("r+b") as file:
        file.seek(4_096 * 60)
        file.write(b"\xff" * 4_096 * 20)
    with pytest.raises(StoreFailed):
        await database.reopen()
    await database.close()


async def test_one_process_writes_and_readers_cannot(tmp_path: Path) -> None:
    """A second writer is kept out by the lock; a reader looks on while the writer works, and can write nothing."""
    path = tmp_path / "store.db"
    database = await open_sqlite(path)
    with pytest.raises(StoreInUse):
        await open_sqlite(path)
    reader = await open_sqlite_reader(path)
    async with database.transaction() as tx:
        await tx.execute(INSERT, ("a", b""))
    assert await reader.fetch_one("SELECT count(*) FROM meta") == (1,)
    with pytest.raises(StoreFailed):
        await reader.fetch_all("DELETE FROM meta")
    await reader.close()
    await database.close()
    again = await open_sqlite(path)
    await again.close()


async def test_commits_are_synced_in_wal_mode(db: Database) -> None:
    """WAL and `synchronous=FULL`, as asserted when the store was opened."""
    assert isinstance(db, SqliteDatabase)
    assert db._writer is not None
    assert await db._writer.fetch_one("PRAGMA journal_mode") == ("wal",)
    assert await db._writer.fetch_one("PRAGMA synchronous") == (2,)


async def test_another_programs_file_is_refused(tmp_path: Path) -> None:
    """A file that is no store, or one of another schema, is not touched."""
    junk = tmp_path / "junk.db"
    junk.write_bytes(b"no database at all" * 100)
    with pytest.raises(StoreFailed):
        await open_sqlite(junk)
    newer = tmp_path / "newer.db"
    await (await open_sqlite(newer)).close()
    with sqlite3.connect(newer) as raw:
        raw.execute("UPDATE schema_version SET version = 99")
    raw.close()
    with pytest.raises(StoreFailed, match="99"):
        await open_sqlite(newer)
    with pytest.raises(StoreFailed):
        await open_sqlite_reader(tmp_path / "missing.db")


async def test_work_done_atomically_is_committed_or_leaves_nothing(db: Database) -> None:
    """The hot road's transaction: all of it with its result, or nothing and the error as it was."""

    async def good(tx: Transaction) -> int:
        await tx.executemany(INSERT, [("a", b""), ("b", b"")])
        row = await tx.fetch_one("SELECT count(*) FROM meta")
        assert row is not None
        return int(row[0])

    async def bad(tx: Transaction) -> None:
        await tx.execute(INSERT, ("c", b""))
        raise ZeroDivisionError

    async def twice(tx: Transaction) -> None:
        await tx.execute(INSERT, ("a", b""))

    assert await db.atomically(good) == 2
    with pytest.raises(ZeroDivisionError):
        await db.atomically(bad)
    with pytest.raises(ConstraintBroken):
        await db.atomically(twice)
    assert await names(db) == ["a", "b"]


async def test_atomic_work_that_waits_for_something_else_is_refused_and_undone(db: Database) -> None:
    """It would hold the store's only writer; the fault is seen at once and nothing is written."""

    async def waits(tx: Transaction) -> None:
        await tx.execute(INSERT, ("a", b""))
        await asyncio.sleep(0)

    with pytest.raises(RuntimeError):
        await db.atomically(waits)
    assert await names(db) == []
    async with db.transaction() as tx:
        await tx.execute(INSERT, ("b", b""))
    assert await names(db) == ["b"]


async def test_atomic_work_and_blocks_take_turns(db: Database) -> None:
    """Both are writing transactions of the one writer: neither sees the other half done."""

    async def count(tx: Transaction) -> int:
        row = await tx.fetch_one("SELECT count(*) FROM meta")
        assert row is not None
        return int(row[0])

    async with db.transaction() as tx:
        await tx.execute(INSERT, ("a", b""))
        waiting = asyncio.create_task(db.atomically(count))
        await asyncio.sleep(0)
        await tx.execute(INSERT, ("b", b""))
    assert await waiting == 2
