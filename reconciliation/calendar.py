"""The school calendar: which days are open, which sessions they have, when a register is taken in time. Pure.

A school's calendar is put together from what central offices decided, with a reference for each part: the week of its
governorate, single days that differ (holidays), and timetables with a span of dates (Ramadan is one). No school decides
any of it. Nothing here is computed from the moon: Ramadan is the span somebody configured. Two layers are laid over the
planned holidays: what holds for every school, and above it what holds in the school's governorate (`layers.py`).

Weeks begin on Saturday, as Egypt's do (CLDR), so that a governorate that teaches on Saturdays has one week and not two.
A week is named by its Saturday.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date as Date
from datetime import timedelta

from clientcore.register import RegisterId, is_date, is_session
from reconciliation.clocks import DAY_MS, midnight_ms
from reconciliation.errors import BadContext
from reconciliation.model import Window, Zone

WEEKEND = "weekend"
SUNDAY_TO_THURSDAY = frozenset((6, 0, 1, 2, 3))
"""Open weekdays as `date.weekday()` numbers them (Monday is 0)."""
REGULAR, RAMADAN = "regular", "ramadan"
_SATURDAY = 5
_DAY_MIN = 1_440
_SEARCH_DAYS = 400  # a calendar without an open day in a year is a mistake, not a long holiday


@dataclass(frozen=True, slots=True, kw_only=True)
class DayRule:
    """One date that differs from the week's pattern.

    Attributes:
        is_open: Whether there is school.
        reason: Slug, e.g. `armed_forces_day`.
        reference: The decision it rests on.
    """

    is_open: bool
    reason: str
    reference: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Week:
    """The open days of the week for a span of dates; what was decided later does not change the weeks before it.

    Attributes:
        from_date: First day.
        until_date: First day after it; None: until somebody decides otherwise.
        open_weekdays: As `date.weekday()` numbers them (Monday is 0).
        reference: The decision it rests on.

    Raises:
        BadContext: when the span or the week is empty.
    """

    from_date: str
    until_date: str | None
    open_weekdays: frozenset[int]
    reference: str = ""

    def __post_init__(self) -> None:
        _check_span(self.from_date, self.until_date, "a week")
        if not self.open_weekdays or not self.open_weekdays <= frozenset(range(7)):
            raise BadContext("bad-context", "a school week has open days, of 0 (Monday) to 6 (Sunday)")

    def covers(self, date: str) -> bool:
        """Whether the date lies in its span."""
        return self.from_date <= date and (self.until_date is None or date < self.until_date)


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionTime:
    """When one session takes place, in minutes since local midnight.

    Attributes:
        session: `day`, `am1`…`pm8`.
        starts_min: First minute.
        ends_min: First minute after it.
        closes_min: From then on a mark is an adjustment; None: from the end of the civil day.

    Raises:
        BadContext: when the minutes are out of order.
    """

    session: str
    starts_min: int
    ends_min: int
    closes_min: int | None = None

    def __post_init__(self) -> None:
        closes = _DAY_MIN if self.closes_min is None else self.closes_min
        if not is_session(self.session) or not 0 <= self.starts_min < self.ends_min <= closes <= _DAY_MIN:
            raise BadContext("bad-context", f"a session starts, ends and closes within one day: {self}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Timetable:
    """Session times for a span of dates.

    Attributes:
        kind: `regular`, `ramadan`, or another slug; every other kind outweighs `regular`.
        from_date: First day.
        until_date: First day after it.
        sessions: In the order of the day.
        reference: The decision it rests on.
        provisional: The dates await an announcement (a moon that was not seen yet).

    Raises:
        BadContext: when the span is empty or a session comes twice.
    """

    kind: str
    from_date: str
    until_date: str
    sessions: tuple[SessionTime, ...]
    reference: str = ""
    provisional: bool = False

    def __post_init__(self) -> None:
        _check_span(self.from_date, self.until_date, f"the timetable {self.kind}")
        names = [one.session for one in self.sessions]
        if not names or len(set(names)) != len(names):
            raise BadContext("bad-context", f"a timetable names each session once, and at least one: {self.kind}")

    def covers(self, date: str) -> bool:
        """Whether the date lies in its span."""
        return self.from_date <= date < self.until_date


@dataclass(frozen=True, slots=True, kw_only=True)
class SchoolCalendar:
    """The calendar of one school.

    Attributes:
        zone: UTC offsets of the school's zone.
        open_weekdays: Days of the week with school, where no week says otherwise.
        weeks: Of those that cover a date the last one holds.
        days: Dates that differ.
        timetables: Of those that cover a date, and name a session of the school, the last one holds.
        sessions: Sessions the school uses (its shifts), in the order of the day.
    """

    zone: Zone
    open_weekdays: frozenset[int] = SUNDAY_TO_THURSDAY
    weeks: tuple[Week, ...] = ()
    days: Mapping[str, DayRule] = field(default_factory=dict)
    timetables: tuple[Timetable, ...] = ()
    sessions: tuple[str, ...] = ("day",)

    def closed(self, date: str) -> str | None:
        """Why there is no school on `date`; None when there is."""
        rule = self.days.get(date)
        if rule is not None:
            return None if rule.is_open else rule.reason
        return None if Date.fromisoformat(date).weekday() in self.week_on(date) else WEEKEND

    def week_on(self, date: str) -> frozenset[int]:
        """The open weekdays in force on `date`."""
        return next((one.open_weekdays for one in reversed(self.weeks) if one.covers(date)), self.open_weekdays)

    def timetable(self, date: str) -> Timetable | None:
        """The timetable in force; None where nobody has set one.

        One that names no session of the school (shifts only, for a school that takes one register a day) says nothing
        about it.
        """
        used = set(self.sessions)
        for one in reversed(self.timetables):
            if one.covers(date) and any(time.session in used for time in one.sessions):
                return one
        return None

    def session_time(self, date: str, session: str) -> SessionTime | None:
        """When a session takes place on `date`; None where no timetable says."""
        table = self.timetable(date)
        return None if table is None else next((one for one in table.sessions if one.session == session), None)

    def sessions_held(self, date: str) -> tuple[str, ...]:
        """The school's sessions by the timetable in force, whether or not the day is open."""
        table = self.timetable(date)
        if table is None:
            return self.sessions
        held = {one.session for one in table.sessions}
        return tuple(one for one in self.sessions if one in held)

    def sessions_on(self, date: str) -> tuple[str, ...]:
        """The sessions in which registers are expected: none on a closed day, fewer on a shortened one."""
        return () if self.closed(date) is not None else self.sessions_held(date)

    def window(self, register: RegisterId) -> Window:
        """When a register is taken in time, in server time: from midnight until its session closes."""
        day = day_window(register, self.zone)
        found = self.session_time(register.date, register.session)
        if found is None or found.closes_min is None:
            return day
        # By the clock on the wall: on the day of a switch it shows the minute an hour earlier or later.
        closes_ms = _wall_ms(register.date, found.closes_min, self.zone)
        return Window(opens_ms=day.opens_ms, closes_ms=max(min(closes_ms, day.closes_ms), day.opens_ms + 1))

    def is_working_day(self, date: str) -> bool:
        """Whether there is school, and so somebody to decide."""
        return self.closed(date) is None

    def add_working_days(self, date: str, count: int) -> str:
        """The `count`-th working day after `date` (never `date` itself).

        Where the calendar has none for 400 days, or time ends (a hostile phone may name any date), the last day looked
        at.
        """
        day = Date.fromisoformat(date)
        for _ in range(_SEARCH_DAYS):
            if count <= 0 or day == Date.max:
                break
            day += timedelta(days=1)
            count -= self.is_working_day(day.isoformat())
        return day.isoformat()

    def first_reaching(self, date: str, count: int) -> str:
        """The earliest date whose `count`-th working day is not before `date`: what a change of `date` may move.

        Where the calendar has too few working days for 400 days, or time began, the last day looked at.
        """
        day, between = Date.fromisoformat(date), 0
        for _ in range(_SEARCH_DAYS):
            if between >= count or day == Date.min:
                break
            day -= timedelta(days=1)
            between += self.is_working_day(day.isoformat())
        return day.isoformat()

    def working_days_between(self, first: str, last: str) -> int:
        """Working days after `first`, up to and including `last`; 0 when `last` is not later."""
        start, days = Date.fromisoformat(first), (Date.fromisoformat(last) - Date.fromisoformat(first)).days
        return sum(self.is_working_day((start + timedelta(days=n)).isoformat()) for n in range(1, days + 1))

    def end_of_day_ms(self, date: str) -> int:
        """The first moment after the civil day."""
        return midnight_ms(date, self.zone, days_later=1)

    def date_at(self, at_ms: int) -> str:
        """The civil date of a moment."""
        return civil_date(at_ms, self.zone)

    def school_days(self, week: str) -> tuple[str, ...]:
        """The open days of a week (named by its Saturday)."""
        return tuple(day for day in days_of_week(week) if self.closed(day) is None)


