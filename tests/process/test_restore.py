"""Backup, restore and drill as an operator runs them: real processes, kill -9, real devices on the command line."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from syncserver.ports import RESTORE_CRASH_POINTS
from syncserver.store.sqlite import open_sqlite
from tests.process.test_kills import prepare
from tests.process.test_whole_road_cli import device
from tests.support.demo import HUDUR
from tests.support.ports import free_port

pytestmark = pytest.mark.process
DIFFERENT = 3


def hudur(*words: str, expect: int = 0) -> dict[str, Any]:
    """Run a command with --json; its report."""
    done = subprocess.run(
        [HUDUR, *words, "--json"],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONWARNINGS": "error", "HUDUR_OPERATOR_TOKEN": ""},
    )
    assert done.returncode == expect, f"{words}: {done.returncode}\n{done.stdout}\n{done.stderr}"
    told: dict[str, Any] = json.loads(done.stdout) if done.stdout else {}
    return told


Name = tuple[bytes, str, str, str]


def changes(store: Path) -> set[Name]:
    """What a store's log holds, read while nobody writes."""
    with closing(sqlite3.connect(f"file:{store}?mode=ro", uri=True)) as connection:
        return set(connection.execute("SELECT hash, class_id, date, session FROM changes"))


def epoch(store: Path) -> int:
    with closing(sqlite3.connect(f"file:{store}?mode=ro", uri=True)) as connection:
        return int(connection.execute("SELECT value FROM meta WHERE name = 'epoch'").fetchone()[0])


class Served:
    """`hudur serve` on a store with two small schools; may be killed and started again at the same address."""

    def __init__(self, folder: Path) -> None:
        self.store, self.port = folder / "store.db", free_port()
        self.where = ("--store", f"sqlite:{self.store}")
        self._process: subprocess.Popen[str] | None = None
        asyncio.run(prepare(self.store))

    def __enter__(self) -> Served:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._process is not None:
            self.stop(signal.SIGTERM)

    def start(self) -> None:
        """Start and wait for the line that says it answers."""
        self._process = subprocess.Popen(
            [HUDUR, "serve", *self.where, "--port", str(self.port), "--json"],
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "HUDUR_OPERATOR_TOKEN": ""},
        )
        assert self._process.stdout is not None
        assert self._process.stdout.readline()

    def stop(self, number: signal.Signals) -> None:
        """End it, kindly or not."""
        assert self._process is not None
        assert self._process.stdout is not None
        self._process.send_signal(number)
        self._process.wait(timeout=30)
        self._process.stdout.close()
        self._process = None

    def enrol(self, home: Path, user: str) -> None:
        """A device of a teacher."""
        code = hudur("code", user, *self.where)
        url = f"http://127.0.0.1:{self.port}"
        device(home, "enrol", "--server", url, "--code", f"{code['school']}.{code['code']}")


def take(home: Path, session: str = "day") -> None:
    device(home, "take", "--class", "c-3a", "--session", session)


def test_a_disaster_on_the_command_line_loses_nothing(tmp_path: Path) -> None:
    """Backup of the running server, more registers acknowledged, a drill beside it, then the real thing: the server
    killed, its store destroyed, the backup restored; the phones' next contact brings everything back.
    """
    homes = [tmp_path / "one", tmp_path / "two"]
    with Served(tmp_path) as server:
        store, file = server.store, tmp_path / "backup.db"
        for home, user in zip(homes, ("t1", "t2"), strict=True):
            server.enrol(home, user)
        take(homes[0])
        device(homes[0], "sync")
        made = hudur("backup", str(file), *server.where)
        assert (made["flaws"], made["manifest"]["log_offset"]) == ([], 1)
        hudur("backup", str(file), *server.where, expect=1)
        assert hudur("restore", str(file), "--verify")["verified"] is True
        for home, session in zip(homes, ("am1", "am2"), strict=True):
            take(home, session)
            device(home, "sync", "--no-confirm")
        told = hudur("drill", str(file), *server.where, "--home", str(homes[0]))
        assert (told["succeeded"], told["lacked"], told["missing"], told["differing"]) == (True, 2, 0, 0)
        assert (told["devices"], told["archived"], told["registers"]) == (1, 1, 3)
        hudur("restore", str(file), "--to", f"sqlite:{store}", expect=1)  # a server runs on it
        wanted = changes(store)
        server.stop(signal.SIGKILL)
        store.write_bytes(store.read_bytes()[:5_000])
        done = hudur("restore", str(file), "--to", f"sqlite:{store}")
        assert (done["verified"]["findings"], done["raised"]["rebuilds"]) == ([], 2)
        assert len(wanted - changes(store)) == 2
        server.start()
        for home in homes:
            device(home, "sync", "--no-confirm")
            status = device(home, "status")
            assert (status["pending"], status["saved"]) == (0, 0)
        assert changes(store) == wanted
        marks = [event for event in events(server) if event["type"] == "eg.hudur.log.restored.v1"]
        assert len(marks) == 1


