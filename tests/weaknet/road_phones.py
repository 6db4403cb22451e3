"""The phones of `road.py`: a home of the command-line device, or the page in a real Chromium, behind a proxy each."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from tests.support.chromium import Chromium, PageError
from tests.support.demo import HUDUR
from tests.support.teacher import Teacher
from tests.weaknet.proxy import Proxy

COMMAND_S = 120.0
TRIES = 100
LOOK_S = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Room:
    """A class of the demo: its school, its pupils in roll order, and an enrolment code of its tutor."""

    school: str
    class_id: str
    pupils: tuple[str, ...]
    code: str


class Phone(Protocol):
    """A teacher's device. `enrol` needs fair weather; `take` needs none."""

    room: Room
    proxy: Proxy

    def enrol(self) -> None:
        """Make it the device of the class's tutor."""
        ...

    def take(self) -> None:
        """Take today's register of the class: the second pupil absent."""
        ...

    def deliver(self, limit_s: float) -> bool:
        """Try until the register is confirmed; whether it was within `limit_s`."""
        ...


@dataclass(slots=True, kw_only=True)
class CommandLinePhone:
    """`hudur device` in a home of its own: a process for each command."""

    room: Room
    proxy: Proxy
    home: Path
    told: dict[str, Any] = field(default_factory=dict)

    def enrol(self) -> None:
        """See `Phone`."""
        url = f"http://127.0.0.1:{self.proxy.port}"
        self.run("enrol", "--server", url, "--code", f"{self.room.school}.{self.room.code}")

    def take(self) -> None:
        """See `Phone`."""
        self.run("take", "--class", self.room.class_id, "--absent", self.room.pupils[1])

    def deliver(self, limit_s: float) -> bool:
        """See `Phone`: one `sync` that waits and tries again by the protocol's back-off."""
        end_s = time.monotonic() + limit_s
        while (left_s := end_s - time.monotonic()) > 0:
            self.run("sync", "--tries", str(TRIES), expect=(0, 3), limit_s=left_s)
            if self.run("status")["confirmed"] == 1:
                return True
        return False

    def run(self, *words: str, expect: tuple[int, ...] = (0,), limit_s: float = COMMAND_S) -> Mapping[str, Any]:
        """One command; its JSON. A sync that is still trying at the end of `limit_s` is ended, as a person would."""
        command = [HUDUR, "device", words[0], "--home", str(self.home), "--json", *words[1:]]
        environment = {**os.environ, "PYTHONWARNINGS": "error"}
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, check=False, timeout=limit_s, env=environment
            )
        except subprocess.TimeoutExpired:
            if words[0] != "sync":
                raise
            return {}
        if done.returncode not in expect:
            raise AssertionError(f"{words}: {done.returncode}\n{done.stdout}\n{done.stderr}")
        self.told = json.loads(done.stdout)
        return self.told


@dataclass(slots=True, kw_only=True)
class ChromiumPhone:
    """The real page in a real Chromium with a profile of its own."""

    room: Room
    proxy: Proxy
    home: Path
    stack: ExitStack
    teacher: Teacher = field(init=False)

    def enrol(self) -> None:
        """See `Phone`. The service worker holds the page afterwards."""
        browser = self.stack.enter_context(Chromium(self.home))
        self.teacher = Teacher(browser, self.proxy.port).enrol(self.room.school, self.room.code)
        self.teacher.wait_for_worker()

    def take(self) -> None:
        """See `Phone`: on the screen, and back to the classes."""
        page = self.teacher.page
        page.tap(f"#c-{self.room.class_id}")
        self.teacher.fill([1])
        page.tap("#done")

    def deliver(self, limit_s: float) -> bool:
        """See `Phone`: the page tries by itself; here we only look."""
        end_s = time.monotonic() + limit_s
        while time.monotonic() < end_s:
            try:
                self.teacher.wait_for_step(self.room.class_id, "confirmed", timeout_ms=int(LOOK_S * 1000))
            except PageError:
                continue  # not yet
            return True
        return False

    def step(self) -> str:
        """What the screen says of the register: saved, sent, confirmed or another."""
        chip = f"document.getElementById('c-{self.room.class_id}').querySelector('.chip').className"
        return str(self.teacher.page.evaluate(f"/k-(\\w+)/.exec({chip})[1]"))
