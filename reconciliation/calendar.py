"""The school day of a register, and what the calendar has to say about it. Pure.

First slice: the window of every session is its whole civil day. Sessions with their own hours, the school week, Ramadan
and working-day arithmetic will derive narrower windows here; nothing else computes one.
"""

from __future__ import annotations

from clientcore.register import RegisterId
from reconciliation.clocks import DAY_MS, midnight_ms
from reconciliation.model import Window, Zone


def day_window(register: RegisterId, zone: Zone) -> Window:
    """The civil day of the register in server time: 23, 24 or 25 hours."""
    return Window(
        opens_ms=midnight_ms(register.date, zone),
        closes_ms=midnight_ms(register.date, zone, days_later=1),
    )


def lies_ahead(day: Window, received_at_ms: int) -> bool:
    """Whether the register's day began more than a day after the receipt: nobody can have seen those pupils."""
    return day.opens_ms - received_at_ms > DAY_MS
