"""What a second pair of eyes found in the rules: each claim failed before it was mended."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clientcore.history import merge
from clientcore.register import Code, RegisterId
from reconciliation.anomalies import FLAG_FROM, Taken, examine, is_flagged
from reconciliation.calendar import SchoolCalendar, civil_date, day_window
from reconciliation.clocks import midnight_ms, zone_table
from reconciliation.decisions import Approval, Choice, Decisions, Level, Reason
from reconciliation.explain import explain
from reconciliation.model import Context, Outcome, Right, first_receipts
from reconciliation.paper import Document, Entry, Family
from reconciliation.parity import Digital, Standing, Status, WeekParity, weigh
from reconciliation.reconcile import reconcile
from reconciliation.wire import iso
from syncserver.parity_weeks import School, _merged, _weigh
from tests.support.histories import EIGHT_MS, PUPILS, REGISTER, Phone, context, receipt
from tests.support.school_weeks import (
    CALENDAR,
    WEEK,
    at_once,
    days,
    marks,
    outcome,
    register,
    sheet,
    taken,
    weeks,
)
from tests.support.school_weeks import PUPILS as CLASS

pure = settings(derandomize=True, deadline=None, max_examples=60)
seeds = st.integers(0, 10_000)


# ---- a phone whose clock shows whole seconds or tenths, in honest hands ----------------------------------------------


def seconds(
    chance: random.Random, count: int, fast_ms: int, slow_ms: int, window_ms: int = 600_000, step_ms: int = 1_000
) -> list[int]:
    """Taps of a hand as a clock of whole seconds (or other steps) tells them."""
    at_ms, found = EIGHT_MS + chance.randrange(window_ms), []
    for _ in range(count):
        at_ms += chance.randrange(fast_ms, slow_ms)
        found.append(at_ms - at_ms % step_ms)
    return found


def flagged(*registers: Taken, before: tuple[Taken, ...] = ()) -> dict[RegisterId, set[str]]:
    """Registers with a score that excludes, and why."""
    return {
        name: {sign.kind.value for sign in signs if sign.score >= FLAG_FROM}
        for name, signs in examine(registers, before).items()
        if is_flagged(signs)
    }


@pure
@given(
    seeds,
    st.sampled_from((1_000, 100)),
    st.sampled_from(((250, 700, 8), (700, 1_500, 40), (700, 3_000, 9), (500, 3_000, 40), (300, 900, 25))),
)
def test_a_coarse_clock_flags_no_honest_week(seed: int, step_ms: int, pace: tuple[int, int, int]) -> None:
    """One tap a second looks steady, eight in two seconds look alike, and every sitting is like every other."""
    chance, (fast_ms, slow_ms, count) = random.Random(seed), pace
    two = [
        [
            taken(outcome(
                register(day, name),
                marks(seconds(chance, count, fast_ms, slow_ms, step_ms=step_ms), pupils=CLASS[:count]),
                user=name, pupils=CLASS[:count],
            ))
            for name in ("c-3a", "c-3b")
            for day in days(week)
        ]
        for week in weeks(2)
    ]  # fmt: skip
    assert flagged(*two[1], before=tuple(two[0])) == {}


@pure
@given(seeds, st.sampled_from((1_000, 100)))
def test_teachers_with_coarse_clocks_take_their_classes_in_the_same_minute(seed: int, step_ms: int) -> None:
    """Equal seconds are not equal moments: nobody was in two rooms."""
    chance = random.Random(seed)
    week = [
        taken(outcome(register(day, name), marks(seconds(chance, 40, 300, 1_000, 20_000, step_ms)), user=name))
        for name in ("c-3a", "c-3b", "c-3c", "c-3d", "c-3e")
        for day in days()
    ]
    assert flagged(*week) == {}


def test_all_present_in_the_same_whole_second_of_another_day_is_chance_once() -> None:
    """A clock of whole seconds meets itself; the third time it does not."""
    three = [taken(outcome(register(day), at_once(EIGHT_MS + 77_000))) for day in days()[:3]]
    assert flagged(*three[:2]) == {}
    assert flagged(*three) == {three[2].register: {"copied_pattern"}}


def test_a_copy_from_a_clock_of_whole_seconds_is_still_a_copy() -> None:
    """The distances of a whole class, one for one; the same seconds by the same person; all in one second."""
    stamps = seconds(random.Random(7), 40, 500, 4_000)
    moved = [ms + 60_000 for ms in stamps]
    sunday, monday, *_ = days()
    copy = [taken(outcome(register(day), marks(some))) for day, some in ((sunday, stamps), (monday, moved))]
    assert flagged(*copy) == {copy[1].register: {"copied_pattern"}}
    rooms = [taken(outcome(register(sunday, name), marks(stamps), user="amal")) for name in ("c-3a", "c-3b")]
    assert {"shared_stamps"} <= flagged(*rooms)[rooms[0].register]
    assert flagged(taken(outcome(register(sunday), marks([EIGHT_MS] * 40)))) != {}
    steady = [EIGHT_MS + n * 6_000 for n in range(40)]
    assert flagged(taken(outcome(register(sunday), marks(steady)))) != {}


# ---- parity ----------------------------------------------------------------------------------------------------------

THREE = frozenset(PUPILS)


def week_of(digital: dict[str, Digital], absent: dict[str, str]) -> WeekParity:
    """Twenty registers with paper; `absent` names classes in which the paper calls s1 absent."""
    sunday = days()[0]
    return weigh(
        WEEK,
        document=Document.PERIOD_SHEET,
        open_days=5,
        expected={(name, sunday, "day"): THREE for name in digital},
        digital={(name, sunday, "day"): one for name, one in digital.items()},
        sheets={(name, sunday, "day"): sheet({"s1": absent[name]} if name in absent else {}) for name in digital},
        signs={},
    )


def test_calling_a_session_off_never_gets_rid_of_what_its_paper_says() -> None:
    """Signed paper and nobody's mark: a mismatch in every cell, whoever says that nothing took place."""
    present = Digital(families=dict.fromkeys(PUPILS, Family.PRESENT))
    digital = {f"c-{n:02}": present for n in range(20)}
    bad = {"c-00": "A", "c-01": "A"}
    assert week_of(digital, bad).status is Status.FAILED
    off = {name: replace(one, no_session=True) if name in bad else one for name, one in digital.items()}
    called_off = week_of(off, bad)
    assert called_off.count(Standing.DIGITAL_MISSING) == 2
    assert called_off.status is Status.FAILED
    assert (called_off.matched, called_off.compared) == (18 * 3, 20 * 3)


