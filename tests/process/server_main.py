"""A real server process that ends itself with SIGKILL when the road passes a named point for the n-th time.

python -m tests.process.server_main STORE POINT TIMES     STORE as for `--store`; POINT `-`: never
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys

from syncserver.app import Server
from syncserver.config import Config, store_address
from syncserver.ports import ServerPorts
from syncserver.serve import serve


class Killer:
    """A `Reached` that kills the process."""

    def __init__(self, point: str, times: int) -> None:
        self.point, self.left = point, times

    def __call__(self, point: str) -> None:
        if point == self.point:
            self.left -= 1
            if self.left == 0:
                os.kill(os.getpid(), signal.SIGKILL)


def main() -> None:
    store, point, times = sys.argv[1:]

    def tell(_: Server, url: str) -> None:
        print(url, flush=True)

    config = Config(store=store_address(store), port=0, poll_ms=20)
    asyncio.run(serve(config, ports=ServerPorts(reached=Killer(point, int(times))), on_ready=tell))


if __name__ == "__main__":
    main()
