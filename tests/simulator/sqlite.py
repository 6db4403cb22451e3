"""The surface of `sqlite3.Connection` (and of aiosqlite's) over an apsw connection on a simulated disk.

Invariants:
  1. Errors are the classes of `sqlite3`, with `sqlite_errorcode` and `sqlite_errorname`, as in the standard library.
  2. Once the machine has stopped every call raises `MachineDead`, which no `except Exception` catches; only `close` is
     silent, so that clean-up on the way out works.
  3. Nothing suspends and nothing waits: the async twin runs in the caller's step.

Different from the standard library: statements commit at once unless a BEGIN is open (its implicit BEGIN is not played;
sqlite-utils commits that at once too), and rows are read whole when the statement is run.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, cast

import aiosqlite
import apsw
import apsw.ext

from syncserver.errors import StoreInUse

if TYPE_CHECKING:
    from tests.simulator.disk import Disk

T = TypeVar("T")
Row = tuple[Any, ...]
Params = Sequence[Any] | Mapping[str, Any]

_OPERATIONAL = {1, 3, 4, 5, 6, 8, 9, 10, 13, 14, 15, 16, 17}  # as CPython's _sqlite/util.c maps primary codes
_CLASSES: dict[int, type[sqlite3.Error]] = {
    2: sqlite3.InternalError,
    11: sqlite3.DatabaseError,
    12: sqlite3.InternalError,
    18: sqlite3.DataError,
    19: sqlite3.IntegrityError,
    20: sqlite3.IntegrityError,
    21: sqlite3.InterfaceError,
    25: sqlite3.InterfaceError,
} | dict.fromkeys(_OPERATIONAL, sqlite3.OperationalError)
_COLUMNS: dict[str, tuple[tuple[str, None, None, None, None, None, None], ...]] = {}  # asked for by every statement
_CHANGES = ("INSERT", "UPDATE", "DELETE", "REPLAC")


class MachineDead(BaseException):
    """The process was killed or the power went: nothing of it runs on, so nothing in it may catch this."""


class Machine(Protocol):
    """What a connection lives on."""

    stopped: bool


class SimCursor:
    """What a statement gave."""

    __slots__ = ("_at", "_connection", "_rows", "_sql", "rowcount")

    def __init__(self, connection: SimConnection, sql: str, rows: list[Row], rowcount: int) -> None:
        self._connection, self._sql, self._rows, self._at = connection, sql, rows, 0
        self.rowcount = rowcount

    def fetchone(self) -> Row | None:
        """The next row, or None."""
        if self._at >= len(self._rows):
            return None
        self._at += 1
        return self._rows[self._at - 1]

    def fetchall(self) -> list[Row]:
        """The rows that are left."""
        found = self._rows[self._at :] if self._at else self._rows
        self._at = len(self._rows)
        return found

    def __iter__(self) -> Iterator[Row]:
        return iter(self.fetchall())

    @property
    def description(self) -> tuple[tuple[str, None, None, None, None, None, None], ...] | None:
        """Seven-tuples with the columns' names, or None for a statement that gives no rows."""
        return self._connection._columns(self._sql)

    @property
    def lastrowid(self) -> int:
        """The connection's newest row id."""
        return self._connection._inner.last_insert_rowid()

    def close(self) -> None:
        """Nothing is held."""


