"""Driver (c): a packet link between two network namespaces that does what a compiled timeline says, in real time.

    with TunLink(server_port, timeline, at_ms) as link:
        link.popen([HUDUR, "device", "sync", …])       # inside the phone's namespace; the server is at `link.url`
    link.stats

Two TUN devices, and between them this program: per packet rate and queue (drop-tail, in bytes), half a round trip of
delay, Gilbert-Elliott loss; while the link is off, packets are dropped. TCP's own timers and retransmissions are the
kernel's. Not here (driver (b) has them): cuts, NAT, names, portal, budget. The server stays where it is, on 127.0.0.1:
a relay in the far namespace hands its connections over. Needs Linux, root and /dev/net/tun; `namespace.why_not` tells.
"""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import threading
from collections.abc import Coroutine, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Final, TypeVar

from tests.weaknet.draws import uniform
from tests.weaknet.loss import GilbertElliott
from tests.weaknet.namespace import CONGESTION, Namespace
from tests.weaknet.pipe import Pipe
from tests.weaknet.relay import Relay
from tests.weaknet.timeline import Timeline

PHONE, FAR, PREFIX = "10.77.0.2", "10.77.0.1", 30
PACKET_BYTES_MAX = 65_536
TCP_CONGESTION: Final = 13
CALL_S = 30.0
TCP, UDP = 6, 17
T = TypeVar("T")


@dataclass(slots=True, kw_only=True)
class WayStats:
    """What became of the packets of one direction."""

    packets: int = 0
    bytes: int = 0
    lost: int = 0
    queue_full: int = 0
    link_off: int = 0
    delivered: int = 0


@dataclass(slots=True)
class _Way:
    """One direction: where packets come from, where they go, and the books."""

    pipe: Pipe
    source: int
    sink: int
    loss: dict[int, GilbertElliott] = field(default_factory=dict)  # by link of the profile
    stats: WayStats = field(default_factory=WayStats)


