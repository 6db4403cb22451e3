"""What speaks HTTP between a phone and our server: the top-up page, a zero-rating gateway, an overloaded front.

None of its answers is ours: no signature, no `application/x-hudur`. Each names itself in the `Server` header.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from tests.weaknet.line import Line
from tests.weaknet.profile import Gate, Window
from tests.weaknet.timeline import Timeline

PORTAL = (
    "<!doctype html><html lang=ar dir=rtl><meta charset=utf-8><title>Top up</title>"
    "<h1>باقتك انتهت</h1><p>Your bundle has ended. Please top up.</p></html>"
).encode()
_LENGTH = re.compile(rb"\r\ncontent-length:[ \t]*(\d+)", re.IGNORECASE)
_STATUS = re.compile(rb"HTTP/1\.[01] (\d{3})")
NO_BODY = (204, 304)
Action: TypeAlias = Literal["rst", "blackhole"]
_OTHERS: dict[str, Action] = {"timeout": "blackhole", "rst": "rst"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """A request's head as it came, and what is read from it.

    Attributes:
        raw: Up to and with the empty line.
        method: Upper case.
        target: Path and query.
        headers: Names in lower case.
        body_bytes: Its Content-Length, or 0.
    """

    raw: bytes
    method: str
    target: str
    headers: dict[str, str]
    body_bytes: int


def parse_head(raw: bytes) -> Head:
    """Read a request's head.

    Raises:
        ValueError: It is none, or its body has no length.
    """
    lines = raw.decode("latin-1").split("\r\n")
    method, target, _ = lines[0].split(" ", 2)
    headers = {}
    for line in lines[1:]:
        if line:
            name, _, value = line.partition(":")
            headers[name.strip().lower()] = value.strip()
    if "transfer-encoding" in headers:
        raise ValueError("a request whose length is not told beforehand")
    length = int(headers.get("content-length", "0"))
    return Head(raw=raw, method=method, target=target, headers=headers, body_bytes=length)


def answer_length(first: bytes, *, method: str) -> int | None:
    """Whole length of an answer from its first bytes; None when it is not told."""
    end = first.find(b"\r\n\r\n")
    status = _STATUS.match(first)
    if end < 0 or status is None:
        return None
    if method == "HEAD" or int(status[1]) in NO_BODY:
        return end + 4
    length = _LENGTH.search(first, 0, end + 2)
    return None if length is None else end + 4 + int(length[1])


def page(status: str, body: bytes, *, kind: str, server: str, more: str = "") -> bytes:
    """An answer, ready to be sent, after which the connection is closed."""
    head = (
        f"HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\nServer: {server}\r\n"
        f"Cache-Control: no-store\r\n{more}Connection: close\r\n\r\n"
    )
    return head.encode() + body


def portal_page() -> bytes:
    """The operator's top-up page: 200 and HTML to everything."""
    return page("200 OK", PORTAL, kind="text/html; charset=utf-8", server="operator-portal")


def inside(timeline: Timeline, windows: tuple[Window, ...], at_ms: float) -> bool:
    """Whether an instant of the span lies in one of these windows of local time."""
    days = timeline.days
    day = days.day_at(int(at_ms))
    number, weekday = day % days.span.days, days.weekday(day)
    return any(
        window.days.hold(number, weekday)
        and days.elapsed_ms(day, window.from_min) <= at_ms < days.elapsed_ms(day, window.to_min)
        for window in windows
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What happens to a request instead of reaching the server.

    Attributes:
        kind: Name of the fault, see `line.KINDS`.
        answer: Bytes for the phone, or how its connection ends.
    """

    kind: str
    answer: bytes | Action


@dataclass(slots=True)
class Gateway:
    """Decides what happens to a request before it reaches the server.

    Attributes:
        line: The phone's link.
        role: Which role the profile's gate gives a host name; here there is one host, and it is ours.
    """

    line: Line
    role: Callable[[str], str] = lambda _host: "sync"
    _requests: int = 0
    _cache: dict[str, tuple[float, bytes]] = field(default_factory=dict)

    def judge(self, head: Head) -> Verdict | None:
        """What is done to a request instead of letting it pass."""
        k, self._requests = self._requests, self._requests + 1
        budget = self.line.budget()
        if budget is not None and budget.then != "throttle" and self.line.balance_is_gone():
            if budget.then == "portal":
                return Verdict(kind="portal-page", answer=portal_page())
            return Verdict(kind="budget-gone", answer="blackhole")
        return self._gated(head) or self._overloaded(k)

    def rewrite(self, head: Head) -> bytes:
        """The head as a gateway hands it on."""
        gate = self._gate()
        if gate is None:
            return head.raw
        gone = {name.lower() for name in gate.strip_headers} | (set() if gate.upgrade else {"upgrade"})
        first, *rest = head.raw[:-4].decode("latin-1").split("\r\n")
        kept = [line for line in rest if line.partition(":")[0].strip().lower() not in gone]
        added = [f"{name}: weaknet" for name in gate.add_headers]
        return "\r\n".join([first, *kept, *added, "", ""]).encode("latin-1")

    def note_answer(self, head: Head, answer: bytes) -> None:
        """Keep what a caching gateway would keep: a whole good answer to a GET."""
        gate = self._gate()
        if gate is not None and gate.cache_get_s and head.method == "GET" and answer.startswith(b"HTTP/1.1 200"):
            self._cache[head.target] = (self.line.now_ms() + gate.cache_get_s * 1000, answer)

    def caches(self, head: Head) -> bool:
        """Whether answers to this request are kept."""
        gate = self._gate()
        return gate is not None and bool(gate.cache_get_s) and head.method == "GET"

    def _gate(self) -> Gate | None:
        link = self.line.link()
        return None if link is None else link.gate

    def _gated(self, head: Head) -> Verdict | None:
        gate = self._gate()
        if gate is None:
            return None
        if self.role(head.headers.get("host", "")) not in gate.allow:
            others = gate.others
            return Verdict(kind="gate-refused", answer=portal_page() if others == "portal" else _OTHERS[others])
        too_large = gate.max_body_kb is not None and head.body_bytes > gate.max_body_kb * 1000
        if too_large or (gate.methods and head.method not in gate.methods):
            status = "413 Content Too Large" if too_large else "405 Method Not Allowed"
            said = page(status, b"gateway\n", kind="text/plain", server="zero-rating-gateway")
            return Verdict(kind="gate-refused", answer=said)
        kept_until_ms, kept = self._cache.get(head.target, (0.0, b""))
        if kept and head.method == "GET" and self.line.now_ms() < kept_until_ms:
            return Verdict(kind="gate-cached", answer=kept)
        return None

    def _overloaded(self, k: int) -> Verdict | None:
        """While more arrives than the server's front can take, the share that is too much is turned away."""
        peer, line = self.line.timeline.profile.peer, self.line
        if peer is None or peer.retry_after_s is None or not inside(line.timeline, peer.during, line.now_ms()):
            return None
        if line.draw("peer.overload", k) >= 1 - 1 / peer.overload:
            return None
        wait_s = int(peer.retry_after_s.at(line.draw("peer.retry_after_s", k)))
        said = page(
            "503 Service Unavailable",
            b"front is overloaded\n",
            kind="text/plain",
            server="overloaded-front",
            more=f"Retry-After: {wait_s}\r\n",
        )
        return Verdict(kind="overload-503", answer=said)
