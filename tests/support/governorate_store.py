"""A governorate as a store: the rows that the real stages would have left, and the truth beside them as CSV.

Schools lie where the real command has placed them and are closed when it has closed them. Of the outcomes, which
`governorate_wire.py` writes, samples are compared with the real code.
"""

from __future__ import annotations

import asyncio
import csv
import hashlib
import random
import sqlite3
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path

from reconciliation.clocks import DAY_MS
from reconciliation.wire import canonical
from syncserver.config import Config
from syncserver.metrics import Metrics
from syncserver.ports import ServerPorts
from syncserver.settle import Settler
from syncserver.store import audit
from syncserver.store.sqlite import open_sqlite
from syncserver.store.summaries import pack_counts
from tests.support.governorate import (
    GOVERNORATE,
    SESSION,
    Register,
    Size,
    class_name,
    district_name,
    plan_school,
    pupil_names,
    school_name,
)
from tests.support.governorate_wire import ZONE_NAME, day_ms, paper_marks, plain_outcome, plain_summary, prove

TRUTH, CLASSES, HOLIDAYS = "truth.csv", "classes.csv", "holidays.csv"
NOTHING = r"\N"
_NO_REVISIONS = zlib.compress(canonical({}), 1)
Command = Callable[[Sequence[str]], object]
"""Runs `hudur` with these arguments."""


# ---- one school --------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class SchoolRows:
    """Everything of one school that goes into the store and into the truth."""

    outcomes: list[tuple[object, ...]]
    paper: list[tuple[object, ...]]
    truth: list[tuple[object, ...]]
    proved: int = 0


def school_rows(size: Size, number: int, *, prove_every: int) -> SchoolRows:
    """The rows of one school; every `prove_every`th register is compared with the real code."""
    school, district = school_name(number), district_name(number)
    found = SchoolRows([], [], [])
    for count, one in enumerate(plan_school(size, number)):
        class_id = class_name(one.class_no)
        if one.codes is not None:
            wire = plain_outcome(size, school, one)
            body, summary = canonical(wire), plain_summary(size, one, wire)
            if (count + number) % prove_every == 0:
                prove(wire, body, summary)
                found.proved += 1
            settled_ms = day_ms(one.date) + 4 * DAY_MS
            counts = pack_counts(1, summary) if (count + number) % 25 else None  # then a report reads the outcome
            found.outcomes.append(
                (school, class_id, one.date, SESSION, 1, settled_ms, zlib.compress(body, 1), _NO_REVISIONS, counts)
            )
        if one.paper is not None:
            found.paper.append((school, class_id, one.date, paper_marks(size, one)))
        if one.codes is not None or one.paper is not None:
            found.truth.append(_truth_row(size, (school, district, class_id), one))
    return found


def _truth_row(size: Size, about: tuple[str, ...], one: Register) -> tuple[object, ...]:
    waiting = len(one.waiting) + (size.pupils if one.in_review else 0)
    return (
        *about, one.date,
        NOTHING if one.codes is None else "".join(one.codes),
        NOTHING if one.paper is None else "".join(one.paper),
        "".join(one.times) or "." * size.pupils,
        len(one.disputed), waiting + one.has_stranger, waiting, int(one.no_session), int(one.copied),
    )  # fmt: skip


TRUTH_COLUMNS = (
    "school", "district", "class", "date", "codes", "paper", "times", "disputed", "held", "waiting", "no_session",
    "copied",
)  # fmt: skip


# ---- the store ---------------------------------------------------------------------------------------------------


async def make_empty(store: Path, now_ms: int) -> int:
    """A store with the real schema and one audit row, whose id is returned."""
    db = await open_sqlite(store)
    try:
        async with db.transaction() as tx:
            return await audit.record(
                tx, at_ms=now_ms, actor="operator", action="paper-import", subject=GOVERNORATE,
                reason="synthetic governorate",
            )  # fmt: skip
    finally:
        await db.close()


async def settle_decisions(store: Path) -> None:
    """Let the real settle stage take up what the decisions about places and days have queued: no register is there."""
    db = await open_sqlite(store)
    try:
        settler = Settler(Config(store=store, zone=ZONE_NAME), db, ServerPorts(), Metrics(), asyncio.Event())
        while await settler.round():
            pass
    finally:
        await db.close()


