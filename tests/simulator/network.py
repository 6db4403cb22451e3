"""Driver (a): one phone's network in virtual time, from its compiled timeline and the faults of the seed.

A request pays for what a real one pays for: name, connection and TLS on a connection that is not kept, its own bytes
and the headers' at the link's rate through off spells, half a round trip each way. It can die at any byte of request or
answer by a reset or in silence, so that some die after the server has committed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

from clientcore.errors import TransportError
from clientcore.exchange import MEDIA_TYPE
from clientcore.ports import HttpReply
from tests.simulator.asgi import Answered
from tests.simulator.lab import Lab
from tests.simulator.server import ServerHost, Unreachable
from tests.weaknet.timeline import Connection, Timeline

SET_UP_ROUND_TRIPS = 3  # DNS, TCP, TLS 1.3
SET_UP_UP_BYTES, SET_UP_DOWN_BYTES = 900, 4_096  # TLS: hello and finished; the server's certificates
HEADERS_UP_BYTES, HEADERS_DOWN_BYTES = 260, 130  # measured: `python -m bench wire`
OVERHEAD = 1.05  # TCP and IP headers
KEPT_S = 50.0  # how long client and server keep an idle connection
REFUSED_MS = 300
DESK_MS = (20.0, 80.0)
PORTAL = b"<!doctype html><title>Top up</title><p>Your bundle has ended."
KNOWS_NO_LINK = 0.35  # how often a phone without a link knows it: one beside a mast without service does not
STRAY_CALM_MS = 1_000
EARLIER_MAX = 20
DELAYS_MS = (1_000, 60_000, 3_600_000, 86_400_000, 259_200_000)


@dataclass(slots=True)
class Usage:
    """What a phone's traffic came to."""

    requests: int = 0
    failed: int = 0
    bytes_up: int = 0
    bytes_down: int = 0


