"""`hudur`: serve, look, mend. Every command has `--json`.

Exit codes: 0 done · 1 it cannot be done (said why) · 2 wrong usage · 3 a proof found differences.
"""

from __future__ import annotations

import asyncio
import base64
import json
import os
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from clientcore.errors import HudurError
from clientcore.register import RegisterId
from reconciliation.wire import iso
from syncserver.config import read_config, store_address, store_text
from syncserver.errors import ConfigError
from syncserver.store.port import Reader

if TYPE_CHECKING:
    from syncserver.store.registers import StoredOutcome

EXIT_UNUSABLE, EXIT_DIFFERENT = 1, 3
STORE_DEFAULT = "sqlite:hudur.db"
STORE_HELP = "sqlite:PATH or postgresql://USER:PASSWORD@HOST/DATABASE"

store_option = click.option("--store", default=STORE_DEFAULT, show_default=True, envvar="HUDUR_STORE", help=STORE_HELP)
json_option = click.option("--json", "as_json", is_flag=True, help="Print one line of JSON.")


class LazyGroup(click.Group):
    """A group whose sub-commands are imported when they are asked for: `hudur device` must not load a server."""

    lazy: Mapping[str, tuple[str, str]] = {
        "access": ("syncserver.cli_access", "access"),
        "adjustments": ("syncserver.cli_decide", "adjustments"),
        "audit": ("syncserver.cli_audit", "audit"),
        "backup": ("syncserver.cli_store", "backup"),
        "bulk": ("syncserver.cli_bulk", "bulk"),
        "calendar": ("syncserver.cli_calendar", "calendar"),
        "demo": ("syncserver.demo", "demo"),
        "delegations": ("syncserver.cli_access", "delegations"),
        "device": ("clientcore.cli", "device"),
        "disputes": ("syncserver.cli_decide", "disputes"),
        "drill": ("syncserver.cli_store", "drill"),
        "explain": ("syncserver.cli_explain", "explain"),
        "held": ("syncserver.cli_access", "held"),
        "export": ("syncserver.cli_reports", "export"),
        "gate": ("syncserver.cli_parity", "gate"),
        "import": ("syncserver.cli_reports", "import_group"),
        "paper": ("syncserver.cli_parity", "paper"),
        "migrate": ("syncserver.cli_migrate", "migrate"),
        "parity": ("syncserver.cli_parity", "parity"),
        "profiles": ("syncserver.cli_lab", "profiles"),
        "pupil": ("syncserver.cli_decide", "pupil"),
        "reconcile": ("syncserver.cli_upstream", "reconcile"),
        "release": ("syncserver.cli_access", "release"),
        "report": ("syncserver.cli_reports", "report"),
        "restore": ("syncserver.cli_store", "restore"),
        "roster": ("syncserver.cli_roster", "roster"),
        "school": ("syncserver.cli_calendar", "school_group"),
        "sheet": ("syncserver.cli_reports", "sheet"),
        "sink": ("syncserver.cli_sinks", "sink"),
        "simulate": ("syncserver.cli_lab", "simulate"),
        "upstream": ("syncserver.cli_upstream", "upstream"),
    }

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command; settings that cannot be used are told in one line."""
        try:
            return super().invoke(ctx)
        except ConfigError as error:
            raise click.ClickException(str(error)) from error

    def list_commands(self, ctx: click.Context) -> list[str]:
        """All names."""
        return sorted([*super().list_commands(ctx), *self.lazy])

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command, imported now if need be."""
        if cmd_name not in self.lazy:
            return super().get_command(ctx, cmd_name)
        module, name = self.lazy[cmd_name]
        command: click.Command = getattr(__import__(module, fromlist=[name]), name)
        return command


@click.group(cls=LazyGroup)
def main() -> None:
    """Hudur (حضور): school registers, offline first."""


def _do(work: Callable[[], Awaitable[Any]]) -> Any:
    """Run the asynchronous part of a command; errors of ours are told in one line."""

    async def whole() -> Any:
        return await work()

    try:
        return asyncio.run(whole())
    except (HudurError, OSError) as error:
        raise click.ClickException(_why(error)) from error


