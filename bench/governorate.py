"""Reports, parity and gate of a whole governorate by the real commands, every number computed a second time.

A store of one term is generated (`tests/support/governorate*.py`), the installed `hudur` is run on it as processes of
its own, and DuckDB counts the raw truth by its own SQL. Numbers that are not equal are listed and end the run with 1.

    python -m bench.governorate --schools 500          # 200,000 pupils
"""

from __future__ import annotations

import argparse
import csv
import io
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

from openpyxl import load_workbook
from rich.console import Console
from rich.table import Table

from bench import results
from tests.support.governorate import Size, class_name, district_name, school_name, size_before
from tests.support.governorate_check import Row, Second
from tests.support.governorate_store import write_store
from tests.support.governorate_wire import ZONE_NAME

HUDUR = Path(sysconfig.get_path("scripts"), "hudur")
WEEKS_AGO = 43  # the term begins so long before the week of today: it ends in May, and the long holidays follow
_IDS = ("district", "school", "class", "date", "session")
_DIFFERENCES_TOLD = 20
_LOOK_EVERY_S = 0.01


@dataclass(frozen=True, slots=True)
class Run:
    """One command that ran."""

    label: str
    wall_s: float
    cpu_s: float
    peak_mb: float
    out: bytes
    rows: int = 0


@dataclass(slots=True)
class Hudur:
    """Runs the installed command on one store and remembers what each run took."""

    store: Path
    runs: list[Run] = field(default_factory=list)

    def __call__(self, words: Sequence[str], label: str = "") -> Run:
        with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as errors:
            environment = {**os.environ, "HUDUR_STORE": f"sqlite:{self.store}", "HUDUR_ZONE": ZONE_NAME}
            began_s = time.monotonic()
            process = subprocess.Popen([HUDUR, *words], stdout=out, stderr=errors, env=environment)
            status, used, peak_mb = _ended(process.pid)
            wall_s = time.monotonic() - began_s
            process.returncode = os.waitstatus_to_exitcode(status)
            out.seek(0)
            errors.seek(0)
            if process.returncode:
                raise RuntimeError(f"hudur {' '.join(words)}: {process.returncode}: {errors.read().decode()[:500]}")
            run = Run(label, wall_s, used.ru_utime + used.ru_stime, peak_mb, out.read())
        self.runs.append(run)
        return run

    def counted(self, run: Run, rows: int) -> None:
        """Say how many rows the last run gave."""
        self.runs[-1] = Run(run.label, run.wall_s, run.cpu_s, run.peak_mb, run.out, rows)


def _ended(pid: int) -> tuple[int, resource.struct_rusage, float]:
    """Wait for a process; how it ended, what it used, and its greatest resident size.

    `ru_maxrss` of a child begins with the size of whoever started it, so the kernel's mark of the program itself is
    read as long as it runs.
    """
    status_file, peak_kb, ended = Path(f"/proc/{pid}/status"), 0, 0
    while not ended:
        lines = status_file.read_text().splitlines()
        peak_kb = next((int(line.split()[1]) for line in lines if line.startswith("VmHWM")), peak_kb)
        time.sleep(_LOOK_EVERY_S)
        ended, status, used = os.wait4(pid, os.WNOHANG)
    return status, used, peak_kb / 1024


# ---- reports -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Wish:
    """One report: `name` as the command takes it, `form` a format or `table` (`--json`)."""

    kind: str
    name: str
    period: str
    day: str
    form: str

    @property
    def about(self) -> dict[str, str]:
        """What it is about, by name."""
        if self.kind == "district":
            return {"district": self.name}
        return dict(zip(("school", "class"), self.name.split("/"), strict=False))