def _class_rows(size: Size, number: int) -> Iterator[tuple[str, int | None, int, int]]:
    """Class, moment of the last word of its phone (None: never), what the phone has not sent, whether it has one."""
    chance = random.Random(f"phones {size.seed}/{number}")
    for class_no in range(size.classes):
        drawn, middle = chance.random(), day_ms(size.week(size.weeks // 2)) + 40_000_000
        last_ms = middle if drawn < 0.2 else day_ms(size.today) - 1_000
        unsent = 3 if 0.15 < drawn < 0.3 else 0
        yield class_name(class_no), None if drawn < 0.03 else last_ms, unsent, int(drawn < 0.95)


def _write_roster(db: sqlite3.Connection, size: Size, folder: Path) -> None:
    """Schools, people, classes, phones."""
    first = f"{int(size.first[:4]) - 1}-09-01"
    with (folder / CLASSES).open("w", newline="") as file:
        told = csv.writer(file)
        told.writerow(("school", "district", "class", "pupils", "has_phone", "last_ms", "unsent"))
        for number in range(size.schools):
            school = school_name(number)
            db.execute("INSERT INTO schools VALUES (?, ?, ?, 1, 1, NULL)", (school, f"مدرسة {number}", SESSION))
            for class_no, (class_id, last_ms, unsent, has_phone) in enumerate(_class_rows(size, number)):
                teacher, pupils = f"t{class_no:02d}", pupil_names(size, class_no)
                told.writerow((school, district_name(number), class_id, size.pupils, has_phone,
                               NOTHING if last_ms is None else last_ms, unsent))  # fmt: skip
                db.execute("INSERT INTO classes VALUES (?, ?, ?, '3', 1, 1, NULL)", (school, class_id, class_id))
                people = [(teacher, "teacher", 0), *((pupil, "pupil", n) for n, pupil in enumerate(pupils, 1))]
                db.executemany(
                    "INSERT INTO users VALUES (?, ?, ?, ?, NULL, NULL, 1, NULL)",
                    [(school, user, f"اسم {user}", role) for user, role, _ in people],
                )
                db.executemany(
                    "INSERT INTO members VALUES (?, ?, ?, ?, 1, ?, NULL, ?, 1, NULL)",
                    [(school, class_id, user, role, first, roll) for user, role, roll in people],
                )
                if has_phone:
                    db.execute(
                        """INSERT INTO devices (id, school, user_id, public_key, label, app, enrolled_ms, last_number,
                        last_contact_ms, unsent, done) VALUES (?, ?, ?, x'00', '', '1.0.0', 0, 0, ?, ?, 0)""",
                        (
                            hashlib.sha256(f"{school} {teacher}".encode()).digest()[:16],
                            school,
                            teacher,
                            last_ms,
                            unsent,
                        ),
                    )


def _decide(size: Size, store: Path, folder: Path, hudur: Command) -> None:
    """Where the schools lie and when they are closed, by the real commands."""
    common = ("--reference", "decree 1", "--store", f"sqlite:{store}")
    with (folder / "places.csv").open("w", newline="") as file:
        told = csv.writer(file)
        told.writerow(("school", "district", "governorate"))
        told.writerows((school_name(n), district_name(n), GOVERNORATE) for n in range(size.schools))
    hudur(("school", "place", "--file", str(folder / "places.csv"), *common))
    hudur(
        (
            "calendar",
            "timetable",
            "regular",
            "--from",
            size.first,
            "--to",
            size.today,
            "--session",
            "day=08:00-13:30",
            *common,
        )
    )
    with (folder / HOLIDAYS).open("w", newline="") as file:
        told = csv.writer(file)
        told.writerow(("first", "last"))
        for first, last, reason, scope in size.holidays:
            told.writerow((first, last))
            if scope:
                hudur(("calendar", "close", first, "--to", last, "--reason", reason, "--governorate", scope, *common))


def write_store(size: Size, folder: Path, hudur: Command, *, cores: int = 2, prove_every: int = 500) -> dict[str, int]:
    """A store (`store.db`) and the truth beside it; returns how many registers, sheets and proofs."""
    store, now_ms = folder / "store.db", day_ms(size.today)
    audit_id = asyncio.run(make_empty(store, now_ms))
    db = sqlite3.connect(store)
    db.execute("PRAGMA synchronous = OFF")
    with db:
        _write_roster(db, size, folder)
    db.close()
    _decide(size, store, folder, hudur)
    asyncio.run(settle_decisions(store))
    db = sqlite3.connect(store)
    db.execute("PRAGMA synchronous = OFF")
    db.execute("PRAGMA cache_size = -200000")
    counts = {"registers": 0, "sheets": 0, "proved": 0}
    with (folder / TRUTH).open("w", newline="") as file:
        told = csv.writer(file)
        told.writerow(TRUTH_COLUMNS)
        for rows in _computed(partial(school_rows, size, prove_every=prove_every), size.schools, cores):
            with db:
                _write_school(db, rows, now_ms, audit_id)
            told.writerows(rows.truth)
            counts["registers"] += len(rows.outcomes)
            counts["sheets"] += len(rows.paper)
            counts["proved"] += rows.proved
    db.close()
    return counts


def _computed(work: Callable[[int], SchoolRows], schools: int, cores: int) -> Iterator[SchoolRows]:
    if cores == 1:
        yield from map(work, range(schools))
        return
    with get_context("spawn").Pool(cores) as pool:
        yield from pool.imap(work, range(schools), chunksize=1)


def _write_school(db: sqlite3.Connection, rows: SchoolRows, now_ms: int, audit_id: int) -> None:
    db.executemany(
        "INSERT INTO outcomes (school, class_id, date, session, revision, settled_ms, body, revisions, counts)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
        rows.outcomes,
    )
    entries: Iterable[tuple[object, ...]] = (
        (school, class_id, date, SESSION, "period_sheet", "t1", marks, "user:ch1", now_ms, audit_id)
        for school, class_id, date, marks in rows.paper
    )
    db.executemany(
        """INSERT INTO paper_entries (school, class_id, date, session, document, signed_by, marks_json, entered_by,
        at_ms, audit_id) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)""",
        entries,
    )
