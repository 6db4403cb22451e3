"""Reports of a real store against an independent recount, and every file a report can become."""

from __future__ import annotations

import asyncio
import csv
import io
import json
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import duckdb
import pytest
from click.testing import CliRunner
from openpyxl import load_workbook

from clientcore.register import RegisterId
from reconciliation.clocks import midnight_ms
from reconciliation.reports import CODE_WORDS, Summary, summary_of
from syncserver.access import ApiRole, Principal
from syncserver.cli import main
from syncserver.errors import RequestProblem
from syncserver.reports.build import read_wish, report
from syncserver.reports.columns import ARABIC, KEYS
from syncserver.reports.files import harmless, write
from syncserver.store.packed import unpack_outcome, unpack_wire
from syncserver.store.summaries import pack_counts, summaries_of
from tests.support.school_weeks import ZONE, at_once, by_hand, days, marks, outcome, store_outcome
from tests.support.server.orders import ask_with, give, operator, token
from tests.support.server.world import OTHER_SCHOOL, PUPILS, SCHOOL, World, address_of, open_world

SUNDAY, *_ = days()
FRIDAY = "2026-11-27"
BEGINS = midnight_ms(SUNDAY, ZONE)
# The code's letter in the stored answer, by the wire format's page, and not by the classes under test.
LETTERS = dict(zip("PLXAEUDS", CODE_WORDS, strict=True))


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    """The week after it was over: c-3a taken Sunday to Wednesday in different ways, c-3b (two pupils) never."""
    async with open_world(tmp_path / "store.db", background=False) as opened:
        opened.clock.set_wall_ms(midnight_ms(FRIDAY, ZONE) + 36_000_000)
        async with opened.db.transaction() as tx:
            await tx.executemany(
                "INSERT INTO members VALUES (?, 'c-3b', ?, 'pupil', 1, '2026-09-01', NULL, ?, 1, NULL)",
                [(SCHOOL, pupil, n) for n, pupil in enumerate(("s001", "s002"))],
            )
            await tx.execute("INSERT INTO places VALUES (?, 'd1', 'g1', 1)", (SCHOOL,))
        for day, some in zip(days(), week_of_marks(), strict=False):
            await store_outcome(opened.db, outcome(RegisterId(SCHOOL, "c-3a", day, "day"), some, user="t1"))
        yield opened


def week_of_marks() -> list[dict[str, str]]:
    sunday = marks(by_hand(1), {"s001": "A", "s002": "L", "s003": "E", "s004": "X", "s005": "D", "s006": "S"})
    monday = {pupil: value for pupil, value in marks(by_hand(2), {"s007": "U"}).items() if pupil < "s031"}
    tuesday = at_once(29_000_000)
    return [sunday, monday, tuesday, {"~session": "N30000000:strike", "s001": "A28800000"}]


REGISTER = "school || '/' || class_id || '/' || date || '/' || session"


async def built(world: World, kind: str, **args: str) -> dict[str, Any]:
    now_ms = world.clock.wall_ms()
    return await report(world.db, read_wish(kind, args, FRIDAY), zone="Africa/Cairo", now_ms=now_ms)


def recount(bodies: list[tuple[str, bytes]]) -> dict[str, dict[str, int]]:
    """Answers by day and code straight from the stored JSON, by another engine."""
    plain = [unpack_wire(body, register) for register, body in bodies]
    cells = [
        (one["register"].split("/")[2], "-" if row is None or row[1] is None else row[0][row[1]][0][0])
        for one in plain
        if one["occasion"] != "no_session"
        for row in one["answers"].values()
    ]
    counted = duckdb.connect()
    counted.execute("CREATE TABLE cells (day VARCHAR, code VARCHAR)")
    counted.executemany("INSERT INTO cells VALUES (?, ?)", cells)
    found: dict[str, dict[str, int]] = {}
    for day, code, number in counted.execute("SELECT day, code, count(*) FROM cells GROUP BY ALL").fetchall():
        found.setdefault(day, {})[code] = number
    return found


# ---- numbers ----------------------------------------------------------------------------------------------------


