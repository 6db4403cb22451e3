"""Clocks of a simulated world: true time, the server's, and each phone's own idea of it."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from tests.simulator.loop import VirtualLoop


@dataclass(slots=True)
class WorldClock:
    """True time (`Clock`): UTC milliseconds from `start_ms` on. The server may run off it by `skew_ms`."""

    loop: VirtualLoop
    start_ms: int
    skew_ms: int = 0

    @property
    def elapsed_ms(self) -> int:
        """Milliseconds since the world began."""
        return int(self.loop.now_s * 1000)

    def true_ms(self) -> int:
        """True UTC milliseconds."""
        return self.start_ms + self.elapsed_ms

    def wall_ms(self) -> int:
        """See `Clock`."""
        return self.true_ms() + self.skew_ms

    def mono_ms(self) -> int:
        """See `Clock`."""
        return self.elapsed_ms

    async def sleep_ms(self, duration_ms: int) -> None:
        """See `Clock`."""
        await asyncio.sleep(duration_ms / 1000)


@dataclass(slots=True)
class PhoneClock:
    """A phone's clock (`Clock`): an offset, a drift, jumps, and a monotonic time that begins anew at each boot."""

    world: WorldClock
    offset_ms: int = 0
    drift_ppm: float = 0.0
    booted_ms: int = field(default=0)

    def wall_ms(self) -> int:
        """See `Clock`."""
        elapsed = self.world.elapsed_ms
        return max(0, self.world.start_ms + elapsed + int(elapsed * self.drift_ppm / 1e6) + self.offset_ms)

    def mono_ms(self) -> int:
        """See `Clock`."""
        return self.world.elapsed_ms - self.booted_ms

    async def sleep_ms(self, duration_ms: int) -> None:
        """See `Clock`."""
        await self.world.sleep_ms(duration_ms)

    def boot(self) -> None:
        """The phone was switched on: monotonic time begins at zero."""
        self.booted_ms = self.world.elapsed_ms

    def jump(self, *, by_ms: int = 0, to_ms: int | None = None) -> None:
        """Move the wall clock: by a person, an operator, or an empty battery."""
        self.offset_ms += by_ms if to_ms is None else to_ms - self.wall_ms()
