"""One and two servers on one PostgreSQL: the same phones, all at one server or half at each, in turns within one run.

Pushes per second are for orientation: servers, database and load share the cores of one machine. CPU, and how long a
commit takes with the wait for its lane in it, say what a second server costs the first one.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterator, Sequence

import uvloop
from rich.console import Console

from bench.load import Connection, Line, durable_in, sign
from bench.results import Row
from bench.site import Phone, Site

SERVERS = "servers"
COMMITS, COMMIT_S, PUSHES = "hudur_commit_seconds_count", "hudur_commit_seconds_sum", "hudur_commit_batch_size_sum"
CPU_S, DATABASE_S, ELAPSED_S = "cpu", "database", "elapsed"


def run_servers(
    place: Site,
    phones: Sequence[Phone],
    free: Iterator[tuple[str, list[str]]],
    database_cpu_s: Callable[[], float],
    *,
    rounds: int,
    each: int,
    console: Console,
) -> list[Row]:
    """Measure both in turns, after a warm-up of each; the site's server must not settle."""
    with place.another(settle=False) as second:
        groups = ((place,), (place, second))
        sums: list[Counter[str]] = [Counter(), Counter()]
        for number in range(rounds + 1):
            for places, total in zip(groups, sums, strict=True):
                found = one_round(places, sign(phones, free, each, console), database_cpu_s)
                if number:
                    total.update(found)
                    console.print(f"{len(places)} servers: {found[PUSHES] / found[ELAPSED_S]:.0f} pushes/s")
    return rows_of(*sums)


def commits_of(places: Sequence[Site]) -> Counter[str]:
    """Commits of the intake so far, what they held, and the seconds they took."""
    found: Counter[str] = Counter()
    for place in places:
        told = place.metrics()
        found.update({name: told[name] for name in (COMMITS, COMMIT_S, PUSHES)})
    return found


def one_round(places: Sequence[Site], lines: Sequence[Line], database_cpu_s: Callable[[], float]) -> Counter[str]:
    """What one round used: CPU of the servers and of the database, elapsed seconds, commits."""
    before = commits_of(places)
    before.update({CPU_S: sum(place.cpu_s() for place in places), DATABASE_S: database_cpu_s()})
    elapsed_s = uvloop.run(send(places, lines))
    after = commits_of(places)
    after.update({CPU_S: sum(place.cpu_s() for place in places), DATABASE_S: database_cpu_s()})
    after.subtract(before)
    return after + Counter({ELAPSED_S: elapsed_s})


async def send(places: Sequence[Site], lines: Sequence[Line]) -> float:
    """All phones at once, each at its own server; the answers are verified after the time was taken."""
    answers: list[tuple[bytes, bytes, bytes]] = []

    async def one(port: int, line: Line) -> None:
        connection = Connection(port, fresh=False)
        for body, head, server_key in line:
            status, answer = await connection.post(head, body)
            if status != 200:
                raise SystemExit(f"answered {status}: {answer[:300]!r}")
            answers.append((body, answer, server_key))
        await connection.close()

    loop = asyncio.get_running_loop()
    began_s = loop.time()
    await asyncio.gather(*(one(places[at % len(places)].port, line) for at, line in enumerate(lines)))
    elapsed_s = loop.time() - began_s
    durable = sum(durable_in(answer, server_key=key, request=body) for body, answer, key in answers)
    if durable != len(answers):
        raise SystemExit(f"only {durable} of {len(answers)} pushes became durable")
    return elapsed_s


def rows_of(one: Counter[str], two: Counter[str]) -> list[Row]:
    """Both beside each other, and their ratios."""
    rows = []
    for name, found in (("one server", one), ("two servers", two)):
        pushes = found[PUSHES]
        rows += [
            Row(name=f"{name}: servers", value=found[CPU_S] / pushes * 1e3, unit="CPU-s / 1,000", group=SERVERS),
            Row(name=f"{name}: database", value=found[DATABASE_S] / pushes * 1e3, unit="CPU-s / 1,000", group=SERVERS),
            Row(name=f"{name}: pushes in one commit, mean", value=pushes / found[COMMITS], unit="pushes",
                group=SERVERS),
            Row(name=f"{name}: a commit, waits for its lane in it, mean", value=found[COMMIT_S] / found[COMMITS] * 1e3,
                unit="ms", group=SERVERS),
        ]  # fmt: skip
    rates = [found[PUSHES] / found[ELAPSED_S] for found in (one, two)]
    used = [(found[CPU_S] + found[DATABASE_S]) / found[PUSHES] for found in (one, two)]
    return [
        *rows,
        Row(name="pushes per second, two over one", value=rates[1] / rates[0], unit="×", group=SERVERS),
        Row(name="CPU of a push, two over one", value=used[1] / used[0], unit="×", group=SERVERS),
    ]
