"""A virtual clock for asyncio: waiting costs nothing, and one seed gives one order of events.

The loop never looks at the machine's clock or at a socket. When nothing is ready it jumps to the next timer; when
several callbacks are ready at one instant it may shuffle them by the seed, which is stricter than asyncio's promise.

It relies on private names of CPython's asyncio (`_ready`, `_run_once`, `_selector`); tests/unit/test_sim_loop.py fails
where a Python version has changed them.
"""

from __future__ import annotations

import asyncio
import random
import selectors
from collections.abc import Coroutine, Mapping
from typing import Any, TypeVar

T = TypeVar("T")


class Stuck(Exception):
    """Nothing is ready and nothing is planned, yet something is still waited for."""


class _NoSockets(selectors.BaseSelector):
    """What the loop asks for ready sockets: there are none, and asking moves the clock."""

    def __init__(self, loop: VirtualLoop) -> None:
        self._loop = loop
        self._keys: dict[Any, selectors.SelectorKey] = {}

    def register(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        key = selectors.SelectorKey(fileobj, -1, events, data)  # the loop's own wake-up pipe: never written to here
        self._keys[fileobj] = key
        return key

    def unregister(self, fileobj: Any) -> selectors.SelectorKey:
        return self._keys.pop(fileobj)

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None:
            raise Stuck(f"nothing will ever happen after {self._loop.time():.3f} s")
        if timeout > 0:
            self._loop.now_s += timeout
        return []

    def get_map(self) -> Mapping[Any, selectors.SelectorKey]:
        return self._keys


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop whose time is a number. `shuffle`: chance for the order of callbacks that are ready together."""

    def __init__(self, shuffle: random.Random | None = None) -> None:
        self.now_s = 0.0
        self.faults: list[BaseException] = []
        self._shuffle = shuffle
        super().__init__(_NoSockets(self))
        self._clock_resolution = 1e-6
        self.set_exception_handler(_remember)

    def time(self) -> float:
        """Seconds since the loop was made."""
        return self.now_s

    def _run_once(self) -> None:
        ready = self._ready  # type: ignore[attr-defined]
        if self._shuffle is not None and len(ready) > 1:
            order = list(ready)
            self._shuffle.shuffle(order)
            ready.clear()
            ready.extend(order)
        super()._run_once()  # type: ignore[misc]

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run `work` to its end with this loop as the running one, then end every task that is left."""
        asyncio.set_event_loop(self)
        try:
            return self.run_until_complete(work)
        finally:
            left = asyncio.all_tasks(self)
            for task in left:
                task.cancel()
            if left:
                self.run_until_complete(asyncio.gather(*left, return_exceptions=True))
            asyncio.set_event_loop(None)
            self.close()


def _remember(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """A task nobody awaited failed: the run must not pass over it."""
    assert isinstance(loop, VirtualLoop)
    error = context.get("exception")
    loop.faults.append(error if isinstance(error, BaseException) else RuntimeError(str(context.get("message"))))
