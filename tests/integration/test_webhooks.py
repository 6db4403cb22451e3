"""Signed webhooks: real consumers on loopback ports, a real store; every claim of syncserver/webhooks.py."""

from __future__ import annotations

import asyncio
import json
import logging
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime, tzinfo
from pathlib import Path
from typing import Any

import pytest
from standardwebhooks import Webhook

from clientcore.ports import ManualClock
from syncserver import webhooks
from syncserver.errors import StoreFailed
from syncserver.feed import MEDIA_TYPE
from syncserver.store import audit
from syncserver.store.packed import pack_json
from syncserver.store.port import Transaction
from syncserver.store.sqlite import SqliteDatabase
from tests.support.server.consumer import Answer, Consumer, Got, open_consumer
from tests.support.server.orders import ask_with, operator, token
from tests.support.server.wait import until
from tests.support.server.world import OTHER_SCHOOL, SCHOOL, TODAY, World, open_world

NOW_MS = ManualClock().now_ms
PUPILS = ("s001", "s002", "s003")
HOUR_MS = 3_600_000


class Then(datetime):
    """The moment at which the tests' clock stands."""

    @classmethod
    def now(cls, tz: tzinfo | None = None) -> Then:
        return cls.fromtimestamp(NOW_MS / 1000, tz=tz)


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with open_world(tmp_path / "store.db") as made:
        yield made


@pytest.fixture
async def consumer() -> AsyncIterator[Consumer]:
    async with open_consumer() as made:
        yield made


async def mark(world: World, *, school: str = SCHOOL, seed: int = 1, code: str = "P") -> int:
    """One register of three pupils, settled; returns the feed's head."""
    head = (await operator(world, "sink-list"))["feed"]
    phone = await world.phone("t1", school=school, seed=seed)
    register = f"c-3a/{TODAY}/day"
    await phone.sync((register, phone.take(register, dict.fromkeys(PUPILS, code))))
    found = await until(lambda: operator(world, "sink-list"), lambda seen: seen["feed"] >= head + len(PUPILS))
    return int(found["feed"])


async def add(world: World, consumer: Consumer, name: str = "reports", **args: Any) -> str:
    made = await operator(world, "sink-add", name=name, url=consumer.url, **({"all": True} | args))
    return str(made["secret"])


async def see(world: World, name: str = "reports") -> dict[str, Any]:
    return next(one for one in (await operator(world, "sink-list"))["sinks"] if one["name"] == name)


async def sent(world: World, seq: int, name: str = "reports") -> dict[str, Any]:
    return await until(lambda: see(world, name), lambda one: bool(one["sent_seq"] == seq))


