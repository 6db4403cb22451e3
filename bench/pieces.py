"""Where the microseconds of one push go: the server's own functions, one by one, on the same bytes in one process.

Each piece is CPU of the process (SQLite's thread included) over many pushes, so it counts nothing but itself; HTTP is
measured in servers that do nothing else (`bench.bare_server`). What they do not explain is told as the remainder.
The floor is the same work without our code around it: OpenSSL, zlib, msgpack and SQLite called directly.
"""

from __future__ import annotations

import asyncio
import hashlib
import sqlite3
import subprocess
import sys
import tempfile
import time
import zlib
from collections.abc import Callable, Iterator, MutableMapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import msgpack
import psutil
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from starlette.applications import Starlette

from bench.load import Connection, Line
from bench.site import ROOT, stop
from clientcore.change import admit
from clientcore.exchange import MEDIA_TYPE, Answer, Verdict, read_sync, request_digest, sign_answer
from clientcore.frame import parse_frame
from clientcore.keys import SigningKey
from clientcore.register import RegisterId
from syncserver.app import create_app, open_server
from syncserver.config import Config
from syncserver.ports import ServerPorts
from syncserver.store.log import Push
from syncserver.store.sqlite import open_sqlite

_LEAST_CPU_S = 0.3


def us_each(work: Callable[[bytes], object], bodies: Sequence[bytes]) -> float:
    """CPU-microseconds of `work` for one of `bodies`."""
    began_s, done = time.process_time(), 0
    while (used_s := time.process_time() - began_s) < _LEAST_CPU_S:
        for body in bodies:
            work(body)
        done += len(bodies)
    return used_s / done * 1e6


# ---- our own functions ------------------------------------------------------------------------------------------


def own_pieces(bodies: Sequence[bytes], *, public_key: bytes, key: SigningKey, answer: Answer) -> dict[str, float]:
    """CPU-microseconds of the pure parts of a push."""
    frames = {body: parse_frame(read_sync(body)[0]) for body in bodies}

    def three_hashes(body: bytes) -> None:
        frame = frames[body]
        hashlib.sha256(body).digest()
        hashlib.sha256(frame.signed).digest()
        hashlib.sha256(frame.changes[0].chunk).digest()

    def strict_parse(body: bytes) -> None:
        framed = frames[body].changes[0]
        admit(framed.chunk)
        RegisterId.parse(f"school/{framed.register}")

    return {
        "hashes of request, frame and change (not in the sum: inside the others)": us_each(three_hashes, bodies),
        "verify the phone's signature (P-256)": us_each(lambda body: frames[body].is_signed_by(public_key), bodies),
        "read the phone's public key, once for each phone (not in the sum)": us_each(
            lambda _: ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), public_key), bodies
        ),
        "read request and frame (msgpack, shapes)": us_each(lambda body: parse_frame(read_sync(body)[0]), bodies),
        "strict parse of the change": us_each(strict_parse, bodies),
        "sign and write the answer": us_each(lambda _: sign_answer(key, answer), bodies),
    }


async def commit_us(store: Path, bodies: Sequence[bytes], batch: int) -> float:
    """CPU-microseconds of making one push durable, `batch` in a commit: the real intake on a copy of the store."""
    db = await open_sqlite(store)
    try:
        server = await open_server(Config(store=store, env="demo", consumes=False), db, ServerPorts())
        pushes = []
        for body in bodies:
            identity, arrivals = await server.checker.read(body)
            pushes.append(Push(device=identity.device, arrivals=tuple(arrivals), nonce=bytes(8), asked_nonce=None))
        writer = asyncio.create_task(server.intake.run())
        began_s = time.process_time()
        for at in range(0, len(pushes), batch):
            await asyncio.gather(*map(server.intake.commit, pushes[at : at + batch]))
        used_s = time.process_time() - began_s
        writer.cancel()
        await asyncio.gather(writer, return_exceptions=True)
        return used_s / len(pushes) * 1e6
    finally:
        await db.close()


async def whole_us(store: Path, lines: Sequence[Line]) -> float:
    """CPU-microseconds of one push through the whole application, called without a socket, all phones at once."""
    db = await open_sqlite(store)
    try:
        config = Config(store=store, env="demo", consumes=False, device_burst=10**6, device_per_minute=10**7)
        server = await open_server(config, db, ServerPorts())
        app = create_app(server)

        async def one(line: Line) -> None:
            for body, _, _ in line:
                if await _call(app, body) != 200:
                    raise SystemExit("a push was refused")

        async with server.running():
            began_s = time.process_time()
            await asyncio.gather(*map(one, lines))
            return (time.process_time() - began_s) / sum(map(len, lines)) * 1e6
    finally:
        await db.close()


