"""The promises of the database port, kept by both stores behind it; what only a file promises asks for `lite`."""

from __future__ import annotations

import asyncio
import random
import sqlite3
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from syncserver.errors import ConstraintBroken, StoreFailed, StoreInUse
from syncserver.store.port import Database, Reader, Transaction
from syncserver.store.postgres import open_postgres
from syncserver.store.sqlite import SqliteDatabase, open_sqlite, open_sqlite_reader
from tests.support.postgres import new_store

INSERT = "INSERT INTO meta (name, value) VALUES (?, ?)"


@pytest.fixture(params=["sqlite", "postgresql"])
async def db(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Database]:
    """An empty store of either kind."""
    database: Database
    if request.param == "sqlite":
        database = await open_sqlite(tmp_path / "store.db")
    else:
        database = await open_postgres(await new_store())
        async with database.transaction() as tx:
            await tx.execute("DELETE FROM meta")  # what a store of PostgreSQL notes of itself
    yield database
    await database.close()


@pytest.fixture
async def lite(tmp_path: Path) -> AsyncIterator[SqliteDatabase]:
    """An empty file."""
    database = await open_sqlite(tmp_path / "store.db")
    yield database
    await database.close()


async def turns(count: int) -> None:
    """Let the others go on."""
    for _ in range(count):
        await asyncio.sleep(0)


async def names(db: Reader) -> list[str]:
    """The rows this reader sees."""
    return [row[0] for row in await db.fetch_all("SELECT name FROM meta ORDER BY name")]


async def test_a_block_that_ends_is_committed_and_one_that_raises_is_not(db: Database) -> None:
    """All or nothing, and reads outside see committed rows only."""
    async with db.transaction() as tx:
        assert await tx.execute(INSERT, ("a", b"1")) == 1
        assert await names(db) == []
        assert await tx.fetch_one("SELECT value FROM meta WHERE name = ?", ("a",)) == (b"1",)
    assert await names(db) == ["a"]
    with pytest.raises(ZeroDivisionError):  # noqa: PT012  (the block is what is tested)
        async with db.transaction() as tx:
            await tx.executemany(INSERT, [("b", b""), ("c", b"")])
            raise ZeroDivisionError
    assert await names(db) == ["a"]


async def test_a_cancelled_block_leaves_nothing_behind(db: Database) -> None:
    """A request whose task is cancelled in a transaction rolls back, and the next one can write."""
    entered = asyncio.Event()

    async def stuck() -> None:
        async with db.transaction() as tx:
            await tx.execute(INSERT, ("a", b""))
            entered.set()
            await asyncio.Event().wait()

    task = asyncio.create_task(stuck())
    await entered.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    async with db.transaction() as tx:
        await tx.execute(INSERT, ("b", b""))
    assert await names(db) == ["b"]


async def test_blocks_run_one_after_another(db: Database) -> None:
    """Twenty read-modify-write blocks at once lose no update."""
    async with db.transaction() as tx:
        await tx.execute(INSERT, ("n", b"0"))

    async def add_one() -> None:
        async with db.transaction() as tx:
            row = await tx.fetch_one("SELECT value FROM meta WHERE name = 'n'")
            assert row is not None
            await tx.execute("UPDATE meta SET value = ? WHERE name = 'n'", (b"%d" % (int(row[0]) + 1),))

    await asyncio.gather(*(add_one() for _ in range(20)))
    assert await db.fetch_one("SELECT value FROM meta WHERE name = 'n'") == (b"20",)


async def test_rows_that_contradict_the_schema_do_not_stop_the_store(db: Database) -> None:
    """A broken constraint is a fault of the caller: nothing is written, the store goes on."""
    with pytest.raises(ConstraintBroken):
        async with db.transaction() as tx:
            await tx.executemany(INSERT, [("a", b""), ("a", b"")])
    assert not db.failed
    async with db.transaction() as tx:
        await tx.execute(INSERT, ("a", b""))


async def test_a_failed_disk_stops_every_writer_until_it_was_verified(lite: SqliteDatabase) -> None:
    """A real `database or disk is full`: refused from then on, until `reopen` has checked the file."""
    assert lite._writer is not None
    (pages,) = await lite._writer.fetch_one("PRAGMA page_count") or (0,)
    await lite._writer.execute(f"PRAGMA max_page_count = {pages}")
    for _ in range(2):
        with pytest.raises(StoreFailed):
            async with lite.transaction() as tx:
                await tx.execute(INSERT, ("a", bytes(1_000_000)))
        assert lite.failed
    await lite.reopen()
    assert not lite.failed
    async with lite.transaction() as tx:
        await tx.execute(INSERT, ("a", bytes(1_000_000)))
    assert await names(lite) == ["a"]


