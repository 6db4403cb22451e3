"""`hudur report`, `hudur sheet`, `hudur export`, `hudur import`: files for people, offices and other programs."""

from __future__ import annotations

import base64
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click
from rich.console import Console

from clientcore.ports import SystemClock
from syncserver.cli import (
    EXIT_DIFFERENT,
    STORE_DEFAULT,
    _do,
    _order,
    _print,
    _read,
    _table,
    export_,
    json_option,
    store_option,
)
from syncserver.config import Config, StoreAddress, read_config, store_address
from syncserver.store.port import Reader

_out_option = click.option(
    "--out", type=click.Path(dir_okay=False, writable=True, path_type=Path), help="File [standard output]."
)
_needed_out = click.option("--out", required=True, type=click.Path(dir_okay=False, writable=True, path_type=Path))


_WIDTH_MIN = 110  # narrower, numbers would be cut, and a number that is cut is another number
_BREATH_MS = 20


def _zone() -> str:
    return read_config(os.environ, store=STORE_DEFAULT).zone


def _write(data: bytes, out: Path | None) -> None:
    if out is None:
        click.echo(data, nl=False)
    else:
        out.write_bytes(data)


# ---- reports ----------------------------------------------------------------------------------------------------


@click.command("report")
@click.argument("kind", type=click.Choice(("class", "school", "district")))
@click.argument("name")
@click.option("--day", help="The day, YYYY-MM-DD [today].")
@click.option("--week", help="Any day of a week (Saturday to Friday).")
@click.option("--format", "form", default="table", show_default=True,
              type=click.Choice(("table", "json", "jsonl", "csv", "xlsx")))  # fmt: skip
@click.option("--bom", is_flag=True, help="CSV for people: spreadsheets then read the Arabic right.")
@click.option("--arabic", is_flag=True, help="CSV with a second line of Arabic headings.")
@_out_option
@store_option
@json_option
def report(
    kind: str,
    name: str,
    day: str | None,
    week: str | None,
    form: str,
    bom: bool,
    arabic: bool,
    out: Path | None,
    store: str,
    as_json: bool,
) -> None:
    """Count attendance. NAME is SCHOOL/CLASS (or SCHOOL, all its classes), SCHOOL, or the name of a district.

    `class` has a line for each register of a day, or each day of a week; `school` one for each class; `district` one
    for each school. Shares are of the roster of the day. Not taken is never absent.
    """
    if day is not None and week is not None:
        raise click.UsageError("name a day or a week")
    if form == "xlsx" and out is None:
        raise click.UsageError("a workbook needs --out FILE")
    about = (
        {"district": name} if kind == "district" else dict(zip(("school", "class"), name.split("/", 1), strict=False))
    )
    args = {**about, "day": week or day, "period": "day" if week is None else "week"}
    found = _read(store, lambda reader: _report(reader, kind, args))
    if form == "table" and out is None:
        _print(found, as_json, _show)
        return
    from syncserver.reports.files import write

    _write(write(found, "json" if form == "table" else form, bom=bom, arabic=arabic), out)


async def _report(reader: Reader, kind: str, args: Mapping[str, Any]) -> dict[str, Any]:
    from syncserver.reports.build import read_wish, report, today_of

    now_ms, zone = SystemClock().wall_ms(), _zone()
    return await report(reader, read_wish(kind, args, today_of(now_ms, zone)), zone=zone, now_ms=now_ms)


def _show(found: dict[str, Any], console: Console) -> None:
    from syncserver.reports.columns import MISSING, NOTED, SHOWN

    about = [name for name in ("school", "class", "date", "session") if any(row[name] for row in found["rows"])]
    about = [name for name in about if name != "school" or found["kind"] == "district"] or ["school"]
    rows = [
        (
            *(line.get(name) for name in about),
            f"{line['registers_taken']} of {line['registers_expected']}",
            _told(line, MISSING),
            *(line[key] for key in SHOWN),
            _told(line, NOTED),
        )
        for line in (*found["rows"], {**found["total"], about[0]: "total"})
    ]
    table = _table((*about, "taken", "missing", *SHOWN.values(), "noted"), rows)
    for name, column in zip((*about, "taken", "", *SHOWN, ""), table.columns, strict=True):
        column.no_wrap = name != ""
    dates = found["from"] if found["period"] == "day" else f"week {found['from']} to {found['to']}"
    console.print(f"{found['kind']} {found['school'] or found['district']}, {dates}")
    console.width = max(console.width, _WIDTH_MIN)
    console.print(table)


def _told(line: Mapping[str, Any], words: Mapping[str, str]) -> str:
    return ", ".join(f"{line[key]} {word}" for key, word in words.items() if line[key])


# ---- the printed sheet ------------------------------------------------------------------------------------------


@click.command("sheet")
@click.argument("register", required=False)
@click.option("--pdf", is_flag=True, help="Print it with the Chromium of this machine.")
@click.option("--find", "code", nargs=2, metavar="SCHOOL CODE", help="Which register has this code on its sheet?")
@_out_option
@store_option
@json_option
def sheet(
    register: str | None, pdf: bool, code: tuple[str, str] | None, out: Path | None, store: str, as_json: bool
) -> None:
    """Write the paper register of SCHOOL/CLASS (today), or of SCHOOL/CLASS/DATE/SESSION, as HTML to be printed."""
    if (register is None) == (code is None):
        raise click.UsageError("name a class or register, or --find SCHOOL CODE")
    if code is not None:
        found = _order(store, "sheet-find", {"school": code[0], "code": code[1]})
        _print(found, as_json, lambda one, con: con.print("\n".join(one["registers"]) or "no register has this code"))
        return
    if pdf and out is None:
        raise click.UsageError("a PDF needs --out FILE")
    made = _order(store, "sheet", {"register": register})
    data = made.pop("html").encode()
    if pdf:
        from syncserver.reports.pdf import print_pdf

        async def printed() -> bytes:
            return print_pdf(data)

        data = _do(printed)
    _write(data, out)
    if out is not None:
        _print(made, as_json, lambda one, con: con.print(f"{one['register']}: {one['pupils']} pupils, {one['code']}"))


