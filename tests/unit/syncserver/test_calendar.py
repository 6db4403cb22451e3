"""The server's calendar: offsets of the zone, the school week, exceptions."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from syncserver.calendar import calendar_item, closed_reason, school_days_between, window_of, zone_table


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


def test_the_week_is_sunday_to_thursday_unless_somebody_says_otherwise() -> None:
    """Friday and Saturday are closed; an exception opens or closes any date."""
    friday, sunday = date(2026, 11, 20), date(2026, 11, 22)
    assert (closed_reason(friday, {}), closed_reason(sunday, {})) == ("weekend", None)
    exceptions = {"2026-11-20": (True, "exam"), "2026-11-22": (False, "storm")}
    assert (closed_reason(friday, exceptions), closed_reason(sunday, exceptions)) == (None, "storm")


def test_silence_is_counted_in_school_days() -> None:
    """Thursday to Sunday is one school day; a closed Sunday makes it none."""
    thursday, sunday = date(2026, 11, 19), date(2026, 11, 22)
    assert school_days_between(thursday, sunday, {}) == 1
    assert school_days_between(thursday, sunday, {"2026-11-22": (False, "storm")}) == 0
    assert school_days_between(sunday, sunday, {}) == 0
    assert school_days_between(date(2000, 1, 1), sunday, {}) < 400


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
    today = date(2026, 11, 22)
    version, item = calendar_item(today, {}, ["day"], "Africa/Cairo")
    assert calendar_item(date(2026, 11, 25), {}, ["day"], "Africa/Cairo")[0] == version
    assert calendar_item(today, {"2026-11-22": (False, "storm")}, ["day"], "Africa/Cairo")[0] != version
    assert calendar_item(today, {}, ["am1", "pm1"], "Africa/Cairo")[0] != version
    assert item[1] == version
