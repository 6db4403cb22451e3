"""Does anything get dearer with history? The same work after 1, 30 and 180 school days, and with 1 to 1,000 schools.

At each point: CPU of a push and of settling, bytes of a first push and of a pull, disk for each register, memory.

A machine that others use too is faster in one minute than in the next, by more than anything here could differ. So at
each point pushes are measured in turns with a second server, on a new store of one day and one school: what is told is
their ratio, times what those second servers took over the whole run. The point of one day is measured so as well.
"""

from __future__ import annotations

import asyncio
import itertools
import statistics
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import uvloop
from rich.console import Console

from bench.history import Taught, write_history
from bench.load import SESSIONS, Line, head_of, measured
from bench.results import Chart, Goal, Result, Row
from bench.site import Site, site
from bench.wire import catch_up, push_once, school_days
from clientcore.exchange import write_sync

DAYS, SCHOOLS = (1, 30, 180), (1, 10, 100, 1_000)
PUSHED_SCHOOLS, PUSHES, ROUNDS = 40, 960, 15
CLASSES_OF_MANY = 4  # of each school where there are many of them; all nine where one school has its days
DAYS_GROUP, SCHOOLS_GROUP, SLOPES = "after days of history", "with more schools", "slopes"
IDLE_S = 1.0
SLOPE_MAX = 10  # % of a push: about what two runs of the same thing differ by
DISK_REGISTERS_MIN = 200  # with fewer, the pages of empty tables are most of it


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """What was found at one size of the store; `registers` of history it held before the measurement."""

    days: int
    schools: int
    registers: int
    push: float
    settle: float
    first_up: int
    pull_down: int
    disk: float
    memory: float


FIGURES = {
    "push": ("CPU of a push", "CPU-s / 1,000"),
    "settle": ("CPU of settling", "CPU-s / 1,000"),
    "first_up": ("first push: body up", "B"),
    "pull_down": ("a class day pulled: body down", "B"),
    "disk": ("disk of a register of history", "B"),
    "memory": ("memory of the server", "MB"),
}


def run(*, quick: bool, console: Console) -> Result:
    """Measure every point."""
    sizes = [(days, 1) for days in DAYS[: 2 if quick else None]]
    sizes += [(1, schools) for schools in SCHOOLS[1 : 3 if quick else None]]
    points: dict[tuple[int, int], Point] = {}
    usual: list[float] = []
    for days, schools in sizes:
        points[days, schools] = found = measure(days, schools, usual, console)
        console.print(
            f"{days} days, {schools} schools: push {found.push:.3f} ×, settle {found.settle:.2f} CPU-s / 1,000"
        )
    points = {size: replace(point, push=point.push * statistics.median(usual)) for size, point in points.items()}
    by_days = [point for (_, schools), point in points.items() if schools == 1]
    by_schools = [point for (days, _), point in points.items() if days == 1]
    day_labels = [f"{point.days} day{'s' * (point.days > 1)}" for point in by_days]
    school_labels = [f"{point.schools:,} school{'s' * (point.schools > 1)}" for point in by_schools]
    return Result(
        name="growth",
        title="Growth",
        rows=(
            *rows_of(by_days, DAYS_GROUP, day_labels),
            *rows_of(by_schools, SCHOOLS_GROUP, school_labels),
            *slopes(by_days, f"from {day_labels[0]} to {day_labels[-1]}"),
            *slopes(by_schools, f"from {school_labels[0]} to {school_labels[-1]}"),
        ),
        charts=(
            chart_of("growth-days", "CPU after days of history", day_labels, by_days),
            chart_of("growth-schools", "CPU with more schools", school_labels, by_schools),
        ),
    )


def grown(place: Site, days: int, *, classes: int | None, console: Console) -> tuple[int, list[Taught]]:
    """Stop a new site and give it its history; bytes of its store before, and who teaches there."""
    time.sleep(IDLE_S)  # what the import of the roster has ordered is done before anything is measured
    place.stop()
    empty = stored_bytes(place.store)
    past = school_days(place.today, days)
    return empty, asyncio.run(write_history(place.store, days=past, on=place.today, classes=classes, console=console))


def measure(days: int, schools: int, usual: list[float], console: Console) -> Point:
    """Make a store of this size and measure on it; `push` is a ratio to rounds that are added to `usual`."""
    classes = CLASSES_OF_MANY if schools > 1 else None
    with site(phones=0, settle=True, schools=schools) as place:
        empty, taught = grown(place, days, classes=classes, console=console)
        registers = days * sum(len(list(one.rooms)[:classes]) for one in taught)
        disk = (stored_bytes(place.store) - empty) / registers
        place.restart(settle=False)
        push = push_ratio(Pusher(place=place, taught=taught), usual, console)
        first_up, pull_down, settle, memory = the_rest(place, taught)
    return Point(
        days=days,
        schools=schools,
        registers=registers,
        push=push,
        settle=settle,
        first_up=first_up,
        pull_down=pull_down,
        disk=disk,
        memory=memory,
    )


