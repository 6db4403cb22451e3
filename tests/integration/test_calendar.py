"""Decisions about the calendar: what was taken is labelled again, amendments go out, no mark is touched."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from clientcore.ports import ManualClock
from reconciliation.model import Outcome, Timeliness
from syncserver.calendar import calendar_of
from syncserver.store.log import read_contact
from syncserver.store.registers import outcome_of
from tests.support.server.phone import Phone
from tests.support.server.world import OTHER_SCHOOL, SCHOOL, World, open_world

CAIRO = ZoneInfo("Africa/Cairo")
DECREE = "decree 1/2026"
DAY_MS = 86_400_000


def at(date: str, time: str = "10:05") -> ManualClock:
    """A clock that shows this in Cairo."""
    return ManualClock(now_ms=int(datetime.fromisoformat(f"{date}T{time}").replace(tzinfo=CAIRO).timestamp() * 1000))


@pytest.fixture
async def world(tmp_path: Path, request: pytest.FixtureRequest) -> AsyncIterator[World]:
    """A server whose consumer is moved by hand, on the day the test names."""
    clock = getattr(request, "param", None) or ManualClock()
    async with open_world(tmp_path / "store.db", background=False, clock=clock) as opened:
        yield opened


def on(date: str, time: str = "10:05") -> pytest.MarkDecorator:
    """The test's world opens at this moment."""
    return pytest.mark.parametrize("world", [at(date, time)], indirect=True, ids=[date])


async def take(phone: Phone, register: str, marks: dict[str, str], *, days_later: int = 0) -> None:
    """Take a register at 10:00 of its date, or of a later one, and send it."""
    phone.taken = days_later * 1_440
    await phone.sync((register, phone.take(register, marks)))


async def outcome(world: World, register: str, school: str = SCHOOL) -> Outcome:
    """What is official of `class/date/session`."""
    class_id, date, session = register.split("/")
    stored = await outcome_of(world.db, (school, class_id, date, session))
    assert stored is not None
    return stored.outcome


async def decide(world: World, order: str = "calendar", /, **args: object) -> dict[str, Any]:
    """Decide and settle what follows."""
    done: dict[str, Any] = await world.order(order, **{"reason": "holiday", "reference": DECREE, **args})
    await world.settle()
    return done


async def place(world: World, **governorates: str) -> None:
    """Put the two schools into governorates."""
    for school, name in zip((SCHOOL, OTHER_SCHOOL), governorates.values(), strict=True):
        await decide(world, "place", school=school, district="d1", governorate=name)


async def waiting(world: World) -> set[tuple[str, ...]]:
    """Registers that wait to be settled again."""
    rows = await world.db.fetch_all("SELECT school, class_id, date, session FROM settle_again")
    return {tuple(map(str, row)) for row in rows}


async def sessions_in_use(world: World, sessions: Sequence[str]) -> None:
    """Both schools use these."""
    async with world.db.transaction() as tx:
        await tx.execute("UPDATE schools SET sessions = ?, roster_version = roster_version + 1", (" ".join(sessions),))


