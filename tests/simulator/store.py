"""The server's real `SqliteDatabase` on a simulated disk.

database = await open_sqlite(Path("store.db"), DiskConnector(disk))
"""

from __future__ import annotations

from pathlib import Path
from typing import cast

import aiosqlite

from syncserver.errors import StoreInUse
from tests.simulator.disk import Disk
from tests.simulator.sqlite import AsyncSimConnection


class DiskConnector:
    """See `syncserver.store.sqlite.Connector`. Nothing it gives suspends, except where `SqliteDatabase` itself does."""

    def __init__(self, disk: Disk) -> None:
        self.disk = disk

    def hold(self, path: Path) -> _Held:
        """See `Connector`; the lock ends with the process, as the real one does."""
        if str(path) in self.disk.held:
            raise StoreInUse("store-in-use", f"a server is running on {path}")
        return _Held(self.disk, str(path))

    async def connect(self, path: Path) -> aiosqlite.Connection:
        """See `Connector`."""
        return cast(aiosqlite.Connection, AsyncSimConnection(self.disk.connect(path, wal=True)))

    async def connect_read_only(self, path: Path) -> aiosqlite.Connection:
        """See `Connector`."""
        return cast(aiosqlite.Connection, AsyncSimConnection(self.disk.connect_read_only(path)))


class _Held:
    def __init__(self, disk: Disk, path: str) -> None:
        self._held, self._path = disk.held, path
        self._held.add(path)

    def close(self) -> None:
        self._held.discard(self._path)
