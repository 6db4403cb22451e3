"""Worlds in processes of their own (tests/simulator/child.py), several at once.

Invariants:
  1. A child has `PYTHONHASHSEED=0` and lowers its own priority; what it answers depends on neither.
  2. A world that needs more than CPU_S seconds of processor time, or whose process dies, is a record with a violation;
     the next world gets a new process.
  3. A child plays `WORLDS_PER_LIFE` worlds at most: what leaks in one cannot fill the memory of a long run.
"""

from __future__ import annotations

import contextlib
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.simulator.child import READY
from tests.simulator.record import Job, Record

ROOT = Path(__file__).resolve().parents[2]
CPU_S = 120  # per world; one of the default size takes a second
WORLDS_PER_LIFE = 40
SAID_CHARS_MAX = 2_000  # of what a dying process wrote


class ChildBroken(Exception):
    """A child ended before it could play anything: the laboratory itself does not start."""


class Child:
    """One process that plays worlds."""

    def __init__(self, cpu_s: int, saboteur: str | None) -> None:
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 -- closed in `close`; a pipe would fill up
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.simulator.child", str(cpu_s), *([saboteur] if saboteur else [])],
            cwd=ROOT,
            env={**os.environ, "PYTHONHASHSEED": "0"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
        )
        self._cpu_s, self._saboteur = cpu_s, saboteur
        self.played = 0

    def play(self, job: Job) -> Record:
        """One world; its end, whatever it was.

        Raises:
            ChildBroken: when the process did not even begin.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        line = ""
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.write(f"{job.to_json()}\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        self.played += 1
        if line.startswith("{"):
            return Record.from_json(line)
        return self._ended(job)

    def _ended(self, job: Job) -> Record:
        status = self._process.wait()
        self._errors.seek(0)
        said = self._errors.read().decode("utf-8", "replace")
        if status == -signal.SIGXCPU:
            return Record.stuck(
                job, float(self._cpu_s), f"the world does not end within {self._cpu_s} s of processor time"
            )
        if self.played == 1 and READY not in said:
            raise ChildBroken(said[-SAID_CHARS_MAX:])
        return Record.stuck(job, 0.0, f"the process died, exit {status}: {said[-SAID_CHARS_MAX:]}")

    def takes(self, job: Job) -> bool:
        """Whether the next world may run in it."""
        return not self._is_spent and job.saboteur == self._saboteur

    @property
    def _is_spent(self) -> bool:
        return self.played >= WORLDS_PER_LIFE or self._process.poll() is not None

    def kill(self) -> None:
        """End the process, whatever it does; who waits for its answer gets the end of the file."""
        self._process.kill()

    def close(self) -> None:
        """End the process and forget it."""
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            with contextlib.suppress(BrokenPipeError):
                pipe.close()
        self._errors.close()


class Crew:
    """Some processes that stay alive from one handful of worlds to the next. Use as a context manager."""

    def __init__(self, processes: int, *, cpu_s: int = CPU_S) -> None:
        self._children: list[Child | None] = [None] * processes
        self._cpu_s = cpu_s

    def __enter__(self) -> Crew:
        return self

    def __exit__(self, *_: object) -> None:
        for child in self._children:
            if child is not None:
                child.close()

    def play(self, jobs: Sequence[Job]) -> Sequence[Record]:
        """At most as many worlds as there are processes, side by side; records in the order of the jobs."""
        with ThreadPoolExecutor(len(self._children)) as pool:
            return list(pool.map(self._play, range(len(self._children)), jobs))

    def _play(self, place: int, job: Job) -> Record:
        self._children[place] = child = fit(self._children[place], job, self._cpu_s)
        return child.play(job)


def fit(child: Child | None, job: Job, cpu_s: int) -> Child:
    """The process for a job: the one at hand, or a new one in its place."""
    if child is not None and child.takes(job):
        return child
    if child is not None:
        child.close()
    return Child(cpu_s, job.saboteur)


def play_all(
    jobs: Iterable[Job], *, processes: int = 2, cpu_s: int = CPU_S, is_over: Callable[[], bool] = lambda: False
) -> Iterator[Record]:
    """Play worlds on some processes; records as they come, which is not the order of the jobs.

    Jobs are taken one at a time when a process is free, so `jobs` may be endless. Worlds under way are given up when
    the iterator is closed, or within a second after `is_over()`.
    """
    if processes < 1:
        raise ValueError("at least one process")
    waiting, lock, stop = iter(jobs), threading.Lock(), threading.Event()
    done: queue.Queue[Record | BaseException | None] = queue.Queue()
    children: dict[int, Child] = {}

    def work(place: int) -> None:
        try:
            while not stop.is_set():
                with lock:
                    job = next(waiting, None)
                if job is None:
                    break
                child = children[place] = fit(children.get(place), job, cpu_s)
                done.put(child.play(job))
        except BaseException as broken:  # told to whoever waits
            done.put(broken)
        done.put(None)

    threads = [threading.Thread(target=work, args=(place,), daemon=True) for place in range(processes)]
    for thread in threads:
        thread.start()
    try:
        yield from _until_all_ended(processes, done, is_over)
    finally:
        stop.set()
        while any(thread.is_alive() for thread in threads):  # one may be just about to begin another life
            for child in list(children.values()):
                child.kill()
            threads[0].join(0.05)
            threads = [thread for thread in threads if thread.is_alive()] or threads[:1]
        for child in children.values():
            child.close()


def _until_all_ended(
    count: int, done: queue.Queue[Record | BaseException | None], is_over: Callable[[], bool]
) -> Iterator[Record]:
    while count:
        try:
            found = done.get(timeout=1.0)
        except queue.Empty:
            if is_over():
                return
            continue
        if found is None:
            count -= 1
        elif isinstance(found, BaseException):
            raise found
        else:
            yield found
