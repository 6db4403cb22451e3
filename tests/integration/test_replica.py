"""What a server reads from a hot standby: never the primary, never older than the bound, and it says how old.

Two real clusters with streaming replication; the beat is written by hand, so that its age is the test's clock.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from reconciliation.wire import iso
from syncserver.config import Config, PostgresAddress, read_config
from syncserver.errors import ConfigError, ReplicaBehind
from syncserver.store import replica
from syncserver.store.port import Reader
from syncserver.store.postgres import open_postgres
from syncserver.store.replica import Replica, beat
from tests.support.postgres import Cluster, cluster_of_its_own
from tests.support.server.wait import until
from tests.support.server.world import PUPILS, SCHOOL, TODAY, Phone, World, open_world
from tests.support.standby import catch_up, standby_of

REGISTER = f"c-3a/{TODAY}/day"
REPORT = {"school": SCHOOL, "class": "c-3a", "day": TODAY}
BOUND_S = 30
_READ = re.compile(r"(FROM|JOIN) (outcomes|whole_outcomes|events|classes|members)\b")


@dataclass(slots=True)
class Pair:
    """A server, its primary, and the standby it reads from."""

    world: World
    primary: Cluster
    standby: Cluster
    name: str

    async def caught_up(self) -> None:
        """Wait until the standby shows all that was committed, and a beat of now."""
        await beat(self.world.db, self.world.clock)

        async def look() -> bool:
            return catch_up(self.primary, self.standby)

        await until(look, bool)

    def pause(self) -> None:
        """The standby stands still from here on."""
        self.standby.psql("SELECT pg_wal_replay_pause()")

    async def resume(self) -> None:
        """It goes on, and is at the present."""
        self.standby.psql("SELECT pg_wal_replay_resume()")
        await self.caught_up()

    def statements(self) -> list[str]:
        """Every line of the primary's log of statements."""
        return (self.primary.folder / "log").read_text(errors="replace").splitlines()

    async def report(self, **more: str) -> Any:
        """The report of the class of today."""
        return await self.world.http.get("/v1/reports/class", params={**REPORT, **more})

    async def mark(self, phone: Phone, marks: dict[str, str]) -> None:
        """A change that is settled on the primary."""
        change = phone.take(REGISTER, marks)
        await phone.sync((REGISTER, change))
        await self.world.settle()


@pytest.fixture(scope="module")
def clusters() -> Iterator[tuple[Cluster, Cluster]]:
    """A primary and its standby."""
    with cluster_of_its_own({"log_statement": "all"}) as primary, standby_of(primary) as standby:
        yield primary, standby


@pytest.fixture
async def pair(clusters: tuple[Cluster, Cluster], monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Pair]:
    """A new store, replicated. Who is slow to connect is waited for; who is not there is known at once all the same."""
    monkeypatch.setattr(replica, "_CONNECT_S", 30)
    primary, standby = clusters
    dsn = primary.database()
    name = dsn.rpartition("/")[2]
    config = Config(
        store=PostgresAddress(dsn), replica=PostgresAddress(standby.dsn(name)), replica_stale_max_s=BOUND_S, poll_ms=50
    )
    db = await open_postgres(dsn)
    async with open_world(Path("unused"), db=db, background=False, config=config) as world:
        pair = Pair(world, primary, standby, name)
        await pair.caught_up()
        try:
            yield pair
        finally:
            standby.psql("SELECT pg_wal_replay_resume()")


@contextmanager
def heard(http: httpx.AsyncClient) -> Iterator[list[httpx.Response]]:
    """Every answer that is heard meanwhile."""
    replies: list[httpx.Response] = []

    async def keep(reply: httpx.Response) -> None:
        replies.append(reply)

    http.event_hooks["response"].append(keep)
    yield replies
    http.event_hooks["response"].remove(keep)


def behind(reply: Any) -> None:
    """A refusal that says the copy is behind, when to come again, and that nothing is lost."""
    assert reply.status_code == 503, reply.text
    assert reply.json()["type"] == "/problems/replica-behind"
    assert (reply.json()["retry"], reply.json()["safe"]) == ("after", True)
    assert int(reply.headers["retry-after"]) > 0


