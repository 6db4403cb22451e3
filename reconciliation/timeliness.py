"""On time, late arrival, adjustment: three different things that must never be mixed up. Pure.

Server time decides the window; the corrected capture decides on which side of it a mark was made. Doubt speaks for the
author: an adjustment (which needs an approver) is only what was *certainly* made after the window.
"""

from __future__ import annotations

from reconciliation.model import Capture, Timeliness, Window


def timeliness(captured: Capture, received_at_ms: int, window: Window) -> Timeliness:
    """Where a mark stands against its window. What was made before the window opens is on time."""
    if received_at_ms < window.closes_ms:
        return Timeliness.ON_TIME
    if captured.interval[0] < window.closes_ms:
        return Timeliness.LATE_ARRIVAL
    return Timeliness.ADJUSTMENT
