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
from tests.process.test_whole_road_cli import device
from tests.support.demo import HUDUR, Demo

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


def enrolled(demo: Demo, home: Path, index: int) -> str:
    """A device of the tutor of some class; returns the class."""
    school = demo.info["schools"][1]
    room = school["classes"][index]
    code = f"{school['id']}.{demo.info['codes'][room['id']]}"
    device(home, "enrol", "--server", f"http://127.0.0.1:{demo.port}", "--code", code)
    return str(room["id"])


def test_a_disaster_on_the_command_line_loses_nothing(tmp_path: Path) -> None:
    """Backup of the running server, more registers acknowledged, a drill beside it, then the real thing: the server
    killed, its store destroyed, the backup restored; the phones' next contact brings everything back.
    """
    homes = [tmp_path / "one", tmp_path / "two"]
    with Demo(tmp_path / "demo") as demo:
        store = next((tmp_path / "demo").rglob("*.db"))
        where = ("--store", f"sqlite:{store}")
        rooms = [enrolled(demo, home, index) for index, home in enumerate(homes)]
        for home, room in zip(homes, rooms, strict=True):
            device(home, "take", "--class", room)
            device(home, "sync")
        file = tmp_path / "backup.db"
        made = hudur("backup", str(file), *where)
        assert (made["flaws"], made["manifest"]["log_offset"] >= 2) == ([], True)
        hudur("backup", str(file), *where, expect=1)
        assert hudur("restore", str(file), "--verify")["verified"] is True
        for session in ("am1", "am2"):
            for home, room in zip(homes, rooms, strict=True):
                device(home, "take", "--class", room, "--session", session)
                device(home, "sync")
        told = hudur("drill", str(file), *where, "--home", str(homes[0]))
        assert (told["succeeded"], told["lacked"], told["missing"], told["differing"]) == (True, 4, 0, 0)
        assert (told["devices"], told["archived"]) == (1, made["manifest"]["settled_offset"])
        assert told["registers"] > 0
        hudur("restore", str(file), "--to", f"sqlite:{store}", expect=1)  # a server runs on it
        wanted = changes(store)
        demo.stop(signal.SIGKILL)
        store.write_bytes(store.read_bytes()[:5_000])
        done = hudur("restore", str(file), "--to", f"sqlite:{store}")
        assert (done["verified"]["findings"], done["raised"]["rebuilds"] >= 2) == ([], True)
        assert len(wanted - changes(store)) == 4
        demo.start()
        for home in homes:
            device(home, "sync")
            status = device(home, "status")
            assert (status["pending"], status["saved"]) == (0, 0)
        assert changes(store) == wanted
        events = demo.events()
        assert len({event["id"] for event in events}) == len(events)
        assert sum(event["type"] == "eg.hudur.log.restored.v1" for event in events) == 1


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
    home = folder / "home"
    with Demo(folder / "demo") as demo:
        store = next((folder / "demo").rglob("*.db"))
        room = enrolled(demo, home, 0)
        device(home, "take", "--class", room)
        device(home, "sync")
        hudur("backup", str(folder / "backup.db"), "--store", f"sqlite:{store}")
        then = changes(store)
        for session in ("am1", "am2"):
            device(home, "take", "--class", room, "--session", session)
        device(home, "sync", "--no-confirm")
        now = changes(store)
        demo.stop(signal.SIGKILL)
        assert store.with_name(f"{store.name}-wal").stat().st_size > 0
        place = folder / "store"
        place.mkdir()
        for suffix in ("", "-wal"):
            shutil.copy(store.with_name(store.name + suffix), place / f"store.db{suffix}")
        demo.start()
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
