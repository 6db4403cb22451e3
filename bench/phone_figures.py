"""What a measured figure is, and how figures are shown."""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass

from rich.console import Console
from rich.table import Table


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """One measured figure.

    Attributes:
        name: What was measured.
        how: Conditions and definition, in one line.
        unit: Of `measured` and `goal`.
        measured: The figure; None when it could not be measured, `note` says why.
        goal: The most it may be; None where the project has set none.
        runs: The single values `measured` was taken from.
        note: What else a reader must know.
    """

    name: str
    how: str
    unit: str
    measured: float | None
    goal: float | None = None
    runs: tuple[float, ...] = ()
    note: str = ""

    @property
    def met(self) -> bool | None:
        """Whether the goal was met; None without a figure or a goal."""
        return None if self.measured is None or self.goal is None else self.measured <= self.goal


def median(
    name: str, runs: Sequence[float], *, how: str, unit: str, goal: float | None = None, note: str = ""
) -> Figure:
    """A figure that is the median of its runs."""
    kept = tuple(round(run, 1) for run in runs)
    return Figure(name=name, how=how, unit=unit, measured=statistics.median(kept), goal=goal, runs=kept, note=note)


def percentile(values: Iterable[float], share: float) -> float:
    """The value below which `share` of the values lie (nearest rank)."""
    ranked = sorted(values)
    return ranked[min(len(ranked) - 1, int(share * len(ranked)))]


def as_json(figures: Sequence[Figure], about: dict[str, str]) -> str:
    """One JSON object."""
    return json.dumps({"about": about, "figures": [{**asdict(one), "met": one.met} for one in figures]}, indent=1)


def show(figures: Sequence[Figure], about: dict[str, str], console: Console) -> None:
    """A table with the goal beside each figure, then the notes."""
    table = Table(title="The phone's page: goals and what was measured")
    table.add_column("")
    table.add_column("measured", justify="right")
    table.add_column("goal", justify="right")
    table.add_column("")
    table.add_column("how")
    for one in figures:
        measured = "not measured" if one.measured is None else f"{one.measured:,.10g} {one.unit}"
        goal = "" if one.goal is None else f"≤ {one.goal:,.10g}"
        table.add_row(one.name, measured, goal, {True: "met", False: "MISSED", None: ""}[one.met], one.how)
    console.print(table)
    for one in figures:
        if one.note:
            console.print(f"{one.name}: {one.note}")
    console.print(", ".join(f"{key} {value}" for key, value in about.items()))
