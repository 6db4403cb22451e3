"""A hostile zip of CSV files, read one bounded line at a time. It reads the bytes it is given and writes nowhere.

Rules of this door:

1. No size in the zip is believed: bytes are counted as they are inflated, lines as they are read.
2. A file that is not wanted is never opened; a column that is not wanted is counted and forgotten in the same step.
3. OneRoster forbids line breaks inside a field, so every physical line is parsed by itself: one broken quote spoils its
   own row and no other.
"""

from __future__ import annotations

import csv
import hashlib
import io
import re
import struct
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, BinaryIO

from syncserver.rostermodel import Dropped, RowError

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

ARCHIVE_BYTES_MAX = 128 << 20  # 800,000 pupils with all their columns deflate to about 60 MB
FILE_BYTES_MAX = 384 << 20  # users.csv of 800,000 pupils at 300 bytes a row, and room
INFLATED_BYTES_MAX = 1 << 30
RATIO_MAX = 200  # the most repetitive real file (enrollments) deflates about 30 times
ENTRIES_MAX = 64  # OneRoster 1.2 knows 22 files
DIRECTORY_BYTES_MAX = 16_384
LINE_CHARS_MAX = 16_384
ROWS_MAX = 4_000_000
COLUMNS_MAX = 128
ERRORS_KEPT_MAX = 1_000  # beyond this a person mends the export, not the rows
DETAIL_CHARS_MAX = 80
_CHUNK_BYTES = 65_536

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
# Control characters, and the direction overrides, isolates and separators that would let a name rewrite the line it
# stands in; the marks that Arabic text really uses (LRM, RLM, ALM, ZWJ, ZWNJ) stay. Last, bytes that were no UTF-8.
_UNSAFE = re.compile("[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ufeff\ud800-\udfff]")
_ESCAPED_BYTE = re.compile("[\ud800-\udfff]")
_END = b"PK\x05\x06"
_END_BYTES = 22
_ZIP64_LOCATOR = b"PK\x06\x07"
_ENCRYPTED = 0x1
# What `zipfile` raises for bytes that are no zip, found by mutation (see the tests): nothing else came out of it.
_ZIP_FAULTS = (zipfile.BadZipFile, EOFError, ValueError, OSError, NotImplementedError, RuntimeError, struct.error)


class ArchiveRefused(Exception):
    """The zip, or one file of it, cannot be read further. Never leaves the reader, which turns it into a `RowError`."""

    def __init__(self, code: str, detail: str = "", *, file: str = "", line: int = 0) -> None:
        super().__init__(code)
        self.code, self.detail, self.file, self.line = code, detail, file, line


