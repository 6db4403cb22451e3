"""Servers and PostgreSQL are killed under pushes: nothing lost, nothing double, one order of the log and the feed."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import httpx
import pytest

from clientcore.change import deflate
from clientcore.exchange import DUPLICATE, DURABLE, read_answer, write_sync
from clientcore.ports import ManualClock
from syncserver.calendar import local_date
from syncserver.enrol import make_code
from syncserver.ports import ServerPorts
from syncserver.settling import settle_anew
from syncserver.store.port import Reader
from syncserver.store.postgres import open_postgres
from syncserver.store.registers import changes_of, outcome_of
from syncserver.store.surroundings import contexts_of
from tests.support.postgres import Cluster, cluster_of_its_own
from tests.support.server.fleet import Fleet
from tests.support.server.phone import Phone
from tests.support.server.wait import until
from tests.support.server.world import make_school

pytestmark = pytest.mark.process
ZONE = "Africa/Cairo"
SCHOOLS = tuple(f"eg-07-{n}" for n in range(201, 207))
PUSHES = 6  # of each phone while one thing breaks
MARKS = {"s001": "P", "s002": "A", "s003": "L"}
_PAGE, _PACE_S = 1_000, 0.1


@dataclass(slots=True)
class Campaign:
    """Phones, servers and what was promised to whom."""

    fleet: Fleet
    cluster: Cluster
    phones: list[Phone] = field(default_factory=list)
    promised: Counter[bytes] = field(default_factory=Counter)
    seen: list[dict[str, Any]] = field(default_factory=list)
    over: asyncio.Event = field(default_factory=asyncio.Event)
    http: httpx.AsyncClient = field(default_factory=lambda: httpx.AsyncClient(timeout=20))
    turns: count[int] = field(default_factory=count)

    async def enrol(self, codes: dict[tuple[str, str], str]) -> None:
        """Two teachers of the same class at each school, with a phone each."""
        clock = ManualClock()
        clock.set_wall_ms(ServerPorts().clock.wall_ms())
        for seed, ((school, user), code) in enumerate(codes.items(), 1):
            url = self.fleet.alive[seed % len(self.fleet.alive)]
            async with httpx.AsyncClient(base_url=url, timeout=20) as http:
                phone = Phone(http=http, clock=clock, seed=seed)
                await phone.enrol(school, code, label=user)
            phone.http = self.http
            self.phones.append(phone)

    async def push(self, phone: Phone, names: list[str]) -> None:
        """One change after another, each again and again until some server has answered."""
        for name in names:
            change = phone.take(name, MARKS)
            body = write_sync([phone.frame([(name, deflate(change.chunk))], ask=False).raw])
            await until(partial(self._try, phone, body), bool)
            self.promised[change.hash] += 1

    async def _try(self, phone: Phone, body: bytes) -> bool:
        if not self.fleet.alive:
            return False
        url = self.fleet.alive[next(self.turns) % len(self.fleet.alive)]
        try:
            reply = await phone.post(f"{url}/v1/sync", body)
        except httpx.HTTPError:
            return False
        if reply.status_code != 200:
            assert reply.status_code in (429, 503), reply.text
            return False
        answer = read_answer(reply.content, server_key=phone.me.server_key, request=body).answer
        for entry in answer.receipts:
            assert not isinstance(entry, str), answer.receipts
            assert {one.kind for one in entry} <= {DURABLE, DUPLICATE}, answer.receipts
        return True

    async def read_on(self) -> None:
        """A consumer that goes on from what it has, wherever somebody answers."""
        after = int(self.seen[-1]["sequence"]) if self.seen else 0
        try:
            url = self.fleet.alive[next(self.turns) % len(self.fleet.alive)]
            reply = await self.http.get(f"{url}/v1/events", params={"after": after, "limit": _PAGE})
        except (httpx.HTTPError, ZeroDivisionError):
            return
        if reply.status_code == 200:
            self.seen += reply.json()

    async def consume(self) -> None:
        """Read until it is over."""
        while not self.over.is_set():
            await self.read_on()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self.over.wait(), _PACE_S)

    async def phase(self, number: int, act: Callable[[], Awaitable[None]]) -> None:
        """Everybody pushes; when half of it is promised, something breaks."""
        day = local_date(self.phones[0].clock.wall_ms(), ZONE) - timedelta(days=number)
        names = [f"c-3a/{day.isoformat()}/am{n}" for n in range(1, PUSHES + 1)]
        half = self.promised.total() + PUSHES * len(self.phones) // 2

        async def breaks() -> None:
            await until(self._count, lambda found: found >= half)
            await act()

        await asyncio.gather(breaks(), *(self.push(phone, names) for phone in self.phones))

    async def _count(self) -> int:
        return self.promised.total()

    # ---- what breaks ------------------------------------------------------------------------------------------------

    async def kill(self, *numbers: int) -> None:
        """End server processes with SIGKILL, then start new ones."""
        for number in numbers:
            await self.fleet.kill(number)
        for number in numbers:
            await self.fleet.start(number)

    async def kill_backend(self) -> None:
        """End one session of PostgreSQL with SIGKILL: it ends all of them and recovers from its log."""
        query = "SELECT pid FROM pg_stat_activity WHERE application_name = 'hudur' LIMIT 1"
        pid = await asyncio.to_thread(self.cluster.psql, query)
        os.kill(int(pid), signal.SIGKILL)

    async def restart_postgres(self) -> None:
        """An immediate stop is PostgreSQL's own kill -9."""
        await asyncio.to_thread(self.cluster.stop, "immediate")
        await asyncio.to_thread(self.cluster.start)


