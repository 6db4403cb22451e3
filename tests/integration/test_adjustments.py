"""Adjustments at a running server: asked by the ordinary road, decided by somebody else, locked after three days."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from clientcore.change import Change
from clientcore.register import RegisterId
from reconciliation.calendar import day_window
from reconciliation.clocks import zone_table
from reconciliation.model import Answer
from syncserver.errors import RequestProblem
from syncserver.store.registers import outcome_of
from tests.support.server.desks import central, champion, district, operator
from tests.support.server.phone import CAPTURED_MS
from tests.support.server.world import SCHOOL, TODAY, Phone, World, open_world

REGISTER = f"c-3a/{TODAY}/day"
NAME = f"{SCHOOL}/{REGISTER}"
DAY_MS = 86_400_000
MIDNIGHT_MS = day_window(RegisterId.parse(NAME), zone_table(TODAY, TODAY)).opens_ms


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


def take_now(phone: Phone, world: World, marks: dict[str, str]) -> Change:
    """Marks whose tap is now, by the phone's right clock, days after the register's own."""
    phone.taken = (world.clock.wall_ms() - MIDNIGHT_MS - CAPTURED_MS) // 60_000
    return phone.take(REGISTER, marks)


async def asked(world: World, *, before: str = "A", after: str = "P", days: int = 1) -> tuple[Phone, Change]:
    """A register taken in time and, some days later, changed for one pupil."""
    phone = await world.phone("t1")
    await phone.sync((REGISTER, phone.take(REGISTER, {"s001": before, "s002": "P"})))
    await world.settle()
    world.clock.advance(days * DAY_MS)
    change = take_now(phone, world, {"s001": after})
    await phone.sync((REGISTER, change))
    await world.settle()
    return phone, change


async def requests(world: World, **args: object) -> list[dict[str, Any]]:
    """The school's requests, as its champion sees them."""
    found: list[dict[str, Any]] = (await champion(world).does("adjustments", school=SCHOOL, **args))["requests"]
    return found


@pytest.mark.parametrize(("before", "after"), [("A", "P"), ("P", "A"), ("A", "E:sick")])
async def test_what_is_asked_waits_and_counts_once_somebody_else_agrees(world: World, before: str, after: str) -> None:
    """Absent to anything and anything to absent alike; the original stays beside it in outcome, event and show."""
    _, change = await asked(world, before=before, after=after)
    assert (await answer(world)).code == before
    (one,) = await requests(world)
    assert (one["change"], one["author"], one["stage"], one["who"]) == (change.hash.hex(), "t1", "waiting", "champion")
    assert (one["days_left"], one["decide_until"], one["locked_since"]) == (3, "2026-11-26", None)
    assert [(cell["key"], cell["now"]["code"][:4]) for cell in one["cells"]] == [
        ("s001", {"A": "abse", "P": "pres"}[before])
    ]
    await champion(world).does("adjustment-approve", register=NAME, change=change.hash.hex(), reason="wrong_code")
    found = await answer(world)
    assert (found.code, found.labels) == (after[0], ("adjusted",))
    assert found.original is not None
    assert found.original.code == before
    last = (await world.events())[-1]
    assert last["data"]["original"]["code"] == found.original.code.word
    assert await requests(world) == []
    (decided,) = await requests(world, all=True)
    assert (decided["stage"], decided["decided"]["by"], decided["decided"]["reason"]) == (
        "approved",
        "ch1",
        "wrong_code",
    )


async def test_a_rejected_request_changes_nothing_and_says_so(world: World) -> None:
    """The mark stays stored and shown as held."""
    _, change = await asked(world)
    await champion(world).does("adjustment-reject", register=NAME, change=change.hash.hex(), reason="wrong_pupil")
    assert (await answer(world)).code == "A"
    stored = await outcome_of(world.db, (SCHOOL, "c-3a", TODAY, "day"))
    assert stored is not None
    assert [(held.key, held.slug) for held in stored.outcome.held] == [("s001", "adjustment-rejected")]
    await champion(world).does("adjustment-approve", register=NAME, change=change.hash.hex(), reason="wrong_code")
    assert (await answer(world)).code == "P"  # the school may think again within its three days


async def test_nobody_approves_their_own(world: World) -> None:
    """A champion's own late mark needs another champion, or the central office."""
    phone = await world.phone("ch1")
    world.clock.advance(DAY_MS)
    change = take_now(phone, world, {"s001": "A"})
    await phone.sync((REGISTER, change))
    await world.settle()
    named = {"register": NAME, "change": change.hash.hex(), "reason": "forgotten"}
    assert (await champion(world).is_refused("adjustment-approve", **named))["rule"] == "approver-is-author"
    assert (await answer(world)).code is None
    await champion(world, "ch2").does("adjustment-approve", **named)
    assert (await answer(world)).code == "A"


