"""Anomalies: registers no hand made are seen, honest ones are not, and a wrong clock accuses nobody."""

from __future__ import annotations

from fractions import Fraction

import pytest

from reconciliation.anomalies import FLAG_FROM, Kind, Taken, examine, is_flagged
from reconciliation.calendar import day_window
from tests.support.histories import EIGHT_MS
from tests.support.school_weeks import (
    MINUTE,
    PUPILS,
    WEEK,
    ZONE,
    at_once,
    by_hand,
    days,
    marks,
    outcome,
    register,
    taken,
    weeks,
)

SUNDAY, MONDAY, TUESDAY, WEDNESDAY, THURSDAY = days()
DAY_MS = 86_400_000


def flagged(*registers: Taken, before: tuple[Taken, ...] = ()) -> dict[str, set[str]]:
    """Date (with class where it is another) to the kinds that reach the threshold."""
    found = examine(registers, before)
    return {
        name.date if name.class_id == "c-3a" else f"{name.date} {name.class_id}": {
            sign.kind.value for sign in signs if sign.score >= FLAG_FROM
        }
        for name, signs in found.items()
        if is_flagged(signs)
    }


def test_a_register_tapped_by_hand_is_not_flagged() -> None:
    """A whole honest week of two classes."""
    week = [
        taken(outcome(register(day, name), marks(by_hand(seed, first_ms=EIGHT_MS + n * 3_600_000)), user=name))
        for n, name in enumerate(("c-3a", "c-3b"))
        for seed, day in enumerate(days(), n * 10)
    ]
    assert flagged(*week) == {}


def test_all_present_days_are_not_flagged() -> None:
    """The act explains equal stamps, day after day; who was marked by name afterwards too."""
    week = []
    for n, day in enumerate(days()):
        pressed = EIGHT_MS + 7_919 * n
        week.append(taken(outcome(register(day), at_once(pressed), {"s001": f"A{pressed + 4_000}"})))
    assert flagged(*week) == {}


def test_equal_stamps_without_the_act_are_flagged() -> None:
    """Nobody taps twenty pupils in one millisecond."""
    half = [EIGHT_MS] * 20 + by_hand(3, 20)
    assert flagged(taken(outcome(register(SUNDAY), marks([EIGHT_MS] * 40)))) == {SUNDAY: {"identical_stamps"}}
    assert flagged(taken(outcome(register(SUNDAY), marks(half)))) == {SUNDAY: {"identical_stamps"}}


@pytest.mark.parametrize(("equal", "told"), [(3, []), (8, [Fraction(16, 40)]), (16, [Fraction(32, 40)])])
def test_a_few_equal_stamps_are_chance_and_many_are_told_by_their_score(equal: int, told: list[Fraction]) -> None:
    """Fingers meet; eight of forty are worth a word, sixteen are flagged."""
    stamps = by_hand(3)
    stamps[:equal] = [stamps[0]] * equal
    found = examine([taken(outcome(register(SUNDAY), marks(stamps)))])
    signs = found.get(register(SUNDAY), ())
    assert [sign.score for sign in signs if sign.kind is Kind.IDENTICAL_STAMPS] == told
    assert is_flagged(signs) is (equal == 16)


@pytest.mark.parametrize("gap_ms", [700, 1_500])
def test_a_pace_without_variance_is_flagged(gap_ms: int) -> None:
    """A script taps like a clock."""
    stamps = [EIGHT_MS + n * gap_ms for n in range(40)]
    assert flagged(taken(outcome(register(SUNDAY), marks(stamps)))) == {SUNDAY: {"no_variance"}}


def test_impossible_rates_are_flagged() -> None:
    """Forty pupils in half a second, however irregular."""
    stamps, at_ms = [], EIGHT_MS
    for n in range(40):
        at_ms += 3 + (n * 37) % 53
        stamps.append(at_ms)
    assert "impossible_rate" in flagged(taken(outcome(register(SUNDAY), marks(stamps))))[SUNDAY]


def test_the_pattern_of_another_day_is_a_copy_and_the_first_to_arrive_stays() -> None:
    """Same distances to the millisecond on another day, a little later; two marks made anew do not hide it."""
    stamps = by_hand(5)
    moved = [ms + 123_456 for ms in stamps]
    moved[3], moved[30] = moved[3] + 71, moved[30] - 90
    week = [
        taken(outcome(register(SUNDAY), marks(stamps, {"s003": "A"}))),
        taken(outcome(register(MONDAY), marks(moved, {"s003": "A"}))),
        taken(outcome(register(TUESDAY), marks(by_hand(6)))),
    ]
    assert flagged(*week) == {MONDAY: {"copied_pattern"}}
    assert flagged(week[1], before=(week[0],)) == {MONDAY: {"copied_pattern"}}


def test_a_register_of_the_week_before_is_never_spoken_of() -> None:
    """What it was copied from, or that it was copied itself, is its own week's business."""
    old, new = (taken(outcome(register(days(week)[0]), marks([EIGHT_MS] * 40))) for week in (WEEK, weeks(2)[1]))
    assert set(examine([new], [old])) == {new.register}


