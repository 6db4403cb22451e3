"""Whether an acknowledgement waits for the disk: every fsync is made half a second late, and the answer is timed."""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

DELAY_S = 0.5
ATTACH_S = 10.0


@contextmanager
def late_fsync(pid: int) -> Iterator[bool]:
    """Delay each fsync and fdatasync of a process by `DELAY_S`; yields False where strace is missing or forbidden."""
    if shutil.which("strace") is None:
        yield False
        return
    delay = f"inject=fsync,fdatasync:delay_enter={int(DELAY_S * 1e6)}"
    command = ["strace", "-f", "-p", str(pid), "-e", "trace=fsync,fdatasync", "-e", delay, "-o", "/dev/null"]
    tracer = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    try:
        yield _is_attached(pid, tracer)
    finally:
        tracer.terminate()
        try:
            tracer.wait(timeout=10)
        except subprocess.TimeoutExpired:
            tracer.kill()
            tracer.wait(timeout=10)


def _is_attached(pid: int, tracer: subprocess.Popen[bytes]) -> bool:
    until_s = time.monotonic() + ATTACH_S
    while time.monotonic() < until_s and tracer.poll() is None:
        if _tracers(pid) == {tracer.pid}:
            return True
        time.sleep(0.05)
    return False


def _tracers(pid: int) -> set[int]:
    """Who traces the threads of a process; all of them by one is what we want."""
    found = set()
    for status in Path(f"/proc/{pid}/task").glob("*/status"):
        line = next(line for line in status.read_text().splitlines() if line.startswith("TracerPid:"))
        found.add(int(line.split()[1]))
    return found
