"""A real server process that a few hundred connections overload: a short target, no quota in the way.

python -m tests.process.narrow_main STORE
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from syncserver.app import Server
from syncserver.config import Config
from syncserver.serve import serve


def main() -> None:
    def tell(_: Server, url: str) -> None:
        print(url, flush=True)

    config = Config(
        store=Path(sys.argv[1]),
        port=0,
        poll_ms=20,
        delay_target_ms=20,
        delay_interval_ms=100,
        inside_max=16,
        device_burst=100_000,
        device_per_minute=1_000_000,
    )
    asyncio.run(serve(config, on_ready=tell))


if __name__ == "__main__":
    main()
