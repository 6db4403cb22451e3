"""The settle stage, seen from outside: CPU, lag while pushes come, memory as registers pile up, and disk by table.

The server is a process of its own throughout. CPU: pushes go to a server that does not settle, then one that does is
started on the same store; what it used until nothing waits is the figure, less what a start uses on a settled store.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path

import apsw
import uvloop
from rich.console import Console

from bench.load import PHONES, Line, measured, open_load, registers, sign
from bench.results import Chart, Goal, Result, Row
from bench.site import Phone, Site, site

CPU, LAG, MEMORY, DISK = "CPU", "lag", "memory of the server", "disk"
LOG_SIDE = ("frames", "changes")
WARM_REGISTERS = 2_000
IDLE_S = 1.0


def run(*, quick: bool, console: Console) -> Result:
    """Measure the settle stage."""
    step = 1_000 if quick else 10_000
    with site(phones=PHONES, settle=True) as place:
        free = registers(place)
        phones = [place.enrol(seed=seed) for seed in range(PHONES)]
        time.sleep(IDLE_S)  # what the import of the roster has ordered is done before anything is measured
        place.restart(settle=False)
        cpu, per_s = settle_cpu(place, phones, free, 1_000 if quick else 4_000, console)
        lag, lag_chart = lag_while_pushed(place, phones, free, per_s / 2, 3.0 if quick else 10.0, console)
        memory, memory_chart = memory_growth(place, phones, free, step, console)
        place.stop()
        disk = disk_rows(place.store)
    return Result(
        name="settle",
        title="Settle",
        rows=(*cpu, *lag, *memory, *disk),
        charts=(lag_chart, memory_chart),
    )


def settle_cpu(
    place: Site, phones: Sequence[Phone], free: Iterator[tuple[str, list[str]]], count: int, console: Console
) -> tuple[list[Row], float]:
    """CPU of settling `count` registers, and pushes/s without settling; the server settles afterwards."""
    lines = sign(phones, free, count // PHONES, console)
    _, elapsed_s, pushed = uvloop.run(measured(place, lines, fresh=True))
    place.restart(settle=True)
    place.wait_settled()
    time.sleep(IDLE_S)
    used_s, registers_settled = place.cpu_s(), place.metrics()["hudur_settled_registers_total"]
    place.restart(settle=True)
    place.wait_settled()
    time.sleep(IDLE_S)
    start_s = place.cpu_s()
    if registers_settled != pushed:
        raise SystemExit(f"{registers_settled} of {pushed} registers were settled")
    console.print(f"settled {pushed:,} registers")
    each = (used_s - start_s) / pushed * 1e3
    return [
        Row(name="registers of 40, log to stored events", value=each, unit="CPU-s / 1,000", goal=Goal(limit=1.0),
            group=CPU),
    ], pushed / elapsed_s  # fmt: skip


def lag_while_pushed(
    place: Site, phones: Sequence[Phone], free: Iterator[tuple[str, list[str]]], per_s: float, push_s: float,
    console: Console,
) -> tuple[list[Row], Chart]:  # fmt: skip
    """The consumer's lag while pushes come at half of what intake alone carries, and the time until it caught up."""
    lines = sign(phones, free, int(per_s * push_s / PHONES) + 1, console)
    mixed: Line = [push for turn in zip(*lines, strict=True) for push in turn]
    load = uvloop.run(open_load(place, mixed, per_s=per_s, seed=50))
    at_end = place.metrics()["hudur_consumer_lag_seconds"]
    began_s, series = time.monotonic(), [at_end]
    while series[-1] > 0 and time.monotonic() - began_s < 120:
        time.sleep(1)
        series.append(place.metrics()["hudur_consumer_lag_seconds"])
    under = next((second for second, lag_s in enumerate(series) if lag_s < 5), None)
    console.print(f"lag {at_end:.1f} s after {push_s:.0f} s at {per_s:,.0f}/s; caught up in {len(series) - 1} s")
    note = f"{per_s:,.0f} pushes/s planned for {push_s:.0f} s in the process that settles too; {load.refused} shed"
    rows = [
        Row(name="lag when the pushes end", value=at_end, unit="s", group=LAG, note=note),
        Row(name="until lag is under 5 s", value=under if under is not None else 120, unit="s", goal=Goal(limit=120),
            group=LAG),
        Row(name="until nothing waits", value=len(series) - 1, unit="s", group=LAG),
        Row(name="p99 of a push meanwhile", value=load.quantile_ms(0.99), unit="ms", group=LAG),
    ]  # fmt: skip
    chart = Chart(name="settle-lag", title="Lag of the consumer after the pushes end", unit="s",
                  x=tuple(f"{second} s" for second in range(len(series))), lines={"lag": tuple(series)})  # fmt: skip
    return rows, chart


