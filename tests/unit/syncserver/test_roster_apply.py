"""Applying a roster to a real SQLite store: whole or not at all, history kept, versions that only rise."""

from __future__ import annotations

import asyncio
import json
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from hypothesis import given, settings
from hypothesis import strategies as st

from syncserver import roster, rostergen, rosterwrite
from syncserver.errors import ConstraintBroken
from syncserver.rostermodel import Role
from syncserver.store import roster as stored
from syncserver.store.sqlite import SqliteDatabase, open_sqlite
from tests.support.rosters import FIRST_DAY, UNTIL_DAY, Export

NOW_MS = 1_795_334_400_000
TODAY, TOMORROW = "2026-11-22", "2026-11-23"
TABLES = ("schools", "users", "classes", "members", "roster_imports", "settle_again", "audit")


@pytest_asyncio.fixture
async def db(tmp_path: Path) -> AsyncIterator[SqliteDatabase]:
    database = await open_sqlite(tmp_path / "store.db")
    yield database
    await database.close()


async def put(db: SqliteDatabase, data: bytes, *, on: str = TODAY, **flags: Any) -> dict[str, Any]:
    report = await roster.import_zip(db, data, dry_run=flags.pop("dry_run", False), now_ms=NOW_MS, on=on, **flags)
    json.dumps(report)
    return report


async def everything(db: SqliteDatabase) -> dict[str, list[tuple[Any, ...]]]:
    return {table: sorted(await db.fetch_all(f"SELECT * FROM {table}"), key=repr) for table in TABLES}


def changes(report: dict[str, Any]) -> dict[str, dict[str, int]]:
    """The counts that are not zero."""
    counts = {table: {what: n for what, n in row.items() if n} for table, row in report["counts"].items()}
    return {table: row for table, row in counts.items() if row}


async def test_the_first_import_fills_the_store(db: SqliteDatabase) -> None:
    """Schools, people, classes and stays arrive; rosters, rights and versions can be asked for."""
    report = await put(db, Export().zip())
    assert (report["state"], report["applied"]) == ("applied", True)
    assert changes(report) == {
        "schools": {"added": 2},
        "users": {"added": 6},
        "classes": {"added": 2},
        "members": {"added": 5},
    }
    assert await stored.roster_of(db, "sc1", "k1", TODAY) == [("p1", "أحمد علي السيد"), ("p2", "منى حسن")]
    assert await stored.roster_on(db, "sc1", "k1", TODAY) == ["p1", "p2"]
    assert await stored.entitled_users(db, "sc1", "k1", TODAY) == {"t1", "c1"}
    assert await stored.entitled_users(db, "sc2", "k2", TODAY) == {"t1"}
    assert [row.id for row in await stored.classes_of(db, "sc2", "t1", TODAY)] == ["k2"]
    assert [row.id for row in await stored.classes_of(db, "sc1", "c1", TODAY)] == ["k1"]
    assert await stored.classes_of(db, "sc1", "p1", TODAY) == []
    assert await stored.school_name(db, "sc1") == "مدرسة النيل"
    assert await stored.sessions_of(db, "sc1") == ["day"]
    assert await stored.user(db, "sc1", "t1", TODAY) == stored.UserRow("t1", "sc1", "هدى سالم", "teacher", True)
    staff = {row.id: (row.role, row.active, row.classes) for row in await stored.staff_of(db, "sc1", TODAY)}
    assert staff == {"t1": ("teacher", True, ("٣/أ",)), "c1": ("champion", True, ())}
    assert await stored.pupils_version(db, "sc1", "k1", TODAY) >= 1
    assert await stored.pupils_version(db, "sc1", "k9", TODAY) == 0


async def test_one_school_sees_nothing_of_another(db: SqliteDatabase) -> None:
    """The same ids asked for under another school lead nowhere."""
    await put(db, Export().zip())
    assert await stored.roster_of(db, "sc2", "k1", TODAY) == []
    assert await stored.user(db, "sc2", "p1", TODAY) is None
    assert await stored.entitled_users(db, "sc2", "k1", TODAY) == set()


