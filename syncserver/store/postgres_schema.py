"""The schema in a PostgreSQL database: made once, brought from version to version while servers work on it."""

from __future__ import annotations

import logging

import asyncpg

from syncserver.errors import StoreFailed
from syncserver.store import migrations
from syncserver.store.dialect import DIVIDED, add_column, create, part, translate
from syncserver.store.schema import SCHEMA_VERSION, schema_statements

PARTITIONS = 16
"""Into how many parts a new store is divided: more than anyone will run consumers, few enough to look at each."""

SPACE = 0x4875
"""Our advisory locks are (this, a number)."""

_SCHEMA = 4
_TRIES_FOR_A_LOCK = 60
_LOG = logging.getLogger("hudur.store")


async def make_schema(pool: asyncpg.Pool) -> None:
    """Make the tables in an empty database, or check their version; one process at a time."""
    async with pool.acquire() as inner, inner.transaction():
        await inner.execute(f"SELECT pg_advisory_xact_lock({SPACE}, {_SCHEMA})")
        if await inner.fetchval("SELECT to_regclass('schema_version')") is None:
            for statement in create(schema_statements(), PARTITIONS):
                await inner.execute(statement)
            await inner.execute("INSERT INTO schema_version VALUES ($1)", SCHEMA_VERSION)
            await inner.execute("INSERT INTO meta VALUES ('partitions', $1)", b"%d" % PARTITIONS)
            await inner.executemany(
                "INSERT INTO consumers VALUES ($1, 0, 0)", [(number,) for number in range(PARTITIONS)]
            )
    version = await pool.fetchval("SELECT version FROM schema_version")
    if migrations.FIRST <= version < SCHEMA_VERSION:
        async with pool.acquire() as inner:
            await migrate(inner, version)
    elif version != SCHEMA_VERSION:
        raise StoreFailed("storage", f"the store has schema {version}, this program {SCHEMA_VERSION}")


async def migrate(inner: asyncpg.Connection, version: int) -> None:
    """Bring a store of an earlier version to this one while servers work on it.

    Every step waits for its lock for two seconds at most, so that nobody queues behind it, and is tried again; an index
    is built beside the writers. Whoever comes second waits, and finds nothing left to do.
    """
    await inner.execute(f"SELECT pg_advisory_lock({SPACE}, {_SCHEMA})")
    try:
        await inner.execute("SET lock_timeout = '2s'; SET statement_timeout = 0")
        for column in migrations.columns_since(version):
            _LOG.info("schema %d: column %s.%s", SCHEMA_VERSION, column.table, column.name)
            await _patiently(inner, add_column(column.table, column.name, column.rest))
        for statement in migrations.missing(schema_statements(), await _known(inner)):
            _LOG.info("schema %d: %s", SCHEMA_VERSION, statement.split("(")[0])
            index = migrations.index_of(statement)
            if index is None:
                for text in create([statement], await _partitions(inner), functions=False):
                    await _patiently(inner, text)
            else:
                await _build_index(inner, statement, *index)
        await inner.execute("UPDATE schema_version SET version = $1", SCHEMA_VERSION)
    finally:
        await inner.execute(f"SELECT pg_advisory_unlock({SPACE}, {_SCHEMA})")
        await inner.execute("RESET lock_timeout; RESET statement_timeout")


async def _known(inner: asyncpg.Connection) -> set[str]:
    """Tables, views and indexes that are whole."""
    rows = await inner.fetch(
        """SELECT c.relname FROM pg_class c LEFT JOIN pg_index i ON i.indexrelid = c.oid
        WHERE c.relnamespace = current_schema()::regnamespace AND coalesce(i.indisvalid, true)"""
    )
    return {row[0] for row in rows}


async def _partitions(inner: asyncpg.Connection) -> int:
    return int(await inner.fetchval("SELECT value FROM meta WHERE name = 'partitions'"))


async def _build_index(inner: asyncpg.Connection, statement: str, name: str, table: str) -> None:
    """An index beside the writers; that of a divided table part by part."""
    if table not in DIVIDED:
        await inner.execute(f"DROP INDEX IF EXISTS {name}")  # one that was cut short
        await inner.execute(translate(statement).replace("CREATE INDEX", "CREATE INDEX CONCURRENTLY", 1))
        return
    text = translate(statement).replace(f"INDEX {name} ON {table}", f"INDEX IF NOT EXISTS {name} ON ONLY {table}", 1)
    await _patiently(inner, text)
    for number in range(await _partitions(inner)):
        piece, its = f"{name}_p{number}", part(table, number)
        if await inner.fetchval("SELECT 1 FROM pg_inherits WHERE inhrelid = to_regclass($1)", piece):
            continue
        await inner.execute(f"DROP INDEX IF EXISTS {piece}")
        text = translate(statement).replace(f"INDEX {name} ON {table}", f"INDEX CONCURRENTLY {piece} ON {its}", 1)
        await inner.execute(text)
        await _patiently(inner, f"ALTER INDEX {name} ATTACH PARTITION {piece}")


async def _patiently(inner: asyncpg.Connection, statement: str) -> None:
    for left in reversed(range(_TRIES_FOR_A_LOCK)):
        try:
            await inner.execute(statement)
        except asyncpg.LockNotAvailableError:
            if not left:
                raise
        else:
            return