async def make_codes(dsn: str) -> dict[tuple[str, str], str]:
    """Schools in a new store, and a code for each of their teachers."""
    db, codes = await open_postgres(dsn), {}
    for school in SCHOOLS:
        await make_school(db, school)
        for user in ("t1", "t2"):
            codes[school, user], _ = await make_code(db, ServerPorts(), school=school, user_id=user, made_by="operator")
    await db.close()
    return codes


async def check_log(reader: Reader, promised: Counter[bytes]) -> None:
    """Every promise is in the log once, and the log has no gap."""
    rows = await reader.fetch_all("SELECT log_offset, hash FROM changes ORDER BY log_offset")
    assert [row[0] for row in rows] == list(range(1, len(rows) + 1))
    assert Counter(row[1] for row in rows) == promised
    assert set(promised.values()) == {1}


async def check_registers(reader: Reader) -> int:
    """Every register is what its changes give when they are settled anew; returns how many there are."""
    rows = await reader.fetch_all("SELECT DISTINCT school, class_id, date, session FROM changes")
    keys = [(row[0], row[1], row[2], row[3]) for row in rows]
    contexts = await contexts_of(reader, keys, ZONE)
    for key in keys:
        stored, found = await changes_of(reader, key, 1 << 53), await outcome_of(reader, key)
        assert len(stored) == 2, key
        assert found is not None, key
        assert found.body == settle_anew(key, stored, contexts[key]), key
    return len(keys)


async def unsettled_parts(reader: Reader) -> int:
    """Partitions whose consumer has not come to the end of the log."""
    row = await reader.fetch_one(
        "SELECT count(*) FROM consumers WHERE log_offset < (SELECT max(log_offset) FROM changes)"
    )
    assert row is not None
    return int(row[0])


async def check_feed(campaign: Campaign, events_min: int) -> None:
    """Sequences have no gap, no event is told twice, and whoever read along has read just this."""
    read_along, campaign.seen = [*campaign.seen], []
    length = -1
    while len(campaign.seen) > length:
        length = len(campaign.seen)
        await campaign.read_on()
    assert [int(event["sequence"]) for event in campaign.seen] == list(range(1, length + 1))
    assert len({event["id"] for event in campaign.seen}) == length
    assert campaign.seen[: len(read_along)] == read_along
    assert length >= events_min
    assert len(read_along) > length // 2  # the consumer was at work all the time


async def test_servers_and_sessions_may_die_under_pushes(tmp_path: Path) -> None:
    """What was promised is in the log once; outcomes and the feed are as if nothing had happened; every part of the log
    has a consumer again; and who read the feed along has read what stands in it now.
    """
    with cluster_of_its_own() as cluster:
        dsn = cluster.database()
        fleet = Fleet(store=dsn, folder=tmp_path)
        campaign = Campaign(fleet=fleet, cluster=cluster)
        try:
            codes = await make_codes(dsn)
            await asyncio.gather(fleet.start(0), fleet.start(1))
            await campaign.enrol(codes)
            consuming = asyncio.create_task(campaign.consume())
            acts: list[Callable[[], Awaitable[None]]] = [
                lambda: campaign.kill(0),
                lambda: campaign.kill(1),
                lambda: campaign.kill(0, 1),
                campaign.kill_backend,
                lambda: campaign.kill(1),
                campaign.restart_postgres,
                lambda: campaign.kill(0),
            ]
            for number, act in enumerate(acts):
                await campaign.phase(number, act)
            await until(fleet.lag, lambda found: found == [0, 0])
            campaign.over.set()
            await consuming
            reader = await open_postgres(dsn)
            try:
                await check_log(reader, campaign.promised)
                await until(lambda: unsettled_parts(reader), lambda found: found == 0)
                registers = await check_registers(reader)
            finally:
                await reader.close()
            await check_feed(campaign, registers * len(MARKS))
        finally:
            campaign.over.set()
            await campaign.http.aclose()
            await fleet.close()
