"""Plain ASGI middleware: what every request is measured by, and what every answer carries."""

from __future__ import annotations

from email.utils import formatdate

from prometheus_client import Counter
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from clientcore.ports import Clock
from syncserver.body import ANSWER_HEADERS
from syncserver.metrics import Metrics

_SECURITY = (
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"x-frame-options", b"DENY"),
    (b"cross-origin-resource-policy", b"same-origin"),
)
_CSP = (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'")


class Edge:
    """The outermost layer: counts and times every request, and sees to the security headers.

    An answer to a device gets none: a browser can neither ask for it by a form or a link (the media type is refused
    then) nor show it, its time is inside and signed, and headers would double its bytes on 2G. A page keeps its own
    policy.
    """

    def __init__(self, app: ASGIApp, metrics: Metrics, clock: Clock) -> None:
        self._app, self._metrics, self._clock = app, metrics, clock
        self._counters: dict[tuple[str, int], Counter] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started_ms = self._clock.mono_ms()
        status = 500

        async def watched(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = message["headers"]
                if headers[0] != ANSWER_HEADERS[0]:
                    headers.append((b"date", formatdate(self._clock.wall_ms() // 1000, usegmt=True).encode()))
                    headers.extend(_SECURITY)
                    if not any(name == _CSP[0] for name, _ in headers):
                        headers.append(_CSP)
            await send(message)

        try:
            await self._app(scope, receive, watched)
        finally:
            self._count(scope, status)
            self._metrics.request_s.observe((self._clock.mono_ms() - started_ms) / 1000)

    def _count(self, scope: Scope, status: int) -> None:
        route = scope.get("route")
        name = (route.path if route is not None else "other", status)
        counter = self._counters.get(name)
        if counter is None:
            counter = self._counters[name] = self._metrics.requests.labels(name[0], str(status))
        counter.inc()
