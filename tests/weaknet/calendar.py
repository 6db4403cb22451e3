"""Local wall time to elapsed milliseconds, and the part of a profile that needs no seed: when a link can exist.

Invariants:
  1. Elapsed time is real time: a day on which the clocks go forward has 23 hours, one on which they go back has 25.
  2. Windows of one link are disjoint and rise.
  3. A plan depends on the profile and the number of days only, so all devices of a profile share it.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta
from functools import lru_cache
from zoneinfo import ZoneInfo

from tests.weaknet.profile import Condition, Days, Link, Profile, Span

MINUTE_MS = 60_000
HOUR_MS = 3_600_000
DAY_MS = 86_400_000
DAY_MIN = 1_440

Stretch = tuple[int, int]  # [from, to) in elapsed milliseconds


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalDays:
    """The local days of a timeline.

    Attributes:
        span: The profile's span; its day numbers come again when there are more days than it has.
        midnights_ms: UTC milliseconds of each local midnight, the one after the last day included.
    """

    span: Span
    midnights_ms: tuple[int, ...]

    @property
    def start_ms(self) -> int:
        """UTC milliseconds of the first local midnight."""
        return self.midnights_ms[0]

    @property
    def count(self) -> int:
        """Number of days."""
        return len(self.midnights_ms) - 1

    @property
    def length_ms(self) -> int:
        """Elapsed milliseconds of all days."""
        return self.midnights_ms[-1] - self.midnights_ms[0]

    def weekday(self, day: int) -> int:
        """0 for Monday."""
        return (self.span.start.weekday() + day) % 7

    def matching(self, days: Days) -> Iterator[int]:
        """The days on which a window is true."""
        for day in range(self.count):
            if days.hold(day % self.span.days, self.weekday(day)):
                yield day

    def elapsed_ms(self, day: int, minute: int) -> int:
        """When a local time comes, in elapsed milliseconds.

        Of an hour that comes twice, the first; a time that the clock change leaves out comes with the change.
        """
        begins, ends = self.midnights_ms[day], self.midnights_ms[day + 1]
        if minute >= DAY_MIN:
            return ends - self.start_ms
        if ends - begins == DAY_MS:
            return begins + minute * MINUTE_MS - self.start_ms
        at_ms = _utc_ms(self.span, day, time(minute // 60, minute % 60))
        return min(max(at_ms, begins), ends) - self.start_ms

    def day_at(self, at_ms: int) -> int:
        """The day an elapsed time lies in."""
        return min(bisect_right(self.midnights_ms, at_ms + self.start_ms) - 1, self.count - 1)

    def stretch_of(self, day: int) -> Stretch:
        """A whole local day."""
        return self.midnights_ms[day] - self.start_ms, self.midnights_ms[day + 1] - self.start_ms


def _utc_ms(span: Span, day: int, at: time) -> int:
    zone = ZoneInfo(span.tz)
    local = datetime.combine(span.start + timedelta(days=day), at, tzinfo=zone)
    found = local.astimezone(UTC)
    if found.astimezone(zone).replace(tzinfo=None) != local.replace(tzinfo=None):  # the clocks leap over it
        found = _leap_before(found, zone)
    return round(found.timestamp() * 1_000)


def _leap_before(after: datetime, zone: ZoneInfo) -> datetime:
    """The instant of the clock change that lies less than a day before `after`, to the minute."""
    first = after - timedelta(days=1)
    offset = after.astimezone(zone).utcoffset()
    minute = bisect_left(
        range(DAY_MIN), True, key=lambda step: (first + timedelta(minutes=step)).astimezone(zone).utcoffset() == offset
    )
    return first + timedelta(minutes=minute)


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """What holds for new connections and rates during a stretch."""

    rate_scale: float
    connect_fail: float
    dns_fail: float


@dataclass(frozen=True, slots=True, kw_only=True)
class LinkPlan:
    """A link without its seed: when it can exist, and what holds when.

    Attributes:
        open: Disjoint rising stretches.
        states_from: Where each of `states` begins; the first begins at 0.
    """

    open: tuple[Stretch, ...]
    states_from: tuple[int, ...]
    states: tuple[State, ...]

    def state_at(self, at_ms: int) -> tuple[State, int, int]:
        """(what holds, since when, until when)."""
        place = bisect_right(self.states_from, at_ms) - 1
        ends = self.states_from[place + 1] if place + 1 < len(self.states_from) else 1 << 62
        return self.states[place], self.states_from[place], ends


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """A profile over so many days, without a seed."""

    days: LocalDays
    links: tuple[LinkPlan, ...]


@lru_cache(maxsize=256)
def plan_of(profile: Profile, count: int) -> Plan:
    """The plan of a profile over `count` local days."""
    midnights = tuple(_utc_ms(profile.span, day, time()) for day in range(count + 1))
    days = LocalDays(span=profile.span, midnights_ms=midnights)
    return Plan(days=days, links=tuple(_link_plan(link, days) for link in profile.links))


def _link_plan(link: Link, days: LocalDays) -> LinkPlan:
    if link.open is None:
        opened = [(0, days.length_ms)]
    else:
        opened = [
            (days.elapsed_ms(day, window.from_min), days.elapsed_ms(day, window.to_min))
            for window in link.open
            for day in days.matching(window.days)
        ]
    starts, states = _states(link, days)
    return LinkPlan(open=merged(opened), states_from=starts, states=states)


def _states(link: Link, days: LocalDays) -> tuple[tuple[int, ...], tuple[State, ...]]:
    """Of conditions that overlap, the one listed last decides."""
    usual = State(rate_scale=1.0, connect_fail=link.connect_fail, dns_fail=link.dns_fail)
    spells = [
        (days.elapsed_ms(day, condition.window.from_min), days.elapsed_ms(day, condition.window.to_min), condition)
        for condition in link.when
        for day in days.matching(condition.window.days)
    ]
    edges = sorted({0, *(edge for first, last, _ in spells for edge in (first, last))})
    starts: list[int] = []
    states: list[State] = []
    for edge in edges:
        holding = [condition for first, last, condition in spells if first <= edge < last]
        state = _changed(usual, holding[-1]) if holding else usual
        if not states or states[-1] != state:
            starts.append(edge)
            states.append(state)
    return tuple(starts), tuple(states)


def _changed(usual: State, condition: Condition) -> State:
    return State(
        rate_scale=condition.rate_scale,
        connect_fail=usual.connect_fail if condition.connect_fail is None else condition.connect_fail,
        dns_fail=usual.dns_fail if condition.dns_fail is None else condition.dns_fail,
    )


def merged(stretches: Iterable[Stretch]) -> tuple[Stretch, ...]:
    """The same time as disjoint rising stretches; empty ones are dropped."""
    found: list[Stretch] = []
    for first, last in sorted(stretches):
        if last <= first:
            continue
        if found and first <= found[-1][1]:
            found[-1] = (found[-1][0], max(last, found[-1][1]))
        else:
            found.append((first, last))
    return tuple(found)


def without(stretches: Iterable[Stretch], holes: Iterable[Stretch]) -> tuple[Stretch, ...]:
    """`stretches` less `holes`; both disjoint and rising."""
    left = list(stretches)
    for hole_from, hole_to in holes:
        cut: list[Stretch] = []
        for first, last in left:
            if hole_to <= first or last <= hole_from:
                cut.append((first, last))
                continue
            if first < hole_from:
                cut.append((first, hole_from))
            if hole_to < last:
                cut.append((hole_to, last))
        left = cut
    return tuple(left)
