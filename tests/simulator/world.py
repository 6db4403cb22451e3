"""A simulated term: schools, phones, a server, and everything that happens to them from the first day to the last.

Each day is planned from the seed and happens at its instants; acts overlap as they do in a school. At the end the
faults stop, everybody who can talk has two maximal back-offs to do so, and the last checks look at all that is left.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Coroutine
from dataclasses import dataclass, field
from datetime import date as Date
from datetime import datetime, time, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

from clientcore.limits import BACKOFF_CAP_S
from clientcore.register import Code
from clientcore.take import Wish
from syncserver.roster import import_zip
from syncserver.store.port import Database
from tests.simulator.clock import WorldClock
from tests.simulator.disk import Disk
from tests.simulator.final import Final
from tests.simulator.hostile import Mallory
from tests.simulator.lab import Lab
from tests.simulator.phone import PhoneHost, Snapshot
from tests.simulator.school import School, make_school
from tests.simulator.server import ServerHost
from tests.simulator.troubles import NEWS_MS, ROLL_CALL_MIN, Troubles
from tests.simulator.upstream import Upstream
from tests.simulator.watch import Reader, Watch
from tests.support.quick import key_of
from tests.weaknet.profile import Profile
from tests.weaknet.timeline import compile_timeline

SCHOOL_DAYS = frozenset((6, 0, 1, 2, 3))  # Sunday to Thursday, as `date.weekday` counts
CALM_MS = int(2 * BACKOFF_CAP_S * 1000) + 240_000  # I8: two maximal back-offs, a restart and a conversation


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """How large a world is. `teachers` per school, each with a phone and a class of `pupils`."""

    days: int = 7
    schools: int = 1
    teachers: int = 2
    pupils: int = 8


@dataclass(slots=True)
class World:
    """See the module."""

    lab: Lab
    profile: Profile
    size: Size
    folder: Path
    clock: WorldClock = field(init=False)
    host: ServerHost = field(init=False)
    watch: Watch = field(init=False)
    reader: Reader = field(init=False)
    mallory: Mallory = field(init=False)
    upstream: Upstream = field(init=False)
    troubles: Troubles = field(init=False)
    schools: list[School] = field(default_factory=list)
    phones: list[PhoneHost] = field(default_factory=list)
    relays: dict[str, PhoneHost] = field(default_factory=dict)
    backups: list[Disk] = field(default_factory=list)
    snapshots: dict[str, Snapshot] = field(default_factory=dict)
    school_days: int = 0
    registers: int = 0
    _dates: list[Date] = field(default_factory=list)
    _taken: list[tuple[str, str]] = field(default_factory=list)

    def __post_init__(self) -> None:
        zone = self._zone = ZoneInfo(self.profile.span.tz)
        first = self.profile.span.start
        self._dates = [first + timedelta(days=n) for n in range(self.size.days)]
        self._midnights = [
            int(datetime.combine(day, time(), zone).timestamp() * 1000)
            for day in [*self._dates, self._dates[-1] + timedelta(days=1)]
        ]
        self.clock = WorldClock(self.lab.loop, self._midnights[0])
        self.host = ServerHost(self.lab, clock=WorldClock(self.lab.loop, self._midnights[0]), folder=self.folder)
        self.watch = Watch(self.lab, self.host)
        self.watch.attach()
        self.reader = Reader(self.lab, self.host)
        self.schools = [
            make_school(n, teachers=self.size.teachers, pupils=self.size.pupils)
            for n in range(1, self.size.schools + 1)
        ]
        self.upstream = Upstream(self.schools)
        self.troubles = Troubles(self)
        self.mallory = Mallory(lab=self.lab, host=self.host, school=self.schools[0])
        self.lab.prepare_store = self._prepare
        self.lab.overloaded = self._overloaded

    _midnights: list[int] = field(default_factory=list)
    _zone: ZoneInfo = field(init=False)

    # ---- before the first day ----

    async def _prepare(self, db: Database) -> None:
        if await db.fetch_one("SELECT 1 FROM schools LIMIT 1") is not None:
            return
        await import_zip(
            db, self.upstream.export(), dry_run=False, now_ms=self._midnights[0], on=self._dates[0].isoformat(),
            actor="sim", allow_mass_ending=True,
        )  # fmt: skip
        async with db.transaction() as tx:
            rows = [("server_key", key_of(f"server|{self.lab.swarm.seed}").to_pem()), ("epoch", b"1")]
            await tx.executemany("INSERT INTO meta (name, value) VALUES (?, ?) ON CONFLICT (name) DO NOTHING", rows)

    def _add_phones(self) -> None:
        seed = self.lab.swarm.seed
        for school in self.schools:
            for at, user_id in enumerate([*school.teachers, school.champion]):
                is_relay = user_id == school.champion
                phone = PhoneHost(
                    self.lab,
                    self.host,
                    self.clock,
                    name=user_id,
                    school=school.id,
                    user_id=user_id,
                    classes=school.classes_of(user_id),
                    timeline=compile_timeline(self.profile, seed * 1_000 + len(self.phones), days=self.size.days),
                )
                phone.network.at_desk = True
                phone.network.heard = self.mallory.hear
                if self.profile.device.people > 1 and at % 2 and not is_relay:
                    phone.share(self.phones[-1])
                self.phones.append(phone)
                if is_relay:
                    self.relays[school.id] = phone

    async def _enrol_all(self) -> None:
        """Phones are enrolled at the champion's desk, where there is a network."""
        for phone in self.phones:
            phone.switch_on()
        for phone in self.phones:
            await phone.enrolled()
        for phone in self.phones:
            is_relay_without_link = not self.profile.links and phone in self.relays.values()
            phone.network.at_desk = is_relay_without_link

    # ---- the term ----

    async def run(self) -> None:
        """Everything, from the first enrolment to the last check."""
        async with asyncio.timeout((self.size.days + 2) * 86_400):  # a world that does not end is a finding
            await self._term()

    async def _term(self) -> None:
        self.host.switch_on()
        self._add_phones()
        await self._enrol_all()
        for number, day in enumerate(self._dates):
            await self._until(number, 6 * 60)
            self._plan_everyday(number)
            if day.weekday() in SCHOOL_DAYS:
                self.school_days += len(self.schools)
                self._plan_school_day(number, day)
            self.troubles.plan_storage(number)
            self.troubles.plan_server(number)
            self.troubles.plan_people(number, day)
            await self._until(number, 23 * 60)
        await self._finish()

    async def _until(self, day: int, minute: float) -> None:
        """Wait for an instant of local time; never goes back."""
        at_ms = self._midnights[day] - self._midnights[0] + int(minute * 60_000)
        await self.lab.sleep_ms(max(0, at_ms - self.lab.now_ms))

    def at(self, day: int, minute: float, work: Coroutine[Any, Any, Any]) -> None:
        """Plan something for an instant of local time."""

        async def wait() -> None:
            await self._until(day, minute)
            await work

        self.lab.later(wait())

    def minute(self, name: str, low: float = 6 * 60, high: float = 22 * 60) -> float:
        return self.lab.swarm.stream(f"when|{name}").uniform(low, high)

    # ---- taking registers ----

    def _plan_school_day(self, day: int, date: Date) -> None:
        source = self.lab.swarm.stream("plan")
        bell = source.uniform(*ROLL_CALL_MIN) if self.lab.swarm.hits("people.bell") else None
        for phone in [one for one in self.phones if one.classes and not one.retired]:
            own = phone.classes[0]
            register = f"{own}/{date.isoformat()}/day"
            if source.random() < 0.96:  # now and then nobody takes it: not taken must stay not taken
                self.registers += 1
                self._taken.append((phone.name, register))
                self.at(day, bell or source.uniform(*ROLL_CALL_MIN), self._take(phone, register))
            if self.lab.swarm.hits("people.hand", phone.name):
                self.at(day, source.uniform(7 * 60 + 45, 12 * 60), self._tap(phone, register))
            if self.lab.swarm.hits("people.correct", phone.name):
                self.at(day, source.uniform(9 * 60, 14 * 60), self._take(phone, register))
            if len(phone.classes) > 1 and self.lab.swarm.hits("people.two", phone.name):
                other = f"{phone.classes[1]}/{date.isoformat()}/day"
                self.at(day, bell or source.uniform(*ROLL_CALL_MIN), self._take(phone, other))
            if self._taken and self.lab.swarm.hits("people.late", phone.name):
                _, earlier = source.choice(self._taken)
                if earlier.split("/")[0] in phone.classes:
                    self.at(day, source.uniform(10 * 60, 15 * 60), self._take(phone, earlier))

    async def _take(self, phone: PhoneHost, register: str) -> None:
        source = self.lab.swarm.stream(f"wishes|{phone.name}")
        school = next(one for one in self.schools if one.id == phone.school)
        wishes: dict[str, Wish] = {}
        for pupil in school.pupils[register.split("/", maxsplit=1)[0]]:
            draw = source.random()
            if draw < 0.12:
                wishes[pupil] = (source.choice((Code.ABSENT, Code.ABSENT_EXCUSED, Code.ABSENT_UNEXCUSED)), None)
            elif draw < 0.2:
                wishes[pupil] = (Code.LATE, str(source.randrange(1, 40)))
        await phone.take(register, wishes)

    async def _tap(self, phone: PhoneHost, register: str) -> None:
        source = self.lab.swarm.stream(f"taps|{phone.name}")
        school = next(one for one in self.schools if one.id == phone.school)
        pupils = school.pupils[register.split("/", maxsplit=1)[0]]
        await phone.tap_by_hand(register, source.sample(pupils, min(4, len(pupils))), source)

    def _plan_everyday(self, day: int) -> None:
        """Each app is looked at now and then; what the profile plans for the device happens."""
        source = self.lab.swarm.stream("looks")
        for phone in self.phones:
            if phone.retired:
                continue
            if phone in self.relays.values() and source.random() < 0.6:
                continue  # the champion's computer is not looked at every day
            for minute in self._looks(phone, day, source):
                self.at(day, minute, self._look(phone))
            begin, end = (self._midnights[n] - self._midnights[0] for n in (day, day + 1))
            for event in phone.timeline.events:
                if begin <= event.at_ms < end:
                    self.at(day, (event.at_ms - begin) / 60_000, self._device_event(phone, event.kind, event.detail))
        self.at(day, self.minute("feed"), self.reader.read())

    def _looks(self, phone: PhoneHost, day: int, source: random.Random) -> list[float]:
        """When the person looks at the app: now and then, and where a link has hours, when they begin."""
        weekday = self._dates[day].weekday()
        looks = [source.uniform(7 * 60, 21 * 60)] if weekday in SCHOOL_DAYS or source.random() < 0.3 else []
        for link in phone.timeline.profile.links:
            for window in link.open or ():
                if window.days.hold(day, weekday):
                    looks += [window.from_min + source.uniform(0.2, min(5.0, window.to_min - window.from_min))]
        return looks

    def _overloaded(self) -> float:
        """How many times more arrives at the server now than it can answer, by the profile; 1.0 is no overload."""
        peer = self.profile.peer
        if peer is None or self.lab.calm:
            return 1.0
        now = datetime.fromtimestamp(self.clock.true_ms() / 1000, self._zone)
        minute, day = now.hour * 60 + now.minute, (now.date() - self._dates[0]).days
        during = (one for one in peer.during if one.days.hold(day, now.weekday()))
        return peer.overload if any(one.from_min <= minute < one.to_min for one in during) else 1.0

    async def _look(self, phone: PhoneHost) -> None:
        phone.poke()

    async def _device_event(self, phone: PhoneHost, kind: str, detail: Any) -> None:
        if self.lab.calm:
            return
        if kind == "kill":
            phone.die(kind, power=False)
        elif kind == "battery-off":
            phone.charged.clear()
            phone.die(kind, power=True)
        elif kind == "battery-on":
            phone.charged.set()
        elif kind == "handover" and phone.partner is not None:
            phone.die(kind, power=False)
            phone.partner.poke()
        elif kind == "clock-jump":
            self.lab.fault("phone.clock")
            to_s = detail.get("to_epoch_s")
            phone.clock.jump(by_ms=int(detail.get("by_s", 0) * 1000), to_ms=None if to_s is None else int(to_s * 1000))
        elif kind == "wipe":
            await self.troubles.wipe(phone)
        elif kind == "carry" and not detail.get("lost"):
            for _ in range(2 if detail.get("twice") else 1):
                await self.troubles.carry(phone, 0, old_copy=bool(detail.get("old_copy")))

    # ---- the end ----

    async def _finish(self) -> None:
        self.lab.stop_faults()
        for machine in (self.host.disk, *(phone.disk for phone in self.phones)):
            machine.disarm()
        self.host.clock.skew_ms = 0
        for phone in self.phones:
            phone.network.at_desk = True
            phone.charged.set()
            phone.open()
        await self.lab.sleep_ms(CALM_MS)
        await self.host.up()
        hostile = frozenset(self.mallory.made)
        final = Final(
            lab=self.lab,
            db=self.host.database,
            zone=self.host.config.zone,
            start_ms=self._midnights[0],
            hostile=hostile,
            told={},
        )
        for phone in self.phones:
            final.talked(phone)
        await self.lab.settle_strays()
        await self._release()
        for _ in range(2):  # news of one phone's changes may be what another one waits for
            self.lab.last_asked_ms = self.lab.now_ms
            for phone in self.phones:
                phone.poke()
            await self.lab.sleep_ms(NEWS_MS)
        await self.reader.read()
        await self.reader.read_again()
        self.lab.ledger.gone = self._gone()
        await self.host.up()
        final.told = self.reader.standing()
        final.db = self.host.database
        await final.look(self.phones)
        for phone in self.phones:
            await phone.switch_off()
        await self.host.switch_off()

    async def _release(self) -> None:
        """A revoked phone is told of no restore: what it alone holds comes back as a file, through the champion."""
        if not self.host.restores:
            return
        await self.host.up()
        missing = self.lab.ledger.promised.keys() - await self.watch.stored(self.host.database)
        for phone in self.phones:
            device = phone.device
            if phone.refused == "revoked" and device is not None:
                entries = device.state.entries.values()
                if missing & {(f"{phone.school}/{one.register}", one.change.hash) for one in entries if one.own}:
                    self.lab.trace(phone.name, "hands its file over")
                    relay = await self._relay(phone.school)
                    await relay.hand_in(device.frames_to_carry(everything=True))

    async def _relay(self, school: str) -> PhoneHost:
        """Somebody of the school whom the server still listens to; the champion is released where nobody is left."""
        for phone in self.phones:
            if phone.school == school and phone.refused is None and not phone.retired and phone.enrolment is not None:
                return phone
        champion = self.relays[school]
        if champion.enrolment is not None:
            await self.host.order("revoke", device=champion.enrolment.device.hex(), reason="sim", undo=True)
        champion.poke()
        await self.lab.sleep_ms(NEWS_MS)
        return champion

    def _gone(self) -> set[tuple[str, bytes]]:
        """Promises that a restore took back and that no phone can keep any more: it was wiped or set back."""
        held = {
            (f"{phone.school}/{entry.register}", entry.change.hash)
            for phone in self.phones
            if phone.device is not None and not phone.retired  # who is not employed any more may not enrol again
            for entry in phone.device.state.entries.values()
            if entry.own
        }
        return {name for name in self.lab.ledger.promised if name not in held} if self.host.restores else set()
