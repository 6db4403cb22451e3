"""LEB128: every number has one spelling, and only that one is read."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clientcore.errors import ChangeRefused
from clientcore.leb128 import read_sleb, read_uleb, sleb, uleb
from tests.support.loose import overlong


@given(st.integers(0, 2**53), st.binary(max_size=3))
def test_an_unsigned_number_is_read_back_wherever_it_stands(number: int, around: bytes) -> None:
    """Value and next offset are right with bytes before and behind."""
    data = around + uleb(number) + around
    assert read_uleb(data, len(around), 1 << 53) == (number, len(data) - len(around))


@given(st.integers(-(2**60), 2**60), st.binary(max_size=3))
def test_a_signed_number_is_read_back_wherever_it_stands(number: int, around: bytes) -> None:
    """Value and next offset are right with bytes before and behind."""
    data = around + sleb(number) + around
    assert read_sleb(data, len(around)) == (number, len(data) - len(around))


@given(st.binary(min_size=1, max_size=12))
def test_whatever_is_read_is_spelt_with_the_same_bytes(data: bytes) -> None:
    """No byte string but the shortest form is read: two spellings would give one change two hashes."""
    ways: list[tuple[Callable[[], tuple[int, int]], Callable[[int], bytes]]] = [
        (lambda: read_uleb(data, 0, 1 << 60), uleb),
        (lambda: read_sleb(data, 0), sleb),
    ]
    for read, write in ways:
        try:
            number, end = read()
        except ChangeRefused:
            continue
        assert write(number) == data[:end]


@pytest.mark.parametrize("number", [0, 1, 63, 64, 127, 128, 16_383, 16_384, 1 << 31])
def test_an_overlong_number_is_refused(number: int) -> None:
    """One byte more than needed is one too many, signed or not."""
    with pytest.raises(ChangeRefused, match="overlong"):
        read_uleb(overlong(number), 0, 1 << 40)
    with pytest.raises(ChangeRefused, match="overlong"):
        read_sleb(sleb(number)[:-1] + bytes((sleb(number)[-1] | 0x80, 0)), 0)


@pytest.mark.parametrize("data", [b"", b"\x80", b"\xff\xff"])
def test_a_number_cut_short_is_refused(data: bytes) -> None:
    """Running out of bytes is a refusal, never an IndexError."""
    with pytest.raises(ChangeRefused, match="cut short"):
        read_uleb(data, 0, 1 << 40)
    with pytest.raises(ChangeRefused, match="cut short"):
        read_sleb(data, 0)


def test_a_number_that_never_ends_is_refused_early() -> None:
    """A megabyte of continuation bytes is not walked through."""
    endless = b"\xff" * 1_000_000
    with pytest.raises(ChangeRefused, match="too long"):
        read_uleb(endless, 0, 1 << 60)
    with pytest.raises(ChangeRefused, match="too long"):
        read_sleb(endless, 0)


@pytest.mark.parametrize(("number", "maximum"), [(1, 0), (128, 127), (129, 128), (1 << 31, (1 << 31) - 1)])
def test_a_number_over_its_maximum_is_refused_with_the_code_asked_for(number: int, maximum: int) -> None:
    """The maximum itself is read; the next number is refused."""
    assert read_uleb(uleb(maximum), 0, maximum)[0] == maximum
    with pytest.raises(ChangeRefused) as refusal:
        read_uleb(uleb(number), 0, maximum, "bad-mark")
    assert refusal.value.code == "bad-mark"
