"""Attendance back to the school system: a real HTTP server on a loopback port, the real feed, a real store."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from syncserver.upstream import writeback
from tests.support.server.orders import operator
from tests.support.server.wait import until
from tests.support.server.world import TODAY, World
from tests.support.sis.server import Sis, open_sis
from tests.support.sis.world import client_of, settings_of, world_of

PUPILS = ("s001", "s002", "s003")


@pytest.fixture
async def sis() -> AsyncIterator[Sis]:
    async with open_sis() as made:
        yield made


async def mark(
    world: World, *, code: str = "P", seed: int = 1, pupils: tuple[str, ...] = PUPILS
) -> list[dict[str, Any]]:
    phone = await world.phone("t1", seed=seed)
    register = f"c-3a/{TODAY}/day"
    await phone.sync((register, phone.take(register, dict.fromkeys(pupils, code))))
    await world.settle()
    return await world.events()


@asynccontextmanager
async def carrier_of(world: World, sis: Sis) -> AsyncIterator[writeback.Carrier]:
    async with client_of(settings_of(sis)) as upstream:
        yield writeback.Carrier(world.db, world.server.ports, upstream)


async def test_events_go_back_once_with_the_bytes_of_the_feed(sis: Sis, tmp_path: Path) -> None:
    """An answer that was lost: the same again, and event ids make that harmless."""
    async with world_of(sis, tmp_path) as world, carrier_of(world, sis) as carrier:
        await mark(world)
        sis.forget_answer = True
        assert not await carrier.step()
        state = (await operator(world, "upstream-status"))["attendance"]
        assert (state["sent_seq"], state["failures"], state["waiting"]) == (0, 1, 3)
        assert not await carrier.step()  # in its gap
        world.clock.advance(10_000)
        assert await carrier.step()
        assert not await carrier.step()
        assert sis.bodies[0] == sis.bodies[1] == (await world.http.get("/v1/events")).content
        assert len(sis.events) == 3
        state = (await operator(world, "upstream-status"))["attendance"]
        assert (state["sent_seq"], state["waiting"], state["last_result"]) == (3, 0, "ok")


async def test_the_stage_hands_over_by_itself(sis: Sis, tmp_path: Path) -> None:
    """In the running server, without anybody's order."""
    async with world_of(sis, tmp_path, background=True) as world:
        phone = await world.phone("t1")
        register = f"c-3a/{TODAY}/day"
        await phone.sync((register, phone.take(register, dict.fromkeys(PUPILS, "P"))))

        async def held() -> int:
            return len(sis.events)

        await until(held, lambda seen: seen == 3)


async def test_a_refused_event_holds_nobody_up_and_goes_again_by_cause(sis: Sis, tmp_path: Path) -> None:
    """Kept with its cause; sent again singly or by cause, with an audit row; refused again it waits again."""
    causes = {"s001": "unknown-pupil", "s002": "closed-term"}
    sis.refuse = lambda event: causes.get(event["data"]["pupil"])
    async with world_of(sis, tmp_path) as world, carrier_of(world, sis) as carrier:
        await mark(world)
        assert await carrier.step()
        status = (await operator(world, "upstream-status"))["attendance"]
        assert (status["sent_seq"], status["waiting"]) == (3, 0)
        assert {one["cause"]: one["letters"] for one in status["refused"]} == {"unknown-pupil": 1, "closed-term": 1}
        first = sis.bodies[0]
        del causes["s001"]
        for cause, left in (("unknown-pupil", {"closed-term"}), ("closed-term", {"closed-term"})):
            done = await operator(world, "upstream-requeue", cause=cause, reason="mended upstream")
            assert len(done["requeued"]) == 1
            assert await carrier.step()
            refused = (await operator(world, "upstream-status"))["attendance"]["refused"]
            assert {one["cause"] for one in refused} == left
        assert {event["data"]["pupil"] for event in sis.events.values()} == {"s001", "s003"}
        assert json.loads(sis.bodies[1])[0] in json.loads(first)  # the same bytes, from the feed itself
        (letter,) = await world.db.fetch_all("SELECT id, tries FROM upstream_letters WHERE state = 'waiting'")
        assert letter[1] == 2
        assert (await operator(world, "upstream-requeue", id=letter[0], reason="once more"))["requeued"] == [letter[0]]
        missing = await world.http.post(
            "/v1/operator/upstream-requeue",
            params={"args": json.dumps({"cause": "nothing", "reason": "x"})},
            headers={"content-type": "application/octet-stream"},
        )
        assert missing.status_code == 404
        audit = await world.db.fetch_all("SELECT actor, subject, reason FROM audit WHERE action = 'upstream-requeue'")
        assert audit[0] == ("operator", "upstream:unknown-pupil", "mended upstream")
        assert len(audit) == 3


async def test_a_batch_that_is_too_large_goes_in_halves(sis: Sis, tmp_path: Path) -> None:
    """Down to single events; one that is too large alone is refused and holds nobody up."""
    async with world_of(sis, tmp_path) as world, carrier_of(world, sis) as carrier:
        await mark(world, pupils=tuple(f"s{n:03d}" for n in range(1, 8)))
        sis.status = 413
        for _ in range(3):
            assert await carrier.step()
        sis.status = None
        assert await carrier.step()
        assert not await carrier.step()
        assert len(sis.events) == 6
        refused = (await operator(world, "upstream-status"))["attendance"]["refused"]
        assert [(one["cause"], one["letters"]) for one in refused] == [("too-large", 1)]


async def test_a_wish_to_wait_is_kept_to(sis: Sis, tmp_path: Path) -> None:
    """`Retry-After` counts; nothing is skipped meanwhile."""
    async with world_of(sis, tmp_path) as world, carrier_of(world, sis) as carrier:
        await mark(world)
        sis.status, sis.retry_after = 503, "1800"
        assert not await carrier.step()
        state = (await operator(world, "upstream-status"))["attendance"]
        assert state["next_try_ms"] - world.clock.wall_ms() == 1_800_000
        sis.status = None
        world.clock.advance(1_800_000)
        assert await carrier.step()
        assert len(sis.events) == 3