async def test_the_same_export_twice_is_no_change(db: SqliteDatabase) -> None:
    """Also a week later, and although people without dates were in it."""
    export = Export()
    export["academicSessions.csv"][0]["endDate"] = UNTIL_DAY
    export.row("classes.csv", "k2")["termSourcedIds"] = ""
    await put(db, export.zip())
    before = await everything(db)
    report = await put(db, export.zip(), on="2026-11-29")
    after = await everything(db)
    assert (report["state"], changes(report), report["versions_risen"]) == ("unchanged", {}, 0)
    assert {t: after[t] for t in TABLES[:4]} == {t: before[t] for t in TABLES[:4]}
    assert after["settle_again"] == before["settle_again"]


async def test_a_dry_run_says_what_would_happen_and_writes_nothing(db: SqliteDatabase) -> None:
    """Counts like those of the real run; every table as it was."""
    before = await everything(db)
    report = await put(db, Export().zip(), dry_run=True)
    assert (report["state"], report["applied"], changes(report)["users"]) == ("dry-run", False, {"added": 6})
    assert await everything(db) == before


async def test_one_poison_row_keeps_the_whole_import_out(db: SqliteDatabase) -> None:
    """The row is named; nothing else of the file is applied."""
    export = Export()
    export.row("enrollments.csv", "e3")["beginDate"] = "soon"
    before = await everything(db)
    report = await put(db, export.zip())
    assert (report["state"], report["applied"]) == ("errors", False)
    assert [(e["file"], e["line"], e["column"], e["code"]) for e in report["errors"]] == [
        ("enrollments.csv", 4, "beginDate", "bad-date")
    ]
    assert report["errors"][0]["ar"]
    assert await everything(db) == before


async def test_a_store_that_breaks_half_way_keeps_nothing(db: SqliteDatabase) -> None:
    """Writing fails at the last table; the first ones are as they were."""
    async with db.transaction() as tx:
        await tx.execute(
            "CREATE TRIGGER broken BEFORE INSERT ON members BEGIN SELECT RAISE(ABORT, 'broken on purpose'); END"
        )
    before = await everything(db)
    with pytest.raises(ConstraintBroken):
        await put(db, Export().zip())
    assert await everything(db) == before


async def test_tobedeleted_ends_and_the_past_stays_readable(db: SqliteDatabase) -> None:
    """A withdrawn stay ends with the day of the import; the roster of that day still has the pupil."""
    export = Export()
    await put(db, export.zip())
    version = await stored.pupils_version(db, "sc1", "k1", TODAY)
    export.row("enrollments.csv", "e1")["status"] = "tobedeleted"
    report = await put(db, export.zip())
    assert changes(report) == {"members": {"ended": 1, "changed": 1}}  # p2 moves up in the roll
    assert await stored.roster_on(db, "sc1", "k1", TOMORROW) == ["p2"]
    assert await stored.roster_on(db, "sc1", "k1", TODAY) == ["p1", "p2"]
    assert await stored.pupils_version(db, "sc1", "k1", TODAY) > version
    assert await stored.user(db, "sc1", "p1", TODAY) is not None


async def test_leaving_a_row_out_ends_it_like_tobedeleted(db: SqliteDatabase) -> None:
    """A bulk export speaks for its schools: who is no longer in it has left."""
    export = Export()
    await put(db, export.zip())
    for file, source_id in (("enrollments.csv", "e1"), ("roles.csv", "r1"), ("users.csv", "p1")):
        export.remove(file, source_id)
    report = await put(db, export.zip())
    assert (changes(report)["users"], changes(report)["members"]["ended"]) == ({"ended": 1}, 1)
    gone = await stored.user(db, "sc1", "p1", TODAY)
    assert gone is not None
    assert not gone.active
    assert await stored.roster_on(db, "sc1", "k1", TOMORROW) == ["p2"]


async def test_a_school_left_out_is_left_alone(db: SqliteDatabase) -> None:
    """An export of one school says nothing of the others."""
    export = Export()
    await put(db, export.zip())
    for file, source_id in (
        ("orgs.csv", "sc2"),
        ("roles.csv", "r3"),
        ("roles.csv", "r5"),
        ("classes.csv", "k2"),
        ("enrollments.csv", "e3"),
        ("enrollments.csv", "e5"),
    ):
        export.remove(file, source_id)
    report = await put(db, export.zip())
    assert report["state"] == "unchanged"
    assert await stored.roster_on(db, "sc2", "k2", TODAY) == ["p3"]


