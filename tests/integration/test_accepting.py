"""A crowd of new connections reaches the server at once: a round of the loop takes many, not one."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from pathlib import Path

import pytest
import uvloop

from syncserver.app import Server
from syncserver.config import Config
from syncserver.serve import serve

CROWD, ROUNDS = 64, 16


async def answered_after(port: int) -> list[int]:
    """After how many rounds of the loop each of `CROWD` connections, all there before the first, was answered."""
    loop = asyncio.get_running_loop()
    crowd = [socket.create_connection(("127.0.0.1", port)) for _ in range(CROWD)]  # the kernel completes them alone
    rounds, seen = 0, dict.fromkeys(range(CROWD), 0)

    def answered(at: int) -> None:
        seen[at] = seen[at] or rounds

    try:
        for at, one in enumerate(crowd):
            one.sendall(b"GET /healthz HTTP/1.1\r\nHost: hudur\r\n\r\n")
            one.setblocking(False)
            loop.add_reader(one.fileno(), answered, at)
        async with asyncio.timeout(30):
            while not all(seen.values()):
                rounds += 1
                turn = loop.create_future()
                loop.call_soon(turn.set_result, None)
                await turn
    finally:
        for one in crowd:
            loop.remove_reader(one.fileno())
            one.close()
    return sorted(seen.values())


@pytest.mark.process
def test_new_connections_are_taken_many_in_a_round_of_the_loop(tmp_path: Path) -> None:
    """While a round does the work of a hundred requests, one connection a round is a queue nobody sees."""
    found: list[int] = []

    async def ready(_: Server, url: str) -> None:
        found.extend(await answered_after(int(url.rsplit(":", 1)[1])))
        os.kill(os.getpid(), signal.SIGTERM)

    uvloop.run(serve(Config(store=tmp_path / "store.db", env="demo", host="127.0.0.1", port=0), on_ready=ready))
    assert len(found) == CROWD
    assert found[-1] <= ROUNDS, f"the last of {CROWD} was answered in round {found[-1]}"
