"""Overload for real: what is put off, what stays up, what is never lost, and who is slowed."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from clientcore.exchange import DURABLE, Verdict, read_answer, write_sync
from clientcore.keys import SigningKey
from clientcore.ports import HttpReply, ManualClock, SystemClock
from syncserver.admission import Lane
from syncserver.calendar import local_date
from syncserver.config import Config
from syncserver.entrance import LATER, claimed_device
from syncserver.store.sqlite import open_sqlite
from tests.integration.test_device_server import Line, join
from tests.support.devices import absent
from tests.support.server.crowd import Crowd, Reply, get
from tests.support.server.phone import Phone
from tests.support.server.wait import until
from tests.support.server.world import PUPILS, TODAY, World, open_world

ROOT = Path(__file__).parents[2]
REGISTER = f"c-3a/{TODAY}/day"
PHONES, EACH, CONNECTIONS = 40, 20, 250


async def signed(world: World, today: str) -> tuple[list[Phone], list[bytes]]:
    """Registers of today, one a push, by many phones."""
    phones = [await world.phone("t1", seed=n) for n in range(1, PHONES + 1)]
    bodies = []
    for n in range(EACH):
        for phone in phones:
            register = f"c-{phone.seed}-{n}/{today}/day"
            change = phone.take(register, dict.fromkeys(PUPILS[:20], "P"))
            bodies.append(write_sync([phone.frame([(register, change.chunk)], ask=False).raw]))
    return phones, bodies


@contextmanager
def narrow(store: Path) -> Iterator[tuple[int, subprocess.Popen[str]]]:
    """A server process that is soon overloaded: its port, and the process."""
    command = [sys.executable, "-m", "tests.process.narrow_main", str(store)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as child:
        assert child.stdout is not None
        try:
            yield int(child.stdout.readline().rsplit(":", 1)[1]), child
        finally:
            child.kill()


async def watched(port: int, done: asyncio.Event) -> list[tuple[str, Reply]]:
    """What the pages for operators and the public say while the crowd is there."""
    seen = []
    while not done.is_set():
        seen += [(path, await get(port, path)) for path in ("/status", "/v1/status", "/metrics", "/healthz")]
    return seen


@pytest.mark.process
@pytest.mark.parametrize("fresh", [False, True], ids=["kept", "fresh"])
async def test_a_crowd_is_put_off_nothing_is_lost_and_the_pages_stay_up(tmp_path: Path, fresh: bool) -> None:
    """250 connections that never wait, against a real server: it sheds with a time to come again, its pages answer, it
    still takes everything in the end, and what it acknowledged survives kill -9. Kept connections are turned away by
    the HTTP server, most of the fresh ones before there is one for them.
    """
    store, clock = tmp_path / "store.db", ManualClock(now_ms=SystemClock().wall_ms())
    async with open_world(store, background=False, clock=clock) as world:
        today = local_date(clock.wall_ms(), "Africa/Cairo").isoformat()
        phones, bodies = await signed(world, today)
    with narrow(store) as (port, child):
        crowd, done = Crowd(port, bodies), asyncio.Event()
        watching = asyncio.create_task(watched(port, done))
        async with asyncio.timeout(120):  # every request is answered, whatever the answer
            await crowd.rush(connections=CONNECTIONS, fresh=fresh)
        done.set()
        seen = await watching
        await until(lambda: get(port, "/v1/status"), lambda reply: json.loads(reply.body)["state"] == "shedding")
        child.send_signal(signal.SIGKILL)
    assert {reply.status for _, reply in seen} == {200}
    assert len(seen) >= 8
    check_put_off(crowd.put_off)
    closed = sum(reply.header("connection") == "close" for reply in crowd.put_off)
    assert closed > len(crowd.put_off) / 2 if fresh else closed < len(crowd.put_off) / 2
    for place, reply in crowd.taken.items():
        server_key, body = phones[place % PHONES].me.server_key, bodies[place]
        assert read_answer(reply.body, server_key=server_key, request=body).answer.receipts == ((Verdict(DURABLE),),)
    assert len(crowd.taken) == len(bodies)
    db = await open_sqlite(store)
    assert await db.fetch_one("SELECT count(*) FROM changes") == (len(bodies),)
    await db.close()


def check_put_off(replies: list[Reply]) -> None:
    """Many were put off, each told that its work is safe and when to come again, not all at one time."""
    assert len(replies) > 100
    for reply in replies:
        document = json.loads(reply.body)
        assert reply.header("content-type") == "application/problem+json"
        assert (document["type"], document["retry"], document["safe"]) == ("/problems/busy", "after", True)
        assert "your work is safe" in document["detail"]
        assert 1 <= int(reply.header("retry-after")) <= 300
    assert len({reply.header("retry-after") for reply in replies}) > 5


async def test_whoever_is_turned_away_at_the_socket_is_told_and_counted_as_everybody_else(tmp_path: Path) -> None:
    """The same document with the same headers by both roads, and the same metrics; a device over its quota is not asked
    to come later at the socket: it is told that it is too fast, on the usual road.
    """
    config = Config(store=tmp_path / "store.db", inside_max=1, waiting_max=0, device_burst=1, device_per_minute=1)
    async with open_world(tmp_path / "store.db", background=False, config=config) as world:
        phone, server = await world.phone(), world.server
        body = write_sync([phone.frame([(REGISTER, phone.take(REGISTER, {"s001": "P"}).chunk)]).raw])
        body = body.replace(TODAY.encode(), local_date(world.clock.wall_ms(), "Africa/Cairo").isoformat().encode())
        assert server.turn_away(body) is None  # nobody is shed
        inside = await server.entrance.enter(LATER, 0)
        usual = await phone.post("/v1/sync", body)
        today = server.entrance._admission.delays[Lane.TODAY]
        today.stands, today.bound = True, 0
        before = await _told(world)
        raw = server.turn_away(body)
        assert raw is not None
        head, _, document = raw.partition(b"\r\n\r\n")
        lines = dict(line.split(": ", 1) for line in head.decode().split("\r\n")[1:])
        assert (lines.pop("connection"), usual.status_code) == ("close", 503)
        assert 1 <= int(lines["retry-after"]) <= 300
        assert lines.keys() == usual.headers.keys()
        assert {**lines, "retry-after": ""} == {**usual.headers, "retry-after": ""}
        assert document == usual.content
        counted = ['hudur_requests_total{route="/v1/sync",status="503"}', 'hudur_shed_total{lane="today"}']
        told = await _told(world)
        for name in [*counted, 'hudur_problems_total{slug="busy"}']:
            assert _value(told, name) == _value(before, name) + 1
        server.entrance.leave(inside)
        await phone.sync()  # its whole quota
        assert server.turn_away(body) is None


async def _told(world: World) -> bytes:
    """What the page of metrics says."""
    return (await world.http.get("/metrics")).content


def _value(exposition: bytes, name: str) -> float:
    return next((float(line.split()[-1]) for line in exposition.decode().splitlines() if line.startswith(name)), 0.0)


class _Heard(Line):
    """Notes for how long the server asked to be left alone."""

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self.asked_s: list[float] = []

    async def post(self, path: str, body: bytes, *, content_type: str, deadline_s: float) -> HttpReply:
        reply = await super().post(path, body, content_type=content_type, deadline_s=deadline_s)
        self.asked_s += [] if reply.retry_after_s is None else [reply.retry_after_s]
        return reply


async def test_a_device_that_is_put_off_keeps_its_work_and_comes_when_it_was_told(tmp_path: Path) -> None:
    """The real device against a server without room: nothing is lost, it waits at least as long as it was asked to."""
    config = Config(store=tmp_path / "store.db", inside_max=1, waiting_max=0)
    async with open_world(tmp_path / "store.db", background=False, config=config) as world:
        line = _Heard(world)
        phone = await join(world, line, tmp_path / "home")
        phone.take(absent("s001"))
        inside = await world.server.entrance.enter(LATER, 0)
        waits = set()
        for _ in range(6):
            report = await phone.sync()
            assert report.outcome == "busy"
            (asked_s,) = line.asked_s[-1:]
            assert 1 <= asked_s <= 300
            assert report.wait_ms >= asked_s * 1_000
            assert phone.device.state.pending == 1
            waits.add(asked_s)
        assert len(waits) > 1
        world.server.entrance.leave(inside)
        assert (await phone.sync()).outcome == "ok"
        assert phone.device.state.pending == 0
        assert await world.count("changes") == 1
        phone.close()
        await line.close()


async def test_settling_gives_way_to_registers_that_are_put_off_and_hardly_to_asks(tmp_path: Path) -> None:
    """Who asks for a confirmation is answered by settling, not by its pause; a few inside are no crowd."""
    async with open_world(tmp_path / "store.db", background=False) as world:
        entrance = world.server.entrance
        delays = entrance._admission.delays
        inside = [await entrance.enter(LATER, 0) for _ in range(24)]
        assert entrance.crowding == 0
        delays[Lane.LATER].sheds = True
        assert entrance.crowding == 0
        delays[Lane.TODAY].shortest_ms = delays[Lane.TODAY].target_ms
        assert entrance.crowding == 1
        for lane in (Lane.TODAY, Lane.BACKLOG):
            delays[lane].sheds = True
            assert entrance.crowding == 19
            delays[lane].sheds = False
        delays[Lane.TODAY].sheds = True
        entrance.leave(inside.pop())
        assert entrance.crowding == 0


async def test_a_device_that_floods_is_slowed_alone_and_before_its_signature_costs_anything(tmp_path: Path) -> None:
    """Over its quota a device is told so without a look at the signature; another device notices nothing."""
    config = Config(store=tmp_path / "store.db", device_burst=3, device_per_minute=60)
    async with open_world(tmp_path / "store.db", background=False, config=config) as world:
        flooding, other = await world.phone(), await world.phone("t2", seed=2)
        for _ in range(3):
            await flooding.sync()
        frame = flooding.frame([])
        unread = write_sync([frame.signed + bytes(64)])
        reply = await flooding.post("/v1/sync", unread)
        assert (reply.status_code, reply.json()["type"]) == (429, "/problems/slow-down")
        assert int(reply.headers["retry-after"]) >= 1
        await other.sync((REGISTER, other.take(REGISTER, {"s001": "P"})))
        world.clock.advance(1_000)
        assert (await flooding.post("/v1/sync", unread)).json()["type"] == "/problems/bad-signature"


async def test_a_stranger_who_claims_a_device_slows_nobody_but_themselves(tmp_path: Path) -> None:
    """Any number of forged frames in a phone's name cost that phone nothing, and leave no trace of names made up."""
    config = Config(store=tmp_path / "store.db", device_burst=3, device_per_minute=60)
    async with open_world(tmp_path / "store.db", background=False, config=config) as world:
        phone = await world.phone()
        frame = phone.frame([(REGISTER, phone.take(REGISTER, {"s001": "P"}).chunk)])
        forged = write_sync([frame.signed + SigningKey.generate().sign(frame.signed)])
        assert claimed_device(forged) == phone.me.device
        for _ in range(30):
            assert (await phone.post("/v1/sync", forged)).json()["type"] == "/problems/bad-signature"
        assert phone.me.device not in world.server.talk._devices._buckets
        assert (await phone.send([frame])).answer.receipts == ((Verdict(DURABLE),),)


@pytest.mark.parametrize(
    ("days", "lane"), [(0, "today"), (-1, "today"), (1, "backlog"), (200, "backlog"), (-40, "backlog")]
)
async def test_the_newest_school_day_says_which_lane(tmp_path: Path, days: int, lane: str) -> None:
    """A request is as urgent as the newest day in it; one without any register can wait."""
    async with open_world(tmp_path / "store.db", background=False) as world:
        phone, entrance = await world.phone(), world.server.entrance
        day = local_date(world.clock.wall_ms() - 86_400_000 * days, "Africa/Cairo").isoformat()
        old = (f"c-3b/2026-01-{10 + abs(days) % 10}/day", phone.take(REGISTER, {"s002": "P"}).chunk)
        new = (f"c-3a/{day}/day", phone.take(REGISTER, {"s001": "P"}).chunk)
        body = write_sync([phone.frame([old, new]).raw])
        assert claimed_device(body) == phone.me.device
        assert entrance.pushed(body).lane.name.lower() == lane
        assert entrance.pushed(write_sync([phone.frame([]).raw])) == LATER
