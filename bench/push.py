"""CPU of the server per 1,000 one-register pushes: signature verified, strictly parsed, fsynced, receipt signed.

Frames are made beforehand by another process than the one measured; CPU-seconds are the server's own (user + system),
so other work on the machine disturbs little. Every answer is read and must say *durable*.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Iterator
from datetime import date, timedelta

from rich.console import Console
from rich.progress import track
from rich.table import Table

from bench.site import Site, site
from clientcore.exchange import DURABLE, MEDIA_TYPE, read_answer, write_sync

PHONES = 40
REGISTERS = 75  # per phone and round
ROUNDS = 3
HEAD = f"POST /v1/sync HTTP/1.1\r\nHost: hudur\r\nContent-Type: {MEDIA_TYPE}\r\n"

Line = list[tuple[bytes, bytes, bytes]]
"""Of one phone, per push: body, HTTP head without its end, server key."""


def registers(place: Site) -> Iterator[tuple[str, list[str]]]:
    """(register, its pupils) of every class, school day (Sun-Thu) and session before today, the newest first."""
    day = date.fromisoformat(place.today)
    sessions = ["day", *(f"{half}m{period}" for half in "ap" for period in range(1, 9))]
    while True:
        day -= timedelta(days=1)
        if day.isoweekday() in (5, 6):
            continue
        for session, (room, pupils) in itertools.product(sessions, place.classes.items()):
            yield f"{room}/{day}/{session}", pupils


def requests(place: Site, progress: Console) -> list[Line]:
    """Sign everything beforehand; every push is another register."""
    free = registers(place)
    made = []
    for seed in track(range(PHONES), "signing frames", console=progress):
        phone = place.enrol(seed=seed)
        line = []
        for register, pupils in itertools.islice(free, REGISTERS * ROUNDS):
            body = write_sync([phone.frame([(register, phone.register(pupils[:40]))]).raw])
            line.append((body, (HEAD + f"Content-Length: {len(body)}\r\n").encode(), phone.enrolled.server_key))
        made.append(line)
    return made


async def push(port: int, line: Line, *, fresh: bool) -> int:
    """Send one phone's pushes one after the other; returns how many became durable."""
    durable = 0
    reader = writer = None
    for body, head, server_key in line:
        if writer is None or reader is None:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(head + (b"Connection: close\r\n\r\n" if fresh else b"\r\n") + body)
        headers = await reader.readuntil(b"\r\n\r\n")
        if not headers.startswith(b"HTTP/1.1 200"):
            raise SystemExit(headers.decode())
        length = int(headers.lower().split(b"content-length:")[1].split(b"\r\n")[0])
        answer = read_answer(await reader.readexactly(length), server_key=server_key, request=body).answer
        durable += sum(verdict.kind == DURABLE for entry in answer.receipts for verdict in entry)
        if fresh:
            writer.close()
            await writer.wait_closed()
            writer = None
    if writer is not None:
        writer.close()
        await writer.wait_closed()
    return durable


async def measured(place: Site, lines: list[Line], *, fresh: bool) -> tuple[float, float, int]:
    """CPU-seconds, elapsed seconds and pushes of one round with all phones at once."""
    loop = asyncio.get_running_loop()
    began_s, cpu_s = loop.time(), place.cpu_s()
    durable = await asyncio.gather(*(push(place.port, line, fresh=fresh) for line in lines))
    used_s, elapsed_s = place.cpu_s() - cpu_s, loop.time() - began_s
    total = sum(len(line) for line in lines)
    if sum(durable) != total:
        raise SystemExit(f"only {sum(durable)} of {total} pushes became durable")
    return used_s, elapsed_s, total


def main() -> None:
    """Print the table."""
    console = Console(width=120)
    table = Table(title="Push: verified, strictly parsed, durable (synchronous=FULL), signed receipt")
    for heading in ("connections", "pushes", "server CPU-s per 1,000", "goal", "pushes/s (orientation)"):
        table.add_column(heading, justify="right" if heading != "connections" else "left")
    with site(phones=PHONES, settle=False) as place:
        lines = requests(place, console)
        for number, (name, fresh) in enumerate(
            (("keep-alive (warm-up)", False), ("keep-alive", False), ("fresh each", True))
        ):
            part = [line[number * REGISTERS : (number + 1) * REGISTERS] for line in lines]
            used_s, elapsed_s, total = asyncio.run(measured(place, part, fresh=fresh))
            table.add_row(name, str(total), f"{used_s / total * 1_000:.3f}", "≤ 0.30", f"{total / elapsed_s:,.0f}")
    console.print(table)