class Report:
    """Collects errors and what was dropped, while a zip is read."""

    def __init__(self) -> None:
        self._errors: list[RowError] = []
        self.errors_found = 0
        self.columns: Counter[str] = Counter()
        self.rows: Counter[str] = Counter()
        self.files: dict[str, int] = {}
        self.poisoned: set[str] = set()  # ids of rows with a fault: what refers to them is not reported again

    def error(self, file: str, line: int, column: str, code: str, detail: str = "") -> None:
        """Note one problem; beyond `ERRORS_KEPT_MAX` only the number rises."""
        self.errors_found += 1
        if len(self._errors) < ERRORS_KEPT_MAX:
            shown = printable(detail)
            self._errors.append(RowError(file=file, line=line, column=column, code=code, detail=shown))

    @property
    def errors(self) -> tuple[RowError, ...]:
        """The problems kept, by file and line."""
        return tuple(sorted(self._errors, key=lambda e: (e.file, e.line, e.column, e.code)))

    def dropped(self) -> Dropped:
        """What stayed outside."""
        return Dropped(
            columns=dict(sorted(self.columns.items())), rows=dict(sorted(self.rows.items())), files=self.files
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One line of one file: only the wanted columns, stripped of blanks at both ends."""

    file: str
    line: int
    cells: Mapping[str, str]

    def __getitem__(self, column: str) -> str:
        return self.cells.get(column, "")


@dataclass(frozen=True, slots=True, kw_only=True)
class Columns:
    """What we take from a file: `needed` must be in its header, `wanted` may be; all others are dropped and counted."""

    needed: tuple[str, ...]
    wanted: tuple[str, ...] = ()


# Columns whose content says nothing about a person, so that dropping them is not worth a line in the report.
_UNCOUNTED = frozenset({"dateLastModified"})


class RosterZip:
    """The opened zip.

    Raises:
        ArchiveRefused: `zip-too-large`, `zip-broken`, `zip-directory`, `zip-names`, `zip-encrypted`, `zip-bomb`,
            `zip-method`.
    """

    def __init__(self, source: BinaryIO, report: Report) -> None:
        self._report = report
        self._budget = INFLATED_BYTES_MAX
        size = source.seek(0, io.SEEK_END)
        if size > ARCHIVE_BYTES_MAX:
            raise ArchiveRefused("zip-too-large", f"{size} > {ARCHIVE_BYTES_MAX}")
        _check_directory_size(source, size)
        self.digest = _digest(source)
        try:
            self._zip = zipfile.ZipFile(source)
        except _ZIP_FAULTS as broken:
            raise ArchiveRefused("zip-broken", str(broken)) from broken
        self._entries = _checked(self._zip.infolist())

    def names(self) -> frozenset[str]:
        """The files in the zip."""
        return frozenset(self._entries)

    def drop_others(self, wanted: frozenset[str]) -> None:
        """Count every file outside `wanted` as dropped, unopened."""
        for name, entry in sorted(self._entries.items()):
            if name not in wanted:
                self._report.files[name] = entry.file_size

    def rows(self, file: str, columns: Columns) -> Iterator[Row]:
        """The rows of `file` in order. Rows with a fault of shape or spelling are reported and left out.

        Raises:
            ArchiveRefused: When the rest of the file cannot be trusted: damage, a bomb, a header that lacks a column.
        """
        lines = self._lines(file)
        header = self._header(file, lines, columns)
        kept = {*columns.needed, *columns.wanted, "status"}
        keep = [(index, name) for index, name in enumerate(header) if name in kept]
        drop = [(index, f"{file}:{name}") for index, name in enumerate(header) if name not in kept | _UNCOUNTED]
        for number, line in lines:
            cells = self._cells(file, number, line, len(header))
            if cells is None:
                continue
            for index, name in drop:
                if cells[index].strip():
                    self._report.columns[name] += 1
            taken = {name: cells[index].strip() for index, name in keep}
            if _UNSAFE.search(line) is None or self._is_spelled(file, number, taken):
                yield Row(file=file, line=number, cells=taken)
            else:
                self._report.poisoned.add(taken.get("sourcedId", ""))

    def _header(self, file: str, lines: Iterator[tuple[int, str]], columns: Columns) -> list[str]:
        first = next(lines, None)
        cells = None if first is None else _split(first[1])
        if first is None or not cells:
            raise ArchiveRefused("header-missing", ",".join(columns.needed), file=file, line=1)
        header = [cell.strip() for cell in cells]
        if len(header) > COLUMNS_MAX:
            raise ArchiveRefused("header-wide", str(len(header)), file=file, line=1)
        missing = [name for name in columns.needed if name not in header]
        if missing:
            raise ArchiveRefused("header-missing", ",".join(missing), file=file, line=1)
        twice = [name for name, times in Counter(header).items() if times > 1]
        if twice:
            raise ArchiveRefused("header-twice", ",".join(twice), file=file, line=1)
        return header

    def _cells(self, file: str, number: int, line: str, width: int) -> list[str] | None:
        cells = _split(line)
        if cells is None:
            self._report.error(file, number, "", "csv-quote")
            return None
        if len(cells) != width:
            self._report.error(file, number, "", "row-shape", f"{len(cells)} / {width}")
            self._report.poisoned.update(cells[:1])  # sourcedId comes first in every OneRoster file
            return None
        return cells

    def _is_spelled(self, file: str, number: int, cells: Mapping[str, str]) -> bool:
        """Whether all cells are UTF-8 text without control or direction-changing characters; reports the others."""
        good = True
        for column, text in cells.items():
            if (bad := _UNSAFE.search(text)) is not None:
                code = "not-utf8" if _ESCAPED_BYTE.match(bad[0]) else "control-characters"
                self._report.error(file, number, column, code)
                good = False
        return good

    def _lines(self, file: str) -> Iterator[tuple[int, str]]:
        """Physical lines without their ends, numbered from 1; empty ones are skipped."""
        number = 0
        try:
            with self._zip.open(self._entries[file]) as raw:
                # surrogateescape keeps a wrongly encoded byte inside its own row, where it can be named.
                counted = io.BufferedReader(_Counted(raw, self, file), _CHUNK_BYTES)
                text = io.TextIOWrapper(counted, encoding="utf-8-sig", errors="surrogateescape", newline="")
                while line := text.readline(LINE_CHARS_MAX + 1):
                    number += 1
                    if len(line) > LINE_CHARS_MAX:
                        raise ArchiveRefused("line-long", str(LINE_CHARS_MAX), file=file, line=number)
                    if number > ROWS_MAX:
                        raise ArchiveRefused("too-many-rows", str(ROWS_MAX), file=file, line=number)
                    stripped = line.rstrip("\r\n")
                    if stripped:
                        yield number, stripped
        except (*_ZIP_FAULTS, zlib.error) as broken:
            raise ArchiveRefused("zip-damaged", str(broken), file=file, line=number) from broken

    def spend(self, count: int, taken: int, file: str) -> None:
        """Count inflated bytes against the caps (rule 1)."""
        self._budget -= count
        if taken > FILE_BYTES_MAX or self._budget < 0:
            raise ArchiveRefused("zip-bomb", str(taken), file=file)


class _Counted(io.RawIOBase):
    """A file of the zip that counts what comes out of it."""

    def __init__(self, raw: IO[bytes], archive: RosterZip, file: str) -> None:
        self._raw, self._archive, self._file, self._taken = raw, archive, file, 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        view = memoryview(buffer).cast("B")
        chunk = self._raw.read(len(view))
        self._taken += len(chunk)
        self._archive.spend(len(chunk), self._taken, self._file)
        view[: len(chunk)] = chunk
        return len(chunk)


def printable(text: str) -> str:
    """`text` shortened, with everything that could disturb a terminal or a log made visible."""
    short = text if len(text) <= DETAIL_CHARS_MAX else text[: DETAIL_CHARS_MAX - 1] + "…"
    return "".join(c if c.isprintable() and _UNSAFE.match(c) is None else "\ufffd" for c in short)


def _split(line: str) -> list[str] | None:
    try:
        return next(csv.reader([line], strict=True))
    except (csv.Error, StopIteration):
        return None


def _digest(source: BinaryIO) -> str:
    source.seek(0)
    return hashlib.file_digest(source, "sha256").hexdigest()  # type: ignore[arg-type]


def _check_directory_size(source: BinaryIO, size: int) -> None:
    """Refuse a huge central directory before `zipfile` builds objects of it (it reads by size, not by count)."""
    tail_bytes = min(size, 65_535 + _END_BYTES)
    source.seek(size - tail_bytes)
    tail = source.read(tail_bytes)
    at = len(tail) - _END_BYTES
    if at < 0 or tail[at : at + 4] != _END or tail[-2:] != b"\0\0":  # else: with a comment, found as zipfile finds it
        at = tail.rfind(_END)
    if at < 0 or len(tail) - at < _END_BYTES:
        raise ArchiveRefused("zip-broken", "no end of central directory")
    if tail[max(0, at - 20) : at].startswith(_ZIP64_LOCATOR):
        raise ArchiveRefused("zip-directory", "zip64")
    if int.from_bytes(tail[at + 12 : at + 16], "little") > DIRECTORY_BYTES_MAX:
        raise ArchiveRefused("zip-directory")


def _checked(infos: list[zipfile.ZipInfo]) -> dict[str, zipfile.ZipInfo]:
    if len(infos) > ENTRIES_MAX:
        raise ArchiveRefused("zip-directory", f"{len(infos)} > {ENTRIES_MAX}")
    entries: dict[str, zipfile.ZipInfo] = {}
    for info in infos:
        name = info.orig_filename
        if _NAME.fullmatch(name) is None or name in entries:
            raise ArchiveRefused("zip-names", name)
        if info.flag_bits & _ENCRYPTED:
            raise ArchiveRefused("zip-encrypted", name)
        if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise ArchiveRefused("zip-method", name)
        if info.file_size > FILE_BYTES_MAX or info.file_size > RATIO_MAX * max(info.compress_size, 64):
            raise ArchiveRefused("zip-bomb", name)
        entries[name] = info
    return entries
