"""The whole morning: sign, lay the ground, measure the capacity, send the morning, overload, prove."""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import shutil
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime
from multiprocessing import get_context
from pathlib import Path
from zoneinfo import ZoneInfo

from rich.console import Console

from bench.morning import plan
from bench.morning.client import Load
from bench.morning.door import crowd
from bench.morning.frames import Jobs, parts_in, read_jobs, write_part
from bench.morning.ground import add_phones, make_roster
from bench.morning.plan import PHONES_PER_SCHOOL, Phase, Size
from bench.morning.proof import prove
from bench.morning.report import Capacity, Findings, Stage, to_result
from bench.morning.slow import drips
from bench.morning.sockets import raise_file_limit
from bench.morning.tally import Tally
from bench.morning.watch import Watch, Watched, read_metrics, served
from bench.results import Result, about_run, show, write_result

SESSIONS = 480_000
CAPACITY_SHARE, CAPACITY_MIN, CAPACITY_MAX = 0.1, 3_000, 24_000  # half of them alone, half beside a crowd
OVERLOAD_SHARE = 0.30
OVERLOAD_FACTOR = 3.0
PEAK_OF_CAPACITY = 0.75
LANES = 256
_SCHOOLS_PER_PART = 24
_DRIPS = 4_096
_BYTES_PER_REGISTER = 3_500  # on disk: a frame ready to send, and what the store keeps of it; measured 3.1 kB
_LIMIT_S = 1_800.0


@dataclass(slots=True)
class Wish:
    """What a caller wants.

    Attributes:
        sessions: Device sessions of the morning.
        over_s: What the 45 minutes become; None: as the capacity allows.
        peak: Rate at the peak as a part of the capacity.
        overload: Further sessions at three times the capacity, as a part of `sessions`.
        folder: Where the temporary folder is made.
        patience: Factor on what phones wait of themselves; 1 but in tests.
        capacity: Sessions that measure the capacity; None: a part of `sessions`.
    """

    sessions: int = SESSIONS
    over_s: float | None = None
    peak: float = PEAK_OF_CAPACITY
    overload: float = OVERLOAD_SHARE
    seed: int = 1
    folder: Path | None = None
    patience: float = 1.0
    capacity: int | None = None

    def size(self) -> Size:
        """The counts and the day that follow."""
        on, tapped_ms = plan.school_day(datetime.now(ZoneInfo("Africa/Cairo")))
        capacity = self.capacity or min(CAPACITY_MAX, max(CAPACITY_MIN, int(self.sessions * CAPACITY_SHARE)))
        return Size(
            sessions=self.sessions,
            capacity_sessions=capacity,
            overload_sessions=int(self.sessions * self.overload),
            on=on,
            tapped_ms=tapped_ms,
            seed=self.seed,
        )


def whole(wish: Wish, console: Console) -> Findings:
    """Everything, in a temporary folder that is gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="hudur-morning-", dir=wish.folder) as name:
        return whole_in(Path(name), wish, console)


def whole_in(folder: Path, wish: Wish, console: Console) -> Findings:
    """Everything, in an empty folder: `store.db` is the server's, the rest what was sent."""
    size, store = wish.size(), folder / "store.db"
    registers = size.sessions * 1.15 + size.overload_sessions + size.capacity_sessions
    if shutil.disk_usage(folder).free < registers * _BYTES_PER_REGISTER:
        raise SystemExit(f"{registers * _BYTES_PER_REGISTER / 1e9:.1f} GB are needed in {folder.parent}")
    raise_file_limit()  # before the server starts: it holds a connection for every slow phone
    began_s = time.monotonic()
    key = prepare(store, folder, size, console)
    console.print(f"prepared in {time.monotonic() - began_s:.0f} s")
    jobs, patience = read_jobs(folder), wish.patience
    table = drips(_DRIPS, seed=wish.seed, bytes_sent=900, patience=patience)
    with (
        served(store) as server,
        closing(
            Load(server.port, folder, jobs, server_key=key, drips=table, seed=wish.seed, patience=patience)
        ) as load,
    ):
        findings = drive(wish, size, server, load, jobs, console)
    findings.store_mb = sum(file.stat().st_size for file in folder.glob("store.db*")) / 1e6
    console.print("comparing every register with what was sent …")
    findings.proof, findings.different = prove(store, folder, size)
    return findings


