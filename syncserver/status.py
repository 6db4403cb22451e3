"""What the public status page tells: what is so now and what was in the last days, as far as it was measured.

Invariants:
  1. A minute counts as measured when it was watched from its beginning to its end, or when something bad was seen in
     it. What nobody watched is unknown, never good.
  2. A request reads memory only; the store is read and written by the stage, at most once a minute but for the lag.
  3. Nothing of any school, person or register is in it.

Every process of a server watches: each knows whom it has put off itself. What they remember is added up in the store.
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

from syncserver.config import Config
from syncserver.entrance import Entrance
from syncserver.errors import StoreFailed
from syncserver.intake import Intake
from syncserver.ports import ServerPorts
from syncserver.problems import trace
from syncserver.store import status as rows
from syncserver.store.consuming import read_lag
from syncserver.store.port import Database
from syncserver.store.status import HOUR_MS, MINUTE_MS, MINUTES, Hour

_LOG = logging.getLogger("hudur.status")
DAYS = 14
LATE_MS = 5 * MINUTE_MS
_TICKS_OF_POLL = 5  # a look at the lag every 5 s, with the usual `poll_ms`
GAP_MS = 20_000  # nobody looked for so long: what was meanwhile is unknown
_SHED_FOR_MS = 60_000  # who was put off comes again about then: until there the server is still called busy
_DAYS_KEPT = DAYS + 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Now:
    """This moment.

    Attributes:
        at_ms: When it was looked at.
        is_watched: Whether the lag was looked at lately; the other facts are always known.
        sheds: Pushes were put off within the last minute.
        fails: The store takes nothing.
        delay_ms: How long the oldest change waits to be counted; 0: none waits; None: not known.
        last_commit_ms: When a push was last made durable by this process; None: not since it was started.
    """

    at_ms: int
    is_watched: bool
    sheds: bool
    fails: bool
    delay_ms: int | None
    last_commit_ms: int | None

    @property
    def state(self) -> str:
        """The worst of it in one word."""
        if self.fails:
            return "failing"
        if self.sheds:
            return "shedding"
        if not self.is_watched or self.delay_ms is None:
            return "unknown"
        return "late" if self.delay_ms > LATE_MS else "accepting"


@dataclass(slots=True, kw_only=True)
class Day:
    """Minutes of one civil day: those that have passed; watched; in which pushes were put off, changes were counted
    more than 5 minutes late, the store failed. `good`: watched and none of these.
    """

    date: str
    passed: int = 0
    measured: int = 0
    shed: int = 0
    delayed: int = 0
    failed: int = 0
    good: int = 0

    @property
    def unknown(self) -> int:
        """Minutes nobody watched."""
        return self.passed - self.measured


class Status:
    """Watches and remembers."""

    def __init__(self, config: Config, db: Database, ports: ServerPorts, intake: Intake, entrance: Entrance) -> None:
        self._config, self._db, self._ports = config, db, ports
        self._intake, self._entrance = intake, entrance
        self._hours: dict[int, Hour] = {}  # of the last days: the store's, and what is seen now
        self._fresh: dict[int, Hour] = {}  # not in the store yet
        self._seen_sheds = self._seen_failures = 0
        self._shed_ms: int | None = None
        self._since_ms: int | None = None  # watched without a gap since then
        self._ticked_ms: int | None = None
        self._looked_ms: int | None = None
        self._oldest_ms: int | None = None
        self._written_ms: int | None = None

    async def run(self) -> None:
        """Watch until cancelled. Waiting is real time, as in the settle stage."""
        while True:
            try:
                await self.tick()
            except StoreFailed as failed:
                _LOG.error("the status waits for the store: %s", failed)
            except Exception as fault:  # ours: the page says that nothing is measured
                _LOG.error("fault in the status: %s", trace(fault))
            with suppress(TimeoutError):
                async with asyncio.timeout(_TICKS_OF_POLL * self._config.poll_ms / 1000):
                    await asyncio.Event().wait()

    async def tick(self) -> None:
        """Look at everything once, and bring the store up to date where a minute has passed.

        Raises:
            StoreFailed: what was seen is kept and written later.
        """
        self.look()
        oldest_ms = (await read_lag(self._db)).oldest_ms
        now_ms = self._ports.clock.wall_ms()
        if self._ticked_ms is None or not 0 <= now_ms - self._ticked_ms <= GAP_MS:
            self._since_ms = now_ms
        self._ticked_ms, self._oldest_ms = now_ms, oldest_ms
        self._note_watched(now_ms)
        if oldest_ms is not None and now_ms - oldest_ms > LATE_MS:
            self._note(now_ms, now_ms, "delayed")
        if self._written_ms is None or not 0 <= now_ms - self._written_ms < MINUTE_MS:
            await self._remember(now_ms)
            self._written_ms = now_ms

    def look(self) -> Now:
        """This moment, from memory."""
        now_ms = self._ports.clock.wall_ms()
        from_ms = now_ms if self._looked_ms is None else min(max(self._looked_ms, now_ms - GAP_MS), now_ms)
        self._looked_ms = now_ms
        if self._entrance.sheds_total > self._seen_sheds:
            self._note(from_ms, now_ms, "shed")
            self._shed_ms = now_ms
        if self._intake.failures > self._seen_failures or self._db.failed:
            self._note(from_ms, now_ms, "failed")
        self._seen_sheds, self._seen_failures = self._entrance.sheds_total, self._intake.failures
        is_watched = self._ticked_ms is not None and 0 <= now_ms - self._ticked_ms <= GAP_MS
        delay_ms = 0 if self._oldest_ms is None else max(0, now_ms - self._oldest_ms)
        return Now(
            at_ms=now_ms,
            is_watched=is_watched,
            sheds=self._shed_ms is not None and 0 <= now_ms - self._shed_ms < _SHED_FOR_MS,
            fails=self._db.failed,
            delay_ms=delay_ms if is_watched else None,
            last_commit_ms=self._intake.last_commit_ms,
        )

    def days(self) -> list[Day]:
        """The last days in the schools' zone, today first."""
        zone, now_ms = ZoneInfo(self._config.zone), self._ports.clock.wall_ms()
        today = datetime.fromtimestamp(now_ms / 1000, tz=zone).date()
        found = {str(one): Day(date=str(one)) for one in (today - timedelta(days=back) for back in range(DAYS))}
        last_minute = now_ms // MINUTE_MS
        for number in range(now_ms // HOUR_MS - DAYS * 24 - 1, now_ms // HOUR_MS + 1):
            first = number * MINUTES
            # An hour may lie in two days where the zone is not a whole number of hours from UTC: by quarters.
            for at in range(0, MINUTES, 15):
                local = datetime.fromtimestamp((first + at) * 60, tz=zone).date()
                if (day := found.get(str(local))) is not None and (passed := min(15, last_minute - first - at)) > 0:
                    _count(day, self._hours.get(number), at, passed)
        return list(found.values())

    async def _remember(self, now_ms: int) -> None:
        keep_from = now_ms // HOUR_MS - _DAYS_KEPT * 24
        if self._fresh:
            written, self._fresh = self._fresh, {}  # what is seen while it is being written comes with the next minute
            try:
                async with self._db.transaction() as tx:
                    await rows.add_hours(tx, written, keep_from=keep_from)
            except BaseException:
                _merge(self._fresh, written)
                raise
        stored = await rows.read_hours(self._db, from_hour=keep_from)
        _merge(stored, self._fresh)
        self._hours = stored

    def _note_watched(self, now_ms: int) -> None:
        """Every whole minute since the last gap; those before the last hour were noted then."""
        assert self._since_ms is not None
        first = max(-(-self._since_ms // MINUTE_MS), now_ms // MINUTE_MS - MINUTES)
        for minute in range(first, now_ms // MINUTE_MS):
            self._mark(minute, "measured")

    def _note(self, from_ms: int, until_ms: int, what: str) -> None:
        for minute in range(from_ms // MINUTE_MS, until_ms // MINUTE_MS + 1):
            self._mark(minute, "measured")
            self._mark(minute, what)

    def _mark(self, minute: int, what: str) -> None:
        number, bit = minute // MINUTES, 1 << minute % MINUTES
        known = self._hours.setdefault(number, Hour())
        if not getattr(known, what) & bit:
            for hour in (known, self._fresh.setdefault(number, Hour())):
                setattr(hour, what, getattr(hour, what) | bit)


def _merge(known: dict[int, Hour], more: dict[int, Hour]) -> None:
    for number, hour in more.items():
        known.setdefault(number, Hour()).add(hour)


def _count(day: Day, hour: Hour | None, at: int, passed: int) -> None:
    """Add some minutes of an hour, from minute `at` on."""
    day.passed += passed
    if hour is None:
        return
    window = ((1 << passed) - 1) << at & hour.measured
    bad = hour.shed | hour.delayed | hour.failed
    day.measured += window.bit_count()
    day.shed += (window & hour.shed).bit_count()
    day.delayed += (window & hour.delayed).bit_count()
    day.failed += (window & hour.failed).bit_count()
    day.good += (window & ~bad).bit_count()
