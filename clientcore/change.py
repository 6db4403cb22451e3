"""One change of one register: an Automerge change chunk of the narrow profile (docs/protocol.md section 2). Pure.

Strict on purpose. The native Automerge cores panic, hang, allocate gigabytes or build documents that can never be
loaded again on hostile bytes of 10 to 65 bytes; nothing reaches them that this parser has not admitted, and the
server's own road needs no native core at all. The rule that carries most of the weight: *what was parsed, encoded
again, must equal the input*. Nothing is encoded again for that: every reader (numbers, columns, order of actors and
dependencies) takes the one canonical spelling only. That this is the same is shown by tests against `canonical_body`,
the plain encoder: for every input, among them the fuzzer's.
"""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import repeat
from operator import lt
from typing import Any, NamedTuple

from clientcore.columns import encode_runs, read_keys, read_numbers
from clientcore.errors import ChangeRefused
from clientcore.leb128 import read_sleb, read_uleb, sleb, uleb
from clientcore.limits import (
    ACTORS_MAX,
    CHUNK_BYTES_MAX,
    COUNTER_MAX,
    DEPS_MAX,
    OPS_PER_CHANGE_MAX,
    PREDS_PER_OP_MAX,
    TIME_S_MAX,
)
from clientcore.register import are_entries

MAGIC = b"\x85\x6f\x4a\x83"
ACTOR_BYTES = 16
NONCE_BYTES = 8
HASH_BYTES = 32
BODY_BYTES_MAX = CHUNK_BYTES_MAX - 11  # what is inflated must still be a plain chunk of legal size (header: 11 bytes)
PUT, DELETE = 1, 3
STRING_TYPE = 6
PLAIN, DEFLATED = 1, 2
KEY, INSERT, ACTION, VALUE_META, VALUE, PRED_COUNT, PRED_ACTOR, PRED_COUNTER = (
    0x15,
    0x34,
    0x42,
    0x56,
    0x57,
    0x70,
    0x71,
    0x73,
)
_COLUMNS = frozenset((KEY, INSERT, ACTION, VALUE_META, VALUE, PRED_COUNT, PRED_ACTOR, PRED_COUNTER))

OpId = tuple[int, bytes]
"""(counter, actor): the name of one operation; ordering them gives Automerge's winner."""


