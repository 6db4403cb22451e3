"""Parity: what is compared, what is a mismatch, and what a week is to the gate. All arithmetic is exact."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from fractions import Fraction

import pytest

from clientcore.history import merge
from clientcore.register import Code
from reconciliation.anomalies import Kind, Sign
from reconciliation.decisions import Decisions, Ruling
from reconciliation.model import first_receipts
from reconciliation.paper import Document, Family, SheetState, read_sheet
from reconciliation.parity import (
    Digital,
    Key,
    RegisterParity,
    Standing,
    Status,
    WeekParity,
    expected_registers,
    read_digital,
    weigh,
)
from reconciliation.reconcile import reconcile
from tests.support.histories import REGISTER, Phone, context, receipt
from tests.support.school_weeks import PUPILS, WEEK, at_once, by_hand, days, entry, marks, outcome, register, sheet

SUNDAY, MONDAY, TUESDAY, WEDNESDAY, THURSDAY = days()
KEY: Key = ("c-3a", SUNDAY, "day")
THREE = frozenset(("s001", "s002", "s003"))


def digital(**families: Family | None) -> Digital:
    """Three pupils, present unless said otherwise."""
    return Digital(families={**dict.fromkeys(sorted(THREE), Family.PRESENT), **families})


def one(taken: Digital | None, paper: Mapping[str, str] | None, *signs: Sign) -> RegisterParity:
    """One register weighed."""
    week = weigh(
        WEEK,
        document=Document.PERIOD_SHEET,
        open_days=5,
        expected={KEY: THREE},
        digital={} if taken is None else {KEY: taken},
        sheets={} if paper is None else {KEY: sheet(paper)},
        signs={KEY: signs},
    )
    return week.registers[0]


def week_of_cells(
    matched: int, compared: int, *, open_days: int = 5, more: tuple[RegisterParity, ...] = ()
) -> WeekParity:
    """A covered week with these sums."""
    whole = RegisterParity(key=KEY, standing=Standing.COMPARED, cells=compared, matched=matched)
    return WeekParity(week=WEEK, document=Document.PERIOD_SHEET, open_days=open_days, registers=(whole, *more))


def others(standing: Standing, count: int, cells: int = 0, matched: int = 0) -> tuple[RegisterParity, ...]:
    """More registers of the week."""
    keys = [(f"x-{n}", SUNDAY, "day") for n in range(count)]
    return tuple(RegisterParity(key=key, standing=standing, cells=cells, matched=matched) for key in keys)


FLAG = Sign(kind=Kind.COPIED_PATTERN, score=Fraction(4, 5), count=32, of=40)
DOUBT = Sign(kind=Kind.COPIED_PATTERN, score=Fraction(31, 40), count=31, of=40)


@pytest.mark.parametrize(
    ("family", "paper", "agrees"),
    [
        (Family.PRESENT, {}, True),
        (Family.PRESENT, {"s001": "A"}, False),
        (Family.ABSENT, {"s001": "A"}, True),
        (Family.ABSENT, {"s001": "E"}, True),
        (Family.ABSENT, {}, False),
        (Family.LATE, {"s001": "L"}, True),
        (Family.LATE, {"s001": "A"}, False),
        (Family.LATE, {}, False),
        (None, {}, False),
        (None, {"s001": "A"}, False),
    ],
)
def test_both_records_agree_by_family_and_not_taken_agrees_with_nothing(
    family: Family | None, paper: dict[str, str], agrees: bool
) -> None:
    """The kind of an absence is not the paper's; and *not taken* is not *absent*."""
    found = one(digital(s001=family), paper)
    assert (found.standing, found.cells, found.matched) == (Standing.COMPARED, 3, 3 if agrees else 2)
    assert sum(found.kinds.values()) == 3 - found.matched


def test_mismatches_are_counted_by_what_both_say() -> None:
    """Enough to know where to look; no pupil is named."""
    found = one(digital(s001=None, s002=Family.LATE), {"s001": "A"})
    assert found.kinds == {"absent/not_taken": 1, "present/late": 1}