def prepare(store: Path, folder: Path, size: Size, console: Console) -> bytes:
    """Rosters, signed requests, phones; returns the server's key."""
    cursors, key = asyncio.run(make_roster(store, size))
    ranges = [range(at, min(at + _SCHOOLS_PER_PART, size.schools)) for at in range(0, size.schools, _SCHOOLS_PER_PART)]
    with ProcessPoolExecutor(os.cpu_count(), mp_context=get_context("spawn")) as pool:
        parts = [pool.submit(write_part, size, part, some, folder, cursors) for part, some in enumerate(ranges)]
        for number, _ in enumerate(as_completed(parts), 1):
            console.print(f"signed {number} of {len(parts)} parts")
        requests = sum(part.result() for part in parts)
    phones = asyncio.run(add_phones(store, parts_in(folder)))
    console.print(f"{size.schools} schools, {phones:,} phones, {requests:,} requests signed")
    return key


# ---- the three stages ------------------------------------------------------------------------------------------


def drive(wish: Wish, size: Size, server: Watched, load: Load, jobs: Jobs, console: Console) -> Findings:
    """Capacity, morning, overload against a running server."""
    chance = random.Random(f"{wish.seed} order")
    order = jobs.of(Phase.CAPACITY)
    chance.shuffle(order)
    capacity = measure_capacity(server, load, order, console)
    over_s = wish.over_s or plan.length_s(
        jobs.registers(Phase.MORNING),
        capacity_per_s=capacity.per_s,
        at_share=wish.peak,
        push_s=capacity.push_s,
        settle_s=capacity.settle_s,
    )
    console.print(f"{capacity}; the 45 minutes become {over_s:.0f} s, {plan.MORNING_S / over_s:.1f} times as fast")
    order = jobs.of(Phase.MORNING)
    chance.shuffle(order)
    times = [share * over_s for share in plan.arrivals(len(order), chance)]
    morning = _stage("morning", server, load, list(zip(times, order, strict=True)), over_s, console)
    order = jobs.of(Phase.OVERLOAD)
    chance.shuffle(order)
    rate = OVERLOAD_FACTOR * capacity.per_s  # of first requests, one register each; backlogs come on top of them
    overload = _stage(
        "overload", server, load, [(at / rate, job) for at, job in enumerate(order)], len(order) / rate, console
    )
    return Findings(size=size, capacity=capacity, morning=morning, overload=overload)


def measure_capacity(server: Watched, load: Load, jobs: Sequence[int], console: Console) -> Capacity:
    """Lanes that each wait for their answer, settling at work beside them; then what is left is settled alone.

    Then once more while a crowd knocks at another door, as many as three times the capacity are too many here.
    """
    watch, half = Watch(server, load.look), len(jobs) // 2
    _, began_cpu_s = server.usage()
    tally, per_s = _in_lanes("capacity", watch, load, jobs[:half], console)
    _, pushed_cpu_s = server.usage()
    settled = _settled(load)
    _settle_rest(watch, load, console)
    _, ended_cpu_s = server.usage()
    with crowd((OVERLOAD_FACTOR - 1) * per_s) as answered:
        beside, beside_per_s = _in_lanes("capacity beside a crowd", watch, load, jobs[half:], console)
    _settle_rest(watch, load, console)
    registers = tally.counts["durable"]
    alone = registers - settled
    total_cpu_s = ended_cpu_s - began_cpu_s
    settle_s = (ended_cpu_s - pushed_cpu_s) / alone if alone > registers / 4 else total_cpu_s / registers * 0.7
    return Capacity(
        per_s=per_s,
        beside_per_s=beside_per_s,
        knocked_per_s=answered[0],
        push_s=max(1e-4, (pushed_cpu_s - began_cpu_s - settle_s * settled) / registers),
        settle_s=settle_s,
        tallies=(tally, beside),
    )


