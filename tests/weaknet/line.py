"""What all connections of one phone share: the clock of the excerpt, two pipes, the balance, and the books.

Invariants:
- the only time is the span's: instant `at_ms` of the timeline is the moment `Line` was made, and it runs in real time;
- every fault that is injected is counted once, under one name of `KINDS`.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Coroutine, Iterator
from dataclasses import dataclass, field
from typing import Any, Final

from tests.weaknet.draws import Stream, uniform
from tests.weaknet.pipe import Pipe
from tests.weaknet.profile import Budget, Link
from tests.weaknet.timeline import Timeline

KINDS: Final = (
    "dns-fail",  # the connection is reset before a byte of the request was read
    "connect-fail",
    "no-network",  # a spell without network began: connections are refused while it lasts
    "cut-rst-request",
    "cut-blackhole-request",
    "cut-rst-answer",  # the server has committed by then
    "cut-blackhole-answer",
    "nat-idle",
    "new-ip",
    "budget-gone",  # silence in the middle of an exchange
    "portal-page",
    "overload-503",
    "gate-refused",
    "gate-cached",
    "twice",  # a middlebox sent the request to the server a second time
    "again-later",  # the same, after later requests
    "loss-stall",
    "off-stall",
)
NEVER_MS = float("inf")
ANSWER_BYTES_FIRST_GUESS = 700  # receipts of one register and HTTP headers; later the mean of what was seen
GUESS_WEIGHT = 0.2


@dataclass(frozen=True, slots=True, kw_only=True)
class SetUp:
    """What a connection costs before its first byte, as a real phone pays it: the loopback here speaks plain HTTP.

    Attributes:
        round_trips: DNS, TCP and TLS 1.3 cost one each.
        up_bytes: Client hello and finished.
        down_bytes: The server's certificates.
    """

    round_trips: float = 3
    up_bytes: int = 900
    down_bytes: int = 4096


NO_SET_UP = SetUp(round_trips=0, up_bytes=0, down_bytes=0)


@dataclass(slots=True, kw_only=True)
class Exchange:
    """One request and its answer as the link saw them. Bytes are those that got through to the far end.

    Attributes:
        connection: Which connection of the phone, from 0.
        request: Method and path.
        began_ms: When its first byte was read, in the span.
        request_bytes: Whole length, header and body.
        up_bytes: How many of them reached the server.
        down_bytes: How many bytes of an answer reached the phone, whoever answered.
        answer_bytes: Whole length of the server's answer, None while unknown.
        fault: What was done to it, a name of `KINDS`.
    """

    connection: int
    request: str
    began_ms: float
    request_bytes: int
    up_bytes: int = 0
    down_bytes: int = 0
    answer_bytes: int | None = None
    fault: str | None = None


@dataclass(slots=True)
class Line:
    """The shared state of one phone's link from instant `at_ms` of its timeline on."""

    timeline: Timeline
    at_ms: int
    set_up: SetUp
    spent_bytes: int = 0
    top_up_at_ms: int | None = None
    injected: Counter[str] = field(default_factory=Counter)
    exchanges: list[Exchange] = field(default_factory=list)
    connections: int = 0
    answer_bytes_guess: float = ANSWER_BYTES_FIRST_GUESS
    up: Pipe = field(init=False)
    down: Pipe = field(init=False)
    _began_s: float = field(init=False)
    _day: int = field(init=False)
    _topped_up: bool = False
    _stalled_in_ms: int = -1
    _beside: set[asyncio.Task[None]] = field(default_factory=set)

    def __post_init__(self) -> None:
        self._began_s = asyncio.get_running_loop().time()
        self.up, self.down = Pipe(self.timeline, up=True), Pipe(self.timeline, up=False)
        self._day = self.timeline.days.day_at(self.at_ms)

    def now_ms(self) -> float:
        """The instant of the span that is now."""
        return self.at_ms + (asyncio.get_running_loop().time() - self._began_s) * 1000

    async def until(self, instant_ms: float) -> None:
        """Wait for an instant of the span; `NEVER_MS` never comes."""
        if instant_ms == NEVER_MS:
            await asyncio.get_running_loop().create_future()
            return
        while (left_ms := instant_ms - self.now_ms()) > 0:
            await asyncio.sleep(left_ms / 1000)

    def link(self) -> Link | None:
        """The link in use now."""
        number = self.timeline.segment_at(int(self.now_ms())).link
        return None if number is None else self.timeline.profile.links[number]

    def count(self, kind: str) -> None:
        """Write a fault into the books."""
        assert kind in KINDS, kind
        self.injected[kind] += 1

    def new_ips_ms(self) -> Iterator[float]:
        """When the phone gets another address from now on: a Poisson process, in the span's ms, for its first link."""
        link = self.timeline.profile.links[0] if self.timeline.profile.links else None
        if link is None or not link.new_ip_per_h:
            return
        gaps = Stream(self.timeline.profile.id, self.timeline.seed, f"{link.name}.new_ip")
        at_ms, k = 0.0, 0
        while (at_ms := at_ms + gaps.wait(link.new_ip_per_h, k) * 3_600_000) < self.timeline.length_ms:
            k += 1
            if at_ms >= self.at_ms:
                yield at_ms

    def note_off(self, spell_ms: int) -> None:
        """Bytes waited through the spell without network that began at `spell_ms` (-1: none): it counts once."""
        if spell_ms != self._stalled_in_ms:
            self._stalled_in_ms = spell_ms
            self.count("off-stall")

    def draw(self, stream: str, k: int) -> float:
        """The k-th draw in [0, 1) of a stream of this phone."""
        return uniform(self.timeline.profile.id, self.timeline.seed, stream, k)

    def beside(self, work: Coroutine[Any, Any, None]) -> None:
        """Run something that belongs to no connection, until `close`."""
        self._beside.add(asyncio.create_task(work))

    async def close(self) -> None:
        """End what runs beside the connections.

        Raises:
            BaseException: What went wrong in it.
        """
        for task in self._beside:
            task.cancel()
        for ended in await asyncio.gather(*self._beside, return_exceptions=True):
            if isinstance(ended, BaseException) and not isinstance(ended, asyncio.CancelledError):
                raise ended

    def learn_answer(self, count: int) -> None:
        """Note how long an answer was: where a cut may fall must be known before the next one comes."""
        self.answer_bytes_guess += GUESS_WEIGHT * (count - self.answer_bytes_guess)

    # The balance.

    def budget(self) -> Budget | None:
        """The budget of the link in use, if it has one."""
        link = self.link()
        return None if link is None else link.budget

    def balance_is_gone(self) -> bool:
        """Whether today's bytes are spent."""
        budget = self.budget()
        self._renew()
        return budget is not None and self.spent_bytes >= budget.bytes_per_day

    def charge(self, count: int) -> int:
        """Take `count` bytes from the balance; returns how many may pass."""
        budget = self.budget()
        if budget is None:
            return count
        self._renew()
        left = max(0, budget.bytes_per_day - self.spent_bytes)
        self.spent_bytes += count
        if budget.then == "throttle":
            cap = None if self.spent_bytes < budget.bytes_per_day else budget.throttle_kbps
            self.up.cap_kbps = self.down.cap_kbps = cap
            return count
        return min(count, left)

    def _renew(self) -> None:
        """A new day, or a top-up, brings the whole budget back."""
        now_ms = self.now_ms()
        if self.top_up_at_ms is not None and not self._topped_up and now_ms >= self.top_up_at_ms:
            self._topped_up, self.spent_bytes = True, 0
        if (day := self.timeline.days.day_at(int(now_ms))) != self._day:
            self._day, self.spent_bytes = day, 0
