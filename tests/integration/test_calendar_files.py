"""Calendar files in and out, places, and what is refused: nothing half applied, and every refusal says who can."""

from __future__ import annotations

import json
import warnings
from collections.abc import AsyncIterator
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import httpx
import pytest
from dateutil.rrule import rrulestr
from icalendar import Calendar, Component, Event
from icalendar.prop import vDDDLists, vDDDTypes, vRecur, vUTCOffset

from syncserver.calendar import calendar_of
from tests.integration.test_calendar import DECREE, decide, outcome, place, sessions_in_use, take, waiting
from tests.support.server.desks import central, champion
from tests.support.server.world import OTHER_SCHOOL, SCHOOL, World, open_world

CAIRO = ZoneInfo("Africa/Cairo")
YEAR = [(date(2026, 9, 1) + timedelta(days=n)).isoformat() for n in range(365)]
REGULAR = [["am1", "07:30", "08:15", "10:00"], ["pm1", "12:30", "13:15", None]]
RAMADAN = [["am1", "09:00", "09:30", None], ["pm1", "12:00", "12:30", None]]


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    """A server whose consumer is moved by hand."""
    async with open_world(tmp_path / "store.db", background=False) as opened:
        yield opened


async def ask(world: World, order: str, body: bytes = b"", /, **args: object) -> httpx.Response:
    """An order with a file, as an operator gives it."""
    return await world.http.post(
        f"/v1/operator/{order}",
        params={"args": json.dumps({"reference": DECREE, **args})},
        content=body,
        headers={"content-type": "application/octet-stream"},
    )


async def upload(world: World, order: str, body: bytes, **args: object) -> dict[str, Any]:
    """An order with a file that must be carried out."""
    reply = await ask(world, order, body, **args)
    assert reply.status_code == 200, reply.text
    await world.settle()
    result: dict[str, Any] = reply.json()
    return result


async def file_of(world: World, **params: str) -> bytes:
    """`GET /v1/calendar.ics`, without a token."""
    reply = await world.http.get("/v1/calendar.ics", params=params)
    assert reply.status_code == 200, reply.text
    assert reply.headers["content-type"] == "text/calendar; charset=utf-8"
    return reply.content


async def closed_days(world: World, school: str = SCHOOL) -> dict[str, str]:
    """The closed days of a school year and why."""
    calendar = await calendar_of(world.db, school, "Africa/Cairo", 2026)
    return {day: reason for day in YEAR if (reason := calendar.closed(day)) is not None}


def ics(*lines: str) -> bytes:
    """A file of one event."""
    body = [
        "BEGIN:VCALENDAR",
        "VERSION:2.0",
        "PRODID:-//t//t//EN",
        "BEGIN:VEVENT",
        *lines,
        "END:VEVENT",
        "END:VCALENDAR",
    ]
    return "\r\n".join([*body, ""]).encode()


async def fill(world: World) -> None:
    """Holidays of both layers, an opened day, a Saturday week, two timetables."""
    await place(world, first="eg-mn", second="eg-asy")
    await sessions_in_use(world, ("am1", "pm1"))
    await decide(world, date="2027-01-23", to="2027-02-04", open=False, reason="mid_year_break")
    await decide(world, date="2026-10-06", open=True, reason="make_up_day")
    await decide(world, scope="eg-mn", date="2026-12-01", open=False, reason="weather")
    await decide(world, scope="eg-mn", date="2026-11-27", open=True, reason="make_up_day")
    await decide(world, "timetable", kind="regular", sessions=REGULAR, **{"from": "2026-09-20", "to": "2027-06-10"})
    await decide(
        world, "timetable", kind="ramadan", sessions=RAMADAN, provisional=True,
        **{"from": "2027-02-08", "to": "2027-03-09"},
    )  # fmt: skip


# ---- out --------------------------------------------------------------------------------------------------------


async def test_our_own_file_gives_the_same_closed_days_in_an_empty_store(world: World, tmp_path: Path) -> None:
    """Holidays of both layers, spans, and an official holiday on which there is school after all."""
    await fill(world)
    file = await file_of(world, school=SCHOOL)
    async with open_world(tmp_path / "other.db", background=False) as other:
        assert await closed_days(other) != await closed_days(world)
        done = await upload(other, "calendar-import", file)
        assert (done["state"], len(done["days"])) == ("applied", 17)
        assert await closed_days(other) == await closed_days(world)
        assert (await upload(other, "calendar-import", file))["state"] == "unchanged"
        days = {line for line in (await file_of(other)).splitlines() if line.startswith(b"DTSTART;VALUE=DATE")}
        assert days == {line for line in file.splitlines() if line.startswith(b"DTSTART;VALUE=DATE")}