async def test_a_batch_is_signed_as_standard_webhooks_say_and_holds_the_feed_as_it_is(
    world: World, consumer: Consumer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The consumers' own library verifies it; one changed byte, and it does not."""
    monkeypatch.setattr("standardwebhooks.webhooks.datetime", Then)  # it compares with the clock of the machine
    secret = await add(world, consumer)
    head = await mark(world)
    await sent(world, head)
    (got,) = consumer.got
    assert Webhook(secret).verify(got.body, got.headers) == await world.events()
    assert (got.headers["content-type"], got.path) == (MEDIA_TYPE, "/hook")
    assert got.body == (await world.http.get("/v1/events")).content
    with pytest.raises(Exception, match="No matching signature"):
        Webhook(secret).verify(got.body.replace(b"present", b"absent_"), got.headers)


async def test_a_dead_and_a_hanging_consumer_delay_nobody(world: World, consumer: Consumer) -> None:
    """Two real servers: one never answers, one refuses, the third has every event while they still do not."""
    never = asyncio.Event()

    async def hang(_: Got) -> Answer:
        await never.wait()
        return 204, {}

    async with open_consumer() as slow, open_consumer() as broken:
        slow.answering = hang
        broken.say(500)
        for name, one in (("slow", slow), ("broken", broken), ("quick", consumer)):
            await add(world, one, name)
        await mark(world)
        await slow.until(lambda got: len(got) == 1)
        head = await mark(world, seed=2, code="A")
        await sent(world, head, "quick")
        assert [seq for got in consumer.got for seq in got.sequences] == list(range(1, head + 1))
        assert (await see(world, "slow"))["sent_seq"] == 0
        assert (await see(world, "broken"))["sent_seq"] == 0
        metrics = (await world.http.get("/metrics")).text
        assert f'hudur_webhook_backlog_events{{sink="slow"}} {float(head)}' in metrics
        assert 'hudur_webhook_backlog_events{sink="quick"} 0.0' in metrics
        assert 'hudur_webhook_failures{sink="broken"} 1.0' in metrics
        never.set()
        await sent(world, head, "slow")


async def test_it_is_tried_again_in_growing_gaps_with_the_same_bytes_under_the_same_id(
    world: World, consumer: Consumer
) -> None:
    """What was settled meanwhile waits for its own batch: order is kept, and nothing is skipped."""
    consumer.say(503)
    await add(world, consumer)
    head = await mark(world)
    for tries in range(1, 4):
        await consumer.until(lambda got, tries=tries: len(got) == tries)  # type: ignore[misc]
        waits = await until(lambda: see(world), lambda one, tries=tries: one["failures"] == tries)  # type: ignore[misc]
        assert 0 < waits["next_try_ms"] - world.clock.wall_ms() <= webhooks.GAP_FIRST_MS << (tries - 1)
        if tries == 2:
            later = await mark(world, seed=2, code="L")
        world.clock.advance(webhooks.GAP_FIRST_MS << tries)
    consumer.say(200)
    world.clock.advance(webhooks.GAP_MAX_MS)
    done = await sent(world, later)
    assert (done["failures"], done["last_result"]) == (0, "http 200")
    *again, last = consumer.got
    assert len({(got.headers["webhook-id"], got.body) for got in again}) == 1
    assert last.headers["webhook-id"] != again[0].headers["webhook-id"]
    assert again[0].sequences + last.sequences == list(range(1, later + 1))
    assert again[0].sequences[-1] == head


async def test_a_server_that_stops_before_it_noted_the_answer_sends_the_same_again(tmp_path: Path) -> None:
    """At least once; the id and the bytes are those of the first time, though there is more to send by then."""
    path, clock, never = tmp_path / "store.db", ManualClock(), asyncio.Event()

    async def hang(_: Got) -> Answer:
        await never.wait()
        return 200, {}

    async with open_consumer() as consumer:
        consumer.answering = hang
        async with open_world(path, clock=clock) as world:
            await add(world, consumer)
            await mark(world)
            await consumer.until(lambda got: len(got) == 1)
            head = await mark(world, seed=2, code="A")
        consumer.say(200)
        async with open_world(path, clock=clock) as world:
            await sent(world, head)
        first, again, rest = consumer.got
        assert (first.headers["webhook-id"], first.body) == (again.headers["webhook-id"], again.body)
        assert again.sequences + rest.sequences == list(range(1, head + 1))


class Failing(SqliteDatabase):
    """A store whose disk fails while `broken`."""

    broken, looks = False, 0

    @property
    def failed(self) -> bool:
        self.looks += self.broken
        return self.broken or super().failed

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Transaction]:
        if self.broken:
            raise StoreFailed("storage", "no space")
        async with super().transaction() as tx:
            yield tx


async def test_while_the_store_fails_nothing_is_sent_again_and_again(tmp_path: Path, consumer: Consumer) -> None:
    """What was taken and could not be noted comes once more when the store is well, under the same id."""
    db = Failing(tmp_path / "store.db")
    await db.open()
    async with open_world(tmp_path / "store.db", db=db) as world:

        async def break_it(_: Got) -> Answer:
            db.broken = True
            return 200, {}

        await add(world, consumer)
        consumer.answering = break_it
        phone = await world.phone("t1")
        register = f"c-3a/{TODAY}/day"
        await phone.sync((register, phone.take(register, dict.fromkeys(PUPILS, "P"))))
        await consumer.until(lambda got: len(got) == 1)

        async def looks() -> int:
            return db.looks

        await until(looks, lambda seen: seen > 3)
        assert len(consumer.got) == 1
        consumer.say(200)
        db.broken = False
        await sent(world, len(PUPILS))
        assert len({(got.headers["webhook-id"], got.body) for got in consumer.got}) == 1
        assert len(consumer.got) == 2


