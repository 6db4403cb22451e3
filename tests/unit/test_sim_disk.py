"""The simulated disk: what it says is lost is lost, what it says is durable is not, and SQLite behaves on it."""

from __future__ import annotations

import gc
import hashlib
import os
import random
import sqlite3
import subprocess
import sys
import weakref
from collections import Counter
from pathlib import Path

import pytest

from clientcore.cache import Cache
from clientcore.errors import StoreError
from clientcore.log import Log
from syncserver.errors import StoreFailed, StoreInUse
from syncserver.store.sqlite import open_sqlite
from tests.simulator.disk import Disk, MachineDead
from tests.simulator.medium import HOWS, File, How
from tests.simulator.sqlite import AsyncConnector, SimConnection

ROOT = Path(__file__).parents[2]


def disk(seed: int = 1) -> Disk:
    return Disk("test", random.Random(seed))


def log_on(machine: Disk) -> Log:
    return Log.open("log.db", files=machine.files())


def settled(file: File, how: How, seed: int) -> tuple[bytes, Counter[str]]:
    faults: Counter[str] = Counter()
    file = file.copy()
    file.settle(how, random.Random(seed), faults)
    return bytes(file.data), faults


# ---- bytes ----


def written() -> File:
    """4 kB of `a` on the platter; 2 kB of `b` over its middle, 4 kB of `c` behind it, a truncation to 6 kB: pending."""
    file = File()
    file.write(b"a" * 4096, 0)
    file.sync()
    file.write(b"b" * 2048, 1024)
    file.write(b"c" * 4096, 4096)
    file.truncate(6144)
    return file


def test_none_loses_every_unsynced_write_and_all_keeps_them() -> None:
    """After a sync that came before them, three operations are pending: all of them go, or none."""
    assert settled(written(), "none", 1) == (b"a" * 4096, Counter({"write-lost": 2, "truncate-lost": 1}))
    seen = b"a" * 1024 + b"b" * 2048 + b"a" * 1024 + b"c" * 2048
    assert settled(written(), "all", 1) == (seen, Counter())
    assert bytes(written().data) == seen


def test_some_loses_tears_and_reorders_by_sectors() -> None:
    """Over many seeds: each sector is old or new, later writes survive earlier ones, torn writes are really torn."""
    kinds: set[str] = set()
    for seed in range(300):
        data, faults = settled(written(), "some", seed)
        sectors = [set(data[at : at + 512]) for at in range(0, len(data), 512)]
        assert all(len(sector) == 1 for sector in sectors)
        middle = {chr(*sector) for sector in sectors[2:6]}
        behind = [chr(*sector) for sector in sectors[8:]]
        kinds |= {"torn"} if middle == {"a", "b"} else {"old"} if middle == {"a"} else {"new"}
        kinds |= {"later without earlier"} if middle == {"a"} and "c" in behind else set()
        kinds |= {"hole"} if "\0" in behind else set()
        kinds |= {"cut"} if len(data) == 6144 else {"not cut"}
        assert (middle == {"a", "b"}) <= (faults["write-torn"] > 0)
    assert kinds == {"torn", "old", "new", "later without earlier", "hole", "cut", "not cut"}


def test_a_failed_sync_dooms_a_write_for_ever() -> None:
    """It stays readable, the next sync returns and does not write it, and every cut takes it; what came later stays."""
    for seed in range(20):
        for how in HOWS:
            file = File()
            file.write(b"first", 0)
            file.fail_sync(random.Random(seed))
            file.write(b"second", 5)
            file.sync()
            assert bytes(file.data) == b"firstsecond"
            assert settled(file, how, seed)[0] == b"\0\0\0\0\0second"


# ---- names ----


