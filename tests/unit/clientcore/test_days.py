"""Civil days over a table of offsets."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clientcore.days import civil_date, local_ms, midnight_ms, zone_offsets
from clientcore.errors import BadInput

CAIRO = ZoneInfo("Africa/Cairo")
NOVEMBER_2026_MS = 1_795_334_400_000
TABLE = zone_offsets("Africa/Cairo", NOVEMBER_2026_MS)


@given(st.integers(NOVEMBER_2026_MS // 1000 - 700 * 86_400, NOVEMBER_2026_MS // 1000 + 700 * 86_400))
def test_the_table_agrees_with_the_zone_data_at_every_second(at_s: int) -> None:
    """Local time and civil date are those of zoneinfo, switches included."""
    instant = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=at_s)
    there = instant.astimezone(CAIRO)
    offset = there.utcoffset()
    assert offset is not None
    assert local_ms(TABLE, at_s * 1000) == at_s * 1000 + int(offset.total_seconds()) * 1000
    assert civil_date(TABLE, at_s * 1000) == there.date().isoformat()


@given(st.dates(datetime(2025, 1, 1, tzinfo=UTC).date(), datetime(2028, 9, 1, tzinfo=UTC).date()))
def test_a_day_begins_with_its_first_instant(date: object) -> None:
    """Midnight is the first millisecond of the date, also where summer time skips or repeats an hour."""
    begins = midnight_ms(TABLE, str(date))
    assert civil_date(TABLE, begins) == str(date)
    assert civil_date(TABLE, begins - 1) < str(date)


def test_a_clock_without_a_date_is_named() -> None:
    """A clock beyond the calendar's years gives an error a person understands."""
    with pytest.raises(BadInput) as refused:
        civil_date(TABLE, 10**18)
    assert refused.value.code == "clock"


def test_a_broken_clock_still_gets_a_table() -> None:
    """1970 and the far future have a zone table too."""
    for at_ms in (0, -(10**12), 10**17):
        assert zone_offsets("Africa/Cairo", at_ms)
    with pytest.raises(BadInput):
        midnight_ms(TABLE, "2026-02-30")
