"""One direction of a link: when bytes that go in now come out, by the compiled timeline.

Invariants:
- bytes leave in the order they went in: `occupy` never returns less than it did before;
- nothing moves while the link is off;
- times are milliseconds of the span (float: at 20 Mbit/s a packet takes half a millisecond).
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

from tests.weaknet.timeline import Timeline

OVERHEAD = 1.05  # IP and TCP headers and acknowledgements: 52 of 1,452 bytes, and some


@dataclass(slots=True)
class Pipe:
    """The timeline's rates in one direction, shared by everything that is sent.

    Attributes:
        timeline: Whose rates.
        up: From the phone to the server, or the other way.
        cap_kbps: A lower rate than the timeline's (a throttled budget), or None.
        overhead: Bytes on the link for each byte handed in; at least 1.
        resend: Whether lost packets are sent again here (a stream's pipe). A packet link loses them for good.
        met_off_ms: Begin of the last spell without network that bytes had to wait through, -1: none yet.
    """

    timeline: Timeline
    up: bool
    cap_kbps: float | None = None
    overhead: float = OVERHEAD
    resend: bool = True
    met_off_ms: int = -1
    _free_ms: float = 0.0
    _queued: deque[tuple[float, int]] = field(default_factory=deque)
    _queued_bytes: int = 0

    def occupy(self, now_ms: float, count: int) -> float | None:
        """Put `count` bytes on the link; returns when the last has passed it, None if never in the span.

        No bytes: when the link is next usable.
        """
        done_ms = self._carry(max(now_ms, self._free_ms), count * self.overhead * 8)
        if done_ms is None:
            self._free_ms = float("inf")
            return None
        self._free_ms = done_ms
        if count:
            self._queued.append((done_ms, count))
            self._queued_bytes += count
        return done_ms

    def backlog_bytes(self, now_ms: float) -> int:
        """Bytes that went in and have not passed yet."""
        while self._queued and self._queued[0][0] <= now_ms:
            self._queued_bytes -= self._queued.popleft()[1]
        return self._queued_bytes

    def room_at_ms(self, now_ms: float, queue_bytes: float) -> float:
        """When a buffer of `queue_bytes` next has room: `now_ms` if it has now."""
        if self.backlog_bytes(now_ms) < queue_bytes or not self._queued:
            return now_ms
        return self._queued[0][0]

    def kbps_at(self, at_ms: float) -> float:
        """What the link carries for us at an instant, in kbit/s; 0 while it is off."""
        segment = self.timeline.segment_at(int(at_ms))
        if segment.link is None:
            return 0.0
        kbps: float = segment.up_kbps if self.up else segment.down_kbps
        if self.resend:
            kbps *= 1 - self.timeline.profile.links[segment.link].mean_loss
        return kbps if self.cap_kbps is None else min(kbps, self.cap_kbps)

    def _carry(self, at_ms: float, bits: float) -> float | None:
        """When `bits` that begin at `at_ms` are through, waiting through off spells."""
        while at_ms < self.timeline.length_ms:
            segment, kbps = self.timeline.segment_at(int(at_ms)), self.kbps_at(at_ms)
            ends_ms = segment.to_ms
            if segment.link is None:
                self.met_off_ms = segment.from_ms
            if kbps > 0:
                takes_ms = bits / kbps  # kbit/s is bits per millisecond
                if at_ms + takes_ms <= ends_ms:
                    return at_ms + takes_ms
                bits -= kbps * (ends_ms - at_ms)
            at_ms = ends_ms
        return None
