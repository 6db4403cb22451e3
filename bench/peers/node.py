"""A peer: its server process, and the process that plays its devices. Every wait has an end."""

from __future__ import annotations

import json
import os
import queue
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

PRELOAD = ("--expose-gc", "--import", "./preload.mjs")
READY_S, STOP_S, ANSWER_S = 30, 60, 180


@dataclass(frozen=True, slots=True)
class Kind:
    """What a peer is. `server` is the script and its words (`{folder}`, `{port}` filled in), `device` the module."""

    name: str
    short: str
    server: tuple[str, ...]
    device: str
    packages: tuple[str, ...]
    complete: str


KINDS = (
    Kind(
        "automerge-repo's sync server",
        "automerge",
        ("server_automerge.mjs", "{folder}", "{port}"),
        "automerge",
        ("@automerge/automerge-repo", "@automerge/automerge"),
        "a sync message of the server names the device's heads",
    ),
    Kind(
        "PouchDB to a CouchDB-protocol server",
        "pouchdb",
        ("server_pouchdb.mjs", "{folder}", "{port}"),
        "pouchdb",
        ("pouchdb", "express-pouchdb"),
        "the replication says that one document was written",
    ),
    Kind(
        "one PUT by hand to the same server",
        "put",
        ("server_pouchdb.mjs", "{folder}", "{port}"),
        "put",
        ("express-pouchdb", "pouchdb"),
        "201 with the revision",
    ),
    Kind(
        "y-websocket",
        "y-websocket",
        ("node_modules/y-websocket/bin/server.cjs",),
        "yjs",
        ("y-websocket", "yjs", "y-leveldb"),
        "no acknowledgement in the protocol; the server's echo of the update is taken for one",
    ),
)


class PeerFailed(SystemExit):
    """A peer did not start, answer or stop in time: the benchmark ends with its name."""


def free_port() -> int:
    """A port nothing listens on now."""
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Talker:
    """A node process that tells lines; reading never blocks longer than it is given."""

    def __init__(self, name: str, command: Sequence[str], folder: Path, env: dict[str, str]) -> None:
        self.name = name
        self.errors = (folder / f"{name}.err").open("w+b")
        self.process = psutil.Popen(
            ["node", *command], cwd=folder, env=os.environ | env, text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.errors,
        )  # fmt: skip
        self._lines: queue.Queue[str] = queue.Queue()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        for line in self.process.stdout:
            self._lines.put(line)
        self._lines.put("")

    def line(self, limit_s: float) -> str:
        """The next line; a process that ended or is silent fails the benchmark."""
        try:
            line = self._lines.get(timeout=limit_s)
        except queue.Empty:
            line = ""
        if not line:
            self.errors.seek(0)
            said = self.errors.read()[-600:].decode(errors="replace")
            raise PeerFailed(f"peers: {self.name} was silent for {limit_s:g} s or ended. It said: {said}")
        return line

    def end(self, number: int = signal.SIGTERM) -> None:
        """End the process; one that does not go is killed."""
        if self.process.poll() is None:
            self.process.send_signal(number)
            with suppress(psutil.TimeoutExpired, subprocess.TimeoutExpired):
                self.process.wait(timeout=STOP_S)
            if self.process.poll() is None:
                self.process.kill()
                self.process.wait(timeout=STOP_S)
        self.process.stdin.close()
        self.errors.close()


