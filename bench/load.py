"""The load: pushes signed beforehand and sent to the real server, one after the other or at the times of a plan.

Frames are made by another process than the one measured; CPU-seconds are the server's own (user + system), so other
work on the machine disturbs little. Every answer is verified and must say *durable*.
"""

from __future__ import annotations

import asyncio
import itertools
import random
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import date, timedelta

from rich.console import Console
from rich.progress import track

from bench.site import Phone, Site
from clientcore.exchange import DURABLE, MEDIA_TYPE, read_answer, read_payload, write_sync

PHONES = 40
SESSIONS = ("day", *(f"{half}m{period}" for half in "ap" for period in range(1, 9)))
HEAD = f"POST /v1/sync HTTP/1.1\r\nHost: hudur\r\nContent-Type: {MEDIA_TYPE}\r\n"
_LENGTH = re.compile(rb"content-length: *(\d+)", re.IGNORECASE)

Line = list[tuple[bytes, bytes, bytes]]
"""Of one phone, per push: body, HTTP head without its end, server key."""


def registers(place: Site) -> Iterator[tuple[str, list[str]]]:
    """(register, its pupils) of every class, school day (Sun-Thu) and session before today, the newest first."""
    day = date.fromisoformat(place.today)
    while True:
        day -= timedelta(days=1)
        if day.isoweekday() in (5, 6):
            continue
        for session, (room, pupils) in itertools.product(SESSIONS, place.classes.items()):
            yield f"{room}/{day}/{session}", pupils


def head_of(body: bytes) -> bytes:
    """The HTTP head of a push, without its end."""
    return (HEAD + f"Content-Length: {len(body)}\r\n").encode()


def requests(place: Site, progress: Console, *, registers_per_phone: int) -> list[Line]:
    """Sign everything beforehand; every push is another register, every phone has a line of them."""
    return sign([place.enrol(seed=seed) for seed in range(PHONES)], registers(place), registers_per_phone, progress)


def sign(
    phones: Sequence[Phone], free: Iterator[tuple[str, list[str]]], per_phone: int, progress: Console
) -> list[Line]:
    """The next `per_phone` pushes of each phone."""
    made = []
    for phone in track(phones, "signing frames", console=progress, transient=True):
        line = []
        for register, pupils in itertools.islice(free, per_phone):
            body = write_sync([phone.frame([(register, phone.register(pupils[:40]))]).raw])
            line.append((body, head_of(body), phone.enrolled.server_key))
        made.append(line)
    return made


# ---- one after the other ----------------------------------------------------------------------------------------


class Connection:
    """One HTTP/1.1 connection, opened when it is needed."""

    def __init__(self, port: int, *, fresh: bool) -> None:
        self._port, self._end = port, b"Connection: close\r\n\r\n" if fresh else b"\r\n"
        self._fresh = fresh
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None

    async def post(self, head: bytes, body: bytes) -> tuple[int, bytes]:
        """Status and body of the answer."""
        if self._writer is None or self._reader is None:
            self._reader, self._writer = await asyncio.open_connection("127.0.0.1", self._port)
        self._writer.write(head + self._end + body)
        headers = await self._reader.readuntil(b"\r\n\r\n")
        found = _LENGTH.search(headers)
        answer = await self._reader.readexactly(int(found[1])) if found else b""
        if self._fresh:
            await self.close()
        return int(headers[9:12]), answer

    async def close(self) -> None:
        """End it; the next `post` opens another one."""
        if self._writer is not None:
            self._writer.close()
            await self._writer.wait_closed()
        self._reader = self._writer = None


def durable_in(answer: bytes, *, server_key: bytes, request: bytes) -> int:
    """Changes the server calls durable; its signature is verified."""
    receipts = read_answer(answer, server_key=server_key, request=request).answer.receipts
    return sum(verdict.kind == DURABLE for entry in receipts if not isinstance(entry, str) for verdict in entry)


