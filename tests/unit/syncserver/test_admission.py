"""Admission by measured delay: who is let in, in which order, who is asked to come later. No clock but the test's."""

from __future__ import annotations

import random
from collections import Counter
from copy import deepcopy
from dataclasses import replace

import pytest

from syncserver.admission import SHARES, Admission, Lane, Limits, Visit

LIMITS = Limits(target_ms=250, interval_ms=1_000, inside_max=4, waiting_max=1_000, waiting_bytes_max=1_000_000)


class Server:
    """Answers one visit each `cost_ms`, in the order admission says."""

    def __init__(self, limits: Limits = LIMITS, cost_ms: int = 10) -> None:
        self.admission: Admission[Visit] = Admission(limits, 0)
        self.inside: list[Visit] = []
        self.now_ms, self.cost_ms = 0, cost_ms
        self.answered: list[Visit] = []
        self.delays: list[int] = []
        self.gone: list[Visit] = []

    def come(self, lane: Lane = Lane.TODAY, *, size_bytes: int = 600, days: int = 0) -> Visit:
        """Somebody comes now."""
        visit = Visit(lane=lane, size_bytes=size_bytes, days=days, came_ms=self.now_ms)
        self.gone += self.admission.come(visit, self.now_ms)
        if visit.is_inside:
            self.inside.append(visit)
        return visit

    def work(self) -> None:
        """Answer the one who is inside longest; the next ones come in."""
        self.now_ms += self.cost_ms
        if self.inside:
            visit = self.inside.pop(0)
            self.answered.append(visit)
            self.delays.append(self.now_ms - visit.came_ms)
            self.admission.leave(visit, self.now_ms)
        while (other := self.admission.next()) is not None:
            self.inside.append(other)

    def run(self, seconds: int, per_s: float, lanes: tuple[Lane, ...] = (Lane.TODAY,), seed: int = 1) -> None:
        """Come at random moments, `per_s` in all, while the server works (100 a second with the usual cost)."""
        chance = random.Random(seed)
        until_ms = self.now_ms + 1_000 * seconds
        while self.now_ms < until_ms:
            for _ in range(sum(chance.random() < per_s * self.cost_ms / 1_000 / 8 for _ in range(8))):
                self.come(chance.choice(lanes))
            self.work()


def test_a_burst_that_drains_sheds_nobody() -> None:
    """A long queue is no overload as long as it empties: 60 at once, then quiet."""
    server = Server()
    for _ in range(10):
        for _ in range(60):
            server.come()
        for _ in range(100):
            server.work()
    assert max(server.delays) > 2 * LIMITS.target_ms
    assert server.gone == []
    assert len(server.answered) == 600


def test_load_below_capacity_sheds_nobody() -> None:
    """At 80 percent nobody is turned away, however long it lasts."""
    server = Server()
    server.run(120, per_s=80)
    assert server.gone == []


@pytest.mark.parametrize("overload", [1.5, 3, 8])
def test_a_standing_queue_is_cut_and_the_server_stays_busy(overload: float) -> None:
    """Beyond capacity: after a moment the delay stays near the target, and all the capacity goes into answers."""
    server = Server()
    server.run(10, per_s=100 * overload)
    answered, seen = len(server.answered), len(server.delays)
    server.run(60, per_s=100 * overload, seed=2)
    assert (len(server.answered) - answered) / 6_000 > 0.97
    late = sorted(server.delays[seen:])
    assert late[int(len(late) * 0.99)] < 3 * LIMITS.target_ms
    assert server.admission.sheds


def test_shedding_ends_when_the_load_does() -> None:
    """After the peak nobody is turned away any more."""
    server = Server()
    server.run(20, per_s=400)
    server.run(5, per_s=50)
    gone = len(server.gone)
    server.run(30, per_s=50)
    assert gone > 0
    assert len(server.gone) == gone
    assert not server.admission.sheds


def test_it_is_pressed_before_it_sheds_and_not_at_an_ordinary_load() -> None:
    """Work that can wait gives way when even the shortest delay is half of what may stand, and not before."""
    server = Server()
    server.run(60, per_s=80)
    assert not server.admission.is_pressed
    for _ in range(22):  # a queue that stands at 200 ms and is served as fast as it is filled
        server.come()
    seen = set()
    for _ in range(400):
        server.come()
        server.work()
        seen.add(server.admission.is_pressed)
    assert seen == {False, True}
    assert server.admission.is_pressed
    assert not server.admission.sheds
    server.run(20, per_s=80)
    assert not server.admission.is_pressed


