"""Which ASGI server costs least on our real push? One-register pushes, verified, durable, acknowledged.

    python -m bench.asgi_server [--pushes 4000] [--connections 64]

Each push is one frame of one register of 40 marks by a device of its own, on a fresh connection without TLS (the way
`docs/protocol.md` is used in the morning). The server runs in a process of its own; its CPU seconds are read from
/proc. Only pushes that came back with status 200 count, and the durable changes are counted in the store afterwards.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import uvloop

from clientcore.change import Op, actor_of, deflate, encode
from clientcore.exchange import MEDIA_TYPE, write_sync
from clientcore.frame import NO_PREV, Ask, ClockEvidence, FramedChange, seal_frame
from clientcore.keys import SigningKey, device_id
from syncserver.app import Server, create_app, open_server
from syncserver.config import Config
from syncserver.ports import ServerPorts
from syncserver.serve import serve
from syncserver.store.sqlite import open_sqlite

SCHOOL = "eg-07-113"
PUPILS = [f"s{n:05d}" for n in range(40)]
DATE = "2026-11-22"


def make_pushes(count: int, *, asking: bool) -> tuple[list[tuple[bytes, bytes]], list[bytes]]:
    """(device, public key) of `count` devices and the request body of each one's push."""
    devices, bodies = [], []
    for n in range(count):
        key = SigningKey.generate()
        device = device_id(key.public)
        devices.append((device, key.public))
        nonce = n.to_bytes(8, "big")
        ops = [
            Op(key=pupil, value=f"{'A' if n % 13 == 0 else 'P'}{28_800_000 + 731 * i}")
            for i, pupil in enumerate(PUPILS)
        ]
        change = encode(actor=actor_of(device, nonce), seq=1, start_op=1, time_s=1_795_334_400, deps=(), ops=ops)
        frame = seal_frame(
            key,
            env="bench",
            school=SCHOOL,
            device=device,
            number=1,
            prev=NO_PREV,
            clock=ClockEvidence(wall_ms=1_795_334_400_000, mono_ms=60_000, session=nonce),
            changes=[FramedChange(register=f"c{n}/{DATE}/day", chunk=deflate(change.chunk))],
            ask=Ask(nonce=bytes(8), cursor=None, have=None, app="bench", unsent=0, done=0) if asking else None,
        )
        bodies.append(write_sync([frame.raw]))
    return devices, bodies


async def fill(store: Path, devices: list[tuple[bytes, bytes]]) -> None:
    """A school whose teacher n has device n and class n."""
    db = await open_sqlite(store)
    async with db.transaction() as tx:
        await tx.execute("INSERT INTO schools VALUES (?, 'bench', 'day', 1, 1, NULL)", (SCHOOL,))
        names = range(len(devices))
        await tx.executemany(
            "INSERT INTO users VALUES (?, ?, 'bench', 'teacher', NULL, NULL, 1, NULL)",
            [(SCHOOL, f"t{n}") for n in names],
        )
        await tx.executemany(
            "INSERT INTO classes VALUES (?, ?, 'bench', '3', 1, 1, NULL)", [(SCHOOL, f"c{n}") for n in names]
        )
        await tx.executemany(
            "INSERT INTO members VALUES (?, ?, ?, 'teacher', 1, '2026-09-01', NULL, 0, 1, NULL)",
            [(SCHOOL, f"c{n}", f"t{n}") for n in names],
        )
        await tx.executemany(
            """INSERT INTO devices
              (id, school, user_id, public_key, label, app, enrolled_ms, nonce, last_number, unsent, done)
            VALUES (?, ?, ?, ?, '', 'bench', 0, ?, 0, 0, 0)""",
            [(device, SCHOOL, f"t{n}", public, bytes(8)) for n, (device, public) in enumerate(devices)],
        )
    await db.close()


# ---- the server's process ---------------------------------------------------------------------------------------


def serve_here(kind: str, store: Path, *, consumes: bool) -> None:
    """Run one kind of server until SIGTERM; prints its port."""
    config = Config(store=store, port=0, env="bench", consumes=consumes)

    def tell(_: Server, url: str) -> None:
        print(url.rpartition(":")[2], flush=True)

    runner = uvloop.run if kind.endswith("uvloop") else asyncio.run
    runner(serve(config, on_ready=tell) if kind.startswith("uvicorn") else _granian(config, store))


