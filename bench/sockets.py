"""A phone's connection whose every byte on TCP is counted, plain or through real TLS 1.3.

TLS is ended by a relay in front of the server, as a front proxy does it, with a chain of leaf and intermediate (ECDSA
P-256) made for the run. The client drives OpenSSL over memory and moves the bytes itself, so nothing escapes the count.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import socket
import ssl
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

HOST = "sync.hudur.example"


@dataclass(slots=True)
class Count:
    """Bytes up and down on TCP, and round trips: how often the client had to wait for what it had sent."""

    up: int = 0
    down: int = 0
    trips: int = 0

    @property
    def both(self) -> int:
        """Bytes in both directions."""
        return self.up + self.down

    def since(self, before: Count) -> Count:
        """What came after `before`."""
        return Count(self.up - before.up, self.down - before.down, self.trips - before.trips)

    def copy(self) -> Count:
        """The count now."""
        return Count(self.up, self.down, self.trips)


class Wire:
    """One connection to the server; `count` has what passed so far, the TCP handshake as one round trip."""

    def __init__(self, port: int, *, tls: ssl.SSLContext | None = None, session: ssl.SSLSession | None = None) -> None:
        self.count = Count(trips=1)
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=30)
        self._is_waiting = False
        self._tls: ssl.SSLObject | None = None
        if tls is not None:
            self._in, self._out = ssl.MemoryBIO(), ssl.MemoryBIO()
            self._tls = tls.wrap_bio(self._in, self._out, server_hostname=HOST, session=session)
            self._shake_hands()

    @property
    def session(self) -> ssl.SSLSession | None:
        """For a resumption; complete once an answer was read."""
        return None if self._tls is None else self._tls.session

    @property
    def is_resumed(self) -> bool:
        """Whether TLS resumed an older session."""
        return self._tls is not None and bool(self._tls.session_reused)

    def exchange(self, request: bytes) -> bytes:
        """Send an HTTP request and read the whole answer."""
        self._write(request)
        reply = b""
        while b"\r\n\r\n" not in reply:
            reply += self._read()
        head, _, body = reply.partition(b"\r\n\r\n")
        length = int(head.lower().split(b"content-length:")[1].split(b"\r\n")[0])
        while len(body) < length:
            body += self._read()
        return head + b"\r\n\r\n" + body

    def close(self) -> None:
        """End the connection; what TLS says at the end is not counted."""
        self._socket.close()

    def _shake_hands(self) -> None:
        assert self._tls is not None
        while True:
            try:
                self._tls.do_handshake()
            except ssl.SSLWantReadError:
                self._flush()
                self._in.write(self._receive())
            else:
                self._flush()
                return

    def _write(self, data: bytes) -> None:
        if self._tls is None:
            self._send(data)
        else:
            self._tls.write(data)
            self._flush()

    def _read(self) -> bytes:
        while self._tls is not None:
            try:
                return self._tls.read(65_536)
            except ssl.SSLWantReadError:
                self._in.write(self._receive())
        return self._receive()

    def _flush(self) -> None:
        if data := self._out.read():
            self._send(data)

    def _send(self, data: bytes) -> None:
        self._socket.sendall(data)
        self.count.up += len(data)
        self._is_waiting = True

    def _receive(self) -> bytes:
        data = self._socket.recv(65_536)
        if not data:
            raise SystemExit("the server ended the connection")
        self.count.down += len(data)
        self.count.trips += self._is_waiting
        self._is_waiting = False
        return data


# ---- TLS in front of the server ---------------------------------------------------------------------------------


@contextmanager
def tls_front(server_port: int, folder: Path) -> Iterator[tuple[int, ssl.SSLContext]]:
    """A relay that ends TLS 1.3 before the server: its port and what a client needs to trust it."""
    chain, key, root = make_chain(folder)
    inside = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    inside.minimum_version = ssl.TLSVersion.TLSv1_3
    inside.load_cert_chain(chain, key)
    outside = ssl.create_default_context(cafile=root)
    outside.minimum_version = ssl.TLSVersion.TLSv1_3
    loop = asyncio.new_event_loop()
    server = loop.run_until_complete(asyncio.start_server(_relay_to(server_port), "127.0.0.1", 0, ssl=inside))
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    try:
        yield server.sockets[0].getsockname()[1], outside
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        server.close()
        if left := asyncio.all_tasks(loop):  # they end by themselves: their clients have gone
            loop.run_until_complete(asyncio.wait(left, timeout=5))
        loop.close()


def _relay_to(port: int) -> Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]:
    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, ssl.SSLError):
            while data := await reader.read(65_536):
                writer.write(data)
                await writer.drain()
        writer.close()

    async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        behind, before = await asyncio.open_connection("127.0.0.1", port)
        await asyncio.gather(pump(reader, before), pump(behind, writer))

    return relay


def make_chain(folder: Path) -> tuple[Path, Path, Path]:
    """Files of a chain (leaf, intermediate), the leaf's key, and the root that a client trusts."""
    root_key, middle_key, leaf_key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(3))
    root = _certificate("Example Root X1", root_key, "Example Root X1", root_key, is_authority=True)
    middle = _certificate("Example Intermediate E5", middle_key, "Example Root X1", root_key, is_authority=True)
    leaf = _certificate(HOST, leaf_key, "Example Intermediate E5", middle_key, is_authority=False)
    pem = serialization.Encoding.PEM
    paths = folder / "chain.pem", folder / "key.pem", folder / "root.pem"
    paths[0].write_bytes(leaf.public_bytes(pem) + middle.public_bytes(pem))
    paths[1].write_bytes(leaf_key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()))
    paths[2].write_bytes(root.public_bytes(pem))
    return paths


def _certificate(
    name: str,
    key: ec.EllipticCurvePrivateKey,
    issuer: str,
    issuer_key: ec.EllipticCurvePrivateKey,
    *,
    is_authority: bool,
) -> x509.Certificate:
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
        .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, issuer)]))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=90))
        .add_extension(x509.BasicConstraints(ca=is_authority, path_length=None), critical=True)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key()), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )
    if not is_authority:
        made = made.add_extension(x509.SubjectAlternativeName([x509.DNSName(HOST)]), critical=False)
    return made.sign(issuer_key, hashes.SHA256())
