"""The planted bugs still fit the product, and the hunt tells a find from a failure of the simulator itself."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections import Counter

import pytest

from clientcore.backoff import wait_ms
from tests.simulator.saboteurs import BY_NAME, INVARIANTS, SABOTEURS, NotApplicable, Saboteur
from tests.simulator.saboteurs.hook import TooLate, install
from tests.simulator.saboteurs.hunt import Catch, Control, VictimDied, hunt
from tests.simulator.saboteurs.model import ROOT
from tests.simulator.saboteurs.table import as_json, line, page, read_found
from tests.simulator.saboteurs.victim import read_seeds, write_seeds

TINY, SHAKY = "tests.simulator.saboteurs.tiny:simulate", "tests.simulator.saboteurs.tiny:shaky"
LATE = BY_NAME["back-off-without-cap"]


@pytest.mark.parametrize("saboteur", SABOTEURS, ids=lambda saboteur: saboteur.name)
def test_each_saboteur_still_fits(saboteur: Saboteur) -> None:
    """Its text stands in the product once, and the result is another program that compiles."""
    sound = saboteur.source()
    bad = saboteur.apply(sound)
    compile(bad, saboteur.file, "exec")
    assert ast.dump(ast.parse(bad)) != ast.dump(ast.parse(sound))


def test_every_invariant_has_its_saboteur() -> None:
    """All eleven invariants of the design are broken by somebody, and there are as many saboteurs as promised."""
    first = Counter(saboteur.breaks[0] for saboteur in SABOTEURS)
    assert set(first) <= set(INVARIANTS)
    assert {f"I{n}" for n in range(1, 12)} <= set(first)
    assert len(SABOTEURS) == len(BY_NAME) >= 48
    assert {key for saboteur in SABOTEURS for key in saboteur.breaks} <= set(INVARIANTS)


def test_a_saboteur_that_no_longer_fits_says_so() -> None:
    """Text that is gone, or that stands twice, is refused."""
    with pytest.raises(NotApplicable, match="0 times"):
        LATE.apply("nothing of the kind\n")
    with pytest.raises(NotApplicable, match="2 times"):
        LATE.apply((LATE.before + "\n") * 2)


def test_too_late_is_refused() -> None:
    """Once the module is imported the hook would do nothing, and says so; the sound code is untouched."""
    with pytest.raises(TooLate):
        install(LATE)
    assert wait_ms(40, fraction=0.99) <= 900_000


def test_only_the_sabotaged_process_has_the_bug() -> None:
    """The bug is in the process that installed it, and neither the file nor its bytecode carries it to the next."""
    ask = "from clientcore.backoff import wait_ms; print(wait_ms(14, fraction=0.5))"
    plant = "from tests.simulator.saboteurs import BY_NAME, hook; hook.install(BY_NAME['back-off-without-cap']); "
    told = [
        subprocess.run(
            [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
        ).stdout.strip()
        for code in (plant + ask, ask)
    ]
    assert told == [str(int(5_000 * 2**13 * 0.5)), "450000"]


def _hunt(name: str, entry: str, seeds: int) -> tuple[Catch, Control]:
    control = Control(entry, 2)
    return hunt([BY_NAME[name]], control, seeds=seeds, jobs=1)[0], control


def test_a_violation_is_a_find_when_the_control_passes() -> None:
    """The first seed that shows it is told, with the invariant that fired; the control ran that seed."""
    catch, control = _hunt("back-off-without-cap", TINY, 12)
    assert catch.seen is not None
    assert (catch.seeds, catch.seen.kind, catch.seen.invariant) == (9, "violation", "I8")
    assert list(control.seen) == [9]
    assert not control.failures


def test_what_the_control_finds_too_is_no_find() -> None:
    """A seed that fails without the saboteur is passed over, the hunt goes on behind it, and the control says so."""
    catch, control = _hunt("back-off-without-cap", SHAKY, 12)
    assert catch.seen is not None
    assert (catch.seen.seed, catch.seeds, catch.seen.invariant) == (10, 9, "I8")
    assert [seen.seed for seen in control.failures] == [9]


def test_a_known_seed_is_tried_first() -> None:
    """Where a saboteur was found before it is found at once; where it is not any more, the hunt begins at seed 1."""
    control = Control(TINY, 2)
    at_once = hunt([LATE], control, seeds=12, jobs=1, known={LATE.name: 11})[0]
    assert at_once.seen is not None
    assert (at_once.seen.seed, at_once.seeds) == (11, 1)
    anew = hunt([LATE], control, seeds=12, jobs=1, known={LATE.name: 2})[0]
    assert anew.seen is not None
    assert (anew.seen.seed, anew.seeds) == (9, 9)


def test_a_crash_and_an_endless_seed_are_finds() -> None:
    """An exception that leaves the simulator counts, and so does a seed that does not end."""
    crashed, _ = _hunt("retry-after-ignored", TINY, 3)
    assert crashed.seen is not None
    assert (crashed.seeds, crashed.seen.kind) == (1, "crash")
    assert "AssertionError" in crashed.seen.detail
    stuck, _ = _hunt("run-length-bomb", TINY, 3)
    assert stuck.seen is not None
    assert (stuck.seeds, stuck.seen.kind) == (1, "stuck")


def test_who_is_not_found_is_told_so() -> None:
    """A saboteur that the seeds never reach is not found; its trace is like the control's, and the page says it."""
    control = Control(TINY, 2)
    control.run([1, 2], jobs=1)
    catch = hunt([BY_NAME["absent-by-default"]], control, seeds=2, jobs=1)[0]
    assert (catch.seen, catch.seeds, catch.unlike) == (None, 2, 0)
    assert "NOT FOUND in 2 seeds" in line(catch)
    assert "| over 2 | not found |" in page([catch], control, seeds=2)
    assert as_json([catch], control)["control"] == {"seeds": 2, "failed": []}


def test_seeds_travel_as_spans() -> None:
    """What the parent writes the process reads."""
    seeds = [1, 2, 3, 5, 8, 9]
    assert write_seeds(seeds) == "1-3,5,8-9"
    assert read_seeds(write_seeds(seeds)) == seeds


def test_a_hunt_that_cannot_begin_is_an_error() -> None:
    """A simulator that cannot be imported is no find."""
    with pytest.raises(VictimDied, match="no_such_module"):
        _hunt("absent-by-default", "no_such_module:simulate", 1)


def test_the_page_tells_of_every_saboteur() -> None:
    """At least 40 are found within 300 seeds, and the page names all that are planted, found or not."""
    found = read_found()
    assert found.keys() <= BY_NAME.keys()
    assert sum(seed <= 300 for seed in found.values()) >= 40
    told = (ROOT / "docs" / "saboteurs.md").read_text(encoding="utf-8")
    assert [name for name in BY_NAME if f"`{name}`" not in told] == []


def test_the_product_knows_nothing_of_it() -> None:
    """No file of the product names a saboteur or the laboratory's switch."""
    for package in ("clientcore", "reconciliation", "syncserver"):
        for path in sorted((ROOT / package).rglob("*.py")):
            assert "saboteur" not in path.read_text(encoding="utf-8").lower(), path
