"""Claims of one process: what ends with its stage, and what must not end in silence."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any, cast

from syncserver.config import Config
from syncserver.consumers import Consumers


async def test_a_process_that_gives_a_stage_back_can_be_stopped_meanwhile() -> None:
    """The end of the process and that of the stage are both cancellations; one must not be taken for the other."""
    began, ending, end = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def stage() -> None:
        began.set()
        try:
            await asyncio.Event().wait()
        finally:
            ending.set()
            await end.wait()

    none = cast("Any", None)
    consumers = Consumers(Config(store=Path("unused")), none, none, none, asyncio.Event(), stages={"webhooks": stage})
    consumers._begin("webhooks")
    await began.wait()

    async def give_back() -> None:
        await consumers._stop("webhooks")
        await asyncio.Event().wait()  # where the process goes on when nobody told it to stop

    giving = asyncio.create_task(give_back())
    await ending.wait()
    giving.cancel()
    await asyncio.wait([giving], timeout=0)  # one turn of the loop
    end.set()
    async with asyncio.timeout(5):
        await asyncio.wait([giving])
    assert giving.cancelled()
