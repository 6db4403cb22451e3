"""What the fuzzer starts from: real registers, frames, requests and answers, made from fixed keys and seeds."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

from clientcore.change import Change, canonical_body, deflate
from clientcore.exchange import (
    Enrolled,
    Payload,
    sign_answer,
    sign_enrolled,
    write_call,
    write_enrol,
    write_payload,
    write_sync,
)
from clientcore.frame import write_bundle
from clientcore.keys import device_id
from clientcore.wire import Value, pack
from tests.support.fixed import PHONE, SERVER
from tests.support.random_registers import grow
from tests.vectors.cases import answers, changes, frames, wire

REGISTERS = 60
ENROL_REQUEST = write_enrol(PHONE, school="eg-07-113", code="BCDFGHJKLM", label="Nokia", app="1.4.0")


@cache
def registers() -> list[list[Change]]:
    """Random registers, and each change of the vectors as a register of its own when it needs no other."""
    grown = [grow(random.Random(f"fuzz {i}"), changes=2 + i % 9, authors=1 + i % 4) for i in range(REGISTERS)]
    return [*grown, *([change] for _, change in changes.cases() if not change.deps)]


def body(change: Change) -> bytes:
    """The plain body of a change."""
    return canonical_body(
        actor=change.actor,
        seq=change.seq,
        start_op=change.start_op,
        time_s=change.time_s,
        deps=change.deps,
        ops=change.ops,
    )


@dataclass(frozen=True, slots=True)
class Messages:
    """Whole messages by kind, as they travel."""

    by_kind: dict[str, list[bytes]]

    def kinds(self) -> Sequence[str]:
        """Every kind but changes."""
        return tuple(self.by_kind)


def called(command: str, *args: Value) -> bytes:
    """A call of the phone."""
    return write_call(
        PHONE,
        env="demo",
        school="eg-07-113",
        device=bytes(16),
        nonce=bytes(8),
        wall_ms=answers.SERVER_MS,
        command=command,
        args=args,
    )


@cache
def messages() -> Messages:
    """Frames, sync bodies, bundles, plain values, answers, enrolments, calls and payloads."""
    raws = [frame.raw for _, frame in frames.frames() if len(frame.raw) < 4_000]
    payload = write_payload(Payload(cursor=b"c" * 9, more=False, items=tuple(map(tuple, answers.ITEMS))))
    enrolled = Enrolled(
        env="demo",
        school="eg-07-113",
        school_name="مدرسة النيل",
        device=device_id(PHONE.public),
        user_id="t1",
        user_name="منى",
        role="teacher",
        server_key=SERVER.public,
        server_ms=answers.SERVER_MS,
        epoch=1,
        nonce=b"nonce--1",
        short_number="123456",
        payload=payload,
    )
    wide = [deflate(change.chunk) for change in registers()[3]]
    return Messages(
        {
            "frame": raws,
            "sync": [write_sync(raws[:n]) for n in range(1, len(raws) + 1)],
            "bundle": [write_bundle(raws), write_bundle(raws[:1]), write_bundle([*raws, *raws])],
            "wire": [pack(value) for _, value in wire.VALUES if len(pack(value)) < 2_000] + [pack(["x", wide])],
            "answer": [sign_answer(SERVER, answer) for _, answer in answers.answers()],
            "payload": [payload],
            "enrol": [ENROL_REQUEST],
            "enrolled": [sign_enrolled(SERVER, enrolled, request=ENROL_REQUEST)],
            "call": [
                called("devices"),
                called("resync", None, "rebuild", "lost"),
                called("bundle", write_bundle(raws[:2])),
            ],
        }
    )