def test_a_name_survives_once_its_directory_was_synced() -> None:
    """A database's entry is pending until SQLite syncs the directory with its first journal; then it stays."""
    machine = disk()
    machine.connect("home/log.db").execute("SELECT 1 FROM sqlite_schema")
    assert machine.exists("home/log.db")
    assert machine.image("none", random.Random(1)) == {}
    machine.connect("home/log.db").execute("CREATE TABLE t (x)")
    assert machine.image("none", random.Random(1)).keys() >= {"home/log.db"}


def test_renames_and_removals_may_come_undone_but_never_half() -> None:
    """Under "some" a prefix of what was done to the names is there, never a file under two names or none."""
    seen = set()
    for seed in range(40):
        machine = disk(seed)
        machine.write("d/a", b"1")
        machine.write("d/b", b"2")
        machine.rename("d/a", "d/c")
        machine.remove("d/b")
        machine.cut_power("some")
        seen.add(tuple(machine.names()))
        if machine.exists("d/c"):
            assert machine.read("d/c") == b"1"
    assert seen == {("d/a", "d/b"), ("d/b", "d/c"), ("d/c",)}


# ---- SQLite on it ----


def rows_after_cut(journal: str, level: str, how: How, seed: int) -> int:
    """Rows left of ten commits whose last was followed by a power cut."""
    machine = disk(seed)
    connection = machine.connect("x.db", wal=True)
    assert connection.execute(f"PRAGMA journal_mode={journal}").fetchone() == (journal.lower(),)
    connection.execute(f"PRAGMA synchronous={level}")
    connection.execute("CREATE TABLE t (x)")
    for number in range(10):
        connection.execute("INSERT INTO t VALUES (?)", [number])
    machine.cut_power(how)
    try:
        return int((machine.connect("x.db").execute("SELECT count(*) FROM t").fetchone() or [0])[0])
    except sqlite3.DatabaseError:
        return -1


@pytest.mark.parametrize(
    ("journal", "level", "keeps"),
    [
        ("DELETE", "EXTRA", True),
        ("DELETE", "FULL", False),
        ("DELETE", "NORMAL", False),
        ("DELETE", "OFF", False),
        ("WAL", "FULL", True),
        ("WAL", "NORMAL", False),
        ("WAL", "OFF", False),
    ],
)
def test_only_the_settings_of_the_product_survive(journal: str, level: str, keeps: bool) -> None:
    """The last commit is there after every cut under EXTRA (device) and WAL FULL (server), and under nothing weaker."""
    left = [rows_after_cut(journal, level, how, seed) for how in HOWS for seed in range(12)]
    assert (set(left) == {10}) is keeps
    assert left[-1] == 10  # "all" keeps everything, whatever the setting


def test_a_lying_sync_loses() -> None:
    """The control of controls: with syncs that do nothing, EXTRA loses too."""
    machine = disk()
    machine.syncs_lie = True
    log = log_on(machine)
    with log.act() as act:
        act.append("tap", None, 1, [])
    machine.cut_power("none")
    assert machine.names() == []


def test_the_device_log_survives_every_kind_of_power_cut() -> None:
    """The real Log on the simulated disk: what `act` returned from is there after each cut."""
    machine = disk()
    told: list[int] = []
    for n, how in enumerate(HOWS * 5):
        log = log_on(machine)
        assert [row.at_ms for row in log.read()] == told
        with log.act() as act:
            act.append("tap", "r", n, [n])
        told.append(n)
        machine.cut_power(how)
        with pytest.raises(MachineDead):
            log.read()
    assert [row.at_ms for row in log_on(machine).read()] == told


async def test_the_store_survives_every_kind_of_power_cut() -> None:
    """The real SqliteDatabase on the simulated disk, with its own reading connection."""
    machine = disk()
    for n, how in enumerate(HOWS * 3):
        db = await open_sqlite(Path("store.db"), AsyncConnector(machine))
        async with db.transaction() as tx:
            if n == 0:
                await tx.execute("CREATE TABLE mine (n INTEGER)")
            await tx.execute("INSERT INTO mine VALUES (?)", (n,))
        assert await db.fetch_all("SELECT n FROM mine ORDER BY n") == [(k,) for k in range(n + 1)]
        machine.cut_power(how)
        with pytest.raises(MachineDead):
            await db.fetch_one("SELECT 1")