def wishes(size: Size) -> Iterator[Wish]:
    """All districts in one week, one in every week and day by day, some schools and classes; every format."""
    districts = sorted({district_name(number) for number in range(size.schools)})
    middle, forms = size.term_weeks[size.weeks // 2], ("json", "jsonl", "csv", "xlsx", "table")
    for number, district in enumerate(districts):
        yield Wish("district", district, "week", middle, forms[number % 5])
    for week in size.term_weeks:
        yield Wish("district", districts[-1], "week", week, "csv")
    holiday = next(first for first, _, reason, _ in size.holidays if reason == "eid")
    for day in (*size.open_days(size.term_weeks[1]), holiday):
        yield Wish("district", districts[0], "day", day, "jsonl")
    for number in {*range(min(5, size.schools)), size.schools - 1}:
        school, week = school_name(number), size.term_weeks[number % size.weeks]
        yield Wish("school", school, "week", week, forms[number % 5])
        yield Wish("school", school, "day", size.open_days(week)[0], forms[(number + 1) % 5])
        yield Wish("class", f"{school}/{class_name(0)}", "week", week, forms[(number + 2) % 5])
        yield Wish("class", school, "day", size.open_days(week)[-1], forms[(number + 3) % 5])


def read_report(data: bytes, form: str) -> tuple[list[Row], Row | None]:
    """The rows of a report in any format, and its total where the format has one; counts are numbers."""
    if form in ("json", "table"):
        found = json.loads(data)
        return [_plain(row) for row in found["rows"]], _plain(found["total"])
    if form == "jsonl":
        return [_plain(json.loads(line)) for line in data.splitlines()], None
    if form == "csv":
        return [_plain(row) for row in csv.DictReader(io.StringIO(data.decode(), newline=""))], None
    lines = list(load_workbook(io.BytesIO(data), read_only=True).worksheets[0].iter_rows(values_only=True))
    rows = [_plain(dict(zip(map(str, lines[2]), line, strict=True))) for line in lines[3:]]
    return rows[:-1], rows[-1]


def _plain(row: Mapping[str, Any]) -> Row:
    return {
        key: (value or None) if key in _IDS else None if value in (None, "") else float(value)
        for key, value in row.items()
    }


def check_report(hudur: Hudur, second: Second, wish: Wish) -> list[str]:
    """Run one report and compare every number of it."""
    words = ["report", wish.kind, wish.name, f"--{wish.period}", wish.day]
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "out")
        asked = ["--json"] if wish.form == "table" else ["--format", wish.form, "--out", str(file)]
        run = hudur([*words, *asked], f"report {wish.kind}, {wish.period}")
        rows, total = read_report(run.out if wish.form == "table" else file.read_bytes(), wish.form)
    hudur.counted(run, len(rows))
    wanted_rows, wanted_total = second.report(wish.kind, wish.period, wish.day, **wish.about)
    if len(rows) != len(wanted_rows):
        return [f"{wish}: {len(rows)} rows, not {len(wanted_rows)}"]
    pairs = [*zip(rows, wanted_rows, strict=True)] + ([] if total is None else [(total, wanted_total)])
    return [
        f"{wish}: {row.get('school')} {row.get('class')} {key}: {row.get(key)}, not {value}"
        for row, wanted in pairs
        for key, value in wanted.items()
        if row.get(key) != value
    ]


# ---- parity and gate ---------------------------------------------------------------------------------------------


