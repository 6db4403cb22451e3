"""Weighing school weeks: what the store holds of a week, as the rules take it, and what they make of it."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date as Date
from functools import partial

from clientcore.register import Code
from reconciliation.anomalies import Taken, examine, read_taken
from reconciliation.calendar import SchoolCalendar, days_of_week, week_of
from reconciliation.gate import is_due, next_week
from reconciliation.paper import Entry, read_sheet
from reconciliation.parity import Digital, Key, WeekParity, expected_registers, read_digital, weigh
from reconciliation.wire import canonical
from syncserver.calendar import calendar_of
from syncserver.ports import Aside
from syncserver.store import paper
from syncserver.store import parity as rows
from syncserver.store.decisions import aliases_of
from syncserver.store.packed import unpack_wire
from syncserver.store.port import Reader

RULES_VERSION = 2
"""Rises when a rule changes, so that every week is weighed again by it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class School:
    """What the weeks of one school share; `digest` covers what does not belong to a single week."""

    name: str
    calendar: SchoolCalendar
    members: rows.Members
    aliases: Mapping[str, str]
    rules: Sequence[paper.PaperRule]
    digest: str


async def read_school(reader: Reader, name: str, zone: str, today: str) -> School:
    """What the weeks of a school share, as the store knows it now."""
    members, aliases = await rows.members_of(reader, name), await aliases_of(reader, name)
    shared = [RULES_VERSION, {c: [list(stay) for stay in stays] for c, stays in members.items()}, aliases]
    return School(
        name=name,
        calendar=await calendar_of(reader, name, zone, Date.fromisoformat(today).year),
        members=members,
        aliases=aliases,
        rules=await paper.rules_of(reader, name),
        digest=hashlib.sha256(canonical(shared)).hexdigest(),
    )


async def weeks_due(reader: Reader, school: School, today: str) -> list[str]:
    """The weeks of a school that can be judged: from its first paper on, and until its gate fired."""
    days = await paper.paper_days(reader, school.name)
    fired = await rows.gate_of(reader, school.name)
    found: list[str] = []
    week = None if days is None else week_of(days[0])
    while week is not None and is_due(week, school.calendar, today) and (fired is None or week <= fired.week):
        found.append(week)
        week = next_week(week)
    return found


async def weigh_changed(
    reader: Reader, school: School, weeks: Sequence[str], known: Mapping[str, bytes], aside: Aside
) -> list[tuple[WeekParity, bytes]]:
    """Of some weeks, ascending, those whose inputs are not the `known` ones, with the digest of their inputs."""
    if not weeks:
        return []
    first, last = days_of_week(_week_before(weeks[0]))[0], days_of_week(weeks[-1])[-1]
    revisions = await rows.revisions_of(reader, school.name, sorted(school.members), first, last)
    entries = await paper.entries_of(reader, school.name, first, last)
    found: list[tuple[WeekParity, bytes]] = []
    before: tuple[str, list[Taken]] = ("", [])
    for week in weeks:
        inputs = _inputs(school, week, revisions, entries)
        if known.get(week) == inputs:
            continue
        earlier = _week_before(week)
        if before[0] != earlier:
            before = (earlier, (await _read_week(reader, school, earlier, aside))[1])
        parity, taken = await weigh_week(reader, school, week, before[1], aside)
        before = (week, taken)
        found.append((parity, inputs))
    return found


async def weigh_week(
    reader: Reader, school: School, week: str, before: Sequence[Taken] | None, aside: Aside
) -> tuple[WeekParity, list[Taken]]:
    """Compare one week of a school.

    Args:
        reader: The store.
        school: See `read_school`.
        week: Its Saturday.
        before: How the registers of the week before were filled in; None: read them.
        aside: Where it is computed.
    """
    if before is None:
        before = (await _read_week(reader, school, _week_before(week), aside))[1]
    digital, taken = await _read_week(reader, school, week, aside)
    days = days_of_week(week)
    entries = await paper.entries_of(reader, school.name, days[0], days[-1])
    return await aside.run(partial(_weigh, school, week, digital, taken, before, entries)), taken


