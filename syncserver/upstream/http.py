"""Asking the school system over HTTP: tokens, bounded answers, pages to their end. Logs hold no secret or address."""

from __future__ import annotations

import asyncio
import json
import logging
import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import httpx

from syncserver.config import UpstreamConfig
from syncserver.ports import ServerPorts
from syncserver.upstream.contract import Item, Seen, items_of
from syncserver.upstream.port import ContractBroken, UpstreamSilent

DEADLINE_S = 60  # a page of a thousand people, made by a busy system
ANSWER_BYTES_MAX = 64 << 20
PAGE_ITEMS = 1_000
PAGES_MAX = 20_000
ROSTERING = "/ims/oneroster/rostering/v1p2"
_TOKEN = "token"
_TOKEN_MARGIN_MS = 60_000  # a token is renewed before the request that it would not outlive
_TOKEN_LIFE_S_MAX = 86_400
_AGENT = "hudur-upstream/1"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Answer:
    status: int
    headers: httpx.Headers
    links: Mapping[str | None, Mapping[str, str]]
    body: bytes


@asynccontextmanager
async def open_http() -> AsyncIterator[httpx.AsyncClient]:
    """One client; no proxies or certificates from the environment, no redirects: an address is what was agreed."""
    for noisy in ("httpx", "httpcore"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    async with httpx.AsyncClient(
        verify=ssl.create_default_context(),
        trust_env=False,
        follow_redirects=False,
        timeout=DEADLINE_S,
        limits=httpx.Limits(max_connections=2),
        headers={"user-agent": _AGENT, "accept": "application/json"},
    ) as http:
        yield http


class UpstreamHttp:
    """Requests to one school system."""

    def __init__(self, config: UpstreamConfig, ports: ServerPorts, http: httpx.AsyncClient) -> None:
        self._config, self._ports, self._http = config, ports, http
        self._token: str | None = config.token
        self._token_until_ms: int | None = None

    async def get(self, endpoint: str, path: str, params: Mapping[str, str]) -> Any:
        """The JSON of one answer."""
        return _json(endpoint, await self._ask(endpoint, "GET", self._address(path, params)))

    async def post(self, endpoint: str, path: str, body: bytes, media_type: str) -> Any:
        """The JSON that answers a body."""
        answer = await self._ask(endpoint, "POST", self._address(path, {}), body, {"content-type": media_type})
        return _json(endpoint, answer)

    async def pages(self, name: str, seen: Seen, *, where: str | None = None) -> AsyncIterator[list[Item]]:
        """A whole OneRoster collection, page by page.

        A server may answer with less than it was asked for, so a short page ends nothing: the end is a page without
        `Link: rel="next"` where such links are given, else an empty page. A total (`X-Total-Count`) that is given has
        to be met: half a roster would end the other half.

        Args:
            name: The collection, and its key in the answer.
            seen: See `contract.Seen`.
            where: A OneRoster filter.
        """
        params = {"limit": str(PAGE_ITEMS), "offset": "0", "sort": "sourcedId", "orderBy": "asc"}
        if where is not None:
            params["filter"] = where
        url, count, linked = self._address(f"{ROSTERING}/{name}", params), 0, False
        for _ in range(PAGES_MAX):
            answer = await self._ask(name, "GET", url)
            items = items_of(name, name, _json(name, answer), seen, count)
            count += len(items)
            if items:
                yield items
            following = answer.links.get("next", {}).get("url")
            linked = linked or following is not None
            if following is not None:
                url = self._followed(name, url, following)
            elif linked or not items:
                _check_total(name, answer.headers.get("x-total-count"), count)
                return
            else:
                url = url.copy_set_param("offset", str(count))
        raise ContractBroken(name, "", f"at most {PAGES_MAX} pages", "more")

    def _address(self, path: str, params: Mapping[str, str]) -> httpx.URL:
        return httpx.URL(self._config.url + path, params=params or None)

    def _followed(self, name: str, url: httpx.URL, following: str) -> httpx.URL:
        """The next page's address: the same host and place, or it would be handed our token."""
        try:
            new = url.join(following)
        except httpx.InvalidURL:
            new = url
        if new == url or (new.scheme, new.host, new.port, new.path) != (url.scheme, url.host, url.port, url.path):
            raise ContractBroken(name, " Link", "the next page of the same address", "another address")
        return new

    async def _ask(
        self, endpoint: str, method: str, url: httpx.URL, body: bytes | None = None, headers: Mapping[str, str] = {}
    ) -> _Answer:
        """One request with a token; a token that is not taken is renewed once."""
        for last in (False, True):
            answer = await self._send(endpoint, method, url, body, {**headers, **await self._bearer()})
            if answer.status != 401 or last or self._config.token is not None:
                break
            self._token = None
        if not 200 <= answer.status < 300:
            raise UpstreamSilent(
                endpoint, f"http {answer.status}", status=answer.status, retry_after=answer.headers.get("retry-after")
            )
        return answer

    async def _bearer(self) -> dict[str, str]:
        now_ms = self._ports.clock.mono_ms()
        if self._token is None or (self._token_until_ms is not None and now_ms >= self._token_until_ms):
            self._token, life_s = await self._new_token()
            self._token_until_ms = now_ms + max(0, life_s * 1000 - _TOKEN_MARGIN_MS)
        return {"authorization": f"Bearer {self._token}"}

    async def _new_token(self) -> tuple[str, int]:
        config = self._config
        assert config.client_id is not None
        assert config.client_secret is not None
        assert config.token_url is not None
        request = self._http.build_request(
            "POST", config.token_url, data={"grant_type": "client_credentials", "scope": config.scope}
        )
        basic = httpx.BasicAuth(config.client_id, config.client_secret)
        prepared = next(basic.auth_flow(request))
        answer = await self._carry(_TOKEN, prepared)
        if answer.status != 200:
            raise UpstreamSilent(_TOKEN, f"http {answer.status}", status=answer.status)
        made = Item(_TOKEN, "", _json(_TOKEN, answer), Seen())
        life_s = made.count("expires_in")
        return made.text("access_token"), min(life_s, _TOKEN_LIFE_S_MAX)

    async def _send(
        self, endpoint: str, method: str, url: httpx.URL, body: bytes | None, headers: Mapping[str, str]
    ) -> _Answer:
        return await self._carry(endpoint, self._http.build_request(method, url, content=body, headers=dict(headers)))

    async def _carry(self, endpoint: str, request: httpx.Request) -> _Answer:
        """One request, its answer read within bounds of time and size."""
        try:
            async with asyncio.timeout(DEADLINE_S):
                reply = await self._http.send(request, stream=True)
                try:
                    body = await _read(endpoint, reply)
                finally:
                    await reply.aclose()
        except TimeoutError:
            raise UpstreamSilent(endpoint, "timeout") from None
        except (httpx.HTTPError, httpx.InvalidURL) as broken:
            raise UpstreamSilent(endpoint, type(broken).__name__) from None
        finally:
            self._http.cookies.clear()
        return _Answer(status=reply.status_code, headers=reply.headers, links=reply.links, body=body)


async def _read(endpoint: str, reply: httpx.Response) -> bytes:
    parts, size = [], 0
    async for part in reply.aiter_bytes():
        size += len(part)
        if size > ANSWER_BYTES_MAX:
            raise ContractBroken(endpoint, "", f"an answer of at most {ANSWER_BYTES_MAX >> 20} MB", "more")
        parts.append(part)
    return b"".join(parts)


def _json(endpoint: str, answer: _Answer) -> Any:
    try:
        return json.loads(answer.body)
    except (ValueError, RecursionError):
        raise ContractBroken(endpoint, "", "JSON", "something else") from None


def _check_total(name: str, total: str | None, count: int) -> None:
    if total is not None and total != str(count):
        raise ContractBroken(name, " X-Total-Count", f"the {count} that came", "another number")
