"""A register in the store: its changes with their receipts, and its last outcome."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from clientcore.frame import ClockEvidence
from reconciliation.model import Outcome, Receipt
from reconciliation.wire import canonical
from syncserver.store.key import BY_KEY, Key, flat, wanted
from syncserver.store.packed import unpack_outcome, unpack_revisions
from syncserver.store.port import Reader, Row

POISON = "poison"
_ALL = 1 << 53

_CHANGES = """
SELECT c.school, c.class_id, c.date, c.session, c.log_offset, c.hash, substr(f.body, c.chunk_at, c.chunk_bytes),
  f.device, d.user_id, f.received_ms, f.wall_ms, f.mono_ms, f.app_session, f.beacon_server_ms, f.beacon_mono_ms,
  f.carrier, c.delegation, f.offset_floor_ms
FROM {} JOIN frames f ON f.id = c.frame_id JOIN devices d ON d.id = f.device
LEFT JOIN dead_letters x ON x.log_offset = c.log_offset AND x.code = 'poison' AND x.requeued = 0
WHERE {} c.log_offset <= ? AND x.id IS NULL ORDER BY c.log_offset"""
_OF_ONE = _CHANGES.format("changes c", "c.school = ? AND c.class_id = ? AND c.date = ? AND c.session = ? AND")
_OF_SOME = _CHANGES.format(f"wanted w JOIN changes c ON {BY_KEY.replace('o.', 'c.')}", "")


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredChange:
    """One change of the log with its receipt; the chunk is as it came (plain or deflated)."""

    log_offset: int
    hash: bytes
    chunk: bytes
    receipt: Receipt


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredOutcome:
    """The last outcome of a register, its revision, when it was settled, and the number of the last event per pupil."""

    outcome: Outcome
    revision: int
    settled_ms: int
    revisions: Mapping[str, int]

    @property
    def body(self) -> bytes:
        """The outcome's canonical JSON."""
        return canonical(self.outcome.to_wire())


async def changes_of(reader: Reader, key: Key, up_to: int, limit: int = _ALL) -> list[StoredChange]:
    """A register's changes up to an offset, in order; those that a dead letter holds back are left out."""
    rows = await reader.fetch_all(f"{_OF_ONE} LIMIT ?", (*key, up_to, limit))
    return [_stored_change(row[4:]) for row in rows]


async def changes_of_all(reader: Reader, keys: Sequence[Key], up_to: int) -> dict[Key, list[StoredChange]]:
    """See `changes_of`, for registers of few changes."""
    found: dict[Key, list[StoredChange]] = {key: [] for key in keys}
    if not keys:
        return found
    for row in await reader.fetch_all(f"{wanted(keys)} {_OF_SOME}", [*flat(keys), up_to]):
        found[row[0], row[1], row[2], row[3]].append(_stored_change(row[4:]))
    return found


def _stored_change(row: Row) -> StoredChange:
    (log_offset, digest, chunk, device, user_id, received_ms, wall, mono, session, beacon, came, *rest) = row
    carrier, delegation, floor_ms = rest
    clock = ClockEvidence(
        wall_ms=wall, mono_ms=mono, session=session, beacon=None if beacon is None else (beacon, came)
    )
    receipt = Receipt(
        change_hash=digest,
        device=device,
        user_id=user_id,
        received_at_ms=received_ms,
        offset=log_offset,
        clock=clock,
        relayed=carrier is not None,
        delegation=delegation,
        offset_floor_ms=floor_ms,
    )
    return StoredChange(log_offset=log_offset, hash=digest, chunk=chunk, receipt=receipt)


async def outcome_of(reader: Reader, key: Key) -> StoredOutcome | None:
    """The last outcome of a register."""
    row = await reader.fetch_one(
        """SELECT revision, settled_ms, body, revisions FROM whole_outcomes
        WHERE school = ? AND class_id = ? AND date = ? AND session = ?""",
        key,
    )
    return None if row is None else stored_outcome(key, row)


def stored_outcome(key: Key, row: Row) -> StoredOutcome:
    """An outcome from its row: revision, settled_ms, body, revisions."""
    outcome = unpack_outcome(row[2], "/".join(key))
    return StoredOutcome(
        outcome=outcome, revision=row[0], settled_ms=row[1], revisions=unpack_revisions(row[3], outcome)
    )


async def chunks_by_register(reader: Reader, date: str | None) -> list[tuple[str, list[bytes]]]:
    """Every register (of one date, or all) with its stored chunks."""
    rows = await reader.fetch_all(
        """SELECT c.school, c.class_id, c.date, c.session, substr(f.body, c.chunk_at, c.chunk_bytes)
        FROM changes c JOIN frames f ON f.id = c.frame_id WHERE c.date = ? OR ? = '' ORDER BY c.log_offset""",
        (date or "", date or ""),
    )
    found: dict[str, list[bytes]] = {}
    for *key, chunk in rows:
        found.setdefault("/".join(key), []).append(chunk)
    return sorted(found.items())