# ---- exports ----------------------------------------------------------------------------------------------------


@click.group("export", invoke_without_command=True)
@click.option("--register", help="school/class/date/session: one register.")
@click.option("--format", "form", type=click.Choice(("json", "automerge")), default="json", show_default=True)
@_out_option
@store_option
@click.pass_context
def export(ctx: click.Context, register: str | None, form: str, out: Path | None, store: str) -> None:
    """Write one register (--register): every mark ever made, or the Automerge document. Or a whole school."""
    given = [name for name in ("register", "form", "out", "store")
             if ctx.get_parameter_source(name) is click.core.ParameterSource.COMMANDLINE]  # fmt: skip
    if ctx.invoked_subcommand is not None and given:
        raise click.UsageError(f"options stand behind the command: hudur export {ctx.invoked_subcommand} …")
    if ctx.invoked_subcommand is None:
        if register is None:
            raise click.UsageError("name --register, or one of: school, edfi, ceds")
        ctx.invoke(export_, register=register, form=form, out=out, store=store)


@export.command("school")
@click.argument("school")
@click.option("--reason", default="data portability", show_default=True, help="For the audit.")
@_needed_out
@store_option
@json_option
def export_school(school: str, reason: str, out: Path, store: str, as_json: bool) -> None:
    """Write everything of SCHOOL to a zip of open formats, with a manifest and checksums. It holds names."""
    from syncserver.files import write_synced

    made = _order(store, "export-school", {"school": school, "reason": reason})
    write_synced(out, base64.b64decode(made.pop("zip")))
    _print(made, as_json, lambda one, con: con.print(f"{out}: {len(one['manifest']['files'])} files, {one['sha256']}"))


def _export_codes(standard: str) -> click.Command:
    @click.command(standard, help=f"Write the official answers of SCHOOL in the codes of {standard}, as JSON Lines.")
    @click.argument("school")
    @click.option("--from", "first", required=True, help="First day, YYYY-MM-DD.")
    @click.option("--to", "last", required=True, help="Last day.")
    @_out_option
    @store_option
    @json_option
    def command(school: str, first: str, last: str, out: Path | None, store: str, as_json: bool) -> None:
        args = {"school": school, "standard": standard, "from": first, "to": last}
        made = _order(store, "export-codes", args)
        _write(made.pop("lines").encode(), out)
        if out is not None:
            _print(made, as_json, lambda one, con: con.print(
                f"{one['answers']} answers of {one['registers']} registers; {one['disputed']} disputed ones left out"
            ))  # fmt: skip

    return command


for _standard in ("edfi", "ceds"):
    export.add_command(_export_codes(_standard))


# ---- import -----------------------------------------------------------------------------------------------------


@click.group("import")
def import_group() -> None:
    """Bring in what another server has given out."""


@import_group.command("school")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--reason", default="data portability", show_default=True, help="For the audit.")
@store_option
@json_option
def import_school(file: Path, reason: str, store: str, as_json: bool) -> None:
    """Read the zip of a school into an empty store, settle every register anew, and compare the digests.

    Exit code 3 when they differ from the manifest. No server may run on the store.
    """
    done = _do(lambda: _import(store_address(store), file.read_bytes(), reason))

    def show(one: dict[str, Any], console: Console) -> None:
        console.print(f"{one['school']}: {one['registers']} registers settled anew")
        for finding in one["findings"]:
            console.print(finding)

    _print(done, as_json, show)
    if done["findings"]:
        raise click.exceptions.Exit(EXIT_DIFFERENT)


async def _import(address: StoreAddress, data: bytes, reason: str) -> dict[str, Any]:
    import asyncio

    from syncserver.access import Desk, give
    from syncserver.consumers import Consumers
    from syncserver.metrics import Metrics
    from syncserver.orders import ORDERS
    from syncserver.portability import check_school
    from syncserver.ports import ServerPorts
    from syncserver.store.open import open_store

    db = await open_store(address)
    try:
        config, ports = Config(store=address, zone=_zone()), ServerPorts()
        done = await give(ORDERS["import-school"], Desk(config=config, db=db, ports=ports), {"reason": reason}, data)
        consumers = Consumers(config, db, ports, Metrics(), asyncio.Event())
        try:
            while await consumers.round() or await _is_unsettled(db):
                await ports.clock.sleep_ms(_BREATH_MS)  # beside running servers they settle it
        finally:
            await consumers.close()
        findings = await check_school(db, done["manifest"])
        row = await db.fetch_one("SELECT count(*) FROM outcomes")
        return {**done, "registers": 0 if row is None else row[0], "findings": findings}
    finally:
        await db.close()


async def _is_unsettled(reader: Reader) -> bool:
    from syncserver.store.consuming import read_head, read_settled_up_to

    if await reader.fetch_one("SELECT 1 FROM settle_again LIMIT 1") is not None:
        return True
    return await read_settled_up_to(reader) < await read_head(reader)
