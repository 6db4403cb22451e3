"""The settle stage's second process: the same results, whoever computes them, and no register lost with the helper."""

from __future__ import annotations

import asyncio
import contextlib
import os
import pickle
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import psutil
import pytest

from clientcore.ports import ManualClock
from syncserver import settle as settle_module
from syncserver.config import Config
from syncserver.ports import ServerPorts
from syncserver.serve import _helper_of
from syncserver.settle_helper import Helper
from syncserver.sight import Part, look
from tests.support.server.phone import Phone
from tests.support.server.wait import until
from tests.support.server.world import PUPILS, TODAY, World, open_world, sqlite_only

pytestmark = [sqlite_only, pytest.mark.process]
ZONE, LIMIT, ABOVE = "Africa/Cairo", 100, 0
NAMES = [f"c-3a/{TODAY}/am{number}" for number in range(1, 7)]
ASK_AND_DIE = """
import os, sys
from pathlib import Path
from clientcore.ports import SystemClock
from syncserver.settle_helper import Helper
from syncserver.sight import Part

if __name__ == "__main__":
    helper = Helper(Path(sys.argv[1]), "Africa/Cairo", SystemClock())
    part = Part(
        number=0, is_whole=True, changes="changes", orders="settle_again", settlements="settlements", refers=True
    )
    assert helper._ask(part, 1, 0) is not None
    print(helper._process.pid, flush=True)
    os.kill(os.getpid(), 9)
"""


