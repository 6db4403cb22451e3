"""A store moves from SQLite to PostgreSQL and back: phones and consumers of events notice nothing."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from clientcore.ports import ManualClock
from syncserver import migrate as module
from syncserver.calendar import local_date
from syncserver.cli import main
from syncserver.config import PostgresAddress, StoreAddress
from syncserver.errors import MigrationRefused, StoreFailed, StoreInUse
from syncserver.migrate import Table, migrate
from syncserver.store.open import open_reader, open_store
from syncserver.store.packed import unpack_outcome
from syncserver.store.port import Database, Reader
from tests.integration.test_adjustments import NAME, REGISTER, asked
from tests.support import packed_v4
from tests.support.postgres import shared_cluster
from tests.support.server.desks import champion
from tests.support.server.phone import Phone
from tests.support.server.world import SCHOOL, TODAY, World, open_world

DAY_MS, ZONE = 86_400_000, "Africa/Cairo"


async def lived(world: World) -> Phone:
    """A school that has corrections, an approved adjustment, a dead letter and a row of every hand in its audit."""
    phone, change = await asked(world)
    await champion(world).does("adjustment-approve", register=NAME, change=change.hash.hex(), reason="wrong_code")
    lost = phone.take(f"c-3b/{TODAY}/day", {"s001": "P"})
    later = phone.take(f"c-3b/{TODAY}/day", {"s001": "A"})
    assert lost.hash in later.deps
    await phone.sync((f"c-3b/{TODAY}/day", later))
    await world.settle()
    world.clock.advance(4 * DAY_MS)
    await world.server.settler.bury_pending()
    return phone


async def goes_on(world: World, phone: Phone, before: list[dict[str, Any]], marks: dict[str, str]) -> None:
    """The same phone says more at a store that has moved: it is taken, settled and told; what was told stays."""
    phone.http = world.http
    assert await world.events() == before
    world.clock.advance(DAY_MS)
    register = f"c-3a/{local_date(world.clock.wall_ms(), ZONE).isoformat()}/day"
    phone.taken = 0  # taken at the hour of its own day
    change = phone.take(register, marks)
    await phone.sync((register, change))
    await world.settle()
    await phone.pull()
    assert change.hash[:8] in phone.settled()
    events = await world.events()
    assert len(events) > len(before)
    assert events[: len(before)] == before
    assert [int(event["sequence"]) for event in events] == list(range(1, len(events) + 1))
    assert len({event["id"] for event in events}) == len(events)


async def server_of(world: World) -> tuple[str, int]:
    """Which server this is to a phone."""
    return world.server.meta.key.to_pem().hex(), world.server.meta.epoch


async def look_at(address: StoreAddress) -> dict[str, str]:
    reader = await open_reader(address)
    try:
        return await module.look(reader)
    finally:
        await reader.close()


async def count(db: Database, table: str) -> int:
    row = await db.fetch_one(f"SELECT count(*) FROM {table}")
    assert row is not None
    return int(row[0])


async def reads_alone(address: PostgresAddress) -> None:
    """Every outcome stands for itself, in bytes that a server of version 4 reads: one may be beside that store."""
    reader = await open_reader(address)
    rows = await reader.fetch_all("SELECT school, class_id, date, session, body, source_offset FROM outcomes")
    whole = await reader.fetch_all("SELECT school, class_id, date, session, body FROM whole_outcomes")
    await reader.close()
    assert len(rows) > 1
    assert {row[5] for row in rows} == {None}
    assert [row[:5] for row in sorted(rows)] == sorted(whole)
    for *key, body, _ in rows:
        assert packed_v4.unpack_outcome(body, "/".join(key)) == unpack_outcome(body, "/".join(key))


async def test_a_school_moves_to_postgresql_and_back_and_nobody_notices(tmp_path: Path) -> None:
    """Key, epoch, log, outcomes, decisions, audit and feed are the same on both sides; numbers go on behind them."""
    file, back = tmp_path / "a.db", tmp_path / "b.db"
    house = PostgresAddress(shared_cluster().database())
    clock = ManualClock()
    db: Database = await open_store(file)
    async with open_world(file, background=False, db=db, clock=clock) as world:
        phone = await lived(world)
        assert await count(world.db, "dead_letters") == 1
        assert await count(world.db, "decisions") == 1
        known, events = await server_of(world), await world.events()
    moved = await migrate(file, house)
    assert moved.differences == ()
    assert (moved.log_offset, moved.events, moved.tables["decisions"]) == (3, len(events), 1)
    assert await look_at(house) == await look_at(file)
    await reads_alone(house)
    async with open_world(file, background=False, db=await open_store(house), clock=clock) as world:
        assert await server_of(world) == known
        await goes_on(world, phone, events, {"s002": "A"})
        await world.phone("t2", seed=2)  # its code, its audit row: numbers of their own behind those that were copied
        events = await world.events()
    assert (await migrate(house, back)).differences == ()
    async with open_world(back, background=False, db=await open_store(back), clock=clock) as world:
        assert await server_of(world) == known
        await goes_on(world, phone, events, {"s003": "A"})


@pytest.fixture
async def file(tmp_path: Path) -> Path:
    """A file of a school with one settled register."""
    path = tmp_path / "a.db"
    async with open_world(path, background=False, db=await open_store(path)) as world:
        phone = await world.phone("t1")
        await phone.sync((REGISTER, phone.take(REGISTER, {"s001": "A"})))
        await world.settle()
    return path


async def test_a_target_with_anything_in_it_is_refused(file: Path) -> None:
    """A second migration into the same store, and one into a school's store; neither touches it."""
    house = PostgresAddress(shared_cluster().database())
    await migrate(file, house)
    there = await look_at(house)
    for target in (house, file.with_name("a2.db")):
        if isinstance(target, Path):
            await migrate(house, target)
        with pytest.raises(MigrationRefused, match="not-empty"):
            await migrate(file, target)
    assert await look_at(house) == there


