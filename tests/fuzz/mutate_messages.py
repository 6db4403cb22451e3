"""Mutators for everything in MessagePack, and for bundles: edits of the value, of the bytes, of lengths that lie."""

from __future__ import annotations

import random
from typing import Any

import msgpack

from tests.fuzz import mutate_bytes
from tests.fuzz.corpus import messages

NUMBERS = (
    *(0, 1, -1, 127, 128, 255, 65_536, -129, (1 << 53) - 1, 1 << 53, -(1 << 53), 1 << 63, (1 << 64) - 1),
    *(1.5, float("nan")),
)
TEXTS = ("", "a", "hudur1", "hudur2", "sync9", "حضور", "\ud83d\udcd6", "x" * 70)
BYTES = (b"", b"\0" * 8, b"\0" * 16, b"\0" * 64, b"\0" * 65, b"\xff" * 300, b"\0" * 17_000)
ARRAYS: tuple[Any, ...] = ([], [[]], [None] * 20, [0] * 5_000, [[[[[[[[[]]]]]]]]])
FORBIDDEN: tuple[Any, ...] = ({}, {"a": 1}, {1: {2: 3}}, msgpack.ExtType(5, b"x"), msgpack.Timestamp(1, 2))
ATOMS: tuple[Any, ...] = (None, True, False, *NUMBERS, *TEXTS, *BYTES, *ARRAYS, *FORBIDDEN)
LIES = (
    *(b"\xc1", b"\xc4\xff", b"\xc5\xff\xff", b"\xc6\xff\xff\xff\xff", b"\xd9\xff", b"\xdb\xff\xff\xff\xff"),
    *(b"\xdc\xff\xff", b"\xdd\xff\xff\xff\xff", b"\xde\xff\xff", b"\xdf\xff\xff\xff\xff", b"\xc7\xff\x01"),
    *(b"\x9f", b"\x8f", b"\xcc\x01", b"\xcd\0\1", b"\xcf" + bytes(8), b"\xcb" + bytes(8), b"\x91" * 600),
)


def mutate(source: random.Random) -> tuple[str, bytes]:
    """(kind, bytes) of one message."""
    corpus = messages().by_kind
    kind = source.choice(tuple(corpus))
    data = source.choice(corpus[kind])
    chance = source.random()
    if chance < 0.4 and kind != "bundle":
        return kind, _edit_value(source, kind, data)
    if chance < 0.55:
        at = source.randint(0, len(data))
        return kind, data[:at] + source.choice(LIES) + data[at + source.randint(0, 3) :]
    other = source.choice(corpus[source.choice(tuple(corpus))])
    return kind, mutate_bytes.anyhow(source, data, other)


def _edit_value(source: random.Random, kind: str, data: bytes) -> bytes:
    tail = data[-64:] if kind == "frame" else b""
    value = msgpack.unpackb(data[: len(data) - len(tail)], strict_map_key=False)
    for _ in range(source.choice((1, 1, 2))):
        value = _edit(source, value)
    return bytes(msgpack.packb(value, use_bin_type=True, unicode_errors="surrogatepass")) + tail


def _edit(source: random.Random, value: Any) -> Any:
    """Somewhere inside: an element replaced, dropped, doubled, or (bytes) opened and edited as a value of their own."""
    if isinstance(value, list) and value and source.random() < 0.9:
        at = source.randrange(len(value))
        match source.randrange(8):
            case 0:
                return value[:at] + value[at + 1 :]
            case 1:
                return [*value[:at], value[at], *value[at:]]
            case _:
                return [*value[:at], _edit(source, value[at]), *value[at + 1 :]]
    if isinstance(value, bytes) and len(value) > 70 and source.random() < 0.7:
        return mutate_bytes.anyhow(source, value, value)
    return source.choice(ATOMS)
