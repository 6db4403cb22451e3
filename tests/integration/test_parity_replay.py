"""Replay: verdicts computed from the log as it was on each past day are those that were stored on that day."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import date as Date
from datetime import timedelta
from pathlib import Path

import pytest

from clientcore.change import Change, Op, actor_of, encode
from clientcore.history import merge
from reconciliation.gate import Verdict
from syncserver.store import parity as parity_rows
from tests.support.school_weeks import PUPILS, SCHOOL, WEEK, by_hand, days, marks, weeks
from tests.support.server.parity_world import ABSENT, due, judge, move_to, rows, type_in
from tests.support.server.world import Phone, World, open_world

LAST_DAY = "2026-12-31"
LATE = days(weeks(2)[1])[3]
FLU = days(weeks(3)[2])[0]
"""Eleven pupils are absent; a second phone, which comes late, says that all were there."""


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    """A server whose consumer is moved by hand."""
    async with open_world(tmp_path / "store.db", background=False) as opened:
        yield opened


def tapped(phone: Phone, day: str, codes: dict[str, str]) -> tuple[str, Change]:
    """A register tapped by hand on top of what this phone has made."""
    name = f"c-3a/{day}/day"
    known = phone.changes.setdefault(name, [])
    history = merge(known)
    actor = actor_of(phone.me.device, phone.app_session)
    shown = history.visible()
    stamps = by_hand(int(day.replace("-", "")) * 10 + phone.seed)
    change = encode(
        actor=actor,
        seq=history.last_seq(actor) + 1,
        start_op=history.max_op + 1,
        time_s=phone.clock.wall_ms() // 1000,
        deps=history.heads,
        ops=[
            Op(key=pupil, value=value, preds=tuple(put.id for put in shown.get(pupil, [])))
            for pupil, value in marks(stamps, codes).items()
        ],
    )
    known.append(change)
    return name, change


async def live_a_term(world: World) -> dict[str, tuple[int, int]]:
    """Five weeks, judged after every midnight; returns how far log and paper had come at each look.

    Of the second week one register comes ten days late: the week cannot be evaluated first, passes then, and the gate
    fires. After that a second phone brings other marks of the third week, made in time.
    """
    phone, other = await world.phone("t1", seed=1), await world.phone("t2", seed=2)
    school_days = [day for week in weeks(5) for day in days(week)]
    kept_back: list[tuple[str, Change]] = []
    seen: dict[str, tuple[int, int]] = {}
    day = Date.fromisoformat(days()[0])
    while day.isoformat() <= LAST_DAY:
        today = day.isoformat()
        await judge(world, today)
        seen[today] = await reached(world)
        move_to(world, today, 12)
        if today in school_days:
            codes = {**ABSENT, **dict.fromkeys(PUPILS[10:18], "A")} if today == FLU else ABSENT
            made = tapped(phone, today, codes)
            if today == FLU:
                kept_back.append(tapped(other, today, {}))
            if today == LATE:
                kept_back.insert(0, made)
            else:
                await phone.sync(made)
            await type_in(world, today, {**codes, "s004": "A"} if today == days()[0] else codes)
        if today == "2026-12-12":
            await phone.sync(kept_back.pop(0))
        if today == "2026-12-27":
            await other.sync(kept_back.pop(0))
        await world.settle()
        day += timedelta(days=1)
    return seen


async def reached(world: World) -> tuple[int, int]:
    """Last offset of the log and last entry of paper."""
    row = await world.db.fetch_one(
        "SELECT (SELECT coalesce(max(log_offset), 0) FROM changes), (SELECT coalesce(max(id), 0) FROM paper_entries)"
    )
    assert row is not None
    return row[0], row[1]


async def as_of(world: World, upto: tuple[int, int], path: Path, day: str) -> tuple[dict[str, Verdict], str | None]:
    """The verdicts, and the week that fires the gate, from nothing but the log and the paper up to a moment."""
    log_offset, entry = upto
    async with open_world(path, background=False) as again:
        async with again.db.transaction() as tx:
            for table, where in (
                ("devices", "1 = 1"),
                ("frames", f"id IN (SELECT frame_id FROM changes WHERE log_offset <= {log_offset})"),
                ("changes", f"log_offset <= {log_offset}"),
                ("paper_entries", f"id <= {entry}"),
            ):
                found = await world.db.fetch_all(f"SELECT * FROM {table} WHERE {where}")
                if found:
                    await tx.executemany(f"INSERT INTO {table} VALUES ({', '.join('?' * len(found[0]))})", found)
        await again.settle()
        await judge(again, day)
        stored = await parity_rows.weeks_of(again.db, SCHOOL)
        gate = await parity_rows.gate_of(again.db, SCHOOL)
        return {week: one.verdict for week, one in stored.items()}, None if gate is None else gate.week


async def test_the_log_of_each_past_day_gives_the_verdicts_of_that_day(world: World, tmp_path: Path) -> None:
    """Weeks, the day on which the gate fired, and the finding: a fold over the log, and nothing else."""
    seen = await live_a_term(world)
    judged = await world.db.fetch_all(
        "SELECT judged_ms, week, status, matched, compared, against, covered, expected, excluded FROM parity_weeks"
        " ORDER BY id"
    )
    story = [(row[1], row[2]) for row in judged]
    four = weeks(4)
    assert story == [
        (four[0], "passed"), (four[1], "not_evaluable"), (four[1], "passed"), (four[2], "passed"),
        (four[3], "passed"), (four[2], "failed"),
    ]  # fmt: skip
    (gate,) = await rows(world, "gates")
    (finding,) = await rows(world, "gate_findings")
    for number, (day, upto) in enumerate(seen.items()):
        if day < due(WEEK):
            continue
        move_to(world, day)
        now_ms = world.clock.wall_ms()
        stored: dict[str, tuple[object, ...]] = {row[1]: row[2:] for row in judged if row[0] <= now_ms}
        found, fires = await as_of(world, upto, tmp_path / f"day-{number}.db", day)
        told = {
            week: (one.status.value, one.matched, one.compared, one.against, one.covered, one.expected, one.excluded)
            for week, one in found.items()
        }
        assert {week: told[week] for week in stored} == stored, day
        assert (fires == gate[1]) == (gate[3] <= now_ms < finding[4]), day
    assert len(PUPILS) == judged[0][4] // 5
