"""A TCP relay between a device and a server that counts payload bytes both ways and can make the way long.

With a delay, the first byte of a device waits one round trip more: that is the handshake a real way would have cost.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager

IDLE_S = 5.0


class Tap:
    """Counts of everything relayed since the last `take`."""

    def __init__(self, server_port: int, round_trip_s: float) -> None:
        self.port = 0
        self._server_port, self._one_way_s = server_port, round_trip_s / 2
        self._up = self._down = self._open = 0

    def take(self) -> tuple[int, int]:
        """Bytes up and down since the last call, of connections that ended."""
        self.wait_idle()
        taken = self._up, self._down
        self._up = self._down = 0
        return taken

    def wait_idle(self) -> None:
        """Come back when every connection ended, so that the counts are final; or after `IDLE_S`."""
        until_s = time.monotonic() + IDLE_S
        while self._open and time.monotonic() < until_s:
            time.sleep(0.01)

    def _count_up(self, length: int) -> None:
        self._up += length

    def _count_down(self, length: int) -> None:
        self._down += length

    async def relay(self, device: asyncio.StreamReader, back: asyncio.StreamWriter) -> None:
        """One connection, from its beginning to its end."""
        self._open += 1
        try:
            server, onward = await asyncio.open_connection("127.0.0.1", self._server_port)
            await asyncio.gather(
                self._carry(device, onward, self._count_up, first_s=3 * self._one_way_s),
                self._carry(server, back, self._count_down, first_s=self._one_way_s),
            )
        except (OSError, asyncio.CancelledError):
            back.close()  # refused, or the benchmark ends
        finally:
            self._open -= 1

    async def _carry(
        self, source: asyncio.StreamReader, target: asyncio.StreamWriter, count: Callable[[int], None], first_s: float
    ) -> None:
        """Hand on what comes, each piece after the delay, in order; end the other side when this one ends."""
        loop = asyncio.get_running_loop()
        under_way: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue()
        not_before_s = loop.time() + first_s

        async def arrive() -> None:
            while True:
                due_s, piece = await under_way.get()
                if (early_s := due_s - loop.time()) > 0:
                    await asyncio.sleep(early_s)
                if not piece:
                    break
                target.write(piece)
            target.close()

        arriving = asyncio.create_task(arrive())
        try:
            while piece := await source.read(65_536):
                count(len(piece))
                under_way.put_nowait((max(loop.time() + self._one_way_s, not_before_s), piece))
        except ConnectionError:
            pass
        under_way.put_nowait((loop.time(), b""))
        await arriving


@contextmanager
def tap(server_port: int, *, round_trip_s: float = 0) -> Iterator[Tap]:
    """A relay to 127.0.0.1:`server_port` in a thread of its own; devices connect to its `port`."""
    relay = Tap(server_port, round_trip_s)
    ready: Future[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = Future()

    async def serve() -> None:
        end = asyncio.Event()
        listener = await asyncio.start_server(relay.relay, "127.0.0.1", 0)
        relay.port = listener.sockets[0].getsockname()[1]
        ready.set_result((asyncio.get_running_loop(), end))
        await end.wait()
        listener.close()

    thread = threading.Thread(target=lambda: asyncio.run(serve()), daemon=True)
    thread.start()
    loop, end = ready.result(timeout=10)
    try:
        yield relay
        relay.wait_idle()
    finally:
        loop.call_soon_threadsafe(end.set)
        thread.join(timeout=10)
