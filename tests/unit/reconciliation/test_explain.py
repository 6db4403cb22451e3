"""The words of an explanation: every step that can occur is told, in both languages, from the facts beside it."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import pytest

from clientcore.change import Change
from clientcore.frame import ClockEvidence
from clientcore.history import merge
from clientcore.register import Code
from reconciliation.decisions import Approval, Choice, Decisions, Level, Reason, Release, Ruling
from reconciliation.explain import Explanation, Step, Trail, explain
from reconciliation.explain_words import TEXTS, WORDS
from reconciliation.model import Context, Receipt, Right, first_receipts
from reconciliation.reconcile import reconcile
from tests.support.histories import DAY, REGISTER, Phone, context, contradicting, receipt

EIGHT = DAY.opens_ms + 28_800_000
DAY_MS = 86_400_000


def told(
    pupil: str,
    *sent: tuple[Change, Phone],
    around: Context | None = None,
    trail: Trail | None = None,
    receipts: Iterable[Receipt] | None = None,
) -> Explanation:
    """The explanation of a pupil's answer; it ends where the outcome does."""
    found = receipts or [receipt(change, phone, offset=n) for n, (change, phone) in enumerate(sent)]
    changes, around = [change for change, _ in sent], around or context()
    first = first_receipts(found)
    outcome = reconcile(REGISTER, merge(changes), first, around)
    made = explain(pupil, changes, first, around, outcome, trail)
    answer = outcome.answers.get(around.aliases.get(pupil, pupil))
    assert made.code == (None if answer is None else answer.code)
    return made


def step(made: Explanation, code: str) -> Step:
    """The only step of a kind."""
    (found,) = [one for one in made.steps if one.code == code]
    return found


def codes(made: Explanation) -> list[str]:
    return [one.code for one in made.steps]


def pair() -> tuple[Phone, Phone]:
    return Phone(label="a", user="amal"), Phone(label="b", user="basma")


def test_a_mark_is_told_with_who_which_phone_when_and_how_it_came() -> None:
    """And the local time, for people."""
    amal, _ = pair()
    change = amal.mark({"s1": "L28800000:12"})
    one = step(told("s1", (change, amal), receipts=[receipt(change, amal, offset=41, relayed=True)]), "mark")
    assert (one.facts["author"], one.facts["device"], one.facts["offset"]) == ("amal", amal.device.hex(), 41)
    assert (one.facts["captured_at"], one.facts["received_at"]) == (
        "2026-11-22T06:00:00.000Z", "2026-11-22T06:10:00.000Z",
    )  # fmt: skip
    assert "amal marked “late” (12)" in one.en
    assert "2026-11-22 08:10:00 as number 41, in a file another person handed in" in one.en
    assert "سجّل amal «تأخير» (12)" in one.ar


@pytest.mark.parametrize(
    ("clock", "floor", "evidence"),
    [
        (ClockEvidence(wall_ms=EIGHT, mono_ms=9, session=b"x" * 8), None, "clock-alone"),
        (ClockEvidence(wall_ms=EIGHT, mono_ms=9, session=b"x" * 8), 0, "earlier-frame"),
        (ClockEvidence(wall_ms=EIGHT, mono_ms=9, session=b"x" * 8, beacon=(EIGHT - 9, 1)), None, "earlier-beacon"),
    ],
)
def test_the_evidence_of_the_clock_is_named(clock: ClockEvidence, floor: int | None, evidence: str) -> None:
    """What the interval rests on."""
    amal, _ = pair()
    change = amal.mark({"s1": "P28800000"})
    found = replace(receipt(change, amal, clock=clock), offset_floor_ms=floor)
    assert step(told("s1", (change, amal), receipts=[found]), "mark").facts["evidence"] == evidence
    own = replace(found, clock=replace(clock, session=amal.nonce, beacon=(EIGHT - 9, 1)))
    assert step(told("s1", (change, amal), receipts=[own]), "mark").facts["evidence"] == "beacon"


