"""The SQLite side of a simulated disk: its VFS and open files. The hot path of the whole simulator: calls stay short.

A stopped machine (see `disk.py`) answers everything without effect, so that tearing a connection down is quiet.
"""

from __future__ import annotations

import random
import weakref
from typing import TYPE_CHECKING, Any

import apsw

from tests.simulator.medium import File, Folder, parent

if TYPE_CHECKING:
    from tests.simulator.disk import Disk

_SYNCS_DIRECTORY = apsw.SQLITE_OPEN_MAIN_JOURNAL | apsw.SQLITE_OPEN_SUPER_JOURNAL | apsw.SQLITE_OPEN_WAL
_POWERSAFE_OVERWRITE = apsw.SQLITE_IOCAP_POWERSAFE_OVERWRITE
_WAL_VERSION = b"\x02"  # byte 18 of a database's header
_SHARED, _RESERVED, _PENDING, _EXCLUSIVE = 1, 2, 3, 4


def _io_error(code: int) -> apsw.IOError:
    error = apsw.IOError("simulated input/output error")
    error.extendedresult = code  # type: ignore[attr-defined]  # apsw reads it, its stubs do not know it
    return error


class _Calls:
    """One open file, as SQLite calls it."""

    disk: Disk
    folder: Folder
    path: str
    file: File
    directory: str | None  # to be synced with the first sync
    level: int  # of this connection's lock

    def xRead(self, amount: int, offset: int) -> bytes:  # noqa: N802
        disk = self.disk
        disk.read_count += 1
        if disk.read_count == disk.read_fails_at and not disk.stopped:
            disk.faults["read-eio"] += 1
            raise _io_error(apsw.SQLITE_IOERR_READ)
        return self.file.data[offset : offset + amount]  # type: ignore[return-value]  # no copy for its sake

    def xWrite(self, data: bytes, offset: int) -> None:  # noqa: N802
        disk = self.disk
        if disk.stopped:
            return
        disk.io_count += 1
        file = self.file
        if disk.io_count >= disk.slow_at:
            fault = disk.meet("write", self.path)
            if fault == "eio":
                raise _io_error(apsw.SQLITE_IOERR_WRITE)
            if fault == "enospc":
                raise apsw.FullError("simulated: no space left")
            if fault == "kill":
                return
        if disk.free_bytes is not None:
            more = offset + len(data) - len(file.data)
            if more > 0:
                disk.take_space(more)
        file.write(data, offset)

    def xTruncate(self, size: int) -> None:  # noqa: N802
        disk = self.disk
        if disk.stopped:
            return
        disk.io_count += 1
        if disk.io_count >= disk.slow_at:
            fault = disk.meet("truncate", self.path)
            if fault == "eio":
                raise _io_error(apsw.SQLITE_IOERR_TRUNCATE)
            if fault == "kill":
                return
        if disk.free_bytes is not None:
            disk.take_space(size - len(self.file.data))
        self.file.truncate(size)

    def xSync(self, flags: int) -> None:  # noqa: N802, ARG002
        disk = self.disk
        if disk.stopped:
            return
        disk.io_count += 1
        if disk.io_count >= disk.slow_at:
            fault = disk.meet("sync", self.path)
            if fault == "eio":
                self.file.fail_sync(disk.source)
                raise _io_error(apsw.SQLITE_IOERR_FSYNC)
            if fault is not None:
                return
        if disk.syncs_lie:
            return
        self.file.sync()
        if self.directory is not None:
            self.folder.sync(self.directory)
            self.directory = None

    def xFileSize(self) -> int:  # noqa: N802
        return len(self.file.data)

    def xLock(self, level: int) -> None:  # noqa: N802
        file, own = self.file, self.level
        if level <= own:
            return
        if level == _SHARED:
            if file.is_closing_in or (file.writer is not None and file.is_exclusive):
                raise apsw.BusyError("simulated: locked")
            file.readers += 1
            self.level = _SHARED
            return
        if file.writer is not None and file.writer is not self:
            raise apsw.BusyError("simulated: locked")
        file.writer = self
        self.level = _RESERVED
        if level == _RESERVED:
            return
        file.is_closing_in = True
        self.level = _PENDING
        if file.readers > 1:
            raise apsw.BusyError("simulated: others still read")
        file.is_exclusive = True
        self.level = _EXCLUSIVE

    def xUnlock(self, level: int) -> None:  # noqa: N802
        file = self.file
        if self.level > _SHARED:
            file.writer, file.is_closing_in, file.is_exclusive = None, False, False
            self.level = _SHARED
        if level < self.level:
            file.readers -= 1
            self.level = 0

    def xCheckReservedLock(self) -> bool:  # noqa: N802
        return self.file.writer is not None

    def xFileControl(self, op: int, ptr: int) -> bool:  # noqa: N802, ARG002
        return False

    def xDeviceCharacteristics(self) -> int:  # noqa: N802
        return _POWERSAFE_OVERWRITE

    def xSectorSize(self) -> int:  # noqa: N802
        return 4096


