"""Run worlds: one seed, one world, one report. `simulate` is a pure function of its arguments."""

from __future__ import annotations

import gc
import logging
import random
import tempfile
import traceback
from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path

from tests.simulator.lab import Lab
from tests.simulator.ledger import Ledger, Trace, Violation
from tests.simulator.loop import VirtualLoop
from tests.simulator.machine import tag_tasks
from tests.simulator.swarm import Swarm
from tests.simulator.world import Size, World
from tests.weaknet.profile import load, names


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What one world did. Equal arguments give equal reports, whatever the machine.

    Attributes:
        lateness_ms: Per change that came: true time of arrival minus true time of its first tap.
        registers: Registers that a teacher set out to take.
        bytes_up, bytes_down: Over the phones' links, with HTTP headers, without TCP's.
        digest: Over everything that happened, in order.
        samples: Chunks of some registers as they stood at the end, for other implementations of the merge.
    """

    seed: int
    profile: str
    size: Size
    school_days: int
    registers: int
    virtual_s: float
    faults: Counter[str]
    checks: Counter[str]
    points: Counter[str]
    violations: tuple[Violation, ...]
    lateness_ms: tuple[int, ...] = field(repr=False)
    requests: int
    failed_requests: int
    bytes_up: int
    bytes_down: int
    promised: int
    restores: int
    digest: str
    samples: tuple[tuple[bytes, ...], ...] = field(default=(), repr=False)
    tail: tuple[str, ...] = field(default=(), repr=False)


def profile_of(seed: int) -> str:
    """The profile a seed plays on when none is named: all of them in turn."""
    every = names()
    return every[seed % len(every)]


def _told(error: BaseException) -> str:
    return "".join(traceback.format_exception(error)).rstrip()


def simulate(
    seed: int,
    *,
    profile: str | None = None,
    size: Size | None = None,
    only: Collection[str] | None = None,
    quiet: bool = False,
    keep: int = 0,
) -> Report:
    """Play one term.

    Args:
        seed: Everything that is left to chance.
        profile: A weak-network profile; by default one after the other by seed.
        size: Days, schools, phones.
        only: Fault classes that may be on (all by default); for shrinking.
        quiet: No fault classes at all: the profile's own weather only.
        keep: Lines of the trace to keep for the report, with where errors came from behind them.
    """
    name, size = profile or profile_of(seed), size or Size()
    swarm = Swarm.of(seed, only=only, quiet=quiet)
    logging.getLogger("hudur").setLevel(logging.CRITICAL + 1)  # a disk that fails all day would fill the screen
    loop = VirtualLoop(random.Random(f"shuffle|{seed}"))
    loop.set_task_factory(tag_tasks)
    lab = Lab(loop=loop, swarm=swarm, ledger=Ledger(), journal=Trace(keep=keep))
    gc.disable()  # a world is small, and walking it again and again costs a tenth of its time
    raised: list[BaseException] = []
    with tempfile.TemporaryDirectory() as folder:
        world = World(lab, load(name), size, Path(folder))
        try:
            loop.run(world.run())
        except Exception as fault:
            lab.ledger.check("I7", False, f"the world ended by {type(fault).__name__}: {fault}")
            raised.append(fault)
    for error in loop.faults:
        raised.append(error)
        lab.ledger.check("I7", False, f"nobody looked at {type(error).__name__}: {error}")
    gc.enable()
    gc.collect()
    usage = list({id(phone.network): phone.network.usage for phone in world.phones}.values())
    return Report(
        seed=seed,
        profile=name,
        size=size,
        school_days=world.school_days,
        registers=world.registers,
        virtual_s=loop.now_s,
        faults=lab.faults,
        checks=lab.ledger.checks,
        points=lab.points,
        violations=tuple(lab.ledger.violations),
        lateness_ms=tuple(world.watch.lateness_ms),
        requests=sum(one.requests for one in usage),
        failed_requests=sum(one.failed for one in usage),
        bytes_up=sum(one.bytes_up for one in usage),
        bytes_down=sum(one.bytes_down for one in usage),
        promised=len(lab.ledger.promised),
        restores=world.host.restores,
        digest=lab.journal.digest(),
        samples=tuple(lab.samples),
        tail=tuple([*lab.journal.lines, *(_told(error) for error in raised)] if keep else ()),
    )
