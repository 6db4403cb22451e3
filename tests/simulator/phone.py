"""A phone of a simulated world: the real device core over a disk that can fail, in the hands of a teacher.

Its app is opened by its person or by nobody, talks to the server as the page does (after each act, at each start, again
after the back-off), and is killed, cut from its power, filled up, wiped, copied and set back by the seed.
"""

from __future__ import annotations

import asyncio
import copy
import random
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clientcore.bundles import frame_name, split_bundle
from clientcore.cache import Cache
from clientcore.device import BUNDLES_PATH, Device, SyncReport
from clientcore.errors import HudurError, Problem, StoreError, TransportError
from clientcore.frame import write_bundle
from clientcore.keys import SigningKey
from clientcore.limits import BACKOFF_CAP_S
from clientcore.log import Log, Row
from clientcore.ports import SeededRandom
from clientcore.register import RegisterId
from clientcore.states import Enrolment
from clientcore.take import Wish
from clientcore.taking import take_register
from tests.simulator.clock import PhoneClock, WorldClock
from tests.simulator.disk import Disk, MachineDead
from tests.simulator.lab import Lab
from tests.simulator.machine import Machine
from tests.simulator.network import PhoneNetwork
from tests.simulator.server import HOW, ServerHost
from tests.simulator.shown import TapName, check_pending, check_saved
from tests.support.quick import key_of
from tests.weaknet.timeline import Timeline

LOG, CACHE = Path("log.db"), Path("cache.db")
REOPEN_MS = 3_000
STORE_AGAIN_MS = 60_000
ENROL_AGAIN_MS = 120_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """A copy of a phone's storage at one instant, and what its person had been shown as saved by then."""

    disk: Disk
    shown: dict[TapName, list[str]]
    standing: dict[TapName, list[str]]
    enrolment: Enrolment | None
    key: SigningKey


class _Heard(Log):
    """The device's log; what it reads from the disk is kept, for I1."""

    def __init__(self, *args: Any, **ports: Any) -> None:
        """See `Log`."""
        super().__init__(*args, **ports)
        self.heard: list[Row] = []

    def read(self) -> list[Row]:
        """See `Log`."""
        rows = super().read()
        self.heard += rows
        return rows


