"""The listening socket while the entrance sheds: turned away in one piece, or handed over with every byte."""

from __future__ import annotations

import asyncio
import errno
import logging
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

import pytest

from clientcore.exchange import MEDIA_TYPE
from syncserver import listener as listener_module
from syncserver.listener import Listener, weigh
from tests.support.server.crowd import push_of
from tests.support.server.wait import until

ANSWER = b"HTTP/1.1 503 Service Unavailable\r\nconnection: close\r\ncontent-length: 5\r\n\r\nlater"
BODY = bytes(range(256)) * 2
LONGEST = bytes(16_383 - len(push_of(bytes(10_000))) + 10_000)  # one more, and more may stand behind it
OTHERS = [
    b"GET /status HTTP/1.1\r\nHost: hudur\r\n\r\n",
    b"POST /v1/enrol HTTP/1.1\r\nContent-Type: %b\r\nContent-Length: 3\r\n\r\nabc" % MEDIA_TYPE.encode(),
    b"POST /v1/sync HTTP/1.1\r\nContent-Type: text/plain\r\nContent-Length: 3\r\n\r\nabc",
    b"POST /v1/sync HTTP/1.1\r\nContent-Type: %b\r\n\r\nabc" % MEDIA_TYPE.encode(),
    b"POST /v1/sync HTTP/1.1\r\nContent-Type: %b\r\nTransfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\nabc"
    % MEDIA_TYPE.encode(),
    b"POST /v1/sync HTTP/1.1\r\nContent-Type: %b\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\nab"
    % MEDIA_TYPE.encode(),
    b"POST /v1/sync HTTP/1.1\r\nContent-Type: %b\r\nContent-Length: 90000\r\n\r\nabc" % MEDIA_TYPE.encode(),
    push_of(BODY) + push_of(BODY),
    push_of(LONGEST + b"."),
    b"\r\n\r\n",
    b"\x16\x03\x01 a TLS hello that went astray",
]


def test_a_request_says_itself_how_much_of_it_is_missing() -> None:
    """Cut anywhere, it wants more than there is and never more than the whole; whole, it has its body."""
    whole = push_of(BODY)
    head_end = whole.index(b"\r\n\r\n") + 4
    for at in range(1, len(whole)):
        assert weigh(whole[:at]) == (at + 1 if at < head_end else len(whole), None)
    assert weigh(whole) == (0, BODY)
    assert weigh(push_of(LONGEST)) == (0, LONGEST)


@pytest.mark.parametrize("request_bytes", OTHERS, ids=range(len(OTHERS)))
def test_what_is_no_plain_push_is_not_waited_for_and_has_no_body(request_bytes: bytes) -> None:
    """Pages, other routes, other types and encodings, bodies too long to peek at: the HTTP server's, at once."""
    assert weigh(request_bytes) == (0, None)


@dataclass(slots=True)
class Scene:
    """A listener, and what became of those who came to it."""

    port: int = 0
    sheds: bool = True
    is_full: bool = True
    asked: list[bytes] = field(default_factory=list)
    handed_over: list[bytes] = field(default_factory=list)
    looks: int = 0

    def turn_away(self, body: bytes) -> bytes | None:
        """As the server would."""
        self.asked.append(body)
        return ANSWER if self.is_full else None

    async def serve(self, connection: socket.socket) -> None:
        """What an HTTP server finds in the socket, up to the pause behind it; then it answers and closes."""
        loop, parts = asyncio.get_running_loop(), []
        with connection:
            with suppress(TimeoutError):
                async with asyncio.timeout(0.1):
                    while part := await loop.sock_recv(connection, 65_536):
                        parts.append(part)
            self.handed_over.append(b"".join(parts))
            with suppress(OSError):  # a phone that went away
                await loop.sock_sendall(connection, b"served")


class _Counting(Listener):
    """Counts how often it looks at somebody."""

    scene: Scene

    def _consider(self, connection: socket.socket) -> None:
        self.scene.looks += 1
        super()._consider(connection)


@asynccontextmanager
async def open_scene(sock: socket.socket | None = None) -> AsyncIterator[tuple[Scene, _Counting]]:
    """A scene that sheds, on a free port."""
    sock = sock or socket.create_server(("127.0.0.1", 0))
    scene = Scene(port=sock.getsockname()[1])
    listener = _Counting(sock, hand_over=scene.serve, turn_away=scene.turn_away, is_shedding=lambda: scene.sheds)
    listener.scene = scene
    listener.open()
    try:
        yield scene, listener
    finally:
        listener.close()


