"""The server's calendar: offsets of the zone, what a phone is told, how silence is counted."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconciliation.calendar import DayRule, SchoolCalendar, SessionTime, Timetable
from syncserver.calendar import calendar_item, sessions_shown, silent_days, window_of, zone_table


@given(st.datetimes(min_value=datetime(2025, 1, 1), max_value=datetime(2027, 12, 31)))  # noqa: DTZ001
def test_the_table_gives_the_zones_offset_at_every_moment(at: datetime) -> None:
    """The phone's table says the same as the zone data, summer time included."""
    moment = at.replace(tzinfo=UTC)
    expected = moment.astimezone(ZoneInfo("Africa/Cairo")).utcoffset()
    found = max(entry for entry in zone_table("Africa/Cairo", 2026) if entry[0] <= moment.timestamp() * 1000)
    assert expected is not None
    assert found[1] == expected.total_seconds()


@pytest.mark.parametrize("zone", ["Africa/Cairo", "America/Los_Angeles", "Pacific/Kiritimati"])
@pytest.mark.parametrize("year", [1, 2, 899, 999, 1000, 1001, 9997, 9998, 9999])
def test_every_year_has_a_table(zone: str, year: int) -> None:
    """The first and last years of all too, in zones on both sides of UTC; entries ascend and cover the year."""
    table = zone_table(zone, year)
    assert list(table) == sorted(set(table))
    first_day_ms = (date(year, 1, 1).toordinal() - date(1970, 1, 1).toordinal()) * 86_400_000
    assert table[0][0] <= first_day_ms


ZONE = zone_table("Africa/Cairo", 2026)
STORM = DayRule(is_open=False, reason="storm")
MORNINGS = ("am1", "am2", "am3")
RAMADAN = Timetable(
    kind="ramadan",
    from_date="2027-02-08",
    until_date="2027-03-10",
    sessions=tuple(
        SessionTime(session=name, starts_min=540 + 90 * n, ends_min=600 + 90 * n) for n, name in enumerate(MORNINGS[:2])
    ),
)


def test_silence_is_counted_in_school_days() -> None:
    """Thursday to Sunday is one school day; a closed Sunday makes it none; a very old contact costs a year at most."""
    thursday, sunday = date(2026, 11, 19), date(2026, 11, 22)
    assert silent_days(thursday, sunday, SchoolCalendar(zone=ZONE)) == 1
    assert silent_days(thursday, sunday, SchoolCalendar(zone=ZONE, days={"2026-11-22": STORM})) == 0
    assert silent_days(sunday, sunday, SchoolCalendar(zone=ZONE)) == 0
    assert 280 < silent_days(date(1990, 1, 1), sunday, SchoolCalendar(zone=ZONE)) < 400


@given(st.dates(min_value=date(2025, 1, 1), max_value=date(2030, 1, 1)))
def test_phones_are_told_of_whole_months(today: date) -> None:
    """Last month, this and the next: the item changes once a month, not every day."""
    first, last = window_of(today)
    assert first.day == 1
    assert (last.month - first.month) % 12 == 2
    assert first <= today <= last
    assert (last + timedelta(days=1)).day == 1


def test_the_version_follows_the_content() -> None:
    """Equal content has an equal version; any difference another."""
    today, usual = date(2026, 11, 22), SchoolCalendar(zone=ZONE)
    version, item = calendar_item(today, usual)
    assert calendar_item(date(2026, 11, 25), usual)[0] == version
    assert calendar_item(today, SchoolCalendar(zone=ZONE, days={"2026-11-22": STORM}))[0] != version
    assert calendar_item(today, SchoolCalendar(zone=ZONE, sessions=("am1", "pm1")))[0] != version
    assert item[1] == version


@pytest.mark.parametrize(
    ("today", "shown"),
    [
        (date(2027, 2, 6), MORNINGS),
        (date(2027, 2, 8), MORNINGS),
        (date(2027, 2, 21), MORNINGS),
        (date(2027, 2, 22), MORNINGS[:2]),
        (date(2027, 3, 8), MORNINGS[:2]),
        (date(2027, 3, 9), MORNINGS),
    ],
)
def test_a_phone_offers_the_sessions_of_every_day_its_screen_shows(today: date, shown: tuple[str, ...]) -> None:
    """In Ramadan the third lesson goes when no shown day has it any more, and is back the evening before it is."""
    calendar = SchoolCalendar(zone=ZONE, sessions=MORNINGS, timetables=(RAMADAN,))
    assert sessions_shown(today, calendar) == list(shown)
