"""A school's morning over a weak network, for real: real server, real devices, real sockets, in real time.

    python -m tests.weaknet.road --profile upper-egypt-edge-rural --seed 1 [--browser] [--json]

Every class of one school of `hudur demo` is taken on its tutor's device (`hudur device`, with --browser two of them the
page in Chromium) and synced through a `Proxy` of its own until it is confirmed. Lateness, server receipt minus capture,
stands beside what the simulator gives for the same profile, seeds, excerpt and instants of capture.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path
from statistics import median
from typing import Any

from rich.console import Console
from rich.table import Table

from tests.support.demo import Demo
from tests.weaknet.draws import uniform
from tests.weaknet.profile import Profile, load
from tests.weaknet.proxy import Proxy
from tests.weaknet.road_model import Morning, simulated
from tests.weaknet.road_phones import ChromiumPhone, CommandLinePhone, Phone, Room
from tests.weaknet.timeline import compile_timeline

SEEDS_PER_SEED = 1_000
ROLL_CALL_MS = 20_000  # within it all classes are taken
TOP_UP_AFTER_MS = 60_000
CHROMIUM_PHONES = 2
MODEL_RUNS = 20
LIMIT_S = 900
FAIR_S = 120


@dataclass(frozen=True, slots=True, kw_only=True)
class Spread:
    """Lateness of some registers, seconds."""

    registers: int
    p50_s: float
    p95_s: float
    max_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What the morning came to.

    Attributes:
        registers: How many were taken.
        in_time: How many devices showed theirs as confirmed while the excerpt ran.
        confirmed: How many in the end, after a few minutes of fair weather for those that were not.
        wrong_marks: Marks of the registers that are missing, double, or not what was taken; 0 is the point of it all.
        lateness_s: Of each register that the server received while the excerpt ran, by class.
        first_request_s: From the finished register to the first byte of a request, median: what starting a program and
            spells without network cost before the link's own time begins.
        injected: Faults by kind, over all proxies.
        requests: Requests that the proxies saw.
    """

    registers: int
    in_time: int
    confirmed: int
    wrong_marks: int
    lateness_s: dict[str, float]
    first_request_s: float
    injected: dict[str, int]
    requests: int