def test_todays_registers_come_before_backlog_and_pulls_and_those_still_get_their_share() -> None:
    """Three lanes at four times the capacity: turns are shared as said, in favour of the day; none is starved."""
    server = Server()
    server.run(5, per_s=400, lanes=tuple(Lane))
    before = len(server.answered)
    server.run(60, per_s=400, lanes=tuple(Lane), seed=2)
    counts = Counter(visit.lane for visit in server.answered[before:])
    total = sum(counts.values())
    for lane, share in SHARES.items():
        assert counts[lane] / total == pytest.approx(share / sum(SHARES.values()), abs=0.02)


def test_an_empty_lane_leaves_its_turns_to_the_others_and_saves_none_up() -> None:
    """Only backlog: it gets everything. When registers of the day come, an hour of idleness gives them no monopoly."""
    server = Server()
    server.run(30, per_s=300, lanes=(Lane.BACKLOG,))
    assert len(server.answered) > 0.97 * 3_000
    before = len(server.answered)
    server.run(20, per_s=600, lanes=(Lane.TODAY, Lane.BACKLOG), seed=2)
    counts = Counter(visit.lane for visit in server.answered[before:])
    assert counts[Lane.BACKLOG] / sum(counts.values()) == pytest.approx(3 / 15, abs=0.05)


def test_in_a_lane_the_newer_day_and_the_smaller_frame_come_first_but_not_for_ever() -> None:
    """Equal arrival: the small one, the newer day. One that has waited long enough goes before everybody who comes."""
    server = Server(replace(LIMITS, inside_max=1))
    server.come()
    big, old = server.come(Lane.BACKLOG, size_bytes=64_000), server.come(Lane.BACKLOG, days=180)
    small, new = server.come(Lane.BACKLOG), server.come(Lane.BACKLOG, days=1)
    for _ in range(5):
        server.work()
    assert server.answered[1:] == [small, new, big, old]
    again = Server(replace(LIMITS, inside_max=1))
    again.come()
    old = again.come(Lane.BACKLOG, days=180)
    for _ in range(2_000):
        again.come(Lane.BACKLOG, days=1)
        again.work()
    assert old in again.answered


def test_the_hard_bounds_hold_and_turn_away_who_can_wait_longest() -> None:
    """Requests and bytes that wait are bounded whatever comes; pulls go before registers of the day."""
    server = Server(replace(LIMITS, waiting_max=10, waiting_bytes_max=6_000))
    for _ in range(4):
        server.come()
    later = [server.come(Lane.LATER) for _ in range(5)]
    today = [server.come() for _ in range(10)]
    assert set(server.gone) == set(later)
    assert all(visit not in server.gone for visit in today)
    big = server.come(size_bytes=6_000)
    assert server.gone[-1] is big
    assert sum(server.admission.waiting(lane) for lane in Lane) == 10


def test_a_lane_that_comes_while_nobody_waits_has_saved_no_turns_up() -> None:
    """Asks for confirmations follow a crowd of pushes: they get their share, not what the pushes had before them."""
    server = Server()
    for _ in range(1_000):  # all turns are today's, and at the end of each of these nobody waits
        for _ in range(5):
            server.come()
        while server.inside:
            server.work()
    for _ in range(LIMITS.inside_max):
        server.come(Lane.LATER)
    before = len(server.answered)
    for _ in range(60):
        server.come(Lane.LATER)
    for _ in range(60):
        server.come()
    for _ in range(LIMITS.inside_max + 39):
        server.work()
    turns = Counter(visit.lane for visit in server.answered[before + LIMITS.inside_max :])
    assert turns == {Lane.TODAY: 36, Lane.LATER: 3}


def test_who_is_less_urgent_than_a_lane_that_stands_waits_for_no_more_than_their_share() -> None:
    """Registers of today are put off: a crowd of asks is put off too, long before a delay of theirs has shown it."""
    server = Server(cost_ms=1)
    server.run(3, per_s=3_000)
    assert server.admission.delays[Lane.TODAY].sheds
    most = 0
    for _ in range(1_500):
        server.come()
        server.come()
        server.come(Lane.LATER)
        server.work()
        most = max(most, server.admission.waiting(Lane.LATER))
    share = SHARES[Lane.LATER] / sum(SHARES.values())
    assert 0 < most <= 1.2 * share * server.admission.delays[Lane.LATER].target_ms / server.cost_ms
    served = Counter(visit.lane for visit in server.answered[-1_000:])
    assert served[Lane.TODAY] > 900
    assert served[Lane.LATER] > 40


