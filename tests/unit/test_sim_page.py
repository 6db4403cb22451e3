"""The reliability page: figures written between their markers, and a picture that is right where it can be checked."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path
from xml.etree import ElementTree

import pytest

from tests.simulator.ledger import Violation
from tests.simulator.page import counts, replaced, weather, weather_jobs, write
from tests.simulator.picture import MARKS_MS, Spread, place, svg
from tests.simulator.record import Job, Record
from tests.simulator.summary import Summary
from tests.simulator.world import Size
from tests.weaknet.profile import names

PAGE = "before\n<!-- weather: written by a command -->\nold\n<!-- weather: end -->\nafter\n"


def record(profile: str, *late_ms: int, broken: bool = False) -> Record:
    return Record(
        job=Job(seed=1, profile=profile, size=Size()),
        cpu_s=1.0,
        violations=(Violation(invariant="I2", at_ms=0, detail=""),) if broken else (),
        school_days=10,
        registers=4,
        requests=8,
        failed_requests=2,
        bytes_up=4_000,
        faults=Counter({"net.drop": 3}),
        checks=Counter({"I2": 7}),
        lateness_ms=late_ms,
    )


def test_the_page_gets_its_table_and_its_picture(tmp_path: Path) -> None:
    """What stood between the markers is exchanged, the rest stays; a profile that brought nothing has no range."""
    (tmp_path / "images").mkdir()
    (tmp_path / "reliability.md").write_text(PAGE)
    summary = Summary.of([record("cairo-4g-good", 900, 5_000), record("sinai-no-signal-weekly-courier")])
    write(summary, tmp_path, 3)
    page = (tmp_path / "reliability.md").read_text()
    assert page.startswith("before\n")
    assert page.endswith("after\n")
    assert "old" not in page
    assert "| cairo-4g-good | 5.0 s | 5.0 s | 5.0 s | 1,000 | 0 | 2.0 | 25% |" in page
    assert "| sinai-no-signal-weekly-courier | – | – | – |" in page
    picture = (tmp_path / "images" / "lateness.svg").read_text()
    assert "cairo-4g-good" in picture
    assert "sinai-no-signal" not in picture


def test_a_violation_is_not_hidden_on_the_page() -> None:
    """Bold, and counted by world."""
    assert "**1 worlds with a violation**" in weather(Summary.of([record("cairo-4g-good", 1, broken=True)]), 1)
    assert "no violation" in weather(Summary.of([record("cairo-4g-good", 1)]), 1)


@pytest.mark.parametrize("text", ["no markers", PAGE * 2])
def test_a_page_without_one_place_is_refused(text: str) -> None:
    """Neither nowhere nor in two places."""
    with pytest.raises(ValueError, match="places for weather"):
        replaced(text, "weather", "new")


def test_the_page_of_the_repository_has_its_place() -> None:
    """The command can write the page as it is."""
    page = (Path(__file__).parents[2] / "docs" / "reliability.md").read_text()
    assert "\nnew\n" in replaced(page, "weather", "new")


def test_every_profile_is_measured_in_its_own_weather() -> None:
    """No fault classes, all profiles, the same seeds."""
    jobs = weather_jobs(2)
    assert {(job.profile, job.seed) for job in jobs} == {(profile, seed) for profile in names() for seed in (1, 2)}
    assert all(job.quiet for job in jobs)


def test_counts_stand_in_two_tables() -> None:
    """Faults by kind, looks by invariant."""
    told = counts(Summary.of([record("cairo-4g-good", 5)] * 2))
    assert "| net.drop | 6 |" in told
    assert "| I2 | 14 |" in told
    assert "20 school-days" in told


def test_the_picture_is_to_scale() -> None:
    """The axis is logarithmic, the dot stands at the median, and the fastest profile comes first."""
    assert place(1_000) - place(100) == pytest.approx(place(10_000) - place(1_000), abs=0.2)
    assert place(MARKS_MS[-1][0] * 9) == place(MARKS_MS[-1][0])
    slow, fast = Spread.of("slow", [60_000] * 9), Spread.of("fast", list(range(1_000, 2_001)))
    assert (fast.p5, fast.p50, fast.p95, fast.greatest) == (1_050, 1_500, 1_950, 2_000)
    drawn = svg([slow, fast], "late")
    ElementTree.fromstring(drawn)
    assert drawn.index("fast") < drawn.index("slow")
    assert [float(x) for x in re.findall(r'<circle cx="([0-9.]+)"', drawn)] == [place(1_500), place(60_000)]
