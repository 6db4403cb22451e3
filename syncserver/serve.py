"""Start a server and stop it gracefully."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import inspect
import os
import signal
import socket
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import uvicorn
import uvloop

from syncserver.app import Server, create_app, open_server
from syncserver.config import Config, StoreAddress
from syncserver.files import write_private
from syncserver.listener import Listener
from syncserver.operator import address_file
from syncserver.ports import ServerPorts
from syncserver.settle_helper import Helper
from syncserver.store.open import open_store

__all__ = ["OnReady", "address_file", "run", "serve"]

_GC_THRESHOLD = (50_000, 20, 100)  # parsing makes many short-lived objects and no cycles: 3-5% of a push
_BACKLOG = 2_048  # connections that stand in the kernel while a round of the loop lasts
_STOPPING = (signal.SIGINT, signal.SIGTERM)

OnReady = Callable[[Server, str], Awaitable[None] | None]


class _Http(uvicorn.Server):
    """uvicorn behind a `Listener`, and without its own signal handling: it would raise the signal again before the
    store is closed."""

    def __init__(self, config: uvicorn.Config, sock: socket.socket, server: Server) -> None:
        super().__init__(config)
        self._listener = Listener(
            sock, hand_over=self._hand_over, turn_away=server.turn_away, is_shedding=lambda: server.entrance.sheds
        )

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start, then take connections."""
        await super().startup(sockets or [])  # none of its own
        self._listener.open()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Take no more connections, then finish."""
        self.close()
        await self._listener.handed_over()
        await super().shutdown(sockets)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals to `serve`."""
        yield

    def close(self) -> None:
        """Take no more connections; again does no harm."""
        self._listener.close()

    def stop(self) -> None:
        """Finish the requests under way, take no more."""
        self.should_exit = True

    async def _hand_over(self, connection: socket.socket) -> None:
        await asyncio.get_running_loop().connect_accepted_socket(self._protocol, connection)

    def _protocol(self) -> asyncio.Protocol:
        config = self.config
        make: Callable[..., asyncio.Protocol] = config.http_protocol_class
        return make(config=config, server_state=self.server_state, app_state=self.lifespan.state)


async def serve(config: Config, *, ports: ServerPorts | None = None, on_ready: OnReady | None = None) -> None:
    """Serve until SIGINT or SIGTERM; requests under way are finished.

    Args:
        config: How to run.
        ports: The doors; the machine's own by default.
        on_ready: Called once with the server and its URL as soon as it answers.

    Raises:
        StoreInUse: another server holds the file.
        StoreFailed: the store cannot be used.
    """
    db = await open_store(config.store)
    try:
        ports = ports or ServerPorts()
        server = await open_server(config, db, ports, helper=_helper_of(config, ports))
        gc.freeze()  # what lives from here to the end need not be looked at again
        gc.set_threshold(*_GC_THRESHOLD)
        listener = socket.create_server((config.host, config.port), reuse_port=False, backlog=_BACKLOG)
        url = f"http://{config.host}:{listener.getsockname()[1]}"
        http = _Http(
            uvicorn.Config(
                create_app(server),
                http="httptools",
                ws="none",
                lifespan="on",
                log_level="warning",
                access_log=False,
                server_header=False,
                date_header=False,  # `Edge` sends it where it is of use
                proxy_headers=False,
                timeout_graceful_shutdown=20,
            ),
            listener,
            server,
        )
        serving = asyncio.create_task(http.serve())
        for number in _STOPPING:
            asyncio.get_running_loop().add_signal_handler(number, http.stop)
        try:
            while not http.started and not serving.done():
                await server.ports.clock.sleep_ms(5)
            if http.started:
                _tell_address(config.store, url)
                if on_ready is not None and inspect.isawaitable(told := on_ready(server, url)):
                    await told
            await serving
        finally:
            _tell_address(config.store, None)
            http.stop()
            try:
                await serving
            finally:
                http.close()
            for number in _STOPPING:
                asyncio.get_running_loop().remove_signal_handler(number)
    finally:
        await db.close()


def _helper_of(config: Config, ports: ServerPorts) -> Helper | None:
    """One for a store that no other process can settle, where there is a core for it."""
    if not config.consumes or not isinstance(config.store, Path) or _cores() == 1:
        return None
    return Helper(config.store, config.zone, ports.clock)


def _cores() -> int:
    """How many this process may use: a container or a service's affinity may leave it fewer than the machine has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _tell_address(store: StoreAddress, url: str | None) -> None:
    """Say beside a store that one process alone can open where that process answers; None: it has stopped."""
    if not isinstance(store, Path):
        return
    if url is None:
        address_file(store).unlink(missing_ok=True)
    else:
        write_private(address_file(store), url.encode())


def run(config: Config, *, on_ready: OnReady | None = None) -> None:
    """`serve` in a fresh event loop; returns after a graceful stop."""
    uvloop.run(serve(config, on_ready=on_ready))
