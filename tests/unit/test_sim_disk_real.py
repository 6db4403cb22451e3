"""The simulated disk is asked for the same operations as the real one: traced system calls of SQLite's own VFS."""

from __future__ import annotations

import os
import random
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from clientcore.log import Log
from tests.simulator.disk import Disk
from tests.simulator.medium import Folder

ROOT = Path(__file__).parents[2]
CALLS = "write,openat,pwrite64,fdatasync,fsync,unlink,ftruncate"
STRACE = shutil.which("strace")

REAL_LOG = """
import os, sys
from pathlib import Path
from clientcore.log import Log
log = Log.open(Path(sys.argv[1]) / "x.db")
for number in range(3):
    os.write(2, b"MARK")
    with log.act() as act:
        act.append("tap", "c-3a/2026-11-22/day", number, ["s001"])
os.write(2, b"STOP")
"""
REAL_STORE = """
import os, sqlite3, sys
connection = sqlite3.connect(sys.argv[1] + "/x.db", isolation_level=None)
connection.execute("PRAGMA journal_mode=WAL")
connection.execute("PRAGMA synchronous=FULL")
connection.execute("PRAGMA wal_autocheckpoint=8")
os.write(2, b"MARK")
connection.execute("CREATE TABLE t (x)")
for number in range(6):
    os.write(2, b"MARK")
    connection.execute("INSERT INTO t VALUES (?)", [number])
os.write(2, b"STOP")
"""


def traced(program: str, folder: Path) -> list[list[str]]:
    """What each step between two marks asked of the system; `names` is a sync of the folder."""
    assert STRACE is not None
    done = subprocess.run(
        [STRACE, "-f", "-y", "-e", f"trace={CALLS}", sys.executable, "-c", program, str(folder)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    if "MARK" not in done.stderr:
        pytest.skip(f"strace may not trace here: {done.stderr[-200:]}")
    steps: list[list[str]] = []
    for line in done.stderr.splitlines():
        if '"MARK"' in line:
            steps.append([])
        elif '"STOP"' in line:
            return steps
        elif steps:
            steps[-1] += read_call(line, folder)
    raise AssertionError("the program did not end")


def read_call(line: str, folder: Path) -> Iterator[str]:
    call = re.search(r"(\w+)\((?:AT_FDCWD<[^>]*>, )?(?:\d+<([^>]*)>|\"([^\"]*)\")", line)
    if call is None:
        return
    name, path = call[1], Path(call[2] or call[3])
    if path == folder and name in ("fdatasync", "fsync"):
        yield "names"
    elif path.parent == folder and not path.name.endswith("-shm"):
        kind = {"pwrite64": "write", "fdatasync": "sync", "fsync": "sync", "unlink": "delete", "ftruncate": "truncate"}
        if name in kind:
            yield f"{kind[name]} {path.name}"
        elif name == "openat" and "O_CREAT" in line and path.name != "x.db":
            yield f"create {path.name}"


class _Watching(Folder):
    """The same list from a simulated disk; `names` where the disk made the names durable."""

    def __init__(self) -> None:
        super().__init__()
        self.steps: list[list[str]] = []
        self.disk = Disk("x", random.Random(1))
        self.disk.folder = self

    def mark(self) -> None:
        self.disk.watch = lambda kind, path: self.steps[-1].append(f"{kind} {path}")
        self.steps.append([])

    def sync(self, directory: str) -> None:
        super().sync(directory)
        if self.steps:
            self.steps[-1].append("names")


pytestmark = pytest.mark.skipif(STRACE is None, reason="strace is not installed")


def test_an_act_of_the_device_log_asks_for_the_same(tmp_path: Path) -> None:
    """Journal, its directory, the database, the deletion and the directory again: call by call as on a real disk."""
    watching = _Watching()
    log = Log.open("x.db", files=watching.disk.files())
    for number in range(3):
        watching.mark()
        with log.act() as act:
            act.append("tap", "c-3a/2026-11-22/day", number, ["s001"])
    real = traced(REAL_LOG, tmp_path)
    assert watching.steps == real
    assert real[-1].count("names") == 2


def test_commits_and_checkpoints_of_the_store_ask_for_the_same(tmp_path: Path) -> None:
    """Write-ahead log with FULL: its first sync, each commit's, and a checkpoint with its own."""
    watching = _Watching()
    connection = watching.disk.connect("x.db", wal=True)
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=FULL")
    connection.execute("PRAGMA wal_autocheckpoint=8")
    watching.mark()
    connection.execute("CREATE TABLE t (x)")
    for number in range(6):
        watching.mark()
        connection.execute("INSERT INTO t VALUES (?)", [number])
    real = traced(REAL_STORE, tmp_path)
    assert watching.steps == real
    assert any("sync x.db" in step for step in real)