def test_paper_without_digital_is_a_mismatch_in_every_cell() -> None:
    """Nobody marked, or all marks are held: never left out of the sum."""
    for taken in (None, Digital(families=dict.fromkeys(THREE))):
        found = one(taken, {})
        assert (found.standing, found.cells, found.matched) == (Standing.DIGITAL_MISSING, 3, 0)


def test_digital_without_paper_is_not_compared_and_lowers_the_coverage() -> None:
    """The same while two people are asked for, or differ."""
    assert one(digital(), None).standing is Standing.PAPER_MISSING
    waiting = read_sheet([entry(1, {})], Document.PERIOD_SHEET, two_person=True)
    differing = read_sheet([entry(1, {}), entry(2, {"s001": "A"}, by="x")], Document.PERIOD_SHEET, two_person=False)
    for found, standing in ((waiting, Standing.PAPER_WAITING), (differing, Standing.PAPER_DIFFERENT)):
        assert found is not None
        week = weigh(
            WEEK, document=Document.PERIOD_SHEET, open_days=5, expected={KEY: THREE}, digital={KEY: digital()},
            sheets={KEY: found}, signs={},
        )  # fmt: skip
        assert found.state is not SheetState.COUNTS
        assert (week.registers[0].standing, week.coverage, week.compared) == (standing, Fraction(0), 0)


def test_a_session_that_did_not_take_place_is_not_compared_unless_paper_says_it_did() -> None:
    """Without paper it is not expected; with signed paper every cell is a mismatch, as where nobody marked."""
    none = Digital(families=dict.fromkeys(THREE), no_session=True)
    assert one(none, None).standing is Standing.NO_SESSION
    contradicted = one(none, {})
    assert (contradicted.standing, contradicted.cells, contradicted.matched) == (Standing.DIGITAL_MISSING, 3, 0)


def test_a_flagged_register_is_excluded_and_shown_and_a_doubt_excludes_nothing() -> None:
    """Its cells are not compared; its signs are kept."""
    found = one(digital(), {}, FLAG)
    assert (found.standing, found.signs) == (Standing.EXCLUDED, (FLAG,))
    assert one(digital(), {}, DOUBT).standing is Standing.COMPARED


def test_ninety_eight_percent_exactly_passes_and_one_cell_less_fails() -> None:
    """No float ever rounds a school over or under the line."""
    assert week_of_cells(98, 100).status is Status.PASSED
    assert week_of_cells(9_799, 10_000).status is Status.FAILED
    assert week_of_cells(98 * 10**15, 100 * 10**15).status is Status.PASSED
    assert week_of_cells(98 * 10**15 - 1, 100 * 10**15).status is Status.FAILED


def test_a_week_below_minimal_coverage_cannot_pass() -> None:
    """Nine of ten registers suffice, eight do not."""
    enough = week_of_cells(100, 100, more=(*others(Standing.COMPARED, 8), *others(Standing.PAPER_MISSING, 1)))
    assert (enough.coverage, enough.status) == (Fraction(9, 10), Status.PASSED)
    little = week_of_cells(100, 100, more=(*others(Standing.COMPARED, 7), *others(Standing.PAPER_MISSING, 2)))
    assert (little.coverage, little.status) == (Fraction(8, 10), Status.NOT_EVALUABLE)


def test_a_week_with_too_many_exclusions_cannot_pass() -> None:
    """One of ten is borne, two of ten are not, however well the rest agrees."""
    borne = week_of_cells(100, 100, more=(*others(Standing.COMPARED, 8), *others(Standing.EXCLUDED, 1, 40, 40)))
    assert borne.status is Status.PASSED
    many = week_of_cells(100, 100, more=(*others(Standing.COMPARED, 7), *others(Standing.EXCLUDED, 2, 40, 40)))
    assert (many.excluded_share, many.status) == (Fraction(2, 10), Status.NOT_EVALUABLE)


