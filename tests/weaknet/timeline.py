"""A profile and a seed, compiled: what one device's network and surroundings do at every millisecond of the span.

Invariants:
  1. Same profile, seed and number of days: same answers, in whatever order they are asked for. Asking changes nothing.
  2. Segments are contiguous, never empty, and cover [0, length_ms).
  3. More days never change the days before them.

Compiling draws what is drawn once or rarely (closures, device events). Spells of a flapping link and rates are drawn
when somebody looks: spells restart with an *on* spell in each piece of open time, so that the spells of a term need not
be drawn to know its last morning; a piece is at least eight times the longest spell (up to a day), which keeps the
table's shares.
"""

from __future__ import annotations

import math
from array import array
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

from tests.weaknet.calendar import HOUR_MS, LinkPlan, LocalDays, Stretch, merged, plan_of, without
from tests.weaknet.draws import Stream, Table
from tests.weaknet.happenings import DeviceEvent, happenings
from tests.weaknet.profile import Flap, Link, Profile

__all__ = ["Connection", "DeviceEvent", "Segment", "Timeline", "compile_timeline"]

_PIECE_HOURS = (1, 2, 3, 4, 6, 8, 12, 24)
_PIECE_SPELLS = 8
Found = tuple[bool, int, int]  # whether usable, since when, until when
_SPELLS_BITS = 24  # draws of one piece: k = piece << 24 | spell


@dataclass(frozen=True, slots=True, kw_only=True)
class Segment:
    """A stretch in which nothing changes.

    Attributes:
        from_ms: Elapsed milliseconds since the timeline's start.
        to_ms: Its end, exclusive.
        link: Index into `profile.links`; None when nothing is usable (then the rates are 0 and `connect_fail` is 1).
        down_kbps: Rate to the device; may be 0 on a link that is up.
        up_kbps: Rate from the device.
        connect_fail: Chance that a new connection fails.
        dns_fail: Chance that a name is not resolved.
    """

    from_ms: int
    to_ms: int
    link: int | None
    down_kbps: float
    up_kbps: float
    connect_fail: float
    dns_fail: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Connection:
    """What one connection meets.

    Attributes:
        rtt_ms: Its round trip.
        fails: Whether and where it fails to come about.
        cut: Whether it dies part-way: by a reset, or by silence.
        cut_at: Where, as a share of request and response bytes together, in [0, 1).
    """

    rtt_ms: float
    fails: Literal["dns", "connect"] | None
    cut: Literal["rst", "blackhole"] | None
    cut_at: float


def compile_timeline(profile: Profile, seed: int, *, days: int | None = None) -> Timeline:
    """Compile a profile for one device.

    Args:
        profile: See `profile.load`.
        seed: One device, one run.
        days: Local days, default those of the span. With more of them the span is played again: weekday windows follow
            the real calendar, numbered days, dated clock jumps and chances per run come once in each round.
    """
    count = profile.span.days if days is None else days
    if count < 1:
        raise ValueError("a timeline has at least one day")
    return Timeline(profile, seed, count)


