"""A change: what is sealed can be read, what cannot be read is never sealed, and values are values."""

from __future__ import annotations

import copy
import pickle

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clientcore.change import (
    Change,
    Op,
    actor_of,
    admit,
    canonical_body,
    deflate,
    encode,
    is_actor_of,
    parse,
    plain_chunk,
)
from clientcore.errors import ChangeRefused
from clientcore.limits import CHUNK_BYTES_MAX
from clientcore.register import are_entries, is_key, is_value
from tests.support.loose import chunk_of, deflated_of
from tests.vectors.cases.changes import A, B, build, put, taken_register

KEYS = st.one_of(
    st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,35}", fullmatch=True), st.sampled_from(["~bulk", "~session"])
)
MS = st.integers(-(10**13) + 1, 10**13 - 1)
REASON = st.from_regex(r"[a-z0-9_]{1,24}", fullmatch=True)


@st.composite
def ops(draw: st.DrawFn) -> Op:
    """Any operation of the profile on top of 1,000 earlier ones."""
    key = draw(KEYS)
    named = st.tuples(st.integers(1, 1_000), st.sampled_from([A, B, bytes(16), b"\xff" * 16]))
    preds = tuple(sorted(draw(st.sets(named, max_size=5))))
    if preds != () and draw(st.booleans()):
        return Op(key=key, value=None, preds=preds)
    ms = draw(MS)
    if key == "~bulk":
        return Op(key=key, value=f"B{ms}", preds=preds)
    if key == "~session":
        return Op(key=key, value=draw(st.sampled_from([f"H{ms}", f"N{ms}:strike"])), preds=preds)
    reason = draw(st.none() | REASON)
    value = f"{draw(st.sampled_from('PLXAEUDS'))}{ms}" + (f":{reason}" if reason else "")
    return Op(key=key, value=value, preds=preds)


@settings(max_examples=120, deadline=None)
@given(
    listed=st.lists(ops(), min_size=1, max_size=20),
    actor=st.binary(min_size=16, max_size=16),
    seq=st.integers(1, 1 << 31),
    start_op=st.integers(1_001, 1 << 31),
    time_s=st.integers(0, (1 << 45) - 1),
    deps=st.sets(st.binary(min_size=32, max_size=32), max_size=5),
)
def test_every_change_of_the_profile_is_read_as_it_was_sealed(
    listed: list[Op], actor: bytes, seq: int, start_op: int, time_s: int, deps: set[bytes]
) -> None:
    """All fields come back, from the plain and from the deflated chunk, and the body is the canonical one."""
    change = encode(actor=actor, seq=seq, start_op=start_op, time_s=time_s, deps=list(deps), ops=listed)
    assert (change.actor, change.seq, change.start_op, change.time_s) == (actor, seq, start_op, time_s)
    assert (change.deps, change.ops) == (tuple(sorted(deps)), tuple(listed))
    assert parse(change.chunk) == parse(deflate(change.chunk)) == change
    assert admit(change.chunk) == admit(deflate(change.chunk)) == (change.hash, actor)
    body = canonical_body(actor=actor, seq=seq, start_op=start_op, time_s=time_s, deps=sorted(deps), ops=listed)
    assert change.chunk.endswith(body)
    assert change.max_op == start_op + len(listed) - 1


@pytest.mark.parametrize(
    ("op", "code"),
    [
        (Op(key="s 1", value="P1"), "bad-mark"),
        (Op(key="s1", value="P-0"), "bad-mark"),
        (Op(key="~bulk", value="P1"), "bad-mark"),
        (Op(key="s1", value=None), "profile"),
        (Op(key="s1", value="P1", preds=((1, A),)), "profile"),
        (Op(key="s1\ns2", value="P1"), "bad-mark"),
        (Op(key="s1=P1\ns2", value="P1"), "bad-mark"),
    ],
)
def test_nothing_invalid_is_ever_sealed(op: Op, code: str) -> None:
    """`encode` refuses what `parse` would refuse, among it a key that holds a line of its own."""
    with pytest.raises(ChangeRefused) as refusal:
        encode(actor=A, seq=1, start_op=1, time_s=1, deps=[], ops=[op])
    assert refusal.value.code == code


