"""Who is let in and who is asked to come later: decided by measured delay, not by a number somebody guessed. Pure.

Invariants:
  1. Nobody is turned away while the shortest delay of the last interval was within the target, in their lane and in
     every more urgent one, unless the hard bounds on what may wait (requests, bytes) are reached; where it is the
     requests, the lane is held to stand at once.
  2. Every lane in which somebody waits gets its share of the turns; within a lane time makes up for age and size, so
     nobody waits for ever behind those who came later.
  3. What is inside and what waits are bounded, whatever comes.

The idea is CoDel's: a queue that empties now and then is a good queue however long it gets in between; one whose
*shortest* delay stays above the target is a standing queue, and only those who come can be made fewer. While it stands,
no more wait than the measured rate serves within the target, those less urgent may wait for no more than their share of
the turns, and shedding ends with the first interval in which nobody had to be turned away.
"""

from __future__ import annotations

import math
from bisect import bisect_right, insort
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from operator import itemgetter
from typing import Generic, TypeVar


class Lane(IntEnum):
    """What somebody comes for, the most urgent first."""

    TODAY = 0  # registers of this school day
    BACKLOG = 1  # registers of earlier days
    LATER = 2  # pulls, calls, enrolments, bundles, reports


SHARES = {Lane.TODAY: 12, Lane.BACKLOG: 3, Lane.LATER: 1}
"""Turns out of sixteen while all three lanes wait; a lane in which nobody waits leaves its turns to the others."""