async def test_a_withdrawn_teacher_loses_the_class_from_that_day_on(db: SqliteDatabase) -> None:
    """Rights end with the day of the import, those of past days stay, and the registers are settled again; the class
    leaves the phone at once.
    """
    export = Export()
    await put(db, export.zip())
    async with db.transaction() as tx:
        await tx.execute("DELETE FROM settle_again")
    export.row("roles.csv", "r4")["status"] = "tobedeleted"
    await put(db, export.zip())
    assert await stored.entitled_users(db, "sc1", "k1", TOMORROW) == {"c1"}
    assert await stored.entitled_users(db, "sc1", "k1", TODAY) == {"t1", "c1"}
    assert await stored.entitled_users(db, "sc2", "k2", TOMORROW) == {"t1"}
    assert await stored.classes_of(db, "sc1", "t1", TODAY) == []
    assert await db.fetch_all("SELECT school, class_id, cause FROM settle_again") == [("sc1", "k1", "roster-import")]


async def test_who_leaves_and_returns_has_two_stays(db: SqliteDatabase) -> None:
    """The days between are without the pupil; the days before and after are with."""
    export = Export()
    await put(db, export.zip())
    export.remove("enrollments.csv", "e1")
    await put(db, export.zip())
    export.add(
        "enrollments.csv",
        sourcedId="e9",
        classSourcedId="k1",
        schoolSourcedId="sc1",
        userSourcedId="p1",
        role="student",
        beginDate="2026-12-06",
    )
    await put(db, export.zip(), on="2026-12-06")
    days = (TODAY, TOMORROW, "2026-12-05", "2026-12-06")
    present = ["p1" in await stored.roster_on(db, "sc1", "k1", day) for day in days]
    assert present == [True, False, False, True]


async def test_who_leaves_and_returns_on_one_day_stands_on_the_list_once(db: SqliteDatabase) -> None:
    """Two stays share the day; the list, and a teacher's classes, name nobody and nothing twice."""
    export = Export()
    await put(db, export.zip())
    for row, user, role in (("e1", "p1", "student"), ("e4", "t1", "teacher")):
        export.remove("enrollments.csv", row)
        await put(db, export.zip())
        export.add(
            "enrollments.csv",
            sourcedId=f"{row}b",
            classSourcedId="k1",
            schoolSourcedId="sc1",
            userSourcedId=user,
            role=role,
            beginDate=TODAY,
        )
    await put(db, export.zip())
    assert sorted(await stored.roster_on(db, "sc1", "k1", TODAY)) == ["p1", "p2"]
    staff = {row.id: row.classes for row in await stored.staff_of(db, "sc1", TODAY)}
    assert staff["t1"] == ("٣/أ",)


async def test_a_withdrawal_taken_back_reopens_the_same_stay(db: SqliteDatabase) -> None:
    """Upstream says again that the pupil has been here since the first day: no gap is left."""
    export = Export()
    await put(db, export.zip())
    export.row("enrollments.csv", "e2")["status"] = "tobedeleted"
    await put(db, export.zip())
    export.row("enrollments.csv", "e2")["status"] = ""
    report = await put(db, export.zip(), on="2026-11-24")
    assert changes(report) == {"members": {"changed": 1}}
    assert await stored.roster_on(db, "sc1", "k1", "2026-11-23") == ["p1", "p2"]


async def test_versions_rise_with_imports_and_with_days(db: SqliteDatabase) -> None:
    """A dated start changes the list without an import: the version rises that day, and again with the next import."""
    export = Export()
    export.row("enrollments.csv", "e2")["beginDate"] = "2026-12-01"
    await put(db, export.zip())
    eve, first = [await stored.pupils_version(db, "sc1", "k1", day) for day in ("2026-11-30", "2026-12-01")]
    assert await stored.roster_on(db, "sc1", "k1", "2026-11-30") == ["p1"]
    assert await stored.roster_on(db, "sc1", "k1", "2026-12-01") == ["p1", "p2"]
    assert first > eve
    export.row("enrollments.csv", "e2")["beginDate"] = ""
    await put(db, export.zip(), on="2026-12-02")
    assert await stored.pupils_version(db, "sc1", "k1", "2026-12-02") > first


