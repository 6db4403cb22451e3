"""A server that obeys docs/protocol.md and keeps everything in memory, for the device's own tests.

The other half of the conversation, with switches for what a network and a restore can do. The real server meets the
real device in tests/integration.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field

from clientcore.change import is_actor_of, parse
from clientcore.errors import ChangeRefused, TransportError
from clientcore.exchange import (
    DUPLICATE,
    DURABLE,
    HELD,
    MEDIA_TYPE,
    REFUSED,
    Answer,
    Enrolled,
    Payload,
    Verdict,
    read_call,
    read_enrol,
    read_sync,
    request_digest,
    sign_answer,
    sign_enrolled,
    write_payload,
)
from clientcore.frame import Frame, parse_frame, read_bundle
from clientcore.history import merge
from clientcore.keys import SigningKey, device_id, short_number
from clientcore.ports import HttpReply, ManualClock, SeededRandom
from clientcore.wire import Value, pack

ENV, SCHOOL, CODE = "demo", "eg-07-113", "BCDFGHJKLM"
CLASS, PUPILS = "c-3a", [(f"s{i:03d}", f"pupil {i}") for i in range(1, 41)]
CAIRO_WINTER = [[0, 7_200]]


def problem(slug: str, status: int, retry: str, **more: object) -> HttpReply:
    body = json.dumps(
        {"type": f"/problems/{slug}", "title": slug, "status": status, "retry": retry, "safe": True, **more}
    )
    retry_after = more.get("retry_after_s")
    return HttpReply(
        status=status,
        content_type="application/problem+json",
        body=body.encode(),
        retry_after_s=float(retry_after) if isinstance(retry_after, int | float) else None,
    )


def _no_slug(_frame: Frame, _at: int) -> str | None:
    return None


def _no_reply(_path: str, _body: bytes) -> HttpReply | None:
    return None


def _same_reply(_path: str, _body: bytes, reply: HttpReply) -> HttpReply:
    return reply


@dataclass
class Known:
    """What the server knows of one device."""

    public_key: bytes
    nonce: bytes = bytes(8)
    numbers: dict[int, bytes] = field(default_factory=dict)
    frames: set[bytes] = field(default_factory=set)
    served: dict[bytes, int] = field(default_factory=dict)  # cursor -> how far in the list of items


@dataclass
class FakeServer:
    """`stored` (short hash → (register, chunk, by device)) is its log; `before` and `after` may answer in its place."""

    clock: ManualClock
    seed: int = 1
    key: SigningKey = field(default_factory=SigningKey.generate)
    epoch: int = 1
    stored: dict[bytes, tuple[str, bytes, bytes]] = field(default_factory=dict)
    devices: dict[bytes, Known] = field(default_factory=dict)
    codes: dict[str, bytes | None] = field(default_factory=lambda: {CODE: None})
    directives: list[list[Value]] = field(default_factory=list)
    done: dict[bytes, int] = field(default_factory=dict)
    refuse: Callable[[Frame, int], str | None] = _no_slug
    review: set[bytes] = field(default_factory=set)
    settles: bool = True
    events: list[str] = field(default_factory=list)
    requests: list[bytes] = field(default_factory=list)
    asks: list[object] = field(default_factory=list)
    pages: int = 1
    copied: set[bytes] = field(default_factory=set)
    before: Callable[[str, bytes], HttpReply | None] = _no_reply
    after: Callable[[str, bytes, HttpReply], HttpReply] = _same_reply

    def __post_init__(self) -> None:
        self.random = SeededRandom(self.seed)

    async def post(self, path: str, body: bytes, *, content_type: str, deadline_s: float) -> HttpReply:
        assert deadline_s > 0
        assert content_type == MEDIA_TYPE
        self.requests.append(body)
        reply = self.before(path, body)
        if reply is None:
            reply = {
                "/v1/enrol": self._enrol,
                "/v1/sync": self._sync,
                "/v1/call": self._call,
                "/v1/bundles": self._call,
            }[path](body)
        return self.after(path, body, reply)

    # ---- requests ----

    def _enrol(self, body: bytes) -> HttpReply:
        asked = read_enrol(body)
        if asked.code not in self.codes:
            return problem("bad-code", 401, "never")
        if self.codes[asked.code] not in (None, asked.public_key):
            return problem("code-used", 409, "never")
        self.codes[asked.code] = asked.public_key
        device = device_id(asked.public_key)
        known = self.devices.setdefault(device, Known(public_key=asked.public_key))
        known.nonce = self.random.bytes(8)
        payload = write_payload(Payload(cursor=b"\0", more=False, items=tuple(map(tuple, self._basics()))))
        enrolled = Enrolled(
            env=ENV,
            school=SCHOOL,
            school_name="مدرسة",
            device=device,
            user_id="t1",
            user_name="منى",
            role="champion",
            server_key=self.key.public,
            server_ms=self.clock.wall_ms(),
            epoch=self.epoch,
            nonce=known.nonce,
            short_number=short_number(asked.public_key),
            payload=payload,
        )
        return _ok(sign_enrolled(self.key, enrolled, request=body))

    def _sync(self, body: bytes) -> HttpReply:
        frames = [parse_frame(raw) for raw in read_sync(body)]
        known = self.devices.get(frames[0].device)
        if known is None:
            return problem("unknown-device", 401, "rekey")
        last = frames[-1]
        serves = last.ask is not None and last.ask.nonce == known.nonce and last.hash not in known.frames
        assert all(frame.is_signed_by(known.public_key) for frame in frames)
        receipts = tuple(self._store(frame, known) for frame in frames)
        payload = self._pull(last, known) if serves else None
        return self._answer(body, last.device, receipts, payload)

    def _call(self, body: bytes) -> HttpReply:
        call = read_call(body)
        known = self.devices[call.device]
        assert call.is_signed_by(known.public_key)
        if call.nonce != known.nonce:
            known.nonce = self.random.bytes(8)
            return problem("stale-nonce", 409, "same", nonce=known.nonce.hex())
        bundle = read_bundle(call.args[0])
        receipts = []
        for raw in bundle.frames:
            frame = parse_frame(raw)
            sender = self.devices.get(frame.device)
            taken = sender is not None and frame.is_signed_by(sender.public_key)
            receipts.append(self._store(frame, sender) if sender is not None and taken else "bad-signature")
        kinds = [v.kind for entry in receipts if not isinstance(entry, str) for v in entry]
        result: list[Value] = [len(bundle.frames), *(kinds.count(kind) for kind in range(4)), bundle.truncated, []]
        return self._answer(body, call.device, tuple(receipts), pack(result))

    # ---- the log and the pull ----

    def _store(self, frame: Frame, known: Known) -> tuple[Verdict, ...]:
        if known.numbers.setdefault(frame.number, frame.hash) != frame.hash:
            self.events.append("push-number-reused")
            self.copied.add(frame.device)
        known.frames.add(frame.hash)
        if frame.ask is not None:
            self.done[frame.device] = frame.ask.done
            self.asks.append(frame.ask)
        return tuple(self._verdict(frame, at) for at in range(len(frame.changes)))

    def _verdict(self, frame: Frame, at: int) -> Verdict:
        slug = self.refuse(frame, at)
        if slug is not None:
            return Verdict(REFUSED, slug)
        framed = frame.changes[at]
        try:
            change = parse(framed.chunk)
        except ChangeRefused as refused:
            return Verdict(REFUSED, refused.code)
        if not is_actor_of(change.actor, frame.device):
            return Verdict(REFUSED, "actor")
        if change.hash[:8] in self.stored:
            return Verdict(DUPLICATE)
        self.stored[change.hash[:8]] = (framed.register, change.chunk, frame.device)
        return Verdict(HELD, "unknown-pupil") if change.hash[:8] in self.review else Verdict(DURABLE)

    def _pull(self, frame: Frame, known: Known) -> bytes:
        ask = frame.ask
        assert ask is not None
        if ask.cursor is not None and ask.cursor not in known.served and ask.cursor != b"\0":
            raise AssertionError("a cursor that this device was never given")
        have = {ask.have[at : at + 8] for at in range(0, len(ask.have), 8)} if ask.have is not None else None
        rows = list(self.stored.items())
        start = 0 if ask.cursor is None else known.served.get(ask.cursor, 0)
        page = max(1, -(-len(rows) // self.pages))
        chosen = rows[start : start + page]
        cursor = self.random.bytes(8)
        known.served[cursor] = start + len(chosen)
        items: list[list[Value]] = self._basics() if ask.cursor is None else []
        for short, (register, chunk, device) in chosen:
            if device != frame.device or (have is not None and short not in have):
                items.append(["change", register, "t1" if device == frame.device else "t2", chunk])
        items += self._settled(frame.device)
        items += [list(order) for order in self.directives if int(str(order[1])) > ask.done]
        if frame.device in self.copied:
            items.append(["notice", "restored-copy"])
        if have is not None:
            items.append(["want", b"".join(short for short in have if short not in self.stored)])
        return write_payload(
            Payload(cursor=cursor, more=start + len(chosen) < len(rows), items=tuple(map(tuple, items)))
        )

    def _settled(self, author: bytes) -> list[list[Value]]:
        """A settlement is told to the change's author only, as the real server does."""
        if not self.settles:
            return []
        by_register: dict[str, list[Value]] = {}
        for short, (register, _, device) in self.stored.items():
            if device != author:
                continue
            state: list[Value] = [short, 2, "unknown-pupil"] if short in self.review else [short, 1, None]
            by_register.setdefault(register, []).append(state)
        return [["settled", register, len(states), states] for register, states in by_register.items()]

    def _basics(self) -> list[list[Value]]:
        return [
            ["classes", [[CLASS, "3/A", "3"]]],
            ["roster", CLASS, 1, [list(pupil) for pupil in PUPILS]],
            ["calendar", 1, CAIRO_WINTER, [["2026-11-27", "weekend"]], ["day"]],
            ["weather", "a word of a newer server"],
        ]

    def _answer(
        self, body: bytes, device: bytes, receipts: tuple[tuple[Verdict, ...] | str, ...], payload: bytes | None
    ) -> HttpReply:
        known = self.devices[device]
        known.nonce = self.random.bytes(8)
        answer = Answer(
            request=request_digest(body),
            server_ms=self.clock.wall_ms(),
            epoch=self.epoch,
            nonce=known.nonce,
            last_number=max(known.numbers, default=0),
            receipts=receipts,
            payload=payload,
        )
        return _ok(sign_answer(self.key, answer))

    # ---- what tests look at ----

    def visible(self, register: str) -> dict[str, list[str]]:
        """Values per key of the merged register."""
        history = merge(parse(chunk) for name, chunk, _ in self.stored.values() if name == register)
        assert not history.pending
        assert not history.inconsistent
        assert not history.equivocations
        return {key: [put.value for put in puts] for key, puts in history.visible().items()}

    def restore(self, stored: dict[bytes, tuple[str, bytes, bytes]]) -> None:
        """Put an older copy of the log in place, as an operator does after a disaster."""
        self.stored = dict(stored)
        self.epoch += 1


def _ok(body: bytes) -> HttpReply:
    return HttpReply(status=200, content_type=MEDIA_TYPE, body=body)


def offline(path: str, body: bytes) -> HttpReply | None:
    """A `before` for a network that is not there."""
    raise TransportError("offline", "no network")
