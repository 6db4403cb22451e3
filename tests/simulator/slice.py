"""The slice of the campaign that runs in `make test`: every profile, in two halves for two workers side by side."""

from __future__ import annotations

from collections.abc import Sequence

from clientcore.change import parse
from clientcore.history import merge
from tests.property.equality import ours_with_conflicts
from tests.simulator.crew import play_all
from tests.simulator.record import Job
from tests.simulator.summary import Summary
from tests.simulator.world import Size
from tests.support.automerge_oracle import Oracle
from tests.weaknet.profile import names

SIZE = Size(days=5, schools=2, teachers=2, pupils=6)  # 10 school-days; the cheapest that has two of everything
SEEDS = range(1, 12)
SCHOOL_DAYS_MIN, FAULTS_MIN = 750, 25_000  # per half: 1,500 and 50,000 in all
BATCH = 200  # registers asked at once
CPU_S = 60  # per world; an ordinary one takes a second


def half(number: int) -> Sequence[str]:
    """Every second profile."""
    return names()[number::2]


def jobs_of(number: int) -> list[Job]:
    """The worlds of one half."""
    return [
        Job(seed=seed, profile=profile, size=SIZE, brings_samples=True) for seed in SEEDS for profile in half(number)
    ]


def play_half(number: int) -> tuple[Summary, list[tuple[bytes, ...]]]:
    """Play one half, in one process beside this one; what it did, and the chunks of some merged registers."""
    summary = Summary()
    registers: list[tuple[bytes, ...]] = []
    for record in play_all(jobs_of(number), processes=1, cpu_s=CPU_S):
        summary.add(record)
        registers += record.samples
    return summary, registers


def differences(registers: Sequence[Sequence[bytes]], core: Oracle) -> tuple[int, list[str]]:
    """Registers that another implementation of Automerge sees differently, and how many have disputed values."""
    told, disputed = [], 0
    for at in range(0, len(registers), BATCH):
        some = registers[at : at + BATCH]
        for chunks, found in zip(some, core.registers(some), strict=True):
            ours = ours_with_conflicts(merge(parse(chunk) for chunk in chunks))
            disputed += bool(ours["conflicts"])
            if found != {**ours, "reloads": True}:
                told.append(f"{found} instead of {ours}")
    return disputed, told
