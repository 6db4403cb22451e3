"""A real server process over a real store with a generated roster, and phones enrolled at it."""

from __future__ import annotations

import http.client
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

from clientcore.change import Change, Op, actor_of, deflate, encode
from clientcore.exchange import MEDIA_TYPE, Enrolled, read_enrolled, read_payload, write_enrol
from clientcore.frame import Ask, ClockEvidence, Frame, FramedChange, seal_frame
from clientcore.keys import SigningKey
from clientcore.ports import SeededRandom, SystemClock

APP = "1.0.0"
ROOT = Path(__file__).parents[1]


@dataclass(slots=True)
class Phone:
    """A device as the wire sees it: a key, an enrolment, a frame counter."""

    key: SigningKey
    enrolled: Enrolled
    random: SeededRandom
    session: bytes
    nonce: bytes
    cursor: bytes
    number: int = 0
    prev: bytes = bytes(16)

    def register(self, pupils: Sequence[str], *, absent: int = 3) -> Change:
        """A first register: every pupil tapped, about a second apart, `absent` of them absent."""
        at_ms = 28_812_345  # 08:00:12.345
        ops = []
        for index, pupil in enumerate(sorted(pupils)):
            at_ms += 400 + int(self.random.fraction() * 1_800)
            ops.append(Op(key=pupil, value=f"{'A' if index < absent else 'P'}{at_ms}"))
        return self._change(1, 1, [], ops)

    def correction(self, first: Change, *, marks: int = 3) -> Change:
        """Later: the first `marks` pupils turn out late."""
        ops = [
            Op(key=op.key, value=f"L{30_600_000 + 1_700 * index}:12", preds=((first.start_op + index, first.actor),))
            for index, op in enumerate(first.ops[:marks])
        ]
        return self._change(2, first.max_op + 1, [first.hash], ops)

    def _change(self, seq: int, start_op: int, deps: Sequence[bytes], ops: Sequence[Op]) -> Change:
        actor = actor_of(self.enrolled.device, self.session)
        return encode(actor=actor, seq=seq, start_op=start_op, time_s=1_795_334_400, deps=deps, ops=ops)

    def frame(self, changes: Sequence[tuple[str, Change]]) -> Frame:
        """Sign the next frame, with an ask as a real sync has it."""
        self.number += 1
        ask = Ask(nonce=self.nonce, cursor=self.cursor, have=None, app=APP, unsent=0, done=0)
        beacon = (self.enrolled.server_ms, 1_000)
        made = seal_frame(
            self.key,
            env=self.enrolled.env,
            school=self.enrolled.school,
            device=self.enrolled.device,
            number=self.number,
            prev=self.prev,
            clock=ClockEvidence(wall_ms=SystemClock().wall_ms(), mono_ms=65_000, session=self.session, beacon=beacon),
            changes=[FramedChange(register=register, chunk=deflate(change.chunk)) for register, change in changes],
            ask=ask,
        )
        self.prev = made.hash[:16]
        return made


@dataclass(slots=True)
class Site:
    """The running server, its school, and the codes that are left."""

    port: int
    folder: Path
    process: psutil.Popen
    school: str
    today: str
    codes: list[tuple[str, str]]
    classes: dict[str, list[str]]

    def post(self, path: str, body: bytes) -> bytes:
        """One request on a fresh connection; anything but 200 ends the benchmark."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        connection.request("POST", path, body, {"Content-Type": MEDIA_TYPE})
        reply = connection.getresponse()
        answer = reply.read()
        connection.close()
        if reply.status != 200:
            raise SystemExit(f"{path}: {reply.status} {answer[:300]!r}")
        return answer

    def enrol(self, *, seed: int) -> Phone:
        """Enrol one phone with the next code."""
        _, code = self.codes.pop()
        random = SeededRandom(seed)
        key = SigningKey.generate()
        body = write_enrol(key, school=self.school, code=code, label=f"bench {seed}", app=APP)
        enrolled = read_enrolled(self.post("/v1/enrol", body), request=body)
        cursor = read_payload(enrolled.payload).cursor
        return Phone(
            key=key, enrolled=enrolled, random=random, session=random.bytes(8), nonce=enrolled.nonce, cursor=cursor
        )

    def stop(self) -> None:
        """End the server gracefully; its store stays until the site is left."""
        stop(self.process)

    def cpu_s(self) -> float:
        """CPU-seconds of the server so far, user and system."""
        times = self.process.cpu_times()
        return float(times.user + times.system)


def stop(process: psutil.Popen) -> None:
    """End it as an operator would; a second call does nothing."""
    if process.poll() is None:
        process.terminate()
        process.wait(timeout=60)


@contextmanager
def site(*, phones: int, settle: bool) -> Iterator[Site]:
    """A server over a new store; ended and removed afterwards."""
    with tempfile.TemporaryDirectory(prefix="hudur-bench-") as name:
        command = [sys.executable, "-m", "bench.server", name, "--phones", str(phones), *(["--settle"] * settle)]
        process = psutil.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT)
        try:
            line = process.stdout.readline()
            if not line:
                raise SystemExit("the benchmark's server did not start")
            told = json.loads(line)
            yield Site(
                port=int(told["url"].rsplit(":", 1)[1]),
                folder=Path(name),
                process=process,
                school=told["school"],
                today=told["today"],
                codes=[(user, code) for user, code in told["codes"]],
                classes=told["classes"],
            )
        finally:
            stop(process)
            process.stdout.close()
