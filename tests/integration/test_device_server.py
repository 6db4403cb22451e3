"""The real device and the real server, in one process over ASGI: nothing between them is simulated but the clock."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest

from clientcore.bundles import frame_name, read_result, rescue
from clientcore.device import BUNDLES_PATH, Device
from clientcore.errors import Problem, TransportError
from clientcore.frame import write_bundle
from clientcore.http import HttpNetwork
from clientcore.log import read_foreign
from clientcore.ports import HttpReply
from clientcore.wire import unpack
from syncserver.app import create_app
from syncserver.enrol import make_code
from tests.support.devices import TODAY, Phone, absent, open_phone
from tests.support.server.world import PUPILS, SCHOOL, World, open_world

REGISTER = f"{SCHOOL}/c-3a/{TODAY}/day"


class Line:
    """The way to the server; `cut` = "before" or "after" loses a request or its answer."""

    def __init__(self, world: World) -> None:
        transport = httpx.ASGITransport(app=create_app(world.server))
        self._network = HttpNetwork("http://hudur.test", world.clock, transport=transport)
        self.cut: str | None = None
        self.sent: list[bytes] = []

    async def post(self, path: str, body: bytes, *, content_type: str, deadline_s: float) -> HttpReply:
        self.sent.append(body)
        if self.cut == "before":
            raise TransportError("offline", "cut")
        reply = await self._network.post(path, body, content_type=content_type, deadline_s=deadline_s)
        if self.cut == "after":
            raise TransportError("timeout", "cut")
        return reply

    async def close(self) -> None:
        await self._network.close()


@asynccontextmanager
async def school(tmp_path: Path) -> AsyncIterator[tuple[World, Line]]:
    async with open_world(tmp_path / "store.db", background=False) as world:
        line = Line(world)
        yield world, line
        await line.close()


async def join(world: World, line: Line, home: Path, *, user: str = "t1", seed: int = 1) -> Phone:
    code, _ = await make_code(world.db, world.server.ports, school=SCHOOL, user_id=user, made_by="operator")
    phone = open_phone(home, line, world.clock, seed=seed)
    await phone.device.enrol(school=SCHOOL, code=code, label=home.name)
    return phone


async def settle_and_sync(world: World, phone: Phone) -> None:
    await world.settle()
    assert (await phone.sync()).outcome == "ok"


async def outcome(world: World) -> dict[str, str]:
    """The last word of the events feed on every pupil of the register."""
    found: dict[str, str] = {}
    for event in await world.events():
        data = event["data"]
        assert isinstance(data, dict)
        assert isinstance(data["code"], str)
        found[str(data["pupil"])] = data["code"]
    return found


async def test_a_register_of_forty_becomes_forty_events_once(tmp_path: Path) -> None:
    """Take offline, lose the answer, resend: forty events, one change, confirmed on the device."""
    async with school(tmp_path) as (world, line):
        phone = await join(world, line, tmp_path / "a")
        line.cut = "before"
        phone.take(absent(*PUPILS[:3]))
        assert (await phone.sync()).outcome == "no-answer"
        line.cut = "after"
        assert (await phone.sync()).outcome == "no-answer"
        assert len(set(line.sent[1:])) == 1
        assert phone.steps() == {"saved": 1}
        line.cut = None
        report = await phone.sync()
        assert report.changes["duplicate"] == 1
        assert phone.steps() == {"sent": 1}
        await settle_and_sync(world, phone)
        assert phone.steps() == {"confirmed": 1}
        events = await world.events()
        assert len(events) == 40
        assert sorted((await outcome(world)).values()).count("absent") == 3
        await settle_and_sync(world, phone)
        assert len(await world.events()) == 40


@pytest.mark.parametrize("first", ["a", "b"])
async def test_two_devices_disagree_and_the_order_of_their_syncs_does_not_matter(tmp_path: Path, first: str) -> None:
    """Both values are kept on both devices, whoever came first, and neither outcome says absent for the seen pupil."""
    async with school(tmp_path) as (world, line):
        phones = {
            "a": await join(world, line, tmp_path / "a", user="t1", seed=1),
            "b": await join(world, line, tmp_path / "b", user="t2", seed=2),
        }
        phones["a"].take(absent("s001"))
        phones["b"].take(absent("s002"))
        order = [phones[first], phones["b" if first == "a" else "a"]]
        for phone in [*order, *order]:
            assert (await phone.sync()).outcome == "ok"
            await world.settle()
        for phone in order:
            await phone.sync()
            assert phone.steps() == {"needs_review": 1}
            values = phone.device.state.registers[f"c-3a/{TODAY}/day"].values()
            assert sorted(value[0] for value in values["s001"]) == ["A", "P"]
            assert sorted(value[0] for value in values["s002"]) == ["A", "P"]
        told = await outcome(world)
        assert (told["s001"], told["s002"]) == ("present", "present")
        phones["a"].take(absent("s001"))  # having seen both, one of them decides
        await phones["a"].sync()
        await world.settle()
        for phone in order:
            await phone.sync()
            assert phone.steps() == {"confirmed": 1}
        told = await outcome(world)
        assert (told["s001"], told["s002"]) == ("absent", "present")


async def test_a_restored_old_copy_loses_nothing_and_doubles_nothing(tmp_path: Path) -> None:
    """Copy, go on, put the copy back: the real server tells, the device rebuilds; every mark arrives once."""
    async with school(tmp_path) as (world, line):
        home = tmp_path / "a"
        phone = await join(world, line, home)
        phone.take(absent("s001"), session="am1")
        phone.close()
        shutil.copytree(home, tmp_path / "copy")
        phone = open_phone(home, line, world.clock, seed=2)
        phone.take(absent("s002"), date="2026-11-22")
        await phone.sync()
        await world.settle()
        phone.close()
        shutil.rmtree(home)
        shutil.copytree(tmp_path / "copy", home)
        phone = open_phone(home, line, world.clock, seed=3)
        assert (await phone.sync()).outcome == "ok"
        await settle_and_sync(world, phone)
        assert "restored-copy" in phone.slugs()
        assert phone.device.state.pending == 0
        lost = phone.device.state.registers["c-3a/2026-11-22/day"].values()  # only the server had it any more
        assert [value[0] for value in lost["s002"]] == ["A"]
        assert len(await world.events()) == 80
        await settle_and_sync(world, phone)
        assert len(await world.events()) == 80


async def ordered(world: World, line: Line, folder: Path, level: str) -> tuple[Phone, Phone]:
    """A phone that has sent a register, and its champion, who has ordered a resync of it."""
    phone = await join(world, line, folder / "a")
    champion = await join(world, line, folder / "ch", user="ch1", seed=2)
    phone.take(session="am1")
    await phone.sync()
    await champion.sync()
    await champion.device.call("resync", [phone.device.journal.device, level, "test"])
    return phone, champion


async def check_carried_out(phone: Phone, champion: Phone) -> None:
    """Two registers are confirmed, no order is open, and the champion's list shows it done."""
    assert phone.steps() == {"confirmed": 2}
    assert phone.device.state.open_directives() == []
    devices = unpack(await champion.device.call("devices", []), bytes_max=1_000)
    [row] = [row for row in devices if row[0] == phone.device.journal.device]
    assert row[12][2] == "done"


