"""The worlds of the hunt: one week, one school, small classes: people meet in the same register and seeds are cheap.

Every other world has a third teacher: the roster's changes of rights need somebody who had none.
"""

from __future__ import annotations

from tests.simulator.run import Report
from tests.simulator.run import simulate as play
from tests.simulator.world import Size


def simulate(seed: int) -> Report:
    """One world, by its seed."""
    return play(seed, size=Size(days=7, schools=1, teachers=2 + seed % 2, pupils=4))
