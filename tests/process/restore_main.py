"""`hudur restore FILE --to STORE` in a process that ends itself with SIGKILL at a named point, the n-th time.

python -m tests.process.restore_main FILE STORE POINT TIMES
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from syncserver.ports import ServerPorts
from syncserver.restore import Wish, restore
from tests.process.server_main import Killer


def main() -> None:
    file, store, point, times = sys.argv[1:]
    wish = Wish(zone="Africa/Cairo", proof=False)
    asyncio.run(restore(Path(file), Path(store), wish, ServerPorts(reached=Killer(point, int(times)))))


if __name__ == "__main__":
    main()
