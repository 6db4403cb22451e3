"""The school calendar as a value: days, weeks, sessions, windows, working days, and the layers it is made from."""

from __future__ import annotations

from datetime import date as Date
from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clientcore.register import RegisterId
from reconciliation.calendar import (
    SUNDAY_TO_THURSDAY,
    DayRule,
    SchoolCalendar,
    SessionTime,
    Timetable,
    Week,
    civil_date,
    day_window,
    days_of_week,
    lies_ahead,
    week_of,
)
from reconciliation.clocks import DAY_MS, zone_table
from reconciliation.errors import BadContext
from reconciliation.layers import PLANNED_HOLIDAYS, Layer, layered
from reconciliation.model import Window
from tests.support.histories import DAY, ZONE

HOUR = 3_600_000
WIDE = zone_table("2026-01-01", "2028-12-31")
SPRING, AUTUMN = (
    "2027-04-30",
    "2026-10-29",
)  # the last Friday of April loses midnight; the last Thursday of October has 25 hours
SIX_DAYS = frozenset((5, *SUNDAY_TO_THURSDAY))
CLOSED = DayRule(is_open=False, reason="weather")
OPEN = DayRule(is_open=True, reason="exam")

dates = st.dates(min_value=Date(2026, 9, 1), max_value=Date(2027, 12, 31)).map(Date.isoformat)
calendars = st.builds(
    SchoolCalendar,
    zone=st.just(WIDE),
    open_weekdays=st.sampled_from((SUNDAY_TO_THURSDAY, SIX_DAYS, frozenset((2,)))),
    days=st.dictionaries(dates, st.sampled_from((CLOSED, OPEN)), max_size=60),
)


def lesson(session: str, starts: int, ends: int, closes: int | None = None) -> SessionTime:
    """A session in whole hours."""
    return SessionTime(
        session=session, starts_min=60 * starts, ends_min=60 * ends, closes_min=None if closes is None else 60 * closes
    )


def table(kind: str, *sessions: SessionTime, first: str = "2027-02-08", until: str = "2027-03-10") -> Timetable:
    """A timetable; by default of the span that the tests call Ramadan 2027."""
    return Timetable(kind=kind, from_date=first, until_date=until, sessions=sessions)


def register(date: str, session: str = "day") -> RegisterId:
    """A register of a date."""
    return RegisterId("s", "c", date, session)


# ---- the civil day ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("date", "hours"), [("2026-11-22", 24), (AUTUMN, 25), (SPRING, 23)])
def test_a_school_day_has_23_24_or_25_hours(date: str, hours: int) -> None:
    """The window follows the civil day across summer time."""
    window = day_window(register(date), ZONE)
    assert window.closes_ms - window.opens_ms == hours * HOUR
    assert SchoolCalendar(zone=ZONE).end_of_day_ms(date) == window.closes_ms


@pytest.mark.parametrize("date", ["0001-01-01", "9999-12-31"])
def test_the_ends_of_the_calendar_have_a_window(date: str) -> None:
    """A hostile but existing date breaks nothing."""
    window = day_window(register(date, "am1"), ZONE)
    assert window.closes_ms - window.opens_ms == DAY_MS


def test_only_what_lies_more_than_a_day_ahead_is_future() -> None:
    """Preparing tomorrow's register the evening before is no oddity."""
    assert not lies_ahead(DAY, DAY.opens_ms - DAY_MS)
    assert lies_ahead(DAY, DAY.opens_ms - DAY_MS - 1)


def test_a_window_that_closes_before_it_opens_is_refused() -> None:
    """A contradiction in the context is the caller's mistake, told at once."""
    with pytest.raises(BadContext):
        Window(opens_ms=5, closes_ms=5)


@settings(derandomize=True, deadline=None)
@given(st.datetimes(min_value=datetime(2026, 3, 1), max_value=datetime(2028, 1, 1)))  # noqa: DTZ001
def test_a_moment_has_the_civil_date_of_the_zone(at: datetime) -> None:
    """The table and the zone data agree on every moment's date, in the nights of a switch too."""
    moment = at.replace(tzinfo=ZoneInfo("UTC"))
    expected = moment.astimezone(ZoneInfo("Africa/Cairo")).date().isoformat()
    at_ms = int(moment.timestamp() * 1000)
    assert civil_date(at_ms, WIDE) == SchoolCalendar(zone=WIDE).date_at(at_ms) == expected


# ---- weeks ------------------------------------------------------------------------------------------------------