async def test_readers_see_committed_data_only_and_a_second_server_is_kept_out() -> None:
    """Two connections share the write-ahead log as in production, and the lock ends with its process."""
    machine = disk()
    db = await open_sqlite(Path("store.db"), AsyncConnector(machine))
    async with db.transaction() as tx:
        await tx.execute("CREATE TABLE mine (n INTEGER)")
        assert await db.fetch_all("SELECT 1 FROM sqlite_schema WHERE name = 'mine'") == []
    assert await db.fetch_all("SELECT 1 FROM sqlite_schema WHERE name = 'mine'") == [(1,)]
    with pytest.raises(StoreInUse):
        await open_sqlite(Path("store.db"), AsyncConnector(machine))
    machine.kill()
    await (await open_sqlite(Path("store.db"), AsyncConnector(machine))).close()


def test_a_kill_keeps_what_the_system_was_handed_and_a_later_cut_does_not() -> None:
    """NORMAL in a write-ahead log: nothing is lost by the kill, everything unsynced by the power cut after it."""
    machine = disk()
    connection = machine.connect("x.db", wal=True)
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=FULL")
    connection.execute("CREATE TABLE t (x)")
    connection.execute("PRAGMA synchronous=NORMAL")
    connection.execute("INSERT INTO t VALUES (1)")
    machine.kill()
    with pytest.raises(MachineDead):
        connection.execute("SELECT 1")
    connection.close()
    reader = machine.connect_read_only("x.db")
    assert reader.execute("SELECT count(*) FROM t").fetchall() == [(1,)]
    machine.kill()
    machine.cut_power("none")
    assert machine.connect("x.db").execute("SELECT count(*) FROM t").fetchall() == [(0,)]


@pytest.mark.parametrize("fault", ["power", "kill"])
def test_an_armed_machine_stops_at_each_operation_of_an_act(fault: str) -> None:
    """MachineDead comes out of the act, the whole machine is dead, and the act is wholly there or not at all."""
    outcomes = set()
    for at in range(1, 40):
        machine = disk(at)
        log = log_on(machine)
        with log.act() as act:
            act.append("tap", None, 1, [])
        machine.arm(at, fault)  # type: ignore[arg-type]
        try:
            with log.act() as act:
                act.append("tap", None, 2, [])
                act.append("tap", None, 3, [])
        except MachineDead:
            assert machine.stopped
            with pytest.raises(MachineDead):
                machine.connect("log.db")
            outcomes.add("died")
        else:
            outcomes.add("lived")
        machine.cut_power("some") if fault == "power" else machine.kill()
        rows = [row.at_ms for row in log_on(machine).read()]
        assert rows in ([1], [1, 2, 3])
        outcomes.add(str(rows))
    assert outcomes == {"died", "lived", "[1]", "[1, 2, 3]"}


def test_an_error_and_a_full_disk_are_the_products_own_errors() -> None:
    """EIO on read and write, ENOSPC: `StoreError`, and the log works on once the disk does."""
    machine = disk()
    log = log_on(machine)
    machine.free_bytes = 100
    with pytest.raises(StoreError, match="no space"), log.act() as act:
        act.append("tap", None, 1, ["x" * 2000])
    machine.free_bytes = None
    machine.arm(1, "eio")
    with pytest.raises(StoreError), log.act() as act:
        act.append("tap", None, 2, [])
    with log.act() as act:
        act.append("tap", None, 3, [])
    log.close()
    machine.read_fails_at = machine.read_count + 1
    with pytest.raises(StoreError):
        log_on(machine)
    assert [row.at_ms for row in log_on(machine).read()] == [3]
    assert machine.faults["enospc"] >= 1
    assert machine.faults["read-eio"] == 1


