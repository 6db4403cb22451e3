"""`hudur bulk`: many cells at once, previewed, applied, agreed to by a second person, taken back."""

from __future__ import annotations

import os
from typing import Any

import click
from rich.console import Console

from syncserver.cli import _order, _print, _table, json_option, store_option
from syncserver.cli_access import TOKEN_VARIABLE, _order_as_holder
from syncserver.cli_decide import _DATE, _span, reason_option, reference_option
from syncserver.orders.bulk_plan import CODES


@click.group("bulk")
def bulk() -> None:
    """Many cells at once: look first, decide, undo within 72 hours. Never makes anybody absent."""


def _wishes(command: Any) -> Any:
    """Add the arguments that say which cells, and what they shall say."""
    for option in (
        click.option("--code-reason", default="", help="Reason slug of the code; minutes for late."),
        click.option("--present", multiple=True, type=click.Choice(list(CODES)), help="Only cells that say this now."),
        click.option("--pupil", "pupils", multiple=True, help="Only this pupil (an id); repeat for several."),
        click.option("--session", help="Only this session."),
        click.option("--class", "classes", multiple=True, help="Only this class (an id); repeat for several."),
        click.option("--until", "last", type=_DATE, required=True, help="Last date."),
        click.option("--from", "first", type=_DATE, required=True, help="First date."),
        click.argument("code", type=click.Choice([word for word, code in CODES.items() if code is not None])),
        click.argument("school"),
    ):
        command = option(command)
    return command


def _wish(given: dict[str, Any]) -> dict[str, Any]:
    span = _span(given.pop("first"), given.pop("last"))
    return {name: list(value) if isinstance(value, tuple) else value for name, value in given.items() if value} | span


@bulk.command("preview")
@_wishes
@store_option
@json_option
def bulk_preview(store: str, as_json: bool, **given: Any) -> None:
    """Show what CODE would change in the registers of SCHOOL, and what stands against the rest. Changes nothing.

    With HUDUR_TOKEN it shows what the token's holder may do: what is locked at school is not for a central office.
    """
    give = _order_as_holder if os.environ.get(TOKEN_VARIABLE) else _order
    found = give(store, "bulk-preview", _wish(given))
    _print(found, as_json, _show_plan)


def _show_plan(value: dict[str, Any], console: Console) -> None:
    rows = [
        (one["register"].partition("/")[2], one["pupil"], one["now"], one.get("why"))
        for one in (*value["cells"], *value["refused"])
    ]
    console.print(_table(("register", "pupil", "says now", "stands against it"), rows))
    against = ", ".join(f"{why} {count}" for why, count in sorted(value["refused_by"].items()))
    console.print(f"{value['count']} cells would say {value['to']['code']}; left out: {against or 'none'}")
    if value["needs_second"]:
        console.print("Over 500 cells: another person must agree (`hudur bulk second`).")
    click.echo(f"digest {value['digest']}")


@bulk.command("apply")
@_wishes
@click.option("--digest", required=True, help="Of the preview: what changed since is not decided unseen.")
@reason_option
@reference_option
@store_option
@json_option
def bulk_apply(store: str, as_json: bool, **given: Any) -> None:
    """Do what was previewed; give the same arguments and the preview's digest."""
    done = _order_as_holder(store, "bulk-apply", _wish(given))
    _print(done, as_json, lambda one, con: con.print(f"bulk {one['bulk']}: {one['state']}, {one['cells']} cells"))


@bulk.command("second")
@click.argument("school")
@click.argument("number", type=int)
@reason_option
@reference_option
@store_option
@json_option
def bulk_second(school: str, number: int, reason: str, reference: str, store: str, as_json: bool) -> None:
    """Agree to bulk operation NUMBER of SCHOOL as the second person; it is applied."""
    args = {"school": school, "bulk": number, "reason": reason, "reference": reference}
    done = _order_as_holder(store, "bulk-second", args)
    _print(done, as_json, lambda one, con: con.print(f"bulk {one['bulk']}: {one['state']}, {one['cells']} cells"))


@bulk.command("undo")
@click.argument("school")
@click.argument("number", type=int)
@reason_option
@reference_option
@store_option
@json_option
def bulk_undo(school: str, number: int, reason: str, reference: str, store: str, as_json: bool) -> None:
    """Take bulk operation NUMBER of SCHOOL back; cells that somebody touched since stay and are listed."""
    args = {"school": school, "bulk": number, "reason": reason, "reference": reference}
    done = _order_as_holder(store, "bulk-undo", args)

    def show(value: dict[str, Any], console: Console) -> None:
        console.print(f"bulk {value['bulk']}: {len(value['restored'])} cells restored")
        if value["touched"]:
            rows = [(one["register"].partition("/")[2], one["pupil"], one["now"]["code"]) for one in value["touched"]]
            console.print(_table(("touched since", "pupil", "says now"), rows))

    _print(done, as_json, show)


@bulk.command("list")
@click.argument("school")
@store_option
@json_option
def bulk_list(school: str, store: str, as_json: bool) -> None:
    """List the bulk operations of SCHOOL."""
    found = _order(store, "bulks", {"school": school})

    def show(value: dict[str, Any], console: Console) -> None:
        rows = [
            (
                one["bulk"], one["state"], one["cells"], one["asked"]["code"], one["by"], one["second_by"],
                one["asked_at"], one["undo_until"] if one["undo_open"] else None, one["reason"],
            )
            for one in value["bulks"]
        ]  # fmt: skip
        headings = ("bulk", "state", "cells", "code", "by", "second", "asked", "can be undone until", "reason")
        console.print(_table(headings, rows))

    _print(found, as_json, show)
