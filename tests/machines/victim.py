"""What a blow does to a machine: the same for a phone and for the server."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import cast

from tests.machines.troubles import Blow
from tests.simulator.disk import Disk, Fault, MachineDead
from tests.simulator.medium import How


class Victim:
    """A machine with a disk. At most one blow is aimed at it at a time, and only within one step."""

    def __init__(self, disk: Disk) -> None:
        self.disk = disk
        self.is_struck = False
        self.points: Counter[str] = Counter()
        self.blows: Counter[str] = Counter()  # that ended it, by what they did
        self._blow: Blow | None = None
        self._passed = 0

    def aim(self, blow: Blow | None) -> None:
        """Let the machine meet `blow` from here on; None: nothing any more."""
        self.disk.disarm()
        self._blow, self._passed = blow, 0
        if blow is not None and isinstance(blow.at, int):
            self.disk.arm(blow.at, cast(Fault, "power" if blow.how.startswith("power") else blow.how))

    def reached(self, point: str) -> None:
        """See `Reached`."""
        self.points[point] += 1
        blow = self._blow
        if blow is None or blow.at != point:
            return
        self._passed += 1
        if self._passed == blow.nth:
            self.strike()
            raise MachineDead(point)

    def strike(self) -> None:
        """The process is gone; with the power also what was not synced. Once per death."""
        if self.is_struck:
            return
        self.is_struck = True
        blow, self._blow = self._blow, None
        if blow is not None:
            self.blows[blow.how] += 1
        if blow is not None and blow.how.startswith("power"):
            self.disk.cut_power(cast(How, blow.how.removeprefix("power ")))
        else:
            self.disk.kill()


async def pause(duration_ms: float) -> None:
    """Let virtual time pass."""
    await asyncio.sleep(duration_ms / 1000)
