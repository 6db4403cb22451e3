"""A real server process over a real store with a generated roster, and phones enrolled at it, for benchmarks."""

from __future__ import annotations

import http.client
import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from clientcore.change import Op, actor_of, deflate, encode
from clientcore.exchange import MEDIA_TYPE, Enrolled, read_enrolled, read_payload, write_enrol
from clientcore.frame import Ask, ClockEvidence, Frame, FramedChange, seal_frame
from clientcore.keys import SigningKey
from clientcore.ports import Random, SystemClock

HUDUR = [str(Path(sys.executable).with_name("hudur"))]


def hudur(*args: str) -> str:
    """Run the command line and return what it printed."""
    done = subprocess.run([*HUDUR, *args], capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"hudur {' '.join(args)} failed:\n{done.stdout}{done.stderr}")
    return done.stdout


@dataclass(slots=True)
class Phone:
    """A device as the wire sees it: a key, an enrolment, a frame counter."""

    key: SigningKey
    enrolled: Enrolled
    random: Random
    number: int = 0
    prev: bytes = bytes(16)
    nonce: bytes = b""
    cursor: bytes | None = None
    session: bytes = field(default=b"")

    def change(
        self, register: str, pupils: Sequence[str], *, absent: int = 3, start_ms: int = 28_812_345
    ) -> FramedChange:
        """A first register: every pupil marked, capture times about a second apart, `absent` of them absent."""
        at_ms = 28_812_345  # 08:00:12.345
        ops = []
        for index, pupil in enumerate(sorted(pupils)):
            at_ms += 400 + int(self.random.fraction() * 1_800)
            ops.append(Op(key=pupil, value=f"{'A' if index * absent % len(pupils) < absent else 'P'}{at_ms}"))
        made = encode(
            actor=actor_of(self.enrolled.device, self.session),
            seq=1,
            start_op=1,
            time_s=1_795_334_400,
            deps=[],
            ops=ops,
        )
        return FramedChange(register=register, chunk=deflate(made.chunk))

    def frame(self, changes: Sequence[FramedChange], *, with_ask: bool = True) -> Frame:
        """Sign the next frame."""
        self.number += 1
        clock = SystemClock()
        ask = Ask(nonce=self.nonce, cursor=self.cursor, have=None, app="0.1.0", unsent=0, done=0)
        made = seal_frame(
            self.key,
            env=self.enrolled.env,
            school=self.enrolled.school,
            device=self.enrolled.device,
            number=self.number,
            prev=self.prev,
            clock=ClockEvidence(
                wall_ms=clock.wall_ms(), mono_ms=65_000, session=self.session, beacon=(self.enrolled.server_ms, 1_000)
            ),
            changes=changes,
            ask=Ask(nonce=self.nonce, cursor=self.cursor, have=None, app="0.1.0", unsent=0, done=0)
            if with_ask
            else None,
        )
        self.prev = made.hash[:16]
        return made


@dataclass(slots=True)
class Site:
    """The running server."""

    port: int
    store: str
    process: psutil.Process
    school: str
    staff: list[str]
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

    def enrol(self, user: str, random: Random) -> Phone:
        """Enrol one phone for `user` with a fresh code."""
        code = json.loads(hudur("code", user, "--store", self.store, "--json"))["code"]
        key = SigningKey.generate()
        body = write_enrol(key, school=self.school, code=code, label="bench", app="0.1.0")
        enrolled = read_enrolled(self.post("/v1/enrol", body), request=body)
        cursor = read_payload(enrolled.payload).cursor
        return Phone(
            key=key, enrolled=enrolled, random=random, nonce=enrolled.nonce, cursor=cursor, session=random.bytes(8)
        )

    def cpu_s(self) -> float:
        """CPU-seconds of the server, all its processes."""
        family = [self.process, *self.process.children(recursive=True)]
        return sum(sum(one.cpu_times()[:2]) for one in family)


@contextmanager
def site(*serve_options: str) -> Iterator[Site]:
    """A server over a new store with one generated school; ended and removed afterwards."""
    with tempfile.TemporaryDirectory(prefix="hudur-bench-") as folder:
        store = f"sqlite:{folder}/store.db"
        hudur("roster", "generate", f"{folder}/roster.zip", "--schools", "1", "--seed", "7")
        hudur("roster", "import", f"{folder}/roster.zip", "--store", store)
        port = free_port()
        process = psutil.Popen([*HUDUR, "serve", "--store", store, "--port", str(port), *serve_options])
        try:
            wait_until_ready(port)
            yield read_site(port, store, process)
        finally:
            process.terminate()
            process.wait(timeout=30)
