"""kill -9 of a server in the middle of a bundle: the file is handed in again, and everything in it counts once."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest

from clientcore.frame import write_bundle
from clientcore.ports import ManualClock
from clientcore.wire import unpack
from syncserver.ports import BUNDLE_CRASH_POINTS, ServerPorts
from tests.process.test_kills import ends, prepare, server, settled_feed
from tests.support.server.phone import Phone
from tests.support.server.world import SCHOOL

pytestmark = pytest.mark.process
FRAMES = 70  # three slices of 32


@pytest.mark.parametrize("times", [1, 3])
@pytest.mark.parametrize("point", BUNDLE_CRASH_POINTS)
async def test_a_bundle_cut_by_a_kill_is_taken_whole_the_second_time(tmp_path: Path, point: str, times: int) -> None:
    """Killed after the first slice, and after the last before anybody was told: durable and duplicate add up, and the
    feed has each mark once.
    """
    store = tmp_path / "store.db"
    code = await prepare(store)
    clock = ManualClock()
    clock.set_wall_ms(ServerPorts().clock.wall_ms())
    with server(store, point, times) as (url, child):
        async with httpx.AsyncClient(base_url=url, timeout=20) as http:
            phone = Phone(http=http, clock=clock, seed=1)
            await phone.enrol(SCHOOL, code)
            frames = []
            for n in range(FRAMES):
                name = f"c-3a/2026-{10 + n // 28}-{1 + n % 28:02d}/day"
                frames.append(phone.frame([(name, phone.take(name, {"s001": "A"}).chunk)], ask=False))
            file = write_bundle([frame.raw for frame in frames])
            with pytest.raises(httpx.HTTPError):
                await phone.call("bundle", file, path="/v1/bundles")
        assert await ends(child) == -9
    with server(store) as (url, _):
        async with httpx.AsyncClient(base_url=url, timeout=20) as http:
            phone.http = http
            reply = await phone.call("bundle", file, path="/v1/bundles")
            if reply.status_code == 409:  # the call's nonce was used up before the kill
                phone.nonce = bytes.fromhex(reply.json()["nonce"])
                reply = await phone.call("bundle", file, path="/v1/bundles")
            assert reply.status_code == 200, reply.text
            payload = unpack(reply.content, bytes_max=1 << 20)[3]
            told = unpack(payload, bytes_max=1 << 10)
            before = min(32 * times, FRAMES)
            assert told[:6] == [FRAMES, FRAMES - before, before, 0, 0, False]
        events = await settled_feed(url, FRAMES)
        assert len(events) == len({event["id"] for event in events}) == FRAMES
