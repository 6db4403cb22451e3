"""MessagePack as the protocol uses it: arrays, integers, booleans, nil, str and bin, shortest forms only. Pure.

The only importer of msgpack. Maps, floats and extension types do not exist on this road: no duplicate keys, no NaN, no
second spelling. Bounded: lengths are checked by the library before anything is allocated (measured: 10 MB of empty
arrays cost 727 MB without a limit, nothing with one).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgpack

from clientcore.errors import FrameRefused
from clientcore.limits import MSGPACK_ARRAY_MAX, MSGPACK_DEPTH_MAX

Value = None | bool | int | str | bytes | Sequence["Value"]

_SCALARS = frozenset((bytes, str, bool, type(None)))
_INT_MAX = (1 << 53) - 1  # what JavaScript can hold exactly


def pack(value: Value) -> bytes:
    """The shortest MessagePack of `value`."""
    packed: bytes = msgpack.packb(value, use_bin_type=True)
    return packed


def unpack(data: bytes, *, bytes_max: int) -> Any:
    """Read exactly one value; lists come back as Python lists.

    Args:
        data: What came from outside.
        bytes_max: Longest str or bin accepted (bytes).

    Raises:
        FrameRefused: `bad-frame` (cut short, trailing bytes, forbidden types, not the shortest form) or
            `frame-limits` (lengths or nesting over the limits).
    """
    try:
        value = msgpack.unpackb(
            data,
            raw=False,
            strict_map_key=True,
            max_array_len=MSGPACK_ARRAY_MAX,
            max_str_len=bytes_max,
            max_bin_len=bytes_max,
            max_map_len=0,
            max_ext_len=0,
        )
    except (ValueError, msgpack.exceptions.UnpackException) as broken:
        code = "frame-limits" if _is_limit(broken) else "bad-frame"
        raise FrameRefused(code, f"{type(broken).__name__}: {broken}") from None
    _check_types([value], 0)
    if pack(value) != data:
        raise FrameRefused("bad-frame", "not the shortest form")
    return value


def _is_limit(broken: Exception) -> bool:
    text = str(broken)
    return isinstance(broken, msgpack.exceptions.StackError) or (
        "exceeds max_" in text and "max_map_len" not in text and "max_ext_len" not in text
    )


def _check_types(items: list[Any], depth: int) -> None:
    """Every element of an array: the hot loop of the whole road, so that scalars cost no call."""
    if depth > MSGPACK_DEPTH_MAX:
        raise FrameRefused("frame-limits", "nested too deep")
    for item in items:
        kind = type(item)
        if kind is int:
            if not -_INT_MAX <= item <= _INT_MAX:
                raise FrameRefused("bad-frame", "integer beyond 2^53")
        elif kind is list:
            _check_types(item, depth + 1)
        elif kind not in _SCALARS:
            raise FrameRefused("bad-frame", f"{kind.__name__} is not used on this road")


def shape(value: Any, *kinds: Any) -> list[Any]:
    """Check that `value` is an array of exactly these kinds and return it.

    A kind is a type (`int` excludes booleans), an int n (a bin of exactly n bytes), None (nil) or a tuple of kinds.

    Raises:
        FrameRefused: `bad-frame`.
    """
    if type(value) is not list or len(value) != len(kinds):
        raise FrameRefused("bad-frame", f"an array of {len(kinds)} is expected")
    for at, (item, kind) in enumerate(zip(value, kinds, strict=True)):
        if type(item) is not kind and not _fits(item, kind):
            raise FrameRefused("bad-frame", f"element {at}")
    return value


def _fits(item: Any, kind: Any) -> bool:
    if type(kind) is tuple:
        for one in kind:  # noqa: SIM110  (a generator costs more than what it asks)
            if _fits(item, one):
                return True
        return False
    if type(kind) is int:
        return type(item) is bytes and len(item) == kind
    if kind is None:
        return item is None
    return type(item) is kind