async def test_a_damaged_file_is_not_reopened(tmp_path: Path) -> None:
    """`reopen` runs the check of the whole file and refuses what does not pass."""
    path = tmp_path / "store.db"
    database = await open_sqlite(path)
    async with database.transaction() as tx:
        await tx.executemany(INSERT, [(f"n{n}", bytes(3_000)) for n in range(100)])
    assert database._writer is not None
    await database._writer.fetch_all("PRAGMA wal_checkpoint(TRUNCATE)")
    with path.open("r+b") as file:
        file.seek(4_096 * 60)
        file.write(b"\xff" * 4_096 * 20)
    with pytest.raises(StoreFailed):
        await database.reopen()
    await database.close()


async def test_one_process_writes_and_readers_cannot(tmp_path: Path) -> None:
    """A second writer is kept out by the lock; a reader looks on while the writer works, and can write nothing."""
    path = tmp_path / "store.db"
    database = await open_sqlite(path)
    with pytest.raises(StoreInUse):
        await open_sqlite(path)
    reader = await open_sqlite_reader(path)
    async with database.transaction() as tx:
        await tx.execute(INSERT, ("a", b""))
    assert await reader.fetch_one("SELECT count(*) FROM meta") == (1,)
    with pytest.raises(StoreFailed):
        await reader.fetch_all("DELETE FROM meta")
    await reader.close()
    await database.close()
    again = await open_sqlite(path)
    await again.close()


async def test_commits_are_synced_in_wal_mode(lite: SqliteDatabase) -> None:
    """WAL and `synchronous=FULL`, as asserted when the store was opened."""
    assert lite._writer is not None
    assert await lite._writer.fetch_one("PRAGMA journal_mode") == ("wal",)
    assert await lite._writer.fetch_one("PRAGMA synchronous") == (2,)


async def test_another_programs_file_is_refused(tmp_path: Path) -> None:
    """A file that is no store, or one of another schema, is not touched."""
    junk = tmp_path / "junk.db"
    junk.write_bytes(b"no database at all" * 100)
    with pytest.raises(StoreFailed):
        await open_sqlite(junk)
    newer = tmp_path / "newer.db"
    await (await open_sqlite(newer)).close()
    with sqlite3.connect(newer) as raw:
        raw.execute("UPDATE schema_version SET version = 99")
    raw.close()
    with pytest.raises(StoreFailed, match="99"):
        await open_sqlite(newer)
    with pytest.raises(StoreFailed):
        await open_sqlite_reader(tmp_path / "missing.db")


@pytest.mark.parametrize("is_short", [False, True])
async def test_work_done_atomically_is_committed_or_leaves_nothing(db: Database, is_short: bool) -> None:
    """The hot road's transaction: all of it with its result, or nothing and the error as it was."""

    async def good(tx: Transaction) -> int:
        await tx.executemany(INSERT, [("a", b""), ("b", b"")])
        row = await tx.fetch_one("SELECT count(*) FROM meta")
        assert row is not None
        return int(row[0])

    async def bad(tx: Transaction) -> None:
        await tx.execute(INSERT, ("c", b""))
        raise ZeroDivisionError

    async def twice(tx: Transaction) -> None:
        await tx.execute(INSERT, ("a", b""))

    assert await db.atomically(good, is_short=is_short) == 2
    with pytest.raises(ZeroDivisionError):
        await db.atomically(bad, is_short=is_short)
    with pytest.raises(ConstraintBroken):
        await db.atomically(twice, is_short=is_short)
    assert not db.failed
    assert await names(db) == ["a", "b"]


@pytest.mark.parametrize("is_short", [False, True])
async def test_atomic_work_that_waits_for_something_else_is_refused_and_undone(
    lite: SqliteDatabase, is_short: bool
) -> None:
    """It would hold the store's only writer; the fault is seen at once and nothing is written."""

    async def waits(tx: Transaction) -> None:
        await tx.execute(INSERT, ("a", b""))
        await asyncio.sleep(0)

    with pytest.raises(RuntimeError):
        await lite.atomically(waits, is_short=is_short)
    assert await names(lite) == []
    async with lite.transaction() as tx:
        await tx.execute(INSERT, ("b", b""))
    assert await names(lite) == ["b"]


async def _threads_of(lite: SqliteDatabase, *, is_short: bool) -> dict[str, int]:
    """In which thread SQLite was given each statement of a transaction."""
    assert lite._writer is not None
    seen: dict[str, int] = {}
    await lite._writer.inner.set_trace_callback(lambda sql: seen.setdefault(sql.split()[0], threading.get_ident()))

    async def work(tx: Transaction) -> None:
        await tx.execute(INSERT, ("a", b""))

    await lite.atomically(work, is_short=is_short)
    return seen


