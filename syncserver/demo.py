"""`hudur demo`: a whole trial on this machine, at any hour and on any day of the week.

Three generated schools go through the real import into a store in `.demo/`, a real server answers on 127.0.0.1, and
codes are ready to open on a phone's page. Started again, it keeps the store and makes fresh codes.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections import Counter
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import click
import uvloop
from rich.console import Console
from rich.text import Text

from clientcore.errors import BadInput, HudurError
from clientcore.ports import Clock, SystemClock
from reconciliation.calendar import DayRule
from syncserver.app import Server
from syncserver.calendar import decide_days, local_date
from syncserver.config import Config, read_config
from syncserver.enrol import make_code
from syncserver.errors import StoreFailed
from syncserver.files import FOLDER_OWNER_ONLY, write_private
from syncserver.operator import address_file
from syncserver.roster import import_zip
from syncserver.rostergen import generate, school_year
from syncserver.rostermodel import Role
from syncserver.rosterwrite import write_zip
from syncserver.serve import serve
from syncserver.store.calendars import EVERY_SCHOOL, read_days_of
from syncserver.store.port import Database
from syncserver.store.roster import classes_in, entitled_users, roster_on, school_name, staff_of
from syncserver.store.sqlite import open_sqlite

HOME = Path(".demo")
STORE = HOME / "hudur.db"
ROSTER = HOME / "roster.zip"
SCHOOLS, SEED = 3, 2026
CODES_VALID_MS = 12 * 3_600_000  # a trial lasts a day; outside the demo a code lives 15 minutes
ACTOR = "demo"
DAYS_OPENED = 2  # today, and tomorrow for who works past midnight


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoClass:
    """A class, its pupils in roll order, and a code of its tutor."""

    class_id: str
    name: str
    grade: str
    pupils: tuple[str, ...]
    tutor: str
    code: str


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoSchool:
    """A school with its classes."""

    school: str
    name: str
    classes: tuple[DemoClass, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoLinks:
    """Everything a visitor needs. `teacher` and `champion`: (user id, code) of the first school."""

    url: str
    schools: tuple[DemoSchool, ...]
    teacher: tuple[str, str]
    champion: tuple[str, str]

    def as_json(self) -> dict[str, Any]:
        """The one line that `--json` prints; every class's code stands under its id, twice."""
        by_class = {part.class_id: part.code for school in self.schools for part in school.classes}
        return {
            "url": self.url,
            "schools": [
                {
                    "id": school.school,
                    "name": school.name,
                    "classes": [
                        {"id": part.class_id, "name": part.name, "grade": part.grade, "pupils": list(part.pupils)}
                        for part in school.classes
                    ],
                }
                for school in self.schools
            ],
            "codes": {"teacher": self.teacher[1], "champion": self.champion[1], **by_class, "classes": by_class},
        }


@click.command()
@click.option("--port", type=click.IntRange(0, 65_535), help="Port on 127.0.0.1 [PORT, else 8000].")
@click.option("--json", "as_json", is_flag=True, help="Print one line of JSON once the server answers.")
@click.option("--fresh", is_flag=True, help="Throw the old trial away and begin again.")
def demo(port: int | None, as_json: bool, fresh: bool) -> None:
    """Serve three made-up schools on this machine, with links ready to open."""
    try:
        environment = {**os.environ, "HUDUR_HOST": "127.0.0.1", "HUDUR_ENV": "demo"}
        config = read_config(environment, store=f"sqlite:{STORE}", port=port)
        uvloop.run(run_demo(config, as_json=as_json, fresh=fresh))
    except KeyboardInterrupt:
        pass  # Ctrl-C is how a demo ends; the server has finished its requests by now
    except (HudurError, OSError) as error:
        raise click.ClickException(f"{error}") from error


async def run_demo(config: Config, *, as_json: bool, fresh: bool) -> None:
    """Prepare the store, serve, tell the links, and stay until a signal comes.

    Raises:
        StoreInUse: a demo is running already.
    """
    await prepare(config, SystemClock(), fresh=fresh)

    async def tell(server: Server, url: str) -> None:
        links = await make_links(server, url)
        if as_json:
            click.echo(json.dumps(links.as_json(), ensure_ascii=False))
        else:
            show(links, Console())

    await serve(config, on_ready=tell)


async def prepare(config: Config, clock: Clock, *, fresh: bool) -> None:
    """Generate, import, open the calendar. On a store that has all this, nothing changes but the calendar."""
    store = config.store
    assert isinstance(store, Path)  # `hudur demo` makes it
    home = store.parent
    home.mkdir(mode=FOLDER_OWNER_ONLY, parents=True, exist_ok=True)
    home.chmod(FOLDER_OWNER_ONLY)
    if fresh:
        await _throw_away(store)
    db = await open_sqlite(store)
    try:
        now_ms = clock.wall_ms()
        today = local_date(now_ms, config.zone)
        first_day, until_day = school_year(today)
        data = write_zip(generate(schools=SCHOOLS, seed=SEED, first_day=first_day, until_day=until_day))
        write_private(store.with_name(ROSTER.name), data)
        report = await import_zip(db, data, dry_run=False, now_ms=now_ms, on=today.isoformat(), actor=ACTOR)
        if report["errors_found"] or report["state"] == "mass-ending":
            raise BadInput("demo-store", f"the old trial does not take today's roster ({report['state']}): use --fresh")
        await _open_days(db, [(today + timedelta(days=n)).isoformat() for n in range(DAYS_OPENED)], now_ms, config.zone)
    finally:
        await db.close()