@pytest.mark.parametrize("level", ["nudge", "repull", "rebuild"])
async def test_the_champions_resync_is_carried_out_and_unsent_work_arrives(tmp_path: Path, level: str) -> None:
    """The champion orders, the device with unsent work obeys, and the champion's list shows it done."""
    async with school(tmp_path) as (world, line):
        phone, champion = await ordered(world, line, tmp_path, level)
        phone.take(absent("s001"))
        assert (await phone.sync()).outcome == "ok"
        await settle_and_sync(world, phone)
        await check_carried_out(phone, champion)
        assert len(await world.events()) == 80


async def test_a_bundle_a_log_and_http_together_have_one_effect(tmp_path: Path) -> None:
    """The same frame by the champion's bundle, by the rescued log, and by the phone itself: forty events."""
    async with school(tmp_path) as (world, line):
        phone = await join(world, line, tmp_path / "a")
        champion = await join(world, line, tmp_path / "ch", user="ch1", seed=2)
        phone.take(absent("s001"))
        frames = phone.device.frames_to_carry()
        results = [read_result(await hand_in(champion.device, frames)) for _ in range(2)]
        assert [(result.durable, result.duplicate) for result in results] == [(1, 0), (0, 1)]
        found = rescue(read_foreign(tmp_path / "a" / "log.db"), champion.device.journal.enrolment)
        assert list(found.frames) == frames
        assert read_result(await hand_in(champion.device, list(found.frames))).duplicate == 1
        assert (await phone.sync()).changes["duplicate"] == 1
        await settle_and_sync(world, phone)
        assert phone.steps() == {"confirmed": 1}
        assert len(await world.events()) == 40


