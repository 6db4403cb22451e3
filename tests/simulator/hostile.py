"""An enrolled device in bad hands: changes in good shape that no machine can merge, old bytes, spoilt bytes."""

from __future__ import annotations

import random
from contextlib import suppress
from dataclasses import dataclass, field

from clientcore.change import Op, actor_of, encode
from clientcore.errors import FrameRefused, RemoteError
from clientcore.exchange import DURABLE, REFUSED, read_answer, read_enrolled, read_sync, write_enrol, write_sync
from clientcore.frame import NO_PREV, ClockEvidence, FramedChange, seal_frame
from clientcore.keys import SIGNATURE_BYTES
from tests.simulator.asgi import Answered
from tests.simulator.lab import Lab, garbled
from tests.simulator.school import School
from tests.simulator.server import ServerHost, Unreachable
from tests.support.loose import body_of, chunk_of
from tests.support.quick import ORDER_P256, key_of

REMEMBERED_MAX = 400
# One put of `a` = "P1", its action spelt as a run of one; and 10^6 puts by run length (reliability.md 6.1).
RUN_OF_ONE = (
    (0x15, b"\x7f\x01a"), (0x34, b"\x01"), (0x42, b"\x01\x01"), (0x56, b"\x7f\x26"), (0x57, b"P1"), (0x70, b"\x7f\x00"),
)  # fmt: skip
BOMB = (
    (0x15, b"\xc0\x84\x3d\x01a"), (0x34, b"\xc0\x84\x3d"), (0x42, b"\xc0\x84\x3d\x01"), (0x56, b"\xc0\x84\x3d\x06"),
    (0x70, b"\xc0\x84\x3d\x00"),
)  # fmt: skip