async def test_of_a_short_transaction_only_the_commit_is_the_threads(lite: SqliteDatabase) -> None:
    """Statements that find rows by keys cost less than handing them over; what waits for the disk is the COMMIT."""
    seen = await _threads_of(lite, is_short=True)
    here = threading.get_ident()
    assert {word for word, thread in seen.items() if thread == here} == {"BEGIN", "INSERT"}
    assert {word for word, thread in seen.items() if thread != here} == {"COMMIT"}


async def test_a_long_transaction_leaves_the_event_loop_alone(lite: SqliteDatabase) -> None:
    """All of it is the thread's."""
    seen = await _threads_of(lite, is_short=False)
    assert set(seen) == {"BEGIN", "INSERT", "COMMIT"}
    assert threading.get_ident() not in seen.values()


@contextmanager
def _busy_thread(lite: SqliteDatabase) -> Iterator[Callable[[], None]]:
    """The writing connection's thread stands still until it is let go."""
    assert lite._writer is not None
    go = threading.Event()
    stands = asyncio.ensure_future(lite._writer.inner._execute(go.wait))  # type: ignore[no-untyped-call]
    try:
        yield go.set
    finally:
        go.set()
    assert not stands.cancelled()


@pytest.mark.parametrize("is_short", [False, True])
async def test_who_is_cancelled_while_it_writes_keeps_the_others_out_until_that_is_over(
    lite: SqliteDatabase, is_short: bool
) -> None:
    """A short transaction uses the connection from another thread than a long one: two at once would be one."""
    began: list[str] = []

    def add(name: str) -> Callable[[Transaction], Coroutine[Any, Any, None]]:
        async def work(tx: Transaction) -> None:
            began.append(name)
            await tx.execute(INSERT, (name, b""))

        return work

    with _busy_thread(lite) as let_go:
        first = asyncio.create_task(lite.atomically(add("a"), is_short=is_short))
        await turns(5)
        for _ in range(2):  # impatient
            first.cancel()
            await turns(5)
        second = asyncio.create_task(lite.atomically(add("b"), is_short=True))
        await turns(5)
        assert not first.done()
        assert began == (["a"] if is_short else [])
        let_go()
        with pytest.raises(asyncio.CancelledError):
            await first
        await second
    assert began == ["a", "b"]
    assert await names(lite) == ["a", "b"]


async def test_a_failure_of_the_disk_that_nobody_waits_for_is_noted_all_the_same(lite: SqliteDatabase) -> None:
    """The caller was cancelled; whoever comes next must not write to a disk that has failed."""
    assert lite._writer is not None
    (pages,) = await lite._writer.fetch_one("PRAGMA page_count") or (0,)
    await lite._writer.execute(f"PRAGMA max_page_count = {pages}")

    async def much(tx: Transaction) -> None:
        await tx.execute(INSERT, ("a", bytes(1_000_000)))

    with _busy_thread(lite) as let_go:
        writes = asyncio.create_task(lite.atomically(much))
        await turns(5)
        writes.cancel()
        let_go()
        with pytest.raises(asyncio.CancelledError):
            await writes
    assert lite.failed


async def test_a_short_transaction_that_fails_on_the_disk_stops_every_writer(lite: SqliteDatabase) -> None:
    """As any other."""
    assert lite._writer is not None
    (pages,) = await lite._writer.fetch_one("PRAGMA page_count") or (0,)
    await lite._writer.execute(f"PRAGMA max_page_count = {pages}")

    async def much(tx: Transaction) -> None:
        await tx.execute(INSERT, ("a", bytes(1_000_000)))

    for _ in range(2):
        with pytest.raises(StoreFailed):
            await lite.atomically(much, is_short=True)
        assert lite.failed
    await lite.reopen()
    assert await names(lite) == []


async def test_atomic_work_and_blocks_take_turns(db: Database) -> None:
    """Both are writing transactions of the one writer: neither sees the other half done."""

    async def count(tx: Transaction) -> int:
        row = await tx.fetch_one("SELECT count(*) FROM meta")
        assert row is not None
        return int(row[0])

    async with db.transaction() as tx:
        await tx.execute(INSERT, ("a", b""))
        waiting = asyncio.create_task(db.atomically(count))
        await asyncio.sleep(0)
        await tx.execute(INSERT, ("b", b""))
    assert await waiting == 2


