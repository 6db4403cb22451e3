"""`hudur adjustments`, `hudur disputes`, `hudur pupil`: what waits for a person, and the person's word.

Looking is free to whoever keeps the server. Deciding is not: those commands speak with the token in HUDUR_TOKEN, and
champions decide on their phone.
"""

from __future__ import annotations

from typing import Any

import click
from rich.console import Console

from reconciliation.decisions import Reason
from syncserver.cli import _order, _print, _table, json_option, store_option
from syncserver.cli_access import _SHORT, _order_as_holder

reason_option = click.option("--reason", required=True, help="In your words; for the audit.")
reference_option = click.option("--reference", default="", help="The document it rests on; a central office needs one.")
_DATE = click.DateTime(["%Y-%m-%d"])


def _span(first: Any, last: Any) -> dict[str, str]:
    return {name: f"{day:%Y-%m-%d}" for name, day in (("from", first), ("until", last)) if day is not None}


def _spans(command: Any) -> Any:
    """Add `--from` and `--until`."""
    until = click.option("--until", "last", type=_DATE, help="Last date.")(command)
    return click.option("--from", "first", type=_DATE, help="First date.")(until)


def _more(value: dict[str, Any], console: Console) -> None:
    if value["more"]:
        console.print("There are more: ask for fewer days with --from and --until.")


# ---- adjustments ------------------------------------------------------------------------------------------------


@click.group("adjustments")
def adjustments() -> None:
    """Marks made after the window: requests that somebody else than their author decides, within three working days."""


@adjustments.command("list")
@click.argument("school")
@click.option("--all", "every", is_flag=True, help="Also what is decided.")
@_spans
@store_option
@json_option
def adjustments_list(school: str, every: bool, first: Any, last: Any, store: str, as_json: bool) -> None:
    """List the requests of SCHOOL, the latest registers first."""
    found = _order(store, "adjustments", {"school": school, "all": every, **_span(first, last)})

    def show(value: dict[str, Any], console: Console) -> None:
        rows = [
            (
                one["register"].partition("/")[2],
                one["change"][:_SHORT],
                one["author"],
                ", ".join(f"{c['key']}: {_now(c)} → {c['asked']['code']}" for c in one["cells"]),
                one["stage"],
                one["decide_until"] if one["days_left"] is None else f"{one['decide_until']} ({one['days_left']} left)",
                one["who"],
            )
            for one in value["requests"]
        ]
        headings = ("register", "change", "author", "asked", "stage", "working days until", "who decides")
        console.print(_table(headings, rows))
        _more(value, console)

    _print(found, as_json, show)


def _now(cell: dict[str, Any]) -> str:
    return "-" if cell["now"] is None else str(cell["now"]["code"])


def _adjustment(name: str, word: str, told: str) -> None:
    @adjustments.command(name, help=f"{word} the request CHANGE (hex, as the list shows it) of REGISTER.")
    @click.argument("register")
    @click.argument("change")
    @click.option("--reason", required=True, type=click.Choice([one.value for one in Reason]))
    @reference_option
    @store_option
    @json_option
    def decide(register: str, change: str, reason: str, reference: str, store: str, as_json: bool) -> None:
        args = {"register": register, "change": change, "reason": reason, "reference": reference}
        done = _order_as_holder(store, f"adjustment-{name}", args)
        _print(done, as_json, lambda one, con: con.print(f"{one['register']} {one['change'][:_SHORT]}: {told}"))


_adjustment("approve", "Approve", "approved")
_adjustment("reject", "Reject", "rejected; the marks stay stored and shown")


# ---- disputes ---------------------------------------------------------------------------------------------------


@click.group("disputes")
def disputes() -> None:
    """Pupils two people marked differently without having seen each other's mark. Nobody is at fault."""


