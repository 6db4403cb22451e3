"""Bulk operations at a running server: previewed, applied while the preview holds, a second person, undone in 72 h."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import pytest

from syncserver.access import Desk, give
from syncserver.errors import RequestProblem
from syncserver.orders import ORDERS
from syncserver.store.registers import outcome_of
from tests.support.server.desks import Person, central, champion, district, operator
from tests.support.server.world import PUPILS, SCHOOL, TODAY, Phone, World, open_world

T = TypeVar("T")
HOUR_MS, DAY_MS = 3_600_000, 86_400_000
TRIP = {"school": SCHOOL, "from": TODAY, "until": TODAY, "code": "official_duty", "code_reason": "trip"}
SESSIONS = [f"{half}{n}" for half in ("am", "pm") for n in range(1, 8)]


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    """A server whose consumer is moved by hand."""
    async with open_world(tmp_path / "store.db", background=False) as opened:
        yield opened


async def taken(world: World, *sessions: str, marks: dict[str, str] | None = None) -> Phone:
    """Registers of c-3a, taken by its teacher: all present, s001 absent."""
    phone = await world.phone("t1")
    for session in sessions or ("day",):
        name = f"c-3a/{TODAY}/{session}"
        change = phone.take(name, marks or {**dict.fromkeys(PUPILS, "P"), "s001": "A"})
        await phone.sync((name, change))
    await world.settle()
    return phone


async def codes(world: World, session: str = "day") -> dict[str, str]:
    """Code letter by pupil; "-" for not taken."""
    stored = await outcome_of(world.db, (SCHOOL, "c-3a", TODAY, session))
    assert stored is not None
    return {p: "-" if a.code is None else a.code.value for p, a in stored.outcome.answers.items()}


async def body(world: World, session: str = "day") -> bytes:
    """The outcome, byte for byte."""
    stored = await outcome_of(world.db, (SCHOOL, "c-3a", TODAY, session))
    assert stored is not None
    return stored.body


async def apply(person: Person, wish: dict[str, Any]) -> dict[str, Any]:
    """Preview, then apply what was previewed."""
    plan = await person.does("bulk-preview", **wish)
    return await person.does("bulk-apply", **wish, digest=plan["digest"], reason="class trip, letter of 21 Nov")


async def test_a_preview_says_what_would_become_of_each_cell_and_changes_nothing(world: World) -> None:
    """Counts, the cells, and what stands against the others."""
    await taken(world, marks={"s001": "A", "s002": "P"})
    before, rows = await body(world), await world.count("audit")
    plan = await champion(world).does("bulk-preview", **{**TRIP, "code": "present", "code_reason": None})
    assert (plan["count"], plan["needs_second"]) == (1, False)
    assert plan["cells"] == [
        {"register": f"{SCHOOL}/c-3a/{TODAY}/day", "pupil": "s001", "now": "absent", "now_reason": None}
    ]
    assert plan["refused_by"] == {"presence-needs-a-mark": 38}
    absent = await champion(world).does("bulk-preview", **{**TRIP, "code": "absent_excused", "code_reason": "sick"})
    assert (absent["count"], absent["refused_by"]) == (1, {"absence-needs-a-mark": 39})
    only = await champion(world).does("bulk-preview", **TRIP, present=["not_taken"], pupils=["s001", "s003"])
    assert [cell["pupil"] for cell in only["cells"]] == ["s003"]
    assert await body(world) == before
    assert await world.count("audit") == rows


async def test_applied_and_undone_the_register_is_what_it_was_byte_for_byte(world: World) -> None:
    """The mark stays beside the ruling; the trail says what, by whom and why."""
    await taken(world)
    before, before_codes = await body(world), await codes(world)
    done = await apply(champion(world), TRIP)
    assert (done["state"], done["cells"]) == ("applied", 40)
    assert set((await codes(world)).values()) == {"D"}
    stored = await outcome_of(world.db, (SCHOOL, "c-3a", TODAY, "day"))
    assert stored is not None
    answer = stored.outcome.answers["s001"]
    assert (answer.labels, answer.reason, answer.original and answer.original.code) == (("ruled",), "trip", "A")
    row = await world.db.fetch_one(
        "SELECT actor, action, reason, before_json, after_json FROM audit WHERE id = ?", (done["audit"],)
    )
    assert row is not None
    assert row[:3] == (f"user:{SCHOOL}/ch1", "bulk-apply", "class trip, letter of 21 Nov")
    assert json.loads(row[3]) == {"absent": 1, "present": 39}
    undone = await champion(world).does("bulk-undo", school=SCHOOL, bulk=done["bulk"], reason="wrong day")
    assert (len(undone["restored"]), undone["touched"]) == (40, [])
    assert (await body(world), await codes(world)) == (before, before_codes)
    assert (await champion(world).is_refused("bulk-undo", school=SCHOOL, bulk=done["bulk"], reason="x"))["rule"] == (
        "nothing-to-decide"
    )


async def test_an_undo_leaves_what_somebody_touched_since_and_lists_it(world: World) -> None:
    """A new mark, and a later bulk operation: both stay, also when the later one is undone."""
    phone = await taken(world)
    first = await apply(champion(world), TRIP)
    name = f"c-3a/{TODAY}/day"
    await phone.sync((name, phone.take(name, {"s001": "L:5"})))
    await world.settle()
    second = await apply(champion(world), {**TRIP, "code": "present", "code_reason": None, "pupils": ["s002"]})
    undone = await champion(world).does("bulk-undo", school=SCHOOL, bulk=first["bulk"], reason="wrong day")
    assert [(cell["pupil"], cell["now"]["code"]) for cell in undone["touched"]] == [
        ("s001", "late"), ("s002", "present"),
    ]  # fmt: skip
    assert len(undone["restored"]) == 38
    found = await codes(world)
    assert (found["s001"], found["s002"], found["s003"]) == ("L", "P", "P")
    await champion(world).does("bulk-undo", school=SCHOOL, bulk=second["bulk"], reason="too")
    assert (await codes(world))["s002"] == "P"


async def test_what_changed_since_the_preview_is_not_decided_unseen(world: World) -> None:
    """The digest must still hold."""
    phone = await taken(world)
    plan = await champion(world).does("bulk-preview", **TRIP)
    name = f"c-3a/{TODAY}/day"
    await phone.sync((name, phone.take(name, {"s001": "L:5"})))
    await world.settle()
    said = await champion(world).is_refused("bulk-apply", **TRIP, digest=plan["digest"], reason="trip")
    assert said["rule"] == "preview-changed"
    assert await world.count("bulks") == 0


@dataclass
class Meddler:
    """Does slow work aside as a server does, and lets a mark arrive and be settled right behind it."""

    arrive: Callable[[], Awaitable[None]]

    async def run(self, work: Callable[[], T]) -> T:
        """See `Aside`."""
        done = work()
        await self.arrive()
        return done


async def test_a_mark_that_comes_while_the_plan_is_made_is_seen(world: World) -> None:
    """The plan is made outside the transaction; what changed before it began stops it."""
    phone = await taken(world)
    plan = await champion(world).does("bulk-preview", **TRIP)
    name = f"c-3a/{TODAY}/day"
    late = phone.take(name, {"s001": "L:5"})

    async def arrive() -> None:
        await phone.sync((name, late))
        await world.settle()

    server = world.server
    ports = replace(server.ports, aside=Meddler(arrive))
    desk = Desk(config=server.config, db=world.db, ports=ports, who=champion(world).who)
    with pytest.raises(RequestProblem) as refused:
        await give(ORDERS["bulk-apply"], desk, {**TRIP, "digest": plan["digest"], "reason": "trip"})
    assert refused.value.extra["rule"] == "preview-changed"
    assert (await codes(world))["s001"] == "L"
    assert await world.count("decisions") == 0


async def test_more_than_500_cells_wait_for_another_person(world: World) -> None:
    """14 sessions of 40 pupils: asked by the champion, agreed to by the district."""
    await taken(world, *SESSIONS)
    done = await apply(champion(world), TRIP)
    assert (done["state"], done["cells"]) == ("waiting", 560)
    assert set((await codes(world, "am1")).values()) == {"A", "P"}
    named = {"school": SCHOOL, "bulk": done["bulk"], "reason": "seen the letter"}
    assert (await champion(world).is_refused("bulk-second", **named))["rule"] == "second-person"
    agreed = await district(world).does("bulk-second", **named)
    assert (agreed["state"], agreed["cells"]) == ("applied", 560)
    assert set((await codes(world, "pm7")).values()) == {"D"}
    (one,) = (await champion(world).does("bulks", school=SCHOOL))["bulks"]
    assert (one["by"], one["second_by"], one["state"], one["undo_open"]) == ("ch1", "token:district-7", "applied", True)
    assert (await district(world).is_refused("bulk-second", **named))["rule"] == "nothing-to-decide"


async def test_a_waiting_operation_whose_cells_changed_is_not_applied(world: World) -> None:
    """The second person agrees to what was previewed or to nothing."""
    phone = await taken(world, *SESSIONS)
    done = await apply(champion(world), TRIP)
    name = f"c-3a/{TODAY}/am1"
    await phone.sync((name, phone.take(name, {"s001": "L:5"})))
    await world.settle()
    said = await district(world).is_refused("bulk-second", school=SCHOOL, bulk=done["bulk"], reason="ok")
    assert said["rule"] == "preview-changed"


async def test_an_undo_is_open_for_72_hours(world: World) -> None:
    """After that the central office, with a reference."""
    await taken(world)
    done = await apply(champion(world), TRIP)
    world.clock.advance(72 * HOUR_MS)
    named = {"school": SCHOOL, "bulk": done["bulk"], "reason": "wrong day"}
    said = await champion(world).is_refused("bulk-undo", **named)
    assert (said["rule"], said["closed_on"]) == ("undo-closed", "2026-11-25T08:00:00.000Z")
    await central(world).does("bulk-undo", **named, reference="letter 9")
    assert set((await codes(world)).values()) == {"A", "P"}


async def test_a_bulk_operation_is_no_way_around_the_three_days(world: World) -> None:
    """Locked at school level is locked for a list as well; the central office can, with a reference."""
    await taken(world)
    world.clock.advance(4 * DAY_MS)
    plan = await champion(world).does("bulk-preview", **TRIP)
    assert (plan["count"], plan["refused_by"]) == (0, {"adjustment-locked": 40})
    said = await champion(world).is_refused("bulk-apply", **TRIP, digest=plan["digest"], reason="trip")
    assert said["rule"] == "nothing-to-decide"
    plan = await central(world).does("bulk-preview", **TRIP)
    wish = {**TRIP, "digest": plan["digest"], "reason": "trip"}
    assert (await central(world).is_refused("bulk-apply", **wish))["rule"] == "reference-needed"
    await central(world).does("bulk-apply", **wish, reference="letter 2")
    assert set((await codes(world)).values()) == {"D"}


async def test_disputes_and_own_marks_are_left_out(world: World) -> None:
    """One by one, by somebody who looked; and never one's own."""
    other = await world.phone("ch1", seed=2)
    name = f"c-3a/{TODAY}/day"
    unseen = other.take(name, {"s001": "A", "s002": "A"})  # of s001 both say the same
    await taken(world)
    await other.sync((name, unseen))
    await world.settle()
    plan = await champion(world, "ch2").does("bulk-preview", **TRIP)
    assert plan["refused_by"] == {"disputed": 1}
    plan = await champion(world).does("bulk-preview", **TRIP)
    assert plan["refused_by"] == {"disputed": 1, "approver-is-author": 1}


async def test_wishes_nobody_can_read_are_refused(world: World) -> None:
    """A code that is none, untaking a register, a slug outside the grammar, no dates."""
    await taken(world)
    for wrong in (
        {"code": "gone"}, {"code": "not_taken"}, {"code_reason": "Not A Slug"}, {"from": None}, {"from": "1 Nov"},
        {"present": ["maybe"]}, {"classes": "c-3a"}, {"session": "night"}, {"code": "late", "code_reason": "trip"},
    ):  # fmt: skip
        with pytest.raises(RequestProblem) as refused:
            await champion(world).does("bulk-preview", **{**TRIP, **wrong})
        assert refused.value.code == "bad-request", wrong
    with pytest.raises(RequestProblem) as refused:
        await operator(world).does("bulk-apply", **TRIP, digest="0" * 32, reason="x")
    assert refused.value.code == "forbidden"
