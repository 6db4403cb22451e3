"""Waiting for a condition of another process: the only place where the server's tests let real time pass."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

T = TypeVar("T")
_STEP_S, _STEPS_MAX = 0.02, 3_000


async def until(look: Callable[[], Awaitable[T]], done: Callable[[T], bool]) -> T:
    """Look again and again until what is seen is `done`; an AssertionError with the last sight after 60 s."""
    for _ in range(_STEPS_MAX):
        seen = await look()
        if done(seen):
            return seen
        await asyncio.sleep(_STEP_S)
    raise AssertionError(f"never came: {seen!r:.300}")
