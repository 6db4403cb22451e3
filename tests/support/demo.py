"""The real `hudur demo` as a process: three schools, fresh codes, a real server on a port of its own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path
from types import TracebackType
from typing import Any

from tests.support.ports import free_port

HUDUR = str(Path(sys.executable).with_name("hudur"))


class Demo:
    """Runs `hudur demo --json` in `home`; `restart()` is what a crash or a deploy does to it."""

    def __init__(self, home: Path, *, port: int | None = None) -> None:
        self.home = home
        self.port = port or free_port()
        self.info: dict[str, Any] = {}
        self._process: subprocess.Popen[str] | None = None

    def __enter__(self) -> Demo:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._process is not None:
            self.stop(signal.SIGTERM)

    def start(self) -> None:
        """Start and wait for the one line that says it answers."""
        self.home.mkdir(parents=True, exist_ok=True)
        with (self.home / "server.log").open("a") as log:
            self._process = subprocess.Popen(
                [HUDUR, "demo", "--json"],
                cwd=self.home,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                env={**os.environ, "PORT": str(self.port), "HUDUR_OPERATOR_TOKEN": ""},
                start_new_session=True,
            )
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            self.stop()
            raise AssertionError((self.home / "server.log").read_text())
        self.info = json.loads(line)

    def stop(self, number: signal.Signals = signal.SIGKILL) -> None:
        """End the whole process group."""
        assert self._process is not None
        assert self._process.stdout is not None
        os.killpg(self._process.pid, number)
        self._process.wait(timeout=30)
        self._process.stdout.close()
        self._process = None

    def get(self, path: str) -> Any:
        """JSON of a GET."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=20) as reply:
            return json.load(reply)

    def events(self) -> list[dict[str, Any]]:
        """The whole feed, read as a consumer reads it."""
        found: list[dict[str, Any]] = []
        after = 0
        while batch := self.get(f"/v1/events?after={after}"):
            found += batch
            after = int(batch[-1]["sequence"])
        return found
