"""The audit trail: one row for every decision, each chained to the one before by its hash.

Phones are its witnesses. Every answer carries the head of the chain, and the last 4 bytes of every nonce are the first
of that head. The phone signs the nonce into its next frame, which is kept whole: so what the trail said when the phone
was last answered is in the phone's own hand, and a trail that does not hold it any more was altered (or restored).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping

from syncserver.store.port import Reader, Transaction, placeholders

_FIRST = bytes(32)


async def record(
    tx: Transaction,
    *,
    at_ms: int,
    actor: str,
    action: str,
    subject: str,
    reason: str,
    before: Mapping[str, object] | None = None,
    after: Mapping[str, object] | None = None,
) -> int:
    """Add one row inside the transaction of the act it tells of; returns its id.

    Args:
        tx: The act's own transaction, so that neither exists without the other.
        at_ms: Server time.
        actor: `user:SCHOOL/ID`, `operator` or `server`.
        action: Slug, e.g. `code`, `enrol`, `resync`.
        subject: What it was done to, by id; never a name of a person.
        reason: In the actor's words; empty when the act needs none.
        before: What was, as plain data.
        after: What is now.
    """
    last = await tx.fetch_one("SELECT id, hash FROM audit ORDER BY id DESC LIMIT 1")
    row_id, prev_hash = (last[0] + 1, last[1]) if last is not None else (1, _FIRST)
    before_json, after_json = (json.dumps(dict(data or {}), sort_keys=True) for data in (before, after))
    digest = row_hash(prev_hash, (row_id, at_ms, actor, action, subject, reason, before_json, after_json))
    await tx.execute(
        "INSERT INTO audit VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (row_id, at_ms, actor, action, subject, reason, before_json, after_json, prev_hash, digest, witness_of(digest)),
    )
    return row_id


def row_hash(prev_hash: bytes, fields: tuple[int | str, ...]) -> bytes:
    """Hash of one row: over the hash before it and every field, as canonical JSON."""
    text = json.dumps(list(fields), ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(prev_hash + text.encode()).digest()


NO_WITNESS = bytes(4)
"""In a nonce: there was no trail yet, or the nonce was made without one."""


def witness_of(digest: bytes | None) -> bytes:
    """What a nonce carries of a row's hash."""
    return NO_WITNESS if digest is None else digest[:4]


def witnessing_nonce(fresh: bytes, head: bytes | None) -> bytes:
    """A nonce of 8 bytes that also says how the trail ended when it was given out.

    Args:
        fresh: 8 fresh random bytes; half of them stay.
        head: Hash of the trail's last row.
    """
    return fresh[:4] + witness_of(head)


async def read_head(reader: Reader) -> bytes | None:
    """Hash of the last row."""
    row = await reader.fetch_one("SELECT hash FROM audit ORDER BY id DESC LIMIT 1")
    return None if row is None else bytes(row[0])


async def unknown_witnesses(reader: Reader, nonces: Iterable[bytes]) -> set[bytes]:
    """Of the given nonces, the witnesses that no row of the trail answers to."""
    asked = {nonce[4:8] for nonce in nonces} - {NO_WITNESS}
    if not asked:
        return set()
    names = sorted(asked)
    rows = await reader.fetch_all(f"SELECT witness FROM audit WHERE witness IN ({placeholders(len(names))})", names)
    return asked - {bytes(row[0]) for row in rows}
