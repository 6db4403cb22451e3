"""Mutators that know a change: columns, run lengths, fields, checksums, DEFLATE and the chunk's header."""

from __future__ import annotations

import random
import zlib
from collections.abc import Callable

from clientcore.change import Change, Op, canonical_body
from clientcore.leb128 import read_sleb, sleb
from tests.fuzz import mutate_bytes
from tests.fuzz.corpus import body, registers
from tests.support.loose import body_of, chunk_of, deflated_of, overlong
from tests.support.random_registers import value_for

Columns = list[tuple[int, bytes]]
SPECS = (
    0x01,
    0x02,
    0x11,
    0x13,
    0x15,
    0x1D,
    0x21,
    0x23,
    0x34,
    0x42,
    0x4A,
    0x56,
    0x57,
    0x70,
    0x71,
    0x73,
    0x80,
    0x81,
    0x83,
    0xA5,
)


def columns_of(change: Change) -> Columns:
    """The columns of a change, by their directory."""
    data = body(change)
    head = len(_with_columns(change, [])) - 1
    count, at = data[head], head + 1
    directory = []
    for _ in range(count):
        spec = data[at]
        length, at = _leb(data, at + 1)
        directory.append((spec, length))
    found: Columns = []
    for spec, length in directory:
        found.append((spec, data[at : at + length]))
        at += length
    return found