def memory_growth(
    place: Site, phones: Sequence[Phone], free: Iterator[tuple[str, list[str]]], step: int, console: Console
) -> tuple[list[Row], Chart]:
    """Resident memory of a fresh server after a warm-up and after each of two times `step` registers, settled."""
    place.restart(settle=True)
    sizes = []
    for count in (WARM_REGISTERS, step, step):
        for part in parts(count):
            uvloop.run(measured(place, sign(phones, free, part // PHONES, console), fresh=True))
        place.wait_settled()
        sizes.append(place.rss_bytes() / 1e6)
        console.print(f"memory after {count:,} more registers: {sizes[-1]:.1f} MB")
    scale = 10_000 / step
    rows = [
        Row(name=f"after {WARM_REGISTERS:,} registers", value=sizes[0], unit="MB", group=MEMORY),
        Row(name=f"after {step:,} more", value=sizes[1], unit="MB", group=MEMORY),
        Row(name=f"after {2 * step:,} more", value=sizes[2], unit="MB", group=MEMORY),
        Row(name="growth for 10,000 registers", value=(sizes[2] - sizes[1]) * scale, unit="MB", goal=Goal(limit=5),
            group=MEMORY, note="the second of the two steps: the first fills caches of fixed size"),
    ]  # fmt: skip
    x = tuple(f"{WARM_REGISTERS + step * number:,}" for number in range(3))
    return rows, Chart(name="settle-memory", title="Memory over registers", unit="MB", x=x, lines={"RSS": tuple(sizes)})


def parts(count: int) -> Iterator[int]:
    """`count` in parts of 2,000, so that few signed frames wait in memory."""
    return (min(2_000, count - at) for at in range(0, count, 2_000))


# ---- disk -------------------------------------------------------------------------------------------------------


def disk_rows(store: Path) -> list[Row]:
    """Bytes of each register, by table with its indexes; the server has stopped and the log is checkpointed."""
    connection = apsw.Connection(str(store), flags=apsw.SQLITE_OPEN_READONLY)
    try:
        total = dict(connection.execute("SELECT coalesce(t.tbl_name, d.name), sum(d.pgsize) FROM dbstat d "
                                        "LEFT JOIN sqlite_schema t ON t.name = d.name GROUP BY 1"))  # fmt: skip
        count = connection.execute(
            "SELECT count(*) FROM (SELECT DISTINCT school, class_id, date, session FROM changes)"
        )
        registers_stored = next(iter(count))[0]
    finally:
        connection.close()
    each = {table: size / registers_stored for table, size in total.items()}
    log_side = sum(each.get(table, 0) for table in LOG_SIDE)
    large = sorted((table for table in each if each[table] >= 10), key=lambda table: -each[table])
    rest = sum(size for table, size in each.items() if table not in large)
    return [
        Row(name="log and evidence", value=log_side, unit="B / register", goal=Goal(limit=1_300), group=DISK,
            note="frames and changes with their indexes"),
        Row(name="everything, outcome and 40 events included", value=sum(each.values()), unit="B / register",
            group=DISK, goal=Goal(limit=1_300), note="the goal counts all of it"),
        *(Row(name=f"table {table}", value=each[table], unit="B / register", group=DISK) for table in islice(large, 8)),
        Row(name="other tables, the roster included", value=rest, unit="B / register", group=DISK),
    ]  # fmt: skip
