"""The whole power campaign: every I/O operation of both runs, three images each, and the controls.

python -m tests.power [--seed N] [--stride K] [--json]
"""

from __future__ import annotations

import argparse
import asyncio
import functools
import json
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from tests.power.controls import weak_log, weak_store
from tests.power.cuts import Report, cut_everywhere
from tests.power.runs import DeviceRun, Run, StoreRun


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One run of the campaign; a control must lose."""

    name: str
    run: Callable[[], Run]
    is_control: bool = False
    syncs_lie: bool = False


AGAIN_EVERY = 40  # instants, of which one has its recovery cut too
AGAIN_NEVER = 1 << 40

PARTS = (
    Part(name="server, WAL FULL", run=StoreRun),
    Part(name="device, DELETE EXTRA", run=DeviceRun),
    Part(name="control: server NORMAL", run=lambda: StoreRun(connector=weak_store("NORMAL")), is_control=True),
    Part(name="control: server OFF", run=lambda: StoreRun(connector=weak_store("OFF")), is_control=True),
    Part(name="control: server, syncs lie", run=StoreRun, is_control=True, syncs_lie=True),
    Part(name="control: device FULL", run=lambda: DeviceRun(files=weak_log("FULL")), is_control=True),
    Part(name="control: device NORMAL", run=lambda: DeviceRun(files=weak_log("NORMAL")), is_control=True),
    Part(name="control: device OFF", run=lambda: DeviceRun(files=weak_log("OFF")), is_control=True),
    Part(name="control: device, syncs lie", run=DeviceRun, is_control=True, syncs_lie=True),
)


def _told(part: Part, report: Report, seconds: float) -> dict[str, object]:
    damaged = sum("damaged" in failure.why for failure in report.failures)
    return {
        "part": part.name,
        "operations": report.operations,
        "images": report.images,
        "of them cut again while recovering": report.images_again,
        "saved things looked for": report.kept,
        "images that lost": len(report.failures),
        "of them damaged": damaged,
        "by what the cut left": dict(Counter(failure.how for failure in report.failures)),
        "as wanted": bool(report.failures) == part.is_control,
        "seconds": round(seconds, 1),
    }


def _is_multiple(step: int, io: int) -> bool:
    return io % step == 0


async def campaign(seed: int, stride: int) -> list[dict[str, object]]:
    """Every part; controls at a tenth of the instants, which is plenty for a loss to show."""
    found = []
    for part in PARTS:
        step = stride * 10 if part.is_control else stride
        started = time.perf_counter()
        chosen = functools.partial(_is_multiple, step)
        again = functools.partial(_is_multiple, AGAIN_NEVER if part.is_control else step * AGAIN_EVERY)
        report = await cut_everywhere(
            part.run(), seed=seed, chosen=chosen, chosen_again=again, syncs_lie=part.syncs_lie
        )
        told = _told(part, report, time.perf_counter() - started)
        found.append(told)
        print(
            f"{'ok ' if told['as wanted'] else 'BAD'} {part.name:28} {report.operations:6} operations"
            f" {report.images:7} images {len(report.failures):6} lost ({told['of them damaged']} damaged)"
            f"  {told['seconds']} s",
            file=sys.stderr,
        )
        for failure in [] if part.is_control else report.failures[:5]:
            print(f"    seed {seed}, cut {failure.how} before operation {failure.io}, {failure.before}: {failure.why}")
    return found


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(prog="python -m tests.power", description=__doc__)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--stride", type=int, default=1, help="look at every K-th instant only")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    found = asyncio.run(campaign(args.seed, args.stride))
    if args.json:
        print(json.dumps(found, indent=1))
    sys.exit(0 if all(told["as wanted"] for told in found) else 1)


if __name__ == "__main__":
    main()
