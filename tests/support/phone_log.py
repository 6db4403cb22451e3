"""An exported log read with SQLite alone, the way anybody would who finds the file."""

from __future__ import annotations

import sqlite3
from collections import Counter
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clientcore.wire import unpack as unpack_bounded

BODY_BYTES_MAX = 65_536


def unpack(body: bytes) -> Any:
    """Body of a row."""
    return unpack_bounded(body, bytes_max=BODY_BYTES_MAX)


@dataclass(frozen=True, slots=True, kw_only=True)
class Tapped:
    """One tap row: its place in the log, its register, pupil (or `~` key) and value."""

    seq: int
    register: str
    key: str
    value: str | None


def check(path: Path) -> int:
    """The file is a whole SQLite database, every row reads back, no seq is missing; returns the number of rows."""
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as db:
        assert db.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        rows = db.execute("SELECT seq, kind, typeof(register), at_ms, body FROM log ORDER BY seq").fetchall()
    assert [row[0] for row in rows] == list(range(1, len(rows) + 1))
    for _, kind, register_type, at_ms, body in rows:
        assert register_type in ("text", "null")
        assert at_ms > 0
        assert isinstance(unpack(body), list), kind
    return len(rows)


def taps(path: Path) -> list[Tapped]:
    """Every tap in the order of the log."""
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as db:
        rows = db.execute("SELECT seq, register, body FROM log WHERE kind = 'tap' ORDER BY seq").fetchall()
    found = []
    for seq, register, body in rows:
        key, value, _ = unpack(body)
        found.append(Tapped(seq=seq, register=register, key=key, value=value))
    return found


def chunks(path: Path, register: str) -> list[bytes]:
    """The changes this phone sealed in `register`."""
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as db:
        rows = db.execute("SELECT body FROM log WHERE kind = 'change' AND register = ? ORDER BY seq", [register])
        return [unpack(body)[0] for (body,) in rows]


def insert_further(path: Path, count: int) -> None:
    """SQLite itself goes on writing where the phone's page writer stopped, and finds nothing wrong afterwards."""
    with closing(sqlite3.connect(path)) as db:
        before = db.execute("SELECT count(*) FROM log").fetchone()[0]
        with db:
            db.executemany(
                "INSERT INTO log (kind, register, at_ms, body) VALUES ('notice', NULL, ?, ?)",
                [(1_795_334_400_000 + n, b"\x91\xc4" + bytes([n % 200]) + bytes(n % 200)) for n in range(count)],
            )
        assert db.execute("SELECT count(*) FROM log").fetchone()[0] == before + count
        assert db.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


def count_keys(found: list[Tapped], register: str) -> Counter[str]:
    """Number of taps per key of one register."""
    return Counter(tap.key for tap in found if tap.register == register)
