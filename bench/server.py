"""The server of the benchmarks: the real application and store, quotas out of the way, a code for every phone.

`python -m bench.server FOLDER --phones N [--settle]` prints one JSON line once it answers and serves until SIGTERM.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import uvloop

from clientcore.ports import SystemClock
from syncserver.app import Server
from syncserver.calendar import local_date
from syncserver.config import Config
from syncserver.enrol import make_code
from syncserver.roster import import_zip
from syncserver.rostergen import generate, school_year
from syncserver.rosterwrite import write_zip
from syncserver.serve import serve
from syncserver.store.roster import classes_in, roster_on, staff_of
from syncserver.store.sqlite import open_sqlite


async def run(folder: Path, *, phones: int, settle: bool) -> None:
    """Make a store with one generated school and serve it."""
    store = folder / "store.db"
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
    first_day, until_day = school_year(today)
    data = write_zip(generate(schools=1, seed=7, first_day=first_day, until_day=until_day))
    db = await open_sqlite(store)
    report = await import_zip(db, data, dry_run=False, now_ms=now_ms, on=today.isoformat())
    await db.close()
    if report["state"] not in ("applied", "unchanged"):
        raise SystemExit(f"roster: {report['state']}")

    async def tell(server: Server, url: str) -> None:
        row = await server.db.fetch_one("SELECT school FROM schools")
        assert row is not None
        school, on = row[0], today.isoformat()
        staff = [one for one in await staff_of(server.db, school, on) if one.role == "champion"]
        codes = []
        for index in range(phones):
            user = staff[index % len(staff)].id
            code, _ = await make_code(server.db, server.ports, school=school, user_id=user, made_by="bench")
            codes.append([user, code])
        rooms = {
            room.id: await roster_on(server.db, school, room.id, on) for room in await classes_in(server.db, school, on)
        }
        print(json.dumps({"url": url, "school": school, "today": on, "codes": codes, "classes": rooms}), flush=True)

    await serve(config, on_ready=tell)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--phones", type=int, default=1)
    parser.add_argument("--settle", action="store_true")
    options = parser.parse_args()
    uvloop.run(run(options.folder, phones=options.phones, settle=options.settle))
