"""What HTTP itself costs: servers that read a push and answer bytes of the same size, and do nothing else.

`python -m bench.bare_server asgi|protocol BYTES` prints its port and serves until SIGTERM: `asgi` is uvicorn as the
real server configures it, with an application of two sends; `protocol` a bare asyncio protocol with the same parser.
"""

from __future__ import annotations

import argparse
import asyncio
import signal
import socket
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, cast

import httptools
import uvicorn
import uvloop

from clientcore.exchange import MEDIA_TYPE

Message = MutableMapping[str, Any]


async def asgi(size: int) -> None:
    """Uvicorn and an application that only answers."""
    headers = [(b"content-type", MEDIA_TYPE.encode()), (b"content-length", str(size).encode())]
    body = bytes(size)

    async def app(
        scope: Message, receive: Callable[[], Awaitable[Message]], send: Callable[[Message], Awaitable[None]]
    ) -> None:
        assert scope["type"] == "http"
        while (await receive()).get("more_body"):
            pass
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    listener = socket.create_server(("127.0.0.1", 0), backlog=2_048)
    print(listener.getsockname()[1], flush=True)
    config = uvicorn.Config(
        app,
        http="httptools",
        ws="none",
        lifespan="off",
        log_level="warning",
        access_log=False,
        server_header=False,
        date_header=False,
        proxy_headers=False,
    )
    await uvicorn.Server(config).serve(sockets=[listener])


class Bare(asyncio.Protocol):
    """One connection: parse, answer, close when asked to."""

    answer = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is none by inheritance
        self._parser = httptools.HttpRequestParser(self)

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_message_complete(self) -> None:
        self._transport.write(self.answer)
        if not self._parser.should_keep_alive():
            self._transport.close()


async def protocol(size: int) -> None:
    """The least a Python server can do for a request."""
    Bare.answer = f"HTTP/1.1 200 OK\r\nContent-Type: {MEDIA_TYPE}\r\nContent-Length: {size}\r\n\r\n".encode() + bytes(
        size
    )
    loop = asyncio.get_running_loop()
    server = await loop.create_server(Bare, "127.0.0.1", 0, backlog=2_048)
    stopped = asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, stopped.set)
    print(server.sockets[0].getsockname()[1], flush=True)
    await stopped.wait()


if __name__ == "__main__":
    arguments = argparse.ArgumentParser()
    arguments.add_argument("kind", choices=("asgi", "protocol"))
    arguments.add_argument("size", type=int)
    given = arguments.parse_args()
    uvloop.run({"asgi": asgi, "protocol": protocol}[given.kind](given.size))
