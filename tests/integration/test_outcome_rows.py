"""Outcomes in the store: one change is referred to, more are written out, and every reader sees the same."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from clientcore.register import RegisterId
from reconciliation.errors import BadOutcome
from syncserver.settling import settle_anew
from syncserver.store.digest import digest_registers
from syncserver.store.packed import pack_outcome
from syncserver.store.registers import changes_of, outcome_of
from syncserver.store.surroundings import contexts_of
from tests.support import packed_v4
from tests.support.server.phone import Phone
from tests.support.server.world import PUPILS, SCHOOL, TODAY, World, open_world, sqlite_only

REGISTER = f"c-3a/{TODAY}/day"
OTHER = f"c-3b/{TODAY}/day"
NAMED = RegisterId.parse(f"{SCHOOL}/{REGISTER}")
KEY = (NAMED.school, NAMED.class_id, NAMED.date, NAMED.session)
ROW = "SELECT source_offset, length(body), revision FROM outcomes WHERE class_id = 'c-3a'"


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    """A server whose consumer is moved by hand."""
    async with open_world(tmp_path / "store.db", background=False) as opened:
        yield opened


async def taken(world: World) -> Phone:
    """A teacher's phone that has sent the register, which is settled."""
    phone = await world.phone()
    await phone.sync((REGISTER, phone.take(REGISTER, dict.fromkeys(PUPILS, "P") | {"s002": "A"})))
    await world.settle()
    return phone


async def read_anew(world: World) -> tuple[bytes, bytes]:
    """The outcome as it is read, and as it follows from nothing but the register's changes."""
    found = await outcome_of(world.db, KEY)
    assert found is not None
    stored = await changes_of(world.db, KEY, 1 << 53)
    context = (await contexts_of(world.db, [KEY], "Africa/Cairo"))[KEY]
    return found.body, settle_anew(KEY, stored, context)


async def row_of(world: World) -> tuple[Any, ...]:
    """The change referred to, bytes of the body, revision."""
    row = await world.db.fetch_one(ROW)
    assert row is not None
    return row


async def test_an_outcome_of_one_change_refers_to_it_and_reads_as_if_it_were_written_out(world: World) -> None:
    """In SQLite. In PostgreSQL it is written out, and in bytes that a server of version 4 reads."""
    await taken(world)
    offset, size, revision = await row_of(world)
    if not world.db.refers:
        assert (offset, revision) == (None, 1)
        found = await outcome_of(world.db, KEY)
        (body,) = await world.db.fetch_one("SELECT body FROM outcomes WHERE class_id = 'c-3a'") or (b"",)
        assert found is not None
        assert packed_v4.unpack_outcome(body, str(NAMED)) == found.outcome
        return
    read, anew = await read_anew(world)
    assert (offset, revision) == (1, 1)
    assert read == anew
    found, digest = await outcome_of(world.db, KEY), await digest_registers(world.db)
    assert found is not None
    whole = pack_outcome(found.outcome)
    assert size < len(whole) / 2
    events = await world.events()
    async with world.db.transaction() as tx:
        await tx.execute("UPDATE outcomes SET body = ?, source_offset = NULL WHERE class_id = 'c-3a'", (whole,))
    assert await read_anew(world) == (read, anew)
    assert await digest_registers(world.db) == digest
    assert await world.events() == events


async def test_a_correction_is_written_out_and_what_was_told_before_stays(world: World) -> None:
    phone = await taken(world)
    before = await world.events()
    await phone.sync((REGISTER, phone.take(REGISTER, {"s002": "L"})))
    await world.settle()
    offset, _, revision = await row_of(world)
    assert (offset, revision) == (None, 2)
    read, anew = await read_anew(world)
    assert read == anew
    events = await world.events()
    assert events[: len(before)] == before
    assert [(event["data"]["pupil"], event["data"]["revision"]) for event in events[len(before) :]] == [("s002", 2)]


@sqlite_only
@pytest.mark.parametrize(
    "damage",
    [
        "DELETE FROM changes WHERE log_offset = 1",
        "UPDATE outcomes SET source_offset = 2 WHERE class_id = 'c-3a'",  # another register's
    ],
)
async def test_an_outcome_whose_change_is_gone_is_no_absence_and_no_silence(world: World, damage: str) -> None:
    """Nothing deletes a change or moves a reference; a store in which somebody did says so, also by its digest."""
    phone = await taken(world)
    await phone.sync((OTHER, phone.take(OTHER, dict.fromkeys(PUPILS, "A"))))
    await world.settle()
    digest = await digest_registers(world.db)
    async with world.db.transaction() as tx:
        await tx.execute(damage)
    with pytest.raises(BadOutcome, match=f"bad-outcome.*{REGISTER}"):
        await outcome_of(world.db, KEY)
    after = await digest_registers(world.db)
    assert after.count == digest.count
    assert after.digest != digest.digest