async def test_retry_after_is_kept_to(world: World, consumer: Consumer) -> None:
    """An hour is an hour, whatever the gap would have been."""
    consumer.say(429, retry_after="3600")
    await add(world, consumer)
    await mark(world)
    waits = await until(lambda: see(world), lambda one: one["failures"] == 1)
    assert waits["next_try_ms"] - world.clock.wall_ms() == HOUR_MS
    assert waits["last_result"] == "http 429"
    consumer.say(200)
    world.clock.advance(HOUR_MS)
    await sent(world, 3)
    assert len(consumer.got) == 2


async def test_gone_ends_the_sink_and_the_audit_says_so(world: World, consumer: Consumer) -> None:
    """Its place is kept, nothing more is sent, and it does not come back; a new one may go on from there."""
    await add(world, consumer)
    head = await mark(world)
    await sent(world, head)
    consumer.say(410)
    await mark(world, seed=2, code="A")
    ended = await until(lambda: see(world), lambda one: one["state"] == "ended")
    assert (ended["sent_seq"], ended["last_result"], ended["waiting"]) == (head, "http 410", 0)
    row = await world.db.fetch_one("SELECT actor, subject, after_json FROM audit WHERE action = 'sink-ended'")
    assert row is not None
    assert row[:2] == ("server", "sink:reports")
    assert json.loads(row[2])["sent_seq"] == head
    refused = await ask_with(world, await token(world, "c", "central"), "sink-resume", name="reports", reason="x")
    assert (refused.status_code, refused.json()["rule"]) == (409, "sink-ended")
    assert refused.json()["who"]
    assert refused.json()["ar"]
    consumer.say(200)
    await add(world, consumer, "reports-2", after=head)
    await sent(world, 2 * head, "reports-2")
    assert consumer.got[-1].sequences == list(range(head + 1, 2 * head + 1))


async def test_a_paused_sink_gets_nothing_and_goes_on_where_it_was(world: World, consumer: Consumer) -> None:
    """Each order leaves its row in the audit, with its reason, before and after."""
    await add(world, consumer, reason="the register of the district")
    head = await mark(world)
    await sent(world, head)
    await operator(world, "sink-pause", name="reports", reason="they move")
    later = await mark(world, seed=2, code="A")
    assert (await see(world))["waiting"] == later - head
    assert len(consumer.got) == 1
    await operator(world, "sink-resume", name="reports", reason="they have moved")
    await sent(world, later)
    assert consumer.got[-1].sequences == list(range(head + 1, later + 1))
    rows = await world.db.fetch_all(
        "SELECT action, reason, before_json, after_json FROM audit WHERE subject = 'sink:reports'"
    )
    assert [row[0] for row in rows] == ["sink-add", "sink-pause", "sink-resume"]
    assert (json.loads(rows[1][2])["state"], json.loads(rows[1][3])["state"]) == ("active", "paused")


async def test_requeued_events_come_again_under_new_ids(world: World, consumer: Consumer) -> None:
    """A consumer that drops ids it knows takes them all the same; the events are the same bytes."""
    await add(world, consumer)
    head = await mark(world)
    await sent(world, head)
    await operator(world, "sink-requeue", name="reports", **{"from": 2}, reason="their disk was lost")
    await consumer.until(lambda got: len(got) == 2)
    await sent(world, head)
    first, again = consumer.got
    assert again.headers["webhook-id"] != first.headers["webhook-id"]
    assert again.events == first.events[1:]
    refused = await world.http.post(
        "/v1/operator/sink-requeue",
        params={"args": json.dumps({"name": "reports", "from": head + 2, "reason": "x"})},
        headers={"content-type": "application/octet-stream"},
    )
    assert refused.status_code == 400


async def test_what_is_requeued_while_an_answer_is_on_its_way_is_not_forgotten(
    world: World, consumer: Consumer
) -> None:
    """The late 200 is about the batch before the order; it does not move the place the order has set."""
    never = asyncio.Event()

    async def hang(_: Got) -> Answer:
        await never.wait()
        return 200, {}

    consumer.answering = hang
    await add(world, consumer)
    head = await mark(world)
    await consumer.until(lambda got: len(got) == 1)
    await operator(world, "sink-requeue", name="reports", **{"from": 1}, reason="x")
    never.set()
    await sent(world, head)
    assert [got.sequences for got in consumer.got] == [list(range(1, head + 1))] * 2


