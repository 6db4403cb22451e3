"""Beside the log: what can be fetched again, and names, which the log never holds.

Invariants:
  1. Losing this file loses nothing but one pull: the cursor goes with it, so everything is fetched anew.
  2. The cursor counts only while the log knows the answer it came with: after an older log was put back, it is void.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Container, Sequence
from dataclasses import dataclass
from pathlib import Path

from sqlite_utils import Database

from clientcore.errors import FrameRefused, StoreError
from clientcore.limits import PAYLOAD_BYTES_MAX
from clientcore.log import MEMORY, SYSTEM_FILES, LogFiles, store_errors
from clientcore.wire import Value, pack, shape, unpack

_SCHEMA = (
    "CREATE TABLE IF NOT EXISTS class (id TEXT PRIMARY KEY, name TEXT NOT NULL, grade TEXT NOT NULL)",
    """CREATE TABLE IF NOT EXISTS pupil (
        class TEXT NOT NULL, position INTEGER NOT NULL, id TEXT NOT NULL, name TEXT NOT NULL,
        PRIMARY KEY (class, position)
    )""",
    "CREATE TABLE IF NOT EXISTS value (name TEXT PRIMARY KEY, body BLOB NOT NULL)",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassInfo:
    """A class of this device."""

    id: str
    name: str
    grade: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Calendar:
    """UTC offsets ((from, UTC ms; seconds), ascending), closed dates with a reason slug, sessions in use."""

    version: int
    offsets: tuple[tuple[int, int], ...]
    closed: tuple[tuple[str, str], ...]
    sessions: tuple[str, ...]


class Cache:
    """The cache of one device."""

    def __init__(self, db: Database) -> None:
        self._db = db

    @classmethod
    def open(cls, path: Path | str, *, files: LogFiles = SYSTEM_FILES) -> Cache:
        """Open or create it; one that cannot be read is begun anew.

        Raises:
            StoreError: `storage` when the disk refuses.
        """
        try:
            return cls._open(path, files)
        except sqlite3.DatabaseError as broken:
            if isinstance(broken, sqlite3.OperationalError) or str(path) == MEMORY:
                raise StoreError("storage", str(broken)) from broken
        files.remove(str(path))
        return cls._open(path, files)

    @classmethod
    def _open(cls, path: Path | str, files: LogFiles) -> Cache:
        db = Database(files.connect(str(path), timeout=30), execute_plugins=False)
        db.execute("PRAGMA trusted_schema=OFF")
        for statement in _SCHEMA:
            db.execute(statement)
        return cls(db)

    def close(self) -> None:
        """Let go of the file."""
        self._db.close()

    # ---- classes and rosters ----

    @store_errors()
    def classes(self) -> list[ClassInfo]:
        """The device's classes, by name."""
        found = self._db.execute("SELECT id, name, grade FROM class ORDER BY name, id").fetchall()
        return [ClassInfo(id=i, name=n, grade=g) for i, n, g in found]

    @store_errors()
    def roster(self, class_id: str) -> list[tuple[str, str]]:
        """(pupil id, name) in roll order; empty when no roster has come."""
        return [
            (pupil, name)
            for pupil, name in self._db.execute(
                "SELECT id, name FROM pupil WHERE class = ? ORDER BY position", [class_id]
            ).fetchall()
        ]

    @store_errors()
    def put_classes(self, classes: Sequence[ClassInfo]) -> None:
        """Replace the list of classes; rosters of others leave with them."""
        with self._db.atomic():
            self._db.execute("DELETE FROM class")
            for item in classes:
                self._db.execute("INSERT OR REPLACE INTO class VALUES (?, ?, ?)", [item.id, item.name, item.grade])
            self._db.execute("DELETE FROM pupil WHERE class NOT IN (SELECT id FROM class)")

    @store_errors()
    def put_roster(self, class_id: str, pupils: Sequence[tuple[str, str]]) -> None:
        """Replace one class's roster."""
        with self._db.atomic():
            self._db.execute("DELETE FROM pupil WHERE class = ?", [class_id])
            for position, (pupil, name) in enumerate(pupils):
                self._db.execute("INSERT INTO pupil VALUES (?, ?, ?, ?)", [class_id, position, pupil, name])

    # ---- single values ----

    def calendar(self) -> Calendar | None:
        """The last calendar that came, or None."""
        body = self._get("calendar")
        if body is None:
            return None
        version, offsets, closed, sessions = shape(body, int, list, list, list)
        return Calendar(
            version=version,
            offsets=tuple((start, seconds) for start, seconds in offsets),
            closed=tuple((date, slug) for date, slug in closed),
            sessions=tuple(sessions),
        )

    def put_calendar(self, calendar: Calendar) -> None:
        """Keep the calendar."""
        offsets: list[Value] = [list(pair) for pair in calendar.offsets]
        closed: list[Value] = [list(pair) for pair in calendar.closed]
        self._put("calendar", [calendar.version, offsets, closed, list(calendar.sessions)])

    def cursor(self, answers: Container[bytes]) -> bytes | None:
        """Where the last pull ended, if the log knows the answer it came with: `answers` are the nonces in the log."""
        body = self._get("cursor")
        if body is None:
            return None
        anchor, cursor = shape(body, bytes, bytes)
        return bytes(cursor) if anchor in answers else None

    def put_cursor(self, anchor: bytes, cursor: bytes) -> None:
        """Keep the cursor; `anchor` is the nonce of the answer it came with."""
        self._put("cursor", [anchor, cursor])

    def nonce(self) -> bytes | None:
        """The nonce an enrolment brought (later ones stand in the log)."""
        body = self._get("nonce")
        return None if body is None else bytes(shape(body, 8)[0])

    def put_nonce(self, nonce: bytes) -> None:
        """Keep the nonce of an enrolment."""
        self._put("nonce", [nonce])

    def names(self) -> tuple[str, str]:
        """(school name, user name) of the enrolment; empty when unknown."""
        body = self._get("names")
        if body is None:
            return "", ""
        school, user = shape(body, str, str)
        return school, user

    def put_names(self, school: str, user: str) -> None:
        """Keep the names of school and user."""
        self._put("names", [school, user])

    @store_errors()
    def _get(self, name: str) -> object:
        row = self._db.execute("SELECT body FROM value WHERE name = ?", [name]).fetchone()
        if row is None:
            return None
        try:
            return unpack(row[0], bytes_max=PAYLOAD_BYTES_MAX)
        except FrameRefused:
            return None  # written by another version: fetched again

    @store_errors()
    def _put(self, name: str, body: list[Value]) -> None:
        self._db.execute("INSERT OR REPLACE INTO value VALUES (?, ?)", [name, pack(body)])
