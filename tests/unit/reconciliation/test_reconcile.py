"""One register from changes to its official answer, told as a school would."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from clientcore.change import Change, encode
from clientcore.frame import ClockEvidence
from clientcore.history import EMPTY, merge
from clientcore.register import Code, RegisterId
from reconciliation.clocks import DAY_MS
from reconciliation.decisions import Approval, Decisions, Level, Reason
from reconciliation.errors import BadContext
from reconciliation.model import (
    NOT_TAKEN,
    Context,
    HeldMark,
    Occasion,
    Outcome,
    Right,
    Settled,
    State,
    Timeliness,
    first_receipts,
)
from reconciliation.reconcile import reconcile
from tests.support.histories import (
    DAY,
    EIGHT_MS,
    REGISTER,
    STRANGER,
    Phone,
    context,
    contradicting,
    receipt,
)

HOUR = 3_600_000
EIGHT = DAY.opens_ms + EIGHT_MS
CONFIRMED = Settled(state=State.CONFIRMED)


def at(code: str, *, hours: float = 8, reason: str = "") -> str:
    return f"{code}{int(hours * HOUR)}{reason}"


def settle(*sent: tuple[Change, Phone], around: Context | None = None, received_at_ms: int = EIGHT + HOUR) -> Outcome:
    receipts = [
        receipt(change, phone, offset=i, received_at_ms=received_at_ms) for i, (change, phone) in enumerate(sent)
    ]
    return reconcile(REGISTER, merge(c for c, _ in sent), first_receipts(receipts), around or context())


def codes(outcome: Outcome) -> dict[str, str | None]:
    return {pupil: answer.code and answer.code.value for pupil, answer in outcome.answers.items()}


def pair() -> tuple[Phone, Phone]:
    return Phone(label="a", user="amal"), Phone(label="b", user="basma")


def test_nothing_arrived_is_not_taken() -> None:
    """A register nobody took has an answer for every pupil, and none of them is absent."""
    outcome = reconcile(REGISTER, EMPTY, {}, context())
    assert outcome.answers == {"s1": NOT_TAKEN, "s2": NOT_TAKEN, "s3": NOT_TAKEN}
    assert (outcome.occasion, outcome.labels, outcome.held, outcome.changes) == (Occasion.UNSTATED, (), (), {})
    nothing = ("code", "reason", "captured_at_ms", "captured_interval", "received_at_ms", "timeliness", "user_id")
    assert [getattr(NOT_TAKEN, name) for name in (*nothing, "change_hash")] == [None] * 8


def test_a_register_taken_in_time() -> None:
    """Each pupil has the code that was marked, with its author and times; the rest is not taken."""
    amal, _ = pair()
    change = amal.mark({"s1": at("P"), "s2": at("E", reason=":sick"), "~bulk": at("B")})
    outcome = settle((change, amal))
    assert codes(outcome) == {"s1": "P", "s2": "E", "s3": None}
    answer = outcome.answers["s2"]
    assert (answer.code, answer.reason, answer.user_id, answer.change_hash) == (
        Code.ABSENT_EXCUSED,
        "sick",
        "amal",
        change.hash,
    )
    assert (answer.captured_at_ms, answer.captured_interval) == (EIGHT, (EIGHT, EIGHT))
    assert (answer.received_at_ms, answer.timeliness) == (EIGHT + HOUR, Timeliness.ON_TIME)
    assert (answer.disputed, answer.labels, len(answer.values)) == (False, (), 1)
    assert outcome.changes == {change.hash: CONFIRMED}


def test_a_correction_supersedes() -> None:
    """The second mark of one author answers alone."""
    amal, _ = pair()
    first, second = amal.mark({"s1": at("A")}), amal.mark({"s1": at("L", hours=8.2, reason=":12")})
    outcome = settle((first, amal), (second, amal))
    assert (codes(outcome)["s1"], outcome.answers["s1"].reason, len(outcome.answers["s1"].values)) == ("L", "12", 1)
    assert outcome.changes == {first.hash: CONFIRMED, second.hash: CONFIRMED}


def test_two_phones_disagree_and_nobody_is_absent_whom_someone_saw() -> None:
    """Both values stay, the answer is the witness's, the register is disputed, and only that is."""
    amal, basma = pair()
    one, two = amal.mark({"s1": at("A"), "s2": at("P")}), basma.mark({"s1": at("P"), "s2": at("P")})
    outcome = settle((one, amal), (two, basma))
    assert codes(outcome) == {"s1": "P", "s2": "P", "s3": None}
    assert outcome.answers["s1"].disputed
    assert not outcome.answers["s2"].disputed
    assert {(m.value[0], m.user_id) for m in outcome.answers["s1"].values} == {("A", "amal"), ("P", "basma")}
    assert outcome.labels == ("disputed",)
    assert outcome.changes == dict.fromkeys(
        sorted((one.hash, two.hash)), Settled(state=State.NEEDS_REVIEW, slug="disputed")
    )


