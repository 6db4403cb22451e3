"""What settling one register reads: its changes with their receipts, and what surrounds it."""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import date as Date
from typing import Any

from clientcore.frame import ClockEvidence
from clientcore.register import RegisterId
from reconciliation.calendar import SchoolCalendar, day_window
from reconciliation.clocks import midnight_ms
from reconciliation.decisions import Decisions
from reconciliation.model import Context, Outcome, Receipt, Right, Zone
from reconciliation.wire import canonical
from syncserver.calendar import calendar_of, zone_table
from syncserver.store import roster
from syncserver.store.decisions import aliases_of, decisions_of
from syncserver.store.key import Key
from syncserver.store.port import Reader, Row

POISON = "poison"
_ALL = 1 << 53

_CHANGES = """
SELECT c.log_offset, c.hash, substr(f.body, c.chunk_at, c.chunk_bytes), f.device, d.user_id, f.received_ms,
  f.wall_ms, f.mono_ms, f.app_session, f.beacon_server_ms, f.beacon_mono_ms, f.carrier, c.delegation, f.offset_floor_ms
FROM changes c JOIN frames f ON f.id = c.frame_id JOIN devices d ON d.id = f.device
LEFT JOIN dead_letters x ON x.log_offset = c.log_offset AND x.code = 'poison' AND x.requeued = 0
WHERE c.school = ? AND c.class_id = ? AND c.date = ? AND c.session = ? AND c.log_offset <= ? AND x.id IS NULL
ORDER BY c.log_offset LIMIT ?"""

# Rights are judged by dates alone; that upstream ended a *person* acts by the moment of receipt, like a lost phone.
_REVOKED = """
SELECT d.id, d.revoked_ms, CASE WHEN u.active = 0 THEN u.ended_at_ms END FROM devices d
LEFT JOIN users u ON u.school = d.school AND u.id = d.user_id
WHERE d.school = ? AND (d.revoked_ms IS NOT NULL OR u.active = 0)"""

_DELEGATED = """
SELECT id, to_user, from_ms, until_ms, ended_ms FROM delegations WHERE school = ? AND class_id = ? ORDER BY id"""


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredChange:
    """One change of the log with its receipt; the chunk is as it came (plain or deflated)."""

    log_offset: int
    hash: bytes
    chunk: bytes
    receipt: Receipt


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredOutcome:
    """The last outcome of a register, its revision, and the number of the last event per pupil."""

    outcome: Outcome
    body: bytes
    revision: int
    revisions: Mapping[str, int]


async def changes_of(reader: Reader, key: Key, up_to: int, limit: int = _ALL) -> list[StoredChange]:
    """A register's changes up to an offset, in order; those that a dead letter holds back are left out."""
    return [_stored_change(row) for row in await reader.fetch_all(_CHANGES, (*key, up_to, limit))]


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
        """SELECT revision, body, revisions FROM outcomes
        WHERE school = ? AND class_id = ? AND date = ? AND session = ?""",
        key,
    )
    if row is None:
        return None
    return stored_outcome(row)


def stored_outcome(row: Row) -> StoredOutcome:
    """An outcome from its row: revision, body, revisions."""
    body = zlib.decompress(row[1])
    return StoredOutcome(
        outcome=Outcome.from_wire(json.loads(body)),
        body=body,
        revision=row[0],
        revisions=json.loads(zlib.decompress(row[2])),
    )


def pack_json(data: Any) -> bytes:
    """Canonical JSON, compressed."""
    return zlib.compress(canonical(data), 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class SchoolFacts:
    """What the registers of one school share.

    Attributes:
        calendar: The school's; its table of offsets is put in for each register's year.
        revoked_devices: Device to the moment (ms) from which what arrives of it is held: when it was revoked, or when
            an import ended its person, whichever came first.
        aliases: Duplicate pupil ids to the ids they were merged into.
    """

    calendar: SchoolCalendar
    revoked_devices: Mapping[bytes, int]
    aliases: Mapping[str, str] = field(default_factory=dict)


async def facts_of(reader: Reader, school: str) -> SchoolFacts:
    """Read a school's facts as they are now."""
    revoked: dict[bytes, int] = {}
    for device, *moments in await reader.fetch_all(_REVOKED, (school,)):
        known = [moment_ms for moment_ms in moments if moment_ms is not None]
        if known:
            revoked[device] = min(known)
    return SchoolFacts(
        calendar=await calendar_of(reader, school, "UTC", 2026),
        revoked_devices=revoked,
        aliases=await aliases_of(reader, school),
    )


async def context_of(reader: Reader, key: Key, zone: str, facts: SchoolFacts) -> Context:
    """What surrounds a register, as the store knows it now."""
    day = await day_context_of(reader, key, zone, facts)
    return register_context(key, day, await decisions_of(reader, key))


def register_context(key: Key, day: Context, decisions: Decisions) -> Context:
    """The surroundings of one session from those of its day."""
    assert day.calendar is not None
    return replace(day, window=day.calendar.window(RegisterId(*key)), decisions=decisions)


async def day_context_of(reader: Reader, key: Key, zone: str, facts: SchoolFacts) -> Context:
    """Roster, calendar and rights of a register's day, the same for all its sessions; no decisions yet."""
    school, class_id, day, session = key
    table = zone_table(zone, Date.fromisoformat(day).year)
    known = await roster.class_of(reader, school, class_id, day)
    return Context(
        roster=frozenset(await roster.roster_on(reader, school, class_id, day)),
        roster_version=None if known is None else str(known.version),
        zone=table,
        window=day_window(RegisterId(school, class_id, day, session), table),
        closed=facts.calendar.closed(day),
        entitled=await _entitled(reader, school, class_id, table),
        revoked_devices=facts.revoked_devices,
        calendar=replace(facts.calendar, zone=table),
        aliases=facts.aliases,
    )


async def _entitled(reader: Reader, school: str, class_id: str, table: Zone) -> dict[str, tuple[Right, ...]]:
    rights: dict[str, tuple[Right, ...]] = {}
    for user_id, from_date, until_date in await roster.rights_of(reader, school, class_id):
        right = Right(
            from_ms=table[0][0] if from_date is None else midnight_ms(from_date, table),
            until_ms=None if until_date is None else midnight_ms(until_date, table),
        )
        rights[user_id] = (*rights.get(user_id, ()), right)
    for name, user_id, from_ms, until_ms, ended_ms in await reader.fetch_all(_DELEGATED, (school, class_id)):
        last_ms = until_ms if ended_ms is None else min(until_ms, ended_ms)
        if from_ms < last_ms:
            right = Right(from_ms=from_ms, until_ms=last_ms, delegation=name)
            rights[user_id] = (*rights.get(user_id, ()), right)
    return rights


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