@dataclass(slots=True, kw_only=True)
class Mallory:
    """A device that signs what it likes, and a listener that keeps what it hears.

    Attributes:
        made: Hashes of the changes it made: they may become dead letters, and nobody answers for their marks.
        heard: Requests of others, to be sent once more.
    """

    lab: Lab
    host: ServerHost
    school: School
    made: set[bytes] = field(default_factory=set)
    heard: list[tuple[str, bytes]] = field(default_factory=list)
    _number: int = 0
    _device: bytes | None = None
    _env: str = ""

    def hear(self, path: str, body: bytes) -> None:
        """Keep one request."""
        if len(self.heard) < REMEMBERED_MAX:
            self.heard.append((path, body))

    async def enrol(self) -> None:
        """Get in like anybody: as the last teacher of the school."""
        key = key_of(f"mallory|{self.lab.swarm.seed}")
        try:
            made = await self.host.order("code", user=f"{self.school.id}/{self.school.teachers[-1]}")
        except ValueError:
            return  # the person whose code it used is not employed any more
        body = write_enrol(key, school=self.school.id, code=str(made["code"]), label="m", app="test")
        try:
            reply = await self.host.device_request("/v1/enrol", body)
        except Unreachable:
            return
        if reply.status == 200:
            enrolled = read_enrolled(reply.body, request=body)
            self._device, self._env = enrolled.device, enrolled.env

    async def send_change(self, date: str) -> None:
        """One change that contradicts itself or the register's past."""
        if self._device is None:
            await self.enrol()
        if self._device is None:
            return
        source = self.lab.swarm.stream("bad.change|how")
        class_id = source.choice(list(self.school.classes))
        actor = actor_of(self._device, source.randbytes(8))
        other = source.randbytes(16)
        how = source.randrange(4)
        pupil = source.choice(self.school.pupils[class_id])
        value = f"A{source.randrange(30_000_000, 40_000_000)}"
        change = encode(
            actor=actor,
            seq=1 if how else 1 + source.randrange(1, 9),  # 0: a number too high
            start_op=500 if how == 1 else 10,  # 1: operations that begin too late; 2: a predecessor nobody made
            time_s=1_790_000_000,
            deps=(source.randbytes(32),) if how == 3 else (),  # 3: a dependency that will never come
            ops=[Op(key=pupil, value=value, preds=((5, other),) if how == 2 else ())],
        )
        self.made.add(change.hash)
        self.lab.fault("bad.change")
        await self._post(
            "/v1/sync", self._signed([FramedChange(register=f"{class_id}/{date}/day", chunk=change.chunk)])
        )

    async def send_mixed(self, date: str) -> None:
        """A frame with a good change and one outside the profile: the good one must be taken, the other refused."""
        if self._device is None:
            await self.enrol()
        if self._device is None:
            return
        source = self.lab.swarm.stream("bad.mixed|how")
        class_id = source.choice(list(self.school.classes))
        actor = actor_of(self._device, source.randbytes(8))
        good = encode(
            actor=actor, seq=1, start_op=1, time_s=1_790_000_000, deps=(),
            ops=[Op(key="nobody-here", value=f"P{source.randrange(30_000_000)}", preds=())],
        )  # fmt: skip
        self.made.add(good.hash)
        spoilt = source.choice((RUN_OF_ONE, BOMB))
        bad = chunk_of(body_of(spoilt, actor=actor))
        register = f"{class_id}/{date}/day"
        body = self._signed([FramedChange(register=register, chunk=chunk) for chunk in (good.chunk, bad)])
        self.lab.fault("bad.mixed")
        answered = await self._post("/v1/sync", body)
        if answered is None or answered.status != 200 or self.host.key is None:
            return
        (verdicts,) = read_answer(answered.body, server_key=self.host.key.public, request=body).answer.receipts
        told = [(one.kind, one.slug) for one in verdicts] if not isinstance(verdicts, str) else [verdicts]
        wanted = [(DURABLE, None), (REFUSED, "not-canonical" if spoilt is RUN_OF_ONE else "too-many-ops")]
        self.lab.ledger.check("I7", told == wanted, f"a good and a broken change were answered {told}, not {wanted}")

    async def equivocate(self, date: str) -> None:
        """Two different changes with one (actor, seq)."""
        if self._device is None:
            await self.enrol()
        if self._device is None:
            return
        source = self.lab.swarm.stream("bad.twice|how")
        class_id = source.choice(list(self.school.classes))
        actor = actor_of(self._device, source.randbytes(8))
        framed = []
        for pupil in source.choices(self.school.pupils[class_id], k=2):
            change = encode(
                actor=actor, seq=1, start_op=1, time_s=1_790_000_000, deps=(),
                ops=[Op(key=pupil, value=f"A{source.randrange(30_000_000)}", preds=())],
            )  # fmt: skip
            self.made.add(change.hash)
            framed.append(FramedChange(register=f"{class_id}/{date}/am1", chunk=change.chunk))
        self.lab.fault("bad.twice")
        for one in source.sample(framed, 2):
            await self._post("/v1/sync", self._signed([one]))

    async def twist(self) -> None:
        """A request of somebody else with every signature (r, s) as (r, n - s), which verifies as well."""
        heard = [body for path, body in self.heard if path == "/v1/sync"]
        if not heard:
            return
        body = self.lab.swarm.stream("bad.replay|twist").choice(heard)
        with suppress(FrameRefused, RemoteError):
            self.lab.fault("bad.twist")
            await self._post("/v1/sync", write_sync([_twisted(raw) for raw in read_sync(body)]))

    def _signed(self, framed: list[FramedChange]) -> bytes:
        assert self._device is not None
        self._number += 1
        frame = seal_frame(
            key_of(f"mallory|{self.lab.swarm.seed}"),
            env=self._env,
            school=self.school.id,
            device=self._device,
            number=self._number,
            prev=NO_PREV,
            clock=ClockEvidence(wall_ms=self.host.clock.wall_ms(), mono_ms=1, session=self._number.to_bytes(8, "big")),
            changes=framed,
            ask=None,
        )
        return write_sync([frame.raw])

    async def replay(self) -> None:
        """Something somebody sent before, byte for byte."""
        if self.heard:
            self.lab.fault("bad.replay")
            await self._post(*self.lab.swarm.stream("bad.replay|which").choice(self.heard))

    async def spoil(self) -> None:
        """Something somebody sent before, with something wrong in it."""
        if not self.heard:
            return
        source: random.Random = self.lab.swarm.stream("bad.bytes|which")
        path, body = source.choice(self.heard)
        self.lab.fault("bad.bytes")
        await self._post(path, garbled(body, source))

    async def _post(self, path: str, body: bytes) -> Answered | None:
        try:
            return await self.host.device_request(path, body)
        except Unreachable:
            return None


def _twisted(raw: bytes) -> bytes:
    signed, r, s = raw[:-SIGNATURE_BYTES], raw[-SIGNATURE_BYTES:-32], int.from_bytes(raw[-32:], "big")
    return signed + r + (ORDER_P256 - s).to_bytes(32, "big")