async def test_every_number_equals_an_independent_recount(world: World) -> None:
    """Class by day, school, district, week: from the outcomes' own JSON, by DuckDB."""
    rows = await world.db.fetch_all(f"SELECT {REGISTER}, body FROM whole_outcomes WHERE school = ?", (SCHOOL,))
    wanted = recount([(row[0], row[1]) for row in rows])
    week = await built(world, "class", school=SCHOOL, day=SUNDAY, period="week", **{"class": "c-3a"})
    assert [row["date"] for row in week["rows"]] == days()
    for row in week["rows"]:
        codes = wanted.get(row["date"], {})
        assert {word: row[word] for word in CODE_WORDS} == {LETTERS[c]: codes.get(c, 0) for c in LETTERS}
    total = {LETTERS[c]: sum(day.get(c, 0) for day in wanted.values()) for c in LETTERS}
    for kind, more in (("class", {"class": "c-3a"}), ("school", {}), ("district", {})):
        found = await built(world, kind, school=SCHOOL, day=SUNDAY, period="week", **more)
        assert {word: found["total"][word] for word in CODE_WORDS} == total
        assert found["total"]["absent_all"] == sum(
            total[word] for word in ("absent", "absent_excused", "absent_unexcused")
        )
    assert week["total"]["not_taken"] == sum(day.get("-", 0) for day in wanted.values()) + len(PUPILS)  # and Thursday


async def test_the_sum_of_the_days_is_the_week(world: World) -> None:
    week = (await built(world, "school", school=SCHOOL, day=SUNDAY, period="week"))["total"]
    single = [(await built(world, "school", school=SCHOOL, day=day))["total"] for day in days()]
    for key in KEYS[5:-4]:
        assert sum(row[key] for row in single) == week[key], key


async def test_registers_stand_where_they_are(world: World) -> None:
    """Taken three, no session one, the rest not taken: c-3a's Thursday and five of c-3b's two pupils."""
    total = (await built(world, "school", school=SCHOOL, day=SUNDAY, period="week"))["total"]
    assert {key: n for key, n in total.items() if key.startswith("registers_") and n} == {
        "registers_expected": 10, "registers_taken": 3, "registers_no_session": 1, "registers_not_taken": 6
    }  # fmt: skip
    assert total["roster"] == 3 * 40 + 40 + 5 * 2
    assert total["not_taken"] == 10 + 40 + 10
    assert (total["attended_pct"], total["absent_pct"]) == (62.4, 1.8)  # 106 and 3 of 170


async def test_unsent_work_and_silence_are_told_apart_in_a_report(world: World) -> None:
    """t1 teaches both classes, t2 the first one; what their phones last said decides, and no pupil is absent by it."""
    await world.phone("t1")
    tuesday = midnight_ms("2026-11-24", ZONE)
    for unsent, last_ms, name in ((0, BEGINS - 1, "silent"), (3, tuesday, "not_arrived"), (0, tuesday, "not_taken")):
        async with world.db.transaction() as tx:
            await tx.execute("UPDATE devices SET last_contact_ms = ?, unsent = ?", (last_ms, unsent))
        found = await built(world, "class", school=SCHOOL, day=SUNDAY, **{"class": "c-3b"})
        assert (found["total"][f"registers_{name}"], found["total"]["absent_all"]) == (1, 0)
        assert found["total"]["attended_pct"] is None
        parts = {key: n for key, n in found["total"].items() if key.startswith("not_taken_") and n and "pct" not in key}
        assert parts == {"not_taken_no_mark" if name == "not_taken" else f"not_taken_{name}": 2}


async def test_what_arrived_and_is_not_settled_is_not_called_missing(world: World) -> None:
    phone = await world.phone("t1")
    name = f"c-3b/{SUNDAY}/day"
    await phone.sync((name, phone.take(name, {"s001": "P"})))
    args = {"school": SCHOOL, "class": "c-3b", "day": SUNDAY}
    assert (await built(world, "class", **args))["total"]["registers_in_review"] == 1
    await world.settle()
    total = (await built(world, "class", **args))["total"]
    assert (total["registers_taken"], total["not_taken"], total["late_arrivals"]) == (1, 1, 1)


async def test_adjustments_that_wait_answer_nothing(world: World) -> None:
    """Two pupils called absent the day after: two requests, nobody absent; approved, both are."""
    late = {"s001": "A108000000", "s002": "A108001000"}
    for approved, wanted in ((False, (1, 0, 2, 2, 0)), (True, (0, 1, 0, 0, 2))):
        name = RegisterId(SCHOOL, "c-3b", SUNDAY, "day")
        found = outcome(name, late, user="t1", pupils=("s001", "s002"), approved=approved)
        async with world.db.transaction() as tx:
            await tx.execute("DELETE FROM outcomes WHERE class_id = 'c-3b'")
        await store_outcome(world.db, found)
        total = (await built(world, "class", school=SCHOOL, day=SUNDAY, **{"class": "c-3b"}))["total"]
        keys = ("registers_in_review", "registers_taken", "not_taken_in_review", "adjustments_waiting", "absent_all")
        assert tuple(total[key] for key in keys) == wanted


