"""A crowd at another door: as many connections as the overload turns away, knocking where nobody of ours listens.

The load shares its cores with the server it measures. What a crowd costs the *machine* (its own work and the kernel's)
is not what it costs the server: the machine's part is the difference between the capacities alone and beside this.
Both sides of the door are this process: whole requests come in, `busy` goes out, as at the server's own socket.
"""

from __future__ import annotations

import argparse
import select
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from clientcore.exchange import MEDIA_TYPE, SYNC_PATH
from syncserver.body import busy_bytes

_BODY = bytes(554)  # a first push of forty marks
_REQUEST = (
    f"POST {SYNC_PATH} HTTP/1.1\r\nHost: hudur\r\nContent-Type: {MEDIA_TYPE}\r\nContent-Length: {len(_BODY)}\r\n\r\n"
).encode() + _BODY
_ANSWER = busy_bytes(30)
_AT_ONCE, _OPEN_MAX = 64, 4_096


class Door:
    """A listening socket and those who knock at it; `turn` by `turn`, nothing waits."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=2_048)
        self._listener.setblocking(False)
        self._address = self._listener.getsockname()
        self._knocking: list[tuple[socket.socket, bool]] = []
        self.knocked = self.answered = 0

    def turn(self, due: int) -> None:
        """So many more knock, as far as there is room; everybody goes one step on."""
        for _ in range(min(due, _AT_ONCE, _OPEN_MAX - len(self._knocking))):
            client = socket.socket()
            client.setblocking(False)
            client.connect_ex(self._address)
            self._knocking.append((client, False))
            self.knocked += 1
        self._knocking = [step for client, was_sent in self._knocking if (step := self._step(client, was_sent))]
        self._answer_all()

    def _step(self, client: socket.socket, was_sent: bool) -> tuple[socket.socket, bool] | None:
        try:
            if not was_sent:
                client.send(_REQUEST)
                return client, True
            self.answered += client.recv(4_096) == _ANSWER
        except BlockingIOError:
            return client, was_sent
        except OSError:  # not counted as answered
            pass
        client.close()
        return None

    def _answer_all(self) -> None:
        while True:
            try:
                guest, _ = self._listener.accept()
            except BlockingIOError:
                return
            with guest, suppress(OSError):
                guest.setblocking(False)
                guest.recv(16_384, socket.MSG_PEEK)
                guest.recv(16_384)
                guest.send(_ANSWER)

    def close(self) -> None:
        """Whoever still knocks goes away."""
        for client, _ in self._knocking:
            client.close()
        self._knocking = []
        self._listener.close()


@contextmanager
def crowd(per_s: float) -> Iterator[list[float]]:
    """Let `per_s` a second knock meanwhile; afterwards the list holds how many a second were answered."""
    told: list[float] = []
    command = [sys.executable, "-m", "bench.morning.door", str(per_s)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        if process.stdout.readline() != "knocking\n":
            raise SystemExit("the crowd did not come")
        yield told
        process.stdin.close()
        told.append(float(process.stdout.readline()))
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def main() -> None:
    """Knock until the standard input ends; print how many a second were answered."""
    arguments = argparse.ArgumentParser(prog="python -m bench.morning.door", description=__doc__)
    arguments.add_argument("per_s", type=float)
    per_s = arguments.parse_args().per_s
    door, began_s = Door(), time.monotonic()
    print("knocking", flush=True)
    while not select.select([sys.stdin], [], [], 0)[0]:
        due = int((time.monotonic() - began_s) * per_s) - door.knocked
        if due <= 0:
            time.sleep(0.001)
        door.turn(max(0, due))
    door.close()
    print(door.answered / (time.monotonic() - began_s), flush=True)


if __name__ == "__main__":
    main()
