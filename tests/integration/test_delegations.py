"""Standing in: made on a phone in seconds, valid for its span however late the marks come, then off the screen."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from clientcore.change import Change
from tests.support.server.orders import ask, give, operator, refused, token
from tests.support.server.world import OTHER_SCHOOL, SCHOOL, TODAY, Phone, World, open_world

CLASS = "c-3a"
REGISTER = f"{CLASS}/{TODAY}/day"
HOUR_MS, DAY_MS = 3_600_000, 86_400_000
MORNING = {"from": f"{TODAY}T09:30", "until": f"{TODAY}T12:00"}  # the clock starts at 10:00 local time
DAY = {"from": TODAY, "until": TODAY}


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    """A server whose consumer is moved by hand; t3 and t4 have no class."""
    async with open_world(tmp_path / "store.db", background=False) as opened:
        async with opened.db.transaction() as tx:
            await tx.executemany(
                "INSERT INTO users VALUES (?, ?, 'معلم', 'teacher', NULL, NULL, 1, NULL)",
                [(SCHOOL, "t3"), (SCHOOL, "t4")],
            )
        yield opened


async def lend(phone: Phone, to: str = "t3", /, **args: object) -> str:
    """Delegate the class; the id."""
    span = {} if "from" in args else MORNING
    made = await give(
        phone, "delegate", **{"school": SCHOOL, "classes": [CLASS], "to": to, "reason": "ill", **span, **args}
    )
    return str(made["delegations"][CLASS])


async def words(world: World) -> list[tuple[int, str | None]]:
    """State and slug of every change, in log order."""
    await world.settle()
    return [tuple(row) for row in await world.db.fetch_all("SELECT state, slug FROM settlements ORDER BY log_offset")]


async def mark(phone: Phone, register: str = REGISTER, **marks: str) -> Change:
    """Mark and send."""
    change = phone.take(register, marks or {"s001": "P"})
    await phone.sync((register, change))
    return change


def shown(phone: Phone) -> list[str]:
    """The classes on the phone's screen."""
    return [one[0] for one in phone.items("classes")[-1][1]]


async def test_a_substitute_has_the_list_at_once_and_marks(world: World) -> None:
    """From the teacher's tap to the substitute's register: one order and one pull."""
    teacher, substitute = await world.phone("t1"), await world.phone("t3", seed=2)
    assert shown(substitute) == []
    name = await lend(teacher)
    await substitute.pull()
    assert shown(substitute) == [CLASS]
    assert len(substitute.items("roster")[-1][3]) == 40
    await mark(substitute)
    assert await words(world) == [(1, None)]
    row = await world.db.fetch_one("SELECT by_user, to_user, class_id, ended_ms FROM delegations WHERE id = ?", (name,))
    assert row == ("t1", "t3", CLASS, None)
    audit = await world.db.fetch_all("SELECT actor, subject, reason FROM audit WHERE action = 'delegate'")
    assert audit == [(f"user:{SCHOOL}/t1", f"{SCHOOL}/t3", "ill")]


async def test_the_class_leaves_the_screen_when_the_day_is_over(world: World) -> None:
    """Without anybody writing anything: the date alone takes it off, and a planned one brings it on before its day."""
    teacher, substitute = await world.phone("t1"), await world.phone("t3", seed=2)
    await lend(teacher, **{"from": "2026-11-26T08:00", "until": "2026-11-26T11:00"})
    seen = []
    for _ in range(6):  # Sunday to Friday
        await substitute.pull()
        seen.append(shown(substitute))
        world.clock.advance(DAY_MS)
    assert seen == [[], [CLASS], [CLASS], [CLASS], [CLASS], []]


async def test_marks_made_inside_the_span_count_however_late_they_come(world: World) -> None:
    """The substitute had no network for a week."""
    teacher, substitute = await world.phone("t1"), await world.phone("t3", seed=2)
    await lend(teacher)
    frame = substitute.frame([(REGISTER, substitute.take(REGISTER, {"s001": "A"}).chunk)])
    world.clock.advance(7 * DAY_MS)
    await substitute.send([frame])
    assert await words(world) == [(1, None)]
    assert [event["data"]["code"] for event in await world.events()] == ["absent"]


