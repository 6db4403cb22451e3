"""Capture: the log, its fold, and the app session that writes into it. No network here.

Invariants:
  1. What `tap`, `seal` and `frame` returned from is on disk (clientcore/log.py).
  2. Every app session has a fresh nonce and so a fresh actor: (actor, seq) is never used twice, copied homes included.
  3. A frame is in the log before it is sent, its number is taken inside the log's transaction, its bytes never change.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager

from clientcore.change import NONCE_BYTES, actor_of
from clientcore.days import Offsets, midnight_ms
from clientcore.errors import BadInput, NotEnrolled
from clientcore.fold import DeviceState
from clientcore.frame import Ask, ClockEvidence, Frame, parse_frame, seal_frame
from clientcore.keys import SigningKey, device_id
from clientcore.limits import TIME_S_MAX
from clientcore.log import Act, Log
from clientcore.outbox import Batch, frame_batches, request_frames, unsent_registers
from clientcore.ports import Clock, Random
from clientcore.register import RegisterId, is_key, is_value
from clientcore.sealing import seal
from clientcore.states import FRAME_NAME_BYTES, SHORT_BYTES, Enrolment
from clientcore.wire import Value

_CAPTURE_MS_MAX = 9_999_990_000_000  # a mark writes 13 digits: 300 years off, and room for later marks of the sitting


class Journal:
    """What a device writes down. `state` is the fold of all rows seen so far.

    Attributes:
        state: See `DeviceState`.
        beacon: (server_ms, mono_ms when it came) of the last answer of this app session, or None.
    """

    def __init__(self, log: Log, *, key: SigningKey, clock: Clock, random: Random, app: str) -> None:
        self._log = log
        self._key = key
        self._clock = clock
        self._random = random
        self._app = app
        self._session: bytes | None = None
        self._session_began_mono_ms = 0
        self._last_capture_ms: dict[str, int] = {}
        self.device = device_id(key.public)
        self.beacon: tuple[int, int] | None = None
        self.state = DeviceState()
        self.refresh()

    def refresh(self) -> None:
        """See what other processes appended."""
        self.state.extend(self._log.read())

    @property
    def enrolment(self) -> Enrolment:
        """For whom this device acts.

        Raises:
            NotEnrolled: when it has no enrolment of its own key.
        """
        enrolment = self.state.enrolment
        if enrolment is None:
            raise NotEnrolled("not-enrolled", "this device has no enrolment; ask the school's champion for a code")
        if enrolment.device != self.device:
            raise NotEnrolled("not-enrolled", "the key beside this log is another device's; enrol into a new home")
        return enrolment

    def adopt(self, enrolment: Enrolment) -> bool:
        """Write a known enrolment into a log that has none: the log was damaged or lost, the key was not.

        Returns whether it did. The server's frame numbers tell, at the next answer, what else is missing.
        """
        if self.state.enrolment is not None or enrolment.device != self.device:
            return False
        with self.act() as act:
            self.append_enrolment(act, enrolment)
            self.append(act, "notice", None, ["empty-log", "the log was empty; the enrolment was taken from beside it"])
        return True

    def append_enrolment(self, act: Act, enrolment: Enrolment) -> None:
        """The `enrol` row."""
        self.append(
            act,
            "enrol",
            None,
            [
                enrolment.env,
                enrolment.school,
                enrolment.device,
                enrolment.user_id,
                enrolment.role,
                enrolment.server_key,
                enrolment.epoch,
            ],
        )

    @contextmanager
    def act(self) -> Iterator[Act]:
        """One transaction of the log; the fold takes its rows once they are on disk."""
        before = (self._session, self._session_began_mono_ms, self.beacon)
        try:
            with self._log.act() as act:
                self.state.extend(act.missed)
                yield act
        except BaseException:
            self._session, self._session_began_mono_ms, self.beacon = before
            raise
        self.state.extend(act.appended)

    def append(self, act: Act, kind: str, register: str | None, body: Sequence[Value]) -> None:
        """Append a row stamped with the wall clock."""
        act.append(kind, register, self._clock.wall_ms(), body)

    # ---- the app session ----

    def begin_session(self, act: Act) -> None:
        """A new app session: a fresh actor, a fresh origin of monotonic time."""
        self._session = self._random.bytes(NONCE_BYTES)
        self._session_began_mono_ms = self._clock.mono_ms()
        self.beacon = None
        self.append(act, "start", None, [self._session, self._app])

    def session(self, act: Act) -> bytes:
        """The running app session's nonce; begins one when none runs."""
        if self._session is None:
            self.begin_session(act)
        assert self._session is not None
        return self._session

    def mono_ms(self) -> int:
        """Milliseconds since this app session began."""
        return max(0, self._clock.mono_ms() - self._session_began_mono_ms)

    # ---- taps and changes ----

    def capture_ms(self, register: RegisterId, offsets: Offsets) -> int:
        """Now, in milliseconds from local midnight of the register's date; never the same twice in one app session."""
        now_ms = self._clock.wall_ms() - midnight_ms(offsets, register.date)
        now_ms = min(max(now_ms, -_CAPTURE_MS_MAX), _CAPTURE_MS_MAX)
        last_ms = self._last_capture_ms.get(register.within_school)
        if last_ms is not None and now_ms <= last_ms:
            now_ms = last_ms + 1
        self._last_capture_ms[register.within_school] = now_ms
        return now_ms

    def tap(self, register: RegisterId, taps: Sequence[tuple[str, str | None]]) -> None:
        """One act of a person: durable when this returns. A value of None takes back the last unsealed tap of its key.

        Raises:
            BadInput: `bad-mark`; nothing was written then.
            StoreError: it is not safe on the disk. Whether it is there all the same, the next look at the log tells.
        """
        for key, value in taps:
            if not _may_tap(key, value):
                raise BadInput("bad-mark", f"{key} = {value}")
        with self.act() as act:
            self.session(act)
            for key, value in taps:
                self.append(act, "tap", register.within_school, [key, value, self.mono_ms()])

    def seal(self) -> int:
        """Seal all unsealed taps of all app sessions into changes; returns how many changes were made."""
        sealed = 0
        taken = set(self.state.entries)
        with self.act() as act:
            for name, register in list(self.state.registers.items()):
                taps = {key: taps for key, taps in register.taps.items() if _may_tap(key, taps[-1].value)}
                if not taps:
                    continue
                actor = actor_of(self.device, self.session(act))
                time_s = min(max(self._clock.wall_ms() // 1000, 0), TIME_S_MAX - 1)
                for change in seal(register, taps=taps, actor=actor, time_s=time_s, taken=taken):
                    taken.add(change.hash[:SHORT_BYTES])
                    self.append(act, "change", name, [change.chunk])
                    sealed += 1
        return sealed

    # ---- frames ----

    def frame(self, *, wanted: Collection[bytes] = ()) -> None:
        """Frame all changes that wait for one, and those `wanted` by the server (short hashes), without an ask."""
        with self.act() as act:
            entries = dict(self.state.unframed)
            for name in wanted:
                entry = self.state.entries.get(name)
                if entry is not None and entry.own:  # what others made carries their signature, not ours
                    entries[name] = entry
            self._append_frames(act, frame_batches(entries.values()), None)

    def frame_with_ask(self, ask: Ask, *, frames_max: int) -> None:
        """Frame all changes that wait for one; the newest frame asks. Makes none if the newest open one asks the same.

        Args:
            ask: What to ask; `unsent` is filled in here.
            frames_max: How many frames the next request may carry.
        """
        with self.act() as act:
            batches = frame_batches(self.state.unframed.values())
            if not batches and self._asks_already(ask):
                return
            carried = {entry.change.hash[:SHORT_BYTES] for batch in batches for entry, _ in batch}
            for frame in request_frames(self.state, frames_max=max(0, frames_max - len(batches))):
                carried.update(frame.changes)
            unsent = unsent_registers(self.state, carried)
            asking = Ask(nonce=ask.nonce, cursor=ask.cursor, have=ask.have, app=ask.app, unsent=unsent, done=ask.done)
            if not batches or ask.have is not None:
                batches.append([])  # a hash list fills a frame of its own
            self._append_frames(act, batches, asking)

    def _asks_already(self, ask: Ask) -> bool:
        newest = max(self.state.open_frames(), key=lambda frame: frame.number, default=None)
        if newest is None or newest.number != self.state.last_number:
            return False
        asked = parse_frame(newest.raw).ask
        return asked is not None and (asked.nonce, asked.cursor, asked.have, asked.done) == (
            ask.nonce,
            ask.cursor,
            ask.have,
            ask.done,
        )

    def _append_frames(self, act: Act, batches: Sequence[Batch], ask: Ask | None) -> None:
        enrolment = self.enrolment
        number, prev = self.state.last_number, self.state.last_prev
        for at, batch in enumerate(batches, 1):
            session = self.session(act)
            number += 1
            frame: Frame = seal_frame(
                self._key,
                env=enrolment.env,
                school=enrolment.school,
                device=self.device,
                number=number,
                prev=prev,
                clock=ClockEvidence(
                    wall_ms=self._clock.wall_ms(), mono_ms=self.mono_ms(), session=session, beacon=self.beacon
                ),
                changes=[framed for _, framed in batch],
                ask=ask if at == len(batches) else None,
            )
            prev = frame.hash[:FRAME_NAME_BYTES]
            names = [entry.change.hash[:SHORT_BYTES] for entry, _ in batch]
            self.append(act, "frame", None, [number, names, frame.raw])


def _may_tap(key: str, value: str | None) -> bool:
    if not is_key(key.encode("utf-8", "replace")):
        return False
    return value is None or is_value(key.encode(), value.encode("utf-8", "replace"))
