"""Checking: bytes of a push in, authentic frames and their parsed changes out. Nothing here is stored or told.

Invariants:
  1. Every frame is checked by itself: what is wrong with one request is told to that request alone.
  2. Nothing of a frame is parsed further than its shape before its signature was verified.

Requests that come in the same round of the event loop are checked together, step by step: the shapes of all, then the
signatures of all, then the changes of all. Each step is much code, and a processor that goes to and fro between them
for each request finds neither in its first caches (docs/decisions/0039).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

from clientcore.change import Admitted, Change, admit, is_actor_of, parse
from clientcore.errors import BadInput, ChangeRefused
from clientcore.exchange import read_sync
from clientcore.frame import Frame, FramedChange, parse_frame
from clientcore.limits import CHANGES_PER_FRAME_MAX
from clientcore.register import RegisterId
from syncserver.config import Config
from syncserver.errors import RequestProblem
from syncserver.store.devices import DeviceBook, Identity
from syncserver.store.log import Arrival, Entry

_ReadChange = Callable[[bytes], Change | Admitted]
# Requests of a lot, and bytes after which it takes no more: of one register each they hold the event loop for 5 ms.
_TOGETHER, _TOGETHER_BYTES = 32, 65_536


@dataclass(slots=True)
class _Waiting:
    """A request: its body, and step by step what it says and whose it is."""

    body: bytes
    done: asyncio.Future[None]
    frames: list[Frame] = field(default_factory=list)
    identity: Identity | None = None
    arrivals: list[Arrival] = field(default_factory=list)


class Checker:
    """Verifies and parses what devices sent.

    Args:
        config: The environment devices are bound to.
        book: Who devices are.
        settles: Whether this process settles however much comes: then what was read of a change is kept for a while.
    """

    def __init__(self, config: Config, book: DeviceBook, *, settles: bool) -> None:
        self._env, self._book = config.env, book
        self._settles = settles
        self._waiting: list[_Waiting] = []

    async def read(self, body: bytes) -> tuple[Identity, list[Arrival]]:
        """Check the frames of one device's sync request, cheapest check first, and parse their changes.

        Raises:
            FrameRefused: by shape or limits.
            RequestProblem: `unknown-device`, `wrong-audience`, `bad-signature`, `too-many-changes`, `bad-frame`.
        """
        one = _Waiting(body, asyncio.get_running_loop().create_future())
        await self._checked(one)
        if one.identity is None:  # not here since the server started: the others do not wait for the store
            one.identity = await self.identify(one.frames[0])
            one.done = asyncio.get_running_loop().create_future()
            await self._checked(one)
        return one.identity, one.arrivals

    async def _checked(self, one: _Waiting) -> None:
        if not self._waiting:
            asyncio.get_running_loop().call_soon(self._check_waiting)
        self._waiting.append(one)
        await one.done

    async def identify(self, frame: Frame) -> Identity:
        """The enrolled device a frame names.

        Raises:
            RequestProblem: `unknown-device`.
        """
        identity = await self._book.identity(frame.device)
        if identity is None:
            raise RequestProblem("unknown-device", "enrol again; the work on the device stays")
        return identity

    def check_audience(self, frame: Frame, identity: Identity) -> None:
        """Whether a frame is meant for us and signed by its device.

        Raises:
            RequestProblem: `wrong-audience`, `bad-signature`.
        """
        if frame.env != self._env or frame.school != identity.school:
            raise RequestProblem("wrong-audience", "made for another school or environment")
        if not frame.is_signed_by(identity.public_key):
            raise RequestProblem("bad-signature", "the frame was not signed by this device")

    def _check_waiting(self) -> None:
        together = self._take_lot()
        if self._waiting:
            asyncio.get_running_loop().call_soon(self._check_waiting)
        for step in (self._shape, self._verify, self._read):
            for one in together:
                _take(step, one)
        for one in together:
            if not one.done.done():
                one.done.set_result(None)

    def _take_lot(self) -> list[_Waiting]:
        count = size_bytes = 0
        while count < min(_TOGETHER, len(self._waiting)) and size_bytes < _TOGETHER_BYTES:
            size_bytes += len(self._waiting[count].body)
            count += 1
        lot, self._waiting = self._waiting[:count], self._waiting[count:]
        return lot

    def _shape(self, one: _Waiting) -> None:
        if one.frames:
            return
        frames = [parse_frame(raw) for raw in read_sync(one.body)]
        if sum(len(frame.changes) for frame in frames) > CHANGES_PER_FRAME_MAX:
            raise RequestProblem("too-many-changes", f"at most {CHANGES_PER_FRAME_MAX} changes in a request")
        if any(frame.device != frames[0].device for frame in frames):
            raise RequestProblem("bad-frame", "frames of several devices; a bundle carries those")
        one.frames, one.identity = frames, self._book.known(frames[0].device)

    def _verify(self, one: _Waiting) -> None:
        if one.identity is not None:
            for frame in one.frames:
                self.check_audience(frame, one.identity)

    def _read(self, one: _Waiting) -> None:
        if one.identity is not None:
            one.arrivals = [self.read_changes(frame, one.identity) for frame in one.frames]

    def read_changes(self, frame: Frame, identity: Identity, carrier: bytes | None = None) -> Arrival:
        """Parse each change of an authentic frame; a refused one becomes its slug and blocks nothing else.

        Args:
            frame: Its signature was verified.
            identity: Who signed it.
            carrier: See `Arrival`.
        """
        read: _ReadChange = parse if self._settles else admit
        entries: list[Entry | str] = []
        at = 0
        for framed in frame.changes:
            at = frame.signed.index(framed.chunk, at)
            entries.append(_enter(framed, frame.device, identity.school, at + 1, read))
            at += len(framed.chunk)
        return Arrival(frame=frame, school=identity.school, entries=tuple(entries), carrier=carrier)


def _take(step: Callable[[_Waiting], None], one: _Waiting) -> None:
    if one.done.done():  # refused, or whoever asked has gone
        return
    try:
        step(one)
    except Exception as error:  # theirs or ours: told to this request, and to no other
        one.done.set_exception(error)


def _enter(framed: FramedChange, device: bytes, school: str, chunk_at: int, read: _ReadChange) -> Entry | str:
    try:
        change = read(framed.chunk)
        if not is_actor_of(change.actor, device):
            return "actor"
        register = RegisterId.parse(f"{school}/{framed.register}")
    except ChangeRefused as refused:
        return refused.code
    except BadInput:
        return "register-mismatch"
    return Entry(
        hash=change.hash,
        class_id=register.class_id,
        date=register.date,
        session=register.session,
        chunk_at=chunk_at,
        chunk_bytes=len(framed.chunk),
        delegation=framed.delegation,
    )
