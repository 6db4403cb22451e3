"""The phone's page: files of `pwa/dist` as its build described them, read once at start.

`build.json` names every file with its type; nothing that is not named there is ever served.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from syncserver.errors import ConfigError

_FOREVER = "public, max-age=31536000, immutable"
_ASK_AGAIN = "no-cache"
_MISSING = """<!doctype html><html lang="ar" dir="rtl"><meta charset="utf-8"><title>حضور</title>
<p>صفحة الهاتف لم تُبنَ بعد.
<p dir="ltr" lang="en">The phone's page has not been built. Run <code>make setup</code>, then start again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """One file, ready to send.

    Attributes:
        encoded: Bytes by content coding: `identity`, `gzip`, `br`.
    """

    content_type: str
    etag: str
    cache_control: str
    encoded: Mapping[str, bytes]


@dataclass(frozen=True, slots=True, kw_only=True)
class Pages:
    """All files by path, and the policy of the start page."""

    by_path: Mapping[str, Page]
    policy: str

    def routes(self) -> list[Route]:
        """Their routes, or one that says what to do when nothing was built."""
        if not self.by_path:
            return [Route("/", _missing, methods=["GET"])]
        return [Route(path, self._endpoint(page), methods=["GET"]) for path, page in self.by_path.items()]

    def _endpoint(self, page: Page) -> _Endpoint:
        return _Endpoint(page, self.policy)


class _Endpoint:
    """Serves one file as the request can take it."""

    def __init__(self, page: Page, policy: str) -> None:
        self._page = page
        self._base = {
            "content-type": page.content_type,
            "cache-control": page.cache_control,
            "etag": page.etag,
            "vary": "accept-encoding",
            "content-security-policy": policy,
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        request = Request(scope)
        await self._reply(request)(scope, receive, send)

    def _reply(self, request: Request) -> Response:
        if request.headers.get("if-none-match") == self._page.etag:
            return Response(status_code=304, headers={k: v for k, v in self._base.items() if k != "content-type"})
        accepted = {part.split(";")[0].strip() for part in request.headers.get("accept-encoding", "").split(",")}
        coding = next((one for one in ("br", "gzip") if one in accepted and one in self._page.encoded), "identity")
        headers = dict(self._base) if coding == "identity" else {**self._base, "content-encoding": coding}
        return Response(self._page.encoded[coding], headers=headers)


async def _missing(_: Request) -> Response:
    return Response(_MISSING, status_code=503, media_type="text/html; charset=utf-8", headers={"retry-after": "60"})


def find_dist() -> Path:
    """`pwa/dist` of a source checkout, else what was packaged."""
    checkout = Path(__file__).parents[1] / "pwa" / "dist"
    return checkout if checkout.exists() else Path(str(files("syncserver") / "pwa_dist"))


def load_pages(dist: Path) -> Pages:
    """Read a build.

    Raises:
        ConfigError: when the build's list and its files do not agree.
    """
    listing = dist / "build.json"
    if not listing.exists():
        return Pages(by_path={}, policy="")
    build = json.loads(listing.read_text("utf-8"))
    by_path = {}
    for entry in build["files"]:
        path = dist / entry["path"]
        if not path.resolve().is_relative_to(dist.resolve()) or not path.is_file():
            raise ConfigError("bad-build", f"{path} is named by build.json but is not there: run make setup again")
        page = _load(path, entry)
        by_path[f"/{entry['path']}"] = page
        if entry["path"] == "index.html":
            by_path["/"] = page
    return Pages(by_path=by_path, policy=_policy(build["csp"]))


def _load(path: Path, entry: Mapping[str, object]) -> Page:
    plain = path.read_bytes()
    encoded = {"identity": plain}
    packed = path.with_name(f"{path.name}.br")
    if packed.exists():
        encoded["br"] = packed.read_bytes()
        encoded["gzip"] = gzip.compress(plain, 9, mtime=0)
    return Page(
        content_type=str(entry["type"]),
        etag=f'"{str(entry["sha256"])[:32]}"',
        cache_control=_FOREVER if entry["immutable"] else _ASK_AGAIN,
        encoded=encoded,
    )


def _policy(hashes: Mapping[str, list[str]]) -> str:
    script, style = (" ".join(f"'{one}'" for one in hashes[name]) for name in ("script", "style"))
    return "; ".join(
        (
            "default-src 'none'",
            f"script-src 'self' {script}",
            f"style-src 'self' {style}",
            "img-src 'self' data: blob:",
            "connect-src 'self'",
            "manifest-src 'self'",
            "worker-src 'self'",
            "base-uri 'none'",
            "form-action 'none'",
            "frame-ancestors 'none'",
        )
    )
