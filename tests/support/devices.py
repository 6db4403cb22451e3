"""Devices in homes on disk (or in memory), for tests: opening a home again is "starting the app again"."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from clientcore.cache import Cache
from clientcore.device import Device, SyncReport
from clientcore.home import Home
from clientcore.keys import SigningKey
from clientcore.log import Log
from clientcore.ports import ManualClock, Network, SeededRandom
from clientcore.register import Code, RegisterId
from clientcore.take import Wish
from clientcore.taking import Taken, take_register
from tests.support.fake_server import CLASS, CODE, SCHOOL

TODAY = "2026-11-22"  # ManualClock's day: a Sunday


def absent(*pupils: str) -> dict[str, Wish]:
    return dict.fromkeys(pupils, (Code.ABSENT, None))


@dataclass(slots=True)
class Phone:
    """A device and what a test does with it. Every opening is a new app session with its own chance."""

    device: Device
    clock: ManualClock
    log: Log

    def register(self, date: str = TODAY, session: str = "day") -> RegisterId:
        return self.device.register(CLASS, date, session)

    def take(self, wishes: Mapping[str, Wish] | None = None, *, date: str = TODAY, session: str = "day") -> Taken:
        self.clock.advance(1_000)
        return take_register(self.device, self.register(date, session), wishes or {})

    async def sync(self) -> SyncReport:
        self.clock.advance(1_000)
        return await self.device.sync()

    def steps(self) -> dict[str, int]:
        return {step.value: count for step, count in self.device.state.step_counts().items() if count}

    def slugs(self) -> list[str]:
        return [slug for slug, _, _ in self.device.state.notices if not slug.startswith("offered")]

    def close(self) -> None:
        self.log.close()
        self.device.cache.close()


def open_phone(home: Path, network: Network, clock: ManualClock, *, seed: int = 1) -> Phone:
    """Start the app over the home directory `home` (made when new); the seed must differ between two starts."""
    place = Home(home)
    key = place.prepare()
    log = place.open_log(at_ms=clock.wall_ms())
    device = Device(log=log, cache=place.open_cache(), key=key, clock=clock, random=SeededRandom(seed), network=network)
    return Phone(device=device, clock=clock, log=log)


def memory_phone(network: Network, clock: ManualClock, *, seed: int = 1, key: SigningKey | None = None) -> Phone:
    """A device that lives in memory."""
    log = Log.open(":memory:")
    device = Device(
        log=log,
        cache=Cache.open(":memory:"),
        key=key or SigningKey.generate(),
        clock=clock,
        random=SeededRandom(seed),
        network=network,
    )
    return Phone(device=device, clock=clock, log=log)


async def enrolled(phone: Phone, *, school: str = SCHOOL, code: str = CODE) -> Phone:
    await phone.device.enrol(school=school, code=code, label="test")
    return phone