class TunLink:
    """A phone's namespace, a far namespace, and the packet link between them, from instant `at_ms` of the span on.

    Args:
        target: Port of the server on the machine's 127.0.0.1.
        timeline: Of one phone.
        at_ms: Instant of the span, ms, that is the moment of entering.
    """

    def __init__(self, target: int, timeline: Timeline, at_ms: int) -> None:
        self.timeline, self.at_ms = timeline, at_ms
        self.port = 0
        self._stack = ExitStack()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True, name="weaknet-tun")
        self._relay = Relay(target)
        self._began_s = 0.0
        self._flows: dict[int, float] = {}  # phone's port -> round trip, ms
        self._failures: list[BaseException] = []
        self.phone = Namespace()
        self.far = Namespace()

    @property
    def url(self) -> str:
        """Where the server is, seen from the phone's namespace."""
        return f"http://{FAR}:{self.port}"

    def __enter__(self) -> TunLink:
        with ExitStack() as stack:
            stack.enter_context(self.phone)
            stack.enter_context(self.far)
            near, beyond = self.phone.tun(PHONE, PREFIX), None
            stack.callback(os.close, near)
            beyond = self.far.tun(FAR, PREFIX)
            stack.callback(os.close, beyond)
            listening = stack.enter_context(self.far.run(_listen))
            self.port = listening.getsockname()[1]
            self._up = _Way(Pipe(self.timeline, up=True, overhead=1, resend=False), near, beyond)
            self._down = _Way(Pipe(self.timeline, up=False, overhead=1, resend=False), beyond, near)
            self._thread.start()
            stack.callback(self._end_loop)
            self._call(self._start(listening))
            self._stack = stack.pop_all()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._stack.close()
        if self._failures and error is None:
            raise self._failures[0]

    @property
    def stats(self) -> dict[str, WayStats]:
        """By direction, `up` and `down`."""
        return {"up": self._up.stats, "down": self._down.stats}

    def popen(self, command: Sequence[str], **given: Any) -> subprocess.Popen[str]:
        """Start a program on the phone's side. It should be waited for before the link is left."""
        return self.phone.run(lambda: subprocess.Popen(list(command), text=True, **given))

    def now_ms(self) -> float:
        """The instant of the span that is now."""
        return self.at_ms + (self._loop.time() - self._began_s) * 1000

    def _call(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(CALL_S)

    async def _start(self, listening: socket.socket) -> None:
        self._began_s = self._loop.time()
        self._loop.set_exception_handler(lambda _loop, told: self._failures.append(_error_of(told)))
        self._server = await asyncio.start_server(self._relay.serve, sock=listening)
        for way in (self._up, self._down):
            self._loop.add_reader(way.source, self._read, way)

    def _end_loop(self) -> None:
        try:
            self._call(self._stop())
        finally:
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
            self._loop.close()

    async def _stop(self) -> None:
        for way in (self._up, self._down):
            self._loop.remove_reader(way.source)
        self._server.close()
        await self._relay.end()

    # Packets.

    def _read(self, way: _Way) -> None:
        while True:
            try:
                packet = os.read(way.source, PACKET_BYTES_MAX)
            except BlockingIOError:
                return
            if packet[0] >> 4 == 4:  # the kernel also says hello in IPv6, which this link does not carry
                self._carry(way, packet)

    def _carry(self, way: _Way, packet: bytes) -> None:
        now_ms, stats = self.now_ms(), way.stats
        stats.packets += 1
        stats.bytes += len(packet)
        number = self.timeline.segment_at(int(now_ms)).link
        if number is None:
            stats.link_off += 1
            return
        link = self.timeline.profile.links[number]
        if way.pipe.backlog_bytes(now_ms) + len(packet) > link.queue_kb * 1000:
            stats.queue_full += 1
            return
        through_ms = way.pipe.occupy(now_ms, len(packet))
        if through_ms is None or self._chain(way, number).lost():  # lost on the air: it has taken its time there
            stats.lost += 1
            return
        due_ms = through_ms + self._rtt_ms(way, packet) / 2
        self._loop.call_at(self._began_s + (due_ms - self.at_ms) / 1000, self._put, way, packet)

    def _put(self, way: _Way, packet: bytes) -> None:
        try:
            os.write(way.sink, packet)
        except BlockingIOError:
            way.stats.queue_full += 1  # the receiving kernel's own queue is full
            return
        way.stats.delivered += 1

    def _chain(self, way: _Way, number: int) -> GilbertElliott:
        if number not in way.loss:
            profile, link = self.timeline.profile, self.timeline.profile.links[number]
            stream = f"{link.name}.loss.{'up' if way is self._up else 'down'}"
            way.loss[number] = GilbertElliott(
                g2b=link.loss.g2b,
                b2g=link.loss.b2g,
                bad=link.loss.bad,
                good=link.loss.good,
                uniform=lambda k: uniform(profile.id, self.timeline.seed, stream, k),
            )
        return way.loss[number]

    def _rtt_ms(self, way: _Way, packet: bytes) -> float:
        """Each connection of the phone has its own round trip, as in the other drivers."""
        at = (packet[0] & 15) * 4 + (0 if way is self._up else 2)
        port = int.from_bytes(packet[at : at + 2], "big") if packet[9] in (TCP, UDP) else 0
        if port not in self._flows:
            self._flows[port] = self.timeline.connection(len(self._flows), int(self.now_ms())).rtt_ms
        return self._flows[port]


def _listen() -> socket.socket:
    listening = socket.create_server((FAR, 0))
    listening.setsockopt(socket.IPPROTO_TCP, TCP_CONGESTION, CONGESTION)
    return listening


def _error_of(told: dict[str, Any]) -> BaseException:
    error = told.get("exception")
    return error if isinstance(error, BaseException) else RuntimeError(str(told.get("message")))
