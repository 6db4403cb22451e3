"""Decisions over random stories: approvals, releases, choices, rulings and merged records, good ones and bad ones."""

from __future__ import annotations

import random
from dataclasses import replace
from itertools import pairwise

from hypothesis import example, given, settings
from hypothesis import strategies as st

from clientcore.history import merge
from clientcore.register import Code, Mark
from reconciliation.decisions import ABSENCES, NONE, NOT_THERE, may_rule
from reconciliation.explain import COUNTS, Explanation, explain
from reconciliation.identity import follow
from reconciliation.model import NOT_TAKEN, Context, Occasion, Outcome, first_receipts
from reconciliation.reconcile import reconcile
from reconciliation.wire import canonical
from tests.support.decided import IDS, Word, afterthoughts, decided, words
from tests.support.histories import PUPILS, REGISTER, Played, Step, play, quarrels, steps, story_context

RUN = settings(max_examples=100, derandomize=True, deadline=None, print_blob=True)
STORIES = st.one_of(steps(), quarrels(), afterthoughts())


def settle(played: Played, around: Context) -> Outcome:
    return reconcile(REGISTER, merge(played.changes), first_receipts(played.receipts), around)


def bytes_of(outcome: Outcome) -> bytes:
    return canonical(outcome.to_wire())


@RUN
@given(STORIES, words(), st.randoms(use_true_random=False))
def test_the_outcome_depends_on_the_set_of_changes_under_any_decisions(
    story: list[Step], said: list[Word], chance: random.Random
) -> None:
    """And is read back from its stored form as it was."""
    played = play(story)
    around = decided(played, settle(played, story_context()), said)
    outcome = settle(played, around)
    shuffled = Played(changes=[*played.changes, *played.changes[:3]], receipts=list(played.receipts))
    chance.shuffle(shuffled.changes)
    chance.shuffle(shuffled.receipts)
    assert bytes_of(settle(shuffled, around)) == bytes_of(outcome)
    assert Outcome.from_wire(outcome.to_wire()) == outcome


@RUN
@given(STORIES, words())
def test_absent_comes_only_from_a_visible_absence_whoever_decides_what(story: list[Step], said: list[Word]) -> None:
    """A ruling changes the kind of an absence at most; presence is never made where nobody took the register."""
    played = play(story)
    outcome = settle(played, decided(played, settle(played, story_context()), said))
    for answer in outcome.answers.values():
        marked = {mark.code for mark in answer.values}
        if answer.code in NOT_THERE:
            assert marked & NOT_THERE
        if not answer.values:
            assert answer.code in (None, Code.OFFICIAL_DUTY)
        if answer.code is not None and answer.ruling is None:
            assert answer.code in marked


@RUN
@given(STORIES, words())
def test_taking_every_decision_back_brings_back_every_byte(story: list[Step], said: list[Word]) -> None:
    """Decisions are laid over the marks and never written into them; each mark that stood is found again."""
    played = play(story)
    plain = settle(played, story_context())
    around = decided(played, plain, said)
    settle(played, around)
    assert bytes_of(settle(played, replace(around, decisions=NONE, aliases={}))) == bytes_of(plain)


@RUN
@given(STORIES, words())
def test_a_merge_loses_no_mark(story: list[Step], said: list[Word]) -> None:
    """What stood under several ids stands under one, or is held with its reason."""
    played = play(story)
    around = decided(played, settle(played, story_context()), said)
    apart, merged = settle(played, replace(around, aliases={})), settle(played, around)

    def marks(outcome: Outcome) -> set[tuple[bytes, str]]:
        stand = {(m.change_hash, m.value) for answer in outcome.answers.values() for m in answer.values}
        return stand | {(held.change_hash, held.value) for held in outcome.held}

    assert marks(apart) == marks(merged)
    assert not merged.answers.keys() & around.aliases.keys()


@RUN
@given(STORIES, words())
def test_nobody_lets_in_their_own_late_marks(story: list[Step], said: list[Word]) -> None:
    """An adjustment that counts has a word of somebody else on it, and a central word has a reference."""
    played = play(story)
    around = decided(played, settle(played, story_context()), said)
    for answer in settle(played, around).answers.values():
        if "adjusted" in answer.labels:
            assert answer.mark is not None
            approvals = around.decisions.approvals[answer.mark.change_hash]
            assert any(one.approved and one.by != answer.user_id for one in approvals)


