"""Which faults a seed meets, and how often. Swarm testing: each seed switches about half of the classes off.

A class that is always on hides the bugs that need its absence (a phone that is always killed never runs long), so each
seed draws for every class whether it happens at all, and its rate log-uniformly between the class's bounds. Every
class has a stream of chance of its own: switching one off does not move the draws of the others, so failures shrink.
"""

from __future__ import annotations

import math
import random
from collections.abc import Collection, Mapping
from dataclasses import dataclass

SHARE_ON = 0.55

# class: (least rate, greatest rate); what the rate counts is said where it is used.
CLASSES: Mapping[str, tuple[float, float]] = {
    # network, per request
    "net.drop": (0.02, 0.35),  # a connection fails before anything is sent
    "net.cut": (0.02, 0.35),  # reset or silence at any byte of request or answer
    "net.twice": (0.01, 0.3),  # the request arrives twice
    "net.later": (0.01, 0.15),  # a copy arrives again minutes to days later
    "net.garble": (0.005, 0.08),  # bits fall over in request or answer
    "net.stale": (0.01, 0.15),  # an earlier answer of ours to this phone, from somebody's cache
    "net.stranger": (0.01, 0.2),  # somebody else's page with status 200
    "net.busy": (0.02, 0.3),  # a gateway's 503 with Retry-After
    # phone
    "phone.kill_io": (0.2, 3.0),  # per day: the app dies in the middle of a disk operation
    "phone.kill_point": (0.001, 0.02),  # per passed point
    "phone.power": (0.05, 0.8),  # share of deaths that are power cuts
    "phone.eio": (0.05, 0.6),  # per day
    "phone.full": (0.05, 0.4),  # per day: the storage is full for a while
    "phone.wipe": (0.02, 0.15),  # per day: storage lost; enrolled anew
    "phone.clone": (0.01, 0.1),  # per day: a copy of the phone comes to life beside it
    "phone.old_copy": (0.02, 0.15),  # per day: an older copy of the phone's storage is put back
    "phone.clock": (0.1, 1.0),  # per day: the wall clock jumps
    # server
    "server.kill_point": (0.0005, 0.03),  # per passed point
    "server.kill_io": (0.1, 2.0),  # per day
    "server.power": (0.2, 1.0),  # share of deaths that are power cuts
    "server.eio": (0.1, 1.5),  # per day
    "server.full": (0.05, 0.4),  # per day
    "server.restart": (0.1, 1.0),  # per day: an orderly stop
    "server.restore": (0.05, 0.5),  # per day: an older backup is put in place
    "server.clock": (0.05, 0.3),  # per day: the server's clock is some seconds off
    # people
    "people.correct": (0.1, 0.8),  # per register: corrected later that day
    "people.hand": (0.2, 1.0),  # per register: some pupils marked one by one, without closing it
    "people.bell": (0.2, 0.9),  # per day: all phones of a school in the same millisecond
    "people.two": (0.05, 0.6),  # per register: a second teacher takes it too
    "people.late": (0.02, 0.3),  # per register: marked again on a later day
    "people.order": (0.05, 0.6),  # per day: nudge, re-pull or rebuild
    "people.revoke": (0.03, 0.25),  # per day: a device is revoked; some are released later
    "people.roster": (0.05, 0.5),  # per day: pupils come and go
    "people.calendar": (0.05, 0.3),  # per day: a day is closed or opened after the fact
    "people.courier": (0.1, 1.0),  # per day: a phone's frames travel as a file
    # hostile
    "bad.replay": (0.1, 1.0),  # per day: old requests and bundles once more
    "bad.change": (0.1, 1.0),  # per day: an enrolled device sends changes no machine can merge
    "bad.bytes": (0.1, 1.5),  # per day: mutated requests
}


@dataclass(slots=True, kw_only=True)
class Swarm:
    """The faults of one seed. `rates` holds the classes that are on."""

    seed: int
    rates: dict[str, float]
    _streams: dict[str, random.Random]

    @classmethod
    def of(cls, seed: int, *, only: Collection[str] | None = None, quiet: bool = False) -> Swarm:
        """The swarm of a seed; `only` keeps some of its classes, `quiet` none."""
        rates: dict[str, float] = {}
        for name, (low, high) in CLASSES.items():
            source = random.Random(f"swarm|{seed}|{name}")
            is_on, place = source.random() < SHARE_ON, source.random()
            if is_on and not quiet and (only is None or name in only):
                rates[name] = math.exp(math.log(low) + place * (math.log(high) - math.log(low)))
        return cls(seed=seed, rates=rates, _streams={})

    def rate(self, name: str) -> float:
        """The rate of a class; 0 when it is off."""
        assert name in CLASSES, name
        return self.rates.get(name, 0.0)

    def stream(self, name: str) -> random.Random:
        """The chance of one class (or of a place within it, `class|place`)."""
        found = self._streams.get(name)
        if found is None:
            found = self._streams[name] = random.Random(f"{self.seed}|{name}")
        return found

    def hits(self, name: str, place: str = "") -> bool:
        """Whether the fault happens this time; `place` has draws of its own."""
        rate = self.rates.get(name)
        return rate is not None and self.stream(f"{name}|{place}").random() < rate

    def times(self, name: str, place: str = "") -> int:
        """How often it happens today, for classes whose rate counts per day."""
        rate = self.rates.get(name, 0.0)
        if not rate:
            return 0
        whole, part = divmod(rate, 1.0)
        return int(whole) + (self.stream(f"{name}|{place}").random() < part)

    def calm(self) -> None:
        """Faults stop from now on."""
        self.rates.clear()