@pytest.mark.parametrize("way", ["snapshot", "glance"])
async def test_a_snapshot_is_of_one_moment_whatever_is_written_meanwhile(db: Database, way: str) -> None:
    """It is as it was before the first of thirty committed blocks or after one of them, in both questions the same."""

    async def write() -> None:
        for number in range(30):
            async with db.transaction() as tx:
                await tx.executemany(INSERT, [(f"a{number}", b""), (f"b{number}", b"")])

    async def look(reader: Reader) -> tuple[list[str], list[str]]:
        return await names(reader), await names(reader)

    writing, looks = asyncio.create_task(write()), []
    while not writing.done():
        looks.append(await (db.snapshot if way == "snapshot" else db.glance)(look))
        await asyncio.sleep(0)
    await writing
    looks.append(await (db.snapshot if way == "snapshot" else db.glance)(look))
    for first, second in looks:
        assert first == second
        assert len(first) % 2 == 0
    assert len(looks[-1][0]) == 60


async def test_a_glance_at_sqlite_is_over_before_anybody_else_has_a_turn(db: Database) -> None:
    """It is for questions whose answer costs less than handing them to another thread."""
    if not isinstance(db, SqliteDatabase):
        pytest.skip("over a socket nothing is")
    coroutine = db.glance(names)
    with pytest.raises(StopIteration):
        coroutine.send(None)


MANY = {
    "plain": "INSERT INTO settle_again (school, class_id, date, session, cause, at_ms) VALUES (?, ?, ?, ?, ?, ?)",
    "partly": "INSERT INTO settle_again (school, class_id, date, cause, at_ms) VALUES (?, ?, NULL, ?, ?)",
    "update": """INSERT INTO meta (name, value) VALUES (?, ?)
        ON CONFLICT (name) DO UPDATE SET value = excluded.value""",
    "nothing": "INSERT INTO meta (name, value) VALUES (?, ?) ON CONFLICT (name) DO NOTHING",
    "delete": "DELETE FROM meta WHERE name = ? AND value <> ?",
    "divided": """INSERT INTO settlements (log_offset, seq, school, class_id, device, state, slug, revision)
        VALUES (?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (log_offset) DO UPDATE SET slug = excluded.slug""",
}


def rows_for(kind: str, rng: random.Random, *, distinct: bool) -> list[tuple[Any, ...]]:
    """Up to forty rows of any types the statement takes; `distinct`: no two of one key."""
    numbers = list(range(40)) if distinct else [rng.randrange(12) for _ in range(40)]
    rows: list[tuple[Any, ...]] = []
    for number in numbers[: rng.randrange(1, 40)]:
        day, word = f"2026-11-{number % 28 + 1:02d}", rng.choice(["", "كلمة", "a'b", "%", "$1"])
        rows.append(
            {
                "plain": (f"s{number}", rng.choice([None, "c"]), rng.choice([None, day]), None, word, 2**40 + number),
                "partly": (f"s{number}", rng.choice([None, "c"]), word, number),
                "divided": (number, number, "s", "c", bytes([number]), 1, word, 2**40),
            }.get(kind, (f"n{number}", rng.randbytes(rng.randrange(3))))
        )
    return rows


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("kind", MANY)
async def test_many_rows_in_one_call_equal_row_after_row(db: Database, kind: str, seed: int) -> None:
    """The same rows stand there afterwards, whatever conflicts among them, and with what was there before."""
    rng = random.Random(f"{kind} {seed}")
    calls = [rows_for(kind, rng, distinct=bool(rng.randrange(2))) for _ in range(4)]
    table, key = {
        "plain": ("settle_again", "id"),
        "partly": ("settle_again", "id"),
        "divided": ("settlements", "log_offset"),
    }.get(kind, ("meta", "name"))
    found = []
    for at_once in (True, False):
        async with db.transaction() as tx:
            await tx.execute(f"DELETE FROM {table}")
            if kind == "delete":
                await tx.executemany(INSERT, [(f"n{number}", b"x") for number in range(20)])
            for call in calls:
                if at_once:
                    await tx.executemany(MANY[kind], call)
                else:
                    for row in call:
                        await tx.execute(MANY[kind], row)
            read = await tx.fetch_all(f"SELECT * FROM {table} ORDER BY {key}")
            found.append([row[1:] for row in read] if key == "id" else read)
    assert found[0] == found[1]
    assert found[0] or kind == "delete"


async def test_many_rows_of_which_one_contradicts_the_schema_are_all_refused(db: Database) -> None:
    """A key that is taken, in the same call or from before."""
    for rows in ([("a", b""), ("b", b""), ("a", b"")], [("a", b""), ("b", None)]):
        with pytest.raises(ConstraintBroken):
            async with db.transaction() as tx:
                await tx.executemany(INSERT, rows)
    assert await names(db) == []
