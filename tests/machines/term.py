"""The world of one example: a school, two teachers' phones, the champion's, and a server; time is virtual.

Every step is a coroutine run to its end. After it the machines that died are found and the invariants looked at; at the
end of the example the faults stop, everybody syncs, and `tests.simulator`'s last checks look at what is left.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Coroutine
from dataclasses import dataclass, field
from datetime import datetime, time, timedelta
from typing import Any, cast
from zoneinfo import ZoneInfo

from clientcore.frame import write_bundle
from clientcore.register import Code
from syncserver.store.port import Transaction
from syncserver.store.sqlite import SqliteDatabase
from tests.machines import troubles as what
from tests.machines.phone import Handset, Place
from tests.machines.server import STORE, Host
from tests.machines.troubles import Blow, How, Jump, Trouble
from tests.machines.victim import pause
from tests.simulator.clock import PhoneClock, WorldClock
from tests.simulator.disk import Disk
from tests.simulator.final import Final
from tests.simulator.lab import Lab
from tests.simulator.ledger import Ledger, Trace
from tests.simulator.loop import VirtualLoop
from tests.simulator.machine import tag_tasks
from tests.simulator.phone import PhoneHost
from tests.simulator.school import School
from tests.simulator.server import ServerHost
from tests.simulator.sqlite import AsyncConnector
from tests.simulator.swarm import Swarm
from tests.simulator.watch import Reader
from tests.support.quick import key_of
from tests.weaknet.profile import Profile

TEACHERS = ("t1", "t2")
CHAMPION = "ch"
PUPILS = 2
SCHOOL = School(
    id="s1",
    teachers=TEACHERS,
    champion=CHAMPION,
    classes={"c1": ("t1", "t2"), "c2": ("t2", "t1")},  # each may mark both
    pupils={class_id: tuple(f"{class_id}-p{n}" for n in range(PUPILS)) for class_id in ("c1", "c2")},
)
STEP_MS = 2_000
MORNING_MS = 28_200_000  # 07:50
CALM_ROUNDS_MAX = 8  # push; settle and tell; colleagues; their words; orders; the last one is quiet
_SCHOOL_DAYS = frozenset((6, 0, 1, 2, 3))  # Sunday to Thursday, as `date.weekday` counts


class BrokenInvariant(AssertionError):
    """What must always hold does not."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """A school whose phones are enrolled and know their rosters: what every example of a profile begins with."""

    place: Place
    start_ms: int
    server: Disk
    phones: dict[str, tuple[Disk, Any]]  # disk and enrolment


@dataclass(slots=True)
class Term:
    """See the module. Use `begin`."""

    profile: Profile
    place: Place
    start_ms: int
    loop: VirtualLoop = field(init=False)
    lab: Lab = field(init=False)
    clock: WorldClock = field(init=False)
    host: Host = field(init=False)
    phones: dict[str, Handset] = field(default_factory=dict)
    reader: Reader = field(init=False)
    backups: list[Disk] = field(default_factory=list)
    _restores: int = 0

    def __post_init__(self) -> None:
        logging.getLogger("hudur").setLevel(logging.CRITICAL + 1)  # failing disks are what this is about
        self.loop = VirtualLoop()
        self.loop.set_task_factory(tag_tasks)
        self.lab = Lab(loop=self.loop, swarm=Swarm.of(0, quiet=True), ledger=Ledger(), journal=Trace())
        self.clock = WorldClock(self.loop, self.start_ms)

    # ---- beginning ----

    @classmethod
    def prepare(cls, profile: Profile) -> Start:
        """Everybody enrols at the champion's desk; nothing goes wrong yet."""
        dates, start_ms = _two_school_days(profile)
        place = Place(school=SCHOOL, dates=dates)
        term = cls(profile, place, start_ms)
        try:
            term._people(Disk("server", random.Random("server")), {})
            term.loop.run_until_complete(term._enrol())
            term.check()
            disks = {name: (phone.disk, phone.enrolment) for name, phone in term.phones.items()}
            return Start(place=place, start_ms=start_ms, server=term.host.disk, phones=disks)
        finally:
            term.close()

    @classmethod
    def begin(cls, profile: Profile, start: Start) -> Term:
        """A school of its own, equal to `start`, at ten to eight."""
        place = Place(school=start.place.school, dates=start.place.dates)
        term = cls(profile, place, start.start_ms)
        term.loop.now_s = MORNING_MS / 1000
        term._people(start.server.clone("server", random.Random("server")), start.phones)
        term.run(term.host.up())
        term.run(term.backup())
        return term

    def _people(self, server: Disk, known: dict[str, tuple[Disk, Any]]) -> None:
        self.host = Host(self.lab, server, self.clock)
        self.reader = Reader(self.lab, cast(ServerHost, self.host))
        for name in (*TEACHERS, CHAMPION):
            source = random.Random(name)
            disk = known[name][0].clone(name, source) if name in known else Disk(name, source)
            phone = Handset(
                self.lab, self.host, disk, PhoneClock(self.clock), name=name, place=self.place, key=key_of(name)
            )
            phone.enrolment = known[name][1] if name in known else None
            self.phones[name] = phone

    async def _enrol(self) -> None:
        db = SqliteDatabase(STORE, connector=AsyncConnector(self.host.disk))
        await db.open()
        async with db.transaction() as tx:
            await _store_school(tx)
            rows = [("server_key", key_of("server").to_pem()), ("epoch", b"1")]
            await tx.executemany("INSERT INTO meta (name, value) VALUES (?, ?) ON CONFLICT (name) DO NOTHING", rows)
        await db.close()
        await self.host.up()
        for phone in self.phones.values():
            device = phone.app()
            code = await self.host.code(f"{phone.school}/{phone.user_id}")
            await device.enrol(school=phone.school, code=code, label=phone.name)
            phone.enrolment = device.state.enrolment
            await device.sync()
            phone.disk.kill()
        await self.host.stop()

    # ---- steps ----

    def run(self, work: Coroutine[Any, Any, Any]) -> Any:
        """One step; then what must hold is looked at.

        Raises:
            BrokenInvariant: it does not hold.
        """
        result = self.loop.run_until_complete(self._step(work))
        self.check()
        return result

    async def _step(self, work: Coroutine[Any, Any, Any]) -> Any:
        await pause(STEP_MS)
        result = await work
        self.host.aim(None)
        for phone in self.phones.values():
            if phone.device is not None:
                phone.check_saved()
                phone.check_shown()
        await self.host.check_log()
        return result

    def check(self) -> None:
        """Raise what the ledger has found broken, or what a task nobody waited for has raised."""
        for violation in self.lab.ledger.violations:
            raise BrokenInvariant(f"{violation.invariant}: {violation.detail}")
        for fault in self.loop.faults:
            raise fault

    async def tap(self, name: str, class_id: str, day: int, pupil: int, code: str, blow: Blow | None) -> None:
        """One finger."""
        phone, pupil_id = self.phones[name], self.place.school.pupils[class_id][pupil]
        phone.run(
            lambda app: phone.tap(app, app.register(class_id, self.place.dates[day], "day"), pupil_id, code), blow
        )

    async def take(self, name: str, class_id: str, day: int, absent: list[int], blow: Blow | None) -> None:
        """The whole class, and seal."""
        phone, pupils = self.phones[name], self.place.school.pupils[class_id]
        wishes = {pupils[at]: (Code.ABSENT, None) for at in absent}
        phone.run(lambda app: phone.take(app, app.register(class_id, self.place.dates[day], "day"), wishes), blow)

    async def act(self, name: str, act: str, blow: Blow | None) -> None:
        """Seal; or take back a tap."""
        phone = self.phones[name]
        phone.run(phone.undo if act == "undo" else phone.seal, blow)

    async def sync(self, names: list[str], trouble: Trouble, number: int, *, settles: bool) -> None:
        """Conversations at one time; the trouble is the first phone's (or the server's)."""
        await self.host.up()
        self.host.aim(trouble if isinstance(trouble, Blow) and trouble.on == "server" else None)
        talks = [
            self.phones[name].sync(trouble if name == names[0] else what.Nothing(), number, settles=settles)
            for name in names
        ]
        await asyncio.gather(*talks)

    async def settle(self, blow: Blow | None) -> None:
        """A round of the settle stage, perhaps its last."""
        await self.host.up()
        self.host.aim(blow)
        await self.host.settle()

    async def deliver_again(self, name: str, back: int) -> None:
        """An earlier request comes once more; its answer goes nowhere."""
        await self.host.up()
        await self.phones[name].line.again(back)

    async def restart_server(self, how: How, blow: Blow | None) -> None:
        """It dies without warning and is started again; the blow falls while it opens."""
        self.host.aim(Blow("server", "now", how))
        self.host.die()
        await self.host.start(blow)

    async def restart_phone(self, name: str, how: How, blow: Blow | None) -> None:
        """The app is swiped away or the battery dies, and the person opens it again; the blow falls while it opens."""
        phone = self.phones[name]
        phone.aim(Blow("phone", "now", how))
        phone.die()
        phone.open(blow)

    async def jump(self, name: str, jump: Jump) -> None:
        """Somebody or something sets the phone's clock."""
        self.lab.faults["phone.clock"] += 1
        to_ms = None if jump.to_epoch_s is None else int(jump.to_epoch_s * 1000)
        self.phones[name].clock.jump(by_ms=int((jump.by_s or 0) * 1000), to_ms=to_ms)

    async def export(self, name: str, *, everything: bool, blow: Blow | None) -> list[bytes]:
        """The frames for a file; none when there is nothing, or it came to nothing."""
        frames: list[bytes] = []
        self.phones[name].run(lambda app: frames.extend(app.frames_to_carry(everything=everything)), blow)
        return frames

    async def hand_in(self, file: bytes, trouble: Trouble) -> None:
        """The champion hands a file in."""
        await self.host.up()
        self.host.aim(trouble if isinstance(trouble, Blow) and trouble.on == "server" else None)
        await self.phones[CHAMPION].hand_in(file, trouble)

    async def carry(self, name: str, trouble: Trouble) -> None:
        """The courier takes a phone's file to the champion at once."""
        frames = await self.export(name, everything=False, blow=None)
        if frames:
            await self.hand_in(write_bundle(frames), trouble)

    async def backup(self) -> None:
        """A copy of the store while nothing is half done."""
        await self.host.up()
        self.backups.append(self.host.disk.clone("backup", random.Random(len(self.backups))))

    async def restore(self, back: int, *, whole_offer: bool) -> None:
        """The server's disk is lost; the `back`-th last backup takes its place; the oldest has no tap."""
        self._restores += 1
        backup = self.backups[-1 - back % len(self.backups)]
        disk = backup.clone(f"server{self._restores}", random.Random(self._restores))
        await self.host.restore(disk, whole_offer=whole_offer)
        self.lab.faults["server.restore"] += 1

    async def wait(self, wait_ms: int) -> None:
        """Time passes."""
        await pause(wait_ms)

    async def read(self) -> None:
        """A consumer of the feed reads what is new (I6)."""
        await self.host.up()
        await self.reader.read()

    # ---- the end ----

    async def calm(self) -> None:
        """Faults stop, everybody has a network and time: I4, I5, I6, I8, I10, I11, and every promise kept."""
        phones = list(self.phones.values())
        for _ in range(CALM_ROUNDS_MAX):
            if await self._everybody_syncs(phones):
                break
        else:
            self.lab.ledger.check("I8", False, f"no end of news after {CALM_ROUNDS_MAX} rounds")
        await self.read()
        await self.reader.read_again()
        final = Final(
            lab=self.lab,
            db=self.host.database,
            zone=self.host.config.zone,
            hostile=frozenset(),
            told=self.reader.standing(),
            start_ms=self.start_ms,
        )
        for phone in phones:
            final.talked(cast(PhoneHost, phone))
        await final.look(cast("list[PhoneHost]", phones))

    async def _everybody_syncs(self, phones: list[Handset]) -> bool:
        """One round; whether nobody had anything to say or to hear any more."""
        is_quiet = True
        for phone in phones:
            await self.host.up()
            report = await phone.sync(what.Nothing(), 0, settles=True)
            told = None if report is None or report.error is None else report.error.code
            self.lab.ledger.check("I8", report is not None and told is None, f"{phone.name}: faults off, yet {told}")
            await self.host.settle()
            await pause(STEP_MS)
            if report is not None:
                news = sum(report.changes.values()) + report.pulled + report.settled + report.wanted
                is_quiet = is_quiet and not news and report.requests == 1
        return is_quiet

    def close(self) -> None:
        """Nothing of this world goes on."""
        for phone in self.phones.values():
            phone.disk.kill()
        self.host.disk.kill()
        self.loop.run(asyncio.sleep(0))  # ends every task that is left, and closes the loop


