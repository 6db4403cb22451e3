"""The SQLite behind the database port, on aiosqlite.

Invariants:
  1. Exactly one connection writes and checkpoints. SQLite 3.7.0 to 3.51.2 can corrupt a WAL database that two
     connections write; a lock file (`<store>.lock`) keeps a second process out, readers are opened read-only.
  2. WAL with `synchronous=FULL`, asserted after it was set: a commit that returned is on disk, power cut included.
  3. What this module creates is readable by its owner only.
  4. After a failed statement of the disk nothing is written until `reopen` ran `quick_check`.
  5. Whoever writes holds the lock until the writing connection is idle again, also when cancelled: a short transaction
     uses that connection from the event loop's thread.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiosqlite

from syncserver.errors import ConstraintBroken, StoreFailed
from syncserver.store import migrations
from syncserver.store.claims import Claims, SoleClaims
from syncserver.store.connector import FILES, Connector, Held
from syncserver.store.inline import commit_inline, read_inline, run_inline, start_inline
from syncserver.store.port import Params, Reader, Row, T, Transaction
from syncserver.store.schema import SCHEMA_VERSION, schema_statements
from syncserver.store.swap import finish_exchange, plan_path

_BUSY_MS = 5_000
_GLANCE_BUSY_MS = 100  # a reader of a WAL waits for recovery and exclusive locks alone; the event loop waits with it
_WAL_PAGES = 1_000  # checkpoint about every 4 MB of log


class _Connection:
    """One aiosqlite connection as a `Transaction`; knows nothing of BEGIN and COMMIT."""

    def __init__(self, inner: aiosqlite.Connection) -> None:
        self.inner = inner

    async def fetch_all(self, sql: str, params: Params = ()) -> list[Row]:
        with _translated():
            return list(await self.inner.execute_fetchall(sql, params))  # type: ignore[arg-type]

    async def fetch_one(self, sql: str, params: Params = ()) -> Row | None:
        rows = await self.fetch_all(sql, params)
        return rows[0] if rows else None

    async def execute(self, sql: str, params: Params = ()) -> int:
        with _translated():
            cursor = await self.inner.execute(sql, params)
            return cursor.rowcount

    async def executemany(self, sql: str, rows: Iterable[Params]) -> None:
        with _translated():
            await self.inner.executemany(sql, rows)

    async def in_its_thread(self, work: Callable[[Transaction], Coroutine[Any, Any, T]]) -> T:
        # aiosqlite offers no public way to run a function in its thread; these two names have not changed since 2019,
        # and the store's contract tests would notice if they did.
        result: T = await self.inner._execute(run_inline, self.inner._conn, work)  # type: ignore[no-untyped-call]
        return result

    async def in_place(self, work: Callable[[Transaction], Coroutine[Any, Any, T]]) -> T:
        # Its statements find their rows by keys and take less time than it takes to win the interpreter's lock back
        # after each of them; what waits for the disk is the COMMIT.
        result = start_inline(self.inner._conn, work)
        await self.inner._execute(commit_inline, self.inner._conn)  # type: ignore[no-untyped-call]
        return result

    async def read_in_its_thread(self, work: Callable[[Reader], Coroutine[Any, Any, T]]) -> T:
        with _translated():
            result: T = await self.inner._execute(read_inline, self.inner._conn, work)  # type: ignore[no-untyped-call]
            return result


class _translated:  # noqa: N801  (reads as a word in a with-statement)
    """Turns sqlite3's errors into ours."""

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if isinstance(error, sqlite3.IntegrityError):
            raise ConstraintBroken("constraint", str(error)) from error
        if isinstance(error, (sqlite3.ProgrammingError, sqlite3.InterfaceError, sqlite3.NotSupportedError)):
            return  # a fault in our code: let it be seen as it is
        if isinstance(error, sqlite3.Error):
            raise StoreFailed("storage", f"{getattr(error, 'sqlite_errorname', 'sqlite')}: {error}") from error


