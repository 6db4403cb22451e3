"""How long one group commit holds the lane of the pushes when the server has nothing else to do: the real intake.

A serving process verifies the next pushes between the round trips of a commit and holds its lane longer; the difference
to what it reports (`hudur_commit_seconds`) is that work, not the store's.
"""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Iterator, Sequence

import uvloop
from rich.console import Console

from bench.load import Line, sign
from bench.site import Phone
from syncserver.app import Server, open_server
from syncserver.config import Config, StoreAddress
from syncserver.ports import ServerPorts
from syncserver.store.log import Push
from syncserver.store.open import open_store

BATCH = 100


def hold_ms(
    store: StoreAddress,
    phones: Sequence[Phone],
    free: Iterator[tuple[str, list[str]]],
    *,
    commits: int,
    console: Console,
) -> float:
    """Median milliseconds of commits of `BATCH` pushes each; no server may be running on the store."""
    lines = sign(phones, free, -(-(commits + 1) * BATCH // len(phones)), console)
    return uvloop.run(_measure(store, lines, commits))


async def _measure(store: StoreAddress, lines: Sequence[Line], commits: int) -> float:
    db = await open_store(store)
    try:
        config = Config(store=store, env="demo", consumes=False, batch_max=BATCH)
        server = await open_server(config, db, ServerPorts())
        pushes = await _pushes(server, lines)
        writer = asyncio.create_task(server.intake.run())
        taken_s = []
        for at in range(0, (commits + 1) * BATCH, BATCH):
            began_s = time.perf_counter()
            await asyncio.gather(*map(server.intake.commit, pushes[at : at + BATCH]))
            taken_s.append(time.perf_counter() - began_s)
        writer.cancel()
        await asyncio.gather(writer, return_exceptions=True)
    finally:
        await db.close()
    return statistics.median(taken_s[1:]) * 1e3  # the first prepares its statements


async def _pushes(server: Server, lines: Sequence[Line]) -> list[Push]:
    """Verified and parsed beforehand, the phones in turns."""
    found = []
    for of_all in zip(*lines, strict=True):
        for body, _, _ in of_all:
            identity, arrivals = await server.checker.read(body)
            found.append(Push(device=identity.device, arrivals=tuple(arrivals), nonce=bytes(8), asked_nonce=None))
    return found
