"""Digests of a store's log, registers and audit trail: what a restored copy must have in common with its original.

They are computed from rows, never from a file's pages: SQLite, PostgreSQL and a simulator's disk give the same.
Frames and changes are only ever appended: the digest up to one head stays what it is while the log grows behind it.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

from clientcore.keys import SIGNATURE_BYTES
from clientcore.wire import pack
from reconciliation.errors import BadOutcome
from reconciliation.wire import canonical
from syncserver.store.audit import row_hash
from syncserver.store.packed import unpack_wire
from syncserver.store.port import Reader

_PAGE = 500
_FRAMES = """SELECT id, hash, device, number, received_ms, carrier, wall_ms, mono_ms, app_session, beacon_server_ms,
beacon_mono_ms, body FROM frames WHERE id > ? AND id <= ? ORDER BY id LIMIT ?"""
_CHANGES = """SELECT log_offset, hash, school, class_id, date, session, frame_id, chunk_at, chunk_bytes, delegation,
held FROM changes WHERE log_offset > ? AND log_offset <= ? ORDER BY log_offset LIMIT ?"""
_OUTCOMES = """SELECT school, class_id, date, session, revision, body FROM whole_outcomes
WHERE (school, class_id, date, session) > (?, ?, ?, ?) ORDER BY school, class_id, date, session LIMIT ?"""
_AUDIT = """SELECT id, at_ms, actor, action, subject, reason, before_json, after_json, prev_hash, hash FROM audit
WHERE id > ? ORDER BY id LIMIT ?"""


@dataclass(frozen=True, slots=True, kw_only=True)
class LogHead:
    """How far a log goes: the last frame's id and the last change's offset; 0 for an empty log."""

    frame_id: int
    log_offset: int


@dataclass(frozen=True, slots=True, kw_only=True)
class LogDigest:
    """SHA-256 over every row of frames and changes up to a head.

    Attributes:
        strange_frames: Ids of frames whose bytes are not what their hash says; at most ten of them.
        gaps: Offsets up to the head that no change has.
    """

    digest: bytes
    strange_frames: tuple[int, ...]
    gaps: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Registers:
    """Digest over every outcome with its revision, in the order of their names, and how many there are."""

    count: int
    digest: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditHead:
    """Last row of the audit trail, and the first row whose hash does not follow from the one before (None: none)."""

    id: int
    hash: bytes
    broken_at: int | None


async def read_head(reader: Reader) -> LogHead:
    """The head of a log."""
    row = await reader.fetch_one("SELECT (SELECT max(id) FROM frames), (SELECT max(log_offset) FROM changes)")
    assert row is not None
    return LogHead(frame_id=row[0] or 0, log_offset=row[1] or 0)


async def digest_of(reader: Reader, head: LogHead) -> LogDigest:
    """The log's digest up to `head`; reads every row once, 500 at a time."""
    sha, strange, changes = hashlib.sha256(), [], 0
    at = 0
    while page := await reader.fetch_all(_FRAMES, (at, head.frame_id, _PAGE)):
        for row in page:
            sha.update(pack(list(row)))
            body: bytes = row[-1]
            if hashlib.sha256(body[:-SIGNATURE_BYTES]).digest() != row[1]:
                strange.append(row[0])
        at = page[-1][0]
    at = 0
    while page := await reader.fetch_all(_CHANGES, (at, head.log_offset, _PAGE)):
        for row in page:
            sha.update(pack(list(row)))
        changes += len(page)
        at = page[-1][0]
    return LogDigest(digest=sha.digest(), strange_frames=tuple(strange[:10]), gaps=head.log_offset - changes)


async def digest_registers(reader: Reader) -> Registers:
    """The digest of all outcomes; their plain text counts, not how they are stored.

    One whose change is not in the log any more counts as it is stored: the log's own digest and its gaps tell of it.
    """
    sha, count = hashlib.sha256(), 0
    at: tuple[Any, ...] = ("", "", "", "")
    while page := await reader.fetch_all(_OUTCOMES, (*at, _PAGE)):
        for *key, revision, body in page:
            sha.update(pack([*key, revision, _plain(body, "/".join(key))]))
        count += len(page)
        at = page[-1][:4]
    return Registers(count=count, digest=sha.digest())


def _plain(body: bytes, register: str) -> bytes:
    try:
        return canonical(unpack_wire(body, register))
    except BadOutcome:
        return body


async def check_audit(reader: Reader) -> AuditHead:
    """Walk the audit trail from its first row."""
    at, prev, broken = 0, bytes(32), None
    while page := await reader.fetch_all(_AUDIT, (at, _PAGE)):
        for row_id, *fields, prev_hash, digest in page:
            if broken is None and (
                row_id != at + 1 or prev_hash != prev or row_hash(prev, (row_id, *fields)) != digest
            ):
                broken = row_id
            at, prev = row_id, digest
    return AuditHead(id=at, hash=prev, broken_at=broken)