class SqliteDatabase:
    """One writing connection, two that read: in a thread, and in place (see `syncserver.store.port.Database`)."""

    def __init__(self, path: Path, connector: Connector = FILES) -> None:
        self.path = path
        self._connector = connector
        self._lock = asyncio.Lock()
        self._writer: _Connection | None = None
        self._reader: _Connection | None = None
        self._glancing: sqlite3.Connection | None = None
        self._held: Held | None = None
        self._failed = False
        self._told: list[Callable[[], None]] = []

    partitions = 1
    refers = True

    def part(self, table: str, number: int) -> str:  # noqa: ARG002  (there is one)
        """See `Database`."""
        return table

    async def claims(self) -> Claims:
        """See `Database`."""
        return SoleClaims()

    @property
    def failed(self) -> bool:
        """See `Database`."""
        return self._failed

    def when_failed(self, told: Callable[[], None]) -> None:
        """See `Database`."""
        self._told.append(told)

    async def open(self) -> None:
        """Take the store's lock, open both connections, make or check the schema.

        Raises:
            StoreInUse: another process holds the store.
            StoreFailed: the file is no SQLite database, is damaged, or has another schema version.
        """
        self._held = self._connector.hold(self.path)
        try:
            await self._connect()
        except BaseException:
            await self.close()
            raise

    async def _connect(self) -> None:
        with _translated():
            inner = await self._connector.connect(self.path)
            writer = self._writer = _Connection(inner)
            for pragma, wanted in (("journal_mode", "wal"), ("synchronous", 2), ("foreign_keys", 0)):
                await writer.execute(f"PRAGMA {pragma} = {wanted}")
                found = await writer.fetch_one(f"PRAGMA {pragma}")
                if found != (wanted,):
                    raise StoreFailed("storage", f"{pragma} is {found}, not {wanted}")
            await writer.execute(f"PRAGMA wal_autocheckpoint = {_WAL_PAGES}")
            await writer.execute(f"PRAGMA busy_timeout = {_BUSY_MS}")
            await self._make_schema(writer)
            self._reader = await _open_reader(self.path, self._connector)
            self._glancing = self._connector.connect_glancing(self.path)
            self._glancing.execute(f"PRAGMA busy_timeout = {_GLANCE_BUSY_MS}")

    @staticmethod
    async def _make_schema(writer: _Connection) -> None:
        await writer.execute("BEGIN IMMEDIATE")
        try:
            known = await writer.fetch_one("SELECT 1 FROM sqlite_schema WHERE name = 'schema_version'")
            if known is None:
                for statement in schema_statements():
                    await writer.execute(statement)
                await writer.execute("INSERT INTO schema_version VALUES (?)", (SCHEMA_VERSION,))
            found = await writer.fetch_one("SELECT version FROM schema_version")
            if found is not None and migrations.FIRST <= found[0] < SCHEMA_VERSION:
                await _migrate(writer, found[0])
                found = (SCHEMA_VERSION,)
            if found != (SCHEMA_VERSION,):
                raise StoreFailed("storage", f"the store has schema {found}, this program {SCHEMA_VERSION}")
        except BaseException:
            await writer.execute("ROLLBACK")
            raise
        await writer.execute("COMMIT")

    async def fetch_all(self, sql: str, params: Params = ()) -> list[Row]:
        """See `Reader`."""
        return await self._reading().fetch_all(sql, params)

    async def fetch_one(self, sql: str, params: Params = ()) -> Row | None:
        """See `Reader`."""
        return await self._reading().fetch_one(sql, params)

    async def snapshot(self, work: Callable[[Reader], Coroutine[Any, Any, T]]) -> T:
        """See `Database`."""
        return await self._reading().read_in_its_thread(work)

    async def glance(self, work: Callable[[Reader], Coroutine[Any, Any, T]]) -> T:
        """See `Database`."""
        if self._glancing is None:
            raise StoreFailed("storage", "the store is closed")
        with _translated():
            return read_inline(self._glancing, work)

    def _reading(self) -> _Connection:
        if self._reader is None:
            raise StoreFailed("storage", "the store is closed")
        return self._reader

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Transaction]:
        """See `Database`."""
        async with self._lock:
            writer = self._writer
            if writer is None or self._failed:
                raise StoreFailed("storage", "the store has not been reopened since it failed")
            try:
                await writer.execute("BEGIN IMMEDIATE")
                yield writer
                await writer.execute("COMMIT")
            except StoreFailed:
                self._fail()  # the commit may or may not be on disk: nobody may be told anything now
                raise
            except BaseException:
                await _finished(self._roll_back(writer))
                raise

    async def atomically(
        self,
        work: Callable[[Transaction], Coroutine[Any, Any, T]],
        *,
        lane: str | None = None,  # noqa: ARG002  (one connection writes)
        is_short: bool = False,
    ) -> T:
        """See `Database`."""
        async with self._lock:
            writer = self._writer
            if writer is None or self._failed:
                raise StoreFailed("storage", "the store has not been reopened since it failed")
            return await _finished(self._watched(writer.in_place(work) if is_short else writer.in_its_thread(work)))

    async def _watched(self, steps: Coroutine[Any, Any, T]) -> T:
        try:
            with _translated():
                return await steps
        except StoreFailed:
            self._fail()  # as in `transaction`
            raise

    async def _roll_back(self, writer: _Connection) -> None:
        try:
            if writer.inner.in_transaction:
                await writer.execute("ROLLBACK")
        except StoreFailed:
            self._fail()

    def _fail(self) -> None:
        self._failed = True
        for told in self._told:
            told()

    async def reopen(self) -> None:
        """See `Database`."""
        async with self._lock:
            await self._disconnect()
            await self._connect()
            writer = self._writer
            assert writer is not None
            found = await writer.fetch_all("PRAGMA quick_check")
            if found != [("ok",)]:
                raise StoreFailed("storage", f"quick_check: {found[:3]}")
            self._failed = False

    async def close(self) -> None:
        """Close the connections, the writer last (it checkpoints), and let the lock go."""
        await self._disconnect()
        if self._held is not None:
            self._held.close()
            self._held = None

    async def _disconnect(self) -> None:
        if self._glancing is not None:
            self._glancing.close()
            self._glancing = None
        for connection in (self._reader, self._writer):
            if connection is not None:
                await connection.inner.close()
        self._reader = self._writer = None