@pytest.mark.parametrize("locked", ["asked", "decided"])
async def test_after_three_working_days_only_the_central_office_decides_with_a_reference(
    world: World, locked: str
) -> None:
    """Sunday's register: asked until Wednesday; asked on Monday, decided until Thursday. Then locked at school."""
    _, change = await asked(world, days=4 if locked == "asked" else 1)
    if locked == "decided":
        world.clock.advance(4 * DAY_MS)
    closed = "2026-11-25" if locked == "asked" else "2026-11-26"
    (one,) = await requests(world)
    assert (one["stage"], one["who"], one["days_left"]) == ("locked", "central", None)
    assert (
        one["locked_since"]
        == {"2026-11-25": "2026-11-25T22:00:00.000Z", "2026-11-26": "2026-11-26T22:00:00.000Z"}[closed]
    )
    named = {"register": NAME, "change": change.hash.hex(), "reason": "documented"}
    said = await champion(world).is_refused("adjustment-approve", **named, reference="paper 7")
    assert (said["rule"], said["closed_on"], said["who"]) == ("adjustment-locked", closed, "central, with a reference")
    assert (await central(world).is_refused("adjustment-approve", **named))["rule"] == "reference-needed"
    assert (await answer(world)).code == "A"
    await central(world).does("adjustment-approve", **named, reference="letter 12/2026")
    assert (await answer(world)).code == "P"
    said = await champion(world).is_refused("adjustment-reject", **named, reference="paper 8")
    assert said["rule"] in ("decided-centrally", "adjustment-locked")
    assert (await answer(world)).code == "P"


async def test_a_word_of_the_central_office_is_not_overruled_at_school(world: World) -> None:
    """Also within the three days."""
    _, change = await asked(world)
    named = {"register": NAME, "change": change.hash.hex(), "reason": "documented"}
    await central(world).does("adjustment-reject", **named, reference="letter 3")
    assert (await champion(world).is_refused("adjustment-approve", **named, reference="x"))[
        "rule"
    ] == "decided-centrally"
    assert (await answer(world)).code == "A"


async def test_a_decision_keeps_the_ends_of_its_clocks_and_leaves_an_audit_row(world: World) -> None:
    """So that a calendar changed later does not undo what was decided in time."""
    _, change = await asked(world)
    world.clock.advance(3 * DAY_MS)  # Thursday, the last day
    await champion(world).does("adjustment-approve", register=NAME, change=change.hash.hex(), reason="wrong_code")
    async with world.db.transaction() as tx:
        row = await tx.fetch_one("SELECT body_json, audit_id FROM decisions")
        assert row is not None
        assert json.loads(row[0]) == {
            "asked_by_ms": 1_795_644_000_000, "decide_by_ms": 1_795_730_400_000, "reason": "wrong_code"
        }  # fmt: skip
        audit = await tx.fetch_one("SELECT actor, action, reason, after_json FROM audit WHERE id = ?", (row[1],))
    assert audit is not None
    assert audit[:3] == (f"user:{SCHOOL}/ch1", "adjustment-approve", "wrong_code")
    assert json.loads(audit[3])["stage"] == "approved"
    assert (await answer(world)).code == "P"


async def test_there_is_nothing_to_decide_about_ordinary_and_decided_changes(world: World) -> None:
    """A mark in time is no request; the same word twice is none either; a change nobody sent is not found."""
    phone, change = await asked(world)
    first = phone.changes[REGISTER][0]
    named = {"register": NAME, "reason": "wrong_code"}
    said = await champion(world).is_refused("adjustment-approve", **named, change=first.hash.hex())
    assert said["rule"] == "nothing-to-decide"
    await champion(world).does("adjustment-approve", **named, change=change.hash.hex())
    said = await champion(world).is_refused("adjustment-approve", **named, change=change.hash.hex())
    assert said["rule"] == "nothing-to-decide"
    for wrong in ({"change": "00" * 32}, {"change": "zz"}, {"reason": "because"}, {"register": "x"}):
        with pytest.raises(RequestProblem) as refused:
            await champion(world).does("adjustment-approve", **{**named, "change": change.hash.hex(), **wrong})
        assert refused.value.code in ("not-found", "bad-request", "forbidden")


async def test_deciding_needs_a_named_person_of_the_school(world: World) -> None:
    """Keeping a server, or another school, gives no right to it; looking is free to those who answer for the school."""
    _, change = await asked(world)
    named = {"register": NAME, "change": change.hash.hex(), "reason": "wrong_code"}
    for person in (operator(world), district(world), champion(world, school="eg-07-200")):
        with pytest.raises(RequestProblem) as refused:
            await person.does("adjustment-approve", **named)
        assert refused.value.code == "forbidden"
    assert len((await operator(world).does("adjustments", school=SCHOOL))["requests"]) == 1
    assert len((await district(world).does("adjustments", school=SCHOOL, **{"from": "2026-11-23"}))["requests"]) == 0
