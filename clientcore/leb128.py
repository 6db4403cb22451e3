"""LEB128 integers, shortest form only (docs/protocol.md section 2). Pure.

Readers return (value, next offset) and refuse overlong forms: two spellings of one number would give one change two
hashes.
"""

from __future__ import annotations

from clientcore.errors import ChangeRefused

_SHIFT_MAX = 56  # nothing in the profile needs more than 53 bits


def uleb(number: int) -> bytes:
    """Shortest unsigned LEB128 of `number` >= 0."""
    if number < 0x80:
        return bytes((number,))
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def sleb(number: int) -> bytes:
    """Shortest signed LEB128 of `number`."""
    if -0x40 <= number < 0x40:
        return bytes((number & 0x7F,))
    out = bytearray()
    while True:
        low = number & 0x7F
        number >>= 7
        if (number == 0 and not low & 0x40) or (number == -1 and low & 0x40):
            out.append(low)
            return bytes(out)
        out.append(low | 0x80)


def read_uleb(data: bytes, at: int, maximum: int, code: str = "profile") -> tuple[int, int]:
    """Read an unsigned number of at most `maximum`.

    Raises:
        ChangeRefused: `code` when it is cut short, overlong or too great.
    """
    try:
        byte = data[at]
        if byte < 0x80:
            if byte > maximum:
                raise ChangeRefused(code, "number too great")
            return byte, at + 1
        value = byte & 0x7F
        shift = 7
        while True:
            at += 1
            byte = data[at]
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                break
            shift += 7
            if shift > _SHIFT_MAX:
                raise ChangeRefused(code, "number too long")
    except IndexError:
        raise ChangeRefused(code, "cut short") from None
    if byte == 0:
        raise ChangeRefused(code, "overlong number")
    if value > maximum:
        raise ChangeRefused(code, "number too great")
    return value, at + 1


def read_sleb(data: bytes, at: int) -> tuple[int, int]:
    """Read a signed number of at most 63 bits.

    Raises:
        ChangeRefused: `profile` when it is cut short or overlong.
    """
    start = at
    value = shift = 0
    try:
        while True:
            byte = data[at]
            value |= (byte & 0x7F) << shift
            shift += 7
            at += 1
            if byte < 0x80:
                break
            if shift > _SHIFT_MAX:
                raise ChangeRefused("profile", "number too long")
    except IndexError:
        raise ChangeRefused("profile", "cut short") from None
    if byte & 0x40:
        value -= 1 << shift
    if at - start > 1 and sleb(value) != data[start:at]:
        raise ChangeRefused("profile", "overlong number")
    return value, at
