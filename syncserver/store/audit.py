"""The audit trail: one row for every decision, each chained to the one before by its hash."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping

from syncserver.store.port import Transaction

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
        "INSERT INTO audit VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (row_id, at_ms, actor, action, subject, reason, before_json, after_json, prev_hash, digest),
    )
    return row_id


def row_hash(prev_hash: bytes, fields: tuple[int | str, ...]) -> bytes:
    """Hash of one row: over the hash before it and every field, as canonical JSON."""
    text = json.dumps(list(fields), ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(prev_hash + text.encode()).digest()