def test_one_teachers_two_phones_can_disagree() -> None:
    """A dispute is between marks that had not seen each other, whoever owns the phones."""
    first, second = Phone(label="a", user="amal"), Phone(label="c", user="amal")
    outcome = settle((first.mark({"s1": at("U")}), first), (second.mark({"s1": at("D")}), second))
    assert (codes(outcome)["s1"], outcome.answers["s1"].disputed) == ("D", True)


def test_a_mark_over_both_ends_the_dispute() -> None:
    """Who saw both values and marked again has answered; all three changes are confirmed."""
    amal, basma = pair()
    one, two = amal.mark({"s1": at("A")}), basma.mark({"s1": at("P")})
    amal.learn([two])
    last = amal.mark({"s1": at("L", reason=":5")})
    outcome = settle((one, amal), (two, basma), (last, amal))
    assert (codes(outcome)["s1"], outcome.answers["s1"].disputed, outcome.labels) == ("L", False, ())
    assert set(outcome.changes.values()) == {CONFIRMED}


def test_which_phone_comes_first_does_not_matter() -> None:
    """The answers are the same whichever syncs first; only the times of receipt differ."""
    amal, basma = pair()
    one, two = amal.mark({"s1": at("A"), "s2": at("E")}), basma.mark({"s1": at("P"), "s2": at("U")})
    outcomes = []
    for times in ((0, HOUR), (HOUR, 0)):
        receipts = [
            receipt(one, amal, received_at_ms=EIGHT + times[0], offset=1 + (times[0] > 0)),
            receipt(two, basma, received_at_ms=EIGHT + times[1], offset=1 + (times[1] > 0)),
        ]
        outcomes.append(reconcile(REGISTER, merge([one, two]), first_receipts(receipts), context()))
    shown = [
        [(a.code, a.reason, a.disputed, [m.value for m in a.values]) for a in o.answers.values()] for o in outcomes
    ]
    assert shown[0] == shown[1]


def test_a_late_arrival_needs_no_approval() -> None:
    """Captured in time, received two days later: confirmed, and called what it is."""
    amal, _ = pair()
    change = amal.mark({"s1": at("P")})
    received = EIGHT + 2 * DAY_MS
    outcome = settle((change, amal), received_at_ms=received)
    assert outcome.answers["s1"].timeliness is Timeliness.LATE_ARRIVAL
    assert outcome.changes[change.hash] == CONFIRMED


def test_an_adjustment_waits_beside_what_stood_before() -> None:
    """Marked in time, marked again two days after: stored, shown, labelled; the first mark stands until an approval."""
    amal, _ = pair()
    first = amal.mark({"s1": at("A")})
    change = amal.mark({"s1": at("P", hours=56)})
    outcome = settle((first, amal), (change, amal), received_at_ms=EIGHT + 2 * DAY_MS)
    assert codes(outcome)["s1"] == "A"
    assert outcome.held == (
        HeldMark(key="s1", value=at("P", hours=56), slug="window-closed", user_id="amal", change_hash=change.hash),
    )
    assert outcome.changes[change.hash] == Settled(state=State.NEEDS_REVIEW, slug="window-closed")
    assert outcome.labels == ("window-closed",)


