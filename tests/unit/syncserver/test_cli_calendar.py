"""`hudur calendar` and `hudur school`, on a store that no server runs on (tests/process runs them through one)."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from syncserver.cli import main
from syncserver.store.sqlite import open_sqlite
from tests.support.server.world import OTHER_SCHOOL, SCHOOL, make_school

DECREE = ("--reference", "decree 1")


@pytest.fixture
def store(tmp_path: Path) -> str:
    """`--store` of a store with two schools."""

    async def fill() -> None:
        db = await open_sqlite(tmp_path / "store.db")
        await make_school(db)
        await make_school(db, OTHER_SCHOOL)
        await db.close()

    asyncio.run(fill())
    return f"sqlite:{tmp_path / 'store.db'}"


def run(store: str, *words: str) -> Result:
    """One command, as a person sees it."""
    return CliRunner().invoke(main, [*words, "--store", store])


def told(store: str, *words: str) -> Any:
    """One command with --json; what it prints."""
    result = run(store, *words, "--json")
    assert result.exit_code == 0, result.output
    return json.loads(result.output)


def days(store: str, first: str, last: str) -> dict[str, Any]:
    """`hudur calendar show`, by date."""
    found = told(store, "calendar", "show", SCHOOL, "--from", first, "--to", last)
    return {day["date"]: day for day in found["days"]}


def test_a_calendar_is_decided_and_shown(store: str, tmp_path: Path) -> None:
    """Places, a Saturday week, a closed span, Ramadan, a file: what was decided is what `show` and `list` say."""
    places = tmp_path / "places.csv"
    places.write_text(f"school,district,governorate\n{SCHOOL},d1,eg-mn\n")
    assert told(store, "school", "place", "--file", str(places), *DECREE)["placed"] == 1
    assert (
        told(store, "school", "place", OTHER_SCHOOL, "--district", "d2", "--governorate", "eg-asy", *DECREE)["placed"]
        == 1
    )
    here = ("--governorate", "eg-mn", *DECREE)
    week = told(
        store, "calendar", "week", "sat,sun,mon,tue,wed,thu", "--from", "2027-02-06", "--to", "2027-02-28", *here
    )
    told(store, "calendar", "close", "2027-02-16", "--to", "2027-02-17", "--reason", "weather", *here)
    table = told(
        store, "calendar", "timetable", "ramadan", "--from", "2027-02-08", "--to", "2027-03-09", "--provisional",
        "--session", "day=09:00-13:00/14:30", *DECREE,
    )  # fmt: skip
    found = days(store, "2027-02-06", "2027-03-10")
    assert (found["2027-02-06"]["closed"], found["2027-02-06"]["sessions"][0]["starts"]) == (None, None)
    assert found["2027-02-13"]["sessions"] == [
        {"session": "day", "starts": "09:00", "ends": "13:00", "closes": "14:30"}
    ]
    assert (found["2027-02-13"]["timetable"], found["2027-02-13"]["provisional"]) == ("ramadan", True)
    assert (found["2027-02-17"]["closed"], found["2027-02-17"]["reference"], found["2027-02-17"]["sessions"]) == (
        "weather", "decree 1", [],
    )  # fmt: skip
    assert (found["2027-03-06"]["closed"], found["2027-03-10"]["timetable"]) == ("weekend", None)
    listed = told(store, "calendar", "list")
    assert ([one["id"] for one in listed["weeks"]], [one["kind"] for one in listed["timetables"]]) == ([1], ["ramadan"])
    assert [one["date"] for one in listed["dates"]] == ["2027-02-16", "2027-02-17"]

    told(store, "calendar", "clear", "2027-02-16", "--reason", "weather", *here)
    told(store, "calendar", "end", "week", str(week["id"]), *DECREE)
    told(store, "calendar", "end", "timetable", str(table["id"]), *DECREE)
    found = days(store, "2027-02-13", "2027-02-16")
    assert (found["2027-02-13"]["closed"], found["2027-02-16"]["closed"]) == ("weekend", None)
    assert found["2027-02-16"]["timetable"] is None


def test_a_file_of_holidays_is_imported(store: str, tmp_path: Path) -> None:
    """First dry, then in earnest; people read what was left out."""
    file = tmp_path / "holidays.ics"
    event = "BEGIN:VEVENT\r\nSUMMARY:{}\r\nDTSTART{}\r\nEND:VEVENT\r\n"
    timed = "".join(event.format(f"[call] {n}", ":20270503T090000Z") for n in range(21))
    file.write_text(
        "BEGIN:VCALENDAR\r\nVERSION:2.0\r\nPRODID:-//t//t//EN\r\n"
        + event.format("Sham", ";VALUE=DATE:20270503")
        + timed
        + "END:VCALENDAR\r\n"
    )
    assert told(store, "calendar", "import", str(file), "--dry-run", *DECREE)["state"] == "dry-run"
    shown = run(store, "calendar", "import", str(file), "--reason", "sham_el_nessim", *DECREE).output
    assert "applied: 1 days change" in shown
    assert "left out: [call] 0: not a whole day" in shown
    assert "left out in all: 21" in shown
    assert days(store, "2027-05-03", "2027-05-03")["2027-05-03"]["closed"] == "sham_el_nessim"


def test_people_read_tables(store: str) -> None:
    """Every command speaks without --json too."""
    assert "Nothing was decided" in run(store, "calendar", "list").output
    closed = run(store, "calendar", "close", "2026-12-01", "--reason", "weather", *DECREE).output
    assert closed.startswith("2026-12-01 to 2026-12-01: closed (audit")
    shown = run(store, "calendar", "show", SCHOOL, "--from", "2026-11-27", "--to", "2026-12-01").output
    assert all(word in shown for word in ("no governorate", "weekend", "weather", "decree 1", "open"))
    assert "weather" in run(store, "calendar", "list").output
    place = run(store, "school", "place", SCHOOL, "--district", "d1", "--governorate", "eg-mn", *DECREE).output
    assert place == "applied: 1 placed, 0 were there already\n"
    today = run(store, "calendar", "show", SCHOOL)
    assert (today.exit_code, today.output.count("\n") > 14) == (0, True)


@pytest.mark.parametrize(
    ("words", "status", "why"),
    [
        (("calendar", "show", "eg-99"), 1, "no such school"),
        (("calendar", "show", SCHOOL, "--from", "soon"), 1, "no date"),
        (("calendar", "close", "2026-12-01", "--reason", "weather"), 2, "--reference"),
        (
            ("calendar", "close", "2026-12-01", "--reason", "weather", "--governorate", SCHOOL, *DECREE),
            1,
            "never for one school",
        ),
        (
            (
                "calendar",
                "timetable",
                "ramadan",
                "--from",
                "2027-02-08",
                "--to",
                "2027-03-09",
                "--session",
                "day",
                *DECREE,
            ),
            2,
            "START-END",
        ),
        (("school", "place", SCHOOL, *DECREE), 2, "--governorate"),
        (("calendar", "end", "week", "7", *DECREE), 1, "none of that number"),
    ],
)
def test_refusals_are_told_in_words(store: str, words: tuple[str, ...], status: int, why: str) -> None:
    """Exit code 1 for what cannot be done, 2 for wrong usage."""
    result = run(store, *words)
    assert (result.exit_code, why in result.output) == (status, True), result.output
