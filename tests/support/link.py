"""A TCP link that can be cut: the network between a real browser and a real server.

Chromium's own offline emulation does not reach service workers, so the network is switched off where it is real: the
relay stops listening and resets what is open. `portal` answers everything with a top-up page, as an operator does.
"""

from __future__ import annotations

import asyncio
import threading
from types import TracebackType

PORTAL = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 39\r\nConnection: close\r\n\r\n"
    b"<html><h1>Please top up</h1></html>    "
)


class Link:
    """Relays `127.0.0.1:port` to `127.0.0.1:target`; `off()`, `on()`, `portal()` change what happens to connections."""

    def __init__(self, target: int) -> None:
        self.target = target
        self.port = 0
        self.bytes_up = 0
        self.bytes_down = 0
        self.connections = 0
        self._mode = "on"
        self._open: set[asyncio.StreamWriter] = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)

    def __enter__(self) -> Link:
        self._thread.start()
        self._run(self._listen())
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._run(self._close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def off(self) -> None:
        """No network: open connections are reset, new ones are refused."""
        self._run(self._switch("off"))

    def on(self) -> None:
        """The network is back, on the same port."""
        self._run(self._switch("on"))

    def portal(self) -> None:
        """Every request gets a top-up page with status 200."""
        self._run(self._switch("portal"))

    def _run(self, work: object) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result(30)  # type: ignore[arg-type]

    async def _listen(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port, reuse_address=True)
        self.port = self._server.sockets[0].getsockname()[1]

    async def _switch(self, mode: str) -> None:
        was, self._mode = self._mode, mode
        for writer in list(self._open):
            writer.transport.abort()
        if mode == "off" and was != "off":
            self._server.close()
            await self._server.wait_closed()
        elif mode != "off" and was == "off":
            await self._listen()

    async def _close(self) -> None:
        await self._switch("off")
        tasks = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._mode == "off":  # taken just before the link was cut
            writer.transport.abort()
            return
        self.connections += 1
        self._open.add(writer)
        try:
            if self._mode == "portal":
                await reader.readuntil(b"\r\n\r\n")
                writer.write(PORTAL)
                await writer.drain()
                return
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self.target)
            self._open.add(far_writer)
            await asyncio.gather(self._pump(reader, far_writer, up=True), self._pump(far_reader, writer, up=False))
        except (OSError, asyncio.IncompleteReadError):
            pass  # the link was cut: exactly what it is for
        finally:
            for one in [writer, *(w for w in self._open if w.transport.is_closing())]:
                one.transport.abort()
                self._open.discard(one)

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, up: bool) -> None:
        while data := await reader.read(65_536):
            if up:
                self.bytes_up += len(data)
            else:
                self.bytes_down += len(data)
            writer.write(data)
            await writer.drain()
        writer.close()
