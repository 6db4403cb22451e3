"""Disputes at a running server: both marks kept, one named person says which stands, new marks open it again."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from clientcore.change import Change
from reconciliation.model import Answer
from syncserver.store.registers import outcome_of
from tests.support.server.desks import central, champion
from tests.support.server.world import SCHOOL, TODAY, Phone, World, open_world

REGISTER = f"c-3a/{TODAY}/day"
NAME = f"{SCHOOL}/{REGISTER}"


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    """A server whose consumer is moved by hand."""
    async with open_world(tmp_path / "store.db", background=False) as opened:
        yield opened


async def answer(world: World, pupil: str = "s001") -> Answer:
    """What stands for a pupil."""
    stored = await outcome_of(world.db, (SCHOOL, "c-3a", TODAY, "day"))
    assert stored is not None
    return stored.outcome.answers[pupil]


async def dispute(world: World, others: str = "t2") -> tuple[tuple[Phone, Change], tuple[Phone, Change]]:
    """t1 saw s001, somebody else did not; neither had seen the other's mark."""
    first, second = await world.phone("t1", seed=1), await world.phone(others, seed=2)
    changes = first.take(REGISTER, {"s001": "P", "s002": "P"}), second.take(REGISTER, {"s001": "A", "s002": "P"})
    await first.sync((REGISTER, changes[0]))
    await second.sync((REGISTER, changes[1]))
    await world.settle()
    return (first, changes[0]), (second, changes[1])


async def listed(world: World, **args: object) -> list[dict[str, Any]]:
    """The school's disputes, as its champion sees them."""
    found: list[dict[str, Any]] = (await champion(world).does("disputes", school=SCHOOL, **args))["disputes"]
    return found


async def test_a_dispute_is_shown_calmly_with_both_marks_and_settled_by_a_third_person(world: World) -> None:
    """Who, when and what; the answer was never absent by itself, and is what the third person says."""
    (_, saw), (_, missed) = await dispute(world)
    (one,) = await listed(world)
    assert (one["pupil"], one["state"], one["stands"]["code"]) == ("s001", "open", "present")
    assert {(mark["by"], mark["code"], mark["change"]) for mark in one["values"]} == {
        ("t1", "present", saw.hash.hex()),
        ("t2", "absent", missed.hash.hex()),
    }
    told = await champion(world).does(
        "dispute-settle", register=NAME, pupil="s001", change=missed.hash.hex(), reason="the parents called"
    )
    found = await answer(world)
    assert (found.code, found.disputed, found.chosen_by, found.labels) == ("A", False, "ch1", ("settled-by-person",))
    assert len(found.values) == 2
    assert await listed(world) == []
    (settled,) = await listed(world, all=True)
    assert (settled["state"], settled["chosen_by"]) == ("settled", "ch1")
    row = await world.db.fetch_one("SELECT action, reason, before_json FROM audit WHERE id = ?", (told["audit"],))
    assert row is not None
    assert row[:2] == ("dispute-settle", "the parents called")
    assert json.loads(row[2])["disputed"] is True


async def test_a_new_mark_opens_the_question_again(world: World) -> None:
    """The word held for exactly the marks that were seen."""
    (_, saw), (second, _) = await dispute(world)
    named = {"register": NAME, "pupil": "s001", "reason": "seen in class"}
    await champion(world).does("dispute-settle", **named, change=saw.hash.hex())
    late = second.take(REGISTER, {"s001": "E:sick"})
    await second.sync((REGISTER, late))
    await world.settle()
    found = await answer(world)
    assert (found.code, found.disputed, found.chosen_by) == ("P", True, None)
    await champion(world).does("dispute-settle", **named, change=late.hash.hex())
    assert (await answer(world)).code == "E"


async def test_whoever_made_one_of_the_marks_does_not_choose(world: World) -> None:
    """A champion between her own mark and another's: another person, or the central office with a reference."""
    (_, saw), _ = await dispute(world, others="ch1")
    named = {"register": NAME, "pupil": "s001", "change": saw.hash.hex(), "reason": "seen"}
    said = await champion(world).is_refused("dispute-settle", **named)
    assert (said["rule"], said["who"]) == ("party-to-the-dispute", "another champion of the school, or central")
    assert (await central(world).is_refused("dispute-settle", **named))["rule"] == "reference-needed"
    await central(world).does("dispute-settle", **named, reference="letter 4")
    assert (await answer(world)).chosen_by == "token:ministry"


async def test_where_nothing_is_in_dispute_there_is_nothing_to_settle(world: World) -> None:
    """Identical codes, another pupil's change, a stranger."""
    (_, saw), (second, _) = await dispute(world)
    third = second.take(REGISTER, {"s003": "P"})
    await second.sync((REGISTER, third))
    await world.settle()
    for pupil, change in (("s002", saw.hash.hex()), ("s001", third.hash.hex()), ("s999", saw.hash.hex())):
        said = await champion(world).is_refused("dispute-settle", register=NAME, pupil=pupil, change=change, reason="x")
        assert said["rule"] == "nothing-to-decide"


async def test_a_settled_dispute_can_be_settled_otherwise(world: World) -> None:
    """The last word counts; both stay in the trail."""
    (_, saw), (_, missed) = await dispute(world)
    named = {"register": NAME, "pupil": "s001", "reason": "second thoughts"}
    for change in (missed, saw):
        await champion(world).does("dispute-settle", **named, change=change.hash.hex())
    assert (await answer(world)).code == "P"
    assert await world.count("decisions") == 2
