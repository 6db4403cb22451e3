"""Mutators that know nothing of structure but where numbers may be: flips, cuts, splices, LEB128 and length edits."""

from __future__ import annotations

import random

from clientcore.leb128 import sleb, uleb
from tests.support.loose import overlong

NUMBERS = (0, 1, 2, 15, 16, 17, 31, 33, 63, 64, 127, 128, 255, 256, 257, 4_096, 16_384, 1 << 20, 1 << 31, (1 << 31) + 1)
HUGE = (1 << 45, 10**12, 1 << 53, 1 << 56, 1 << 62, 1 << 63, (1 << 64) - 1, 1 << 70)


def flip(source: random.Random, data: bytes) -> bytes:
    """One to three bits."""
    out = bytearray(data)
    for _ in range(source.randint(1, 3)):
        out[source.randrange(len(out))] ^= 1 << source.randrange(8)
    return bytes(out)


def overwrite(source: random.Random, data: bytes) -> bytes:
    """One byte, with one that means something somewhere."""
    at = source.randrange(len(data))
    byte = source.choice((0, 1, 2, 3, 6, 0x15, 0x34, 0x42, 0x56, 0x57, 0x70, 0x71, 0x73, 0x7E, 0x7F, 0x80, 0x81, 0xFF))
    return data[:at] + bytes((byte,)) + data[at + 1 :]


def truncate(source: random.Random, data: bytes) -> bytes:
    """Cut at the end, seldom at the start."""
    at = source.randrange(len(data))
    return data[:at] if source.random() < 0.9 else data[at:]


def insert(source: random.Random, data: bytes) -> bytes:
    """A few bytes more."""
    at = source.randint(0, len(data))
    return data[:at] + source.randbytes(source.randint(1, 4)) + data[at:]


def remove(source: random.Random, data: bytes) -> bytes:
    """A few bytes less."""
    at = source.randrange(len(data))
    return data[:at] + data[at + source.randint(1, 4) :]


def repeat(source: random.Random, data: bytes) -> bytes:
    """A piece twice."""
    start = source.randrange(len(data))
    end = start + source.randint(1, 40)
    return data[:end] + data[start:end] + data[end:]


def splice(source: random.Random, data: bytes, other: bytes) -> bytes:
    """The beginning of one and the end of another."""
    return data[: source.randint(0, len(data))] + other[source.randint(0, len(other)) :]


def number(source: random.Random) -> bytes:
    """Some LEB128 number: plausible, huge, overlong or endless."""
    value = source.choice(NUMBERS if source.random() < 0.7 else HUGE)
    return source.choice(
        (uleb(value), sleb(value), sleb(-value), overlong(value), b"\xff" * 12, sleb(value)[:-1] + b"\xff\0")
    )


def renumber(source: random.Random, data: bytes) -> bytes:
    """A number in the place of one or two bytes."""
    at = source.randrange(len(data))
    return data[:at] + number(source) + data[at + source.randint(0, 2) :]


SIMPLE = (flip, flip, overwrite, truncate, insert, remove, repeat, renumber)


def anyhow(source: random.Random, data: bytes, other: bytes) -> bytes:
    """One of the above."""
    if not data or source.random() < 0.1:
        return splice(source, data, other)
    return source.choice(SIMPLE)(source, data)
