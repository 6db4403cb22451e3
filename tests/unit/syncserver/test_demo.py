"""The demo's preparation and codes, on a real store and the real server parts (tests/browser runs the process)."""

from __future__ import annotations

import io
import json
import stat
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from rich.console import Console

from clientcore.ports import ManualClock
from syncserver import demo
from syncserver.app import Server, open_server
from syncserver.calendar import calendar_of, local_date
from syncserver.config import Config
from syncserver.errors import StoreInUse
from syncserver.ports import ServerPorts
from syncserver.rostergen import school_year
from syncserver.store.sqlite import open_sqlite

DAY_MS = 86_400_000
SUNDAY_MS = ManualClock().now_ms
FRIDAY_MS = SUNDAY_MS + 5 * DAY_MS


def file_of(config: Config) -> Path:
    """The store's file."""
    assert isinstance(config.store, Path)
    return config.store


@asynccontextmanager
async def opened(config: Config, clock: ManualClock) -> AsyncIterator[Server]:
    db = await open_sqlite(file_of(config))
    try:
        yield await open_server(config, db, ServerPorts(clock=clock))
    finally:
        await db.close()


@pytest.fixture
def config(tmp_path: Path) -> Config:
    return Config(store=tmp_path / "hudur.db")


@pytest.mark.parametrize(
    "now_ms",
    [SUNDAY_MS, FRIDAY_MS, FRIDAY_MS + 15 * 3_600_000, SUNDAY_MS - 47 * DAY_MS],
    ids=["sunday", "friday", "night", "holiday"],
)
async def test_today_and_tomorrow_are_open_on_any_day(config: Config, now_ms: int) -> None:
    """A trial on a Friday night finds its school open, and still does after midnight; so does one on 6 October."""
    clock = ManualClock(now_ms=now_ms)
    await demo.prepare(config, clock, fresh=False)
    async with opened(config, clock) as server:
        calendar = await calendar_of(server.db, "eg-mn-101", config.zone, 2026)
        for at_ms in (now_ms, now_ms + DAY_MS):
            assert calendar.closed(calendar.date_at(at_ms)) is None


async def test_the_trial_is_for_its_owner_alone(config: Config) -> None:
    """Names and the signing key: the folder is closed to others, also when it was open before, and so is every file."""
    folder = file_of(config).parent
    folder.chmod(0o755)
    (folder / "roster.zip").touch(0o644)
    await demo.prepare(config, ManualClock(), fresh=False)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    files = list(folder.iterdir())
    assert {"hudur.db", "hudur.db.lock", "roster.zip"} <= {path.name for path in files}
    assert {stat.S_IMODE(path.stat().st_mode) for path in files} == {0o600}


async def test_the_links_name_every_class_and_carry_a_code_for_each(config: Config) -> None:
    """Three schools, a class of forty in each, a code per class, one for a teacher and one for the champion."""
    clock = ManualClock()
    await demo.prepare(config, clock, fresh=False)
    async with opened(config, clock) as server:
        links = (await demo.make_links(server, "http://127.0.0.1:1")).as_json()
    line = json.loads(json.dumps(links, ensure_ascii=False))
    assert len(line["schools"]) == 3
    assert all(any(len(room["pupils"]) == 40 for room in school["classes"]) for school in line["schools"])
    rooms = [room["id"] for school in line["schools"] for room in school["classes"]]
    assert set(line["codes"]) == {"teacher", "champion", "classes", *rooms}
    assert line["codes"]["classes"] == {room: line["codes"][room] for room in rooms}
    codes = [line["codes"][key] for key in ("teacher", "champion", *rooms)]
    assert len(set(codes)) == len(codes)


async def test_a_second_start_keeps_the_store_and_makes_fresh_codes(config: Config) -> None:
    """The same roster is no change, the old codes are not shown again."""
    clock = ManualClock()
    seen = []
    for _ in range(2):
        await demo.prepare(config, clock, fresh=False)
        async with opened(config, clock) as server:
            seen.append((await demo.make_links(server, "")).as_json())
            versions = await server.db.fetch_all("SELECT school, roster_version FROM schools ORDER BY school")
    assert seen[0]["schools"] == seen[1]["schools"]
    assert seen[0]["codes"]["teacher"] != seen[1]["codes"]["teacher"]
    assert [version for _, version in versions] == [1, 1, 1]


async def test_fresh_begins_anew_but_never_under_a_running_server(config: Config) -> None:
    """`--fresh` throws away even a store that cannot be read; a store in use is left alone."""
    file_of(config).write_bytes(b"this is no database" * 100)
    await demo.prepare(config, ManualClock(), fresh=True)
    async with opened(config, ManualClock()) as server:
        with pytest.raises(StoreInUse):
            await demo.prepare(config, ManualClock(), fresh=True)
        assert await server.db.fetch_one("SELECT COUNT(*) FROM schools") == (3,)


async def test_what_people_see_holds_the_links(config: Config) -> None:
    """Teacher, tutor, champion, feed, metrics, and how to get another code."""
    clock = ManualClock()
    await demo.prepare(config, clock, fresh=False)
    async with opened(config, clock) as server:
        links = await demo.make_links(server, "http://127.0.0.1:8000")
    out = io.StringIO()
    demo.show(links, Console(file=out, width=60))
    shown = out.getvalue()
    for code in (links.teacher[1], links.champion[1], links.schools[0].classes[0].code):
        assert f"http://127.0.0.1:8000/#e=eg-mn-101.{code}\n" in shown
    assert "hudur code" in shown


def test_the_generated_school_year_has_room_on_both_sides_of_any_day() -> None:
    """On every day of two years, the fortnight before and the one after lie in the year."""
    for n in range(730):
        day = local_date(SUNDAY_MS + n * DAY_MS, "Africa/Cairo")
        first, until = school_year(day)
        before, after = (
            local_date(SUNDAY_MS + (n + shift) * DAY_MS, "Africa/Cairo").isoformat() for shift in (-14, 14)
        )
        assert first <= before
        assert after < until
