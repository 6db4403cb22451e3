"""The phone's page, measured: the real page from the real server in the real Chromium.

    python -m bench phone
    python -m bench.phone [--json] [--runs 3] [--kills 20] [--seed 11] [--only visits|store]

What *usable* means is said in `bench/phone_visits.py`. A phone's processor is played by CDP throttling 6x (main thread
of the page only) and by a processor quota on the whole browser; its network by `tests/support/shaper.py`.
"""

from __future__ import annotations

import argparse
import platform
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from bench.phone_figures import Figure, as_json, show
from bench.phone_store import PhoneStore
from bench.phone_visits import Visits
from bench.results import Goal, Result, Row
from tests.support.codes import code_for
from tests.support.demo import Demo
from tests.support.shaper import Shaper

PUPILS = 40


def measure(given: argparse.Namespace, console: Console) -> list[Figure]:
    """Run what was asked for against a fresh demo."""
    found: list[Figure] = []
    with (
        tempfile.TemporaryDirectory(prefix="hudur-phone-") as folder,
        Demo(Path(folder)) as demo,
        Shaper(demo.port) as shaper,
        console.status("starting") as status,
    ):
        school = next(one for one in demo.info["schools"] if any(map(_is_measured, one["classes"])))
        rooms = sorted(school["classes"], key=_is_measured, reverse=True)[:2]

        def new_code(class_id: str) -> str:
            return code_for(demo, school["id"], class_id)

        def code_of_first() -> str:
            return new_code(rooms[0]["id"])

        def tell(what: str) -> None:
            status.update(what)
            if not console.is_terminal:
                console.print(what)

        if given.only != "store":
            visits = Visits(shaper=shaper, school=school["id"], new_code=code_of_first, runs=given.runs, tell=tell)
            found += visits.figures()
        if given.only != "visits":
            store = PhoneStore(
                shaper=shaper,
                school=school["id"],
                rooms=rooms,
                new_code=new_code,
                runs=given.runs,
                kills=given.kills,
                seed=given.seed,
                tell=tell,
            )
            found += store.figures()
    return found


def _is_measured(room: dict[str, Any]) -> bool:
    return len(room["pupils"]) == PUPILS


def about() -> dict[str, str]:
    """On what it was measured."""
    chromium = subprocess.run(["/usr/bin/chromium", "--version"], capture_output=True, text=True, check=True).stdout
    return {"browser": chromium.split(" built")[0].strip(), "machine": platform.machine(), "system": platform.system()}


def run(*, quick: bool, console: Console) -> Result:
    """Every figure as `python -m bench phone` stores it; what could not be measured has no row."""
    found = measure(_arguments(["--runs", "1", "--kills", "3"] if quick else []), console)
    rows = [
        Row(name=one.name, value=one.measured, unit=one.unit, goal=None if one.goal is None else Goal(limit=one.goal),
            note=f"{one.how}; {one.note}" if one.note else one.how)
        for one in found if one.measured is not None
    ]  # fmt: skip
    return Result(name="phone", title=f"The phone's page in {about()['browser']}", rows=tuple(rows))


def _arguments(words: Sequence[str]) -> argparse.Namespace:
    arguments = argparse.ArgumentParser(prog="python -m bench.phone", description=__doc__)
    arguments.add_argument("--json", action="store_true", help="one JSON object; progress goes to stderr")
    arguments.add_argument("--runs", type=int, default=3, help="visits of each kind; the median counts")
    arguments.add_argument("--kills", type=int, default=20)
    arguments.add_argument("--seed", type=int, default=11)
    arguments.add_argument("--only", choices=("visits", "store"))
    return arguments.parse_args(words)


def main(words: Sequence[str] = ()) -> None:
    """Measure and print."""
    given = _arguments(words)
    found = measure(given, Console(stderr=True))
    if given.json:
        sys.stdout.write(as_json(found, about()) + "\n")
    else:
        show(found, about(), Console(width=160))


if __name__ == "__main__":
    main(sys.argv[1:])
