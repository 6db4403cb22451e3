"""The entrance every request of a device goes through: a turn in time, or `busy` before anything costs much.

`Admission` decides; here are the waiting itself, the clock, and what a request shows of itself from outside. Nothing
that is read here has been signed: it changes in what order requests are looked at, never what becomes of them.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import date

from syncserver.admission import Admission, Lane, Limits, Visit
from syncserver.calendar import local_date
from syncserver.config import Config
from syncserver.errors import RequestProblem
from syncserver.metrics import Metrics
from syncserver.ports import ServerPorts

_DAY = re.compile(rb"/(20[0-9]{2}-[01][0-9]-[0-3][0-9])/")
# The tag and the three fields behind it, as docs/protocol.md section 3 has them.
_NAME = rb"(?:[\xa1-\xbf]|\xd9.)[A-Za-z0-9._-]{1,36}"
_DEVICE = re.compile(rb"\xa6hudur1" + _NAME * 2 + rb"\xc4\x10(.{16})", re.DOTALL)
_TODAY_FOR_MS = 60_000
_CROWD_MIN = 24
_WAITS_WHERE_PUT_OFF = 19  # then settling has a twentieth of the time
_EXPECTED_FOR_MS = 1_000
BUSY = "the server is busy; your work is safe on the phone; try again"


@dataclass(frozen=True, slots=True)
class Asked:
    """What a request is about, as far as it can be seen from outside."""

    lane: Lane = Lane.LATER
    days: int = 0


LATER = Asked()


class Busy(RequestProblem):
    """`busy`: come again after so long."""

    retry_after_s: int

    def __init__(self, *, retry_after_s: int) -> None:
        super().__init__("busy", BUSY, retry_after_s=retry_after_s)


@dataclass(slots=True, eq=False, kw_only=True)
class _Visit(Visit):
    turn: asyncio.Future[bool] | None = None


def claimed_device(body: bytes) -> bytes | None:
    """The device that the first frame of a request claims to be of. Anybody can claim anything."""
    found = _DEVICE.search(body)
    return None if found is None else found[1]


class Entrance:
    """Lets requests in."""

    def __init__(self, config: Config, ports: ServerPorts, metrics: Metrics) -> None:
        self._zone, self._ports, self._metrics = config.zone, ports, metrics
        limits = Limits(
            target_ms=config.delay_target_ms,
            interval_ms=config.delay_interval_ms,
            inside_max=config.inside_max,
            waiting_max=config.waiting_max,
            waiting_bytes_max=config.waiting_bytes_max,
        )
        self._admission: Admission[_Visit] = Admission(limits, ports.clock.mono_ms())
        self._today = (-_TODAY_FOR_MS, date.min)
        self._lag_ms = 0
        self._is_probing = False
        self._expected, self._expected_ms = [0] * len(Lane), 0  # let in from their sockets and not come yet
        self._problems = metrics.problems.labels("busy")
        self.sheds_total = 0
        self._shed, self._shed_at_socket = [0] * len(Lane), 0  # since the metrics were told: that costs more than these

    @property
    def sheds(self) -> bool:
        """Whether a lane stands."""
        return self._admission.sheds

    @property
    def puts_registers_off(self) -> bool:
        """Whether a lane of registers stands: of today or of earlier days."""
        return self._admission.puts_registers_off

    @property
    def crowding(self) -> int:
        """How far work that can wait gives way: for how many times as long as it took.

        Not much until registers are put off: a confirmation that comes late is asked for again and again, and those who
        ask make the crowd.
        """
        if self._admission.inside < _CROWD_MIN:
            return 0
        return _WAITS_WHERE_PUT_OFF if self._admission.puts_registers_off else int(self._admission.is_pressed)

    @property
    def waiting(self) -> int:
        """How many wait."""
        return sum(self._admission.waiting(lane) for lane in Lane)

    def pushed(self, body: bytes) -> Asked:
        """What a sync request brings, by the newest school day named in it."""
        days = _DAY.findall(body)
        if not days:
            return LATER
        try:
            age = (self._now_day() - date.fromisoformat(max(days).decode())).days
        except ValueError:
            return LATER
        return Asked(Lane.TODAY) if -1 <= age <= 0 else Asked(Lane.BACKLOG, abs(age))

    async def enter(self, asked: Asked, size_bytes: int) -> Visit:
        """Wait for a turn; whoever got one says `leave`.

        Raises:
            RequestProblem: `busy`.
        """
        self._probe()
        self._expected[asked.lane] = max(0, self._expected[asked.lane] - 1)
        now_ms = self._ports.clock.mono_ms()
        visit = self._visit(asked, size_bytes, now_ms)
        gone = self._admission.come(visit, now_ms)
        for other in gone:
            if other.turn is not None and not other.turn.done():
                other.turn.set_result(False)
        if visit in gone:
            raise Busy(retry_after_s=self._put_off(visit.lane))
        if not visit.is_inside:
            await self._wait(visit)
        return visit

    def turn_away(self, asked: Asked, size_bytes: int) -> int | None:
        """After how many seconds a request still in its socket may come again; None: it may come now, and is expected.

        It is turned away where `enter` would raise `busy` at once.

        For those expected already it can only be guessed: they are taken to come first (`Admission.turns_away`).
        """
        now_ms = self._ports.clock.mono_ms()
        if not 0 <= now_ms - self._expected_ms < _EXPECTED_FOR_MS:  # whoever was expected for so long went away
            self._expected, self._expected_ms = [0] * len(Lane), now_ms
        visit = self._visit(asked, size_bytes, now_ms)
        if self._admission.turns_away(visit, now_ms, self._expected):
            self._shed_at_socket += 1
            return self._put_off(asked.lane)
        self._expected[asked.lane] += 1
        return None

    def _visit(self, asked: Asked, size_bytes: int, now_ms: int) -> _Visit:
        return _Visit(lane=asked.lane, size_bytes=size_bytes, days=asked.days, came_ms=now_ms - self._lag_ms)

    async def _wait(self, visit: _Visit) -> None:
        visit.turn = asyncio.get_running_loop().create_future()
        try:
            if not await visit.turn:
                raise Busy(retry_after_s=self._put_off(visit.lane))
        except asyncio.CancelledError:
            if visit.is_inside:
                self.leave(visit)
            else:
                self._admission.give_up(visit)
            raise

    def leave(self, visit: Visit) -> None:
        """The answer is made: somebody else's turn."""
        assert isinstance(visit, _Visit)
        self._admission.leave(visit, self._ports.clock.mono_ms())
        while (other := self._admission.next()) is not None:
            assert other.turn is not None
            if not other.turn.done():
                other.turn.set_result(True)

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """A turn among those who can wait, for work that is no device's.

        Raises:
            RequestProblem: `busy`.
        """
        visit = await self.enter(LATER, 0)
        try:
            yield
        finally:
            self.leave(visit)

    def tell(self) -> None:
        """Bring the metrics up to date."""
        self._admission.look(self._ports.clock.mono_ms())
        self._metrics.loop_lag_s.set(self._lag_ms / 1000)
        self._metrics.sync_busy.inc(self._shed_at_socket)
        self._problems.inc(sum(self._shed))
        for lane, delay in self._admission.delays.items():
            name = lane.name.lower()
            self._metrics.shed[lane].inc(self._shed[lane])
            self._metrics.entrance_waiting.labels(name).set(self._admission.waiting(lane))
            self._metrics.entrance_delay_s.labels(name).set(delay.shortest_ms / 1000)
            self._metrics.entrance_sheds.labels(name).set(delay.stands)
        self._shed, self._shed_at_socket = [0] * len(Lane), 0

    def _put_off(self, lane: Lane) -> int:
        """One is turned away: after how many seconds they may come again."""
        self.sheds_total += 1
        self._shed[lane] += 1
        return self._admission.retry_after_s(lane, self._ports.random.fraction())

    def _now_day(self) -> date:
        now_ms = self._ports.clock.wall_ms()
        if not 0 <= now_ms - self._today[0] < _TODAY_FOR_MS:
            self._today = (now_ms, local_date(now_ms, self._zone))
        return self._today[1]

    # What has come over the wire and was not read yet cannot be counted; how long the loop needs for one round can.

    def _probe(self) -> None:
        if not self._is_probing:
            self._is_probing = True
            asyncio.get_running_loop().call_soon(self._probed, self._ports.clock.mono_ms())

    def _probed(self, then_ms: int) -> None:
        self._is_probing = False
        self._lag_ms = max(0, self._ports.clock.mono_ms() - then_ms)
