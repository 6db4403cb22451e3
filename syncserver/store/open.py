"""A store by its address: the SQLite file, or the PostgreSQL database."""

from __future__ import annotations

from typing import Protocol

from syncserver.config import PostgresAddress, StoreAddress
from syncserver.store.port import Database, Reader
from syncserver.store.postgres import open_postgres
from syncserver.store.postgres_reader import open_postgres_reader
from syncserver.store.sqlite import open_sqlite, open_sqlite_reader


class ClosingReader(Reader, Protocol):
    """A read-only look at a store."""

    async def close(self) -> None:
        """End it."""
        ...


async def open_store(address: StoreAddress) -> Database:
    """Open (or make) a store for writing.

    Raises:
        StoreInUse: another process holds the file.
        StoreFailed: it cannot be used.
    """
    if isinstance(address, PostgresAddress):
        return await open_postgres(address.dsn)
    return await open_sqlite(address)


async def open_reader(address: StoreAddress) -> ClosingReader:
    """Open an existing store read-only, also while servers run on it.

    Raises:
        StoreFailed: there is no such store.
    """
    if isinstance(address, PostgresAddress):
        return await open_postgres_reader(address.dsn)
    return await open_sqlite_reader(address)
