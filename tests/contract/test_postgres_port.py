"""What the store promises where several processes share it: lanes, claims, and what a lost server means."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import dataclass, field

import pytest

from syncserver.errors import ConstraintBroken, StoreBusy, StoreFailed
from syncserver.store import postgres_claims
from syncserver.store.port import Reader, Transaction
from syncserver.store.postgres import PostgresDatabase, open_postgres
from tests.support.postgres import cluster_of_its_own, shared_cluster
from tests.support.server.wait import until

INSERT = "INSERT INTO meta (name, value) VALUES (?, ?)"
_WAITING = """SELECT count(*) FROM pg_locks l JOIN pg_stat_activity a USING (pid)
WHERE NOT l.granted AND l.locktype = 'advisory' AND a.datname = current_database()"""
_CUT_CLAIMS = """SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
WHERE datname = current_database() AND application_name = 'hudur claims'"""


@dataclass(slots=True)
class Two:
    """Two processes' stores on one database; `done` says in which order their work ended."""

    one: PostgresDatabase
    other: PostgresDatabase
    done: list[str] = field(default_factory=list)

    async def waiting(self, count: int) -> None:
        """Until so many sessions stand at a lock."""
        await until(lambda: self.one.fetch_one(_WAITING), lambda row: row == (count,))

    async def write(self, name: str, lane: str | None) -> None:
        """A row by the second process."""

        async def work(tx: Transaction) -> None:
            await tx.execute(INSERT, (name, b""))

        await self.other.atomically(work, lane=lane)
        self.done.append(name)


@dataclass(slots=True)
class Stop:
    """Work that has written a row and does not end until it may."""

    stands: asyncio.Event = field(default_factory=asyncio.Event)
    go: asyncio.Event = field(default_factory=asyncio.Event)

    async def __call__(self, tx: Transaction) -> None:
        await tx.execute(INSERT, ("held", b""))
        self.stands.set()
        await self.go.wait()


@pytest.fixture
async def two() -> AsyncIterator[Two]:
    """An empty store that two processes opened at once."""
    dsn = shared_cluster().database()
    one, other = await asyncio.gather(open_postgres(dsn), open_postgres(dsn))
    yield Two(one, other)
    await one.close()
    await other.close()


async def test_two_lanes_run_side_by_side_and_one_lane_one_after_another(two: Two) -> None:
    """While an append is held, settling goes on and the other process's append waits."""
    stop = Stop()
    held = asyncio.create_task(two.one.atomically(stop, lane="log"))
    await stop.stands.wait()
    same = asyncio.create_task(two.write("same", "log"))
    await two.waiting(1)
    await two.write("aside", "settle")
    assert two.done == ["aside"]
    stop.go.set()
    await asyncio.gather(held, same)
    assert two.done == ["aside", "same"]


@pytest.mark.parametrize("lane", ["log", "settle", None])
async def test_a_block_excludes_every_lane_and_every_lane_a_block(two: Two, lane: str | None) -> None:
    """Orders decide on what they read: nobody writes meanwhile, in whatever process."""
    async with two.one.transaction() as tx:
        await tx.execute(INSERT, ("block", b""))
        waits = asyncio.create_task(two.write("lane", lane))
        await two.waiting(1)
        two.done.append("block")
    await waits
    stop = Stop()
    held = asyncio.create_task(two.one.atomically(stop, lane=lane))
    await stop.stands.wait()

    async def block() -> None:
        async with two.other.transaction() as tx:
            two.done.append("second block")
            await tx.execute(INSERT, ("second", b""))

    waits = asyncio.create_task(block())
    await two.waiting(1)
    two.done.append("held")
    stop.go.set()
    await asyncio.gather(held, waits)
    assert two.done == ["block", "lane", "held", "second block"]


async def test_a_process_that_dies_in_a_lane_frees_it(two: Two) -> None:
    """The lock is its transaction's, and ends with it; what it wrote is gone."""
    stop = Stop()
    held = asyncio.create_task(two.one.atomically(stop, lane="log"))
    await stop.stands.wait()
    same = asyncio.create_task(two.write("same", "log"))
    await two.waiting(1)
    await two.other.fetch_one(
        """SELECT pg_terminate_backend(pid) FROM pg_stat_activity
        WHERE datname = current_database() AND state = 'idle in transaction'"""
    )
    await same
    stop.go.set()
    with pytest.raises(StoreFailed):
        await held
    assert two.one.failed
    await two.one.reopen()
    assert await two.one.fetch_all("SELECT name FROM meta WHERE name IN ('held', 'same')") == [("same",)]


async def test_a_block_that_goes_on_after_a_broken_statement_is_not_taken_for_committed(two: Two) -> None:
    """PostgreSQL rolls such a transaction back when it is to be committed, and says no more than that."""
    with pytest.raises(ConstraintBroken):  # noqa: PT012  (the block is what is tested)
        async with two.one.transaction() as tx:
            await tx.execute(INSERT, ("a", b""))
            with suppress(ConstraintBroken):
                await tx.execute(INSERT, ("a", b""))
    assert not two.one.failed
    assert await two.one.fetch_one("SELECT 1 FROM meta WHERE name = 'a'") is None


