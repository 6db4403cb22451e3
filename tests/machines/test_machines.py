"""Phones, server and courier under every weak-network profile, with faults that shrink.

Runs are derandomised: the same steps every time. A failure prints its few steps; the test's id is the replay command.
A longer search with other steps: HUDUR_STEPS=1000 (examples per profile), or `--hypothesis-profile=long` when this
folder is named on the command line; `--hypothesis-seed=N` for steps of one's own.
"""

from __future__ import annotations

import os

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from tests.machines.machine import machine_of
from tests.weaknet.profile import names

EXAMPLES = 24  # per profile; 17 profiles with 25 steps and the last checks take 30 s of one core
LONG = "long"

_EXAMPLES = os.environ.get("HUDUR_STEPS")


def chosen() -> settings:
    """The suite's settings, or those of a longer search."""
    is_long = settings.get_current_profile_name() == LONG
    return settings(
        max_examples=int(_EXAMPLES or (1_000 if is_long else EXAMPLES)),
        stateful_step_count=50 if is_long else 25,
        derandomize=_EXAMPLES is None and not is_long,
        database=None,
        deadline=None,  # an example is 25 conversations: how long one takes says nothing
        phases=(Phase.explicit, Phase.generate, Phase.shrink),
        suppress_health_check=(HealthCheck.too_slow,),
        print_blob=True,
    )


@pytest.mark.parametrize("profile", names())
def test_nothing_is_lost_whatever_the_steps(profile: str) -> None:
    """I1-I3, I6 and I9 hold after each step, and the others once the faults stop, under a profile's weather."""
    run_state_machine_as_test(machine_of(profile), settings=chosen())