async def test_a_store_on_which_a_server_runs_does_not_move(file: Path, tmp_path: Path) -> None:
    """Neither from nor to it, on either kind."""
    house = PostgresAddress(shared_cluster().database())
    held = await open_store(file)
    with pytest.raises(StoreInUse):
        await migrate(file, house)
    await held.close()
    server = await open_store(house)
    claims = await server.claims()
    try:
        with pytest.raises(StoreInUse):
            await migrate(file, house)
        with pytest.raises(StoreInUse):
            await migrate(house, tmp_path / "new.db")
    finally:
        await claims.close()
        await server.close()


@pytest.mark.parametrize("kind", ["postgresql", "sqlite"])
def test_a_copy_that_differs_is_told_and_nobody_can_open_it(
    file: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """Exit code 3, what differs by name, and a store that every program refuses."""
    copy = module._copy

    async def careless(old: Reader, new: Database, table: Table, told: module.Told) -> int:
        if table.name == "events":
            return 0
        rows = await copy(old, new, table, told)
        if table.name == "outcomes":
            async with new.transaction() as tx:
                await tx.execute("UPDATE outcomes SET revision = revision + 1")
        return rows

    monkeypatch.setattr(module, "_copy", careless)
    target = shared_cluster().database() if kind == "postgresql" else f"sqlite:{file.with_name('b.db')}"
    result = CliRunner().invoke(main, ["migrate", f"sqlite:{file}", target, "--json"])
    assert result.exit_code == 3, result.output
    assert {"registers", "table outcomes"} <= set(json.loads(result.stdout)["differences"])
    for command in (["events"], ["devices", SCHOOL], ["serve", "--port", "0"]):
        refused = CliRunner().invoke(main, [*command, "--store", target])
        assert refused.exit_code == 1
        assert "schema" in refused.output


async def test_a_file_of_another_version_does_not_move(file: Path) -> None:
    """What this program does not know it cannot copy."""
    with closing(sqlite3.connect(file)) as connection:
        connection.execute("UPDATE schema_version SET version = 99")
        connection.commit()
    with pytest.raises(StoreFailed):
        await migrate(file, PostgresAddress(shared_cluster().database()))
