"""`hudur calendar` and `hudur school`: the school calendar, as the central office decides it and as one school has it.

Every decision needs its reference (a decree, a circular). It holds for every school or for a governorate.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from datetime import date as Date
from datetime import timedelta
from pathlib import Path
from typing import Any

import click
from rich.console import Console

from clientcore.errors import BadInput
from clientcore.ports import SystemClock
from reconciliation.calendar import SchoolCalendar
from syncserver.calendar import calendar_of, local_date
from syncserver.cli import _do, _order, _print, _read, _table, json_option, store_option
from syncserver.config import read_config, store_address
from syncserver.operator import Operator
from syncserver.store import calendars
from syncserver.store.port import Reader

_SESSION = re.compile(r"([a-z]+[1-8]?)=(\d?\d:\d\d)-(\d?\d:\d\d)(?:/(\d?\d:\d\d))?")
_DAYS_SHOWN = 14
_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)

governorate_option = click.option("--governorate", default="*", help="Only for the schools of this one [every school].")
reference_option = click.option("--reference", required=True, help="The decree or circular it rests on; for the audit.")
dry_run_option = click.option("--dry-run", is_flag=True, help="Say what would change; write nothing.")


@click.group("calendar")
def calendar() -> None:
    """School days, holidays, weeks and timetables. Marks are never touched, only labelled."""


@calendar.command("show")
@click.argument("school")
@click.option("--from", "first", help="First date, YYYY-MM-DD [today].")
@click.option("--to", "last", help="Last date [13 days later].")
@store_option
@json_option
def show_(school: str, first: str | None, last: str | None, store: str, as_json: bool) -> None:
    """Show the days of SCHOOL: open or closed and why, with the sessions and their times."""
    config = read_config(os.environ, store=store)
    today = local_date(SystemClock().wall_ms(), config.zone)

    async def look(reader: Reader) -> dict[str, Any]:
        if await reader.fetch_one("SELECT 1 FROM schools WHERE school = ?", (school,)) is None:
            raise BadInput("not-found", f"{school}: no such school")
        start = _date(first) if first else today
        end = _date(last) if last else start + timedelta(days=_DAYS_SHOWN - 1)
        place = await calendars.place_of(reader, school)
        found = await calendar_of(reader, school, config.zone, start.year)
        days = [(start + timedelta(days=n)).isoformat() for n in range(min((end - start).days + 1, 800))]
        return {
            "school": school,
            "governorate": place.governorate,
            "district": place.district,
            "days": [day_told(found, day) for day in days],
        }

    _print(_read(store, look), as_json, _show_days)


def day_told(found: SchoolCalendar, day: str) -> dict[str, Any]:
    """One day as plain data."""
    closed, table, rule = found.closed(day), found.timetable(day), found.days.get(day)
    times = {} if table is None else {one.session: one for one in table.sessions}
    sessions = []
    for name in found.sessions_on(day):
        time = times.get(name)
        closes = None if time is None else time.closes_min
        sessions.append(
            {
                "session": name,
                "starts": None if time is None else _hour(time.starts_min),
                "ends": None if time is None else _hour(time.ends_min),
                "closes": None if closes is None else _hour(closes),
            }
        )
    return {
        "date": day,
        "weekday": Date.fromisoformat(day).strftime("%a").lower(),
        "closed": closed,
        "reference": None if rule is None else rule.reference,
        "timetable": None if table is None else table.kind,
        "provisional": table is not None and table.provisional,
        "sessions": sessions,
    }


def _show_days(value: dict[str, Any], console: Console) -> None:
    place = value["governorate"] or "no governorate: the calendar of every school holds"
    console.print(f"{value['school']}, {place}", markup=False)
    rows: list[tuple[object, ...]] = []
    for day in value["days"]:
        kind = f"{day['timetable'] or ''}{' (provisional)' if day['provisional'] else ''}"
        times = ", ".join(
            one["session"] if one["starts"] is None else f"{one['session']} {one['starts']}-{one['ends']}"
            for one in day["sessions"]
        )
        rows.append((day["date"], day["weekday"], day["closed"] or "open", times, kind, day["reference"]))
    console.print(_table(("date", "", "school", "sessions", "timetable", "reference"), rows))


@calendar.command("list")
@store_option
@json_option
def list_(store: str, as_json: bool) -> None:
    """List every decision in force: weeks and timetables with their numbers, dates that differ."""

    def show(value: dict[str, Any], console: Console) -> None:
        for name, rows in value.items():
            if rows:
                console.print(name)
                console.print(_table(tuple(rows[0]), [tuple(row.values()) for row in rows]))
        if not any(value.values()):
            console.print("Nothing was decided: Sunday to Thursday, and the holidays of the plan.")

    _print(_read(store, calendars.read_decided), as_json, show)


# ---- deciding ---------------------------------------------------------------------------------------------------


def _days_command(name: str, words: str, args: Mapping[str, Any]) -> None:
    """`open`, `close` and `clear` take the same words."""

    @calendar.command(name, help=words)
    @click.argument("date")
    @click.option("--to", "last", help="Last date of a span.")
    @click.option("--reason", required=True, help="Slug, e.g. armed_forces_day: phones and events carry it.")
    @reference_option
    @governorate_option
    @store_option
    @json_option
    def decide(
        date: str, last: str | None, reason: str, reference: str, governorate: str, store: str, as_json: bool
    ) -> None:
        wish = {"date": date, "reason": reason, "reference": reference, "scope": governorate, **args}
        done = _order(store, "calendar", wish if last is None else {**wish, "to": last})
        _print(done, as_json, _told("{date} to {to}: {state} (audit {audit})"))


_days_command(
    "close", "Close DATE, or every date up to --to. What was taken is labelled, no mark is touched.", {"open": False}
)
_days_command("open", "Open DATE against the week's pattern or a holiday.", {"open": True})
_days_command("clear", "Take an exception of DATE back: what holds otherwise holds again.", {"clear": True})


@calendar.command("week")
@click.argument("days")
@click.option("--from", "first", required=True, help="First date it holds on.")
@click.option("--to", "last", help="Last date [until it is decided otherwise].")
@reference_option
@governorate_option
@store_option
@json_option
def week_(days: str, first: str, last: str | None, reference: str, governorate: str, store: str, as_json: bool) -> None:
    """Set the school week: DAYS with school, e.g. sat,sun,mon,tue,wed,thu."""
    wish = {
        "days": [day.strip().lower() for day in days.split(",")],
        "from": first,
        "reference": reference,
        "scope": governorate,
    }
    done = _order(store, "calendar-week", wish if last is None else {**wish, "to": last})
    _print(done, as_json, _told("week {id} holds from {from_date} (audit {audit})"))


@calendar.command("timetable")
@click.argument("kind")
@click.option("--from", "first", required=True, help="First date.")
@click.option("--to", "last", required=True, help="Last date.")
@click.option(
    "--session", "sessions", multiple=True, required=True, metavar="NAME=START-END[/CLOSES]",
    help="E.g. am1=07:30-08:15, or day=08:00-13:30/15:00; after CLOSES a mark needs an approval [the end of the day].",
)  # fmt: skip
@click.option("--provisional", is_flag=True, help="The dates await an announcement.")
@click.option("--replaces", type=int, help="The number of the timetable that ends with this.")
@reference_option
@governorate_option
@store_option
@json_option
def timetable_(
    kind: str,
    first: str,
    last: str,
    sessions: tuple[str, ...],
    provisional: bool,
    replaces: int | None,
    reference: str,
    governorate: str,
    store: str,
    as_json: bool,
) -> None:
    """Set session times for a span of dates: KIND is regular, ramadan or another slug, which outweighs regular."""
    wish = {
        "kind": kind, "from": first, "to": last, "sessions": [_session(one) for one in sessions],
        "provisional": provisional, "reference": reference, "scope": governorate,
    }  # fmt: skip
    done = _order(store, "timetable", wish if replaces is None else {**wish, "replaces": replaces})
    _print(done, as_json, _told("timetable {id}, {kind} from {from_date} (audit {audit})"))


def _session(text: str) -> list[str | None]:
    found = _SESSION.fullmatch(text)
    if found is None:
        raise click.BadParameter(
            f"{text!r} does not read NAME=START-END or NAME=START-END/CLOSES", param_hint="--session"
        )
    return list(found.groups())


@calendar.command("end")
@click.argument("what", type=click.Choice(("week", "timetable")))
@click.argument("number", type=int)
@reference_option
@store_option
@json_option
def end_(what: str, number: int, reference: str, store: str, as_json: bool) -> None:
    """End week or timetable NUMBER: it counts for no date any more."""
    order = "timetable" if what == "timetable" else "calendar-week"
    done = _order(store, order, {"end": number, "reference": reference})
    _print(done, as_json, _told(what + " {ended} has ended (audit {audit})"))


@calendar.command("import")
@click.argument("file", type=_FILE)
@click.option("--reason", default="holiday", show_default=True, help="Slug of events that carry none.")
@dry_run_option
@reference_option
@governorate_option
@store_option
@json_option
def import_(
    file: Path, reason: str, dry_run: bool, reference: str, governorate: str, store: str, as_json: bool
) -> None:
    """Import FILE (.ics): whole-day events become closed days. Whole, or not at all."""
    wish = {"reason": reason, "dry_run": dry_run, "reference": reference, "scope": governorate}
    done = _order_with(store, "calendar-import", wish, file.read_bytes())

    def show(value: dict[str, Any], console: Console) -> None:
        console.print(f"{value['state']}: {len(value['days'])} days change, {value['unchanged']} are as they were")
        if value["days"]:
            console.print(_table(("date", "school", "reason"), [tuple(day) for day in value["days"]]))
        for line in value["skipped"]:
            console.print(f"left out: {line}", markup=False)
        if value["skipped_count"] > len(value["skipped"]):
            console.print(f"left out in all: {value['skipped_count']}")

    _print(done, as_json, show)


# ---- places -----------------------------------------------------------------------------------------------------


@click.group("school")
def school_group() -> None:
    """Schools."""


@school_group.command("place")
@click.argument("school", required=False)
@click.option("--district")
@click.option("--governorate")
@click.option("--file", "file", type=_FILE, help="CSV with the columns school,district,governorate.")
@dry_run_option
@reference_option
@store_option
@json_option
def place_(
    school: str | None,
    district: str | None,
    governorate: str | None,
    file: Path | None,
    dry_run: bool,
    reference: str,
    store: str,
    as_json: bool,
) -> None:
    """Say where SCHOOL lies, or many of a file: the calendar of the governorate holds for it."""
    if (file is None) != (None not in (school, district, governorate)):
        raise click.UsageError("name SCHOOL with --district and --governorate, or give --file")
    wish: dict[str, Any] = {"reference": reference, "dry_run": dry_run}
    if file is None:
        wish |= {"school": school, "district": district, "governorate": governorate}
    done = _order_with(store, "place", wish, b"" if file is None else file.read_bytes())

    def show(value: dict[str, Any], console: Console) -> None:
        console.print(f"{value['state']}: {value['placed']} placed, {value['unchanged']} were there already")
        if value["unknown_count"]:
            names = ", ".join(value["unknown"])
            console.print(f"left out, not in the roster: {value['unknown_count']} ({names})", markup=False)

    _print(done, as_json, show)


# ---- helpers ----------------------------------------------------------------------------------------------------


def _order_with(store: str, order: str, args: Mapping[str, Any], data: bytes) -> dict[str, Any]:
    async def give() -> dict[str, Any]:
        async with Operator.connect(store_address(store)) as operator:
            return await operator.call(order, args, data=data)

    result: dict[str, Any] = _do(give)
    return result


def _told(template: str) -> Callable[[dict[str, Any], Console], None]:
    return lambda value, console: console.print(template.format(**value), markup=False)


def _date(text: str) -> Date:
    try:
        return Date.fromisoformat(text)
    except ValueError:
        raise BadInput("bad-request", f"{text} is no date YYYY-MM-DD") from None


def _hour(minute: int) -> str:
    return f"{minute // 60:02}:{minute % 60:02}"
