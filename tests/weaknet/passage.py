"""One TCP connection of a phone through the link: bytes wait for their time, and some never come out.

Invariants:
- bytes come out in the order they went in, each not before the link has carried it;
- after a death in silence nothing comes out any more in either direction, and neither end is told;
- the place of a cut is one byte of request and answer together: it can fall after the server has committed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, Literal, TypeAlias

from tests.weaknet.gateway import Action, Gateway, Head, Verdict, answer_length, parse_head
from tests.weaknet.line import NEVER_MS, Exchange, Line
from tests.weaknet.loss import GilbertElliott
from tests.weaknet.relay import PIECE_BYTES, reset
from tests.weaknet.timeline import Connection

PACKET_BYTES = 1400
SLICE_MS = 20  # fast links: bytes are carried in slices of this long, not packet by packet
LATER_MS = 5_000  # a stray copy that comes after the next request, which the phone sends 3 s later
RETRANSMIT_MS_MIN = 200  # least wait before TCP sends again
AFTER_SILENCE = "after-silence"  # the phone went on talking on a connection that was dead already
Item: TypeAlias = tuple[float, bytes | Literal["end", "budget-gone"]]  # when it comes out (ms of the span), and what


class Passage:
    """Relays one connection. `run` returns when it is over, whoever ended it."""

    def __init__(
        self,
        line: Line,
        gateway: Gateway,
        *,
        number: int,
        draws: Connection,
        target: int,
        near: tuple[asyncio.StreamReader, asyncio.StreamWriter],
    ) -> None:
        self._line, self._gateway, self._number, self._draws, self._target = line, gateway, number, draws, target
        self._near_reader, self._near = near
        self._far: asyncio.StreamWriter | None = None
        self._ready_ms: float | None = 0.0
        self._last_ms = 0.0  # when a byte last passed: what a NAT looks at
        self._silent = False
        self._unpaid = False  # the balance ended in an exchange: silence follows once the paid bytes are out
        self._over = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self._out: dict[bool, asyncio.Queue[Item]] = {True: asyncio.Queue(), False: asyncio.Queue()}
        self._due: dict[bool, float] = {True: 0.0, False: 0.0}
        self._loss = {up: self._loss_of(up=up) for up in (True, False)}
        self._exchange: Exchange | None = None
        self._head: Head | None = None
        self._cut_up: int | None = None  # byte of the request
        self._cut_share: float | None = None  # share of the answer
        self._cut_down: int | None = None  # byte of the answer
        self._seen_down = 0
        self._kept_answer = bytearray()

    async def run(self) -> None:
        """Relay until one end goes away or the link kills it; nothing is left running or open."""
        if self._draws.fails is not None:
            self._line.count("dns-fail" if self._draws.fails == "dns" else "connect-fail")
            reset(self._near)
            return
        self._pay_for_set_up()
        try:
            for work in (self._read_near(), self._deliver(up=True), self._deliver(up=False)):
                self._spawn(work)
            await self._over.wait()
        finally:
            for task in self._tasks:
                task.cancel()
            ended = await asyncio.gather(*self._tasks, return_exceptions=True)
            for writer in (self._near, self._far):
                if writer is not None:
                    writer.transport.abort()
        for result in ended:
            if isinstance(result, BaseException) and not isinstance(result, asyncio.CancelledError):
                raise result

    def kill(self, how: Action, kind: str | None = None) -> None:
        """End it from outside or at a cut: by a reset, or in silence."""
        if self._silent or self._over.is_set():
            return
        if kind is not None:
            self._line.count(kind)
            if self._exchange is not None and self._exchange.fault is None:
                self._exchange.fault = kind
        if how == "blackhole":
            self._silent = True
            return
        reset(self._near)
        if self._far is not None:
            reset(self._far)
        self._over.set()

    def abandon(self) -> None:
        """End it, whatever state it is in, because the whole link goes away."""
        reset(self._near)
        self._over.set()

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        async def guarded() -> None:
            try:
                await work
            except OSError:  # one end went away, as ends do
                if not self._silent:
                    self._over.set()
            except BaseException:
                self._over.set()  # a fault of ours must not hang the test; `run` raises it
                raise

        self._tasks.add(asyncio.create_task(guarded()))

    def _pay_for_set_up(self) -> None:
        """DNS, TCP and TLS: round trips and certificates, before the first byte of a request moves."""
        line, costs, rtt_ms = self._line, self._line.set_up, self._draws.rtt_ms
        now_ms = line.now_ms()
        usable_ms = line.up.occupy(now_ms, 0)
        ready_ms = None if usable_ms is None else usable_ms + costs.round_trips * rtt_ms
        if ready_ms is not None and costs.up_bytes + costs.down_bytes:
            line.charge(costs.up_bytes + costs.down_bytes)
            line.up.occupy(now_ms, costs.up_bytes)
            carried_ms = line.down.occupy(now_ms, costs.down_bytes)
            ready_ms = None if carried_ms is None else max(ready_ms, carried_ms + rtt_ms)
        self._ready_ms = ready_ms
        self._last_ms = now_ms if ready_ms is None else ready_ms

    # From the phone.

    async def _read_near(self) -> None:
        while (head := await self._next_head()) is not None:
            verdict = self._begin(head)
            passing = verdict is None
            await self._send(head.raw if not passing else self._gateway.rewrite(head), up=True, far=passing)
            copy = bytearray(head.raw)
            left = head.body_bytes
            while left:
                data = await self._near_reader.read(min(left, self._piece_bytes(up=True)))
                if not data:
                    break
                left -= len(data)
                copy += data
                await self._send(data, up=True, far=passing)
            if verdict is not None:
                await self._intercept(verdict.answer)
            elif not left:
                self._perhaps_twice(bytes(copy))
        self._out[True].put_nowait((self._due[True], "end"))
        if self._silent or self._due[True] == NEVER_MS:
            self._over.set()

    async def _next_head(self) -> Head | None:
        """The next request's head; None when the phone closed. What is no HTTP is a fault of the test: it raises."""
        try:
            raw = await self._near_reader.readuntil(b"\r\n\r\n")
        except asyncio.IncompleteReadError:
            return None
        return parse_head(raw)

    def _begin(self, head: Head) -> Verdict | None:
        line, draws = self._line, self._draws
        size = len(head.raw) + head.body_bytes
        first = self._exchange is None
        self._exchange = Exchange(
            connection=self._number,
            request=f"{head.method} {head.target}",
            began_ms=line.now_ms(),
            request_bytes=size,
        )
        line.exchanges.append(self._exchange)
        self._head = head
        self._cut_up = self._cut_share = self._cut_down = None
        self._seen_down = 0
        self._kept_answer = bytearray()
        if self._silent:
            self._exchange.fault = AFTER_SILENCE
            return None
        if first and draws.cut is not None:
            place = draws.cut_at * (size + line.answer_bytes_guess)
            if place < size:
                self._cut_up = int(place)
            else:
                self._cut_share = (place - size) / line.answer_bytes_guess
        verdict = self._gateway.judge(head)
        if verdict is not None:
            line.count(verdict.kind)
            self._exchange.fault = verdict.kind
        return verdict

    async def _intercept(self, answer: bytes | Action) -> None:
        """What a gateway says once the request has come to it: down the link like an answer, and closed."""
        await self._line.until(self._due[True])
        if isinstance(answer, str):
            self.kill(answer)
            return
        await self._send(answer, up=False, far=False)
        self._out[False].put_nowait((self._due[False], "end"))

    def _perhaps_twice(self, request: bytes) -> None:
        """A middlebox that retries: the server sees the same bytes again, at once or after later ones."""
        line, deliver = self._line, self._line.timeline.profile.deliver
        if self._silent:
            return
        k = len(line.exchanges)
        if line.draw("deliver.duplicate", k) < deliver.duplicate:
            line.count("twice")
            line.beside(self._again(request, self._due[True] + self._draws.rtt_ms))
        if line.draw("deliver.reorder", k) < deliver.reorder:
            line.count("again-later")
            line.beside(self._again(request, self._due[True] + LATER_MS))

    async def _again(self, request: bytes, due_ms: float) -> None:
        await self._line.until(due_ms)
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", self._target)
        except OSError:
            return  # the server is gone: nobody hears the stray copy
        try:
            writer.write(request)
            await reader.read(PIECE_BYTES)
        except OSError:
            pass  # whatever becomes of a stray copy, nobody waits for its answer
        finally:
            writer.transport.abort()

    # On the link.

    async def _send(self, data: bytes, *, up: bool, far: bool = True) -> None:
        """Put bytes on the link. `far`: they reach the server; otherwise they only take their time."""
        line = self._line
        pipe = line.up if up else line.down
        step = self._piece_bytes(up=up)
        for start in range(0, len(data), step):
            piece = data[start : start + step]
            if self._silent or self._unpaid:
                return
            await line.until(pipe.room_at_ms(line.now_ms(), self._queue_bytes()))
            now_ms = line.now_ms()
            passing = line.charge(len(piece)) if far else len(piece)  # talking to a gateway is free of charge
            done_ms = None if self._ready_ms is None else pipe.occupy(max(now_ms, self._ready_ms), len(piece))
            line.note_off(pipe.met_off_ms)
            due_ms = self._order(done_ms, len(piece), up=up)
            if passing < len(piece):
                self._unpaid = True
                self._out[up].put_nowait((due_ms, piece[:passing]))
                self._out[up].put_nowait((due_ms, "budget-gone"))
                return
            if far or not up:
                self._out[up].put_nowait((due_ms, piece))

    def _order(self, done_ms: float | None, count: int, *, up: bool) -> float:
        """When a piece comes out: half a round trip after the link, later if a packet of it, or before it, was lost."""
        if done_ms is None:
            self._due[up] = NEVER_MS
            return NEVER_MS
        due_ms = done_ms + self._draws.rtt_ms / 2
        loss = self._loss[up]
        lost = sum(loss.lost() for _ in range(0, count, PACKET_BYTES)) if loss is not None else 0
        if lost:
            self._line.count("loss-stall")
            due_ms += max(RETRANSMIT_MS_MIN, self._draws.rtt_ms)
        self._due[up] = max(self._due[up], due_ms)
        return self._due[up]

    async def _deliver(self, *, up: bool) -> None:
        line = self._line
        while True:
            due_ms, item = await self._out[up].get()
            await line.until(due_ms)
            if item == "end":
                await self._end(up=up)
                return
            if item == "budget-gone":
                self.kill("blackhole", "budget-gone")
                continue
            if self._went_idle():
                self.kill("blackhole", "nat-idle")
            if self._silent:
                continue
            self._last_ms = line.now_ms()
            await (self._to_server(item) if up else self._to_phone(item))

    async def _end(self, *, up: bool) -> None:
        """One end has closed and everything before it is through. In silence the other end does not hear of it."""
        if up or not self._silent:
            if not up:
                self._near.close()
                await self._near.wait_closed()
            self._over.set()

    def _went_idle(self) -> bool:
        link = self._line.link()
        idle_s = link.nat_idle_s if link is not None else None
        return idle_s is not None and self._line.now_ms() - self._last_ms > idle_s * 1000

    async def _to_server(self, data: bytes) -> None:
        exchange = self._exchange
        assert exchange is not None
        ends = self._cut_up is not None and exchange.up_bytes + len(data) > self._cut_up
        if ends:
            assert self._cut_up is not None
            data = data[: self._cut_up - exchange.up_bytes]
        if data:
            if self._far is None:
                await self._open_far()
            assert self._far is not None
            self._far.write(data)
            await self._far.drain()
            exchange.up_bytes += len(data)
        if ends:
            self._die("request")

    async def _to_phone(self, data: bytes) -> None:
        exchange = self._exchange
        assert exchange is not None
        ends = self._cut_down is not None and exchange.down_bytes + len(data) > self._cut_down
        if ends:
            assert self._cut_down is not None
            data = data[: self._cut_down - exchange.down_bytes]
        if data:
            self._near.write(data)
            await self._near.drain()
            exchange.down_bytes += len(data)
        if ends:
            self._die("answer")

    def _die(self, where: Literal["request", "answer"]) -> None:
        how = self._draws.cut
        assert how is not None
        self.kill(how, f"cut-{how}-{where}")

    # From the server.

    async def _open_far(self) -> None:
        try:
            reader, self._far = await asyncio.open_connection("127.0.0.1", self._target)
        except OSError:
            reset(self._near)  # no server: the phone's connection is refused
            raise
        self._spawn(self._read_far(reader))

    async def _read_far(self, reader: asyncio.StreamReader) -> None:
        while data := await reader.read(self._piece_bytes(up=False)):
            self._note_answer(data)
            await self._send(data, up=False)
        self._out[False].put_nowait((self._due[False], "end"))

    def _note_answer(self, data: bytes) -> None:
        """Learn an answer's length from its head, and where in it the cut falls."""
        exchange, head = self._exchange, self._head
        assert exchange is not None
        assert head is not None
        if not self._seen_down:
            exchange.answer_bytes = answer_length(data, method=head.method)
            if exchange.answer_bytes is not None:
                self._line.learn_answer(exchange.answer_bytes)
            if self._cut_share is not None:
                whole = exchange.answer_bytes or len(data)
                self._cut_down = min(int(self._cut_share * whole), whole - 1)
        self._seen_down += len(data)
        if self._gateway.caches(head):
            self._kept_answer += data
            if self._seen_down == exchange.answer_bytes:
                self._gateway.note_answer(head, bytes(self._kept_answer))

    # Sizes.

    def _piece_bytes(self, *, up: bool) -> int:
        line = self._line
        kbps = (line.up if up else line.down).kbps_at(line.now_ms())
        return int(min(PIECE_BYTES, max(PACKET_BYTES, kbps * SLICE_MS / 8)))

    def _queue_bytes(self) -> float:
        link = self._line.link()
        return link.queue_kb * 1000 if link is not None else PACKET_BYTES

    def _loss_of(self, *, up: bool) -> GilbertElliott | None:
        link = self._line.link()
        if link is None or not link.mean_loss:
            return None
        stream = f"{link.name}.loss.{'up' if up else 'down'}.{self._number}"
        loss, draw = link.loss, self._line.draw
        return GilbertElliott(
            g2b=loss.g2b, b2g=loss.b2g, bad=loss.bad, good=loss.good, uniform=lambda k: draw(stream, k)
        )
