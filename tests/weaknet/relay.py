"""Connections handed on untouched: fair weather at a proxy, and the way out of a namespace."""

from __future__ import annotations

import asyncio
import socket
import struct

PIECE_BYTES = 65_536


def reset(writer: asyncio.StreamWriter) -> None:
    """Close with RST instead of FIN."""
    sock = writer.get_extra_info("socket")
    if sock is not None and sock.fileno() >= 0:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


class Relay:
    """Hands connections to `127.0.0.1:target`. Lives in one event loop."""

    def __init__(self, target: int) -> None:
        self._target = target
        self._open: set[asyncio.StreamWriter] = set()
        self._serving: set[asyncio.Task[None]] = set()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Relay one connection until both ends have closed, or one of them broke."""
        task = asyncio.current_task()
        assert task is not None
        self._serving.add(task)
        self._open.add(writer)
        far: asyncio.StreamWriter | None = None
        try:
            far_reader, far = await asyncio.open_connection("127.0.0.1", self._target)
            self._open.add(far)
            await asyncio.gather(_pump(reader, far), _pump(far_reader, writer))
        except OSError:
            reset(writer)  # nobody listens there: the near end is told so
        finally:
            for one in (writer, far):
                if one is not None:
                    self._open.discard(one)
                    one.transport.abort()
            self._serving.discard(task)

    async def end(self) -> None:
        """Reset what is open. Connections end, they are not cancelled: asyncio's streams complain of cancelled ones."""
        await asyncio.sleep(0)  # those accepted in this very turn of the loop begin
        while self._serving:
            for writer in list(self._open):
                reset(writer)
            await asyncio.wait(self._serving, timeout=0.05)  # one that is just reaching the server is ended next time
        await asyncio.sleep(0)  # aborted transports close in the loop's next turn


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(PIECE_BYTES):
            writer.write(data)
            await writer.drain()
    except OSError:
        pass  # reset by one end: the other one hears of it here
    writer.close()