async def test_a_store_error_names_sqlites_code() -> None:
    """What `SqliteDatabase` tells of a failed sync is what it would tell on a real disk."""
    machine = disk()
    db = await open_sqlite(Path("store.db"), AsyncConnector(machine))
    machine.watch = lambda kind, _: machine.arm(0, "eio") if kind == "sync" else None
    with pytest.raises(StoreFailed, match="SQLITE_IOERR_FSYNC"):
        async with db.transaction() as tx:
            await tx.execute("CREATE TABLE mine (n INTEGER)")
    machine.watch = None
    assert db.failed
    await db.reopen()
    assert not db.failed
    assert "sync of store.db-wal" in machine.last_fault


def test_a_damaged_log_is_put_aside_and_a_damaged_cache_begun_anew() -> None:
    """Quarantine works through the same seam: what is no database is kept beside."""
    machine = disk()
    machine.write("log.db", b"garbage " * 1000)
    machine.write("cache.db", b"garbage " * 1000)
    assert [row.kind for row in log_on(machine).read()] == ["notice"]
    assert machine.read("log.db.damaged-1") == b"garbage " * 1000
    cache = Cache.open("cache.db", files=machine.files())
    cache.put_roster("c", [("s1", "n")])
    assert cache.roster("c") == [("s1", "n")]


def test_a_clone_is_a_disk_of_its_own() -> None:
    """Every byte, and none of the future."""
    machine = disk()
    with log_on(machine).act() as act:
        act.append("tap", None, 1, [])
    twin = machine.clone("twin", random.Random(2))
    with log_on(twin).act() as act:
        act.append("tap", None, 2, [])
    assert [row.at_ms for row in log_on(machine).read()] == [1]
    assert [row.at_ms for row in log_on(twin).read()] == [1, 2]


# ---- like the standard library ----

STATEMENTS = (
    "SELEC 1",
    "SELECT * FROM nowhere",
    "INSERT INTO t (id, n) VALUES (1, 'again')",
    "INSERT INTO t (id, n) VALUES (2, NULL)",
    "INSERT INTO s VALUES (-1)",
    "INSERT INTO t (id, n) VALUES (?, ?)",
    "BEGIN IMMEDIATE",
    "COMMIT",
    "SELECT zeroblob(2000000000)",
)


def outcome(connection: sqlite3.Connection | SimConnection, sql: str) -> tuple[str, str | None]:
    try:
        connection.execute(sql)
    except sqlite3.Error as error:
        return type(error).__name__, getattr(error, "sqlite_errorname", None)
    return "fine", None


def test_errors_are_those_of_the_standard_library(tmp_path: Path) -> None:
    """The same statements end in the same classes with the same names of errors."""
    real = sqlite3.connect(tmp_path / "x.db", isolation_level=None)
    simulated = disk().connect("x.db")
    for connection in (real, simulated):
        connection.execute("CREATE TABLE t (id INTEGER PRIMARY KEY, n TEXT NOT NULL)")
        connection.execute("CREATE TABLE s (n INTEGER CHECK (n > 0))")
        connection.execute("INSERT INTO t (id, n) VALUES (1, 'first')")
    wanted = [outcome(real, sql) for sql in STATEMENTS]
    assert [outcome(simulated, sql) for sql in STATEMENTS] == wanted
    assert len(set(wanted)) > 5
    real.close()
    simulated.close()
    with pytest.raises(sqlite3.ProgrammingError):
        simulated.execute("SELECT 1")