@pure
@given(st.dictionaries(st.sampled_from([f"c-{n:02}" for n in range(20)]), st.just("A"), max_size=4), st.sets(
    st.sampled_from([f"c-{n:02}" for n in range(20)]), max_size=4))  # fmt: skip
def test_calling_sessions_off_never_helps_to_pass(absent: dict[str, str], off: set[str]) -> None:
    """Whichever registers with paper are called off, the share does not rise."""
    present = Digital(families=dict.fromkeys(PUPILS, Family.PRESENT))
    digital = {f"c-{n:02}": present for n in range(20)}
    less = {name: replace(one, no_session=name in off) for name, one in digital.items()}
    before, after = week_of(digital, absent).guarded, week_of(less, absent).guarded
    assert before is not None
    assert after is not None
    assert after <= before


def test_an_afternoon_class_that_was_away_is_not_missing_in_the_morning() -> None:
    """Every session of its week was called off: the class is seen in its own shift, and nothing of it is expected."""
    calendar = replace(CALENDAR, sessions=("am1", "pm1"))
    school = School(
        name="eg-07-113",
        calendar=calendar,
        members={name: [(pupil, "2026-09-01", None) for pupil in PUPILS] for name in ("c-am", "c-pm")},
        aliases={},
        rules=[],
        digest="",
    )
    away = Digital(families=dict.fromkeys(PUPILS), no_session=True)
    digital = {("c-pm", one, "pm1"): away for one in days()}
    found = _weigh(school, WEEK, digital, [], [], {})
    of_class = [one for one in found.registers if one.key[0] == "c-pm"]
    assert {one.standing for one in of_class} == {Standing.NO_SESSION}
    assert {one.key[2] for one in of_class} == {"pm1"}
    assert found.expected == len(days())


