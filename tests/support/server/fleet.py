"""Several real `hudur serve` processes on one PostgreSQL, killed and started again by number."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import httpx

_COMMAND = (sys.executable, "-c", "from syncserver.cli import main; main()", "serve", "--port", "0", "--json")


@dataclass(slots=True)
class Fleet:
    """`urls[n]` is where process n answers, None while it does not run. What they log goes to `folder`."""

    store: str
    folder: Path
    urls: list[str | None] = field(default_factory=list)
    _children: dict[int, subprocess.Popen[str]] = field(default_factory=dict)

    async def start(self, number: int) -> None:
        """Start a process and wait until it answers."""
        self.urls += [None] * (number + 1 - len(self.urls))
        with (self.folder / f"server{number}.log").open("a") as log:
            child = subprocess.Popen(
                _COMMAND, stdout=subprocess.PIPE, stderr=log, text=True, env={**os.environ, "HUDUR_STORE": self.store}
            )
        self._children[number] = child
        assert child.stdout is not None
        line = await asyncio.to_thread(child.stdout.readline)
        self.urls[number] = json.loads(line)["url"]

    async def kill(self, number: int) -> None:
        """End a process with SIGKILL."""
        child = self._children.pop(number)
        self.urls[number] = None
        child.kill()
        await asyncio.to_thread(child.wait)
        assert child.stdout is not None
        child.stdout.close()

    async def close(self) -> None:
        """End all of them."""
        for number in list(self._children):
            await self.kill(number)

    @property
    def alive(self) -> list[str]:
        """Where to go."""
        return [url for url in self.urls if url is not None]

    async def lag(self) -> list[float]:
        """What each process says of the changes that are not settled yet."""
        found = []
        async with httpx.AsyncClient(timeout=20) as http:
            for url in self.alive:
                text = (await http.get(f"{url}/metrics")).text
                found += [float(line.split()[1]) for line in text.splitlines() if line.startswith(_LAG)]
        return found


_LAG = "hudur_consumer_lag_offsets "
