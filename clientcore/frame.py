"""The frame: what a device signs and sends, and bundles: frames in a file (docs/protocol.md section 3). Pure."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from clientcore.errors import FrameRefused
from clientcore.keys import SIGNATURE_BYTES, SigningKey, verify
from clientcore.limits import CHANGES_PER_FRAME_MAX, CHUNK_BYTES_MAX, FRAME_BYTES_MAX, HAVE_BYTES_MAX
from clientcore.register import is_id
from clientcore.wire import Value, pack, shape, unpack

TAG = "hudur1"
NO_PREV = bytes(16)
BUNDLE_MAGIC = b"HUDURB1\n"
_ENV = re.compile(r"[a-z0-9-]{1,16}")


@dataclass(frozen=True, slots=True, kw_only=True)
class ClockEvidence:
    """What the device's clocks said when it signed. Evidence, never authority.

    Attributes:
        wall_ms: Wall clock, UTC.
        mono_ms: Monotonic clock since the app session began.
        session: 8 bytes naming the app session.
        beacon: (server_ms, mono_ms at its arrival) of the last answer of this app session, or None.
    """

    wall_ms: int
    mono_ms: int
    session: bytes
    beacon: tuple[int, int] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class FramedChange:
    """One change in a frame: `register` is `class/date/session`; `chunk` is not parsed here."""

    register: str
    chunk: bytes
    delegation: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """The device's request to be told what it lacks (docs/protocol.md section 3, field 8)."""

    nonce: bytes | None
    cursor: bytes | None
    have: bytes | None
    app: str | None
    unsent: int
    done: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Frame:
    """A parsed frame. Its signature has *not* been checked until `is_signed_by` said so.

    Attributes:
        signed: The bytes under the signature.
        signature: 64 bytes, r ‖ s.
        hash: SHA-256 of `signed`: the frame's identity.
    """

    env: str
    school: str
    device: bytes
    number: int
    prev: bytes
    clock: ClockEvidence
    changes: tuple[FramedChange, ...]
    ask: Ask | None
    signed: bytes
    signature: bytes
    hash: bytes

    @property
    def raw(self) -> bytes:
        """The frame as it travels."""
        return self.signed + self.signature

    def is_signed_by(self, public_key: bytes) -> bool:
        """Whether the owner of `public_key` signed this frame."""
        return verify(public_key, self.signed, self.signature)


def seal_frame(
    key: SigningKey,
    *,
    env: str,
    school: str,
    device: bytes,
    number: int,
    prev: bytes,
    clock: ClockEvidence,
    changes: Sequence[FramedChange],
    ask: Ask | None,
) -> Frame:
    """Build and sign a frame.

    Raises:
        FrameRefused: when it would break the protocol's limits; nothing is signed then.
    """
    body: list[Value] = [
        TAG,
        env,
        school,
        device,
        number,
        prev,
        [clock.wall_ms, clock.mono_ms, clock.session, None if clock.beacon is None else list(clock.beacon)],
        [[change.register, change.delegation, change.chunk] for change in changes],
        None if ask is None else [ask.nonce, ask.cursor, ask.have, ask.app, ask.unsent, ask.done],
    ]
    signed = pack(body)
    unsigned = parse_frame(signed + bytes(SIGNATURE_BYTES))
    return parse_frame(unsigned.signed + key.sign(signed))


