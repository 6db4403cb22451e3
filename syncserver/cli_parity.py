"""`hudur paper`, `hudur parity`, `hudur gate`: type paper in, compare, see what is missing. Nothing here decides."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import click
from rich.console import Console

from clientcore.errors import HudurError
from clientcore.ports import SystemClock
from reconciliation.calendar import week_of
from reconciliation.paper import Document
from syncserver.cli import EXIT_DIFFERENT, STORE_DEFAULT, _do, _order, _print, _read, _table, json_option, store_option
from syncserver.config import read_config, store_address
from syncserver.operator import Operator
from syncserver.store.port import Reader

EXIT_ERRORS = 3
_DOCUMENTS = click.Choice([one.value for one in Document])


def _zone() -> str:
    return read_config(os.environ, store=STORE_DEFAULT).zone


# ---- paper -------------------------------------------------------------------------------------------------------


@click.group("paper")
def paper() -> None:
    """The signed paper registers, as people type them in: only who was absent or late."""


@paper.command("enter")
@click.argument("register")
@click.option("--document", type=_DOCUMENTS, default=Document.PERIOD_SHEET.value, show_default=True)
@click.option("--signed-by", required=True, help="Id of who signed, or teacher, supervisor, principal, champion.")
@click.option("--absent", default="", help="Pupil ids, by commas.")
@click.option("--excused", default="", help="Pupil ids, by commas: absent, excused.")
@click.option("--late", default="", help="Pupil ids, by commas.")
@store_option
@json_option
def paper_enter(
    register: str, document: str, signed_by: str, absent: str, excused: str, late: str, store: str, as_json: bool
) -> None:
    """Type in the sheet of REGISTER (school/class/date/session). Whoever is not named was present."""
    marks: dict[str, str] = {}
    for ids, code in ((absent, "absent"), (excused, "absent_excused"), (late, "late")):
        for pupil in filter(None, (part.strip() for part in ids.split(","))):
            if pupil in marks:
                raise click.UsageError(f"{pupil} stands in two lists")
            marks[pupil] = code
    args = {"register": register, "document": document, "signed_by": signed_by, "marks": marks}
    done = _order(store, "paper-enter", args)
    _print(done, as_json, lambda one, con: con.print(f"{one['register']}: {one['state']}, {len(marks)} named"))


@paper.command("list")
@click.argument("school")
@click.option("--week", help="Any date of the week (YYYY-MM-DD) [this week].")
@store_option
@json_option
def paper_list_(school: str, week: str | None, store: str, as_json: bool) -> None:
    """List the sheets of SCHOOL in one week: what counts, what waits for a second person, where people differ."""
    from syncserver.orders.paper import paper_list, read_week
    from syncserver.parity_stage import today_at

    async def look(reader: Reader) -> dict[str, Any]:
        return await paper_list(reader, school, read_week({"week": week}, today_at(SystemClock().wall_ms(), _zone())))

    def show(view: dict[str, Any], console: Console) -> None:
        two = ", typed by two people" if view["two_person"] else ""
        console.print(f"{school}, week of {view['week']}; compared: {view['document']}{two}")
        rows = [
            (
                one["register"],
                one["state"],
                ", ".join(f"{pupil} {code}" for pupil, code in one["marks"].items()),
                len(one["entries"]),
                ", ".join(one["differences"]),
            )
            for one in view["sheets"]
        ]
        console.print(_table(("register", "state", "absent or late", "entries", "read differently"), rows))

    _print(_read(store, look), as_json, show)


@paper.command("import")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--dry-run", is_flag=True, help="Check everything, write nothing.")
@store_option
@json_option
def paper_import(file: Path, dry_run: bool, store: str, as_json: bool) -> None:
    """Bring in FILE: CSV with school,class,date,session,document,signed_by,pupil,code. Whole, or not at all.

    Exit code 3 when it has mistakes; every one is told with its line.
    """

    async def give() -> dict[str, Any]:
        async with Operator.connect(store_address(store)) as operator:
            return await operator.call("paper-import", {"dry_run": dry_run}, data=file.read_bytes())

    def show(report: dict[str, Any], console: Console) -> None:
        rows = [(one["row"], one["slug"], one["en"]) for one in report["errors"]]
        if rows:
            console.print(_table(("line", "mistake", ""), rows))
        console.print(
            f"{report['state']}: {report['lines']} lines, {report['sheets']} sheets, "
            f"{report['added']} added, {report['error_count']} mistakes"
        )

    report = _do(give)
    _print(report, as_json, show)
    if report["error_count"]:
        raise click.exceptions.Exit(EXIT_ERRORS)


@paper.command("rule")
@click.option("--school", default="*", show_default=True)
@click.option("--document", type=_DOCUMENTS, required=True, help="What parity compares.")
@click.option("--two-person", is_flag=True, help="A sheet counts when two people have typed the same.")
@click.option("--from-week", help="Any date of the first week; it must not have begun [next week].")
@click.option("--reason", required=True)
@store_option
@json_option
def paper_rule(
    school: str, document: str, two_person: bool, from_week: str | None, reason: str, store: str, as_json: bool
) -> None:
    """Say which paper is compared, and whether two people must type it, from a coming week on."""
    args = {"school": school, "document": document, "two_person": two_person, "from_week": from_week, "reason": reason}
    done = _order(store, "paper-rule", args)
    _print(done, as_json, lambda one, con: con.print(f"{one['school']} from {one['from_week']}: {one['document']}"))


# ---- parity and gate ---------------------------------------------------------------------------------------------


@click.command("parity")
@click.argument("school", required=False)
@click.option("--week", help="Any date of a week (YYYY-MM-DD): every register of it.")
@click.option("--all", "every", is_flag=True, help="Every school with paper, one line each, as they are read.")
@click.option("--again", is_flag=True, help="With --all: weigh every due week anew and compare; exit code 3 on faults.")
@click.option("--due", is_flag=True, help="Judge what is due now, as the server does once a day.")
@store_option
@json_option
def parity(
    school: str | None, week: str | None, every: bool, again: bool, due: bool, store: str, as_json: bool
) -> None:
    """Compare paper and digital at SCHOOL, week by week."""
    if (school is not None) + every + due != 1 or (again and not every) or (week and school is None):
        raise click.UsageError("name a SCHOOL (perhaps with --week), or --all (perhaps with --again), or --due")
    if due:
        _print(_order(store, "parity-evaluate", {}), as_json, _show_evaluated)
    elif every:
        _parity_of_all(store, again, as_json)
    else:
        _parity_of(str(school), week, store, as_json)


def _show_evaluated(done: dict[str, Any], console: Console) -> None:
    console.print(f"{done['looked_at']} schools looked at, {len(done['judged'])} verdicts new or changed")
    for name, words in (("fired", "paper has retired"), ("waiting", "changes wait to become official")):
        for school in done[name]:
            console.print(f"{school}: {words}")
    for finding in done["findings"]:
        console.print(f"{finding['school']}: {finding['name']}")


def _parity_of(school: str, week: str | None, store: str, as_json: bool) -> None:
    from syncserver.orders.parity import known_school, parity_view

    async def look(reader: Reader) -> dict[str, Any]:
        await known_school(reader, school)
        name = None if week is None else week_of(week)
        return await parity_view(reader, school, _zone(), SystemClock().wall_ms(), name)

    def show(view: dict[str, Any], console: Console) -> None:
        if week is not None:
            _show_week(view, console)
            return
        rows = [
            (
                one["week"],
                one["status"],
                one["rate"],
                f"{one['matched']:,}/{one['compared']:,}",
                f"{one['covered']}/{one['expected']}",
                one["excluded"],
                one["due"],
            )
            for one in view["weeks"]
        ]
        headings = ("week", "status", "agree", "cells", "in both", "excluded", "due")
        console.print(_table(headings, rows))
        _show_words(view["gate"], console)

    _print(_read(store, look), as_json, show)


def _show_week(view: dict[str, Any], console: Console) -> None:
    rows = [
        (
            one["register"],
            one["standing"],
            f"{one['matched']}/{one['cells']}" if one["cells"] else None,
            ", ".join(f"{kind} {count}" for kind, count in one["kinds"].items()),
            "; ".join(sign["en"] for sign in one["signs"]),
        )
        for one in view["registers"]
    ]
    judged = "judged" if view["judged"] else "not judged yet"
    console.print(f"{view['school']}, week of {view['week']}, {judged}")
    console.print(_table(("register", "standing", "agree", "paper/digital", "what the stamps show"), rows))


def _show_words(found: dict[str, Any], console: Console) -> None:
    for language in ("en", "ar"):
        console.print(found["words"][language], highlight=False, soft_wrap=True)
    for finding in found["findings"]:
        if finding["resolved_ms"] is None:
            weeks = ", ".join(f"{one['week']} {one['status']}" for one in finding["weeks"])
            console.print(f"finding {finding['name']}: {weeks}", soft_wrap=True)


def _parity_of_all(store: str, again: bool, as_json: bool) -> None:
    """One line a school as soon as it is read, so that a country needs no more memory than a school."""
    from syncserver.orders.parity import gate_view, weigh_again
    from syncserver.store.open import open_reader
    from syncserver.store.paper import schools_with_paper

    now_ms, zone = SystemClock().wall_ms(), _zone()

    async def lines() -> AsyncIterator[dict[str, Any]]:
        reader = await open_reader(store_address(store))
        try:
            for school in await schools_with_paper(reader):
                found = await gate_view(reader, school, zone, now_ms)
                if again:
                    found["again"] = await weigh_again(reader, school, zone, now_ms)
                yield found
        finally:
            await reader.close()

    async def show() -> tuple[int, int, int]:
        schools = retired = faults = 0
        async for found in lines():
            schools, retired = schools + 1, retired + (not found["paper"])
            faults += len(found["again"]["differ"]) if again else 0
            if as_json:
                click.echo(json.dumps(found, ensure_ascii=False))
            else:
                click.echo(f"{found['school']}: {found['words']['en']}")
        return schools, retired, faults

    try:
        schools, retired, faults = asyncio.run(show())
    except (HudurError, OSError) as error:
        raise click.ClickException(str(error)) from error
    if not as_json:
        click.echo(f"{schools} schools with paper, at {retired} of them it has retired", err=True)
    if faults:
        click.echo(f"{faults} weeks differ from their verdicts", err=True)
        raise click.exceptions.Exit(EXIT_DIFFERENT)


@click.command("gate")
@click.argument("school")
@store_option
@json_option
def gate(school: str, store: str, as_json: bool) -> None:
    """Say what SCHOOL still needs before paper retires there. Nothing can speed it up or stop it."""
    from syncserver.orders.parity import gate_view, known_school

    async def look(reader: Reader) -> dict[str, Any]:
        await known_school(reader, school)
        return await gate_view(reader, school, _zone(), SystemClock().wall_ms())

    _print(_read(store, look), as_json, _show_words)
