"""The slice of the campaign that runs in `make test`: every profile, in two halves for two workers side by side."""

from __future__ import annotations

from collections.abc import Sequence

from tests.simulator.crew import play_all
from tests.simulator.record import Job
from tests.simulator.summary import Summary
from tests.simulator.world import Size
from tests.weaknet.profile import names

SIZE = Size(days=5, schools=2, teachers=2, pupils=6)  # 10 school-days; the cheapest that has two of everything
SEEDS = range(1, 12)
SCHOOL_DAYS_MIN, FAULTS_MIN = 750, 25_000  # per half: 1,500 and 50,000 in all
CPU_S = 60  # per world; an ordinary one takes a second


def half(number: int) -> Sequence[str]:
    """Every second profile."""
    return names()[number::2]


def jobs_of(number: int) -> list[Job]:
    """The worlds of one half."""
    return [Job(seed=seed, profile=profile, size=SIZE) for seed in SEEDS for profile in half(number)]


def play_half(number: int) -> Summary:
    """Play one half, in one process beside this one."""
    return Summary.of(play_all(jobs_of(number), processes=1, cpu_s=CPU_S))
