"""The change log: frames whole, changes as slices of them, appended for many requests in one commit.

Invariants:
  1. A frame is stored once, known by its hash, and so is a change, known by its hash and its register; what comes again
     is a `duplicate`. No frame of a device has a greater number than `devices.last_number`: what does is new.
  2. Offsets are dense and rise from 1; a row is never changed.
  3. What a phone signed of the audit trail is compared with the trail; a difference is a security event, no refusal.
  4. Whether a device is revoked, and whether its nonce is the last one issued, is decided inside the transaction that
     stores its changes.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from clientcore.exchange import DUPLICATE, DURABLE, HELD, REFUSED, Verdict
from clientcore.frame import Frame
from reconciliation.clocks import offset_floor_ms
from syncserver.store import audit
from syncserver.store.port import Reader, Row, T, Transaction

_IN_MAX = 512  # names in one IN list; SQLite takes 32,766, PostgreSQL 65,535


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One change of a frame that passed every check: where its register is, and where its bytes are in the frame.

    Attributes:
        hash: The change's identity.
        chunk_at: First byte of the chunk in the frame's body, counted from 1.
    """

    hash: bytes
    class_id: str
    date: str
    session: str
    chunk_at: int
    chunk_bytes: int
    delegation: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrival:
    """An authentic frame with its changes; a refused change is its slug.

    Attributes:
        school: Of the device, as enrolled.
        carrier: The device that brought the frame in a bundle; None when it came itself.
    """

    frame: Frame
    school: str
    entries: tuple[Entry | str, ...]
    carrier: bytes | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Push:
    """One request to be made durable.

    Attributes:
        device: Who talks to us (in a bundle: the carrier, not the authors).
        arrivals: The frames.
        nonce: 8 fresh random bytes; half of them go into the nonce of the answer, unless everything was known already.
        asked_nonce: The nonce its ask carries, or None.
        is_relayed: The device only carries the frames: its own nonce and contact stay as they are.
    """

    device: bytes
    arrivals: tuple[Arrival, ...]
    nonce: bytes
    asked_nonce: bytes | None = None
    is_relayed: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Contact:
    """What the server knew of a device, and of its school, before this request.

    Attributes:
        waiting_directives: Directives it has not carried out.
        roster_version: Rises with every import that changes its school.
        calendar_version: Rises with every decision about its school's calendar, and when the school is placed.
        settled_seq: Greatest settlement sequence of its school.
        archived: Offset up to which the log is inside a backup that was restored and verified.
        offset_floor_ms: See `reconciliation.model.Receipt`.
        role: Of its user.
    """

    school: str
    user_id: str
    nonce: bytes | None
    last_number: int
    revoked: bool
    flag: str | None
    waiting_directives: int
    roster_version: int
    calendar_version: int
    settled_seq: int
    archived: int
    offset_floor_ms: int | None
    role: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Appended:
    """What became of one push; valid once the transaction has been committed.

    Attributes:
        verdicts: One tuple a frame, in order.
        last_number: Highest frame number known of the talking device, this push included.
        fresh: Its last frame was new and carried the last nonce issued: a pull may be served.
        contact: The device as it was before.
        new_frames: Number of frames nobody had sent before.
        new_changes: Number of changes stored by this push.
        held: Changes kept for a person to decide.
        last_offset: Highest offset of the log after the batch.
        audit_head: Hash of the last audit row.
        nonce: For the answer. Bytes that were all known change nothing, so that a replay by a stranger can neither
            use up the device's nonce nor speak for its clock.
    """

    verdicts: tuple[tuple[Verdict, ...], ...]
    last_number: int
    fresh: bool
    contact: Contact
    new_frames: int
    new_changes: int
    held: int
    last_offset: int
    audit_head: bytes | None
    nonce: bytes


Name = tuple[bytes, str, str, str, str]
"""A change's hash and its register: the two together name a row of the log."""

_DURABLE = Verdict(DURABLE)
_DUPLICATE = Verdict(DUPLICATE)
_REVOKED = Verdict(HELD, "revoked")

