"""The device's log: one append-only SQLite table (docs/protocol.md section 10), in a file of its own.

Invariants:
  1. What `act` returned from is on disk: rollback journal and `synchronous=EXTRA`, which also syncs the directory after
     the journal is gone (with FULL a commit may come undone when the power fails right behind it). No write-ahead log:
     SQLite before 3.51.3 can corrupt one that two processes write, and several processes do write here.
  2. Rows are appended in one transaction per act, after everything that other processes appended has been seen.
  3. A file that cannot be read is moved beside, never deleted, and the new one says so in its first row.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from sqlite_utils import Database

from clientcore.errors import BadInput, StoreError
from clientcore.ports import Reached, not_watched
from clientcore.wire import Value, pack

SCHEMA = (Path(__file__).parent / "schema.sql").read_text(encoding="utf-8")
SQLITE_MAGIC = b"SQLite format 3\0"
BUSY_TIMEOUT_S = 30.0
MEMORY = ":memory:"

FOREIGN_FILE_BYTES_MAX = 64 << 20  # a school year of taps is 20 MB
FOREIGN_ROWS_MAX = 500_000
FOREIGN_BODY_BYTES_MAX = 65_536  # an answer with 512 verdicts is 20 kB
_FOREIGN_STEPS_MAX = 200_000  # x 1,000 virtual machine instructions: some seconds
_COLUMNS = (("seq", "INTEGER"), ("kind", "TEXT"), ("register", "TEXT"), ("at_ms", "INTEGER"), ("body", "BLOB"))


class LogFiles(Protocol):
    """Where databases of a device lie: the file system, or the simulator's disk."""

    def connect(self, path: str, *, timeout: float) -> sqlite3.Connection:
        """Open or create a database; waits up to `timeout` seconds for a lock."""
        ...

    def exists(self, path: str) -> bool:
        """Whether there is such a file."""
        ...

    def rename(self, old: str, new: str) -> None:
        """Move a file within its directory."""
        ...

    def remove(self, path: str) -> None:
        """Delete a file."""
        ...


class SystemFiles:
    """The operating system's files."""

    def connect(self, path: str, *, timeout: float) -> sqlite3.Connection:
        """See `LogFiles`."""
        return sqlite3.connect(path, timeout=timeout)

    def exists(self, path: str) -> bool:
        """See `LogFiles`."""
        return Path(path).exists()

    def rename(self, old: str, new: str) -> None:
        """See `LogFiles`."""
        Path(old).rename(new)

    def remove(self, path: str) -> None:
        """See `LogFiles`."""
        Path(path).unlink()


SYSTEM_FILES = SystemFiles()


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One row of the log. `at_ms` is the device's wall clock (UTC); `body` is MessagePack."""

    seq: int
    kind: str
    register: str | None
    at_ms: int
    body: bytes


@dataclass(slots=True)
class Act:
    """An open transaction.

    Attributes:
        missed: Rows other processes appended since this process last looked.
        appended: Rows of this act; they count only once the act has ended without an error.
    """

    missed: Sequence[Row]
    _db: Database
    _last_seq: int
    appended: list[Row] = field(default_factory=list)

    def append(self, kind: str, register: str | None, at_ms: int, body: Sequence[Value]) -> None:
        """Add one row; `body` is packed here."""
        row = Row(seq=self._last_seq + 1, kind=kind, register=register, at_ms=at_ms, body=pack(list(body)))
        self._db.execute(
            "INSERT INTO log (seq, kind, register, at_ms, body) VALUES (?, ?, ?, ?, ?)",
            [row.seq, row.kind, row.register, row.at_ms, row.body],
        )
        self._last_seq = row.seq
        self.appended.append(row)


