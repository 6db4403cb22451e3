"""SQLite and PostgreSQL beside each other: the same pushes and the same settling, in turns within one run.

One server process on each store; at the end a second one on PostgreSQL (`bench.store_servers`). The database's own
processes are counted separately: with SQLite there are none, its work is in the server's. PostgreSQL is a cluster of
its own as `initdb` makes it, on the same disk, reached over TCP.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field

import psutil
import uvloop
from rich.console import Console

from bench.growth import stored_bytes
from bench.lane import BATCH, hold_ms
from bench.load import PHONES, measured, registers, sign
from bench.results import Result, Row
from bench.site import Phone, Site, site
from bench.store_servers import COMMIT_S, COMMITS, PUSHES, commits_of, run_servers
from syncserver.config import store_address
from tests.support.postgres import Cluster, cluster_of_its_own

ROUNDS, EACH = 3, 25
IDLE_S = 1.0
SQLITE, POSTGRES, RATIO = "SQLite", "PostgreSQL", "ratio"


@dataclass(slots=True)
class Side:
    """One store under test: its site, its phones, and what its database's own processes have used."""

    name: str
    place: Site
    database_cpu_s: Callable[[], float]
    size_bytes: Callable[[], int]
    phones: list[Phone]
    free: Iterator[tuple[str, list[str]]]
    push: list[float] = field(default_factory=list)
    push_database: list[float] = field(default_factory=list)
    settle: float = 0
    settle_database: float = 0
    commits: Counter[str] = field(default_factory=Counter)
    register_bytes: float = 0
    hold_ms: float = 0


def run(*, quick: bool, console: Console) -> Result:
    """Measure each store; rounds of pushes take turns."""
    with ExitStack() as stack:
        cluster = stack.enter_context(cluster_of_its_own())
        file = stack.enter_context(site(phones=PHONES, settle=True))
        address = cluster.database()
        database = stack.enter_context(site(phones=PHONES, settle=True, address=address))
        sides = [
            side_of(SQLITE, file, lambda: 0.0, lambda: stored_bytes(file.store)),
            side_of(POSTGRES, database, lambda: cpu_of(cluster), lambda: size_of(cluster, address)),
        ]
        sizes = [side.size_bytes() for side in sides]
        for side in sides:
            side.place.restart(settle=False)
        for _ in range(rounds := 1 if quick else ROUNDS):
            for side in sides:
                push_round(side, console)
        for side, size in zip(sides, sizes, strict=True):
            settle_all(side)
            side.register_bytes = (side.size_bytes() - size) / (PHONES * EACH * (rounds + 1))
            store = file.store if side.place.address is None else store_address(side.place.address)
            side.hold_ms = hold_ms(store, side.phones, side.free, commits=5 if quick else 30, console=console)
        database.restart(settle=False)
        servers = run_servers(
            database, sides[1].phones, sides[1].free, sides[1].database_cpu_s, rounds=rounds, each=EACH, console=console
        )
    return Result(name="store", title="SQLite and PostgreSQL", rows=(*rows_of(sides), *servers))


def size_of(cluster: Cluster, address: str) -> int:
    """Bytes of a database's tables and indexes, the log the cluster writes ahead not among them."""
    name = address.rpartition("/")[2]
    return int(cluster.psql(f"SELECT pg_database_size('{name}')"))


def cpu_of(cluster: Cluster) -> float:
    """CPU-seconds of all processes of a cluster so far, user and system, also of sessions that have ended."""
    main = psutil.Process(int((cluster.data / "postmaster.pid").read_text().split()[0]))
    while True:  # a session that ends in between would be counted twice or not at all
        children = main.children()
        try:
            times = [child.cpu_times() for child in children]
        except psutil.NoSuchProcess:
            continue
        own = main.cpu_times()
        if main.children() == children:
            ended_s = float(own.user + own.system + own.children_user + own.children_system)
            return ended_s + sum(float(one.user + one.system) for one in times)


def side_of(name: str, place: Site, database_cpu_s: Callable[[], float], size_bytes: Callable[[], int]) -> Side:
    """Phones enrolled, the roster's orders carried out, and the server ended, so that its files are whole."""
    phones = [place.enrol(seed=seed) for seed in range(PHONES)]
    time.sleep(IDLE_S)
    place.stop()
    return Side(name, place, database_cpu_s, size_bytes, phones, registers(place))


def push_round(side: Side, console: Console) -> None:
    """One round of pushes on kept connections; the first of a side follows a warm-up."""
    if not side.push:
        uvloop.run(measured(side.place, sign(side.phones, side.free, EACH, console), fresh=False))
    lines = sign(side.phones, side.free, EACH, console)
    before_s = side.database_cpu_s()
    used_s, _, total = uvloop.run(measured(side.place, lines, fresh=False))
    side.push.append(used_s / total * 1e3)
    side.push_database.append((side.database_cpu_s() - before_s) / total * 1e3)
    console.print(f"{side.name}: push {side.push[-1]:.3f} + {side.push_database[-1]:.3f} CPU-s / 1,000")


def settle_all(side: Side) -> None:
    """Settle what the rounds left and end the server; what a start with nothing to do uses is taken off."""
    side.commits = commits_of([side.place])
    waiting = side.place.metrics()["hudur_consumer_lag_offsets"]
    used = []
    for _ in range(2):
        before_s = side.database_cpu_s()
        side.place.restart(settle=True)
        side.place.wait_settled()
        time.sleep(IDLE_S)
        used.append((side.place.cpu_s(), side.database_cpu_s() - before_s))
    side.place.stop()
    side.settle, side.settle_database = ((used[0][at] - used[1][at]) / waiting * 1e3 for at in range(2))


def rows_of(sides: Sequence[Side]) -> list[Row]:
    """CPU of the server and of the database's own processes for each store, and the ratios where there are two."""
    rows = []
    totals: dict[str, list[float]] = {"push": [], "settle": []}
    for side in sides:
        push, push_database = (sum(part) / len(part) for part in (side.push, side.push_database))
        for what, server, database in (("push", push, push_database), ("settle", side.settle, side.settle_database)):
            rows += [
                Row(name=f"{what}: server", value=server, unit="CPU-s / 1,000", group=side.name),
                Row(name=f"{what}: database's own processes", value=database, unit="CPU-s / 1,000", group=side.name),
            ]
            totals[what].append(server + database)
        rows += commit_rows(side)
    first = totals["push"][0], totals["settle"][0]
    for at, side in enumerate(sides[1:], start=1):
        for (what, both), base in zip(totals.items(), first, strict=True):
            rows.append(Row(name=f"{what}: {side.name} over {sides[0].name}", value=both[at] / base, unit="×",
                            group=RATIO))  # fmt: skip
    return rows


def commit_rows(side: Side) -> list[Row]:
    """Of the rounds of pushes: what one commit held and how long; and the store's size."""
    held, commits, taken_s = (side.commits[name] for name in (PUSHES, COMMITS, COMMIT_S))
    return [
        Row(name="pushes in one commit, mean", value=held / commits, unit="pushes", group=side.name),
        Row(name="a commit, mean", value=taken_s / commits * 1e3, unit="ms", group=side.name),
        Row(name=f"a commit of {BATCH} while the server does nothing else, median", value=side.hold_ms, unit="ms",
            group=side.name),
        Row(name="pushes per second of commit time", value=held / taken_s, unit="1/s", group=side.name),
        Row(name="disk for a register", value=side.register_bytes, unit="bytes", group=side.name),
    ]  # fmt: skip
