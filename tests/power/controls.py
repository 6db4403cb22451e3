"""What must lose: the same runs with a weaker `synchronous`, while product code is made to believe in its own."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import aiosqlite

from clientcore.log import LogFiles
from syncserver.store.connector import Connector
from tests.simulator.disk import Disk
from tests.simulator.sqlite import AsyncConnector, AsyncSimConnection, SimConnection, SimCursor

_NUMBERS = {"OFF": 0, "NORMAL": 1, "FULL": 2, "EXTRA": 3}


class _Pretending:
    """A connection that sets another level than it is told, and answers as if it had not."""

    def __init__(self, inner: SimConnection, level: str, told: str) -> None:
        self._inner, self._level, self._told = inner, level, told

    def execute(self, sql: str, params: Any = ()) -> SimCursor:
        if not sql.startswith("PRAGMA synchronous"):
            return self._inner.execute(sql, params)
        if "=" in sql:
            self._inner.execute(f"PRAGMA synchronous={self._level}")
            if self._inner.execute("PRAGMA synchronous").fetchone() != (_NUMBERS[self._level],):
                raise AssertionError("a control that tests nothing")
        return self._inner.execute(f"SELECT {_NUMBERS[self._told]}")

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)


def weak_store(level: str) -> Callable[[Disk], Connector]:
    """`StoreRun.connector` with `synchronous=level` instead of FULL."""

    class Weak(AsyncConnector):
        def __init__(self, disk: Disk) -> None:
            super().__init__(disk)
            self._disk = disk

        async def connect(self, path: Path) -> aiosqlite.Connection:
            inner = _Pretending(self._disk.connect(path, wal=True), level, "FULL")
            return cast(aiosqlite.Connection, AsyncSimConnection(cast(SimConnection, inner)))

    return Weak


def weak_log(level: str) -> Callable[[Disk], LogFiles]:
    """`DeviceRun.files` with `synchronous=level` instead of EXTRA."""

    class Weak:
        def __init__(self, disk: Disk) -> None:
            self._disk = disk
            self.exists, self.rename, self.remove = disk.exists, disk.rename, disk.remove

        def connect(self, path: str, *, timeout: float) -> sqlite3.Connection:
            inner = self._disk.connect(path, timeout=timeout)
            return cast(sqlite3.Connection, _Pretending(inner, level, "EXTRA"))

    return Weak


class FrequentCheckpoints(AsyncConnector):
    """Checkpoints every 40 pages instead of every 1,000, so that a short run has them; nothing else differs."""

    def __init__(self, disk: Disk) -> None:
        super().__init__(disk)
        self._disk = disk

    async def connect(self, path: Path) -> aiosqlite.Connection:
        """See `Connector`."""
        return cast(aiosqlite.Connection, _Often(self._disk.connect(path, wal=True)))


class _Often(AsyncSimConnection):
    async def execute(self, sql: str, params: Any = ()) -> SimCursor:
        if sql.startswith("PRAGMA wal_autocheckpoint"):
            sql = "PRAGMA wal_autocheckpoint = 40"
        return await super().execute(sql, params)
