"""The disk fails or fills up: nothing is acknowledged meanwhile, nothing acknowledged is lost, work goes on after."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path

import pytest

from clientcore.errors import StoreError
from clientcore.exchange import write_sync
from clientcore.journal import Journal
from clientcore.log import Log
from clientcore.ports import ManualClock, SeededRandom
from clientcore.register import RegisterId
from syncserver.store.sqlite import open_sqlite
from tests.power.errors import NEVER, FailingRun
from tests.power.runs import LOG, STORE, enrolment_of
from tests.simulator.disk import Disk
from tests.simulator.medium import HOWS
from tests.simulator.sqlite import AsyncConnector
from tests.support.quick import key_of
from tests.support.server.world import PUPILS, TODAY, open_world

SHARES = 4  # the failing syncs are dealt to this many tests


async def run_of(run: FailingRun) -> tuple[FailingRun, Disk]:
    return run, await run.go()


@pytest.mark.parametrize("share", range(SHARES))
async def test_after_a_failed_sync_nothing_is_acknowledged_until_reopened_and_verified(
    share: int, tmp_path: Path
) -> None:
    """Every sync of a run fails once: pushes' commits, settling's, checkpoints'. What it should have written is
    gone with the next power cut, and still every acknowledged change and every event that was read is there.
    """
    whole, _ = await run_of(FailingRun())
    assert whole.syncs > 40
    assert whole.notes == ["acknowledged"] * whole.pushes
    places = set()
    for at in range(1 + share, whole.syncs + 1, SHARES):
        run, disk = await run_of(FailingRun(at_sync=at))
        assert disk.faults["fsync-eio"] == 1
        after = run.notes[run.notes.index("failed") + 1 :]
        if {"refused", "settling waits", "verified"} & set(after):  # somebody's commit failed with it
            until = after.index("verified")
            assert "acknowledged" not in after[:until]
        assert run.notes.count("acknowledged") == run.pushes
        places.add(run.where)
        for how in HOWS:
            run.store.check(disk.image(how, random.Random(f"{at}|{how}")), tmp_path)
    assert places <= {STORE, f"{STORE}-wal"}
    assert f"{STORE}-wal" in places


async def test_a_store_whose_making_fails_can_be_made_by_the_next_start(tmp_path: Path) -> None:
    """A sync that fails while the store is made: the server does not start, and the next start finds no ruin."""
    for at in range(1, 8):
        run, disk = await run_of(FailingRun(at_opening_sync=at, pushes=2))
        assert run.notes[:2] == ["failed", "restarted"]
        assert run.notes.count("acknowledged") == run.pushes
        for how in HOWS:
            run.store.check(disk.image(how, random.Random(at)), tmp_path)


async def test_a_full_disk_answers_503_and_loses_nothing(tmp_path: Path) -> None:
    """No space on the server: a problem that says so, nothing acknowledged; with space the same bytes are taken."""
    disk = Disk("full", random.Random(5))
    run = FailingRun(at_sync=NEVER).store
    async with open_world(
        Path(STORE), db=await open_sqlite(Path(STORE), AsyncConnector(disk)), background=False
    ) as world:
        phone = await world.phone()
        bodies = []
        disk.free_bytes = 60_000
        for number in range(40):
            world.clock.advance(1_000)
            name = f"c-3a/{TODAY}/am{number % 8 + 1}"
            change = phone.take(name, {PUPILS[number]: "A"}, session=number.to_bytes(8, "big"))
            run.sent[change.hash] = change.chunk
            frame = phone.frame([(name, change.chunk)], ask=False)
            if not await run.push(phone, [frame], change):
                bodies.append((frame, change))
        assert bodies
        assert run.durable
        assert set(run.statuses) == {200, 503}
        reply = await phone.post("/v1/sync", write_sync([bodies[0][0].raw]))
        assert reply.json()["type"] == "/problems/storage"
        assert int(reply.headers["retry-after"]) > 0
        for how in HOWS:
            run.check(disk.image(how, random.Random(how)), tmp_path)
        disk.free_bytes = None
        await asyncio.wait_for(world.server.intake.idle(), 10)
        for frame, change in bodies:
            world.clock.advance(1_000)
            assert await run.push(phone, [frame], change)
        assert len(run.durable) == 40
    run.check(disk.image("none", random.Random(1)), tmp_path)


def open_journal(disk: Disk, seed: int) -> tuple[Log, Journal]:
    log = Log.open(LOG, files=disk.files())
    return log, Journal(log, key=key_of("device"), clock=ManualClock(), random=SeededRandom(seed), app="test")


def values(journal: Journal, register: RegisterId) -> list[str]:
    return [key for key, _ in sorted(journal.state.registers[register.within_school].values().items())]


@pytest.mark.parametrize("seed", range(3))
def test_a_full_phone_refuses_the_tap_and_keeps_every_saved_one(seed: int) -> None:
    """The tap that does not fit raises `StoreError`, is not shown, and is not there later; those before it are; when
    there is space again the next tap is taken.
    """
    disk = Disk("phone", random.Random(seed))
    log, journal = open_journal(disk, seed)
    with journal.act() as act:
        journal.append_enrolment(act, enrolment_of(journal.device))
    register = RegisterId("eg-07-113", "c-3a", TODAY, "day")
    disk.free_bytes = 30_000 + 1_000 * seed
    shown: list[str] = []
    refused: list[str] = []
    for number in range(400):
        try:
            journal.tap(register, [(f"k{number:03}", "A36000000:" + "x" * 20)])
        except StoreError:
            refused.append(f"k{number:03}")
        else:
            shown.append(f"k{number:03}")
    assert shown
    assert refused
    assert disk.faults["enospc"] > 0
    assert values(journal, register) == shown
    log.close()
    disk.cut_power("none")
    log, journal = open_journal(disk, seed + 100)
    assert values(journal, register) == shown
    disk.free_bytes = None
    journal.tap(register, [("k999", "P36000001")])
    assert values(journal, register) == [*shown, "k999"]


@pytest.mark.parametrize("fault", ["eio", "enospc"])
def test_any_operation_of_a_tap_may_fail(fault: str) -> None:
    """Each operation of an act fails once: what was saved stays, a refused tap may be repeated, the file is whole.

    An error at the very end leaves the tap there; whoever looks next sees it, the open app and a new one alike.
    """
    at = there_all_the_same = 0
    while True:
        at += 1
        disk = Disk("phone", random.Random(at))
        log, journal = open_journal(disk, at)
        with journal.act() as act:
            journal.append_enrolment(act, enrolment_of(journal.device))
        register = RegisterId("eg-07-113", "c-3a", TODAY, "day")
        journal.tap(register, [("s001", "A36000000")])
        disk.arm(at, fault)  # type: ignore[arg-type]
        try:
            journal.tap(register, [("s002", "A36000001")])
        except StoreError:
            assert "s002" not in values(journal, register)
            disk.arm(None, "eio")
            journal.tap(register, [("s003", "A36000002")])
            seen = set(values(journal, register))
            assert {"s001", "s003"} <= seen
            there_all_the_same += "s002" in seen
        else:
            seen = {"s001", "s002"}
        missed = not disk.faults[fault] and not disk.faults["fsync-eio"]
        log.close()
        disk.cut_power("some")
        _, journal = open_journal(disk, at + 1_000)
        found = set(values(journal, register))
        assert found == seen
        assert not [name for name in disk.names() if "damaged" in name]
        if missed:
            break
    assert at > 8
    assert (there_all_the_same > 0) == (fault == "eio")