async def _call(app: Starlette, body: bytes) -> int:
    """The status of one push by ASGI."""
    status = 0
    headers = [(b"content-type", MEDIA_TYPE.encode()), (b"content-length", str(len(body)).encode())]
    scope = {"type": "http", "method": "POST", "path": "/v1/sync", "raw_path": b"/v1/sync", "query_string": b"",
             "root_path": "", "scheme": "http", "http_version": "1.1", "headers": headers, "client": ("127.0.0.1", 1),
             "server": ("127.0.0.1", 2), "asgi": {"version": "3.0"}, "state": {}}  # fmt: skip

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message: MutableMapping[str, Any]) -> None:
        nonlocal status
        status = message.get("status", status)

    await app(scope, receive, send)
    return status


def an_answer(body: bytes) -> Answer:
    """One of the usual size."""
    return Answer(
        request=request_digest(body),
        server_ms=1_795_334_400_000,
        epoch=1,
        nonce=bytes(8),
        last_number=1,
        receipts=((Verdict(0),),),
        head=bytes(16),
    )


# ---- HTTP alone -------------------------------------------------------------------------------------------------


@contextmanager
def bare_server(kind: str, size: int) -> Iterator[tuple[psutil.Popen, int]]:
    """The process and port of a server that only answers."""
    command = [sys.executable, "-m", "bench.bare_server", kind, str(size)]
    process = psutil.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT)
    try:
        yield process, int(process.stdout.readline())
    finally:
        stop(process)
        process.stdout.close()


def http_us(kind: str, lines: Sequence[Line], *, fresh: bool, answer_bytes: int) -> float:
    """CPU-microseconds of the server for one request of a push's size."""

    async def send(port: int) -> None:
        async def one(line: Line) -> None:
            connection = Connection(port, fresh=fresh)
            for body, head, _ in line:
                await connection.post(head, body)
            await connection.close()

        await asyncio.gather(*map(one, lines))

    with bare_server(kind, answer_bytes) as (process, port):
        asyncio.run(send(port))
        before, rounds, used_s = cpu_s(process), 0, 0.0
        while used_s < _LEAST_CPU_S:  # the kernel counts in ticks of 10 ms
            asyncio.run(send(port))
            rounds, used_s = rounds + 1, cpu_s(process) - before
    return used_s / (rounds * sum(map(len, lines))) * 1e6


def cpu_s(process: psutil.Popen) -> float:
    """CPU-seconds of a process so far."""
    times = process.cpu_times()
    return float(times.user + times.system)


# ---- the floor --------------------------------------------------------------------------------------------------


def floor_pieces(bodies: Sequence[bytes], rows: Sequence[bytes], *, public_key: bytes, batch: int) -> dict[str, float]:
    """CPU-microseconds of the work nobody can leave out, by the libraries that do it; `bodies` are of one phone."""
    frames = {body: parse_frame(read_sync(body)[0]) for body in bodies}
    point = ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), public_key)
    own = ec.generate_private_key(ec.SECP256R1())
    algorithm = ec.ECDSA(hashes.SHA256())

    def check(body: bytes) -> None:
        frame = frames[body]
        r, s = int.from_bytes(frame.signature[:32], "big"), int.from_bytes(frame.signature[32:], "big")
        point.verify(encode_dss_signature(r, s), frame.signed, algorithm)

    def read(body: bytes) -> None:
        frame = frames[body]
        msgpack.unpackb(msgpack.unpackb(body)[1][0][: len(frame.signed)])
        chunk = frame.changes[0].chunk
        hashlib.sha256(chunk).digest()
        if chunk[8] == 2:  # the change travelled deflated
            zlib.decompressobj(-15).decompress(chunk[11:])

    return {
        "verify (OpenSSL)": us_each(check, bodies),
        "sign (OpenSSL)": us_each(lambda body: own.sign(body[:100], algorithm), bodies),
        "msgpack, inflate and hash": us_each(read, bodies),
        "one row and its share of an fsync (sqlite3)": _insert_us(rows, batch),
    }


def _insert_us(bodies: Sequence[bytes], batch: int) -> float:
    with tempfile.TemporaryDirectory(prefix="hudur-bench-") as name, closing(sqlite3.connect(f"{name}/floor.db")) as db:
        db.executescript("PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; "
                         "CREATE TABLE log (offset INTEGER PRIMARY KEY, hash BLOB UNIQUE, body BLOB)")  # fmt: skip
        rows = [(hashlib.sha256(body).digest(), body) for body in bodies]
        began_s = time.process_time()
        for at in range(0, len(rows), batch):
            with db:
                db.executemany("INSERT INTO log (hash, body) VALUES (?, ?)", rows[at : at + batch])
        return (time.process_time() - began_s) / len(rows) * 1e6
