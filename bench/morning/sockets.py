"""Connections of the load: what one is for, and how it is opened from many addresses."""

from __future__ import annotations

import resource
import socket
from collections.abc import Callable
from dataclasses import dataclass

from bench.morning.asking import Asking
from bench.morning.slow import Drip

_BIND_NO_PORT = 24  # IP_BIND_ADDRESS_NO_PORT: the port is chosen at connect, so that one address serves 28,000 at once
ADDRESSES = [f"127.0.0.{number}" for number in range(2, 34)]


@dataclass(slots=True)
class Connection:
    """One try of one job, one of an ask for a confirmation, or a look at a page of the server (`job` -1)."""

    sock: socket.socket
    job: int
    request: bytes
    asked_s: float
    failures: int = 0
    begun_s: float = 0.0
    sent_s: float = 0.0
    left: bytes = b""
    answer: bytes = b""
    then: Callable[[bytes], None] | None = None
    asking: Asking | None = None
    drip: Drip | None = None
    piece: int = 0
    is_open: bool = True


def raise_file_limit() -> int:
    """As many open files as this process may have; processes started afterwards have them too."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard


def body_of(request: bytes) -> bytes:
    """Of a whole HTTP request."""
    return request[request.index(b"\r\n\r\n") + 4 :]


def retry_after_s(head: bytes) -> float | None:
    """What a head in small letters asks to wait; None where it says nothing of it."""
    after = head.partition(b"retry-after:")[2].partition(b"\r\n")[0].strip()
    return float(after) if after.isdigit() else None


def open_socket(address: str) -> socket.socket:
    """A socket that connects from `address`."""
    sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    sock.setblocking(False)
    sock.setsockopt(socket.IPPROTO_IP, _BIND_NO_PORT, 1)
    sock.bind((address, 0))
    return sock