_CONTACTS = """
SELECT d.id, d.school, d.user_id, d.nonce, d.last_number, d.revoked_ms, u.active, d.flag,
  (SELECT count(*) FROM directives w WHERE w.device = d.id AND w.done_ms IS NULL),
  coalesce(s.roster_version, 0), coalesce(h.seq, 0),
  coalesce((SELECT max(x.audit_id) FROM calendar_heads x WHERE x.name IN ('*', d.school, p.governorate)), 0),
  (SELECT m.value FROM meta m WHERE m.name = 'archived'), d.offset_floor_ms, u.role
FROM devices d LEFT JOIN users u ON u.school = d.school AND u.id = d.user_id LEFT JOIN schools s ON s.school = d.school
LEFT JOIN settled_heads h ON h.school = d.school LEFT JOIN places p ON p.school = d.school
WHERE d.id IN ({})"""
_NUMBERED = """
WITH wanted (device, number) AS (VALUES {})
SELECT f.hash, f.id, f.device, f.number FROM wanted w JOIN frames f ON f.device = w.device AND f.number = w.number"""
_KNOWN_CHANGES = """
WITH wanted (hash, school, class_id, date, session) AS (VALUES {})
SELECT c.hash, c.school, c.class_id, c.date, c.session FROM wanted w JOIN changes c ON c.school = w.school
AND c.class_id = w.class_id AND c.date = w.date AND c.session = w.session AND c.hash = w.hash"""
_HEAD = """SELECT (SELECT max(id) FROM frames), (SELECT max(log_offset) FROM changes),
  (SELECT hash FROM audit ORDER BY id DESC LIMIT 1)"""
_INSERT_FRAME = "INSERT INTO frames VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
_INSERT_CHANGE = "INSERT INTO changes VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
_UPDATE_CONTACT = """UPDATE devices SET nonce = ?, last_number = ?, last_contact_ms = ?,
  clock_offset_ms = coalesce(?, clock_offset_ms), app = coalesce(?, app), unsent = coalesce(?, unsent),
  flag = coalesce(?, nullif(flag, 'wiped-phone')), flag_ms = coalesce(?, flag_ms), offset_floor_ms = ? WHERE id = ?"""
_UPDATE_AUTHOR = """UPDATE devices SET last_number = ?, flag = coalesce(?, flag), flag_ms = coalesce(?, flag_ms),
  offset_floor_ms = ? WHERE id = ?"""