def test_the_room_of_a_lane_does_not_shrink_below_its_share_while_others_take_its_turns() -> None:
    """Measured by what it got alone, a lane whose queue is empty now and then would close more and more."""
    server = Server(cost_ms=1)
    server.run(3, per_s=3_000)
    server.run(8, per_s=3_000, lanes=(Lane.LATER,))
    today = server.admission.delays[Lane.TODAY]
    assert today.per_ms < 0.05
    assert today.bound > 0.7 * LIMITS.target_ms / server.cost_ms


def test_a_lane_that_stands_alone_has_room_for_the_turns_it_gets() -> None:
    """Asks behind registers that take four turns of five and are answered in time: no more wait than come to a turn."""
    server = Server()
    chance = random.Random(5)
    for _ in range(6_000):  # a minute
        for lane, per_s in ((Lane.TODAY, 80), (Lane.LATER, 100)):
            if chance.random() < per_s / 100:
                server.come(lane)
        server.work()
    delays = [delay for visit, delay in zip(server.answered, server.delays, strict=True) if visit.lane is Lane.LATER]
    assert len(delays) > 600
    assert max(delays[200:]) < 2 * server.admission.delays[Lane.LATER].target_ms
    assert {visit.lane for visit in server.gone} == {Lane.LATER}


@pytest.mark.parametrize(("after_ms", "room"), [(20, 1_000), (400, 25)])
def test_the_room_in_the_middle_of_an_interval_is_measured_or_what_is_inside(after_ms: int, room: int) -> None:
    """After a quiet night more than may wait at once: a second's mean of nothing would turn nearly all of them away."""
    server = Server(replace(LIMITS, inside_max=1_000, waiting_max=2_000, waiting_bytes_max=1 << 40), cost_ms=1)
    server.run(8, per_s=2)
    server.admission.look(server.now_ms + LIMITS.interval_ms)
    server.now_ms += LIMITS.interval_ms
    for at_ms in range(after_ms):
        if at_ms % 10 == 0:
            server.come()
        server.work()
    while not server.gone:
        server.come()
    assert room * 0.8 <= server.admission.delays[Lane.TODAY].bound <= room * 1.2


def test_more_than_may_wait_stand_at_once() -> None:
    """Nobody waits for the end of an interval: from then on so many wait as are served within the target."""
    server = Server(replace(LIMITS, waiting_max=100))
    for _ in range(50):
        server.work()
        server.come()
    while not server.gone:
        server.come()
    assert server.admission.waiting(Lane.TODAY) == 100
    assert server.now_ms < LIMITS.interval_ms
    assert server.admission.sheds
    server.come()
    bound = server.admission.delays[Lane.TODAY].bound
    assert LIMITS.target_ms / server.cost_ms / 2 < bound < LIMITS.target_ms / server.cost_ms * 2
    assert server.admission.waiting(Lane.TODAY) == bound
    server.run(4, per_s=50)
    assert not server.admission.sheds


def test_too_many_bytes_are_no_standing_queue() -> None:
    """The small ones that come beside a few large requests are let in."""
    server = Server(replace(LIMITS, waiting_bytes_max=6_000))
    for _ in range(5):
        server.come()
    big = server.come(size_bytes=6_001)
    assert server.gone == [big]
    assert not server.admission.sheds
    assert server.come() not in server.gone


def test_who_gives_up_makes_room() -> None:
    """A request whose connection ended is forgotten, once."""
    server = Server(replace(LIMITS, inside_max=1, waiting_max=1))
    server.come()
    waiting = server.come()
    server.admission.give_up(waiting)
    server.admission.give_up(waiting)
    assert server.come() not in server.gone
    server.work()
    server.work()
    assert waiting not in server.answered
    assert len(server.answered) == 2


def test_nobody_is_answered_is_an_overload_too() -> None:
    """A commit that hangs: the age of the oldest is the delay, and only so many wait."""
    server = Server(cost_ms=1)
    for _ in range(200):
        server.come()
    server.now_ms += 5_000
    server.come()
    assert server.admission.sheds
    assert server.gone


