"""A weak network in front of the real server: rates, delay, and what a first connection costs.

The model behind every figure of `bench/phone.py`: one link shared by all connections, 5 % overhead for
packet headers; the first connection pays two round trips (TCP and TLS 1.3) and 4 kB of certificates; later ones ride on
it, as streams of HTTP/2 do; no DNS. Chromium's own throttling reaches neither service workers nor connection set-up,
hence a proxy. A connection is closed only after its last delayed byte is out.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import threading
import time
from collections.abc import Coroutine
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any

OVERHEAD = 1.05
CERTIFICATES_BYTES = 4096
PACKET_BYTES = 1400
_REQUEST_LINE = re.compile(rb"(GET|POST|HEAD) (\S+) HTTP/1\.1\r\n")


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """A network: rates in bit/s (0: not limited) and round-trip time in seconds."""

    name: str
    down_bits_s: float = 0
    up_bits_s: float = 0
    rtt_s: float = 0


PLAIN = Shape(name="not shaped")
TWO_G = Shape(name="2G", down_bits_s=150_000, up_bits_s=50_000, rtt_s=0.6)
EDGE = Shape(name="EDGE", down_bits_s=50_000, up_bits_s=50_000, rtt_s=0.6)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sent:
    """Bytes that left the phone: wall clock (s), how many, and the request line when they begin one."""

    at_s: float
    count: int
    request: str | None


@dataclass(slots=True)
class _Pipe:
    """One direction of the link. `free_at` is when its last byte has gone in (loop time, s)."""

    bits_s: float
    delay_s: float
    free_at: float = 0

    def occupy(self, now: float, count: int) -> float:
        """Put `count` bytes on the link; returns when they come out at the far end."""
        start = max(now, self.free_at)
        self.free_at = start + (count * OVERHEAD * 8 / self.bits_s if self.bits_s else 0)
        return self.free_at + self.delay_s


@dataclass(slots=True)
class Shaper:
    """Relays `127.0.0.1:port` to `127.0.0.1:target` as `shape` says."""

    target: int
    port: int = 0
    sent: list[Sent] = field(default_factory=list)
    bytes_down: int = 0
    _shape: Shape = PLAIN
    _ready_at: float | None = None  # when the first connection's set-up is over
    _loop: asyncio.AbstractEventLoop = field(default_factory=asyncio.new_event_loop)
    _thread: threading.Thread | None = None
    _server: asyncio.Server | None = None
    _open: set[asyncio.StreamWriter] = field(default_factory=set)
    _down: _Pipe = field(default_factory=lambda: _Pipe(0, 0))
    _up: _Pipe = field(default_factory=lambda: _Pipe(0, 0))

    def __enter__(self) -> Shaper:
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._run(self._listen())
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._run(self._stop())
        self._loop.call_soon_threadsafe(self._loop.stop)
        assert self._thread is not None
        self._thread.join()
        self._loop.close()

    def shape(self, shape: Shape) -> None:
        """A new network: open connections are cut, the next one pays for its set-up, counters begin at 0."""
        self._run(self._reshape(shape))

    def off(self) -> None:
        """No network: connections are refused until `shape` is called."""
        self._run(self._stop_listening())

    def requests_before(self, at_s: float) -> list[str]:
        """Request lines that left the phone before `at_s` (wall clock)."""
        return [one.request for one in self.sent if one.request and one.at_s < at_s]

    def bytes_up_before(self, at_s: float) -> int:
        """Bytes that left the phone before `at_s` (wall clock)."""
        return sum(one.count for one in self.sent if one.at_s < at_s)

    def _run(self, work: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result(30)

    async def _listen(self) -> None:
        if self._server is None:
            self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port, reuse_address=True)
            self.port = self._server.sockets[0].getsockname()[1]

    async def _stop_listening(self) -> None:
        for writer in list(self._open):
            writer.transport.abort()
        if self._server is not None:
            self._server.close()
            await self._server.wait_closed()
            self._server = None

    async def _stop(self) -> None:
        await self._stop_listening()
        tasks = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _reshape(self, shape: Shape) -> None:
        for writer in list(self._open):
            writer.transport.abort()
        self._shape = shape
        self._down = _Pipe(shape.down_bits_s, shape.rtt_s / 2)
        self._up = _Pipe(shape.up_bits_s, shape.rtt_s / 2)
        self._ready_at = None
        self.sent = []
        self.bytes_down = 0
        await self._listen()

    def _set_up(self) -> float:
        """When the link may carry data. The first connection pays."""
        if self._ready_at is None:
            now = self._loop.time()
            free = self._down.occupy(now + self._shape.rtt_s, CERTIFICATES_BYTES) if self._shape.rtt_s else now
            self._ready_at = max(now + 2 * self._shape.rtt_s, free + self._shape.rtt_s / 2)
        return self._ready_at

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._open.add(writer)
        far_writer: asyncio.StreamWriter | None = None
        try:
            ready = self._set_up()
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self.target)
            self._open.add(far_writer)
            await asyncio.gather(
                self._pump(reader, far_writer, self._up, ready, going_up=True),
                self._pump(far_reader, writer, self._down, ready, going_up=False),
            )
        except OSError:
            pass  # one of the ends went away, or the network was switched off: what a network does
        finally:
            for one in (writer, far_writer):
                if one is not None:
                    one.transport.abort()
                    self._open.discard(one)

    async def _pump(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, pipe: _Pipe, ready: float, *, going_up: bool
    ) -> None:
        """Read at once, deliver when the link has carried it; end only after the last delivery."""
        out: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue()

        async def deliver() -> None:
            while True:
                due, data = await out.get()
                await asyncio.sleep(max(0, due - self._loop.time()))
                if not data:
                    break
                writer.write(data)
                await writer.drain()
            with contextlib.suppress(OSError):
                writer.write_eof()

        delivering = asyncio.create_task(deliver())
        try:
            while data := await reader.read(PACKET_BYTES):
                if going_up:
                    line = _REQUEST_LINE.match(data)
                    said = b" ".join(line.groups()).decode() if line else None
                    self.sent.append(Sent(at_s=time.time(), count=len(data), request=said))
                else:
                    self.bytes_down += len(data)
                out.put_nowait((pipe.occupy(max(self._loop.time(), ready), len(data)), data))
            out.put_nowait((0, b""))
            await delivering
        finally:
            delivering.cancel()
