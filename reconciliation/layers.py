"""A school's calendar from its layers: the plan, what holds for every school, what holds in its governorate. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from reconciliation.calendar import REGULAR, DayRule, SchoolCalendar, Timetable, Week
from reconciliation.model import Zone

PLANNED_HOLIDAYS: Mapping[str, DayRule] = {
    date: DayRule(is_open=False, reason=reason, reference="plan 2026/27")
    for date, reason in (
        ("2026-10-06", "armed_forces_day"),
        ("2027-01-07", "christmas"),
        ("2027-01-25", "revolution_police_day"),
    )
}
"""What the plan of the school year already says; a decision opens or renames such a day like any other."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    """What was decided for one scope: every school, or the schools of one governorate; the later decision last."""

    days: Mapping[str, DayRule] = field(default_factory=dict)
    weeks: tuple[Week, ...] = ()
    timetables: tuple[Timetable, ...] = ()


def layered(*, zone: Zone, sessions: tuple[str, ...], national: Layer, governorate: Layer) -> SchoolCalendar:
    """The calendar of a school from the layers above it.

    A governorate's word outweighs the one for every school, and both outweigh the plan. Among timetables the kind comes
    first: Ramadan's outweighs any regular one, whoever decided it and however much later.
    """
    tables = (*national.timetables, *governorate.timetables)
    return SchoolCalendar(
        zone=zone,
        weeks=(*national.weeks, *governorate.weeks),
        days={**PLANNED_HOLIDAYS, **national.days, **governorate.days},
        timetables=tuple(sorted(tables, key=lambda one: one.kind != REGULAR)),
        sessions=sessions or ("day",),
    )