async def test_outside_the_span_nothing_counts(world: World) -> None:
    """Yesterday's register, and this one marked after the end, are held; nobody's answer changes."""
    teacher, substitute = await world.phone("t1"), await world.phone("t3", seed=2)
    await lend(teacher)
    await mark(substitute, f"{CLASS}/2026-11-19/day")
    world.clock.advance(3 * HOUR_MS)
    substitute.taken = 180  # 13:00
    await mark(substitute)
    assert await words(world) == [(2, "out-of-scope"), (2, "out-of-scope")]
    assert await world.events() == []


async def test_a_delegation_made_after_the_marks_releases_them(world: World) -> None:
    """First the substitute stood before the class, then somebody thought of the form."""
    substitute, teacher = await world.phone("t3", seed=2), await world.phone("t1")
    await mark(substitute)
    assert await words(world) == [(2, "out-of-scope")]
    assert await world.events() == []
    world.clock.advance(2 * DAY_MS)
    await lend(teacher)
    assert await words(world) == [(1, None)]
    assert len(await world.events()) == 1


async def test_ended_early_it_ends_now(world: World) -> None:
    """What was marked before counts; what comes later is held; the class leaves the screen with the next pull."""
    teacher, substitute = await world.phone("t1"), await world.phone("t3", seed=2)
    name = await lend(teacher, **DAY)
    await mark(substitute)
    world.clock.advance(HOUR_MS)
    done = await give(teacher, "delegation-end", id=name, reason="back")
    assert done["ended_ms"] == world.clock.wall_ms()
    await substitute.pull()
    assert shown(substitute) == []
    substitute.taken = 120
    world.clock.advance(2 * HOUR_MS)
    await mark(substitute, s002="A")
    assert await words(world) == [(1, None), (2, "out-of-scope")]
    again = await give(teacher, "delegation-end", id=name, reason="twice")
    assert again["ended_ms"] == done["ended_ms"]
    assert await world.db.fetch_all("SELECT count(*) FROM audit WHERE action = 'delegation-end'") == [(1,)]


async def test_ending_it_before_it_began_takes_it_all_back(world: World) -> None:
    """Also from marks that came with a wrong clock."""
    teacher, substitute = await world.phone("t1"), await world.phone("t3", seed=2)
    name = await lend(teacher, **{"from": f"{TODAY}T11:00", "until": f"{TODAY}T12:00"})
    await give(teacher, "delegation-end", id=name, reason="not needed")
    world.clock.advance(2 * HOUR_MS)
    substitute.taken = 90
    await mark(substitute)
    assert await words(world) == [(2, "out-of-scope")]


async def test_the_same_wish_twice_is_one_delegation(world: World) -> None:
    """The answer was lost; the phone asks again."""
    teacher = await world.phone("t1")
    assert await lend(teacher) == await lend(teacher)
    assert await world.count("delegations") == 1
    assert await world.db.fetch_all("SELECT count(*) FROM audit WHERE action = 'delegate'") == [(1,)]


@pytest.mark.parametrize(
    ("args", "rule"),
    [
        ({"to": "t1"}, "delegation-self"),
        ({"to": "nobody"}, "delegation-delegate"),
        ({"to": "s001"}, "delegation-delegate"),
        ({"from": "2026-11-22", "until": "2026-11-29"}, "delegation-length"),
        ({"from": f"{TODAY}T11:00", "until": f"{TODAY}T11:00"}, "delegation-span"),
        ({"from": "2026-11-15", "until": "2026-11-15"}, "delegation-late"),
        ({"from": "2027-03-15", "until": "2027-03-15"}, "delegation-ahead"),
    ],
)
async def test_every_refusal_names_its_rule(world: World, args: dict[str, str], rule: str) -> None:
    """With the limit and who can do it, in both languages; and nothing is written."""
    teacher = await world.phone("t1")
    wish = {"school": SCHOOL, "classes": [CLASS], "to": "t3", "reason": "ill", **MORNING, **args}
    assert (await refused(teacher, "delegate", **wish))["rule"] == rule
    assert await world.count("delegations") == 0


async def test_who_stands_in_cannot_pass_it_on(world: World) -> None:
    """Depth 1, told by name; and a class of somebody else is not lent at all."""
    teacher, substitute, stranger = [await world.phone(user, seed=n) for n, user in enumerate(("t1", "t3", "t4"), 1)]
    await lend(teacher, **DAY)
    wish = {"school": SCHOOL, "classes": [CLASS], "reason": "ill", **MORNING}
    assert (await refused(substitute, "delegate", to="t4", **wish))["rule"] == "delegation-depth"
    assert (await refused(stranger, "delegate", to="t3", **wish))["rule"] == "delegation-right"