def test_disagreements_of_an_excluded_register_still_stand_against_the_week() -> None:
    """Else copying a bad register would be a way to pass."""
    rest = others(Standing.COMPARED, 8)
    week = week_of_cells(98, 100, more=(*rest, *others(Standing.EXCLUDED, 1, 40, 39)))
    assert (week.rate, week.guarded, week.status) == (Fraction(98, 100), Fraction(98, 101), Status.FAILED)


def test_holiday_weeks_pause() -> None:
    """Fewer than three open days say nothing, whatever they show."""
    assert week_of_cells(0, 100, open_days=2).status is Status.PAUSED
    assert week_of_cells(100, 100, open_days=3).status is Status.PASSED


def test_a_week_in_which_nothing_was_expected_or_compared_is_not_evaluable() -> None:
    """Nothing is no evidence."""
    empty = WeekParity(week=WEEK, document=Document.PERIOD_SHEET, open_days=5, registers=())
    assert (empty.status, empty.rate, empty.guarded, empty.coverage) == (Status.NOT_EVALUABLE, None, None, Fraction(0))
    assert week_of_cells(0, 0, more=others(Standing.NO_SESSION, 3)).status is Status.NOT_EVALUABLE


def test_registers_are_expected_for_every_class_with_pupils_and_every_session_of_open_days() -> None:
    """A closed day has no sessions; a class without pupils has no register."""
    rosters = {day: {"c-1": THREE, "c-2": frozenset[str]()} for day in days()}
    sessions = {SUNDAY: ("am1", "am2"), MONDAY: ()}
    found = expected_registers(rosters, sessions, set())
    assert sorted(found) == [("c-1", SUNDAY, "am1"), ("c-1", SUNDAY, "am2")]


def test_in_a_school_of_two_shifts_a_class_is_expected_in_its_own() -> None:
    """By what was seen of it that week; of whom nothing was seen, in the first."""
    rosters = {SUNDAY: {"c-1": THREE, "c-2": THREE}}
    sessions = {SUNDAY: ("am1", "am2", "pm1", "pm2")}
    found = expected_registers(rosters, sessions, {("c-2", MONDAY, "pm1")})
    assert sorted((name, session) for name, _, session in found) == [
        ("c-1", "am1"),
        ("c-1", "am2"),
        ("c-2", "pm1"),
        ("c-2", "pm2"),
    ]


def test_the_digital_side_is_read_from_an_outcome() -> None:
    """Codes become families; who was not marked is in none."""
    stamps = by_hand(1)
    values = {**marks(stamps, {"s001": "D", "s002": "L", "s003": "U", "s004": "X", "s005": "S"})}
    del values["s040"]
    read = read_digital(outcome(register(SUNDAY), values).to_wire())
    expected = [Family.PRESENT, Family.LATE, Family.ABSENT, Family.PRESENT, Family.ABSENT, Family.PRESENT]
    assert [read.families[pupil] for pupil in PUPILS[:6]] == expected
    assert read.families["s040"] is None
    assert read.is_taken
    assert not read.no_session


def test_a_session_that_did_not_take_place_is_read_from_an_outcome() -> None:
    """No family for anybody."""
    read = read_digital(outcome(register(SUNDAY), at_once(1), {"~session": "N30000000:strike"}).to_wire())
    assert read.no_session
    assert not read.is_taken


def test_a_bulk_ruling_is_no_digital_record() -> None:
    """What a desk lays over many cells moves nothing towards the gate: the mark underneath is compared."""
    amal = Phone(label="phone 1", user="amal")
    change = amal.mark({"s1": "A28800000"})
    ruling = Ruling(
        pupil="s1", among=frozenset((change.hash,)), code=Code.PRESENT, reason=None, bulk=1, by="ch1", at_ms=1
    )
    around = replace(context(), decisions=Decisions(rulings={"s1": (ruling,)}))
    found = reconcile(REGISTER, merge([change]), first_receipts([receipt(change, amal)]), around)
    assert found.answers["s1"].code is Code.PRESENT
    assert read_digital(found.to_wire()).families["s1"] is Family.ABSENT
