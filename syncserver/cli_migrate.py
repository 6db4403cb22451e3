"""`hudur migrate`: a store moves from SQLite to PostgreSQL, or back.

Exit codes: 0 done · 1 it cannot be done (said why) · 2 wrong usage · 3 the copy differs, and cannot be opened.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import click
from rich.console import Console

from syncserver.cli import EXIT_DIFFERENT, _do, _print, _table, json_option
from syncserver.config import store_address

_TOLD_EVERY = 10_000  # rows


@click.command("migrate")
@click.argument("source")
@click.argument("target")
@json_option
def migrate(source: str, target: str, as_json: bool) -> None:
    """Copy the store SOURCE into the new, empty store TARGET, and prove that both are the same.

    Each is sqlite:PATH or postgresql://USER:PASSWORD@HOST/DATABASE. Stop every server first. The server's key, the log
    and its epoch go along: phones and consumers of events notice nothing. SOURCE stays as it is; do not serve it again.
    """
    from syncserver.migrate import migrate as carry_out

    def told(table: str, rows: int) -> None:
        if rows % _TOLD_EVERY == 0:
            click.echo(f"{table}: {rows} rows", err=True)

    done = _do(lambda: carry_out(store_address(source), store_address(target), told))
    _print(asdict(done), as_json, _show)
    if done.differences:
        raise click.exceptions.Exit(EXIT_DIFFERENT)


def _show(value: dict[str, Any], console: Console) -> None:
    console.print(_table(("table", "rows"), list(value["tables"].items())))
    if value["differences"]:
        console.print(
            f"DIFFERENT: {', '.join(value['differences'])}. {value['target']} cannot be opened.", markup=False
        )
        return
    console.print(
        f"Both are the same: the log up to {value['log_offset']}, {value['events']} events. "
        f"Serve {value['target']} from now on.",
        markup=False,
    )
