"""Outcomes as bytes: whatever settling gives is read back the same, also what refers to the change it came from."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clientcore.change import deflate
from clientcore.history import merge
from reconciliation.errors import BadOutcome
from reconciliation.model import Outcome
from reconciliation.plain import settle_changes
from reconciliation.reconcile import reconcile
from reconciliation.reports import summary_of
from syncserver.store.packed import pack_outcome, unpack_outcome, unpack_wire
from syncserver.store.summaries import pack_counts, unpack_counts
from tests.property.test_plain import changes, contexts, receipts
from tests.support import packed_v4
from tests.support.histories import REGISTER, Step, play, steps, story_context

OF_CHANGE = "faf4ba94a35f27c40cdf9c4f7127d631b278be7252407cfcc72afecb67c27a64"
OF_VERSION_4 = (
    "78bb51036c6da590310ec3300845af9223e06f6cc2d8bd57c88049d83af5fe5271a5aa6a872c5990105f5f8f970ceff51c22"
    "2c7898b2d5161067f23dd439a440f65ecb80ace31034308987bbc0e2f0d1c521d63939ec31498b68ab10809468dbcec86714"
    "ba32cde8c7f1f24cb335ebbe5a6f795eee39fe5fbd0efdabea052c3a53ea"
)
RUN = settings(max_examples=400, derandomize=True, deadline=None)


def same(outcome: Outcome, body: bytes) -> None:
    """The body gives the outcome again."""
    assert unpack_outcome(body, str(REGISTER)) == outcome


@RUN
@given(st.data())
def test_an_outcome_that_refers_to_its_change_is_read_back_whole(data: st.DataObject) -> None:
    """With the chunk behind it, plain or deflated; and it is told apart from one whose change is not there."""
    change = data.draw(changes())
    outcome = settle_changes(
        REGISTER, [change], {change.hash: data.draw(receipts(change))}, data.draw(contexts(change))
    )
    body = pack_outcome(outcome, change)
    same(outcome, body + change.chunk)
    same(outcome, body + deflate(change.chunk))
    same(outcome, pack_outcome(outcome))
    for lacking in (b"", change.chunk[:-1]):
        with pytest.raises(BadOutcome):
            unpack_outcome(body + lacking, str(REGISTER))


@settings(max_examples=150, derandomize=True, deadline=None)
@given(steps())
def test_an_outcome_of_several_changes_may_refer_to_any_of_them(story: list[Step]) -> None:
    """What the change says and the outcome does not, or says otherwise, is not mixed up."""
    played = play(story)
    known = {one.change_hash: one for one in reversed(played.receipts)}
    outcome = reconcile(REGISTER, merge(played.changes), known, story_context())
    same(outcome, pack_outcome(outcome))
    for change in played.changes:
        same(outcome, pack_outcome(outcome, change) + change.chunk)


@RUN
@given(st.data())
def test_a_summary_stands_in_its_row_and_is_passed_over_in_a_later_one(data: st.DataObject) -> None:
    change = data.draw(changes())
    outcome = settle_changes(
        REGISTER, [change], {change.hash: data.draw(receipts(change))}, data.draw(contexts(change))
    )
    summary = summary_of(outcome)
    counts = pack_counts(3, summary)
    assert unpack_counts(counts, 3, summary.key) == summary
    assert unpack_counts(counts, 4, summary.key) is None
    assert unpack_counts(None, 3, summary.key) is None


@RUN
@given(st.data())
def test_what_refers_to_nothing_is_read_by_servers_of_version_4(data: st.DataObject) -> None:
    """They may be beside this one on PostgreSQL."""
    change = data.draw(changes())
    outcome = settle_changes(
        REGISTER, [change], {change.hash: data.draw(receipts(change))}, data.draw(contexts(change))
    )
    assert packed_v4.unpack_outcome(pack_outcome(outcome), str(REGISTER)) == outcome
    same(outcome, packed_v4.pack_outcome(outcome))


def test_a_row_of_a_store_of_version_4_is_read() -> None:
    """It was written with the first dictionary, by a program that wrote every mark again."""
    wire = unpack_wire(bytes.fromhex(OF_VERSION_4), str(REGISTER))
    marks = {pupil: (said[0][0][0], said[0][0][2], said[0][0][7]) for pupil, said in wire["answers"].items()}
    assert marks == {
        "s1": ("P28800000", 1_795_327_200_900, "on_time"),
        "s2": ("A28800900", 1_795_327_201_800, "on_time"),
        "s3": ("L28801800", 1_795_327_202_700, "on_time"),
    }
    assert wire["sources"] == [[OF_CHANGE, "amal", 1_795_327_220_900]]
    assert wire["changes"] == [[OF_CHANGE, 1, None, None]]
