"""What tests of the weak-network drivers share: profiles made by hand, and a plain HTTP server that remembers."""

from __future__ import annotations

import sys
import threading
from dataclasses import dataclass, field
from datetime import date
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any

from tests.weaknet.draws import Table
from tests.weaknet.profile import Deliver, Device, DeviceClock, Link, Loss, Profile, Span

NOON_MS = 12 * 3_600_000
NO_LOSS = Loss(g2b=0, b2g=0.3, bad=0.5, good=0)


def table(value: float) -> Table:
    return Table.constant(value)


def made(*, name: str = "made-by-hand", deliver: Deliver | None = None, peer: Any = None, **link: Any) -> Profile:
    """A profile of one link that is always open, 1 Mbit/s and 20 ms unless told otherwise, with nothing else wrong."""
    usual: dict[str, Any] = {
        "name": "sim",
        "tech": "2g",
        "down_kbps": table(1000),
        "up_kbps": table(1000),
        "rtt_ms": table(20),
        "queue_kb": 64,
        "loss": NO_LOSS,
    }
    return Profile(
        id=name,
        title=name,
        span=Span(start=date(2026, 10, 4), days=2, tz="Africa/Cairo"),
        links=(Link(**(usual | link)),),
        device=Device(
            clock=DeviceClock(offset_s=table(0), drift_ppm=table(0), zone_error_s=table(0), jumps=()),
            kill_per_h=0,
            kill_in_sync=0,
            people=1,
        ),
        deliver=deliver or Deliver(duplicate=0, reorder=0),
        basis=(),
        peer=peer,
    )


class _Quiet(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A connection that was reset is what these tests do; anything else is told."""
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)


@dataclass(slots=True)
class Remembering:
    """A server on 127.0.0.1 that answers `GET /N` and `POST /N` with N bytes and keeps what it got."""

    got: list[tuple[str, dict[str, str], int]] = field(default_factory=list)
    _server: ThreadingHTTPServer | None = None
    _thread: threading.Thread | None = None

    @property
    def port(self) -> int:
        assert self._server is not None
        return int(self._server.server_address[1])

    def __enter__(self) -> Remembering:
        got = self.got

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def _answer(self) -> None:
                length = int(self.headers.get("content-length", "-1" if self.command == "POST" else "0"))
                body = self.rfile.read(max(0, length))
                if len(body) < length or length < 0:
                    return  # cut in the body, or in the head, which http.server takes for a whole one
                got.append((f"{self.command} {self.path}", {k.lower(): v for k, v in self.headers.items()}, len(body)))
                said = b"x" * int(self.path.rpartition("/")[2] or 0)
                head = f"HTTP/1.1 200 OK\r\nContent-Length: {len(said)}\r\n\r\n".encode()
                self.wfile.write(head + said)

            do_GET = do_POST = _answer  # noqa: N815

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002
                """Tests do not talk."""

        self._server = _Quiet(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        assert self._server is not None
        assert self._thread is not None
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