async def test_what_one_process_claimed_no_other_gets_until_it_closes(two: Two) -> None:
    """Release and close free it; both count as present meanwhile."""
    mine, theirs = await two.one.claims(), await two.other.claims()
    assert await mine.claim("partition 1")
    assert await mine.claim("partition 1")
    assert await mine.claim("partition 2")
    assert not await theirs.claim("partition 1")
    assert await theirs.claim("partition 3")
    assert (await mine.present(), await theirs.present()) == (2, 2)
    await mine.release("partition 1")
    assert await theirs.claim("partition 1")
    assert not await mine.claim("partition 1")
    await mine.close()
    await until(theirs.present, lambda count: count == 1)
    assert await theirs.claim("partition 2")
    await theirs.close()


async def test_a_claim_ends_with_its_session_and_its_holder_is_told(two: Two) -> None:
    """However the session ended: another takes it, and the holder's next question fails."""
    mine = await two.one.claims()
    assert await mine.claim("partition 1")
    assert await two.other.fetch_one(_CUT_CLAIMS) == (1,)
    theirs = await two.other.claims()
    await until(lambda: theirs.claim("partition 1"), bool)
    with pytest.raises(StoreFailed):
        await mine.present()
    await mine.close()
    await theirs.close()


async def test_a_server_that_stopped_is_a_failed_store_until_it_was_opened_again() -> None:
    """Its kill -9: writes are refused even when it is back, until `reopen`; what was committed is there."""
    with cluster_of_its_own() as cluster:
        db = await open_postgres(cluster.database())
        told: list[str] = []
        db.when_failed(lambda: told.append("failed"))
        async with db.transaction() as tx:
            await tx.execute(INSERT, ("before", b""))
        await asyncio.to_thread(cluster.stop, "immediate")
        with pytest.raises(StoreFailed):
            await db.fetch_all("SELECT name FROM meta")
        for _ in range(2):
            with pytest.raises(StoreFailed):
                async with db.transaction() as tx:
                    await tx.execute(INSERT, ("never", b""))
        assert db.failed
        assert told
        with pytest.raises(StoreFailed):
            await db.reopen()
        await asyncio.to_thread(cluster.start)
        with pytest.raises(StoreFailed, match="reopened"):
            async with db.transaction() as tx:
                await tx.execute(INSERT, ("never", b""))
        await db.reopen()
        assert not db.failed
        async with db.transaction() as tx:
            await tx.execute(INSERT, ("after", b""))
        names = await db.fetch_all("SELECT name FROM meta WHERE name IN ('after', 'before', 'never') ORDER BY name")
        assert names == [("after",), ("before",)]
        await db.close()


async def test_a_cluster_that_does_not_write_through_is_refused() -> None:
    """With `fsync` off a commit that returned is not on disk: no receipt may rest on it."""
    with cluster_of_its_own({"fsync": "off"}) as cluster, pytest.raises(StoreFailed, match="fsync"):
        await open_postgres(cluster.database())


async def test_a_claim_of_a_process_that_says_nothing_any_more_is_free(
    two: Two, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A frozen process keeps its connection: the kernel answers for it. Its partitions must not wait for it."""
    claims = await two.other.claims()
    monkeypatch.setitem(postgres_claims._SETTINGS, "idle_session_timeout", "1s")
    frozen = await two.one.claims()
    assert await frozen.claim("partition 3")
    await until(lambda: claims.claim("partition 3"), bool)
    with pytest.raises(StoreFailed):
        await frozen.present()
    await frozen.close()
    await claims.close()


async def test_offsets_do_not_rest_on_how_the_database_isolates_by_itself() -> None:
    """A lane reads the last number after it got its lock: with the snapshot of before, two rows would get the same."""
    cluster, dsn = shared_cluster(), shared_cluster().database()
    name = dsn.rpartition("/")[2]
    cluster.psql(f"ALTER DATABASE {name} SET default_transaction_isolation = 'repeatable read'")
    one, other = await asyncio.gather(open_postgres(dsn), open_postgres(dsn))
    two = Two(one, other)
    stop, seen = Stop(), []
    held = asyncio.create_task(one.atomically(stop, lane="log"))
    await stop.stands.wait()

    async def look(tx: Transaction) -> None:
        seen.append(await tx.fetch_one("SELECT 1 FROM meta WHERE name = 'held'"))

    waits = asyncio.create_task(other.atomically(look, lane="log"))
    await two.waiting(1)
    stop.go.set()
    await asyncio.gather(held, waits)
    assert seen == [(1,)]
    await one.close()
    await other.close()


async def test_what_a_migration_broke_for_a_look_is_busy_and_no_fault_of_the_data(two: Two) -> None:
    """Settling takes any other error for one of the changes before it: twice, and a good one were a dead letter."""

    async def look(reader: Reader) -> None:
        await reader.fetch_all("SELECT * FROM meta")

    await two.one.snapshot(look)
    async with two.other.transaction() as tx:
        await tx.execute("ALTER TABLE meta ADD COLUMN later BIGINT")
    with pytest.raises(StoreBusy):
        await two.one.snapshot(look)
    await two.one.snapshot(look)
    assert not two.one.failed


async def test_an_order_may_compute_for_minutes_between_two_statements_a_lane_may_not(two: Two) -> None:
    """A national roster is compared with the store inside its transaction; a lane that stands still holds up pushes."""
    seen = []

    async def look(tx: Transaction) -> None:
        seen.append(await tx.fetch_one("SELECT current_setting('idle_in_transaction_session_timeout')"))

    async with two.one.transaction() as tx:
        await look(tx)
    for lane in ("log", "settle"):
        await two.one.atomically(look, lane=lane)
    assert seen == [("2min",), ("15s",), ("15s",)]
