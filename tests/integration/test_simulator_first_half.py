"""Half of the simulated school-days of every `make test`; test_simulator_second_half.py runs beside it."""

from __future__ import annotations

from tests.simulator.slice import FAULTS_MIN, SCHOOL_DAYS_MIN, differences, half, play_half
from tests.simulator.swarm import CLASSES
from tests.support.automerge_oracle import js_oracle
from tests.weaknet.profile import names

INVARIANTS = {f"I{number}" for number in range(1, 12)}


def test_no_invariant_breaks_on_every_second_profile() -> None:
    """At least 750 school-days and 25,000 faults of every family; no invariant broken; the JS core merges the same."""
    summary, registers = play_half(0)
    assert summary.whole.broken == []
    assert summary.by_profile.keys() == set(half(0))
    assert summary.whole.school_days >= SCHOOL_DAYS_MIN
    assert summary.whole.fault_count >= FAULTS_MIN
    assert summary.whole.checks.keys() >= INVARIANTS
    assert {name.split(".")[0] for name in CLASSES} - {"people"} <= {
        name.split(".")[0] for name in summary.whole.faults
    }
    with js_oracle() as core:
        disputed, told = differences(registers, core)
    assert told == []
    assert len(registers) > 200
    assert disputed > 20


def test_the_halves_are_the_whole() -> None:
    """Every profile is in one of the halves, once."""
    assert sorted([*half(0), *half(1)]) == sorted(names())
