"""A teacher (or champion) at the real page in a real Chromium: enrol, open a register, tap, take the file out.

Everything is done with what is on the screen. Steps of a register are read from the shape's class, not from words, so
that it works in both languages.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.support.chromium import Chromium, PageError

HOME = "document.querySelector('[id^=\"c-\"]')"
SETTLED = "!document.querySelector('.pupil.wait')"
CODES = (
    "Array.from(document.querySelectorAll('.roll > li')).map((li) => /k-(\\w+)/.exec(li.className)[1])"
    ".map((k) => (k === 'none' ? '.' : k === 'review' ? '?' : k)).join('')"
)
DOWNLOAD_LOOKS = 400  # of 25 ms each


class Teacher:
    """One phone: a started browser on a profile, and the page of the server at `port`."""

    def __init__(self, browser: Chromium, port: int) -> None:
        self.browser = browser
        self.url = f"http://127.0.0.1:{port}/"
        self.page = browser.page()

    def enrol(self, school: str, code: str) -> Teacher:
        """Open the link of the QR code, press the one button, go on to the classes."""
        self.page.goto(f"{self.url}#e={school}.{code}")
        self.page.tap("form button.main")
        self.page.wait("document.querySelector('#short')")
        self.page.tap("button.main")
        self.page.wait(HOME)
        return self

    def open(self) -> Teacher:
        """Open the app, as from the icon, and wait for the classes."""
        self.page.goto(self.url)
        self.page.wait(HOME)
        return self

    def wait_for_worker(self) -> None:
        """The service worker holds every file: from here on no network is needed to open the app."""
        self.page.wait("navigator.serviceWorker.ready.then(r => r.active && r.active.state === 'activated')")

    def go(self, page: str) -> None:
        """Another page of the app: `r/CLASS/DATE/SESSION`, `s`, `m`, or empty for home."""
        self.page.evaluate(f"location.hash = {json.dumps(page)}; 0")

    def open_register(self, register: str) -> int:
        """Open a register; returns the number of pupils."""
        self.go(f"r/{register}")
        self.page.wait("document.querySelector('.roll .mark')")
        return int(self.page.evaluate("document.querySelectorAll('.roll > li').length"))

    def today(self) -> str:
        """Register of today of the first class on the screen, as `class/date/session`."""
        self.page.tap("[id^='c-']")
        self.page.wait("document.querySelector('.roll .mark')")
        register = str(self.page.evaluate("decodeURIComponent(location.hash.slice(3))"))
        self.page.evaluate("history.back()")
        self.page.wait(HOME)
        return register

    def mark(self, rows: Sequence[int]) -> None:
        """One tap on each of these rows (from 0), then wait until all of them are shown as saved."""
        for row in rows:
            self.page.tap(f".roll > li:nth-child({row + 1}) .mark")
        self.page.wait(SETTLED)

    def fill(self, absent: Sequence[int]) -> None:
        """A whole register: the absent ones, then "the rest are present"."""
        self.mark(absent)
        self.page.tap("#all")
        self.page.wait(f"{SETTLED} && !document.querySelector('.roll > li.k-none')")

    def codes(self) -> str:
        """Code shown for each row, in roll order; `.` where nothing is taken, `?` where authors differ."""
        shown: str = self.page.evaluate(CODES)
        return shown

    def step(self) -> str:
        """Step of the open register: `none`, `saving`, `saved`, `sent`, `confirmed`, `review`."""
        return str(self.page.evaluate("/k-(\\w+)/.exec(document.querySelector('.sub .chip').className)[1]"))

    def wait_for_step(self, class_id: str, *steps: str, timeout_ms: int = 60_000) -> None:
        """Wait at home until today's register of the class has come to one of `steps`."""
        chip = f"document.getElementById('c-{class_id}').querySelector('.chip').className"
        self.page.wait(f"{HOME} && /k-({'|'.join(steps)})\\b/.test({chip})", timeout_ms=timeout_ms)

    def wait_until_settled(self, timeout_ms: int = 60_000) -> None:
        """Wait until the server has settled what this phone sent of the open register, and the phone was told so."""
        self.page.wait("document.querySelector('.sub .k-confirmed, .sub .k-review')", timeout_ms=timeout_ms)

    def network_is_back(self) -> None:
        """What the browser tells the page when the phone finds a network."""
        self.page.evaluate("window.dispatchEvent(new Event('online')); 0")

    def send_now(self) -> None:
        """The one button of the status sheet; waits until the attempt is over."""
        self.wait_until_idle()
        self.page.tap("#status")
        self.page.tap("dialog .btn.main")
        self.wait_until_idle()

    def wait_until_idle(self) -> None:
        """No attempt runs: the status line says something else than "sending"."""
        self.page.wait("!/يجري الإرسال|Sending/.test(document.getElementById('status').textContent)", timeout_ms=60_000)

    def save_file(self, folder: Path) -> Path:
        """Press "save the file" in the settings and return the file that the browser wrote."""
        self.go("s")
        self.page.wait("document.querySelector('.note .btn.main')")
        return self.download(folder, ".note .btn.main")

    def download(self, folder: Path, selector: str) -> Path:
        """Tap `selector` and return the file that the browser then writes into `folder`."""
        folder.mkdir(parents=True, exist_ok=True)
        before = set(folder.iterdir())
        self.page.events.clear()
        told = self._allow_downloads(folder)
        self.page.tap(selector)
        for _ in range(DOWNLOAD_LOOKS):
            self.page.evaluate("new Promise((go) => setTimeout(go, 25))")
            found = [one for one in folder.iterdir() if one not in before and one.suffix != ".crdownload"]
            if found and (not told or self._download_is_complete()):
                return found[0]
        raise PageError(f"no file came: {[event['method'] for event in self.page.events][-20:]}")

    def _allow_downloads(self, folder: Path) -> bool:
        """Let the browser write into `folder`; returns whether it will tell when a file is complete."""
        try:
            self.page.send(
                "Browser.setDownloadBehavior", behavior="allow", downloadPath=str(folder), eventsEnabled=True
            )
        except PageError:  # before version 75 or so: the file gets its name when it is complete
            self.page.send("Page.setDownloadBehavior", behavior="allow", downloadPath=str(folder))
            return False
        return True

    def _download_is_complete(self) -> bool:
        return any(
            event["method"] == "Browser.downloadProgress" and event["params"]["state"] == "completed"
            for event in self.page.events
        )

    def choose_file(self, selector: str, file: Path) -> None:
        """Pick `file` in a file field, as the file dialogue does."""
        self.page.send("DOM.enable")
        root: dict[str, Any] = self.page.send("DOM.getDocument")["root"]
        node = self.page.send("DOM.querySelector", nodeId=root["nodeId"], selector=selector)["nodeId"]
        self.page.send("DOM.setFileInputFiles", files=[str(file)], nodeId=node)
