"""One request to an ASGI application in this process, from the machine it runs on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

Headers = tuple[tuple[bytes, bytes], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Answered:
    """What came out of the application."""

    status: int
    headers: Mapping[str, str]
    body: bytes


async def ask(
    app: Any, method: str, path: str, body: bytes, *, query: str, headers: Headers, arrives: int | None = None
) -> Answered:
    """Send one request; of its body the first `arrives` bytes come before the connection ends (all by default)."""
    scope = {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.4"},
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "query_string": query.encode(),
        "root_path": "",
        "headers": [(b"host", b"127.0.0.1"), (b"content-length", b"%d" % len(body)), *headers],
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 80),
    }
    sent: dict[str, Any] = {"body": bytearray()}
    messages = iter(({"type": "http.request", "body": body[:arrives], "more_body": arrives is not None},))

    async def receive() -> dict[str, Any]:
        return next(messages, {"type": "http.disconnect"})

    async def send(message: dict[str, Any]) -> None:
        if message["type"] == "http.response.start":
            sent["status"], sent["headers"] = message["status"], message["headers"]
        else:
            sent["body"] += message.get("body", b"")

    await app(scope, receive, send)
    found = {name.decode().lower(): value.decode() for name, value in sent["headers"]}
    return Answered(status=sent["status"], headers=found, body=bytes(sent["body"]))
