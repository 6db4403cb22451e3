"""Checking: requests of one round are checked together, and each hears of itself alone."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from clientcore.change import Change, parse
from clientcore.exchange import write_sync
from clientcore.frame import Frame, parse_frame
from clientcore.ports import ManualClock
from syncserver import checking
from syncserver.checking import Checker
from syncserver.config import Config
from syncserver.errors import RequestProblem
from syncserver.settle_helper import Helper
from syncserver.store.devices import DeviceBook, Identity
from tests.support.server.world import PUPILS, TODAY, World, open_world, sqlite_only

REGISTER = f"c-3a/{TODAY}/day"


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    """A server whose consumer stands still."""
    async with open_world(tmp_path / "store.db", background=False) as opened:
        yield opened


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Every frame that is read, every signature that is verified and every change that is parsed, in order."""
    seen: list[str] = []
    is_signed_by = Frame.is_signed_by

    def shaped(raw: bytes) -> Frame:
        seen.append("shape")
        return parse_frame(raw)

    def verified(frame: Frame, key: bytes) -> bool:
        seen.append("verify")
        return is_signed_by(frame, key)

    def parsed(chunk: bytes) -> Change:
        seen.append("parse")
        return parse(chunk)

    monkeypatch.setattr(checking, "parse_frame", shaped)
    monkeypatch.setattr(Frame, "is_signed_by", verified)
    monkeypatch.setattr(checking, "parse", parsed)
    return seen


def forged(raw: bytes) -> bytes:
    """The frame with another signature."""
    return raw[:-1] + bytes([raw[-1] ^ 1])


async def test_what_comes_in_one_round_is_verified_and_then_parsed(world: World, steps: list[str]) -> None:
    """All signatures, then all changes; more than 32 requests in lots, so that the event loop has its turn."""
    raws = await world.frames(REGISTER, 40)
    read = await asyncio.gather(*(world.server.checker.read(write_sync([raw])) for raw in raws))
    lots = [[step] * count for count in (32, 8) for step in ("shape", "verify", "parse")]
    assert steps == [step for lot in lots for step in lot]
    assert [arrivals[0].frame.raw for _, arrivals in read] == raws
    assert (
        len({entry.hash for _, arrivals in read for entry in arrivals[0].entries if not isinstance(entry, str)}) == 40
    )


async def test_others_have_their_turn_between_two_lots(world: World, steps: list[str]) -> None:
    """However many come at once, what became ready meanwhile does not wait for all of them."""
    raws = await world.frames(REGISTER, 70)
    reading = [asyncio.ensure_future(world.server.checker.read(write_sync([raw]))) for raw in raws]
    checked = []
    while not all(one.done() for one in reading):
        await asyncio.sleep(0)
        checked.append(steps.count("verify"))
    assert {32, 64, 70} <= set(checked)


