"""`hudur sink`: who downstream is sent events, and how far each has come."""

from __future__ import annotations

import os
from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

import click
from rich.console import Console

from syncserver.cli import _order, _print, _table, json_option, store_option

reason_option = click.option("--reason", required=True, help="For the audit.")


@click.group("sink")
def sink() -> None:
    """Webhooks: signed batches of events, sent to a program's address, each in its own time."""


@sink.command("add")
@click.argument("name")
@click.option("--url", required=True, help="https://…; http only to this machine.")
@click.option("--school", "schools", multiple=True, help="Events of this school; repeat for several.")
@click.option("--all", "every", is_flag=True, help="Events of every school.")
@click.option("--after", type=click.IntRange(min=0), help="Begin behind this sequence of the feed [0: with all of it].")
@click.option("--from-now", is_flag=True, help="Begin with what comes from now on.")
@click.option("--reason", default="", help="For the audit.")
@store_option
@json_option
def sink_add(
    name: str,
    url: str,
    schools: tuple[str, ...],
    every: bool,
    after: int | None,
    from_now: bool,
    reason: str,
    store: str,
    as_json: bool,
) -> None:
    """Send events to NAME (of an office or program, for ever). Prints the secret that signs them, this once."""
    if bool(schools) == every:
        raise click.UsageError("say one of --school, --all")
    if from_now and after is not None:
        raise click.UsageError("say one of --after, --from-now")
    args: dict[str, Any] = {"name": name, "url": url, "reason": reason}
    args |= {"all": True} if every else {"schools": [*schools]}
    args |= {"from_now": True} if from_now else {"after": after or 0}

    def show(made: dict[str, Any], console: Console) -> None:
        console.print(f"{made['name']}: {_schools(made)}, behind sequence {made['sent_seq']}")
        click.echo(made["secret"])
        console.print("Write it down now: it cannot be shown again. The consumer checks every request with it.")

    _print(_order(store, "sink-add", args), as_json, show)


@sink.command("list")
@store_option
@json_option
def sink_list(store: str, as_json: bool) -> None:
    """List every sink: its place in the feed, what waits, and what became of the last try."""

    def show(value: dict[str, Any], console: Console) -> None:
        rows = [
            (
                one["name"],
                one["state"],
                _schools(one),
                one["url"],
                one["sent_seq"],
                one["waiting"],
                one["failures"],
                one["last_result"],
                _when(one["last_taken_ms"]),
                _when(one["next_try_ms"]),
            )
            for one in value["sinks"]
        ]
        headings = ("name", "state", "schools", "url", "sent", "waiting", "failed tries", "last answer", "last taken")
        console.print(_table((*headings, "next try"), rows))
        console.print(f"The feed ends at {value['feed']}.")

    _print(_order(store, "sink-list", {}), as_json, show)


@sink.command("pause")
@click.argument("name")
@reason_option
@store_option
@json_option
def sink_pause(name: str, reason: str, store: str, as_json: bool) -> None:
    """Send nothing to NAME until `hudur sink resume`. Its place is kept."""
    _change(store, "sink-pause", {"name": name, "reason": reason}, as_json)


@sink.command("resume")
@click.argument("name")
@reason_option
@store_option
@json_option
def sink_resume(name: str, reason: str, store: str, as_json: bool) -> None:
    """Go on where NAME stopped, at once; also when it waits after failures."""
    _change(store, "sink-resume", {"name": name, "reason": reason}, as_json)


@sink.command("requeue")
@click.argument("name")
@click.option("--from", "first", required=True, type=click.IntRange(min=1), help="Sequence of the first event.")
@reason_option
@store_option
@json_option
def sink_requeue(name: str, first: int, reason: str, store: str, as_json: bool) -> None:
    """Send NAME an event and everything behind it again; one behind the feed's end skips what waits."""
    _change(store, "sink-requeue", {"name": name, "from": first, "reason": reason}, as_json)


@sink.command("remove")
@click.argument("name")
@reason_option
@store_option
@json_option
def sink_remove(name: str, reason: str, store: str, as_json: bool) -> None:
    """End NAME for ever. What was is kept."""
    _change(store, "sink-remove", {"name": name, "reason": reason}, as_json)


def _change(store: str, order: str, args: dict[str, Any], as_json: bool) -> None:
    done = _order(store, order, args)
    _print(done, as_json, lambda one, con: con.print(f"{one['name']}: {one['state']}, sent up to {one['sent_seq']}"))


def _schools(one: dict[str, Any]) -> str:
    return "every school" if one["schools"] is None else ", ".join(one["schools"])


def _when(at_ms: int | None) -> str:
    zone = ZoneInfo(os.environ.get("HUDUR_ZONE", "Africa/Cairo"))
    return "" if at_ms is None else datetime.fromtimestamp(at_ms / 1000, tz=zone).strftime("%Y-%m-%d %H:%M")
