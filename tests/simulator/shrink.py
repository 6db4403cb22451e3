"""Make a failing world smaller: fewer fault classes, days, schools, teachers, pupils, while the same invariant breaks.

Each fault class has a stream of chance of its own, so dropping one leaves the others where they were; what depends
on the days and people alone moves little. Greedy and bounded: the result is small, not the smallest there is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

from tests.simulator.crew import CPU_S, Crew
from tests.simulator.record import Job, Record
from tests.simulator.swarm import Swarm
from tests.simulator.world import Size

TRIES_MAX = 120
Play = Callable[[Sequence[Job]], Sequence[Record]]


def classes_of(job: Job) -> tuple[str, ...]:
    """The fault classes that are on in a job's world."""
    return tuple(Swarm.of(job.seed, only=job.only, quiet=job.quiet).rates)


def sizes_below(size: Size) -> Iterator[Size]:
    """Smaller worlds, the boldest steps first."""
    for name, least in (("schools", 1), ("days", 1), ("teachers", 1), ("pupils", 1)):
        value = getattr(size, name)
        for less in dict.fromkeys((least, value // 2, value - 1)):
            if least <= less < value:
                yield replace(size, **{name: less})


def halves(classes: Sequence[str]) -> Iterator[tuple[str, ...]]:
    """Fault classes with some left out: all, each half, each quarter, ... each one."""
    if not classes:
        return
    yield ()
    count = 2
    while True:
        step = -(-len(classes) // count)
        for at in range(0, len(classes), step):
            yield (*classes[:at], *classes[at + step :])
        if step == 1:
            return
        count *= 2


def fewer_classes(job: Job) -> Iterator[Job]:
    """The same world with some of its fault classes left out."""
    on = classes_of(job)
    seen: set[tuple[str, ...]] = {on}
    for kept in halves(on):
        if kept not in seen:
            seen.add(kept)
            yield replace(job, only=kept)


def smaller_sizes(job: Job) -> Iterator[Job]:
    """The same faults in a smaller world."""
    for size in sizes_below(job.size):
        yield replace(job, size=size)


# Classes first, for they say most about the cause; once more at the end, when the smaller world needs fewer of them.
WAYS: Sequence[Callable[[Job], Iterator[Job]]] = (fewer_classes, smaller_sizes, fewer_classes)


def shrink(
    record: Record, *, tries_max: int = TRIES_MAX, cpu_s: int = CPU_S, jobs: int = 2, play: Play | None = None
) -> Record:
    """The smallest world found in which the first invariant that broke in `record` still breaks.

    Args:
        record: A world with a violation.
        tries_max: Worlds to play at most.
        cpu_s: Processor time a world may take, in seconds.
        jobs: Worlds tried side by side.
        play: Plays some jobs, records in their order; by default in processes of their own.

    Raises:
        ValueError: `record` has no violation.
    """
    if not record.violations:
        raise ValueError("nothing broke in this world")
    invariant = record.violations[0].invariant
    best, tries = record, 0
    with Crew(jobs, cpu_s=cpu_s) as crew:
        for way in WAYS:
            found: Record | None = best
            while found is not None:
                best = found
                left = list(way(best.job))[: tries_max - tries]
                found, tried = _first(left, invariant, play or crew.play, jobs)
                tries += tried
    return best


def _first(left: Sequence[Job], invariant: str, play: Play, side_by_side: int) -> tuple[Record | None, int]:
    """The first world that breaks the invariant, and how many were played."""
    for at in range(0, len(left), side_by_side):
        some = left[at : at + side_by_side]
        for record in play(some):
            if any(seen.invariant == invariant for seen in record.violations):
                return _named_first(record, invariant), at + len(some)
    return None, len(left)


def _named_first(record: Record, invariant: str) -> Record:
    """The violation that is looked for stands first."""
    return replace(record, violations=tuple(sorted(record.violations, key=lambda one: one.invariant != invariant)))
