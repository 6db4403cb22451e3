"""A whole governorate, small: what the installed commands say is what a second computation says, number by number.

The large one is `python -m bench.governorate --schools 500`; the code is the same.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from bench.governorate import Hudur, Wish, check_all, check_report, check_stored, second_of
from reconciliation.calendar import week_of
from tests.support.governorate import Size, plan_school, school_name, size_before
from tests.support.governorate_check import Second
from tests.support.governorate_store import write_store
from tests.support.governorate_wire import ZONE_NAME

SCHOOLS, CLASSES, WEEKS = 10, 5, 5


@dataclass(frozen=True, slots=True)
class Place:
    size: Size
    folder: Path
    hudur: Hudur
    counts: dict[str, int]

    def second(self) -> Second:
        return second_of(self.size, self.folder)


def odd_day(size: Size) -> str:
    """The holiday on which somebody takes a register."""
    return next(one.date for one in plan_school(size, 3) if not size.is_open(one.date))


def wishes(size: Size) -> list[Wish]:
    """Every kind of report over both periods, every format at least once, an open and a closed day."""
    full, odd = size.week(3), school_name(3)
    day, closed = size.open_days(full)[1], odd_day(size)
    return [
        Wish("district", "d-01", "week", full, "json"),
        Wish("district", "d-01", "day", day, "csv"),
        Wish("district", "d-01", "day", closed, "jsonl"),
        Wish("school", odd, "week", closed, "xlsx"),
        Wish("school", school_name(5), "day", day, "table"),
        Wish("class", f"{odd}/c-00", "week", closed, "json"),
        Wish("class", school_name(5), "day", day, "csv"),
    ]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    """A governorate whose term has just ended by the clock of this machine, which is the clock of the commands."""
    folder = tmp_path_factory.mktemp("governorate")
    today = datetime.now(ZoneInfo(ZONE_NAME)).date().isoformat()
    size = size_before(today, weeks_ago=8, schools=SCHOOLS, classes=CLASSES, weeks=WEEKS, paused=(2,), short=(1,))
    hudur = Hudur(folder / "store.db")
    return Place(size, folder, hudur, write_store(size, folder, hudur, cores=1, prove_every=1))


@pytest.fixture(scope="module")
def differences(place: Place) -> list[str]:
    return check_all(place.size, place.hudur, place.second(), wishes(place.size), (0, 3, 4))


def test_every_number_of_the_commands_is_that_of_the_second_computation(differences: list[str]) -> None:
    assert differences == []


def test_every_outcome_is_spelled_as_the_real_code_spells_it(place: Place) -> None:
    assert place.counts["proved"] == place.counts["registers"] > 900


def test_the_governorate_has_schools_of_every_fate(place: Place, differences: list[str]) -> None:
    assert differences == []
    second = place.second()
    gates, weeks, first = second.gates(), second.weeks(), place.size.first
    decisive = [place.size.week(number) for number in (0, 1, 3, 4)]  # the holidays pause the count
    assert gates[school_name(0)] == gates[school_name(1)] == (True, decisive)
    assert not any(gates[school_name(number)][0] for number in (2, 3, 4, 5, 6))
    exact, below = weeks[school_name(1), first], weeks[school_name(2), first]
    assert exact["matched"] * 100 == exact["compared"] * 98
    assert (exact["status"], below["status"]) == ("passed", "failed")
    assert below["matched"] + 1 == below["compared"] * 98 // 100
    assert weeks[school_name(3), place.size.week(1)]["status"] == "not_evaluable"
    assert weeks[school_name(3), place.size.week(1)]["excluded"] > 0
    assert {one["status"] for one in weeks.values()} == {"passed", "failed", "not_evaluable", "paused"}


def test_a_planted_wrong_number_is_found_in_reports_and_in_verdicts(place: Place, differences: list[str]) -> None:
    assert differences == []
    second = place.second()
    second.plant_wrong_number(school_name(0))
    assert check_stored(second, place.hudur.store) != []
    wish = Wish("district", "d-01", "week", place.size.first, "csv")
    found = check_report(place.hudur, second, wish)
    assert len(found) >= 2
    assert all(school_name(0) in line for line in found)


def test_the_same_arguments_give_the_same_governorate() -> None:
    size = size_before("2026-11-28", weeks_ago=8, classes=2, weeks=3, paused=(2,), short=(1,))
    assert plan_school(size, 7) == plan_school(size, 7) != plan_school(size, 8)
    assert week_of(size.first) == size.first
