"""The two clocks of an adjustment, and whose word counts."""

from __future__ import annotations

from dataclasses import replace

import pytest

from clientcore.frame import ClockEvidence
from reconciliation.adjustments import Request, Stage, asking_ends_ms, request, request_of
from reconciliation.calendar import DayRule, SchoolCalendar
from reconciliation.decisions import Approval, Decisions, Level, Reason
from reconciliation.model import Capture, Confidence
from tests.support.histories import DAY, REGISTER, ZONE, Phone, context, receipt

DAY_MS = 86_400_000
PLAIN = SchoolCalendar(zone=ZONE)
AMAL = Phone(label="a", user="amal")
CHANGE = AMAL.mark({"s1": "P1"})
# Sunday's register. A request that came on Monday noon.
MONDAY_NOON = DAY.opens_ms + DAY_MS + DAY_MS // 2
END_OF_WEDNESDAY = DAY.opens_ms + 4 * DAY_MS
END_OF_THURSDAY = DAY.opens_ms + 5 * DAY_MS


def capture(at_ms: int, *, doubt_ms: int = 0) -> Capture:
    return Capture(at_ms=at_ms, interval=(at_ms - doubt_ms, at_ms), confidence=Confidence.HIGH, clock_flag=False)


def word(**more: object) -> Approval:
    given = {
        "id": 1, "change_hash": CHANGE.hash, "approved": True, "reason": Reason.FORGOTTEN, "by": "head",
        "level": Level.SCHOOL, "reference": "", "at_ms": MONDAY_NOON + 1, **more,
    }  # fmt: skip
    return Approval(**given)  # type: ignore[arg-type]


def asked(
    *approvals: Approval,
    captured: tuple[Capture, ...] = (capture(MONDAY_NOON),),
    received_ms: int = MONDAY_NOON,
    calendar: SchoolCalendar = PLAIN,
) -> Request:
    return request(REGISTER, captured, receipt(CHANGE, AMAL, received_at_ms=received_ms), calendar, approvals)


def test_both_clocks_run_three_working_days() -> None:
    """Sunday's register is asked about until Wednesday; what came on Monday is decided until Thursday."""
    found = asked()
    assert (found.stage, found.asked_by_ms, found.decide_by_ms) == (Stage.WAITING, END_OF_WEDNESDAY, END_OF_THURSDAY)
    assert found.locked_since_ms(END_OF_THURSDAY - 1) is None
    assert found.locked_since_ms(END_OF_THURSDAY) == END_OF_THURSDAY
    assert not found.locked_at(END_OF_THURSDAY - 1)
    assert asking_ends_ms(REGISTER, PLAIN) == END_OF_WEDNESDAY


@pytest.mark.parametrize(
    ("closed", "days"),
    [((), 4), (("2026-11-23",), 5), (("2026-11-24", "2026-11-25"), 8)],
)
def test_weekends_and_holidays_do_not_count(closed: tuple[str, ...], days: int) -> None:
    """Sunday's register: with Monday off the third working day is Thursday; with two days off it is next Sunday."""
    calendar = SchoolCalendar(zone=ZONE, days={day: DayRule(is_open=False, reason="feast") for day in closed})
    assert asking_ends_ms(REGISTER, calendar) == DAY.opens_ms + days * DAY_MS


def test_what_was_certainly_asked_too_late_is_locked_and_doubt_speaks_for_the_author() -> None:
    """An offline phone may have asked in time however late its frame comes."""
    late = END_OF_WEDNESDAY + 1
    assert asked(captured=(capture(late),), received_ms=late).stage is Stage.LOCKED
    assert asked(captured=(capture(late, doubt_ms=2),), received_ms=late).stage is Stage.WAITING
    weeks_later = asked(captured=(capture(MONDAY_NOON),), received_ms=MONDAY_NOON + 21 * DAY_MS)
    assert weeks_later.stage is Stage.WAITING
    assert weeks_later.locked_since_ms(MONDAY_NOON + 22 * DAY_MS) is None