def _in_lanes(name: str, watch: Watch, load: Load, jobs: Sequence[int], console: Console) -> tuple[Tally, float]:
    """What came of it, and registers accepted per second once all lanes are at it."""
    tally = load.run(
        [(0.0, job) for job in jobs[:LANES]],
        lanes=jobs[LANES:],
        tick=_ticker(name, watch, load, console),
        limit_s=_LIMIT_S,
    )
    done_s = tally.done_s()
    first, last = done_s[len(done_s) // 4], done_s[-1]
    return tally, tally.registers_between(first, last) / (last - first)


def _settle_rest(watch: Watch, load: Load, console: Console) -> None:
    load.run(
        [],
        tick=_ticker("settling", watch, load, console),
        limit_s=_LIMIT_S,
        is_over=lambda: watch.is_settled(load.answered_s),
    )


def _settled(load: Load) -> float:
    """Registers settled so far, by the server's metrics."""
    told: list[bytes] = []
    load.run(
        [],
        tick=lambda _: None if told else load.look("/metrics", told.append),
        limit_s=30,
        is_over=lambda: bool(told),
    )
    return read_metrics(told[0]).get("hudur_settled_registers_total", 0.0) if told else 0.0


def _stage(
    name: str, server: Watched, load: Load, schedule: list[tuple[float, int]], over_s: float, console: Console
) -> Stage:
    watch = Watch(server, load.look)
    cpu_s, own_s = server.usage()[1], time.process_time()
    tally = load.run(
        schedule,
        tick=_ticker(name, watch, load, console),
        limit_s=over_s + _LIMIT_S,
        confirms=True,
        is_over=lambda: watch.is_settled(load.answered_s),
    )
    return Stage(
        name=name,
        over_s=over_s,
        sessions=len(schedule),
        tally=tally,
        watch=watch,
        server_cpu_s=server.usage()[1] - cpu_s,
        load_cpu_s=time.process_time() - own_s,
    )


def _ticker(name: str, watch: Watch, load: Load, console: Console) -> Callable[[float], None]:
    before: dict[str, int] = {}

    def tick(at_s: float) -> None:
        sample = watch.sample(at_s)
        tally: Tally = load.tally
        now = {word: tally.counts[word] for word in ("tries", "accepted", "shed")}
        now["failed"] = sum(count for word, count in tally.counts.items() if word.startswith("failed"))
        for word, value in now.items():
            setattr(sample, word, value - before.get(word, 0))
        before.update(now)
        sample.open = load.open
        lag = watch.lag
        console.print(
            f"{name} {at_s:5.0f} s  {sample.tries:6,} tries  {sample.accepted:6,} accepted  {sample.shed:6,} shed  "
            f"{sample.failed:5,} failed  {sample.open:6,} open  {load.waiting:8,} waiting  "
            f"lag {'?' if lag is None else f'{lag[0]:,.0f} / {lag[1]:.1f} s'}  {sample.rss_mb:.0f} MB",
            highlight=False,
        )

    return tick


# ---- entry points ------------------------------------------------------------------------------------------------


def run_whole(*, quick: bool, console: Console) -> Result:
    """For `python -m bench morning`."""
    return to_result(whole(Wish(sessions=PHONES_PER_SCHOOL * 20 if quick else SESSIONS), console))


def main(words: Sequence[str]) -> int:
    """For `python -m bench.morning`; 1 when a register was lost or anything else is not as it was sent."""
    arguments = argparse.ArgumentParser(prog="python -m bench.morning", description=__doc__)
    arguments.add_argument("--sessions", type=int, default=SESSIONS, help=f"device sessions [{SESSIONS}]")
    arguments.add_argument(
        "--compress", default="auto", help="seconds that the 45 minutes become; auto: as the measured capacity allows"
    )
    arguments.add_argument(
        "--peak", type=float, default=PEAK_OF_CAPACITY, help="part of the capacity at the peak [0.75]"
    )
    arguments.add_argument(
        "--overload",
        type=float,
        default=OVERLOAD_SHARE,
        help="further sessions at three times the capacity, as a part of the others [0.3]",
    )
    arguments.add_argument("--capacity", type=int, help="sessions that measure the capacity [a tenth of the others]")
    arguments.add_argument("--seed", type=int, default=1)
    arguments.add_argument("--folder", type=Path, help="where the temporary folder is made")
    arguments.add_argument("--store-result", action="store_true", help="write bench/results/morning.json")
    given = arguments.parse_args(words)
    console = Console(width=170)
    wish = Wish(
        sessions=given.sessions,
        over_s=None if given.compress == "auto" else float(given.compress),
        peak=given.peak,
        overload=given.overload,
        capacity=given.capacity,
        seed=given.seed,
        folder=given.folder,
    )
    findings = whole(wish, console)
    result = to_result(findings)
    show(result, console)
    for line in findings.problems():
        console.print(line, highlight=False)
    if given.store_result:
        command = ["python", "-m", "bench.morning", *words]
        console.print(f"stored in {write_result(result, about_run(command))}")
    return 1 if findings.problems() else 0
