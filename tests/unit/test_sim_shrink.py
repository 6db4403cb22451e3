"""Shrinking keeps the same invariant broken, drops what does not matter, and ends within its bound."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest

from tests.simulator.ledger import Violation
from tests.simulator.record import Job, Record
from tests.simulator.shrink import Play, classes_of, fewer_classes, halves, shrink, smaller_sizes
from tests.simulator.world import Size

JOB = Job(seed=4, profile="cairo-4g-good", size=Size(days=14, schools=3, teachers=4, pupils=30))
ON = classes_of(JOB)


def record(job: Job, *broken: str) -> Record:
    """A world in which these invariants broke."""
    return Record(job=job, cpu_s=0.0, violations=tuple(Violation(invariant=one, at_ms=1, detail="") for one in broken))


def playing(breaks: Callable[[Job], Sequence[str]], played: list[Job]) -> Play:
    """Worlds that break what `breaks` says; `played` gets their jobs."""

    def play(jobs: Sequence[Job]) -> Sequence[Record]:
        played.extend(jobs)
        return [record(job, *breaks(job)) for job in jobs]

    return play


def needs(two: tuple[str, str], days: int) -> Callable[[Job], Sequence[str]]:
    """I6 breaks where two fault classes meet in a world of so many days; I4 without them."""

    def breaks(job: Job) -> Sequence[str]:
        is_broken = set(two) <= set(classes_of(job)) and job.size.days >= days
        return ["I6"] if is_broken else ["I4"]

    return breaks


def test_what_does_not_matter_is_dropped() -> None:
    """Of all classes the two that matter stay, of the size the days that it takes; another invariant is no match."""
    two = (ON[1], ON[-1])
    small = shrink(record(JOB, "I6"), play=playing(needs(two, 3), []), tries_max=500)
    assert small.job.only == two
    assert small.job.size == Size(days=3, schools=1, teachers=1, pupils=1)
    assert small.violations[0].invariant == "I6"


def test_a_violation_without_faults_keeps_no_class() -> None:
    """Where the weather alone breaks it, the command says so."""
    small = shrink(record(JOB, "I1"), play=playing(lambda _: ["I1"], []))
    assert small.job.only == ()
    assert "--only none" in small.job.command()


def test_shrinking_is_bounded() -> None:
    """No more worlds are played than allowed, and what was found until then is kept."""
    played: list[Job] = []
    small = shrink(record(JOB, "I6"), play=playing(needs((ON[0], ON[2]), 1), played), tries_max=7)
    assert len(played) == 7
    assert set(classes_of(small.job)) >= {ON[0], ON[2]}


def test_what_cannot_be_smaller_stays() -> None:
    """When nothing smaller breaks, the first world is the answer."""
    first = record(JOB, "I6")
    assert shrink(first, play=playing(lambda _: [], [])) is first


def test_the_sought_violation_stands_first() -> None:
    """A smaller world that breaks something else too is named for what was sought."""
    small = shrink(record(JOB, "I6"), play=playing(lambda _: ["I2", "I6"], []), tries_max=2)
    assert [seen.invariant for seen in small.violations] == ["I6", "I2"]


def test_a_sound_world_is_refused() -> None:
    """There is nothing to shrink where nothing broke."""
    with pytest.raises(ValueError, match="nothing broke"):
        shrink(record(JOB))


def test_candidates_are_smaller_and_differ() -> None:
    """Each has fewer classes or a smaller size, and none comes twice."""
    fewer, smaller = list(fewer_classes(JOB)), list(smaller_sizes(JOB))
    assert len({*fewer, *smaller}) == len(fewer) + len(smaller)
    assert all(set(classes_of(job)) < set(ON) and job.size == JOB.size for job in fewer)
    assert all(classes_of(job) == ON and job.size != JOB.size for job in smaller)
    smallest = replace(JOB, quiet=True, size=Size(days=1, schools=1, teachers=1, pupils=1))
    assert [*fewer_classes(smallest), *smaller_sizes(smallest)] == []


def test_halves_get_down_to_single_classes() -> None:
    """Everything, each half, ..., each class alone is left out at some time."""
    assert list(halves(())) == []
    assert list(halves(("a",))) == [(), ()]
    assert {("b", "c"), ("a", "c"), ("a", "b")} <= set(halves(("a", "b", "c")))
