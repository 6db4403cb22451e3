"""What holds for every test: the order of the files, one log for all, and no claim about how long an example takes."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

settings.register_profile(
    "suite",
    parent=settings.get_profile(settings.get_current_profile_name()),
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("suite")

TESTS = Path(__file__).parent
# So that no worker is left alone with one of them at the end.
# `--dist loadfile` hands out whole files in this order (with `--no-loadscope-reorder`); each takes a minute or more.
LONGEST = (
    "simulator/test_planted_bugs.py",
    "integration/test_simulator_first_half.py",
    "integration/test_simulator_second_half.py",
    "machines/test_planted.py",
    "machines/test_machines.py",
    "integration/test_on_postgres.py",
    "contract/test_upstream_contract.py",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Sort the longest files to the front; everything else keeps its order."""
    rank = {TESTS / name: place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: rank.get(item.path, len(rank)))


@pytest.fixture(autouse=True)
def _the_log_speaks_again() -> Iterator[None]:
    """Simulated worlds silence the log for the rest of their process; the next test may be about what it says."""
    yield
    logging.getLogger("hudur").setLevel(logging.NOTSET)
