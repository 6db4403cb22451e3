"""Tap to durable, fsyncs a tap, memory, kill -9 and fingers: what the real page does on an enrolled phone."""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date, timedelta
from os import fdatasync
from pathlib import Path
from typing import Any

import psutil

from bench.phone_figures import Figure, median, percentile
from bench.phone_visits import CPU_RATE
from tests.support.chromium import Chromium, Page
from tests.support.kills import Campaign
from tests.support.shaper import PLAIN, Shaper
from tests.support.teacher import Teacher

TAPS = 100
FSYNC_TAPS = 50
TAP_SPARE_MS = 5  # beyond one fsync
MEMORY_GOAL_MB, MEMORY_TAPS = 12, 40

# One tap after the other; each is timed from the finger to the frame's state "saved".
TAP_AND_TIME = """(async () => {
  const times = [], rows = document.querySelectorAll('.roll > li');
  for (let n = 0; n < COUNT; n++) {
    const row = rows[n % rows.length];
    const saved = new Promise((done) => {
      const watch = new MutationObserver(() => {
        if (row.classList.contains('wait')) return;
        watch.disconnect(); done(performance.now());
      });
      watch.observe(row, { attributes: true, attributeFilter: ['class'] });
    });
    const start = performance.now();
    row.querySelector('.mark').click();
    times.push(await saved - start);
    await new Promise((next) => setTimeout(next, 20));
  }
  return times;
})()"""


