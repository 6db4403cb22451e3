"""One sync conversation, both roles: values to bytes and bytes to values (docs/protocol.md sections 4, 6, 7, 8). Pure.

The device builds requests and reads answers; the server reads requests and builds answers. Nothing here decides.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from clientcore.errors import FrameRefused
from clientcore.keys import PUBLIC_KEY_BYTES, SIGNATURE_BYTES, SigningKey, verify
from clientcore.limits import (
    BUNDLE_BYTES_MAX,
    FRAME_BYTES_MAX,
    FRAMES_PER_REQUEST_MAX,
    PAYLOAD_BYTES_MAX,
)
from clientcore.register import is_id
from clientcore.wire import Value, pack, shape, unpack

MEDIA_TYPE = "application/x-hudur"
SYNC_PATH = "/v1/sync"

DURABLE, DUPLICATE, HELD, REFUSED = range(4)
_DIGITS = re.compile(r"[0-9]+")


@dataclass(frozen=True, slots=True)
class Verdict:
    """The server's word on one change: DURABLE, DUPLICATE, HELD or REFUSED; `slug` says why for the last two."""

    kind: int
    slug: str | None = None

    @property
    def is_safe(self) -> bool:
        """Whether the server holds the change on disk."""
        return self.kind != REFUSED


Receipts = tuple[tuple[Verdict, ...] | str, ...]
"""One entry a frame: verdicts in the order of its changes, or (bundles only) the slug of a frame that was not taken."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What the server signed.

    Attributes:
        request: First 16 bytes of SHA-256 of the request body it answers.
        server_ms: Server time, UTC.
        epoch: Log epoch; rises at every restore.
        nonce: For the next ask or call.
        last_number: Highest frame number the server has of this device.
        receipts: See `Receipts`.
        head: First 16 bytes of the audit chain's head, or None.
        payload: What was pulled or asked for, or None; its digest is under the signature.
    """

    request: bytes
    server_ms: int
    epoch: int
    nonce: bytes
    last_number: int
    receipts: Receipts
    head: bytes | None = None
    payload: bytes | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SignedAnswer:
    """An answer with its evidence: exactly the bytes the server signed, and the signature."""

    answer: Answer
    signed: bytes
    signature: bytes


def request_digest(body: bytes) -> bytes:
    """How an answer names the request it belongs to."""
    return hashlib.sha256(body).digest()[:16]


# ---- sync -------------------------------------------------------------------------------------------------------


def write_sync(frames: Sequence[bytes]) -> bytes:
    """The body of `POST /v1/sync`."""
    return pack(["sync1", list(frames)])


def read_sync(body: bytes) -> list[bytes]:
    """Frames of a sync request, not looked into.

    Raises:
        FrameRefused: `bad-frame`, `frame-limits`, `version`, `too-many-changes`.
    """
    value = unpack(body, bytes_max=FRAME_BYTES_MAX)
    _check_word(value, "sync1")
    frames: list[Any] = shape(value, str, list)[1]
    if not all(type(frame) is bytes for frame in frames) or not frames:
        raise FrameRefused("bad-frame", "frames")
    if len(frames) > FRAMES_PER_REQUEST_MAX:
        raise FrameRefused("too-many-changes", f"{len(frames)} frames")
    return frames


def sign_answer(key: SigningKey, answer: Answer) -> bytes:
    """The body of a 200 answer."""
    signed = pack(
        [
            "hudur1a",
            answer.request,
            answer.server_ms,
            answer.epoch,
            answer.nonce,
            answer.last_number,
            [_write_receipts(entry) for entry in answer.receipts],
            answer.head,
            None if answer.payload is None else request_digest(answer.payload),
        ]
    )
    return pack(["ans1", signed, key.sign(signed), answer.payload])


def read_answer(body: bytes, *, server_key: bytes, request: bytes) -> SignedAnswer:
    """Read an answer and prove that it is ours and belongs to `request` (the request body).

    Raises:
        FrameRefused: for anything that is not this server's answer to this very request.
    """
    signed, signature, payload = _open(body, server_key)
    answer, payload_digest = read_signed_part(signed)
    if answer.request != request_digest(request):
        raise FrameRefused("bad-frame", "answers another request")
    if payload_digest != (None if payload is None else request_digest(payload)):
        raise FrameRefused("bad-frame", "payload")
    answer = replace(answer, payload=payload)
    return SignedAnswer(answer=answer, signed=signed, signature=signature)