class PhoneHost:
    """One phone, its person, and their memory of what the screen showed."""

    def __init__(
        self,
        lab: Lab,
        server: ServerHost,
        world: WorldClock,
        *,
        name: str,
        school: str,
        user_id: str,
        classes: Sequence[str],
        timeline: Timeline,
    ) -> None:
        self.lab, self.server, self.name = lab, server, name
        self.school, self.user_id, self.classes = school, user_id, tuple(classes)
        self.disk = Disk(name, lab.swarm.stream(f"disk.{name}"))
        self.clock = PhoneClock(world, int(timeline.offset_s * 1000), timeline.drift_ppm)
        self.network = PhoneNetwork(lab, server, timeline, name)
        self.timeline = timeline
        self.key = key_of(f"{lab.swarm.seed}|{name}")
        self.enrolment: Enrolment | None = None
        self.shown: dict[TapName, list[str]] = {}  # every mark whose tap returned
        self.standing: dict[TapName, list[str]] = {}  # without those taken back
        self.doubtful: set[tuple[TapName, str]] = set()  # taking them back failed: the disk may have it all the same
        self.device: Device | None = None
        self.reports: list[SyncReport] = []
        self.refused: str | None = None  # the last final refusal of a conversation
        self.copied = False  # two phones with one key are, or were, in use
        self.retired = False  # nobody uses this phone any more
        self.partner: PhoneHost | None = None  # the other person's profile on the same phone
        self.charged = asyncio.Event()
        self.charged.set()
        self._machine = Machine(name)
        self._keys = 0
        self._starts = 0
        self._wake = asyncio.Event()
        self._dead = asyncio.Event()
        self._open = asyncio.Event()
        self._keeper: asyncio.Task[None] | None = None
        self._stopping = False
        self.read_at_start: list[Row] = []
        self._wanted = asyncio.Event()
        self._talking = asyncio.Lock()

    # ---- life ----

    def switch_on(self) -> None:
        """The app is opened, and opened again after each death."""
        self._stopping = False
        self._keeper = asyncio.get_running_loop().create_task(self._keep())

    async def switch_off(self) -> None:
        """The app is closed for good."""
        self._stopping = True
        self._wanted.set()
        if not self._dead.is_set():
            self.disk.kill()
            self._dead.set()
        if self._keeper is not None:
            await self._keeper

    def die(self, why: str, *, power: bool | None = None) -> None:
        """The app is gone at once; by the seed the whole phone."""
        if self._dead.is_set():
            return
        swarm = self.lab.swarm
        if swarm.hits("phone.power", self.name) if power is None else power:
            how = swarm.stream(f"phone.power|{self.name}|how").choice(HOW)
            self.lab.faults["phone.write-lost"] += self.disk.cut_power(how)
            self.lab.fault("phone.power")
            self.clock.boot()
            power = True
        else:
            self.disk.kill()
        self.lab.fault("phone.death")
        self.lab.trace(self.name, f"died {why}")
        self.device = None
        self._open.clear()
        self._dead.set()
        if power and self.partner is not None:
            self.partner.die(why, power=True)

    def share(self, other: PhoneHost) -> None:
        """Both persons use one phone: its link, its clock, its battery. Each has a profile of their own."""
        self.network, self.clock, self.charged = other.network, other.clock, other.charged
        self.partner, other.partner = other, self

    async def _keep(self) -> None:
        while not self._stopping:
            self._dead.clear()
            self._wanted.clear()
            app = self._machine.spawn(self._app())
            dying = asyncio.ensure_future(self._dead.wait())
            await asyncio.wait({app, dying}, return_when=asyncio.FIRST_COMPLETED)
            dying.cancel()
            if app.done() and not app.cancelled():
                error = app.exception()
                if isinstance(error, MachineDead):
                    self.die("in the app")
                elif error is not None:
                    self.lab.ledger.check("I7", False, f"{self.name}: the app ended by {type(error).__name__}: {error}")
                    self.disk.kill()
            self.device = None
            self._open.clear()
            await self._machine.halt()
            if not self._stopping:
                await self.lab.sleep_ms(REOPEN_MS)
                await self._wanted.wait()  # it stays closed until its person opens it
                await self.charged.wait()

    async def _app(self) -> None:
        """One life of the app: open the log, then talk whenever there is a reason to."""
        while True:
            try:
                device = self.device = self._start()
                break
            except StoreError:
                self.disk.kill()  # this life of the app ends; what it had open is gone
                await self.lab.sleep_ms(STORE_AGAIN_MS)
        self.check_saved()
        self._talking = asyncio.Lock()  # whoever held the old one died with the app
        self._open.set()
        while True:
            self._wake.clear()
            try:
                wait_ms = await self._talk(device)
            except StoreError:
                wait_ms = STORE_AGAIN_MS
            self.check_pending()
            with suppress(TimeoutError):  # the back-off is over, or somebody has a reason
                async with asyncio.timeout(wait_ms / 1000 if wait_ms else None):
                    await self._wake.wait()
            await self.network.wait_for_link()

    def _start(self) -> Device:
        self._starts += 1
        files = self.disk.files()
        log = _Heard.open(LOG, at_ms=self.clock.wall_ms(), files=files, reached=self._reached)
        device = Device(
            log=log,
            cache=Cache.open(CACHE, files=files),
            key=self.key,
            clock=self.clock,
            random=SeededRandom(hash_number(f"{self.lab.swarm.seed}|{self.name}|{self._keys}|{self._starts}")),
            network=self.network,
            reached=self._reached,
        )
        assert isinstance(log, _Heard)
        self.read_at_start = log.heard
        log.heard = []
        if self.enrolment is None:
            self.enrolment = device.journal.state.enrolment  # it died behind the commit of its enrolment
        else:
            device.journal.adopt(self.enrolment)
        inner = device.journal.tap

        def watched(register: RegisterId, taps: Sequence[tuple[str, str | None]]) -> None:
            self._set_out(device, register, taps)
            waiting = device.state.registers.get(register.within_school)
            undone = [key for key, value in taps if value is None and waiting is not None and key in waiting.taps]
            try:
                inner(register, taps)
            except StoreError:
                names = [(register.within_school, key) for key in undone]
                self.doubtful |= {(name, self.standing[name][-1]) for name in names}
                raise
            for key, value in taps:
                if value is not None:
                    self.shown.setdefault((register.within_school, key), []).append(value)
                    self.standing.setdefault((register.within_school, key), []).append(value)
            for key in undone:
                self.standing[register.within_school, key].pop()

        device.journal.tap = watched  # type: ignore[method-assign]
        return device

    def _reached(self, point: str) -> None:
        self.lab.points[point] += 1
        if self.lab.swarm.hits("phone.kill_point", self.name):
            self.lab.fault(f"phone.{point}")
            self.die(f"at {point}")
            raise MachineDead(point)

    # ---- talking ----

    async def _talk(self, device: Device) -> int:
        """One conversation; returns how long to wait before the next one (ms), 0 for until there is a reason."""
        if device.journal.state.enrolment is None:
            return await self._enrol(device)
        if self.lab.chance("phone.kill_in_sync", self.name) < self.timeline.profile.device.kill_in_sync:
            self.lab.later(self._die_in_sync(self.lab.chance("phone.kill_in_sync.when", self.name)))
        async with self._talking:
            report = await device.sync()
        self.reports.append(report)
        self.lab.trace(self.name, f"sync {report.outcome} {report.error.code if report.error else ''}")
        if report.outcome == "refused":
            assert report.error is not None
            self.refused = report.error.code
            if self.refused == "unknown-device":  # the server was restored from before the enrolment
                return await self._enrol(device)
            return 0
        self.refused = None
        self._check_wait(report)
        return report.wait_ms

    async def _die_in_sync(self, when: float) -> None:
        """The system ends the app somewhere in a conversation."""
        await self.lab.sleep_ms(10_000 * when * when)
        if self._talking.locked():
            self.die("in a sync", power=False)

    def _check_wait(self, report: SyncReport) -> None:
        """The app comes back neither before the server wants it (L2) nor after the longest back-off (I8)."""
        asked = report.error.retry_after_s if isinstance(report.error, Problem) else None
        asked_ms = 1000 * (asked or 0)
        self.lab.ledger.check("L2", report.wait_ms >= asked_ms, f"{self.name}: waits {report.wait_ms} of {asked_ms} ms")
        self.lab.ledger.check(
            "I8", report.wait_ms <= max(BACKOFF_CAP_S * 1000, asked_ms), f"{self.name}: waits {report.wait_ms} ms"
        )

    async def _enrol(self, device: Device) -> int:
        try:
            made = await self.server.order("code", user=f"{self.school}/{self.user_id}")
        except ValueError:  # upstream says that this person is not employed any more
            self.retired = True
            return 0
        try:
            enrolled = await device.enrol(school=self.school, code=str(made["code"]), label=self.name)
        except (Problem, TransportError) as failed:
            self.lab.trace(self.name, f"enrol {failed.code}")
            return ENROL_AGAIN_MS
        self.enrolment = device.journal.state.enrolment
        self.lab.trace(self.name, "enrolled", enrolled.device)
        return 1

    async def enrolled(self) -> None:
        """Wait until the phone has an enrolment."""
        while self.enrolment is None:
            self.open()
            await self.lab.sleep_ms(1_000)

    def poke(self) -> None:
        """A reason to talk: the app was opened, an act was done."""
        self.open()
        self._wake.set()

    def open(self) -> None:
        """The person opens the app where it is closed; one that is open goes on with what it does."""
        self._wanted.set()

    # ---- acts ----

    async def take(self, register: str, wishes: Mapping[str, Wish]) -> bool:
        """Take a register; the person tries again while the phone refuses to save. Returns whether it was saved."""
        for _ in range(20):
            if self.retired:
                return False
            self.open()
            await self._open.wait()
            device = self.device
            if device is None:
                continue
            class_id, date, session = register.split("/")
            try:
                known = dict(device.cache.roster(class_id))
                if device.journal.state.enrolment is None or not known:
                    await self.lab.sleep_ms(120_000)
                    continue
                take_register(
                    device, device.register(class_id, date, session),
                    {pupil: wish for pupil, wish in wishes.items() if pupil in known},
                )  # fmt: skip
                self.lab.trace(self.name, f"took {register}")
                self.check_pending()
                self.poke()
                return True
            except StoreError:
                self.lab.trace(self.name, f"not saved {register}")
                await self.lab.sleep_ms(STORE_AGAIN_MS)
            except MachineDead:
                self.die(f"while taking {register}")
                await self.lab.sleep_ms(1_000)
        return False

    async def tap_by_hand(self, register: str, pupils: Sequence[str], source: random.Random) -> None:
        """Mark pupils one by one, as on the screen: taps wait unsealed, are corrected at once, or taken back."""
        for pupil in pupils:
            if self.retired or self.lab.calm:
                return
            self.open()
            await self._open.wait()
            device = self.device
            if device is None:
                continue
            try:
                if device.journal.state.enrolment is None:
                    return
                which = device.register(*register.split("/"))
                for code in source.choice((("P",), ("A",), ("A", "P"), ("L", "U"), ("P", None), ("E", "A", None))):
                    value = None if code is None else f"{code}{device.journal.capture_ms(which, device.offsets())}"
                    device.journal.tap(which, [(pupil, value)])
                    self.check_pending()
            except StoreError:
                self.lab.trace(self.name, f"not saved {register}")
            except MachineDead:
                self.die(f"while tapping {register}")
            if source.random() < 0.25:
                self.poke()
            await self.lab.sleep_ms(source.uniform(100, 20_000))
        self.poke()

    def run(self, act: Callable[[Device], None]) -> bool:
        """Do something on the open app at once; False when there is none, or it died of it."""
        if self.device is None:
            return False
        try:
            act(self.device)
        except MachineDead:
            self.die("in an act")
            return False
        except HudurError:
            return False
        return True

    async def hand_in(self, frames: Sequence[bytes]) -> None:
        """Hand another phone's frames to the server through this device; the champion tries for a day."""
        for _ in range(50):
            self.open()
            await self._open.wait()
            device = self.device
            if device is None or self.retired:
                return
            if self.enrolment is None:
                await self.lab.sleep_ms(600_000)
                continue
            carrying = self._machine.spawn(self._hand_in(device, frames))
            await asyncio.wait({carrying})
            error = None if carrying.cancelled() else carrying.exception()
            if isinstance(error, MachineDead):
                self.die("while handing a file in")
            elif not carrying.cancelled() and error is None:
                return
            elif error is not None and not isinstance(error, HudurError):
                raise error
            await self.lab.sleep_ms(1_800_000)

    async def _hand_in(self, device: Device, frames: Sequence[bytes]) -> None:
        async with self._talking:
            for group in split_bundle(frames):
                names = [frame_name(raw) for raw in group]
                await device.call("bundle", [write_bundle(group)], path=BUNDLES_PATH, frames=names)
        self.lab.trace(self.name, f"handed in {len(frames)}")

    def _set_out(self, device: Device, register: RegisterId, taps: Sequence[tuple[str, str | None]]) -> None:
        """A finger comes down: from here on the mark may be in the log, and counts as shown once the tap returned."""
        now_ms = self.lab.now_ms
        known = device.state.registers.get(register.within_school)
        seen = frozenset(entry.change.hash for entry in known.entries.values()) if known is not None else frozenset()
        for key, value in taps:
            if value is not None:
                self.lab.ledger.sees((str(register), key, value), seen)
        for key, value in taps:
            if value is not None:
                self.lab.ledger.finger((str(register), key, value), self.user_id, self.name, now_ms)

    # ---- what happens to storage ----

    def snapshot(self) -> Snapshot:
        """A copy of the storage as a backup tool takes it."""
        disk = self.disk.clone(f"{self.name}~", self.lab.swarm.stream(f"disk.{self.name}~{self._starts}"))
        shown, standing = copy.deepcopy((self.shown, self.standing))
        return Snapshot(disk=disk, shown=shown, standing=standing, enrolment=self.enrolment, key=self.key)

    def put_back(self, old: Snapshot) -> None:
        """An older copy replaces the storage; the app dies of it."""
        self.die("for an older copy", power=False)
        self._keys += 1
        self.disk = old.disk.clone(f"{self.name}{self._keys}", self.lab.swarm.stream(f"disk.{self.name}.{self._keys}"))
        self.shown, self.standing = copy.deepcopy((old.shown, old.standing))
        self.enrolment, self.key = old.enrolment, old.key

    def wipe(self) -> None:
        """Storage and key are lost; the person enrols the phone again."""
        self.die("by a wipe", power=False)
        self._keys += 1
        self.disk = Disk(f"{self.name}{self._keys}", self.lab.swarm.stream(f"disk.{self.name}.{self._keys}"))
        self.key = key_of(f"{self.lab.swarm.seed}|{self.name}|{self._keys}")
        self.shown, self.standing, self.enrolment = {}, {}, None

    # ---- invariants of the phone ----

    def check_saved(self) -> None:
        """I1: every mark shown as saved is in the log."""
        check_saved(self)

    def check_pending(self) -> None:
        """I9: pending is never too low, and "confirmed" is the server's word."""
        check_pending(self)


def hash_number(text: str) -> int:
    """A seed from a text."""
    return random.Random(text).getrandbits(63)
