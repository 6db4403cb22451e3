"""The public status: measured facts, unknown where nobody measured, memory only, two languages."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from syncserver.app import open_server
from syncserver.config import Config
from syncserver.entrance import LATER
from syncserver.errors import RequestProblem
from syncserver.status import Status
from syncserver.status_page import preferred
from syncserver.store import status as rows
from syncserver.store.port import Database
from tests.support.server.world import SCHOOL, TODAY, World, open_world

REGISTER = f"c-3a/{TODAY}/day"
TICK_MS = 5_000


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    """A server without a consumer, with room for one; the clock moves by hand, and so does the watching."""
    config = Config(store=tmp_path / "store.db", inside_max=1, waiting_max=0)
    async with open_world(tmp_path / "store.db", background=False, config=config) as opened:
        yield opened


async def watch(world: World, minutes: float, *, status: Status | None = None) -> None:
    """Let time pass while the server watches."""
    for _ in range(int(minutes * 60_000 / TICK_MS)):
        world.clock.advance(TICK_MS)
        await (status or world.server.status).tick()


async def told(world: World) -> dict[str, Any]:
    """What `/v1/status` says now."""
    world.clock.advance(1_000)  # it is written once a second
    reply = await world.http.get("/v1/status")
    assert reply.status_code == 200
    document: dict[str, Any] = reply.json()
    return document


def today(document: dict[str, Any]) -> dict[str, int]:
    """The minutes of today."""
    day = dict(document["days"][0])
    assert day.pop("date") == TODAY
    return day


@asynccontextmanager
async def full(world: World) -> AsyncIterator[None]:
    """A server that has no room for anybody."""
    inside = await world.server.entrance.enter(LATER, 0)
    yield
    world.server.entrance.leave(inside)


async def test_what_nobody_watched_is_unknown_and_never_good(world: World) -> None:
    """Before the first look nothing is known; a gap stays unknown; only whole watched minutes are good."""
    before = await told(world)
    assert before["state"] == "unknown"
    assert before["delay_s"] is None
    assert today(before)["unknown"] == today(before)["passed"] == 10 * 60  # it is ten o'clock in Cairo
    assert all(day["good"] == 0 for day in before["days"])
    await watch(world, 4)
    assert (await told(world))["state"] == "accepting"
    assert today(await told(world))["good"] == 3  # the first minute was not watched from its beginning
    world.clock.advance(30 * 60_000)
    assert (await told(world))["state"] == "unknown"
    await watch(world, 3)
    day = today(await told(world))
    assert day["good"] + day["unknown"] == day["passed"]
    assert 5 <= day["good"] <= 6


async def test_shedding_is_told_while_it_lasts_and_remembered(world: World) -> None:
    """Somebody was put off: the page says so for a minute, the day keeps the minute."""
    phone = await world.phone()
    await watch(world, 2)
    async with full(world):
        reply = await phone.post("/v1/sync", b"x")
        assert (reply.status_code, reply.json()["type"]) == (503, "/problems/busy")
        assert (await told(world))["state"] == "shedding"
        page = (await world.http.get("/status?lang=ar")).text
    assert "الخادم مشغول الآن" in page
    assert "العمل محفوظ على الهاتف" in page
    await watch(world, 3)
    now = await told(world)
    assert now["state"] == "accepting"
    assert 1 <= today(now)["shed"] <= 2
    assert today(now)["good"] + today(now)["shed"] == today(now)["measured"]


async def test_changes_that_wait_are_told_as_delay(world: World) -> None:
    """Nobody settles: the age of the oldest change is told, and beyond five minutes it counts as delayed."""
    phone = await world.phone()
    await watch(world, 1)
    await phone.sync((REGISTER, phone.take(REGISTER, {"s001": "A"})))
    await watch(world, 4)
    assert (await told(world))["state"] == "accepting"
    assert 235 <= (await told(world))["delay_s"] <= 250
    await watch(world, 3)
    late = await told(world)
    assert late["state"] == "late"
    assert 2 <= today(late)["delayed"] <= 3
    await world.settle()
    await watch(world, 0.5)
    after = await told(world)
    assert (after["state"], after["delay_s"]) == ("accepting", 0)
    assert after["last_commit_at"] is not None


class _Failed:
    """A store that has failed."""

    failed = True

    def __init__(self, db: Database) -> None:
        self._db = db

    def __getattr__(self, name: str) -> Any:
        return getattr(self._db, name)


async def test_a_store_that_fails_is_told_and_written_when_it_works_again(world: World) -> None:
    """A failing store cannot take the minutes in which it fails: they are kept and written afterwards."""
    await watch(world, 2)
    status = world.server.status
    status._db = _Failed(world.db)
    assert (await told(world))["state"] == "failing"
    status._db = world.db
    world.clock.advance(61_000)
    await status.tick()
    assert today(await told(world))["failed"] >= 1
    rows = await world.db.fetch_all("SELECT failed FROM status_hours WHERE failed <> 0")
    assert len(rows) == 1


async def test_the_history_survives_a_restart_and_two_processes_add_up(world: World) -> None:
    """What one process saw is in the store; another one shows it, and adds what it saw itself."""
    await watch(world, 5)
    good = today(await told(world))["good"]
    other = await open_server(Config(store=Path("unused")), world.db, world.server.ports)
    assert sum(day.good for day in other.status.days()) == 0
    await other.status.tick()
    assert 3 <= sum(day.good for day in other.status.days()) <= good  # what came after the last minute is not written
    other.entrance.sheds_total += 1
    await watch(world, 2, status=other.status)
    await watch(world, 2)
    assert today(await told(world))["shed"] >= 1


async def test_what_is_seen_while_a_minute_is_written_is_not_forgotten(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody is put off in the middle of the transaction: shown at once, in the store a minute later."""
    await watch(world, 2)
    entrance, original = world.server.entrance, rows.add_hours

    async def interrupted(*args: Any, **more: Any) -> None:
        await original(*args, **more)
        if not entrance.sheds_total:
            entrance.sheds_total += 1
            world.server.status.look()

    monkeypatch.setattr(rows, "add_hours", interrupted)
    await watch(world, 1)
    assert entrance.sheds_total == 1
    assert today(await told(world))["shed"] >= 1
    await watch(world, 1.5)
    assert len(await world.db.fetch_all("SELECT 1 FROM status_hours WHERE shed <> 0")) == 1
    assert today(await told(world))["shed"] >= 1


