"""What a phone does with its receipt: it asks again, for the confirmation, until it is told.

Such a request cannot be made beforehand, since it carries the nonce of the receipt. It is signed when it is sent, some
100 µs of the load's time. Waits are those of docs/protocol.md section 5 and of the page (`attempts.ts`).
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

import msgpack
from cryptography.hazmat.primitives.asymmetric import ec

from bench.morning.frames import ENV, HEAD
from clientcore.exchange import write_sync
from clientcore.frame import Ask, ClockEvidence, seal_frame
from clientcore.keys import SigningKey
from clientcore.ports import SystemClock

CONFIRM_AFTER_S = (3.0, 15.0, 60.0, 300.0)
"""How long after its receipt, and after each answer that told it nothing of it, a phone asks."""


@dataclass(slots=True)
class Asking:
    """One phone that has its receipt and not its confirmation.

    Attributes:
        scalar: Its private key.
        frame: The last frame it sent, what is signed of it.
        answer: The signed part of the last answer, unpacked.
        cursor: Of the last payload, or its own.
        since_s: When its receipt came.
        asked: How many asks were answered.
        failures: Of this ask.
        request: The whole HTTP request, made once.
    """

    scalar: bytes
    frame: bytes
    answer: list[Any]
    cursor: bytes | None
    since_s: float
    asked: int = 0
    failures: int = 0
    request: bytes = b""

    @classmethod
    def after(cls, scalar: bytes, pushed: bytes, answered: bytes, now_s: float) -> Asking:
        """The phone that sent the body `pushed` and got the body `answered`."""
        frame = msgpack.unpackb(pushed)[1][-1][:-64]
        ask = msgpack.unpackb(frame)[8]
        phone = cls(scalar, frame, [], None if ask is None else ask[1], now_s)
        phone.take(answered)
        return phone

    def take(self, answered: bytes) -> bool:
        """Take an answer; whether something of its own was confirmed or stands in review."""
        _, signed, _, payload = msgpack.unpackb(answered)
        self.answer = msgpack.unpackb(signed)
        if payload is None:
            return False
        if hashlib.sha256(payload).digest()[:16] != self.answer[8]:
            raise ValueError("a payload that is not the answer's")
        self.cursor, _, items = msgpack.unpackb(payload)
        return any(item[0] == "settled" for item in items)

    def begin(self) -> None:
        """Make the next ask."""
        tag, _env, school, device, number, _prev, clock, *_ = msgpack.unpackb(self.frame)
        assert tag == "hudur1"
        server_ms, nonce, last_number = self.answer[2], self.answer[4], self.answer[5]
        frame = seal_frame(
            SigningKey(ec.derive_private_key(int.from_bytes(self.scalar, "big"), ec.SECP256R1())),
            env=ENV,
            school=school,
            device=device,
            number=max(number, last_number) + 1,
            prev=hashlib.sha256(self.frame).digest()[:16],
            clock=ClockEvidence(
                wall_ms=SystemClock().wall_ms(),
                mono_ms=clock[1] + 3_000,
                session=clock[2],
                beacon=(server_ms, clock[1]),
            ),
            changes=[],
            ask=Ask(nonce=nonce, cursor=self.cursor, have=None, app=None, unsent=0, done=0),
        )
        body = write_sync([frame.raw])
        self.frame, self.request, self.failures = frame.signed, f"{HEAD}{len(body)}\r\n\r\n".encode() + body, 0