async def test_events_reports_and_rosters_come_from_the_standby(pair: Pair) -> None:
    """The primary's log of statements shows no look at what they tell; they say as of when it holds."""
    phone = await pair.world.phone()
    await pair.mark(phone, dict.fromkeys(PUPILS, "P") | {"s001": "A"})
    await pair.caught_up()
    now = iso(pair.world.clock.wall_ms())
    phone.cursor, told = None, len(phone.items("roster"))
    begin = len(pair.statements())
    events, report = await pair.world.http.get("/v1/events"), await pair.report()
    with heard(pair.world.http) as replies:
        await phone.pull()
    asked = pair.statements()[begin:]
    assert any("FROM devices" in line for line in asked)  # what the primary is asked does stand there
    assert [line for line in asked if _READ.search(line)] == []
    await pair.world.db.fetch_all("SELECT 1 FROM members LIMIT 1")
    assert any(_READ.search(line) for line in pair.statements()[begin:])
    assert events.status_code == 200
    assert len(events.json()) > 0
    assert (report.json()["total"]["present"], report.json()["total"]["absent"]) == (len(PUPILS) - 1, 1)
    assert [item[1] for item in phone.items("roster")][told:] == ["c-3a", "c-3b"]
    assert [reply.headers["hudur-as-of"] for reply in replies] == [now] * len(replies)
    assert events.headers["hudur-as-of"] == report.headers["hudur-as-of"] == report.json()["as_of"] == now


async def test_what_is_old_says_so_and_what_is_too_old_is_not_given(pair: Pair) -> None:
    """A mark changes while the replay stands still: the old one is given with its age, then none, then the new one."""
    phone = await pair.world.phone()
    await pair.mark(phone, dict.fromkeys(PUPILS, "P") | {"s001": "A"})
    await pair.caught_up()
    then = pair.world.clock.wall_ms()
    before, seen = await pair.report(), await pair.world.events()
    pair.pause()
    pair.world.clock.advance((BOUND_S - 1) * 1_000)
    await pair.mark(phone, {"s001": "P"})
    await beat(pair.world.db, pair.world.clock)
    old = await pair.report()
    assert (old.json(), old.headers["hudur-as-of"]) == (before.json(), iso(then))
    assert (await pair.world.http.get("/v1/events")).headers["hudur-as-of"] == iso(then)
    pair.world.clock.advance(2_000)
    behind(await pair.report())
    behind(await pair.report(format="csv"))
    behind(await pair.world.http.get("/v1/events"))
    await pair.resume()
    now = await pair.report()
    assert now.json()["as_of"] == iso(pair.world.clock.wall_ms())
    assert now.json()["total"] != before.json()["total"]
    assert len(await pair.world.events()) > len(seen)


async def test_a_phone_gets_its_receipt_and_keeps_its_place_while_the_replica_is_behind(pair: Pair) -> None:
    """Beyond the bound nothing is told and the cursor stays; later everything comes, nothing was passed over."""
    one, two = await pair.world.phone("t1", seed=1), await pair.world.phone("t2", seed=2)
    await pair.caught_up()
    await two.pull()
    pair.pause()
    await pair.mark(one, dict.fromkeys(PUPILS, "P"))
    cursor = two.cursor
    pair.world.clock.advance((BOUND_S + 1) * 1_000)
    with heard(pair.world.http) as replies:
        answer = await two.sync((f"c-3a/{TODAY}/second", two.take(f"c-3a/{TODAY}/second", {"s002": "P"})))
    assert "hudur-as-of" not in replies[0].headers
    assert len(answer.answer.receipts) == 1
    assert (two.cursor, two.payloads[-1].items, two.payloads[-1].more) == (cursor, (), False)
    await pair.resume()
    await two.pull()
    assert [item[1] for item in two.items("change")] == [REGISTER]


async def test_a_cursor_never_passes_what_the_replica_had(pair: Pair) -> None:
    """Within the bound a phone is told what the replica has, by the replica's own numbers; the rest comes later."""
    one, two = await pair.world.phone("t1", seed=1), await pair.world.phone("t2", seed=2)
    await pair.mark(one, {"s001": "P"})
    await pair.caught_up()
    pair.pause()
    await pair.mark(one, {"s002": "P"})
    await two.pull()
    assert len(two.items("change")) == 1
    await pair.resume()
    await two.pull()
    assert len(two.items("change")) == 2


