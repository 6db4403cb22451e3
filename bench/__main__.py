"""`python -m bench [NAME …] [--quick]`: run benchmarks, print their tables, store the figures in `bench/results/`.

Without a name, all of them, then `report`, which writes docs/performance.md. `--quick` measures less, stores nothing.
A benchmark is a module `bench.<name>` with `run(quick, console) -> Result`; one with its own options has `main`.
"""

from __future__ import annotations

import argparse
import importlib
import os
import signal
import sys
from collections.abc import Sequence

from rich.console import Console

from bench.results import about_run, show, write_result

NAMES = ("wire", "push", "settle", "growth", "store", "peers", "morning", "phone", "governorate")
REPORT = "report"


def run_one(name: str, *, quick: bool, console: Console) -> None:
    """Run one benchmark, print it, and store it unless it was a quick one."""
    module = importlib.import_module(f"bench.{name}")
    if not hasattr(module, "run"):
        module.main()
        return
    loads = os.getloadavg()
    result = module.run(quick=quick, console=console)
    show(result, console)
    if quick:
        console.print("quick: nothing was stored")
        return
    command = ["python", "-m", "bench", name]
    path = write_result(result, about_run(command) | {"load_before": round(loads[0], 2)})
    console.print(f"stored in {path.relative_to(path.parents[2])}")


def main(words: Sequence[str]) -> int:
    """Entry point; the exit code says whether every benchmark ran, not whether goals were met."""
    arguments = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    arguments.add_argument("names", nargs="*", metavar="NAME", help=f"{', '.join(NAMES)}, or {REPORT}")
    arguments.add_argument("--quick", action="store_true", help="measure less, store nothing")
    given = arguments.parse_args(words)
    unknown = [name for name in given.names if name not in (*NAMES, REPORT)]
    if unknown:
        print(f"unknown: {', '.join(unknown)}; there are: {', '.join((*NAMES, REPORT))}", file=sys.stderr)
        return 2
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that servers and folders of a benchmark are removed
    console = Console(width=140)
    for name in given.names or (*NAMES, REPORT):
        console.rule(name)
        if name == REPORT:
            importlib.import_module("bench.report").main()
        else:
            run_one(name, quick=given.quick, console=console)
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
