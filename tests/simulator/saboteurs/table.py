"""What a hunt found, as JSON and as the page `docs/saboteurs.md`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

from tests.simulator.saboteurs.hunt import Catch, Control
from tests.simulator.saboteurs.model import INVARIANTS

FOUND = Path(__file__).with_name("found.json")


def read_found() -> dict[str, int]:
    """In which seed each saboteur was found when the page was last written."""
    found: dict[str, int] = json.loads(FOUND.read_text(encoding="utf-8"))
    return found


def write_found(catches: Sequence[Catch]) -> None:
    """Keep the seeds of the finds, so that a test can look there first."""
    found = {catch.saboteur.name: catch.seen.seed for catch in catches if catch.seen is not None}
    FOUND.write_text(json.dumps(found, indent=1, sort_keys=True) + "\n", encoding="utf-8")


def line(catch: Catch) -> str:
    """One catch for a person at a terminal."""
    name = f"{catch.saboteur.name:32}"
    if catch.seen is None:
        return f"{name} NOT FOUND in {catch.seeds} seeds ({catch.unlike} with another trace), {catch.seconds:.0f} s"
    return f"{name} {catch.seeds:3} seeds  {seen_as(catch):9} {catch.seconds:6.1f} s  {catch.seen.detail[:110]}"


def seen_as(catch: Catch) -> str:
    """The invariant that fired, or in what other way it was noticed."""
    if catch.seen is None:
        return "not found"
    return catch.seen.invariant or str(catch.seen.kind)


def as_json(catches: Sequence[Catch], control: Control) -> dict[str, Any]:
    """Plain data."""
    return {
        "saboteurs": [
            {
                "name": catch.saboteur.name,
                "file": catch.saboteur.file,
                "breaks": list(catch.saboteur.breaks),
                "found": catch.seen is not None,
                "seeds": catch.seeds,
                "seen_as": seen_as(catch),
                "detail": "" if catch.seen is None else catch.seen.detail,
                "seconds": round(catch.seconds, 2),
                "unlike": catch.unlike,
            }
            for catch in catches
        ],
        "control": {"seeds": len(control.seen), "failed": [seen.seed for seen in control.failures]},
    }


def page(catches: Sequence[Catch], control: Control, *, seeds: int) -> str:
    """The page for `docs/`."""
    found = [catch for catch in catches if catch.seen is not None]
    rows = "\n".join(_row(catch) for catch in sorted(catches, key=lambda one: (one.seen is None, one.saboteur.name)))
    used = sorted({key for catch in catches for key in catch.saboteur.breaks}, key=list(INVARIANTS).index)
    words = "\n".join(f"- **{key}**: {INVARIANTS[key]}." for key in used)
    middle = f"{median(catch.seeds for catch in found):g}" if found else "none"
    worst = max((catch.seeds for catch in found), default=0)
    return f"""# Planted bugs

A simulator that finds nothing proves nothing. Each *saboteur* is one line of the product, replaced at import in a fresh
process by the line of a plausible bug (`tests/simulator/saboteurs/`); the product knows nothing of it. The table says
how many seeds the simulator needs to notice it. A seed counts only if the same seed without the bug passes.

**{len(found)} of {len(catches)} found within {seeds} seeds; median {middle} seeds, most {worst}.**
Control: {len(control.seen)} seeds without a saboteur, {len(control.failures)} with a violation.

Run it: `make saboteurs`, or one of them: `python -m tests.simulator.saboteurs NAME`. This page is written by
`python -m tests.simulator.saboteurs --write docs/saboteurs.md`.

| saboteur | file | breaks | seeds | seen as | CPU s | why a person might write it |
|---|---|---|---|---|---|---|
{rows}

*Seen as* is the first invariant that fired; `crash` is an exception that left the simulator, `stuck` a seed that did
not end. The invariants (`I`: the design's; `C`, `D`, `L`, `S`: the fault catalogue's):

{words}
"""


def _row(catch: Catch) -> str:
    saboteur = catch.saboteur
    seeds = str(catch.seeds) if catch.seen is not None else f"over {catch.seeds}"
    cells = (
        f"`{saboteur.name}`",
        f"`{saboteur.file}`",
        ", ".join(saboteur.breaks),
        seeds,
        seen_as(catch),
        f"{catch.seconds:.1f}",
        saboteur.why,
    )
    return f"| {' | '.join(cells)} |"
