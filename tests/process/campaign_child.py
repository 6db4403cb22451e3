"""A real server or a real device process that ends itself with SIGKILL when it passes a named point for the n-th time.

python -m tests.process.campaign_child server POINT TIMES STORE PORT
python -m tests.process.campaign_child device POINT TIMES COMMAND …       what `hudur device` takes

POINT `-`: never. The device prints `saved REGISTER KEY VALUE` after each tap the journal has reported as saved.
"""

from __future__ import annotations

import asyncio
import functools
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path


class Killer:
    """A `Reached` that kills the process."""

    def __init__(self, point: str, times: int) -> None:
        self.point, self.left = point, times

    def __call__(self, point: str) -> None:
        if point == self.point:
            self.left -= 1
            if self.left == 0:
                os.kill(os.getpid(), signal.SIGKILL)


def _serve(killer: Killer, store: str, port: str) -> None:
    from syncserver.app import Server  # each role imports only what it needs: starting is most of what it does
    from syncserver.config import Config
    from syncserver.ports import ServerPorts
    from syncserver.serve import serve

    def tell(_: Server, url: str) -> None:
        print(url, flush=True)

    config = Config(store=Path(store), port=int(port), poll_ms=20)
    asyncio.run(serve(config, ports=ServerPorts(reached=killer), on_ready=tell))


def _device(killer: Killer, arguments: list[str]) -> None:
    from clientcore import cli, device, home
    from clientcore.journal import Journal
    from clientcore.log import Log
    from clientcore.register import RegisterId

    class TellingJournal(Journal):
        def tap(self, register: RegisterId, taps: Sequence[tuple[str, str | None]]) -> None:
            super().tap(register, taps)
            for key, value in taps:
                print(f"saved {register.within_school} {key} {value}", flush=True)

    class Watched(Log):
        open = functools.partial(Log.open, reached=killer)

    vars(home)["Log"] = Watched
    vars(cli)["Device"] = functools.partial(device.Device, reached=killer)
    vars(device)["Journal"] = TellingJournal
    print("started", flush=True)
    cli.device(arguments)


def main() -> None:
    """See the module."""
    role, point, times, *arguments = sys.argv[1:]
    killer = Killer(point, int(times))
    if role == "server":
        _serve(killer, *arguments)
    else:
        _device(killer, arguments)


if __name__ == "__main__":
    main()