def events(server: Served) -> list[dict[str, Any]]:
    """The whole feed, whose ids are all different."""
    words = [HUDUR, "events", *server.where, "--json"]
    lines = subprocess.run(words, capture_output=True, text=True, check=True).stdout.splitlines()
    found: list[dict[str, Any]] = [json.loads(line) for line in lines]
    assert len({event["id"] for event in found}) == len(found)
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Lost:
    """A folder with a store whose server was killed, so that it has a hot WAL, and an older backup of it."""

    folder: Path
    then: set[Name]
    now: set[Name]


@pytest.fixture(scope="module")
def lost(tmp_path_factory: pytest.TempPathFactory) -> Lost:
    """One register in the backup, two more in the WAL only."""
    folder = tmp_path_factory.mktemp("lost")
    home, place = folder / "home", folder / "store"
    place.mkdir()
    with Served(folder) as server:
        server.enrol(home, "t1")
        take(home)
        device(home, "sync")
        hudur("backup", str(folder / "backup.db"), *server.where)
        then = changes(server.store)
        for session in ("am1", "am2"):
            take(home, session)
        device(home, "sync", "--no-confirm")
        now = changes(server.store)
        server.stop(signal.SIGKILL)
        wal = server.store.with_name("store.db-wal")
        assert wal.stat().st_size > 0
        shutil.copy(server.store, place / "store.db")
        shutil.copy(wal, place / "store.db-wal")
    assert len(now - then) == 2
    return Lost(folder=folder, then=then, now=now)


async def opened(store: Path) -> None:
    """Open the store as a server does."""
    await (await open_sqlite(store)).close()


@pytest.mark.parametrize("point", RESTORE_CRASH_POINTS)
def test_kill_9_in_the_middle_of_a_restore(lost: Lost, tmp_path: Path, point: str) -> None:
    """Whoever opens the place next finds the old store with all that was in its WAL, or the restored one under a higher
    epoch; never a mixture.
    """
    place = shutil.copytree(lost.folder / "store", tmp_path / "place")
    store = place / "store.db"
    file = lost.folder / "backup.db"
    command = [sys.executable, "-m", "tests.process.restore_main", str(file), str(store), point, "1"]
    assert subprocess.run(command, check=False, capture_output=True).returncode == -9
    asyncio.run(opened(store))
    if point in ("restore.before_copy", "restore.before_epoch", "restore.after_epoch"):
        assert (changes(store), epoch(store)) == (lost.now, 1)
    else:
        assert changes(store) == lost.then
        assert epoch(store) > 1
        asides = [path for path in place.glob("store.db.replaced-*") if not path.name.endswith(("-wal", "-shm"))]
        assert [changes(aside) for aside in asides] == [lost.now]
    hudur("restore", str(file), "--to", f"sqlite:{store}", "--no-proof")
    assert changes(store) == lost.then


def test_a_damaged_backup_has_exit_code_3_and_is_never_used(lost: Lost, tmp_path: Path) -> None:
    """One bit of the file: the proof says so, and the store is not touched."""
    place = shutil.copytree(lost.folder / "store", tmp_path / "place")
    file = tmp_path / "backup.db"
    for suffix in ("", ".manifest.json"):
        shutil.copy(lost.folder / f"backup.db{suffix}", f"{file}{suffix}")
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 4
    file.write_bytes(data)
    assert hudur("restore", str(file), "--verify", expect=DIFFERENT)["verified"] is False
    hudur("restore", str(file), "--to", f"sqlite:{place / 'store.db'}", expect=1)
    asyncio.run(opened(place / "store.db"))
    assert (changes(place / "store.db"), epoch(place / "store.db")) == (lost.now, 1)
