"""A phone of one example: the real device core over a simulated disk, and a network that does what the step says."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

from clientcore.bundles import frame_name
from clientcore.cache import Cache
from clientcore.device import BUNDLES_PATH, Device, SyncReport
from clientcore.errors import FrameRefused, Problem, StoreError, TransportError
from clientcore.exchange import MEDIA_TYPE
from clientcore.frame import read_bundle
from clientcore.keys import SigningKey
from clientcore.log import Log
from clientcore.ports import HttpReply, SeededRandom
from clientcore.register import Code, Mark, RegisterId
from clientcore.states import Enrolment, Step
from clientcore.taking import take_register
from clientcore.wire import unpack
from tests.machines import troubles as what
from tests.machines.server import Host
from tests.machines.troubles import Blow, Trouble
from tests.machines.victim import Victim, pause
from tests.simulator.asgi import Answered
from tests.simulator.clock import PhoneClock
from tests.simulator.disk import Disk, MachineDead
from tests.simulator.lab import Lab
from tests.simulator.phone import hash_number
from tests.simulator.school import School
from tests.simulator.server import Unreachable

LOG, CACHE = Path("log.db"), Path("cache.db")
ROUND_TRIP_MS = 80
PAGE = b"<!doctype html><title>Top up</title><p>Your bundle has ended."
MINUTES_LATE = "7"

TapName = tuple[str, str]  # (class/date/session, key)
ACCEPTED = frozenset(("busy", "storage", "stale-nonce"))
"""Refusals that honest phones may meet."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """What all phones of an example share.

    Attributes:
        dates: The two school days on which registers are taken.
    """

    school: School
    dates: tuple[str, str]


@dataclass(slots=True)
class Line:
    """What a phone's network does in one step. `trouble` falls on the `number`-th exchange of the step, from 0."""

    host: Host
    lab: Lab
    trouble: Trouble
    number: int
    settles: bool
    tap: Callable[[what.Meanwhile], None]  # a finger of the phone's person
    heard: list[tuple[str, bytes]]
    answers: list[HttpReply]
    count: int = 0

    async def post(self, path: str, body: bytes, deadline_s: float) -> HttpReply:
        """See `Network`."""
        trouble = self.trouble if self.count == self.number else what.Nothing()
        self.count += 1
        if self.settles and self.count > 1:
            await self.host.settle()
        await pause(ROUND_TRIP_MS / 2)
        self.lab.faults[type(trouble).__name__] += not isinstance(trouble, (what.Nothing, what.Blow))
        match trouble:
            case what.Refused():
                raise TransportError("offline", "no connection")
            case what.StrangersPage(ours=ours):
                return HttpReply(status=200, content_type="application/x-hudur" if ours else "text/html", body=PAGE)
            case what.Busy(retry_after_s=wait_s):
                return HttpReply(status=503, content_type="text/plain", body=b"busy", retry_after_s=float(wait_s))
            case what.OldAnswer(back=back) if self.answers:
                return self.answers[-1 - back % len(self.answers)]
            case what.CutRequest(at=at, silent=silent):
                await self._ask(path, body, arrives=min(at, len(body) - 1))
                raise await self._dies(silent, deadline_s)
            case what.Earlier(back=back):
                await self.again(back)
        self.heard.append((path, body))
        first = await self._ask(path, body)
        answered = await self._ask(path, body) if isinstance(trouble, what.Twice) else first
        if trouble == what.Twice(second=False):
            answered = first
        if isinstance(trouble, what.Meanwhile):
            self.tap(trouble)
        await pause(ROUND_TRIP_MS / 2)
        if isinstance(trouble, what.CutAnswer):
            raise await self._dies(trouble.silent, deadline_s)
        reply = _reply(answered)
        if reply.status == 200:
            self.answers.append(reply)
        if isinstance(trouble, what.ShortAnswer):
            return HttpReply(status=reply.status, content_type=reply.content_type, body=reply.body[: trouble.at])
        return reply

    async def _ask(self, path: str, body: bytes, *, arrives: int | None = None) -> Answered:
        try:
            return await self.host.request("POST", path, body, arrives=arrives)
        except Unreachable as none:
            raise TransportError("broken", str(none)) from None

    async def again(self, back: int) -> None:
        """The `back`-th last request that arrived arrives once more, if there was any."""
        if not self.heard:
            return
        path, body = self.heard[-1 - back % len(self.heard)]
        with suppress(Unreachable):  # the server died of it: nobody waits for this answer
            await self.host.request("POST", path, body)

    @staticmethod
    async def _dies(silent: bool, deadline_s: float) -> TransportError:
        if not silent:
            return TransportError("broken", "connection reset")
        await pause(deadline_s * 1000)
        return TransportError("timeout", f"no complete answer within {deadline_s:.0f} s")