def check_parity(hudur: Hudur, second: Second, size: Size, looked_at: Iterable[int]) -> list[str]:
    """Judge what is due; compare every verdict on every week, every gate, and of some schools what people are shown."""
    told = hudur(["parity", "--due", "--json"], "parity --due")
    judged = json.loads(told.out)["judged"]
    hudur.counted(told, len(judged))
    weeks = second.weeks()
    found = _unlike("verdicts", {(one["school"], one["week"]): one["status"] for one in judged},
                    {name: one["status"] for name, one in weeks.items()})  # fmt: skip
    every = hudur(["parity", "--all", "--json"], "parity --all")
    lines = [json.loads(line) for line in every.out.splitlines()]
    hudur.counted(every, len(lines))
    gates = second.gates()
    found += _unlike("gates", {one["school"]: (not one["paper"], one["weeks"]) for one in lines}, gates)
    for school in map(school_name, looked_at):
        view = hudur(["parity", school, "--json", "--week", size.term_weeks[1]], "parity SCHOOL")
        shown = json.loads(view.out)
        hudur.counted(view, len(shown["weeks"]))
        names = ("matched", "compared", "against", "covered", "expected", "excluded", "status")
        real = {one["week"]: {name: one[name] for name in names} for one in shown["weeks"] if one["judged_ms"]}
        found += _unlike(school, real, {week: one for (name, week), one in weeks.items() if name == school})
        registers = {one["register"]: (one["standing"], one["cells"], one["matched"]) for one in shown["registers"]}
        wanted = {one["register"]: (one["standing"], one["cells"], one["matched"])
                  for one in second.registers(school, size.term_weeks[1])}  # fmt: skip
        found += _unlike(f"registers of {school}", registers, wanted)
        gate = hudur(["gate", school, "--json"], "gate SCHOOL")
        stands = json.loads(gate.out)
        found += _unlike("gate", (not stands["paper"], stands["weeks"]), gates[school])
    return found


def check_stored(second: Second, store: Path) -> list[str]:
    """Compare the numbers of every verdict in the store, of all schools."""
    import sqlite3

    names = ("matched", "compared", "against", "covered", "expected", "excluded", "status")
    db = sqlite3.connect(f"file:{store}?mode=ro", uri=True)
    rows = db.execute(f"SELECT school, week, {', '.join(names)} FROM parity_weeks").fetchall()
    db.close()
    real = {(row[0], row[1]): dict(zip(names, row[2:], strict=True)) for row in rows}
    return _unlike("stored verdicts", real, second.weeks())


def _unlike(what: str, real: Any, wanted: Any) -> list[str]:
    """Where two values differ; mappings are compared key by key."""
    if not isinstance(real, dict):
        return [] if real == wanted else [f"{what}: {real}, not {wanted}"]
    return [
        f"{what} {key}: {real.get(key)}, not {wanted.get(key)}"
        for key in sorted(real.keys() | wanted.keys())
        if real.get(key) != wanted.get(key)
    ]


# ---- the whole ---------------------------------------------------------------------------------------------------


def second_of(size: Size, folder: Path) -> Second:
    """The second computation over all weeks that are due."""
    return Second(folder, size.first, size.last_due)


def check_all(size: Size, hudur: Hudur, second: Second, reports: Iterable[Wish], looked_at: Iterable[int]) -> list[str]:
    """Every comparison; returns the differences.

    Args:
        size: The governorate.
        hudur: Its store.
        second: The second computation.
        reports: What to ask.
        looked_at: Schools that are looked at one by one.
    """
    found = check_parity(hudur, second, size, looked_at) + check_stored(second, hudur.store)
    for wish in reports:
        found += check_report(hudur, second, wish)
    return found


def show(hudur: Hudur, title: str) -> Table:
    """One line for each kind of command: the median of the time, the most of the memory."""
    table = Table(title=title)
    for heading in ("command", "runs", "wall s", "CPU s", "peak MB", "rows"):
        table.add_column(heading, justify="left" if heading == "command" else "right")
    labels = dict.fromkeys(run.label for run in hudur.runs if run.label)
    for label in labels:
        runs = [run for run in hudur.runs if run.label == label]
        wall_s, cpu_s = (statistics.median(some) for some in zip(*((r.wall_s, r.cpu_s) for r in runs), strict=True))
        table.add_row(
            label, str(len(runs)), f"{wall_s:.2f}", f"{cpu_s:.2f}", f"{max(run.peak_mb for run in runs):.0f}",
            f"{max(run.rows for run in runs):,}",
        )  # fmt: skip
    return table


