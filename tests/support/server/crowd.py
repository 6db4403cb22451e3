"""More requests at once than a server can carry: keep-alive connections that never wait, over real sockets."""

from __future__ import annotations

import asyncio
import re
from collections import deque
from dataclasses import dataclass, field

from clientcore.exchange import MEDIA_TYPE

_LENGTH = re.compile(rb"content-length: *(\d+)", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Reply:
    """What came back."""

    status: int
    head: bytes
    body: bytes

    def header(self, name: str) -> str:
        """A header's value; empty where there is none."""
        found = re.search(rb"\r\n" + name.encode() + rb": *([^\r]*)\r\n", self.head, re.IGNORECASE)
        return "" if found is None else found[1].decode()


async def exchange(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, raw: bytes) -> Reply:
    """One request and its reply on an open connection."""
    writer.write(raw)
    head = await reader.readuntil(b"\r\n\r\n")
    found = _LENGTH.search(head)
    return Reply(int(head[9:12]), head, await reader.readexactly(int(found[1])) if found else b"")


def push_of(body: bytes) -> bytes:
    """The raw request of a sync body."""
    head = f"POST /v1/sync HTTP/1.1\r\nHost: hudur\r\nContent-Type: {MEDIA_TYPE}\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


@dataclass(slots=True)
class Crowd:
    """Sends bodies by many connections at once; `taken` has the answer to each, by its place in `bodies`."""

    port: int
    bodies: list[bytes]
    taken: dict[int, Reply] = field(default_factory=dict)
    put_off: list[Reply] = field(default_factory=list)

    async def rush(self, *, connections: int, fresh: bool = False) -> None:
        """Send all of them. Nobody waits as they were told to: who is put off comes again at once.

        Args:
            connections: How many at once.
            fresh: Every try is a connection of its own.
        """
        left = deque(range(len(self.bodies)))

        async def one() -> None:
            reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
            while left:
                place = left.popleft()
                while (reply := await exchange(reader, writer, push_of(self.bodies[place]))).status == 503:
                    self.put_off.append(reply)
                    if fresh or reply.header("connection") == "close":
                        await _end(writer)
                        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
                self.taken[place] = reply
            await _end(writer)

        await asyncio.gather(*(one() for _ in range(connections)))


async def _end(writer: asyncio.StreamWriter) -> None:
    writer.close()
    await writer.wait_closed()


async def get(port: int, path: str) -> Reply:
    """One GET on a connection of its own."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    reply = await exchange(reader, writer, f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode())
    await _end(writer)
    return reply
