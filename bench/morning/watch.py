"""The real server as a process of its own, and what is seen of it from outside: memory, CPU, and its own metrics."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path

import psutil

from bench.morning.frames import ENV

LOOK_EVERY_S = 2
_FAILED_MAX = 15  # from the beginning on: something is wrong with the run, not with the load
_LAG_OFFSETS, _LAG_S = "hudur_consumer_lag_offsets", "hudur_consumer_lag_seconds"


@dataclass(slots=True)
class Sample:
    """One second of the run; `lag_*` and `waiting` are None in seconds without an answer of the server's metrics."""

    at_s: float
    rss_mb: float
    cpu_s: float
    tries: int = 0
    accepted: int = 0
    shed: int = 0
    failed: int = 0
    open: int = 0
    lag_offsets: float | None = None
    lag_s: float | None = None
    waiting: float | None = None
    settled: float | None = None

    def as_row(self) -> dict[str, float | None]:
        """For JSON."""
        return {name: None if value is None else round(value, 2) for name, value in asdict(self).items()}


@dataclass(slots=True)
class Watched:
    """The running server; children (further processes of it) are counted with it."""

    process: psutil.Popen
    port: int
    cpu_ended_s: dict[int, float] = field(default_factory=dict)

    def usage(self) -> tuple[float, float]:
        """Resident megabytes and CPU-seconds so far."""
        rss = 0
        for one in [self.process, *self.process.children(recursive=True)]:
            with suppress(psutil.NoSuchProcess):
                times = one.cpu_times()
                self.cpu_ended_s[one.pid] = times.user + times.system
                rss += one.memory_info().rss
        return rss / 1e6, sum(self.cpu_ended_s.values())


@contextmanager
def served(store: Path) -> Iterator[Watched]:
    """`hudur serve` on a store, with the settings it has out of the box; ended as an operator ends it."""
    command = [sys.executable, "-c", "from syncserver.cli import main; main()"]
    command += ["serve", "--store", f"sqlite:{store}", "--port", "0", "--json"]
    environment = {**os.environ, "HUDUR_ENV": ENV, "HUDUR_HOST": "127.0.0.1"}
    with (store.parent / "server.log").open("wb") as log:
        process = psutil.Popen(command, stdout=subprocess.PIPE, stderr=log, env=environment)
        try:
            line = process.stdout.readline()
            if not line:
                raise SystemExit("the server did not start: " + (store.parent / "server.log").read_text()[-800:])
            yield Watched(process, int(json.loads(line)["url"].rsplit(":", 1)[1]))
        finally:
            if process.poll() is None:
                process.terminate()
                process.wait(timeout=120)
            process.stdout.close()


def read_metrics(text: bytes) -> dict[str, float]:
    """The values of an exposition; labels stay part of the name."""
    lines = (line.rpartition(" ") for line in text.decode().splitlines() if line and not line.startswith("#"))
    return {name: float(value) for name, _, value in lines}


class Watch:
    """Samples every second; asks for the metrics every other one."""

    def __init__(self, server: Watched, look: Callable[[str, Callable[[bytes], None]], None]) -> None:
        self._server, self._look = server, look
        self._asked_s = -float(LOOK_EVERY_S)
        self.samples: list[Sample] = []
        self.metrics: dict[str, float] = {}
        self._metrics_of_s = -1.0
        self.metrics_failed = 0
        self.metrics_waits_s: list[float] = []

    def sample(self, at_s: float) -> Sample:
        """Take one and ask for the next metrics."""
        rss_mb, cpu_s = self._server.usage()
        sample = Sample(at_s=at_s, rss_mb=rss_mb, cpu_s=cpu_s)
        self.samples.append(sample)
        if not 0 <= at_s - self._asked_s < LOOK_EVERY_S:  # the first, too, of a run that begins to count again
            self._asked_s = at_s
            began_s = time.perf_counter()
            self._look("/metrics", lambda body: self._told(sample, body, time.perf_counter() - began_s))
        return sample

    @property
    def lag(self) -> tuple[float, float] | None:
        """Offsets and seconds of the last metrics."""
        return (self.metrics[_LAG_OFFSETS], self.metrics[_LAG_S]) if self.metrics else None

    def is_settled(self, since_s: float) -> bool:
        """Whether metrics that were asked for after a moment say that nothing waits to be settled."""
        return self._metrics_of_s > since_s and self.lag == (0, 0)

    def _told(self, sample: Sample, body: bytes, wait_s: float) -> None:
        if not body:
            self.metrics_failed += 1
            if not self.metrics and self.metrics_failed >= _FAILED_MAX:
                raise SystemExit("the server's metrics do not answer")
            return
        self.metrics_waits_s.append(wait_s)
        self.metrics, self._metrics_of_s = read_metrics(body), sample.at_s
        sample.lag_offsets, sample.lag_s = self.metrics[_LAG_OFFSETS], self.metrics[_LAG_S]
        sample.waiting = self.metrics.get("hudur_commit_waiting")
        sample.settled = self.metrics.get("hudur_settled_registers_total")
