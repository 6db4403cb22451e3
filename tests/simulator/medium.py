"""What a file is to a machine that may lose power: the bytes everyone sees, and which of them would not survive.

Invariants:
  1. `data` is what every process there reads; `pending` undoes it, newest last, down to what is on the platter.
  2. A sync empties `pending`; nothing else makes a byte durable. A sync that failed dooms what it should have written:
     it stays readable, no later sync writes it (Linux marks the pages clean), and the next power cut takes it.
  3. After `settle` there is nothing pending. A sector of 512 bytes is old or new, never half of each.
"""

from __future__ import annotations

import itertools
import random
from collections import Counter
from typing import Literal

How = Literal["none", "some", "all"]
"""What a power cut leaves of the unsynced writes: none of them, any subset (torn, reordered), or all."""

HOWS: tuple[How, ...] = ("none", "some", "all")
SECTOR_BYTES = 512
_TRUNCATE = -1  # as the end of an undo entry
_FOLDED, _DOOMED = True, False

_Undo = tuple[int, int, bytearray, int]
"""(offset, end, bytes that were there, size before); for a truncation (new size, _TRUNCATE, tail, size before)."""


class File:
    """One file of a disk."""

    __slots__ = ("_fates", "data", "is_closing_in", "is_exclusive", "pending", "readers", "writer")

    def __init__(self, data: bytes | bytearray = b"") -> None:
        self.data = bytearray(data)
        self.pending: list[_Undo] = []
        self._fates: list[bool] | None = None  # of the oldest entries; only after a sync failed
        self.unlock()

    def unlock(self) -> None:
        """Nobody holds any of SQLite's locks: how many share, who writes, waits for the others to leave, is alone."""
        self.readers = 0
        self.writer: object | None = None
        self.is_closing_in = False
        self.is_exclusive = False

    def write(self, data: bytes, offset: int) -> None:
        """Put `data` at `offset`; a hole reads as zeros."""
        own = self.data
        size = len(own)
        if offset > size:
            own.extend(bytes(offset - size))
        end = offset + len(data)
        self.pending.append((offset, end, own[offset:end], size))
        own[offset:end] = data

    def truncate(self, size: int) -> None:
        """Cut or extend with zeros."""
        own = self.data
        if size > len(own):
            self.write(bytes(size - len(own)), len(own))
        elif size < len(own):
            self.pending.append((size, _TRUNCATE, own[size:], len(own)))
            del own[size:]

    def sync(self) -> None:
        """Everything that is not doomed is on the platter now."""
        if self._fates is None:
            self.pending.clear()
        else:
            self._fates.extend([_FOLDED] * (len(self.pending) - len(self._fates)))

    def fail_sync(self, source: random.Random) -> None:
        """A sync that failed: at least one of the pending writes is doomed, the others reached the platter."""
        fates = self._fates = self._fates or []
        fresh = [source.random() < 0.5 for _ in range(len(self.pending) - len(fates))]
        if fresh and all(fresh):
            fresh[source.randrange(len(fresh))] = _DOOMED
        fates.extend(fresh)

    def copy(self) -> File:
        """The same bytes with the same future."""
        twin = File(self.data)
        twin.pending = list(self.pending)
        twin._fates = None if self._fates is None else list(self._fates)
        return twin

    def settle(self, how: How, source: random.Random, faults: Counter[str]) -> None:
        """The power goes: leave what a disk might hold afterwards, and count what was lost in `faults`."""
        pending, fates = self.pending, self._fates
        if how == "all" and fates is None:
            pending.clear()
        if not pending:
            return
        done = self._undo()
        keep = source.random()  # some cuts take nearly everything, some nearly nothing
        for index, (entry, data) in enumerate(zip(pending, done, strict=True)):
            if fates is not None and index < len(fates):
                kept = fates[index]
            elif how == "some" and (drawn := source.random()) >= keep:
                kept = False
                if drawn < (1 + keep) / 2 and len(data) > SECTOR_BYTES:
                    self._apply_torn(entry[0], data, source)
                    faults["write-torn"] += 1
                    continue
            else:
                kept = how != "none"
            if kept:
                self._apply(entry, data)
            else:
                faults["truncate-lost" if entry[1] == _TRUNCATE else "write-lost"] += 1
        pending.clear()
        self._fates = None

    def _undo(self) -> list[bytes]:
        """Go back to the platter; returns what each entry had put."""
        own = self.data
        done: list[bytes] = []
        for offset, end, old, size in reversed(self.pending):
            if end == _TRUNCATE:
                done.append(b"")
                own[offset:] = old
            else:
                done.append(bytes(own[offset:end]))
                own[offset : offset + len(old)] = old
                del own[size:]
        done.reverse()
        return done

    def _apply(self, entry: _Undo, data: bytes) -> None:
        if entry[1] == _TRUNCATE:
            del self.data[entry[0] :]
        else:
            self._put(entry[0], data)

    def _apply_torn(self, offset: int, data: bytes, source: random.Random) -> None:
        """At least one sector arrives and at least one does not."""
        cuts = [0, *range(SECTOR_BYTES - offset % SECTOR_BYTES, len(data), SECTOR_BYTES), len(data)]
        pieces = list(itertools.pairwise(cuts))
        arrived = [source.random() < 0.5 for _ in pieces]
        first, second = source.sample(range(len(pieces)), 2)
        arrived[first], arrived[second] = True, False
        for (start, end), arrives in zip(pieces, arrived, strict=True):
            if arrives:
                self._put(offset + start, data[start:end])

    def _put(self, offset: int, data: bytes) -> None:
        own = self.data
        if offset > len(own):
            own.extend(bytes(offset - len(own)))
        own[offset : offset + len(data)] = data


