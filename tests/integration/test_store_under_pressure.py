"""PostgreSQL's store among many writers: who waits, who does not, and what a wait that ends badly leaves behind."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import pytest

from syncserver.errors import ConstraintBroken, StoreBusy, StoreFailed
from syncserver.store import postgres
from syncserver.store.port import Transaction
from syncserver.store.postgres import PostgresDatabase, open_postgres
from syncserver.store.postgres_schema import SPACE
from syncserver.store.postgres_session import SETTINGS
from tests.support.postgres import cluster_of_its_own, shared_cluster

INSERT = "INSERT INTO meta (name, value) VALUES (?, ?)"
LONG_S = 120  # a wait that only a deadlock needs


@pytest.fixture
async def dsn() -> str:
    return shared_cluster().database()


@pytest.fixture
async def db(dsn: str) -> AsyncIterator[PostgresDatabase]:
    database = await open_postgres(dsn)
    yield database
    await database.close()


async def wait_for_waiter(looker: asyncpg.Connection) -> None:
    """Until somebody waits for an advisory lock."""
    while not await looker.fetchval("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"):
        await asyncio.sleep(0)


async def names(db: PostgresDatabase) -> list[str]:
    return [row[0] for row in await db.fetch_all("SELECT name FROM meta WHERE name LIKE 'n%' ORDER BY name")]


async def test_whoever_waits_for_its_turn_keeps_no_connection_from_the_others(db: PostgresDatabase) -> None:
    """Far more orders at once than the pool has connections, each of which also reads outside its transaction."""

    async def order(number: int) -> None:
        async with db.transaction() as tx:
            await tx.execute(INSERT, (f"n{number:02d}", b""))
            assert await db.fetch_one("SELECT count(*) FROM meta WHERE name = ?", (f"n{number:02d}",)) == (0,)

    async with asyncio.timeout(LONG_S):
        await asyncio.gather(*(order(number) for number in range(40)))
    assert len(await names(db)) == 40


@pytest.mark.parametrize("error", [OSError("a file"), TimeoutError(), ValueError()])
async def test_an_error_of_the_block_is_not_the_stores(db: PostgresDatabase, error: Exception) -> None:
    """Files and other servers fail too: that says nothing of the store, and it goes on."""
    with pytest.raises(type(error)):  # noqa: PT012  (the block is what is tested)
        async with db.transaction() as tx:
            await tx.execute(INSERT, ("n1", b""))
            raise error

    async def fails(_: Any) -> None:
        raise error

    with pytest.raises(type(error)):
        await db.atomically(fails, lane="log")
    with pytest.raises(type(error)):
        await db.snapshot(fails)
    assert not db.failed
    assert await names(db) == []


async def test_a_block_that_hides_a_broken_statement_is_not_taken_for_committed(db: PostgresDatabase) -> None:
    """PostgreSQL answers COMMIT of a broken transaction with a friendly ROLLBACK: that is no commit."""
    with pytest.raises(ConstraintBroken):  # noqa: PT012  (the block is what is tested)
        async with db.transaction() as tx:
            await tx.execute(INSERT, ("n1", b""))
            with contextlib.suppress(ConstraintBroken):
                await tx.execute(INSERT, ("n1", b""))

    async def hides(tx: Transaction) -> None:
        await tx.execute(INSERT, ("n1", b""))
        with pytest.raises(ConstraintBroken):
            await tx.execute(INSERT, ("n1", b""))

    with pytest.raises(ConstraintBroken):
        await db.atomically(hides, lane="log")
    assert await names(db) == []
    assert not db.failed


async def test_a_lane_that_stays_taken_is_busy_and_no_broken_store(dsn: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another process is at work for too long: nothing was written, and the next try needs no reopening."""
    monkeypatch.setitem(SETTINGS, "lock_timeout", "50ms")
    db, other = await open_postgres(dsn), await asyncpg.connect(dsn)
    try:
        await other.execute(f"SELECT pg_advisory_lock({SPACE}, {postgres._LANES['log']})")

        async def work(tx: Transaction) -> None:
            await tx.execute(INSERT, ("n1", b""))

        with pytest.raises(StoreBusy):
            await db.atomically(work, lane="log")
        assert not db.failed
        await db.atomically(work, lane="settle")
        await other.execute("SELECT pg_advisory_unlock_all()")
        with pytest.raises(ConstraintBroken):
            await db.atomically(work, lane="log")
    finally:
        await other.close()
        await db.close()


async def test_who_gives_up_waiting_leaves_nothing_open(db: PostgresDatabase, dsn: str) -> None:
    """A request that is cancelled while it waits for its turn: its connection comes back clean, and quietly."""
    faults: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: faults.append(context))
    other = await asyncpg.connect(dsn)
    await other.execute(f"SELECT pg_advisory_lock({SPACE}, {postgres._WRITERS})")

    async def order() -> None:
        async with db.transaction() as tx:
            await tx.execute(INSERT, ("n1", b""))

    task = asyncio.create_task(order())
    await wait_for_waiter(other)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await other.execute("SELECT pg_advisory_unlock_all()")
    await other.close()
    async with asyncio.timeout(LONG_S), db.transaction() as tx:
        await tx.execute(INSERT, ("n2", b""))
    assert await names(db) == ["n2"]
    assert faults == []


