"""The device: captures through its journal, and talks to the server. The only loop of clientcore.

Invariants:
  1. No answer, no error and no revocation deletes or changes anything on the device; answers only add rows.
  2. Only bytes signed by the server of the enrolment, for this very request, count as an answer.
  3. An answer's receipts, what it pulled and what it asked back for are appended in one transaction; the cache (names,
     cursor) follows the log, so a kill between them costs one repeated pull and nothing else.
  4. One conversation at a time (`home.uploading` across processes).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from clientcore.answers import check_reply, fresh_nonce, read_signed
from clientcore.backoff import frames_per_request, wait_ms
from clientcore.cache import Cache
from clientcore.days import Offsets, civil_date, zone_offsets
from clientcore.errors import FrameRefused, HudurError, Problem, TransportError
from clientcore.exchange import (
    MEDIA_TYPE,
    SYNC_PATH,
    Enrolled,
    SignedAnswer,
    read_enrolled,
    read_payload,
    write_call,
    write_enrol,
    write_sync,
)
from clientcore.fold import DeviceState
from clientcore.frame import Ask
from clientcore.inbox import Inbox, read_items
from clientcore.journal import Journal
from clientcore.keys import SigningKey, short_number
from clientcore.limits import CONFIRM_AFTER_S, REQUEST_DEADLINE_S
from clientcore.log import Act, Log
from clientcore.outbox import offers, request_frames
from clientcore.ports import Clock, HttpReply, Network, Random, Reached, not_watched
from clientcore.register import RegisterId
from clientcore.states import OFFERED, OFFERED_UNARCHIVED, RESTORED_COPY, SHORT_BYTES, Enrolment, FrameState
from clientcore.wire import Value

APP = "py/0.1.0"
CRASH_POINTS = ("device.before_send", "device.after_answer", "device.between_log_and_cache")
ENROL_PATH, CALL_PATH, BUNDLES_PATH = "/v1/enrol", "/v1/call", "/v1/bundles"
FALLBACK_ZONE = "Africa/Cairo"
ROUNDS_MAX = 200  # of one conversation: 200 frames one by one on the worst network; the next sync goes on
STALE_ROUNDS_MAX = 2  # asks in a row that brought no payload
_NO_NONCE = bytes(8)
_SHRINK = frozenset(("too-large", "too-many-changes"))
_UNREADABLE = frozenset(("bad-frame", "frame-limits"))
_WORDS = ("durable", "duplicate", "held", "refused")


@dataclass(slots=True, kw_only=True)
class SyncReport:
    """What one conversation did.

    Attributes:
        outcome: `ok`; `no-answer` (nothing of ours came back); `busy` (the server asks to wait); `refused`.
        error: Why it did not end `ok`.
        wait_ms: When to try again, in milliseconds from its end; 0 after `ok` and `refused`.
        requests: Requests sent, with or without an answer.
        changes: Verdicts by word (`durable`, `duplicate`, `held`, `refused`).
        pulled: Changes made elsewhere that came.
        settled: Registers with news of their settlement.
        wanted: Changes the server asked for again.
    """

    outcome: str = "ok"
    error: HudurError | None = None
    wait_ms: int = 0
    requests: int = 0
    frames: int = 0
    bytes_up: int = 0
    bytes_down: int = 0
    changes: dict[str, int] = field(default_factory=lambda: dict.fromkeys(_WORDS, 0))
    pulled: int = 0
    settled: int = 0
    wanted: int = 0
    unreadable: int = 0


@dataclass(slots=True, kw_only=True)
class _Talk:
    """Where one conversation stands.

    Attributes:
        asking: A pull is still wanted.
        from_start: The next ask drops the cursor.
        repulling: A re-pull that the champion ordered is running.
        parts: Hash lists still to be offered; None when no offer is running.
        offered_epoch: The epoch the running offer is for.
        offered_whole: The running offer names everything, archived changes too.
        stale: Asks in a row that brought no payload.
        window: Frames a request may carry.
        suspects: Frames the server could not read once; at the second time they are set aside.
    """

    report: SyncReport
    window: int
    asking: bool = True
    from_start: bool = False
    repulling: bool = False
    parts: list[bytes] | None = None
    offered_epoch: int = 0
    offered_whole: bool = False
    stale: int = 0
    suspects: set[bytes] = field(default_factory=set)


class Device:
    """One device: a log, a key, a cache, and the three ports."""

    def __init__(
        self,
        *,
        log: Log,
        cache: Cache,
        key: SigningKey,
        clock: Clock,
        random: Random,
        network: Network,
        app: str = APP,
        reached: Reached = not_watched,
    ) -> None:
        self._cache = cache
        self._key = key
        self._clock = clock
        self._random = random
        self._network = network
        self._app = app
        self._reached = reached
        self.journal = Journal(log, key=key, clock=clock, random=random, app=app)

    @property
    def state(self) -> DeviceState:
        """The fold of the log so far."""
        return self.journal.state

    @property
    def cache(self) -> Cache:
        """Names, rosters and calendar."""
        return self._cache

    @property
    def short_number(self) -> str:
        """Six digits that device and champion compare by eye."""
        return short_number(self._key.public)

    def frames_to_carry(self, *, everything: bool = False) -> list[bytes]:
        """Raw frames for a bundle: all work without a receipt, sealed and framed now; or all frames with changes."""
        self.journal.seal()
        self.journal.frame()
        return [frame.raw for frame in self.state.frames.values() if frame.changes and (frame.open or everything)]

    # ---- days ----

    def offsets(self) -> Offsets:
        """UTC offsets of the school's zone: the server's table, or this machine's until it has come."""
        calendar = self._cache.calendar()
        return calendar.offsets if calendar else zone_offsets(FALLBACK_ZONE, self._clock.wall_ms())

    def today(self) -> str:
        """The school's civil date by this machine's clock."""
        return civil_date(self.offsets(), self._clock.wall_ms())

    def register(self, class_id: str, date: str, session: str) -> RegisterId:
        """The register of one class, date and session in this device's school.

        Raises:
            BadInput: when a part is outside its grammar.
            NotEnrolled: before the enrolment.
        """
        return RegisterId(self.journal.enrolment.school, class_id, date, session)

    # ---- enrolment ----

    async def enrol(self, *, school: str, code: str, label: str) -> Enrolled:
        """Make this device act for the person `code` was made for. May be repeated with the same code after no answer.

        Raises:
            Problem: the server refused the code.
            TransportError: no answer of ours.
        """
        body = write_enrol(self._key, school=school, code=code, label=label, app=self._app)
        reply = await self._network.post(ENROL_PATH, body, content_type=MEDIA_TYPE, deadline_s=REQUEST_DEADLINE_S)
        try:
            enrolled = read_enrolled(check_reply(reply), request=body)
            payload = read_payload(enrolled.payload)
        except FrameRefused as refused:
            raise TransportError("not-ours", str(refused)) from None
        expected = (self.journal.device, short_number(self._key.public), school)
        if (enrolled.device, enrolled.short_number, enrolled.school) != expected:
            raise TransportError("not-ours", "the answer enrols another key or school")
        inbox = read_items(self.state, school, payload)
        self.journal.seal()  # as in `_take`: enrolled again, the phone may hold taps made without sight of what comes
        with self.journal.act() as act:
            self.journal.append_enrolment(
                act,
                Enrolment(
                    env=enrolled.env,
                    school=enrolled.school,
                    device=enrolled.device,
                    user_id=enrolled.user_id,
                    role=enrolled.role,
                    server_key=enrolled.server_key,
                    epoch=enrolled.epoch,
                ),
            )
            self._append_inbox(act, inbox)
        self._cache.put_names(enrolled.school_name, enrolled.user_name)
        self._cache.put_nonce(enrolled.nonce)
        self._fill_cache(inbox, anchor=enrolled.device[:SHORT_BYTES], cursor=payload.cursor)
        return enrolled

    # ---- sync ----

    async def sync_until_answered(self, *, tries: int, confirm: bool = True) -> SyncReport:
        """`sync`, and again after the back-off while no answer comes or the server asks to wait."""
        report = await self.sync(confirm=confirm)
        for _ in range(tries - 1):
            if not report.wait_ms:
                break
            await self._clock.sleep_ms(report.wait_ms)
            report = await self.sync(confirm=confirm)
        return report

    async def sync(self, *, confirm: bool = True) -> SyncReport:
        """One conversation: send what waits, pull what is lacking, ask once more for the confirmation.

        Never raises for what the network or the server does; `SyncReport` tells.

        Args:
            confirm: Whether to wait 3 s and ask again when something became durable.

        Raises:
            NotEnrolled: before the enrolment.
            StoreError: the disk failed.
        """
        _ = self.journal.enrolment
        with self.journal.act() as act:
            self.journal.session(act)
        report = SyncReport()
        talk = _Talk(report=report, window=frames_per_request(self.state.shrinks))
        try:
            await self._converse(talk)
            if confirm and self._awaits_confirmation():
                await self._clock.sleep_ms(int(CONFIRM_AFTER_S * 1000))
                talk.asking, talk.stale = True, 0
                await self._converse(talk)
        except Problem as problem:
            report.error = problem
            report.outcome = "busy" if problem.retryable else "refused"
            if problem.retryable:
                report.wait_ms = max(1, self._wait_ms(problem.retry_after_s))
        except TransportError as silence:
            report.error = silence
            report.outcome = "no-answer"
            report.wait_ms = max(1, self._wait_ms(None))
        return report

    def _wait_ms(self, retry_after_s: float | None) -> int:
        return wait_ms(max(1, self.state.failures), fraction=self._random.fraction(), retry_after_s=retry_after_s)

    def _awaits_confirmation(self) -> bool:
        return any(entry.own and entry.is_sent and not entry.settled for entry in self.state.entries.values())

    async def _converse(self, talk: _Talk) -> None:
        for _ in range(ROUNDS_MAX):
            frames = self._next_request(talk)
            if not frames:
                return
            await self._exchange(talk, frames)
        raise TransportError("broken", f"no end after {ROUNDS_MAX} requests")

    def _next_request(self, talk: _Talk) -> list[FrameState]:
        """Seal, frame, and choose the frames of the next request; none when there is nothing to send or ask."""
        self.journal.seal()
        state = self.state
        if state.needs_offer and talk.parts is None:
            talk.parts, talk.offered_epoch = offers(state), state.epoch_seen
            talk.offered_whole = state.needs_whole_offer or not state.archived
            talk.from_start = talk.asking = True
        elif state.open_directives("repull") and not talk.repulling:
            talk.repulling = talk.from_start = talk.asking = True
        backlog = sum(bool(frame.changes) for frame in state.open_frames())
        if talk.asking and (backlog < talk.window or not backlog):  # else the ask would not be in the next request
            ask = Ask(
                nonce=state.nonce or self._cache.nonce(),
                cursor=None if talk.from_start else self._cache.cursor(state.answers),
                have=talk.parts[0] if talk.parts else None,
                app=None if self.journal.beacon else self._app,
                unsent=0,
                done=state.done_directive,
            )
            self.journal.frame_with_ask(ask, frames_max=talk.window)
        elif state.unframed:
            self.journal.frame()
        chosen = request_frames(self.state, frames_max=talk.window)
        return chosen if talk.asking or any(frame.changes for frame in chosen) else []

    async def _exchange(self, talk: _Talk, frames: Sequence[FrameState]) -> None:
        """One request. Raises what ends the conversation (see `sync`); what can be mended here is mended."""
        body = write_sync([frame.raw for frame in frames])
        talk.report.requests += 1
        talk.report.bytes_up += len(body)
        started_ms = self.journal.mono_ms()
        self._reached("device.before_send")
        try:
            reply = await self._network.post(SYNC_PATH, body, content_type=MEDIA_TYPE, deadline_s=REQUEST_DEADLINE_S)
        except TransportError as silence:
            self._log_attempt(started_ms, len(body), 0, silence.code, 0)
            raise
        talk.report.bytes_down += len(reply.body)
        try:
            answer = read_signed(reply, server_key=self.journal.enrolment.server_key, request=body)
        except (Problem, TransportError) as failed:
            self._log_attempt(started_ms, len(body), len(reply.body), failed.code, reply.first_byte_ms)
            if not (isinstance(failed, Problem) and self._mend(talk, frames, failed)):
                raise
            return
        self._take(talk, frames, answer, reply, started_ms=started_ms, bytes_up=len(body))

    def _mend(self, talk: _Talk, frames: Sequence[FrameState], problem: Problem) -> bool:
        """Whether a smaller request, or one without the frame the server cannot read, may do better."""
        if len(frames) > 1 and problem.code in _SHRINK | _UNREADABLE:
            talk.window = max(1, len(frames) // 2) if problem.code in _SHRINK else 1
            return True
        frame = frames[0]
        if problem.code not in _SHRINK | _UNREADABLE or not frame.changes:
            return False
        if problem.code == "bad-frame" and frame.name not in talk.suspects:
            talk.suspects.add(frame.name)  # perhaps bits fell over on the way: the same bytes once more
            return True
        with self.journal.act() as act:
            self.journal.append(act, "notice", None, ["frame-refused", frame.name.hex()])
        return True

    def _log_attempt(self, started_ms: int, up: int, down: int, outcome: str, first_byte_ms: int) -> None:
        with self.journal.act() as act:
            self._append_attempt(act, started_ms, up, down, outcome, first_byte_ms)

    def _append_attempt(self, act: Act, started_ms: int, up: int, down: int, outcome: str, first_byte_ms: int) -> None:
        took_ms = max(0, self.journal.mono_ms() - started_ms)
        self.journal.append(act, "attempt", None, [started_ms, took_ms, up, down, outcome, first_byte_ms, None])

    # ---- taking an answer ----

    def _take(
        self,
        talk: _Talk,
        frames: Sequence[FrameState],
        signed: SignedAnswer,
        reply: HttpReply,
        *,
        started_ms: int,
        bytes_up: int,
    ) -> None:
        answer = signed.answer
        asked = talk.asking and frames[-1].number == self.state.last_number
        inbox, cursor, more = self._read_payload(signed)
        self._reached("device.after_answer")
        self.journal.seal()  # tapped without sight of what comes now: a disagreement must stay one
        with self.journal.act() as act:
            self._append_answer(act, signed, [frame.name for frame in frames])
            self._append_attempt(act, started_ms, bytes_up, len(reply.body), "ok", reply.first_byte_ms)
            if inbox.says_copied:
                self.journal.begin_session(act)
            self._append_inbox(act, inbox)
        report = talk.report
        report.frames += len(frames)
        for verdict in (v for entry in answer.receipts if not isinstance(entry, str) for v in entry):
            report.changes[_WORDS[verdict.kind]] += 1
        report.pulled += inbox.pulled
        report.settled += inbox.settled
        report.wanted += len(inbox.wanted)
        report.unreadable += inbox.unreadable
        if inbox.wanted:
            self.journal.frame(wanted=inbox.wanted)
        if cursor is not None:
            self._reached("device.between_log_and_cache")
            self._fill_cache(inbox, anchor=answer.nonce, cursor=cursor)
            self._after_payload(talk, more=more)
        elif asked:
            talk.stale += 1
            talk.asking = talk.stale <= STALE_ROUNDS_MAX
            if not talk.asking and self.state.needs_offer:  # a copy of this device is talking at the same time
                raise TransportError("broken", "what the server may have lost could not be offered")
        if any(frame.open for frame in frames if frame.changes):
            raise TransportError("broken", "the server's answer carries no receipt for what was sent")

    def _read_payload(self, signed: SignedAnswer) -> tuple[Inbox, bytes | None, bool]:
        """(what came, new cursor or None, whether there is more). A payload that breaks the protocol counts as none."""
        if signed.answer.payload is None:
            return Inbox(), None, False
        try:
            payload = read_payload(signed.answer.payload)
        except FrameRefused:
            return Inbox(unreadable=1), None, False
        return read_items(self.state, self.journal.enrolment.school, payload), payload.cursor, payload.more

    def _append_answer(self, act: Act, signed: SignedAnswer, names: Sequence[bytes]) -> None:
        """The receipt, the beacon, and what the server's numbers say about this log."""
        answer, journal = signed.answer, self.journal
        ended = self.state.last_number
        journal.append(act, "receipt", None, [signed.signed, signed.signature, list(names)])
        if answer.last_number > ended:
            # Frames of ours that this log does not know: it is an old copy, or a copy is in use elsewhere.
            detail = f"the server has frame {answer.last_number}, this log ends at {ended}"
            journal.append(act, "notice", None, [RESTORED_COPY, detail])
            journal.begin_session(act)
        journal.session(act)
        journal.beacon = (answer.server_ms, journal.mono_ms())
        journal.append(act, "clock", None, [journal.mono_ms(), answer.server_ms])

    def _append_inbox(self, act: Act, inbox: Inbox) -> None:
        for kind, register, body in inbox.rows:
            self.journal.append(act, kind, register, body)

    def _fill_cache(self, inbox: Inbox, *, anchor: bytes, cursor: bytes) -> None:
        if inbox.classes is not None:
            self._cache.put_classes(inbox.classes)
        for class_id, pupils in inbox.rosters.items():
            self._cache.put_roster(class_id, pupils)
        if inbox.calendar is not None:
            self._cache.put_calendar(inbox.calendar)
        self._cache.put_cursor(anchor, cursor)

    def _after_payload(self, talk: _Talk, *, more: bool) -> None:
        """The pull went one step: what is finished is said, what is left is asked for."""
        talk.stale = 0
        talk.from_start = False
        talk.asking = more
        done: list[int] = [order.id for order in self.state.open_directives("nudge")]
        rows: list[list[Value]] = []
        if talk.parts is not None:
            talk.parts = talk.parts[1:]
            talk.asking = more or bool(talk.parts)
            if not talk.parts and not more:
                rows.append([OFFERED if talk.offered_whole else OFFERED_UNARCHIVED, str(talk.offered_epoch)])
                levels = ("rebuild", "repull") if talk.offered_whole else ("repull",)
                done += [order.id for order in self.state.open_directives(*levels)]
                talk.parts = None
        elif not more and talk.repulling:
            done += [order.id for order in self.state.open_directives("repull")]
        if not rows and not done:
            return
        with self.journal.act() as act:
            for row in rows:
                self.journal.append(act, "notice", None, row)
            for number in done:
                order = self.state.directives[number]
                self.journal.append(act, "directive", None, [number, order.level, order.reason, "done"])
        talk.asking = talk.asking or bool(done)  # one more greeting tells the champion

    # ---- calls ----

    async def call(
        self, command: str, args: Sequence[Value], *, path: str = CALL_PATH, frames: Sequence[bytes] = ()
    ) -> bytes:
        """A champion's command (docs/protocol.md section 8); returns the result as MessagePack.

        Args:
            command: Its name.
            args: Its arguments.
            path: `CALL_PATH` or `BUNDLES_PATH`.
            frames: Names (16 bytes) of the frames a bundle carries, in its order; their receipts are kept.

        Raises:
            Problem: refused; TransportError: no answer of ours.
        """
        enrolment = self.journal.enrolment
        nonce = self.state.nonce or self._cache.nonce() or _NO_NONCE
        for attempt in range(3):
            body = write_call(
                self._key,
                env=enrolment.env,
                school=enrolment.school,
                device=self.journal.device,
                nonce=nonce,
                wall_ms=self._clock.wall_ms(),
                command=command,
                args=args,
            )
            reply = await self._network.post(path, body, content_type=MEDIA_TYPE, deadline_s=REQUEST_DEADLINE_S)
            try:
                signed = read_signed(reply, server_key=enrolment.server_key, request=body)
            except Problem as problem:
                fresh = problem.body.get("nonce")
                if problem.code != "stale-nonce" or not isinstance(fresh, str) or attempt == 2:
                    raise
                nonce = fresh_nonce(fresh)
                continue
            with self.journal.act() as act:
                self._append_answer(act, signed, frames)
            return signed.answer.payload or b""
        raise AssertionError("unreachable")
