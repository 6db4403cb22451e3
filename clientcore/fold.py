"""The log, folded: everything the device knows of itself is a function of its rows (docs/protocol.md section 10). Pure.

Invariants:
  1. Any prefix of a log folds without an error. A row that cannot be read is counted in `unreadable`, never skipped in
     silence, and a damaged tap or change keeps its register pending.
  2. A register is *sent* only while every one of its changes has a verdict durable, duplicate or held; a change framed
     again (the server said that it lacks it) has lost its verdict. *Confirmed* needs a `settled` row besides.
  3. `pending` counts every register that is not yet sent, so it is never lower than the registers with unsent work.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from clientcore.change import is_actor_of, parse
from clientcore.errors import FrameRefused, RemoteError
from clientcore.exchange import DURABLE, Verdict, read_signed_part
from clientcore.frame import NO_PREV
from clientcore.keys import PUBLIC_KEY_BYTES, SIGNATURE_BYTES
from clientcore.limits import PAYLOAD_BYTES_MAX
from clientcore.log import Row
from clientcore.states import (
    FRAME_NAME_BYTES,
    OFFERED,
    OFFERED_UNARCHIVED,
    RESTORED_COPY,
    SHORT_BYTES,
    STRIKES_MAX,
    Directive,
    Enrolment,
    Entry,
    FrameState,
    RegisterState,
    Step,
    Tap,
)
from clientcore.wire import shape, unpack


@dataclass(slots=True, kw_only=True)
class DeviceState:
    """What the rows so far say. `apply` takes the next row; nothing is ever taken back.

    Attributes:
        unframed: Own changes, by short hash, that wait for a frame, in the order they were made.
        set_aside: Own changes whose frames the server could not read; tried again in the next app session.
        frames: Own frames by name (first 16 bytes of their hash).
        last_number: Highest frame number used by this device as far as it or the server knows.
        last_prev: First 16 bytes of the hash of frame `last_number`; zeros when unknown.
        nonce: The last one the server issued, as far as the log knows.
        answers: Nonces of all answers in the log, and the first 8 bytes of the device id for the one to the enrolment.
        epoch: Log epoch up to which everything was offered; a greater one calls for a re-offer.
        epoch_seen: Greatest epoch the server has signed.
        offers_due: Reasons to offer everything again that have come since that was last done.
        archived: Own changes, by short hash, that the server holds in a verified backup.
        failures: Requests in a row without an answer of ours.
        shrinks: Requests in a row that were too large or timed out.
        notices: (slug, detail, at_ms) of all notices.
    """

    enrolment: Enrolment | None = None
    registers: dict[str, RegisterState] = field(default_factory=dict)
    entries: dict[bytes, Entry] = field(default_factory=dict)
    unframed: dict[bytes, Entry] = field(default_factory=dict)
    set_aside: dict[bytes, Entry] = field(default_factory=dict)
    frames: dict[bytes, FrameState] = field(default_factory=dict)
    last_number: int = 0
    last_prev: bytes = NO_PREV
    nonce: bytes | None = None
    answers: set[bytes] = field(default_factory=set)
    epoch: int = 0
    epoch_seen: int = 0
    offers_due: int = 0
    archived: set[bytes] = field(default_factory=set)
    server_ms: int | None = None
    last_complete_sync_at_ms: int | None = None
    directives: dict[int, Directive] = field(default_factory=dict)
    roster_versions: dict[str, int] = field(default_factory=dict)
    notices: list[tuple[str, str, int]] = field(default_factory=list)
    failures: int = 0
    shrinks: int = 0
    last_outcome: str | None = None
    last_attempt_at_ms: int | None = None
    rows: int = 0
    unreadable: int = 0
    unknown: int = 0
    _pending: set[str] = field(default_factory=set)

    # ---- questions ----

    @property
    def pending(self) -> int:
        """Registers that are not yet sent."""
        return len(self._pending)

    @property
    def pending_registers(self) -> frozenset[str]:
        """Names of the registers that are not yet sent."""
        return frozenset(self._pending)

    @property
    def done_directive(self) -> int:
        """The greatest id up to which every directive was carried out; 0 for none."""
        waiting = min((order.id for order in self.directives.values() if not order.done), default=None)
        done = (order.id for order in self.directives.values() if order.done)
        return max((number for number in done if waiting is None or number < waiting), default=0)

    @property
    def needs_offer(self) -> bool:
        """Whether changes must be offered again: a restored server, a copied device, or the champion's order."""
        return self.epoch_seen > self.epoch or self.needs_whole_offer

    @property
    def needs_whole_offer(self) -> bool:
        """Whether an offer must name the archived changes too: for every reason but a new epoch alone."""
        return self.offers_due > 0 or bool(self.open_directives("rebuild"))

    def open_directives(self, *levels: str) -> list[Directive]:
        """Directives not yet carried out, of these levels or of all."""
        return [order for order in self.directives.values() if not order.done and (not levels or order.level in levels)]

    def open_frames(self) -> list[FrameState]:
        """Frames without a receipt, oldest first."""
        return [frame for frame in self.frames.values() if frame.open]

    def step_counts(self) -> dict[Step, int]:
        """How many of our registers stand at each step; a register counts once."""
        counts = dict.fromkeys(Step, 0)
        for register in self.registers.values():
            step = register.step
            if step is not None and register.is_ours:
                counts[step] += 1
        return counts

    # ---- rows ----

    def apply(self, row: Row) -> None:
        """Take one row. Never raises for what stands in it."""
        self.rows += 1
        take = _KINDS.get(row.kind)
        if take is None:
            self.unknown += 1
            return
        try:
            take(self, unpack(row.body, bytes_max=PAYLOAD_BYTES_MAX), row)
        except RemoteError:
            self.unreadable += 1
            if row.register is not None and row.kind in ("tap", "change"):
                self._register(row.register).damaged += 1
                self._touch(row.register)

    def extend(self, rows: Iterable[Row]) -> None:
        """Take rows in order."""
        for row in rows:
            self.apply(row)

    def _register(self, name: str) -> RegisterState:
        found = self.registers.get(name)
        if found is None:
            found = self.registers[name] = RegisterState(register=name)
        return found

    def _touch(self, name: str) -> None:
        if self.registers[name].step is Step.SAVED:
            self._pending.add(name)
        else:
            self._pending.discard(name)

    def _enrol(self, body: Any, _row: Row) -> None:
        env, school, device, user_id, role, server_key, epoch = shape(
            body, str, str, 16, str, str, PUBLIC_KEY_BYTES, int
        )
        if self.enrolment is not None:
            self.offers_due += 1  # the server had forgotten this device: whatever it once held may be gone as well
        self.enrolment = Enrolment(
            env=env, school=school, device=device, user_id=user_id, role=role, server_key=server_key, epoch=epoch
        )
        self.epoch = max(self.epoch, epoch)
        self.answers.add(device[:SHORT_BYTES])

    def _tap(self, body: Any, row: Row) -> None:
        key, value, mono_ms = shape(body, str, (str, None), int)
        register = self._register(_named(row))
        taps = register.taps.setdefault(key, [])
        if value is not None:
            taps.append(Tap(value=value, mono_ms=mono_ms))
        elif taps:
            taps.pop()
        if not taps:
            del register.taps[key]
        self._touch(register.register)

    def _change(self, body: Any, row: Row) -> None:
        change = parse(shape(body, bytes)[0])
        register = self._register(_named(row))
        for op in change.ops:
            register.taps.pop(op.key, None)
        entry = self._add(register, Entry(register=register.register, change=change, own=True))
        if entry.verdict is None:
            self.unframed[change.hash[:SHORT_BYTES]] = entry

    def _pulled(self, body: Any, row: Row) -> None:
        user_id, chunk = shape(body, str, bytes)
        change = parse(chunk)
        register = self._register(_named(row))
        own = self.enrolment is not None and is_actor_of(change.actor, self.enrolment.device)
        self._add(
            register,
            Entry(register=register.register, change=change, own=own, by=user_id, verdict=Verdict(DURABLE)),
        )

    def _add(self, register: RegisterState, entry: Entry) -> Entry:
        short = entry.change.hash[:SHORT_BYTES]
        entry = self.entries.setdefault(short, entry)
        if entry.register == register.register and short not in register.entries:
            register.entries[short] = entry
            entry.settled, entry.slug = register.settlements.get(short, (entry.settled, entry.slug))
        register.forget_merge()
        self._touch(register.register)
        return entry

    def _frame(self, body: Any, _row: Row) -> None:
        number, names, raw = shape(body, int, list, bytes)
        digest = hashlib.sha256(raw[:-SIGNATURE_BYTES]).digest()[:FRAME_NAME_BYTES]
        changes = tuple(name for name in names if type(name) is bytes)
        self.frames[digest] = FrameState(number=number, name=digest, changes=changes, raw=raw)
        for name in changes:
            self.unframed.pop(name, None)
            self._judge(name, None)
        if number >= self.last_number:
            self.last_number, self.last_prev = number, digest

    def _receipt(self, body: Any, _row: Row) -> None:
        signed, _, names = shape(body, bytes, SIGNATURE_BYTES, list)
        answer, _ = read_signed_part(signed)
        for name, verdicts in zip(names, answer.receipts, strict=False):
            frame = self.frames.get(name) if type(name) is bytes else None
            if frame is None or isinstance(verdicts, str) or len(verdicts) != len(frame.changes):
                continue
            frame.open = False
            for change, verdict in zip(frame.changes, verdicts, strict=True):
                self._judge(change, verdict)
        self.nonce, self.server_ms = answer.nonce, answer.server_ms
        self.answers.add(answer.nonce)
        self.epoch_seen = max(self.epoch_seen, answer.epoch)
        if answer.last_number > self.last_number:
            self.last_number, self.last_prev = answer.last_number, NO_PREV
        if not self._pending:
            self.last_complete_sync_at_ms = answer.server_ms

    def _judge(self, name: bytes, verdict: Verdict | None) -> None:
        entry = self.entries.get(name)
        if entry is None:
            return
        register = self.registers[entry.register]
        if entry.is_refused != (verdict is not None and not verdict.is_safe):
            register.forget_merge()
        entry.verdict = verdict
        entry.slug = None if verdict is None else verdict.slug
        if verdict is None:
            entry.settled = 0
            entry.archived = False  # the server lacks it: whatever was said of its backups is void
            self.archived.discard(name)
            register.settlements.pop(name, None)
        self._touch(entry.register)

    def _settled(self, body: Any, row: Row) -> None:
        revision, states = shape(body, int, list)
        register = self._register(_named(row))
        register.revision = revision
        for item in states:
            name, state, slug = shape(item, SHORT_BYTES, int, (str, None))
            register.settlements[name] = (state, slug)
            entry = register.entries.get(name)
            if entry is not None:
                entry.settled, entry.slug = state, slug
        self._touch(register.register)

    def _archived(self, body: Any, _row: Row) -> None:
        names = shape(body, bytes)[0]
        for at in range(0, len(names), SHORT_BYTES):
            entry = self.entries.get(names[at : at + SHORT_BYTES])
            if entry is not None and entry.own and entry.is_sent:
                entry.archived = True
                self.archived.add(names[at : at + SHORT_BYTES])

    def _roster(self, body: Any, _row: Row) -> None:
        class_id, version, _ = shape(body, str, int, int)
        self.roster_versions[class_id] = version

    def _directive(self, body: Any, _row: Row) -> None:
        number, level, reason, state = shape(body, int, str, str, str)
        order = self.directives.setdefault(number, Directive(id=number, level=level, reason=reason))
        order.done = order.done or state == "done"

    def _attempt(self, body: Any, row: Row) -> None:
        *_, outcome, _, _ = shape(body, int, int, int, int, str, int, (str, None))
        self.last_outcome, self.last_attempt_at_ms = outcome, row.at_ms
        self.failures = 0 if outcome == "ok" else self.failures + 1
        if outcome in ("timeout", "too-large", "slow-body"):
            self.shrinks += 1
        elif outcome == "ok":
            self.shrinks = 0

    def _notice(self, body: Any, row: Row) -> None:
        slug, detail = shape(body, str, (str, int, None))
        text = "" if detail is None else str(detail)
        self.notices.append((slug, text, row.at_ms))
        if slug == RESTORED_COPY:
            self.offers_due += 1
        elif slug in (OFFERED, OFFERED_UNARCHIVED):
            self.epoch = max(self.epoch, int(text) if text.isdecimal() else 0)
            self.offers_due = 0 if slug == OFFERED else self.offers_due
        elif slug == "frame-refused":
            self._set_frame_aside(text)

    def _set_frame_aside(self, name: str) -> None:
        frame = next((frame for frame in self.frames.values() if frame.name.hex() == name), None)
        if frame is None or not frame.open:
            return
        frame.open = False
        for short in frame.changes:
            entry = self.entries.get(short)
            if entry is not None:
                entry.strikes += 1
                (self.unframed if entry.strikes < STRIKES_MAX else self.set_aside)[short] = entry

    def _start(self, body: Any, _row: Row) -> None:
        shape(body, SHORT_BYTES, str)
        for short, entry in self.set_aside.items():  # whoever could not read them may have been mended meanwhile
            entry.strikes = STRIKES_MAX - 1
            self.unframed[short] = entry
        self.set_aside.clear()

    def _nothing(self, body: Any, row: Row) -> None:
        """Evidence that changes no state: `clock`, `calendar`."""


_KINDS = {
    "enrol": DeviceState._enrol,
    "start": DeviceState._start,
    "tap": DeviceState._tap,
    "change": DeviceState._change,
    "pulled": DeviceState._pulled,
    "frame": DeviceState._frame,
    "receipt": DeviceState._receipt,
    "settled": DeviceState._settled,
    "archived": DeviceState._archived,
    "roster": DeviceState._roster,
    "calendar": DeviceState._nothing,
    "directive": DeviceState._directive,
    "clock": DeviceState._nothing,
    "attempt": DeviceState._attempt,
    "notice": DeviceState._notice,
}


def fold(rows: Iterable[Row]) -> DeviceState:
    """The state after `rows`."""
    state = DeviceState()
    state.extend(rows)
    return state


def _named(row: Row) -> str:
    if row.register is None:
        raise FrameRefused("bad-frame", f"row {row.seq} names no register")
    return row.register