async def test_a_new_spelling_raises_the_version_of_the_pupils_class_alone(db: SqliteDatabase) -> None:
    """The phone of the one class fetches its list again; no register is settled again for a name."""
    export = Export()
    await put(db, export.zip())
    async with db.transaction() as tx:
        await tx.execute("DELETE FROM settle_again")
    before = [await stored.pupils_version(db, *where, TODAY) for where in (("sc1", "k1"), ("sc2", "k2"))]
    school_before = await stored.roster_version(db, "sc1")
    export.row("users.csv", "p2")["givenName"] = "مُنى"
    report = await put(db, export.zip())
    after = [await stored.pupils_version(db, *where, TODAY) for where in (("sc1", "k1"), ("sc2", "k2"))]
    assert (changes(report), report["versions_risen"]) == ({"users": {"changed": 1}}, 1)
    assert (after[0] > before[0], after[1] == before[1]) == (True, True)
    assert await stored.roster_version(db, "sc1") == school_before + 1
    assert await db.fetch_all("SELECT * FROM settle_again") == []


async def test_a_truncated_export_is_stopped_before_it_empties_a_school(db: SqliteDatabase) -> None:
    """Ending more than a third of a school's pupils needs to be asked for by name."""
    made = rostergen.generate(schools=1, seed=3, first_day=FIRST_DAY, until_day=UNTIL_DAY)
    await put(db, rosterwrite.write_zip(made))
    before = await everything(db)
    school = made.schools[0]
    cut = rostergen.GeneratedRoster(
        schools=(
            rostergen.GeneratedSchool(
                school=school.school,
                name=school.name,
                classes=school.classes[:4],
                coordinator=school.coordinator,
                principal=school.principal,
                guardians=(),
            ),
        ),
        first_day=made.first_day,
        middle_day=made.middle_day,
        until_day=made.until_day,
    )
    report = await put(db, rosterwrite.write_zip(cut))
    assert (report["state"], report["applied"]) == ("mass-ending", False)
    assert set(report["mass_ending"]) == {school.school}
    assert await everything(db) == before
    report = await put(db, rosterwrite.write_zip(cut), allow_mass_ending=True)
    assert report["state"] == "applied"


async def test_the_audit_holds_counts_and_no_names(db: SqliteDatabase) -> None:
    """What was imported, what it did and what was left out can be proved later without any person's data."""
    report = await put(db, Export().zip())
    (row,) = await db.fetch_all("SELECT digest, made_by, counts_json, dropped_json FROM roster_imports")
    assert (row[0], row[1]) == (report["digest"], "operator")
    assert json.loads(row[2]) == report["counts"]
    assert json.loads(row[3])["columns"]["users.csv:email"] == 2
    (audited,) = await db.fetch_all("SELECT action, subject FROM audit")
    assert audited == ("roster-import", report["digest"])


@settings(max_examples=6, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_a_generated_roster_is_stored_as_it_was_generated(seed: int) -> None:
    """Every class list in roll order and every right are those of the generator; once more is no change."""
    made = rostergen.generate(schools=1, seed=seed, first_day=FIRST_DAY, until_day=UNTIL_DAY)
    data = rosterwrite.write_zip(made)

    async def check(path: Path) -> None:
        db = await open_sqlite(path)
        try:
            assert (await put(db, data))["state"] == "applied"
            assert (await put(db, data))["state"] == "unchanged"
            for school in made.schools:
                for part in school.classes:
                    wanted = [(pupil.person_id, pupil.display_name) for pupil in part.pupils]
                    assert await stored.roster_of(db, school.school, part.class_id, TODAY) == wanted
                    entitled = await stored.entitled_users(db, school.school, part.class_id, TODAY)
                    champions = {school.coordinator.person_id, school.principal.person_id}
                    assert entitled == {teacher.person_id for teacher in part.teachers} | champions
                people = await db.fetch_all("SELECT id, name, role FROM users WHERE school = ?", (school.school,))
                assert {(p[0], p[1], Role(p[2])) for p in people} == {
                    (person.person_id, person.display_name, role) for person, role in rostergen.people_of(school)
                }
        finally:
            await db.close()

    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(check(Path(folder) / "store.db"))
