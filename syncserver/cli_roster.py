"""`hudur roster`: bring a OneRoster export in, or make one of generated schools.

Exit codes of `import`: 0 applied, unchanged or a clean dry run · 1 the store or server cannot be used · 2 wrong usage ·
3 the export has errors, nothing was applied · 4 it would end too many pupils, nothing was applied.
"""

from __future__ import annotations

import asyncio
import json
import sys
from datetime import date
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from clientcore.errors import HudurError
from clientcore.ports import SystemClock
from syncserver.calendar import local_date
from syncserver.config import StoreAddress, store_address
from syncserver.oneroster_zip import ARCHIVE_BYTES_MAX
from syncserver.operator import Operator
from syncserver.rostergen import SCHOOLS_MAX, generate, school_year
from syncserver.rosterwrite import write_zip

EXIT_UNUSABLE, EXIT_ERRORS, EXIT_MASS_ENDING = 1, 3, 4
_EXITS = {"errors": EXIT_ERRORS, "mass-ending": EXIT_MASS_ENDING}
_ZONE = "Africa/Cairo"
STORE_DEFAULT = "sqlite:hudur.db"


@click.group()
def roster() -> None:
    """Who is in which class: import from the school system (OneRoster 1.2), or generate for a trial."""


@roster.command("import")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option(
    "--store",
    default=STORE_DEFAULT,
    show_default=True,
    envvar="HUDUR_STORE",
    help="sqlite:PATH; a server that runs on it does the work.",
)
@click.option("--dry-run", is_flag=True, help="Compare and report; write nothing.")
@click.option("--allow-mass-ending", is_flag=True, help="Apply although over a third of a school's pupils would end.")
@click.option("--json", "as_json", is_flag=True, help="Print the report as one line of JSON.")
def import_(file: Path, store: str, dry_run: bool, allow_mass_ending: bool, as_json: bool) -> None:
    """Import FILE, a OneRoster 1.2 CSV zip with bulk files: whole, or not at all."""
    if file.stat().st_size > ARCHIVE_BYTES_MAX:
        raise click.UsageError(f"{file} is over {ARCHIVE_BYTES_MAX >> 20} MB: export by governorate")
    args = {"dry_run": dry_run, "allow_mass_ending": allow_mass_ending}
    try:
        report = asyncio.run(_import(store_address(store), args, file.read_bytes()))
    except HudurError as error:
        click.echo(f"hudur roster import: {error}", err=True)
        sys.exit(EXIT_UNUSABLE)
    if as_json:
        click.echo(json.dumps(report, ensure_ascii=False))
    else:
        show(report, Console())
    sys.exit(_EXITS.get(report["state"], 0))


async def _import(store: StoreAddress, args: dict[str, bool], data: bytes) -> dict[str, Any]:
    async with Operator.connect(store) as operator:
        report: dict[str, Any] = await operator.call("roster-import", args, data=data)
        return report


@roster.command("generate")
@click.argument("file", type=click.Path(dir_okay=False, writable=True, path_type=Path))
@click.option("--schools", default=3, show_default=True, type=click.IntRange(1, SCHOOLS_MAX))
@click.option("--seed", default=1, show_default=True, type=int, help="The same seed gives the same bytes.")
@click.option("--first-day", type=click.DateTime(["%Y-%m-%d"]), help="First day of the school year [this year's].")
@click.option("--until-day", type=click.DateTime(["%Y-%m-%d"]), help="First day after the school year.")
@click.option("--bom", is_flag=True, help="Begin every file with a byte order mark, as spreadsheet programs do.")
def generate_(file: Path, schools: int, seed: int, first_day: Any, until_day: Any, bom: bool) -> None:
    """Write FILE, a OneRoster 1.2 zip of made-up Egyptian schools."""
    first, until = school_year(local_date(SystemClock().wall_ms(), _ZONE))
    try:
        made = generate(
            schools=schools,
            seed=seed,
            first_day=_day(first_day) or first,
            until_day=_day(until_day) or until,
        )
    except HudurError as error:
        raise click.UsageError(str(error)) from error
    file.write_bytes(write_zip(made, bom=bom))
    pupils = sum(len(part.pupils) for school in made.schools for part in school.classes)
    classes = sum(len(school.classes) for school in made.schools)
    click.echo(f"{file}: {schools} schools, {classes} classes, {pupils} pupils, {made.first_day} to {made.until_day}")


def _day(value: Any) -> str | None:
    return None if value is None else date(value.year, value.month, value.day).isoformat()


_STATES = {
    "applied": ("green", "Applied. تم الاستيراد."),
    "unchanged": ("green", "Nothing to change: the store already says this. لا يوجد تغيير."),
    "dry-run": ("cyan", "Dry run: nothing was written. تجربة فقط: لم يُكتب شيء."),
    "errors": ("red", "Nothing was applied: mend these rows and export again. لم يُستورد شيء: يلزم إصلاح هذه السطور."),
    "mass-ending": ("red", "Nothing was applied: the export looks cut short. لم يُستورد شيء: يبدو أن الملف ناقص."),
}


def show(report: dict[str, Any], console: Console) -> None:
    """Print a report for people: the state, what changes, what stayed outside, and each bad row with what to do."""
    colour, words = _STATES[report["state"]]
    console.print(Text(words, style=f"bold {colour}"))
    if report["errors"]:
        console.print(_errors(report))
    for school, (ended, before) in report["mass_ending"].items():
        console.print(
            Text(f"{school}: {ended} of {before} pupils would end. --allow-mass-ending applies it all the same.")
        )
    if report["counts"]:
        console.print(_counts(report["counts"]))
        console.print(f"classes whose list phones fetch again: {report['versions_risen']}")
    dropped = report["dropped"]
    if any(dropped.values()):
        console.print(_dropped(dropped))


def _errors(report: dict[str, Any]) -> Table:
    table = Table(title=f"{report['errors_found']} errors", title_justify="left", show_lines=True)
    for heading in ("where", "found", "what to do · المطلوب"):
        table.add_column(heading, overflow="fold")
    for row in report["errors"]:
        where = ":".join(part for part in (row["file"], str(row["line"] or "")) if part)
        # Text, not markup: what stands in a file must not be able to style the terminal.
        table.add_row(Text(f"{where} {row['column']}"), Text(row["detail"]), Text(f"{row['en']}\n{row['ar']}"))
    return table


def _counts(counts: dict[str, dict[str, int]]) -> Table:
    table = Table(title="Changes", title_justify="left")
    for heading in ("table", "added", "changed", "ended"):
        table.add_column(heading, justify="left" if heading == "table" else "right")
    for name, row in counts.items():
        table.add_row(name, str(row["added"]), str(row["changed"]), str(row["ended"]))
    return table


def _dropped(dropped: dict[str, dict[str, int]]) -> Table:
    table = Table(title="Dropped at the door (counted, not kept)", title_justify="left")
    table.add_column("what")
    table.add_column("number", justify="right")
    for kind, unit in (("columns", "values"), ("rows", "rows"), ("files", "bytes, unopened")):
        for name, number in dropped[kind].items():
            table.add_row(Text(name), f"{number} {unit}")
    return table
