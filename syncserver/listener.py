"""The listening socket: takes all who come, and turns away, before anything is made for them, whom the entrance would.

Invariants:
  1. While nobody is shed every connection is handed over untouched, and from then on it is no longer known here.
  2. Whoever is turned away here would have been turned away by `Entrance.enter` as well, as far as that can be known
     while others are on their way, and gets the same answer.
  3. Of a request that is handed over no byte was taken from the socket.
  4. Nobody is parked for longer than `_PARKED_S` and a sweep, nor more than `_PARKED_MAX`.

Why not the event loop's own server: libuv takes one connection in each round of its loop (since 1.45), so under load
phones stand in the kernel's queue, unseen by the entrance. And a request that went through an HTTP protocol, a task and
two layers of ASGI costs many times what a socket costs that is read, answered and closed; a slow one, whose request
comes in pieces, more than a push (docs/decisions/0037).
"""

from __future__ import annotations

import asyncio
import logging
import re
import socket
from collections.abc import Callable, Coroutine
from functools import lru_cache
from typing import NamedTuple

from clientcore.exchange import MEDIA_TYPE, SYNC_PATH

_LOG = logging.getLogger("hudur.listener")
_TAKEN_IN_A_ROUND = 128  # so the loop comes back to those it has taken within some milliseconds
# Nearly all of them are turned away, at 15 to 30 µs each; whoever stands in the kernel is told nothing.
_TAKEN_WHILE_SHEDDING = 1_024
_PEEKED_BYTES = 16_384  # a register needs a thousand; what fills it, and may go on behind it, is handed over
_PARKED_MAX, _PARKED_S, _SWEEP_S = 8_192, 10.0, 1.0  # then the server's own limits for slow requests begin
_HEAD_MAX, _HEADS_MAX = 2_048, 256  # phones' heads are all but equal: each is read once
_PAUSE_S = 1.0  # without a file descriptor nobody can be taken: wait until others have gone
_HEAD = f"POST {SYNC_PATH} HTTP/1.1\r\n".encode()
_LENGTH = re.compile(rb"\r\ncontent-length:[ \t]*([0-9]{1,6})[ \t]*\r\n", re.IGNORECASE)
_TYPE = re.compile(rb"\r\ncontent-type:[ \t]*" + re.escape(MEDIA_TYPE.encode()) + rb"[ \t]*\r\n", re.IGNORECASE)
_OTHERWISE = re.compile(rb"\r\n(?:content-encoding|transfer-encoding|expect):", re.IGNORECASE)
# Numbers, not flags: to join two of those costs a microsecond each time.
_PEEK, _NOW = int(socket.MSG_PEEK | socket.MSG_DONTWAIT), int(socket.MSG_DONTWAIT)
_WITH_THE_CLOSE = _NOW | getattr(socket, "MSG_MORE", 0)  # the close behind it sends it, and both are one packet

HandOver = Callable[[socket.socket], Coroutine[None, None, object]]
TurnAway = Callable[[bytes], bytes | None]


@lru_cache(_HEADS_MAX)
def _body_bytes(head: bytes) -> int:
    """How long the body of a plain sync request is, by its head; -1 for every other request."""
    length = _LENGTH.search(head)
    if length is None or not head.startswith(_HEAD) or not _TYPE.search(head) or _OTHERWISE.search(head):
        return -1
    return int(length[1])


def weigh(request: bytes) -> tuple[int, bytes | None]:
    """How far a request that may be a plain push has come.

    Returns:
        How many bytes it must have before it is worth another look, or 0: no more are waited for.
        Its body, if it is a plain sync request that is all there and nothing behind it.
    """
    size = len(request)
    end = request.find(b"\r\n\r\n") + 4
    if end < 4:
        is_ours = request.startswith(_HEAD) or _HEAD.startswith(request)
        return (size + 1 if is_ours and size < _HEAD_MAX else 0), None
    whole = end + _body_bytes(request[: end - 2])
    if size == whole < _PEEKED_BYTES:
        return 0, request[end:]
    return (whole if size < whole < _PEEKED_BYTES else 0), None


class _Parked(NamedTuple):
    since_s: float
    wanted: int


