"""Driver (b): a real loopback TCP proxy that does to real sockets what a compiled timeline says, in real time.

    with Proxy(server_port, timeline) as proxy:        # transparent at first: enrol, load the page
        proxy.begin(at_ms)                             # from here on: this instant of the span, running in real time
        ...                                            # clients talk to 127.0.0.1:proxy.port
        proxy.clear()                                  # fair weather again
    proxy.injected                                     # Counter of faults by kind

One `Proxy` is one phone: its rates, balance and draws are its own. What it models and how is said in `passage.py`
(delay, loss, cuts, NAT), `pipe.py` (rates, queue), `gateway.py` (portal, gateway, overload) and `line.py` (set-up,
balance). Refusals: the loopback completes every handshake before a proxy can see it, so `dns_fail` and `connect_fail`
are a reset before the first byte; only in spells without network longer than `NO_NETWORK_MS` is nobody listening.
"""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from collections.abc import Coroutine
from types import TracebackType
from typing import Any, TypeVar

from tests.weaknet.gateway import Gateway
from tests.weaknet.line import Exchange, Line, SetUp
from tests.weaknet.passage import Passage
from tests.weaknet.relay import Relay, reset
from tests.weaknet.timeline import Timeline

NO_NETWORK_MS = 30_000  # a phone shows "no network" and fails at once in longer spells; in shorter ones TCP tries again
CALL_S = 30.0
T = TypeVar("T")