@pytest.mark.parametrize("code", ["A", "E", "U"])
def test_where_a_sheet_names_a_record_and_its_duplicate_absent_outweighs_late_whatever_its_kind(code: str) -> None:
    """By what is compared, not by the letter."""
    said = {"s1": Code(code), "s2": Code.LATE}
    for marks_ in (said, {"s1": said["s2"], "s2": said["s1"]}):
        entry = Entry(id=1, document=Document.PERIOD_SHEET, signed_by="t", entered_by="c", marks=marks_, at_ms=1)
        assert _merged(entry, {"s2": "s1"}).families == {"s1": Family.ABSENT}


# ---- reconcile -------------------------------------------------------------------------------------------------------


def settle(changes: list, receipts: list, around: Context) -> Outcome:  # type: ignore[type-arg]
    return reconcile(REGISTER, merge(changes), first_receipts(receipts), around)


def test_a_choice_made_before_a_merge_does_not_speak_over_marks_its_maker_did_not_see() -> None:
    """Both teachers saw the pupil under the other record: the pupil is not absent because of a word about one row."""
    amal, basma = Phone(label="a", user="amal"), Phone(label="b", user="basma")
    one, two = amal.mark({"s1": "A28800100", "s2": "P28800200"}), basma.mark({"s1": "P28800300", "s2": "P28800400"})
    receipts = [receipt(one, amal), receipt(two, basma, offset=2)]
    choice = Choice(
        pupil="s1", among=frozenset((one.hash, two.hash)), chosen=one.hash, value="A28800100", by="head", at_ms=1
    )
    around = replace(context(), decisions=Decisions(choices={"s1": choice}))
    apart = settle([one, two], receipts, around).answers["s1"]
    assert (apart.code, apart.chosen_by) == (Code.ABSENT, "head")
    merged = settle([one, two], receipts, replace(around, aliases={"s2": "s1"})).answers["s1"]
    assert (merged.code, merged.disputed, merged.chosen_by) == (Code.PRESENT, True, None)
    again = replace(around.decisions, choices={"s1": replace(choice, value="P28800200")})
    settled = settle([one, two], receipts, replace(around, aliases={"s2": "s1"}, decisions=again)).answers["s1"]
    assert (settled.code, settled.disputed, settled.chosen_by) == (Code.PRESENT, False, "head")


def test_somebody_without_the_right_hides_nobodys_held_mark_or_request() -> None:
    """What a held change wrote over is still on the list of what waits; what its own author replaced is not."""
    closes_ms = day_window(REGISTER, context().zone).closes_ms
    amal, stranger, other = (
        Phone(label="a", user="amal"),
        Phone(label="x", user="xenia"),
        Phone(label="y", user="yusuf"),
    )
    asked = amal.mark({"s1": f"P{30 * 3_600_000}"})
    stranger.learn([asked])
    over = stranger.mark({"s1": f"A{30 * 3_600_000 + 60_000}"})
    other.learn([asked, over])
    third = other.mark({"s1": f"E{30 * 3_600_000 + 120_000}"})
    amal.learn([over, third])
    late_ms = closes_ms + 7 * 3_600_000
    receipts = [
        receipt(change, phone, received_at_ms=late_ms, offset=n)
        for n, (change, phone) in enumerate(((asked, amal), (over, stranger), (third, other)), 1)
    ]
    around = replace(context(), entitled={"amal": (Right(from_ms=0),)})
    waits = settle([asked, over, third], receipts, around)
    held = waits.held
    assert "window-closed" in waits.labels
    assert {(one.change_hash, one.slug) for one in held} == {
        (asked.hash, "window-closed"), (over.hash, "out-of-scope"), (third.hash, "out-of-scope"),
    }  # fmt: skip
    last = amal.mark({"s1": f"P{30 * 3_600_000 + 180_000}"})
    held = settle(
        [asked, over, third, last], [*receipts, receipt(last, amal, received_at_ms=late_ms, offset=4)], around
    ).held
    assert asked.hash not in {one.change_hash for one in held}
    assert last.hash in {one.change_hash for one in held}