@dataclass(slots=True)
class Road:
    """One morning: phones, proxies, server. `run` plays it once.

    Attributes:
        browsers: How many of the phones are Chromium; the others are command-line devices.
        classes: How many classes of the school; None means all.
        roll_call_ms: Within this time all registers are taken.
        limit_s: How long the excerpt runs for a phone that does not get through.
        left_bytes: Where the profile has a budget, at most so much is left of each phone's when the excerpt begins.
    """

    profile: Profile
    seed: int
    demo: Demo
    folder: Path
    browsers: int = 0
    classes: int | None = None
    roll_call_ms: int = ROLL_CALL_MS
    limit_s: float = LIMIT_S
    left_bytes: float = 0
    phones: list[Phone] = field(default_factory=list)
    _first_request_s: list[float] = field(default_factory=list)
    _stack: ExitStack = field(default_factory=ExitStack)

    def morning(self, count: int) -> Morning:
        """The excerpt, and when each of `count` phones' registers is taken in it."""
        timelines = tuple(compile_timeline(self.profile, self.seed * SEEDS_PER_SEED + n) for n in range(count))
        excerpt = self.profile.excerpts[0]
        begins_ms = timelines[0].days.elapsed_ms(excerpt.day, excerpt.at_min)
        draws = (uniform(self.profile.id, self.seed, "road.capture", n) for n in range(count))
        left = (uniform(self.profile.id, self.seed, "road.balance", n) * self.left_bytes for n in range(count))
        budget = self.profile.links[0].budget
        return Morning(
            timelines=timelines,
            captures_ms=tuple(begins_ms + int(u * self.roll_call_ms) for u in draws),
            begins_ms=begins_ms,
            limit_ms=int(self.limit_s * 1000),
            spent_bytes=tuple(budget.bytes_per_day - int(one) for one in left) if budget else (),
            top_up_at_ms=begins_ms + TOP_UP_AFTER_MS if budget else None,
        )

    def run(self) -> Outcome:
        """Enrol in fair weather, then play the morning; a phone that is not through at the end is not confirmed."""
        rooms = self._rooms()
        morning = self.morning(len(rooms))
        with self._stack:
            self._connect(rooms, morning)
            for phone in self.phones:
                phone.enrol()
            for phone, spent in zip(self.phones, morning.spent_bytes or [0] * len(self.phones), strict=True):
                phone.proxy.begin(morning.begins_ms, spent_bytes=spent, top_up_at_ms=morning.top_up_at_ms)
            with ThreadPoolExecutor(max_workers=len(self.phones)) as people:
                in_time = list(people.map(self._use, self.phones, morning.captures_ms))
                ended_s = time.time()
                for phone in self.phones:
                    phone.proxy.clear()
                confirmed = list(people.map(lambda phone: phone.deliver(FAIR_S), self.phones))
            injected: Counter[str] = sum((phone.proxy.injected for phone in self.phones), Counter())
            requests = sum(len(phone.proxy.exchanges) for phone in self.phones)
        lateness_s, wrong = self._compare(rooms, ended_s)
        return Outcome(
            registers=len(rooms),
            in_time=sum(in_time),
            confirmed=sum(confirmed),
            wrong_marks=wrong,
            lateness_s=lateness_s,
            first_request_s=round(median(self._first_request_s), 2) if self._first_request_s else math.nan,
            injected=dict(sorted(injected.items())),
            requests=requests,
        )

    def _rooms(self) -> list[Room]:
        school, codes = self.demo.info["schools"][0], self.demo.info["codes"]
        return [
            Room(
                school=school["id"],
                class_id=room["id"],
                pupils=tuple(room["pupils"]),
                code=codes["classes"][room["id"]],
            )
            for room in school["classes"][: self.classes]
        ]

    def _connect(self, rooms: Sequence[Room], morning: Morning) -> None:
        for n, (room, timeline) in enumerate(zip(rooms, morning.timelines, strict=True)):
            proxy = self._stack.enter_context(Proxy(self.demo.port, timeline))
            home = self.folder / f"phone-{n}"
            if n < self.browsers:
                self.phones.append(ChromiumPhone(room=room, proxy=proxy, home=home, stack=self._stack))
            else:
                self.phones.append(CommandLinePhone(room=room, proxy=proxy, home=home))

    def _use(self, phone: Phone, capture_ms: int) -> bool:
        """A teacher's morning: wait for the lesson, take the register, let it go."""
        begins_ms = phone.proxy.now_ms()
        threading.Event().wait(max(0.0, (capture_ms - begins_ms) / 1000))
        phone.take()
        taken_ms = phone.proxy.now_ms()
        done = phone.deliver(self.limit_s)
        if phone.proxy.exchanges:
            self._first_request_s.append((phone.proxy.exchanges[0].began_ms - taken_ms) / 1000)
        return done

    def _compare(self, rooms: Sequence[Room], ended_s: float) -> tuple[dict[str, float], int]:
        """Lateness by class, and how many marks of the feed are not exactly what was taken, once."""
        ours = {room.class_id for room in rooms}
        events = [event["data"] for event in self.demo.events() if event["data"]["class"] in ours]
        said = Counter((data["class"], data["pupil"], data["code"]) for data in events)
        taken = Counter(
            (room.class_id, pupil, "absent" if pupil == room.pupils[1] else "present")
            for room in rooms
            for pupil in room.pupils
        )
        times: dict[str, list[dict[str, Any]]] = {}
        for data in events:
            times.setdefault(data["class"], []).append(data)
        lateness_s = {}
        for class_id, found in sorted(times.items()):
            received_s = max(_instant(one["received_at"]) for one in found)
            if received_s <= ended_s:
                lateness_s[class_id] = round(received_s - min(_instant(one["captured_at"]) for one in found), 3)
        return lateness_s, (said - taken).total() + (taken - said).total()