async def sent(scene: Scene, request: bytes) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A connection whose request is in the kernel before anybody can take it."""
    sock = socket.create_connection(("127.0.0.1", scene.port))
    sock.sendall(request)
    return await asyncio.open_connection(sock=sock)


async def settled(scene: Scene, look: Callable[[], object]) -> None:
    """Wait until something is so."""

    async def see() -> object:
        return look()

    await until(see, bool)


async def test_whoever_is_turned_away_gets_the_whole_answer_and_a_clean_end() -> None:
    """No reset overtakes the answer: everything that was sent had been read."""
    async with open_scene() as (scene, _):
        for _turn in range(50):
            reader, writer = await asyncio.open_connection("127.0.0.1", scene.port)
            writer.write(push_of(BODY))
            assert await reader.read() == ANSWER
            writer.close()
        assert scene.asked == [BODY] * 50
        assert scene.handed_over == []


@pytest.mark.parametrize("request_bytes", [push_of(BODY), *OTHERS], ids=range(len(OTHERS) + 1))
async def test_whoever_may_come_is_handed_over_with_every_byte(request_bytes: bytes) -> None:
    """A push that finds room, and everything that is no push: pages stay up while pushes are turned away."""
    async with open_scene() as (scene, _):
        scene.is_full = request_bytes != push_of(BODY)
        reader, writer = await asyncio.open_connection("127.0.0.1", scene.port)
        writer.write(request_bytes)
        assert await reader.read() == b"served"
        writer.close()
        await settled(scene, lambda: scene.handed_over)
        assert scene.handed_over == [request_bytes]
        assert scene.asked == ([] if scene.is_full else [BODY])


async def test_while_nobody_is_shed_nothing_is_looked_at() -> None:
    """Full or not: only the entrance's word that it sheds makes the listener look."""
    async with open_scene() as (scene, _):
        scene.sheds = False
        reader, writer = await sent(scene, push_of(BODY))
        assert await reader.read() == b"served"
        writer.close()
        assert (scene.asked, scene.looks) == ([], 0)


async def test_a_request_in_pieces_wakes_the_server_when_it_is_whole_and_not_for_every_piece() -> None:
    """Once its head says how long it is, the kernel waits for the rest."""
    async with open_scene() as (scene, listener):
        reader, writer = await asyncio.open_connection("127.0.0.1", scene.port)
        whole = push_of(BODY)
        head_end = whole.index(b"\r\n\r\n") + 4
        await settled(scene, lambda: listener._parked)
        writer.write(whole[:head_end])
        await settled(scene, lambda: max(parked.wanted for parked in listener._parked.values()) == len(whole))
        looks = scene.looks
        for at in range(head_end, len(whole) - 1, 7):
            writer.write(whole[at : min(at + 7, len(whole) - 1)])
            await writer.drain()
            assert (await round_trip(scene))[:8] == b"HTTP/1.1"  # somebody else came and was answered meanwhile
            looks += 1  # at that one
        assert scene.looks == looks
        writer.write(whole[-1:])
        assert await reader.read() == ANSWER
        writer.close()
        assert scene.looks == looks + 1
        assert listener._parked == {}


async def round_trip(scene: Scene) -> bytes:
    """A whole push on a connection of its own, turned away."""
    sock = socket.create_connection(("127.0.0.1", scene.port))
    sock.sendall(push_of(BODY))
    reader, writer = await asyncio.open_connection(sock=sock)
    answer = await reader.read()
    writer.close()
    return answer


@pytest.mark.parametrize("cut", [0, 10, 90, 300])
async def test_a_torn_request_is_handed_over_once_and_keeps_nobody_busy(cut: int) -> None:
    """Bytes that nobody takes away and an end behind them would wake an event loop for ever."""
    async with open_scene() as (scene, listener):
        _, writer = await asyncio.open_connection("127.0.0.1", scene.port)
        await settled(scene, lambda: listener._parked)
        writer.write(push_of(BODY)[:cut])
        writer.write_eof()
        await settled(scene, lambda: scene.handed_over)
        writer.close()
        assert scene.handed_over == [push_of(BODY)[:cut]]
        assert scene.looks <= 4
        assert (listener._parked, scene.asked) == ({}, [])


