"""While a lane is shed a receipt goes out alone; news come with the ask for the confirmation, and nothing is missed."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from clientcore.exchange import DUPLICATE, DURABLE, Verdict
from clientcore.wire import unpack
from syncserver.admission import Lane
from syncserver.cursor import REBUILDS, Cursor, lacks_news_alone
from tests.integration.test_device_server import join, school
from tests.support.devices import absent
from tests.support.server.phone import Phone
from tests.support.server.world import PUPILS, TODAY, World, open_world

REGISTER = f"c-3a/{TODAY}/day"


def stand(world: World) -> None:
    """A lane stands until the test ends. Nobody waits in it, so everybody is let in all the same."""
    admission = world.server.entrance._admission
    admission.delays[Lane.TODAY].sheds, admission._look_ms = True, 1 << 60


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    """A server whose consumer is moved by hand."""
    async with open_world(tmp_path / "store.db", background=False) as opened:
        yield opened


async def told(world: World) -> tuple[Phone, Phone]:
    """Two phones of one class; the first has not been told yet what the second marked."""
    one, two = await world.phone("t1", seed=1), await world.phone("t2", seed=2)
    await one.pull()
    await two.sync((REGISTER, two.take(REGISTER, dict.fromkeys(PUPILS, "P"))))
    await world.settle()
    return one, two


async def push(phone: Phone, have: bytes | None = None) -> tuple[Verdict, ...] | str:
    """The verdicts on one more register."""
    register = f"c-3b/2026-11-{phone.number % 20 + 1:02d}/day"
    answer = await phone.sync((register, phone.take(register, {"s001": "P"})), have=have)
    return answer.answer.receipts[0]


async def test_the_receipt_goes_out_alone_and_the_next_ask_brings_everything_from_where_it_was(world: World) -> None:
    """Durable at once; the cursor stays, and whoever asks without a register is told all, shed or not."""
    one, _ = await told(world)
    stand(world)
    before = one.cursor
    assert await push(one) == (Verdict(DURABLE),)
    assert (one.payloads[-1].items, one.payloads[-1].more, one.cursor) == ((), False, before)
    assert b"hudur_pulls_postponed_total 1.0" in world.server.metrics.write()
    await world.settle()
    await one.sync()
    assert [item[0] for item in one.payloads[-1].items] == ["change", "settled"]
    assert one.cursor != before


async def test_nothing_waits_while_nobody_is_shed(world: World) -> None:
    """At any load that the server carries, news come with the receipt."""
    one, _ = await told(world)
    await push(one)
    assert one.items("change")
    assert b"hudur_pulls_postponed_total 0.0" in world.server.metrics.write()


async def test_a_phone_that_will_not_come_back_for_a_confirmation_is_told_at_once(world: World) -> None:
    """Nothing new of it became durable: there is nothing that it would ask for again."""
    one, _ = await told(world)
    first = one.frame([(REGISTER, change := one.take(REGISTER, {"s001": "P"}).chunk)], ask=False)
    await one.send([first])
    stand(world)
    answer = await one.send([one.frame([(REGISTER, change)])])
    assert answer.answer.receipts == ((Verdict(DUPLICATE),),)
    assert one.items("change")


@pytest.mark.parametrize("case", ["from the beginning", "an offer", "rosters to come", "a rebuild", "another epoch"])
async def test_what_cannot_wait_is_told_with_the_receipt(world: World, case: str) -> None:
    """To these an answer without more would be the end of what they are in the middle of."""
    one, _ = await told(world)
    stand(world)
    assert one.cursor is not None
    epoch = world.server.meta.epoch
    cursors = {
        "from the beginning": None,
        "an offer": one.cursor,
        "rosters to come": Cursor(epoch=epoch, next_roster=1).to_bytes(),
        "a rebuild": Cursor(epoch=epoch, next_roster=0, notices=REBUILDS).to_bytes(),
        "another epoch": Cursor(epoch=epoch + 1, next_roster=0).to_bytes(),
    }
    one.cursor = cursors[case]
    assert await push(one, b"" if case == "an offer" else None) == (Verdict(DURABLE),)
    assert one.items("change")


def test_a_cursor_is_read_alike_in_whole_and_in_part() -> None:
    """Of every cursor a server writes, cut anywhere, and of noise: the part says what the whole says."""
    for roster, notices, epoch in [(0, 0, 7), (0, 3, 7), (3, 0, 7), (0, REBUILDS, 7), (0, 0, 8), (0, 0, 1_795_000_000)]:
        whole = Cursor(epoch=epoch, next_roster=roster, notices=notices, seq=300, archived=9).to_bytes()
        told = (roster, notices & REBUILDS, epoch) == (0, 0, 7)
        assert lacks_news_alone(whole, 7) == told
        for at in range(len(whole)):
            read = Cursor.read(whole[:at], 7)
            if read.next_roster == 0 and not read.notices & REBUILDS:
                assert lacks_news_alone(whole[:at], 7)
            assert told or not lacks_news_alone(whole[:at], 7)
    assert not lacks_news_alone(None, 7)
    assert not lacks_news_alone(b"", 7)
    assert not lacks_news_alone(b"\xff" * 30, 7)


async def test_a_device_is_told_of_others_within_the_same_sync(tmp_path: Path) -> None:
    """The real device asks for its confirmation three seconds later: then it has its receipt, and what others did."""
    async with school(tmp_path) as (world, line):
        one = await join(world, line, tmp_path / "one")
        other = await join(world, line, tmp_path / "other", user="t2", seed=2)
        other.take(session="am1")
        await other.sync()
        await world.settle()
        stand(world)
        one.take(absent("s001"))
        alone = await one.device.sync(confirm=False)
        assert (alone.outcome, alone.changes["durable"], alone.pulled, alone.requests) == ("ok", 1, 0, 1)
        one.take(absent("s001"), session="am2")
        report = await one.sync()
        assert (report.outcome, report.changes["durable"], report.pulled, report.requests) == ("ok", 1, 1, 2)
        await world.settle()
        await one.sync()
        assert one.steps() == {"confirmed": 2}


@pytest.mark.parametrize("level", ["nudge", "repull", "rebuild"])
async def test_a_resync_that_is_ordered_meanwhile_is_carried_out(tmp_path: Path, level: str) -> None:
    """The order comes with the confirmation's ask; what follows from it is told in full, and done is said of it."""
    async with school(tmp_path) as (world, line):
        phone = await join(world, line, tmp_path / "a")
        champion = await join(world, line, tmp_path / "ch", user="ch1", seed=2)
        phone.take(session="am1")
        await phone.sync()
        device = phone.device.journal.device
        await champion.device.call("resync", [device, level, "test"])
        stand(world)
        phone.take(absent("s001"))
        assert (await phone.sync()).outcome == "ok"
        await world.settle()
        assert (await phone.sync()).outcome == "ok"
        assert phone.steps() == {"confirmed": 2}
        assert phone.device.state.open_directives() == []
        devices = unpack(await champion.device.call("devices", []), bytes_max=1_000)
        [row] = [row for row in devices if row[0] == device]
        assert row[12][2] == "done"
