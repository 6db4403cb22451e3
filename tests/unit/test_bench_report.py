"""docs/performance.md is generated from stored results alone: what was missed, or not measured, is said."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import pytest

from bench.report import ORDER, TEXTS, write_page
from bench.report.charts import decades, draw, steps
from bench.results import Chart, Goal, Result, Row, read_result, write_result

ABOUT = {
    "cpu": "A processor",
    "cores": 2,
    "kernel": "6.1",
    "python": "3.11.2",
    "sqlite": "3.46.0",
    "commit": "0123456789ab",
    "dirty": False,
    "at": "2026-11-28T16:00+02:00",
    "command": "python -m bench push",
    "load_before": 0.1,
}
PUSH = Result(
    name="push",
    title="Push",
    rows=(
        Row(name="kept", value=0.29, unit="CPU-s", goal=Goal(limit=0.30), group="CPU"),
        Row(name="fresh", value=0.3004, unit="CPU-s", goal=Goal(limit=0.30), group="CPU"),
        Row(name="goodput", value=81, unit="%", goal=Goal(limit=80, at_least=True), group="CPU"),
        Row(name="p50", value=3.14159, unit="ms", group="latency", note="open load"),
    ),
    charts=(Chart(name="push-latency", title="Latency", x=("25%", "50%"), lines={"p50": (3.0, None)}, unit="ms"),),
)


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    folder = tmp_path / "texts"
    folder.mkdir()
    (folder / "performance.md").write_text(
        "# Performance\n\n@goals\n\n@text push\n\n@table settle: CPU\n@about settle\n"
    )
    (folder / "push.md").write_text(
        "By hand.\n\n@table push: CPU\n\n@table push: latency\n\n@chart push-latency\n\n@chart settle-lag\n\n"
        "@about push\n"
    )
    return folder


def page_of(results: dict[str, Result], texts: Path) -> str:
    page = texts.parent / "docs" / "performance.md"
    write_page(results, texts=texts, page=page)
    return page.read_text()


def test_a_stored_result_is_read_back_as_it_was(tmp_path: Path) -> None:
    write_result(PUSH, ABOUT, tmp_path)
    assert read_result("push", tmp_path) == replace(PUSH, about=ABOUT)
    assert read_result("settle", tmp_path) is None


def test_figures_goals_text_and_picture_stand_on_the_page(tmp_path: Path, texts: Path) -> None:
    write_result(PUSH, ABOUT, tmp_path)
    stored = read_result("push", tmp_path)
    assert stored is not None
    text = page_of({"push": stored}, texts)
    assert "| kept | 0.29 CPU-s | ≤ 0.3 | met |" in text
    assert "| p50 | 3.14 ms | open load |" in text
    assert "By hand." in text
    assert "`0123456789ab` by `python -m bench push`: A processor, 2 cores" in text
    picture = ElementTree.parse(tmp_path / "docs" / "performance" / "push-latency.svg").getroot()
    assert picture.tag.endswith("svg")
    assert not [one for one in picture.iter() if one.tag.endswith("script")]


def test_a_goal_that_was_missed_is_shown_as_missed_even_where_rounding_hides_it(texts: Path) -> None:
    text = page_of({"push": replace(PUSH, about=ABOUT)}, texts)
    assert "| fresh | 0.3 CPU-s | ≤ 0.3 | **missed** |" in text
    assert "| `push` | CPU: fresh | 0.3 CPU-s | ≤ 0.3 | **missed** |" in text
    assert "| goodput | 81 % | ≥ 80 | met |" in text


def test_what_was_not_run_is_said_to_be_not_measured(texts: Path) -> None:
    text = page_of({"push": replace(PUSH, about=ABOUT)}, texts)
    assert text.count("| not measured |") == len(ORDER) - 1
    assert "| `settle` | | not measured | | |" in text
    assert text.count("*Not measured.*") == 3  # its table, its picture, its machine
    text = page_of({}, texts)
    assert "| `push` | | not measured | | |" in text
    assert "met |" not in text


def test_a_run_of_changed_files_says_so(texts: Path) -> None:
    text = page_of({"push": replace(PUSH, about=ABOUT | {"dirty": True})}, texts)
    assert "`0123456789ab` with changes not yet committed by" in text


def test_a_run_on_a_busy_machine_says_so(texts: Path) -> None:
    assert "busy" not in page_of({"push": replace(PUSH, about=ABOUT)}, texts)
    text = page_of({"push": replace(PUSH, about=ABOUT | {"load_before": 4.4})}, texts)
    assert "load of the machine before the run 4.4. **The machine was busy" in text


def test_a_picture_nobody_drew_this_time_is_removed(texts: Path) -> None:
    page_of({"push": replace(PUSH, about=ABOUT)}, texts)
    folder = texts.parent / "docs" / "performance"
    assert [path.name for path in folder.iterdir()] == ["push-latency.svg"]
    page_of({}, texts)
    assert list(folder.iterdir()) == []


def test_a_line_that_means_nothing_is_refused(texts: Path) -> None:
    (texts / "push.md").write_text("@tabel push: CPU\n")
    with pytest.raises(ValueError, match="@tabel"):
        page_of({}, texts)


def test_the_texts_of_the_page_ask_for_nothing_unknown(tmp_path: Path) -> None:
    """The real texts render without any result: every directive is known and every included text is there."""
    page = tmp_path / "performance.md"
    write_page({}, texts=TEXTS, page=page)
    assert "| `push` | | not measured | | |" in page.read_text()


@pytest.mark.parametrize("values", [(0.004,), (0.31, 0.47), (1, 9.99), (3, 10, 140), (0,), (99.9, 480_000)])
def test_an_axis_holds_every_value(values: tuple[float, ...]) -> None:
    assert steps(max(values))[0] == 0
    assert steps(max(values))[-1] >= max(values)
    assert len(steps(max(values))) <= 7
    positive = [value for value in values if value > 0]
    assert not positive or decades(values)[0] <= min(positive) <= max(positive) <= decades(values)[-1]


def test_a_value_that_was_not_measured_is_a_gap() -> None:
    chart = Chart(name="gap", title="Gap", x=("a", "b", "c"), lines={"one": (1.0, None, 3.0)}, unit="s")
    assert draw(chart).count(b"<circle") == 2
    assert draw(replace(chart, kind="bar")).count(b"<rect") == 2