class Op(NamedTuple):
    """One operation: put `value` at `key`, or (value None) delete the losers of a disagreement named by `preds`."""

    key: str
    value: str | None
    preds: tuple[OpId, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """A sealed batch of operations on one register by one app session of one device.

    Attributes:
        actor: 16 bytes: nonce of the app session and its binding to the device (`actor_of`).
        seq: This actor's change number in this register, from 1.
        start_op: Counter of the first operation; operation i is named (start_op + i, actor).
        time_s: Seconds since 1970 by the device's clock; evidence only.
        deps: Hashes of the register's heads when it was made, ascending.
        ops: 1 to 256 operations.
        hash: 32 bytes, the change's identity.
        chunk: The plain (type 1) chunk.
    """

    actor: bytes
    seq: int
    start_op: int
    time_s: int
    deps: tuple[bytes, ...]
    ops: tuple[Op, ...]
    hash: bytes
    chunk: bytes

    @property
    def max_op(self) -> int:
        """Counter of the last operation."""
        return self.start_op + len(self.ops) - 1


def actor_of(device: bytes, nonce: bytes) -> bytes:
    """Actor id of one app session: its nonce, bound to the device so that nobody can take another's.

    Carrying the nonce in the id lets the server check the binding from the change alone, however late it comes.
    """
    if len(nonce) != NONCE_BYTES:
        raise ValueError("an app session's nonce has 8 bytes")
    return nonce + hashlib.sha256(b"actor1" + device + nonce).digest()[:8]


def is_actor_of(actor: bytes, device: bytes) -> bool:
    """Whether `actor` is derived from `device`."""
    return actor == actor_of(device, actor[:NONCE_BYTES])


def encode(*, actor: bytes, seq: int, start_op: int, time_s: int, deps: Sequence[bytes], ops: Sequence[Op]) -> Change:
    """Build a change; its chunk is canonical, so any Automerge tool gives the same bytes.

    Raises:
        ChangeRefused: when the result would not pass `parse` (checked, so that nothing invalid is ever sealed).
    """
    body = canonical_body(actor=actor, seq=seq, start_op=start_op, time_s=time_s, deps=sorted(deps), ops=ops)
    header = bytes((PLAIN,)) + uleb(len(body))
    checksum = hashlib.sha256(header + body).digest()[:4]
    return parse(MAGIC + checksum + header + body)


def deflate(chunk: bytes) -> bytes:
    """The wire form of a plain chunk: type 2 (raw DEFLATE) when that is smaller, else as it is."""
    _, start = read_uleb(chunk, 9, CHUNK_BYTES_MAX)
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    packed = packer.compress(chunk[start:]) + packer.flush()
    small = chunk[:8] + bytes((DEFLATED,)) + uleb(len(packed)) + packed
    return small if len(small) < len(chunk) else chunk


@lru_cache(maxsize=512)  # whoever settles or folds a change has read it a moment ago; 40 MB at the very worst
def parse(chunk: bytes) -> Change:
    """Read a chunk, plain or deflated, by all stateless rules of the profile.

    Bounded: at most 16 KiB are inflated, run lengths are checked before they are expanded.

    Raises:
        ChangeRefused: with the code of the first rule that is broken; never anything else.
    """
    digest, header, body = _checksummed(chunk)
    reader = _Body(body)
    return Change(
        actor=reader.actor,
        seq=reader.seq,
        start_op=reader.start_op,
        time_s=reader.time_s,
        deps=tuple(reader.deps),
        ops=reader.ops(),
        hash=digest,
        chunk=MAGIC + digest[:4] + header + body,
    )


class Admitted(NamedTuple):
    """Which change it is, and whose."""

    hash: bytes
    actor: bytes


def admit(chunk: bytes) -> Admitted:
    """As `parse`, by the same rules, for whoever only keeps the chunk: nothing is made of it and nothing remembered.

    Raises:
        ChangeRefused: as `parse`.
    """
    digest, _, body = _checksummed(chunk)
    return Admitted(digest, _Body(body).actor)


def _checksummed(chunk: bytes) -> tuple[bytes, bytes, bytes]:
    """Hash, header and body of the plain chunk."""
    body = _plain_body(chunk)
    header = bytes((PLAIN,)) + uleb(len(body))
    digest = hashlib.sha256(header + body).digest()
    if digest[:4] != chunk[4:8]:
        raise ChangeRefused("chunk-checksum")
    return digest, header, body


def plain_chunk(chunk: bytes) -> bytes:
    """The plain form of a chunk that was parsed before: a tenth of the work of parsing it again.

    Raises:
        ChangeRefused: it cannot be inflated.
    """
    if chunk[8] == PLAIN:
        return chunk
    body = _plain_body(chunk)
    return b"".join((chunk[:8], bytes((PLAIN,)), uleb(len(body)), body))


def _plain_body(chunk: bytes) -> bytes:
    if not 12 <= len(chunk) <= CHUNK_BYTES_MAX:
        raise ChangeRefused("chunk-size", f"{len(chunk)} bytes")
    if chunk[:4] != MAGIC:
        raise ChangeRefused("chunk-magic")
    length, start = read_uleb(chunk, 9, CHUNK_BYTES_MAX, "chunk-type")
    if start + length != len(chunk):
        raise ChangeRefused("chunk-type", "length")
    if chunk[8] == PLAIN:
        return chunk[start:]
    if chunk[8] != DEFLATED:
        raise ChangeRefused("chunk-type", f"type {chunk[8]}")
    inflater = zlib.decompressobj(-15)
    try:
        body = inflater.decompress(chunk[start:], BODY_BYTES_MAX + 1)
    except zlib.error:
        raise ChangeRefused("chunk-type", "deflate") from None
    if len(body) > BODY_BYTES_MAX:
        raise ChangeRefused("chunk-size", "inflated")
    if not inflater.eof or inflater.unused_data:
        raise ChangeRefused("chunk-type", "deflate")
    return body


class _Body:
    """The parsed body; `__init__` reads it front to back and refuses at the first broken rule."""

    def __init__(self, body: bytes) -> None:
        at = self._read_head(body)
        columns = _read_columns(body, at)
        actions = read_numbers(columns.get(ACTION, b""), OPS_PER_CHANGE_MAX, _read_small)
        if not actions:
            raise ChangeRefused("profile", "no operation")
        count = len(actions)
        if columns.get(INSERT) != uleb(count):
            raise ChangeRefused("profile", "insert")
        keys = read_keys(columns.get(KEY, b""), count)
        metas = read_numbers(columns.get(VALUE_META, b""), count, _read_small)
        counts = read_numbers(columns.get(PRED_COUNT, b""), count, _read_small)
        if not len(keys) == len(metas) == len(counts) == count:
            raise ChangeRefused("profile", "columns of unequal length")
        values = _values(actions, metas, columns.get(VALUE, b"").decode("latin-1"))
        if not are_entries(_lines(keys, values), count):
            raise ChangeRefused("bad-mark")
        preds = self._preds(counts, columns)
        if None in values and any(v is None and not named for v, named in zip(values, preds, strict=True)):
            raise ChangeRefused("profile", "delete of nothing")
        self._keys, self._values, self._named = keys, values, preds

    def ops(self) -> tuple[Op, ...]:
        """The operations, in order."""
        # As `Op._make` does for each; 3 µs for a register's forty instead of 13.
        return tuple(map(tuple.__new__, repeat(Op), zip(self._keys, self._values, self._named, strict=True)))

    def _read_head(self, body: bytes) -> int:
        count, at = read_uleb(body, 0, DEPS_MAX)
        self.deps = [body[at + HASH_BYTES * i : at + HASH_BYTES * (i + 1)] for i in range(count)]
        at += HASH_BYTES * count
        if at > len(body) or not _ascending(self.deps):
            raise ChangeRefused("profile", "deps")
        self.actor, at = _read_actor(body, at)
        self.seq, at = read_uleb(body, at, COUNTER_MAX)
        self.start_op, at = read_uleb(body, at, COUNTER_MAX)
        if not self.seq or not self.start_op:
            raise ChangeRefused("profile", "zero seq or start_op")
        self.time_s, at = read_sleb(body, at)
        if not 0 <= self.time_s < TIME_S_MAX:
            raise ChangeRefused("profile", "time")
        _, at = read_uleb(body, at, 0)  # no message
        count, at = read_uleb(body, at, ACTORS_MAX)
        self.others: list[bytes] = []
        for _ in range(count):
            other, at = _read_actor(body, at)
            self.others.append(other)
        if not _ascending(self.others) or self.actor in self.others:
            raise ChangeRefused("profile", "actors")
        return at

    def _preds(self, counts: list[int], columns: dict[int, bytes]) -> list[tuple[OpId, ...]]:
        if max(counts) > PREDS_PER_OP_MAX:
            raise ChangeRefused("profile", "predecessors")
        total = sum(counts)
        actors = read_numbers(columns.get(PRED_ACTOR, b""), total, _read_small)
        steps = read_numbers(columns.get(PRED_COUNTER, b""), total, read_sleb)
        if not len(actors) == len(steps) == total:
            raise ChangeRefused("profile", "predecessors")
        if not total:
            if self.others:
                raise ChangeRefused("profile", "unused actor")
            return [()] * len(counts)
        table = [self.actor, *self.others]
        if max(actors) >= len(table) or set(actors) | {0} != set(range(len(table))):
            raise ChangeRefused("profile", "predecessor's actor")
        result: list[tuple[OpId, ...]] = []
        at = counter = 0
        for index, count in enumerate(counts):
            named: list[OpId] = []
            for _ in range(count):
                counter += steps[at]
                if not 0 < counter < self.start_op + index:
                    raise ChangeRefused("profile", "predecessor's counter")
                named.append((counter, table[actors[at]]))
                at += 1
            if not _ascending(named):
                raise ChangeRefused("profile", "order of predecessors")
            result.append(tuple(named))
        return result


def _read_columns(body: bytes, at: int) -> dict[int, bytes]:
    count, at = read_uleb(body, at, len(_COLUMNS))
    layout: list[tuple[int, int]] = []
    for _ in range(count):
        spec, at = read_uleb(body, at, 0xFFFF)
        length, at = read_uleb(body, at, CHUNK_BYTES_MAX)
        layout.append((spec, length))
    specs = [spec for spec, _ in layout]
    if not _ascending(specs) or not _COLUMNS.issuperset(specs) or not all(length for _, length in layout):
        raise ChangeRefused("profile", "columns")
    columns: dict[int, bytes] = {}
    for spec, length in layout:
        columns[spec] = body[at : at + length]
        at += length
    if at != len(body):
        raise ChangeRefused("profile", "bytes left over")
    return columns


def _values(actions: list[int], metas: list[int], raw: str) -> list[str | None]:
    values: list[str | None] = []
    at = 0
    for action, meta in zip(actions, metas, strict=True):
        if action == PUT and meta & 15 == STRING_TYPE:
            start, at = at, at + (meta >> 4)
            values.append(raw[start:at])
        elif action != DELETE:
            raise ChangeRefused("profile", "not a put of a string")
        elif meta:
            raise ChangeRefused("profile", "delete with a value")
        else:
            values.append(None)
    if at > len(raw):
        raise ChangeRefused("bad-mark", "value cut short")
    if at < len(raw):
        raise ChangeRefused("profile", "value bytes left over")
    return values


def _lines(keys: list[str], values: list[str | None]) -> str:
    """One line for each operation, as `are_entries` wants them."""
    return "".join(
        [f"{key}!\n" if value is None else f"{key}={value}\n" for key, value in zip(keys, values, strict=True)]
    )


def _read_actor(data: bytes, at: int) -> tuple[bytes, int]:
    length, at = read_uleb(data, at, 64)
    actor = data[at : at + length]
    if length != ACTOR_BYTES or len(actor) != ACTOR_BYTES:
        raise ChangeRefused("profile", "actor")
    return actor, at + length


def _read_small(data: bytes, at: int) -> tuple[int, int]:
    return read_uleb(data, at, 1 << 20)


def canonical_body(
    *, actor: bytes, seq: int, start_op: int, time_s: int, deps: Sequence[bytes], ops: Sequence[Op]
) -> bytes:
    """The one canonical spelling of a change's body; `deps` ascend."""
    others = sorted({name for op in ops for _, name in op.preds} - {actor})
    index = {name: i for i, name in enumerate([actor, *others])}
    preds = [pred for op in ops for pred in op.preds]
    counters = [counter for counter, _ in preds]
    values = [None if op.value is None else op.value.encode() for op in ops]
    columns = (
        (KEY, encode_runs([op.key.encode() for op in ops], lambda key: uleb(len(key)) + key)),
        (INSERT, uleb(len(ops))),
        (ACTION, encode_runs([DELETE if value is None else PUT for value in values], uleb)),
        (VALUE_META, encode_runs([0 if v is None else len(v) << 4 | STRING_TYPE for v in values], uleb)),
        (VALUE, b"".join(value for value in values if value is not None)),
        (PRED_COUNT, encode_runs([len(op.preds) for op in ops], uleb)),
        (PRED_ACTOR, encode_runs([index[name] for _, name in preds], uleb)),
        (PRED_COUNTER, encode_runs([b - a for a, b in zip([0, *counters], counters, strict=False)], sleb)),
    )
    used = [(spec, data) for spec, data in columns if data]
    return b"".join(
        (
            uleb(len(deps)),
            *deps,
            uleb(len(actor)),
            actor,
            uleb(seq),
            uleb(start_op),
            sleb(time_s),
            b"\0",
            uleb(len(others)),
            *(uleb(len(name)) + name for name in others),
            uleb(len(used)),
            *(uleb(spec) + uleb(len(data)) for spec, data in used),
            *(data for _, data in used),
        )
    )


def _ascending(items: Sequence[Any]) -> bool:
    return all(map(lt, items, items[1:]))
