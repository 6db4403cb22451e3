"""`explain` over a real store: one pupil's day with everything in it, told from the taps to the official code."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from syncserver.access import Desk, give
from syncserver.errors import RequestProblem
from syncserver.orders import ORDERS
from syncserver.store.registers import outcome_of
from tests.support.server.desks import central, champion, district, operator
from tests.support.server.phone import CAPTURED_MS
from tests.support.server.world import OTHER_SCHOOL, SCHOOL, TODAY, World, open_world

REGISTER = f"c-3a/{TODAY}/day"
NAME = f"{SCHOOL}/{REGISTER}"
DAY_MS = 86_400_000
MIDNIGHT_MS = 1_795_298_400_000


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    """A server whose consumer is moved by hand."""
    async with open_world(tmp_path / "store.db", background=False) as opened:
        yield opened


async def explained(world: World, pupil: str = "s001") -> dict[str, Any]:
    """The chain, as the champion is told it; it must end where the stored register does."""
    told = await champion(world).does("explain", register=NAME, pupil=pupil)
    stored = await outcome_of(world.db, (SCHOOL, "c-3a", TODAY, "day"))
    if stored is not None and told["canonical"] in stored.outcome.answers:
        code = stored.outcome.answers[told["canonical"]].code
        assert told["code"] == ("not_taken" if code is None else code.word)
    return told


def codes(told: dict[str, Any]) -> list[str]:
    """Kinds of the steps, in order."""
    return [step["code"] for step in told["steps"]]


async def test_a_day_with_everything_in_it(world: World) -> None:
    """Two phones disagree, a person settles it, a late correction is approved, a duplicate is merged, a list ruled."""
    first, second = await world.phone("t1", seed=1), await world.phone("t2", seed=2)
    saw = first.take(REGISTER, {"s001": "P", "s002": "P"})
    missed = second.take(REGISTER, {"s001": "A"})
    for phone, change in ((first, saw), (second, missed)):
        await phone.sync((REGISTER, change))
    await world.settle()
    told = await explained(world)
    assert told["code"] == "present"
    assert codes(told) == [
        "on-roster", "open-day", "mark", "right", "counts", "mark", "right", "counts", "disputed", "answer", "told",
    ]  # fmt: skip

    await champion(world).does(
        "dispute-settle", register=NAME, pupil="s001", change=missed.hash.hex(), reason="nobody saw her"
    )
    told = await explained(world)
    assert told["code"] == "absent"
    assert codes(told)[-5:] == ["settled", "answer", "told", "told", "audit"]

    world.clock.advance(DAY_MS)
    await first.pull()
    first.taken = (world.clock.wall_ms() - MIDNIGHT_MS - CAPTURED_MS) // 60_000
    late = first.take(REGISTER, {"s001": "E:sick"})
    await first.sync((REGISTER, late))
    await world.settle()
    told = await explained(world)
    assert told["code"] == "absent"
    assert [code for code in codes(told) if code in ("held", "request")] == ["held", "request"]

    await champion(world).does("adjustment-approve", register=NAME, change=late.hash.hex(), reason="excuse_brought")
    told = await explained(world)
    assert told["code"] == "absent_excused"
    assert [code for code in codes(told) if code in ("superseded", "decision", "original", "void-choice")] == [
        "superseded", "superseded", "decision", "void-choice", "original",
    ]  # fmt: skip

    await champion(world).does("pupil-merge", school=SCHOOL, alias="s002", canonical="s001", reason="one child")
    told = await explained(world, "s002")
    assert (told["pupil"], told["canonical"], told["code"]) == ("s002", "s001", "present")
    assert "alias" in codes(told)
    check_words(told)


def check_words(told: dict[str, Any]) -> None:
    """Both languages everywhere, no name of a person, ids of all who had a hand in it."""
    arabic = "\n".join(step["ar"] for step in told["steps"])
    english = "\n".join(step["en"] for step in told["steps"])
    assert "{" not in arabic + english
    for name in ("معلمة أولى", "تلميذ", "منسقة"):
        assert name not in english
    for wanted in ("t1", "t2", "ch1", "excuse_brought", "two records merged", "The official answer: present"):
        assert wanted in english, wanted
    assert "الإجابة الرسمية: حضور" in arabic
    assert json.loads(json.dumps(told)) == told


async def test_a_ruling_and_its_undo_are_told(world: World) -> None:
    """The list, then the mark again."""
    phone = await world.phone("t1")
    await phone.sync((REGISTER, phone.take(REGISTER, {"s001": "A"})))
    await world.settle()
    wish = {"school": SCHOOL, "from": TODAY, "until": TODAY, "code": "official_duty", "pupils": ["s001"]}
    plan = await champion(world).does("bulk-preview", **wish)
    done = await champion(world).does("bulk-apply", **wish, digest=plan["digest"], reason="choir")
    told = await explained(world)
    assert (told["code"], "ruled" in codes(told), "original" in codes(told)) == ("official_duty", True, True)
    await champion(world).does("bulk-undo", school=SCHOOL, bulk=done["bulk"], reason="wrong choir")
    told = await explained(world)
    assert (told["code"], "ruled" in codes(told)) == ("absent", False)
    assert [step["facts"]["act"] for step in told["steps"] if step["code"] == "audit"] == [
        "act:bulk-apply",
        "act:bulk-undo",
    ]


async def test_not_taken_is_explained_as_well_and_never_as_absent(world: World) -> None:
    """Before anything came, and beside a class-mate's mark."""
    told = await champion(world).does("explain", register=NAME, pupil="s001")
    assert (told["code"], told["revision"]) == ("not_taken", None)
    assert "no-mark" in codes(told)
    phone = await world.phone("t1")
    await phone.sync((REGISTER, phone.take(REGISTER, {"s002": "A"})))
    await world.settle()
    assert (await explained(world))["code"] == "not_taken"
    with pytest.raises(RequestProblem) as refused:
        await champion(world).does("explain", register=f"{SCHOOL}/c-3b/{TODAY}/day", pupil="nobody")
    assert refused.value.code == "not-found"


async def test_a_mark_without_the_right_and_one_that_is_not_settled_yet(world: World) -> None:
    """Held, with why; and what has come since the stored register was computed is said so."""
    phone = await world.phone("t2")
    await phone.sync((f"c-3b/{TODAY}/day", phone.take(f"c-3b/{TODAY}/day", {"s001": "A"})))
    await world.settle()
    told = await champion(world).does("explain", register=f"{SCHOOL}/c-3b/{TODAY}/day", pupil="s001")
    assert codes(told)[0] == "not-on-roster"
    assert [step["facts"]["why"] for step in told["steps"] if step["code"] == "held"] == ["out-of-scope"]
    await phone.sync((REGISTER, phone.take(REGISTER, {"s001": "P"})))
    server = world.server
    desk = Desk(config=server.config, db=world.db, ports=server.ports, who=champion(world).who)
    told = await give(ORDERS["explain"], desk, {"register": NAME, "pupil": "s001"})  # nobody has settled in between
    assert (told["code"], codes(told)[-1], told["revision"]) == ("present", "unsettled", None)


async def test_who_may_ask(world: World) -> None:
    """Those who answer for the school, and whoever keeps the server; nobody about another school."""
    for person in (central(world), district(world), operator(world)):
        assert (await person.does("explain", register=NAME, pupil="s001"))["code"] == "not_taken"
    with pytest.raises(RequestProblem) as refused:
        await champion(world, school=OTHER_SCHOOL).does("explain", register=NAME, pupil="s001")
    assert refused.value.code == "forbidden"
