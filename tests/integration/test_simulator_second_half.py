"""The other half of the simulated school-days of every `make test`."""

from __future__ import annotations

from tests.simulator.slice import FAULTS_MIN, SCHOOL_DAYS_MIN, differences, half, play_half
from tests.support.automerge_oracle import js_oracle


def test_no_invariant_breaks_on_the_other_profiles() -> None:
    """At least 750 school-days and 25,000 faults, and nothing broken; the JS core merges the same."""
    summary, registers = play_half(1)
    assert summary.whole.broken == []
    assert summary.by_profile.keys() == set(half(1))
    assert summary.whole.school_days >= SCHOOL_DAYS_MIN
    assert summary.whole.fault_count >= FAULTS_MIN
    with js_oracle() as core:
        disputed, told = differences(registers, core)
    assert told == []
    assert len(registers) > 200
    assert disputed > 20
