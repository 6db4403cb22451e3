"""The same work for everyone, in turns: ours, a peer, ours, the next peer, and again.

So that what else the machine does hits all alike, a ratio is taken between a peer's rounds and our rounds just before
them. Indices of registers are handed out once; a register is pushed once to each contestant.
"""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from rich.console import Console

from bench.peers.fsync import DELAY_S, late_fsync
from bench.peers.node import Peer
from bench.peers.ours import Ours
from bench.peers.tap import tap

AT_ONCE = 40
ROUND_TRIP_S = 0.25
KILL_AT = 200
WARM, BYTES, TRIPS, FSYNCS, KILLED = 120, 3, 3, 2, 360
Contestant = Ours | Peer


@dataclass(slots=True)
class Found:
    """What one contestant was measured to cost; sizes in bytes, `None` where it could not be told."""

    peer: str
    short: str
    version: str
    complete: str
    pushes: int = 0
    cpu_s: float = 0
    ours_pushes: int = 0
    ours_cpu_s: float = 0
    bytes_up: int = 0
    bytes_down: int = 0
    corrections_up: int = 0
    corrections_down: int = 0
    trips: int = 0
    memory_mb_per_10000: float = 0
    memory_mb_grown: float = 0
    memory_pushes: int = 0
    disk_bytes: float = 0
    disk_allocated_bytes: float = 0
    fsync_before_ack: bool | None = None
    acked_before_kill: int = KILL_AT
    lost_of_200: int = 0

    @property
    def cpu_s_per_1000(self) -> float:
        """CPU-seconds of the server per 1,000 first pushes."""
        return self.cpu_s / self.pushes * 1e3

    @property
    def ratio(self) -> float:
        """How many times our CPU, against our rounds just before its own."""
        return self.cpu_s_per_1000 / (self.ours_cpu_s / self.ours_pushes * 1e3)


class Runner:
    """One contestant, its figures so far, and the indices it has used."""

    def __init__(self, who: Contestant, *, version: str, complete: str) -> None:
        self.who = who
        self.found = Found(peer=who.name, short=who.short, version=version, complete=complete)
        self._index = itertools.count()
        self._pushed = 0
        self._rss_bytes = 0
        self._rss_at = 0

    def _next(self, count: int) -> Sequence[int]:
        self._pushed += count
        return list(itertools.islice(self._index, count))

    def warm_up(self) -> None:
        """Pushes that do not count: compilers and caches of all have seen the work before it is measured."""
        self.who.push(self._next(WARM), at_once=AT_ONCE)

    def on_the_wire(self) -> None:
        """Bytes of a first push and of three corrections, then round trips until it is complete."""
        firsts, laters = [], []
        with tap(self.who.port) as relay:
            for index in self._next(BYTES):
                self.who.push([index], port=relay.port)
                firsts.append(relay.take())
                self.who.correct([index], port=relay.port)
                laters.append(relay.take())
        found = self.found
        found.bytes_up, found.bytes_down = (int(statistics.median(side)) for side in zip(*firsts, strict=True))
        found.corrections_up, found.corrections_down = (int(statistics.median(s)) for s in zip(*laters, strict=True))
        with tap(self.who.port, round_trip_s=ROUND_TRIP_S) as relay:
            spent_ms = self.who.push(self._next(TRIPS), port=relay.port)
        found.trips = int(min(spent_ms) / 1e3 / ROUND_TRIP_S + 0.05)  # a timer may be a little early, work is late

    def round(self, count: int) -> tuple[float, int]:
        """One round of first pushes; CPU-seconds and pushes."""
        indices = self._next(count)
        before_s = self.who.cpu_s()
        self.who.push(indices, at_once=AT_ONCE)
        return self.who.cpu_s() - before_s, count

    def note_memory(self) -> None:
        """Where growth is counted from: caches are full, compilers have done their work."""
        self._rss_bytes, self._rss_at = self.who.rss_bytes(), self._pushed

    def weigh_memory(self) -> None:
        """Growth since it was noted."""
        self.found.memory_mb_grown = (self.who.rss_bytes() - self._rss_bytes) / 1e6
        self.found.memory_pushes = self._pushed - self._rss_at
        self.found.memory_mb_per_10000 = self.found.memory_mb_grown / self.found.memory_pushes * 10_000

    def ask_fsync(self) -> None:
        """Whether a late fsync makes the acknowledgement late."""
        with late_fsync(self.who.pid) as attached:
            if attached:
                spent_ms = self.who.push(self._next(FSYNCS))
                self.found.fsync_before_ack = min(spent_ms) >= DELAY_S * 1e3

    def kill(self) -> None:
        """Acknowledged and lost; the server was killed at the 200th acknowledgement."""
        indices = self._next(KILLED)
        self.found.lost_of_200 = self.who.lost(indices, after=KILL_AT, at_once=AT_ONCE)

    def stop(self) -> None:
        """End the server as an operator would, and see what it left on the disk."""
        self.who.stop()
        length, allocated = self.who.disk_bytes()
        self.found.disk_bytes, self.found.disk_allocated_bytes = length / self._pushed, allocated / self._pushed


def needed(rounds: int, each: int) -> int:
    """Registers one contestant needs at most."""
    return WARM + BYTES + TRIPS + FSYNCS + rounds * each + KILLED


def measure(ours: Runner, peers: Sequence[Runner], *, rounds: int, each: int, console: Console) -> list[Found]:
    """Everything, for everyone."""
    everyone = (ours, *peers)
    for one in everyone:
        one.warm_up()
    for number in range(rounds):
        for peer in peers:
            used_s, count = ours.round(each)
            for found in (ours.found, peer.found):
                found.ours_cpu_s += used_s
                found.ours_pushes += count
            cpu_s, count = peer.round(each)
            peer.found.cpu_s += cpu_s
            peer.found.pushes += count
            console.print(
                f"round {number + 1} of {rounds}, {peer.found.peer}: {cpu_s / count * 1e3:.2f} CPU-s / 1,000; "
                f"ours {used_s / count * 1e3:.3f}"
            )
        if number == 0:
            for one in everyone:
                one.note_memory()
    ours.found.cpu_s, ours.found.pushes = ours.found.ours_cpu_s, ours.found.ours_pushes
    for one in everyone:
        one.weigh_memory()
    for one in everyone:
        console.print(f"{one.found.peer}: bytes, round trips, fsync, disk, SIGKILL")
        one.on_the_wire()
        one.ask_fsync()
    return [_end(one) for one in everyone]


def _end(one: Runner) -> Found:
    """What ends the server comes last: a clean stop for the disk, then a start, load, and SIGKILL."""
    one.stop()
    one.who.restart()
    one.kill()
    return one.found