def test_only_the_late_marks_of_a_change_wait() -> None:
    """One sitting over the end of the window: what was tapped before it counts at once."""
    amal, _ = pair()
    change = amal.mark({"s1": at("P"), "s2": at("P", hours=56)})
    outcome = settle((change, amal), received_at_ms=EIGHT + 2 * DAY_MS)
    assert (codes(outcome)["s1"], codes(outcome)["s2"]) == ("P", None)


def approval(change: Change, by: str = "basma", **more: Any) -> Context:
    word: dict[str, Any] = {
        "id": 1, "change_hash": change.hash, "approved": True, "reason": Reason.WRONG_CODE, "by": by,
        "level": Level.SCHOOL, "reference": "", "at_ms": EIGHT + 3 * DAY_MS, **more,
    }  # fmt: skip
    return replace(context(), decisions=Decisions(approvals={change.hash: (Approval(**word),)}))


def test_an_approved_adjustment_answers_and_keeps_the_original_beside_it() -> None:
    """Approved by somebody else in time: it counts, and what it replaced is still told; absent is no exception."""
    for before, after in (("A", "P"), ("P", "A")):
        amal, _ = pair()
        first, change = amal.mark({"s1": at(before)}), amal.mark({"s1": at(after, hours=56)})
        sent = ((first, amal), (change, amal))
        outcome = settle(*sent, around=approval(change), received_at_ms=EIGHT + 2 * DAY_MS)
        answer = outcome.answers["s1"]
        assert (answer.code, answer.timeliness, answer.labels) == (after, Timeliness.ADJUSTMENT, ("adjusted",))
        assert answer.original is not None
        assert answer.original.value == at(before)
        assert outcome.changes[change.hash] == CONFIRMED


@pytest.mark.parametrize(
    "wrong",
    [
        {"by": "amal"},  # the author
        {"at_ms": EIGHT + 30 * DAY_MS},  # the school's three working days were over
        {"level": Level.CENTRAL},  # no reference
        {"approved": False},
    ],
)
def test_an_approval_that_breaks_a_rule_changes_nothing(wrong: dict[str, Any]) -> None:
    """Whatever a store holds: the author's own word, one that came too late, a central one without a reference."""
    amal, _ = pair()
    change = amal.mark({"s1": at("P", hours=56)})
    outcome = settle((change, amal), around=approval(change, **wrong), received_at_ms=EIGHT + 2 * DAY_MS)
    assert codes(outcome)["s1"] is None
    assert outcome.changes[change.hash].state is State.NEEDS_REVIEW


def test_a_wrong_clock_is_flagged_and_counts() -> None:
    """A phone three hours fast: the mark is confirmed, corrected, and labelled."""
    amal, _ = pair()
    change = amal.mark({"s1": at("P", hours=11)})
    clock = ClockEvidence(wall_ms=EIGHT + 3 * HOUR + 1, mono_ms=9, session=amal.nonce)
    found = receipt(change, amal, received_at_ms=EIGHT + 1, clock=clock)
    outcome = reconcile(REGISTER, merge([change]), {change.hash: found}, context())
    assert (outcome.answers["s1"].captured_at_ms, outcome.answers["s1"].labels) == (EIGHT, ("clock",))
    assert outcome.changes[change.hash] == CONFIRMED


