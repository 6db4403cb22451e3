"""Typing paper in: one sheet, many in a file, two people, and everything that is refused."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from syncserver.access import OPERATOR, ApiRole, Desk, Principal, give
from syncserver.errors import RequestProblem
from syncserver.orders import ORDERS
from tests.support.school_weeks import days
from tests.support.server.desks import champion
from tests.support.server.world import OTHER_SCHOOL, SCHOOL, TODAY, World, open_world

REGISTER = f"{SCHOOL}/c-3a/{TODAY}/day"
HEAD = "school,class,date,session,document,signed_by,pupil,code\n"


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    """A server whose consumer is moved by hand."""
    async with open_world(tmp_path / "store.db", background=False) as opened:
        yield opened


def sheet(**more: object) -> dict[str, object]:
    """Arguments of one sheet."""
    return {"register": REGISTER, "document": "period_sheet", "signed_by": "t1", "marks": {"s001": "absent"}, **more}


async def bring(world: World, text: str, **args: object) -> dict[str, Any]:
    """Import a file as an operator."""
    desk = Desk(config=world.server.config, db=world.db, ports=world.server.ports, who=OPERATOR)
    return await give(ORDERS["paper-import"], desk, args, text.encode())


async def stored(world: World) -> list[tuple[Any, ...]]:
    """What is in the table."""
    return await world.db.fetch_all(
        "SELECT class_id, date, document, signed_by, marks_json, entered_by FROM paper_entries ORDER BY id"
    )


async def test_a_champion_types_a_sheet_in_and_the_audit_keeps_before_and_after(world: World) -> None:
    """Typed again with a difference both stay; without one nothing is added."""
    desk = champion(world)
    first = await desk.does("paper-enter", **sheet())
    assert first["state"] == "entered"
    assert (await desk.does("paper-enter", **sheet()))["state"] == "unchanged"
    await desk.does("paper-enter", **sheet(marks={"s001": "L"}))
    by = f"user:{SCHOOL}/ch1"
    assert await stored(world) == [
        ("c-3a", TODAY, "period_sheet", "t1", '{"s001":"A"}', by),
        ("c-3a", TODAY, "period_sheet", "t1", '{"s001":"L"}', by),
    ]
    told = await world.db.fetch_all("SELECT actor, subject, before_json FROM audit WHERE action = 'paper' ORDER BY id")
    assert told == [(by, REGISTER, "{}"), (by, REGISTER, '{"marks": "{\\"s001\\":\\"A\\"}", "signed_by": "t1"}')]


async def test_the_list_shows_what_counts_and_where_two_people_differ(world: World) -> None:
    """A third look decides."""
    people = [champion(world, f"ch{n}") for n in (1, 2, 3)]
    await people[0].does("paper-enter", **sheet())
    await people[1].does("paper-enter", **sheet(marks={"s002": "late"}))
    (found,) = (await people[0].does("paper-list", school=SCHOOL))["sheets"]
    assert (found["state"], found["marks"], found["differences"]) == ("different", {}, ["s001", "s002"])
    await people[2].does("paper-enter", **sheet(marks={"s002": "late"}))
    (found,) = (await people[0].does("paper-list", school=SCHOOL, week=days()[3]))["sheets"]
    assert (found["state"], found["marks"]) == ("counts", {"s002": "late"})
    assert [one["entered_by"].rpartition("/")[2] for one in found["entries"]] == ["ch1", "ch2", "ch3"]
    await people[2].does("paper-enter", **sheet(document="class_book"))
    (found,) = (await people[0].does("paper-list", school=SCHOOL))["sheets"]
    assert len(found["entries"]) == 4


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"marks": {"s001": "present"}}, "absent"),
        ({"marks": {"s001": ["A"]}}, "absent"),
        ({"marks": ["s001"]}, "object"),
        ({"marks": {"zz9": "A"}}, "zz9 is not on"),
        ({"document": "diary"}, "period_sheet"),
        ({"signed_by": "s001"}, "s001"),
        ({"signed_by": "Mrs Amal"}, "staff"),
        ({"register": f"{SCHOOL}/c-3a/2026-11-23/day"}, "not come"),
        ({"register": f"{SCHOOL}/c-3a/2024-11-24/day"}, "400 days"),
        ({"register": f"{SCHOOL}/c-3b/{TODAY}/day"}, "no pupils"),
        ({"register": f"{SCHOOL}/c-3a/{TODAY}/noon"}, "session"),
        ({"week": "soon"}, "week"),
    ],
)
async def test_what_cannot_be_a_sheet_is_refused_in_words(world: World, more: dict[str, object], words: str) -> None:
    """And nothing is stored."""
    order = "paper-list" if "week" in more else "paper-enter"
    with pytest.raises(RequestProblem) as refused:
        await champion(world).does(order, **{"school": SCHOOL, **sheet(**more)})
    assert refused.value.code == "bad-request"
    assert words in refused.value.detail
    assert await stored(world) == []


async def test_a_champion_enters_for_the_own_school_and_imports_nothing(world: World) -> None:
    """Another school's sheet, a file of many schools, and what a reader may not write."""
    other = f"{OTHER_SCHOOL}/c-3a/{TODAY}/day"
    reader = Principal(role=ApiRole.AUDITOR, actor="token:a", schools=None)
    for who, name, args in (
        (champion(world).who, "paper-enter", sheet(register=other)),
        (champion(world).who, "paper-import", {}),
        (reader, "paper-enter", sheet()),
        (champion(world).who, "paper-rule", {"school": SCHOOL}),
    ):
        desk = Desk(config=world.server.config, db=world.db, ports=world.server.ports, who=who)
        with pytest.raises(RequestProblem) as refused:
            await give(ORDERS[name], desk, args)
        assert refused.value.code == "forbidden"
    assert await stored(world) == []


