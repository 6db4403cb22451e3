"""The roads of the server on PostgreSQL: the same tests as on SQLite, in a process of their own.

Every module of this folder that opens its store by `open_world` runs so (HUDUR_TEST_STORE=postgresql); these are the
ones `make test` pays for: the road of a mark, what is settled, pulled and taken in, and an order that settles again.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
MODULES = ("road", "settle", "settle_bounds", "pull", "intake", "releases", "disputes", "outcome_rows")
_TESTS_MIN = 80  # fewer: a module was not collected


def test_the_roads_of_a_mark_are_the_same_on_postgresql() -> None:
    """Every test of these modules passes there, but for those that are about the file."""
    files = [f"tests/integration/test_{name}.py" for name in MODULES]
    words = ["-q", "-p", "no:cacheprovider", "-p", "no:xdist", "--no-cov", "--tb=short"]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *words, *files],
        cwd=ROOT, env={**os.environ, "HUDUR_TEST_STORE": "postgresql"}, capture_output=True, text=True, timeout=1_200,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-8_000:]
    passed = re.search(r"(\d+) passed", done.stdout)
    assert passed is not None
    assert int(passed[1]) >= _TESTS_MIN, done.stdout[-2_000:]