def test_an_unknown_pupil_is_held_and_joins_when_the_roster_comes() -> None:
    """The class-mates' marks count meanwhile; the change asks for a person for this reason alone."""
    amal, _ = pair()
    change = amal.mark({"s1": at("P"), STRANGER: at("P")})
    before = settle((change, amal))
    assert codes(before) == {"s1": "P", "s2": None, "s3": None}
    assert before.held == (
        HeldMark(key=STRANGER, value=at("P"), slug="unknown-pupil", user_id="amal", change_hash=change.hash),
    )
    assert before.changes[change.hash] == Settled(state=State.NEEDS_REVIEW, slug="unknown-pupil")
    after = settle((change, amal), around=context(roster=("s1", STRANGER)))
    assert (codes(after), after.held, after.changes) == ({"s1": "P", STRANGER: "P"}, (), {change.hash: CONFIRMED})


def test_a_mark_without_the_right_is_held_and_hides_nobody() -> None:
    """A stranger's absent over the teacher's present: she stands, his is listed."""
    amal, omar = Phone(label="a", user="amal"), Phone(label="o", user="omar")
    mine = amal.mark({"s1": at("P")})
    omar.learn([mine])
    his = omar.mark({"s1": at("A"), "s2": at("A")})
    outcome = settle((mine, amal), (his, omar))
    assert codes(outcome) == {"s1": "P", "s2": None, "s3": None}
    assert [(h.key, h.value, h.slug, h.user_id) for h in outcome.held] == [
        ("s1", at("A"), "out-of-scope", "omar"),
        ("s2", at("A"), "out-of-scope", "omar"),
    ]
    assert outcome.changes[his.hash] == Settled(state=State.NEEDS_REVIEW, slug="out-of-scope")
    assert outcome.changes[mine.hash] == CONFIRMED


def test_terminated_at_ten_marked_at_ten_to_synced_at_two() -> None:
    """Nothing a revoked subject signed alters the outcome without a named release; a new right is one."""
    omar = Phone(label="o", user="omar")
    change = omar.mark({"s1": at("A", hours=9.83)})
    revoked = Right(from_ms=0, until_ms=DAY.opens_ms + 10 * HOUR, revoked=True)
    late = DAY.opens_ms + 14 * HOUR
    outcome = settle((change, omar), around=context(entitled={"omar": (revoked,)}), received_at_ms=late)
    assert codes(outcome)["s1"] is None
    assert outcome.changes[change.hash] == Settled(state=State.NEEDS_REVIEW, slug="revoked")
    again = context(entitled={"omar": (revoked, Right(from_ms=0))})
    assert codes(settle((change, omar), around=again, received_at_ms=late))["s1"] == "A"


def test_a_held_change_that_only_drops_losers_is_judged_by_its_sealing() -> None:
    """It has no tap of its own; the moment it was sealed decides whether its author had the right."""
    amal, basma = pair()
    omar = Phone(label="o", user="omar")
    one, two = amal.mark({"s1": at("A")}), basma.mark({"s1": at("P")})
    omar.learn([one, two])
    dropped = omar.keep_winner("s1")
    assert dropped is not None
    sent = ((one, amal), (two, basma), (dropped, omar))
    ended = Right(from_ms=0, until_ms=EIGHT)
    began = Right(from_ms=0, until_ms=EIGHT + 1)
    teachers = {"amal": (Right(from_ms=0),), "basma": (Right(from_ms=0),)}
    held = settle(*sent, around=context(entitled={**teachers, "omar": (ended,)}))
    assert (held.answers["s1"].disputed, held.changes[dropped.hash].slug) == (True, "out-of-scope")
    counted = settle(*sent, around=context(entitled={**teachers, "omar": (began,)}))
    assert (counted.answers["s1"].disputed, counted.changes[dropped.hash]) == (False, CONFIRMED)


def test_a_mark_over_a_held_one_ends_the_review_of_that_mark() -> None:
    """Nobody needs to look at a held mark that the teacher has replaced since."""
    amal, omar = Phone(label="a", user="amal"), Phone(label="o", user="omar")
    his = omar.mark({"s1": at("A")})
    amal.learn([his])
    mine = amal.mark({"s1": at("P")})
    outcome = settle((his, omar), (mine, amal))
    assert (codes(outcome)["s1"], outcome.held) == ("P", ())
    assert outcome.changes[his.hash].slug == "out-of-scope"