# ---- any date that exists --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("date", ["0001-01-01", "9999-12-30", "9999-12-31"])
@pytest.mark.parametrize("zone_name", ["Africa/Cairo", "UTC", "America/New_York"])
def test_a_register_of_any_date_is_explained(date: str, zone_name: str) -> None:
    """A hostile phone may name it, and whoever asks why gets an answer."""
    name = RegisterId("eg-07-113", "c-3a", date, "day")
    zone = zone_table(date, date, zone_name)
    phone = Phone(label="a", user="amal")
    change = phone.mark({"s1": "A0"})
    receipts = first_receipts([receipt(change, phone)])
    around = Context(
        roster=frozenset(PUPILS), zone=zone, window=day_window(name, zone), calendar=SchoolCalendar(zone=zone),
        entitled={"amal": (Right(from_ms=zone[0][0]),)},
    )  # fmt: skip
    found = reconcile(name, merge([change]), receipts, around)
    assert explain("s1", [change], receipts, around, found).steps


def test_moments_beyond_the_last_date_have_a_name() -> None:
    """The end of the last day is written as the last moment there is."""
    zone = zone_table("9999-12-31", "9999-12-31")
    assert civil_date(midnight_ms("9999-12-31", zone, days_later=1), zone) == "9999-12-31"
    assert iso(10**18) == "9999-12-31T23:59:59.999Z"
    assert iso(-(10**18)) == "0001-01-01T00:00:00.000Z"


def test_an_approved_adjustment_that_moves_the_answer_to_another_mark_keeps_what_stood() -> None:
    """Basma's *present* stood; what she asked for later leaves Amal's mark alone: the first answer stays beside it."""
    amal, basma = Phone(label="a", user="amal"), Phone(label="b", user="basma")
    two = basma.mark({"s1": "P28800300"})
    first = [amal.mark({"s2": f"P2880000{n}"}) for n in range(4)]  # later operations win
    one = amal.mark({"s1": "A28800100"})
    late_ms = day_window(REGISTER, context().zone).closes_ms + 7 * 3_600_000
    three = basma.mark({"s1": f"E{30 * 3_600_000}"})
    receipts = [receipt(one, amal), receipt(two, basma, offset=2)]
    receipts += [receipt(change, amal, offset=9 + n) for n, change in enumerate(first)]
    receipts.append(receipt(three, basma, offset=3, received_at_ms=late_ms))
    word = Approval(
        id=1, change_hash=three.hash, approved=True, reason=Reason.WRONG_CODE, by="head", level=Level.SCHOOL,
        reference="", at_ms=late_ms + 1,
    )  # fmt: skip
    before = settle([*first, one, two, three], receipts, context()).answers["s1"]
    assert (before.code, before.original) == (Code.PRESENT, None)
    around = replace(context(), decisions=Decisions(approvals={three.hash: (word,)}))
    after = settle([*first, one, two, three], receipts, around).answers["s1"]
    assert after.code is not Code.PRESENT
    assert after.original is not None
    assert after.original.code is Code.PRESENT
