"""Reading the audit trail: every row of it, and whether it is still the trail that people and phones have seen.

The chain of hashes shows a row that was altered, removed or put elsewhere. It cannot show that its end was cut off: for
that there are witnesses. Phones sign the head they were last told into their next frame (`store/audit.py`), and the
frames are kept whole; a head that a phone has signed and that no row answers to was in the trail once. After a restore
that is expected of the first words of each phone, and told apart.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

from clientcore.errors import FrameRefused
from clientcore.frame import parse_frame
from syncserver.store.audit import NO_WITNESS, row_hash, unknown_witnesses
from syncserver.store.port import Reader, Row

_PAGE = 500
_ROWS = """SELECT id, at_ms, actor, action, subject, reason, before_json, after_json, prev_hash, hash FROM audit
WHERE id > ? ORDER BY id LIMIT ?"""
_FRAMES = "SELECT id, device, received_ms, body FROM frames WHERE id > ? AND carrier IS NULL ORDER BY id LIMIT ?"
_NAMES = ("id", "at_ms", "actor", "action", "subject", "reason", "before_json", "after_json")


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """Something that is not as it was.

    Attributes:
        kind: `altered`, `removed`, `reordered`, `cut-off` (a phone has seen a head that is gone), `unknown-head` (the
            head asked for is gone).
        row: Id of the row at fault, or of the first one that is missing; None where no row can be named.
        detail: In words, without any name of a person.
    """

    kind: str
    row: int | None
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What a verification found.

    Attributes:
        rows: Rows of the trail.
        head: Hash of the last one, hex; None for an empty trail.
        witnesses: Heads signed by phones that were compared.
        lost_in_restore: Of these, heads that a restore has left behind, as its audit row says.
        findings: What is wrong; none when the trail is whole.
    """

    rows: int
    head: str | None
    witnesses: int
    lost_in_restore: int
    findings: tuple[Finding, ...]


async def verify(reader: Reader, *, known_head: str | None = None) -> Verdict:
    """Walk the whole trail, then hear the witnesses.

    Args:
        reader: The store.
        known_head: First hex digits (8 or more) of a head somebody has kept, e.g. from a receipt: it must be there.
    """
    findings: list[Finding] = []
    rows, at, prev, seen, restores = 0, 0, bytes(32), False, []
    async for row in _trail(reader):
        row_id, *fields, prev_hash, digest = row
        findings += _compare(row_id, fields, prev_hash, digest, at=at, prev=prev)
        if fields[2] == "restore":
            restores.append(fields[0])
        seen = seen or (known_head is not None and digest.hex().startswith(known_head.lower()))
        rows, at, prev = rows + 1, row_id, digest
    if known_head is not None and not seen:
        findings.append(Finding(kind="unknown-head", row=None, detail=f"no row has the head {known_head}"))
    witnesses, lost, cut = await _hear(reader, restores)
    return Verdict(
        rows=rows,
        head=prev.hex() if rows else None,
        witnesses=witnesses,
        lost_in_restore=lost,
        findings=(*findings, *cut),
    )


def _compare(row_id: int, fields: list[Any], prev_hash: bytes, digest: bytes, *, at: int, prev: bytes) -> list[Finding]:
    found = []
    if row_id != at + 1:
        found.append(Finding(kind="removed", row=at + 1, detail=f"rows {at + 1} to {row_id - 1} are missing"))
    if row_hash(prev_hash, (row_id, *fields)) != digest:
        found.append(Finding(kind="altered", row=row_id, detail="its content is not what its hash says"))
    elif prev_hash != prev and row_id == at + 1:
        found.append(Finding(kind="reordered", row=row_id, detail="it does not follow the row before it"))
    return found


async def _trail(reader: Reader) -> AsyncIterator[Row]:
    at = 0
    while page := await reader.fetch_all(_ROWS, (at, _PAGE)):
        for row in page:
            yield row
        at = page[-1][0]


async def _hear(reader: Reader, restores: list[int]) -> tuple[int, int, list[Finding]]:
    """Number of heads that phones signed, of those lost in a restore, and the findings."""
    heard, lost, found = 0, 0, []
    caught_up: dict[bytes, int] = {}  # device -> when it last signed a head that is in the trail
    at = 0
    while page := await reader.fetch_all(_FRAMES, (at, _PAGE)):
        signed = [(row, nonce) for row in page if (nonce := _nonce(row[3])) is not None]
        unknown = await unknown_witnesses(reader, [nonce for _, nonce in signed])
        for (frame_id, device, received_ms, _), nonce in signed:
            heard += 1
            if nonce[4:8] not in unknown:
                caught_up[device] = received_ms
            elif any(caught_up.get(device, 0) <= restored_ms <= received_ms for restored_ms in restores):
                lost += 1
            else:
                head, name = nonce[4:8].hex(), device.hex()[:12]
                detail = f"device {name} signed the head {head} in frame {frame_id}, and no row has it"
                found.append(Finding(kind="cut-off", row=None, detail=detail))
        at = page[-1][0]
    return heard, lost, found


def _nonce(body: bytes) -> bytes | None:
    """The nonce a frame was signed with, where it names a head."""
    try:
        ask = parse_frame(body).ask
    except FrameRefused:
        return None  # a frame stored under older rules; `hudur restore --verify` looks at its bytes
    if ask is None or ask.nonce is None or ask.nonce[4:8] == NO_WITNESS:
        return None
    return ask.nonce


async def read_trail(
    reader: Reader, *, after: int = 0, limit: int = _PAGE, about: str | None = None
) -> list[dict[str, Any]]:
    """Rows behind `after`, oldest first, as plain data.

    Args:
        reader: The store.
        after: Id of a row.
        limit: How many.
        about: Only rows whose subject or actor has this text in it (a school, a register, an id).
    """
    where, params = "", []
    if about is not None:  # ids have `_` in them, which LIKE takes for any letter
        where = " AND (subject LIKE ? ESCAPE '!' OR actor LIKE ? ESCAPE '!')"
        params = ["%" + re.sub(r"[!%_]", r"!\g<0>", about) + "%"] * 2
    rows = await reader.fetch_all(
        f"SELECT {', '.join(_NAMES)}, hash FROM audit WHERE id > ?{where} ORDER BY id LIMIT ?", (after, *params, limit)
    )
    return [{**dict(zip(_NAMES, row[:-1], strict=True)), "hash": row[-1].hex()} for row in rows]
