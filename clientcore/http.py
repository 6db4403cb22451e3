"""The `Network` port over real HTTP, through httpx: one host, no redirects, a deadline for all of it."""

from __future__ import annotations

import asyncio
from types import TracebackType

import httpx

from clientcore.errors import TransportError
from clientcore.limits import PAYLOAD_BYTES_MAX
from clientcore.ports import Clock, HttpReply

ANSWER_BYTES_MAX = 4 * PAYLOAD_BYTES_MAX  # an answer of ours is far smaller; a portal's page may not fill the memory
CONNECT_DEADLINE_S = 30.0
_WHOLE_SECONDS_MAX = 86_400


class HttpNetwork:
    """Requests to one server.

    A redirect is an answer like any other and never ours: followed, it would hand signed frames to a stranger's host.
    """

    def __init__(self, base_url: str, clock: Clock, *, transport: httpx.AsyncBaseTransport | None = None) -> None:
        self._clock = clock
        self._base_url = base_url
        self._transport = transport
        self._open_client: httpx.AsyncClient | None = None

    def _client(self) -> httpx.AsyncClient:
        if self._open_client is None:  # made when first needed: reading the machine's certificates takes its time
            self._open_client = httpx.AsyncClient(
                base_url=self._base_url,
                transport=self._transport,
                follow_redirects=False,
                timeout=httpx.Timeout(None, connect=CONNECT_DEADLINE_S),
                headers={"accept-encoding": "identity"},
            )
        return self._open_client

    async def post(self, path: str, body: bytes, *, content_type: str, deadline_s: float) -> HttpReply:
        """See `Network`."""
        started_ms = self._clock.mono_ms()
        try:
            async with asyncio.timeout(deadline_s):
                async with self._client().stream(
                    "POST", path, content=body, headers={"content-type": content_type}
                ) as response:
                    first_byte_ms = self._clock.mono_ms() - started_ms
                    received = bytearray()
                    async for piece in response.aiter_raw():
                        received += piece
                        if len(received) > ANSWER_BYTES_MAX:
                            raise TransportError("broken", "the answer is longer than any of ours")
                    return HttpReply(
                        status=response.status_code,
                        content_type=response.headers.get("content-type", "").split(";")[0].strip().lower(),
                        retry_after_s=_retry_after_s(response.headers.get("retry-after")),
                        body=bytes(received),
                        first_byte_ms=first_byte_ms,
                    )
        except (TimeoutError, httpx.TimeoutException):
            raise TransportError("timeout", f"no complete answer within {deadline_s:.0f} s") from None
        except httpx.ConnectError as failed:
            raise TransportError("offline", str(failed) or "no connection") from None
        except httpx.HTTPError as failed:
            raise TransportError("broken", f"{type(failed).__name__}: {failed}") from None

    async def close(self) -> None:
        """Close the connections."""
        if self._open_client is not None:
            await self._open_client.aclose()
            self._open_client = None

    async def __aenter__(self) -> HttpNetwork:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        await self.close()


def _retry_after_s(text: str | None) -> float | None:
    """Seconds of a Retry-After header; our server never sends its date form, and others are not obeyed for a year."""
    if text is None or not text.strip().isdecimal():
        return None
    return float(min(int(text.strip()[:9]), _WHOLE_SECONDS_MAX))
