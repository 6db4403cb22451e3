"""The log: one append-only table, several writers, damage kept beside, foreign files held at arm's length."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from clientcore import log as log_module
from clientcore.errors import BadInput, StoreError
from clientcore.log import Log, read_foreign


def append(log: Log, *kinds: str) -> None:
    with log.act() as act:
        for kind in kinds:
            act.append(kind, None, 7, [kind])


def kinds(log: Log) -> list[str]:
    return [row.kind for row in log.read()]


def sql(path: Path, *statements: str) -> None:
    with closing(sqlite3.connect(path)) as connection:
        for statement in statements:
            connection.execute(statement)
        connection.commit()


def test_rows_are_there_after_opening_again(tmp_path: Path) -> None:
    """What an act wrote is read back in order by the next process."""
    log = Log.open(tmp_path / "log.db")
    append(log, "start", "tap")
    append(log, "change")
    log.close()
    again = Log.open(tmp_path / "log.db")
    rows = again.read()
    assert [(row.seq, row.kind, row.at_ms) for row in rows] == [(1, "start", 7), (2, "tap", 7), (3, "change", 7)]
    assert again.read() == []
    again.close()


def test_an_error_inside_an_act_leaves_no_row(tmp_path: Path) -> None:
    """An act is written whole or not at all."""
    log = Log.open(tmp_path / "log.db")

    def interrupted() -> None:
        with log.act() as act:
            act.append("tap", None, 1, [])
            raise KeyError

    with pytest.raises(KeyError):
        interrupted()
    append(log, "start")
    log.close()
    assert kinds(Log.open(tmp_path / "log.db")) == ["start"]


def test_every_commit_reaches_the_disk_before_it_returns(tmp_path: Path) -> None:
    """The log is opened with a rollback journal and synchronous=EXTRA, and no write-ahead log."""
    log = Log.open(tmp_path / "log.db")
    assert log._db.execute("PRAGMA synchronous").fetchone() == (3,)
    assert log._db.execute("PRAGMA journal_mode").fetchone() == ("delete",)
    log.close()


def test_two_processes_share_one_log_without_losing_rows(tmp_path: Path) -> None:
    """Writers in different processes interleave; each act first sees what the others appended."""
    path = tmp_path / "log.db"
    writer = (
        "import sys; from pathlib import Path; from clientcore.log import Log\n"
        "log = Log.open(Path(sys.argv[1]))\n"
        "for n in range(40):\n"
        "    with log.act() as act: act.append(sys.argv[2], None, n, [n])\n"
    )
    Log.open(path).close()
    running = [subprocess.Popen([sys.executable, "-c", writer, str(path), name]) for name in ("a", "b")]
    assert [process.wait(timeout=60) for process in running] == [0, 0]
    rows = Log.open(path).read()
    assert [row.seq for row in rows] == list(range(1, 81))
    assert [row.at_ms for row in rows if row.kind == "a"] == list(range(40))
    assert [row.at_ms for row in rows if row.kind == "b"] == list(range(40))


@pytest.mark.parametrize("acts", [1, 3, 17])
def test_kill_9_loses_nothing_that_an_act_returned_from(tmp_path: Path, acts: int) -> None:
    """A process killed inside a transaction leaves exactly the acts that had ended."""
    writer = (
        "import os, signal, sys; from pathlib import Path; from clientcore.log import Log\n"
        "log = Log.open(Path(sys.argv[1]))\n"
        "for n in range(int(sys.argv[2])):\n"
        "    with log.act() as act: act.append('tap', None, n, [n])\n"
        "with log.act() as act:\n"
        "    act.append('tap', None, 999, [999])\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    path = tmp_path / "log.db"
    done = subprocess.run([sys.executable, "-c", writer, str(path), str(acts)], check=False, timeout=60)
    assert done.returncode == -signal.SIGKILL
    log = Log.open(path)
    assert [row.at_ms for row in log.read()] == list(range(acts))
    append(log, "tap")
    log.close()


@pytest.mark.parametrize("damage", ["garbage", "torn", "other-table"])
def test_a_damaged_log_is_kept_beside_and_a_new_one_says_so(tmp_path: Path, damage: str) -> None:
    """No damaged file is deleted or written to; the new log begins with a notice."""
    path = tmp_path / "log.db"
    log = Log.open(path)
    for _ in range(200):
        append(log, "tap")
    log.close()
    if damage == "garbage":
        path.write_bytes(b"not a database at all" * 100)
    elif damage == "torn":
        data = bytearray(path.read_bytes())
        data[4096:8192] = os.urandom(4096)
        path.write_bytes(data)
    else:
        path.unlink()
        sql(path, "CREATE TABLE log (seq INTEGER PRIMARY KEY, other TEXT)")
    kept = path.read_bytes()
    log = Log.open(path, at_ms=5)
    rows = log.read()
    assert [(row.kind, row.at_ms) for row in rows] == [("notice", 5)]
    assert (tmp_path / "log.db.damaged-1").read_bytes() == kept
    append(log, "start")
    assert kinds(log) == []
    log.close()
    assert kinds(Log.open(path)) == ["notice", "start"]


def test_a_full_disk_refuses_the_act_and_keeps_the_rest(tmp_path: Path) -> None:
    """When SQLite cannot grow the file, the act raises and earlier rows stay."""
    log = Log.open(tmp_path / "log.db")
    append(log, "start")
    log._db.execute("PRAGMA max_page_count=3")

    def fill() -> None:
        for _ in range(100):
            with log.act() as act:
                act.append("frame", None, 1, [bytes(4096)])

    with pytest.raises(StoreError) as refused:
        fill()
    assert refused.value.code == "storage"
    log._db.execute("PRAGMA max_page_count=1000")
    append(log, "tap")
    log.close()
    found = kinds(Log.open(tmp_path / "log.db"))
    assert (found[0], found[-1]) == ("start", "tap")


def exported(tmp_path: Path, rows: int = 3) -> Path:
    path = tmp_path / "phone.db"
    log = Log.open(path)
    append(log, *(["tap"] * rows))
    log.close()
    return path


def test_a_foreign_log_is_read_without_touching_it(tmp_path: Path) -> None:
    """Rows come back, the file keeps its bytes, nothing appears beside it."""
    path = exported(tmp_path)
    before = path.read_bytes()
    assert [row.kind for row in read_foreign(path)] == ["tap"] * 3
    assert path.read_bytes() == before
    assert [item.name for item in tmp_path.iterdir()] == ["phone.db"]


def test_a_foreign_log_in_wal_mode_is_read(tmp_path: Path) -> None:
    """A header that says write-ahead log does not keep a checkpointed file from being read."""
    path = exported(tmp_path)
    sql(path, "PRAGMA journal_mode=WAL")
    assert path.read_bytes()[18:20] == b"\x02\x02"
    assert len(read_foreign(path)) == 3


@pytest.mark.parametrize(
    ("statements", "code"),
    [
        (["CREATE TRIGGER t AFTER INSERT ON log BEGIN SELECT 1; END"], "not-a-log"),
        (["CREATE VIEW v AS SELECT 1"], "not-a-log"),
        (["CREATE TABLE other (x)"], "not-a-log"),
        (
            ["DROP TABLE log", "CREATE VIEW log AS SELECT 1 seq, 'tap' kind, NULL register, 1 at_ms, x'' body"],
            "not-a-log",
        ),
        (["DROP TABLE log", "CREATE VIRTUAL TABLE log USING fts5(seq, kind, register, at_ms, body)"], "not-a-log"),
        (["ALTER TABLE log ADD COLUMN bomb BLOB AS (zeroblob(1000000000))"], "not-a-log"),
        (["DROP TABLE log"], "not-a-log"),
        (["UPDATE log SET body = 'text'"], "log-damaged"),
        (["UPDATE log SET at_ms = 'soon'"], "log-damaged"),
        (["UPDATE log SET kind = x'00'"], "log-damaged"),
        (["UPDATE log SET register = x'00'"], "log-damaged"),
        (["UPDATE log SET kind = CAST(x'ff' AS TEXT)"], "log-damaged"),
        (["UPDATE log SET body = zeroblob(70000)"], "log-damaged"),
    ],
)
def test_a_hostile_log_is_refused_by_name(tmp_path: Path, statements: list[str], code: str) -> None:
    """Anything but the plain table with plain values is refused with a typed error."""
    path = exported(tmp_path)
    sql(path, *statements)
    with pytest.raises(BadInput) as refused:
        read_foreign(path)
    assert refused.value.code == code


@pytest.mark.parametrize("length", [0, 1, 99, 100, 512, 4095, 4096, 5000])
def test_a_foreign_log_cut_anywhere_is_refused_by_name(tmp_path: Path, length: int) -> None:
    """A truncated file never crashes the reader."""
    path = exported(tmp_path, rows=500)
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(BadInput) as refused:
        read_foreign(path)
    assert refused.value.code in ("not-a-log", "log-damaged")


def test_a_log_beyond_the_limits_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Too many rows, too many bytes and too much work each end with `log-limits` or `log-damaged`."""
    path = exported(tmp_path, rows=5)
    monkeypatch.setattr(log_module, "FOREIGN_ROWS_MAX", 4)
    with pytest.raises(BadInput, match="more than 4 rows"):
        read_foreign(path)
    monkeypatch.setattr(log_module, "_FOREIGN_STEPS_MAX", 0)
    monkeypatch.setattr(log_module, "FOREIGN_ROWS_MAX", 1_000_000)
    big = tmp_path / "big"
    big.mkdir()
    with pytest.raises(BadInput, match="interrupted"):
        read_foreign(exported(big, rows=3_000))
    monkeypatch.setattr(log_module, "FOREIGN_FILE_BYTES_MAX", 100)
    with pytest.raises(BadInput, match="at most 100"):
        read_foreign(path)


def test_a_missing_file_is_refused_by_name(tmp_path: Path) -> None:
    """No traceback for a wrong path."""
    with pytest.raises(BadInput) as refused:
        read_foreign(tmp_path / "nowhere.db")
    assert refused.value.code == "not-a-log"
