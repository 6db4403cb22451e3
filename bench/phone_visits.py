"""First, repeat and cold visits of the real page from the real server, over shaped links, on a slowed processor.

*Usable* has two meanings here, and both are measured from the start of the navigation:

- on a phone that is not enrolled: the enrolment form is on the screen and can be filled in (the page keeps a press of
  its button until it can act on it; a robot presses at once, and `its button answers` is when the page does);
- on an enrolled phone: a tap can be made durable. The page says when (its mark `usable`), and a robot finger that opens
  the first class and taps the first pupil as soon as they are there checks it: `first tap durable`.
"""

from __future__ import annotations

import http.client
import json
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.phone_figures import Figure, median
from tests.support.chromium import Chromium, Page
from tests.support.shaper import CERTIFICATES_BYTES, EDGE, OVERHEAD, PLAIN, TWO_G, Shape, Shaper
from tests.support.teacher import Teacher

CPU_RATE = 6
QUOTA_CORES = 0.17
QUOTA_PERIOD_US = 100_000
FIRST_GOALS_MS = {TWO_G.name: 3_200, EDGE.name: 4_500}
REPEAT_GOAL_MS, COLD_GOAL_MS, COLD_QUOTA_GOAL_MS = 600, 800, 3_000

# Runs before the page's own script. Notes when the form is there, and lets a finger tap as early as one can.
WATCH = """(() => {
  const seen = window.seen = {};
  const note = (name) => { if (!(name in seen)) seen[name] = performance.now(); };
  const look = () => {
    const field = document.querySelector('#e-code'), send = document.querySelector('form button.main');
    if (field && send && !('form' in seen)) { note('form'); send.click(); }
    if (document.querySelector('form [role=alert] .note')) note('answered');
    if (TAPS) {
      const card = document.querySelector("[id^='c-']"), mark = document.querySelector('.roll .mark');
      if (mark && !('tapped' in seen)) { note('tapped'); mark.click(); }
      else if (mark && !document.querySelector('.pupil.wait')) note('durable');
      else if (card && !('opened' in seen)) { note('opened'); card.click(); }
    }
    if (!('durable' in seen || 'answered' in seen)) requestAnimationFrame(look);
  };
  requestAnimationFrame(look);
})()"""
TIMES = """(() => {
  const at = (list) => list.length ? list[0].startTime : null;
  return { origin: performance.timeOrigin, seen: window.seen, usable: at(performance.getEntriesByName('usable')),
    paint: at(performance.getEntriesByName('first-contentful-paint')) };
})()"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Visit:
    """One navigation: times in ms from its start, and what had left the phone before it was usable."""

    paint_ms: float
    form_ms: float | None
    answered_ms: float | None
    usable_ms: float
    tap_durable_ms: float | None
    requests: list[str]
    bytes_up: int


def floor_ms(shape: Shape, start_bytes: int) -> float:
    """What the link alone costs until the last byte of the start page: set-up, certificates, one request, its bytes."""
    carried = (CERTIFICATES_BYTES + start_bytes) * OVERHEAD * 8 / shape.down_bits_s
    return (3 * shape.rtt_s + carried) * 1000


@dataclass(slots=True)
class Visits:
    """Measures visits. `new_code` makes an enrolment code of `school`."""

    shaper: Shaper
    school: str
    new_code: Callable[[], str]
    runs: int
    tell: Callable[[str], None]

    def figures(self) -> list[Figure]:
        """All of them, in the order of the table."""
        found = self._start_path()
        for shape in (TWO_G, EDGE):
            found += self._first_visits(shape)
        return [*found, *self._repeat_and_cold()]

    # ---- sizes

    def _start_path(self) -> list[Figure]:
        self.tell("sizes on the wire")
        start = self._size("/")
        lazy = [file["path"] for file in self._build()["files"] if file["immutable"]]
        total = sum(self._size(f"/{path}") for path in lazy)
        return [
            Figure(name="start path", how="body of GET / with brotli", unit="B", measured=start, goal=14_600),
            Figure(name="all lazy modules", how=f"{len(lazy)} GETs with brotli", unit="B", measured=total, goal=45_000),
        ]

    def _build(self) -> Any:
        return json.loads((Path(__file__).parents[1] / "pwa/dist/build.json").read_text())

    def _size(self, path: str) -> int:
        connection = http.client.HTTPConnection("127.0.0.1", self.shaper.target, timeout=30)
        connection.request("GET", path, headers={"Accept-Encoding": "br"})
        reply = connection.getresponse()
        body = reply.read()
        connection.close()
        if reply.status != 200 or reply.headers["Content-Encoding"] != "br":
            raise SystemExit(f"GET {path}: {reply.status}, {reply.headers['Content-Encoding']}")
        return len(body)

    # ---- visits

    def _first_visits(self, shape: Shape) -> list[Figure]:
        goal = FIRST_GOALS_MS[shape.name]
        where = f"{shape.name}, CPU {CPU_RATE}x"
        new: list[Visit] = []
        known: list[Visit] = []
        for run in range(self.runs):
            self.tell(f"first visits, {where}, {run + 1} of {self.runs}")
            with tempfile.TemporaryDirectory() as folder, Chromium(Path(folder)) as browser:
                page = self._slow_page(browser, taps=False)
                self.shaper.shape(shape)
                new.append(self._visit(page, until="'answered' in seen"))
                self.shaper.shape(PLAIN)
                page = Teacher(browser, self.shaper.port).enrol(self.school, self.new_code()).page
                self._slow(page, taps=True)
                page.send(
                    "Storage.clearDataForOrigin", origin=self._url()[:-1], storageTypes="service_workers,cache_storage"
                )
                page.send("Network.clearBrowserCache")
                self.shaper.shape(shape)
                known.append(self._visit(page, until="'durable' in seen"))
        floor = f"floor for its one request: {floor_ms(shape, self._size('/')):,.0f} ms"
        note = f"requests before the form: {', '.join(new[-1].requests)}; {floor}"
        known_note = f"requests before usable: {', '.join(known[-1].requests)}; {floor}"
        return [
            median(
                f"first visit, {shape.name}: first paint",
                [one.paint_ms for one in new],
                how=f"not enrolled, {where}",
                unit="ms",
                goal=goal,
            ),
            median(
                f"first visit, {shape.name}: enrolment form usable",
                [one.form_ms or 0 for one in new],
                how=f"not enrolled, {where}",
                unit="ms",
                goal=goal,
                note=note,
            ),
            median(
                f"first visit, {shape.name}: its button answers",
                [one.answered_ms or 0 for one in new],
                how="pressed the moment it was there, without a code",
                unit="ms",
            ),
            median(
                f"first visit, {shape.name}: usable",
                [one.usable_ms for one in known],
                how=f"enrolled, caches lost, {where}",
                unit="ms",
                goal=goal,
                note=known_note,
            ),
            median(
                f"first visit, {shape.name}: first tap durable",
                [one.tap_durable_ms or 0 for one in known],
                how="same, by a robot finger",
                unit="ms",
            ),
        ]

    def _repeat_and_cold(self) -> list[Figure]:
        repeat: list[Visit] = []
        cold: list[Visit] = []
        quota: list[Visit] = []
        with tempfile.TemporaryDirectory() as folder:
            profile = Path(folder) / "profile"
            self.shaper.shape(PLAIN)
            with Chromium(profile) as browser:
                teacher = Teacher(browser, self.shaper.port).enrol(self.school, self.new_code())
                teacher.wait_for_worker()
                teacher.wait_until_idle()
                page = teacher.page
                self._slow(page, taps=False)
                for run in range(self.runs):
                    self.tell(f"repeat visit on 2G, CPU {CPU_RATE}x, {run + 1} of {self.runs}")
                    self.shaper.shape(TWO_G)
                    repeat.append(self._visit(page, until="true"))
                    page.send("Page.navigate", url="about:blank")
                    page.wait("location.href === 'about:blank'")
            self.shaper.off()
            for run in range(self.runs):
                self.tell(f"cold start offline, {run + 1} of {self.runs}")
                with Chromium(profile) as browser:
                    cold.append(self._visit(self._slow_page(browser, taps=True), until="'durable' in seen"))
            with suppress(OSError), cpu_quota(Path(folder)) as binary:
                for run in range(self.runs):
                    self.tell(f"cold start offline at {QUOTA_CORES} core, {run + 1} of {self.runs}")
                    with Chromium(profile, binary=str(binary)) as browser:
                        page = self._slow_page(browser, taps=True, rate=1)
                        quota.append(self._visit(page, until="'durable' in seen"))
            self.shaper.shape(PLAIN)
        return [*_repeat_figures(repeat), *_cold_figures(cold, quota)]

    def _url(self) -> str:
        return f"http://127.0.0.1:{self.shaper.port}/"

    def _slow_page(self, browser: Chromium, *, taps: bool, rate: int = CPU_RATE) -> Page:
        page = browser.page()
        self._slow(page, taps=taps, rate=rate)
        return page

    def _slow(self, page: Page, *, taps: bool, rate: int = CPU_RATE) -> None:
        page.send("Page.navigate", url="about:blank")  # the app is closed: nothing of it sends any more
        page.wait("location.href === 'about:blank'")
        page.send("Page.addScriptToEvaluateOnNewDocument", source=WATCH.replace("TAPS", str(taps).lower()))
        page.send("Emulation.setCPUThrottlingRate", rate=rate)

    def _visit(self, page: Page, *, until: str) -> Visit:
        page.send("Page.navigate", url=self._url())
        marked = " && ".join(
            f"performance.getEntriesByName('{name}').length" for name in ("usable", "first-contentful-paint")
        )
        page.wait(f"window.seen && {marked} && ({until})", timeout_ms=60_000)
        told = page.evaluate(TIMES)
        seen = told["seen"]
        ready_ms = seen["form"] if "form" in seen else told["usable"]
        ready_at_s = (told["origin"] + ready_ms) / 1000
        return Visit(
            paint_ms=told["paint"],
            form_ms=seen.get("form"),
            answered_ms=seen.get("answered"),
            usable_ms=told["usable"],
            tap_durable_ms=seen.get("durable"),
            requests=self.shaper.requests_before(ready_at_s),
            bytes_up=self.shaper.bytes_up_before(ready_at_s),
        )


def _repeat_figures(repeat: list[Visit]) -> list[Figure]:
    return [
        median(
            "repeat visit usable",
            [one.usable_ms for one in repeat],
            how=f"enrolled, from the service worker, CPU {CPU_RATE}x",
            unit="ms",
            goal=REPEAT_GOAL_MS,
        ),
        Figure(
            name="repeat visit, bytes sent before usable",
            how="counted in the proxy",
            unit="B",
            measured=max(one.bytes_up for one in repeat),
            goal=0,
            runs=tuple(float(one.bytes_up) for one in repeat),
            note="; ".join(sorted({line for one in repeat for line in one.requests})),
        ),
    ]


def _cold_figures(cold: list[Visit], quota: list[Visit]) -> list[Figure]:
    found = [
        median(
            "cold start offline, usable",
            [one.usable_ms for one in cold],
            how=f"browser just started, no network, CPU {CPU_RATE}x",
            unit="ms",
            goal=COLD_GOAL_MS,
        ),
        median(
            "cold start offline, first tap durable",
            [one.tap_durable_ms or 0 for one in cold],
            how="same, by a robot finger",
            unit="ms",
        ),
    ]
    name, how = "cold start offline, whole browser slowed", f"{QUOTA_CORES} core for all its processes"
    if quota:
        found.append(median(name, [one.usable_ms for one in quota], how=how, unit="ms", goal=COLD_QUOTA_GOAL_MS))
    else:
        why = "no control group with a processor quota can be made here (root and the cpu controller are needed)"
        found.append(Figure(name=name, how=how, unit="ms", measured=None, goal=COLD_QUOTA_GOAL_MS, note=why))
    return found


@contextmanager
def cpu_quota(folder: Path) -> Iterator[Path]:
    """A Chromium whose processes together get `QUOTA_CORES` of one core.

    Raises:
        OSError: When control groups cannot be made here.
    """
    first = Path("/sys/fs/cgroup/cpu")  # version 1 mounts each controller apart
    root = first if first.is_dir() else Path("/sys/fs/cgroup")
    group = root / f"hudur-bench-{os.getpid()}"
    group.mkdir()
    try:
        quota = round(QUOTA_CORES * QUOTA_PERIOD_US)
        if first.is_dir():
            (group / "cpu.cfs_period_us").write_text(str(QUOTA_PERIOD_US))
            (group / "cpu.cfs_quota_us").write_text(str(quota))
        else:
            (group / "cpu.max").write_text(f"{quota} {QUOTA_PERIOD_US}")
        starter = folder / "chromium-slowed"
        starter.write_text(f'#!/bin/sh\necho $$ > {group}/cgroup.procs\nexec /usr/bin/chromium "$@"\n')
        starter.chmod(0o755)
        yield starter
    finally:
        for pid in (group / "cgroup.procs").read_text().split():
            (root / "cgroup.procs").write_text(pid)  # a straggler must not keep the group
        group.rmdir()
