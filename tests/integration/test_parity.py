"""Paper, parity and the gate through the real store: verdicts nobody can choose, and paper that retires by itself."""

from __future__ import annotations

import ast
import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from syncserver import parity_stage
from syncserver.orders import ORDERS
from syncserver.orders.parity import gate_view, parity_view, weigh_again
from syncserver.parity_stage import WOULD_NOT_HOLD
from syncserver.store.audit import row_hash
from tests.support.histories import EIGHT_MS
from tests.support.school_weeks import (
    PUPILS,
    SCHOOL,
    WEEK,
    at_once,
    by_hand,
    days,
    marks,
    outcome,
    register,
    store_outcome,
    weeks,
)
from tests.support.server.desks import central
from tests.support.server.parity_world import ABSENT, due, judge, live, move_to, rows, statuses, take, type_in
from tests.support.server.world import World, open_world

ZONE = "Africa/Cairo"
FOUR = weeks(4)


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    """A server whose consumer is moved by hand."""
    async with open_world(tmp_path / "store.db", background=False) as opened:
        yield opened


async def said(world: World) -> str:
    """The gate in English."""
    found = await gate_view(world.db, SCHOOL, ZONE, world.clock.wall_ms())
    return str(found["words"]["en"])


# ---- the gate ----------------------------------------------------------------------------------------------------


async def test_four_weeks_at_ninety_eight_percent_exactly_retire_paper_and_the_audit_tells_it(world: World) -> None:
    """196 of 200 in each week; the fourth verdict fires, in one transaction with its audit row."""
    for number, week in enumerate(FOUR):
        await live(world, week, wrong=4)
        result = await judge(world, due(week))
        assert result is not None
        assert [(one.week, one.matched, one.compared) for one in result.judged] == [(week, 196, 200)]
        assert result.fired is (number == 3)
    (gate,) = await rows(world, "gates")
    assert gate[:2] == (SCHOOL, FOUR[3])
    audit = await world.db.fetch_one("SELECT * FROM audit WHERE id = ?", (gate[-1],))
    assert audit is not None
    assert audit[2:5] == ("server", "gate", SCHOOL)
    assert [one["week"] for one in json.loads(audit[7])["weeks"]] == FOUR
    assert row_hash(audit[8], audit[:8]) == audit[9]
    assert (await said(world)).startswith("paper has retired")


async def test_one_cell_below_ninety_eight_percent_fails_and_the_count_begins_anew(world: World) -> None:
    """195 of 200 in the third week: what is missing is said in words."""
    for number, week in enumerate(FOUR):
        await live(world, week, wrong=5 if number == 2 else 0)
        await judge(world, due(week))
        if number == 2:
            words = await said(world)
    assert await statuses(world) == {week: ["failed" if week == FOUR[2] else "passed"] for week in FOUR}
    assert await rows(world, "gates") == []
    assert words == (
        f"0 of 4 weeks; week of {FOUR[2]} failed: 97.5% of 200, 98.0% needed; the next verdict on {due(FOUR[3])}"
    )
    assert (await said(world)).startswith("1 of 4 weeks")


async def test_a_holiday_week_between_neither_counts_nor_breaks(world: World) -> None:
    """Closed by the central office from Sunday to Wednesday of the third week; the fifth week fires."""
    five = weeks(5)
    holidays = days(five[2])
    await central(world).does(
        "calendar", date=holidays[0], to=holidays[3], open=False, reason="mid_year", reference="decree 12"
    )
    for week in five:
        if week != five[2]:
            await live(world, week)
        result = await judge(world, due(week))
    assert result is not None
    assert (await statuses(world))[five[2]] == ["paused"]
    assert [gate[1] for gate in await rows(world, "gates")] == [five[4]]


async def test_a_school_that_is_new_has_the_same_gate(world: World) -> None:
    """Twenty working days from its first paper: not a day earlier, whatever came before."""
    for week in FOUR:
        await live(world, week)
    await judge(world, due(FOUR[2]))
    assert await rows(world, "gates") == []
    result = await judge(world, due(FOUR[3]))
    assert result is not None
    assert result.fired


# ---- nobody can push it ------------------------------------------------------------------------------------------