def test_two_connections_lock_each_other_out_as_on_a_file() -> None:
    """A second writer is told `database is locked` after its timeout, which is counted and not waited for."""
    machine = disk()
    first, second = machine.connect("x.db"), machine.connect("x.db", timeout=0.5)
    first.execute("CREATE TABLE t (x)")
    first.execute("BEGIN IMMEDIATE")
    first.execute("INSERT INTO t VALUES (1)")
    assert second.execute("SELECT count(*) FROM t").fetchall() == [(0,)]
    with pytest.raises(sqlite3.OperationalError) as busy:
        second.execute("BEGIN IMMEDIATE")
    assert busy.value.sqlite_errorname == "SQLITE_BUSY"
    first.execute("COMMIT")
    second.execute("INSERT INTO t VALUES (2)")
    assert first.execute("SELECT count(*) FROM t").fetchall() == [(2,)]


def test_rows_and_counts_are_those_of_the_standard_library(tmp_path: Path) -> None:
    """rowcount, fetches, description and lastrowid."""
    real = sqlite3.connect(tmp_path / "x.db", isolation_level=None)
    found = []
    for connection in (real, disk().connect("x.db")):
        connection.execute("CREATE TABLE t (id INTEGER PRIMARY KEY, b BLOB)")
        told: list[object] = [connection.executemany("INSERT INTO t (b) VALUES (?)", [(b"1",), (b"2",)]).rowcount]
        insert = connection.execute("INSERT OR IGNORE INTO t VALUES (1, NULL)")
        told += [insert.rowcount, insert.fetchone(), insert.description]
        told += [connection.execute("UPDATE t SET b = ?", [None]).rowcount, connection.execute("SELECT 1").rowcount]
        rows = connection.execute("SELECT id, b FROM t ORDER BY id")
        told += [rows.fetchone(), rows.fetchall(), rows.fetchall(), [name[0] for name in rows.description or ()]]
        told += [list(connection.execute("SELECT id FROM t")), connection.in_transaction]
        connection.execute("BEGIN")
        told += [connection.in_transaction, connection.execute("DELETE FROM t").rowcount]
        connection.rollback()
        told += [connection.execute("SELECT count(*) FROM t").fetchone()]
        found.append(told)
        connection.close()
    assert found[0] == found[1]


# ---- the same again ----

RUN = """
import hashlib, random
from tests.simulator.disk import Disk
from tests.simulator.medium import HOWS
told = hashlib.sha256()
for seed in range(3):
    machine = Disk("x", random.Random(seed))
    for number, how in enumerate(HOWS * 3):
        for name, mode in (("w.db", "WAL"), ("d.db", "DELETE")):
            connection = machine.connect(name, wal=True)
            connection.execute(f"PRAGMA journal_mode={mode}")
            connection.execute("PRAGMA synchronous=NORMAL")
            connection.execute("CREATE TABLE IF NOT EXISTS t (x)")
            for row in range(20):
                connection.execute("INSERT INTO t VALUES (?)", [b"x" * row * 40])
        machine.cut_power(how)
        for name in machine.names():
            told.update(name.encode() + machine.read(name))
    told.update(repr(sorted(machine.faults.items())).encode())
print(told.hexdigest())
"""


def test_the_same_seed_gives_the_same_bytes_in_any_process() -> None:
    """Salts, nonces, tears and losses are functions of the seed, whatever the hash seed of the process."""
    digests = {
        subprocess.run(
            [sys.executable, "-c", RUN],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONHASHSEED": hash_seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for hash_seed in ("0", "1", "random")
    }
    assert len(digests) == 1
    assert len(digests.pop().strip()) == len(hashlib.sha256().hexdigest())


def test_a_disk_leaves_nothing_behind() -> None:
    """Thousands of disks live in one simulation: one that nobody needs is gone, with the file behind its wal-index."""
    machine = disk()
    connection = machine.connect("x.db", wal=True)
    connection.execute("PRAGMA journal_mode=WAL")
    base = Path(machine.base_for("x.db"))
    assert base.exists()
    seen = weakref.ref(machine)
    machine.kill()
    del connection, machine
    gc.collect()
    assert seen() is None
    assert not base.exists()
