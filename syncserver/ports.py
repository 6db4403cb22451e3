"""The server's doors to the world: clock, chance, slow work, and named points where tests may end the process."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Protocol, TypeVar

from argon2 import PasswordHasher
from argon2.exceptions import VerifyMismatchError

from clientcore.ports import Clock, Random, Reached, SystemClock, SystemRandom, not_watched

T = TypeVar("T")

CRASH_POINTS = (
    "intake.before_commit",
    "intake.after_commit",
    "settle.before_outcome",
    "settle.between_outcome_and_offset",
    "settle.after_commit",
)
"""The road of every push."""

BUNDLE_CRASH_POINTS = ("bundle.after_slice",)
"""After each 32 frames of a bundle; after the last, before anybody is told."""

RESTORE_CRASH_POINTS = (
    "restore.before_copy",
    "restore.before_epoch",
    "restore.after_epoch",
    "restore.after_plan",
    "restore.between_moves",
    "restore.before_done",
)
"""Up to `after_epoch` the old store is in its place, from `after_plan` on the restored one is."""


class CodeHasher(Protocol):
    """Slow digests of enrolment codes, away from the event loop."""

    async def digest(self, code: str) -> str:
        """A salted digest of `code`."""
        ...

    async def matches(self, digest: str | None, code: str) -> bool:
        """Whether `digest` is one of `code`; the same work is done for `digest` None, so that time tells nothing."""
        ...


class Argon2Hasher:
    """argon2id. A code has 30 bits behind its name and lives 15 minutes: 8 MiB and two passes are plenty.

    One thread: a flood of guesses queues up here and never takes more than one core from the sync road.
    """

    def __init__(self) -> None:
        self._hasher = PasswordHasher(time_cost=2, memory_cost=8_192, parallelism=1)
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="argon2")
        self._nobody = self._hasher.hash("no code")

    async def digest(self, code: str) -> str:
        """See `CodeHasher`."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._hasher.hash, code)

    async def matches(self, digest: str | None, code: str) -> bool:
        """See `CodeHasher`."""
        found = await asyncio.get_running_loop().run_in_executor(self._thread, self._verify, digest, code)
        return found and digest is not None

    def _verify(self, digest: str | None, code: str) -> bool:
        try:
            return self._hasher.verify(digest if digest is not None else self._nobody, code)
        except VerifyMismatchError:
            return False


class Aside(Protocol):
    """Pure work of more than a few milliseconds, done so that requests are answered meanwhile."""

    async def run(self, work: Callable[[], T]) -> T:
        """What `work` returns or raises."""
        ...


class ThreadAside:
    """One thread: it shares the interpreter with the event loop in slices of 5 ms and is never more than one."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="aside")

    async def run(self, work: Callable[[], T]) -> T:
        """See `Aside`."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)


class InlineAside:
    """Where every step must come in the same order each time: the simulator and tests."""

    async def run(self, work: Callable[[], T]) -> T:
        """See `Aside`."""
        return work()


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerPorts:
    """Every door of the server."""

    clock: Clock = field(default_factory=SystemClock)
    random: Random = field(default_factory=SystemRandom)
    hasher: CodeHasher = field(default_factory=Argon2Hasher)
    aside: Aside = field(default_factory=ThreadAside)
    reached: Reached = not_watched