async def test_a_session_that_was_cut_in_a_transaction_is_a_failed_store(db: PostgresDatabase, dsn: str) -> None:
    """What became of its commit nobody knows: nothing is written until the store was reopened."""
    other = await asyncpg.connect(dsn)
    with pytest.raises(StoreFailed):  # noqa: PT012  (the block is what is tested)
        async with db.transaction() as tx:
            row = await tx.fetch_one("SELECT pg_backend_pid()")
            assert row is not None
            await tx.execute(INSERT, ("n1", b""))
            await other.execute("SELECT pg_terminate_backend($1)", row[0])
            await tx.execute(INSERT, ("n2", b""))
    await other.close()
    assert db.failed
    with pytest.raises(StoreFailed):
        async with db.transaction() as tx:
            await tx.execute(INSERT, ("n3", b""))
    await db.reopen()
    async with db.transaction() as tx:
        await tx.execute(INSERT, ("n4", b""))
    assert await names(db) == ["n4"]


async def test_a_database_that_cannot_hold_every_name_is_refused_and_left_empty(dsn: str) -> None:
    """Arabic names in a database of another encoding would come back as something else, or not at all."""
    other = await asyncpg.connect(dsn)
    await other.execute("CREATE DATABASE latin TEMPLATE template0 ENCODING 'LATIN1' LC_COLLATE 'C' LC_CTYPE 'C'")
    with pytest.raises(StoreFailed, match="UTF8"):
        await open_postgres(shared_cluster().dsn("latin"))
    assert shared_cluster().psql("SELECT to_regclass('schema_version') IS NULL", "latin") == "t"
    await other.execute("DROP DATABASE latin")
    await other.close()


async def test_a_server_that_acknowledges_before_the_disk_is_refused() -> None:
    """Without fsync: fast, and everything a phone was promised may be gone."""
    with cluster_of_its_own({"fsync": "off"}) as loose, pytest.raises(StoreFailed, match="fsync"):
        await open_postgres(loose.database())


async def test_a_process_that_froze_in_a_lane_loses_it_and_wrote_nothing(
    dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was stopped between two statements: the server ends its session, the next one takes the lane."""
    monkeypatch.setitem(SETTINGS, "idle_in_transaction_session_timeout", "1s")
    frozen = await open_postgres(dsn)
    monkeypatch.undo()
    other = await open_postgres(dsn)
    holds, thawed = asyncio.Event(), asyncio.Event()

    async def freezes(tx: Transaction) -> None:
        await tx.execute(INSERT, ("n1", b""))
        holds.set()
        await thawed.wait()
        await tx.execute(INSERT, ("n2", b""))

    async def goes_on(tx: Transaction) -> None:
        await tx.execute(INSERT, ("n3", b""))

    task = asyncio.create_task(frozen.atomically(freezes, lane="log"))
    async with asyncio.timeout(LONG_S):
        await holds.wait()
        await other.atomically(goes_on, lane="log")
    thawed.set()
    with pytest.raises(StoreFailed):
        await task
    assert frozen.failed
    assert not other.failed
    assert await names(other) == ["n3"]
    await frozen.close()
    await other.close()


async def test_two_lanes_that_block_each_other_are_both_done_in_the_end(db: PostgresDatabase) -> None:
    """A deadlock between rows is nobody's fault: the server undoes one of them, and it is done again."""
    async with db.transaction() as tx:
        await tx.executemany(INSERT, [("n1", b""), ("n2", b"")])
    tries = 0
    both = asyncio.Barrier(2)

    async def work(tx: Transaction, first: str, second: str) -> None:
        nonlocal tries
        tries += 1
        await tx.execute("UPDATE meta SET value = value || CAST(? AS BLOB) WHERE name = ?", (b"+", first))
        if tries <= 2:
            await both.wait()
        await tx.execute("UPDATE meta SET value = value || CAST(? AS BLOB) WHERE name = ?", (b"+", second))

    async with asyncio.timeout(LONG_S):
        await asyncio.gather(
            db.atomically(lambda tx: work(tx, "n1", "n2"), lane="log"),
            db.atomically(lambda tx: work(tx, "n2", "n1"), lane="settle"),
        )
    assert tries == 3
    assert await db.fetch_all("SELECT value FROM meta WHERE name LIKE 'n%'") == [(b"++",), (b"++",)]
    assert not db.failed


async def test_a_column_that_a_migration_added_disturbs_nobody(db: PostgresDatabase, dsn: str) -> None:
    """What a cached statement reads has changed its shape: it is asked again, in a transaction as well."""

    async def read(tx: Transaction) -> tuple[Any, ...] | None:
        return await tx.fetch_one("SELECT * FROM schema_version")

    async def both() -> list[int]:
        rows = (await db.atomically(read, lane="log"), await db.fetch_one("SELECT * FROM schema_version"))
        return [len(row) for row in rows if row is not None]

    assert await both() == [1, 1]
    other = await asyncpg.connect(dsn)
    await other.execute("ALTER TABLE schema_version ADD COLUMN later BIGINT")
    await other.close()
    assert await both() == [2, 2]
    assert not db.failed
