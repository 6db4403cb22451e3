"""Reading a request's body: limits before bytes, bytes before time is up.

Written against ASGI itself, not a request object: this is the hot road of a school morning.
"""

from __future__ import annotations

import asyncio
import types
from collections.abc import Awaitable, Callable, Coroutine, Generator
from typing import Any, TypeVar

from starlette.types import Receive, Scope, Send

from clientcore.errors import FrameRefused
from clientcore.exchange import MEDIA_TYPE
from clientcore.limits import BODY_DEADLINE_S
from reconciliation.wire import iso
from syncserver.entrance import LATER, Asked, Busy, Entrance
from syncserver.errors import RequestProblem
from syncserver.problems import write_problem
from syncserver.store.replica import AS_OF

_MEDIA_TYPE = MEDIA_TYPE.encode()
ANSWER_HEADERS = ((b"content-type", _MEDIA_TYPE), (b"cache-control", b"no-store"))
# Written once: while the server sheds, this is what nearly everybody gets, and each must cost next to nothing.
_BUSY = write_problem(Busy(retry_after_s=1))
_BUSY_BODY = {"type": "http.response.body", "body": _BUSY.body}
_BUSY_HEADERS = (
    *((name.encode(), value.encode()) for name, value in _BUSY.headers.items() if name != "retry-after"),
    (b"content-length", b"%d" % len(_BUSY.body)),
)

# The same without an HTTP server, for whoever is turned away before there is one.
_BUSY_HEAD = b"".join(
    [
        b"HTTP/1.1 503 Service Unavailable\r\nconnection: close\r\n",
        *(b"%b: %b\r\n" % header for header in _BUSY_HEADERS),
    ]
)

Answer = Callable[[bytes], Awaitable[bytes]]
T = TypeVar("T")


class DeviceRoute:
    """An endpoint of devices: one body of our media type in, one signed body out.

    Args:
        answer: Makes the answer, once it is the request's turn.
        bytes_max: Longest body.
        entrance: Where a request waits for its turn.
        asked: What a body asks for, seen from outside; by default what can wait.
    """

    def __init__(
        self, answer: Answer, bytes_max: int, entrance: Entrance, asked: Callable[[bytes], Asked] = lambda _: LATER
    ) -> None:
        self._answer, self._bytes_max, self._entrance, self._asked = answer, bytes_max, entrance, asked

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request; errors become problems further out."""
        check_head(scope, self._bytes_max)
        request = await read_body(receive, self._bytes_max)
        try:
            visit = await self._entrance.enter(self._asked(request), len(request))
        except Busy as busy:
            await _send_busy(busy.retry_after_s, send)
            return
        AS_OF.set(None)
        try:
            body = await self._answer(request)
        finally:
            self._entrance.leave(visit)
        headers = [*ANSWER_HEADERS, (b"content-length", b"%d" % len(body))]
        if (as_of_ms := AS_OF.get()) is not None:
            headers.append((b"hudur-as-of", iso(as_of_ms).encode()))
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})


async def _send_busy(after_s: int, send: Send) -> None:
    headers = [*_BUSY_HEADERS, (b"retry-after", b"%d" % after_s)]
    await send({"type": "http.response.start", "status": _BUSY.status, "headers": headers})
    await send(_BUSY_BODY)


def busy_bytes(after_s: int) -> bytes:
    """The whole HTTP answer to whoever is asked to come again after so many seconds; the connection ends with it."""
    return b"%bretry-after: %d\r\n\r\n%b" % (_BUSY_HEAD, after_s, _BUSY.body)


def check_head(scope: Scope, bytes_max: int) -> None:
    """What the headers alone tell.

    Raises:
        RequestProblem: `media-type`, `too-large`.
    """
    content_type, declared, encoded = b"", b"0", False
    for name, value in scope["headers"]:
        if name == b"content-type":
            content_type = value
        elif name == b"content-length":
            declared = value
        elif name == b"content-encoding":
            encoded = True
    if (content_type != _MEDIA_TYPE and content_type.split(b";")[0].strip().lower() != _MEDIA_TYPE) or encoded:
        raise RequestProblem("media-type", f"send {MEDIA_TYPE}, not encoded")
    if not declared.isdigit() or len(declared) > 12 or int(declared) > bytes_max:
        raise RequestProblem("too-large", f"at most {bytes_max} bytes")


async def read_body(receive: Receive, bytes_max: int) -> bytes:
    """The body, streamed; never more than `bytes_max` of it is kept.

    Raises:
        RequestProblem: `too-large`, `slow-body`.
        FrameRefused: `bad-frame` when the connection ended before the body did.
    """
    reading = _read_all(receive, bytes_max)
    try:
        waits_for = reading.send(None)
    except StopIteration as done:  # nearly always it is all there, and a deadline would cost 3% of a push
        body: bytes = done.value
        return body
    try:
        async with asyncio.timeout(BODY_DEADLINE_S):
            return await _going_on(reading, waits_for)
    except TimeoutError:
        raise RequestProblem("slow-body", f"the body took longer than {BODY_DEADLINE_S} s") from None


async def _read_all(receive: Receive, bytes_max: int) -> bytes:
    parts: list[bytes] = []
    room = bytes_max
    while True:
        message = await receive()
        if message["type"] != "http.request":
            raise FrameRefused("bad-frame", "the body was cut short")
        part = message.get("body", b"")
        room -= len(part)
        if room < 0:
            raise RequestProblem("too-large", f"at most {bytes_max} bytes")
        parts.append(part)
        if not message.get("more_body", False):
            return b"".join(parts)


@types.coroutine
def _going_on(begun: Coroutine[Any, Any, T], waits_for: Any) -> Generator[Any, Any, T]:
    """Await a coroutine that was begun by hand and waits for something now."""
    try:
        while True:
            try:
                given = yield waits_for
            except BaseException as thrown:  # the deadline, or whoever asked has gone: it ends where it waits
                waits_for = begun.throw(thrown)
            else:
                waits_for = begun.send(given)
    except StopIteration as done:
        result: T = done.value
        return result