@dataclass(slots=True)
class PhoneStore:
    """Measures one enrolled phone after the other. `new_code` makes a code for a class's teacher."""

    shaper: Shaper
    school: str
    rooms: list[dict[str, Any]]  # two classes: `id`, `pupils`
    new_code: Callable[[str], str]
    runs: int
    kills: int
    seed: int
    tell: Callable[[str], None]

    def figures(self) -> list[Figure]:
        """All of them, in the order of the table."""
        self.shaper.shape(PLAIN)
        return [*self._taps(), self._fsyncs(), self._memory(), *self._killed(), *self._fingers()]

    def _enrolled(self, browser: Chromium, room: int = 0) -> Teacher:
        code = self.new_code(self.rooms[room]["id"])
        teacher = Teacher(browser, self.shaper.port).enrol(self.school, code)
        teacher.wait_for_worker()
        teacher.wait_until_idle()
        return teacher

    def _practice(self, teacher: Teacher) -> str:
        """Yesterday's register: today's stays untouched for the fingers."""
        class_id, today, session = teacher.today().split("/")
        return f"{class_id}/{date.fromisoformat(today) - timedelta(days=1)}/{session}"

    # ---- taps

    def _taps(self) -> list[Figure]:
        found = []
        with tempfile.TemporaryDirectory() as folder, Chromium(Path(folder)) as browser:
            fsync_ms = fsync_time_ms(Path(folder))
            goal = round(fsync_ms + TAP_SPARE_MS, 1)
            note = f"goal = one fdatasync on this disk ({fsync_ms:.1f} ms, p50) + {TAP_SPARE_MS} ms"
            teacher = self._enrolled(browser)
            teacher.open_register(self._practice(teacher))
            for rate in (1, CPU_RATE):
                self.tell(f"{TAPS} taps at CPU {rate}x")
                teacher.page.send("Emulation.setCPUThrottlingRate", rate=rate)
                times = self._tap(teacher.page, TAPS)
                for share, most in ((0.5, goal), (0.95, None)):
                    found.append(
                        Figure(
                            name=f"tap to durable, p{share * 100:.0f}, CPU {rate}x",
                            how=f"{TAPS} taps, from the finger to the row shown as saved",
                            unit="ms",
                            measured=round(percentile(times, share), 1),
                            goal=most,
                            note=note if most else "",
                        )
                    )
        return found

    def _tap(self, page: Page, count: int) -> list[float]:
        times: list[float] = page.evaluate(TAP_AND_TIME.replace("COUNT", str(count)))
        return times

    def _fsyncs(self) -> Figure:
        name, how = "fsyncs per tap", f"strace over every process of the browser, {FSYNC_TAPS} taps, no network"
        strace = shutil.which("strace")
        if strace is None:
            return Figure(name=name, how=how, unit="", measured=None, goal=1, note="strace is not installed")
        self.tell("fsyncs a tap")
        with tempfile.TemporaryDirectory() as folder, Chromium(Path(folder) / "profile") as browser:
            teacher = self._enrolled(browser)
            teacher.open_register(self._practice(teacher))
            self.shaper.off()  # nothing but taps writes now
            with Traced(strace, browser_processes(Path(folder) / "profile"), Path(folder) / "trace") as traced:
                teacher.page.evaluate("new Promise((go) => setTimeout(go, 2000))")
                idle = traced.syncs()
                self._tap(teacher.page, FSYNC_TAPS)
                ours, others = (now - before for now, before in zip(traced.syncs(), idle, strict=True))
            self.shaper.shape(PLAIN)
        return Figure(
            name=name,
            how=how,
            unit="",
            measured=round(ours / FSYNC_TAPS, 2),
            goal=1,
            note=f"{ours} on IndexedDB for {FSYNC_TAPS} taps ({idle[0]} in 2 s without taps before them);"
            f" {others} by the browser for its own files meanwhile",
        )

    # ---- memory

    def _memory(self) -> Figure:
        blank: list[float] = []
        ours: list[float] = []
        for run in range(self.runs):
            self.tell(f"memory, {run + 1} of {self.runs}")
            with tempfile.TemporaryDirectory() as folder, Chromium(Path(folder)) as browser:
                page = browser.page()
                page.goto(f"{self.shaper_url()}healthz")
                blank.append(private_mb(page, Path(folder)))
            with tempfile.TemporaryDirectory() as folder:
                with Chromium(Path(folder)) as browser:
                    self._enrolled(browser)
                with Chromium(Path(folder)) as browser:  # a working day: the app is opened, not installed
                    teacher = Teacher(browser, self.shaper.port).open()
                    teacher.open_register(self._practice(teacher))
                    self._tap(teacher.page, MEMORY_TAPS)
                    ours.append(private_mb(teacher.page, Path(folder)))
        return median(
            "memory over a blank page",
            [used - empty for used, empty in zip(sorted(ours), sorted(blank), strict=True)],
            how=f"private dirty, whole browser, after {MEMORY_TAPS} taps",
            unit="MB",
            goal=MEMORY_GOAL_MB,
            note=f"blank: {', '.join(f'{one:.0f}' for one in blank)} MB (one line of text from the same server);"
            f" ours: {', '.join(f'{one:.0f}' for one in ours)} MB",
        )

    def shaper_url(self) -> str:
        """Where the page is, through the proxy."""
        return f"http://127.0.0.1:{self.shaper.port}/"

    # ---- kill -9

    def _killed(self) -> list[Figure]:
        with tempfile.TemporaryDirectory() as folder:
            room = self.rooms[0]
            campaign = Campaign(
                self.shaper.port,
                self.school,
                room["pupils"],
                lambda: self.new_code(room["id"]),
                Path(folder),
                seed=self.seed,
                first_day_back=2,
            )
            for loss in campaign.run(self.kills):
                self.tell(f"kill -9: {loss.kills} of {self.kills}, {loss.shown} taps shown, {loss.lost} lost")
        loss = campaign.loss
        how = f"{loss.kills} kills of the browser, {loss.first_session_kills} in a first session, seed {self.seed}"
        return [
            Figure(
                name="taps lost",
                how=how,
                unit=f"of {loss.shown} shown as saved",
                measured=loss.lost,
                goal=0,
                note="power cuts: not measured here (they need a block device that forgets)",
            ),
            Figure(
                name="files damaged, screens that differ from the file",
                how=how,
                unit="",
                measured=loss.damaged_files + loss.wrong_screens,
                goal=0,
            ),
        ]

    # ---- fingers

    def _fingers(self) -> list[Figure]:
        self.tell("taps a register")
        found = []
        for room, (absent, goal) in enumerate((([4, 17, 30], 8), ([], 3))):
            pupils = len(self.rooms[room]["pupils"])
            with tempfile.TemporaryDirectory() as folder, Chromium(Path(folder)) as browser:
                taps = take_with_fingers(self._enrolled(browser, room), self.rooms[room]["id"], absent)
            name = f"taps for a register, {len(absent) or 'none'} absent"
            how = f"{pupils} pupils, from the classes to sent"
            found.append(Figure(name=name, how=how, unit="", measured=taps, goal=goal))
        return found