@on("2026-10-06")
async def test_a_holiday_declared_late_labels_and_amends_and_touches_no_mark(world: World) -> None:
    """6 October is opened, registers are taken, the holiday is declared after all, and taken back again."""
    await decide(world, date="2026-10-06", open=True, reason="make_up_day")
    phone, register = await world.phone(), "c-3a/2026-10-06/day"
    assert all(day != "2026-10-06" for day, _ in phone.items("calendar")[-1][3])
    await take(phone, register, {"s001": "A", "s002": "P"})
    await world.settle()
    taken = await outcome(world, register)
    assert (taken.closed, taken.labels, taken.answers["s001"].labels) == (None, (), ())
    world.clock.advance(DAY_MS)
    log = await world.db.fetch_all("SELECT * FROM changes")
    told = len(await world.events())

    closed_by = await decide(world, date="2026-10-06", open=False, reason="armed_forces_day")
    closed = await outcome(world, register)
    assert (closed.closed, closed.labels) == ("armed_forces_day", ("calendar",))
    assert {pupil: answer.code for pupil, answer in closed.answers.items()} == {
        pupil: answer.code for pupil, answer in taken.answers.items()
    }
    amended = (await world.events())[told:]
    assert [(e["type"], e["data"]["pupil"], e["data"]["changed"], e["data"]["labels"]) for e in amended] == [
        ("eg.hudur.mark.amended.v1", pupil, ["labels"], ["calendar"]) for pupil in ("s001", "s002")
    ]
    await phone.pull()
    assert ["2026-10-06", "armed_forces_day"] in phone.items("calendar")[-1][3]
    assert [slug for _, slug in phone.settled().values()] == ["calendar"]

    await decide(world, date="2026-10-06", open=True, reason="make_up_day")
    assert await outcome(world, register) == taken
    assert [e["data"]["labels"] for e in (await world.events())[told + 2 :]] == [[], []]
    assert await world.db.fetch_all("SELECT * FROM changes") == log
    row = await world.db.fetch_one(
        "SELECT reason, before_json, after_json FROM audit WHERE id = ?", (closed_by["audit"],)
    )
    assert row is not None
    before, after = json.loads(row[1]), json.loads(row[2])
    assert (row[0], after["reference"]) == ("armed_forces_day", DECREE)
    assert before["days"]["2026-10-06"]["is_open"] is True
    assert after["days"]["2026-10-06"] == {"is_open": False, "reason": "armed_forces_day", "reference": DECREE}


@on("2026-11-21")
async def test_a_governorate_may_teach_on_saturdays(world: World) -> None:
    """Its schools' registers of past Saturdays lose the label, those of the next governorate keep it."""
    await place(world, first="eg-mn", second="eg-asy")
    phones = {SCHOOL: await world.phone(), OTHER_SCHOOL: await world.phone(school=OTHER_SCHOOL, seed=2)}
    register = "c-3a/2026-11-21/day"
    for phone in phones.values():
        await take(phone, register, {"s001": "A"})
    await world.settle()
    assert (await outcome(world, register)).closed == "weekend"
    days = ["sat", "sun", "mon", "tue", "wed", "thu"]
    await world.order("calendar-week", scope="eg-mn", days=days, reference=DECREE, **{"from": "2026-11-21"})
    assert await waiting(world) == {(SCHOOL, "c-3a", "2026-11-21", "day")}
    await world.settle()
    assert (await outcome(world, register)).labels == ()
    assert (await outcome(world, register, OTHER_SCHOOL)).labels == ("calendar",)
    for phone in phones.values():
        await phone.pull()
    weekends = {school: [day for day, _ in phone.items("calendar")[-1][3]] for school, phone in phones.items()}
    assert "2026-11-14" in weekends[SCHOOL]
    assert "2026-11-28" not in weekends[SCHOOL]
    assert "2026-11-28" in weekends[OTHER_SCHOOL]
    ended = await decide(world, "calendar-week", end=1)
    assert (ended["scope"], (await outcome(world, register)).closed) == ("eg-mn", "weekend")


@on("2026-11-22")
async def test_a_school_that_moves_to_another_governorate_is_settled_under_its_calendar(world: World) -> None:
    """Placing a school is a decision about its calendar: its registers follow, and nobody else's."""
    await place(world, first="eg-mn", second="eg-asy")
    await decide(world, scope="eg-asy", date="2026-11-22", open=False, reason="weather")
    phone, register = await world.phone(), "c-3a/2026-11-22/day"
    await take(phone, register, {"s001": "P"})
    await world.settle()
    assert (await outcome(world, register)).closed is None
    await decide(world, "place", school=SCHOOL, district="d9", governorate="eg-asy")
    assert (await outcome(world, register)).closed == "weather"
    await decide(world, "place", school=SCHOOL, district="d8", governorate="eg-asy")  # the same calendar
    assert await waiting(world) == set()