def read_signed_part(signed: bytes) -> tuple[Answer, bytes | None]:
    """The signed part of an answer, without its payload, and the payload's digest; the signature is not checked here.

    Raises:
        FrameRefused: `bad-frame`, `frame-limits`.
    """
    _, digest, server_ms, epoch, nonce, last_number, receipts, head, payload_digest = shape(
        unpack(signed, bytes_max=64), str, 16, int, int, 8, int, list, (16, None), (16, None)
    )
    answer = Answer(
        request=digest,
        server_ms=server_ms,
        epoch=epoch,
        nonce=nonce,
        last_number=last_number,
        receipts=read_receipts(receipts),
        head=head,
    )
    return answer, payload_digest


def read_receipts(value: list[Any]) -> Receipts:
    """Receipts as they stand in an answer or in a log's `receipt` row.

    Raises:
        FrameRefused: `bad-frame`.
    """
    return tuple(entry if type(entry) is str else tuple(map(_read_verdict, _list(entry))) for entry in value)


def _write_receipts(entry: tuple[Verdict, ...] | str) -> Value:
    if isinstance(entry, str):
        return entry
    return [verdict.kind if verdict.slug is None else [verdict.kind, verdict.slug] for verdict in entry]


def _read_verdict(value: Any) -> Verdict:
    kind, slug = (value, None) if type(value) is int else shape(value, int, str)
    if not DURABLE <= kind <= REFUSED:
        raise FrameRefused("bad-frame", "verdict")
    return Verdict(kind, slug)


def _open(body: bytes, server_key: bytes) -> tuple[bytes, bytes, bytes | None]:
    value = unpack(body, bytes_max=PAYLOAD_BYTES_MAX * 2)
    _check_word(value, "ans1")
    _, signed, signature, payload = shape(value, str, bytes, SIGNATURE_BYTES, (bytes, None))
    if not verify(server_key, signed, signature):
        raise FrameRefused("bad-signature", "not signed by our server")
    return signed, signature, payload


# ---- enrolment --------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class EnrolRequest:
    """A phone asking to act for the person a code was made for; already proved to own its key."""

    school: str
    code: str
    public_key: bytes
    label: str
    app: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Enrolled:
    """What a phone is told at enrolment. `payload` is a pull payload with its first classes and calendar."""

    env: str
    school: str
    school_name: str
    device: bytes
    user_id: str
    user_name: str
    role: str
    server_key: bytes
    server_ms: int
    epoch: int
    nonce: bytes
    short_number: str
    payload: bytes


def write_enrol(key: SigningKey, *, school: str, code: str, label: str, app: str) -> bytes:
    """The body of `POST /v1/enrol`."""
    signed = pack(["hudur1e", school, code, key.public, label, app])
    return pack(["enrol1", signed, key.sign(signed)])


def read_enrol(body: bytes) -> EnrolRequest:
    """Read an enrolment and check that its sender owns the key it brings.

    Raises:
        FrameRefused: `bad-frame`, `frame-limits`, `version`, `bad-signature`.
    """
    value = unpack(body, bytes_max=512)
    _check_word(value, "enrol1")
    _, signed, signature = shape(value, str, bytes, SIGNATURE_BYTES)
    inner = unpack(signed, bytes_max=128)
    _check_word(inner, "hudur1e")
    _, school, code, public_key, label, app = shape(inner, str, str, str, PUBLIC_KEY_BYTES, str, str)
    if not is_id(school) or len(label) > 40 or len(app) > 16:
        raise FrameRefused("bad-frame", "school, label or app")
    if not verify(public_key, signed, signature):
        raise FrameRefused("bad-signature", "the key's owner did not sign this")
    return EnrolRequest(school=school, code=code, public_key=public_key, label=label, app=app)


def sign_enrolled(key: SigningKey, enrolled: Enrolled, *, request: bytes) -> bytes:
    """The body of a 200 answer to an enrolment; `request` is the request body."""
    signed = pack(
        [
            "hudur1n",
            request_digest(request),
            enrolled.env,
            enrolled.school,
            enrolled.school_name,
            enrolled.device,
            enrolled.user_id,
            enrolled.user_name,
            enrolled.role,
            enrolled.server_key,
            enrolled.server_ms,
            enrolled.epoch,
            enrolled.nonce,
            enrolled.short_number,
            request_digest(enrolled.payload),
        ]
    )
    return pack(["ans1", signed, key.sign(signed), enrolled.payload])