def _why(error: Exception) -> str:
    """An error in one line; of a refusal by a rule also which, since when, and who can open it."""
    told: Mapping[str, Any] = getattr(error, "extra", None) or getattr(error, "body", None) or {}
    if "rule" not in told:
        return str(error)
    since = f", closed since {told['closed_on']}" if "closed_on" in told else ""
    return f"{error} (rule {told['rule']}{since}; who can open it: {told['who']})"


def _order(store: str, order: str, args: Mapping[str, Any]) -> dict[str, Any]:
    from syncserver.operator import Operator

    async def give() -> dict[str, Any]:
        async with Operator.connect(store_address(store)) as operator:
            return await operator.call(order, args)

    result: dict[str, Any] = _do(give)
    return result


def _read(store: str, work: Callable[[Reader], Awaitable[Any]]) -> Any:
    """Look into a store read-only, also while a server runs on it."""
    from syncserver.store.open import open_reader

    async def look() -> Any:
        reader = await open_reader(store_address(store))
        try:
            return await work(reader)
        finally:
            await reader.close()

    return _do(look)


def _print(value: Any, as_json: bool, show: Callable[[Any, Console], None]) -> None:
    if as_json:
        click.echo(json.dumps(value, ensure_ascii=False))
    else:
        show(value, Console())


def _table(headings: tuple[str, ...], rows: Sequence[tuple[object, ...]]) -> Table:
    table = Table(*headings)
    for row in rows:
        table.add_row(*(Text("" if cell is None else str(cell)) for cell in row))
    return table


# ---- serve ------------------------------------------------------------------------------------------------------


@main.command("serve")
@store_option
@click.option("--host", help="Address [HUDUR_HOST, else 127.0.0.1]; others than loopback need HUDUR_OPERATOR_TOKEN.")
@click.option("--port", type=click.IntRange(0, 65_535), help="Port [PORT, else 8000]; 0 takes a free one.")
@json_option
def serve_(store: str, host: str | None, port: int | None, as_json: bool) -> None:
    """Serve until Ctrl-C or SIGTERM. One process per SQLite store; on PostgreSQL as many as you like."""
    from syncserver.app import Server
    from syncserver.serve import run

    def ready(server: Server, url: str) -> None:
        told = {"url": url, "store": store_text(server.config.store)}
        _print(told, as_json, lambda told, con: con.print(f"Hudur answers at {told['url']}"))

    try:
        run(read_config(os.environ, store=store, host=host, port=port), on_ready=ready)
    except (HudurError, OSError) as error:
        raise click.ClickException(str(error)) from error


# ---- looking ----------------------------------------------------------------------------------------------------


@main.command("events")
@store_option
@click.option("--after", default=0, show_default=True, type=click.IntRange(min=0), help="Sequence to go on from.")
@click.option("--school", help="Only this school.")
@click.option("--json", "as_json", is_flag=True, help="One event a line, as CloudEvents JSON.")
def events_(store: str, after: int, school: str | None, as_json: bool) -> None:
    """Print the clean events behind a sequence."""
    from syncserver import feed

    async def pages(reader: Reader) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        at, schools = after, None if school is None else (school,)
        while page := (await feed.read_page(reader, after=at, schools=schools)).events:
            found += page
            at = int(page[-1]["sequence"])
        return found

    found = _read(store, pages)
    if as_json:
        for event in found:
            click.echo(json.dumps(event, ensure_ascii=False))
        return
    rows = [
        (int(e["sequence"]), e["time"], e["type"].split(".")[-2], e["subject"], e["data"].get("code")) for e in found
    ]
    Console().print(_table(("sequence", "settled", "what", "subject", "code"), rows))


@main.group("register")
def register_group() -> None:
    """Official registers."""


@register_group.command("show")
@click.argument("register")
@store_option
@json_option
def register_show(register: str, store: str, as_json: bool) -> None:
    """Show REGISTER (school/class/date/session): the official answer for each pupil, by id."""
    from reconciliation.wire import readable
    from syncserver.store.registers import outcome_of

    async def look(reader: Reader) -> StoredOutcome | None:
        name = RegisterId.parse(register)
        return await outcome_of(reader, (name.school, name.class_id, name.date, name.session))

    found = _read(store, look)
    if found is None:
        raise click.ClickException(f"{register}: not taken. Nothing has arrived for this register.")
    value = {"revision": found.revision, **readable(found.outcome)}
    _print(value, as_json, lambda _, console: _show_register(found, console))


