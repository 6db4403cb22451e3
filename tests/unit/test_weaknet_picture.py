"""The pictures show what the timeline holds, and `hudur profiles` finds its way."""

from __future__ import annotations

import io
import json
from pathlib import Path
from xml.etree import ElementTree

import pytest
from click.testing import CliRunner, Result
from rich.console import Console

from tests.weaknet.cli import profiles
from tests.weaknet.picture import BLOCKS, OFF, WIDTH, picture, short, span_of
from tests.weaknet.profile import load, names
from tests.weaknet.strips import CELL_MS, Cell, strips
from tests.weaknet.svg import svg
from tests.weaknet.timeline import compile_timeline

SVG = "{http://www.w3.org/2000/svg}"


def drawn(name: str, seed: int = 0) -> list[str]:
    out = io.StringIO()
    Console(file=out, width=WIDTH).print(picture(compile_timeline(load(name), seed)))
    return out.getvalue().splitlines()


def run(*args: str) -> Result:
    return CliRunner().invoke(profiles, args)


@pytest.mark.parametrize("name", names())
def test_every_profile_draws_within_a_hundred_columns(name: str) -> None:
    """One strip a day, nothing wraps."""
    lines = drawn(name)
    assert max(map(len, lines)) <= WIDTH
    assert sum(line[:3] in {"Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"} for line in lines) == load(name).span.days


def test_the_strip_shows_when_the_link_is_there() -> None:
    """A school line is there from 07:30 to 13:30 on school days: 17 whole cells, and a half one on either side."""
    sunday = next(line for line in drawn("school-dsl-quota-spent") if line.startswith("Sun 04"))
    cells = sunday[11 : 11 + 72]
    assert cells[:22] == OFF * 22
    assert cells[23:40] == BLOCKS[2] * 17
    assert cells[41:] == OFF * 31
    friday = next(line for line in drawn("school-dsl-quota-spent") if line.startswith("Fri 09"))
    assert friday[11 : 11 + 72] == OFF * 72
    assert friday[86:].split() == ["0%", "-"]


def test_heights_are_logarithmic_and_off_is_zero() -> None:
    """8 kbit/s is the lowest block, 6 Mbit/s and more the highest, a link without rate is still a link."""

    def cell(up_kbps: float, link: int | None = 0) -> Cell:
        return Cell(on=1.0, link=link, up_kbps=up_kbps, down_kbps=0, refused=0, letter="")

    assert [cell(rate).height for rate in (0, 8, 20, 50, 350, 6_400, 1e6)] == [1, 1, 1, 2, 4, 8, 8]
    assert cell(100, None).height == 0


def test_events_stand_under_their_hour() -> None:
    """The hand-over of 12:20 is an H under the 38th cell of every school day, though kills crowd the phone."""
    lines = drawn("shared-phone-two-teachers", 3)
    below = {line[:3]: lines[place + 1] for place, line in enumerate(lines) if line[4:6].isdigit()}
    assert all(below[day][11 + 37] == "H" for day in ("Sun", "Mon", "Tue", "Wed", "Thu"))
    assert "H hand-over   k app ended" in lines
    assert not any("W all data cleared" in line for line in lines)


def test_a_lost_file_looks_different_from_one_that_came() -> None:
    """Couriers' files are F, lost ones f."""
    for seed in range(60):
        events = compile_timeline(load("sinai-no-signal-weekly-courier"), seed).events
        if any(one.kind == "carry" and one.detail["lost"] for one in events):
            break
    text = "\n".join(drawn("sinai-no-signal-weekly-courier", seed))
    assert "f courier's file lost" in text
    assert "no network at all" in text


def test_the_day_of_the_clock_change_is_shorter() -> None:
    """Friday 30 April 2027 has 69 cells and says why."""
    days = strips(compile_timeline(load("dst-clock-chaos"), 0))
    assert [len(day.cells) for day in days] == [72, 72, 72, 72, 72, 69, 72, 72, 72]
    assert "23 hours: the clocks change" in "\n".join(drawn("dst-clock-chaos"))


def test_a_cell_is_the_mean_of_its_time() -> None:
    """A link that flaps shows the share of time it is on, not the state at one instant."""
    timeline = compile_timeline(load("upper-egypt-edge-rural"), 1)
    day = strips(timeline)[0]
    exact = list(timeline.between(0, len(day.cells) * CELL_MS))
    on = sum(one.to_ms - one.from_ms for one in exact if one.link is not None) / exact[-1].to_ms
    assert day.on == pytest.approx(on, abs=0.03)


def test_the_svg_is_sound_and_the_same_every_time() -> None:
    """Well-formed, no script, nothing from elsewhere; one bar for each cell with a link."""
    timeline = compile_timeline(load("load-shedding-two-hours"), 0)
    text = svg(timeline)
    assert text == svg(compile_timeline(load("load-shedding-two-hours"), 0))
    root = ElementTree.fromstring(text)
    bars = root.findall(f"{SVG}rect")
    assert len(bars) == sum(cell.link is not None for day in strips(timeline) for cell in day.cells)
    assert "script" not in text
    assert "href" not in text
    assert text.count("http") == 1  # the namespace


def test_numbers_are_short() -> None:
    """What stands in a strip fits its column."""
    assert [short(value) for value in (0, 0.5, 9.54, 26, 840, 1_300, 13_900, 1e6)] == [
        "0", "0.5", "9.5", "26", "840", "1.3k", "14k", "1000k",
    ]  # fmt: skip
    assert span_of(load("gprs-rooftop-once-a-day").links[0].up_kbps) == "18"


def test_the_command_lists_all_profiles() -> None:
    """No argument: every profile, and the totals; `--json` the same as data."""
    result = run()
    assert result.exit_code == 0
    assert all(name in result.output for name in names())
    assert f"{len(names())} profiles" in result.output
    found = json.loads(run("list", "--json").output)
    assert [one["id"] for one in found] == list(names())
    total = sum(one["measured"] + one["derived"] + one["assumed"] for one in found)
    assert f"{total} numbers" in result.output


def test_the_command_draws_by_name(tmp_path: Path) -> None:
    """`profiles NAME` is `profiles draw NAME`; seeds differ; --svg writes the file; a wrong name is told plainly."""
    one, other = run("upper-egypt-edge-rural", "--seed", "5"), run("draw", "upper-egypt-edge-rural", "--seed", "5")
    assert one.exit_code == 0
    assert one.output == other.output
    assert "seed 5" in one.output
    assert run("upper-egypt-edge-rural", "--seed", "6").output != one.output
    target = tmp_path / "edge.svg"
    assert run("upper-egypt-edge-rural", "--seed", "5", "--svg", str(target)).exit_code == 0
    assert target.read_text() == svg(compile_timeline(load("upper-egypt-edge-rural"), 5))
    wrong = run("upper-egypt")
    assert wrong.exit_code == 1
    assert "upper-egypt-edge-rural" in wrong.output
    assert "Traceback" not in wrong.output
    assert run("--help").exit_code == 0