def read_enrolled(body: bytes, *, request: bytes) -> Enrolled:
    """Read the answer to an enrolment: the server's key is learnt here, and proved to sign its own answer.

    Raises:
        FrameRefused: when the answer is not consistent in itself or answers another request.
    """
    value = unpack(body, bytes_max=PAYLOAD_BYTES_MAX * 2)
    _check_word(value, "ans1")
    _, signed, signature, payload = shape(value, str, bytes, SIGNATURE_BYTES, bytes)
    inner = shape(
        unpack(signed, bytes_max=512), str, 16, str, str, str, 16, str, str, str, PUBLIC_KEY_BYTES, int, int, 8, str, 16
    )
    _check_word(inner, "hudur1n")
    _, digest, *fields, payload_digest = inner
    if digest != request_digest(request) or payload_digest != request_digest(payload):
        raise FrameRefused("bad-frame", "answers another request")
    if not verify(fields[7], signed, signature):
        raise FrameRefused("bad-signature", "not signed by the key it brings")
    env, school, school_name, device, user_id, user_name, role, server_key, server_ms, epoch, nonce, short = fields
    return Enrolled(
        env=env,
        school=school,
        school_name=school_name,
        device=device,
        user_id=user_id,
        user_name=user_name,
        role=role,
        server_key=server_key,
        server_ms=server_ms,
        epoch=epoch,
        nonce=nonce,
        short_number=short,
        payload=payload,
    )


# ---- calls ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """A signed command of a device's user. The signature is checked by `is_signed_by`."""

    env: str
    school: str
    device: bytes
    nonce: bytes
    wall_ms: int
    command: str
    args: tuple[Any, ...]
    signed: bytes
    signature: bytes

    def is_signed_by(self, public_key: bytes) -> bool:
        """Whether the owner of `public_key` signed this call."""
        return verify(public_key, self.signed, self.signature)


def write_call(
    key: SigningKey,
    *,
    env: str,
    school: str,
    device: bytes,
    nonce: bytes,
    wall_ms: int,
    command: str,
    args: Sequence[Value],
) -> bytes:
    """The body of `POST /v1/call` and `POST /v1/bundles`."""
    signed = pack(["hudur1c", env, school, device, nonce, wall_ms, command, list(args)])
    return pack(["call1", signed, key.sign(signed)])


def read_call(body: bytes) -> Call:
    """Read a call by shape; its signature is not checked here.

    Raises:
        FrameRefused: `bad-frame`, `frame-limits`, `version`.
    """
    value = unpack(body, bytes_max=BUNDLE_BYTES_MAX + 1_024)
    _check_word(value, "call1")
    _, signed, signature = shape(value, str, bytes, SIGNATURE_BYTES)
    inner = unpack(signed, bytes_max=BUNDLE_BYTES_MAX)
    _check_word(inner, "hudur1c")
    _, env, school, device, nonce, wall_ms, command, args = shape(inner, str, str, str, 16, 8, int, str, list)
    return Call(
        env=env,
        school=school,
        device=device,
        nonce=nonce,
        wall_ms=wall_ms,
        command=command,
        args=tuple(args),
        signed=signed,
        signature=signature,
    )


# ---- payload ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Payload:
    """One round of a pull. Items are arrays that begin with a word (docs/protocol.md section 6)."""

    cursor: bytes
    more: bool
    items: tuple[tuple[Any, ...], ...]


def write_payload(payload: Payload) -> bytes:
    """Bytes of a pull payload."""
    return pack([payload.cursor, payload.more, [list(item) for item in payload.items]])


def read_payload(data: bytes) -> Payload:
    """Read a pull payload; items keep the raw form of the wire.

    Raises:
        FrameRefused: `bad-frame`, `frame-limits`.
    """
    cursor, more, items = shape(unpack(data, bytes_max=PAYLOAD_BYTES_MAX), bytes, bool, list)
    if not all(type(item) is list and item and type(item[0]) is str for item in items):
        raise FrameRefused("bad-frame", "items")
    return Payload(cursor=cursor, more=more, items=tuple(tuple(item) for item in items))


def _check_word(value: Any, word: str) -> None:
    found = value[0] if type(value) is list and value else None
    if found != word:
        same_family = type(found) is str and _DIGITS.sub("", found) == _DIGITS.sub("", word)
        raise FrameRefused("version" if same_family else "bad-frame", f"{word} expected")


def _list(value: Any) -> list[Any]:
    if type(value) is not list:
        raise FrameRefused("bad-frame", "receipts")
    return value
