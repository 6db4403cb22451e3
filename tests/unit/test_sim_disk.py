"""The simulated disk: what it says is lost is lost, what it says is durable is not."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from clientcore.log import Log
from syncserver.store.sqlite import open_sqlite
from tests.simulator.disk import Disk, MachineDead
from tests.simulator.medium import HOWS
from tests.simulator.sqlite import AsyncConnector


def disk(seed: int = 1) -> Disk:
    return Disk("test", random.Random(seed))


def log_on(machine: Disk) -> Log:
    return Log.open(Path("log.db"), files=machine.files())


def test_the_device_log_survives_every_kind_of_power_cut() -> None:
    """The real Log on the simulated disk: what `act` returned from is there after each cut."""
    machine = disk()
    told: list[int] = []
    for n, how in enumerate(HOWS * 5):
        log = log_on(machine)
        assert [row.at_ms for row in log.read()] == told
        with log.act() as act:
            act.append("tap", "r", n, [n])
        told.append(n)
        machine.cut_power(how)
        with pytest.raises(MachineDead):
            log.read()
    assert [row.at_ms for row in log_on(machine).read()] == told


async def test_the_store_survives_every_kind_of_power_cut() -> None:
    """The real SqliteDatabase on the simulated disk, with its own reading connection."""
    machine = disk()
    for n, how in enumerate(HOWS * 3):
        db = await open_sqlite(Path("store.db"), AsyncConnector(machine))
        async with db.transaction() as tx:
            if n == 0:
                await tx.execute("CREATE TABLE mine (n INTEGER)")
            await tx.execute("INSERT INTO mine VALUES (?)", (n,))
        assert await db.fetch_all("SELECT n FROM mine ORDER BY n") == [(k,) for k in range(n + 1)]
        machine.cut_power(how)
        with pytest.raises(MachineDead):
            await db.fetch_one("SELECT 1")
