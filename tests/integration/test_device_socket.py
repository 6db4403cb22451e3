"""The network adapter over a real socket, and the device killed while it works."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest

from clientcore.errors import TransportError
from clientcore.exchange import MEDIA_TYPE
from clientcore.http import ANSWER_BYTES_MAX, HttpNetwork
from clientcore.ports import ManualClock, SystemClock
from tests.support.devices import enrolled, open_phone
from tests.support.fake_server import CLASS, FakeServer

Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def listening(serve: Serve) -> AsyncIterator[str]:
    """A server at an address; when it ends nothing of a connection is left for the garbage collector to complain of."""
    open_ones: list[asyncio.StreamWriter] = []

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        open_ones.append(writer)
        try:
            await serve(reader, writer)
        except ConnectionError:
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    host, port = server.sockets[0].getsockname()[:2]
    try:
        yield f"http://{host}:{port}"
    finally:
        server.close()
        await server.wait_closed()
        while others := asyncio.all_tasks() - {asyncio.current_task()}:  # accepting one begins another
            await asyncio.gather(*others, return_exceptions=True)
        for writer in open_ones:
            writer.transport.abort()  # a client that went away in the middle leaves bytes that would never be flushed
            with suppress(ConnectionError):
                await writer.wait_closed()


async def read_request(reader: asyncio.StreamReader) -> tuple[bytes, bytes]:
    head = await reader.readuntil(b"\r\n\r\n")
    length = next(int(line[15:]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:"))
    return head, await reader.readexactly(length)


def answering(raw: bytes) -> Serve:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(raw)
        await writer.drain()

    return serve


async def post(url: str, body: bytes = b"x", deadline_s: float = 5) -> object:
    async with HttpNetwork(url, SystemClock()) as network:
        return await network.post("/v1/sync", body, content_type=MEDIA_TYPE, deadline_s=deadline_s)


async def test_a_request_says_what_it_is_and_the_reply_comes_as_it_was() -> None:
    """Path, type and body arrive; status, type without parameters, Retry-After and body come back."""
    seen: list[tuple[bytes, bytes]] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen.append(await read_request(reader))
        writer.write(
            b"HTTP/1.1 503 No\r\nContent-Type: Text/HTML; charset=x\r\nRetry-After: 7\r\nContent-Length: 2\r\n\r\nhi"
        )
        await writer.drain()

    async with listening(serve) as url, HttpNetwork(url, SystemClock()) as network:
        reply = await network.post("/v1/sync", b"body", content_type=MEDIA_TYPE, deadline_s=5)
    assert (reply.status, reply.content_type, reply.retry_after_s, reply.body) == (503, "text/html", 7.0, b"hi")
    [(head, body)] = seen
    assert head.startswith(b"POST /v1/sync HTTP/1.1\r\n")
    assert f"content-type: {MEDIA_TYPE}".encode() in head
    assert b"accept-encoding: identity" in head
    assert body == b"body"


async def test_a_redirect_is_not_followed() -> None:
    """A portal's redirect comes back as it is; signed frames never go to a stranger."""
    answer = b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/portal\r\nContent-Length: 0\r\n\r\n"
    async with listening(answering(answer)) as url, HttpNetwork(url, SystemClock()) as network:
        assert (await network.post("/", b"", content_type=MEDIA_TYPE, deadline_s=5)).status == 302


@pytest.mark.parametrize(
    ("raw", "code"),
    [
        (b"", "broken"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nshort", "broken"),
        (b"garbage\r\n\r\n", "broken"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9999999\r\n\r\n" + bytes(ANSWER_BYTES_MAX + 1), "broken"),
    ],
)
async def test_a_broken_reply_is_no_reply(raw: bytes, code: str) -> None:
    """Nothing, a cut body, garbage and a flood end with a typed error."""
    async with listening(answering(raw)) as url:
        with pytest.raises(TransportError) as failed:
            await post(url)
    assert failed.value.code == code


async def test_silence_ends_at_the_deadline_and_nobody_listening_is_offline() -> None:
    """Silence, not reset, is the usual death: the whole request has one deadline."""
    forever = asyncio.Event()

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await forever.wait()

    async with listening(silent) as url:
        with pytest.raises(TransportError) as failed:
            await post(url, deadline_s=1.0)  # the connection itself must not be what is cut off
        forever.set()
    assert failed.value.code == "timeout"
    with pytest.raises(TransportError) as failed:
        await post(url)
    assert failed.value.code == "offline"


KILLED = """
import asyncio, os, signal, sys
from pathlib import Path
from clientcore.log import Log
from tests.support.devices import absent, open_phone
from tests.support.fake_server import FakeServer, offline
from clientcore.ports import ManualClock

die_at = int(sys.argv[2])
count = 0
original = Log._catch_up

def counted(self):
    global count
    count += 1
    if count == die_at:
        os.kill(os.getpid(), signal.SIGKILL)
    return original(self)

clock = ManualClock()
server = FakeServer(clock)
server.before = offline
phone = open_phone(Path(sys.argv[1]), server, clock, seed=die_at + 100)
Log._catch_up = counted
phone.take(absent("s001", "s002", "s003"))
print("saved", flush=True)
asyncio.run(phone.device.sync())
print("tried", flush=True)
"""


@pytest.mark.process
@pytest.mark.parametrize("die_at", [1, 3, 4, 6, 7, 8, 9, 10, 11])
async def test_kill_9_inside_any_act_keeps_every_act_before_it(tmp_path: Path, die_at: int) -> None:
    """Killed inside the n-th transaction of taking and sending: the next start sends exactly what was saved, once."""
    clock = ManualClock()
    server = FakeServer(clock)
    phone = await enrolled(open_phone(tmp_path / "a", server, clock, seed=1))
    phone.close()
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", KILLED, str(tmp_path / "a"), str(die_at)],
        cwd=root,
        env={**os.environ, "PYTHONPATH": str(root)},
        capture_output=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    phone = open_phone(tmp_path / "a", server, clock, seed=2)
    state = phone.device.state
    assert state.unreadable == 0
    saved = {key for register in state.registers.values() for key in register.values()}
    if b"saved" in done.stdout:
        assert len(saved) == 41
    assert (await phone.sync()).outcome == "ok"
    if saved:
        assert server.visible(f"{CLASS}/2026-11-22/day").keys() == saved
    assert phone.device.state.pending == 0
    assert len({name for name, _, _ in server.stored.values()}) == bool(saved)
    phone.close()
