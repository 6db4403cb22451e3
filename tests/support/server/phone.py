"""A scripted phone: the protocol's bytes by hand, so that tests of the server need no device."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import httpx

from clientcore.change import Change, Op, actor_of, deflate, encode, parse
from clientcore.exchange import (
    MEDIA_TYPE,
    Enrolled,
    Payload,
    SignedAnswer,
    read_answer,
    read_enrolled,
    read_payload,
    write_call,
    write_enrol,
    write_sync,
)
from clientcore.frame import NO_PREV, Ask, ClockEvidence, Frame, FramedChange, seal_frame
from clientcore.history import merge
from clientcore.keys import SigningKey
from clientcore.ports import ManualClock
from clientcore.wire import Value

CAPTURED_MS = 36_000_000  # 10:00 local, when ManualClock starts (08:00 UTC)


@dataclass(slots=True)
class Phone:
    """One device. `changes` holds, per register, every change it knows."""

    http: httpx.AsyncClient
    clock: ManualClock
    seed: int
    key: SigningKey = field(default_factory=SigningKey.generate)
    enrolled: Enrolled | None = None
    number: int = 0
    nonce: bytes | None = None
    cursor: bytes | None = None
    done: int = 0
    changes: dict[str, list[Change]] = field(default_factory=dict)
    frames: list[Frame] = field(default_factory=list)
    payloads: list[Payload] = field(default_factory=list)
    app_session: bytes = b""
    taken: int = 0

    def __post_init__(self) -> None:
        self.app_session = self.seed.to_bytes(8, "big")

    @property
    def me(self) -> Enrolled:
        assert self.enrolled is not None
        return self.enrolled

    async def post(self, path: str, body: bytes) -> httpx.Response:
        return await self.http.post(path, content=body, headers={"content-type": MEDIA_TYPE})

    async def enrol(self, school: str, code: str, *, label: str = "phone") -> Enrolled:
        body = write_enrol(self.key, school=school, code=code, label=label, app="test")
        reply = await self.post("/v1/enrol", body)
        assert reply.status_code == 200, reply.text
        self.enrolled = read_enrolled(reply.content, request=body)
        self.nonce = self.enrolled.nonce
        self._read(self.enrolled.payload)
        return self.enrolled

    def take(self, register: str, marks: Mapping[str, str], *, session: bytes | None = None) -> Change:
        """Seal marks (`{"s001": "A"}`: code, captured now) as one change on top of all this phone knows."""
        known = self.changes.setdefault(register, [])
        self.taken += 1  # a minute later each time: equal bytes in two registers are one hash
        history = merge(known)
        actor = actor_of(self.me.device, session or self.app_session)
        visible = history.visible()
        change = encode(
            actor=actor,
            seq=history.last_seq(actor) + 1,
            start_op=history.max_op + 1,
            time_s=self.clock.wall_ms() // 1000,
            deps=history.heads,
            ops=[
                Op(
                    key=key,
                    value=_value(value, CAPTURED_MS + 60_000 * (self.taken - 1)),
                    preds=tuple(put.id for put in visible.get(key, [])),
                )
                for key, value in marks.items()
            ],
        )
        known.append(change)
        return change

    def frame(self, framed: Sequence[tuple[str, bytes]], *, ask: bool = True, have: bytes | None = None) -> Frame:
        """The next signed frame."""
        self.number += 1
        frame = seal_frame(
            self.key,
            env=self.me.env,
            school=self.me.school,
            device=self.me.device,
            number=self.number,
            prev=self.frames[-1].hash[:16] if self.frames else NO_PREV,
            clock=ClockEvidence(wall_ms=self.clock.wall_ms(), mono_ms=1_000 * self.number, session=self.app_session),
            changes=[FramedChange(register=register, chunk=chunk) for register, chunk in framed],
            ask=Ask(nonce=self.nonce, cursor=self.cursor, have=have, app="test", unsent=0, done=self.done)
            if ask
            else None,
        )
        self.frames.append(frame)
        return frame

    async def send(self, frames: Sequence[Frame]) -> SignedAnswer:
        """One sync that must succeed."""
        body = write_sync([frame.raw for frame in frames])
        reply = await self.post("/v1/sync", body)
        assert reply.status_code == 200, reply.text
        answer = read_answer(reply.content, server_key=self.me.server_key, request=body)
        self.nonce = answer.answer.nonce
        if answer.answer.payload is not None:
            self._read(answer.answer.payload)
        return answer

    async def sync(self, *changes: tuple[str, Change], have: bytes | None = None) -> SignedAnswer:
        """Send changes (deflated) in one frame and take what comes."""
        return await self.send([self.frame([(name, deflate(change.chunk)) for name, change in changes], have=have)])

    async def pull(self) -> None:
        """Ask until nothing more is announced."""
        await self.sync()
        while self.payloads[-1].more:
            await self.sync()

    async def call(self, command: str, *args: Value, path: str = "/v1/call") -> httpx.Response:
        assert self.nonce is not None
        body = write_call(
            self.key,
            env=self.me.env,
            school=self.me.school,
            device=self.me.device,
            nonce=self.nonce,
            wall_ms=self.clock.wall_ms(),
            command=command,
            args=list(args),
        )
        reply = await self.post(path, body)
        if reply.status_code == 200:
            self.nonce = read_answer(reply.content, server_key=self.me.server_key, request=body).answer.nonce
        return reply

    def items(self, word: str) -> list[tuple[Any, ...]]:
        """Every item of this kind that was ever pulled, oldest first."""
        return [item for payload in self.payloads for item in payload.items if item[0] == word]

    def settled(self) -> dict[bytes, tuple[int, str | None]]:
        """The last word on each own change, by the first 8 bytes of its hash."""
        words: dict[bytes, tuple[int, str | None]] = {}
        for _, _, _, entries in self.items("settled"):
            for name, state, slug in entries:
                words[name] = (state, slug)
        return words

    def _read(self, data: bytes) -> None:
        payload = read_payload(data)
        self.cursor = payload.cursor
        self.payloads.append(payload)
        for item in payload.items:
            if item[0] == "change":
                change = parse(item[3])
                known = self.changes.setdefault(item[1], [])
                if all(change.hash != one.hash for one in known):
                    known.append(change)


def _value(text: str, captured_ms: int) -> str:
    code, _, reason = text.partition(":")
    return f"{code}{captured_ms}" + (f":{reason}" if reason else "")