async def _finished(steps: Coroutine[Any, Any, T]) -> T:
    """What comes of `steps`; whoever is cancelled meanwhile is so once they have ended."""
    task = asyncio.ensure_future(steps)
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.wait([task])
        except asyncio.CancelledError as now:
            cancelled = now
    if cancelled is not None:
        task.exception()  # looked at: it is noted in the store already
        raise cancelled
    return task.result()


async def _migrate(writer: _Connection, version: int) -> None:
    """Bring a store of an earlier version to this one, in the transaction that is open."""
    for column in migrations.columns_since(version):
        await writer.execute(f"ALTER TABLE {column.table} ADD COLUMN {column.name} {column.rest}")
    known = {row[0] for row in await writer.fetch_all("SELECT name FROM sqlite_schema")}
    for statement in migrations.missing(schema_statements(), known):
        if (view := migrations.view_of(statement)) is not None:
            await writer.execute(f"DROP VIEW IF EXISTS {view}")
        await writer.execute(statement)
    await writer.execute("UPDATE schema_version SET version = ?", (SCHEMA_VERSION,))


class SqliteReader:
    """A read-only look at a store file, also while a server runs on it (operator commands)."""

    def __init__(self, connection: _Connection) -> None:
        self._connection = connection

    async def fetch_all(self, sql: str, params: Params = ()) -> list[Row]:
        """See `Reader`."""
        return await self._connection.fetch_all(sql, params)

    async def fetch_one(self, sql: str, params: Params = ()) -> Row | None:
        """See `Reader`."""
        return await self._connection.fetch_one(sql, params)

    async def close(self) -> None:
        """Close the connection."""
        await self._connection.inner.close()


async def _open_reader(path: Path, connector: Connector) -> _Connection:
    reader = _Connection(await connector.connect_read_only(path))
    await reader.execute(f"PRAGMA busy_timeout = {_BUSY_MS}")
    return reader


async def open_sqlite(path: Path, connector: Connector = FILES) -> SqliteDatabase:
    """Open (or make) the store file for writing.

    Raises:
        StoreInUse: another process holds it.
        StoreFailed: it cannot be used.
    """
    finish_exchange(path)  # a restore that was cut short: what stands at `path` may not be a store yet
    database = SqliteDatabase(path, connector)
    await database.open()
    return database


async def open_sqlite_reader(path: Path, *, any_version: bool = False) -> SqliteReader:
    """Open an existing store file read-only.

    Args:
        path: The file.
        any_version: Also one that this program would have to migrate first; the caller reads what was always there.

    Raises:
        StoreFailed: there is no such store, or (`schema`) it is of another version.
    """
    if plan_path(path).exists():
        raise StoreFailed("restore-plan", f"a restore of {path} was cut short: start the server, it finishes it")
    if not path.exists():
        raise StoreFailed("storage", f"there is no store at {path}")
    with _translated():
        reader = SqliteReader(await _open_reader(path, FILES))
    if any_version:
        return reader
    try:
        found = await reader.fetch_one("SELECT version FROM schema_version")
        if found != (SCHEMA_VERSION,):
            raise StoreFailed(
                "schema",
                f"the store has schema {found}, this program {SCHEMA_VERSION}: a server that starts on it migrates it",
            )
    except BaseException:
        await reader.close()
        raise
    return reader
