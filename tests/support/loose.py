"""Builds chunks that keep no rule: the raw material of refused vectors and of the fuzzer.

Everything is assembled from the parts it is given; the checksum is right unless a wrong one is asked for, so that a
parser has to look at the body.
"""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Mapping, Sequence

from clientcore.change import MAGIC
from clientcore.leb128 import sleb, uleb

Columns = Mapping[int, bytes] | Sequence[tuple[int, bytes]]


def chunk_of(body: bytes, *, kind: int = 1, checksum: bytes | None = None, length: bytes | None = None) -> bytes:
    """A plain chunk around `body`; `checksum` and `length` (its LEB spelling) override the right ones."""
    right = hashlib.sha256(b"\x01" + uleb(len(body)) + body).digest()[:4]
    return (
        MAGIC
        + (right if checksum is None else checksum)
        + bytes((kind,))
        + (uleb(len(body)) if length is None else length)
        + body
    )


def deflated_of(body: bytes, *, packed: bytes | None = None, tail: bytes = b"") -> bytes:
    """A type 2 chunk around `body`; `packed` replaces its DEFLATE stream, `tail` follows it inside the length."""
    stream = (raw_deflate(body) if packed is None else packed) + tail
    right = hashlib.sha256(b"\x01" + uleb(len(body)) + body).digest()[:4]
    return MAGIC + right + b"\x02" + uleb(len(stream)) + stream


def raw_deflate(body: bytes, level: int = 9) -> bytes:
    """Raw DEFLATE of `body`."""
    packer = zlib.compressobj(level, zlib.DEFLATED, -15)
    return packer.compress(body) + packer.flush()


def body_of(
    columns: Columns,
    *,
    deps: Sequence[bytes] = (),
    actor: bytes = b"\x11" * 16,
    seq: int = 1,
    start_op: int = 1,
    time_s: int = 1_795_000_000,
    message: bytes = b"",
    others: Sequence[bytes] = (),
    extra: bytes = b"",
) -> bytes:
    """A body with exactly these parts, in this order, however wrong they are."""
    listed = list(columns.items()) if isinstance(columns, Mapping) else list(columns)
    return b"".join(
        (
            uleb(len(deps)),
            *deps,
            text(actor),
            uleb(seq),
            uleb(start_op),
            sleb(time_s),
            text(message),
            uleb(len(others)),
            *map(text, others),
            uleb(len(listed)),
            *(uleb(spec) + uleb(len(data)) for spec, data in listed),
            *(data for _, data in listed),
            extra,
        )
    )


def text(data: bytes) -> bytes:
    """Length and bytes."""
    return uleb(len(data)) + data


def run(count: int, value: bytes) -> bytes:
    """A run-length run: `count` times the encoded `value`."""
    return sleb(count) + value


def lone(*values: bytes) -> bytes:
    """A run-length literal of encoded values."""
    return sleb(-len(values)) + b"".join(values)


def overlong(number: int) -> bytes:
    """An unsigned LEB128 one byte longer than needed."""
    short = uleb(number)
    return short[:-1] + bytes((short[-1] | 0x80, 0))