async def _granian(config: Config, store: Path) -> None:
    import socket

    from granian.constants import Interfaces
    from granian.server.embed import Server as Granian

    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    db = await open_sqlite(store)
    app = create_app(await open_server(config, db, ServerPorts()))
    server = Granian(app, address="127.0.0.1", port=port, interface=Interfaces.ASGI, log_enabled=False)
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    serving = asyncio.create_task(server.serve())
    print(port, flush=True)
    await stop.wait()
    server.stop()  # type: ignore[no-untyped-call]
    await asyncio.gather(serving, return_exceptions=True)
    await db.close()


# ---- the load ---------------------------------------------------------------------------------------------------


async def push_all(port: int, bodies: list[bytes], connections: int) -> tuple[int, list[float]]:
    """Send every body on a connection of its own; returns how many got 200, and seconds of each."""
    waiting, taken = list(reversed(bodies)), []
    good = 0

    async def one_after_another() -> None:
        nonlocal good
        while waiting:
            body = waiting.pop()
            started = time.perf_counter()
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            head = (
                f"POST /v1/sync HTTP/1.1\r\nHost: hudur\r\nContent-Type: {MEDIA_TYPE}\r\n"
                f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
            )
            writer.write(head.encode() + body)
            status = await reader.readline()
            await reader.read()
            writer.close()
            taken.append(time.perf_counter() - started)
            good += b" 200 " in status

    await asyncio.gather(*(one_after_another() for _ in range(connections)))
    return good, taken


def cpu_s(pid: int) -> float:
    """User and system seconds of a process."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def measure(kind: str, pushes: int, connections: int, *, asking: bool, consumes: bool) -> dict[str, float | int | str]:
    """Start a server of one kind, push, and read what it cost."""
    devices, bodies = make_pushes(pushes, asking=asking)
    with tempfile.TemporaryDirectory() as folder:
        store = Path(folder) / "bench.db"
        asyncio.run(fill(store, devices))
        child = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "bench.asgi_server",
                "--serve",
                kind,
                "--store",
                str(store),
                *([] if consumes else ["--no-settle"]),
            ],
            stdout=subprocess.PIPE,
            text=True,
        )
        assert child.stdout is not None
        port = int(child.stdout.readline())
        _wait_until_open(port)
        before, started = cpu_s(child.pid), time.perf_counter()
        good, taken = asyncio.run(push_all(port, bodies, connections))
        wall, used = time.perf_counter() - started, cpu_s(child.pid) - before
        child.send_signal(signal.SIGTERM)
        child.wait(60)
        with sqlite3.connect(store) as db:
            durable = db.execute("SELECT count(*) FROM changes").fetchone()[0]
    taken.sort()
    return {
        "server": kind,
        "pushes": good,
        "durable": durable,
        "cpu_s_per_1000": round(used / good * 1000, 3),
        "pushes_per_s": round(good / wall),
        "p50_ms": round(taken[len(taken) // 2] * 1000, 1),
        "p99_ms": round(taken[int(len(taken) * 0.99)] * 1000, 1),
    }


def _wait_until_open(port: int) -> None:
    import socket

    for _ in range(400):
        try:
            with socket.create_connection(("127.0.0.1", port), timeout=1) as probe:
                probe.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
                if b"200" in probe.recv(64):
                    return
        except OSError:
            pass
        time.sleep(0.025)
    raise SystemExit("the server did not come up")


def main() -> None:
    """Compare the servers, or be one."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--serve")
    arguments.add_argument("--store", type=Path)
    arguments.add_argument("--kinds", default="uvicorn-uvloop,uvicorn-asyncio,granian-uvloop,granian-asyncio")
    arguments.add_argument("--pushes", type=int, default=4_000)
    arguments.add_argument("--connections", type=int, default=64)
    arguments.add_argument("--asking", action="store_true", help="each push asks for a pull as well")
    arguments.add_argument("--no-settle", action="store_true", help="receipts only, as a process of intake would")
    given = arguments.parse_args()
    if given.serve:
        serve_here(given.serve, given.store, consumes=not given.no_settle)
        return
    for kind in given.kinds.split(","):
        print(
            json.dumps(
                measure(kind, given.pushes, given.connections, asking=given.asking, consumes=not given.no_settle)
            ),
            flush=True,
        )


if __name__ == "__main__":
    main()