def _show_register(found: StoredOutcome, console: Console) -> None:
    outcome = found.outcome
    rows: list[tuple[object, ...]] = [
        (
            pupil,
            answer.code.word if answer.code else "not taken",
            answer.reason,
            answer.timeliness.value if answer.timeliness else None,
            ", ".join([*(["disputed"] if answer.disputed else []), *answer.labels]),
        )
        for pupil, answer in outcome.answers.items()
    ]
    console.print(f"{outcome.register}, revision {found.revision}, session {outcome.occasion.value}")
    console.print(_table(("pupil", "code", "reason", "timeliness", "labels"), rows))
    if outcome.held:
        console.print(
            _table(("held", "value", "why", "by"), [(h.key, h.value, h.slug, h.user_id) for h in outcome.held])
        )


@main.command("devices")
@click.argument("school")
@store_option
@json_option
def devices_(school: str, store: str, as_json: bool) -> None:
    """List the devices of SCHOOL, those that need somebody first."""
    found = _order(store, "devices", {"school": school})

    def show(value: dict[str, Any], console: Console) -> None:
        rows = [
            (d["device"][:12], d["user"], d["label"], d["state"], d["school_days_silent"], d["unsent"], d["app"])
            for d in value["devices"]
        ]
        console.print(_table(("device", "user", "label", "state", "silent days", "unsent", "app"), rows))

    _print(found, as_json, show)


# ---- mending ----------------------------------------------------------------------------------------------------


@main.group("dlq")
def dlq() -> None:
    """Dead letters: changes that no machine could process. Nothing in them is lost."""


@dlq.command("list")
@store_option
@json_option
def dlq_list(store: str, as_json: bool) -> None:
    """List dead letters, newest last."""
    from syncserver.orders.operating import DEAD_LETTERS, dead_letter

    async def look(reader: Reader) -> list[dict[str, Any]]:
        return [dead_letter(row) for row in await reader.fetch_all(f"{DEAD_LETTERS} WHERE requeued = 0 ORDER BY id")]

    def show(value: list[dict[str, Any]], console: Console) -> None:
        rows = [(one["id"], one["log_offset"], one["register"], one["code"], one["detail"]) for one in value]
        console.print(_table(("id", "offset", "register", "code", "detail"), rows))

    _print(_read(store, look), as_json, show)


@dlq.command("causes")
@store_option
@json_option
def dlq_causes(store: str, as_json: bool) -> None:
    """Count dead letters by cause."""
    found = _order(store, "dlq-causes", {})

    def show(value: dict[str, Any], console: Console) -> None:
        rows = [(one["cause"], one["letters"], iso(one["oldest_ms"]), one["schools"]) for one in value["causes"]]
        console.print(_table(("cause", "letters", "oldest", "schools"), rows))

    _print(found, as_json, show)


@dlq.command("show")
@click.argument("letter", type=int)
@store_option
@json_option
def dlq_show(letter: int, store: str, as_json: bool) -> None:
    """Show one dead letter with its change, as hex: pupils stand in it by id only."""
    from syncserver.orders.operating import DEAD_LETTERS, dead_letter

    async def look(reader: Reader) -> dict[str, Any] | None:
        row = await reader.fetch_one(f"{DEAD_LETTERS} WHERE id = ?", (letter,))
        if row is None:
            return None
        chunk = await reader.fetch_one(
            """SELECT c.hash, substr(f.body, c.chunk_at, c.chunk_bytes), f.device FROM changes c
            JOIN frames f ON f.id = c.frame_id WHERE c.log_offset = ?""",
            (row[1],),
        )
        assert chunk is not None
        return {**dead_letter(row), **dict(zip(("hash", "chunk", "device"), (b.hex() for b in chunk), strict=True))}

    found = _read(store, look)
    if found is None:
        raise click.ClickException(f"{letter}: no such dead letter")
    _print(found, as_json, lambda one, con: con.print(_table(("", ""), list(one.items()))))


