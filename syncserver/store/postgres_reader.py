"""A read-only look at a store in PostgreSQL: one connection, nothing is made."""

from __future__ import annotations

import asyncpg

from syncserver.errors import StoreFailed
from syncserver.store import migrations
from syncserver.store.dialect import translate
from syncserver.store.port import Params, Row
from syncserver.store.postgres import prepare
from syncserver.store.postgres_session import SETTINGS, translated
from syncserver.store.schema import SCHEMA_VERSION

_READ_ONLY = {**SETTINGS, "application_name": "hudur reader", "default_transaction_read_only": "on"}


class PostgresReader:
    """See `syncserver.store.port.Reader`."""

    def __init__(self, inner: asyncpg.Connection) -> None:
        self._inner = inner

    async def fetch_all(self, sql: str, params: Params = ()) -> list[Row]:
        """See `Reader`."""
        with translated():
            return [tuple(row) for row in await self._inner.fetch(translate(sql), *params)]

    async def fetch_one(self, sql: str, params: Params = ()) -> Row | None:
        """See `Reader`."""
        with translated():
            row = await self._inner.fetchrow(translate(sql), *params)
            return None if row is None else tuple(row)

    async def close(self) -> None:
        """End the connection."""
        with translated():
            await self._inner.close()


async def open_postgres_reader(dsn: str) -> PostgresReader:
    """Open the existing store in a PostgreSQL database read-only.

    Raises:
        StoreFailed: there is none, or it is of another version.
    """
    with translated():
        inner = await asyncpg.connect(dsn, server_settings=_READ_ONLY, timeout=10)
    try:
        with translated():
            await prepare(inner)
            if await inner.fetchval("SELECT to_regclass('schema_version')") is None:
                raise StoreFailed("storage", "there is no store in this database")
            version = await inner.fetchval("SELECT version FROM schema_version")
        if not migrations.FIRST <= version <= SCHEMA_VERSION + 1:
            raise StoreFailed("storage", f"the store has schema {version}, this program {SCHEMA_VERSION}")
    except BaseException:
        await inner.close()
        raise
    return PostgresReader(inner)