class PhoneNetwork:
    """The `Network` port of one phone."""

    def __init__(self, lab: Lab, host: ServerHost, timeline: Timeline, name: str) -> None:
        self._lab, self._host, self._timeline, self._name = lab, host, timeline, name
        self.usage = Usage()
        self.at_desk = False  # on a good network, for enrolling and when faults have stopped
        self.heard: Callable[[str, bytes], None] = lambda _path, _body: None  # somebody who listens
        self._connections = 0
        self._kept: Connection | None = None
        self._earlier: dict[str, list[Answered]] = {}
        self._kept_until_s = 0.0
        self._day = -1
        self._spent_today = 0

    async def post(self, path: str, body: bytes, *, content_type: str, deadline_s: float) -> HttpReply:
        """See `Network`."""
        assert content_type == MEDIA_TYPE
        self.usage.requests += 1
        try:
            async with asyncio.timeout(deadline_s):
                return await self._post(path, body)
        except TimeoutError:
            self.usage.failed += 1
            raise TransportError("timeout", f"no complete answer within {deadline_s:.0f} s") from None
        except TransportError:
            self.usage.failed += 1
            raise

    async def _post(self, path: str, body: bytes) -> HttpReply:
        lab, started_s = self._lab, self._lab.loop.now_s
        if self.at_desk:
            delay_ms = self._lab.swarm.stream(f"desk|{self._name}").uniform(*DESK_MS)
            await lab.sleep_ms(delay_ms)
            return self._read(await self._ask(path, body), int(delay_ms))
        await self._need_link()
        if self._budget_is_gone(len(body)):
            return await self._after_budget()
        connection = await self._connect()
        up_bytes, down_bytes = len(body) + HEADERS_UP_BYTES, HEADERS_DOWN_BYTES + 400
        cut_at = self._cut(connection, up_bytes + down_bytes)
        if cut_at is not None and cut_at < up_bytes:
            await self._carry(cut_at, connection.rtt_ms, up=True)
            await self._die(connection)
        await self._carry(up_bytes, connection.rtt_ms, up=True)
        self.usage.bytes_up += up_bytes
        await lab.sleep_ms(connection.rtt_ms / 2)
        answered = await self._ask(path, body)
        await lab.sleep_ms(connection.rtt_ms / 2)
        first_byte_ms = int((lab.loop.now_s - started_s) * 1000)
        down_bytes = HEADERS_DOWN_BYTES + len(answered.body)
        if cut_at is not None:
            await self._carry(min(cut_at - up_bytes, down_bytes), connection.rtt_ms, up=False)
            await self._die(connection)
        await self._carry(down_bytes, connection.rtt_ms, up=False)
        self.usage.bytes_down += down_bytes
        self._keep(connection)
        return self._read(answered, first_byte_ms)

    def _read(self, answered: Answered, first_byte_ms: int) -> HttpReply:
        body = answered.body
        if self._lab.swarm.hits("net.garble", f"{self._name}|down"):
            body = self._lab.garble(body, f"{self._name}|down")
        retry = answered.headers.get("retry-after", "")
        return HttpReply(
            status=answered.status,
            content_type=answered.headers.get("content-type", "").split(";")[0].strip().lower(),
            retry_after_s=float(retry) if retry.isdecimal() else None,
            body=body,
            first_byte_ms=first_byte_ms,
        )

    async def _ask(self, path: str, body: bytes) -> Answered:
        lab, swarm = self._lab, self._lab.swarm
        if swarm.hits("net.stranger", self._name):
            lab.fault("net.stranger")
            return Answered(status=200, headers={"content-type": "text/html"}, body=PORTAL)
        if swarm.hits("net.busy", self._name):
            lab.fault("net.busy")
            wait = swarm.stream("net.busy|wait").choice(("1", "5", "30", "120"))
            return Answered(status=503, headers={"content-type": "text/plain", "retry-after": wait}, body=b"busy")
        if lab.chance("peer.shed", self._name) > 1 / lab.overloaded():
            peer = self._timeline.profile.peer
            lab.fault("net.overload")
            waits = None if peer is None else peer.retry_after_s
            wait_s = 5 if waits is None else max(1, round(waits.at(lab.chance("peer.wait", self._name))))
            return Answered(
                status=503, headers={"content-type": "text/plain", "retry-after": str(wait_s)}, body=b"overloaded"
            )
        earlier = self._earlier.setdefault(path, [])
        if earlier and swarm.hits("net.stale", self._name):
            lab.fault("net.stale")
            return swarm.stream("net.stale|which").choice(earlier)
        if swarm.hits("net.garble", f"{self._name}|up"):
            body = lab.garble(body, f"{self._name}|up")
        deliver = self._timeline.profile.deliver
        if swarm.hits("net.twice", self._name) or lab.chance("deliver.twice", self._name) < deliver.duplicate:
            lab.fault("net.twice")
            lab.later(self._again(path, body, 0))
        if swarm.hits("net.later", self._name) or lab.chance("deliver.later", self._name) < deliver.reorder:
            lab.fault("net.later")
            lab.later(self._again(path, body, swarm.stream("net.later|wait").choice(DELAYS_MS)))
        self.heard(path, body)
        try:
            answered = await self._host.device_request(path, body)
        except Unreachable as none:
            raise TransportError("broken", str(none)) from None
        if answered.status == 200 and len(earlier) < EARLIER_MAX:
            earlier.append(answered)
        return answered

    async def _again(self, path: str, body: bytes, delay_ms: int) -> None:
        await self._lab.sleep_while_faulty(delay_ms, STRAY_CALM_MS)
        with suppress(Unreachable):  # a stray copy that meets no server is what most stray copies do
            await self._host.device_request(path, body)

    # ---- the link ----

    async def wait_for_link(self) -> None:
        """The app asks nothing of a phone that knows it has no link, and is told when one comes; not always truly."""
        while not self.at_desk and self._lab.chance("net.sees_no_link", self._name) < KNOWS_NO_LINK:
            segment = self._timeline.segment_at(self._at_ms())
            if segment.link is not None:
                return
            self._lab.faults["net.no_link"] += 1
            with suppress(TimeoutError):
                async with asyncio.timeout((segment.to_ms - self._at_ms()) / 1000):
                    await self._lab.calmed.wait()

    def _at_ms(self) -> int:
        return int(self._lab.loop.now_s * 1000) % self._timeline.length_ms

    async def _need_link(self) -> None:
        if self._timeline.segment_at(self._at_ms()).link is not None:
            return
        self._lab.fault("net.no_link")
        await self._lab.sleep_ms(REFUSED_MS)
        raise TransportError("offline", "no link")

    async def _connect(self) -> Connection:
        lab = self._lab
        if self._kept is not None and lab.loop.now_s < self._kept_until_s:
            kept, self._kept = self._kept, None
            return kept
        connection = self._timeline.connection(self._connections, self._at_ms())
        self._connections += 1
        if connection.fails is not None or lab.swarm.hits("net.drop", self._name):
            lab.fault(f"net.{connection.fails or 'drop'}")
            await lab.sleep_ms(connection.rtt_ms)
            raise TransportError("offline", "no connection")
        await lab.sleep_ms(SET_UP_ROUND_TRIPS * connection.rtt_ms)
        await self._carry(SET_UP_UP_BYTES, connection.rtt_ms, up=True)
        await self._carry(SET_UP_DOWN_BYTES, connection.rtt_ms, up=False)
        return connection

    def _keep(self, connection: Connection) -> None:
        link = self._timeline.segment_at(self._at_ms()).link
        idle_s = self._timeline.profile.links[link].nat_idle_s if link is not None else None
        self._kept = connection if connection.cut is None else None
        self._kept_until_s = self._lab.loop.now_s + min(KEPT_S, idle_s or KEPT_S)

    async def _carry(self, count_bytes: int, rtt_ms: float, *, up: bool) -> None:
        at_ms = self._at_ms()
        done_ms = self._timeline.carried_ms(at_ms, int(count_bytes * OVERHEAD), up=up, rtt_ms=rtt_ms)
        self.spend(count_bytes)
        await self._lab.sleep_ms(86_400_000 if done_ms is None else max(0, done_ms - at_ms))

    def _cut(self, connection: Connection, total_bytes: int) -> int | None:
        """At which byte of request and answer the connection dies, if it does."""
        if connection.cut is not None:
            return int(connection.cut_at * total_bytes)
        if self._lab.swarm.hits("net.cut", self._name):
            return self._lab.swarm.stream(f"net.cut|{self._name}|at").randrange(total_bytes)
        return None

    async def _die(self, connection: Connection) -> None:
        self._kept = None
        silent = connection.cut == "blackhole" or (
            connection.cut is None and self._lab.chance("net.cut.how", self._name) < 0.7  # silence is the usual death
        )
        self._lab.fault("net.cut.silent" if silent else "net.cut.reset")
        if silent:
            await self._lab.sleep_ms(86_400_000)  # until the deadline ends it
        raise TransportError("broken", "connection reset")

    # ---- the bundle of megabytes ----

    def spend(self, count_bytes: int) -> None:
        """Bytes of today's bundle are gone."""
        day = self._at_ms() // 86_400_000
        if day != self._day:
            self._day, self._spent_today = day, 0
        self._spent_today += count_bytes

    def _budget_is_gone(self, more: int) -> bool:
        link = self._timeline.segment_at(self._at_ms()).link
        budget = self._timeline.profile.links[link].budget if link is not None else None
        self.spend(0)
        return budget is not None and self._spent_today + more > budget.bytes_per_day and budget.then != "throttle"

    async def _after_budget(self) -> HttpReply:
        link = self._timeline.segment_at(self._at_ms()).link
        assert link is not None
        budget = self._timeline.profile.links[link].budget
        if budget is not None and budget.then == "portal":
            self._lab.fault("net.portal")
            return HttpReply(status=200, content_type="text/html", body=PORTAL)
        self._lab.fault("net.no_balance")
        await self._lab.sleep_ms(86_400_000)
        raise TransportError("broken", "no balance")
