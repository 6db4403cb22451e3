"""What a benchmark found: small typed values, one JSON file each in `bench/results/`.

A figure is CPU-seconds, bytes, round trips, memory, latency, or a ratio taken in one run. Whether a goal was met is
computed here from the value and never written by hand; a figure that was not measured has no row.
"""

from __future__ import annotations

import json
import os
import platform
import sqlite3
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "bench" / "results"


@dataclass(frozen=True, slots=True, kw_only=True)
class Goal:
    """A bound: at most `limit`, or at least."""

    limit: float
    at_least: bool = False

    def is_met_by(self, value: float) -> bool:
        """Whether `value` keeps the bound, at full precision."""
        return value >= self.limit if self.at_least else value <= self.limit

    def __str__(self) -> str:
        return f"{'≥' if self.at_least else '≤'} {number(self.limit)}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One figure. `group` is the table of the page it stands in; `note` says how it was taken where that matters."""

    name: str
    value: float
    unit: str
    goal: Goal | None = None
    note: str = ""
    group: str = ""

    @property
    def met(self) -> bool | None:
        """Whether the goal was met; None without one."""
        return None if self.goal is None else self.goal.is_met_by(self.value)


@dataclass(frozen=True, slots=True, kw_only=True)
class Chart:
    """One picture: lines over named steps, or bars when `kind` is `bar`. A value that was not measured is None."""

    name: str
    title: str
    x: tuple[str, ...]
    lines: Mapping[str, tuple[float | None, ...]]
    unit: str
    kind: str = "line"
    logarithmic: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """Everything one benchmark found; `about` is where and when, added by `write_result`."""

    name: str
    title: str
    rows: tuple[Row, ...]
    charts: tuple[Chart, ...] = ()
    about: dict[str, Any] = field(default_factory=dict)


def number(value: float) -> str:
    """A figure as people read it: three significant digits, whole from a hundred on."""
    if value == int(value) or abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}" if abs(value) >= 0.001 else f"{value:.1e}"


def show(result: Result, console: Console) -> None:
    """Print one table for each group of rows."""
    for group in dict.fromkeys(row.group for row in result.rows):
        table = Table(title=f"{result.title}{': ' if group else ''}{group}", title_justify="left")
        for heading, justify in (
            ("", "left"),
            ("measured", "right"),
            ("unit", "left"),
            ("goal", "right"),
            ("", "left"),
        ):
            table.add_column(heading, justify=justify)  # type: ignore[arg-type]
        for row in result.rows:
            if row.group == group:
                met = {None: "", True: "[green]met[/]", False: "[red]missed[/]"}[row.met]
                table.add_row(row.name, number(row.value), row.unit, "" if row.goal is None else str(row.goal), met)
        console.print(table)


def about_run(command: Sequence[str]) -> dict[str, Any]:
    """Machine, versions, commit and time of a run that ends now."""
    return {
        "cpu": _cpu_model(),
        "cores": os.cpu_count(),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "sqlite": sqlite3.sqlite_version,
        "commit": _git("rev-parse", "--short=12", "HEAD"),
        "dirty": bool(_git("status", "--porcelain", "--", "clientcore", "reconciliation", "syncserver", "bench/*.py")),
        "at": datetime.now(ZoneInfo("Africa/Cairo")).isoformat(timespec="minutes"),
        "command": " ".join(command),
    }


def write_result(result: Result, about: dict[str, Any], folder: Path = RESULTS) -> Path:
    """Store a result as `<name>.json`, replacing the one before."""
    folder.mkdir(exist_ok=True)
    path = folder / f"{result.name}.json"
    value = asdict(result) | {"about": about}
    for row, written in zip(result.rows, value["rows"], strict=True):
        written["met"] = row.met
    path.write_text(json.dumps(value, indent=1, ensure_ascii=False) + "\n", "utf-8")
    return path


def read_result(name: str, folder: Path = RESULTS) -> Result | None:
    """A stored result; None when that benchmark was not run."""
    path = folder / f"{name}.json"
    if not path.is_file():
        return None
    value = json.loads(path.read_text("utf-8"))
    rows = tuple(
        Row(
            **{key: row[key] for key in ("name", "value", "unit", "note", "group")},
            goal=None if row["goal"] is None else Goal(**row["goal"]),
        )
        for row in value["rows"]
    )
    charts = tuple(
        Chart(**chart | {"x": tuple(chart["x"]), "lines": {k: tuple(v) for k, v in chart["lines"].items()}})
        for chart in value["charts"]
    )
    return Result(name=value["name"], title=value["title"], rows=rows, charts=charts, about=value["about"])


def _cpu_model() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


def _git(*words: str) -> str:
    found = subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True, check=False)
    return found.stdout.strip()