def _leb(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        value |= (data[at] & 0x7F) << shift
        shift += 7
        at += 1
        if data[at - 1] < 0x80:
            return value, at


def _with_columns(change: Change, columns: Columns) -> bytes:
    others = sorted({name for op in change.ops for _, name in op.preds} - {change.actor})
    return body_of(
        columns,
        deps=change.deps,
        actor=change.actor,
        seq=change.seq,
        start_op=change.start_op,
        time_s=change.time_s,
        others=others,
    )


def edit_bytes(source: random.Random, change: Change, other: Change) -> bytes:
    """The body, edited blindly."""
    return mutate_bytes.anyhow(source, body(change), body(other))


def edit_columns(source: random.Random, change: Change, other: Change) -> bytes:
    """Columns dropped, doubled, exchanged, renamed, borrowed or edited."""
    columns = columns_of(change)
    at = source.randrange(len(columns))
    spec, data = columns[at]
    theirs = columns_of(other)
    match source.randrange(7):
        case 0:
            del columns[at]
        case 1:
            columns.insert(source.randint(0, len(columns)), columns[at])
        case 2:
            source.shuffle(columns)
        case 3:
            columns[at] = (source.choice(SPECS), data)
        case 4:
            columns[at] = (spec, source.choice(theirs)[1])
        case 5:
            columns.append((source.choice(SPECS), source.choice((b"", data, b"\x01"))))
            columns.sort()
        case _:
            columns[at] = (spec, mutate_bytes.anyhow(source, data, data))
    return _with_columns(change, columns)


def edit_runs(source: random.Random, change: Change, _: Change) -> bytes:
    """The same values spelt otherwise, or counts that lie, in one run-length column."""
    columns = columns_of(change)
    chosen = [at for at, (spec, _) in enumerate(columns) if spec not in (0x34, 0x57)]
    at = source.choice(chosen)
    spec, data = columns[at]
    count, start = read_sleb(data, 0)
    rest = data[start:]
    first = rest[: 1 + rest[0]] if spec == 0x15 else rest[: _leb(rest, 0)[1]]
    tail = rest[len(first) :]
    spellings: list[bytes] = [sleb(source.choice((1, 2, 255, 256, 257, -1, -256, 10**6, 10**12, 1 << 62))) + rest]
    if count > 1:
        spellings += [sleb(-count) + first * count + tail, b"\x01" + first + sleb(count - 1) + first + tail]
        spellings += [sleb(count - 1) + first + b"\x7f" + first + tail, sleb(count) + overlong(first[0]) + tail]
    elif count < -1:
        spellings += [b"\x7f" + first + sleb(count + 1) + tail, b"\x01" + first + sleb(count + 1) + tail]
    else:
        spellings += [b"\x01" + rest, b"\0\x01" + data, data + b"\0\x01"]
    columns[at] = (spec, source.choice(spellings))
    return _with_columns(change, columns)


def edit_fields(source: random.Random, change: Change, other: Change) -> bytes:
    """A canonical body with another meaning: the stateful rules and the cores see these."""
    ops = list(change.ops)
    fields = {name: getattr(change, name) for name in ("actor", "seq", "start_op", "time_s", "deps")}
    at = source.randrange(len(ops))
    op = ops[at]
    numbers = (0, 1, 2, 3, change.start_op - 1, change.start_op + 1, 10**6, 1 << 31, (1 << 31) + 1, 1 << 53)
    match source.randrange(11):
        case 0:
            fields["actor"] = source.choice((other.actor, source.randbytes(16), source.randbytes(15)))
        case 1:
            fields["seq"] = source.choice(numbers)
        case 2:
            fields["start_op"] = source.choice(numbers)
        case 3:
            fields["time_s"] = source.choice((0, -1, (1 << 45) - 1, 1 << 45, 1 << 62))
        case 4:
            hashes = [*change.deps, other.hash, source.randbytes(32), change.hash]
            fields["deps"] = sorted(set(source.sample(hashes, source.randint(0, len(hashes)))))
        case 5:
            ops[at] = Op(
                key=source.choice((other.ops[0].key, "s1", "~bulk", "~session")), value=op.value, preds=op.preds
            )
        case 6:
            ops[at] = Op(key=op.key, value=value_for(source, op.key), preds=op.preds)
        case 7:
            ops[at] = Op(key=op.key, value=None, preds=op.preds)
        case 8:
            name = (source.randint(1, change.start_op + 3), source.choice((change.actor, other.actor)))
            ops[at] = Op(key=op.key, value=op.value, preds=tuple(sorted({*op.preds, name})))
        case 9:
            ops[at] = Op(key=op.key, value=op.value, preds=op.preds[1:])
        case _:
            ops.insert(source.randint(0, len(ops)), source.choice(other.ops))
    return canonical_body(**fields, ops=ops)


EDITS: tuple[Callable[[random.Random, Change, Change], bytes], ...] = (
    edit_bytes, edit_bytes, edit_columns, edit_runs, edit_fields, edit_fields, edit_fields,
)  # fmt: skip


def mutate(source: random.Random) -> tuple[int, int, bytes]:
    """(register, place of the change it came from, chunk) of the corpus."""
    register = source.randrange(len(registers()))
    changes = registers()[register]
    place = source.randrange(len(changes))
    change, other = changes[place], source.choice(source.choice(registers()))
    if source.random() < 0.08:
        return register, place, mutate_bytes.anyhow(source, change.chunk, other.chunk)
    data = source.choice(EDITS)(source, change, other)
    return register, place, _wrap(source, data)


def _wrap(source: random.Random, data: bytes) -> bytes:
    """A chunk around a body: mostly right, sometimes deflated, sometimes with a header that lies."""
    chance = source.random()
    if chance < 0.7:
        return chunk_of(data)
    if chance < 0.85:
        return _deflate(source, data)
    chunk = chunk_of(data)
    match source.randrange(5):
        case 0:
            return chunk_of(data, kind=source.randrange(256))
        case 1:
            return chunk_of(data, length=source.choice((mutate_bytes.number(source), overlong(len(data)))))
        case 2:
            return chunk_of(data, checksum=source.randbytes(4))
        case 3:
            return chunk + source.choice((b"\0", chunk, source.randbytes(9)))
        case _:
            return mutate_bytes.anyhow(source, chunk, chunk)


def _deflate(source: random.Random, data: bytes) -> bytes:
    match source.randrange(7):
        case 0:
            size = source.choice((16_372, 16_373, 16_374, 20_000, 1_000_000, 9_000_000))
            packed = _bomb(size, source.choice((0, 0x7F, 0xFF)))
            return deflated_of(b"", packed=packed)
        case 1:
            return deflated_of(data, tail=source.randbytes(source.randint(1, 5)))
        case 2:
            packer = zlib.compressobj(source.randint(0, 9), zlib.DEFLATED, -15, 9, source.randint(0, 4))
            packed = packer.compress(data) + packer.flush(zlib.Z_FULL_FLUSH) + packer.flush()
            return deflated_of(data, packed=packed)
        case 3:
            return deflated_of(data, packed=zlib.compress(data))
        case 4:
            right = deflated_of(data)
            return right[:11] + mutate_bytes.anyhow(source, right[11:], data)
        case 5:
            packed = mutate_bytes.truncate(source, deflated_of(data)[10:])
            return deflated_of(data, packed=packed)
        case _:
            return deflated_of(data)


_BOMBS: dict[tuple[int, int], bytes] = {}


def _bomb(size: int, byte: int) -> bytes:
    if (size, byte) not in _BOMBS:
        packer = zlib.compressobj(9, zlib.DEFLATED, -15)
        _BOMBS[size, byte] = packer.compress(bytes((byte,)) * size) + packer.flush()
    return _BOMBS[size, byte]


def warm_up() -> None:
    """Make the bombs before memory is limited: packing them takes more than inflating them may."""
    for size in (16_372, 16_373, 16_374, 20_000, 1_000_000, 9_000_000):
        for byte in (0, 0x7F, 0xFF):
            _bomb(size, byte)