def parse_frame(raw: bytes) -> Frame:
    """Read a frame's fields by shape and limits; neither the signature nor the changes are looked into.

    Raises:
        FrameRefused: `bad-frame`, `frame-limits`, `version`, `too-many-changes`.
    """
    if not SIGNATURE_BYTES < len(raw) <= FRAME_BYTES_MAX:
        raise FrameRefused("frame-limits", f"a frame has at most {FRAME_BYTES_MAX} bytes")
    signed, signature = raw[:-SIGNATURE_BYTES], raw[-SIGNATURE_BYTES:]
    value = unpack(signed, bytes_max=CHUNK_BYTES_MAX)
    _check_tag(value)
    _, env, school, device, number, prev, clock, changes, ask = shape(
        value, str, str, str, 16, int, 16, list, list, (list, None)
    )
    if _ENV.fullmatch(env) is None or not is_id(school) or number < 1:
        raise FrameRefused("bad-frame", "environment, school or number")
    if len(changes) > CHANGES_PER_FRAME_MAX:
        raise FrameRefused("too-many-changes", f"{len(changes)} changes")
    return Frame(
        env=env,
        school=school,
        device=device,
        number=number,
        prev=prev,
        clock=_clock(clock),
        changes=tuple(_change(change) for change in changes),
        ask=None if ask is None else _ask(ask),
        signed=signed,
        signature=signature,
        hash=hashlib.sha256(signed).digest(),
    )


def _check_tag(value: Any) -> None:
    tag = value[0] if type(value) is list and value else None
    if tag != TAG:
        known_family = type(tag) is str and tag.startswith("hudur")
        raise FrameRefused("version" if known_family else "bad-frame", f"tag {tag!r:.40}")


def _clock(value: Any) -> ClockEvidence:
    wall_ms, mono_ms, session, beacon = shape(value, int, int, 8, (list, None))
    if beacon is not None:
        server_ms, came_ms = shape(beacon, int, int)
        beacon = (server_ms, came_ms)
    if mono_ms < 0:
        raise FrameRefused("bad-frame", "monotonic clock below zero")
    return ClockEvidence(wall_ms=wall_ms, mono_ms=mono_ms, session=session, beacon=beacon)


def _change(value: Any) -> FramedChange:
    register, delegation, chunk = shape(value, str, (str, None), bytes)
    if len(register) > 64 or (delegation is not None and len(delegation) > 36):
        raise FrameRefused("frame-limits", "register or delegation")
    return FramedChange(register=register, chunk=chunk, delegation=delegation)


def _ask(value: Any) -> Ask:
    nonce, cursor, have, app, unsent, done = shape(
        value, (8, None), (bytes, None), (bytes, None), (str, None), int, int
    )
    if len(cursor or b"") > 32 or len(app or "") > 16 or min(unsent, done) < 0:
        raise FrameRefused("frame-limits", "ask")
    if have is not None and (len(have) % 8 or len(have) > HAVE_BYTES_MAX):
        raise FrameRefused("frame-limits", "have")
    return Ask(nonce=nonce, cursor=cursor, have=have, app=app, unsent=unsent, done=done)


@dataclass(frozen=True, slots=True, kw_only=True)
class Bundle:
    """Frames read from a file. `truncated`: the file was cut short; the whole frames before the cut are here."""

    frames: tuple[bytes, ...]
    truncated: bool


def write_bundle(frames: Sequence[bytes]) -> bytes:
    """The bundle file of raw frames."""
    return BUNDLE_MAGIC + b"".join(len(frame).to_bytes(4, "big") + frame for frame in frames)


def read_bundle(data: bytes) -> Bundle:
    """Read a bundle file; frames are not looked into.

    Raises:
        FrameRefused: `not-an-export` when the file is something else, `frame-limits` when a length is impossible.
    """
    if not data.startswith(BUNDLE_MAGIC):
        raise FrameRefused("not-an-export", "this file is not a Hudur bundle")
    frames: list[bytes] = []
    at = len(BUNDLE_MAGIC)
    while at < len(data):
        length = int.from_bytes(data[at : at + 4], "big")
        if len(data) >= at + 4 and not SIGNATURE_BYTES < length <= FRAME_BYTES_MAX:
            raise FrameRefused("frame-limits", f"a frame of {length} bytes in the bundle")
        if len(data) < at + 4 + length or len(data) < at + 4:
            return Bundle(frames=tuple(frames), truncated=True)
        frames.append(data[at + 4 : at + 4 + length])
        at += 4 + length
    return Bundle(frames=tuple(frames), truncated=False)
