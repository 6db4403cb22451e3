"""The phone's page: only what the build names, precompressed, with a strict policy; a clear word when it is missing."""

from __future__ import annotations

import json
from pathlib import Path

import httpx
import pytest

from syncserver.app import create_app
from syncserver.errors import ConfigError
from syncserver.pages import load_pages
from tests.support.server.world import open_world


def build(folder: Path) -> Path:
    """A small build, as pwa/build.mjs writes it."""
    (folder / "m").mkdir(parents=True)
    files = {"index.html": b"<!doctype html>hello", "m/a-1.js": b"let a=1", "sw.js": b"self", "secret.txt": b"no"}
    for name, data in files.items():
        (folder / name).write_bytes(data)
    (folder / "index.html.br").write_bytes(b"brotli bytes")
    listed = [
        {"path": "index.html", "type": "text/html; charset=utf-8", "sha256": "a" * 64, "immutable": False},
        {"path": "m/a-1.js", "type": "text/javascript; charset=utf-8", "sha256": "b" * 64, "immutable": True},
        {"path": "sw.js", "type": "text/javascript; charset=utf-8", "sha256": "c" * 64, "immutable": False},
    ]
    csp = {"script": ["sha256-S"], "style": ["sha256-T"]}
    (folder / "build.json").write_text(json.dumps({"csp": csp, "files": listed}))
    return folder


async def client(world: object, dist: Path) -> httpx.AsyncClient:
    """A browser of a server that serves `dist`."""
    app = create_app(world.server, pages=load_pages(dist))  # type: ignore[attr-defined]
    return httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://127.0.0.1")


async def test_files_are_served_as_the_build_says(tmp_path: Path) -> None:
    """Types, caching, codings and policy; files that the build does not name do not exist."""
    async with (
        open_world(tmp_path / "store.db", background=False) as world,
        await client(world, build(tmp_path / "dist")) as http,
    ):
        page = await http.get("/", headers={"accept-encoding": "gzip"})
        assert (page.status_code, page.headers["content-type"]) == (200, "text/html; charset=utf-8")
        assert page.content == b"<!doctype html>hello"
        assert page.headers["content-encoding"] == "gzip"
        assert page.headers["cache-control"] == "no-cache"
        assert "script-src 'self' 'sha256-S'" in page.headers["content-security-policy"]
        assert "unsafe" not in page.headers["content-security-policy"]
        assert page.headers["x-content-type-options"] == "nosniff"
        plain = await http.get("/", headers={"accept-encoding": "identity"})
        assert "content-encoding" not in plain.headers
        async with http.stream("GET", "/", headers={"accept-encoding": "gzip, br"}) as raw:
            assert raw.headers["content-encoding"] == "br"
            assert b"".join([part async for part in raw.aiter_raw()]) == b"brotli bytes"
        again = await http.get("/", headers={"if-none-match": page.headers["etag"]})
        assert (again.status_code, again.content) == (304, b"")
        module = await http.get("/m/a-1.js")
        assert "immutable" in module.headers["cache-control"]
        assert (await http.get("/sw.js")).headers["cache-control"] == "no-cache"
        for path in ("/secret.txt", "/build.json", "/index.html.br", "/m/../secret.txt", "/m/%2e%2e/secret.txt"):
            assert (await http.get(path)).status_code == 404


async def test_without_a_build_the_page_says_what_to_do(tmp_path: Path) -> None:
    """503 with the one command that helps; the API works all the same."""
    async with (
        open_world(tmp_path / "store.db", background=False) as world,
        await client(world, tmp_path / "none") as http,
    ):
        page = await http.get("/")
        assert (page.status_code, "make setup" in page.text) == (503, True)
        assert (await http.get("/healthz")).status_code == 200


def test_a_build_that_names_what_is_not_there_is_refused(tmp_path: Path) -> None:
    """A half-written build stops the start, not a teacher."""
    dist = build(tmp_path / "dist")
    (dist / "sw.js").unlink()
    with pytest.raises(ConfigError):
        load_pages(dist)
    outside = json.loads((dist / "build.json").read_text())
    outside["files"] = [{"path": "../x.txt", "type": "text/plain", "sha256": "d" * 64, "immutable": False}]
    (tmp_path / "x.txt").write_text("x")
    (dist / "build.json").write_text(json.dumps(outside))
    with pytest.raises(ConfigError):
        load_pages(dist)
