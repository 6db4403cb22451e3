"""What must not go wrong with the school system: an old absence that comes back, a clock put back, an odd record."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from reconciliation.wire import iso
from syncserver.upstream import feed
from syncserver.upstream.writeback import Carrier
from tests.integration.test_upstream import MINUTE_MS, NOW_MS, with_staff
from tests.support.server.orders import operator
from tests.support.server.world import SCHOOL, TODAY
from tests.support.sis.server import Sis, open_sis
from tests.support.sis.world import client_of, settings_of, world_of

REGISTER = f"c-3a/{TODAY}/day"


@pytest.fixture
async def sis() -> AsyncIterator[Sis]:
    async with open_sis() as made:
        yield made


async def test_a_refused_absence_that_was_corrected_since_is_never_sent_again(sis: Sis, tmp_path: Path) -> None:
    """Revision 1 (absent) was refused, revision 2 (present) accepted: requeued, the first stays where it is."""
    async with world_of(sis, tmp_path) as world, client_of(settings_of(sis)) as upstream:
        carrier = Carrier(world.db, world.server.ports, upstream)
        phone = await world.phone()
        await phone.sync((REGISTER, phone.take(REGISTER, {"s001": "A"})))
        await world.settle()
        sis.refuse = lambda event: "unknown-pupil" if event["data"]["code"] == "absent" else None
        assert await carrier.step()
        await phone.sync((REGISTER, phone.take(REGISTER, {"s001": "P"})))
        await world.settle()
        assert await carrier.step()
        heard: list[str] = []
        sis.refuse = lambda event: heard.append(event["id"])  # accepts, and remembers
        await operator(world, "upstream-requeue", cause="unknown-pupil", reason="the pupil was added")
        while await carrier.step():
            pass
        assert heard == []
        assert await world.db.fetch_all("SELECT state FROM upstream_letters") == [("superseded",)]


async def test_a_clock_put_back_stops_no_look(sis: Sis, tmp_path: Path) -> None:
    """Two hours back: the next look comes at once, and whoever was ended is ended."""
    with_staff(sis, "t1")
    async with world_of(sis, tmp_path) as world, client_of(settings_of(sis)) as upstream:
        assert await feed.step(world.db, world.server.config, world.server.ports, upstream)
        world.clock.set_wall_ms(NOW_MS - 120 * MINUTE_MS)
        sis.change("users", "t1", iso(NOW_MS + 1), status="tobedeleted")
        assert await feed.step(world.db, world.server.config, world.server.ports, upstream)
        user = await world.db.fetch_one("SELECT active FROM users WHERE school = ? AND id = 't1'", (SCHOOL,))
        assert user == (0,)


async def test_a_withdrawn_person_without_roles_is_ended_and_stops_nobody(sis: Sis, tmp_path: Path) -> None:
    """Some systems empty a deleted record: its status is enough."""
    with_staff(sis, "t1", "t2")
    async with world_of(sis, tmp_path) as world, client_of(settings_of(sis)) as upstream:
        assert await feed.step(world.db, world.server.config, world.server.ports, upstream)
        for person in ("t1", "t2"):
            sis.change("users", person, iso(NOW_MS), status="tobedeleted")
        sis.find("users", "t1").pop("roles")
        world.clock.advance(MINUTE_MS)
        assert await feed.step(world.db, world.server.config, world.server.ports, upstream)
        rows = await world.db.fetch_all("SELECT active FROM users WHERE school = ? AND id IN ('t1', 't2')", (SCHOOL,))
        assert rows == [(0,), (0,)]