def test_a_closed_day_labels_and_touches_no_mark() -> None:
    """A holiday declared late: the marks stay visible under their label; a register nobody took stays untaken."""
    amal, _ = pair()
    change = amal.mark({"s1": at("P"), "~session": at("H")})
    outcome = settle((change, amal), around=context(closed="armed_forces_day"))
    assert (codes(outcome)["s1"], outcome.answers["s1"].labels) == ("P", ("calendar",))
    assert (outcome.closed, outcome.labels) == ("armed_forces_day", ("calendar",))
    assert outcome.changes[change.hash] == Settled(state=State.NEEDS_REVIEW, slug="calendar")
    empty = reconcile(REGISTER, EMPTY, {}, context(closed="armed_forces_day"))
    assert (codes(empty)["s1"], empty.labels) == (None, ("calendar",))


def test_saying_on_a_closed_day_that_nothing_took_place_needs_nobody() -> None:
    """The calendar and the teacher agree."""
    amal, _ = pair()
    change = amal.mark({"~session": at("N", reason=":holiday")})
    outcome = settle((change, amal), around=context(closed="armed_forces_day"))
    assert outcome.changes[change.hash] == CONFIRMED


def test_a_register_of_the_future_needs_review() -> None:
    """Nobody can have seen the pupils more than a day ahead."""
    amal, _ = pair()
    change = amal.mark({"s1": at("P", hours=-40)})
    early = DAY.opens_ms - 40 * HOUR
    outcome = settle((change, amal), received_at_ms=early)
    assert (codes(outcome)["s1"], outcome.answers["s1"].labels, outcome.labels) == ("P", ("future",), ("future",))
    assert outcome.changes[change.hash] == Settled(state=State.NEEDS_REVIEW, slug="future")


def test_no_session_with_its_reason() -> None:
    """The session did not take place: no pupil has an answer, and the teacher's earlier marks are kept."""
    amal, _ = pair()
    first = amal.mark({"s1": at("A")})
    second = amal.mark({"~session": at("N", hours=8.5, reason=":strike")})
    outcome = settle((first, amal), (second, amal))
    assert (outcome.occasion, outcome.no_session_reason, outcome.labels) == (Occasion.NO_SESSION, "strike", ())
    assert codes(outcome)["s1"] is None
    assert [mark.value for mark in outcome.answers["s1"].values] == [at("A")]
    assert set(outcome.changes.values()) == {CONFIRMED}


def test_marks_beside_a_session_that_did_not_take_place_need_review() -> None:
    """Somebody marked pupils of a session that another says was not held: a person must look."""
    amal, basma = pair()
    none, marks = amal.mark({"~session": at("N", reason=":strike")}), basma.mark({"s1": at("P")})
    outcome = settle((none, amal), (marks, basma))
    assert (codes(outcome)["s1"], outcome.labels) == (None, ("disputed",))
    assert outcome.changes[marks.hash] == Settled(state=State.NEEDS_REVIEW, slug="no-session")
    assert outcome.changes[none.hash] == CONFIRMED


def test_one_change_may_mark_and_then_say_that_it_did_not_take_place() -> None:
    """Its author saw her own marks."""
    amal, _ = pair()
    change = amal.mark({"s1": at("P"), "~session": at("N", reason=":strike")})
    assert settle((change, amal)).changes == {change.hash: CONFIRMED}


def test_who_held_the_session_outweighs_who_did_not_see_it() -> None:
    """Held and not held at once: the marks count and the register is disputed."""
    amal, basma = pair()
    none, held = amal.mark({"~session": at("N", reason=":strike")}), basma.mark({"~session": at("H"), "s1": at("P")})
    outcome = settle((none, amal), (held, basma))
    assert (outcome.occasion, outcome.no_session_reason) == (Occasion.HELD, None)
    assert (codes(outcome)["s1"], outcome.labels) == ("P", ("disputed",))