async def push(port: int, line: Line, *, fresh: bool) -> int:
    """Send one phone's pushes one after the other; returns how many became durable."""
    durable = 0
    connection = Connection(port, fresh=fresh)
    for body, head, server_key in line:
        status, answer = await connection.post(head, body)
        if status != 200:
            raise SystemExit(f"answered {status}: {answer[:300]!r}")
        durable += durable_in(answer, server_key=server_key, request=body)
    await connection.close()
    return durable


async def measured(place: Site, lines: Sequence[Line], *, fresh: bool) -> tuple[float, float, int]:
    """CPU-seconds, elapsed seconds and pushes of one round with all phones at once."""
    loop = asyncio.get_running_loop()
    began_s, cpu_s = loop.time(), place.cpu_s()
    durable = await asyncio.gather(*(push(place.port, line, fresh=fresh) for line in lines))
    used_s, elapsed_s = place.cpu_s() - cpu_s, loop.time() - began_s
    total = sum(len(line) for line in lines)
    if sum(durable) != total:
        raise SystemExit(f"only {sum(durable)} of {total} pushes became durable")
    return used_s, elapsed_s, total


async def converse(place: Site, phones: Sequence[Phone], free: Iterator[tuple[str, list[str]]], each: int) -> float:
    """CPU-seconds of `each` pushes a phone as phones make them: with the last nonce, so that each answer pulls too."""

    async def one(phone: Phone) -> None:
        connection = Connection(place.port, fresh=False)
        for register, pupils in itertools.islice(free, each):
            body = write_sync([phone.frame([(register, phone.register(pupils[:40]))]).raw])
            status, answer = await connection.post(head_of(body), body)
            if status != 200:
                raise SystemExit(f"answered {status}: {answer[:300]!r}")
            signed = read_answer(answer, server_key=phone.enrolled.server_key, request=body)
            if signed.answer.payload is None:
                raise SystemExit("a push with the last nonce was answered without a pull")
            phone.nonce, phone.cursor = signed.answer.nonce, read_payload(signed.answer.payload).cursor
        await connection.close()

    cpu_s = place.cpu_s()
    await asyncio.gather(*map(one, phones))
    return place.cpu_s() - cpu_s


# ---- at the times of a plan -------------------------------------------------------------------------------------


@dataclass(slots=True)
class OpenLoad:
    """What an open-loop round found: latencies count from the *planned* time, so that a late start is not forgiven."""

    latencies_ms: list[float] = field(default_factory=list)
    refused: int = 0
    cpu_s: float = 0
    elapsed_s: float = 0

    def quantile_ms(self, share: float) -> float:
        """The latency that `share` of the answers did not exceed."""
        ordered = sorted(self.latencies_ms)
        return ordered[min(int(share * len(ordered)), len(ordered) - 1)]


async def open_load(place: Site, pushes: Line, *, per_s: float, seed: int) -> OpenLoad:
    """Send each push on a connection of its own at Poisson times, whether or not earlier ones were answered."""
    found, loop, chance = OpenLoad(), asyncio.get_running_loop(), random.Random(seed)
    answers: list[tuple[bytes, bytes, bytes]] = []
    cpu_s, began_s = place.cpu_s(), loop.time()
    planned_s = began_s + 0.05
    running = []

    async def one(at_s: float, body: bytes, head: bytes, server_key: bytes) -> None:
        status, answer = await Connection(place.port, fresh=True).post(head, body)
        if status == 200:
            found.latencies_ms.append((loop.time() - at_s) * 1_000)
            answers.append((body, answer, server_key))
        else:
            found.refused += 1

    for body, head, server_key in pushes:
        planned_s += chance.expovariate(per_s)
        if (early_s := planned_s - loop.time()) > 0:
            await asyncio.sleep(early_s)
        running.append(asyncio.create_task(one(planned_s, body, head, server_key)))
    await asyncio.gather(*running)
    found.cpu_s, found.elapsed_s = place.cpu_s() - cpu_s, loop.time() - began_s
    durable = sum(durable_in(answer, server_key=key, request=body) for body, answer, key in answers)
    if durable != len(answers):
        raise SystemExit(f"only {durable} of {len(answers)} accepted pushes became durable")
    return found