def test_a_change_without_operations_is_not_sealed() -> None:
    """An empty change says nothing."""
    with pytest.raises(ChangeRefused):
        encode(actor=A, seq=1, start_op=1, time_s=1, deps=[], ops=[])


def test_more_operations_than_fit_are_not_sealed() -> None:
    """257 marks are refused; so are 256 whose chunk is too large."""
    with pytest.raises(ChangeRefused, match="too-many-ops"):
        build(taken_register(257))
    with pytest.raises(ChangeRefused, match="chunk-size"):
        build([put(f"{i:036d}", f"E-9999999999999:{i:024d}") for i in range(256)])


def test_a_deflated_chunk_is_admitted_only_if_it_is_legal_when_plain() -> None:
    """What inflates to more than a legal plain chunk is refused: nobody could store it or serve it."""
    marks = [put(f"{i:036d}", f"E-9999999999999:{i:024d}") for i in range(256)]
    for count in range(150, 257):
        body = canonical_body(actor=A, seq=1, start_op=1, time_s=1, deps=[], ops=marks[:count])
        packed = deflated_of(body)
        assert len(packed) < CHUNK_BYTES_MAX
        if len(chunk_of(body)) <= CHUNK_BYTES_MAX:
            assert parse(packed) == parse(parse(packed).chunk)
            assert plain_chunk(packed) == plain_chunk(parse(packed).chunk) == parse(packed).chunk
        else:
            with pytest.raises(ChangeRefused, match="chunk-size"):
                parse(packed)


def test_deflate_keeps_a_chunk_that_would_not_shrink() -> None:
    """The smaller of both forms goes on the wire."""
    short = build([put("q", "P1")]).chunk
    assert deflate(short) == short
    long = build(taken_register(40)).chunk
    assert len(deflate(long)) < len(long) / 2


def test_an_actor_is_bound_to_its_device() -> None:
    """The nonce stands in the actor, so the binding is checked from the change alone; another device cannot take it."""
    device, other = b"d" * 16, b"e" * 16
    actor = actor_of(device, b"nonce--1")
    assert actor[:8] == b"nonce--1"
    assert is_actor_of(actor, device)
    assert not is_actor_of(actor, other)
    with pytest.raises(ValueError, match="8 bytes"):
        actor_of(device, b"short")


def test_parsed_operations_are_frozen_values_like_any_other() -> None:
    """Made all at once, for speed, they are what the constructor makes: equal, hashable, frozen, copyable."""
    change: Change = build([put("s1", "P1"), put("s1", "A2", (1, A))])
    op = change.ops[1]
    same = Op(key="s1", value="A2", preds=((1, A),))
    assert (op, hash(op), repr(op)) == (same, hash(same), repr(same))
    assert pickle.loads(pickle.dumps(change)) == copy.deepcopy(change) == change
    with pytest.raises(AttributeError):
        op.value = "P1"  # type: ignore[misc]


WORDS = st.lists(st.sampled_from("aZ09._-~=!:\n PLXBHNEs1") | st.sampled_from(["~bulk", "~session", "P1", "sick", "١"]))


@settings(max_examples=250)
@given(
    st.lists(
        st.tuples(
            KEYS | WORDS.map("".join),
            st.none() | st.sampled_from(["P1", "A-5:sick", "B0", "H7", "N1:x", "P-0", "E01"]) | WORDS.map("".join),
        ),
        max_size=5,
    )
)
def test_one_expression_for_all_entries_equals_two_for_each(pairs: list[tuple[str, str | None]]) -> None:
    """The parser's fast check admits exactly what `is_key` and `is_value` admit, whatever is smuggled into a key."""
    lines = "".join(f"{key}!\n" if value is None else f"{key}={value}\n" for key, value in pairs)
    simple = all(
        is_key(key.encode()) and (value is None or is_value(key.encode(), value.encode())) for key, value in pairs
    )
    assert are_entries(lines, len(pairs)) == simple