def _two_school_days(profile: Profile) -> tuple[tuple[str, str], int]:
    """The first two school days of the span, and the first one's local midnight (UTC ms)."""
    days = [profile.span.start + timedelta(days=n) for n in range(7)]
    first, second = [day for day in days if day.weekday() in _SCHOOL_DAYS][:2]
    midnight = datetime.combine(first, time(), ZoneInfo(profile.span.tz))
    return (first.isoformat(), second.isoformat()), int(midnight.timestamp() * 1000)


async def _store_school(tx: Transaction) -> None:
    """What upstream has told of the school, long before its phones come."""
    people = [(one, "teacher") for one in TEACHERS] + [(CHAMPION, "champion")]
    people += [(pupil, "pupil") for pupils in SCHOOL.pupils.values() for pupil in pupils]
    members = [
        (class_id, user_id, role, place)
        for class_id in SCHOOL.classes
        for role, users in (("teacher", SCHOOL.classes[class_id]), ("pupil", SCHOOL.pupils[class_id]))
        for place, user_id in enumerate(users)
    ]
    await tx.execute("INSERT INTO schools VALUES (?, ?, ?, 1, 1, NULL)", (SCHOOL.id, "A school", "day"))
    await tx.executemany(
        "INSERT INTO users VALUES (?, ?, ?, ?, NULL, NULL, 1, NULL)",
        [(SCHOOL.id, one, one.upper(), role) for one, role in people],
    )
    await tx.executemany(
        "INSERT INTO classes VALUES (?, ?, ?, '3', 1, 1, NULL)",
        [(SCHOOL.id, class_id, class_id.upper()) for class_id in SCHOOL.classes],
    )
    await tx.executemany(
        "INSERT INTO members VALUES (?, ?, ?, ?, 1, '2020-09-01', NULL, ?, 1, NULL)",
        [(SCHOOL.id, class_id, user_id, role, place) for class_id, user_id, role, place in members],
    )
