"""What every part of a simulated world shares: time, chance, the ledger, and the counts of what was done to it."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tests.simulator.ledger import Ledger, Trace
from tests.simulator.loop import VirtualLoop
from tests.simulator.swarm import Swarm

if TYPE_CHECKING:
    from syncserver.store.port import Database
    from tests.simulator.asgi import Answered
    from tests.simulator.server import ServerHost


async def _no_store(_: Database) -> None:
    return None


async def _opened(_: ServerHost) -> None:
    return None


def _no_point(_: ServerHost, __: str) -> None:
    return None


async def _no_answer(_: ServerHost, __: str, ___: bytes, ____: Answered) -> None:
    return None


@dataclass(slots=True, kw_only=True)
class Lab:
    """One simulated world's common ground.

    Attributes:
        faults: What was injected, by kind.
        points: How often each named point was passed.
        last_asked_ms: When everybody was last made to talk; None: just now.
        samples: Chunks of registers that were merged by the native core as well; others may look at them again.
        prepare_store, server_opened, server_reached, server_answered, server_restored: Hooks; the world sets them.
    """

    loop: VirtualLoop
    swarm: Swarm
    ledger: Ledger
    journal: Trace
    faults: Counter[str] = field(default_factory=Counter)
    points: Counter[str] = field(default_factory=Counter)
    prepare_store: Callable[[Database], Awaitable[None]] = _no_store
    server_opened: Callable[[ServerHost], Awaitable[None]] = _opened
    server_reached: Callable[[ServerHost, str], None] = _no_point
    server_answered: Callable[[ServerHost, str, bytes, Answered], Coroutine[Any, Any, None]] = _no_answer
    server_restored: Callable[[], None] = lambda: None
    overloaded: Callable[[], float] = lambda: 1.0
    samples: list[tuple[bytes, ...]] = field(default_factory=list)
    last_asked_ms: int | None = None
    calm: bool = False
    calmed: asyncio.Event = field(default_factory=asyncio.Event)
    _strays: dict[asyncio.Task[Any], None] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.ledger.now_ms = lambda: self.now_ms

    @property
    def now_ms(self) -> int:
        """Milliseconds since the world began."""
        return int(self.loop.now_s * 1000)

    def fault(self, kind: str) -> None:
        """Count one injected fault."""
        self.faults[kind] += 1
        self.journal.add(self.now_ms, "fault", kind)

    def trace(self, who: str, what: str, data: bytes = b"") -> None:
        """Note one event."""
        self.journal.add(self.now_ms, who, what, data)

    def chance(self, name: str, place: str = "") -> float:
        """A uniform draw of a stream that no fault class owns; 1.0 once faults have stopped."""
        return 1.0 if self.calm else self.swarm.stream(f"{name}|{place}").random()

    async def sleep_ms(self, duration_ms: float) -> None:
        """Let virtual time pass."""
        await asyncio.sleep(duration_ms / 1000)

    async def sleep_while_faulty(self, duration_ms: float, calm_ms: float) -> None:
        """Wait for something that went wrong; once faults have stopped no longer than `calm_ms`."""
        if not self.calm:
            with suppress(TimeoutError):
                async with asyncio.timeout(duration_ms / 1000):
                    await self.calmed.wait()
                await self.sleep_ms(calm_ms)
            return
        await self.sleep_ms(min(duration_ms, calm_ms))

    def later(self, work: Coroutine[Any, Any, Any]) -> None:
        """Do something on nobody's machine: a stray packet, a person's act."""
        task = self.loop.create_task(work)
        self._strays[task] = None
        task.add_done_callback(self._stray_done)

    def _stray_done(self, task: asyncio.Task[Any]) -> None:
        self._strays.pop(task, None)
        if not task.cancelled() and task.exception() is not None:
            self.loop.faults.append(task.exception())  # type: ignore[arg-type]

    async def settle_strays(self) -> None:
        """Wait for everything that was begun with `later`."""
        while self._strays:
            await asyncio.wait(list(self._strays))

    def garble(self, data: bytes, place: str) -> bytes:
        """Bits fall over, bytes get lost, a tail is missing."""
        self.fault("net.garble")
        return garbled(data, self.swarm.stream(f"garble|{place}"))

    def stop_faults(self) -> None:
        """Nothing goes wrong from now on."""
        self.swarm.calm()
        self.calm = True
        self.calmed.set()


def garbled(data: bytes, source: random.Random) -> bytes:
    """`data` with something wrong in it."""
    changed = bytearray(data)
    if not changed:
        return b"\0"
    how = source.randrange(4)
    at = source.randrange(len(changed))
    if how == 0:
        changed[at] ^= 1 << source.randrange(8)
    elif how == 1:
        del changed[at:]
    elif how == 2:
        del changed[at : at + source.randrange(1, 9)]
    else:
        changed[at:at] = source.randbytes(source.randrange(1, 9))
    return bytes(changed)