@settings(derandomize=True, deadline=None)
@given(dates)
def test_a_week_is_named_by_its_saturday_and_holds_its_days(date: str) -> None:
    """Seven dates, Saturday first, each of which is of this week and of no other."""
    week = week_of(date)
    days = days_of_week(week)
    assert Date.fromisoformat(week).weekday() == 5
    assert (len(days), days[0], date in days, {week_of(day) for day in days}) == (7, week, True, {week})


def test_the_week_is_sunday_to_thursday_unless_somebody_says_otherwise() -> None:
    """Friday and Saturday are closed; an exception opens or closes any date."""
    usual = SchoolCalendar(zone=ZONE)
    changed = SchoolCalendar(zone=ZONE, days={"2026-11-20": OPEN, "2026-11-22": CLOSED})
    assert (usual.closed("2026-11-20"), usual.closed("2026-11-22")) == ("weekend", None)
    assert (changed.closed("2026-11-20"), changed.closed("2026-11-22")) == (None, "weather")
    assert changed.school_days("2026-11-21") == ("2026-11-23", "2026-11-24", "2026-11-25", "2026-11-26")


def test_a_new_week_leaves_the_past_as_it_was() -> None:
    """A governorate that teaches on Saturdays from February on had weekends in November."""
    week = Week(from_date="2027-02-06", until_date="2027-05-01", open_weekdays=SIX_DAYS)
    calendar = SchoolCalendar(zone=WIDE, weeks=(week,))
    closed = {day: calendar.closed(day) for day in ("2026-11-21", "2027-02-06", "2027-04-24", "2027-05-01")}
    assert closed == {"2026-11-21": "weekend", "2027-02-06": None, "2027-04-24": None, "2027-05-01": "weekend"}
    assert len(calendar.school_days("2027-02-06")) == 6


# ---- layers -----------------------------------------------------------------------------------------------------


def school(national: Layer, governorate: Layer | None = None, *sessions: str) -> SchoolCalendar:
    """A school's calendar from two layers."""
    return layered(zone=WIDE, sessions=sessions, national=national, governorate=governorate or Layer())


def test_the_plan_names_the_holidays_of_the_year() -> None:
    """6 October, 7 January, 25 January are closed without anybody's decision, and rest on the plan."""
    calendar = school(Layer())
    assert {day: calendar.closed(day) for day in PLANNED_HOLIDAYS} == {
        "2026-10-06": "armed_forces_day",
        "2027-01-07": "christmas",
        "2027-01-25": "revolution_police_day",
    }
    assert {rule.reference for rule in calendar.days.values()} == {"plan 2026/27"}


def test_a_governorate_outweighs_the_country_and_the_country_the_plan() -> None:
    """Each layer speaks where the one below it is silent."""
    national = Layer(days={"2026-10-06": OPEN, "2026-12-01": CLOSED, "2026-12-02": CLOSED})
    local = Layer(days={"2026-12-02": OPEN, "2026-12-03": CLOSED})
    calendar = school(national, local)
    closed = [calendar.closed(f"2026-12-{n:02}") for n in (1, 2, 3)]
    assert (calendar.closed("2026-10-06"), closed) == (None, ["weather", None, "weather"])
    assert school(national).closed("2026-12-02") == "weather"


def test_the_week_of_the_governorate_outweighs_a_later_one_of_the_country() -> None:
    """Of one layer the later holds, of two the governorate's."""
    four = Week(from_date="2026-09-01", until_date=None, open_weekdays=frozenset((6, 0, 1, 2)))
    six = Week(from_date="2026-09-01", until_date=None, open_weekdays=SIX_DAYS)
    assert school(Layer(weeks=(six, four))).week_on("2026-11-22") == four.open_weekdays
    assert school(Layer(weeks=(four,)), Layer(weeks=(six,))).week_on("2026-11-22") == SIX_DAYS


def test_ramadan_outweighs_the_regular_hours_of_any_layer() -> None:
    """A governorate's regular timetable, decided later, does not undo the country's Ramadan; its own Ramadan does."""
    ramadan, regular = (
        table("ramadan", lesson("day", 9, 12)),
        table("regular", lesson("day", 8, 14), first="2026-09-20"),
    )
    own = table("ramadan", lesson("day", 10, 12))
    assert school(Layer(timetables=(ramadan,)), Layer(timetables=(regular,))).timetable("2027-02-10") == ramadan
    assert school(Layer(timetables=(ramadan,)), Layer(timetables=(own, regular))).timetable("2027-02-10") == own
    assert school(Layer(timetables=(ramadan,)), Layer(timetables=(regular,))).timetable("2027-02-07") == regular


# ---- sessions and windows ---------------------------------------------------------------------------------------