class Listener:
    """Takes connections off a listening socket.

    Args:
        sock: It listens already; closed by `close`.
        hand_over: Serves a connection.
        turn_away: The whole answer for a body that is turned away; None lets it come.
        is_shedding: Whether to ask.
    """

    def __init__(
        self, sock: socket.socket, *, hand_over: HandOver, turn_away: TurnAway, is_shedding: Callable[[], bool]
    ) -> None:
        self._sock, self._hand_over, self._turn_away, self._is_shedding = sock, hand_over, turn_away, is_shedding
        self._loop: asyncio.AbstractEventLoop | None = None
        self._again: asyncio.TimerHandle | None = None
        self._sweep: asyncio.TimerHandle | None = None
        self._coming: set[asyncio.Task[object]] = set()
        self._parked: dict[socket.socket, _Parked] = {}  # the oldest first

    def open(self) -> None:
        """Take connections from now on, in the running loop."""
        self._sock.setblocking(False)
        self._sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # inherited by what is accepted
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._sock.fileno(), self._take)

    def close(self) -> None:
        """Take no more; those handed over are not touched. Whoever is parked or in the kernel's queue is refused."""
        if self._loop is None:
            self._sock.close()
            return
        self._loop.remove_reader(self._sock.fileno())
        for timer in (self._again, self._sweep):
            if timer is not None:
                timer.cancel()
        for connection in [*self._parked]:
            self._unpark(connection)
            connection.close()
        self._sock.close()
        self._loop = None

    async def handed_over(self) -> None:
        """Wait until those that were taken are known to the server."""
        await asyncio.gather(*self._coming, return_exceptions=True)

    def _take(self) -> None:
        sheds = self._is_shedding()
        for _ in range(_TAKEN_WHILE_SHEDDING if sheds else _TAKEN_IN_A_ROUND):
            try:
                connection, _address = self._sock.accept()
            except BlockingIOError:
                return
            except ConnectionError:  # it went away while it waited
                continue
            except OSError as error:
                self._pause(error)
                return
            if sheds:
                self._consider(connection)
            else:
                self._pass_on(connection)

    # ---- while the entrance sheds --------------------------------------------------------------------------------

    def _consider(self, connection: socket.socket) -> None:
        try:
            request = connection.recv(_PEEKED_BYTES, _PEEK)
            wanted, body = weigh(request) if request else (0, None)
        except BlockingIOError:
            request, wanted, body = b"", 1, None
        except OSError:  # it went away
            self._unpark(connection)
            connection.close()
            return
        if wanted and self._park(connection, wanted):
            return
        self._unpark(connection)
        answer = None if body is None else self._answer_to(body)
        if answer is None:
            self._pass_on(connection)
        else:
            _answer(connection, len(request), answer)

    def _answer_to(self, body: bytes) -> bytes | None:
        try:
            return self._turn_away(body)
        except Exception as fault:  # ours: the usual road says so to the phone, and taking goes on
            _LOG.error("cannot say whether to turn away: %r", fault)
            return None

    def _park(self, connection: socket.socket, wanted: int) -> bool:
        """Wait for the rest in the kernel, which wakes us no sooner than so many bytes are there, or no more will come.

        Returns False when the latter is so, or there is no room.
        """
        assert self._loop is not None
        parked = self._parked.get(connection)
        if parked is None:
            if len(self._parked) >= _PARKED_MAX:
                return False
            self._loop.add_reader(connection.fileno(), self._consider, connection)
            if self._sweep is None:
                self._sweep = self._loop.call_later(_PARKED_S, self._hand_over_slow)
        elif wanted <= parked.wanted:
            return False
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, wanted)
        self._parked[connection] = _Parked(self._loop.time() if parked is None else parked.since_s, wanted)
        return True

    def _unpark(self, connection: socket.socket) -> None:
        if self._parked.pop(connection, None) is not None:
            assert self._loop is not None
            self._loop.remove_reader(connection.fileno())
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, 1)

    def _hand_over_slow(self) -> None:
        assert self._loop is not None
        self._sweep = None
        until_s = self._loop.time() - _PARKED_S
        late = [connection for connection, parked in self._parked.items() if parked.since_s <= until_s]
        for connection in late[:_TAKEN_IN_A_ROUND]:
            self._unpark(connection)
            self._pass_on(connection)
        if self._parked:
            wait_s = _SWEEP_S if len(late) <= _TAKEN_IN_A_ROUND else 0
            self._sweep = self._loop.call_later(wait_s, self._hand_over_slow)

    # ---- handing over --------------------------------------------------------------------------------------------

    def _pass_on(self, connection: socket.socket) -> None:
        assert self._loop is not None
        connection.setblocking(False)
        task = self._loop.create_task(self._hand_over(connection))
        self._coming.add(task)
        task.add_done_callback(lambda done: self._passed_on(done, connection))

    def _passed_on(self, task: asyncio.Task[object], connection: socket.socket) -> None:
        self._coming.discard(task)
        if task.cancelled():
            connection.close()
        elif (error := task.exception()) is not None:
            connection.close()
            if not isinstance(error, OSError):
                _LOG.error("a connection could not be served: %r", error)

    def _pause(self, error: OSError) -> None:
        _LOG.error("no connection can be taken for %.0f s: %s", _PAUSE_S, error)
        assert self._loop is not None
        self._loop.remove_reader(self._sock.fileno())
        self._again = self._loop.call_later(_PAUSE_S, self.open)


def _answer(connection: socket.socket, unread_bytes: int, answer: bytes) -> None:
    try:
        connection.recv(unread_bytes, _NOW)  # closing over unread bytes would reset the answer too
        connection.send(answer, _WITH_THE_CLOSE)
    except OSError:  # it went away: its work is on the phone
        pass
    finally:
        connection.close()