async def test_the_file_tells_the_sessions_of_every_school_day_and_no_other(world: World) -> None:
    """Expanded by another library, weekly events with their exceptions are the days of the calendar, in local time."""
    await fill(world)
    calendar = await calendar_of(world.db, SCHOOL, "Africa/Cairo", 2026)
    expected = {
        (day, session, time.starts_min, time.ends_min)
        for day in YEAR
        for session in calendar.sessions_on(day)
        if (time := calendar.session_time(day, session)) is not None
    }
    found = set()
    for event in events(await file_of(world, school=SCHOOL)):
        if "RRULE" in event:
            length = moment(event, "DTEND") - moment(event, "DTSTART")
            for start in occurrences(event):
                minute = start.hour * 60 + start.minute
                session = str(event["UID"]).partition("@")[0].rpartition("-")[2]
                found.add((start.date().isoformat(), session, minute, minute + length.seconds // 60))
    assert found == expected
    assert len(expected) > 250


def events(file: bytes) -> list[Event]:
    """The events of a file, which must be valid."""
    parsed = Calendar.from_ical(file)
    assert isinstance(parsed, Calendar)
    assert parsed.errors == []
    found = [event for event in parsed.walk("VEVENT") if isinstance(event, Event)]
    assert all(event.errors == [] for event in found)
    return found


def moment(part: Component, name: str) -> datetime:
    """The moment of `DTSTART` or `DTEND`."""
    value = part[name]
    assert isinstance(value, vDDDTypes)
    assert isinstance(value.dt, datetime)
    return value.dt


def occurrences(event: Event) -> list[datetime]:
    """Every start of a weekly event, by its rule and its exceptions."""
    recurs = event["RRULE"]
    assert isinstance(recurs, vRecur)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        text = recurs.to_ical().decode()  # type: ignore[no-untyped-call]  # the library gives it no types
        rule = rrulestr(text, dtstart=moment(event, "DTSTART"))
    return sorted((set(rule) | moments(event, "RDATE")) - moments(event, "EXDATE"))


def moments(event: Event, name: str) -> set[datetime]:
    """The moments of `EXDATE` or `RDATE`."""
    value = event.get(name)
    assert value is None or isinstance(value, vDDDLists)
    found: set[datetime] = set()
    for one in [] if value is None else value.dts:
        assert isinstance(one.dt, datetime)
        found.add(one.dt)
    return found


def offset(part: Component) -> timedelta:
    """The offset from UTC that a part of a zone leads to."""
    value = part["TZOFFSETTO"]
    assert isinstance(value, vUTCOffset)
    return value.td


async def test_the_file_is_one_of_rfc_5545(world: World) -> None:
    """CRLF, lines of at most 75 bytes, each UID once, Arabic titles, a zone that switches when Cairo does."""
    await fill(world)
    file = await file_of(world, school=SCHOOL)
    lines = file.split(b"\r\n")
    assert lines[0] == b"BEGIN:VCALENDAR"
    assert lines[-2:] == [b"END:VCALENDAR", b""]
    assert b"\n" not in b"".join(lines)
    assert max(map(len, lines)) <= 75
    found = events(file)
    names = [str(event["UID"]) for event in found]
    assert len(set(names)) == len(names)
    titles = {str(event["SUMMARY"]) for event in found}
    assert {
        "إجازة نصف العام",
        "يوم دراسي",
        "الفترة الصباحية، الحصة 1",
        "الفترة المسائية، الحصة 1 (مواعيد رمضان)",
    } <= titles
    assert {str(event["STATUS"]) for event in found if "ramadan" in str(event["UID"])} == {"TENTATIVE"}
    parsed = Calendar.from_ical(file)
    (zone,) = parsed.walk("VTIMEZONE")
    switches = {moment(part, "DTSTART"): offset(part) for part in zone.subcomponents}
    assert switches[datetime(2027, 4, 30)] == timedelta(hours=3)  # noqa: DTZ001
    assert switches[datetime(2026, 10, 30)] == timedelta(hours=2)  # noqa: DTZ001


async def test_the_file_is_the_same_until_somebody_decides(world: World) -> None:
    """Byte for byte, whenever it is asked for; no pupil, teacher or class stands in it."""
    await fill(world)
    first = await file_of(world, school=SCHOOL)
    world.clock.advance(86_400_000)
    assert await file_of(world, school=SCHOOL) == first
    assert not any(word in first for word in (b"s001", b"c-3a", b"t1", "تلميذ".encode(), "معلم".encode()))
    await decide(world, date="2026-12-02", open=False)
    assert await file_of(world, school=SCHOOL) != first


async def test_a_governorate_and_the_country_have_a_file(world: World) -> None:
    """Each tells its own layer; shifts and whole days stand side by side; unknown names are not found."""
    await fill(world)
    await decide(
        world, "timetable", kind="regular", sessions=[["day", "08:00", "13:00", None]],
        **{"from": "2026-09-20", "to": "2027-06-10"},
    )  # fmt: skip
    country, own, other = (
        await file_of(world),
        await file_of(world, governorate="eg-mn"),
        await file_of(world, governorate="eg-asy"),
    )
    assert (b"20261201" in own, b"UID:day-2026-12-01" in country, b"UID:day-2026-12-01" in other) == (
        True,
        False,
        False,
    )
    sessions = {str(event["UID"]).partition("@")[0] for event in events(country) if "RRULE" in event}
    assert {"regular-2026-09-20-day", "regular-2026-09-20-am1", "ramadan-2027-02-08-am1"} <= sessions
    for params, status in (({"school": "eg-99"}, 404), ({"governorate": "eg-99"}, 404), ({"school": "../x"}, 400)):
        assert (await world.http.get("/v1/calendar.ics", params=params)).status_code == status


# ---- in ---------------------------------------------------------------------------------------------------------


async def test_whole_day_events_become_closed_days(world: World) -> None:
    """DTEND is the first day after; the reason is a category that is a slug, else the order's; the rest is left out."""
    file = b"".join(
        (
            b"BEGIN:VCALENDAR\r\nVERSION:2.0\r\nPRODID:-//t//t//EN\r\n",
            "BEGIN:VEVENT\r\nUID:1\r\nSUMMARY:عيد الفطر\r\nDTSTART;VALUE=DATE:20270309\r\nDTEND;VALUE=DATE:20270312\r\n"
            "CATEGORIES:Public Holiday,eid_al_fitr\r\nEND:VEVENT\r\n".encode(),
            b"BEGIN:VEVENT\r\nUID:2\r\nSUMMARY:Sham\r\nDTSTART;VALUE=DATE:20270503\r\nEND:VEVENT\r\n",
            b"BEGIN:VEVENT\r\nUID:3\r\nSUMMARY:Break\r\nDTSTART;VALUE=DATE:20270124\r\nDURATION:P2D\r\nEND:VEVENT\r\n",
            b"BEGIN:VEVENT\r\nUID:4\r\nSUMMARY:Meeting\r\nDTSTART:20270124T090000Z\r\nEND:VEVENT\r\n",
            b"BEGIN:VEVENT\r\nUID:5\r\nSUMMARY:Off\r\nSTATUS:CANCELLED\r\nDTSTART;VALUE=DATE:20270401\r\nEND:VEVENT\r\n",
            b"END:VCALENDAR\r\n",
        )
    )
    dry = await upload(world, "calendar-import", file, dry_run=True, reason="holiday")
    assert (dry["state"], dry["audit"], await world.count("calendar_exceptions")) == ("dry-run", None, 0)
    done = await upload(world, "calendar-import", file, reason="holiday")
    assert (
        done["days"]
        == dry["days"]
        == [
            ["2027-01-24", "closed", "holiday"],
            ["2027-01-25", "closed", "holiday"],
            ["2027-03-09", "closed", "eid_al_fitr"],
            ["2027-03-10", "closed", "eid_al_fitr"],
            ["2027-03-11", "closed", "eid_al_fitr"],
            ["2027-05-03", "closed", "holiday"],
        ]
    )
    assert done["skipped"] == ["Meeting: not a whole day", "Off: cancelled"]
    assert (await closed_days(world))["2027-03-11"] == "eid_al_fitr"
    row = await world.db.fetch_one("SELECT actor, after_json FROM audit WHERE id = ?", (done["audit"],))
    assert row is not None
    assert json.loads(row[1])["reference"] == DECREE


async def test_an_import_labels_what_was_taken(world: World) -> None:
    """A file that comes after the registers does what an order does."""
    phone, register = await world.phone(), "c-3a/2026-11-22/day"
    await take(phone, register, {"s001": "A"})
    await world.settle()
    await upload(world, "calendar-import", ics("UID:1", "SUMMARY:x", "DTSTART;VALUE=DATE:20261122"), reason="weather")
    found = await outcome(world, register)
    assert (found.closed, found.answers["s001"].labels) == ("weather", ("calendar",))


@pytest.mark.parametrize(
    ("file", "why"),
    [
        (b"", "no iCalendar"),
        (b"\xff\xfe\x00", "no iCalendar"),
        (b"BEGIN:VEVENT\r\nDTSTART;VALUE=DATE:20261122\r\nEND:VEVENT\r\n", "BEGIN:VCALENDAR"),
        (b"BEGIN:VCALENDAR\r\nVERSION:2.0\r\nPRODID:x\r\nEND:VCALENDAR\r\n", "no event"),
        (ics("UID:1", "SUMMARY:Bad", "DTSTART;VALUE=DATE:2026139"), "Bad: DTSTART cannot be read"),
        (ics("UID:1", "SUMMARY:None"), "None: DTSTART is missing"),
        (ics("SUMMARY:Yearly", "DTSTART;VALUE=DATE:20261006", "RRULE:FREQ=YEARLY"), "Yearly: it repeats"),
        (ics("SUMMARY:Back", "DTSTART;VALUE=DATE:20261006", "DTEND;VALUE=DATE:20261001"), "Back: DTEND is no date"),
        (ics("SUMMARY:Half", "DTSTART;VALUE=DATE:20261006", "DURATION:PT12H"), "Half: DURATION is no number of days"),
        (ics("SUMMARY:Old", "DTSTART;VALUE=DATE:19991231"), "Old: its dates are not between"),
        (ics("SUMMARY:Long", "DTSTART;VALUE=DATE:20261006", "DTEND;VALUE=DATE:20901006"), "Long: its dates are not"),
        (
            ics("SUMMARY:A", "DTSTART;VALUE=DATE:20261006", "END:VEVENT",
                "BEGIN:VEVENT", "SUMMARY:B", "X-HUDUR-OPEN:TRUE", "DTSTART;VALUE=DATE:20261006"),
            "B: 2026-10-06 is both open and closed",
        ),
        (b"BEGIN:VCALENDAR\r\n" + b"X" * (1 << 20), "over 1 MB"),
    ],
    ids=["empty", "bytes", "event", "none", "broken", "undated", "yearly", "backwards", "half", "old", "long", "both",
         "large"],
)  # fmt: skip
async def test_a_file_that_leaves_a_doubt_is_refused_whole(world: World, file: bytes, why: str) -> None:
    """The answer names the event and what is wrong with it; nothing was applied, nothing stands in the audit."""
    rows = await world.count("audit")
    reply = await ask(world, "calendar-import", file)
    assert (reply.status_code, reply.json()["type"]) == (400, "/problems/bad-request")
    assert why in reply.json()["detail"]
    assert (await world.count("calendar_exceptions"), await world.count("audit")) == (0, rows)


# ---- places -----------------------------------------------------------------------------------------------------


async def test_places_come_from_a_file(world: World) -> None:
    """Unknown schools are listed and left out, what is known already changes nothing; the calendar follows."""
    await decide(world, "place", school=SCHOOL, district="d1", governorate="eg-mn")
    lines = (f"{SCHOOL},d1,eg-mn", f"{OTHER_SCHOOL},d2,eg-asy", "eg-99,d3,eg-asy")
    file = "\r\n".join(("\ufeffschool,district,governorate", *lines)).encode()
    assert (await upload(world, "place", file, dry_run=True))["placed"] == 1
    done = await upload(world, "place", file)
    audit_id = done.pop("audit")
    assert done == {"state": "applied", "placed": 1, "unchanged": 1, "unknown": ["eg-99"], "unknown_count": 1}
    assert (await upload(world, "place", file))["state"] == "unchanged"
    row = await world.db.fetch_one("SELECT subject, after_json FROM audit WHERE id = ?", (audit_id,))
    assert row is not None
    assert (row[0], json.loads(row[1])["places"]) == (OTHER_SCHOOL, {OTHER_SCHOOL: ["d2", "eg-asy"]})
    await decide(world, scope="eg-asy", date="2026-12-01", open=False, reason="weather")
    assert ("2026-12-01" in await closed_days(world), "2026-12-01" in await closed_days(world, OTHER_SCHOOL)) == (
        False,
        True,
    )


@pytest.mark.parametrize(
    ("file", "why"),
    [
        (b"school,governorate\r\n", "the first line reads school,district,governorate"),
        (b"school,district,governorate\r\neg-07-113,d1\r\n", "2"),
        (b"school,district,governorate\r\neg-07-113,d1,g\r\neg-07-113,d1,h\r\n", "3"),
        (b"school,district,governorate\r\n", "none"),
        (b'school,district,governorate\r\n"eg', "no CSV"),
        (b"\xff\xfe", "not UTF-8"),
        (b"school,district,governorate\r\neg-07-113,d1,eg-07-200\r\n", "eg-07-200 is a school, not a governorate"),
    ],
)
async def test_a_file_of_places_that_cannot_be_read_places_nobody(world: World, file: bytes, why: str) -> None:
    """The answer names the lines."""
    reply = await ask(world, "place", file)
    assert reply.status_code == 400
    assert why in reply.json()["detail"]
    assert await world.count("places") == 0


# ---- refusals ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("args", [{"scope": SCHOOL}, {"school": SCHOOL}], ids=["scope", "school"])
@pytest.mark.parametrize("order", ["calendar", "calendar-week", "timetable", "calendar-import"])
async def test_nobody_decides_the_calendar_of_one_school(world: World, order: str, args: dict[str, str]) -> None:
    """Not the central office either: the rule is named in both languages, with who can do what instead."""
    said = await central(world).is_refused(
        order, date="2026-12-01", reason="weather", open=False, reference=DECREE, **args
    )
    assert said["rule"] == "central-only"
    assert said["who"].startswith("central")
    assert "المدارس" in said["ar"]
    assert await world.count("calendar_exceptions") == 0


@pytest.mark.parametrize("order", ["calendar", "calendar-week", "timetable", "calendar-import", "place"])
async def test_a_champion_decides_nothing_about_the_calendar(world: World, order: str) -> None:
    """Nor about where the school lies, which comes to the same."""
    with pytest.raises(Exception, match="forbidden"):
        await champion(world).does(order, school=SCHOOL, reference=DECREE)


SPAN = {"from": "2027-02-08", "to": "2027-03-09"}


@pytest.mark.parametrize(
    ("order", "args", "why"),
    [
        ("calendar", {"date": "2026-12-01", "open": False, "reason": "A storm!"}, "reason is a slug"),
        ("calendar", {"date": "2026-12-01", "open": False, "reason": "x" * 25}, "reason is a slug"),
        ("calendar", {"date": "2026-02-30", "open": False, "reason": "x"}, "date is a date"),
        ("calendar", {"date": "1926-12-01", "open": False, "reason": "x"}, "date is a date"),
        ("calendar", {"date": "2026-12-01", "to": "2026-11-30", "open": False, "reason": "x"}, "to is a date"),
        ("calendar", {"date": "2026-12-01", "to": "2028-11-30", "open": False, "reason": "x"}, "to is a date"),
        ("calendar", {"date": "2026-12-01", "reason": "x"}, "open is true or false"),
        ("calendar", {"date": "2026-12-01", "open": True, "reason": "x", "reference": " "}, "reference is missing"),
        ("calendar-week", {"days": ["noon"], "from": "2026-12-01"}, "days is a list"),
        ("calendar-week", {"days": ["sun"], "from": "2026-12-01", "to": "2026-11-01"}, "a later end"),
        ("timetable", {"kind": "ramadan", "sessions": [], **SPAN}, "sessions is a list"),
        ("timetable", {"kind": "ramadan", "sessions": ["day"], **SPAN}, "a session is"),
        ("timetable", {"kind": "ramadan", "sessions": [["day", "9", "10:00"]], **SPAN}, "a time reads HH:MM"),
        ("timetable", {"kind": "ramadan", "sessions": [["day", "10:00", "09:00"]], **SPAN}, "starts, ends and closes"),
        ("timetable", {"kind": "ramadan", "sessions": [["day", "09:00", "24:00"]], **SPAN, "to": "2027-02-01"},
         "a later end"),
    ],
)  # fmt: skip
async def test_what_cannot_be_read_is_refused_in_words(
    world: World, order: str, args: dict[str, object], why: str
) -> None:
    """Nothing is applied and nothing stands in the audit."""
    rows = await world.count("audit")
    reply = await ask(world, order, **args)
    assert (reply.status_code, reply.json()["type"]) == (400, "/problems/bad-request")
    assert why in reply.json()["detail"]
    assert await world.count("audit") == rows


@pytest.mark.parametrize(
    ("order", "args"),
    [
        ("calendar", {"date": "2026-12-01", "open": False, "reason": "x", "scope": "eg-nowhere"}),
        ("place", {"school": "eg-99", "district": "d", "governorate": "g"}),
        ("timetable", {"end": 7}),
        ("calendar-week", {"end": 7}),
        ("timetable", {"kind": "ramadan", "sessions": RAMADAN, "replaces": 7, **SPAN}),
    ],
)
async def test_what_does_not_exist_is_not_found(world: World, order: str, args: dict[str, object]) -> None:
    """A misspelt governorate closes no school in silence."""
    assert (await ask(world, order, **args)).status_code == 404
    assert await waiting(world) == set()
    assert await world.count("timetables") == 0