def test_a_timetable_of_shifts_says_nothing_about_a_school_without() -> None:
    """Otherwise a school with one register a day would be expected to take none."""
    shifts = table("ramadan", lesson("am1", 9, 10), lesson("pm1", 12, 13))
    layer = Layer(timetables=(shifts,))
    assert school(layer).sessions_on("2027-02-10") == ("day",)
    assert school(layer, None, "am1", "am2").sessions_on("2027-02-10") == ("am1",)
    assert school(layer, None, "am1", "am2").sessions_on("2027-02-12") == ()
    assert school(layer, None, "am1", "am2").sessions_held("2027-02-12") == ("am1",)


def test_shorter_days_move_the_window_and_expect_fewer_sessions() -> None:
    """In Ramadan the first lesson begins and closes later; the third does not exist, and if taken it has the day."""
    regular = table(
        "regular", lesson("am1", 8, 9, 10), lesson("am2", 9, 10, 11), lesson("am3", 10, 11, 12), first="2026-09-20"
    )
    ramadan = table("ramadan", lesson("am1", 9, 10, 12), lesson("am2", 10, 11, 13))
    calendar = school(Layer(timetables=(ramadan, regular)), None, "am1", "am2", "am3")
    before, within = "2027-02-07", "2027-02-08"
    closes = {
        (day, session): (calendar.window(register(day, session)).closes_ms - day_window(register(day), WIDE).opens_ms)
        // HOUR
        for day in (before, within)
        for session in ("am1", "am3")
    }
    assert closes == {(before, "am1"): 10, (before, "am3"): 12, (within, "am1"): 12, (within, "am3"): 24}
    assert calendar.sessions_on(within) == ("am1", "am2")
    assert calendar.session_time(within, "am3") is None


@settings(derandomize=True, deadline=None, max_examples=200)
@given(date=st.one_of(dates, st.sampled_from((SPRING, AUTUMN))), minute=st.integers(min_value=2, max_value=1_439))
def test_a_session_closes_by_the_clock_on_the_wall(date: str, minute: int) -> None:
    """On the days of a switch too: of a minute that comes twice the later, one that is skipped an hour after it."""
    closing = SessionTime(session="day", starts_min=0, ends_min=1, closes_min=minute)
    calendar = SchoolCalendar(
        zone=WIDE, timetables=(table("regular", closing, first="2026-01-01", until="2028-12-31"),)
    )
    window = calendar.window(register(date))
    wall = datetime.combine(Date.fromisoformat(date), datetime.min.time()) + timedelta(minutes=minute)
    moments = [wall.replace(tzinfo=ZoneInfo("Africa/Cairo"), fold=fold).timestamp() for fold in (0, 1)]
    assert window.opens_ms == day_window(register(date), WIDE).opens_ms
    assert window.closes_ms == int(max(moments) * 1000)


def test_before_the_table_of_offsets_the_first_one_serves() -> None:
    """A hostile date has a window that closes with its session."""
    closing = SessionTime(session="day", starts_min=0, ends_min=1, closes_min=600)
    calendar = SchoolCalendar(
        zone=WIDE, timetables=(table("regular", closing, first="0001-01-01", until="9999-12-31"),)
    )
    window = calendar.window(register("0001-01-01"))
    assert window.closes_ms - window.opens_ms == 10 * HOUR


# ---- working days -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("date", "third"),
    [
        ("2026-11-15", "2026-11-18"),  # Sunday to Wednesday
        ("2026-11-18", "2026-11-23"),  # across the weekend
        ("2026-11-20", "2026-11-24"),  # from a Friday
        ("2026-10-04", "2026-10-08"),  # across 6 October
        ("2026-10-01", "2026-10-07"),  # across a weekend and 6 October
        ("2026-10-27", "2026-11-01"),  # across the end of summer time
        ("2027-04-27", "2027-05-02"),  # across its beginning
    ],
)
def test_three_working_days(date: str, third: str) -> None:
    """Neither the day itself nor weekends and holidays count."""
    assert school(Layer()).add_working_days(date, 3) == third


@pytest.mark.parametrize(("date", "hours"), [("2026-10-28", 25), ("2027-04-29", 23)])
def test_a_working_day_ends_with_its_civil_day(date: str, hours: int) -> None:
    """The clock of three days gains and loses the hour of summer time."""
    calendar = school(Layer())
    following = (Date.fromisoformat(date) + timedelta(days=1)).isoformat()
    assert calendar.end_of_day_ms(following) - calendar.end_of_day_ms(date) == hours * HOUR


