"""Rights over time: a real roster import changes who teaches, who is a pupil, who is champion; the past stays judged by
its own day.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from clientcore.exchange import write_sync
from syncserver.roster import import_zip
from syncserver.store.roster import entitled_users, roster_on
from tests.support.rosters import Export
from tests.support.server.world import TODAY, Phone, World, open_world

SCHOOL, CLASS = "sc1", "k1"
TOMORROW = "2026-11-23"
REGISTER = f"{CLASS}/{TODAY}/day"
DAY_MS, HOUR_MS = 86_400_000, 3_600_000
PUPILS = ("p1", "p2")


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    """A server whose consumer is moved by hand."""
    async with open_world(tmp_path / "store.db", background=False) as opened:
        yield opened


def two_teachers() -> Export:
    """The small export with t2 beside t1 in the class."""
    export = Export()
    export.add("users.csv", sourcedId="t2", enabledUser="true", username="t2", givenName="منال", familyName="رزق")
    export.add("roles.csv", sourcedId="r9", userSourcedId="t2", roleType="primary", role="teacher", orgSourcedId=SCHOOL)
    export.add(
        "enrollments.csv",
        sourcedId="e9",
        classSourcedId=CLASS,
        schoolSourcedId=SCHOOL,
        userSourcedId="t2",
        role="teacher",
    )
    return export


async def put(world: World, export: Export, *, on: str) -> None:
    """An import that must change something, and everything it asks to be settled again."""
    report = await import_zip(world.db, export.zip(), dry_run=False, now_ms=world.clock.wall_ms(), on=on)
    assert report["state"] == "applied", report["errors"]
    await world.settle()


async def mark(world: World, phone: Phone, register: str = REGISTER) -> bytes:
    """All pupils present; the name under which the phone is told of the change."""
    change = phone.take(register, dict.fromkeys(PUPILS, "P"))
    await phone.sync((register, change))
    await world.settle()
    return change.hash[:8]


async def words(world: World) -> list[tuple[int, str | None]]:
    """State and slug of every change, in log order."""
    rows = await world.db.fetch_all("SELECT state, slug FROM settlements ORDER BY log_offset")
    return [(row[0], row[1]) for row in rows]


async def kinds(world: World) -> list[str]:
    """The kind of every event of the feed."""
    return [event["type"].split(".")[-2] for event in await world.events()]


async def test_who_leaves_a_class_keeps_the_registers_taken_there(world: World) -> None:
    """A reassignment three days later withdraws nothing, also when something else settles the day again."""
    export = two_teachers()
    await put(world, export, on="2026-11-15")
    phone = await world.phone("t1", school=SCHOOL)
    await mark(world, phone)
    before = await kinds(world)
    world.clock.advance(3 * DAY_MS)
    export.remove("enrollments.csv", "e4")
    await put(world, export, on="2026-11-25")
    export.remove("enrollments.csv", "e2")
    await put(world, export, on="2026-11-25")
    assert await words(world) == [(1, None)]
    assert await kinds(world) == before == ["recorded", "recorded"]


async def test_work_of_the_old_days_counts_when_it_comes_after_the_reassignment(world: World) -> None:
    """Marked on Sunday, moved on Wednesday, sent on Thursday: accepted. Marked on Thursday for Thursday: held."""
    export = two_teachers()
    await put(world, export, on="2026-11-15")
    phone = await world.phone("t1", school=SCHOOL)
    sunday = phone.take(REGISTER, dict.fromkeys(PUPILS, "P"))
    frame = phone.frame([(REGISTER, sunday.chunk)])
    world.clock.advance(3 * DAY_MS)
    export.remove("enrollments.csv", "e4")
    await put(world, export, on="2026-11-25")
    world.clock.advance(DAY_MS)
    await phone.send([frame])
    await mark(world, phone, f"{CLASS}/2026-11-26/day")
    assert await words(world) == [(1, None), (2, "out-of-scope")]


async def test_what_arrives_after_a_person_was_ended_is_held_whatever_its_day(world: World) -> None:
    """Also from a class left long before: what had arrived stays, nothing signed later alters an answer."""
    export = two_teachers()
    await put(world, export, on="2026-11-15")
    phone = await world.phone("t1", school=SCHOOL)
    await mark(world, phone)
    late = phone.take(REGISTER, {"p1": "A"})
    world.clock.advance(2 * DAY_MS)
    export.remove("enrollments.csv", "e4")
    await put(world, export, on="2026-11-24")
    world.clock.advance(DAY_MS)
    export.row("roles.csv", "r4")["status"] = "tobedeleted"
    await put(world, export, on="2026-11-25")
    body = phone.frame([(REGISTER, late.chunk)])
    reply = await phone.post("/v1/sync", write_sync([body.raw]))
    assert reply.json()["type"] == "/problems/revoked"
    await world.settle()
    assert await words(world) == [(1, None), (2, "revoked")]
    assert await kinds(world) == ["recorded", "recorded"]


@pytest.mark.parametrize("leaves", ["pupil", "teacher", "person"])
async def test_the_morning_of_the_day_of_an_import_stays(world: World, leaves: str) -> None:
    """Marked at eight, imported at noon: whoever leaves leaves after this day, and tomorrow is without them."""
    export = two_teachers()
    await put(world, export, on="2026-11-15")
    phone = await world.phone("t1", school=SCHOOL)
    await mark(world, phone)
    world.clock.advance(HOUR_MS)
    if leaves == "person":
        export.row("roles.csv", "r4")["status"] = "tobedeleted"
    else:
        export.remove("enrollments.csv", "e2" if leaves == "pupil" else "e4")
    await put(world, export, on=TODAY)
    assert await words(world) == [(1, None)]
    assert await kinds(world) == ["recorded", "recorded"]
    on_roll = {day: await roster_on(world.db, SCHOOL, CLASS, day) for day in (TODAY, TOMORROW)}
    assert on_roll == {TODAY: ["p1", "p2"], TOMORROW: ["p1"] if leaves == "pupil" else ["p1", "p2"]}
    entitled = {day: "t1" in await entitled_users(world.db, SCHOOL, CLASS, day) for day in (TODAY, TOMORROW)}
    assert entitled == {TODAY: True, TOMORROW: leaves == "pupil"}


def becomes(export: Export, source_id: str, role: str) -> Export:
    """Another word in one row of roles.csv."""
    export.row("roles.csv", source_id)["role"] = role
    return export


async def test_a_champions_registers_stay_hers_when_she_becomes_a_teacher(world: World) -> None:
    """The role of the register's day decides: what she marked as champion stays, tomorrow's register is not hers."""
    export = two_teachers()
    await put(world, export, on="2026-11-15")
    phone = await world.phone("c1", school=SCHOOL)
    await mark(world, phone)
    world.clock.advance(2 * DAY_MS)
    await put(world, becomes(export, "r6", "teacher"), on="2026-11-24")
    export.remove("enrollments.csv", "e2")
    await put(world, export, on="2026-11-24")  # settles the class again
    assert await words(world) == [(1, None)]
    assert await kinds(world) == ["recorded", "recorded"]
    world.clock.advance(DAY_MS)
    await mark(world, phone, f"{CLASS}/2026-11-25/day")
    assert await words(world) == [(1, None), (2, "out-of-scope")]


async def test_a_new_champion_has_no_right_to_the_days_before(world: World) -> None:
    """A teacher of another class becomes champion: from today on, and the same export again is no change."""
    export = two_teachers()
    export.remove("enrollments.csv", "e9")
    await put(world, export, on="2026-11-15")
    await put(world, becomes(export, "r9", "siteAdministrator"), on=TODAY)
    again = await import_zip(world.db, export.zip(), dry_run=False, now_ms=world.clock.wall_ms(), on="2026-11-29")
    assert again["state"] == "unchanged"
    entitled = [await entitled_users(world.db, SCHOOL, CLASS, day) for day in ("2026-11-21", TODAY, TOMORROW)]
    assert entitled == [{"t1", "c1"}, {"t1", "c1", "t2"}, {"t1", "c1", "t2"}]


async def test_a_role_given_back_has_a_gap(world: World) -> None:
    """Champion, teacher, champion again: the days between are without the champion's right."""
    export = two_teachers()
    await put(world, export, on="2026-11-15")
    await put(world, becomes(export, "r6", "teacher"), on=TODAY)
    await put(world, becomes(export, "r6", "siteAdministrator"), on="2026-11-25")
    days = ("2026-11-16", TODAY, TOMORROW, "2026-11-24", "2026-11-25", "2026-12-01")
    entitled = ["c1" in await entitled_users(world.db, SCHOOL, CLASS, day) for day in days]
    assert entitled == [True, True, False, False, True, True]


