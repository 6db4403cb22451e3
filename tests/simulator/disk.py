"""One machine's storage, in memory, behind an SQLite VFS of its own; deterministic from its random source.

Invariants:
  1. Only what SQLite synced survives `cut_power`; what that means for a byte and for a name stands in `medium.py`.
  2. The disk behaves as SQLite's own unix VFS does where it matters to durability: sectors keep their neighbours
     (power-safe overwrite), the first sync of a new journal or write-ahead log syncs its directory too, deleting syncs
     the directory only when SQLite asks (which `synchronous=EXTRA` makes it do), an empty file does not "exist".
  3. A stopped machine does nothing more: calls that SQLite still makes while its connections are torn down have no
     effect, and `SimConnection` raises `MachineDead` to whoever runs on it.
  4. Same source, same calls: same bytes. SQLite's own random numbers (log salts, journal nonces) come from it too.

Two connections share a write-ahead log as in production: the wal-index lies in SQLite's heap, through the `unix-excl`
VFS over an empty real file that nothing is ever written to.
"""

from __future__ import annotations

import atexit
import itertools
import os
import random
import shutil
import tempfile
import weakref
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Literal, cast

import apsw

from clientcore.log import LogFiles
from tests.simulator.medium import File, Folder, How, parent
from tests.simulator.sqlite import MachineDead, SimConnection, translated
from tests.simulator.vfs import DiskVfs, chance

__all__ = ["Disk", "Fault", "How", "MachineDead"]

Fault = Literal["power", "kill", "eio", "enospc"]

_NEVER = 1 << 62
_CACHED_STATEMENTS = 256

_numbers = itertools.count(1)


