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
from tests.support.postgres import cluster_of_its_own, shared_cluster

INSERT = "INSERT INTO meta (name, value) VALUES (?, ?)"
LONG_S = 60  # a wait that only a deadlock needs


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
    monkeypatch.setitem(postgres.SETTINGS, "lock_timeout", "50ms")
    db, other = await open_postgres(dsn), await asyncpg.connect(dsn)
    try:
        await other.execute(f"SELECT pg_advisory_lock({postgres.SPACE}, {postgres._LANES['log']})")

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
    await other.execute(f"SELECT pg_advisory_lock({postgres.SPACE}, {postgres._WRITERS})")

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