@pytest.mark.parametrize("withdrawn", ["left out", "tobedeleted"])
async def test_enrolments_issued_anew_for_the_second_term_keep_the_first(world: World, withdrawn: str) -> None:
    """New enrolment ids with a later first day, for everybody at once: no past register loses its pupils or teacher."""
    export = two_teachers()
    export.row("roles.csv", "r6")["beginDate"] = "2026-09-19"
    await put(world, export, on="2026-11-15")
    await mark(world, await world.phone("t1", school=SCHOOL))
    by_champion = f"{CLASS}/2026-11-19/day"
    await mark(world, await world.phone("c1", school=SCHOOL, seed=2), by_champion)
    world.clock.advance(DAY_MS)
    for row in list(export["enrollments.csv"]):
        export.add("enrollments.csv", **{**row, "sourcedId": f"{row['sourcedId']}-2", "beginDate": TOMORROW})
        if withdrawn == "left out":
            export["enrollments.csv"].remove(row)
        else:
            row["status"] = "tobedeleted"
    export.row("roles.csv", "r6")["beginDate"] = TOMORROW
    export.remove("enrollments.csv", "e2-2")  # and one pupil has left, so that the class is settled again
    await put(world, export, on=TOMORROW)
    assert await words(world) == [(1, None), (1, None)]
    assert await kinds(world) == ["recorded"] * 4
    again = await import_zip(world.db, export.zip(), dry_run=False, now_ms=world.clock.wall_ms(), on="2026-11-29")
    assert again["state"] == "unchanged"


async def test_a_first_day_upstream_corrects_to_an_earlier_one_moves(world: World) -> None:
    """And one that has not come yet moves either way."""
    export = two_teachers()
    export.row("enrollments.csv", "e9")["beginDate"] = "2026-12-01"
    await put(world, export, on=TODAY)
    seen = []
    for said in ("2026-12-06", "2026-11-16"):
        export.row("enrollments.csv", "e9")["beginDate"] = said
        await put(world, export, on=TODAY)
        days = ("2026-11-15", "2026-11-16", "2026-12-01", "2026-12-06")
        seen.append(["t2" in await entitled_users(world.db, SCHOOL, CLASS, day) for day in days])
    assert seen == [[False, False, False, True], [False, True, True, True]]
