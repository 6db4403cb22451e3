"""Cut a fixed run at every I/O operation: three images each, opened and compared with what had been told by then."""

from __future__ import annotations

import random
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from tests.power.runs import Lost, Run
from tests.simulator.disk import Disk
from tests.simulator.medium import HOWS, How


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """An image that does not keep what was told; `io` and `how` with the run's seed make it again."""

    io: int
    how: How
    before: str
    why: str


@dataclass(slots=True, kw_only=True)
class Report:
    """What a campaign of cuts found.

    Attributes:
        operations: I/O operations of the run; one more instant than that can be cut.
        told: Things somebody had been told are saved, at the end.
        images: Images looked at.
        kept: Told things looked for in images, all in all.
    """

    operations: int = 0
    told: int = 0
    images: int = 0
    kept: int = 0
    failures: list[Failure] = field(default_factory=list)


async def cut_everywhere(
    run: Run, *, seed: int, chosen: Callable[[int], bool] = lambda _: True, syncs_lie: bool = False
) -> Report:
    """Let `run` go once, and look at what a power cut would leave just before each operation, and after the last.

    Args:
        run: A new one.
        seed: Draws what "some" keeps.
        chosen: Whether to look at the instant before this operation (from 1).
        syncs_lie: The control in which a sync does nothing.
    """
    report = Report()
    disk = Disk("cut", random.Random(seed))
    disk.syncs_lie = syncs_lie
    with tempfile.TemporaryDirectory(prefix="hudur-power-") as name:
        folder = Path(name)

        def look(kind: str, path: str) -> None:
            if not chosen(disk.io_count):
                return
            for how in HOWS:
                report.images += 1
                report.kept += run.told_count()
                try:
                    run.check(disk.image(how, random.Random(f"{seed}|{disk.io_count}|{how}")), folder)
                except Lost as lost:
                    report.failures.append(Failure(io=disk.io_count, how=how, before=f"{kind} {path}", why=str(lost)))

        disk.watch = look
        await run.go(disk)
        disk.watch = None
        report.operations = disk.io_count
        disk.io_count += 1
        look("the end", "")
    report.told = run.told_count()
    return report
