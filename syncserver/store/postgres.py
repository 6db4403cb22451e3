"""The PostgreSQL behind the database port, on asyncpg: for many server processes at once.

Invariants:
  1. `transaction()` excludes every other writer, as on SQLite: orders, enrolment and the audit chain rest on it.
     `atomically(lane=…)` excludes those of its lane, and orders. Both by advisory locks of the transaction, which end
     with it, whatever becomes of the process.
  2. What a lane numbers (offsets of the log, sequences of the feed) it numbers under its lock, from the last committed
     one: the order of the numbers is the order of the commits, and a reader by offset can skip nothing.
  3. `synchronous_commit` is on, asserted for every connection: a commit that returned is on disk.
  4. After a failed statement of the server nothing is written until `reopen` has looked at the store; a wait that
     took too long is `StoreBusy` and no failure: nothing was written.
  5. Writers of one process queue in it before they take a connection: whoever waits keeps none from a reader.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import asyncpg

from syncserver.errors import ConstraintBroken, StoreBusy, StoreFailed
from syncserver.store.claims import Claims
from syncserver.store.dialect import multi_row, part, translate
from syncserver.store.port import Params, Reader, Row, T, Transaction
from syncserver.store.postgres_claims import PostgresClaims
from syncserver.store.postgres_schema import PARTITIONS, SCHEMA_SETTINGS, SPACE, make_schema
from syncserver.store.postgres_session import AGAIN, CUT, SETTINGS, translated

# Our advisory locks; 4 is the schema's, 5 and from 100 are claims.
_WRITERS, _LANES = 1, {"log": 2, "settle": 3, "heartbeat": 6}
_SERVER_MIN = 14  # functions written in SQL
_TRIES = 5  # a deadlock or a conflict of serialization is nobody's fault: the work is done again
_POOL_MAX = 12
_TYPES: dict[str, tuple[str, ...]] = {}


class _Connection:
    """One asyncpg connection as a `Transaction`; knows nothing of BEGIN and COMMIT."""

    def __init__(self, inner: asyncpg.Connection) -> None:
        self.inner = inner

    async def fetch_all(self, sql: str, params: Params = ()) -> list[Row]:
        with translated():
            return [tuple(row) for row in await self.inner.fetch(translate(sql), *params)]

    async def fetch_one(self, sql: str, params: Params = ()) -> Row | None:
        with translated():
            row = await self.inner.fetchrow(translate(sql), *params)
            return None if row is None else tuple(row)

    async def execute(self, sql: str, params: Params = ()) -> int:
        with translated():
            return _count(await self.inner.execute(translate(sql), *params))

    async def executemany(self, sql: str, rows: Iterable[Params]) -> None:
        found = list(rows)
        if not found:
            return
        text = translate(sql)
        with translated():
            if len(found) > 1 and (many := await self._as_one(text, found)) is not None:
                await self.inner.execute(many, *(list(column) for column in zip(*found, strict=True)))
            else:
                await self.inner.executemany(text, found)

    async def _as_one(self, sql: str, rows: Sequence[Params]) -> str | None:
        """The statement that writes all rows at once; None where they must be written one after another."""
        if not sql.lstrip().startswith("INSERT"):
            return None
        if sql not in _TYPES:  # the same for every store of this schema: asked once, not once a transaction
            _TYPES[sql] = tuple(kind.name for kind in (await self.inner.prepare(sql)).get_parameters())
        many = multi_row(sql, _TYPES[sql])
        if many is None:
            return None
        text, target = many
        if target and len({tuple(row[place] for place in target) for row in rows}) < len(rows):
            return None
        return text


def _count(status: str) -> int:
    last = status.rpartition(" ")[2]
    return int(last) if last.isdecimal() else 0


class PostgresDatabase:
    """A pool of connections (see `syncserver.store.port.Database`)."""

    def __init__(self, dsn: str) -> None:
        self._dsn = dsn
        self._pool: asyncpg.Pool | None = None
        self._failed = False
        self._told: list[Callable[[], None]] = []
        self._reopening = asyncio.Lock()
        self._turns = {lane: asyncio.Lock() for lane in (None, *_LANES)}
        self.partitions = PARTITIONS

    refers = False  # servers of version 4 may be beside this one; the version after this one can

    @property
    def failed(self) -> bool:
        """See `Database`."""
        return self._failed

    def when_failed(self, told: Callable[[], None]) -> None:
        """See `Database`."""
        self._told.append(told)

    def part(self, table: str, number: int) -> str:
        """See `Database`."""
        return part(table, number)

    async def claims(self) -> Claims:
        """See `Database`."""
        with translated():
            return await PostgresClaims.open(self._dsn)

    async def open(self) -> None:
        """Connect, make or check the schema.

        Raises:
            StoreFailed: the server cannot be reached, or the schema is another version's.
        """
        try:
            await self._connect()
        except BaseException:
            await self.close()
            raise

    async def _connect(self) -> None:
        with translated():
            first = await asyncpg.connect(self._dsn, server_settings=SCHEMA_SETTINGS, timeout=10)
            try:
                _check_server(first.get_server_version().major, await first.fetchval("SHOW server_encoding"))
                await make_schema(first)
            finally:
                await first.close()
            self._pool = await asyncpg.create_pool(
                self._dsn, min_size=1, max_size=_POOL_MAX, init=prepare, reset=as_it_is, server_settings=SETTINGS,
                timeout=10, command_timeout=150, statement_cache_size=1_000, max_cached_statement_lifetime=0,
            )  # fmt: skip
        found = await self.fetch_one("SELECT value FROM meta WHERE name = 'partitions'")
        self.partitions = PARTITIONS if found is None else int(found[0])

    def _need_pool(self) -> asyncpg.Pool:
        if self._pool is None:
            raise StoreFailed("storage", "the store is closed")
        return self._pool

    async def fetch_all(self, sql: str, params: Params = ()) -> list[Row]:
        """See `Reader`."""
        with translated():
            return [tuple(row) for row in await self._need_pool().fetch(translate(sql), *params)]

    async def fetch_one(self, sql: str, params: Params = ()) -> Row | None:
        """See `Reader`."""
        with translated():
            row = await self._need_pool().fetchrow(translate(sql), *params)
            return None if row is None else tuple(row)

    async def snapshot(self, work: Callable[[Reader], Coroutine[Any, Any, T]]) -> T:
        """See `Database`."""
        with _busy_if_again():
            async with self._begun("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY") as tx:
                return await work(tx)

    async def glance(self, work: Callable[[Reader], Coroutine[Any, Any, T]]) -> T:
        """See `Database`."""
        return await self.snapshot(work)

    @asynccontextmanager
    async def _begun(self, begin: str) -> AsyncIterator[Transaction]:
        """One connection between BEGIN (with its locks, in one round trip) and COMMIT or ROLLBACK."""
        pool = self._need_pool()
        with translated():
            inner = await pool.acquire()
        try:
            with translated():
                await inner.execute(begin)
            yield _Connection(inner)
            with translated():
                ended = await inner.execute("COMMIT")
            if ended != "COMMIT":  # a statement was broken, and the block went on as if nothing had happened
                raise ConstraintBroken("constraint", "a statement of the transaction was broken")
        except BaseException:
            await asyncio.shield(_roll_back(inner))
            raise
        finally:
            with translated():
                await pool.release(inner)

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Transaction]:
        """See `Database`."""
        async with self._turns[None]:
            self._check()
            with self._watched(), _busy_if_again():
                async with self._begun(_begin(None)) as tx:
                    yield tx

    async def atomically(
        self,
        work: Callable[[Transaction], Coroutine[Any, Any, T]],
        *,
        lane: str | None = None,
        is_short: bool = False,  # noqa: ARG002  (no thread is spared)
    ) -> T:
        """See `Database`."""
        async with self._turns[lane]:
            self._check()
            with self._watched():
                return await asyncio.shield(self._with_retries(_begin(lane), work))

    async def _with_retries(self, begin: str, work: Callable[[Transaction], Coroutine[Any, Any, T]]) -> T:
        for left in reversed(range(_TRIES)):
            try:
                async with self._begun(begin) as tx:
                    return await work(tx)
            except AGAIN as again:
                if not left:
                    raise _busy(again) from again
        raise AssertionError("unreachable")

    @contextlib.contextmanager
    def _watched(self) -> Iterator[None]:
        try:
            yield
        except StoreBusy:
            raise
        except StoreFailed:
            self._fail()  # the commit may or may not be on disk: nobody may be told anything now
            raise

    def _check(self) -> None:
        if self._failed:
            raise StoreFailed("storage", "the store has not been reopened since it failed")

    def _fail(self) -> None:
        self._failed = True
        for told in self._told:
            told()

    async def reopen(self) -> None:
        """See `Database`."""
        async with self._reopening:
            await self._disconnect()
            await self._connect()
            self._failed = False

    async def close(self) -> None:
        """See `Database`."""
        await self._disconnect()

    async def _disconnect(self) -> None:
        pool, self._pool = self._pool, None
        if pool is not None:
            try:
                await asyncio.wait_for(pool.close(), timeout=5)
            except (TimeoutError, OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
                pool.terminate()


@contextlib.contextmanager
def _busy_if_again() -> Iterator[None]:
    """For work that we cannot do again ourselves: whoever asked may."""
    try:
        yield
    except AGAIN as again:
        raise _busy(again) from again


def _busy(again: BaseException) -> StoreBusy:
    return StoreBusy("busy", f"PostgreSQL: {type(again).__name__}")


# An import compares 800,000 pupils with the store between two statements of one transaction: a minute of Python. The
# lanes of pushes and settling, which never compute for long, keep the session's 15 seconds.
_PATIENT = "SET LOCAL idle_in_transaction_session_timeout = '2min'"


def _begin(lane: str | None) -> str:
    if lane is None:
        return f"BEGIN; {_PATIENT}; SELECT pg_advisory_xact_lock({SPACE}, {_WRITERS})"
    shared = f"pg_advisory_xact_lock_shared({SPACE}, {_WRITERS})"
    return f"BEGIN; SELECT {shared}, pg_advisory_xact_lock({SPACE}, {_LANES[lane]})"


async def _roll_back(inner: asyncpg.Connection) -> None:
    with contextlib.suppress(asyncpg.PostgresError, *CUT):  # cut off: the server does it
        await inner.execute("ROLLBACK")


async def prepare(inner: asyncpg.Connection) -> None:
    """What every new connection must be like."""
    await inner.set_type_codec("numeric", encoder=str, decoder=_whole, schema="pg_catalog", format="text")
    found = await inner.fetchrow("SELECT current_setting('synchronous_commit'), current_setting('fsync')")
    if tuple(found) != ("on", "on"):
        raise StoreFailed("storage", "PostgreSQL must run with fsync and synchronous_commit on")


def _check_server(version: int, encoding: str) -> None:
    if version < _SERVER_MIN or encoding != "UTF8":
        raise StoreFailed(
            "storage", f"PostgreSQL {_SERVER_MIN} or later and UTF8 are needed, not {version} and {encoding}"
        )


async def as_it_is(_: asyncpg.Connection) -> None:
    """Nothing to undo: what is set for a transaction ends with it, and nothing else is set. Saves a round trip."""


def _whole(text: str) -> int | float:
    """Sums of integers come as `numeric`."""
    return float(text) if "." in text else int(text)


async def open_postgres(dsn: str) -> PostgresDatabase:
    """Open (or make) the store in a PostgreSQL database.

    Args:
        dsn: `postgresql://user:password@host/database`.

    Raises:
        StoreFailed: it cannot be used.
    """
    database = PostgresDatabase(dsn)
    await database.open()
    return database
