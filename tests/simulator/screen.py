"""What a run of worlds looks like on a terminal while it goes on, and when it is over."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from tests.simulator.record import Record
from tests.simulator.summary import Summary, Total, lateness_words

PLAIN_EVERY_S = 10.0
PLAIN_WIDTH = 140
_VIOLATIONS_SHOWN = 20


def watched(
    records: Iterable[Record], summary: Summary, *, worlds: int | None, quiet: bool = False
) -> Iterator[Record]:
    """Pass records on, add them up, and show how far they are: a bar on a terminal, plain lines elsewhere.

    `worlds` is how many there will be, None when nobody knows; `quiet` shows nothing.
    """
    console = Console(stderr=True)
    if quiet:
        for record in records:
            summary.add(record)
            yield record
    elif console.is_terminal:
        yield from _with_bar(records, summary, worlds, console)
    else:
        yield from _with_lines(records, summary, worlds)


def _with_bar(records: Iterable[Record], summary: Summary, worlds: int | None, console: Console) -> Iterator[Record]:
    columns = (SpinnerColumn(), BarColumn(bar_width=24), TextColumn("{task.description}"), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("worlds begin", total=worlds)
        began_s = time.monotonic()
        for record in records:
            summary.add(record)
            progress.update(task, advance=1, description=_line(summary.whole, worlds, time.monotonic() - began_s))
            yield record


def _with_lines(records: Iterable[Record], summary: Summary, worlds: int | None) -> Iterator[Record]:
    began_s = told_s = time.monotonic()
    for record in records:
        summary.add(record)
        now_s = time.monotonic()
        if now_s - told_s >= PLAIN_EVERY_S:
            told_s = now_s
            sys.stderr.write(f"{_line(summary.whole, worlds, now_s - began_s)}\n")
            sys.stderr.flush()
        yield record


def _line(total: Total, worlds: int | None, wall_s: float) -> str:
    of = "" if worlds is None else f"/{worlds}"
    return (
        f"{total.worlds}{of} worlds, {total.school_days:,} school-days, {total.fault_count:,} faults,"
        f" {len(total.broken)} violations, {total.school_days / max(wall_s, 1e-3):.1f} school-days/s"
    )


def show(summary: Summary) -> None:
    """The whole summary, on standard output; wide enough for the table where that is no terminal."""
    console = Console()
    if not console.is_terminal:
        console = Console(width=PLAIN_WIDTH)
    console.print(_profiles(summary))
    console.print(_counts("faults injected", summary.whole.faults))
    console.print(_counts("invariants checked", summary.whole.checks))
    total = summary.whole
    console.print(
        f"{total.worlds} worlds, [bold]{total.school_days:,} school-days[/], {total.registers:,} registers,"
        f" {total.fault_count:,} faults, {total.checks.total():,} checks,"
        f" {total.speed:.1f} school-days per second of one core",
        highlight=False,
    )
    if not total.broken:
        console.print("[green]✓[/] no violation")
    for command, invariant, detail in total.broken[:_VIOLATIONS_SHOWN]:
        console.print(f"[red]✗ {invariant}[/] {escape(detail)}", highlight=False)
        console.print(f"    {command}", highlight=False, soft_wrap=True)
    if len(total.broken) > _VIOLATIONS_SHOWN:
        console.print(f"… and {len(total.broken) - _VIOLATIONS_SHOWN} worlds more with violations")


def _profiles(summary: Summary) -> Table:
    table = Table(box=None, padding=(0, 1), header_style="dim")
    table.add_column("profile", no_wrap=True, min_width=12)
    for name in ("days", "late p50", "p95", "max", "B up", "B down", "requests", "failed", "faults"):
        table.add_column(name, justify="right", no_wrap=True)
    for name, total in [*summary.rows(), ("all", summary.whole)]:
        if name == "all" and len(summary.by_profile) == 1:
            continue
        table.add_row(
            name,
            f"{total.school_days:,}",
            *lateness_words(total),
            f"{total.per_register(total.bytes_up):,.0f}",
            f"{total.per_register(total.bytes_down):,.0f}",
            f"{total.requests:,}",
            f"{total.failed_requests:,}",
            f"{total.fault_count:,}",
        )
    return table


def _counts(title: str, counts: dict[str, int]) -> str:
    told = ", ".join(f"{name} {count:,}" for name, count in sorted(counts.items()))
    return f"[dim]{title}:[/] {told or 'none'}"
