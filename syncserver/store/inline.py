"""A transaction on a plain sqlite3 connection that never suspends: the caller's thread does the work, then and there.

The SQLite store runs whole transactions with it in its own thread, short ones in the event loop's up to their COMMIT; a
simulator can run everything with it.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Coroutine, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from syncserver.store.port import Params, Reader, Row, Transaction

T = TypeVar("T")


class InlineTransaction:
    """See `Transaction`; its coroutines end without suspending. Errors are sqlite3's own."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    async def fetch_all(self, sql: str, params: Params = ()) -> list[Row]:
        """See `Reader`."""
        return self._connection.execute(sql, params).fetchall()

    async def fetch_one(self, sql: str, params: Params = ()) -> Row | None:
        """See `Reader`."""
        rows = await self.fetch_all(sql, params)
        return rows[0] if rows else None

    async def execute(self, sql: str, params: Params = ()) -> int:
        """See `Transaction`."""
        return self._connection.execute(sql, params).rowcount

    async def executemany(self, sql: str, rows: Iterable[Params]) -> None:
        """See `Transaction`."""
        self._connection.executemany(sql, rows)


def run_inline(connection: sqlite3.Connection, work: Callable[[Transaction], Coroutine[Any, Any, T]]) -> T:
    """`work` as one transaction of `connection` (autocommit mode), from BEGIN to COMMIT, in this thread.

    Raises:
        RuntimeError: `work` waited for something else than its transaction.
    """
    result = start_inline(connection, work)
    commit_inline(connection)
    return result


def start_inline(connection: sqlite3.Connection, work: Callable[[Transaction], Coroutine[Any, Any, T]]) -> T:
    """`work` as a transaction that is left open, for `commit_inline`; if it raises, nothing is left of it.

    Raises:
        RuntimeError: as `run_inline`.
    """
    connection.execute("BEGIN IMMEDIATE")
    with _or_rolled_back(connection):
        return _finish(work(InlineTransaction(connection)))


def commit_inline(connection: sqlite3.Connection) -> None:
    """Bring what `start_inline` did to the disk."""
    with _or_rolled_back(connection):
        connection.execute("COMMIT")


@contextmanager
def _or_rolled_back(connection: sqlite3.Connection) -> Iterator[None]:
    try:
        yield
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def read_inline(connection: sqlite3.Connection, work: Callable[[Reader], Coroutine[Any, Any, T]]) -> T:
    """`work` over one state of the store, in this thread.

    Raises:
        RuntimeError: as `run_inline`.
    """
    connection.execute("BEGIN")
    try:
        return _finish(work(InlineTransaction(connection)))
    finally:
        if connection.in_transaction:
            connection.execute("ROLLBACK")


def _finish(steps: Coroutine[Any, Any, T]) -> T:
    try:
        steps.send(None)
    except StopIteration as done:
        result: T = done.value
        return result
    steps.close()
    raise RuntimeError("a transaction's work may await nothing but its transaction")
