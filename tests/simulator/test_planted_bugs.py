"""The simulator still finds the planted bugs: each in the seed in which it was found when the page was written."""

from __future__ import annotations

from tests.simulator.saboteurs import BY_NAME
from tests.simulator.saboteurs.hunt import CPU_S, ENTRY, Control, hunt
from tests.simulator.saboteurs.table import line, read_found

SEEDS = 300
JOBS = 2


def test_every_planted_bug_is_found() -> None:
    """Whoever was found is found again, at once or after a hunt, and the same seeds pass without a saboteur."""
    found = read_found()
    control = Control(ENTRY, CPU_S)
    catches = hunt([BY_NAME[name] for name in found], control, seeds=SEEDS, jobs=JOBS, known=found)
    assert [line(catch) for catch in catches if catch.seen is None] == []
    assert control.failures == []