@contextmanager
def _folder(keep: Path | None) -> Iterator[Path]:
    if keep is not None:
        keep.mkdir(parents=True)
        yield keep
        return
    with tempfile.TemporaryDirectory(prefix="governorate") as folder:
        yield Path(folder)


@dataclass(frozen=True, slots=True)
class Whole:
    """One run: the size, the commands that ran, what was written, and where the two computations differ."""

    size: Size
    hudur: Hudur
    counts: dict[str, Any]
    opened: str
    differences: list[str]

    @property
    def title(self) -> str:
        """The governorate in a line."""
        pupils = self.size.schools * self.size.classes * self.size.pupils
        return f"{pupils:,} pupils, term of {self.size.first}, {self.counts['registers']:,} registers"


def measure(*, schools: int, seed: int, keep: Path | None, console: Console) -> Whole:
    """Generate, run, compare."""
    os.nice(10)
    today = datetime.now(ZoneInfo(ZONE_NAME)).date().isoformat()
    size = size_before(today, weeks_ago=WEEKS_AGO, schools=schools, seed=seed)
    with _folder(keep) as folder:
        hudur = Hudur(folder / "store.db")
        began_s = time.monotonic()
        counts = write_store(size, folder, hudur)
        console.print(f"generated in {time.monotonic() - began_s:.0f} s: {counts}; "
                      f"store {hudur.store.stat().st_size / 1e6:,.0f} MB, "
                      f"free on disk {shutil.disk_usage(folder).free / 1e9:,.0f} GB")  # fmt: skip
        began_s = time.monotonic()
        second = second_of(size, folder)
        console.print(f"second computation in {time.monotonic() - began_s:.1f} s")
        differences = check_all(size, hudur, second, wishes(size), {*range(min(10, size.schools)), size.schools - 1})
        gates = second.gates().values()
    opened = f"{sum(fired for fired, _ in gates)} of {len(gates)} gates opened"
    for line in differences[:_DIFFERENCES_TOLD]:
        console.print(line, highlight=False)
    return Whole(size, hudur, counts, opened, differences)


def run(*, quick: bool, console: Console) -> results.Result:
    """CPU and memory of each command over a governorate, and the differences, which must be none."""
    whole = measure(schools=5 if quick else 25, seed=1, keep=None, console=console)
    rows = [results.Row(name="differences between the two computations", value=len(whole.differences), unit="",
                goal=results.Goal(limit=0), note=f"{whole.title}; {whole.opened}")]  # fmt: skip
    for label in dict.fromkeys(one.label for one in whole.hudur.runs if one.label):
        runs = [one for one in whole.hudur.runs if one.label == label]
        rows += [
            results.Row(name=f"{label}: CPU", value=statistics.median(one.cpu_s for one in runs), unit="s",
                note=f"{len(runs)} runs"),
            results.Row(name=f"{label}: peak memory", value=max(one.peak_mb for one in runs), unit="MB"),
        ]  # fmt: skip
    return results.Result(name="governorate", title="A governorate", rows=tuple(rows))


def main(words: Sequence[str] = ()) -> None:
    """Generate, run, compare, print."""
    arguments = argparse.ArgumentParser(prog="python -m bench.governorate", description=__doc__)
    arguments.add_argument("--schools", type=int, default=25, help="of 400 pupils each [25]")
    arguments.add_argument("--seed", type=int, default=1)
    arguments.add_argument("--keep", type=Path, help="new folder in which store and truth stay")
    given = arguments.parse_args(words)
    console = Console(width=120)
    whole = measure(schools=given.schools, seed=given.seed, keep=given.keep, console=console)
    console.print(show(whole.hudur, whole.title))
    console.print(f"{whole.opened}; {len(whole.differences)} differences")
    if whole.differences:
        raise SystemExit(1)


if __name__ == "__main__":
    main(sys.argv[1:])