async def test_a_sink_of_one_school_gets_its_events_only(world: World, consumer: Consumer) -> None:
    """And its place moves over those of the others, so that nothing is looked at for ever."""
    await add(world, consumer, schools=[OTHER_SCHOOL], all=False)
    head = await mark(world)
    await sent(world, head)
    assert consumer.got == []
    later = await mark(world, school=OTHER_SCHOOL, seed=2)
    await sent(world, later)
    assert {event["source"] for got in consumer.got for event in got.events} == {f"/schools/{OTHER_SCHOOL}"}


async def test_a_redirect_is_not_followed_and_a_long_answer_is_not_read(world: World, consumer: Consumer) -> None:
    """Where events go is what was agreed on; what a consumer chatters costs nothing."""
    async with open_consumer() as elsewhere:
        consumer.say(307, location=elsewhere.url)
        await add(world, consumer)
        head = await mark(world)
        seen = await until(lambda: see(world), lambda one: one["failures"] == 1)
        assert (seen["last_result"], elsewhere.got) == ("http 307", [])
        consumer.tail = b"x" * 5_000_000
        consumer.say(200)
        world.clock.advance(HOUR_MS)
        await sent(world, head)


async def test_a_consumer_that_is_not_there_is_tried_for_a_weekend_and_more(world: World, consumer: Consumer) -> None:
    """Nothing ever gives up: sixty hours of refused connections, then everything arrives."""
    place = socket.socket()  # held and not listened on: nobody else takes it, and whoever comes is refused
    place.bind(("127.0.0.1", 0))
    port = place.getsockname()[1]
    await operator(world, "sink-add", name="reports", url=f"http://127.0.0.1:{port}/", all=True)
    head, tries = await mark(world), 0
    ends_ms = world.clock.wall_ms() + 60 * HOUR_MS
    while world.clock.wall_ms() < ends_ms:
        tries += 1
        seen = await until(lambda: see(world), lambda one, tries=tries: one["failures"] == tries)  # type: ignore[misc]
        assert seen["last_result"] == "ConnectError"
        world.clock.advance(max(0, seen["next_try_ms"] - world.clock.wall_ms()))
    assert 15 < tries < 80
    server = await asyncio.start_server(consumer._serve, sock=place)
    try:
        await sent(world, head)
    finally:
        server.close()


async def test_no_secret_and_no_address_is_told_anywhere(
    world: World, consumer: Consumer, caplog: pytest.LogCaptureFixture
) -> None:
    """Not in listings, the audit, the metrics or the log; only once, to whoever added the sink."""
    caplog.set_level(logging.DEBUG)
    consumer.say(500)
    consumer.url += "?key=theirs"
    secret = await add(world, consumer)
    assert len(secret) == 50
    await mark(world)
    await until(lambda: see(world), lambda one: one["failures"] == 1)
    listed = json.dumps(await operator(world, "sink-list"))
    trail = json.dumps(await world.db.fetch_all("SELECT before_json, after_json, reason FROM audit"), default=repr)
    metrics = (await world.http.get("/metrics")).text
    # aiosqlite traces every statement with its values at DEBUG, the server's key among them; no server logs at DEBUG.
    logged = [record.getMessage() for record in caplog.records if record.name != "aiosqlite"]
    told = [listed, trail, metrics, *logged]
    assert "did not take its batch: http 500" in caplog.text
    assert consumer.got[0].path == "/hook?key=theirs"
    assert [text for text in told if secret in text or secret[6:] in text or "theirs" in text] == []
    assert await audit.read_head(world.db) is not None


async def test_a_long_feed_comes_in_batches_of_bounded_size(tmp_path: Path) -> None:
    """Many registers, one after another, all of them, none twice."""
    async with open_consumer() as consumer, open_world(tmp_path / "store.db") as world:
        async with world.db.transaction() as tx:
            await tx.executemany("INSERT INTO events VALUES (?, ?, ?, ?, ?)", _registers(30, 40))
        await add(world, consumer)
        await sent(world, 1_200)
        assert [seq for got in consumer.got for seq in got.sequences] == list(range(1, 1_201))
        assert max(len(got.events) for got in consumer.got) == webhooks.BATCH_EVENTS_MAX


def _registers(count: int, pupils: int) -> list[tuple[int, int, str, str, bytes]]:
    body = pack_json([{"id": n, "time": "2026-11-22T08:00:00.000Z"} for n in range(pupils)])
    return [(n * pupils + 1, (n + 1) * pupils, SCHOOL, f"r{n}", body) for n in range(count)]