def test_one_late_mark_locks_the_whole_request() -> None:
    """A mark in time beside it is no back door."""
    late = END_OF_WEDNESDAY + 1
    found = asked(captured=(capture(MONDAY_NOON), capture(late)), received_ms=late)
    assert (found.stage, found.locked_since_ms(0)) == (Stage.LOCKED, END_OF_WEDNESDAY)


@pytest.mark.parametrize(
    ("approvals", "stage"),
    [
        ([word()], Stage.APPROVED),
        ([word(approved=False)], Stage.REJECTED),
        ([word(), word(id=2, approved=False)], Stage.REJECTED),
        ([word(id=2, approved=False), word()], Stage.REJECTED),
        ([word(by="amal")], Stage.WAITING),
        ([word(at_ms=MONDAY_NOON - 1)], Stage.WAITING),
        ([word(at_ms=END_OF_THURSDAY)], Stage.WAITING),
        ([word(level=Level.CENTRAL, at_ms=END_OF_THURSDAY)], Stage.WAITING),
        ([word(level=Level.CENTRAL, at_ms=END_OF_THURSDAY, reference=" ")], Stage.WAITING),
        ([word(level=Level.CENTRAL, at_ms=END_OF_THURSDAY, reference="7")], Stage.APPROVED),
        ([word(level=Level.CENTRAL, approved=False, reference="7"), word(id=2)], Stage.REJECTED),
        ([word(), word(id=2, by="amal", approved=False)], Stage.APPROVED),
    ],
)
def test_whose_word_counts(approvals: list[Approval], stage: Stage) -> None:
    """The last valid one; central before school; never the author's, never one before it came or after the clock."""
    assert asked(*approvals).stage is stage


def test_what_is_locked_opens_centrally_only() -> None:
    """Asked too late: the school's word does not count, the central office's does, with a reference."""
    late = END_OF_WEDNESDAY + 1
    found = asked(word(at_ms=late + 1), captured=(capture(late),), received_ms=late)
    assert found.stage is Stage.LOCKED
    opened = word(at_ms=late + 1, level=Level.CENTRAL, reference="letter 7")
    assert asked(opened, captured=(capture(late),), received_ms=late).stage is Stage.APPROVED


def test_a_calendar_changed_later_undoes_no_decision_made_in_time() -> None:
    """Monday was a holiday when the school decided; it is declared a school day afterwards."""
    off = SchoolCalendar(zone=ZONE, days={"2026-11-24": DayRule(is_open=False, reason="feast")})
    before = asked(calendar=off)
    decided = word(at_ms=END_OF_THURSDAY + 1)
    assert asked(decided, calendar=off).stage is Stage.APPROVED
    assert asked(decided).stage is Stage.WAITING
    kept = replace(decided, asked_by_ms=before.asked_by_ms, decide_by_ms=before.decide_by_ms)
    assert asked(kept).stage is Stage.APPROVED


def test_a_change_without_late_marks_is_no_request() -> None:
    """And one with both is a request for its late marks."""
    in_time = receipt(CHANGE, AMAL)
    assert request_of(REGISTER, CHANGE, in_time, context()) is None
    both = Phone(label="b", user="amal").mark({"s1": "P28800000", "s2": f"P{28_800_000 + 2 * DAY_MS}"})
    received_ms = DAY.opens_ms + 28_800_000 + 2 * DAY_MS + 60_000
    clock = ClockEvidence(wall_ms=received_ms, mono_ms=1, session=both.actor[:8])
    found = receipt(both, AMAL, received_at_ms=received_ms, clock=clock)
    approved = word(change_hash=both.hash, at_ms=received_ms + 1)
    around = replace(context(), decisions=Decisions(approvals={both.hash: (approved,)}))
    asked_for = request_of(REGISTER, both, found, around)
    assert asked_for is not None
    assert asked_for.stage is Stage.APPROVED
