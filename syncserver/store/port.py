"""The database port: the few verbs the server's SQL needs; SQLite, PostgreSQL and a simulator can stand behind it.

SQL is written once, for all: `?` placeholders, types INTEGER, TEXT and BLOB, `ON CONFLICT … DO …`, no function that
only one of them has. Rows are tuples.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any, Protocol, TypeVar

from syncserver.store.claims import Claims

T = TypeVar("T")

Row = tuple[Any, ...]
Params = Sequence[Any]


class Reader(Protocol):
    """What can be read from: a database or an open transaction."""

    async def fetch_all(self, sql: str, params: Params = ()) -> list[Row]:
        """Every row of a query."""
        ...

    async def fetch_one(self, sql: str, params: Params = ()) -> Row | None:
        """The first row of a query, or None."""
        ...


class Transaction(Reader, Protocol):
    """One open writing transaction."""

    async def execute(self, sql: str, params: Params = ()) -> int:
        """Run one statement; returns the number of rows it changed."""
        ...

    async def executemany(self, sql: str, rows: Iterable[Params]) -> None:
        """Run one statement for many rows, in one call."""
        ...


class Database(Reader, Protocol):
    """A store's connection(s).

    Invariants:
      1. Reads outside a transaction see committed data only.
      2. Writing transactions run one after another; leaving the block commits and the data is on disk then.
      3. After a failed commit (`StoreFailed`) every transaction is refused until `reopen` has verified the store.
    """

    def transaction(self) -> AbstractAsyncContextManager[Transaction]:
        """A writing transaction: commits when the block ends, rolls back when it raises.

        Raises:
            StoreFailed: the disk failed; nothing of this block is acknowledged.
            ConstraintBroken: the data contradict the schema; nothing was written, the store is fine.
        """
        ...

    async def atomically(
        self, work: Callable[[Transaction], Coroutine[Any, Any, T]], *, lane: str | None = None, is_short: bool = False
    ) -> T:
        """Run `work` as one writing transaction and return its result once it is on disk.

        For the hot road: SQLite runs the whole of it in its own thread, one hop instead of one per statement.

        Args:
            work: May await nothing but the transaction it is given, and touches nothing that others change meanwhile.
            lane: Where several processes write: such work of two lanes runs side by side, that of one lane one after
                another; None: nothing else is written meanwhile.
            is_short: It touches few rows, by their keys: SQLite runs its statements in the caller's thread, and only
                the commit in its own (docs/decisions/0038).

        Raises:
            StoreFailed, ConstraintBroken: as `transaction`.
        """
        ...

    async def snapshot(self, work: Callable[[Reader], Coroutine[Any, Any, T]]) -> T:
        """Run `work` over the store as it is at one moment, however much is written meanwhile.

        For whoever asks many questions at once: SQLite answers all of them in its own thread, with one hop.

        Args:
            work: May await nothing but the reader it is given.

        Raises:
            StoreFailed: as every read.
        """
        ...

    async def glance(self, work: Callable[[Reader], Coroutine[Any, Any, T]]) -> T:
        """As `snapshot`, for reads that take a few milliseconds at most: rows found by their keys, a teacher's pull.

        SQLite answers at once, in the caller's thread: handing such a question to another thread and back costs more
        than its answer (docs/decisions/0035).

        Raises:
            StoreFailed: as every read.
        """
        ...

    def when_failed(self, told: Callable[[], None]) -> None:
        """Call `told` whenever a transaction of anybody failed on the disk: somebody has to `reopen`."""
        ...

    @property
    def refers(self) -> bool:
        """Whether outcomes are written as references to their changes: nobody else has to read them."""
        ...

    @property
    def partitions(self) -> int:
        """Into how many parts, by school, the log is divided; each has one consumer at a time."""
        ...

    def part(self, table: str, number: int) -> str:
        """The name of one part of a divided table, to read from."""
        ...

    async def claims(self) -> Claims:
        """A new session of claims.

        Raises:
            StoreFailed: the store cannot be reached.
        """
        ...

    @property
    def failed(self) -> bool:
        """Whether a commit failed and the store has not been verified since."""
        ...

    async def reopen(self) -> None:
        """Close, open and verify.

        Raises:
            StoreFailed: when it still does not work.
        """
        ...

    async def close(self) -> None:
        """Close every connection."""
        ...


def placeholders(count: int) -> str:
    """`?, ?, …` for an IN list."""
    return ", ".join("?" * count)
