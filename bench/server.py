"""The server of the benchmarks: the real application and store, quotas out of the way, a code for every phone.

`python -m bench.server FOLDER --phones N [--settle] [--schools N] [--store ADDRESS]` prints one JSON line once it
answers and serves until SIGTERM. A store that holds a school already is served as it is.
"""

from __future__ import annotations

import argparse
import json
import sqlite3
from contextlib import closing
from datetime import date, timedelta
from pathlib import Path

import uvloop

from clientcore.ports import SystemClock
from syncserver.app import Server
from syncserver.calendar import local_date
from syncserver.config import Config, StoreAddress, store_address
from syncserver.enrol import make_code
from syncserver.roster import import_zip
from syncserver.rostergen import generate, school_year
from syncserver.rosterwrite import write_zip
from syncserver.serve import serve
from syncserver.store.open import open_store
from syncserver.store.roster import classes_in, classes_of, roster_on, staff_of

HISTORY_DAYS = 400  # the benchmarks' registers reach back 180 school days, or 35,000 of them


async def make_store(store: StoreAddress, *, schools: int, today: str, now_ms: int) -> None:
    """A school in a store that has none, generated and imported by the real code; in a file, copies until `schools`."""
    db = await open_store(store)
    if await db.fetch_one("SELECT 1 FROM schools LIMIT 1") is not None:
        await db.close()
        return
    on = date.fromisoformat(today)
    first_day, until_day = school_year(on)
    first_day = min(first_day, (on - timedelta(days=HISTORY_DAYS)).isoformat())  # nobody's mark is of an unknown pupil
    data = write_zip(generate(schools=1, seed=7, first_day=first_day, until_day=until_day))
    report = await import_zip(db, data, dry_run=False, now_ms=now_ms, on=today)
    await db.close()
    if report["state"] not in ("applied", "unchanged"):
        raise SystemExit(f"roster: {report['state']}")
    if schools > 1 and isinstance(store, Path):
        copy_school(store, schools - 1)


def copy_school(store: Path, copies: int) -> None:
    """Copy every row of the one school under other names: importing a thousand takes minutes that measure nothing."""
    with closing(sqlite3.connect(store)) as db, db:
        found = [row[0] for row in db.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")]
        db.execute("CREATE TEMP TABLE numbers AS WITH RECURSIVE n(i) AS (VALUES (1) UNION ALL SELECT i + 1 FROM n "
                   f"WHERE i < {int(copies)}) SELECT i FROM n")  # fmt: skip
        for table in found:
            columns = [(row[1], row[2], row[5]) for row in db.execute(f"PRAGMA table_info({table})")]
            kept = [name for name, kind, key in columns if not (key and kind == "INTEGER" and name == "id")]
            if "school" in kept:
                values = ", ".join("t.school || '-' || n.i" if name == "school" else f"t.{name}" for name in kept)
                db.execute(f"INSERT INTO {table} ({', '.join(kept)}) SELECT {values} FROM {table} t, numbers n "
                           "WHERE t.school <> '*'")  # fmt: skip


async def run(store: StoreAddress, *, phones: int, settle: bool, schools: int, teachers: int) -> None:
    """Make a store unless there is one, and serve it."""
    now_ms = SystemClock().wall_ms()
    config = Config(
        store=store,
        port=0,
        consumes=settle,
        device_burst=1_000_000,
        device_per_minute=60_000_000,
        codes_per_minute=9_999,
    )
    today = local_date(now_ms, config.zone)
    await make_store(store, schools=schools, today=today.isoformat(), now_ms=now_ms)

    async def tell(server: Server, url: str) -> None:
        row = await server.db.fetch_one("SELECT school FROM schools ORDER BY school")
        assert row is not None
        school, on = row[0], today.isoformat()
        staff = [one for one in await staff_of(server.db, school, on) if one.role == "champion"]
        codes = []
        for index in range(phones):
            user = staff[index % len(staff)].id
            code, _ = await make_code(server.db, server.ports, school=school, user_id=user, made_by="bench")
            codes.append([user, code])
        tutors = []
        for person in [one for one in await staff_of(server.db, school, on) if one.role == "teacher"][:teachers]:
            code, _ = await make_code(server.db, server.ports, school=school, user_id=person.id, made_by="bench")
            tutors.append([code, [room.id for room in await classes_of(server.db, school, person.id, on)]])
        rooms = {
            room.id: await roster_on(server.db, school, room.id, on) for room in await classes_in(server.db, school, on)
        }
        told = {"url": url, "school": school, "today": on, "codes": codes, "teachers": tutors, "classes": rooms}
        print(json.dumps(told), flush=True)

    await serve(config, on_ready=tell)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--store", help="postgresql://…; a file in the folder by default")
    parser.add_argument("--phones", type=int, default=1)
    parser.add_argument("--settle", action="store_true")
    parser.add_argument("--schools", type=int, default=1)
    parser.add_argument("--teachers", type=int, default=0)
    options = parser.parse_args()
    uvloop.run(
        run(
            store_address(options.store) if options.store else options.folder / "store.db",
            phones=options.phones,
            settle=options.settle,
            schools=options.schools,
            teachers=options.teachers,
        )
    )