async def test_evaluating_early_or_often_does_nothing(world: World) -> None:
    """Before a week is due, and again on the day on which it was judged, whatever is asked for."""
    await live(world, WEEK)
    move_to(world, "2026-12-01", 23)
    for args in ({}, {"school": SCHOOL, "week": WEEK, "force": True, "now_ms": 2**42, "outcome": "passed"}):
        done = await world.order("parity-evaluate", **args)
        assert done["judged"] == []
    await judge(world, due(WEEK))
    before = await rows(world, "parity_weeks")
    assert len(before) == 1
    await take(world, days()[0], {})
    for hour in (2, 12, 23):
        move_to(world, due(WEEK), hour)
        assert (await world.order("parity-evaluate"))["looked_at"] == 0
    assert await rows(world, "parity_weeks") == before


async def test_no_order_changes_a_verdict_or_a_gate(world: World) -> None:
    """Every order there is, given by whoever keeps the server, with arguments that name the school and the week."""
    for week in FOUR[:3]:
        await live(world, week)
        await judge(world, due(week))
    await live(world, FOUR[3], wrong=30)
    await judge(world, due(FOUR[3]))
    tables = ("parity_weeks", "parity_inputs", "parity_runs", "gates", "gate_findings")
    before = {table: await rows(world, table) for table in tables}
    args = {
        "school": SCHOOL, "week": FOUR[3], "register": f"{SCHOOL}/c-3a/{days(FOUR[3])[0]}/day", "reason": "because",
        "document": "period_sheet", "signed_by": "t1", "marks": {}, "date": days(FOUR[3])[0], "open": False,
        "reference": "decree 1", "two_person": True, "target": SCHOOL, "level": "nudge", "user": f"{SCHOOL}/t1",
        "status": "passed", "fired": True, "all": True, "scope": "*", "pupil": "s001", "code": "A", "id": 1,
        "now_ms": 2**42,
    }  # fmt: skip
    for name in ORDERS:
        await world.http.post(
            f"/v1/operator/{name}",
            params={"args": json.dumps(args)},
            headers={"content-type": "application/octet-stream"},
        )
    assert {table: await rows(world, table) for table in tables} == before


def test_verdicts_and_gates_are_written_by_the_evaluation_alone() -> None:
    """No other place of the server holds a statement that writes them, or calls a function that does."""
    root = Path(__file__).parents[2] / "syncserver"
    writers = {"write_week", "write_inputs", "write_run", "write_gate", "write_finding", "resolve_findings"}
    callers, statements = set(), set()
    for path in root.rglob("*.py"):
        name = path.relative_to(root).as_posix()
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                text = " ".join(node.value.split())
                for table in ("parity_weeks", "parity_inputs", "parity_runs", "gates", "gate_findings"):
                    if any(f"{verb} {table} " in f"{text} " for verb in ("INTO", "UPDATE", "DELETE FROM")):
                        statements.add(name)
            if isinstance(node, ast.Attribute) and node.attr in writers and node.value.id == "rows":  # type: ignore[attr-defined]
                callers.add(name)
    assert statements == {"store/parity.py"}
    assert callers == {"parity_stage.py"}


async def test_nothing_is_judged_while_changes_wait_to_become_official(world: World) -> None:
    """The verdict would rest on half of what the school has sent."""
    await live(world, WEEK)
    async with world.db.transaction() as tx:
        await tx.execute("INSERT INTO settle_again (school, cause, at_ms) VALUES (?, 'roster-import', 1)", (SCHOOL,))
    result = await judge(world, due(WEEK))
    assert result is not None
    assert (result.waits, await statuses(world)) == (True, {})
    await world.settle()
    await judge(world, due(WEEK))
    assert await statuses(world) == {WEEK: ["passed"]}


async def test_the_paper_that_is_compared_is_chosen_before_a_week_begins(world: World) -> None:
    """A rule for a week that has begun is refused; one for the next week holds from then on, and is in the audit."""
    move_to(world, days()[0])
    office = central(world)
    refused = await office.is_refused(
        "paper-rule", school=SCHOOL, document="class_book", from_week=WEEK, reason="better"
    )
    assert refused["rule"] == "paper-rule-ahead"
    made = await office.does("paper-rule", school=SCHOOL, document="period_sheet", two_person=True, reason="trust")
    assert made["from_week"] == FOUR[1]
    for week in FOUR[:2]:
        await live(world, week)
        await judge(world, due(week))
    assert await statuses(world) == {WEEK: ["passed"], FOUR[1]: ["not_evaluable"]}
    for day in days(FOUR[1]):
        await type_in(world, day, by="user:t2")
    await judge(world, due(FOUR[2]))
    assert (await statuses(world))[FOUR[1]] == ["not_evaluable", "passed"]