async def test_a_closed_day_expects_nothing_and_its_marks_stand_apart(world: World) -> None:
    await world.order("calendar", date=SUNDAY, open=False, reason="storm", reference="decree 1")
    found = await built(world, "school", school=SCHOOL, day=SUNDAY)
    assert {key: n for key, n in found["total"].items() if key in KEYS[5:] and n} == {"registers_unexpected": 1}


async def test_a_merged_record_is_one_pupil_of_the_roster(world: World) -> None:
    async with world.db.transaction() as tx:
        await tx.execute("INSERT INTO aliases VALUES (1, ?, 's002', 's001', 'x', 'ch1', 1, NULL, 1)", (SCHOOL,))
    found = await built(world, "class", school=SCHOOL, day=SUNDAY, **{"class": "c-3b"})
    assert found["total"]["roster"] == 1


# ---- summaries --------------------------------------------------------------------------------------------------


async def test_a_stored_summary_is_what_the_outcome_says_and_an_old_one_is_passed_over(world: World) -> None:
    rows = await world.db.fetch_all(
        f"SELECT class_id, date, revision, {REGISTER}, body FROM whole_outcomes WHERE school = ?", (SCHOOL,)
    )
    plain = [(*row[:3], summary_of(unpack_outcome(row[4], row[3]))) for row in rows]
    wanted = {summary.key: summary for *_, summary in plain}
    assert len(wanted) == 4
    # A number that only a stored summary has; the true ones; and that number in a summary of an earlier revision.
    for older, absent in ((0, 40), (0, None), (1, 40)):
        async with world.db.transaction() as tx:
            await tx.executemany(
                "UPDATE outcomes SET counts = ? WHERE class_id = ? AND date = ?",
                [
                    (pack_counts(revision - older, summary if absent is None else changed(summary, absent)), *key)
                    for *key, revision, summary in plain
                ],
            )
        found = await summaries_of(world.db, SCHOOL, ["c-3a"], SUNDAY, FRIDAY)
        is_read = not older and absent is not None
        assert (found == wanted) is not is_read
        assert all(one.codes["absent"] == 40 for one in found.values()) is is_read


def changed(summary: Summary, absent: int) -> Summary:
    return replace(summary, codes={**summary.codes, "absent": absent})


async def test_settling_gives_the_same_report_with_and_without_summaries(world: World) -> None:
    """A register of today through the real road."""
    world.clock.set_wall_ms(midnight_ms(SUNDAY, ZONE) + 36_000_000)
    phone = await world.phone("t1")
    name = f"c-3b/{SUNDAY}/day"
    await phone.sync((name, phone.take(name, {"s001": "P", "s002": "A"})))
    await world.settle()
    found = await built(world, "class", school=SCHOOL, day=SUNDAY, **{"class": "c-3b"})
    assert (found["total"]["present"], found["total"]["absent"], found["total"]["attended_pct"]) == (1, 1, 50.0)
    assert await world.db.fetch_one("SELECT count(*) FROM outcomes WHERE counts IS NULL AND class_id = 'c-3b'") == (0,)
    async with world.db.transaction() as tx:
        await tx.execute("UPDATE outcomes SET counts = NULL")
    assert await built(world, "class", school=SCHOOL, day=SUNDAY, **{"class": "c-3b"}) == found


# ---- no absence out of silence, no ranking ----------------------------------------------------------------------


async def test_no_output_has_an_absence_that_no_mark_made(world: World) -> None:
    """Each kind, each day, each format: absences are those of the marks in registers that took place."""
    marked = {day: sum(v[0] in "AEU" for k, v in some.items() if k != "~session")
              for day, some in zip(days(), week_of_marks(), strict=False)}  # fmt: skip
    marked[days()[3]] = 0  # no session
    for kind in ("class", "school", "district"):
        for day in (*days(), FRIDAY):
            found = await built(world, kind, school=SCHOOL, day=day)
            assert found["total"]["absent_all"] == marked.get(day, 0)
            for form in ("jsonl", "csv"):
                text = write(found, form).decode()
                rows = (
                    [json.loads(line) for line in text.splitlines()]
                    if form == "jsonl"
                    else [*csv.DictReader(io.StringIO(text))]
                )
                assert sum(
                    int(row[word]) for row in rows for word in ("absent", "absent_excused", "absent_unexcused")
                ) == marked.get(day, 0)


