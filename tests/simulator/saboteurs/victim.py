"""One fresh process: perhaps install a saboteur, then import the simulator and run seeds; one JSON line for each.

    python -m tests.simulator.saboteurs.victim NAME|- ENTRY SEEDS CPU_S

SEEDS reads `1-8,10`. `-` is the control: no saboteur, and it does not stop at a violation. It prints `{"at": seed}`
before a seed, then `{"seed", "digest", "seconds", "kind", "invariant", "detail"}`; `kind` is null, `violation` or
`crash`. A seed that needs more than CPU_S seconds of processor time ends the process (SIGXCPU): it is stuck.
"""

from __future__ import annotations

import importlib
import json
import logging
import resource
import sys
import traceback
from collections.abc import Sequence
from typing import Any

from tests.simulator.saboteurs import BY_NAME
from tests.simulator.saboteurs.hook import install

CONTROL = "-"
MEMORY_BYTES_MAX = 4 << 30
_DETAIL_CHARS_MAX = 400


def main(name: str, entry: str, seeds: str, cpu_s: int) -> None:
    """Run seeds in their order."""
    is_control = name == CONTROL
    if not is_control:
        install(BY_NAME[name])
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES_MAX, MEMORY_BYTES_MAX))
    logging.disable(logging.CRITICAL)
    module, _, function = entry.partition(":")
    simulate = getattr(importlib.import_module(module), function)
    for seed in read_seeds(seeds):
        _tell({"at": seed})
        before_s = _allow(cpu_s)
        result = _run(simulate, seed)
        _tell({"seed": seed, "seconds": round(_cpu_s() - before_s, 3), **result})
        if result["kind"] is not None and not is_control:
            return


def read_seeds(text: str) -> list[int]:
    """Seeds as `write_seeds` wrote them."""
    spans = [part.split("-") for part in text.split(",")]
    return [seed for span in spans for seed in range(int(span[0]), int(span[-1]) + 1)]


def write_seeds(seeds: Sequence[int]) -> str:
    """Ascending seeds as spans: `1-8,10`."""
    spans: list[list[int]] = []
    for seed in seeds:
        if spans and seed == spans[-1][1] + 1:
            spans[-1][1] = seed
        else:
            spans.append([seed, seed])
    return ",".join(str(first) if first == last else f"{first}-{last}" for first, last in spans)


def _run(simulate: Any, seed: int) -> dict[str, Any]:
    try:
        report = simulate(seed)
    except Exception as crash:  # whatever escapes the simulator is a finding, if the control knows nothing of it
        place = traceback.extract_tb(crash.__traceback__)[-1]
        detail = f"{type(crash).__name__} at {place.filename.rpartition('/')[2]}:{place.lineno}: {crash}"
        return {"kind": "crash", "invariant": None, "detail": detail[:_DETAIL_CHARS_MAX], "digest": None}
    digest = getattr(report, "digest", None)
    if not report.violations:
        return {"kind": None, "invariant": None, "detail": "", "digest": digest}
    violation = report.violations[0]
    detail = str(violation.detail)[:_DETAIL_CHARS_MAX]
    return {"kind": "violation", "invariant": violation.invariant, "detail": detail, "digest": digest}


def _cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def _allow(cpu_s: int) -> float:
    """Let this process use `cpu_s` more seconds of processor time; returns what it has used."""
    used_s = _cpu_s()
    resource.setrlimit(resource.RLIMIT_CPU, (int(used_s) + cpu_s + 1, resource.RLIM_INFINITY))
    return used_s


def _tell(line: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(line) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4]))
