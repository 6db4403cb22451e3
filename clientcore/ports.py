"""The doors to the world: clock, randomness, network. Everything else takes them as arguments.

`Manual*` are the same doors for tests and the simulator; they are part of the product, not of the tests.
"""

from __future__ import annotations

import asyncio
import os
import random
import time
from dataclasses import dataclass, field
from typing import Protocol


class Clock(Protocol):
    """Wall and monotonic time, and waiting."""

    def wall_ms(self) -> int:
        """Milliseconds since 1970 UTC by the wall clock; may jump."""
        ...

    def mono_ms(self) -> int:
        """Milliseconds of a clock that never goes back; its zero has no meaning."""
        ...

    async def sleep_ms(self, duration_ms: int) -> None:
        """Come back after `duration_ms` of monotonic time."""
        ...


class Random(Protocol):
    """Chance: nonces and jitter. Keys never come from here."""

    def bytes(self, count: int) -> bytes:
        """`count` random bytes."""
        ...

    def fraction(self) -> float:
        """Uniform in [0, 1)."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpReply:
    """What came back from the network, whoever answered.

    Attributes:
        status: HTTP status.
        content_type: Media type without parameters, lower case; empty when absent.
        retry_after_s: Parsed Retry-After, if any.
        body: The body.
        first_byte_ms: Milliseconds from sending to the first byte of the answer.
    """

    status: int
    content_type: str
    body: bytes
    retry_after_s: float | None = None
    first_byte_ms: int = 0


class Network(Protocol):
    """One request to our server."""

    async def post(self, path: str, body: bytes, *, content_type: str, deadline_s: float) -> HttpReply:
        """Send `body` and return whatever answered.

        Raises:
            TransportError: `offline`, `timeout` or `broken` when nothing complete came back in time.
        """
        ...


class Reached(Protocol):
    """Told when the road passes a named point."""

    def __call__(self, point: str) -> None:
        """Nothing in production; tests and the simulator end the process here."""
        ...


def not_watched(point: str) -> None:
    """The production `Reached`: nothing happens."""


class SystemClock:
    """The machine's clocks."""

    def wall_ms(self) -> int:
        """See `Clock`."""
        return time.time_ns() // 1_000_000

    def mono_ms(self) -> int:
        """See `Clock`."""
        return time.monotonic_ns() // 1_000_000

    async def sleep_ms(self, duration_ms: int) -> None:
        """See `Clock`."""
        await asyncio.sleep(duration_ms / 1000)


class SystemRandom:
    """The operating system's randomness for bytes; a generator seeded by it for fractions."""

    def bytes(self, count: int) -> bytes:
        """See `Random`."""
        return os.urandom(count)

    def fraction(self) -> float:
        """See `Random`: it only spreads waits, so nobody gains by guessing it."""
        return random.random()


@dataclass(slots=True)
class ManualClock:
    """A clock that stands still until told otherwise; waiting moves it, and lets others have their turn."""

    now_ms: int = 1_795_334_400_000  # 2026-11-22T08:00:00Z, a Sunday: a school day in Egypt
    passed_ms: int = 0

    def wall_ms(self) -> int:
        """See `Clock`."""
        return self.now_ms

    def mono_ms(self) -> int:
        """See `Clock`."""
        return self.passed_ms

    async def sleep_ms(self, duration_ms: int) -> None:
        """See `Clock`."""
        self.advance(duration_ms)
        await asyncio.sleep(0)

    def advance(self, duration_ms: int) -> None:
        """Let time pass on both clocks."""
        self.now_ms += duration_ms
        self.passed_ms += duration_ms

    def set_wall_ms(self, wall_ms: int) -> None:
        """Move the wall clock alone, as people and operators do."""
        self.now_ms = wall_ms


@dataclass(slots=True)
class SeededRandom:
    """Chance from a seed."""

    seed: int
    _source: random.Random = field(init=False)

    def __post_init__(self) -> None:
        self._source = random.Random(self.seed)

    def bytes(self, count: int) -> bytes:
        """See `Random`."""
        return self._source.randbytes(count)

    def fraction(self) -> float:
        """See `Random`."""
        return self._source.random()