@settings(derandomize=True, deadline=None)
@given(calendar=calendars, date=dates, count=st.integers(min_value=1, max_value=12))
def test_the_counted_days_are_open_and_as_many_as_asked_for(calendar: SchoolCalendar, date: str, count: int) -> None:
    """The last one is a school day, and there are `count` of them on the way."""
    last = calendar.add_working_days(date, count)
    assert calendar.is_working_day(last)
    assert calendar.working_days_between(date, last) == count
    assert calendar.working_days_between(last, date) == 0


@settings(derandomize=True, deadline=None)
@given(calendar=calendars, date=dates, a=st.integers(0, 6), b=st.integers(0, 6))
def test_counting_in_two_steps_comes_to_the_same(calendar: SchoolCalendar, date: str, a: int, b: int) -> None:
    """And a later day never reaches an earlier one."""
    assert calendar.add_working_days(calendar.add_working_days(date, a), b) == calendar.add_working_days(date, a + b)
    following = (Date.fromisoformat(date) + timedelta(days=1)).isoformat()
    assert calendar.add_working_days(date, a) <= calendar.add_working_days(following, a)


@settings(derandomize=True, deadline=None)
@given(calendar=calendars, date=dates, count=st.integers(min_value=1, max_value=5))
def test_exactly_the_days_that_a_change_may_move_are_found(calendar: SchoolCalendar, date: str, count: int) -> None:
    """The first day whose count reaches the changed date does reach it; the day before it does not."""
    first = calendar.first_reaching(date, count)
    before = (Date.fromisoformat(first) - timedelta(days=1)).isoformat()
    assert first < date
    assert calendar.add_working_days(first, count) >= date
    assert calendar.add_working_days(before, count) < date


@settings(derandomize=True, deadline=None)
@given(calendar=calendars, changed=dates, rule=st.sampled_from((CLOSED, OPEN)), date=dates)
def test_no_other_day_counts_differently_after_a_change(
    calendar: SchoolCalendar, changed: str, rule: DayRule, date: str
) -> None:
    """What is not settled again after a change of the calendar would give the same answer."""
    after = SchoolCalendar(
        zone=calendar.zone, open_weekdays=calendar.open_weekdays, days={**calendar.days, changed: rule}
    )
    if calendar.add_working_days(date, 3) != after.add_working_days(date, 3):
        assert calendar.first_reaching(changed, 3) <= date < changed


def test_a_calendar_without_school_and_the_ends_of_time_stop_the_count() -> None:
    """A mistake in the calendar, or a hostile date, costs a bounded walk."""
    never = SchoolCalendar(zone=ZONE, open_weekdays=frozenset())
    assert never.add_working_days("2026-11-22", 1) == "2027-12-27"
    assert never.first_reaching("2026-11-22", 1) == "2025-10-18"
    usual = SchoolCalendar(zone=ZONE)
    assert usual.add_working_days("9999-12-31", 3) == "9999-12-31"
    assert usual.first_reaching("0001-01-01", 3) == "0001-01-01"


# ---- values that contradict themselves --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("first", "until", "days"),
    [("2026-13-01", None, SIX_DAYS), ("2026-09-01", "2026-09-01", SIX_DAYS), ("2026-09-01", "soon", SIX_DAYS),
     ("2026-09-01", None, frozenset()), ("2026-09-01", None, frozenset((7,)))],
)  # fmt: skip
def test_a_week_that_contradicts_itself_is_refused(first: str, until: str | None, days: frozenset[int]) -> None:
    """No span, or no day."""
    with pytest.raises(BadContext):
        Week(from_date=first, until_date=until, open_weekdays=days)


@pytest.mark.parametrize(
    ("session", "starts", "ends", "closes"),
    [("noon", 480, 540, None), ("day", 540, 540, None), ("day", 480, 540, 500), ("day", -1, 540, None),
     ("day", 480, 1_441, None)],
)  # fmt: skip
def test_a_session_that_contradicts_itself_is_refused(session: str, starts: int, ends: int, closes: int | None) -> None:
    """It starts, ends and closes in this order, within its day."""
    with pytest.raises(BadContext):
        SessionTime(session=session, starts_min=starts, ends_min=ends, closes_min=closes)


def test_a_timetable_that_contradicts_itself_is_refused() -> None:
    """An empty span, no session, or one twice."""
    with pytest.raises(BadContext):
        table("ramadan", lesson("day", 8, 9), until="2027-02-08")
    with pytest.raises(BadContext):
        table("ramadan")
    with pytest.raises(BadContext):
        table("ramadan", lesson("day", 8, 9), lesson("day", 9, 10))