def free_registers(today: str, rooms: Sequence[str]) -> Iterator[tuple[str, str]]:
    """(register, class) of periods of past days: history has day registers only."""
    for day in reversed(school_days(today, 400)):
        for session, room in itertools.product(SESSIONS[1:], rooms):
            yield f"{room}/{day}/{session}", room


@dataclass(slots=True, kw_only=True)
class Pusher:
    """Pushes to one site on kept connections, from up to 40 schools."""

    place: Site
    taught: Sequence[Taught]
    free: dict[str, Iterator[tuple[str, str]]] = field(default_factory=dict)

    def round(self) -> float:
        """CPU-s of 1,000 pushes."""
        chosen = self.taught[:: max(1, len(self.taught) // PUSHED_SCHOOLS)][:PUSHED_SCHOOLS]
        lines: list[Line] = []
        for number in range(PUSHED_SCHOOLS):
            one = chosen[number % len(chosen)]
            phone = one.pair[number // len(chosen) % 2]
            free = self.free.setdefault(one.school, free_registers(self.place.today, list(one.rooms)))
            line = []
            for register, room in itertools.islice(free, PUSHES // PUSHED_SCHOOLS):
                body = write_sync([phone.frame([(register, phone.register(one.rooms[room][:40]))]).raw])
                line.append((body, head_of(body), phone.enrolled.server_key))
            lines.append(line)
        used_s, _, total = uvloop.run(measured(self.place, lines, fresh=False))
        return used_s / total * 1e3


def push_ratio(pusher: Pusher, usual: list[float], console: Console) -> float:
    """The CPU of a push over that of one to the smallest store: the median of rounds in turns, after a warm-up."""
    with site(phones=0, settle=True) as small:
        _, taught = grown(small, 1, classes=None, console=console)
        small.restart(settle=False)
        beside = Pusher(place=small, taught=taught)
        rounds = [(pusher.round(), beside.round()) for _ in range(ROUNDS + 1)][1:]
    usual += [theirs for _, theirs in rounds]
    return statistics.median(ours / theirs for ours, theirs in rounds)


def the_rest(place: Site, taught: Sequence[Taught]) -> tuple[int, int, float, float]:
    """First push up, pull down, CPU of settling what `push_cpu` left, and the server's memory afterwards."""
    waiting = place.metrics()["hudur_consumer_lag_offsets"]
    place.restart(settle=True)
    place.wait_settled()
    time.sleep(IDLE_S)
    used_s = place.cpu_s()
    place.restart(settle=True)
    place.wait_settled()
    time.sleep(IDLE_S)
    settle = (used_s - place.cpu_s()) / waiting * 1e3
    one = taught[0]
    taker, reader = one.pair
    for phone in one.pair:
        catch_up(place, phone)  # the first answer only brings a nonce
        catch_up(place, phone)
    first = push_once(place, taker, f"{one.room}/{place.today}/day", taker.register(one.rooms[one.room]))
    place.wait_settled()
    day = catch_up(place, reader)
    if not any(item[0] == "change" for item in (day.payload.items if day.payload else ())):
        raise SystemExit("the second phone did not get the register")
    return first.body_up, day.body_down, settle, place.rss_bytes() / 1e6


def stored_bytes(store: Path) -> int:
    """Bytes of the store's files (no server is running)."""
    return sum(path.stat().st_size for path in store.parent.glob(store.name + "*"))


# ---- what is told -----------------------------------------------------------------------------------------------


def rows_of(points: Sequence[Point], group: str, labels: Sequence[str]) -> list[Row]:
    """Every figure at every point."""
    return [
        Row(name=f"{label}, {labels[at]}", value=getattr(point, name), unit=unit, group=group,
            note=f"{point.registers:,} registers in the store" if name == "push" else "")
        for name, (label, unit) in FIGURES.items() for at, point in enumerate(points)
        if name != "disk" or point.registers >= DISK_REGISTERS_MIN
    ]  # fmt: skip


def slopes(points: Sequence[Point], span: str) -> list[Row]:
    """What the line of least squares over the registers in the store rises from the smallest to the largest, in %."""
    rows = []
    sizes = [float(point.registers) for point in points]
    for name in ("push", "settle", "first_up", "pull_down"):
        fit = statistics.linear_regression(sizes, [float(getattr(point, name)) for point in points])
        start = fit.intercept + fit.slope * sizes[0]
        share = fit.slope * (sizes[-1] - sizes[0]) / start * 100
        goal = Goal(limit=SLOPE_MAX) if name == "push" else None
        rows.append(Row(name=f"{FIGURES[name][0]}, {span}", value=share, unit="%", goal=goal, group=SLOPES))
    return rows


def chart_of(name: str, title: str, labels: Sequence[str], points: Sequence[Point]) -> Chart:
    """Push and settle over the size."""
    lines = {"push": tuple(p.push for p in points), "settle": tuple(p.settle for p in points)}
    return Chart(name=name, title=title, x=tuple(labels), lines=lines, unit="CPU-s / 1,000")