class Timeline:
    """See the module's docstring.

    Attributes:
        profile: What was compiled.
        seed: With which seed.
        days: The local days it covers.
        start_ms: UTC milliseconds of the first local midnight.
        length_ms: Elapsed milliseconds of all days.
        events: What happens to the device, in order of time.
        offset_s: The device clock's error at the start, seconds (device minus true time).
        drift_ppm: How fast that error grows, microseconds a second.
        zone_error_s: Error of the device's zone rules, seconds: its local time is off, its epoch is not.
    """

    def __init__(self, profile: Profile, seed: int, count: int) -> None:
        plan = plan_of(profile, count)
        self.profile, self.seed = profile, seed
        self.days: LocalDays = plan.days
        self.start_ms, self.length_ms = plan.days.start_ms, plan.days.length_ms
        self.events = happenings(profile, seed, plan.days)
        clock = profile.device.clock
        self.offset_s = self._stream("device.offset_s").value(clock.offset_s, 0)
        self.drift_ppm = self._stream("device.drift_ppm").value(clock.drift_ppm, 0)
        self.zone_error_s = self._stream("device.zone_error_s").value(clock.zone_error_s, 0)
        self._links = tuple(
            _LinkRun(link, link_plan, self) for link, link_plan in zip(profile.links, plan.links, strict=True)
        )
        self._segments: tuple[Segment, ...] | None = None
        self._last: Segment | None = None

    def _stream(self, name: str) -> Stream:
        return Stream(self.profile.id, self.seed, name)

    @property
    def segments(self) -> tuple[Segment, ...]:
        """All segments. For long spans with fast changes there are hundreds of thousands: prefer `between`."""
        if self._segments is None:
            self._segments = tuple(self.between(0, self.length_ms))
        return self._segments

    def between(self, from_ms: int, to_ms: int) -> Iterator[Segment]:
        """The segments that touch [from_ms, to_ms), whole."""
        at_ms = max(0, from_ms)
        while at_ms < min(to_ms, self.length_ms):
            segment = self.segment_at(at_ms)
            yield segment
            at_ms = segment.to_ms

    def segment_at(self, at_ms: int) -> Segment:
        """The segment that an elapsed time lies in.

        Raises:
            ValueError: outside [0, length_ms).
        """
        last = self._last
        if last is not None and last.from_ms <= at_ms < last.to_ms:
            return last
        if not 0 <= at_ms < self.length_ms:
            raise ValueError(f"{at_ms} ms lies outside the timeline's {self.length_ms} ms")
        self._last = found = self._segment(at_ms)
        return found

    def _segment(self, at_ms: int) -> Segment:
        low, high = 0, self.length_ms
        for index, link in enumerate(self._links):
            usable, first, last = link.usable(at_ms)
            low, high = max(low, first), min(high, last)
            if usable:
                return link.segment(at_ms, index, low, high)
        return Segment(from_ms=low, to_ms=high, link=None, down_kbps=0.0, up_kbps=0.0, connect_fail=1.0, dns_fail=0.0)

    def carried_ms(self, at_ms: int, count_bytes: int, *, up: bool, rtt_ms: float | None = None) -> int | None:
        """When bytes that begin at `at_ms` have passed the link, waiting through off spells; None: never in the span.

        Args:
            at_ms: Elapsed milliseconds.
            count_bytes: With whatever the layers below add.
            up: From the device to the server.
            rtt_ms: When given, packet loss is folded into the rate (see `Link.goodput_kbps`).
        """
        left_bits, at = count_bytes * 8.0, float(at_ms)
        while at < self.length_ms:
            segment = self.segment_at(int(at))
            rate = segment.up_kbps if up else segment.down_kbps  # kbit/s is bits a millisecond
            if rtt_ms is not None and segment.link is not None:
                rate = self.profile.links[segment.link].goodput_kbps(rate, rtt_ms)
            if segment.link is not None and rate > 0:
                if rate * (segment.to_ms - at) >= left_bits:
                    return math.ceil(at + left_bits / rate)
                left_bits -= rate * (segment.to_ms - at)
            at = float(segment.to_ms)
        return None

    def connection(self, k: int, at_ms: int) -> Connection:
        """The k-th connection of this device, opened at `at_ms`: all its draws.

        Where nothing is usable it fails at once.
        """
        segment = self.segment_at(at_ms)
        if segment.link is None:
            return Connection(rtt_ms=0.0, fails="connect", cut=None, cut_at=0.0)
        return self._links[segment.link].connection(k, segment)


