"""A school that keeps paper beside digital registers, week after week, in a real store."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from clientcore.register import Code, RegisterId
from reconciliation.clocks import midnight_ms
from reconciliation.gate import due_date
from reconciliation.paper import Document
from syncserver.parity_stage import Evaluated, evaluate
from syncserver.store.paper import NewEntry, write_entries
from tests.support.school_weeks import CALENDAR, PUPILS, SCHOOL, ZONE, by_hand, days, marks, outcome, store_outcome
from tests.support.server.world import World

ABSENT = {"s001": "A", "s002": "L", "s003": "A"}
"""What every sheet of a usual day says."""


def move_to(world: World, date: str, hour: int = 1) -> None:
    """Let it be an hour of a date at the schools."""
    world.clock.set_wall_ms(midnight_ms(date, ZONE) + hour * 3_600_000)


def due(week: str) -> str:
    """When a week is judged."""
    return due_date(week, CALENDAR)


async def type_in(
    world: World, day: str, codes: Mapping[str, str] | None = None, *, by: str = "user:ch1", class_id: str = "c-3a"
) -> None:
    """The sheet of a day, straight into the store."""
    entry = NewEntry(
        school=SCHOOL,
        key=(class_id, day, "day"),
        document=Document.PERIOD_SHEET,
        signed_by="t1",
        marks={pupil: Code(code) for pupil, code in (ABSENT if codes is None else codes).items()},
    )
    async with world.db.transaction() as tx:
        await write_entries(tx, [entry], entered_by=by, at_ms=world.clock.wall_ms(), audit_id=0)


async def take(world: World, day: str, codes: Mapping[str, str] | None = None, *, seed: int | None = None) -> None:
    """The digital register of a day, tapped by hand, as settled."""
    stamps = by_hand(sum(map(ord, day)) * 31 + int(day[-2:]) if seed is None else seed)
    name = RegisterId(SCHOOL, "c-3a", day, "day")
    await store_outcome(world.db, outcome(name, marks(stamps, ABSENT if codes is None else codes), user="t1"))


async def live(world: World, week: str, *, wrong: int = 0, digital: int = 5, paper: int = 5) -> None:
    """A week of one class: 200 cells, `wrong` of which disagree, and perhaps registers missing on one side."""
    for n, day in enumerate(days(week)):
        if n < digital:
            codes = dict(ABSENT)
            if n == 0:
                codes |= dict.fromkeys(PUPILS[3 : 3 + wrong], "A")
            await take(world, day, codes)
        if n < paper:
            await type_in(world, day)


async def judge(world: World, date: str) -> Evaluated | None:
    """What the server's timer does after midnight of a date; None when no school was to be looked at."""
    move_to(world, date)
    found = await evaluate(world.db, world.server.config, world.clock.wall_ms())
    return found[0] if found else None


async def rows(world: World, table: str) -> list[tuple[Any, ...]]:
    """A whole table."""
    return await world.db.fetch_all(f"SELECT * FROM {table} ORDER BY 1")


async def statuses(world: World) -> dict[str, list[str]]:
    """Every verdict ever made, by week."""
    found: dict[str, list[str]] = {}
    for week, status in await world.db.fetch_all("SELECT week, status FROM parity_weeks ORDER BY id"):
        found.setdefault(week, []).append(status)
    return found