async def test_what_is_wrong_with_one_is_told_to_it_alone(
    world: World, steps: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A forged signature, a fault of ours, one that went away: the others of their lot are read as ever."""
    raws = await world.frames(REGISTER, 6)
    raws[1] = forged(raws[1])
    counted, count = checking.parse, iter(range(100))  # type: ignore[attr-defined]  # the fixture's

    def faulty(chunk: bytes) -> Change:
        if next(count) == 1:
            raise ZeroDivisionError
        return counted(chunk)

    monkeypatch.setattr(checking, "parse", faulty)
    reading = [asyncio.ensure_future(world.server.checker.read(write_sync([raw]))) for raw in raws]
    gone = reading[4]
    await asyncio.sleep(0)  # all wait; nothing is checked yet
    assert steps == []
    gone.cancel()
    read = await asyncio.gather(*reading, return_exceptions=True)
    refused = read[1]
    assert isinstance(refused, RequestProblem)
    assert refused.code == "bad-signature"
    assert isinstance(read[2], ZeroDivisionError)
    assert isinstance(read[4], asyncio.CancelledError)
    assert [isinstance(read[at], tuple) for at in (0, 3, 5)] == [True, True, True]
    assert steps.count("verify") == 5  # whoever has gone costs nothing more


async def test_nothing_is_parsed_of_a_frame_that_is_not_authentic(world: World, steps: list[str]) -> None:
    """Its changes are bytes of anybody."""
    (raw,) = await world.frames(REGISTER, 1)
    with pytest.raises(RequestProblem):
        await world.server.checker.read(write_sync([forged(raw)]))
    assert steps == ["shape", "verify"]


async def test_who_does_not_settle_reads_the_same_and_keeps_nothing(world: World) -> None:
    """What is read of a change is remembered only where the settle stage asks for it in a moment."""
    raws = await world.frames(REGISTER, 3)
    phone = await world.phone()
    bad = phone.take(REGISTER, {"s001": "P"}).chunk
    raws.append(phone.frame([(REGISTER, bad[:-1] + bytes([bad[-1] ^ 1]))]).raw)
    kept = [await world.server.checker.read(write_sync([raw])) for raw in raws]
    assert kept[-1][1][0].entries == ("chunk-checksum",)
    parse.cache_clear()
    checker = Checker(world.server.config, DeviceBook(world.db), settles=False)
    assert [await checker.read(write_sync([raw])) for raw in raws] == kept
    assert parse.cache_info().currsize == 0


@pytest.mark.parametrize("consumes", [True, False])
async def test_a_server_remembers_what_it_will_settle(tmp_path: Path, consumes: bool) -> None:
    """And nothing else."""
    config = Config(store=tmp_path / "store.db", consumes=consumes)
    async with open_world(tmp_path / "store.db", background=False, config=config) as world:
        raws = await world.frames(REGISTER, 1)
        parse.cache_clear()
        await world.server.checker.read(write_sync(raws))
    assert parse.cache_info().currsize == consumes


@sqlite_only
async def test_a_server_with_a_helper_remembers_nothing(tmp_path: Path) -> None:
    """The helper reads for itself."""
    helper = Helper(tmp_path / "store.db", "Africa/Cairo", ManualClock())
    async with open_world(tmp_path / "store.db", background=False, helper=helper) as world:
        raws = await world.frames(REGISTER, 1)
        parse.cache_clear()
        await world.server.checker.read(write_sync(raws))
    assert parse.cache_info().currsize == 0


async def test_large_requests_make_small_lots(world: World, steps: list[str]) -> None:
    """However much they bring, the others have their turn after some 64 KB."""
    phone = await world.phone()
    chunk = phone.take(REGISTER, dict.fromkeys(PUPILS, "P")).chunk
    changes = [(REGISTER, chunk)] * (16_000 // (len(chunk) + 32))
    bodies = [write_sync([phone.frame(changes).raw for _ in range(8)]) for _ in range(2)]
    assert min(map(len, bodies)) > 65_536
    bodies.append(write_sync([phone.frame(changes[:1]).raw]))
    await world.server.checker.read(bodies[-1])  # the phone is known from now on
    steps.clear()
    await asyncio.gather(*map(world.server.checker.read, bodies))
    large = ["shape"] * 8 + ["verify"] * 8 + ["parse"] * 8 * len(changes)
    assert steps == [*large, *large, "shape", "verify", "parse"]


async def test_who_was_not_here_yet_is_read_from_the_store_and_the_others_go_on(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A lot never waits: whoever has to be looked up comes with a later one."""
    known, new = await world.frames(REGISTER, 1), await world.frames(REGISTER, 1)
    checker, there = Checker(world.server.config, DeviceBook(world.db), settles=False), asyncio.Event()
    await checker.read(write_sync(known))
    looked_up = DeviceBook.identity

    async def slowly(book: DeviceBook, device: bytes) -> Identity | None:
        await there.wait()
        return await looked_up(book, device)

    monkeypatch.setattr(DeviceBook, "identity", slowly)
    late = asyncio.ensure_future(checker.read(write_sync(new)))
    identity, _ = await checker.read(write_sync(known))
    assert not late.done()
    there.set()
    assert (await late)[0].device != identity.device