def day_window(register: RegisterId, zone: Zone) -> Window:
    """The civil day of the register in server time: 23, 24 or 25 hours."""
    return Window(
        opens_ms=midnight_ms(register.date, zone),
        closes_ms=midnight_ms(register.date, zone, days_later=1),
    )


def lies_ahead(day: Window, received_at_ms: int) -> bool:
    """Whether the register's day began more than a day after the receipt: nobody can have seen those pupils."""
    return day.opens_ms - received_at_ms > DAY_MS


def week_of(date: str) -> str:
    """The week a date lies in, named by the Saturday it begins with."""
    day = Date.fromisoformat(date)
    return (day - timedelta(days=(day.weekday() - _SATURDAY) % 7)).isoformat()


def days_of_week(week: str) -> tuple[str, ...]:
    """The seven dates of a week, Saturday first."""
    first = Date.fromisoformat(week)
    return tuple((first + timedelta(days=n)).isoformat() for n in range(7))


def civil_date(at_ms: int, zone: Zone) -> str:
    """The civil date of a moment by a table of offsets; beyond all dates the first or last one."""
    offset_s = next((offset for from_ms, offset in reversed(zone) if from_ms <= at_ms), zone[0][1])
    ordinal = Date(1970, 1, 1).toordinal() + (at_ms + offset_s * 1000) // DAY_MS
    return Date.fromordinal(min(max(ordinal, 1), Date.max.toordinal())).isoformat()


def _check_span(from_date: str, until_date: str | None, what: str) -> None:
    if not is_date(from_date) or (until_date is not None and (not is_date(until_date) or until_date <= from_date)):
        raise BadContext("bad-context", f"{what} has a first day and a later end")


def _wall_ms(date: str, minute: int, zone: Zone) -> int:
    """The moment at which clocks on the wall show a minute of a date; where they show it twice, the later one."""
    wall_ms = (Date.fromisoformat(date) - Date(1970, 1, 1)).days * DAY_MS + minute * 60_000
    for from_ms, offset_s in reversed(zone[1:]):
        at_ms = wall_ms - offset_s * 1000
        if at_ms >= from_ms:
            return at_ms
    return wall_ms - zone[0][1] * 1000