@RUN
@given(STORIES, words())
@example([Step(what="mark", phone=0), Step(what="mark", phone=1, code=3)], [Word(what="choose")])
def test_whoever_follows_the_explanation_arrives_at_the_official_code(story: list[Step], said: list[Word]) -> None:
    """For every pupil and every id, from the facts of the steps alone; each step speaks both languages."""
    played = play(story)
    around = decided(played, settle(played, story_context()), said)
    outcome = settle(played, around)
    for pupil in IDS:
        told = explain(pupil, played.changes, first_receipts(played.receipts), around, outcome)
        answer = outcome.answers.get(around.aliases.get(pupil, pupil), NOT_TAKEN)
        assert told.code == answer.code
        assert followed(told) == answer.code
        made = [one for one in told.steps if one.code in ("mark", "unread-mark") and one.facts["key"] in IDS]
        ids = {told.canonical, *(alias for alias, stands in around.aliases.items() if stands == told.canonical)}
        assert len(made) == len(
            {(change.hash, n) for change in played.changes for n, op in enumerate(change.ops)
             if op.key in ids and op.value is not None}
        )  # fmt: skip
        assert all(one.ar and one.en and "{" not in one.ar + one.en for one in told.steps)


def followed(told: Explanation) -> Code | None:
    """The code by hand: session, ruling, choice, witnesses, the last."""
    by_code = {step.code: step.facts for step in told.steps}
    if "no-session" in by_code or "no-answer" in by_code:
        return None
    if "ruled" in by_code:
        return Code[str(by_code["ruled"]["code"]).upper()]
    if "settled" in by_code:
        return Mark.parse(by_code["settled"]["value"]).code
    standing = sorted(
        (step.facts["place"], step.facts["value"])
        for step in told.steps
        if step.code == "mark" and step.facts["fate"] == COUNTS and not step.facts["key"].startswith("~")
    )
    codes = [Mark.parse(value).code for _, value in standing]
    witnesses = [code for code in codes if code.witnesses_presence]
    return [None, *(witnesses or codes)][-1]


PAIRS = st.lists(st.tuples(st.sampled_from(IDS), st.sampled_from(IDS)), max_size=8)


@RUN
@given(PAIRS)
def test_merged_records_are_never_a_chain_and_never_a_circle(pairs: list[tuple[str, str]]) -> None:
    """Whatever was written down, in whatever order."""
    known = follow(pairs)
    assert not set(known.values()) & known.keys()
    assert set(known) <= {alias for alias, _ in pairs}
    for (shorter, _), _ in pairwise((follow(pairs[:n]), n) for n in range(len(pairs) + 1)):
        assert set(shorter) <= set(known)  # a later decision frees nobody


@RUN
@given(st.sampled_from(Code), st.one_of(st.none(), st.sampled_from(Code)))
def test_a_ruling_observes_nobody(code: Code, present: Code | None) -> None:
    """Nobody is put away whom nobody missed; nobody is put into a class that nobody took."""
    if may_rule(code, present):
        assert code not in NOT_THERE or present in NOT_THERE
        assert present is not None or code not in (Code.PRESENT, Code.LATE, Code.LEFT_EARLY, *ABSENCES)
    assert may_rule(Code.OFFICIAL_DUTY, present)


def test_the_stories_reach_what_they_are_about() -> None:
    """Adjusted, ruled, settled, merged, released: each label is met, so that the claims above are not empty."""
    met: set[str] = set()

    @settings(max_examples=400, derandomize=True, deadline=None, database=None)
    @given(STORIES, words())
    def look(story: list[Step], said: list[Word]) -> None:
        played = play(story)
        outcome = settle(played, decided(played, settle(played, story_context()), said))
        for answer in outcome.answers.values():
            met.update(answer.labels)
        if outcome.occasion is Occasion.NO_SESSION:
            met.add("no-session")

    look()
    assert met >= {"adjusted", "ruled", "settled-by-person", "merged-record", "released", "no-session"}
    assert len(PUPILS) == 3
