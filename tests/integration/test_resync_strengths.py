"""Each strength of a forced resync on each kind of ailing device: what the champion sees, what the device does."""

from __future__ import annotations

import shutil
from collections import Counter
from pathlib import Path

import pytest

from clientcore.wire import unpack
from tests.integration.test_device_server import Line, join, school, settle_and_sync
from tests.support.devices import TODAY, Phone, absent, open_phone
from tests.support.server.world import World

LEVELS = ("nudge", "repull", "rebuild")
FIRST, SECOND, UNSENT = "am1", "am2", "am3"
STATE, DIRECTIVE = 11, 12


async def champions_list(champion: Phone) -> dict[bytes, list[object]]:
    """The rows of the page "المدرسة", by device."""
    return {row[0]: row for row in unpack(await champion.device.call("devices", []), bytes_max=1_000)}


async def order(champion: Phone, device: bytes, level: str) -> None:
    """What the champion presses, and that the list shows it waiting."""
    await champion.device.call("resync", [device, level, "no register since Tuesday"])
    directive = (await champions_list(champion))[device][DIRECTIVE]
    assert isinstance(directive, list)
    assert (directive[1], directive[2]) == (level, "waiting")


async def each_mark_once(world: World) -> Counter[str]:
    """How often each register's marks stand in the feed; nothing may be told twice."""
    events = await world.events()
    assert len({str(event["id"]) for event in events}) == len(events)
    registers: Counter[str] = Counter()
    for event in events:
        data = event["data"]
        assert isinstance(data, dict)
        registers[str(data["register"])] += 1
    return registers


async def carried_out(world: World, champion: Phone, phone: Phone, registers: int) -> None:
    """The device obeys at its next contact: nothing waits on it, each mark is there once, the champion sees it done."""
    assert (await phone.sync()).outcome == "ok"
    await settle_and_sync(world, phone)
    await settle_and_sync(world, phone)
    assert phone.device.state.pending == 0
    assert phone.device.state.open_directives() == []
    assert sorted((await each_mark_once(world)).values()) == [40] * registers
    directive = (await champions_list(champion))[phone.device.journal.device][DIRECTIVE]
    assert directive is None or directive[2] == "done"  # type: ignore[index]


async def staff(world: World, line: Line, tmp_path: Path) -> tuple[Phone, Phone]:
    """A teacher's device that has sent a register, and a champion's."""
    phone = await join(world, line, tmp_path / "phone")
    champion = await join(world, line, tmp_path / "champion", user="ch1", seed=2)
    phone.take(session=FIRST)
    await settle_and_sync(world, phone)
    await champion.sync()
    return phone, champion


@pytest.mark.parametrize("level", LEVELS)
async def test_a_device_that_forgot_what_it_was_told_fetches_it_again(tmp_path: Path, level: str) -> None:
    """Stale or lost cursor, somebody else's mark not seen, work unsent: all arrives, and the other's mark is there."""
    async with school(tmp_path) as (world, line):
        phone, champion = await staff(world, line, tmp_path)
        champion.take(absent("s003"), session=SECOND)
        await settle_and_sync(world, champion)
        phone.take(absent("s001"), session=UNSENT)
        device = phone.device.journal.device
        phone.close()
        (tmp_path / "phone" / "cache.db").unlink()  # cursor and names
        phone = open_phone(tmp_path / "phone", line, world.clock, seed=7)
        await order(champion, device, level)
        await carried_out(world, champion, phone, registers=3)
        seen = phone.device.state.registers[f"c-3a/{TODAY}/{SECOND}"].values()
        assert [value[0] for value in seen["s003"]] == ["A"]
        assert (await champions_list(champion))[device][STATE] == "ok"


@pytest.mark.parametrize("settled", [True, False], ids=["settled", "unsettled"])
@pytest.mark.parametrize("level", LEVELS)
async def test_a_device_restored_from_an_old_copy_says_so_and_loses_nothing(
    tmp_path: Path, level: str, settled: bool
) -> None:
    """Old copy with work unsent in it: told, flagged for the champion, own later work back, nothing double."""
    async with school(tmp_path) as (world, line):
        phone, champion = await staff(world, line, tmp_path)
        phone.close()
        shutil.copytree(tmp_path / "phone", tmp_path / "copy")
        phone = open_phone(tmp_path / "phone", line, world.clock, seed=7)
        phone.take(absent("s002"), session=SECOND)
        await phone.sync()
        if settled:  # else the consumer comes to the lost register only after the rebuild
            await world.settle()
        device = phone.device.journal.device
        phone.close()
        shutil.rmtree(tmp_path / "phone")
        shutil.copytree(tmp_path / "copy", tmp_path / "phone")
        phone = open_phone(tmp_path / "phone", line, world.clock, seed=8)
        phone.take(absent("s001"), session=UNSENT)
        await order(champion, device, level)
        await carried_out(world, champion, phone, registers=3)
        assert "restored-copy" in phone.slugs()
        assert (await champions_list(champion))[device][STATE] == "restored-copy"
        back = phone.device.state.registers[f"c-3a/{TODAY}/{SECOND}"].values()
        assert [value[0] for value in back["s002"]] == ["A"]


@pytest.mark.parametrize("level", LEVELS)
async def test_a_wiped_device_is_recognised_and_gets_back_what_the_server_has(tmp_path: Path, level: str) -> None:
    """The phone comes back empty and enrols anew: the old one is shown as wiped, its registers return, work goes on."""
    async with school(tmp_path) as (world, line):
        phone, champion = await staff(world, line, tmp_path)
        wiped = phone.device.journal.device
        phone.close()
        shutil.rmtree(tmp_path / "phone")
        phone = await join(world, line, tmp_path / "phone", seed=9)
        device = phone.device.journal.device
        assert device != wiped
        assert "wiped-phone" in phone.slugs()
        phone.take(absent("s001"), session=UNSENT)
        await order(champion, device, level)
        await carried_out(world, champion, phone, registers=2)
        rows = await champions_list(champion)
        assert (rows[wiped][STATE], rows[device][STATE]) == ("wiped-phone", "ok")
        back = phone.device.state.registers[f"c-3a/{TODAY}/{FIRST}"].values()
        assert len([values for key, values in back.items() if not key.startswith("~")]) == 40
