"""A real server process over a real store with a generated roster, and phones enrolled at it."""

from __future__ import annotations

import http.client
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

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

    def frame(
        self, changes: Sequence[tuple[str, Change]], *, have: bytes | None = None, wall_ms: int | None = None
    ) -> Frame:
        """Sign the next frame, with an ask as a real sync has it.

        Args:
            changes: Register and change.
            have: What a rebuild's first request offers.
            wall_ms: The phone's clock; now by default, and then with the beacon of the enrolment.
        """
        self.number += 1
        cursor = None if have is not None else self.cursor
        ask = Ask(nonce=self.nonce, cursor=cursor, have=have, app=APP, unsent=0, done=0)
        beacon = (self.enrolled.server_ms, 1_000) if wall_ms is None else None
        wall_ms = SystemClock().wall_ms() if wall_ms is None else wall_ms
        made = seal_frame(
            self.key,
            env=self.enrolled.env,
            school=self.enrolled.school,
            device=self.enrolled.device,
            number=self.number,
            prev=self.prev,
            clock=ClockEvidence(wall_ms=wall_ms, mono_ms=65_000, session=self.session, beacon=beacon),
            changes=[FramedChange(register=register, chunk=deflate(change.chunk)) for register, change in changes],
            ask=ask,
        )
        self.prev = made.hash[:16]
        return made


@dataclass(slots=True)
class Site:
    """The running server, its school, the champions' codes that are left, and teachers' codes with their classes."""

    port: int
    folder: Path
    address: str | None
    process: psutil.Popen
    school: str
    today: str
    codes: list[tuple[str, str]]
    classes: dict[str, list[str]]
    teachers: list[tuple[str, list[str]]]

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

    def enrol(self, *, seed: int, code: str | None = None) -> Phone:
        """Enrol one phone with `code`, or the next of the champions' codes."""
        code = code or self.codes.pop()[1]
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

    def restart(self, *, settle: bool) -> None:
        """End the server and start another one on the same store; no new codes."""
        self.stop()
        self.process.stdout.close()
        self.process, told = _start(self.folder, self.address, phones=0, settle=settle)
        self.port = _port(told)

    @contextmanager
    def another(self, *, settle: bool) -> Iterator[Site]:
        """One more server on the same PostgreSQL database, ended afterwards."""
        process, told = _start(self.folder, self.address, phones=0, settle=settle)
        try:
            yield replace(self, process=process, port=_port(told))
        finally:
            stop(process)
            process.stdout.close()

    @property
    def store(self) -> Path:
        """The server's SQLite file."""
        return self.folder / "store.db"

    def cpu_s(self) -> float:
        """CPU-seconds of the server so far, user and system, its helper's included."""
        return sum(times.user + times.system for times in (one.cpu_times() for one in self._processes()))

    def rss_bytes(self) -> int:
        """Resident memory of the server and its helper now."""
        return sum(one.memory_info().rss for one in self._processes())

    def _processes(self) -> list[psutil.Process]:
        return [self.process, *self.process.children(recursive=True)]

    def metrics(self) -> dict[str, float]:
        """What the server tells Prometheus, by name with labels."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        connection.request("GET", "/metrics")
        lines = connection.getresponse().read().decode().splitlines()
        connection.close()
        return {line.rpartition(" ")[0]: float(line.rpartition(" ")[2]) for line in lines if line and line[0] != "#"}

    def wait_settled(self, *, limit_s: float = 240) -> float:
        """Come back when nothing waits to be settled; returns the seconds it took."""
        began_s = time.monotonic()
        while self.metrics()["hudur_consumer_lag_offsets"] > 0:
            if time.monotonic() - began_s > limit_s:
                raise SystemExit(f"not settled within {limit_s} s")
            time.sleep(0.25)
        return time.monotonic() - began_s


def stop(process: psutil.Popen) -> None:
    """End it as an operator would; a second call does nothing."""
    if process.poll() is None:
        process.terminate()
        process.wait(timeout=60)


def _start(
    folder: Path, address: str | None, *, phones: int, settle: bool, schools: int = 1, teachers: int = 0
) -> tuple[psutil.Popen, dict[str, Any]]:
    """A server process over the store in `folder`, and what it told when it was ready."""
    command = [sys.executable, "-m", "bench.server", str(folder)]
    command += [] if address is None else ["--store", address]
    command += ["--phones", str(phones), "--schools", str(schools), "--teachers", str(teachers)]
    process = psutil.Popen(command + ["--settle"] * settle, stdout=subprocess.PIPE, text=True, cwd=ROOT)
    line = process.stdout.readline()
    if not line:
        stop(process)
        raise SystemExit("the benchmark's server did not start")
    return process, json.loads(line)


def _port(told: dict[str, Any]) -> int:
    return int(told["url"].rsplit(":", 1)[1])


@contextmanager
def site(
    *, phones: int, settle: bool, schools: int = 1, teachers: int = 0, address: str | None = None
) -> Iterator[Site]:
    """A server over a new store; ended and removed afterwards.

    Args:
        phones: Champions' codes that are made.
        settle: Whether the server settles too.
        schools: How many there are.
        teachers: Teachers' codes that are made.
        address: An empty PostgreSQL database; a file of its own by default.
    """
    with tempfile.TemporaryDirectory(prefix="hudur-bench-") as name:
        process, told = _start(Path(name), address, phones=phones, settle=settle, schools=schools, teachers=teachers)
        place = Site(
            port=_port(told),
            folder=Path(name),
            address=address,
            process=process,
            school=told["school"],
            today=told["today"],
            codes=[(user, code) for user, code in told["codes"]],
            classes=told["classes"],
            teachers=[(code, rooms) for code, rooms in told["teachers"]],
        )
        try:
            yield place
        finally:
            stop(place.process)
            place.process.stdout.close()