class Log:
    """The log of one device. Several processes may hold it open at once."""

    def __init__(self, db: Database, reached: Reached = not_watched) -> None:
        self._db = db
        self._reached = reached
        self._last_seq = 0

    @classmethod
    def open(
        cls,
        path: Path | str,
        *,
        at_ms: int = 0,
        files: LogFiles = SYSTEM_FILES,
        reached: Reached = not_watched,
    ) -> Log:
        """Open or create the log at `path` (":memory:" for one that lives as long as this object).

        A file that is damaged is moved beside and a new log is begun with a `notice`.

        Args:
            path: The file.
            at_ms: The device's wall clock, for the notice.
            files: Where the file lies.
            reached: Told `log.before_commit` and `log.after_commit` of every act.

        Raises:
            StoreError: `storage` when the disk refuses.
        """
        aside: Path | None = None
        if str(path) != MEMORY and files.exists(str(path)) and not _is_sound(path, files):
            aside = _move_beside(Path(path), files)
        with store_errors():
            db = Database(files.connect(str(path), timeout=BUSY_TIMEOUT_S), execute_plugins=False)
            db.execute("PRAGMA journal_mode=DELETE")
            db.execute("PRAGMA synchronous=EXTRA")
            db.execute("PRAGMA trusted_schema=OFF")
            if db.execute("PRAGMA synchronous").fetchone() != (3,):
                raise StoreError("storage", "this SQLite does not offer synchronous=EXTRA")
            db.execute(SCHEMA)
        log = cls(db, reached)
        if aside is not None:
            with log.act() as act:
                act.append("notice", None, at_ms, ["quarantine", aside.name])
            log._last_seq = 0  # so that the reader's first look sees the notice too
        return log

    def read(self) -> list[Row]:
        """Rows not yet seen by this object, in order."""
        with store_errors():
            return self._catch_up()

    @contextmanager
    def act(self) -> Iterator[Act]:
        """One transaction: catch up, append, and be on disk when the block ends. An error in it leaves no row.

        An error of the disk at its very end leaves open whether the rows are there; if so, the next look finds them.

        Raises:
            StoreError: `storage` (disk full, input/output error, locked by another process for 30 s).
        """
        with store_errors():
            self._db.execute("BEGIN IMMEDIATE")
            try:
                act = Act(self._catch_up(), self._db, self._last_seq)
                yield act
                self._reached("log.before_commit")
                self._db.execute("COMMIT")
            except BaseException:
                self._db.rollback()  # what others appended stays seen: it was committed before
                raise
        self._reached("log.after_commit")
        self._last_seq += len(act.appended)

    def close(self) -> None:
        """Let go of the file."""
        self._db.close()

    def _catch_up(self) -> list[Row]:
        found = self._db.execute(
            "SELECT seq, kind, register, at_ms, body FROM log WHERE seq > ? ORDER BY seq", [self._last_seq]
        ).fetchall()
        rows = [Row(seq=s, kind=k, register=r, at_ms=a, body=bytes(b)) for s, k, r, a, b in found]
        if rows:
            self._last_seq = rows[-1].seq
        return rows


@contextmanager
def store_errors() -> Iterator[None]:
    """SQLite's errors leave as `StoreError`."""
    try:
        yield
    except sqlite3.Error as broken:
        raise StoreError("storage", f"{type(broken).__name__}: {broken}") from broken


def _is_sound(path: Path | str, files: LogFiles) -> bool:
    """Whether the file is a whole database with our table. A log that another process holds is not damaged."""
    try:
        with closing(files.connect(str(path), timeout=BUSY_TIMEOUT_S)) as connection:
            if connection.execute("PRAGMA quick_check(1)").fetchone() != ("ok",):
                return False
            columns = connection.execute("PRAGMA table_xinfo(log)").fetchall()
            return not columns or _has_our_columns(columns)
    except sqlite3.OperationalError as broken:
        if broken.sqlite_errorcode in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
            return False
        raise StoreError("storage", str(broken)) from broken
    except sqlite3.DatabaseError:
        return False


def _has_our_columns(columns: Sequence[Sequence[object]]) -> bool:
    """`columns` is what `PRAGMA table_xinfo` gives; hidden and generated ones are not ours."""
    return tuple((row[1], row[2]) for row in columns) == _COLUMNS and all(row[6] == 0 for row in columns)


