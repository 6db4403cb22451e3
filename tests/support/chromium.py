"""A real Chromium, of any version since 64, driven over plain CDP: taps, screenshots, kill -9.

One small driver instead of a framework, because frameworks do not speak to Chromium 64 and hide the process that we
must kill. Waiting happens inside the page (a promise), never by sleeping here.
"""

from __future__ import annotations

import base64
import json
import os
import re
import signal
import subprocess
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any
from urllib.request import Request, urlopen

from websockets.sync.client import ClientConnection, connect

FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--remote-debugging-port=0",
    "--remote-allow-origins=*",
)
WAIT_MS = 20_000


class PageError(AssertionError):
    """Script in the page threw, or what we waited for did not come."""


class Chromium:
    """One browser process with its own profile; starting again on the same profile is "opening the app again"."""

    def __init__(self, profile: Path, *, binary: str = "/usr/bin/chromium", flags: Sequence[str] = ()) -> None:
        self.profile = profile
        self._command = [binary, *FLAGS, *flags, f"--user-data-dir={profile}", "about:blank"]
        self._process: subprocess.Popen[bytes] | None = None
        self._connections = ExitStack()
        self._port = 0

    def start(self) -> Chromium:
        """Start the process and wait for its debugging address."""
        self.profile.mkdir(parents=True, exist_ok=True)
        self._process = subprocess.Popen(
            self._command,
            stderr=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            start_new_session=True,
            env={**os.environ, "TZ": "Africa/Cairo", "LANG": "C.UTF-8"},
        )
        assert self._process.stderr is not None
        seen = []
        for line in self._process.stderr:
            seen.append(line.decode(errors="replace"))
            found = re.search(r"DevTools listening on ws://[^:]+:(\d+)/", seen[-1])
            if found:
                self._port = int(found[1])
                return self
        raise PageError("Chromium did not start:\n" + "".join(seen[-20:]))

    def page(self, *, width: int = 360, height: int = 640) -> Page:
        """A new tab with a small phone's screen, in Arabic as a phone in Egypt has it."""
        target = self._http("/json/new?about:blank", method="PUT")
        return self._attach(target["webSocketDebuggerUrl"], width=width, height=height)

    def _attach(self, url: str, *, width: int, height: int) -> Page:
        connection = self._connections.enter_context(connect(url, max_size=None, open_timeout=20))
        page = Page(connection)
        page.send("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=2, mobile=True)
        page.send("Page.enable")
        page.send("Runtime.enable")
        page.send("Network.enable")
        return page

    def _http(self, path: str, *, method: str = "GET") -> Any:
        url = f"http://127.0.0.1:{self._port}{path}"
        try:
            with urlopen(Request(url, method=method), timeout=20) as reply:
                return json.load(reply)
        except OSError:  # before version 111 a new tab is asked for by GET
            with urlopen(url, timeout=20) as reply:
                return json.load(reply)

    def kill9(self) -> None:
        """SIGKILL to the whole process group: what an empty battery or a swipe does to the app."""
        self._end(signal.SIGKILL)

    def close(self) -> None:
        """End it, politely enough for a test."""
        if self._process is not None:
            self._end(signal.SIGTERM)

    def _end(self, number: signal.Signals) -> None:
        assert self._process is not None
        assert self._process.stderr is not None
        os.killpg(self._process.pid, number)
        self._process.wait(timeout=30)
        self._process.stderr.close()
        self._connections.close()
        self._process = None
        (self.profile / "SingletonLock").unlink(missing_ok=True)

    def __enter__(self) -> Chromium:
        return self.start()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()


class Page:
    """One tab."""

    def __init__(self, connection: ClientConnection) -> None:
        self._connection = connection
        self._last_id = 0
        self.events: list[dict[str, Any]] = []

    def send(self, method: str, **params: Any) -> dict[str, Any]:
        """One CDP command; events that pass meanwhile are kept in `events`."""
        self._last_id += 1
        self._connection.send(json.dumps({"id": self._last_id, "method": method, "params": params}))
        while True:
            message = json.loads(self._connection.recv(timeout=60))
            if message.get("id") == self._last_id:
                if "error" in message:
                    raise PageError(f"{method}: {message['error']}")
                result: dict[str, Any] = message["result"]
                return result
            self.events.append(message)

    def goto(self, url: str) -> None:
        """Open `url` and wait until its document is parsed."""
        self.send("Page.navigate", url=url)
        self.wait("document.readyState !== 'loading' && location.href !== 'about:blank'")

    def evaluate(self, expression: str) -> Any:
        """Value of a JavaScript expression; promises are awaited."""
        reply = self.send("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
        if "exceptionDetails" in reply:
            details = reply["exceptionDetails"]
            raise PageError(details.get("exception", {}).get("description") or details["text"])
        return reply["result"].get("value")

    def wait(self, condition: str, *, timeout_ms: int = WAIT_MS) -> Any:
        """Wait inside the page until `condition` is truthy and return its value.

        A navigation ends the promise without an answer; then we ask again in the new document.
        """
        script = f"""new Promise((resolve, reject) => {{
          const end = Date.now() + {timeout_ms};
          const look = async () => {{
            let value; try {{ value = await ({condition}); }} catch (e) {{ value = null; }}
            if (value) resolve(value);
            else if (Date.now() > end) reject(new Error('waited in vain for ' + {json.dumps(condition)} + ' | ' +
              (document.body ? document.body.innerText.slice(0, 800) : 'no body')));
            else setTimeout(look, 25);
          }}; look(); }})"""
        for _ in range(20):
            try:
                return self.evaluate(script)
            except PageError as error:
                if "navigated" not in str(error) and "context was destroyed" not in str(error):
                    raise
        raise PageError(f"the page kept navigating away while waiting for {condition}")

    def tap(self, selector: str) -> None:
        """A finger on the middle of the first match, after scrolling to it; fails if something covers it."""
        quoted = json.dumps(selector)
        self.wait(f"document.querySelector({quoted})")
        x, y, hit = self.evaluate(
            f"""(() => {{ const e = document.querySelector({quoted}); e.scrollIntoView({{block: 'center'}});
            const r = e.getBoundingClientRect(), x = r.left + r.width / 2, y = r.top + r.height / 2;
            const h = document.elementFromPoint(x, y);
            return [x, y, !!h && (h === e || e.contains(h) || h.contains(e))]; }})()"""
        )
        if not hit:
            raise PageError(f"{selector} is covered at {x},{y}")
        for kind in ("mousePressed", "mouseReleased"):
            self.send("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    def type(self, selector: str, text: str) -> None:
        """Put the cursor into a field and type."""
        quoted = json.dumps(selector)
        self.evaluate(f"(() => {{ const e = document.querySelector({quoted}); e.focus(); e.value = ''; }})()")
        for character in text:
            self.send("Input.dispatchKeyEvent", type="char", text=character)

    def text(self, selector: str = "body") -> str:
        """Visible text."""
        found = self.evaluate(f"document.querySelector({json.dumps(selector)}).innerText")
        return str(found)

    def screenshot(self, path: Path) -> None:
        """PNG of the screen."""
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(base64.b64decode(self.send("Page.captureScreenshot", format="png")["data"]))
