"""A network namespace without a name, made and configured without any tool: it is gone when its owner is.

Invariants:
- nothing is written to the file system and nothing touches the machine's own network; the kernel removes a namespace
  and its devices when the last thread, process, socket and descriptor in it is gone, also after `kill -9`;
- only the thread of a `Namespace` is inside it; what it opens (sockets, TUN descriptors, processes) stays inside.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import socket
import struct
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import TypeVar

TUN = Path("/dev/net/tun")
CLONE_NEWNET = 0x4000_0000
SIOCSIFADDR, SIOCSIFFLAGS, SIOCSIFNETMASK = 0x8916, 0x8914, 0x891C
IFF_UP_RUNNING = 0x41
TUNSETIFF, IFF_TUN_NO_INFO = 0x4004_54CA, 0x1001
RTM_NEWROUTE, NLMSG_ERROR = 24, 2
NEW_ROUTE_FLAGS = 0x1 | 0x4 | 0x100 | 0x400  # request, acknowledge, replace, create
RTA_DST, RTA_OIF, RTA_METRICS, RTAX_CC_ALGO = 1, 4, 8, 16
MAIN_TABLE, BY_KERNEL, SCOPE_LINK, UNICAST = 254, 2, 253, 1
CONGESTION = b"cubic"  # phones have it; a server machine may default to another
T = TypeVar("T")


def why_not() -> str | None:
    """Why no namespace with a TUN device can be made here, or None when it can."""
    if not TUN.exists():
        return f"{TUN} is missing (modprobe tun, or run the container with --device {TUN})"
    if not os.access(TUN, os.R_OK | os.W_OK):
        return f"{TUN} may not be opened by this user"
    try:
        with Namespace():
            return None
    except OSError as refused:
        return f"no network namespace may be made here ({refused.strerror}): root or CAP_SYS_ADMIN is needed"


class Namespace:
    """An own network stack, with loopback up. `run` does something inside it."""

    def __init__(self) -> None:
        self._inside = ThreadPoolExecutor(max_workers=1, thread_name_prefix="weaknet-netns")

    def __enter__(self) -> Namespace:
        try:
            self.run(self._enter)
        except BaseException:
            self._inside.shutdown()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._inside.shutdown()

    def run(self, act: Callable[[], T]) -> T:
        """Do something in the namespace: a socket or process made there belongs to it."""
        return self._inside.submit(act).result()

    def tun(self, address: str, prefix: int) -> int:
        """A TUN device with this IPv4 address, up, whose route uses `CONGESTION`; returns its descriptor."""
        return self.run(lambda: _make_tun(address, prefix))

    @staticmethod
    def _enter() -> None:
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.unshare(CLONE_NEWNET) != 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
            _raise_interface(control, "lo")


def _make_tun(address: str, prefix: int) -> int:
    name = "tun0"
    descriptor = os.open(TUN, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        fcntl.ioctl(descriptor, TUNSETIFF, struct.pack("16sH22x", name.encode(), IFF_TUN_NO_INFO))
        mask = socket.inet_ntoa(struct.pack("!I", (0xFFFF_FFFF << (32 - prefix)) & 0xFFFF_FFFF))
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
            for request, given in ((SIOCSIFADDR, address), (SIOCSIFNETMASK, mask)):
                fcntl.ioctl(control, request, struct.pack("16sHH4s8x", name.encode(), 2, 0, socket.inet_aton(given)))
            _raise_interface(control, name)
        network = struct.unpack("!I", socket.inet_aton(address))[0] & struct.unpack("!I", socket.inet_aton(mask))[0]
        _use_congestion(struct.pack("!I", network), prefix, socket.if_nametoindex(name))
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _raise_interface(control: socket.socket, name: str) -> None:
    fcntl.ioctl(control, SIOCSIFFLAGS, struct.pack("16sH14x", name.encode(), IFF_UP_RUNNING))


def _use_congestion(network: bytes, prefix: int, index: int) -> None:
    """Give the connected route a congestion control: the namespace's default can only be one the machine allows all."""
    algorithm = _attribute(RTA_METRICS, _attribute(RTAX_CC_ALGO, CONGESTION + b"\0"))
    body = struct.pack("BBBBBBBBI", socket.AF_INET, prefix, 0, 0, MAIN_TABLE, BY_KERNEL, SCOPE_LINK, UNICAST, 0)
    body += _attribute(RTA_DST, network) + _attribute(RTA_OIF, struct.pack("I", index)) + algorithm
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0) as route:
        route.send(struct.pack("IHHII", 16 + len(body), RTM_NEWROUTE, NEW_ROUTE_FLAGS, 1, 0) + body)
        answer = route.recv(4096)
    kind, code = struct.unpack_from("H", answer, 4)[0], struct.unpack_from("i", answer, 16)[0]
    if kind != NLMSG_ERROR or code:
        raise OSError(-code or errno.EPROTO, f"route not set: {os.strerror(-code)}")


def _attribute(kind: int, value: bytes) -> bytes:
    return struct.pack("HH", 4 + len(value), kind) + value + b"\0" * (-len(value) % 4)