def test_the_time_to_come_again_is_jittered_grows_with_the_overload_and_is_bounded() -> None:
    """1 s to 15 s where nothing is measured; up to 45 s at three times the capacity; never more than 300 s."""
    idle = Server().admission
    assert {idle.retry_after_s(Lane.TODAY, n / 100) for n in range(100)} == set(range(1, 16))
    ceilings = []
    for overload in (3, 8):
        server = Server()
        server.run(20, per_s=100 * overload)
        ceilings.append(server.admission.retry_after_s(Lane.TODAY, 0.999))
    assert 35 <= ceilings[0] <= 55
    assert 90 <= ceilings[1] <= 150
    delay = idle.delays[Lane.TODAY]
    delay.overload = 1e9
    assert idle.retry_after_s(Lane.TODAY, 0.999) == 300


NOBODY = (0, 0, 0)


class Doubting(Server):
    """Asks about everybody before they come, of a copy, and counts what it was told."""

    told: Counter[bool]

    def come(self, lane: Lane = Lane.TODAY, *, size_bytes: int = 600, days: int = 0) -> Visit:
        """Somebody comes; what was said of them beforehand must be what becomes of them."""
        visit = Visit(lane=lane, size_bytes=size_bytes, days=days, came_ms=self.now_ms)
        beforehand = deepcopy(self.admission).turns_away(visit, self.now_ms, NOBODY)
        before = len(self.gone)
        came = super().come(lane, size_bytes=size_bytes, days=days)
        assert beforehand == any(gone is came for gone in self.gone[before:])
        self.told[beforehand] += 1
        return came


@pytest.mark.parametrize("seed", range(4))
def test_who_would_be_turned_away_is_known_before_they_come(seed: int) -> None:
    """Whoever is turned away unseen would have been turned away, and nobody else: lanes, sizes, ages, while it stands.

    Beyond the hard bounds they may come: those are for what nobody foresaw, and `come` sees to them.
    """
    server, chance = Doubting(replace(LIMITS, waiting_bytes_max=1 << 40)), random.Random(seed)
    server.told = Counter()
    for _ in range(600):
        for _ in range(chance.choice([0, 1, 2, 6])):
            server.come(chance.choice(list(Lane)), size_bytes=chance.choice([300, 20_000]), days=chance.choice([0, 5]))
        server.work()
    assert server.told[True] > 100
    assert server.told[False] > 100


def test_those_on_their_way_count_and_whoever_is_turned_away_keeps_the_lane_shed() -> None:
    """A crowd turned away before it comes is as much a crowd as one that came."""
    server = Server()
    server.run(4, per_s=300)
    admission, visit = server.admission, Visit(lane=Lane.TODAY, size_bytes=600, days=0, came_ms=server.now_ms)
    assert admission.sheds
    while admission.waiting(Lane.TODAY) > 4:
        server.work()
    room = admission.delays[Lane.TODAY].bound - admission.waiting(Lane.TODAY)
    assert not admission.turns_away(visit, server.now_ms, [room - 1, 99, 99])
    assert admission.turns_away(visit, server.now_ms, [room, 0, 0])
    for _ in range(3):  # intervals in which somebody was turned away unseen
        admission.look(server.now_ms + 1_000)
        server.now_ms += 1_000
        assert admission.sheds
        admission.turns_away(visit, server.now_ms, [1_000, 0, 0])
    admission.look(server.now_ms + 1_000)
    admission.look(server.now_ms + 2_000)
    assert not admission.sheds


def test_those_of_another_lane_on_their_way_close_no_lane_that_has_room() -> None:
    """A backlog that was shed once comes in again as soon as there is room, however many registers of today come."""
    server = Server()
    admission = server.admission
    backlog = admission.delays[Lane.BACKLOG]
    backlog.sheds = backlog.stands = True  # it did a moment ago; since then everybody has been answered
    late = Visit(lane=Lane.BACKLOG, size_bytes=600, days=2, came_ms=0)
    room, bound = LIMITS.inside_max - 1, backlog.bound
    assert not admission.turns_away(late, 0, [room, 0, 0])  # there is room inside
    assert not admission.turns_away(late, 0, [1_000, 0, 0])  # there is none, but nobody waits in its lane
    assert not admission.turns_away(late, 0, [1_000, bound - 1, 0])
    assert admission.turns_away(late, 0, [1_000, bound, 0])
    assert not admission.turns_away(late, 0, [0, room, 0])