def _reply(answered: Answered) -> HttpReply:
    retry = answered.headers.get("retry-after", "")
    return HttpReply(
        status=answered.status,
        content_type=answered.headers.get("content-type", "").split(";")[0].strip().lower(),
        retry_after_s=float(retry) if retry.isdecimal() else None,
        body=answered.body,
        first_byte_ms=ROUND_TRIP_MS,
    )


class Handset(Victim):
    """One phone, its person, and their memory of what the screen showed. Has what the last checks ask of a `PhoneHost`.

    Attributes:
        shown: Every value whose tap returned, in order, by register and key.
        tried: Every value a finger came down for; of the newest it may be unknown whether it is in the log.
        undone: Those the person has taken back, or tried to.
        device: The running app; None while it is closed.
    """

    def __init__(
        self, lab: Lab, host: Host, disk: Disk, clock: PhoneClock, *, name: str, place: Place, key: SigningKey
    ) -> None:
        super().__init__(disk)
        self.lab, self.host, self.clock = lab, host, clock
        self.name = self.user_id = name
        self.place, self.school, self.key = place, place.school.id, key
        self.enrolment: Enrolment | None = None
        self.device: Device | None = None
        self.shown: dict[TapName, list[str]] = {}
        self.tried: dict[TapName, list[str]] = {}
        self.undone: set[tuple[TapName, str]] = set()
        self.heard: list[tuple[str, bytes]] = []
        self.answers: list[HttpReply] = []
        self.refused: str | None = None
        self.retired = self.copied = False
        self.timeline = SimpleNamespace(offset_s=0.0)
        self._starts = 0
        self.line = self._line(what.Nothing(), 0, settles=False)

    def _line(self, trouble: Trouble, number: int, *, settles: bool) -> Line:
        return Line(self.host, self.lab, trouble, number, settles, self.tap_meanwhile, self.heard, self.answers)

    async def post(self, path: str, body: bytes, *, content_type: str, deadline_s: float) -> HttpReply:
        """See `Network`: whatever the step says."""
        assert content_type == MEDIA_TYPE
        return await self.line.post(path, body, deadline_s)

    # ---- life ----

    def open(self, blow: Blow | None = None) -> Device | None:
        """Open the app where it is closed; None when it died of it, or could not read its storage."""
        if self.device is not None:
            return self.device
        self.is_struck = False
        self.aim(blow)
        self._starts += 1
        files = self.disk.files()
        try:
            device = Device(
                log=Log.open(LOG, at_ms=self.clock.wall_ms(), files=files, reached=self.reached),
                cache=Cache.open(CACHE, files=files),
                key=self.key,
                clock=self.clock,
                random=SeededRandom(hash_number(f"{self.name}|{self._starts}")),
                network=self,
                reached=self.reached,
            )
            if self.enrolment is not None:
                device.journal.adopt(self.enrolment)
        except (MachineDead, StoreError):
            self.die()
            return None
        finally:
            self.aim(None)
        self.device = device
        self.check_saved()
        return device

    def die(self) -> None:
        """The app is gone; its phone too if that was the blow."""
        with_power = self._blow is not None and self._blow.how.startswith("power")
        self.strike()
        self.device = None
        if with_power:
            self.clock.boot()

    def app(self) -> Device:
        """The running app."""
        while self.device is None:
            self.open()
        return self.device

    def run(self, act: Callable[[Device], None], blow: Blow | None) -> None:
        """A person's act, which `blow` may interrupt; one that cannot be saved is not done."""
        device = self.app()
        self.aim(blow)
        try:
            act(device)
        except MachineDead:
            self.die()
        except StoreError:
            pass  # the screen says so; what it showed as saved before is checked after the step
        finally:
            self.aim(None)

    # ---- acts ----

    def tap(self, device: Device, register: RegisterId, pupil: str, code: str) -> None:
        """One finger on one pupil."""
        captured_ms = device.journal.capture_ms(register, device.offsets())
        value = str(Mark(code=Code(code), captured_ms=captured_ms, reason=MINUTES_LATE if code == "L" else None))
        self._set_out(device, register, [(pupil, value)])
        device.journal.tap(register, [(pupil, value)])
        self.shown.setdefault((register.within_school, pupil), []).append(value)

    def tap_meanwhile(self, one: what.Meanwhile) -> None:
        """A tap while a request is under way; a disk that fails takes no tap, and the request goes on."""
        device = self.device
        assert device is not None
        register = device.register(one.class_id, self.place.dates[one.day], "day")
        with suppress(StoreError):
            self.tap(device, register, self.place.school.pupils[one.class_id][one.pupil], one.code)

    def seal(self, device: Device) -> None:
        """What was tapped becomes changes."""
        device.journal.seal()

    def undo(self, device: Device) -> None:
        """Take back the last unsealed tap of the first key that has one."""
        for name, register in device.state.registers.items():
            for key, taps in register.taps.items():
                if taps and (name, key) in self.shown:
                    self.undone.add(((name, key), taps[-1].value))  # before: a death leaves open whether it was
                    device.journal.tap(RegisterId.parse(f"{self.school}/{name}"), [(key, None)])
                    return

    def take(self, device: Device, register: RegisterId, wishes: Mapping[str, tuple[Code, str | None]]) -> None:
        """The whole class at once, as the page's big button does."""
        journal, inner = device.journal, device.journal.tap

        def watched(register: RegisterId, taps: Sequence[tuple[str, str | None]]) -> None:
            self._set_out(device, register, taps)
            inner(register, taps)
            for key, value in taps:
                if value is not None:
                    self.shown.setdefault((register.within_school, key), []).append(value)

        journal.tap = watched  # type: ignore[method-assign]
        try:
            take_register(device, register, wishes)
        finally:
            journal.tap = inner  # type: ignore[method-assign]

    def _set_out(self, device: Device, register: RegisterId, taps: Sequence[tuple[str, str | None]]) -> None:
        """A finger comes down: the mark may be in the log from here on. Keep what the phone holds now."""
        held = device.state.registers.get(register.within_school)
        seen = frozenset() if held is None else frozenset(one.change.hash for one in held.entries.values())
        for key, value in taps:
            if value is not None:
                self.tried.setdefault((register.within_school, key), []).append(value)
                self.lab.ledger.finger((str(register), key, value), self.user_id, self.name, self.lab.now_ms)
                self.lab.ledger.sees((str(register), key, value), seen)

    async def sync(self, trouble: Trouble, number: int, *, settles: bool) -> SyncReport | None:
        """One conversation under `trouble`; None when there was none, or the app did not live to its end."""
        device = self.app()
        self.line = self._line(trouble, number, settles=settles)
        self.aim(trouble if isinstance(trouble, Blow) and trouble.on == "phone" else None)
        try:
            report = await device.sync()
        except MachineDead:
            self.die()
            return None
        except StoreError:
            return None
        finally:
            self.aim(None)
            self.line = self._line(what.Nothing(), 0, settles=False)
        if isinstance(report.error, Problem):
            self._must_be_accepted(report.error)
        return report

    async def hand_in(self, file: bytes, trouble: Trouble) -> None:
        """Hand another phone's file to the server."""
        device = self.app()
        self.line = self._line(trouble, 0, settles=False)
        self.aim(trouble if isinstance(trouble, Blow) and trouble.on == "phone" else None)
        try:
            names = [frame_name(raw) for raw in read_bundle(file).frames]
            await device.call("bundle", [file], path=BUNDLES_PATH, frames=names)
        except MachineDead:
            self.die()
        except (StoreError, TransportError, FrameRefused):
            pass
        except Problem as problem:
            self._must_be_accepted(problem)
        finally:
            self.aim(None)
            self.line = self._line(what.Nothing(), 0, settles=False)

    def _must_be_accepted(self, problem: Problem) -> None:
        self.lab.ledger.check("I7", problem.code in ACCEPTED, f"{self.name}: honest, and told {problem.code}")

    # ---- what must hold ----

    def check_saved(self) -> None:
        """I1: every mark whose tap returned is a row of the log, as another connection reads it."""
        found: set[tuple[TapName, str | None]] = set()
        connection = self.disk.connect(LOG)
        for register, body in connection.execute("SELECT register, body FROM log WHERE kind = 'tap'").fetchall():
            key, value, _ = unpack(bytes(body), bytes_max=4_096)
            found.add(((register, key), value))
        connection.close()
        missing = [
            (name, value) for name, values in self.shown.items() for value in values if (name, value) not in found
        ]
        self.lab.ledger.check("I1", not missing, f"{self.name}: shown as saved and gone: {missing[:3]}")

    def check_shown(self) -> None:
        """I9: pending is never lower than the registers with a mark no receipt covers; "confirmed" is the server's."""
        device = self.device
        if device is None:
            return
        ledger, state = self.lab.ledger, device.state
        pending = state.pending_registers
        hidden = []
        for name, values in self.shown.items():
            standing = [value for value in values if (name, value) not in self.undone]
            if standing and name[0] not in pending:
                tried = self.tried[name]  # of several taps the last one is sealed: perhaps one that a death cut short
                last = tried[tried.index(standing[-1]) :]
                safe = any((f"{self.school}/{name[0]}", name[1], value) in ledger.safe_marks for value in last)
                hidden += [] if safe else [name]
        ledger.check("I9", not hidden, f"{self.name}: not pending, yet no receipt covers {hidden[:3]}")
        for name_, register in state.registers.items():
            if register.step is not Step.CONFIRMED:
                continue
            full = f"{self.school}/{name_}"
            unproved = [
                entry.change.hash.hex()[:12]
                for entry in register.entries.values()
                if entry.own and (full, entry.change.hash) not in ledger.confirmed
            ]
            ledger.check("I9", not unproved, f"{self.name}: {name_} shown as confirmed without {unproved[:3]}")
            untold = [entry for entry in register.entries.values() if entry.own and entry.settled != 1]
            ledger.check("I9", not untold, f"{self.name}: {name_} shown as confirmed, and nobody said so")
