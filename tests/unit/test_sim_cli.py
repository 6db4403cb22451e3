"""`hudur simulate` and `hudur profiles` at the command line: lazily loaded, and clear where they cannot run."""

from __future__ import annotations

import importlib
import shlex
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from syncserver import cli_lab
from syncserver.cli import main
from tests.simulator.record import Job
from tests.simulator.swarm import CLASSES
from tests.simulator.world import Size
from tests.weaknet.profile import names


def test_hudur_does_not_load_the_laboratory() -> None:
    """Importing the command line, or running another command, imports nothing of tests or its libraries."""
    script = (
        "import sys; from syncserver.cli import main\n"
        "try: main(['devices', '--help'])\n"
        "except SystemExit: pass\n"
        "print(sorted(name for name in sys.modules if name.split('.')[0] in ('tests', 'apsw')))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_outside_a_checkout_it_says_where_the_laboratory_is(tmp_path: Path) -> None:
    """The installed package has no laboratory: one line, exit 1, whatever was asked."""
    for name in ("simulate", "profiles"):
        command = cli_lab.load(f"tests.{name}", name, root=tmp_path)
        done = CliRunner().invoke(command, ["all", "--seed", "3"])
        assert done.exit_code == 1
        assert "take a checkout" in done.output
        assert "Traceback" not in done.output


def test_a_missing_library_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """In a checkout without the development dependencies the missing one is named."""

    def fail(_: str) -> None:
        raise ModuleNotFoundError("No module named 'apsw'", name="apsw")

    monkeypatch.setattr(importlib, "import_module", fail)
    done = CliRunner().invoke(cli_lab.load("tests.simulator.cli", "simulate"), [])
    assert done.exit_code == 1
    assert "needs apsw" in done.output


def test_a_broken_laboratory_is_not_called_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    """A module of ours that is not there is a fault of ours, and is raised as it is."""
    with pytest.raises(ModuleNotFoundError, match=r"tests\.simulator\.nothing"):
        cli_lab.load("tests.simulator.nothing", "simulate")
    with pytest.raises(AttributeError):
        _ = cli_lab.nothing


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("nowhere", "'nowhere' is no profile. There are: all, after-school"),
        ("all --only net.dorp", "'net.dorp' is no fault class. There are: net.drop"),
        ("all --seeds 0", "0 is not in the range"),
        ("all --saboteur nobody", "nobody"),
    ],
)
def test_a_wrong_word_is_answered_with_the_right_ones(words: str, said: str) -> None:
    """Usage errors name what there is, and exit with 2."""
    done = CliRunner().invoke(main, ["simulate", *words.split()])
    assert done.exit_code == 2
    assert said in done.output


def test_every_replay_command_can_be_typed() -> None:
    """What a job prints parses back to the same job."""
    simulate = main.get_command(click.Context(main), "simulate")
    assert simulate is not None
    size = Size(days=3, schools=2, teachers=4, pupils=9)
    for job in (
        Job(seed=5, profile=names()[0], size=size),
        Job(seed=5, profile=names()[1], size=size, quiet=True),
        Job(seed=5, profile=names()[2], size=size, only=()),
        Job(seed=5, profile=names()[3], size=size, only=tuple(CLASSES)[3:6], saboteur="retry-after-ignored"),
    ):
        hudur, command, *words = shlex.split(job.command())
        assert (hudur, command) == ("hudur", "simulate")
        found = simulate.make_context("simulate", words).params
        assert (
            Size(**{"teachers" if n == "devices" else n: found[n] for n in ("days", "schools", "devices", "pupils")})
            == size
        )
        typed = (list(found["profiles"]), found["seed"], found["quiet_faults"], found["only"], found["saboteur"])
        assert typed == ([job.profile], job.seed, job.quiet, job.only, job.saboteur)


def test_a_family_of_classes_can_be_named() -> None:
    """`phone.` means every class of the phone."""
    simulate = main.get_command(click.Context(main), "simulate")
    assert simulate is not None
    found = simulate.make_context("simulate", ["all", "--only", "phone.,net.cut"]).params["only"]
    assert found == tuple(name for name in CLASSES if name.startswith("phone.") or name == "net.cut")