class SimConnection:
    """See the module. `isolation_level` is None: there is no implicit BEGIN."""

    isolation_level: str | None = None

    def __init__(self, inner: apsw.Connection, machine: Machine) -> None:
        self._inner = inner
        self._machine = machine
        self._is_closed = False
        self._is_dead = False
        self._is_change: dict[str, bool] = {}

    @property
    def in_transaction(self) -> bool:
        """Whether a BEGIN is open."""
        if self._is_dead or self._machine.stopped:
            raise MachineDead
        return self._inner.in_transaction

    def execute(self, sql: str, params: Params = ()) -> SimCursor:
        """Run one statement and read its rows."""
        if self._is_dead or self._machine.stopped:
            raise MachineDead
        try:
            rows = self._inner.execute(sql, params).fetchall()
        except apsw.Error as broken:
            raise translated(broken, self._machine) from broken
        if self._machine.stopped:
            raise MachineDead
        is_change = self._is_change.get(sql)
        if is_change is None:
            is_change = self._is_change[sql] = sql.lstrip()[:6].upper() in _CHANGES
        return SimCursor(self, sql, rows, self._inner.changes() if is_change else -1)

    def executemany(self, sql: str, rows: Iterable[Params]) -> SimCursor:
        """Run one statement for many rows."""
        count = 0
        for row in rows:
            count += self.execute(sql, row).rowcount
        return SimCursor(self, sql, [], count)

    def executescript(self, sql: str) -> SimCursor:
        """Run several statements."""
        return self.execute(sql)

    def commit(self) -> None:
        """End an open transaction."""
        if self.in_transaction:
            self.execute("COMMIT")

    def rollback(self) -> None:
        """Give an open transaction up."""
        if self.in_transaction:
            self.execute("ROLLBACK")

    def backup(self, target: SimConnection) -> None:
        """Copy the whole database into `target`."""
        if self._is_dead or self._machine.stopped:
            raise MachineDead
        try:
            with target._inner.backup("main", self._inner, "main") as copying:
                copying.step()
        except apsw.Error as broken:
            raise translated(broken, self._machine) from broken
        if self._machine.stopped or target._machine.stopped:
            raise MachineDead

    def close(self) -> None:
        """Let go of the file; on a machine that stopped there is nothing left to let go of."""
        if self._is_dead or self._is_closed or self._machine.stopped:
            return
        self._is_closed = True
        with contextlib.suppress(apsw.Error):  # SQLite gives no error of the disk while closing; apsw tells ours
            self._inner.close()
        if self._machine.stopped:
            raise MachineDead

    def die(self) -> None:
        """For the disk: the process is gone. The disk does nothing of what SQLite still asks for while closing."""
        self._is_dead = True
        self._inner.close(True)

    def __enter__(self) -> SimConnection:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if error is None:
            self.commit()
        elif not self._is_dead and not self._machine.stopped:
            self.rollback()

    def _columns(self, sql: str) -> tuple[tuple[str, None, None, None, None, None, None], ...] | None:
        found = _COLUMNS.get(sql)
        if found is None:
            names = [name for name, _ in apsw.ext.query_info(self._inner, sql).description]
            found = _COLUMNS[sql] = tuple((name, None, None, None, None, None, None) for name in names)
        return found or None


def translated(broken: apsw.Error, machine: Machine) -> BaseException:
    """What `sqlite3` would raise, or `MachineDead`."""
    if machine.stopped:
        return MachineDead()
    if isinstance(broken, (apsw.ConnectionClosedError, apsw.BindingsError, apsw.CursorClosedError)):
        return sqlite3.ProgrammingError(str(broken))
    code = getattr(broken, "extendedresult", 0) or getattr(broken, "result", 0) or apsw.SQLITE_ERROR
    error = _CLASSES.get(code & 0xFF, sqlite3.DatabaseError)(str(broken))
    error.sqlite_errorcode = code
    names = apsw.mapping_extended_result_codes if code > 0xFF else apsw.mapping_result_codes
    error.sqlite_errorname = str(names[code])
    return error


class AsyncSimConnection:
    """What `SqliteDatabase` uses of an aiosqlite connection, without its thread."""

    def __init__(self, inner: SimConnection) -> None:
        self._conn = inner

    @property
    def in_transaction(self) -> bool:
        """Whether a BEGIN is open."""
        return self._conn.in_transaction

    async def execute(self, sql: str, params: Params = ()) -> SimCursor:
        """See `SimConnection`."""
        return self._conn.execute(sql, params)

    async def execute_fetchall(self, sql: str, params: Params = ()) -> list[Row]:
        """Every row of a query."""
        return self._conn.execute(sql, params).fetchall()

    async def executemany(self, sql: str, rows: Iterable[Params]) -> SimCursor:
        """See `SimConnection`."""
        return self._conn.executemany(sql, rows)

    async def close(self) -> None:
        """See `SimConnection`."""
        self._conn.close()

    async def _execute(self, work: Callable[..., T], *args: object) -> T:
        return work(*args)


class AsyncConnector:
    """`syncserver.store.sqlite.Connector` on a simulated disk: the real `SqliteDatabase`, three connections, one log.

    Nothing of it suspends, except where `SqliteDatabase` itself does.
    """

    def __init__(self, disk: Disk) -> None:
        self._disk = disk

    def hold(self, path: Path) -> Hold:
        """See `Connector`; the lock ends with the process, as the real one does."""
        if str(path) in self._disk.held:
            raise StoreInUse("store-in-use", f"a server is running on {path}")
        return Hold(self._disk.held, str(path))

    async def connect(self, path: Path) -> aiosqlite.Connection:
        """See `Connector`."""
        return cast(aiosqlite.Connection, AsyncSimConnection(self._disk.connect(path, wal=True)))

    async def connect_read_only(self, path: Path) -> aiosqlite.Connection:
        """See `Connector`."""
        return cast(aiosqlite.Connection, AsyncSimConnection(self._disk.connect_read_only(path)))

    def connect_glancing(self, path: Path) -> sqlite3.Connection:
        """See `Connector`."""
        return cast(sqlite3.Connection, self._disk.connect_read_only(path))


class Hold:
    """The lock of one process on one store; letting go of one that ended with its process does nothing."""

    def __init__(self, held: dict[str, object], path: str) -> None:
        self._held, self._path = held, path
        held[path] = self

    def close(self) -> None:
        """Let go."""
        if self._held.get(self._path) is self:
            del self._held[self._path]