def _instant(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


def spread(lateness_s: Sequence[float]) -> Spread:
    """Percentiles by nearest rank."""
    ordered = sorted(lateness_s)

    def rank(share: float) -> float:
        return round(ordered[max(0, math.ceil(share * len(ordered)) - 1)], 2) if ordered else math.nan

    return Spread(registers=len(ordered), p50_s=rank(0.5), p95_s=rank(0.95), max_s=rank(1.0))


def model(morning: Morning, runs: int) -> Spread:
    """The simulator's lateness for the same morning, over several draws of jitter."""
    return spread([ms / 1000 for chance in range(runs) for ms in simulated(morning, chance=chance)])


def _show(given: argparse.Namespace, outcome: Outcome, real: Spread, simulated_: Spread, console: Console) -> None:
    table = Table(title=f"{given.profile}, seed {given.seed}: lateness in seconds")
    for name in ("", "registers", "p50", "p95", "max"):
        table.add_column(name, justify="left" if not name else "right")
    for name, row in (("through the proxy", real), (f"simulator ({MODEL_RUNS} runs)", simulated_)):
        table.add_row(name, str(row.registers), f"{row.p50_s:.1f}", f"{row.p95_s:.1f}", f"{row.max_s:.1f}")
    console.print(table)
    faults = ", ".join(f"{kind} {count}" for kind, count in outcome.injected.items()) or "none"
    console.print(
        f"{outcome.registers} registers, {outcome.in_time} confirmed in the excerpt, {outcome.confirmed} in the end; "
        f"{outcome.wrong_marks} marks missing, double or wrong; {outcome.requests} requests, the first "
        f"{outcome.first_request_s:.1f} s after the register; injected: {faults}"
    )


def main(words: Sequence[str] | None = None) -> int:
    """Play one morning and print; 1 when something was lost or did not arrive in time."""
    arguments = argparse.ArgumentParser(prog="python -m tests.weaknet.road", description=__doc__)
    arguments.add_argument("--profile", default="upper-egypt-edge-rural")
    arguments.add_argument("--seed", type=int, default=1)
    arguments.add_argument("--browser", action="store_true", help=f"{CHROMIUM_PHONES} of the phones are Chromium")
    arguments.add_argument("--classes", type=int, help="only so many classes of the school")
    arguments.add_argument("--limit-s", type=float, default=LIMIT_S, help="how long phones try")
    arguments.add_argument("--left-bytes", type=float, default=0, help="balance left when the excerpt begins, at most")
    arguments.add_argument("--json", action="store_true", help="one JSON object")
    given = arguments.parse_args(words)
    with tempfile.TemporaryDirectory(prefix="hudur-road-") as name:
        folder = Path(name)
        with Demo(folder / "demo") as demo:
            road = Road(
                load(given.profile),
                given.seed,
                demo,
                folder,
                browsers=CHROMIUM_PHONES if given.browser else 0,
                classes=given.classes,
                limit_s=given.limit_s,
                left_bytes=given.left_bytes,
            )
            outcome = road.run()
    real = spread(list(outcome.lateness_s.values()))
    expected = model(road.morning(outcome.registers), MODEL_RUNS)
    if given.json:
        told = {"profile": given.profile, "seed": given.seed, "browser": given.browser, "outcome": asdict(outcome)}
        told |= {"real": asdict(real), "simulated": asdict(expected), "simulated_runs": MODEL_RUNS}
        sys.stdout.write(json.dumps(told) + "\n")
    else:
        _show(given, outcome, real, expected, Console())
    return 0 if outcome.confirmed == outcome.registers and outcome.wrong_marks == 0 else 1


if __name__ == "__main__":
    sys.exit(main())