REGULAR = [["am1", "08:00", "08:45", "09:30"], ["am2", "08:45", "09:30", "10:15"], ["am3", "09:30", "10:15", "11:00"]]
RAMADAN = [["am1", "09:30", "10:00", "11:00"], ["am2", "10:00", "10:30", "11:30"]]


@on("2027-02-08")
async def test_ramadan_makes_nobody_late_and_expects_no_session_that_does_not_exist(world: World) -> None:
    """A register at ten is an adjustment by the regular hours, on time by Ramadan's, also when those come later."""
    await sessions_in_use(world, ("am1", "am2", "am3"))
    year = {"from": "2026-09-20", "to": "2027-06-10"}
    await decide(world, "timetable", kind="regular", sessions=REGULAR, **year)
    phone, register = await world.phone(), "c-3a/2027-02-08/am1"
    await take(phone, register, {"s001": "P", "s002": "L:10"})
    await world.settle()
    assert (await outcome(world, register)).labels == ("window-closed",)
    assert (await outcome(world, register)).answers["s001"].code is None  # it waits for an approval

    span = {"from": "2027-02-08", "to": "2027-03-09"}
    made = await decide(world, "timetable", kind="ramadan", sessions=RAMADAN, provisional=True, **span)
    found = await outcome(world, register)
    assert found.labels == ()
    assert {found.answers[pupil].timeliness for pupil in ("s001", "s002")} == {Timeliness.ON_TIME}
    words = {pupil: answer.code and answer.code.word for pupil, answer in found.answers.items()}
    assert (words.pop("s001"), words.pop("s002"), set(words.values())) == ("present", "late", {None})
    calendar = await calendar_of(world.db, SCHOOL, "Africa/Cairo", 2027)
    assert calendar.sessions_on("2027-02-08") == ("am1", "am2")
    assert calendar.sessions_on("2027-03-10") == ("am1", "am2", "am3")
    table = calendar.timetable("2027-02-08")
    assert table is not None
    assert (table.provisional, table.reference) == (True, DECREE)

    seen = {"from": "2027-02-09", "to": "2027-03-10"}  # the moon was seen a day later
    await decide(world, "timetable", kind="ramadan", sessions=RAMADAN, replaces=made["id"], **seen)
    assert (await outcome(world, register)).labels == ("window-closed",)
    calendar = await calendar_of(world.db, SCHOOL, "Africa/Cairo", 2027)
    assert calendar.sessions_on("2027-02-08") == ("am1", "am2", "am3")
    assert calendar.sessions_on("2027-03-10") == ("am1", "am2")


@on("2027-03-01")
async def test_a_session_that_ramadan_does_not_have_is_kept_when_somebody_takes_it(world: World) -> None:
    """The register of a lesson that does not exist has the whole day as its window: on time, without a label."""
    await sessions_in_use(world, ("am1", "am2", "am3"))
    span = {"from": "2027-02-08", "to": "2027-03-09"}
    await decide(world, "timetable", kind="ramadan", sessions=RAMADAN, **span)
    phone, register = await world.phone(), "c-3a/2027-03-01/am3"
    assert phone.items("calendar")[-1][4] == ["am1", "am2"]
    await take(phone, register, {"s001": "A"})
    await world.settle()
    found = await outcome(world, register)
    assert (found.labels, found.answers["s001"].timeliness) == ((), Timeliness.ON_TIME)


@pytest.mark.parametrize(
    ("date", "days_later", "changed"),
    [("2026-10-04", 4, "2026-10-06"), ("2026-11-18", 6, "2026-11-19"), ("2026-10-27", 6, "2026-10-28"),
     ("2027-04-27", 6, "2027-04-28")],
    ids=["holiday", "weekend", "end of summer time", "beginning of summer time"],
)  # fmt: skip
async def test_three_working_days_move_with_the_calendar(
    tmp_path: Path, date: str, days_later: int, changed: str
) -> None:
    """A correction on the third working day waits for the school; with one closed day less it is locked, and back."""
    moment = at(date)
    moment.advance(days_later * DAY_MS)
    async with open_world(tmp_path / "store.db", background=False, clock=moment) as world:
        was_open = changed != "2026-10-06"
        phone, register = await world.phone(), f"c-3a/{date}/day"
        if was_open:
            await decide(world, date=changed, open=False)
        await take(phone, register, {"s001": "A"}, days_later=days_later)
        await world.settle()
        labels = []
        for is_open in (True, False):
            (state,) = (await outcome(world, register)).changes.values()
            labels.append(state.slug)
            await decide(world, date=changed, open=is_open)
        (state,) = (await outcome(world, register)).changes.values()
        assert [*labels, state.slug] == ["window-closed", "adjustment-locked", "window-closed"]