def test_equal_stamps_in_two_registers_are_flagged_also_when_all_present_was_pressed() -> None:
    """The act explains equal stamps inside one register; nobody presses it in two at the same millisecond."""
    pair = [taken(outcome(register(SUNDAY, name), at_once(EIGHT_MS + 77), user=name)) for name in ("c-3a", "c-3b")]
    assert flagged(*pair) == {SUNDAY: {"shared_stamps"}, f"{SUNDAY} c-3b": {"shared_stamps"}}


def test_all_present_at_the_same_millisecond_of_another_day_is_a_copy() -> None:
    """A register's bytes, brought under another date."""
    pair = [taken(outcome(register(day), at_once(EIGHT_MS + 77))) for day in (SUNDAY, MONDAY)]
    assert flagged(*pair) == {MONDAY: {"copied_pattern"}}


def late(day: str, seed: int, minutes: int) -> Taken:
    """A register of `day` that was tapped on Thursday evening."""
    evening = day_window(register(THURSDAY), ZONE).opens_ms + 20 * 3_600_000 + minutes * MINUTE
    first = evening - day_window(register(day), ZONE).opens_ms
    chance = by_hand(seed, first_ms=0)
    stamps = [first + ms - chance[0] for ms in chance]
    return taken(outcome(register(day), marks(stamps), approved=True))


def test_registers_of_several_days_filled_in_at_once_days_later_are_flagged() -> None:
    """Three days in one sitting on Thursday evening; two days are a doubt that excludes nothing."""
    sunday, monday, tuesday = (late(day, n, 5 * n) for n, day in enumerate((SUNDAY, MONDAY, TUESDAY)))
    assert flagged(sunday, monday, tuesday) == {day: {"batch_after_days"} for day in (SUNDAY, MONDAY, TUESDAY)}
    assert flagged(sunday, monday) == {}


def test_registers_sent_late_but_made_in_time_are_no_batch() -> None:
    """A phone without a network all week: what counts is when the marks were made, not when they came."""
    thursday_ms = day_window(register(THURSDAY), ZONE).opens_ms + 18 * 3_600_000
    week = [taken(outcome(register(day), marks(by_hand(n)), sent_ms=thursday_ms)) for n, day in enumerate(days()[:4])]
    assert flagged(*week) == {}


@pytest.mark.parametrize("clock_off_ms", [-3 * DAY_MS, -40 * MINUTE, 40 * MINUTE, 400 * DAY_MS])
def test_a_wrong_clock_alone_never_flags_anything(clock_off_ms: int) -> None:
    """Whatever the clock says: marks cut off at their receipt share a moment that nobody chose."""
    stamps = [[ms + clock_off_ms for ms in by_hand(n)] for n in range(5)]
    week = [
        taken(outcome(register(day), marks(some), clock_off_ms=clock_off_ms))
        for day, some in zip(days(), stamps, strict=True)
    ]
    assert flagged(*week) == {}


def test_a_moved_clock_is_told_and_stays_below_the_threshold() -> None:
    """Every mark flagged gives half a point: below what excludes."""
    before_school = day_window(register(SUNDAY), ZONE).opens_ms + 7 * 3_600_000
    found = examine([taken(outcome(register(SUNDAY), marks(by_hand(1)), sent_ms=before_school))])
    (sign,) = found[register(SUNDAY)]
    assert (sign.kind, sign.score, sign.count) == (Kind.CLOCK_MOVES, Fraction(1, 2), len(PUPILS))


def test_a_coarse_clock_is_no_copy() -> None:
    """A clock of whole seconds makes all sittings alike: such distances say nothing."""
    week = []
    for n, day in enumerate(days()):
        stamps = [ms - ms % 1_000 for ms in by_hand(n)]
        week.append(taken(outcome(register(day), marks(stamps))))
    assert all("copied_pattern" not in kinds for kinds in flagged(*week).values())


def test_few_marks_say_nothing() -> None:
    """Seven equal stamps in a tiny class are no pattern."""
    few = PUPILS[:7]
    assert flagged(taken(outcome(register(SUNDAY), marks([EIGHT_MS] * 7, pupils=few), pupils=few))) == {}


def test_every_sign_speaks_both_languages() -> None:
    """Words with the numbers in them, and nobody's name."""
    kinds = set()
    stamps = [EIGHT_MS + n * 20 for n in range(40)]
    pair = [taken(outcome(register(day), marks(stamps), user="amal")) for day in (SUNDAY, MONDAY)]
    for signs in examine([*pair, taken(outcome(register(TUESDAY), marks([EIGHT_MS] * 40)))]).values():
        for sign in signs:
            kinds.add(sign.kind)
            for language in ("ar", "en"):
                assert str(sign.count) in sign.in_words(language)
                assert "amal" not in sign.in_words(language)
    assert len(kinds) > 2


def test_one_tap_in_the_millisecond_of_another_classs_all_present_copies_nothing() -> None:
    """Forty marks of one act share their moment with one tap next door: one of forty is shared, on either side."""
    whole = taken(outcome(register(SUNDAY, "c-3a"), at_once(EIGHT_MS)))
    stamps = by_hand(5)
    tapped = taken(outcome(register(SUNDAY, "c-3b"), marks([EIGHT_MS, *stamps[1:]])))
    assert not is_flagged(examine([whole, tapped]).get(whole.register, ()))
    copied = taken(outcome(register(SUNDAY, "c-3c"), at_once(EIGHT_MS)))
    assert is_flagged(examine([whole, tapped, copied])[copied.register])