FILE = f"""{HEAD}{SCHOOL},c-3a,{TODAY},day,period_sheet,t1,s001,absent
{SCHOOL},c-3a,{TODAY},day,period_sheet,t1,s002,L
{SCHOOL},c-3a,2026-11-19,day,class_book,principal,,
{OTHER_SCHOOL},c-3a,٢٠٢٦-١١-١٩,day,period_sheet,t2,s003,absent_excused
"""


async def test_a_file_is_brought_in_whole_and_a_second_time_adds_nothing(world: World) -> None:
    """Three sheets, one of them without anybody absent; with a byte order mark and Arabic digits."""
    dry = await bring(world, FILE, dry_run=True)
    assert (dry["state"], dry["would_add"], await stored(world)) == ("dry-run", 3, [])
    done = await bring(world, "\ufeff" + FILE)
    assert (done["state"], done["lines"], done["sheets"], done["added"]) == ("applied", 4, 3, 3)
    assert [row[:5] for row in await stored(world)] == [
        ("c-3a", TODAY, "period_sheet", "t1", '{"s001":"A","s002":"L"}'),
        ("c-3a", "2026-11-19", "class_book", "principal", "{}"),
        ("c-3a", "2026-11-19", "period_sheet", "t2", '{"s003":"E"}'),
    ]
    assert (await bring(world, FILE))["added"] == 0
    told = await world.db.fetch_all("SELECT actor FROM audit WHERE action = 'paper-import'")
    assert told == [("operator",)]


async def test_every_mistake_of_a_file_is_told_with_its_line_and_nothing_is_applied(world: World) -> None:
    """Nothing half applied."""
    lines = [
        f"{SCHOOL},c-3a,{TODAY},day,period_sheet,t1,s001,A",
        f"{SCHOOL},c-3a,{TODAY},day,period_sheet,t1,s001,L",
        f"{SCHOOL},c-3a,{TODAY},day,period_sheet,t2,s002,A",
        f"{SCHOOL},c-3a,{TODAY},day,period_sheet,t1,s003,P",
        f"{SCHOOL},c-3a,{TODAY},day,period_sheet,t1,s004,",
        f"{SCHOOL},c-3a,{TODAY},day,period_sheet,t1,zz9,A",
        f"{SCHOOL},c-3a,{TODAY},day,diary,t1,s001,A",
        f"{SCHOOL},c-9,{TODAY},day,period_sheet,t1,s001,A",
        f"{SCHOOL},c-3a,2027-11-22,day,period_sheet,t1,s001,A",
        f"{SCHOOL},c-3a,22/11/2026,day,period_sheet,t1,s001,A",
        "too,short",
        "",
        f"{SCHOOL},c-3a,2026-11-18,day,period_sheet,nobody,s001,A",
    ]
    report = await bring(world, HEAD + "\n".join(lines))
    assert report["state"] == "errors"
    assert [(one["row"], one["slug"]) for one in report["errors"]] == [
        (3, "twice"), (4, "unknown-signer"), (5, "bad-code"), (6, "half-row"), (7, "unknown-pupil"),
        (8, "bad-document"), (9, "unknown-class"), (10, "future-date"), (11, "bad-register"), (12, "columns"),
        (14, "unknown-signer"),
    ]  # fmt: skip
    assert all(one["en"] and one["ar"] for one in report["errors"])
    assert await stored(world) == []


@pytest.mark.parametrize("text", ["", "school;class\n", "a,b\n"])
async def test_a_file_with_other_columns_is_told_which_are_needed(world: World, text: str) -> None:
    """On its first line."""
    report = await bring(world, text)
    assert [(one["row"], one["slug"]) for one in report["errors"]] == [(1, "columns")]


async def test_what_is_no_csv_is_refused(world: World) -> None:
    """Bytes of another kind of file, and one that is too long."""
    desk = Desk(config=world.server.config, db=world.db, ports=world.server.ports, who=OPERATOR)
    for data in (b"\xff\xfe\x00PK", HEAD.encode() + b"\n" * 200_001):
        with pytest.raises(RequestProblem) as refused:
            await give(ORDERS["paper-import"], desk, {}, data)
        assert refused.value.code == "bad-request"
