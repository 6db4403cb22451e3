"""Run-length columns of a change (docs/protocol.md section 2), canonical spelling only. Pure.

A column is a sequence of runs (`sleb n ‖ value`, n >= 2 equal values) and literals (`sleb -n ‖ values`). Its one
canonical spelling has every run as long as it can be and everything between two runs in one literal. The readers check
exactly that while they read: no value equals the one before it except inside a run, no run is shorter than two, no two
literals touch. So whatever they return, `encode_runs` spells with the same bytes (property-tested).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from clientcore.errors import ChangeRefused
from clientcore.leb128 import read_sleb, sleb
from clientcore.limits import KEY_BYTES_MAX

T = TypeVar("T")


def encode_runs(values: Sequence[T], write: Callable[[T], bytes]) -> bytes:
    """The canonical column of `values`, each spelled by `write`."""
    out: list[bytes] = []
    start = at = 0
    total = len(values)

    def literal(end: int) -> None:
        if end > start:
            out.append(sleb(start - end))
            out.extend(write(value) for value in values[start:end])

    while at < total:
        end = at + 1
        while end < total and values[end] == values[at]:
            end += 1
        if end - at > 1:
            literal(at)
            out.append(sleb(end - at) + write(values[at]))
            start = end
        at = end
    literal(total)
    return b"".join(out)


def read_numbers(data: bytes, limit: int, read: Callable[[bytes, int], tuple[int, int]]) -> list[int]:
    """Expand a column of numbers; a run that would exceed `limit` values is refused before it is expanded.

    Raises:
        ChangeRefused: `too-many-ops`, `profile` or `not-canonical`.
    """
    values: list[int] = []
    last: int | None = None
    after_literal = False
    at = 0
    while at < len(data):
        count, at = _read_count(data, at, limit - len(values), after_literal)
        after_literal = count < 0
        for _ in range(-count if after_literal else 1):
            value, at = read(data, at)
            if value == last:
                raise ChangeRefused("not-canonical", "a run in pieces")
            values.append(value)
            last = value
        if count > 1:
            values += [value] * (count - 1)
    return values


def read_keys(data: bytes, limit: int) -> list[str]:
    """Expand a column of strings of at most `KEY_BYTES_MAX` bytes, whose grammar is not looked into.

    Bytes become characters one by one (Latin-1): the grammar, checked later, leaves ASCII only, and nothing is decoded
    twice on the hot path.

    Raises:
        ChangeRefused: `too-many-ops`, `profile`, `bad-mark` or `not-canonical`.
    """
    values: list[str] = []
    last: str | None = None
    after_literal = False
    text = data.decode("latin-1")
    at, end = 0, len(data)
    while at < end:
        count, at = _read_count(data, at, limit - len(values), after_literal)
        after_literal = count < 0
        for _ in range(-count if after_literal else 1):
            stop = at + 1 + data[at] if at < end else end + 1
            if stop > end or data[at] > KEY_BYTES_MAX:
                raise ChangeRefused("bad-mark", "key")
            value = text[at + 1 : stop]
            if value == last:
                raise ChangeRefused("not-canonical", "a run in pieces")
            values.append(value)
            last = value
            at = stop
        if count > 1:
            values += [value] * (count - 1)
    return values


def _read_count(data: bytes, at: int, room: int, after_literal: bool) -> tuple[int, int]:
    """Read the head of a run (count > 1) or of a literal (count < 0) of at most `room` values."""
    count, at = read_sleb(data, at)
    if abs(count) > room:
        raise ChangeRefused("too-many-ops")
    if count == 0:
        raise ChangeRefused("profile", "null in a column")
    if count == 1 or (count < 0 and after_literal):
        raise ChangeRefused("not-canonical", "a run of one or two literals")
    return count, at