@asynccontextmanager
async def helped(path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[tuple[World, Helper]]:
    """A world whose settle stage asks its helper in every round but the first."""
    monkeypatch.setattr(settle_module, "_HELPED_FROM", 0)
    clock = ManualClock()
    helper = Helper(path, ZONE, clock)
    async with open_world(path, background=False, clock=clock, helper=helper) as world:
        await world.settle()
        yield world, helper


async def push(phones: list[Phone], turn: int) -> None:
    """All phones take the same registers and disagree about two pupils."""
    for at, phone in enumerate(phones):
        marks = {**dict.fromkeys(PUPILS, "P"), PUPILS[turn + at]: "A"}
        await phone.sync(*((name, phone.take(name, marks)) for name in NAMES))


async def one_round(world: World) -> list[Phone]:
    """A phone, and what it has taken settled."""
    phones = [await world.phone("t1", seed=1)]
    await push(phones, 0)
    await world.settle()
    return phones


async def test_the_helper_gives_what_the_stage_itself_would_have_computed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Round by round: first outcomes, later ones, disputes; equal to the last byte."""
    async with helped(tmp_path / "store.db", monkeypatch) as (world, helper):
        phones = [await world.phone("t1", seed=1), await world.phone("t2", seed=2)]
        part = Part.of(world.db, 0)
        for turn in range(3):
            await push(phones, turn)
            here = await world.db.snapshot(partial(look, part=part, limit=LIMIT, zone=ZONE))
            there = await helper.see(part, LIMIT, ABOVE)
            assert there is not None
            assert (there.position, there.fresh, there.tasks) == (here.position, here.fresh, here.tasks)
            wanted = {task.key: here.settle(task, here.changes[task.key], ABOVE) for task in here.tasks}
            assert there.results == wanted
            assert len(wanted) == len(NAMES)
            assert not there.changes  # nothing is sent twice
            await world.settle()
            assert await world.count("outcomes") == len(NAMES)
            assert await world.count("settlements") == (turn + 1) * len(NAMES) * len(phones)


async def test_a_killed_helper_costs_no_register_and_another_one_follows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The round in which it is gone is done by the stage, without a dead letter; after a while it is helped again."""
    async with helped(tmp_path / "store.db", monkeypatch) as (world, helper):
        phones = await one_round(world)
        first = helper._process
        assert first is not None
        first.kill()
        first.join()
        await push(phones, 1)
        await world.settle()
        assert helper._process is None
        assert await world.count("settlements") == 2 * len(NAMES)
        assert await world.count("dead_letters") == 0
        world.clock.advance(60_000)
        await push(phones, 2)
        await world.settle()
        assert helper._process is not None
        assert helper._process.pid != first.pid
        assert await world.count("settlements") == 3 * len(NAMES)


async def test_settling_gives_way_to_a_crowd_also_when_it_is_helped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As many times as long as the last round took, 5 s at most, or until the crowd is gone; then it is asked."""
    async with helped(tmp_path / "store.db", monkeypatch) as (world, helper):
        phones = await one_round(world)
        settler, crowd = world.server.settler.held[0], [0]
        monkeypatch.setattr(settler, "_crowding", lambda: crowd.pop() if crowd else 0)
        took_ms = [100, 3_000, 100, 100, 100, 0]
        world.points.acts["settle.after_commit"] = lambda: world.clock.advance(took_ms.pop(0))
        await push(phones, 1)
        await world.settle()  # took 100 ms
        turns = [([19] * 1_000, 1_900), ([19] * 1_000, 5_000), ([19] * 7, 70), ([1] * 1_000, 100), ([], 0)]
        for turn, (asked, wanted_ms) in enumerate(turns, 2):
            crowd[:] = asked
            await push(phones, turn)
            began_ms = world.clock.mono_ms()
            took = took_ms[0]
            await settler.round()
            assert world.clock.mono_ms() - began_ms == wanted_ms + took
            assert helper._process is not None
            assert await world.count("settlements") == (turn + 1) * len(NAMES)


async def test_a_fault_of_the_helper_buries_no_change(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An answer that cannot be read says nothing about the changes it was to be about."""

    def garbled(*_: object) -> None:
        raise pickle.UnpicklingError

    async with helped(tmp_path / "store.db", monkeypatch) as (world, helper):
        phones = await one_round(world)
        monkeypatch.setattr(helper, "_ask", garbled)
        await push(phones, 1)
        async with asyncio.timeout(10):  # a stage that blames the changes never comes to an end here
            await world.settle()
        assert await world.count("settlements") == 2 * len(NAMES)
        assert await world.count("dead_letters") == 0


async def test_what_the_helper_cannot_settle_is_found_by_the_stage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A damaged outcome: its register's change is the dead letter, the other registers come from the helper."""
    async with helped(tmp_path / "store.db", monkeypatch) as (world, helper):
        phones = await one_round(world)
        async with world.db.transaction() as tx:
            await tx.execute("UPDATE outcomes SET body = ? WHERE session = 'am2'", (b"damaged",))
        await push(phones, 1)
        sight = await helper.see(Part.of(world.db, 0), LIMIT, ABOVE)
        assert sight is not None
        assert {key[3] for key in sight.results} == {"am1", "am3", "am4", "am5", "am6"}
        assert {key[3] for key in sight.changes} == {"am2"}
        await world.settle()
        letters = await world.db.fetch_all("SELECT session, code FROM dead_letters")
        assert letters == [("am2", "poison")]
        assert {event["data"]["session"] for event in await world.events(after=len(NAMES) * 40)} == {
            "am1", "am3", "am4", "am5", "am6",
        }  # fmt: skip


async def test_a_helper_ends_with_its_server_however_that_ends(tmp_path: Path) -> None:
    """The server is killed: nobody is left who would ask, and nobody stays."""
    async with open_world(tmp_path / "store.db", background=False):
        pass
    script = tmp_path / "ask.py"
    script.write_text(ASK_AND_DIE)
    child = subprocess.run(
        [sys.executable, str(script), str(tmp_path / "store.db")],
        capture_output=True, text=True, timeout=60, check=False,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )  # fmt: skip
    assert child.returncode == -9, child.stderr
    pid = int(child.stdout)

    async def lives() -> bool:
        with contextlib.suppress(psutil.NoSuchProcess):
            return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
        return False

    await until(lives, lambda found: not found)


async def test_a_closed_helper_leaves_no_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The server ends in good order."""
    async with helped(tmp_path / "store.db", monkeypatch) as (world, helper):
        await one_round(world)
        assert helper._process is not None
        pid = helper._process.pid
        assert pid is not None
    assert not psutil.pid_exists(pid)


async def test_a_server_that_may_use_one_core_has_no_helper(tmp_path: Path) -> None:
    """However many the machine has: a helper on the same core takes from the requests what it computes."""
    config, ports, mine = Config(store=tmp_path / "store.db"), ServerPorts(), os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {min(mine)})
        assert _helper_of(config, ports) is None
    finally:
        os.sched_setaffinity(0, mine)
    assert (_helper_of(config, ports) is None) == (len(mine) == 1)
