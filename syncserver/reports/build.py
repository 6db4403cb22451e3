"""Building a report: what the store knows of a school's week, counted by the rules, line by line.

A report of a day reads the whole week: which shift a class belongs to is seen in its week (`expected_registers`), so a
day and the week it lies in always agree.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date as Date
from typing import Any

from clientcore.register import is_date, is_id
from reconciliation.calendar import days_of_week, week_of
from reconciliation.parity import expected_registers
from reconciliation.reports import Line, count, lines, shares
from syncserver.access import Args, Principal
from syncserver.calendar import calendar_of, local_date
from syncserver.errors import RequestProblem
from syncserver.reports.columns import KINDS, PERIODS
from syncserver.store import calendars, summaries
from syncserver.store.decisions import aliases_of
from syncserver.store.parity import members_of, rosters_on
from syncserver.store.port import Reader

_YEAR_MIN, _YEAR_MAX = 2000, 2100
_DISTRICT_CHARS_MAX = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What a report is asked about.

    Attributes:
        kind: `class` (a line for each register of a day, each day of a week), `school` (a line for each class),
            `district` (a line for each school).
        period: `day` or `week`.
        day: The day, or any day of the week.
        school: Which school; of a district report the one whose district is meant.
        class_id: Which class; None: every class of the school.
        district: Which district.
    """

    kind: str
    period: str
    day: str
    school: str | None = None
    class_id: str | None = None
    district: str | None = None

    @property
    def days(self) -> tuple[str, ...]:
        """The dates it covers."""
        return (self.day,) if self.period == "day" else days_of_week(week_of(self.day))


def read_wish(kind: str, args: Args, today: str) -> Wish:
    """A wish from arguments: `school`, `class`, `district`, `day` (today without one), `period`.

    Raises:
        RequestProblem: `bad-request`, `not-found`.
    """
    day, period = args.get("day") or today, args.get("period") or "day"
    if kind not in KINDS or period not in PERIODS:
        raise RequestProblem("bad-request", f"the kind is one of {', '.join(KINDS)}, the period day or week")
    if not isinstance(day, str) or not is_date(day):
        raise RequestProblem("bad-request", "day is a date YYYY-MM-DD")
    if not _YEAR_MIN <= int(day[:4]) < _YEAR_MAX:
        raise RequestProblem("not-found", f"no school year has the day {day}")
    school, class_id, district = (args.get(name) or None for name in ("school", "class", "district"))
    if not all(one is None or (isinstance(one, str) and is_id(one)) for one in (school, class_id)):
        raise RequestProblem("bad-request", "school and class are ids")
    if district is not None and (not isinstance(district, str) or len(district) > _DISTRICT_CHARS_MAX):
        raise RequestProblem("bad-request", "district is a name")
    if school is None and (kind != "district" or district is None):
        raise RequestProblem("bad-request", "name a school, or for a district report a district")
    return Wish(kind=kind, period=str(period), day=day, school=school, class_id=class_id, district=district)


async def schools_meant(reader: Reader, wish: Wish) -> tuple[str | None, list[str]]:
    """The district and the schools of a wish. A school nobody placed is a district of its own.

    Raises:
        RequestProblem: `not-found`.
    """
    if wish.school is not None:
        if await reader.fetch_one("SELECT 1 FROM schools WHERE school = ?", (wish.school,)) is None:
            raise RequestProblem("not-found", f"{wish.school}: no such school")
        district = (await calendars.place_of(reader, wish.school)).district
        if wish.kind != "district" or district is None:
            return district, [wish.school]
    else:
        assert wish.district is not None
        district = wish.district
    schools = await summaries.schools_of(reader, district)
    if not schools:
        raise RequestProblem("not-found", f"no school was placed in the district {district}")
    return district, schools


async def report(reader: Reader, wish: Wish, *, zone: str, now_ms: int, who: Principal | None = None) -> dict[str, Any]:
    """A report as plain data: `rows` in the order of their ids, and the `total` of all.

    Args:
        reader: The store.
        wish: What is asked.
        zone: The schools' zone.
        now_ms: Server time.
        who: Asks; must be allowed to speak about every school of the report. None: sits at the machine.

    Raises:
        RequestProblem: `not-found`, `forbidden`.
    """
    district, schools = await schools_meant(reader, wish)
    for school in schools:
        if who is not None:
            who.check_school(school)
    every: list[Line] = []
    rows: list[dict[str, Any]] = []
    for school in schools:
        found = await _lines(reader, school, wish, zone=zone, now_ms=now_ms)
        every += found
        ids = {"district": district, "school": school}
        rows += [_row(ids | about, some) for about, some in _grouped(wish, found)]
    return {
        "kind": wish.kind,
        "period": wish.period,
        "from": wish.days[0],
        "to": wish.days[-1],
        "district": district,
        "school": schools[0] if wish.kind != "district" else None,
        "class": wish.class_id,
        "rows": rows,
        "total": _row({"district": district}, every),
    }


async def _lines(reader: Reader, school: str, wish: Wish, *, zone: str, now_ms: int) -> list[Line]:
    """The registers of a school on the days of a wish."""
    week = days_of_week(week_of(wish.day))
    members, aliases = await members_of(reader, school), await aliases_of(reader, school)
    calendar = await calendar_of(reader, school, zone, Date.fromisoformat(wish.day).year)
    classes = sorted(members.keys() | set(await summaries.classes_with_outcomes(reader, school)))
    settled = await summaries.summaries_of(reader, school, classes, week[0], week[-1])
    arrived = await summaries.arrived_unsettled(reader, school, week[0], week[-1])
    rosters = {
        day: {
            class_id: frozenset(aliases.get(pupil, pupil) for pupil in pupils)
            for class_id, pupils in rosters_on(members, day).items()
        }
        for day in week
    }
    sessions = {day: calendar.sessions_on(day) for day in week}
    seen = settled.keys() | arrived | await summaries.on_paper(reader, school, week[0], week[-1])
    expected = expected_registers(rosters, sessions, seen)
    found = lines(
        expected,
        settled,
        arrived=arrived,
        contacts=await summaries.contacts_of(reader, school, week[0], week[-1]),
        calendar=calendar,
        now_ms=now_ms,
    )
    days = frozenset(wish.days)
    return [one for one in found if one.key[1] in days and wish.class_id in (None, one.key[0])]


def _grouped(wish: Wish, found: Sequence[Line]) -> Iterable[tuple[dict[str, str | None], list[Line]]]:
    """The lines of one school by what a row of the report is about, in the order of the ids."""
    if wish.kind == "district":
        return [({}, list(found))]
    groups: defaultdict[tuple[str, str, str], list[Line]] = defaultdict(list)
    for line in found:
        class_id, day, session = line.key
        if wish.kind == "school":
            groups[class_id, "", ""].append(line)
        else:
            groups[class_id, day, session if wish.period == "day" else ""].append(line)
    return [({"class": a, "date": b, "session": c}, groups[a, b, c]) for a, b, c in sorted(groups)]


def _row(about: Mapping[str, str | None], some: Sequence[Line]) -> dict[str, Any]:
    counts = count(some)
    ids = {name: about.get(name) or None for name in ("district", "school", "class", "date", "session")}
    return {**ids, **counts, **shares(counts)}


def today_of(now_ms: int, zone: str) -> str:
    """The civil date at the schools."""
    return local_date(now_ms, zone).isoformat()