async def hand_in(device: Device, frames: list[bytes]) -> bytes:
    names = [frame_name(raw) for raw in frames]
    return await device.call("bundle", [write_bundle(frames)], path=BUNDLES_PATH, frames=names)


async def test_a_wrong_code_is_a_problem_with_a_name(tmp_path: Path) -> None:
    """The server's refusal reaches the caller as a typed problem, and the home stays usable."""
    async with school(tmp_path) as (world, line):
        phone = open_phone(tmp_path / "a", line, world.clock)
        with pytest.raises(Problem) as refused:
            await phone.device.enrol(school=SCHOOL, code="BCDFGHJKLM", label="x")
        assert (refused.value.code, refused.value.status) == ("bad-code", 401)
        phone.close()
        assert (await (await join(world, line, tmp_path / "a")).sync()).outcome == "ok"


async def test_a_clock_in_1970_costs_nothing(tmp_path: Path) -> None:
    """The device's wall clock is wrong by 56 years: the register is taken, sent, and the marks are kept."""
    async with school(tmp_path) as (world, line):
        phone = await join(world, line, tmp_path / "a")
        now_ms = world.clock.now_ms
        world.clock.set_wall_ms(0)
        phone.take(absent("s001"))
        world.clock.set_wall_ms(now_ms)
        assert (await phone.sync()).changes["durable"] == 1
        await settle_and_sync(world, phone)
        assert phone.steps() in ({"confirmed": 1}, {"needs_review": 1})
        assert len(phone.device.state.registers[f"c-3a/{TODAY}/day"].values()) == 41


async def test_a_tap_before_a_second_enrolment_does_not_hide_what_the_enrolment_brings(tmp_path: Path) -> None:
    """A phone must enrol again while a tap waits unsealed, and the answer brings a colleague's mark of the
    same pupil: neither had seen the other, so both stand (found by the simulator).
    """
    async with school(tmp_path) as (world, line):
        mine = await join(world, line, tmp_path / "t1", user="t1", seed=1)
        theirs = await join(world, line, tmp_path / "t2", user="t2", seed=2)
        register = mine.register()
        value = f"P{mine.device.journal.capture_ms(register, mine.device.offsets())}"
        mine.device.journal.tap(register, [("s001", value)])
        theirs.take(absent("s001"))
        await settle_and_sync(world, theirs)
        await world.settle()
        code, _ = await make_code(world.db, world.server.ports, school=SCHOOL, user_id="t1", made_by="operator")
        await mine.device.enrol(school=SCHOOL, code=code, label="t1")
        await settle_and_sync(world, mine)
        codes = {found[0] for found in mine.device.state.registers[register.within_school].values()["s001"]}
        assert codes == {"P", "A"}
