"""What was found as rows: one table for each figure, ours first."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from bench.peers.measure import Found
from bench.results import Chart, Goal, Result, Row

HEAVY = ("automerge", "pouchdb")
FAR, NEAR = Goal(limit=30, at_least=True), Goal(limit=4, at_least=True)
FSYNC = {True: "an fsync is behind the acknowledgement", False: "no fsync is behind it", None: "fsync: unknown"}


def result_of(found: Sequence[Found]) -> Result:
    """All figures of a run."""
    rows = [
        *_rows("CPU of the server", "CPU-s / 1,000 first pushes", found, lambda one: one.cpu_s_per_1000, _version),
        *ratios(found[1:]),
        *_rows("first push, both ways", "B", found, _both_first, _first),
        *_rows("three corrections, both ways", "B", found, _both_later, _later),
        *_rows("round trips until it is complete", "", found, lambda one: one.trips, lambda one: one.complete),
        *_rows("memory of the server", "MB / 10,000", found, lambda one: one.memory_mb_per_10000, _grown),
        *_rows("disk after a clean stop", "B / register", found, lambda one: one.disk_bytes, _allocated),
        *_rows("acknowledged and lost under SIGKILL", "of 200", found, lambda one: one.lost_of_200, _ack),
    ]
    chart = Chart(
        name="peers-cpu",
        title="CPU of the server per 1,000 first pushes",
        unit="CPU-s",
        kind="bar",
        x=tuple(one.peer for one in found),
        lines={"CPU-s": tuple(one.cpu_s_per_1000 for one in found)},
        logarithmic=True,
    )
    return Result(name="peers", title="The same work against peers", rows=tuple(rows), charts=(chart,))


def ratios(peers: Sequence[Found]) -> list[Row]:
    """How many times our CPU each peer takes, and the cheapest of them."""
    group = "CPU of a peer over ours, same run"
    rows = [
        Row(name=one.peer, value=one.ratio, unit="×", group=group, goal=FAR if one.short in HEAVY else None)
        for one in peers
    ]
    cheapest = min(peers, key=lambda one: one.ratio)
    least = Row(name="the cheapest peer", value=cheapest.ratio, unit="×", group=group, goal=NEAR, note=cheapest.peer)
    return [*rows, least]


def _rows(
    group: str, unit: str, found: Sequence[Found], value: Callable[[Found], float], note: Callable[[Found], str]
) -> list[Row]:
    return [Row(name=one.peer, value=value(one), unit=unit, group=group, note=note(one)) for one in found]


def _version(one: Found) -> str:
    return one.version


def _both_first(one: Found) -> float:
    return one.bytes_up + one.bytes_down


def _both_later(one: Found) -> float:
    return one.corrections_up + one.corrections_down


def _first(one: Found) -> str:
    return f"{one.bytes_up:,} up, {one.bytes_down:,} down"


def _later(one: Found) -> str:
    return f"{one.corrections_up:,} up, {one.corrections_down:,} down"


def _grown(one: Found) -> str:
    return f"{one.memory_mb_grown:+,.1f} MB in {one.memory_pushes:,} pushes"


def _allocated(one: Found) -> str:
    return f"{one.disk_allocated_bytes:,.0f} B allocated"


def _ack(one: Found) -> str:
    return FSYNC[one.fsync_before_ack]