_PATIENCE = {Lane.TODAY: 1, Lane.BACKLOG: 4, Lane.LATER: 4}  # times the target
_BYTES_PER_MS = 64  # a frame of one register waits 10 ms longer than nothing at all, a full request 4 s
_DAY_MS, _DAYS_MAX = 50, 180
_BOUND_MIN = 8  # so few are served in no time; a rate measured from almost nothing must not close a lane
_due_ms = itemgetter(0)
_RETRY_S, _RETRY_MIN_S, _RETRY_MAX_S = 15, 10, 300


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What is too long and too much.

    Attributes:
        target_ms: Delay of the most urgent lane that may stand.
        interval_ms: For how long the shortest delay must be above the target.
        inside_max: Requests being worked on at once: enough for one commit on its way and the next being filled.
        waiting_max: Requests that may wait at all: more than these are no burst.
        waiting_bytes_max: Bytes of their bodies.
    """

    target_ms: int
    interval_ms: int
    inside_max: int
    waiting_max: int
    waiting_bytes_max: int


@dataclass(slots=True, eq=False, kw_only=True)
class Visit:
    """One request. `days`: age of its newest school day; `came_ms`: when it came, lag of the event loop included."""

    lane: Lane
    size_bytes: int
    days: int
    came_ms: int
    is_inside: bool = False

    @property
    def due_ms(self) -> int:
        """When it is due: those with the smallest number come first."""
        return self.came_ms + self.size_bytes // _BYTES_PER_MS + min(self.days, _DAYS_MAX) * _DAY_MS


V = TypeVar("V", bound=Visit)


@dataclass(slots=True)
class Delay:
    """The measured delay of one lane, interval by interval.

    Attributes:
        sheds: Whether its queue stands.
        stands: Whether this lane or a more urgent one sheds. Then at most `bound` may wait here.
        bound: See there.
        per_ms: Answered in a millisecond, over the last intervals.
        overload: Those who came over those who were served, in the last interval.
    """

    target_ms: int
    sheds: bool = False
    stands: bool = False
    bound: int = _BOUND_MIN
    overload: float = 1.0
    shortest_ms: int = 0
    served_count: int = 0
    per_ms: float = 0.0
    _least_ms: int | None = None
    _turned_away: int = 0

    def served(self, delay_ms: int) -> None:
        """Somebody was answered after so long."""
        self.served_count += 1
        if self._least_ms is None or delay_ms < self._least_ms:
            self._least_ms = delay_ms

    def turned_away(self) -> None:
        """Somebody was asked to come later."""
        self._turned_away += 1

    def look(self, passed_ms: int, waited_ms: int) -> None:
        """End the interval; `waited_ms`: how long the oldest has waited (counts where nobody was served)."""
        rate = self.served_count / max(passed_ms, 1)
        self.per_ms = (rate + self.per_ms) / 2 if self.per_ms else rate
        self.shortest_ms = waited_ms if self._least_ms is None else self._least_ms
        self.sheds = self._turned_away > 0 if self.sheds else self.shortest_ms > self.target_ms
        self.overload = (self.served_count + self._turned_away) / max(self.served_count, 1)
        self._least_ms, self.served_count, self._turned_away = None, 0, 0


@dataclass(slots=True)
class _Queue(Generic[V]):
    """Those who wait in one lane, the next one first."""

    share: int
    waiting: list[tuple[int, int, V]] = field(default_factory=list)
    turns: float = 0.0  # where its next turn lies


class Admission(Generic[V]):
    """Orders those who come, lets in, turns away. Time is passed in; whoever is turned away is handed back."""

    def __init__(self, limits: Limits, now_ms: int) -> None:
        self._limits = limits
        self.inside = 0
        self.delays = {lane: Delay(limits.target_ms * _PATIENCE[lane]) for lane in Lane}
        self._queues: dict[Lane, _Queue[V]] = {lane: _Queue(SHARES[lane]) for lane in Lane}
        self._count = self._bytes = self._seen = 0
        self._turn = 0.0  # where the lanes' turns have come to
        self._looked_ms, self._look_ms = now_ms, now_ms + limits.interval_ms

    def waiting(self, lane: Lane) -> int:
        """How many wait in a lane."""
        return len(self._queues[lane].waiting)

    @property
    def sheds(self) -> bool:
        """Whether any lane stands."""
        return any(delay.sheds for delay in self.delays.values())

    @property
    def puts_registers_off(self) -> bool:
        """Whether a lane of registers stands."""
        return self.delays[Lane.TODAY].sheds or self.delays[Lane.BACKLOG].sheds

    @property
    def is_pressed(self) -> bool:
        """Whether in some lane even the shortest delay of the last interval was over half of what may stand."""
        return any(delay.shortest_ms * 2 > delay.target_ms for delay in self.delays.values())

    def come(self, visit: V, now_ms: int) -> list[V]:
        """Somebody came. They are let in (`is_inside`), wait, or are among those who are turned away now."""
        if now_ms >= self._look_ms:
            self.look(now_ms)
        if not self._count and self.inside < self._limits.inside_max:
            self._let_in(visit)
            return []
        queue = self._queues[visit.lane]
        if not queue.waiting:  # a lane that was empty has saved no turns up
            queue.turns = max(queue.turns, self._turn)
        self._seen += 1
        insort(queue.waiting, (visit.due_ms, self._seen, visit))
        self._count += 1
        self._bytes += visit.size_bytes
        return self._turn_away(now_ms)

    def turns_away(self, visit: V, now_ms: int, expected: Sequence[int]) -> bool:
        """Whether `come` would turn this one away at once; counted if so, and then it need not come.

        Exact where nobody is expected. `expected`: how many in each lane are on their way and have not come yet; they
        are taken to come before this one, whatever they bring.
        """
        if now_ms >= self._look_ms:
            self.look(now_ms)
        delay = self.delays[visit.lane]
        if not delay.stands or (not self._count and self.inside + sum(expected) < self._limits.inside_max):
            return False
        before = bisect_right(self._queues[visit.lane].waiting, visit.due_ms, key=_due_ms)
        if before + expected[visit.lane] < delay.bound:
            return False
        delay.turned_away()
        return True

    def next(self) -> V | None:
        """The next one to let in, where there is room."""
        if not self._count or self.inside >= self._limits.inside_max:
            return None
        queue = min((q for q in self._queues.values() if q.waiting), key=lambda q: q.turns)
        self._turn = queue.turns
        queue.turns += 1 / queue.share
        visit = queue.waiting.pop(0)[2]
        self._forget(visit)
        self._let_in(visit)
        return visit

    def leave(self, visit: V, now_ms: int) -> None:
        """Somebody who was inside was answered."""
        self.inside -= 1
        self.delays[visit.lane].served(now_ms - visit.came_ms)
        if now_ms >= self._look_ms:
            self.look(now_ms)

    def give_up(self, visit: V) -> None:
        """Somebody who waits went away."""
        queue = self._queues[visit.lane]
        kept = [entry for entry in queue.waiting if entry[2] is not visit]
        if len(kept) < len(queue.waiting):
            queue.waiting = kept
            self._forget(visit)

    def retry_after_s(self, lane: Lane, fraction: float) -> int:
        """When to come again: full jitter, over a time that grows with the overload that was measured.

        Args:
            lane: What they came for.
            fraction: Uniform in [0, 1).
        """
        return 1 + int(fraction * min(max(_RETRY_S * self.delays[lane].overload, _RETRY_MIN_S), _RETRY_MAX_S))

    def look(self, now_ms: int) -> None:
        """End the interval of every lane if it is over."""
        if now_ms < self._look_ms:
            return
        passed_ms = now_ms - self._looked_ms
        self._looked_ms, self._look_ms = now_ms, now_ms + self._limits.interval_ms
        for lane, delay in self.delays.items():
            waiting = self._queues[lane].waiting
            delay.look(passed_ms, now_ms - min(entry[2].came_ms for entry in waiting) if waiting else 0)
        self._set_bounds()

    def _set_bounds(self) -> None:
        """As many as are served within the target: by the lane's own rate, and at least by its share of all turns, or
        a lane whose turns were taken by others would have less and less room. Behind a lane that sheds the share alone
        counts: nobody gets more turns than that there.
        """
        stands, all_per_ms = False, sum(delay.per_ms for delay in self.delays.values())
        for lane, delay in self.delays.items():
            share = all_per_ms * SHARES[lane] / sum(SHARES.values())
            rate = share if stands else max(delay.per_ms, share)
            delay.bound = max(_BOUND_MIN, math.ceil(rate * delay.target_ms))
            delay.stands = stands = stands or delay.sheds

    def _stand(self, lane: Lane, now_ms: int) -> None:
        """More wait than may: the lane's queue stands, and the end of the interval need not be waited for.

        What was served before it says little of what can be: a part of an interval is measured instead, and where that
        is too short, those inside are taken to be served within the target.
        """
        delay, passed_ms = self.delays[lane], now_ms - self._looked_ms
        if delay.sheds:
            return
        delay.sheds = True
        measured = self._limits.inside_max / self._limits.target_ms
        if passed_ms * 4 >= self._limits.interval_ms:
            measured = sum(one.served_count for one in self.delays.values()) / passed_ms
        delay.per_ms = max(delay.per_ms, measured)
        self._set_bounds()

    def _turn_away(self, now_ms: int) -> list[V]:
        gone = []
        for lane, queue in self._queues.items():
            delay = self.delays[lane]
            while delay.stands and len(queue.waiting) > delay.bound:
                gone.append(self._drop(lane))
        while self._count > self._limits.waiting_max or self._bytes > self._limits.waiting_bytes_max:
            least = max(lane for lane, queue in self._queues.items() if queue.waiting)
            if self._count > self._limits.waiting_max:
                self._stand(least, now_ms)
            gone.append(self._drop(least))
        return gone

    def _drop(self, lane: Lane) -> V:
        visit = self._queues[lane].waiting.pop()[2]
        self._forget(visit)
        self.delays[lane].turned_away()
        return visit

    def _let_in(self, visit: V) -> None:
        visit.is_inside = True
        self.inside += 1

    def _forget(self, visit: V) -> None:
        self._count -= 1
        self._bytes -= visit.size_bytes
