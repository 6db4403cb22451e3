"""What the status page remembers: one row an hour, one bit a minute (see sql/status.sql)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from syncserver.store.port import Reader, Transaction

MINUTES = 60
HOUR_MS, MINUTE_MS = 3_600_000, 60_000


@dataclass(slots=True)
class Hour:
    """The minutes of one hour (UTC), a bit each: watched, pushes put off, counted late, store failed."""

    measured: int = 0
    shed: int = 0
    delayed: int = 0
    failed: int = 0

    def add(self, other: Hour) -> None:
        """Whatever either of the two knows."""
        self.measured |= other.measured
        self.shed |= other.shed
        self.delayed |= other.delayed
        self.failed |= other.failed


async def read_hours(reader: Reader, *, from_hour: int) -> dict[int, Hour]:
    """Every hour from `from_hour` on about which something is known."""
    rows = await reader.fetch_all(
        "SELECT hour, measured, shed, delayed, failed FROM status_hours WHERE hour >= ? ORDER BY hour", (from_hour,)
    )
    return {hour: Hour(*bits) for hour, *bits in rows}


async def add_hours(tx: Transaction, hours: Mapping[int, Hour], *, keep_from: int) -> None:
    """Add what is known now to what was; forget hours before `keep_from`."""
    for number, hour in sorted(hours.items()):
        await tx.execute(
            """INSERT INTO status_hours VALUES (?, ?, ?, ?, ?) ON CONFLICT (hour) DO UPDATE SET
            measured = status_hours.measured | excluded.measured, shed = status_hours.shed | excluded.shed,
            delayed = status_hours.delayed | excluded.delayed, failed = status_hours.failed | excluded.failed""",
            (number, hour.measured, hour.shed, hour.delayed, hour.failed),
        )
    await tx.execute("DELETE FROM status_hours WHERE hour < ?", (keep_from,))
