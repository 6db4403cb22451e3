"""Plain ASGI middleware: what every request is measured by, and what every answer carries."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from email.utils import formatdate

from prometheus_client import Counter
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from clientcore.ports import Clock
from syncserver.body import ANSWER_HEADERS
from syncserver.errors import RequestProblem
from syncserver.metrics import Metrics
from syncserver.problems import as_problem, trace, write_problem

_LOG = logging.getLogger("hudur.app")
_SECURITY = (
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"x-frame-options", b"DENY"),
    (b"cross-origin-resource-policy", b"same-origin"),
)
_CSP = (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'")


class Edge:
    """The outermost layer: counts and times every request, sees to the security headers, and makes errors problems.

    Devices' requests go from here straight to their endpoint: of a school morning they are nearly all.

    An answer to a device gets no headers: a browser can neither ask for it by a form or a link (the media type is
    refused then) nor show it, its time is inside and signed, and headers would double its bytes on 2G. A page keeps its
    own policy.
    """

    def __init__(self, app: ASGIApp, metrics: Metrics, clock: Clock, direct: Mapping[str, ASGIApp]) -> None:
        self._app, self._metrics, self._clock, self._direct = app, metrics, clock, direct
        self._counters: dict[tuple[str, int], Counter] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started_ms = self._clock.mono_ms()
        status = 0

        async def watched(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = message["headers"]
                if headers[0] != ANSWER_HEADERS[0] and not (status == 503 and direct):
                    self._add_headers(headers)
            await send(message)

        direct = self._direct.get(scope["path"]) if scope["method"] == "POST" else None
        try:
            await (direct or self._app)(scope, receive, watched)
        except Exception as error:  # an error of ours too: the device must learn that its work is safe, and what to do
            problem = as_problem(error)
            if problem.code == "fault":
                _LOG.error("fault answering %s: %s", scope["path"], trace(error))
            if status:
                raise  # half an answer is out: only closing the connection says that it is none
            await self._answer(problem, watched)
        finally:
            self._count(scope, direct is not None, status or 500)
            self._metrics.request_s.observe((self._clock.mono_ms() - started_ms) / 1000)

    def _add_headers(self, headers: list[tuple[bytes, bytes]]) -> None:
        headers.append((b"date", formatdate(self._clock.wall_ms() // 1000, usegmt=True).encode()))
        headers.extend(_SECURITY)
        if not any(name == _CSP[0] for name, _ in headers):
            headers.append(_CSP)

    async def _answer(self, problem: RequestProblem, send: Send) -> None:
        self._metrics.problems.labels(problem.code).inc()
        reply = write_problem(problem)
        headers = [(name.encode(), value.encode()) for name, value in reply.headers.items()]
        headers.append((b"content-length", b"%d" % len(reply.body)))
        await send({"type": "http.response.start", "status": reply.status, "headers": headers})
        await send({"type": "http.response.body", "body": reply.body})

    def _count(self, scope: Scope, is_direct: bool, status: int) -> None:
        route = scope.get("route")
        name = (scope["path"] if is_direct else route.path if route is not None else "other", status)
        counter = self._counters.get(name)
        if counter is None:
            counter = self._counters[name] = self._metrics.requests.labels(name[0], str(status))
        counter.inc()