class _Handle(_Calls):
    """A file only this process looks at through one connection, or through locks alone."""

    def __init__(self, disk: Disk, path: str, file: File, directory: str | None) -> None:
        self.disk, self.folder, self.path, self.file = disk, disk.folder, path, file
        self.directory, self.level = directory, 0

    def xClose(self) -> None:  # noqa: N802
        if self.level:
            self.xUnlock(0)


class _WalHandle(_Calls, apsw.VFSFile):
    """A database in write-ahead mode: the wal-index is the base VFS's, in heap memory."""

    def __init__(self, disk: Disk, path: str, file: File, base: str) -> None:
        apsw.VFSFile.__init__(self, "unix-excl", base, [apsw.SQLITE_OPEN_READWRITE | apsw.SQLITE_OPEN_MAIN_DB, 0])
        self.disk, self.folder, self.path, self.file = disk, disk.folder, path, file
        self.directory, self.level = None, 0

    def xClose(self) -> None:  # noqa: N802
        if self.level:
            self.xUnlock(0)
        apsw.VFSFile.xClose(self)


class DiskVfs(apsw.VFS):
    """Names on one disk. It holds the disk weakly: SQLite keeps a VFS as long as it likes."""

    def __init__(self, name: str, disk: weakref.ref[Disk]) -> None:
        super().__init__(name, "unix")
        self.name = name
        self._disk = disk

    def _get(self) -> Disk:
        disk = self._disk()
        if disk is None:
            raise apsw.CantOpenError("the simulated disk is gone")
        return disk

    def xFullPathname(self, name: str) -> str:  # noqa: N802
        return name

    def xAccess(self, pathname: str, flags: int) -> bool:  # noqa: N802
        file = self._get().folder.names.get(pathname)
        return file is not None and (flags != apsw.SQLITE_ACCESS_EXISTS or len(file.data) > 0)

    def xOpen(self, name: str | apsw.URIFilename | None, flags: list[int]) -> Any:  # noqa: N802
        disk = self._get()
        flags[1] = flags[0]
        if name is None:
            return _Handle(disk, "", File(), None)
        path = name.filename() if isinstance(name, apsw.URIFilename) else name
        file = disk.folder.names.get(path)
        directory = None
        if file is None:
            if not flags[0] & apsw.SQLITE_OPEN_CREATE:
                raise apsw.CantOpenError(f"simulated: no file {path}")
            file = File()
            if not disk.stopped:
                disk.io_count += 1
                fault = disk.meet("create", path) if disk.io_count >= disk.slow_at else None
                if fault == "eio":
                    raise apsw.CantOpenError("simulated: cannot create")
                if fault != "kill":
                    disk.folder.change((path, file))
        if flags[0] & apsw.SQLITE_OPEN_CREATE and flags[0] & _SYNCS_DIRECTORY:
            directory = parent(path)  # also of a file that is there: its name may not be on the disk yet
        is_wal = file.data[18:19] == _WAL_VERSION or disk.wants_wal
        if flags[0] & apsw.SQLITE_OPEN_MAIN_DB and is_wal:
            return _WalHandle(disk, path, file, disk.base_for(path))
        return _Handle(disk, path, file, directory)

    def xDelete(self, filename: str, syncdir: bool) -> None:  # noqa: N802
        disk = self._get()
        folder = disk.folder
        file = folder.names.get(filename)
        if disk.stopped:
            return
        if file is None:
            raise _io_error(apsw.SQLITE_IOERR_DELETE_NOENT)
        disk.io_count += 1
        fault = disk.meet("delete", filename) if disk.io_count >= disk.slow_at else None
        if fault == "eio" and disk.source.random() < 0.5:
            raise _io_error(apsw.SQLITE_IOERR_DELETE)
        if fault == "kill":
            return
        folder.change((filename, None))
        if disk.free_bytes is not None:
            disk.free_bytes += len(file.data)
        if fault == "eio":
            raise _io_error(apsw.SQLITE_IOERR_DIR_FSYNC)
        if syncdir and fault is None and not disk.syncs_lie:
            folder.sync(parent(filename))

    def xRandomness(self, amount: int) -> bytes:  # noqa: N802
        return self._get().source.randbytes(amount)

    def xSleep(self, microseconds: int) -> int:  # noqa: N802
        return microseconds  # a busy connection counts its waiting; nobody else runs meanwhile


class _Chance(apsw.VFS):
    """The default VFS, which SQLite asks for the seed of its own random numbers: otherwise like the real one."""

    def __init__(self) -> None:
        super().__init__("seeded", "unix", makedefault=True)
        self._source = random.Random(0)

    def seed(self, seed: bytes) -> None:
        """Let SQLite's random numbers begin anew from `seed`."""
        self._source = random.Random(seed)
        apsw.randomness(0)

    def xRandomness(self, amount: int) -> bytes:  # noqa: N802
        return self._source.randbytes(amount)


chance = _Chance()