async def test_lines_come_by_id_and_no_line_is_about_a_pupil(world: World) -> None:
    """Fixed order, whatever the numbers; pupils and teachers have no line at all."""
    found = await built(world, "school", school=SCHOOL, day=SUNDAY, period="week")
    assert [row["class"] for row in found["rows"]] == ["c-3a", "c-3b"]
    text = json.dumps(found)
    assert not [name for name in (*PUPILS, "t1", "t2", "ch1") if f'"{name}"' in text]


# ---- files ------------------------------------------------------------------------------------------------------


async def test_csv_for_programs_and_for_people(world: World) -> None:
    found = await built(world, "school", school=SCHOOL, day=SUNDAY)
    plain = write(found, "csv")
    assert not plain.startswith(b"\xef\xbb\xbf")
    assert plain.decode().splitlines()[0] == ",".join(KEYS)
    people = write(found, "csv", bom=True, arabic=True)
    assert people.startswith(b"\xef\xbb\xbf")
    rows = [*csv.reader(io.StringIO(people.decode("utf-8-sig")))]
    assert rows[1] == [ARABIC[key] for key in KEYS]
    assert len(rows) == 2 + len(found["rows"])


async def test_ids_keep_their_zeros_and_compute_nothing(world: World) -> None:
    """A class called 007, and a district that would be a formula."""
    async with world.db.transaction() as tx:
        await tx.execute(
            "INSERT INTO members VALUES (?, '007', 's001', 'pupil', 1, '2026-09-01', NULL, 0, 1, NULL)", (SCHOOL,)
        )
        await tx.execute("UPDATE places SET district = '=1+1'")
    found = await built(world, "school", school=SCHOOL, day=SUNDAY)
    row = next(csv.DictReader(io.StringIO(write(found, "csv").decode())))
    assert (row["class"], row["district"]) == ("007", "'=1+1")
    sheet = load_workbook(io.BytesIO(write(found, "xlsx"))).active
    assert sheet is not None
    assert (sheet["C4"].value, sheet["C4"].data_type, sheet["A4"].value, sheet["A4"].data_type) == (
        "007",
        "s",
        "=1+1",
        "s",
    )
    assert [harmless(text) for text in ("=x", "+x", "-x", "@x", "x", None)] == ["'=x", "'+x", "'-x", "'@x", "x", ""]


async def test_the_workbook_opens_right_to_left_with_arabic_headings(world: World) -> None:
    found = await built(world, "school", school=SCHOOL, day=SUNDAY, period="week")
    data = write(found, "xlsx")
    assert data == write(found, "xlsx")  # no clock in it
    sheet = load_workbook(io.BytesIO(data)).active
    assert sheet is not None
    assert sheet.sheet_view.rightToLeft
    assert sheet.freeze_panes == "A4"
    head, *body = sheet.iter_rows(min_row=2, values_only=True)
    assert list(head) == [ARABIC[key] for key in KEYS]
    assert list(body[0]) == list(KEYS)
    at = {key: n for n, key in enumerate(KEYS)}
    assert [row[at["present"]] for row in body[1:]] == [row["present"] for row in found["rows"]] + [
        found["total"]["present"]
    ]
    assert all(type(row[at["roster"]]) is int for row in body[1:])
    assert body[-1][0] == "الإجمالي"


# ---- doors ------------------------------------------------------------------------------------------------------


async def test_reports_over_http_in_every_format(world: World) -> None:
    for kind in ("class", "school", "district"):
        for form in ("json", "jsonl", "csv", "xlsx"):
            asked = {"school": SCHOOL, "day": SUNDAY, "period": "week", "format": form, "bom": "1"}
            reply = await world.http.get(f"/v1/reports/{kind}", params=asked)
            assert reply.status_code == 200, reply.text
            assert reply.content.startswith(b"\xef\xbb\xbf") == (form == "csv")
    for wrong in ({"format": "pdf"}, {"day": "2026-02-31"}, {"period": "term"}, {"bom": "yes"}, {"school": "a/b"}):
        reply = await world.http.get("/v1/reports/school", params={"school": SCHOOL, **wrong})
        assert (reply.status_code, reply.json()["type"]) == (400, "/problems/bad-request"), wrong
    for lost in ({"school": "unknown"}, {"day": "1999-01-01"}):
        assert (await world.http.get("/v1/reports/school", params={"school": SCHOOL, **lost})).status_code == 404


