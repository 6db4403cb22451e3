"""A PostgreSQL store is brought to a new version among everything else that goes on: long reports, writers, other
processes that start at the same moment, and a try that was cut short."""

from __future__ import annotations

import asyncio

import asyncpg
import pytest

from syncserver.errors import StoreFailed
from syncserver.store import postgres_schema
from syncserver.store.dialect import create
from syncserver.store.postgres import open_postgres
from syncserver.store.schema import SCHEMA_VERSION
from tests.integration.test_migrations import old_statements
from tests.support.postgres import shared_cluster

LONG_S = 120  # a wait that only a deadlock needs
IMPATIENT = "100ms"
WRITES = 20
WRITE = "UPDATE outcomes SET settled_ms = settled_ms + 1 WHERE school = 's'"


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A wait for a lock ends soon, so that what comes after it is seen."""
    monkeypatch.setitem(postgres_schema.SCHEMA_SETTINGS, "lock_timeout", IMPATIENT)


async def old_store() -> str:
    """A store of version 3 with one outcome."""
    dsn = shared_cluster().database()
    session = await asyncpg.connect(dsn)
    for statement in create(old_statements(3), 4):
        await session.execute(statement)
    await session.execute("INSERT INTO meta VALUES ('partitions', $1)", b"4")
    await session.execute("INSERT INTO schema_version VALUES (3)")
    await session.execute("INSERT INTO outcomes VALUES ('s', 'c', '2026-11-22', 'day', 1, 0, 'b', 'r')")
    await session.close()
    return dsn


async def wait_for(session: asyncpg.Connection, condition: str) -> None:
    while not await session.fetchval(f"SELECT {condition}"):
        await asyncio.sleep(0)


def waiting_for(kind: str) -> str:
    return f"EXISTS (SELECT 1 FROM pg_locks WHERE NOT granted AND mode = '{kind}')"


async def version_of(session: asyncpg.Connection) -> int:
    found: int = await session.fetchval("SELECT version FROM schema_version")
    return found


async def test_nobody_queues_behind_a_migration_that_waits_for_a_long_report() -> None:
    """A report reads for long; the new column waits for it, and writers go on all the same, again and again."""
    dsn = await old_store()
    report, writer = await asyncpg.connect(dsn), await asyncpg.connect(dsn)
    reading = report.transaction()
    await reading.start()
    await report.fetch("SELECT * FROM outcomes")
    opening = asyncio.create_task(open_postgres(dsn))
    async with asyncio.timeout(LONG_S):
        await wait_for(writer, waiting_for("AccessExclusiveLock"))
        for _ in range(WRITES):
            await writer.execute(WRITE)
        assert not opening.done()
        assert await version_of(writer) == 3
        await reading.rollback()
        await (await opening).close()
    assert await writer.fetchval("SELECT settled_ms FROM outcomes") == WRITES
    assert await version_of(writer) == SCHEMA_VERSION
    await report.close()
    await writer.close()


async def test_an_index_waits_for_a_long_report_as_long_as_it_takes() -> None:
    """An index that is built beside the writers waits for whoever began before it, however long that is."""
    dsn = await old_store()
    report, looker = await asyncpg.connect(dsn), await asyncpg.connect(dsn)
    reading = report.transaction(isolation="repeatable_read")
    await reading.start()
    await report.fetch("SELECT * FROM users")
    opening = asyncio.create_task(open_postgres(dsn))
    async with asyncio.timeout(LONG_S):
        await wait_for(looker, "EXISTS (SELECT 1 FROM pg_stat_progress_create_index WHERE phase LIKE 'waiting for%')")
        began = await looker.fetchval("SELECT clock_timestamp()")
        await wait_for(looker, f"clock_timestamp() > '{began}'::timestamptz + interval '0.3 s'")
        await reading.rollback()
        await (await opening).close()
    assert await version_of(looker) == SCHEMA_VERSION
    await report.close()
    await looker.close()


async def test_processes_that_start_at_once_migrate_once_and_all_serve() -> None:
    """Whoever comes second waits without being in the first one's way, and both open the store."""
    dsn = await old_store()
    report = await asyncpg.connect(dsn)
    reading = report.transaction()
    await reading.start()
    await report.fetch("SELECT * FROM outcomes")
    looker = await asyncpg.connect(dsn)
    async with asyncio.timeout(LONG_S):
        opening = [asyncio.create_task(open_postgres(dsn)) for _ in range(4)]
        await wait_for(looker, waiting_for("AccessExclusiveLock"))
        await reading.rollback()
        for database in await asyncio.gather(*opening):
            assert await database.fetch_one("SELECT version FROM schema_version") == (SCHEMA_VERSION,)
            await database.close()
    await looker.close()
    await report.close()


async def test_empty_databases_are_made_once_by_processes_that_start_at_once() -> None:
    dsn = shared_cluster().database()
    async with asyncio.timeout(LONG_S):
        for database in await asyncio.gather(*(open_postgres(dsn) for _ in range(4))):
            assert await database.fetch_one("SELECT count(*) FROM schema_version") == (1,)
            await database.close()


async def test_an_index_that_was_cut_short_is_built_again() -> None:
    """A killed build leaves an index that nobody may use: the next process takes it away and builds it whole."""
    dsn = await old_store()
    session = await asyncpg.connect(dsn)
    await session.execute("ALTER TABLE outcomes ADD COLUMN first_seq BIGINT, ADD COLUMN last_seq BIGINT")
    await session.execute("CREATE INDEX outcomes_by_seq ON ONLY outcomes (last_seq) WHERE last_seq IS NOT NULL")
    await session.execute("CREATE INDEX outcomes_by_seq_p1 ON outcomes_p1 (revision)")  # not what it should be
    await (await open_postgres(dsn)).close()
    rows = await session.fetch(
        "SELECT indexname, indexdef FROM pg_indexes WHERE indexname LIKE 'outcomes_by_seq%' ORDER BY 1"
    )
    assert len(rows) == 5
    assert all("(last_seq) WHERE (last_seq IS NOT NULL)" in definition for _, definition in rows)
    assert await session.fetchval("SELECT count(*) FROM pg_index WHERE NOT indisvalid") == 0
    await session.close()


@pytest.mark.parametrize(("ahead", "served"), [(1, True), (2, False)])
async def test_a_server_serves_the_version_after_its_own_and_none_beyond(ahead: int, served: bool) -> None:
    """A migration only adds: servers of the version before are restarted one by one, and must be able to start."""
    dsn = shared_cluster().database()
    await (await open_postgres(dsn)).close()
    session = await asyncpg.connect(dsn)
    await session.execute("UPDATE schema_version SET version = $1", SCHEMA_VERSION + ahead)
    if served:
        await (await open_postgres(dsn)).close()
    else:
        with pytest.raises(StoreFailed, match=str(SCHEMA_VERSION + ahead)):
            await open_postgres(dsn)
    assert await version_of(session) == SCHEMA_VERSION + ahead
    await session.close()