def test_what_became_of_each_mark_is_told_after_it() -> None:
    """Replaced, standing, held without the right, without a receipt, contradicting, waiting."""
    amal, basma = pair()
    omar = Phone(label="o", user="omar")
    first = amal.mark({"s1": "A28800000"})
    basma.learn([first])
    over = basma.mark({"s1": "P28900000"})
    his = omar.mark({"s1": "U28800000"})
    lost = basma.mark({"s1": "L29000000"})
    last = basma.mark({"s1": "L29100000"})
    wrong = contradicting(first)
    sent = ((first, amal), (over, basma), (his, omar), (wrong, amal))
    made = told("s1", *sent)
    assert codes(made)[2:] == [
        "mark", "held", "mark", "right", "superseded", "mark", "right", "counts", "unread-mark", "answer", "untold",
    ]  # fmt: skip
    assert step(made, "superseded").facts["over"] == over.hash.hex()
    assert "no right to the class" in step(made, "held").en
    assert "contradicts what it builds on" in step(made, "unread-mark").en
    pending = told("s1", *sent[:2], (last, basma))
    assert step(pending, "unread-mark").facts["why"] == "pending"
    receipts = [receipt(first, amal, offset=1), receipt(over, basma, offset=2)]
    nobodys = told("s1", *sent[:2], (lost, basma), receipts=receipts)
    assert step(nobodys, "unread-mark").facts["why"] == "no-receipt"


def test_rights_releases_and_delegations_are_named() -> None:
    """By post, by delegation, or let in by another person."""
    amal, basma = pair()
    change, other = amal.mark({"s1": "P28800000"}), basma.mark({"s2": "P28800000"})
    rights: dict[str, tuple[Right, ...]] = {"amal": (Right(from_ms=0, delegation="d7"),)}
    release = Release(change_hash=other.hash, by="head", reason="stood in", at_ms=EIGHT + DAY_MS)
    around = replace(context(entitled=rights), decisions=Decisions(releases={other.hash: release}))
    assert step(told("s1", (change, amal), around=around), "right").en == "Right to mark: a delegation d7."
    released = step(told("s2", (other, basma), around=around), "released")
    assert "head let change" in released.en
    assert "2026-11-23 08:00:00" in released.en


def test_a_dispute_and_the_word_that_ended_it_or_no_longer_does() -> None:
    """Counted for exactly the marks it was made about."""
    amal, basma = pair()
    one, two = amal.mark({"s1": "P28800000"}), basma.mark({"s1": "A28800000"})
    choice = Choice(
        pupil="s1", among=frozenset((one.hash, two.hash)), chosen=two.hash, value="A28800000", by="head", at_ms=EIGHT
    )  # fmt: skip
    around = replace(context(), decisions=Decisions(choices={"s1": choice}))
    made = told("s1", (one, amal), (two, basma), around=around)
    assert codes(made)[-4:] == ["disputed", "settled", "answer", "untold"]
    assert made.code is Code.ABSENT
    third = Phone(label="c", user="amal").mark({"s1": "L28800000"})
    made = told("s1", (one, amal), (two, basma), (third, Phone(label="c", user="amal")), around=around)
    assert "void-choice" in codes(made)
    same = told("s1", (one, amal), (basma.mark({"s3": "P1"}), basma), (two, basma))
    assert "disputed" in codes(same)
    agree = Phone(label="d", user="basma").mark({"s1": "P28700000"})
    assert "agreed" in codes(told("s1", (one, amal), (agree, Phone(label="d", user="basma"))))


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"by": "amal"}, "author"),
        ({"level": Level.CENTRAL}, "no-reference"),
        ({"at_ms": EIGHT + 40 * DAY_MS}, "too-late"),
        ({"at_ms": EIGHT}, "too-late"),
    ],
)
def test_a_decision_that_does_not_count_says_why(change: dict[str, Any], why: str) -> None:
    """The author's own, one without a reference, one out of time."""
    made = late_request(change)
    assert step(made, "void-decision").facts["why"] == why
    assert step(made, "request").facts["stage"] == "waiting"
    assert made.code is Code.ABSENT


def late_request(*decisions: dict[str, Any]) -> Explanation:
    """Absent in time; two days later a request for present, and what was decided about it."""
    amal, _ = pair()
    first = amal.mark({"s1": "A28800000"})
    late = amal.mark({"s1": f"P{28_800_000 + 2 * DAY_MS}"})
    usual: dict[str, Any] = {
        "change_hash": late.hash, "approved": True, "reason": Reason.WRONG_CODE, "by": "head",
        "level": Level.SCHOOL, "reference": "", "at_ms": EIGHT + 3 * DAY_MS,
    }  # fmt: skip
    approvals = tuple(Approval(**{"id": n, **usual, **more}) for n, more in enumerate(decisions))
    around = replace(context(), decisions=Decisions(approvals={late.hash: approvals}))
    received_ms = EIGHT + 2 * DAY_MS + 600_000
    receipts = [receipt(first, amal, offset=1), receipt(late, amal, offset=2, received_at_ms=received_ms)]
    return told("s1", (first, amal), (late, amal), around=around, receipts=receipts)


