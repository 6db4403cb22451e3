"""What is sealed always merges as consistent, on top of everything seen."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clientcore.change import Change, Op, encode
from clientcore.errors import ChangeRefused
from clientcore.exchange import DURABLE, Verdict
from clientcore.history import merge
from clientcore.sealing import seal
from clientcore.states import Entry, RegisterState, Tap

ME = b"me-actor-16bytes"


def register_of(changes: list[Change]) -> RegisterState:
    register = RegisterState(register="c-3a/2026-11-22/day")
    for change in changes:
        register.entries[change.hash[:8]] = Entry(
            register=register.register, change=change, own=change.actor == ME, verdict=Verdict(DURABLE)
        )
    return register


def alone(author: int, key: str = "s1") -> Change:
    """A mark by somebody who has seen nothing."""
    ops = [Op(key=key, value=f"P{author}")]
    return encode(actor=author.to_bytes(16, "big"), seq=1, start_op=1, time_s=1, deps=(), ops=ops)


def put(changes: list[Change], *taps: tuple[str, str]) -> list[Change]:
    return seal(
        register_of(changes), taps={key: [Tap(value=value, mono_ms=1)] for key, value in taps}, actor=ME, time_s=5
    )


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32))
def test_sealed_changes_are_consistent_and_win_over_what_was_seen(seed: int) -> None:
    """Over random authors and sittings: no problem in the merge, and the sealed value is the only visible one."""
    chance = random.Random(seed)
    changes = [alone(n + 1, f"s{n % 4}") for n in range(chance.randrange(0, 12))]
    chance.shuffle(changes)
    for sitting in range(3):
        changes += put(changes, *((f"s{key}", f"A{sitting + 1}{key}") for key in chance.sample(range(6), 3)))
        changes.append(alone(100 + sitting, "s9"))
    last = put(changes, ("s1", "L7:7"), ("s9", "P9"))
    history = merge([*changes, *last])
    assert not history.inconsistent
    assert not history.pending
    visible = {key: [found.value for found in puts] for key, puts in history.visible().items()}
    assert (visible["s1"], visible["s9"]) == (["L7:7"], ["P9"])


def test_more_heads_than_a_change_may_name_still_give_a_consistent_change() -> None:
    """Of 45 authors who saw nothing of each other 32 are named, our own past among them, and the merge holds."""
    changes = put([], ("s2", "P1"))
    changes += [alone(n + 1, f"s{100 + n}") for n in range(45)]
    sealed = put(changes, ("s2", "A2"), ("s100", "L3:3"))
    assert [len(change.deps) for change in sealed] == [32]
    history = merge([*changes, *sealed])
    assert not history.inconsistent
    assert [found.value for found in history.visible()["s2"]] == ["A2"]


def test_one_pupil_marked_by_more_authors_than_an_operation_may_name() -> None:
    """Of 25 visible values 16 are superseded, the one in force among them; the next mark takes the rest."""
    changes = [alone(n + 1) for n in range(25)]
    changes += put(changes, ("s1", "A50"))
    visible = merge(changes).visible()["s1"]
    assert len(visible) == 10
    assert visible[-1].value == "A50"
    changes += put(changes, ("s1", "A51"))
    assert [found.value for found in merge(changes).visible()["s1"]] == ["A51"]


def test_a_tap_outside_the_profile_is_refused_and_not_dropped() -> None:
    """A value that no change may carry raises; nothing is sealed behind its back."""
    with pytest.raises(ChangeRefused) as refused:
        put([], ("s1", "P1"), ("s2", "not a mark"))
    assert refused.value.code == "bad-mark"


def test_the_same_marks_in_two_registers_are_two_changes() -> None:
    """A hash does not cover its register, so a second register with the very same taps gets a later second."""
    taps = {"s1": [Tap(value="P1", mono_ms=1)]}
    empty = RegisterState(register="c-3a/2026-11-22/am1")
    (first,) = seal(empty, taps=taps, actor=ME, time_s=5)
    (second,) = seal(empty, taps=taps, actor=ME, time_s=5, taken={first.hash[:8]})
    assert first.hash != second.hash
    assert (first.ops, second.time_s) == (second.ops, 6)
