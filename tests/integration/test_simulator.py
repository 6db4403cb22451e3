"""The simulator as a whole: one seed is one run everywhere; a planted bug is found, shown again and made small."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from syncserver.cli import main
from tests.simulator.crew import play_all
from tests.simulator.ledger import Ledger
from tests.simulator.record import Job, Record, play
from tests.simulator.shrink import classes_of
from tests.simulator.world import Size

ROOT = Path(__file__).parents[2]
SIZE = Size(days=3, schools=1, teachers=2, pupils=5)
BUG, BUG_PROFILE, BUG_SEED = "retry-after-ignored", "upper-egypt-edge-rural", 5
BUG_SIZE = ("--days", "1", "--pupils", "3")


def job(seed: int, profile: str = "minya-school-wifi-herd") -> Job:
    return Job(seed=seed, profile=profile, size=SIZE)


def elsewhere(jobs: list[Job], hash_seed: str) -> list[Record]:
    """The same worlds in a fresh process with another order of sets and dictionaries of bytes and texts."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.simulator.child", "60"],
        input="".join(f"{one.to_json()}\n" for one in jobs),
        env={**os.environ, "PYTHONHASHSEED": hash_seed},
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=True,
    )
    return [Record.from_json(line) for line in done.stdout.splitlines()]


def hudur(*words: str) -> Result:
    return CliRunner().invoke(main, ["simulate", *words, "--json"])


def test_one_seed_is_one_run() -> None:
    """Digest, faults, checks, bytes, lateness: the same in this process, and in others under two hash seeds."""
    here = play(job(11)).without_machine()
    assert here.faults.total() > 20
    assert here == play(job(11)).without_machine()
    for hash_seed in ("0", "4321"):
        other, again = elsewhere([job(12), job(11)], hash_seed)  # what was played before leaves nothing behind
        assert again.without_machine() == here
        assert other.digest != here.digest


def test_a_planted_bug_is_reported_with_a_command_that_shows_it_again_and_shrinks() -> None:
    """The command line finds it (exit 1); its replay command finds the same; the smallest world is smaller."""
    found = hudur(BUG_PROFILE, "--seed", str(BUG_SEED), *BUG_SIZE, "--saboteur", BUG, "--shrink")
    assert found.exit_code == 1, found.output
    told = json.loads(found.stdout)
    (seen,) = told["violations"]
    assert seen["invariant"] == "L2"
    again = CliRunner().invoke(main, shlex.split(seen["replay"])[1:])
    assert again.exit_code == 1
    assert "VIOLATION L2" in again.output
    (smallest,) = told["smallest"]
    words = shlex.split(smallest)
    assert words[words.index("--pupils") + 1] == "1"
    kept = words[words.index("--only") + 1].split(",")
    assert len(kept) < len(classes_of(Job(seed=BUG_SEED, profile=BUG_PROFILE, size=SIZE))) / 2
    small = CliRunner().invoke(main, words[1:])
    assert small.exit_code == 1
    assert "VIOLATION L2" in small.output


def test_the_same_world_without_the_bug_is_sound() -> None:
    """The find above is the bug's doing."""
    sound = hudur(BUG_PROFILE, "--seed", str(BUG_SEED), *BUG_SIZE)
    assert sound.exit_code == 0, sound.output
    assert json.loads(sound.stdout)["violations"] == []


def test_a_checker_that_finds_something_is_heard(monkeypatch: pytest.MonkeyPatch) -> None:
    """One look that fails is one violation, with its moment and its words, in the record and in its line."""
    looked = Ledger.check

    def stern(self: Ledger, invariant: str, holds: bool, detail: str = "") -> None:
        is_planted = invariant == "I6" and not self.checks["I6"]
        looked(self, invariant, holds and not is_planted, detail or "planted")

    monkeypatch.setattr(Ledger, "check", stern)
    record = play(job(11))
    assert [one.invariant for one in record.violations] == ["I6"]
    assert record.violations[0].at_ms > 0
    assert Record.from_json(record.to_json()) == record


def test_fault_classes_have_chance_of_their_own() -> None:
    """Without faults the weather alone is met; one class alone brings its own faults, and no other class's."""
    weather = play(Job(seed=3, profile="cairo-4g-good", size=SIZE, quiet=True))
    assert weather.violations == ()
    assert not [kind for kind in weather.faults if kind.startswith(("server.", "bad.", "people."))]
    seed = next(n for n in range(1, 50) if "server.eio" in classes_of(job(n)))
    (alone,) = play_all([Job(seed=seed, profile="cairo-4g-good", size=SIZE, only=("server.eio",))], processes=1)
    assert alone.faults["server.eio"] > 0
    kinds = {kind.split(".")[0] for kind in alone.faults if kind not in weather.faults}
    assert kinds == {"server"}
