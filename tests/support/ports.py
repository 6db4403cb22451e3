"""Ports for servers that are started by their command and have to be told where to listen."""

from __future__ import annotations

import contextlib
import os
import socket
from itertools import count

# Below the range from which the kernel gives ports away: whoever asks it for any port does not get one of these in the
# seconds until the server listens. Each worker of the suite begins elsewhere.
_PORTS = count(10_000 + os.getpid() * 32 % 20_000)


def free_port() -> int:
    """A port nobody listens on now."""
    for port in _PORTS:
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise AssertionError("there are always more")
