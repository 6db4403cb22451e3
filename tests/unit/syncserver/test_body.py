"""The body of a request, however it comes: at once, in parts, too much, cut short, too slowly, or given up on."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from clientcore.errors import FrameRefused
from syncserver import body as body_module
from syncserver.body import read_body
from syncserver.errors import RequestProblem


class Coming:
    """An ASGI `receive`: each part is given once `come` was said for it; those of `here` are there from the start."""

    def __init__(self, parts: Sequence[bytes], *, here: int = 0) -> None:
        self._parts = list(parts)
        self._there = asyncio.Semaphore(here)
        self.waits = 0
        self.ended_in: BaseException | None = None

    def come(self) -> None:
        """The next part is there."""
        self._there.release()

    async def receive(self) -> dict[str, Any]:
        """See ASGI."""
        self.waits += self._there.locked()
        try:
            await self._there.acquire()
        except BaseException as thrown:
            self.ended_in = thrown
            raise
        if not self._parts:
            return {"type": "http.disconnect"}
        part = self._parts.pop(0)
        return {"type": "http.request", "body": part, "more_body": bool(self._parts)}


async def test_what_is_all_there_is_read_without_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody else has a turn in between, and no deadline is set."""
    monkeypatch.setattr(body_module.asyncio, "timeout", None)  # type: ignore[attr-defined]
    coming = Coming([b"ab", b"cd"], here=2)
    reading = read_body(coming.receive, 10)
    with pytest.raises(StopIteration) as done:
        reading.send(None)
    assert done.value.value == b"abcd"
    assert coming.waits == 0


@pytest.mark.parametrize("here", [0, 1, 2])
async def test_parts_that_come_later_are_waited_for(here: int) -> None:
    """However many were there at the start."""
    coming = Coming([b"ab", b"cd", b"ef"], here=here)
    reading = asyncio.ensure_future(read_body(coming.receive, 6))
    for _ in range(3 - here):
        await asyncio.sleep(0)
        assert not reading.done()
        coming.come()
    assert await reading == b"abcdef"
    assert coming.waits == 3 - here


@pytest.mark.parametrize("here", [0, 2])
async def test_more_than_fits_is_refused_as_soon_as_it_comes(here: int) -> None:
    """The rest is not waited for."""
    coming = Coming([b"ab", b"cd", b"ef"], here=here)
    reading = asyncio.ensure_future(read_body(coming.receive, 3))
    for _ in range(2 - here):
        await asyncio.sleep(0)
        coming.come()
    with pytest.raises(RequestProblem) as refused:
        await reading
    assert refused.value.code == "too-large"


@pytest.mark.parametrize("here", [0, 1])
async def test_a_connection_that_ends_before_the_body_is_told_apart(here: int) -> None:
    """It was cut short: nothing of it counts."""
    coming = Coming([], here=here)
    reading = asyncio.ensure_future(read_body(coming.receive, 3))
    await asyncio.sleep(0)
    coming.come()
    with pytest.raises(FrameRefused) as refused:
        await reading
    assert refused.value.code == "bad-frame"


@pytest.mark.parametrize("here", [0, 1])
async def test_what_does_not_come_in_time_is_given_up(here: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever was waited for is told that nobody waits any more."""
    monkeypatch.setattr(body_module, "BODY_DEADLINE_S", 0.01)
    coming = Coming([b"ab", b"cd"], here=here)
    with pytest.raises(RequestProblem) as refused:
        await read_body(coming.receive, 10)
    assert refused.value.code == "slow-body"
    assert isinstance(coming.ended_in, asyncio.CancelledError)


async def test_whoever_goes_away_while_it_comes_ends_the_reading() -> None:
    """A request that is cancelled is cancelled where it waits, and is no slow body."""
    coming = Coming([b"ab", b"cd"], here=1)
    reading = asyncio.ensure_future(read_body(coming.receive, 10))
    await asyncio.sleep(0)
    reading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reading
    assert isinstance(coming.ended_in, asyncio.CancelledError)
