"""An import that changes a person settles every register in which they have marks, members of the class or not."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from clientcore.exchange import write_sync
from clientcore.register import Code
from syncserver.roster import import_zip
from syncserver.settling import settle_anew
from syncserver.store.registers import changes_of, outcome_of
from syncserver.store.surroundings import context_of
from tests.support.rosters import Export
from tests.support.server.orders import give
from tests.support.server.world import TODAY, World, open_world

KEY = ("sc1", "k1", TODAY, "day")
REGISTER = f"k1/{TODAY}/day"


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with open_world(tmp_path / "hudur.db", background=False) as world:
        yield world


async def imported(world: World, export: Export, on: str = TODAY) -> None:
    report = await import_zip(world.db, export.zip(), dry_run=False, now_ms=world.clock.wall_ms(), on=on)
    assert report["applied"], report
    await world.settle()


async def answers(world: World) -> list[Code | None]:
    """What is official, which must be what a fresh start computes."""
    found = await outcome_of(world.db, KEY)
    assert found is not None
    context = await context_of(world.db, KEY, "Africa/Cairo")
    assert found.body == settle_anew(KEY, await changes_of(world.db, KEY, 1 << 53), context)
    return [answer.code for answer in found.outcome.answers.values()]


async def test_a_champion_whose_time_turns_out_to_have_ended_makes_nobody_absent(world: World) -> None:
    """The import says that she was no champion that day: her mark is held, in a class she never belonged to."""
    export = Export()
    await imported(world, export, on="2026-11-15")
    phone = await world.phone("c1", school="sc1")
    await phone.sync((REGISTER, phone.take(REGISTER, {"p1": "A"})))
    await world.settle()
    assert Code.ABSENT in await answers(world)
    export.row("roles.csv", "r6")["endDate"] = "2026-11-20"
    await imported(world, export)
    assert Code.ABSENT not in await answers(world)


async def test_a_substitute_who_comes_back_counts_again(world: World) -> None:
    """Ended upstream by mistake, with marks made under a delegation; the next import brings her and them back."""
    export = Export()
    export["users.csv"].append({**export.row("users.csv", "t1"), "sourcedId": "t9", "username": "t9"})
    export["roles.csv"].append({**export.row("roles.csv", "r4"), "sourcedId": "r9", "userSourcedId": "t9"})
    await imported(world, export, on="2026-11-15")
    teacher, substitute = await world.phone("t1", school="sc1"), await world.phone("t9", school="sc1", seed=5)
    span = {"from": TODAY, "until": TODAY}
    await give(teacher, "delegate", school="sc1", classes=["k1"], to="t9", reason="ill", **span)
    await imported(world, Export())
    world.clock.advance(1_000)
    change = substitute.take(REGISTER, {"p1": "P"})
    await substitute.post("/v1/sync", write_sync([substitute.frame([(REGISTER, change.chunk)]).raw]))
    await world.settle()
    assert Code.PRESENT not in await answers(world)
    await imported(world, export)
    assert Code.PRESENT in await answers(world)