@on("2026-11-22")
async def test_every_decision_that_concerns_a_school_is_told_to_its_phones(world: World) -> None:
    """The version rises with each, also when an exception is taken back; another governorate's decision is no news."""
    await place(world, first="eg-mn", second="eg-asy")
    phone = await world.phone()
    versions, items = [], []

    async def look() -> None:
        contact = await read_contact(world.db, phone.me.device)
        assert contact is not None
        await phone.pull()
        versions.append(contact.calendar_version)
        items.append(phone.items("calendar")[-1][1])

    await look()
    for act in (
        {"date": "2026-12-01", "open": False},
        {"date": "2026-12-01", "open": False, "scope": "eg-mn", "reason": "weather"},
        {"date": "2026-12-01", "clear": True, "scope": "eg-mn"},
        {"date": "2026-12-01", "clear": True},
    ):
        await decide(world, **act)
        await look()
    assert versions == sorted(set(versions))
    assert (items[0], items[1], len(set(items))) == (items[4], items[3], 3)
    await decide(world, scope="eg-asy", date="2026-12-02", open=False)
    await look()
    assert (versions[-1], items[-1]) == (versions[-2], items[-2])
    await decide(world, "place", school=SCHOOL, district="d1", governorate="eg-asy")
    await look()
    assert versions[-1] > versions[-2]
    assert ["2026-12-02", "holiday"] in phone.items("calendar")[-1][3]


@on("2026-11-22")
async def test_only_registers_of_the_dates_and_schools_in_question_are_settled_again(world: World) -> None:
    """A closed day of one governorate concerns its registers of that day, and requests within three days of it."""
    await place(world, first="eg-mn", second="eg-asy")
    for n, school in enumerate((SCHOOL, OTHER_SCHOOL)):
        phone = await world.phone(school=school, seed=n)
        for date in ("2026-11-16", "2026-11-17", "2026-11-18", "2026-11-19", "2026-11-22"):
            await take(
                phone, f"c-3a/{date}/day", {"s001": "P"}
            )  # captured that day, received on the 22nd: late arrivals
        await take(phone, "c-3b/2026-11-18/day", {"s001": "P"}, days_later=4)  # an adjustment
        await take(phone, "c-3b/2026-11-16/day", {"s001": "P"}, days_later=6)
    await world.settle()
    await world.order("calendar", scope="eg-mn", date="2026-11-22", open=False, reason="weather", reference=DECREE)
    assert await waiting(world) == {
        (SCHOOL, "c-3a", "2026-11-22", "day"),
        (SCHOOL, "c-3b", "2026-11-18", "day"),  # Thursday, Sunday, Monday: the 22nd lies between
    }


@on("2026-11-22")
async def test_silence_is_counted_in_the_school_days_of_the_school(world: World) -> None:
    """Three days without contact are none when the governorate was closed."""
    await place(world, first="eg-mn", second="eg-asy")
    for school in (SCHOOL, OTHER_SCHOOL):
        await world.phone(school=school, seed=len(school) + ord(school[-1]))
    world.clock.advance(3 * DAY_MS)
    await decide(world, scope="eg-mn", date="2026-11-23", to="2026-11-25", open=False, reason="weather")
    silent = {
        school: (await world.order("devices", school=school))["devices"][0]["school_days_silent"]  # type: ignore[index]
        for school in (SCHOOL, OTHER_SCHOOL)
    }
    assert silent == {SCHOOL: 0, OTHER_SCHOOL: 3}