class Folder:
    """The names on a disk, and which of their changes a power cut would undo.

    Creations, deletions and renames of one directory reach the platter in order, as a journalling file system writes
    them; a cut may undo the newest of them until that directory is synced.
    """

    __slots__ = ("_pending", "names")

    def __init__(self) -> None:
        self.names: dict[str, File] = {}
        self._pending: dict[str, list[tuple[tuple[str, File | None], ...]]] = {}

    def change(self, *changes: tuple[str, File | None]) -> None:
        """Let each name mean that file, or nothing: all of it or none of it survives."""
        self._pending.setdefault(parent(changes[0][0]), []).append(
            tuple((name, self.names.get(name)) for name, _ in changes)
        )
        for name, file in changes:
            self._put(name, file)

    def sync(self, directory: str) -> None:
        """The names in `directory` are on the platter now."""
        self._pending.pop(directory, None)

    def copy(self) -> Folder:
        """The same names with the same future, and files of its own."""
        twin = Folder()
        files: dict[int, File] = {}

        def mine(file: File | None) -> File | None:
            return None if file is None else files.setdefault(id(file), file.copy())

        for name, file in self.names.items():
            twin._put(name, mine(file))
        twin._pending = {
            directory: [tuple((name, mine(file)) for name, file in entry) for entry in entries]
            for directory, entries in self._pending.items()
        }
        return twin

    def settle(self, how: How, source: random.Random, faults: Counter[str]) -> None:
        """The power goes: names first, then the files that still have one."""
        for entries in self._pending.values():
            keep = {"none": 0, "all": len(entries)}.get(how)
            if keep is None:
                keep = source.randint(0, len(entries))
            for entry in reversed(entries[keep:]):
                faults["entry-lost"] += 1
                for name, file in entry:
                    self._put(name, file)
        self._pending.clear()
        for name in sorted(self.names):
            self.names[name].settle(how, source, faults)

    def _put(self, name: str, file: File | None) -> None:
        if file is None:
            self.names.pop(name, None)
        else:
            self.names[name] = file


def parent(path: str) -> str:
    """The directory of a path."""
    return path.rpartition("/")[0]