# ---- what comes late ---------------------------------------------------------------------------------------------


async def test_paper_found_a_week_later_changes_the_past_week(world: World) -> None:
    """By a second row: the first verdict stays to be seen."""
    await live(world, WEEK, paper=4)
    await judge(world, due(WEEK))
    assert await statuses(world) == {WEEK: ["not_evaluable"]}
    await type_in(world, days()[4])
    await judge(world, "2026-12-03")
    assert await statuses(world) == {WEEK: ["not_evaluable", "passed"]}


async def test_late_digital_arrivals_change_a_past_week(world: World) -> None:
    """A register without marks is a mismatch in every cell until its phone comes."""
    await live(world, WEEK, digital=4)
    await judge(world, due(WEEK))
    view = await parity_view(world.db, SCHOOL, ZONE, world.clock.wall_ms(), WEEK)
    missing = [one for one in view["registers"] if one["standing"] == "digital_missing"]
    assert [(one["cells"], one["matched"], one["kinds"]) for one in missing] == [
        (40, 0, {"absent/not_taken": 2, "late/not_taken": 1, "present/not_taken": 37})
    ]
    await take(world, days()[4])
    await judge(world, "2026-12-03")
    assert await statuses(world) == {WEEK: ["not_evaluable", "passed"]}


async def test_a_fired_gate_stays_fired_and_a_finding_says_what_would_change_it(world: World) -> None:
    """Raised once, with its audit row; taken back when a still later correction mends it."""
    for week in FOUR:
        await live(world, week)
        await judge(world, due(week))
    gate = await rows(world, "gates")
    sunday = days(FOUR[1])[0]
    await take(world, sunday, {**ABSENT, **dict.fromkeys(("s011", "s012", "s013", "s014", "s015"), "A")})
    result = await judge(world, "2026-12-24")
    assert result is not None
    assert result.finding == WOULD_NOT_HOLD
    assert await rows(world, "gates") == gate
    found = await gate_view(world.db, SCHOOL, ZONE, world.clock.wall_ms())
    assert not found["paper"]
    assert [(one["name"], one["resolved_ms"]) for one in found["findings"]] == [(WOULD_NOT_HOLD, None)]
    assert [one["status"] for one in found["findings"][0]["weeks"]] == ["passed", "failed", "passed", "passed"]
    await judge(world, "2026-12-25")
    await take(world, sunday)
    await judge(world, "2026-12-26")
    (finding,) = await rows(world, "gate_findings")
    assert finding[5] == world.clock.wall_ms()
    actions = [
        row[0] for row in await world.db.fetch_all("SELECT action FROM audit WHERE actor = 'server' ORDER BY id")
    ]
    assert actions == ["gate", WOULD_NOT_HOLD, "gate-finding-resolved"]
    assert await rows(world, "gates") == gate


async def test_evaluating_again_adds_nothing_and_weighing_anew_agrees(world: World) -> None:
    """Deterministic: what was judged is what comes out once more."""
    for week in FOUR[:2]:
        await live(world, week)
        await judge(world, due(week))
    before = await rows(world, "parity_weeks")
    result = await judge(world, "2026-12-12")
    assert result is not None
    assert (result.judged, await rows(world, "parity_weeks")) == ([], before)
    again = await weigh_again(world.db, SCHOOL, ZONE, world.clock.wall_ms())
    assert again == {"weeks": 2, "differ": [], "changed": []}
    async with world.db.transaction() as tx:
        await tx.execute("UPDATE parity_weeks SET matched = 199 WHERE week = ?", (WEEK,))
    again = await weigh_again(world.db, SCHOOL, ZONE, world.clock.wall_ms())
    assert again["differ"] == [WEEK]