def take_with_fingers(teacher: Teacher, class_id: str, absent: list[int]) -> int:
    """Take today's register with real taps until the page says that it was sent; returns how many it took."""
    fingers = [f"#c-{class_id}", *(f".roll > li:nth-child({row + 1}) .mark" for row in absent), "#all", "#done"]
    for selector in fingers:
        teacher.page.tap(selector)
    teacher.wait_for_step(class_id, "sent", "confirmed")
    return len(fingers)


class Traced:
    """strace on running processes: how many times they have asked the disk to keep something."""

    def __init__(self, strace: str, processes: list[psutil.Process], out: Path) -> None:
        pids = [part for one in processes for part in ("-p", str(one.pid))]
        self._out = out
        self._command = [strace, "-f", "-y", "-e", "trace=fsync,fdatasync", "-o", str(out), *pids]
        self._wanted = len(processes)

    def __enter__(self) -> Traced:
        self._process = subprocess.Popen(self._command, stderr=subprocess.PIPE, text=True)
        assert self._process.stderr is not None
        attached = 0
        for line in self._process.stderr:
            attached += " attached" in line
            if attached >= self._wanted:
                return self
        raise SystemExit("strace could not attach to the browser")

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.communicate(timeout=30)

    def syncs(self) -> tuple[int, int]:
        """Calls begun so far: on files of IndexedDB, and on others."""
        files = re.findall(r"\bf(?:data)?sync\(\d+<([^>]*)>", self._out.read_text())
        ours = sum("/IndexedDB/" in file for file in files)
        return ours, len(files) - ours


def browser_processes(profile: Path) -> list[psutil.Process]:
    """Every process of the browser that runs on `profile`."""
    flag = f"--user-data-dir={profile}"
    [root] = [
        one
        for one in psutil.process_iter(["cmdline"])
        if flag in (one.info["cmdline"] or []) and not any("--type=" in word for word in one.info["cmdline"])
    ]
    return [root, *root.children(recursive=True)]


def private_mb(page: Page, profile: Path) -> float:
    """Private dirty memory of the whole browser after a garbage collection (MB)."""
    page.send("HeapProfiler.collectGarbage")
    page.evaluate("new Promise((go) => setTimeout(go, 1000))")
    total_kb = 0
    for one in browser_processes(profile):
        rollup = Path(f"/proc/{one.pid}/smaps_rollup").read_text()
        total_kb += sum(int(kb) for kb in re.findall(r"^Private_Dirty:\s+(\d+) kB", rollup, re.MULTILINE))
    return total_kb / 1024


def fsync_time_ms(folder: Path, count: int = 40) -> float:
    """What this disk takes to keep 8 kB (fdatasync, p50 ms): the floor of a durable tap."""
    times = []
    with (folder / "probe").open("wb") as file:
        for _ in range(count):
            file.write(bytes(8192))
            file.flush()
            started = time.perf_counter()
            fdatasync(file.fileno())
            times.append((time.perf_counter() - started) * 1000)
    return percentile(times, 0.5)