def _move_beside(path: Path, files: LogFiles) -> Path:
    count = 1
    while files.exists(str(aside := path.with_name(f"{path.name}.damaged-{count}"))):
        count += 1
    files.rename(str(path), str(aside))
    journal = f"{path}-journal"
    if files.exists(journal):
        files.rename(journal, f"{aside}-journal")
    return aside


# ---- a log that somebody else wrote -----------------------------------------------------------------------------


def read_foreign(path: Path) -> list[Row]:
    """Rows of an exported log, which is treated as hostile: a file can carry triggers, views and forged pages.

    It is read into memory whole (no journal beside it is played back, nothing is written to it), its schema may hold
    the plain table `log` and nothing that could run, and sizes, rows and work are bounded.

    Raises:
        BadInput: `not-a-log` when the file is something else, `log-damaged` when it cannot be read to its end,
            `log-limits` when it is too large.
    """
    try:
        size = path.stat().st_size
        if size > FOREIGN_FILE_BYTES_MAX:
            raise BadInput("log-limits", f"{path.name} has {size} bytes; a log has at most {FOREIGN_FILE_BYTES_MAX}")
        data = bytearray(path.read_bytes())
    except OSError as broken:
        raise BadInput("not-a-log", f"{path.name} cannot be read: {broken.strerror}") from None
    if not data.startswith(SQLITE_MAGIC) or len(data) < 100:
        raise BadInput("not-a-log", f"{path.name} is not an exported log")
    data[18:20] = b"\x01\x01"  # a database in memory has no write-ahead log, whatever its header says
    with closing(sqlite3.connect(":memory:")) as connection:
        try:
            return _foreign_rows(connection, bytes(data), path.name)
        except sqlite3.Error as broken:
            raise BadInput("log-damaged", f"{path.name}: {broken}") from None


def _foreign_rows(connection: sqlite3.Connection, data: bytes, name: str) -> list[Row]:
    connection.deserialize(data)
    connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, FOREIGN_FILE_BYTES_MAX)
    connection.execute("PRAGMA trusted_schema=OFF")
    connection.execute("PRAGMA cell_size_check=ON")
    steps = iter(range(_FOREIGN_STEPS_MAX))
    connection.set_progress_handler(lambda: next(steps, -1) == -1, 1_000)
    _check_foreign_schema(connection, name)
    if connection.execute("PRAGMA quick_check(1)").fetchone() != ("ok",):
        raise BadInput("log-damaged", f"{name}: its pages do not fit together")
    connection.set_authorizer(_reads_log_only)
    rows: list[Row] = []
    for seq, kind, register, at_ms, body in connection.execute(
        "SELECT seq, kind, register, at_ms, body FROM log ORDER BY seq LIMIT ?", [FOREIGN_ROWS_MAX + 1]
    ):
        plain = type(kind) is str and type(at_ms) is int and type(body) is bytes
        if not plain or type(register) not in (str, type(None)) or len(body) > FOREIGN_BODY_BYTES_MAX:
            raise BadInput("log-damaged", f"{name}: row {seq} is not a row of a log")
        rows.append(Row(seq=seq, kind=kind, register=register, at_ms=at_ms, body=body))
    if len(rows) > FOREIGN_ROWS_MAX:
        raise BadInput("log-limits", f"{name} has more than {FOREIGN_ROWS_MAX} rows")
    return rows


def _check_foreign_schema(connection: sqlite3.Connection, name: str) -> None:
    objects = connection.execute("SELECT type, name, rootpage, sql FROM sqlite_schema LIMIT 2").fetchall()
    plain = (
        len(objects) == 1 and objects[0][:2] == ("table", "log") and type(objects[0][2]) is int and objects[0][2] > 0
    )
    if not plain or not _has_our_columns(connection.execute("PRAGMA table_xinfo(log)").fetchall()):
        raise BadInput("not-a-log", f"{name} is a database, but not the log of a device")


def _reads_log_only(action: int, table: str | None, *_: str | None) -> int:
    allowed = action == sqlite3.SQLITE_SELECT or (action == sqlite3.SQLITE_READ and table == "log")
    return sqlite3.SQLITE_OK if allowed else sqlite3.SQLITE_DENY
