"""While registers are put off a receipt goes out alone; news come with the ask that follows, and nothing is missed."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from clientcore.exchange import DUPLICATE, DURABLE, Verdict
from syncserver.admission import Lane
from syncserver.cursor import REBUILDS, Cursor
from tests.integration.test_device_server import check_carried_out, join, ordered, school, settle_and_sync
from tests.support.devices import absent
from tests.support.server.phone import Phone
from tests.support.server.world import PUPILS, TODAY, World, open_world

REGISTER = f"c-3a/{TODAY}/day"


def stand(world: World, lane: Lane = Lane.TODAY) -> None:
    """A lane stands until the test ends. Nobody waits in it, so everybody is let in all the same."""
    admission = world.server.entrance._admission
    admission.delays[lane].sheds, admission._look_ms = True, 1 << 60


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
    for count in (1, 2):
        assert await push(one) == (Verdict(DURABLE),)
        assert (one.payloads[-1].items, one.payloads[-1].more, one.cursor) == ((), False, before)
        assert f"hudur_pulls_postponed_total {count}.0".encode() in world.server.metrics.write()
    await world.settle()
    await one.sync()
    assert [item[0] for item in one.payloads[-1].items] == ["change", "settled", "settled"]
    assert one.cursor != before


@pytest.mark.parametrize("lane", [None, Lane.LATER])
async def test_nothing_waits_while_no_registers_are_put_off(world: World, lane: Lane | None) -> None:
    """At any load that the server carries news come with the receipt, also where asks without a register are put off:
    to send phones there for their news would make that queue longer.
    """
    one, _ = await told(world)
    if lane is not None:
        stand(world, lane)
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
    """A phone for which an order waits is told at once, and what follows in full: done is said of what was done."""
    async with school(tmp_path) as (world, line):
        phone, champion = await ordered(world, line, tmp_path, level)
        stand(world)
        phone.take(absent("s001"))
        assert (await phone.device.sync(confirm=False)).outcome == "ok"
        assert phone.device.state.directives
        await settle_and_sync(world, phone)
        await check_carried_out(phone, champion)
