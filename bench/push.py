"""CPU of the server per 1,000 one-register pushes: signature verified, strictly parsed, fsynced, receipt signed.

Then the latency under an open load of 25, 50 and 80 % of the capacity just measured, and where each microsecond of a
push goes (`bench.pieces`).
"""

from __future__ import annotations

import asyncio
import itertools
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

import uvloop
from rich.console import Console

from bench.load import PHONES, Connection, Line, OpenLoad, converse, head_of, measured, open_load, registers, sign
from bench.pieces import an_answer, commit_us, floor_pieces, http_us, own_pieces, whole_us
from bench.results import Chart, Goal, Result, Row
from bench.site import Phone, Site, site
from clientcore.exchange import read_answer, write_sync
from clientcore.keys import SigningKey

SHARES = (0.25, 0.5, 0.8)
GOAL = Goal(limit=0.30)
CPU, LATENCY, PIECES, COMMITS, FLOOR = (
    "CPU of the server",
    "latency under an open load",
    "where one push goes",
    "the group commit by its size",
    "the floor",
)
COMMIT_SIZES = (1, 5, 15, 40, 128)


def run(*, quick: bool, console: Console) -> Result:
    """Measure everything about one push."""
    each, rounds, open_s = (25, 1, 2.0) if quick else (75, 3, 6.0)
    with site(phones=PHONES, settle=False) as place:
        free = registers(place)
        phones = [place.enrol(seed=seed) for seed in range(PHONES)]
        kept, fresh, per_s = closed_rounds(place, phones, free, each, rounds, console)
        talking = converse_cpu(place, phones, free, each)
        batch = commit_batch(place)
        rows = [
            Row(name="connections kept", value=kept, unit="CPU-s / 1,000", goal=GOAL, group=CPU),
            Row(name="a fresh connection for each", value=fresh, unit="CPU-s / 1,000", goal=GOAL, group=CPU),
            Row(
                name="connections kept, each answer pulls too",
                value=talking,
                unit="CPU-s / 1,000",
                group=CPU,
                note="the phone sends its last nonce, so what it lacks comes back with the receipt",
            ),
            Row(name="pushes in one commit, mean", value=batch, unit="pushes", group=CPU),
        ]
        loads = open_rounds(place, phones, free, per_s, open_s, console)
        lines = sign(phones, free, max(each, 25), console)
        pieces = piece_rows(place, phones[0], lines, round(batch), kept * 1e3, console)
    return Result(
        name="push",
        title="Push of one register of 40",
        rows=(*rows, *latency_rows(loads, per_s), *pieces),
        charts=(latency_chart(loads), pieces_chart(pieces)),
    )


def closed_rounds(
    place: Site,
    phones: Sequence[Phone],
    free: Iterator[tuple[str, list[str]]],
    each: int,
    rounds: int,
    console: Console,
) -> tuple[float, float, float]:
    """CPU-s per 1,000 with connections kept and fresh (in turns, after a warm-up), and pushes/s of the fresh ones."""
    used: dict[bool, float] = {False: 0, True: 0}
    pushes = 0
    rates = []
    uvloop.run(measured(place, sign(phones, free, 25, console), fresh=False))
    for number, fresh in itertools.product(range(rounds), (False, True)):
        lines = sign(phones, free, each, console)
        used_s, elapsed_s, total = uvloop.run(measured(place, lines, fresh=fresh))
        used[fresh] += used_s
        pushes += total
        if fresh:
            rates.append(total / elapsed_s)
        console.print(f"round {number + 1} of {rounds}, {'fresh' if fresh else 'kept'}: {used_s / total * 1e3:.3f}")
    return used[False] / pushes * 2e3, used[True] / pushes * 2e3, max(rates)


def converse_cpu(place: Site, phones: Sequence[Phone], free: Iterator[tuple[str, list[str]]], each: int) -> float:
    """CPU-s per 1,000 pushes that pull as well."""
    uvloop.run(catch_up(place, phones))
    return uvloop.run(converse(place, phones, free, each)) / (each * len(phones)) * 1e3


async def catch_up(place: Site, phones: Sequence[Phone]) -> None:
    """A greeting of each phone: the last nonce is needed for a pull, and pushes made beforehand did not keep it."""
    connection = Connection(place.port, fresh=False)
    for phone in phones:
        body = write_sync([phone.frame([]).raw])
        _, answer = await connection.post(head_of(body), body)
        phone.nonce = read_answer(answer, server_key=phone.enrolled.server_key, request=body).answer.nonce
    await connection.close()


def commit_batch(place: Site) -> float:
    """Pushes in one commit, the mean since the server started."""
    told = place.metrics()
    return told["hudur_commit_batch_size_sum"] / told["hudur_commit_batch_size_count"]


# ---- latency ----------------------------------------------------------------------------------------------------