async def test_a_district_sees_its_schools_and_no_other(world: World) -> None:
    bearer = await token(world, "office", "district", district="d1")
    reply = await ask_with(world, bearer, "report", kind="district", district="d1", day=SUNDAY)
    assert [row["school"] for row in reply.json()["rows"]] == [SCHOOL]
    other = await ask_with(world, bearer, "report", kind="school", school=OTHER_SCHOOL)
    assert (other.status_code, other.json()["rule"]) == (403, "other-school")
    partial = Principal(role=ApiRole.AUDITOR, actor="token:x", schools=frozenset((SCHOOL,)))
    async with world.db.transaction() as tx:
        await tx.execute("INSERT INTO places VALUES (?, 'd1', 'g1', 1)", (OTHER_SCHOOL,))
    with pytest.raises(RequestProblem) as refused:  # bound to one school of the district only
        await report(
            world.db, read_wish("district", {"school": SCHOOL}, SUNDAY), zone="Africa/Cairo", now_ms=1, who=partial
        )
    assert refused.value.code == "forbidden"


async def test_a_champion_reads_reports_and_sheets_on_the_phone(world: World) -> None:
    phone = await world.phone("ch1")
    found = await give(phone, "report", kind="school", school=SCHOOL, day=SUNDAY, period="week")
    assert found["total"]["registers_taken"] == 3
    made = await give(phone, "sheet", register=f"{SCHOOL}/c-3a/{SUNDAY}/day")
    assert made["pupils"] == 40
    assert (await give(phone, "sheet-find", school=SCHOOL, code=made["code"].lower()))["registers"] == [
        made["register"]
    ]


async def test_the_sheet_has_the_roll_in_its_order_and_reaches_for_nothing(world: World) -> None:
    made = await operator(world, "sheet", register=f"{SCHOOL}/c-3a/{SUNDAY}/day")
    html = made["html"]
    at = [html.index(f'data-pupil="{pupil}"') for pupil in PUPILS]
    assert at == sorted(at)
    assert "<script" not in html
    assert "://" not in html
    assert 'dir="rtl"' in html


# ---- other codes ------------------------------------------------------------------------------------------------


async def test_an_edfi_export_has_a_line_for_each_answer_and_none_for_silence(world: World) -> None:
    made = await operator(world, "export-codes", school=SCHOOL, standard="edfi", **{"from": SUNDAY, "to": FRIDAY})
    lines = [json.loads(line) for line in made["lines"].splitlines()]
    assert len(lines) == made["answers"] == 40 + 30 + 40
    wednesday = [line for line in lines if line["data"]["eventDate"] == days()[3]]
    assert wednesday == []  # no session
    absent = [line["data"]["studentReference"]["studentUniqueId"] for line in lines
              if line["data"]["attendanceEventReason"] in ("absent", "absent_excused", "absent_unexcused")]  # fmt: skip
    assert absent == ["s001", "s003", "s007"]
    row = await world.db.fetch_one("SELECT subject, after_json FROM audit WHERE action = 'export-edfi'")
    assert row is not None
    assert (row[0], json.loads(row[1])["answers"]) == (SCHOOL, 110)
    ceds = await operator(world, "export-codes", school=SCHOOL, standard="ceds", **{"from": SUNDAY, "to": SUNDAY})
    assert ceds["answers"] == 40


# ---- the command ------------------------------------------------------------------------------------------------


def test_the_command_prints_a_table_and_writes_files(tmp_path: Path) -> None:
    """A table for people that cuts no number, the same report as a file, and mistakes told in words."""

    async def prepare() -> None:
        async with open_world(tmp_path / "store.db", background=False) as opened:
            found = outcome(RegisterId(SCHOOL, "c-3a", SUNDAY, "day"), week_of_marks()[0], user="t1")
            await store_outcome(opened.db, found)

    asyncio.run(prepare())

    def hudur(*words: str, status: int = 0) -> str:
        done = CliRunner().invoke(main, ["report", *words, "--store", address_of(tmp_path / "store.db")])
        assert done.exit_code == status, done.output
        return done.output

    shown = hudur("school", SCHOOL, "--day", SUNDAY)
    assert "92.5" in shown
    assert "1 of 1" in shown
    found = json.loads(hudur("school", SCHOOL, "--week", SUNDAY, "--json"))
    assert (found["period"], found["total"]["present"]) == ("week", 34)
    out = tmp_path / "report.xlsx"
    hudur("class", f"{SCHOOL}/c-3a", "--day", SUNDAY, "--format", "xlsx", "--out", str(out))
    assert load_workbook(out).active is not None
    assert hudur("class", SCHOOL, "--day", SUNDAY, "--format", "csv", "--bom").startswith("\ufeffdistrict,")
    assert "no such school" in hudur("school", "unknown", status=1)
    assert "no school was placed" in hudur("district", "nowhere", status=1)
    hudur("school", SCHOOL, "--format", "xlsx", status=2)
    hudur("school", SCHOOL, "--day", SUNDAY, "--week", SUNDAY, status=2)
