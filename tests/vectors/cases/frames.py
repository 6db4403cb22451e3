"""Frames and bundles: bytes to build (all but the signature), bytes to read, bytes to refuse."""

from __future__ import annotations

from typing import Any

from clientcore.change import Change, deflate
from clientcore.errors import FrameRefused
from clientcore.frame import (
    BUNDLE_MAGIC,
    NO_PREV,
    Ask,
    ClockEvidence,
    Frame,
    FramedChange,
    parse_frame,
    read_bundle,
    seal_frame,
    write_bundle,
)
from clientcore.keys import device_id
from clientcore.wire import pack
from tests.support.fixed import OTHER_PHONE, PHONE
from tests.vectors.cases.changes import A, build, put, taken_register

WALL_MS = 1_795_000_000_123
CLOCK = ClockEvidence(wall_ms=WALL_MS, mono_ms=61_250, session=b"app-sess", beacon=(WALL_MS - 900, 60_111))
ASK = Ask(nonce=b"nonce--8", cursor=bytes(range(32)), have=b"12345678abcdefgh", app="1.4.0", unsent=3, done=7)
FIRST_ASK = Ask(nonce=None, cursor=None, have=None, app=None, unsent=0, done=0)
REGISTER = "c-3a/2026-11-22/day"
DEVICE = device_id(PHONE.public)


def _frame(*changes: FramedChange, **changed: Any) -> Frame:
    given: dict[str, Any] = {
        "env": "demo",
        "school": "eg-07-113",
        "device": DEVICE,
        "number": 1,
        "prev": NO_PREV,
        "clock": CLOCK,
        "ask": None,
    }
    return seal_frame(PHONE, changes=changes, **{**given, **changed})


def frames() -> list[tuple[str, Frame]]:
    whole = build(taken_register(40))
    fix = build([put("s10001", "A28900000", (2, A))], seq=2, start_op=41, deps=[whole.hash])
    first = _frame(_framed(whole))
    no_beacon = ClockEvidence(wall_ms=-5, mono_ms=0, session=bytes(8))
    return [
        ("a register of forty", first),
        ("a correction, with the frame before it", _frame(_framed(fix), number=2, prev=first.hash[:16], ask=ASK)),
        ("a greeting", _frame(number=3, ask=FIRST_ASK, clock=no_beacon)),
        ("a delegated change", _frame(_framed(whole, "del-17"), _framed(fix, "del-17"), number=4)),
        ("the second phone's clock beyond 2^32", _frame(number=1 << 33, clock=CLOCK)),
        ("greatest integers", _frame(number=(1 << 53) - 1, ask=ASK)),
        ("five hundred and twelve empty changes", _frame(*[FramedChange(register="", chunk=b"")] * 512)),
    ]


def _framed(change: Change, delegation: str | None = None) -> FramedChange:
    return FramedChange(register=REGISTER, chunk=deflate(change.chunk), delegation=delegation)


def refused() -> list[tuple[str, str, bytes]]:
    fields: list[Any] = [
        "hudur1",
        "demo",
        "eg-07-113",
        DEVICE,
        1,
        NO_PREV,
        [WALL_MS, 1, bytes(8), None],
        [[REGISTER, None, b"chunk"]],
        None,
    ]
    signature = bytes(64)

    def other(at: int, value: Any) -> bytes:
        return pack([*fields[:at], value, *fields[at + 1 :]]) + signature

    good = pack(fields)
    ask = [None, None, None, "app", 0, 0]
    return [
        ("empty", "frame-limits", b""),
        ("a signature and nothing more", "frame-limits", signature),
        ("too long", "frame-limits", other(7, [[REGISTER, None, bytes(8_000)]] * 3)),
        ("a byte behind", "bad-frame", good + b"\xc0" + signature),
        ("cut short", "bad-frame", good[:-1] + signature),
        ("a number alone", "bad-frame", b"\x01" + signature),
        ("an empty array", "bad-frame", b"\x90" + signature),
        ("next version", "version", other(0, "hudur2")),
        ("another tag", "bad-frame", other(0, "sync1")),
        ("a tag of bytes", "bad-frame", other(0, b"hudur1")),
        ("one field more", "bad-frame", pack([*fields, 1]) + signature),
        ("one field less", "bad-frame", pack(fields[:-1]) + signature),
        ("environment in capitals", "bad-frame", other(1, "DEMO")),
        ("no environment", "bad-frame", other(1, "")),
        ("environment too long", "bad-frame", other(1, "e" * 17)),
        ("school with a slash", "bad-frame", other(2, "eg/07")),
        ("school as bytes", "bad-frame", other(2, b"eg")),
        ("device of 15 bytes", "bad-frame", other(3, DEVICE[:15])),
        ("number zero", "bad-frame", other(4, 0)),
        ("number below zero", "bad-frame", other(4, -1)),
        ("number beyond 2^53", "bad-frame", other(4, 1 << 53)),
        ("number a boolean", "bad-frame", other(4, True)),
        ("number not shortest", "bad-frame", good.replace(DEVICE + b"\x01", DEVICE + b"\xcc\x01") + signature),
        ("no previous frame", "bad-frame", other(5, None)),
        ("clock without a session", "bad-frame", other(6, [WALL_MS, 1, None, None])),
        ("monotonic clock below zero", "bad-frame", other(6, [WALL_MS, -1, bytes(8), None])),
        ("beacon of one number", "bad-frame", other(6, [WALL_MS, 1, bytes(8), [1]])),
        ("changes nil", "bad-frame", other(7, None)),
        ("513 changes", "too-many-changes", other(7, [["", None, b""]] * 513)),
        ("a change of two fields", "bad-frame", other(7, [[REGISTER, b""]])),
        ("a change that is text", "bad-frame", other(7, [[REGISTER, None, "chunk"]])),
        ("register too long", "frame-limits", other(7, [["r" * 65, None, b""]])),
        ("delegation too long", "frame-limits", other(7, [[REGISTER, "d" * 37, b""]])),
        ("nonce of 7 bytes", "bad-frame", other(8, [bytes(7), *ask[1:]])),
        ("cursor too long", "frame-limits", other(8, [None, bytes(33), *ask[2:]])),
        ("have not a multiple of 8", "frame-limits", other(8, [None, None, bytes(9), *ask[3:]])),
        ("have too long", "frame-limits", other(8, [None, None, bytes(16_008), *ask[3:]])),
        ("app too long", "frame-limits", other(8, [None, None, None, "a" * 17, 0, 0])),
        ("unsent below zero", "frame-limits", other(8, [None, None, None, "app", -1, 0])),
        ("done below zero", "frame-limits", other(8, [None, None, None, "app", 0, -1])),
        ("a map", "bad-frame", other(6, None)[:-65] + b"\x81\x01\x02" + signature),
        ("nested 40 deep", "frame-limits", b"\x91" * 40 + b"\xc0" + signature),
    ]