class Disk:
    """See the module.

    Attributes:
        io_count: Operations that change the disk, from its beginning: write, truncate, sync, create, delete.
        free_bytes: What is left before writing fails with SQLITE_FULL; None: without end.
        faults: Faults met, by kind.
        last_fault: The last armed fault that came, in words.
        syncs_lie: A control: syncs return without having synced anything.
        watch: Told the kind and the file of each operation just before it is done.
        read_count, read_fails_at: Reads so far, and the one that fails with an input/output error (0: none).
        source: Chance; the fault model and SQLite draw from it.
        folder: The names and files.
        held: Who has locked a store; a process's locks end with it.
        stopped: Between an armed fault and the `kill` or `cut_power` that answers it.
    """

    def __init__(self, name: str, source: random.Random) -> None:
        self.name = name
        self.io_count = 0
        self.free_bytes: int | None = None
        self.faults: Counter[str] = Counter()
        self.last_fault = ""
        self.syncs_lie = False
        self.stopped = False
        self.source = source
        self.folder = Folder()
        self._armed_at = _NEVER
        self.slow_at = _NEVER  # from this operation on, files leave the short road and ask `meet`
        self.read_count = 0
        self.read_fails_at = 0
        self._fault: Fault = "power"
        self._watch: Callable[[str, str], None] | None = None
        self._connections: list[weakref.ref[SimConnection]] = []
        self.wants_wal = False
        self.held: dict[str, object] = {}
        self._bases: dict[str, str] = {}
        self._vfs = DiskVfs(f"disk-{next(_numbers)}", weakref.ref(self))
        chance.seed(source.randbytes(64))

    # ---- connections ----

    def files(self) -> LogFiles:
        """This disk as the port that `Log.open` and `Cache.open` take."""
        return cast(LogFiles, self)

    def connect(
        self, path: str | Path, *, timeout: float = 30.0, uri: bool = False, wal: bool = False
    ) -> SimConnection:
        """Open a database as `sqlite3.connect` does.

        Args:
            path: Its name on this disk.
            timeout: Seconds until a locked database is an error; they are counted, not waited.
            uri: Whether `path` is a URI.
            wal: Whether a database that is not yet in write-ahead mode may be put into it.

        Raises:
            MachineDead: the machine has stopped.
            sqlite3.OperationalError: as `sqlite3.connect`.
        """
        if self.stopped:
            raise MachineDead
        flags = apsw.SQLITE_OPEN_READWRITE | apsw.SQLITE_OPEN_CREATE | (apsw.SQLITE_OPEN_URI if uri else 0)
        return self._open(str(path), flags, timeout, wal=wal)

    def connect_read_only(self, path: str | Path, *, timeout: float = 30.0) -> SimConnection:
        """Open an existing database for reading.

        Raises:
            MachineDead: the machine has stopped.
            sqlite3.OperationalError: there is none.
        """
        if self.stopped:
            raise MachineDead
        return self._open(str(path), apsw.SQLITE_OPEN_READONLY, timeout, wal=True)

    def _open(self, path: str, flags: int, timeout: float, *, wal: bool) -> SimConnection:
        self.wants_wal = wal
        try:
            inner = apsw.Connection(path, flags=flags, vfs=self._vfs.name, statementcachesize=_CACHED_STATEMENTS)
        except apsw.Error as broken:
            raise translated(broken, self) from broken
        inner.set_busy_timeout(int(timeout * 1000))
        inner.execute("PRAGMA temp_store=MEMORY")  # temporary files never outlive a process; why move them about
        connection = SimConnection(inner, self)
        self._connections = [ref for ref in self._connections if ref() is not None]
        self._connections.append(weakref.ref(connection))
        return connection

    # ---- files ----

    def exists(self, path: str | Path) -> bool:
        """Whether there is such a file."""
        return str(path) in self.folder.names

    def names(self) -> list[str]:
        """Every file, sorted."""
        return sorted(self.folder.names)

    def size(self, path: str | Path) -> int:
        """Bytes of a file."""
        return len(self._file(path).data)

    def read(self, path: str | Path) -> bytes:
        """A file's bytes, as processes see them."""
        return bytes(self._file(path).data)

    def write(self, path: str | Path, data: bytes) -> None:
        """Make or replace a file; it is durable at once, as if written aside, synced and moved into place."""
        self.folder.change((str(path), File(data)))
        self.folder.sync(parent(str(path)))

    def rename(self, old: str | Path, new: str | Path) -> None:
        """Move a file; a power cut may undo it until the directory is synced."""
        self.folder.change((str(old), None), (str(new), self._file(old)))

    def remove(self, path: str | Path) -> None:
        """Delete a file; a power cut may undo it until the directory is synced."""
        self._file(path)
        self.folder.change((str(path), None))

    def _file(self, path: str | Path) -> File:
        file = self.folder.names.get(str(path))
        if file is None:
            raise FileNotFoundError(f"{self.name}: no file {path}")
        return file

    # ---- faults ----

    def arm(self, at_io: int | None, fault: Fault) -> None:
        """Let the `at_io`-th operation from now (1 is the next) meet `fault`; None disarms.

        "power" and "kill" stop the machine there: the caller sees `MachineDead` and then calls `cut_power` or `kill`.
        "enospc" waits for the first write from there on.
        """
        self._armed_at = _NEVER if at_io is None else self.io_count + at_io
        self._fault = fault
        self._aim()

    @property
    def is_armed(self) -> bool:
        """Whether a fault waits for its operation, or there is no room."""
        return self._armed_at != _NEVER or self.free_bytes is not None

    def disarm(self) -> None:
        """Nothing goes wrong from now on."""
        self.arm(None, "power")
        self.free_bytes, self.read_fails_at = None, 0

    @property
    def watch(self) -> Callable[[str, str], None] | None:
        """Told kind (write, truncate, sync, create, delete) and file of each operation just before it is done."""
        return self._watch

    @watch.setter
    def watch(self, watch: Callable[[str, str], None] | None) -> None:
        self._watch = watch
        self._aim()

    def _aim(self) -> None:
        self.slow_at = self._armed_at if self._watch is None else 0

    def kill(self) -> None:
        """The process dies: open connections are dead at once; what the system was handed stays, still unsynced."""
        self.stopped = True
        for ref in self._connections:
            connection = ref()
            if connection is not None:
                connection.die()
        self._connections.clear()
        for file in self.folder.names.values():
            file.unlock()
        self.held.clear()
        self.arm(None, "power")
        self.stopped = False

    def cut_power(self, how: How) -> int:
        """The power goes, and with it every process.

        Returns:
            How many writes, truncations and directory changes were lost or torn.
        """
        self.kill()
        before = self.faults.total()
        self.folder.settle(how, self.source, self.faults)
        lost = self.faults.total() - before
        self.faults["power"] += 1
        return lost

    def image(self, how: How, source: random.Random) -> dict[str, bytes]:
        """What `cut_power` would leave, by name, while this machine runs on."""
        folder = self.folder.copy()
        folder.settle(how, source, Counter())
        return {name: bytes(file.data) for name, file in folder.names.items()}

    def clone(self, name: str, source: random.Random) -> Disk:
        """A copy of every byte as processes see it: a cloned phone, or a backup of one."""
        twin = Disk(name, source)
        for path, file in self.folder.names.items():
            twin.write(path, bytes(file.data))
        return twin

    def meet(self, kind: str, path: str) -> Fault | None:
        """For the files: the long road of one operation; the fault it meets, if any."""
        if self._watch is not None:
            self._watch(kind, path)
        if self.io_count < self._armed_at or (self._fault == "enospc" and kind != "write"):
            return None
        fault = self._fault
        self.arm(None, "power")
        self.faults["fsync-eio" if (fault, kind) == ("eio", "sync") else fault] += 1
        self.last_fault = f"{fault} at {kind} of {path}"
        self.stopped = fault in ("power", "kill")
        return fault

    def take_space(self, more_bytes: int) -> None:
        """For the files: a file grows.

        Raises:
            apsw.FullError: there is no room.
        """
        if self.free_bytes is not None:
            if more_bytes > self.free_bytes:
                self.faults["enospc"] += 1
                raise apsw.FullError("no space left on the simulated disk")
            self.free_bytes -= more_bytes

    def base_for(self, path: str) -> str:
        """For the files: the empty real file whose identity lets connections find each other's wal-index."""
        base = self._bases.get(path)
        if base is None:
            handle, base = tempfile.mkstemp(dir=_scratch())
            os.close(handle)
            self._bases[path] = base
            weakref.finalize(self, Path(base).unlink, missing_ok=True)
        return base


_PREFIX = "hudur-simulated-"


def _scratch() -> Path:
    """This process's folder of empty files; what processes that were killed have left behind goes."""
    folder = Path(tempfile.gettempdir()) / f"{_PREFIX}{os.getpid()}"
    if not folder.exists():
        for old in folder.parent.glob(f"{_PREFIX}*"):
            if not Path(f"/proc/{old.name.removeprefix(_PREFIX)}").exists():
                shutil.rmtree(old, ignore_errors=True)  # another process may be doing the same
        folder.mkdir(exist_ok=True)
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder
