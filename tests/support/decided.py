"""Decisions over a played story: some that count, many that should never have been written down."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from hypothesis import strategies as st

from clientcore.change import Change
from clientcore.register import Code
from reconciliation.decisions import Approval, Choice, Decisions, Level, Reason, Release, Ruling
from reconciliation.identity import follow
from reconciliation.model import Context, Outcome
from tests.support.histories import PUPILS, STRANGER, Played, Step, story_context

BY = ("amal", "basma", "head", "token:ministry")
_LATE = ("window-closed", "adjustment-locked")
IDS = (*PUPILS, STRANGER)


@dataclass(frozen=True, slots=True, kw_only=True)
class Word:
    """One decision; numbers are indices, taken modulo what there is."""

    what: str
    at: int = 0
    by: int = 2
    other: int = 0
    code: int = 0
    level: Level = Level.SCHOOL
    reference: str = ""
    approved: bool = True
    hours: int = 1


def words(*, max_size: int = 8) -> st.SearchStrategy[list[Word]]:
    """Lists of decisions of every kind."""
    return st.lists(
        st.builds(
            Word,
            what=st.sampled_from(("approve", "approve", "choose", "choose", "release", "rule", "merge")),
            at=st.integers(0, 15),
            by=st.integers(0, len(BY) - 1),
            other=st.integers(0, 3),
            code=st.integers(0, 7),
            level=st.sampled_from(Level),
            reference=st.sampled_from(("", "letter 7")),
            approved=st.booleans(),
            hours=st.sampled_from((-1, 1, 30, 24 * 9)),
        ),
        min_size=2,
        max_size=max_size,
    )


def afterthoughts(*, max_size: int = 8) -> st.SearchStrategy[list[Step]]:
    """Stories of two teachers who mark in time and change their minds a day, three days and a week later."""
    return st.lists(
        st.builds(
            Step,
            what=st.sampled_from(("mark", "follow")),
            phone=st.sampled_from((0, 1)),
            key=st.integers(0, 3),
            code=st.integers(0, 7),
            minutes=st.sampled_from((0, 0, 1_500, 4_400, 10_100)),
            told=st.just(True),
        ),
        min_size=max_size // 2,
        max_size=max_size,
    )


def decided(played: Played, plain: Outcome, said: Sequence[Word]) -> Context:
    """The story's surroundings with these decisions; choices and rulings are made in sight of `plain`."""
    changes = sorted(played.changes, key=lambda change: change.hash)
    found, pairs = Decisions(), []
    for number, word in enumerate(said, 1):
        if word.what == "merge":
            pairs.append((IDS[word.at % 4], IDS[word.other]))
        elif changes:
            late = [one for one in changes if plain.changes[one.hash].slug in _LATE] if word.what == "approve" else []
            among = late or changes
            found = _one(played, plain, among[word.at % len(among)], number, word, found)
    return replace(story_context(), decisions=found, aliases=follow(pairs))


def _one(played: Played, plain: Outcome, change: Change, number: int, word: Word, so_far: Decisions) -> Decisions:
    received_ms = next(r.received_at_ms for r in played.receipts if r.change_hash == change.hash)
    by, at_ms = BY[word.by], received_ms + word.hours * 3_600_000
    if word.what == "release":
        release = Release(change_hash=change.hash, by=by, reason="seen", at_ms=at_ms)
        return replace(so_far, releases={**so_far.releases, change.hash: release})
    if word.what == "approve":
        approval = Approval(
            id=number, change_hash=change.hash, approved=word.approved, reason=Reason.FORGOTTEN, by=by,
            level=word.level, reference=word.reference, at_ms=at_ms,
        )  # fmt: skip
        known = (*so_far.approvals.get(change.hash, ()), approval)
        return replace(so_far, approvals={**so_far.approvals, change.hash: known})
    disputed = [name for name, answer in plain.answers.items() if answer.disputed] if word.what == "choose" else []
    pupils = disputed or PUPILS
    pupil = pupils[word.other % len(pupils)]
    values = plain.answers[pupil].values
    among = frozenset(mark.change_hash for mark in values)
    if word.what == "choose" and values:
        chosen = values[word.at % len(values)]
        choice = Choice(
            pupil=pupil, among=among, chosen=chosen.change_hash, value=chosen.value, by=by, at_ms=at_ms
        )  # fmt: skip
        return replace(so_far, choices={**so_far.choices, pupil: choice})
    code = list(Code)[word.code]
    ruling = Ruling(pupil=pupil, among=among, code=code, reason=None, bulk=number, by=by, at_ms=at_ms)
    return replace(so_far, rulings={**so_far.rulings, pupil: (*so_far.rulings.get(pupil, ()), ruling)})
