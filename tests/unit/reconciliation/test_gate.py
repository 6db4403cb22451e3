"""The gate: four weeks in a row, computed, and in words what is missing."""

from __future__ import annotations

from dataclasses import replace

import pytest

from reconciliation.calendar import DayRule
from reconciliation.gate import Verdict, due_date, gate, gate_in_words, is_due, next_week, percent, week_in_words
from reconciliation.parity import Status
from tests.support.school_weeks import CALENDAR, WEEK, verdict, weeks

P, F, N, H = Status.PASSED, Status.FAILED, Status.NOT_EVALUABLE, Status.PAUSED


def fired(*statuses: Status) -> int | None:
    """Number of the week (from 1) by which the gate fires."""
    names = weeks(len(statuses))
    found = gate(verdict(week, status) for week, status in zip(names, statuses, strict=True))
    return None if found.fired_week is None else names.index(found.fired_week) + 1


@pytest.mark.parametrize(
    ("statuses", "week"),
    [
        ((P, P, P), None),
        ((P, P, P, P), 4),
        ((P, P, P, P, F), 4),
        ((P, P, P, F, P), None),
        ((F, P, P, P, P), 5),
        ((P, P, H, P, P), 5),
        ((P, H, H, H, P, H, P, P), 8),
        ((P, P, N, P, P), None),
        ((P, P, P, N, P, P, P, P), 8),
        ((H, H, H, H), None),
        ((), None),
    ],
)
def test_four_passed_weeks_in_a_row_fire_it(statuses: tuple[Status, ...], week: int | None) -> None:
    """A failing or unevaluable week begins the count anew; a paused one neither counts nor breaks."""
    assert fired(*statuses) == week


def test_a_missing_week_breaks() -> None:
    """Four passed weeks with a hole are not four in a row."""
    names = weeks(5)
    assert gate(verdict(week) for week in names[:3] + names[4:]).fired_week is None


def test_the_order_in_which_weeks_are_handed_in_does_not_matter() -> None:
    """A function of the set."""
    some = [verdict(week, status) for week, status in zip(weeks(5), (F, P, P, P, P), strict=True)]
    assert gate(reversed(some)) == gate(some)


def test_it_says_which_weeks_count_and_how_many_are_missing() -> None:
    """For words on a screen."""
    found = gate(verdict(week, status) for week, status in zip(weeks(4), (P, F, P, H), strict=True))
    assert ([one.week for one in found.run], found.missing) == ([weeks(3)[2]], 3)


def test_a_week_is_judged_after_the_third_working_day_after_its_end() -> None:
    """The week of 21 November ends on Friday 27; Sunday, Monday and Tuesday pass; it is judged on Wednesday."""
    assert due_date(WEEK, CALENDAR) == "2026-12-02"
    assert not is_due(WEEK, CALENDAR, "2026-12-01")
    assert is_due(WEEK, CALENDAR, "2026-12-02")
    holiday = replace(CALENDAR, days={"2026-11-29": DayRule(is_open=False, reason="storm")})
    assert due_date(WEEK, holiday) == "2026-12-03"
    assert next_week(WEEK) == "2026-11-28"


def test_percentages_are_rounded_down() -> None:
    """97.99 % is never shown as 98 %."""
    assert percent(verdict(WEEK, matched=9_799, compared=10_000).rate) == "97.9%"
    assert percent(verdict(WEEK, matched=98, compared=100).rate) == "98.0%"
    assert percent(Verdict(week=WEEK, status=N).guarded) == "–"
    assert percent(verdict(WEEK).guarded) == "98.0%"


@pytest.mark.parametrize("status", list(Status))
@pytest.mark.parametrize("language", ["ar", "en"])
def test_a_week_speaks_both_languages(status: Status, language: str) -> None:
    """Each with its date, and no placeholder left."""
    said = week_in_words(verdict(WEEK, status, 1_208, 1_234), language)
    assert WEEK in said
    assert "{" not in said
    assert ("1,234" in said) is (status in (P, F))


def test_the_gate_says_in_words_what_is_missing() -> None:
    """The line an operator reads."""
    some = [verdict(week) for week in weeks(2)] + [verdict(weeks(3)[2], F, 1_208, 1_234)]
    found = gate(some[:2])
    assert gate_in_words(found, some[2], "2026-12-16", "en") == (
        "2 of 4 weeks; week of 2026-12-05 failed: 97.8% of 1,234, 98.0% needed; the next verdict on 2026-12-16"
    )
    assert gate_in_words(found, None, None).startswith("2 من 4")
    assert "2026-12-16" in gate_in_words(found, some[2], "2026-12-16")
    assert gate_in_words(gate([]), None, None, "en", paper=False) == "no paper has been entered yet"
    assert gate_in_words(gate([]), None, None, paper=False)


def test_a_fired_gate_names_its_weeks() -> None:
    """In both languages."""
    found = gate(verdict(week) for week in weeks(4))
    for language in ("ar", "en"):
        assert all(week in gate_in_words(found, None, None, language) for week in weeks(4))
