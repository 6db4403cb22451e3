"""MessagePack: the shortest form of each value, and bytes that are no value of this road."""

from __future__ import annotations

import hashlib
from typing import Any

from clientcore.wire import pack

BYTES_MAX = 70_000
REFUSED_BYTES_MAX = 100

VALUES: list[tuple[str, Any]] = [
    ("nil", None),
    ("false", False),
    ("true", True),
    *((f"integer {n}", n) for n in (0, 1, 127, 128, 255, 256, 65_535, 65_536, (1 << 32) - 1, 1 << 32, (1 << 53) - 1)),
    *((f"integer {n}", n) for n in (-1, -32, -33, -128, -129, -32_768, -32_769, -(1 << 31), -(1 << 31) - 1)),
    ("least integer", -(1 << 53) + 1),
    *((f"text of {n}", "a" * n) for n in (0, 31, 32, 255, 256, 65_535, 65_536)),
    ("Arabic text", "حضور"),
    ("text beyond the basic plane", "\U0001f4d6"),
    *((f"bytes of {n}", b"\x00" * n) for n in (0, 1, 255, 256, 65_535, 65_536)),
    *((f"array of {n}", [0] * n) for n in (0, 1, 15, 16, 4_096)),
    ("seven arrays in one", [[[[[[[[]]]]]]]]),
    ("one of each", [None, True, -7, 7, "seven", b"seven", [[], ["x"]]]),
]

REFUSED: list[tuple[str, str, bytes]] = [
    ("nothing", "bad-frame", b""),
    ("a byte behind", "bad-frame", b"\xc0\xc0"),
    ("never used byte", "bad-frame", b"\xc1"),
    ("map", "bad-frame", b"\x80"),
    ("map of one", "bad-frame", b"\x81\x01\x02"),
    ("map with a key twice", "bad-frame", b"\x82\xa1a\x01\xa1a\x02"),
    ("map of 65,535", "bad-frame", b"\xde\xff\xff"),
    ("float 32", "bad-frame", b"\xca\x3f\x80\x00\x00"),
    ("float 64", "bad-frame", b"\xcb\x3f\xf0\x00\x00\x00\x00\x00\x00"),
    ("extension", "bad-frame", b"\xd4\x01\x00"),
    ("timestamp", "bad-frame", b"\xd6\xff\x00\x00\x00\x00"),
    ("text that is not UTF-8", "bad-frame", b"\xa1\xff"),
    ("text with a lone surrogate", "bad-frame", b"\xa3\xed\xa0\x80"),
    ("array cut short", "bad-frame", b"\x92\xc0"),
    ("text cut short", "bad-frame", b"\xa5abc"),
    ("integer cut short", "bad-frame", b"\xcd\x01"),
    ("one as uint 8", "bad-frame", b"\xcc\x01"),
    ("one as uint 64", "bad-frame", b"\xcf" + bytes(7) + b"\x01"),
    ("one as int 8", "bad-frame", b"\xd0\x01"),
    ("minus one as int 8", "bad-frame", b"\xd0\xff"),
    ("128 as int 16", "bad-frame", b"\xd1\x00\x80"),
    ("short text as str 8", "bad-frame", b"\xd9\x01a"),
    ("short text as str 16", "bad-frame", b"\xda\x00\x01a"),
    ("short bytes as bin 16", "bad-frame", b"\xc5\x00\x01a"),
    ("short array as array 16", "bad-frame", b"\xdc\x00\x01\xc0"),
    ("inner number not shortest", "bad-frame", b"\x92\x01\xcc\x02"),
    ("2^53", "bad-frame", b"\xcf\x00\x20" + bytes(6)),
    ("-2^53", "bad-frame", b"\xd3\xff\xe0" + bytes(6)),
    ("2^64 - 1", "bad-frame", b"\xcf" + b"\xff" * 8),
    ("array of 4,097", "frame-limits", b"\xdc\x10\x01" + b"\x00" * 4_097),
    ("array of 4 billion", "frame-limits", b"\xdd\xff\xff\xff\xff"),
    ("bytes of 4 GB", "bad-frame", b"\xc6\xff\xff\xff\xff"),
    ("text of 4 GB", "bad-frame", b"\xdb\xff\xff\xff\xff"),
    ("bytes over the limit", "frame-limits", pack(bytes(REFUSED_BYTES_MAX + 1))),
    ("nine arrays in one", "frame-limits", b"\x91" * 8 + b"\x90"),
    ("nested a million times", "frame-limits", b"\x91" * 10_000),
]


def tagged(value: Any) -> Any:
    """JSON of a value: bytes become {"bin": hex}, or {"bin_zeros": n} when long; long text {"a_times": n}."""
    if isinstance(value, bytes):
        return {"bin": value.hex()} if len(value) <= 512 else {"bin_zeros": len(value)}
    if isinstance(value, str) and len(value) > 512:
        return {"a_times": len(value)}
    if isinstance(value, list):
        return [tagged(item) for item in value] if len(value) <= 512 else {"array_of_zeros": len(value)}
    return value


def untagged(value: Any) -> Any:
    """The value again."""
    match value:
        case {"bin": data}:
            return bytes.fromhex(data)
        case {"bin_zeros": count}:
            return bytes(count)
        case {"a_times": count}:
            return "a" * count
        case {"array_of_zeros": count}:
            return [0] * count
        case list():
            return [untagged(item) for item in value]
    return value


def _bytes(data: bytes) -> dict[str, Any]:
    if len(data) <= 512:
        return {"bytes": data.hex()}
    return {"head": data[:8].hex(), "length": len(data), "sha256": hashlib.sha256(data).hexdigest()}


def produce() -> dict[str, Any]:
    return {
        "bytes_max": BYTES_MAX,
        "refused_bytes_max": REFUSED_BYTES_MAX,
        "accepted": [{"name": name, "value": tagged(value), **_bytes(pack(value))} for name, value in VALUES],
        "refused": [{"name": name, "code": code, "bytes": data.hex()} for name, code, data in REFUSED],
    }