class Proxy:
    """Relays `127.0.0.1:port` to `127.0.0.1:target`: untouched before `begin` and after `clear`, weak in between.

    Args:
        target: Port of the server.
        timeline: Of one phone; nothing else decides what happens.
        set_up: What each connection costs before its first byte.
        port: Where to listen; 0 takes a free one.
    """

    def __init__(self, target: int, timeline: Timeline, *, set_up: SetUp | None = None, port: int = 0) -> None:
        self.target = target
        self.timeline = timeline
        self.port = port
        self._set_up = set_up or SetUp()
        self._lines: list[Line] = []
        self._line: Line | None = None
        self._gateway: Gateway | None = None
        self._passages: set[Passage] = set()
        self._relay = Relay(target)
        self._serving: set[asyncio.Task[None]] = set()
        self._failures: list[BaseException] = []
        self._server: asyncio.Server | None = None
        self._following: tuple[asyncio.Task[None], ...] = ()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True, name="weaknet-proxy")

    def __enter__(self) -> Proxy:
        self._thread.start()
        self._call(self._listen())
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        try:
            self._call(self._close())
        finally:
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
            self._loop.close()
        if self._failures and error is None:
            raise self._failures[0]

    @property
    def injected(self) -> Counter[str]:
        """Faults since the proxy was made, by kind (`line.KINDS`)."""
        return sum((line.injected for line in self._lines), Counter())

    @property
    def exchanges(self) -> list[Exchange]:
        """Requests under the timeline, in order."""
        return [one for line in self._lines for one in line.exchanges]

    def begin(self, at_ms: int, *, spent_bytes: int = 0, top_up_at_ms: int | None = None) -> None:
        """From now on the link is the timeline's, from its instant `at_ms` on; open connections are reset.

        Args:
            at_ms: Milliseconds of the span.
            spent_bytes: What is spent of the day's budget already.
            top_up_at_ms: When somebody pays for a new bundle, ms of the span.
        """
        self._call(self._begin(at_ms, spent_bytes, top_up_at_ms))

    def clear(self) -> None:
        """No more weak network: relay untouched. Open connections are reset."""
        self._call(self._clear())

    def new_ip(self) -> None:
        """The phone gets another address: every open connection dies in silence."""
        self._call(self._new_ip())

    def now_ms(self) -> float:
        """The instant of the span that is now; before `begin` there is none."""
        assert self._line is not None
        return self._call(self._now_ms(self._line))

    def _call(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(CALL_S)

    @staticmethod
    async def _now_ms(line: Line) -> float:
        return line.now_ms()

    async def _listen(self) -> None:
        if self._server is None:
            self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port, reuse_address=True)
            self.port = self._server.sockets[0].getsockname()[1]

    def _deafen(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None

    async def _begin(self, at_ms: int, spent_bytes: int, top_up_at_ms: int | None) -> None:
        await self._clear()
        line = Line(self.timeline, at_ms, self._set_up, spent_bytes=spent_bytes, top_up_at_ms=top_up_at_ms)
        self._line, self._gateway = line, Gateway(line)
        self._lines.append(line)
        self._following = (asyncio.create_task(self._follow(line)), asyncio.create_task(self._move(line)))
        await asyncio.sleep(0)  # where the span begins without network, nobody listens when `begin` returns

    async def _clear(self) -> None:
        for task in self._following:
            task.cancel()
        ended = await asyncio.gather(*self._following, return_exceptions=True)
        self._failures += [error for error in ended if isinstance(error, Exception)]
        self._following = ()
        line, self._line, self._gateway = self._line, None, None
        await self._end_connections()
        if line is not None:
            await line.close()
        await self._listen()

    async def _end_connections(self) -> None:
        for passage in list(self._passages):
            passage.abandon()
        await asyncio.gather(*self._serving)  # ended, not cancelled: asyncio's streams complain of cancelled ones
        await self._relay.end()

    async def _new_ip(self) -> None:
        for passage in list(self._passages):
            passage.kill("blackhole", "new-ip")

    async def _close(self) -> None:
        await self._clear()
        self._deafen()
        await asyncio.sleep(0)  # connections accepted in this very turn of the loop begin, and are ended
        await self._end_connections()

    async def _follow(self, line: Line) -> None:
        """Stop listening in long spells without network."""
        at_ms = float(line.at_ms)
        while at_ms < self.timeline.length_ms:
            until_ms = self._off_until_ms(at_ms)
            if until_ms is not None and until_ms - self.timeline.segment_at(int(at_ms)).from_ms > NO_NETWORK_MS:
                line.count("no-network")
                self._deafen()
                await line.until(until_ms)
                await self._listen()
            at_ms = until_ms if until_ms is not None else float(self.timeline.segment_at(int(at_ms)).to_ms)
            await line.until(at_ms)

    async def _move(self, line: Line) -> None:
        """Drop connections when the phone changes its address."""
        for at_ms in line.new_ips_ms():
            await line.until(at_ms)
            await self._new_ip()

    def _usable_ms(self, line: Line) -> int:
        """When a connection asked for now gets through: after a short spell without network, by TCP's retries."""
        now_ms = line.now_ms()
        until_ms = self._off_until_ms(now_ms)
        usable = until_ms is None or until_ms >= self.timeline.length_ms
        return int(now_ms if usable or until_ms is None else until_ms)

    def _off_until_ms(self, at_ms: float) -> float | None:
        """End of the spell without network at an instant, over all its segments; None when there is network."""
        segment = self.timeline.segment_at(int(at_ms))
        if segment.link is not None:
            return None
        while segment.link is None and segment.to_ms < self.timeline.length_ms:
            segment = self.timeline.segment_at(segment.to_ms)
        return float(segment.from_ms if segment.link is not None else segment.to_ms)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        line, gateway, task = self._line, self._gateway, asyncio.current_task()
        if line is None or gateway is None:
            await self._relay.serve(reader, writer)
            return
        assert task is not None
        self._serving.add(task)
        try:
            number, line.connections = line.connections, line.connections + 1
            draws = self.timeline.connection(number, self._usable_ms(line))
            passage = Passage(line, gateway, number=number, draws=draws, target=self.target, near=(reader, writer))
            self._passages.add(passage)
            try:
                await passage.run()
            finally:
                self._passages.discard(passage)
        except Exception as error:
            self._failures.append(error)  # raised at the end: a broken proxy must not look like a weak network
            reset(writer)
        finally:
            self._serving.discard(task)
