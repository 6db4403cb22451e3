"""What a phone does with its receipts: it asks again, for the confirmation, until it is told of all it sent.

Such a request cannot be made beforehand, since it carries the nonce of the receipt. It is signed when it is sent, by
the load. Waits are those of docs/protocol.md section 5 and of the page (`attempts.ts`).
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import Any

import msgpack
from cryptography.hazmat.primitives.asymmetric import ec

from bench.morning.frames import ENV, HEAD
from clientcore.exchange import write_sync
from clientcore.frame import Ask, ClockEvidence, seal_frame
from clientcore.keys import SigningKey
from clientcore.ports import SystemClock

CONFIRM_AFTER_S = (3.0, 15.0, 60.0, 300.0)
"""How long after its receipt, and after each answer that did not tell it all, a phone asks."""


class BadAnswer(ValueError):
    """Bytes that answer something else, or a payload that is not the answer's."""


def cursor_of(pushed: bytes, answered: bytes) -> bytes | None:
    """The cursor a phone has after its request: that of the payload, else the one it came with."""
    payload = msgpack.unpackb(answered)[3]
    ask = msgpack.unpackb(msgpack.unpackb(pushed)[1][-1][:-64])[8]
    cursor: bytes | None = msgpack.unpackb(payload)[0] if payload is not None else ask[1] if ask is not None else None
    return cursor


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
    _answer: list[Any] = field(default_factory=list)
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
            BadAnswer: nothing of it was taken.
        """
        _, signed, _, payload = msgpack.unpackb(answered)
        answer = msgpack.unpackb(signed)
        if answer[1] != hashlib.sha256(self.body).digest()[:16]:
            raise BadAnswer("an answer to something else")
        if (None if payload is None else hashlib.sha256(payload).digest()[:16]) != answer[8]:
            raise BadAnswer("a payload that is not the answer's")
        self._answer, self.has_payload = answer, payload is not None
        if payload is not None:
            self.cursor, _, items = msgpack.unpackb(payload)
            self._settled |= {entry[0] for item in items if item[0] == "settled" for entry in item[3]}
        return len(self._settled) >= self.changes

    def begin(self) -> None:
        """Make the next ask."""
        signed = msgpack.unpackb(self.body)[1][-1][:-64]
        _tag, _env, school, device, number, _prev, clock, *_ = msgpack.unpackb(signed)
        server_ms, nonce, last_number = self._answer[2], self._answer[4], self._answer[5]
        frame = seal_frame(
            SigningKey(ec.derive_private_key(int.from_bytes(self.scalar, "big"), ec.SECP256R1())),
            env=ENV,
            school=school,
            device=device,
            number=max(number, last_number) + 1,
            prev=hashlib.sha256(signed).digest()[:16],
            clock=ClockEvidence(
                wall_ms=SystemClock().wall_ms(),
                mono_ms=clock[1] + 3_000,
                session=clock[2],
                beacon=(server_ms, clock[1]),
            ),
            changes=[],
            ask=Ask(nonce=nonce, cursor=self.cursor, have=None, app=None, unsent=0, done=0),
        )
        self.body, self.failures = write_sync([frame.raw]), 0
        self.request = f"{HEAD}{len(self.body)}\r\n\r\n".encode() + self.body