def test_an_adjustment_is_told_with_both_clocks_every_word_and_the_original() -> None:
    """Waiting, then approved; of two words the later one counts."""
    waits = step(late_request(), "request")
    assert "until the end of 2026-11-25" in waits.en
    assert "at school until the end of 2026-11-29" in waits.en
    made = late_request({"approved": False}, {})
    assert step(made, "decision").facts["stage"] == "approved"
    assert step(made, "void-decision").facts["why"] == "superseded-decision"
    assert step(made, "original").facts["code"] == "absent"
    assert "after an approved adjustment" in step(made, "answer").en


def test_a_ruling_is_told_and_one_whose_marks_changed_is_told_as_void() -> None:
    """The mark stays beside it."""
    amal, _ = pair()
    change = amal.mark({"s1": "A28800000"})
    ruling = Ruling(
        pupil="s1", among=frozenset((change.hash,)), code=Code.PRESENT, reason=None, bulk=7, by="head", at_ms=EIGHT
    )  # fmt: skip
    around = replace(context(), decisions=Decisions(rulings={"s1": (ruling,)}))
    made = told("s1", (change, amal), around=around)
    assert step(made, "ruled").facts["bulk"] == 7
    assert step(made, "original").facts["code"] == "absent"
    after = told("s1", (change, amal), (amal.mark({"s1": "L28900000"}), amal), around=around)
    assert step(after, "void-ruling").facts["bulk"] == 7


def test_the_register_itself_is_told() -> None:
    """Closed day, no session, all present, a stranger, merged records, nobody's mark."""
    amal, _ = pair()
    strike = amal.mark({"~bulk": "B28700000", "s1": "P28800000", "~session": "N30000000:strike"})
    made = told("s1", (strike, amal), around=context(closed="feast"))
    assert "closed (feast)" in step(made, "closed-day").en
    assert step(made, "no-session").facts["reason"] == "strike"
    assert [one.facts["code"] for one in made.steps if one.code == "mark"] == ["all_present", "no_session", "present"]
    assert ("set-aside" in codes(made), made.code) == (True, None)
    stranger = told("s9", (amal.mark({"s9": "P28800000"}), amal))
    assert codes(stranger)[-2:] == ["no-answer", "untold"]
    alias = replace(context(), aliases={"s2": "s1"})
    merged = told("s2", (Phone(label="m", user="amal").mark({"s2": "P1"}), Phone(label="m", user="amal")), around=alias)
    assert (merged.canonical, step(merged, "alias").facts["alias"]) == ("s1", "s2")
    assert "does not mean absent" in step(told("s3"), "no-mark").en


def test_what_was_told_audited_unread_and_not_settled_yet_comes_last() -> None:
    """From the trail the caller gives."""
    trail = Trail(
        told=[
            {"type": "eg.hudur.mark.recorded.v1", "time": "2026-11-22T06:10:00.000Z", "revision": 1, "code": "absent"},
            {"type": "eg.hudur.mark.withdrawn.v1", "time": "2026-11-23T06:10:00.000Z", "revision": 2},
        ],
        audit=[(9, EIGHT, "user:eg/ch1", "pupil-merge", "one child")],
        dead=[(17, "poison")],
        unsettled=True,
    )
    made = told("s3", trail=trail)
    assert codes(made)[-5:] == ["told", "told", "audit", "dead-letter", "unsettled"]
    assert "revision 1 at 2026-11-22 08:10:00: recorded, absent" in made.steps[-5].en
    assert "Audit row 9: two records merged by user:eg/ch1" in step(made, "audit").en
    assert made.to_wire()["code"] == "not_taken"


def test_every_sentence_says_the_same_things_in_both_languages() -> None:
    """The fields of the Arabic are those of the English, and the Arabic is Arabic."""
    for code, (arabic, english) in TEXTS.items():
        names = [
            {name.removesuffix("_ar").removesuffix("_en") for name in re.findall(r"\{(\w+)\}", text)}
            for text in (arabic, english)
        ]
        assert names[0] == names[1], code
        assert re.search(r"[\u0600-\u06ff]", arabic), code
        assert not re.search(r"[\u0600-\u06ff]", english), code
    assert all(re.search(r"[\u0600-\u06ff]", arabic) for arabic, _ in WORDS.values())
