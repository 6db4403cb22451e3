"""What goes wrong in a simulated world, day by day: with phones, with the server, and by people's hands."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import date as Date
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from clientcore.device import Device
from tests.simulator.phone import PhoneHost

if TYPE_CHECKING:
    from tests.simulator.world import World

ROLL_CALL_MIN = (7 * 60 + 50, 8 * 60 + 20)  # minutes after midnight
NEWS_MS = 60_000
CLOCK_JUMPS_S = (-86_400, -7_200, -3_600, -90, 90, 3_600, 7_200, 400_000)


@dataclass(slots=True)
class Troubles:
    """The troubles of one world; each is drawn from the swarm of its seed."""

    world: World
    _files: dict[str, list[bytes]] = field(default_factory=dict)

    # ---- what happens to phones ----

    def plan_storage(self, day: int) -> None:
        swarm = self.world.lab.swarm
        for phone in list(self.world.phones):
            if phone.retired:
                continue
            for kind, act in (
                ("phone.kill_io", self._kill_at_io),
                ("phone.eio", self._io_error),
                ("phone.full", self._full),
                ("phone.wipe", self.wipe),
                ("phone.clone", self._clone),
                ("phone.old_copy", self._old_copy),
                ("phone.clock", self._clock),
            ):
                for _ in range(swarm.times(kind, phone.name)):
                    low, high = ROLL_CALL_MIN if swarm.stream(f"{kind}|when").random() < 0.6 else (7 * 60, 20 * 60)
                    self.world.at(day, self.world.minute(kind, low, high), act(phone))

    async def _kill_at_io(self, phone: PhoneHost) -> None:
        phone.disk.arm(1 + self.world.lab.swarm.stream("phone.kill_io|at").randrange(60), "kill")

    async def _io_error(self, phone: PhoneHost) -> None:
        self.world.lab.fault("phone.eio")
        phone.disk.arm(1 + self.world.lab.swarm.stream("phone.eio|at").randrange(30), "eio")

    async def _full(self, phone: PhoneHost) -> None:
        self.world.lab.fault("phone.full")
        disk = phone.disk
        disk.free_bytes = self.world.lab.swarm.stream("phone.full|room").randrange(20_000)
        await self.world.lab.sleep_ms(600_000)
        disk.free_bytes = None

    async def wipe(self, phone: PhoneHost) -> None:
        self.world.lab.fault("phone.wipe")
        phone.wipe()

    async def _old_copy(self, phone: PhoneHost) -> None:
        old = self.world.snapshots.get(phone.name)
        if old is not None and phone.enrolment is not None:
            self.world.lab.fault("phone.old_copy")
            phone.put_back(old)
        self.world.snapshots[phone.name] = phone.snapshot()

    async def _clone(self, phone: PhoneHost) -> None:
        if phone.enrolment is None:
            return
        self.world.lab.fault("phone.clone")
        twin = PhoneHost(
            self.world.lab,
            self.world.host,
            self.world.clock,
            name=f"{phone.name}+{len(self.world.phones)}",
            school=phone.school,
            user_id=phone.user_id,
            classes=phone.classes,
            timeline=phone.timeline,
        )
        twin.key = phone.key
        twin.copied = phone.copied = True
        twin.put_back(phone.snapshot())
        twin.network.heard = self.world.mallory.hear
        twin.network.at_desk = phone.network.at_desk
        self.world.phones.append(twin)
        twin.switch_on()

    async def _clock(self, phone: PhoneHost) -> None:
        self.world.lab.fault("phone.clock")
        by_s = self.world.lab.swarm.stream("phone.clock|by").choice(
            (-86_400, -7_200, -3_600, -90, 90, 3_600, 7_200, 400_000)
        )
        phone.clock.jump(by_ms=by_s * 1000)

    # ---- what happens to the server ----

    def plan_server(self, day: int) -> None:
        swarm = self.world.lab.swarm
        for kind, act in (
            ("server.kill_io", self._server_kill_at_io),
            ("server.eio", self._server_io_error),
            ("server.full", self._server_full),
            ("server.restart", self.world.host.restart),
            ("server.clock", self._server_clock),
            ("server.restore", self._restore),
        ):
            for _ in range(swarm.times(kind)):
                low, high = ROLL_CALL_MIN if swarm.stream(f"{kind}|when").random() < 0.6 else (7 * 60, 20 * 60)
                self.world.at(day, self.world.minute(kind, low, high), act())

    async def _server_kill_at_io(self) -> None:
        self.world.host.disk.arm(1 + self.world.lab.swarm.stream("server.kill_io|at").randrange(60), "kill")

    async def _server_io_error(self) -> None:
        self.world.lab.fault("server.eio")
        self.world.host.disk.arm(1 + self.world.lab.swarm.stream("server.eio|at").randrange(40), "eio")

    async def _server_full(self) -> None:
        self.world.lab.fault("server.full")
        disk = self.world.host.disk
        disk.free_bytes = self.world.lab.swarm.stream("server.full|room").randrange(100_000)
        await self.world.lab.sleep_ms(900_000)
        disk.free_bytes = None

    async def _server_clock(self) -> None:
        self.world.lab.fault("server.clock")
        self.world.host.clock.skew_ms = self.world.lab.swarm.stream("server.clock|by").randrange(-30_000, 30_000)

    async def _restore(self) -> None:
        """The server's disk is gone; an older backup is put in place under a new epoch."""
        if not self.world.backups:
            self.world.backups.append(await self.world.host.backup())
            return
        self.world.lab.fault("server.restore")
        old = self.world.lab.swarm.stream("server.restore|which").choice(self.world.backups)
        await self.world.host.restore(old)
        self.world.backups.append(await self.world.host.backup())

    # ---- people ----

    def plan_people(self, day: int, date: Date) -> None:
        swarm = self.world.lab.swarm
        for kind, act in (
            ("people.order", self._order),
            ("people.calendar", lambda: self._calendar(date)),
            ("people.revoke", self._revoke),
            ("bad.change", lambda: self.world.mallory.send_change(date.isoformat())),
            ("bad.change", lambda: self.world.mallory.send_mixed(date.isoformat())),
            ("bad.change", lambda: self.world.mallory.equivocate(date.isoformat())),
            ("bad.replay", self.world.mallory.replay),
            ("bad.replay", self.world.mallory.twist),
            ("people.roster", lambda: self._upstream(date)),
            ("bad.bytes", self.world.mallory.spoil),
        ):
            for _ in range(swarm.times(kind)):
                self.world.at(day, self.world.minute(kind, 7 * 60, 20 * 60), act())
        for phone in list(self.world.phones):
            for _ in range(swarm.times("people.courier", phone.name)):
                delay_ms = swarm.stream("people.courier|delay").choice((0, 3_600_000, 86_400_000))
                self.world.at(day, self.world.minute("people.courier"), self.carry(phone, delay_ms))

    async def _order(self) -> None:
        source = self.world.lab.swarm.stream("people.order|which")
        level = source.choice(("nudge", "repull", "rebuild"))
        await self.world.host.order("resync", target=source.choice(self.world.schools).id, level=level, reason="sim")

    async def _calendar(self, date: Date) -> None:
        source = self.world.lab.swarm.stream("people.calendar|which")
        day = date - timedelta(days=source.randrange(3))
        school = source.choice([*(one.id for one in self.world.schools), "*"])
        is_open = source.random() < 0.5
        words: dict[str, Any] = {"date": day.isoformat(), "open": is_open, "reason": "sim", "reference": "sim"}
        if school == "*":
            await self.world.host.order("calendar", **words)
            return
        scope = f"g.{school}"  # nobody decides about one school; a governorate of one comes to the same
        for again in (True, False):
            await self.world.host.order("place", school=school, district="d", governorate=scope, reference="sim")
            try:
                await self.world.host.order("calendar", scope=scope, **words)
            except ValueError:
                if not again:
                    raise
                continue  # a restore in between has forgotten where the school lies
            return

    async def _upstream(self, date: Date) -> None:
        """Pupils leave (sometimes since days ago) and come back, teachers get classes and leave the service."""
        what = self.world.upstream.change(self.world.lab.swarm.stream("people.roster|what"), date)
        self.world.lab.trace("upstream", what)
        await self.world.host.order("roster-import", self.world.upstream.export(), allow_mass_ending=True)

    async def _revoke(self) -> None:
        source = self.world.lab.swarm.stream("people.revoke|which")
        waiting = [one for one in self.world.phones if one.device is not None and one.device.state.pending]
        phone = source.choice(waiting if waiting and source.random() < 0.6 else self.world.phones)
        if phone.enrolment is None:
            return
        device = phone.enrolment.device.hex()
        self.world.lab.fault("people.revoke")
        try:
            await self.world.host.order("revoke", device=device, reason="sim")
            if source.random() < 0.6:
                await self.world.lab.sleep_ms(source.uniform(600_000, 90_000_000))
                await self.world.host.order("revoke", device=device, reason="found again", undo=True)
        except ValueError:
            return  # a restore has made the server forget this device

    async def carry(self, phone: PhoneHost, delay_ms: float, *, old_copy: bool = False) -> None:
        """A phone's frames travel as a file to the champion, who hands them in; now and then it is last week's file."""
        files: list[bytes] = []

        def export(device: Device) -> None:
            files.extend(device.frames_to_carry())

        if phone.enrolment is None or not phone.run(export) or not files:
            return
        self.world.lab.fault("people.courier")
        earlier, self._files[phone.name] = self._files.get(phone.name), list(files)
        if old_copy and earlier is not None:
            files = earlier
        if self.world.lab.chance("people.courier.twice") < 0.3:
            files += files[:1]  # the same frame twice in one file
        await self.world.lab.sleep_while_faulty(delay_ms, NEWS_MS)
        await self.world.relays[phone.school].hand_in(files)