async def test_a_backup_the_replica_has_not_heard_of_is_told_later(pair: Pair) -> None:
    """What is archived is told as far as the replica knows; the primary's number would pass over the rest."""
    phone = await pair.world.phone()
    await pair.mark(phone, {"s001": "P"})
    await pair.caught_up()
    await phone.pull()
    pair.pause()
    await pair.mark(phone, {"s002": "P"})
    async with pair.world.db.transaction() as tx:
        await tx.execute("INSERT INTO meta VALUES ('archived', ?)", (b"2",))
    await phone.pull()
    assert phone.items("archived") == []
    await pair.resume()
    await phone.pull()
    assert [len(item[1]) // 8 for item in phone.items("archived")] == [2]


async def test_a_roster_that_is_known_to_be_outdated_is_not_told(pair: Pair) -> None:
    """The primary knows a newer roster than the replica: no roster, and the newer one when it is there."""
    phone = await pair.world.phone()
    await pair.caught_up()
    await phone.pull()
    pair.pause()
    async with pair.world.db.transaction() as tx:
        await tx.execute("UPDATE classes SET name = 'new', version = 2 WHERE school = ? AND id = 'c-3a'", (SCHOOL,))
        await tx.execute("UPDATE schools SET roster_version = 2 WHERE school = ?", (SCHOOL,))
    phone.payloads.clear()
    phone.cursor = None
    await phone.pull()
    assert phone.items("classes") == []
    assert phone.cursor is not None
    await pair.resume()
    await phone.pull()
    assert phone.items("classes")[-1][1][0][:2] == ["c-3a", "new"]


async def test_what_is_no_standby_is_not_read(pair: Pair) -> None:
    """The primary itself, a promoted copy, an address where nobody answers: behind, whatever they would say."""

    async def look(reader: Reader) -> object:
        return await reader.fetch_one("SELECT 1")

    for dsn in (pair.primary.dsn(pair.name), f"postgresql://postgres@127.0.0.1:1/{pair.name}"):
        replica = Replica(dsn, pair.world.clock, stale_max_ms=BOUND_S * 1_000)
        try:
            with pytest.raises(ReplicaBehind):
                await replica.read(look)
        finally:
            await replica.close()


async def test_a_standby_that_is_down_stops_nothing_else(pair: Pair) -> None:
    """Receipts go on, reports are put off, and it is used again when it is back."""
    phone = await pair.world.phone()
    pair.standby.stop("immediate")
    try:
        answer = await phone.sync((REGISTER, phone.take(REGISTER, {"s001": "P"})))
        assert len(answer.answer.receipts) == 1
        behind(await pair.report())
    finally:
        pair.standby.start()
    pair.world.clock.advance(1_500)
    await pair.caught_up()
    assert (await pair.report()).status_code == 200


async def test_servers_beat_by_themselves(clusters: tuple[Cluster, Cluster]) -> None:
    """Nobody beats by hand: one stage of the server does, and its standby is fresh."""
    primary, standby = clusters
    dsn = primary.database()
    replica = PostgresAddress(standby.dsn(dsn.rpartition("/")[2]))
    config = Config(store=PostgresAddress(dsn), replica=replica, replica_stale_max_s=3_600, poll_ms=50)
    db = await open_postgres(dsn)
    async with open_world(Path("unused"), db=db, config=config) as world:

        async def look() -> int:
            world.clock.advance(1_000)  # over the rest after a replica that had no such database yet
            return (await world.http.get("/v1/events")).status_code

        await until(look, lambda status: status == 200)


def test_settings_name_a_standby_of_postgresql() -> None:
    """HUDUR_REPLICA and its bound are read; a file has no replica."""
    environment = {"HUDUR_REPLICA": "postgresql://b/hudur", "HUDUR_REPLICA_STALE_MAX_S": "5"}
    config = read_config(environment, store="postgresql://a/hudur")
    assert (str(config.replica), config.replica_stale_max_s) == ("postgresql://b/hudur", 5)
    with pytest.raises(ConfigError):
        read_config(environment, store="sqlite:x.db")
    with pytest.raises(ConfigError):
        read_config({**environment, "HUDUR_REPLICA_STALE_MAX_S": "0"}, store="postgresql://a/hudur")
