"""`hudur backup`, `hudur restore`, `hudur drill`: copies of a store, the proof that they can be used, and their use.

Exit codes: 0 done · 1 it cannot be done (said why), nothing was changed · 2 wrong usage · 3 a proof found differences.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Coroutine
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from clientcore.errors import HudurError
from syncserver.config import read_config, store_path
from syncserver.ports import ServerPorts

EXIT_DIFFERENT = 3
STORE_DEFAULT = "sqlite:hudur.db"

_store = click.option("--store", default=STORE_DEFAULT, show_default=True, envvar="HUDUR_STORE", help="sqlite:PATH")
_json = click.option("--json", "as_json", is_flag=True, help="Print one line of JSON.")
_proof = click.option("--proof/--no-proof", default=True, help="Merge with the independent Automerge core as well.")


def _run(work: Coroutine[Any, Any, Any]) -> Any:
    try:
        return asyncio.run(work)
    except (HudurError, OSError) as error:
        raise click.ClickException(str(error)) from error


def _zone() -> str:
    return read_config(os.environ, store=STORE_DEFAULT, port=0).zone


def _tell(value: dict[str, Any], as_json: bool, headline: str, findings: list[str] | tuple[str, ...]) -> None:
    """The report; text or JSON. Findings end the command with their exit code."""
    if as_json:
        click.echo(json.dumps(value, ensure_ascii=False))
    else:
        console = Console()
        table = Table("", "", show_header=False)
        for name, cell in _rows(value):
            table.add_row(name, escape(cell))
        console.print(table)
        for finding in findings:
            console.print(f"[red]✗[/red] {escape(finding)}")
        console.print(headline if not findings else "[red]Not as it must be.[/red]")
    if findings:
        raise click.exceptions.Exit(EXIT_DIFFERENT)


def _rows(value: dict[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    rows: list[tuple[str, str]] = []
    for name, cell in value.items():
        if isinstance(cell, dict):
            rows += _rows(cell, f"{prefix}{name}.")
        elif isinstance(cell, list | tuple):
            rows += [(f"{prefix}{name}", str(one)) for one in cell]
        elif cell is not None:
            rows.append((f"{prefix}{name}", str(cell)))
    return rows


@click.command("backup")
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
@_store
@_json
def backup(file: Path, store: str, as_json: bool) -> None:
    """Write a consistent copy of the store to FILE, and FILE.manifest.json beside it; also while a server runs.

    Nothing is ever overwritten. The copy holds the server's key and pupils' names: it is as secret as the store.
    """
    from syncserver.backup import make_backup

    made = _run(make_backup(store_path(store), file, ServerPorts().clock))
    value = {"file": str(file), **asdict(made)}
    _tell(value, as_json, f"Backed up {made.manifest.log_offset} changes to {escape(str(file))}.", made.flaws)


@click.command("restore")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--verify", "only_verify", is_flag=True, help="Prove FILE in a scratch place; change nothing.")
@click.option("--archive-in", help="With --verify: mark what was proved as archived in this store (sqlite:PATH).")
@click.option("--to", "target", help="Put FILE in the place of this store (sqlite:PATH); its server must be stopped.")
@click.option("--reason", default="", help="For the audit; shown to people whose devices are asked.")
@click.option(
    "--accept-findings", is_flag=True, help="With --to: put it in place although the proof found differences."
)
@click.option(
    "--epoch-above", default=0, type=click.IntRange(0, 1 << 32), help="A log epoch that phones may have seen."
)
@_proof
@_json
def restore(
    file: Path,
    only_verify: bool,
    archive_in: str | None,
    target: str | None,
    reason: str,
    accept_findings: bool,
    epoch_above: int,
    proof: bool,
    as_json: bool,
) -> None:
    """Prove the backup FILE by restoring it, or put it in the place of a store.

    The proof comes first in either case: a copy is checked page by page, its log and audit trail are compared with the
    manifest, every register is settled anew from offset 0 and merged by an independent core.
    """
    if only_verify == (target is not None):
        raise click.UsageError("either --verify or --to")
    if archive_in is not None and not only_verify:
        raise click.UsageError("--archive-in goes with --verify")
    if target is None:
        value, findings = _run(_verify(file, archive_in, reason, proof))
        _tell(value, as_json, "A verified restore: everything in it is there and means the same.", findings)
        return
    value, findings = _run(_put(file, target, reason, accept_findings, epoch_above, proof))
    told = "Restored. Start the server; the phones bring what the backup lacks. Make again what is listed as lost."
    _tell(value, as_json, told, findings)


async def _verify(
    file: Path, archive_in: str | None, reason: str, proof: bool
) -> tuple[dict[str, Any], tuple[str, ...]]:
    import tempfile

    from syncserver.archive import mark_archived
    from syncserver.backup import read_manifest
    from syncserver.verify import verify

    ports = ServerPorts()
    with tempfile.TemporaryDirectory(prefix=f"{file.name}.verify-", dir=file.absolute().parent) as folder:
        scratch = Path(folder) / "store.db"
        found = await verify(file, scratch, zone=_zone(), clock=ports.clock, manifest=read_manifest(file), proof=proof)
    value = {"verified": found.agrees, **asdict(found)}
    if archive_in is not None and found.agrees:
        value["archived"] = await mark_archived(store_path(archive_in), found, reason=reason or "verified restore")
    return value, found.findings


async def _put(
    file: Path, target: str, reason: str, accept: bool, epoch_above: int, proof: bool
) -> tuple[dict[str, Any], tuple[str, ...]]:
    from syncserver.restore import REASON, Wish
    from syncserver.restore import restore as put_in_place

    wish = Wish(zone=_zone(), reason=reason or REASON, accept=accept, proof=proof, epoch_above=epoch_above)
    done = await put_in_place(file, store_path(target), wish, ServerPorts())
    return {"store": target, **asdict(done)}, done.verified.findings


@click.command("drill")
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
@_store
@click.option(
    "--home", "homes", multiple=True, type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="A device of `hudur device` on this machine; a copy of it talks to the restored server. May be repeated.",
)  # fmt: skip
@click.option("--archive/--no-archive", default=True, help="Mark what was proved as archived in the store.")
@_proof
@_json
def drill(file: Path, store: str, homes: tuple[Path, ...], archive: bool, proof: bool, as_json: bool) -> None:
    """Rehearse the disaster: restore FILE beside the running server, let everybody offer again, compare.

    FILE is made if it does not exist, and kept: what is archived lies in it. An older backup tests more, because the
    phones have more to bring back.
    """
    from syncserver.drill import DrillWish
    from syncserver.drill import drill as carry_out

    wish = DrillWish(zone=_zone(), homes=homes, archive=archive, proof=proof)
    done = _run(carry_out(file, store_path(store), wish, ServerPorts()))
    lacked, missing = done.lacked, done.missing - done.unknown
    told = f"{lacked} changes were not in the backup, {missing} of them are missing after the re-offer."
    _tell(done.to_plain(), as_json, told, done.findings)
