"""Cut a fixed run at every I/O operation: three images each, opened and compared with what had been told by then."""

from __future__ import annotations

import random
import tempfile
from collections.abc import Callable, Coroutine, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from clientcore.errors import HudurError
from tests.power.runs import Lost, Run
from tests.simulator.disk import Disk, MachineDead
from tests.simulator.medium import HOWS, How

STEP_MAX = 12
_IN_MEMORY = Path("/dev/shm")  # thousands of images are written, opened and thrown away


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
        images_again: Those of them made by a second cut, during the recovery from the first.
        kept: Told things looked for in images, all in all.
    """

    operations: int = 0
    told: int = 0
    images: int = 0
    images_again: int = 0
    kept: int = 0
    failures: list[Failure] = field(default_factory=list)


async def cut_everywhere(
    run: Run,
    *,
    seed: int,
    chosen: Callable[[int], bool] = lambda _: True,
    chosen_again: Callable[[int], bool] = lambda _: False,
    syncs_lie: bool = False,
) -> Report:
    """Let `run` go once, and look at what a power cut would leave just before each operation, and after the last.

    Args:
        run: A new one.
        seed: Draws what "some" keeps.
        chosen: Whether to look at the instant before this operation (from 1).
        chosen_again: Whether the power also goes a second time, while the program recovers from this cut.
        syncs_lie: The control in which a sync does nothing.
    """
    report = Report()
    disk = Disk("cut", random.Random(seed))
    disk.syncs_lie = syncs_lie
    with tempfile.TemporaryDirectory(prefix="hudur-power-", dir=_IN_MEMORY if _IN_MEMORY.is_dir() else None) as name:
        folder = Path(name)

        def look(kind: str, path: str) -> None:
            if not chosen(disk.io_count):
                return
            for how in HOWS:
                source = random.Random(f"{seed}|{disk.io_count}|{how}")
                image = disk.image(how, source)
                where = f"{kind} {path}"
                try:
                    _look_at(run, image, folder, report)
                    for found in cut_again(run, image, source) if chosen_again(disk.io_count) else ():
                        where = f"{kind} {path}, then again while recovering"
                        report.images_again += 1
                        _look_at(run, found, folder, report)
                except Lost as lost:
                    report.failures.append(Failure(io=disk.io_count, how=how, before=where, why=str(lost)))

        disk.watch = look
        await run.go(disk)
        disk.watch = None
        report.operations = disk.io_count
        disk.io_count += 1
        look("the end", "")
    report.told = run.told_count()
    return report


def _look_at(run: Run, image: Mapping[str, bytes], folder: Path, report: Report) -> None:
    report.images += 1
    report.kept += run.told_count()
    run.check(image, folder)


def cut_again(run: Run, image: Mapping[str, bytes], source: random.Random) -> Iterator[dict[str, bytes]]:
    """Start on `image` and cut the power at operations of the recovery, up to `STEP_MAX` apart; the last start lives.

    What the first start had already mended may be lost again.

    Raises:
        Lost: a start fails.
    """
    at = 0
    while True:
        at += source.randint(1, STEP_MAX)
        disk = Disk("again", random.Random(source.random()))
        for name, data in image.items():
            disk.write(name, data)
        disk.arm(at, "power")
        try:
            _finish(run.recover(disk))
            died = False
        except MachineDead:
            died = True
        except HudurError as broken:
            raise Lost(f"damaged: the next start fails: {broken}") from None
        disk.cut_power("some")
        yield disk.image("all", source)
        if not died:
            return


def _finish(steps: Coroutine[Any, Any, None]) -> None:
    """Run a coroutine that never suspends."""
    try:
        steps.send(None)
    except StopIteration:
        return
    raise AssertionError("recovery waits for something")