def bundles() -> list[dict[str, Any]]:
    raws = [frame.raw for _, frame in frames()][:3]
    whole = write_bundle(raws)
    found: list[tuple[str, bytes]] = [
        ("three frames", whole),
        ("no frame", BUNDLE_MAGIC),
        ("cut in the last frame", whole[:-1]),
        ("cut in a length", write_bundle(raws[:1]) + b"\0\0"),
        ("cut behind a length", write_bundle(raws[:1]) + b"\0\0\1\0"),
    ]
    read = [(name, data, read_bundle(data)) for name, data in found]
    return [
        {
            "name": name,
            "file": data.hex(),
            "frames": [frame.hex() for frame in bundle.frames],
            "truncated": bundle.truncated,
        }
        for name, data, bundle in read
    ]


def refused_bundles() -> list[tuple[str, str, bytes]]:
    return [
        ("another file", "not-an-export", b"PK\x03\x04 a zip"),
        ("empty file", "not-an-export", b""),
        ("half the magic", "not-an-export", BUNDLE_MAGIC[:5]),
        ("a frame of 4 GB", "frame-limits", BUNDLE_MAGIC + b"\xff" * 8),
        ("a frame of no bytes", "frame-limits", BUNDLE_MAGIC + bytes(8)),
        ("a frame of 16,385 bytes", "frame-limits", BUNDLE_MAGIC + (16_385).to_bytes(4, "big")),
    ]


def _fields(frame: Frame) -> dict[str, Any]:
    clock, ask = frame.clock, frame.ask
    return {
        "env": frame.env,
        "school": frame.school,
        "device": frame.device.hex(),
        "number": frame.number,
        "prev": frame.prev.hex(),
        "clock": {
            "wall_ms": clock.wall_ms,
            "mono_ms": clock.mono_ms,
            "session": clock.session.hex(),
            "beacon": None if clock.beacon is None else list(clock.beacon),
        },
        "changes": [[change.register, change.delegation, change.chunk.hex()] for change in frame.changes],
        "ask": None
        if ask is None
        else {
            "nonce": _hex(ask.nonce),
            "cursor": _hex(ask.cursor),
            "have": _hex(ask.have),
            "app": ask.app,
            "unsent": ask.unsent,
            "done": ask.done,
        },
    }


def _hex(data: bytes | None) -> str | None:
    return None if data is None else data.hex()


def produce() -> dict[str, Any]:
    return {
        "public_key": PHONE.public.hex(),
        "other_public_key": OTHER_PHONE.public.hex(),
        "accepted": [
            {
                "name": name,
                "fields": _fields(frame),
                "signed": frame.signed.hex(),
                "signature": frame.signature.hex(),
                "hash": frame.hash.hex(),
            }
            for name, frame in frames()
        ],
        "refused": [{"name": name, "code": code, "frame": raw.hex()} for name, code, raw in refused()],
        "bundles": bundles(),
        "refused_bundles": [{"name": name, "code": code, "file": raw.hex()} for name, code, raw in refused_bundles()],
    }


def code_of(raw: bytes) -> str | None:
    """The code with which a frame is refused, or None."""
    try:
        parse_frame(raw)
    except FrameRefused as refusal:
        return refusal.code
    return None