def _weigh(
    school: School,
    week: str,
    digital: Mapping[Key, Digital],
    taken: Sequence[Taken],
    before: Sequence[Taken],
    entries: Mapping[Key, Sequence[Entry]],
) -> WeekParity:
    rule, open_days = paper.rule_in(list(school.rules), week), school.calendar.school_days(week)
    sheets = {
        key: sheet
        for key, some in entries.items()
        if (sheet := read_sheet((_merged(one, school.aliases) for one in some), rule.document,
                                two_person=rule.two_person)) is not None
    }  # fmt: skip
    signs = examine(taken, before)
    return weigh(
        week,
        document=rule.document,
        open_days=len(open_days),
        expected=expected_registers(
            {day: _rosters(school, day) for day in open_days},
            {day: school.calendar.sessions_on(day) for day in open_days},
            {key for key, one in digital.items() if one.is_taken or one.no_session} | sheets.keys(),
        ),
        digital=digital,
        sheets=sheets,
        signs={(name.class_id, name.date, name.session): found for name, found in signs.items()},
    )


def _merged(entry: Entry, aliases: Mapping[str, str]) -> Entry:
    """The entry with the ids into which duplicate records were merged."""
    if aliases.keys().isdisjoint(entry.marks):
        return entry
    # Where a duplicate and its record both stand on the sheet, absent outweighs late.
    marks = {
        aliases.get(pupil, pupil): code
        for pupil, code in sorted(entry.marks.items(), key=lambda item: (item[1] is not Code.LATE, item[1].value))
    }
    return Entry(
        id=entry.id, document=entry.document, signed_by=entry.signed_by, entered_by=entry.entered_by, marks=marks,
        at_ms=entry.at_ms,
    )  # fmt: skip


def _rosters(school: School, day: str) -> dict[str, frozenset[str]]:
    found = rows.rosters_on(school.members, day)
    if not school.aliases:
        return found
    return {c: frozenset(school.aliases.get(pupil, pupil) for pupil in pupils) for c, pupils in found.items()}


async def _read_week(reader: Reader, school: School, week: str, aside: Aside) -> tuple[dict[Key, Digital], list[Taken]]:
    days = days_of_week(week)
    bodies = await rows.bodies_of(reader, school.name, sorted(school.members), days[0], days[-1])
    ends = {day: school.calendar.end_of_day_ms(day) for day in days}
    return await aside.run(partial(_parse_week, bodies, ends))


def _parse_week(bodies: Sequence[tuple[str, bytes]], ends: Mapping[str, int]) -> tuple[dict[Key, Digital], list[Taken]]:
    digital: dict[Key, Digital] = {}
    taken: list[Taken] = []
    for register, body in bodies:
        wire = unpack_wire(body, register)
        _, class_id, day, session = register.split("/")
        digital[class_id, day, session] = read_digital(wire)
        taken.append(read_taken(wire, ends[day]))
    return digital, taken


def _inputs(school: School, week: str, revisions: Mapping[Key, int], entries: Mapping[Key, Sequence[Entry]]) -> bytes:
    """Digest of everything that goes into a week: equal inputs, equal verdict."""
    days, earlier = set(days_of_week(week)), set(days_of_week(_week_before(week)))
    rule = paper.rule_in(list(school.rules), week)
    return hashlib.sha256(
        canonical(
            [
                school.digest, week, rule.document.value, rule.two_person,
                [[day, list(school.calendar.sessions_on(day))] for day in school.calendar.school_days(week)],
                sorted([*key, number] for key, number in revisions.items() if key[1] in days or key[1] in earlier),
                sorted(one.id for key, some in entries.items() if key[1] in days for one in some),
            ]
        )
    ).digest()  # fmt: skip


def _week_before(week: str) -> str:
    return Date.fromordinal(Date.fromisoformat(week).toordinal() - 7).isoformat()