class Peer:
    """One peer under measurement; `close` ends its processes whatever happened."""

    def __init__(self, kind: Kind, folder: Path, work: Path) -> None:
        self.kind, self.name, self.short = kind, kind.name, kind.short
        self._folder, self._work = folder, work
        self._store = folder / f"store-{kind.short}"
        self._store.mkdir()
        self._server = self._serve()
        self._devices: Talker | None = None

    def _serve(self) -> Talker:
        self.port = free_port()
        words = [word.format(folder=self._store, port=self.port) for word in self.kind.server]
        env = {"HOST": "127.0.0.1", "PORT": str(self.port), "YPERSISTENCE": str(self._store), "NODE_ENV": "production"}
        server = Talker(f"{self.short}-server", [*PRELOAD, *words], self._folder, env)
        try:
            self._wait_open(server)
        except BaseException:
            server.end()
            raise
        return server

    def _wait_open(self, server: Talker) -> None:
        until_s = time.monotonic() + READY_S
        while time.monotonic() < until_s and server.process.poll() is None:
            with suppress(OSError), closing(socket.create_connection(("127.0.0.1", self.port), timeout=1)):
                return
            time.sleep(0.05)
        raise PeerFailed(f"peers: {server.name} did not listen within {READY_S} s")

    def _ask(self, command: dict[str, Any]) -> dict[str, Any]:
        if self._devices is None:
            words = ["load.mjs", self.kind.device, str(self._work)]
            self._devices = Talker(f"{self.short}-devices", words, self._folder, {})
            self._devices.line(READY_S)
        self._devices.process.stdin.write(json.dumps(command) + "\n")
        self._devices.process.stdin.flush()
        answer: dict[str, Any] = json.loads(self._devices.line(ANSWER_S))
        if "error" in answer:
            raise PeerFailed(f"peers: {self.name}: {answer['error'][:600]}")
        return answer

    def push(self, indices: Sequence[int], *, port: int | None = None, at_once: int = 1) -> list[float]:
        """First pushes, all acknowledged; the milliseconds of each. One at a time, the devices stay for `correct`."""
        asked = {
            "do": "push",
            "port": port or self.port,
            "indices": list(indices),
            "at_once": at_once,
            "keep": at_once == 1,
        }
        acked = self._ask(asked)["acked"]
        if len(acked) != len(indices):
            raise PeerFailed(f"peers: {self.name} acknowledged {len(acked)} of {len(indices)}")
        return [ms for _, _, ms in acked]

    def correct(self, indices: Sequence[int], *, port: int) -> None:
        """Three corrections each, of registers pushed one at a time."""
        self._ask({"do": "correct", "port": port, "indices": list(indices)})

    def lost(self, indices: Sequence[int], *, after: int, at_once: int) -> int:
        """Registers acknowledged before the server was killed at acknowledgement `after`, and not there afterwards."""
        kill = {"pid": self._server.process.pid, "after": after}
        asked = {"do": "push", "port": self.port, "indices": list(indices), "at_once": at_once, "kill": kill}
        acked = self._ask(asked)["acked"]
        self.end_devices()
        self._server.end()
        self.restart()
        refs = [[index, ref] for index, ref, _ in acked]
        found = self._ask({"do": "find", "port": self.port, "refs": refs, "at_once": at_once})["found"]
        self.end_devices()
        return len(acked) - len(found)

    @property
    def pid(self) -> int:
        """The server's process."""
        return int(self._server.process.pid)

    def cpu_s(self) -> float:
        """CPU-seconds of the server, user and system, with children that ended."""
        return tree_cpu_s(self._server.process)

    def rss_bytes(self) -> int:
        """Resident memory of the server, its garbage collected."""
        self._server.process.send_signal(signal.SIGUSR2)
        while self._server.line(READY_S) != "collected\n":
            pass
        return int(self._server.process.memory_info().rss)

    def stop(self) -> None:
        """End the server as an operator would."""
        self.end_devices()
        self._server.end()

    def restart(self) -> None:
        """Start it again on its store."""
        self._server = self._serve()

    def disk_bytes(self) -> tuple[int, int]:
        """What its files hold and what they take on the disk."""
        return files_bytes(self._store)

    def end_devices(self) -> None:
        """End the process that plays the devices; the next command starts another one."""
        if self._devices is not None:
            self._devices.end(signal.SIGKILL)
            self._devices = None

    def close(self) -> None:
        """End everything."""
        self.stop()


def tree_cpu_s(process: psutil.Process) -> float:
    """CPU-seconds of a process, its children and those of them that ended."""
    times = [one.cpu_times() for one in (process, *process.children(recursive=True))]
    return float(sum(one.user + one.system + one.children_user + one.children_system for one in times))


def files_bytes(folder: Path, pattern: str = "*") -> tuple[int, int]:
    """Length and allocation of the files below a folder."""
    found = [path.stat() for path in folder.rglob(pattern) if path.is_file()]
    return sum(one.st_size for one in found), sum(one.st_blocks * 512 for one in found)
