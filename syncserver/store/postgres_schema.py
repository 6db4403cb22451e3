"""The schema in a PostgreSQL database: made once, brought from version to version while servers work on it."""

from __future__ import annotations

import logging

import asyncpg

from clientcore.ports import SystemClock
from syncserver.errors import StoreFailed
from syncserver.store import migrations
from syncserver.store.dialect import DIVIDED, add_column, create, part, translate
from syncserver.store.postgres_session import SETTINGS
from syncserver.store.schema import SCHEMA_VERSION, schema_statements

PARTITIONS = 16
"""Into how many parts a new store is divided: more than anyone will run consumers, few enough to look at each."""

SPACE = 0x4875
"""Our advisory locks are (this, a number)."""

SCHEMA_SETTINGS = {**SETTINGS, "application_name": "hudur schema", "lock_timeout": "2s", "statement_timeout": "0"}
"""Of the connection that `make_schema` is given."""

_SCHEMA = 4
_TRIES_FOR_A_LOCK = 300
_LOOK_EVERY_MS = 200
_LOG = logging.getLogger("hudur.store")  # a migration is a warning: it must be seen without any setting


async def make_schema(inner: asyncpg.Connection) -> None:
    """Make the tables in an empty database; bring those of an earlier version to this one; else check the version.

    The version after this one is served too: what a migration adds is beside what servers of the version before use,
    and they are restarted one by one.

    Args:
        inner: A connection of its own, without time limits (`SCHEMA_SETTINGS`).

    Raises:
        StoreFailed: the tables are of a version that this program does not know.
    """
    if await inner.fetchval("SELECT to_regclass('schema_version')") is None:
        await _create(inner)
    while True:
        version = await _version(inner)
        if not migrations.FIRST <= version <= SCHEMA_VERSION + 1:
            raise StoreFailed("storage", f"the store has schema {version}, this program {SCHEMA_VERSION}")
        if version >= SCHEMA_VERSION:
            return
        # Whoever waited for the lock inside a statement would be waited for by the index the other builds.
        if await inner.fetchval(f"SELECT pg_try_advisory_lock({SPACE}, {_SCHEMA})"):
            await migrate(inner)
            await inner.execute(f"SELECT pg_advisory_unlock({SPACE}, {_SCHEMA})")
        else:
            await SystemClock().sleep_ms(_LOOK_EVERY_MS)


async def _create(inner: asyncpg.Connection) -> None:
    async with inner.transaction():
        await inner.execute(f"SET LOCAL lock_timeout = 0; SELECT pg_advisory_xact_lock({SPACE}, {_SCHEMA})")
        if await inner.fetchval("SELECT to_regclass('schema_version')") is not None:
            return
        for statement in create(schema_statements(), PARTITIONS):
            await inner.execute(statement)
        await inner.execute("INSERT INTO schema_version VALUES ($1)", SCHEMA_VERSION)
        await inner.execute("INSERT INTO meta VALUES ('partitions', $1)", b"%d" % PARTITIONS)
        await inner.executemany("INSERT INTO consumers VALUES ($1, 0, 0)", [(number,) for number in range(PARTITIONS)])


async def _version(inner: asyncpg.Connection) -> int:
    return int(await inner.fetchval("SELECT version FROM schema_version"))


async def migrate(inner: asyncpg.Connection) -> None:
    """Bring a store of an earlier version to this one while servers work on it; the caller holds the lock.

    Every step waits for its lock for two seconds at most, so that nobody queues behind it for longer, and is tried
    again; an index is built beside the writers and waits for none of them. A try that was cut short is gone on with.
    """
    for column in migrations.columns_since(await _version(inner)):
        _LOG.warning("schema %d: column %s.%s", SCHEMA_VERSION, column.table, column.name)
        await _patiently(inner, add_column(column.table, column.name, column.rest))
    partitions = await _partitions(inner)
    for statement in migrations.missing(schema_statements(), await _known(inner)):
        _LOG.warning("schema %d: %s", SCHEMA_VERSION, statement.split("(")[0])
        index = migrations.index_of(statement)
        if index is not None:
            await _build_index(inner, statement, *index)
        elif migrations.view_of(statement) is not None:
            await _patiently(inner, translate(statement).replace("CREATE", "CREATE OR REPLACE", 1))
        else:
            await _patiently(inner, *create([statement], partitions, functions=False))
    await inner.execute("UPDATE schema_version SET version = $1", SCHEMA_VERSION)


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
    text = translate(statement)
    if table not in DIVIDED:
        await _patiently(inner, f"DROP INDEX IF EXISTS {name}")  # one that was cut short
        await _beside_writers(inner, text.replace("INDEX", "INDEX CONCURRENTLY", 1))
        return
    await _patiently(inner, text.replace(f"INDEX {name} ON {table}", f"INDEX IF NOT EXISTS {name} ON ONLY {table}", 1))
    for number in range(await _partitions(inner)):
        piece, its = f"{name}_p{number}", part(table, number)
        if await inner.fetchval("SELECT 1 FROM pg_inherits WHERE inhrelid = to_regclass($1)", piece):
            continue
        await _patiently(inner, f"DROP INDEX IF EXISTS {piece}")
        await _beside_writers(
            inner, text.replace(f"INDEX {name} ON {table}", f"INDEX CONCURRENTLY {piece} ON {its}", 1)
        )
        await _patiently(inner, f"ALTER INDEX {name} ATTACH PARTITION {piece}")


async def _beside_writers(inner: asyncpg.Connection, statement: str) -> None:
    """It waits for everybody who began before it, and nobody waits for it."""
    await inner.execute("SET lock_timeout = 0")
    try:
        await inner.execute(statement)
    finally:
        await inner.execute("RESET lock_timeout")


async def _patiently(inner: asyncpg.Connection, *statements: str) -> None:
    """Some statements as one, tried until their locks were free for a moment."""
    for left in reversed(range(_TRIES_FOR_A_LOCK)):
        try:
            async with inner.transaction():
                for statement in statements:
                    await inner.execute(statement)
        except asyncpg.LockNotAvailableError:
            if not left:
                raise
            await SystemClock().sleep_ms(_LOOK_EVERY_MS)
        else:
            return