async def _open_days(db: Database, days: list[str], now_ms: int, zone_name: str) -> None:
    """Days about which nobody has decided are open in a trial, also a Friday or a holiday."""
    async with db.transaction() as tx:
        known = await read_days_of(tx, EVERY_SCHOOL, days)
        rule = DayRule(is_open=True, reason=ACTOR, reference=ACTOR)
        fresh = {day: rule for day in days if day not in known}
        if fresh:
            await decide_days(
                tx, EVERY_SCHOOL, fresh, reference=ACTOR, reason=ACTOR, actor=ACTOR, now_ms=now_ms, zone_name=zone_name
            )


async def _throw_away(store: Path) -> None:
    """Remove the store's own files, but not from under a running server.

    Raises:
        StoreInUse: a server is running on it.
    """
    with contextlib.suppress(StoreFailed):  # a store that cannot be read any more is what --fresh is for
        await (await open_sqlite(store)).close()
    for path in (store, Path(f"{store}-wal"), Path(f"{store}-shm"), address_file(store)):
        path.unlink(missing_ok=True)


async def make_links(server: Server, url: str) -> DemoLinks:
    """Fresh codes: for the tutor of each class, for another teacher of the first class, and for a champion."""
    day = local_date(server.ports.clock.wall_ms(), server.config.zone).isoformat()
    rows = await server.db.fetch_all("SELECT school FROM schools WHERE active = 1 ORDER BY school")
    schools = tuple([await _school(server, row[0], day) for row in rows])
    first = schools[0]
    room = first.classes[0]
    busiest = (await _teachers(server.db, first.school, room.class_id, day))[-1]
    staff = await staff_of(server.db, first.school, day)
    champion = next(one.id for one in staff if one.role == Role.CHAMPION and one.active)
    return DemoLinks(
        url=url,
        schools=schools,
        teacher=(busiest, await _code(server, first.school, busiest)),
        champion=(champion, await _code(server, first.school, champion)),
    )


async def _school(server: Server, school: str, day: str) -> DemoSchool:
    classes = []
    for row in await classes_in(server.db, school, day):
        tutor = (await _teachers(server.db, school, row.id, day))[0]
        classes.append(
            DemoClass(
                class_id=row.id,
                name=row.name,
                grade=row.grade,
                pupils=tuple(await roster_on(server.db, school, row.id, day)),
                tutor=tutor,
                code=await _code(server, school, tutor),
            )
        )
    return DemoSchool(school=school, name=await school_name(server.db, school) or school, classes=tuple(classes))


async def _teachers(db: Database, school: str, class_id: str, day: str) -> list[str]:
    """The class's teachers, those with the fewest classes first: a tutor has one."""
    staff = {one.id: one for one in await staff_of(db, school, day) if one.role == Role.TEACHER}
    load = Counter({user_id: len(one.classes) for user_id, one in staff.items()})
    entitled = await entitled_users(db, school, class_id, day)
    return sorted(entitled & staff.keys(), key=lambda user_id: (load[user_id], user_id))


async def _code(server: Server, school: str, user_id: str) -> str:
    code, _ = await make_code(
        server.db, server.ports, school=school, user_id=user_id, made_by=ACTOR, valid_ms=CODES_VALID_MS
    )
    return code


def show(links: DemoLinks, console: Console) -> None:
    """Print the links for people."""
    school = links.schools[0]
    room = school.classes[0]
    lines = (
        ("teacher's phone · هاتف المعلّم", f"{links.url}/#e={school.school}.{links.teacher[1]}"),
        (f"tutor of {room.name} · رائد الفصل", f"{links.url}/#e={school.school}.{room.code}"),
        ("champion · منسّق المدرسة", f"{links.url}/#e={school.school}.{links.champion[1]}"),
        ("events feed", f"{links.url}/v1/events?after=0"),
        ("metrics", f"{links.url}/metrics"),
    )
    pupils = sum(len(part.pupils) for one in links.schools for part in one.classes)
    classes = sum(len(one.classes) for one in links.schools)
    console.print(
        Text("حضور · Hudur", style="bold"), f"{len(links.schools)} schools, {classes} classes, {pupils} pupils"
    )
    for label, link in lines:
        console.print(Text(f"  {label}", style="dim"))
        console.print(Text(f"    {link}", style="cyan"), soft_wrap=True)
    again = f"hudur code {school.school}/{links.teacher[0]} --store sqlite:{STORE}"
    console.print(f"A code works once. A new one: {again}", soft_wrap=True)
    console.print("Ctrl-C ends it; started again it goes on where it was, --fresh begins anew.")
