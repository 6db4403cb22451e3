"""A server of the tests with a school system beside it, and a client to talk to that."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from clientcore.ports import ManualClock, SeededRandom
from syncserver.config import Config, UpstreamConfig
from syncserver.ports import ServerPorts
from syncserver.upstream.http import UpstreamHttp, open_http
from syncserver.upstream.rest import RestUpstream
from tests.support.server.world import World, open_world
from tests.support.sis.server import TOKEN, Sis


def settings_of(sis: Sis) -> UpstreamConfig:
    return UpstreamConfig(url=sis.url, token=TOKEN)


@asynccontextmanager
async def world_of(sis: Sis, tmp_path: Path, *, background: bool = False) -> AsyncIterator[World]:
    path = tmp_path / "store.db"
    config = Config(store=path, poll_ms=50, upstream=settings_of(sis))
    async with open_world(path, config=config, background=background) as world:
        yield world


@asynccontextmanager
async def client_of(config: UpstreamConfig, clock: ManualClock | None = None) -> AsyncIterator[RestUpstream]:
    ports = ServerPorts(clock=clock or ManualClock(), random=SeededRandom(1))
    async with open_http() as http:
        yield RestUpstream(UpstreamHttp(config, ports, http))