def open_rounds(
    place: Site, phones: Sequence[Phone], free: Iterator[tuple[str, list[str]]], per_s: float, open_s: float,
    console: Console,
) -> dict[float, OpenLoad]:  # fmt: skip
    """An open-loop round at each share of `per_s`."""
    found = {}
    for share in SHARES:
        rate = per_s * share
        lines = sign(phones, free, round(rate * open_s / len(phones)) + 1, console)
        mixed: Line = [push for turn in zip(*lines, strict=True) for push in turn]
        found[share] = uvloop.run(open_load(place, mixed, per_s=rate, seed=round(share * 100)))
        console.print(f"open load, {share:.0%} = {rate:,.0f}/s: p99 {found[share].quantile_ms(0.99):.1f} ms")
    return found


def latency_rows(loads: dict[float, OpenLoad], per_s: float) -> list[Row]:
    """p50, p95 and p99 at each load; the load itself is a rate of this machine and stands in the name's note."""
    rows = [
        Row(name=f"p{round(share * 100)} at {load:.0%}", value=found.quantile_ms(share), unit="ms", group=LATENCY,
            note=f"{per_s * load:,.0f} pushes/s planned, {len(found.latencies_ms):,} answered, {found.refused} shed")
        for load, found in loads.items() for share in (0.5, 0.95, 0.99)
    ]  # fmt: skip
    shed = sum(found.refused for found in loads.values())
    return [*rows, Row(name="pushes answered other than 200", value=shed, unit="", goal=Goal(limit=0), group=LATENCY)]


def latency_chart(loads: dict[float, OpenLoad]) -> Chart:
    """The quantiles over the load."""
    lines = {f"p{round(q * 100)}": tuple(one.quantile_ms(q) for one in loads.values()) for q in (0.5, 0.95, 0.99)}
    return Chart(name="push-latency", title="Latency of a push over the load", unit="ms", lines=lines,
                 x=tuple(f"{load:.0%}" for load in loads), logarithmic=True)  # fmt: skip


# ---- microseconds -----------------------------------------------------------------------------------------------


def piece_rows(
    place: Site, phone: Phone, lines: Sequence[Line], batch: int, whole_us_kept: float, console: Console
) -> list[Row]:
    """The pieces of one push, what they leave unexplained, and the floor."""
    console.print("the pieces of one push")
    bodies = [body for body, _, _ in lines[0]]
    public, server_key = phone.key.public, SigningKey.generate()
    answer = an_answer(bodies[0])
    own = own_pieces(bodies, public_key=public, key=server_key, answer=answer)
    size = 182
    http = {(kind, fresh): http_us(kind, lines, fresh=fresh, answer_bytes=size)
            for kind, fresh in itertools.product(("asgi", "protocol"), (False, True))}  # fmt: skip
    place.stop()
    everything = [body for line in lines for body, _, _ in line]
    own["group commit, hand-over included"] = asyncio.run(commit_us(copy_of(place, "a"), everything, max(batch, 1)))
    own["HTTP on a kept connection (uvicorn, httptools, ASGI)"] = http["asgi", False]
    counted = sum(us for name, us in own.items() if "not in the sum" not in name)
    without_socket = uvloop.run(whole_us(copy_of(place, "b"), lines)) + http["asgi", False]
    own["routing, entrance, quotas, metrics, futures"] = without_socket - counted
    own["what remains: sockets and SQLite's thread share one interpreter"] = whole_us_kept - without_socket
    rows = [Row(name=name, value=us, unit="µs", group=PIECES) for name, us in own.items()]
    rows.append(Row(name="all of a push on a kept connection", value=whole_us_kept, unit="µs", group=PIECES))
    rows.append(Row(name="a connection of its own: accept, close", value=http["asgi", True] - http["asgi", False],
                    unit="µs more", group=PIECES))  # fmt: skip
    rows += commit_rows(place, everything)
    floor = floor_pieces(bodies, everything, public_key=public, batch=max(batch, 1))
    floor["HTTP on a kept connection (bare protocol)"] = http["protocol", False]
    rows += [Row(name=name, value=us, unit="µs", group=FLOOR) for name, us in floor.items()]
    rows.append(Row(name="the floor of a push", value=sum(floor.values()), unit="µs", group=FLOOR))
    rows.append(Row(name="a push over its floor", value=whole_us_kept / sum(floor.values()), unit="×", group=FLOOR))
    return rows


def commit_rows(place: Site, bodies: Sequence[bytes]) -> list[Row]:
    """What one push of a group commit costs, by how many share it."""
    return [
        Row(name=f"{size} in a commit", unit="µs a push", group=COMMITS,
            value=asyncio.run(commit_us(copy_of(place, f"commit-{size}"), bodies[: max(400, 20 * size)], size)))
        for size in COMMIT_SIZES
    ]  # fmt: skip


def copy_of(place: Site, name: str) -> Path:
    """The store of a stopped server, copied, so that the same pushes are new to it once more."""
    folder = place.folder / name
    folder.mkdir()
    for path in place.folder.glob("store.db*"):
        shutil.copy(path, folder / path.name)
    return folder / "store.db"


def pieces_chart(rows: Sequence[Row]) -> Chart:
    """The pieces as bars."""
    shown = [row for row in rows if row.group == PIECES and row.unit == "µs" and "not in the sum" not in row.name]
    return Chart(name="push-pieces", title="Where one push goes", unit="µs", kind="bar",
                 x=tuple(row.name for row in shown), lines={"µs": tuple(row.value for row in shown)})  # fmt: skip