async def test_a_merged_record_is_one_pupil_on_both_sides(world: World) -> None:
    """The sheet names the duplicate, the register the record it was merged into: they agree, and are one cell."""
    async with world.db.transaction() as tx:
        await tx.execute(
            """INSERT INTO aliases (school, alias, canonical, reason, by_id, at_ms, audit_id)
            VALUES (?, 's040', 's001', 'twice', 'ch1', 1, 0)""",
            (SCHOOL,),
        )
    for n, day in enumerate(days()):
        values = marks(by_hand(n, 39), {"s001": "A"}, PUPILS[:39])
        await store_outcome(world.db, outcome(register(day), values, user="t1", pupils=PUPILS[:39]))
        await type_in(world, day, {"s040": "A"} if n else {"s040": "A", "s001": "L"})
    result = await judge(world, due(WEEK))
    assert result is not None
    assert [(one.matched, one.compared) for one in result.judged] == [(195, 195)]


# ---- what is excluded --------------------------------------------------------------------------------------------


async def test_a_batch_copied_week_is_excluded_and_cannot_pass(world: World) -> None:
    """One pattern under five dates: the first stays, four are excluded with a reason, and nobody is named."""
    for day in days():
        await take(world, day, seed=7)
        await type_in(world, day)
    await judge(world, due(WEEK))
    assert await statuses(world) == {WEEK: ["not_evaluable"]}
    view = await parity_view(world.db, SCHOOL, ZONE, world.clock.wall_ms(), WEEK)
    standings = [one["standing"] for one in view["registers"]]
    assert standings == ["compared", *["excluded"] * 4]
    (sign,) = view["registers"][1]["signs"]
    assert sign["kind"] == "copied_pattern"
    assert "another register" in sign["en"]
    assert not any(f'"{name}"' in json.dumps(view, ensure_ascii=False) for name in ("t1", "s001"))


async def test_a_week_copied_from_the_week_before_is_excluded(world: World) -> None:
    """Day by day; the week that was copied from keeps its verdict."""
    for week in FOUR[:2]:
        for n, day in enumerate(days(week)):
            await take(world, day, seed=n)
            await type_in(world, day)
        await judge(world, due(week))
    assert await statuses(world) == {WEEK: ["passed"], FOUR[1]: ["not_evaluable"]}


async def test_all_present_days_are_compared_like_others(world: World) -> None:
    """Pressed every day, then three pupils corrected by hand."""
    for n, day in enumerate(days()):
        pressed = EIGHT_MS + 7_919 * n
        late = {pupil: f"{code}{pressed + 5_000 * (k + 1)}" for k, (pupil, code) in enumerate(ABSENT.items())}
        await store_outcome(world.db, outcome(register(day), at_once(pressed), late, user="t1"))
        await type_in(world, day)
    await judge(world, due(WEEK))
    assert await statuses(world) == {WEEK: ["passed"]}


async def test_equal_stamps_without_the_act_are_excluded(world: World) -> None:
    """A week written by a program."""
    for n, day in enumerate(days()):
        stamps = [EIGHT_MS + 7_919 * n] * 40
        await store_outcome(world.db, outcome(register(day), marks(stamps, ABSENT), user="t1"))
        await type_in(world, day)
    await judge(world, due(WEEK))
    view = await parity_view(world.db, SCHOOL, ZONE, world.clock.wall_ms())
    (week,) = [one for one in view["weeks"] if one["week"] == WEEK]
    assert (week["status"], week["excluded"], week["covered"]) == ("not_evaluable", 5, 5)


# ---- the timer ---------------------------------------------------------------------------------------------------


async def test_the_server_judges_by_itself_and_a_fault_does_not_end_it(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its coroutine looks at once, and then again and again: what raises is in the log, and the next look judges."""
    looks = []

    async def evaluate(*args: object, **more: object) -> list[parity_stage.Evaluated]:
        looks.append(1)
        if len(looks) == 1:
            raise RuntimeError
        return await real(*args, **more)  # type: ignore[arg-type]

    real = parity_stage.evaluate
    monkeypatch.setattr(parity_stage, "evaluate", evaluate)
    monkeypatch.setattr(parity_stage, "_LOOK_EVERY_S", 0)
    await live(world, WEEK)
    move_to(world, due(WEEK))
    task = asyncio.create_task(parity_stage.run(world.db, world.server.config, world.server.ports))
    while not await statuses(world):
        await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert len(looks) > 1
    assert await statuses(world) == {WEEK: ["passed"]}