def test_pending_inconsistent_and_equivocating_changes_are_told_apart() -> None:
    """One bad change never blocks another, and each has its state."""
    amal, basma = pair()
    first = amal.mark({"s1": at("P")})
    basma.learn([first])
    unsent = basma.mark({"s2": at("P")})
    waiting = basma.mark({"s3": at("P")})
    bad = contradicting(first)
    copies = (Phone(label="a", user="amal") for _ in range(50))
    twin = next(
        t for t in (c.mark({"s1": at("A", hours=8 + i / 9)}) for i, c in enumerate(copies)) if t.hash > first.hash
    )
    outcome = settle((first, amal), (waiting, basma), (bad, amal), (twin, amal))
    assert outcome.changes == {
        first.hash: CONFIRMED,
        waiting.hash: Settled(state=State.WAITING, slug="pending"),
        bad.hash: Settled(state=State.NEEDS_REVIEW, slug="inconsistent", detail="start_op"),
        twin.hash: Settled(state=State.NEEDS_REVIEW, slug="equivocation"),
    }
    assert list(outcome.changes) == sorted(outcome.changes)
    assert [outcome.changes[h].dead_letter for h in (bad.hash, twin.hash)] == [True, False]
    assert unsent.hash not in outcome.changes


def test_a_change_without_a_receipt_waits() -> None:
    """Whose it is nobody can say yet: it counts for nothing and is listed."""
    amal, _ = pair()
    change = amal.mark({"s1": at("A")})
    outcome = reconcile(REGISTER, merge([change]), {}, context())
    assert outcome.changes == {change.hash: Settled(state=State.WAITING, slug="no-receipt")}
    assert [(h.key, h.user_id, h.slug) for h in outcome.held] == [("s1", None, "no-receipt")]
    assert codes(outcome)["s1"] is None


def test_the_first_receipt_counts() -> None:
    """Later arrivals of the same change, in any order of reading, teach nothing."""
    amal, _ = pair()
    change = amal.mark({"s1": at("P")})
    early = receipt(change, amal, offset=3)
    later = receipt(change, amal, offset=9, received_at_ms=EIGHT + 9 * DAY_MS)
    assert first_receipts([later, early, later]) == {change.hash: early} == first_receipts([early, later])


def test_a_register_of_the_first_year_of_the_calendar_is_settled() -> None:
    """A hostile date with a hostile clock ends in a labelled answer, not in an exception."""
    register = RegisterId(REGISTER.school, REGISTER.class_id, "0001-01-01", "day")
    amal, _ = pair()
    change = encode(
        actor=amal.actor, seq=1, start_op=1, time_s=0, deps=[], ops=amal.mark({"s1": "P-9999999999999"}).ops
    )
    found = receipt(change, amal, clock=ClockEvidence(wall_ms=-(10**18), mono_ms=0, session=amal.nonce))
    around = context(entitled={"amal": (Right(from_ms=-(10**18)),)})
    answer = reconcile(register, merge([change]), {change.hash: found}, around).answers["s1"]
    assert (answer.code, answer.labels) == (Code.PRESENT, ("clock",))
    assert answer.captured_interval is not None
    assert 0 <= answer.captured_interval[0] <= answer.captured_interval[1] <= found.received_at_ms


@pytest.mark.parametrize("zone", [(), ((5, 7200), (5, 10800)), ((9, 7200), (5, 10800))])
def test_a_zone_must_ascend(zone: tuple[tuple[int, int], ...]) -> None:
    """A broken table of offsets is refused before it decides anything."""
    around = context()
    with pytest.raises(BadContext):
        Context(roster=around.roster, zone=zone, window=around.window, entitled={})