async def test_a_champion_lends_any_class_of_the_school_and_no_other(world: World) -> None:
    """When the teacher cannot: the champion has every class of the own school."""
    champion, substitute = await world.phone("ch1"), await world.phone("t3", seed=2)
    await lend(champion)
    await mark(substitute)
    assert await words(world) == [(1, None)]
    wish = {"classes": [CLASS], "to": "t2", "reason": "ill", **MORNING}
    assert (await ask(champion, "delegate", school=OTHER_SCHOOL, **wish)).status_code == 403
    unknown = await ask(champion, "delegate", school=SCHOOL, **{**wish, "classes": ["c-9z"]})
    assert unknown.json()["type"] == "/problems/not-found"


async def test_it_is_ended_by_who_made_it_or_a_champion(world: World) -> None:
    """Not by a colleague, and not by the champion of another school."""
    teacher, colleague, champion = [await world.phone(user, seed=n) for n, user in enumerate(("t1", "t2", "ch1"), 1)]
    name = await lend(teacher)
    stranger = await world.phone("ch1", school=OTHER_SCHOOL, seed=9)
    assert (await refused(colleague, "delegation-end", id=name, reason="x"))["rule"] == "delegation-maker"
    assert (await ask(stranger, "delegation-end", id=name, reason="x")).json()["rule"] == "other-school"
    assert (await give(champion, "delegation-end", id=name, reason="x"))["ended_ms"]


async def test_a_teacher_sees_their_own_delegations_a_champion_all(world: World) -> None:
    """Ids and reasons; the running ones alone when asked so."""
    teacher, substitute, colleague = [await world.phone(user, seed=n) for n, user in enumerate(("t1", "t3", "t2"), 1)]
    champion = await world.phone("ch1", seed=4)
    name = await lend(teacher)
    for phone, expected in ((teacher, [name]), (substitute, [name]), (colleague, []), (champion, [name])):
        listed = await give(phone, "delegations", school=SCHOOL)
        assert [one["id"] for one in listed["delegations"]] == expected
    world.clock.advance(DAY_MS)
    assert (await give(champion, "delegations", school=SCHOOL, running=True))["delegations"] == []
    assert len((await operator(world, "delegations", school=SCHOOL))["delegations"]) == 1


@pytest.mark.parametrize("written", ["tomorrow", "", None, -1, 1 << 60, "2026-13-01", "2026-11-22T25:00", True])
async def test_a_moment_nobody_can_read_is_told(world: World, written: object) -> None:
    """Wrong input is said to be wrong; it is no fault."""
    teacher = await world.phone("t1")
    wish = {"school": SCHOOL, "classes": [CLASS], "to": "t3", "reason": "ill", **MORNING, "from": written}
    assert (await ask(teacher, "delegate", **wish)).json()["type"] == "/problems/bad-request"


@pytest.mark.parametrize("classes", [None, [], "c-3a", [1], ["c"] * 41])
async def test_classes_are_a_list_of_ids(world: World, classes: object) -> None:
    """Wrong input is said to be wrong."""
    wish = {"school": SCHOOL, "classes": classes, "to": "t3", "reason": "ill", **MORNING}
    assert (await ask(await world.phone("t1"), "delegate", **wish)).json()["type"] == "/problems/bad-request"


async def test_a_moment_may_carry_its_offset_or_be_milliseconds(world: World) -> None:
    """The same span in three spellings is the same delegation."""
    teacher = await world.phone("t1")
    first = await lend(teacher)
    assert await lend(teacher, **{"from": f"{TODAY}T07:30:00+00:00", "until": f"{TODAY}T10:00:00+00:00"}) == first
    half_past_seven = 1_795_334_400_000 - HOUR_MS // 2
    assert await lend(teacher, **{"from": half_past_seven, "until": half_past_seven + 5 * HOUR_MS // 2}) == first


async def test_no_token_lends_a_class(world: World) -> None:
    """Only people of the school: the central office and the operator cannot either."""
    central = await token(world, "ministry", "central")
    for headers in ({"authorization": f"Bearer {central}"}, {}):
        reply = await world.http.post(
            "/v1/operator/delegate",
            params={"args": json.dumps({"school": SCHOOL, "classes": [CLASS], "to": "t3", "reason": "x", **MORNING})},
            headers={"content-type": "application/octet-stream", **headers},
        )
        assert (reply.status_code, reply.json()["rule"]) == (403, "role")
