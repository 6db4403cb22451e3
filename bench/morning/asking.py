"""What a phone does with its receipts: it asks again, for the confirmation, until it is told of all it sent.

Such a request cannot be made beforehand, since it carries the nonce of the receipt. It is signed when it is sent, by
the load. Waits are those of docs/protocol.md section 5 and of the page (`attempts.ts`).
"""

from __future__ import annotations

from dataclasses import dataclass, field

import msgpack
from cryptography.hazmat.primitives.asymmetric import ec

from bench.morning.frames import ENV, HEAD
from clientcore.errors import FrameRefused
from clientcore.exchange import (
    Answer,
    read_payload,
    read_signed_part,
    read_sync,
    request_digest,
    write_sync,
)
from clientcore.frame import Ask, ClockEvidence, parse_frame, seal_frame
from clientcore.keys import SigningKey
from clientcore.ports import SystemClock

CONFIRM_AFTER_S = (3.0, 15.0, 60.0, 300.0)
"""How long after its receipt, and after each answer that did not tell it all, a phone asks."""


def cursor_of(pushed: bytes, answered: bytes) -> bytes | None:
    """The cursor a phone has after its request: that of the payload, else the one it came with."""
    payload = msgpack.unpackb(answered)[3]
    if payload is not None:
        return read_payload(payload).cursor
    ask = parse_frame(read_sync(pushed)[-1]).ask
    return None if ask is None else ask.cursor


@dataclass(slots=True)
class Asking:
    """One phone that has its receipts and not its confirmations.

    Attributes:
        scalar: Its private key.
        changes: How many of its own it waits for.
        cursor: Of the last payload.
        since_s: When its last receipt came.
        asked: How many asks were answered.
        failures: Of this ask.
        body: Of the request that was sent last; `request` with its head.
    """

    scalar: bytes
    changes: int
    cursor: bytes | None
    since_s: float
    body: bytes
    request: bytes = b""
    asked: int = 0
    failures: int = 0
    has_payload: bool = False
    _answer: Answer | None = None
    _settled: set[bytes] = field(default_factory=set)

    @property
    def wait_s(self) -> float | None:
        """How long until the next ask; None: it is tired of asking. Without a payload the nonce was old: at once."""
        if self.asked == len(CONFIRM_AFTER_S):
            return None
        return CONFIRM_AFTER_S[self.asked] if self.has_payload or self.asked else 0.0

    def take(self, answered: bytes) -> bool:
        """Take an answer to what was sent last; whether all that was sent stands confirmed or in review.

        Raises:
            FrameRefused: it answers something else, or its payload is not its own; nothing of it was taken.
        """
        _, signed, _, payload = msgpack.unpackb(answered)  # the signature is proved of one in fifty
        answer, payload_digest = read_signed_part(signed)
        if answer.request != request_digest(self.body):
            raise FrameRefused("bad-frame", "answers another request")
        if payload_digest != (None if payload is None else request_digest(payload)):
            raise FrameRefused("bad-frame", "payload")
        self._answer, self.has_payload = answer, payload is not None
        if payload is not None:
            told = read_payload(payload)
            self.cursor = told.cursor
            self._settled |= {entry[0] for item in told.items if item[0] == "settled" for entry in item[3]}
        return len(self._settled) >= self.changes

    def begin(self) -> None:
        """Make the next ask."""
        answer, last = self._answer, parse_frame(read_sync(self.body)[-1])
        assert answer is not None
        frame = seal_frame(
            SigningKey(ec.derive_private_key(int.from_bytes(self.scalar, "big"), ec.SECP256R1())),
            env=ENV,
            school=last.school,
            device=last.device,
            number=max(last.number, answer.last_number) + 1,
            prev=last.hash[:16],
            clock=ClockEvidence(
                wall_ms=SystemClock().wall_ms(),
                mono_ms=last.clock.mono_ms + 3_000,
                session=last.clock.session,
                beacon=(answer.server_ms, last.clock.mono_ms),
            ),
            changes=[],
            ask=Ask(nonce=answer.nonce, cursor=self.cursor, have=None, app=None, unsent=0, done=0),
        )
        self.body, self.failures = write_sync([frame.raw]), 0
        self.request = f"{HEAD}{len(self.body)}\r\n\r\n".encode() + self.body