@dataclass(slots=True)
class _Batch:
    """The rows of one commit while they are being collected."""

    now_ms: int
    frame_id: int
    log_offset: int
    audit_head: bytes | None
    contacts: dict[bytes, Contact]
    last_numbers: dict[bytes, int]
    known_frames: dict[bytes, int]
    known_changes: set[Name]
    numbers: set[tuple[bytes, int]]
    nonces: dict[bytes, bytes | None]
    floors: dict[bytes, int | None]
    flagged: dict[bytes, str] = field(default_factory=dict)
    talked: dict[bytes, Push] = field(default_factory=dict)
    frames: list[Row] = field(default_factory=list)
    changes: list[Row] = field(default_factory=list)
    security: list[Row] = field(default_factory=list)

    def take(self, push: Push) -> Appended:
        """Collect the rows of one push and say its verdicts."""
        contact = self.contacts[push.device]
        before, was_known, new_frames = self.log_offset, False, 0
        verdicts = []
        held = 0
        for arrival in push.arrivals:
            was_known = arrival.frame.hash in self.known_frames
            new_frames += not was_known
            frame_id = self._take_frame(arrival, was_known)
            revoked = self.contacts[arrival.frame.device].revoked
            verdicts.append(tuple(self._take_change(arrival, entry, frame_id, revoked) for entry in arrival.entries))
            held += sum(verdict.kind == HELD for verdict in verdicts[-1])
            if revoked:
                held += sum(verdict.kind == DUPLICATE for verdict in verdicts[-1])
        current = self.nonces[push.device]
        if (new_frames or current is None) and not push.is_relayed:
            self.nonces[push.device] = audit.witnessing_nonce(push.nonce, self.audit_head)
            self.talked[push.device] = push
        return Appended(
            verdicts=tuple(verdicts),
            last_number=self.last_numbers[push.device],
            fresh=not was_known and push.asked_nonce is not None and push.asked_nonce == current,
            contact=contact,
            new_frames=new_frames,
            new_changes=self.log_offset - before,
            held=held,
            last_offset=self.log_offset,
            audit_head=self.audit_head,
            nonce=self.nonces[push.device] or push.nonce,
        )

    def _take_frame(self, arrival: Arrival, was_known: bool) -> int:
        frame = arrival.frame
        if was_known:
            return self.known_frames[frame.hash]  # a change refused then may be taken now: rules are relaxed sometimes
        self.known_frames[frame.hash] = self.frame_id + 1
        name = (frame.device, frame.number)
        if name in self.numbers:
            self.security.append((self.now_ms, frame.device, "number-reused", f"frame {frame.number}"))
            self.flagged[frame.device] = "restored-copy"
        self.numbers.add(name)
        self.last_numbers[frame.device] = max(self.last_numbers[frame.device], frame.number)
        self.frame_id += 1
        clock = frame.clock
        self.frames.append(
            (
                self.frame_id,
                frame.hash,
                frame.device,
                frame.number,
                self.now_ms,
                arrival.carrier,
                clock.wall_ms,
                clock.mono_ms,
                clock.session,
                *(clock.beacon or (None, None)),
                self.floors[frame.device],
                frame.raw,
            )
        )
        floor_ms = offset_floor_ms(clock, self.now_ms)
        if floor_ms is not None:
            self.floors[frame.device] = floor_ms
        return self.frame_id

    def _take_change(self, arrival: Arrival, entry: Entry | str, frame_id: int, revoked: bool) -> Verdict:
        if isinstance(entry, str):
            return Verdict(REFUSED, entry)
        name = (entry.hash, arrival.school, entry.class_id, entry.date, entry.session)
        if name in self.known_changes:
            return _DUPLICATE
        self.known_changes.add(name)
        self.log_offset += 1
        self.changes.append(
            (
                self.log_offset,
                *name,
                frame_id,
                entry.chunk_at,
                entry.chunk_bytes,
                entry.delegation,
                "revoked" if revoked else None,
            )
        )
        return _REVOKED if revoked else _DURABLE


async def append(tx: Transaction, pushes: Sequence[Push], *, now_ms: int) -> list[Appended]:
    """Store what is new in `pushes`, in order; nothing may be told to anyone before the transaction has committed.

    Args:
        tx: The transaction.
        pushes: Requests whose devices are enrolled.
        now_ms: Server time of receipt, the same for the whole batch.
    """
    batch = await _open_batch(tx, pushes, now_ms)
    appended = [batch.take(push) for push in pushes]
    await _compare_witnesses(tx, pushes, batch)
    if batch.frames:
        await tx.executemany(_INSERT_FRAME, batch.frames)
    if batch.changes:
        await tx.executemany(_INSERT_CHANGE, batch.changes)
    if batch.security:
        await tx.executemany(
            "INSERT INTO security_events (at_ms, device, kind, detail) VALUES (?, ?, ?, ?)", batch.security
        )
    await _update_devices(tx, batch)
    return appended


async def _compare_witnesses(tx: Transaction, pushes: Sequence[Push], batch: _Batch) -> None:
    """What phones sign of the audit trail must be in it."""
    head = audit.witness_of(batch.audit_head)
    asked = [(p.device, p.asked_nonce) for p in pushes if p.asked_nonce is not None and p.asked_nonce[4:8] != head]
    unknown = await audit.unknown_witnesses(tx, [nonce for _, nonce in asked]) if asked else set()
    for device, nonce in asked:
        if nonce[4:8] in unknown:
            batch.security.append((batch.now_ms, device, "audit-head-unknown", f"head {nonce[4:8].hex()}"))