@disputes.command("list")
@click.argument("school")
@click.option("--all", "every", is_flag=True, help="Also those a person has settled.")
@_spans
@store_option
@json_option
def disputes_list(school: str, every: bool, first: Any, last: Any, store: str, as_json: bool) -> None:
    """List the disputes of SCHOOL with every mark."""
    found = _order(store, "disputes", {"school": school, "all": every, **_span(first, last)})

    def show(value: dict[str, Any], console: Console) -> None:
        rows = [
            (
                one["register"].partition("/")[2],
                one["pupil"],
                one["state"],
                one["stands"]["code"],
                mark["by"],
                mark["code"],
                mark["received_at"],
                mark["change"][:_SHORT],
            )
            for one in value["disputes"]
            for mark in one["values"]
        ]
        console.print(_table(("register", "pupil", "state", "stands now", "by", "mark", "received", "change"), rows))
        console.print(value["ar"])
        console.print(value["en"])
        _more(value, console)

    _print(found, as_json, show)


@disputes.command("settle")
@click.argument("register")
@click.argument("pupil")
@click.argument("change")
@reason_option
@reference_option
@store_option
@json_option
def disputes_settle(
    register: str, pupil: str, change: str, reason: str, reference: str, store: str, as_json: bool
) -> None:
    """Say that the mark of CHANGE (hex, as the list shows it) stands for PUPIL in REGISTER."""
    args = {"register": register, "pupil": pupil, "change": change, "reason": reason, "reference": reference}
    done = _order_as_holder(store, "dispute-settle", args)
    _print(done, as_json, lambda one, con: con.print(f"{one['register']} {one['pupil']}: {one['code']}"))


# ---- records of one pupil ---------------------------------------------------------------------------------------


@click.group("pupil")
def pupil() -> None:
    """Duplicate records: merged by a person, never deleted, taken back within 72 hours."""


@pupil.command("duplicates")
@click.argument("school")
@store_option
@json_option
def pupil_duplicates(school: str, store: str, as_json: bool) -> None:
    """List records of SCHOOL that share a class and a name, spelling aside. Twins are real: nothing is merged by it."""
    found = _order(store, "duplicates", {"school": school})

    def show(value: dict[str, Any], console: Console) -> None:
        rows = [(one["class"], ", ".join(one["pupils"])) for one in value["candidates"]]
        console.print(_table(("class", "records with one name"), rows))

    _print(found, as_json, show)


@pupil.command("merges")
@click.argument("school")
@store_option
@json_option
def pupil_merges(school: str, store: str, as_json: bool) -> None:
    """List the merges of SCHOOL, those taken back included."""
    found = _order(store, "pupil-merges", {"school": school})

    def show(value: dict[str, Any], console: Console) -> None:
        rows = [
            (
                one["merge"], one["alias"], one["canonical"], one["by"], one["at"],
                one["undone_at"] and f"taken back {one['undone_at']}",
                one["undo_until"] if one["undo_open"] else None, one["reason"],
            )
            for one in value["merges"]
        ]  # fmt: skip
        headings = ("merge", "record", "merged into", "by", "at", "state", "can be undone until", "reason")
        console.print(_table(headings, rows))

    _print(found, as_json, show)


@pupil.command("merge")
@click.argument("school")
@click.argument("alias")
@click.argument("canonical")
@reason_option
@reference_option
@store_option
@json_option
def pupil_merge(
    school: str, alias: str, canonical: str, reason: str, reference: str, store: str, as_json: bool
) -> None:
    """Let the marks of record ALIAS count for CANONICAL. Both are ids of one pupil of SCHOOL."""
    args = {"school": school, "alias": alias, "canonical": canonical, "reason": reason, "reference": reference}
    done = _order_as_holder(store, "pupil-merge", args)
    _print(
        done,
        as_json,
        lambda one, con: con.print(
            f"merge {one['merge']}: {one['alias']} → {one['canonical']}, {one['registers']} registers; "
            f"`hudur pupil undo {one['school']} {one['merge']}` until {one['undo_until']}"
        ),
    )


@pupil.command("undo")
@click.argument("school")
@click.argument("merge", type=int)
@reason_option
@reference_option
@store_option
@json_option
def pupil_undo(school: str, merge: int, reason: str, reference: str, store: str, as_json: bool) -> None:
    """Take MERGE (its number) back. After 72 hours only a central office can."""
    args = {"school": school, "merge": merge, "reason": reason, "reference": reference}
    done = _order_as_holder(store, "pupil-merge-undo", args)
    _print(done, as_json, lambda one, con: con.print(f"{one['alias']} stands for itself again"))