async def test_old_hours_are_forgotten(world: World) -> None:
    """The table holds the days that are shown and little more."""
    async with world.db.transaction() as tx:
        await tx.execute("INSERT INTO status_hours VALUES (1, 1, 0, 0, 0)")
    await watch(world, 3)
    assert await world.db.fetch_one("SELECT count(*) FROM status_hours WHERE hour = 1") == (0,)
    world.clock.advance(20 * 86_400_000)
    await watch(world, 3)
    assert 1 <= await world.count("status_hours") <= 2


async def test_a_request_reads_no_store_and_the_page_is_small_strict_and_names_nobody(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bytes from memory with an ETag; no script, no other host, no school, at most 10 kB in either language."""
    phone = await world.phone()
    await phone.sync((REGISTER, phone.take(REGISTER, {"s001": "A"})))
    await watch(world, 2)

    async def none(*_: object) -> None:
        raise AssertionError("the store was read")

    for name in ("fetch_all", "fetch_one", "snapshot", "atomically"):
        monkeypatch.setattr(world.db, name, none)
    for path in ("/status", "/status?lang=en", "/v1/status"):
        reply = await world.http.get(path)
        assert reply.status_code == 200
        assert len(reply.content) <= 10_000
        assert reply.headers["cache-control"] == "public, max-age=10"
        assert SCHOOL not in reply.text
        assert "مدرسة" not in reply.text
        again = await world.http.get(path, headers={"if-none-match": reply.headers["etag"]})
        assert (again.status_code, again.content) == (304, b"")
        if path != "/v1/status":
            assert reply.headers["content-security-policy"].startswith("default-src 'none'; style-src 'sha256-")
            assert "<script" not in reply.text
            assert "//" not in reply.text
    with pytest.raises(AssertionError, match="read"):
        await world.server.status.tick()


@pytest.mark.parametrize(
    ("header", "lang"),
    [
        ("", "ar"),
        ("en-GB,en;q=0.9", "en"),
        ("ar-EG,ar;q=0.9,en;q=0.8", "ar"),
        ("en;q=0.5,ar;q=0.8", "ar"),
        ("fr-FR,fr;q=0.9,en;q=0.4", "en"),
        ("de", "ar"),
        ("en;q=x", "ar"),
    ],
)
async def test_the_language_is_what_the_browser_likes_better(world: World, header: str, lang: str) -> None:
    """Arabic unless English is preferred; a choice in the address wins."""
    assert preferred(header) == lang
    reply = await world.http.get("/status", headers={"accept-language": header})
    assert f'<html lang="{lang}" dir="{"rtl" if lang == "ar" else "ltr"}">' in reply.text
    assert reply.headers["vary"] == "accept-language"
    other = await world.http.get("/status?lang=en", headers={"accept-language": header})
    assert '<html lang="en"' in other.text


async def test_reports_wait_like_everybody_who_can(world: World) -> None:
    """While there is no room, a report is put off too, with a time to come again."""
    async with full(world):
        reply = await world.http.get("/v1/reports/school", params={"school": SCHOOL})
        assert (reply.status_code, reply.json()["type"]) == (503, "/problems/busy")
        assert int(reply.headers["retry-after"]) > 0
        assert (await world.http.get("/healthz")).status_code == 200
        with pytest.raises(RequestProblem):
            await world.server.entrance.enter(LATER, 0)
    assert (await world.http.get("/v1/reports/school", params={"school": SCHOOL})).status_code == 200
