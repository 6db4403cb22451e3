"""What a server signs and what a phone must take, or not take, as an answer."""

from __future__ import annotations

from typing import Any

from clientcore.exchange import (
    DUPLICATE,
    DURABLE,
    HELD,
    REFUSED,
    Answer,
    Payload,
    Verdict,
    request_digest,
    sign_answer,
    write_payload,
    write_sync,
)
from clientcore.wire import pack
from tests.support.fixed import OTHER_PHONE, SERVER
from tests.vectors.cases.frames import frames
from tests.vectors.cases.wire import tagged

SERVER_MS = 1_795_000_001_000
ITEMS: list[list[Any]] = [
    ["classes", [["c-3a", "فصل ٣/أ", "3"]]],
    ["roster", "c-3a", 4, [["s1", "أحمد محمد"], ["s2", "سلمى علي"]]],
    [
        "calendar",
        2,
        [[1_760_000_000_000, 10_800], [1_793_000_000_000, 7_200]],
        [["2026-10-06", "armed-forces-day"]],
        ["day"],
    ],
    ["settled", "c-3a/2026-11-22/day", 3, [[b"12345678", 1, None], [b"abcdefgh", 2, "unknown-pupil"]]],
    ["directive", 9, "rebuild", "lost messages", SERVER_MS],
    ["want", b"12345678"],
    ["a word of tomorrow", 1, 2, 3],
]


def request() -> bytes:
    return write_sync([frame.raw for _, frame in frames()[:2]])


def answers() -> list[tuple[str, Answer]]:
    def answer(**changed: Any) -> Answer:
        given: dict[str, Any] = {
            "request": request_digest(request()),
            "server_ms": SERVER_MS,
            "epoch": 1,
            "nonce": b"nonce--9",
            "last_number": 2,
            "receipts": ((Verdict(DURABLE),), (Verdict(DURABLE),)),
        }
        return Answer(**{**given, **changed})

    payload = write_payload(Payload(cursor=b"c" * 9, more=False, items=tuple(map(tuple, ITEMS))))
    every = (Verdict(DURABLE), Verdict(DUPLICATE), Verdict(HELD, "equivocation"), Verdict(REFUSED, "bad-mark"))
    return [
        ("receipts only", answer()),
        ("every verdict", answer(receipts=(every, ()))),
        ("a payload", answer(payload=payload, head=b"h" * 16, epoch=3)),
        ("a frame of a bundle that was not taken", answer(receipts=("bad-signature", (Verdict(DURABLE),)))),
        ("an empty payload", answer(payload=write_payload(Payload(cursor=b"", more=True, items=())))),
    ]


def refused() -> list[tuple[str, str, bytes]]:
    good = sign_answer(SERVER, answers()[2][1])
    plain = answers()[0][1]
    signed = pack(["hudur1a", plain.request, SERVER_MS, 1, plain.nonce, 2, [[0], [0]], None, None])

    def wrapped(inner: bytes, payload: bytes | None = None) -> bytes:
        return pack(["ans1", inner, SERVER.sign(inner), payload])

    def told(**changed: Any) -> bytes:
        fields: dict[str, Any] = {
            "tag": "hudur1a",
            "request": plain.request,
            "server_ms": SERVER_MS,
            "epoch": 1,
            "nonce": plain.nonce,
            "last_number": 2,
            "receipts": [[0], [0]],
            "head": None,
            "payload": None,
        }
        return wrapped(pack(list({**fields, **changed}.values())))

    return [
        ("a top-up page", "bad-frame", b"<!DOCTYPE html><title>Recharge</title>"),
        ("nothing", "bad-frame", b""),
        ("cut short", "bad-frame", good[:-10]),
        ("signed by somebody else", "bad-signature", sign_answer(OTHER_PHONE, plain)),
        ("not signed", "bad-signature", pack(["ans1", signed, bytes(64), None])),
        ("answers another request", "bad-frame", told(request=bytes(16))),
        ("payload exchanged", "bad-frame", wrapped(signed, b"\x93\xc4\x00\xc2\x90")),
        ("payload taken away", "bad-frame", told(payload=bytes(16))),
        ("verdict 4", "bad-frame", told(receipts=[[4], [0]])),
        ("verdict that is a boolean", "bad-frame", told(receipts=[[True], [0]])),
        ("receipts nil", "bad-frame", told(receipts=None)),
        ("nonce of 7 bytes", "bad-frame", told(nonce=bytes(7))),
        ("epoch as text", "bad-frame", told(epoch="1")),
    ]


def produce() -> dict[str, Any]:
    return {
        "server_key": SERVER.public.hex(),
        "request": request().hex(),
        "accepted": [
            {
                "name": name,
                "body": sign_answer(SERVER, answer).hex(),
                "server_ms": answer.server_ms,
                "epoch": answer.epoch,
                "nonce": answer.nonce.hex(),
                "last_number": answer.last_number,
                "receipts": [
                    entry if isinstance(entry, str) else [[verdict.kind, verdict.slug] for verdict in entry]
                    for entry in answer.receipts
                ],
                "head": None if answer.head is None else answer.head.hex(),
                "payload": None if answer.payload is None else answer.payload.hex(),
            }
            for name, answer in answers()
        ],
        "refused": [{"name": name, "code": code, "body": body.hex()} for name, code, body in refused()],
        "payload_items": tagged(ITEMS),
    }