async def _open_batch(tx: Transaction, pushes: Sequence[Push], now_ms: int) -> _Batch:
    arrivals = [arrival for push in pushes for arrival in push.arrivals]
    devices = {push.device for push in pushes} | {arrival.frame.device for arrival in arrivals}
    contacts = {row[0]: _contact(row) for row in await _rows_in(tx, _CONTACTS, "?", [(device,) for device in devices])}
    names = {
        (entry.hash, a.school, entry.class_id, entry.date, entry.session)
        for a in arrivals
        for entry in a.entries
        if not isinstance(entry, str)
    }
    head = await tx.fetch_one(_HEAD)
    assert head is not None
    numbers = {(arrival.frame.device, arrival.frame.number) for arrival in arrivals}
    reached = [name for name in numbers if name[1] <= contacts[name[0]].last_number]
    numbered = await _rows_in(tx, _NUMBERED, "(CAST(? AS BLOB), CAST(? AS INTEGER))", reached)
    return _Batch(
        now_ms=now_ms,
        frame_id=head[0] or 0,
        log_offset=head[1] or 0,
        audit_head=head[2],
        contacts=contacts,
        last_numbers={device: contact.last_number for device, contact in contacts.items()},
        known_frames={row[0]: row[1] for row in numbered},
        known_changes=await known_changes(tx, names),
        numbers={(row[2], row[3]) for row in numbered},
        nonces={device: contact.nonce for device, contact in contacts.items()},
        floors={device: contact.offset_floor_ms for device, contact in contacts.items()},
    )


def _contact(row: Row) -> Contact:
    (
        _,
        school,
        user_id,
        nonce,
        last_number,
        revoked_ms,
        active,
        flag,
        directives,
        roster_version,
        settled_seq,
        calendar_version,
        archived,
        offset_floor,
        role,
    ) = row
    return Contact(
        school=school,
        user_id=user_id,
        nonce=nonce,
        last_number=last_number,
        revoked=revoked_ms is not None or not active,
        flag=flag,
        waiting_directives=directives,
        roster_version=roster_version,
        calendar_version=calendar_version,
        settled_seq=settled_seq,
        archived=int(archived or 0),
        offset_floor_ms=offset_floor,
        role=role,
    )


async def read_contact(reader: Reader, device: bytes) -> Contact | None:
    """What is known of one device."""
    rows = await reader.fetch_all(_CONTACTS.format("?"), (device,))
    return _contact(rows[0]) if rows else None


async def _update_devices(tx: Transaction, batch: _Batch) -> None:
    rows: list[Row] = []
    for push in batch.talked.values():
        flag = batch.flagged.get(push.device)
        own = [arrival.frame for arrival in push.arrivals if arrival.carrier is None]
        ask = own[-1].ask if own else None
        rows.append(
            (
                batch.nonces[push.device],
                batch.last_numbers[push.device],
                batch.now_ms,
                own[-1].clock.wall_ms - batch.now_ms if own else None,
                ask.app if ask else None,
                ask.unsent if ask else None,
                flag,
                batch.now_ms if flag else None,
                batch.floors[push.device],
                push.device,
            )
        )
    if rows:
        await tx.executemany(_UPDATE_CONTACT, rows)
    authors = [
        (
            batch.last_numbers[device],
            flag := batch.flagged.get(device),
            batch.now_ms if flag else None,
            batch.floors[device],
            device,
        )
        for device in sorted({row[2] for row in batch.frames} - batch.talked.keys())
    ]
    if authors:
        await tx.executemany(_UPDATE_AUTHOR, authors)


async def known_changes(reader: Reader, names: Iterable[Name]) -> set[Name]:
    """Which of these changes are in the log."""
    rows = await _rows_in(reader, _KNOWN_CHANGES, "(CAST(? AS BLOB), ?, ?, ?, ?)", list(names))
    return {(row[0], row[1], row[2], row[3], row[4]) for row in rows}


def _padded(part: list[T]) -> list[T]:
    """Filled up to a power of two, so that few statements are compiled."""
    return part + [part[-1]] * ((1 << (len(part) - 1).bit_length()) - len(part))


async def _rows_in(reader: Reader, sql: str, mark: str, names: Sequence[Sequence[object]]) -> list[Row]:
    """Rows of a query with one list of names, in slices; `mark` is what stands in it for each of them."""
    rows: list[Row] = []
    for at in range(0, len(names), _IN_MAX):
        part = _padded(list(names[at : at + _IN_MAX]))
        marks = ", ".join([mark] * len(part))
        rows += await reader.fetch_all(sql.format(marks), [word for name in part for word in name])
    return rows