class _LinkRun:
    """One link of one device: its plan, closures, spells and rates."""

    def __init__(self, link: Link, plan: LinkPlan, whole: Timeline) -> None:
        self.link, self._plan = link, plan
        self._name, self._stream = link.name, whole._stream
        self._down = _Rate(link.down_kbps, self._stream(f"{link.name}.down_kbps"))
        self._up = _Rate(link.up_kbps, self._stream(f"{link.name}.up_kbps"))
        opened = plan.open
        if link.shut:
            opened = without(opened, merged(self._closures(whole.days)))
        self._spells: _Spells | None = None
        if link.flap is not None:
            on, off = self._stream(f"{link.name}.on"), self._stream(f"{link.name}.off")
            self._spells = _Spells(link.flap, on, off)
            opened = _in_pieces(opened, self._spells.piece_ms)
        self._starts = [first for first, _ in opened]
        self._ends = [last for _, last in opened]
        self._length_ms = whole.length_ms
        self._draws: dict[str, Stream] = {}

    def _closures(self, days: LocalDays) -> Iterator[Stretch]:
        for place, shut in enumerate(self.link.shut):
            where = self._stream(f"{self._name}.shut.{place}")
            blurs = self._stream(f"{self._name}.shut.{place}.blur")
            for day in days.matching(shut.window.days):
                room_min = shut.window.to_min - shut.window.from_min - shut.for_min
                begins = days.elapsed_ms(day, shut.window.from_min) + where.u(day) * room_min * 60_000
                slack_ms = shut.slack_min * 60_000
                first = begins + (2 * blurs.u(2 * day) - 1) * slack_ms
                last = begins + shut.for_min * 60_000 + (2 * blurs.u(2 * day + 1) - 1) * slack_ms
                yield max(0, round(first)), min(days.length_ms, round(last))

    def open_pieces(self) -> tuple[Stretch, ...]:
        """Open time less closures, cut into the pieces in which spells restart."""
        return tuple(zip(self._starts, self._ends, strict=True))

    def usable(self, at_ms: int) -> Found:
        """(whether it can be used, since when, until when)."""
        place = bisect_right(self._starts, at_ms) - 1
        if place < 0 or at_ms >= self._ends[place]:
            first = self._ends[place] if place >= 0 else 0
            last = self._starts[place + 1] if place + 1 < len(self._starts) else self._length_ms
            return False, first, last
        if self._spells is None:
            return True, self._starts[place], self._ends[place]
        return self._spells.at(place, self._starts[place], self._ends[place], at_ms)

    def segment(self, at_ms: int, index: int, low: int, high: int) -> Segment:
        state, state_from, state_to = self._plan.state_at(at_ms)
        down, down_from, down_to = self._down.at(at_ms)
        up, up_from, up_to = self._up.at(at_ms)
        return Segment(
            from_ms=max(low, state_from, down_from, up_from),
            to_ms=min(high, state_to, down_to, up_to),
            link=index,
            down_kbps=down * state.rate_scale,
            up_kbps=up * state.rate_scale,
            connect_fail=state.connect_fail,
            dns_fail=state.dns_fail,
        )

    def connection(self, k: int, segment: Segment) -> Connection:
        fails: Literal["dns", "connect"] | None = None
        if segment.dns_fail > 0 and self._u("dns_fail", k) < segment.dns_fail:
            fails = "dns"
        elif segment.connect_fail > 0 and self._u("connect_fail", k) < segment.connect_fail:
            fails = "connect"
        cut: Literal["rst", "blackhole"] | None = None
        if self.link.cut is not None and self._u("cut", k) < self.link.cut.per_conn:
            cut = "rst" if self._u("cut_how", k) < self.link.cut.rst else "blackhole"
        return Connection(
            rtt_ms=self.link.rtt_ms.at(self._u("rtt_ms", k)), fails=fails, cut=cut, cut_at=self._u("cut_at", k)
        )

    def _u(self, field: str, k: int) -> float:
        stream = self._draws.get(field)
        if stream is None:
            stream = self._draws[field] = self._stream(f"{self._name}.{field}")
        return stream.u(k)


class _Rate:
    """One direction's rate: a draw every `hold_s` of elapsed time, or one for the run."""

    def __init__(self, table: Table, stream: Stream) -> None:
        self._table, self._stream = table, stream
        self._hold_ms = 0 if table.is_constant else round(table.hold_s * 1_000)
        self._once = stream.value(table, 0) if self._hold_ms == 0 else 0.0

    def at(self, at_ms: int) -> tuple[float, int, int]:
        """(kbit/s, since when, until when)."""
        if self._hold_ms == 0:
            return self._once, 0, 1 << 62
        k = at_ms // self._hold_ms
        return self._stream.value(self._table, k), k * self._hold_ms, (k + 1) * self._hold_ms


class _Spells:
    """On and off spells inside pieces of open time, drawn as far as somebody looked."""

    def __init__(self, flap: Flap, on: Stream, off: Stream) -> None:
        self._flap, self._on, self._off = flap, on, off
        longest_h = max(flap.on_s.high, flap.off_s.high) * _PIECE_SPELLS / 3_600
        self.piece_ms = HOUR_MS * next((hours for hours in _PIECE_HOURS if hours >= longest_h), _PIECE_HOURS[-1])
        self._edges: dict[int, array[int]] = {}

    def at(self, piece: int, begins: int, ends: int, at_ms: int) -> Found:
        """(whether on, since when, until when) inside a piece that holds `at_ms`."""
        edges = self._edges.get(piece)
        if edges is None:
            edges = self._edges[piece] = array("q", [begins])
        while edges[-1] <= at_ms:
            spell, is_off = divmod(len(edges) - 1, 2)
            k = piece << _SPELLS_BITS | spell
            lasts_s = self._off.value(self._flap.off_s, k) if is_off else self._on.value(self._flap.on_s, k)
            edges.append(edges[-1] + max(1, round(lasts_s * 1_000)))
        place = bisect_right(edges, at_ms) - 1
        return place % 2 == 0, edges[place], min(edges[place + 1], ends)


def _in_pieces(stretches: Iterable[Stretch], piece_ms: int) -> tuple[Stretch, ...]:
    """The same time, no stretch longer than `piece_ms`."""
    return tuple(
        (begins, min(begins + piece_ms, last)) for first, last in stretches for begins in range(first, last, piece_ms)
    )
