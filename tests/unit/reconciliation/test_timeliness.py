"""On time, late arrival, adjustment."""

from __future__ import annotations

import pytest

from reconciliation.model import Capture, Confidence, Timeliness
from reconciliation.timeliness import timeliness
from tests.support.histories import DAY

END = DAY.closes_ms


@pytest.mark.parametrize(
    ("earliest", "latest", "received", "expected"),
    [
        (DAY.opens_ms, DAY.opens_ms, DAY.opens_ms, Timeliness.ON_TIME),
        (DAY.opens_ms - 1, DAY.opens_ms - 1, DAY.opens_ms, Timeliness.ON_TIME),  # early is on time
        (END - 1, END - 1, END - 1, Timeliness.ON_TIME),
        (END - 1, END - 1, END, Timeliness.LATE_ARRIVAL),
        (END - 1, END + 9, END + 9, Timeliness.LATE_ARRIVAL),  # doubt speaks for the author
        (END, END + 9, END + 9, Timeliness.ADJUSTMENT),
    ],
)
def test_captured_and_received_against_the_window(
    earliest: int, latest: int, received: int, expected: Timeliness
) -> None:
    """Late arrival is captured in time and received late; an adjustment was certainly made after the window."""
    captured = Capture(at_ms=latest, interval=(earliest, latest), confidence=Confidence.MEDIUM, clock_flag=False)
    assert timeliness(captured, received, DAY) is expected