async def test_nobody_is_parked_for_ever_nor_without_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond its time, and beyond the room for those who wait, a slow request is the HTTP server's with its limits."""
    monkeypatch.setattr(listener_module, "_PARKED_MAX", 1)
    monkeypatch.setattr(listener_module, "_PARKED_S", 2.0)
    monkeypatch.setattr(listener_module, "_SWEEP_S", 0.02)
    async with open_scene() as (scene, listener):
        part = push_of(BODY)[:300]
        first = socket.create_connection(("127.0.0.1", scene.port))
        first.sendall(part)
        await settled(scene, lambda: listener._parked)
        second = socket.create_connection(("127.0.0.1", scene.port))
        second.sendall(part + b"second")
        await settled(scene, lambda: scene.handed_over)
        assert scene.handed_over == [part + b"second"]
        await settled(scene, lambda: len(scene.handed_over) == 2)
        assert scene.handed_over[1] == part
        assert listener._parked == {}
        first.close()
        second.close()


class _Full(socket.socket):
    """A listening socket of a process that has no descriptor left for a moment."""

    refusals = 3

    def accept(self) -> tuple[socket.socket, object]:
        if self.refusals:
            self.refusals -= 1
            raise OSError(errno.EMFILE, "Too many open files")
        return super().accept()


async def test_without_a_descriptor_it_waits_and_goes_on(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It neither spins nor dies, and it says so."""
    monkeypatch.setattr(listener_module, "_PAUSE_S", 0.02)
    sock = _Full()
    sock.bind(("127.0.0.1", 0))
    sock.listen()
    with caplog.at_level(logging.ERROR, logger="hudur.listener"):
        async with open_scene(sock) as (scene, _):
            assert await round_trip(scene) == ANSWER
    assert len(caplog.records) == 3
    assert "no connection can be taken" in caplog.text


async def test_a_fault_of_ours_hands_over_and_taking_goes_on(caplog: pytest.LogCaptureFixture) -> None:
    """Whatever befalls the question whether to turn away, the phone gets an answer by the usual road."""
    async with open_scene() as (scene, listener):

        def fault(_: bytes) -> bytes | None:
            raise ZeroDivisionError

        listener._turn_away = fault
        with caplog.at_level(logging.ERROR, logger="hudur.listener"):
            for _turn in range(2):
                assert await round_trip(scene) == b"served"
        assert scene.handed_over == [push_of(BODY)] * 2
        assert "ZeroDivisionError" in caplog.text


async def test_those_taken_before_the_end_are_handed_over_before_it() -> None:
    """The server that stops must know whom it has to answer."""
    async with open_scene() as (scene, listener):
        scene.sheds = False
        begun = asyncio.Event()
        serve = listener._hand_over

        async def slowly(connection: socket.socket) -> object:
            begun.set()
            return await serve(connection)

        listener._hand_over = slowly
        reader, writer = await sent(scene, push_of(BODY))
        await begun.wait()
        listener.close()
        assert scene.handed_over == []
        await listener.handed_over()
        assert scene.handed_over == [push_of(BODY)]
        assert await reader.read() == b"served"
        writer.close()


async def test_closing_ends_the_parked_and_refuses_the_next() -> None:
    """A phone that is parked sees its connection end: no answer, its work is on the phone, it comes again."""
    async with open_scene() as (scene, listener):
        reader, writer = await asyncio.open_connection("127.0.0.1", scene.port)
        await settled(scene, lambda: listener._parked)
        listener.close()
        assert await reader.read() == b""
        writer.close()
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection("127.0.0.1", scene.port)


@pytest.mark.parametrize(("sheds", "taken"), [(True, 200), (False, 128)])
async def test_while_it_sheds_a_round_takes_all_who_stand(sheds: bool, taken: int) -> None:
    """In the kernel's queue nobody is told anything, and pages stand behind; who is served takes a round's time."""
    with socket.create_server(("127.0.0.1", 0), backlog=512) as sock:
        async with open_scene(sock) as (scene, listener):
            scene.sheds = sheds
            phones = [socket.create_connection(("127.0.0.1", scene.port)) for _ in range(200)]
            for phone in phones:
                phone.sendall(push_of(BODY))
            listener._take()
            assert len(scene.asked) + len(listener._coming) == taken
            listener.close()
            await listener.handed_over()
            for phone in phones:
                phone.close()
