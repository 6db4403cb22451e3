"""Columns: read if and only if they are what `encode_runs` writes. This is what spares the parser a second encoding."""

from __future__ import annotations

from itertools import chain

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clientcore.columns import encode_runs, read_keys, read_numbers
from clientcore.errors import ChangeRefused
from clientcore.leb128 import read_sleb, read_uleb, sleb, uleb

LIMIT = 40
few = st.integers(0, 3)
segments = st.lists(
    st.one_of(
        st.tuples(st.integers(1, 5), few).map(lambda run: (run[0], [run[1]])),
        st.lists(few, min_size=1, max_size=5).map(lambda lone: (-len(lone), lone)),
    ),
    max_size=7,
)


def small(data: bytes, at: int) -> tuple[int, int]:
    return read_uleb(data, at, 1 << 20)


def text(key: str) -> bytes:
    return uleb(len(key)) + key.encode("latin-1")


def expanded(parts: list[tuple[int, list[int]]]) -> list[int]:
    return list(chain.from_iterable(values * max(count, 1) for count, values in parts))


@settings(max_examples=600)
@given(segments)
def test_numbers_are_read_exactly_when_they_are_spelt_canonically(parts: list[tuple[int, list[int]]]) -> None:
    """Runs and literals in any mixture: the reader takes those, and only those, that the encoder would write."""
    data = b"".join(sleb(count) + b"".join(map(uleb, values)) for count, values in parts)
    values = expanded(parts)
    canonical = encode_runs(values, uleb) == data
    if canonical:
        assert read_numbers(data, LIMIT, small) == values
    else:
        with pytest.raises(ChangeRefused, match="not-canonical"):
            read_numbers(data, LIMIT, small)


@settings(max_examples=600)
@given(segments)
def test_keys_are_read_exactly_when_they_are_spelt_canonically(parts: list[tuple[int, list[int]]]) -> None:
    """The same for the column of keys."""
    names = ["", "a", "b", "é" * 3]
    data = b"".join(sleb(count) + b"".join(text(names[i]) for i in values) for count, values in parts)
    keys = [names[i] for i in expanded(parts)]
    canonical = encode_runs(keys, text) == data
    if canonical:
        assert read_keys(data, LIMIT) == keys
    else:
        with pytest.raises(ChangeRefused, match="not-canonical"):
            read_keys(data, LIMIT)


@given(st.lists(few, max_size=LIMIT))
def test_what_is_encoded_is_read_back(values: list[int]) -> None:
    """Any list survives, as numbers, as signed numbers and as keys."""
    assert read_numbers(encode_runs(values, uleb), LIMIT, small) == values
    assert read_numbers(encode_runs([1 - value for value in values], sleb), LIMIT, read_sleb) == [1 - v for v in values]
    keys = ["k" * value for value in values]
    assert read_keys(encode_runs(keys, text), LIMIT) == keys


@settings(max_examples=400)
@given(st.binary(max_size=24))
def test_any_bytes_are_read_canonically_or_refused(data: bytes) -> None:
    """Noise never gives anything but values that spell themselves, or a refusal."""
    for read, write in ((lambda: read_numbers(data, LIMIT, small), uleb), (lambda: read_keys(data, LIMIT), text)):
        try:
            values = read()
        except ChangeRefused:
            continue
        assert encode_runs(values, write) == data  # type: ignore[arg-type]


@pytest.mark.parametrize("count", [LIMIT + 1, -LIMIT - 1, 10**6, 10**12, -(10**12)])
def test_a_count_beyond_the_limit_is_refused_before_it_is_expanded(count: int) -> None:
    """Neither a run nor a literal makes a list longer than the limit."""
    for read in (lambda data: read_numbers(data, LIMIT, small), lambda data: read_keys(data, LIMIT)):
        with pytest.raises(ChangeRefused) as refusal:
            read(sleb(count) + b"\x01a")
        assert refusal.value.code == "too-many-ops"


def test_the_limit_counts_all_runs_together() -> None:
    """Forty values pass, split as they may be; the forty-first does not."""
    data = encode_runs([1] * 20 + [2] * 20, uleb)
    assert len(read_numbers(data, LIMIT, small)) == LIMIT
    with pytest.raises(ChangeRefused, match="too-many-ops"):
        read_numbers(data, LIMIT - 1, small)


@pytest.mark.parametrize("data", [b"\x7f", b"\x7e\x01a", b"\x7f\x02a", b"\x7f\x25" + b"k" * 37, b"\x7f\x80\x00"])
def test_a_key_that_is_cut_short_or_too_long_is_a_bad_mark(data: bytes) -> None:
    """Lengths that lie are refused, never sliced."""
    with pytest.raises(ChangeRefused) as refusal:
        read_keys(data, LIMIT)
    assert refusal.value.code == "bad-mark"


def test_nulls_are_refused() -> None:
    """Automerge's null runs have no place in the profile."""
    with pytest.raises(ChangeRefused) as refusal:
        read_numbers(b"\0\x02", LIMIT, small)
    assert refusal.value.code == "profile"
