"""Rules taken out one by one: the fuzzer that does not notice is no fuzzer.

Each weakness is a mistake that could be made in the code it patches.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from typing import Any
from unittest import mock

from clientcore import change, columns, history, leb128, wire
from clientcore.errors import ChangeRefused


def _lax_count(data: bytes, at: int, room: int, after_literal: bool) -> tuple[int, int]:
    """Takes runs of one and literals in pieces."""
    count, at = leb128.read_sleb(data, at)
    if abs(count) > room or count == 0:
        raise ChangeRefused("too-many-ops")
    return count, at


def _lax_actor(data: bytes, at: int) -> tuple[bytes, int]:
    """Does not look whether the actor is all there."""
    length = data[at]
    return data[at + 1 : at + 1 + length], at + 1 + length


def _lax_number(data: bytes, at: int, maximum: int, code: str = "profile") -> tuple[int, int]:
    """Lets an IndexError out and takes overlong numbers."""
    value = shift = 0
    while True:
        value |= (data[at] & 0x7F) << shift
        shift += 7
        at += 1
        if data[at - 1] < 0x80:
            break
    if value > maximum:
        raise ChangeRefused(code)
    return value, at


def _greedy_inflate(chunk: bytes) -> bytes:
    """Inflates whatever comes."""
    if chunk[8:9] != b"\x02":
        return _plain_body(chunk)
    try:
        body = zlib.decompress(chunk[11:], -15)
    except zlib.error:
        raise ChangeRefused("chunk-type") from None
    return bytes(bytearray(body) * 8)[: len(body)]  # keeps several copies, as a careless reader does


_plain_body = change._plain_body


def _no_rule(self: Any, change: Any, past: int) -> None:
    """No stateful rule at all."""


def _slow_ascending(items: Any) -> bool:
    """Compares everything with everything, a few times."""
    for _ in range(1_000_000):
        pass
    return all(a < b for a, b in pairwise(items))


def _any_entry(lines: str, count: int) -> bool:
    """Takes every key and every value."""
    return lines.count("\n") >= count


def _any_type(value: Any, depth: int) -> None:
    """Lets floats and the like pass."""


WEAKNESSES: dict[str, Callable[[], Any]] = {
    "canonical": lambda: mock.patch.object(columns, "_read_count", _lax_count),
    "actor": lambda: mock.patch.object(change, "_read_actor", _lax_actor),
    "number": lambda: mock.patch.object(change, "read_uleb", _lax_number),
    "inflate": lambda: mock.patch.object(change, "_plain_body", _greedy_inflate),
    "causal": lambda: mock.patch.object(history._Merger, "_problem", _no_rule),
    "time": lambda: mock.patch.object(change, "_ascending", _slow_ascending),
    "grammar": lambda: mock.patch.object(change, "are_entries", _any_entry),
    "types": lambda: mock.patch.object(wire, "_check_types", _any_type),
}


@contextmanager
def weakened(name: str | None) -> Iterator[None]:
    """One rule out of force; None: all in force."""
    if name is None:
        yield
        return
    with WEAKNESSES[name]():
        yield
