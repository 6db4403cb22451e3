"""Hudur under the same work: the real server, frames signed beforehand, every answer verified and durable."""

from __future__ import annotations

import asyncio
import itertools
import json
import sqlite3
import time
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import uvloop

from bench.load import Connection, Line, durable_in, head_of, push, registers
from bench.peers.node import files_bytes, tree_cpu_s
from bench.site import Phone, Site
from clientcore.change import Change
from clientcore.exchange import write_sync

PHONES = PUPILS = 40


class Ours:
    """The server of a site as one more contestant; index → register, its first change and the phone that makes it.

    A phone's frames are a chain, so the registers of one phone are pushed one after the other.
    """

    name, short = "Hudur", "hudur"

    def __init__(self, place: Site) -> None:
        self._place = place
        self._phones = [place.enrol(seed=seed) for seed in range(PHONES)]
        self._free = registers(place)
        self._made: dict[int, tuple[str, Change]] = {}
        place.restart(settle=False)  # so that the file holds the school and the phones and no register
        self._empty = files_bytes(place.folder, "store.db*")

    @property
    def port(self) -> int:
        """Where the server listens."""
        return self._place.port

    @property
    def pid(self) -> int:
        """The server's process."""
        return int(self._place.process.pid)

    def _phone(self, index: int) -> Phone:
        return self._phones[index % PHONES]

    def first(self, index: int) -> tuple[str, Change]:
        """The register of an index and its first change, made once."""
        for wanted in range(len(self._made), index + 1):
            register, pupils = next(free for free in self._free if len(free[1]) >= PUPILS)
            self._made[wanted] = register, self._phone(wanted).register(pupils[:PUPILS])
        return self._made[index]

    def write_work(self, path: Path, count: int) -> None:
        """The first `count` registers for the peers: the same pupils, statuses and times."""
        found = []
        for index in range(count):
            register, change = self.first(index)
            later = self._phone(index).correction(change)
            marks = {op.key: op.value for op in change.ops}
            found.append({"id": register, "marks": marks, "later": {op.key: op.value for op in later.ops}})
        path.write_text(json.dumps(found), "utf-8")

    def _sign(self, index: int, change: Change) -> tuple[bytes, bytes, bytes]:
        phone = self._phone(index)
        body = write_sync([phone.frame([(self.first(index)[0], change)]).raw])
        return body, head_of(body), phone.enrolled.server_key

    def _lines(self, indices: Sequence[int]) -> list[Line]:
        lines: list[Line] = [[] for _ in range(PHONES)]
        for index in indices:
            lines[index % PHONES].append(self._sign(index, self.first(index)[1]))
        return [line for line in lines if line]

    def _one_by_one(self, port: int, pushes: Line) -> list[float]:
        spent_ms = []
        for one in pushes:
            began_s = time.perf_counter()
            if uvloop.run(push(port, [one], fresh=True)) != 1:
                raise SystemExit("peers: a push of ours was not durable")
            spent_ms.append((time.perf_counter() - began_s) * 1e3)
        return spent_ms

    def push(self, indices: Sequence[int], *, port: int | None = None, at_once: int = 1) -> list[float]:
        """First pushes, all durable. One at a time it tells the milliseconds of each; else all phones at once."""
        lines = self._lines(indices)
        if at_once == 1:
            return self._one_by_one(port or self.port, [one for line in lines for one in line])

        async def all_phones() -> int:
            return sum(await asyncio.gather(*(push(port or self.port, line, fresh=True) for line in lines)))

        if (durable := uvloop.run(all_phones())) != len(indices):
            raise SystemExit(f"peers: only {durable} of our {len(indices)} pushes were durable")
        return []

    def correct(self, indices: Sequence[int], *, port: int) -> None:
        """Three corrections each."""
        found = [(index, self._phone(index).correction(self.first(index)[1])) for index in indices]
        self._one_by_one(port, [self._sign(index, change) for index, change in found])

    def lost(self, indices: Sequence[int], *, after: int, at_once: int) -> int:
        """Registers acknowledged before the server was killed at acknowledgement `after`, and not in its store."""
        acked: list[str] = []
        lines = [[(index, *self._sign(index, self.first(index)[1])) for index in indices if index % PHONES == number]
                 for number in range(at_once)]  # fmt: skip

        async def one(line: list[tuple[int, bytes, bytes, bytes]]) -> None:
            connection = Connection(self.port, fresh=True)
            for index, body, head, server_key in line:
                try:
                    status, answer = await connection.post(head, body)
                except (OSError, asyncio.IncompleteReadError):
                    return  # killed
                if status == 200 and durable_in(answer, server_key=server_key, request=body) == 1:
                    acked.append(self.first(index)[0])
                if len(acked) == after:
                    self._place.process.kill()

        async def all_phones() -> None:
            await asyncio.gather(*map(one, lines))

        uvloop.run(all_phones())
        self._place.process.wait(timeout=60)
        self.restart()
        with closing(sqlite3.connect(f"file:{self._place.store}?mode=ro", uri=True)) as db:
            rows = db.execute("SELECT class_id || '/' || date || '/' || session FROM changes")
            there = set(itertools.chain.from_iterable(rows))
        return len(set(acked) - there)

    def cpu_s(self) -> float:
        """CPU-seconds of the server, user and system."""
        return tree_cpu_s(self._place.process)

    def rss_bytes(self) -> int:
        """Resident memory of the server now."""
        return self._place.rss_bytes()

    def stop(self) -> None:
        """End the server as an operator would."""
        self._place.stop()

    def restart(self) -> None:
        """Start it again on its store."""
        self._place.restart(settle=False)

    def disk_bytes(self) -> tuple[int, int]:
        """What the registers added to its files and to the disk."""
        now = files_bytes(self._place.folder, "store.db*")
        return now[0] - self._empty[0], now[1] - self._empty[1]
