"""An enrolled device in bad hands: changes that pass every shape check and that no machine can merge, old and spoilt bytes."""

from __future__ import annotations

import random
from dataclasses import dataclass, field

from clientcore.change import Op, actor_of, encode
from clientcore.exchange import read_enrolled, write_enrol, write_sync
from clientcore.frame import NO_PREV, ClockEvidence, FramedChange, seal_frame
from tests.simulator.lab import Lab, garbled
from tests.simulator.phone import key_of
from tests.simulator.school import School
from tests.simulator.server import Answered, ServerHost, Unreachable

REMEMBERED_MAX = 400


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
        made = await self.host.order("code", user=f"{self.school.id}/{self.school.teachers[-1]}")
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
        self._number += 1
        frame = seal_frame(
            key_of(f"mallory|{self.lab.swarm.seed}"),
            env=self._env,
            school=self.school.id,
            device=self._device,
            number=self._number,
            prev=NO_PREV,
            clock=ClockEvidence(wall_ms=self.host.clock.wall_ms(), mono_ms=1, session=source.randbytes(8)),
            changes=[FramedChange(register=f"{class_id}/{date}/day", chunk=change.chunk)],
            ask=None,
        )
        self.lab.fault("bad.change")
        await self._post("/v1/sync", write_sync([frame.raw]))

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
