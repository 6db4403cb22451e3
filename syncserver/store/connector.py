"""How the SQLite store reaches its file: the file system, or whatever a simulator puts in its place."""

from __future__ import annotations

import fcntl
import sqlite3
from pathlib import Path
from typing import IO, Protocol

import aiosqlite

from syncserver.errors import StoreInUse
from syncserver.files import FOLDER_OWNER_ONLY, touch_private


class Held(Protocol):
    """A store's lock."""

    def close(self) -> None:
        """Let it go."""
        ...


class Connector(Protocol):
    """How to reach a store's file: the file system through aiosqlite, or the simulator's disk."""

    def hold(self, path: Path) -> Held:
        """Keep every other process out.

        Raises:
            StoreInUse: another process holds it.
        """
        ...

    async def connect(self, path: Path) -> aiosqlite.Connection:
        """The writing connection, in autocommit mode; makes the file where it is missing."""
        ...

    async def connect_read_only(self, path: Path) -> aiosqlite.Connection:
        """A reading connection."""
        ...

    def connect_glancing(self, path: Path) -> sqlite3.Connection:
        """A reading connection that works in the caller's thread."""
        ...


class FileConnector:
    """The file system."""

    def hold(self, path: Path) -> IO[bytes]:
        """See `Connector`."""
        path.parent.mkdir(mode=FOLDER_OWNER_ONLY, parents=True, exist_ok=True)
        touch_private(Path(f"{path}.lock"))
        lock = Path(f"{path}.lock").open("ab")  # noqa: SIM115  (held as long as the store is open)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            lock.close()
            raise StoreInUse("store-in-use", f"a server is running on {path}") from None
        return lock

    async def connect(self, path: Path) -> aiosqlite.Connection:
        """See `Connector`."""
        touch_private(path)  # SQLite gives -wal and -shm the rights of the store itself
        # Used from two threads, never at once (`store/sqlite.py`, invariant 5).
        return await aiosqlite.connect(path, isolation_level=None, cached_statements=256, check_same_thread=False)

    async def connect_read_only(self, path: Path) -> aiosqlite.Connection:
        """See `Connector`."""
        return await aiosqlite.connect(_read_only(path), uri=True, isolation_level=None)

    def connect_glancing(self, path: Path) -> sqlite3.Connection:
        """See `Connector`."""
        return sqlite3.connect(_read_only(path), uri=True, isolation_level=None, cached_statements=256)


def _read_only(path: Path) -> str:
    return f"{path.absolute().as_uri()}?mode=ro"


FILES = FileConnector()