@dlq.command("requeue")
@click.argument("letter", type=int, required=False)
@click.option("--cause", help="Every dead letter of this cause (see `hudur dlq causes`).")
@click.option("--all", "every", is_flag=True, help="Every dead letter.")
@click.option("--reason", default="", help="For the audit.")
@store_option
@json_option
def dlq_requeue(letter: int | None, cause: str | None, every: bool, reason: str, store: str, as_json: bool) -> None:
    """Settle the register of LETTER again, with it. The server does it; without one, the next start does."""
    if [letter is not None, cause is not None, every].count(True) != 1:
        raise click.UsageError("name one dead letter, --cause, or --all")
    done = _order(store, "dlq-requeue", {"id": letter, "cause": cause, "all": every, "reason": reason})
    _print(done, as_json, lambda one, con: con.print(f"requeued: {one['requeued']}"))


@main.command("code")
@click.argument("user")
@store_option
@json_option
def code_(user: str, store: str, as_json: bool) -> None:
    """Make an enrolment code for USER (an id, or SCHOOL/ID). It works once, for 15 minutes."""
    made = _order(store, "code", {"user": user})
    _print(made, as_json, lambda one, con: con.print(f"[bold]{one['shown']}[/bold]  {one['school']}  {one['link']}"))


@main.command("resync")
@click.argument("target")
@click.option("--level", required=True, type=click.Choice(("nudge", "repull", "rebuild")))
@click.option("--reason", required=True, help="Shown to the person and kept in the audit.")
@store_option
@json_option
def resync_(target: str, level: str, reason: str, store: str, as_json: bool) -> None:
    """Ask TARGET (a device's id, or a school) to synchronise. Unsent work is always kept."""
    made = _order(store, "resync", {"target": target, "level": level, "reason": reason})
    _print(made, as_json, lambda one, con: con.print(f"{one['level']}: {len(one['devices'])} devices"))


@main.command("revoke")
@click.argument("device")
@click.option("--reason", required=True)
@click.option("--undo", is_flag=True, help="Let it be heard again; what was held meanwhile is settled.")
@store_option
@json_option
def revoke_(device: str, reason: str, undo: bool, store: str, as_json: bool) -> None:
    """Revoke DEVICE (32 hex digits). What it still sends is kept and held."""
    done = _order(store, "revoke", {"device": device, "reason": reason, "undo": undo})
    _print(done, as_json, lambda one, con: con.print(f"{one['device']}: {'revoked' if one['revoked'] else 'heard'}"))


# ---- proofs and exports -----------------------------------------------------------------------------------------


@main.command("prove")
@click.option("--date", help="Only registers of this date (YYYY-MM-DD).")
@store_option
@json_option
def prove_(date: str | None, store: str, as_json: bool) -> None:
    """Merge every register again with the independent Automerge core and compare. Exit code 3 when they differ."""
    from dataclasses import asdict

    from syncserver.prove import prove
    from syncserver.store.registers import chunks_by_register

    registers = _read(store, lambda reader: chunks_by_register(reader, date))
    try:
        report = prove(registers)
    except HudurError as error:
        raise click.ClickException(str(error)) from error
    _print(asdict(report), as_json, lambda one, con: con.print(_table(("", ""), list(one.items()))))
    if report.differences:
        raise click.exceptions.Exit(EXIT_DIFFERENT)


@click.command("export")
@click.option("--register", "register", required=True, help="school/class/date/session")
@click.option("--format", "form", type=click.Choice(("json", "automerge")), default="json", show_default=True)
@click.option("--out", type=click.Path(dir_okay=False, writable=True, path_type=Path), help="File [standard output].")
@store_option
def export_(register: str, form: str, out: Path | None, store: str) -> None:
    """Write one register: every mark ever made (json), or the Automerge document itself (automerge)."""
    made = _order(store, "export-register", {"register": register, "format": form})
    data = base64.b64decode(made["data"])
    if out is None:
        click.echo(data, nl=False)
    else:
        out.write_bytes(data)
