"""A consumer of webhooks: a real HTTP server on a loopback port that notes what it got and answers as it is told."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

Answer = tuple[int, dict[str, str]]
Answering = Callable[["Got"], Awaitable[Answer]]


@dataclass(frozen=True, slots=True)
class Got:
    """One request as it came."""

    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def events(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = json.loads(self.body)
        return found

    @property
    def sequences(self) -> list[int]:
        return [int(event["sequence"]) for event in self.events]


async def takes(_: Got) -> Answer:
    return 204, {}


@dataclass(slots=True)
class Consumer:
    """Everything it got, in order; `answering` may be exchanged while it runs, `tail` is sent as the body."""

    answering: Answering = takes
    got: list[Got] = field(default_factory=list)
    url: str = ""
    tail: bytes = b""
    _more: asyncio.Condition = field(default_factory=asyncio.Condition)

    def say(self, status: int, **headers: str) -> None:
        """Answer like this from now on."""

        async def answer(_: Got) -> Answer:
            return status, {name.replace("_", "-"): value for name, value in headers.items()}

        self.answering = answer

    async def until(self, done: Callable[[list[Got]], bool]) -> list[Got]:
        """Wait for what it got to be `done`."""
        async with asyncio.timeout(15), self._more:
            await self._more.wait_for(lambda: done(self.got))
        return list(self.got)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
                headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:])}
                body = await reader.readexactly(int(headers.get("content-length", "0")))
                got = Got(head[0].split(" ")[1], headers, body)
                async with self._more:
                    self.got.append(got)
                    self._more.notify_all()
                status, more = await self.answering(got)
                lines = [f"HTTP/1.1 {status} said", f"content-length: {len(self.tail)}"]
                lines += [f"{name}: {value}" for name, value in more.items()]
                writer.write("\r\n".join([*lines, "", ""]).encode() + self.tail)
                await writer.drain()
        writer.close()


@asynccontextmanager
async def open_consumer() -> AsyncIterator[Consumer]:
    """One that takes everything until it is told otherwise."""
    consumer = Consumer()
    serving: set[asyncio.Task[None]] = set()

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(consumer._serve(reader, writer))
        serving.add(task)
        task.add_done_callback(serving.discard)
        task.add_done_callback(lambda _: writer.close())

    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    consumer.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/hook"
    try:
        yield consumer
    finally:
        server.close()
        for task in list(serving):
            task.cancel()
        await asyncio.gather(*serving, return_exceptions=True)
