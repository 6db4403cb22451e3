"""Outcomes and events over random stories: several authors, copied phones, wrong clocks, held changes, contradictions.

Runs are derandomised: the same stories every time. A longer search: `pytest tests/property/test_reconcile.py
--hypothesis-seed=N` after setting HUDUR_STORIES to the number of stories.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from clientcore.change import Change
from clientcore.history import History, Put, merge
from clientcore.register import Code, Mark
from reconciliation.decisions import Approval, Decisions, Level, Reason
from reconciliation.events import WITHDRAWN, Event, event_state, events
from reconciliation.model import Context, Occasion, Outcome, Receipt, State, Timeliness, first_receipts
from reconciliation.reconcile import reconcile
from reconciliation.wire import canonical
from tests.support.histories import (
    PUPILS,
    REGISTER,
    REVOKED_AT_MS,
    Phone,
    Played,
    Step,
    context,
    play,
    quarrels,
    receipt,
    steps,
    story_context,
)

_STORIES = os.environ.get("HUDUR_STORIES")
RUN = settings(max_examples=int(_STORIES or 120), derandomize=_STORIES is None, deadline=None, print_blob=True)
ABSENT = (Code.ABSENT, Code.ABSENT_EXCUSED, Code.ABSENT_UNEXCUSED, Code.SUSPENDED)
ABSENT_WORDS = {code.word for code in ABSENT}


def outcome_of(changes: Iterable[Change], receipts: Iterable[Receipt]) -> Outcome:
    return reconcile(REGISTER, merge(changes), first_receipts(receipts), story_context())


def all_approved(around: Context, played: Played) -> Context:
    """Every adjustment of a story is let in by the central office."""
    words = {
        r.change_hash: (
            Approval(
                id=1,
                change_hash=r.change_hash,
                approved=True,
                reason=Reason.DOCUMENTED,
                by="central",
                level=Level.CENTRAL,
                reference="letter 7",
                at_ms=r.received_at_ms + 1,
            ),
        )
        for r in played.receipts
    }
    return replace(around, decisions=Decisions(approvals=words))


def outcome_with_all_approved(played: Played) -> Outcome:
    return reconcile(
        REGISTER, merge(played.changes), first_receipts(played.receipts), all_approved(story_context(), played)
    )


def data_of(outcome: Outcome) -> bytes:
    return canonical(outcome.to_wire())


def arrivals(played: Played) -> list[tuple[Change, Receipt]]:
    return list(zip(played.changes, played.receipts, strict=True))


def entitled(played: Played, digest: bytes) -> bool:
    """Whether the maker of a change had the right, told from the story alone."""
    found = {r.change_hash: r for r in played.receipts}[digest]
    return found.user_id in ("amal", "basma") or (found.user_id == "omar" and found.received_at_ms < REVOKED_AT_MS)


def settle_in_batches(
    batches: Sequence[Sequence[tuple[Change, Receipt]]], *, restart: bool
) -> tuple[Outcome, list[Event], dict[str, int]]:
    """What a server does: after each batch the register is settled from all it has. `restart`: through the store."""
    changes: list[Change] = []
    receipts: list[Receipt] = []
    told: list[Event] = []
    previous: Outcome | None = None
    revisions: dict[str, int] = {}
    for number, batch in enumerate(batches):
        changes.extend(change for change, _ in batch)
        receipts.extend(r for _, r in batch)
        outcome = outcome_of(changes, receipts)
        found, revisions = events(previous, outcome, revisions, time_ms=number)
        told.extend(found)
        previous = outcome
        if restart:
            previous = Outcome.from_wire(json.loads(data_of(outcome)))
            revisions = json.loads(canonical(revisions))
    assert previous is not None
    return previous, told, revisions


@RUN
@given(story=st.one_of(steps(), quarrels()), chance=st.randoms(use_true_random=False))
def test_order_and_duplicates_do_not_matter(story: list[Step], chance) -> None:  # type: ignore[no-untyped-def]
    """The outcome is a function of the set: any order, and any change arriving again later, give the same bytes."""
    played = play(story)
    expected = data_of(outcome_of(played.changes, played.receipts))
    sent = arrivals(played)
    again = [
        (change, receipt(change, Phone(label="x", user="omar"), offset=1_000 + i, received_at_ms=i))
        for i, (change, _) in enumerate(sent)
        if chance.random() < 0.4
    ]
    mixed = sent + again
    chance.shuffle(mixed)
    assert data_of(outcome_of([c for c, _ in mixed], [r for _, r in mixed])) == expected


@RUN
@given(story=st.one_of(steps(), quarrels()), chance=st.randoms(use_true_random=False), data=st.data())
def test_batches_and_restarts_end_in_the_same_outcome_and_event_state(  # type: ignore[no-untyped-def]
    story: list[Step], chance, data: st.DataObject
) -> None:
    """In any order, cut into any batches, with or without a restart between them: same outcome, same final events."""
    sent = arrivals(play(story))
    at_once, told_at_once, _ = settle_in_batches([sent], restart=False)
    mixed = list(sent)
    chance.shuffle(mixed)
    cuts = sorted(data.draw(st.sets(st.integers(0, len(mixed)), max_size=5)))
    edges = [0, *cuts, len(mixed)]
    batches = [mixed[a:b] for a, b in pairwise(edges)]
    outcome, told, revisions = settle_in_batches(batches, restart=False)
    after_restarts, told_after_restarts, revisions_after = settle_in_batches(batches, restart=True)
    assert data_of(outcome) == data_of(at_once) == data_of(after_restarts)
    assert event_state(told) == event_state(told_at_once)
    assert [canonical(e.to_wire()) for e in told] == [canonical(e.to_wire()) for e in told_after_restarts]
    assert revisions == revisions_after


@RUN
@given(story=steps(), chance=st.randoms(use_true_random=False))
def test_events_form_one_unbroken_chain_per_pupil(story: list[Step], chance) -> None:  # type: ignore[no-untyped-def]
    """Revisions count from 1 without a gap, each names the one before, ids never repeat, and the end is the outcome."""
    mixed = arrivals(play(story))
    chance.shuffle(mixed)
    outcome, told, revisions = settle_in_batches([[one] for one in mixed] or [[]], restart=False)
    assert len({event.id for event in told}) == len(told)
    for pupil in PUPILS:
        chain = [event for event in told if event.pupil == pupil]
        assert [event.revision for event in chain] == list(range(1, len(chain) + 1))
        assert [event.data.get("supersedes") for event in chain] == [None, *(event.id for event in chain)][: len(chain)]
        assert revisions.get(pupil, 0) == len(chain)
        assert all(a.type != WITHDRAWN or b.type != WITHDRAWN for a, b in pairwise(chain))
    state = event_state(told)
    assert {p: said["code"] for p, said in state.items()} == {
        p: a.code.word for p, a in outcome.answers.items() if a.code is not None
    }


@RUN
@given(first=steps(max_size=8), second=steps(max_size=8), chance=st.randoms(use_true_random=False))
def test_interleaved_registers_do_not_touch_each_other(  # type: ignore[no-untyped-def]
    first: list[Step], second: list[Step], chance
) -> None:
    """Two registers settled in turns by one consumer end as if each had been alone."""
    queues = [arrivals(play(first)), arrivals(play(second))]
    alone = [settle_in_batches([[one] for one in queue] or [[]], restart=False) for queue in queues]
    turns = [0] * len(queues[0]) + [1] * len(queues[1])
    chance.shuffle(turns)
    taken: list[list[tuple[Change, Receipt]]] = [[], []]
    previous: list[Outcome | None] = [None, None]
    revisions: list[dict[str, int]] = [{}, {}]
    told: list[list[Event]] = [[], []]
    for which in turns:
        taken[which].append(queues[which][len(taken[which])])
        outcome = outcome_of([c for c, _ in taken[which]], [r for _, r in taken[which]])
        found, revisions[which] = events(previous[which], outcome, revisions[which], time_ms=len(taken[which]) - 1)
        told[which].extend(found)
        previous[which] = outcome
    for which, (outcome, expected, numbers) in enumerate(alone):
        if queues[which]:
            assert previous[which] == outcome
        assert told[which] == expected
        assert revisions[which] == numbers


@RUN
@given(story=st.one_of(steps(), quarrels()))
def test_absent_is_always_a_mark_of_someone_entitled_whom_no_witness_contradicts(story: list[Step]) -> None:
    """Scan of the outcome and of the events against the story itself, by another road than the rules take."""
    played = play(story)
    outcome = outcome_with_all_approved(played)
    told, _ = events(None, outcome, {}, time_ms=1)
    history = merge(played.changes)
    shown = shown_by_causality(history, {h for h in history.merged if entitled(played, h)})
    for pupil, answer in outcome.answers.items():
        marks = [Mark.parse(put.value) for put in shown.get(pupil, [])]
        if answer.code in ABSENT:
            assert answer.code in [mark.code for mark in marks]
            assert not any(mark.code.witnesses_presence for mark in marks)
            assert outcome.occasion is not Occasion.NO_SESSION
        elif answer.code is None:
            assert not marks or outcome.occasion is Occasion.NO_SESSION
    for event in told:
        if event.data.get("code") in ABSENT_WORDS:
            assert outcome.answers[event.pupil].code in ABSENT


def shown_by_causality(history: History, counted: set[bytes]) -> dict[str, list[Put]]:
    """The same visible marks, told without predecessors of puts.

    Honest phones write over all they see, so a mark is gone exactly when a counted author who had it in sight marked
    the same key again, or dropped it by name.
    """
    pasts: dict[bytes, set[bytes]] = {}
    for digest, change in history.merged.items():
        pasts[digest] = set(change.deps).union(*(pasts[dep] for dep in change.deps))
    puts = [put for put in history.puts() if put.change_hash in counted]
    dropped = {p for h in counted for op in history.merged[h].ops if op.value is None for p in op.preds}
    shown: dict[str, list[Put]] = {}
    for put in puts:
        over = any(other.key == put.key and put.change_hash in pasts[other.change_hash] for other in puts)
        if not over and put.id not in dropped:
            shown.setdefault(put.key, []).append(put)
    return shown


@RUN
@given(story=st.one_of(steps(), quarrels()))
def test_every_visible_mark_stays_and_the_answer_is_one_of_them(story: list[Step]) -> None:
    """All values of a dispute are kept; what is not an answer is held; every change has its state."""
    played = play(story)
    outcome = outcome_with_all_approved(played)
    history = merge(played.changes)
    counted = {h for h in history.merged if entitled(played, h)}
    shown = shown_by_causality(history, counted)
    for pupil, answer in outcome.answers.items():
        assert [mark.value for mark in answer.values] == [put.value for put in shown.get(pupil, [])]
        assert answer.mark is None or answer.mark in answer.values
        assert answer.disputed <= (len({mark.code for mark in answer.values}) > 1)
    held = {(mark.key, mark.value) for mark in outcome.held}
    for key, puts in history.visible().items():
        for put in puts:
            if put.change_hash not in counted:
                assert (key, put.value) in held
    assert outcome.changes.keys() == {change.hash for change in played.changes}
    assert all((settled.slug is None) == (settled.state is State.CONFIRMED) for settled in outcome.changes.values())
    assert Outcome.from_wire(json.loads(data_of(outcome))) == outcome


@RUN
@given(story=st.one_of(steps(), quarrels()))
def test_without_an_approval_no_adjustment_answers_and_none_hides_a_mark(story: list[Step]) -> None:
    """What was made after the window is held, whole; what was made in time answers as if it had never come."""
    played = play(story)
    outcome, approved = outcome_of(played.changes, played.receipts), outcome_with_all_approved(played)
    for pupil, answer in outcome.answers.items():
        assert all(mark.timeliness is not Timeliness.ADJUSTMENT for mark in answer.values)
        over = approved.answers[pupil]
        if over.mark is not None and outcome.occasion is approved.occasion:
            late = any(mark.timeliness is Timeliness.ADJUSTMENT for mark in over.values)
            assert late or answer.values == over.values
            if "adjusted" in over.labels and not answer.disputed:
                assert over.original is None or over.original in answer.values


@RUN
@given(story=steps())
def test_with_everyone_entitled_the_answer_is_automerges(story: list[Step]) -> None:
    """When every change counts, the visible values are the history's own and an undisputed answer is the winner."""
    played = play(story)
    everyone = all_approved(context(users={r.user_id for r in played.receipts}), played)
    history = merge(played.changes)
    outcome = reconcile(REGISTER, history, first_receipts(played.receipts), everyone)
    visible = history.visible()
    for pupil, answer in outcome.answers.items():
        assert [mark.value for mark in answer.values] == [put.value for put in visible.get(pupil, [])]
        if answer.mark is not None and not answer.disputed:
            assert answer.mark.value == visible[pupil][-1].value


@RUN
@given(story=steps())
def test_a_mark_of_someone_without_the_right_changes_no_answer(story: list[Step]) -> None:
    """Somebody unknown learns all there is and marks every pupil absent: not one answer moves."""
    played = play(story)
    before = outcome_of(played.changes, played.receipts)
    stranger = Phone(label="z", user="zaki")
    stranger.learn(played.changes)
    change = stranger.mark({**dict.fromkeys(PUPILS, "A1"), "~session": "N1:strike"})
    after = outcome_of([*played.changes, change], [*played.receipts, receipt(change, stranger)])
    assert after.answers == before.answers
    assert after.occasion is before.occasion
    assert after.changes[change.hash].slug == "out-of-scope"
    assert {h.key for h in after.held if h.change_hash == change.hash} == {*PUPILS, "~session"}
