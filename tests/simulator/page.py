"""The figures of docs/reliability.md, written into it between their markers, and the picture beside it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from tests.simulator.picture import Spread, svg
from tests.simulator.record import Job
from tests.simulator.summary import Summary, Total, lateness_words
from tests.simulator.world import Size
from tests.weaknet.profile import names

PAGE, PICTURE = Path("reliability.md"), Path("images") / "lateness.svg"
WEATHER_SIZE = Size(days=14, schools=1, teachers=2, pupils=40)
TITLE = "From the tap to the server's log, by weak-network profile"


def weather_jobs(seeds: int) -> list[Job]:
    """Every profile's own weather, without injected faults."""
    return [
        Job(seed=seed, profile=profile, size=WEATHER_SIZE, quiet=True)
        for seed in range(1, seeds + 1)
        for profile in names()
    ]


def write(summary: Summary, docs: Path, seeds: int) -> None:
    """The table and the picture of the profiles' own weather."""
    page = docs / PAGE
    page.write_text(replaced(page.read_text(encoding="utf-8"), "weather", weather(summary, seeds)), encoding="utf-8")
    spreads = [Spread.of(name, total.lateness_ms) for name, total in summary.rows() if total.lateness_ms]
    (docs / PICTURE).write_text(svg(spreads, TITLE), encoding="utf-8")


def replaced(text: str, name: str, inside: str) -> str:
    """`text` with what stands between the markers `name` exchanged.

    Raises:
        ValueError: the markers are not there, or more than once.
    """
    begin, end = f"<!-- {name}: written by a command -->", f"<!-- {name}: end -->"
    found, count = re.subn(
        f"{re.escape(begin)}.*?{re.escape(end)}", lambda _: f"{begin}\n{inside}\n{end}", text, flags=re.DOTALL
    )
    if count != 1:
        raise ValueError(f"the page has {count} places for {name}")
    return found


def weather(summary: Summary, seeds: int) -> str:
    """The table of lateness, bytes and retries."""
    size = WEATHER_SIZE
    lines = [
        (
            f"`python -m tests.simulator.summary --write docs --seeds {seeds}`: {size.days} days,"
            f" {size.teachers} teachers and a champion per school, {size.pupils} pupils per class, seeds 1 to {seeds}:"
            f" {summary.whole.school_days:,} school-days, {summary.whole.registers:,} registers,"
            f" {summary.whole.checks.total():,} checks, {_violations(summary.whole)}."
        ),
        "",
        "| profile | late p50 | p95 | max | B up per register | B down | requests per register | of them failed |",
        "|---|---|---|---|---|---|---|---|",
    ]
    lines += [_row(name, total) for name, total in summary.rows()]
    return "\n".join(lines)


def _violations(total: Total) -> str:
    return f"**{len(total.broken)} worlds with a violation**" if total.broken else "no violation"


def _row(name: str, total: Total) -> str:
    cells: Sequence[str] = (
        *lateness_words(total),
        f"{total.per_register(total.bytes_up):,.0f}",
        f"{total.per_register(total.bytes_down):,.0f}",
        f"{total.per_register(total.requests):.1f}",
        f"{100 * total.failed_requests / total.requests:.0f}%" if total.requests else "–",
    )
    return f"| {name} | {' | '.join(cells)} |"


def counts(summary: Summary) -> str:
    """A campaign's faults and checks, as two tables in Markdown."""
    whole = summary.whole
    faults = [f"| {name} | {count:,} |" for name, count in sorted(whole.faults.items())]
    checks = [f"| {name} | {count:,} |" for name, count in whole.to_plain()["checks"].items()]
    return "\n".join(
        [
            (
                f"{whole.worlds:,} worlds, {whole.school_days:,} school-days, {whole.registers:,} registers,"
                f" {whole.fault_count:,} faults, {whole.checks.total():,} checks, {_violations(whole)};"
                f" {whole.speed:.1f} school-days per second of one core."
            ),
            *("", "| fault | injected |", "|---|---|", *faults),
            *("", "| invariant | looked at |", "|---|---|", *checks),
        ]
    )
