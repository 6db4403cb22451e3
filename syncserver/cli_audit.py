"""`hudur audit`: read the trail of decisions, and prove that it is whole."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import click
from rich.console import Console

from reconciliation.wire import iso
from syncserver.cli import EXIT_DIFFERENT, _print, _read, _table, json_option, store_option
from syncserver.store.port import Reader


@click.group("audit")
def audit() -> None:
    """The trail of decisions: chained, witnessed by phones."""


@audit.command("verify")
@click.option("--head", help="Hex digits (8 or more) of a head somebody kept, e.g. from a phone's receipt.")
@store_option
@json_option
def verify_(head: str | None, store: str, as_json: bool) -> None:
    """Find an altered, removed or reordered row, and heads that phones have signed and that are gone. Exit code 3."""
    from syncserver import trail

    if head is not None and len(head) < 8:
        raise click.UsageError("--head needs 8 hex digits or more")

    async def look(reader: Reader) -> trail.Verdict:
        return await trail.verify(reader, known_head=head)

    verdict = _read(store, look)

    def show(value: dict[str, Any], console: Console) -> None:
        console.print(
            f"{value['rows']} rows, head {value['head'] or 'none'}; {value['witnesses']} heads signed by phones"
        )
        if value["lost_in_restore"]:
            console.print(f"{value['lost_in_restore']} of them were lost in a restore, as its row in the trail says")
        if value["findings"]:
            rows = [(one["kind"], one["row"], one["detail"]) for one in value["findings"]]
            console.print(_table(("found", "row", "what"), rows))
        else:
            console.print("The trail is whole.")

    _print(asdict(verdict), as_json, show)
    if verdict.findings:
        raise click.exceptions.Exit(EXIT_DIFFERENT)


@audit.command("list")
@click.option("--after", default=0, type=click.IntRange(min=0), help="Row to go on from.")
@click.option("--limit", default=100, show_default=True, type=click.IntRange(1, 10_000))
@click.option("--about", help="Only rows about this school, register or id.")
@store_option
@json_option
def list_(after: int, limit: int, about: str | None, store: str, as_json: bool) -> None:
    """Print decisions: who, what, about what, why."""
    from syncserver import trail

    async def look(reader: Reader) -> list[dict[str, Any]]:
        return await trail.read_trail(reader, after=after, limit=limit, about=about)

    def show(value: list[dict[str, Any]], console: Console) -> None:
        rows = [(r["id"], iso(r["at_ms"]), r["actor"], r["action"], r["subject"], r["reason"]) for r in value]
        console.print(_table(("row", "when", "who", "what", "about", "why"), rows))

    _print(_read(store, look), as_json, show)
