"""The school day of a register."""

from __future__ import annotations

import pytest

from clientcore.register import RegisterId
from reconciliation.calendar import day_window, lies_ahead
from reconciliation.clocks import DAY_MS
from reconciliation.errors import BadContext
from reconciliation.model import Window
from tests.support.histories import DAY, ZONE

HOUR = 3_600_000


@pytest.mark.parametrize(("date", "hours"), [("2026-11-22", 24), ("2026-10-29", 25), ("2027-04-30", 23)])
def test_a_school_day_has_23_24_or_25_hours(date: str, hours: int) -> None:
    """The window follows the civil day across summer time."""
    window = day_window(RegisterId("s", "c", date, "day"), ZONE)
    assert window.closes_ms - window.opens_ms == hours * HOUR


@pytest.mark.parametrize("date", ["0001-01-01", "9999-12-31"])
def test_the_ends_of_the_calendar_have_a_window(date: str) -> None:
    """A hostile but existing date breaks nothing."""
    window = day_window(RegisterId("s", "c", date, "am1"), ZONE)
    assert window.closes_ms - window.opens_ms == DAY_MS


def test_only_what_lies_more_than_a_day_ahead_is_future() -> None:
    """Preparing tomorrow's register the evening before is no oddity."""
    assert not lies_ahead(DAY, DAY.opens_ms - DAY_MS)
    assert lies_ahead(DAY, DAY.opens_ms - DAY_MS - 1)


def test_a_window_that_closes_before_it_opens_is_refused() -> None:
    """A contradiction in the context is the caller's mistake, told at once."""
    with pytest.raises(BadContext):
        Window(opens_ms=5, closes_ms=5)
