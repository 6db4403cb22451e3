"""`hudur upstream`, `hudur reconcile`: the school system, what comes from it and what goes back.

Exit codes of `pull` as of `hudur roster import`; of `reconcile`: 0 the same · 1 not heard · 3 different.
"""

from __future__ import annotations

import os
import sys
from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

import click
from rich.console import Console
from rich.text import Text

from syncserver.cli import EXIT_DIFFERENT, EXIT_UNUSABLE, _order, _print, _table, json_option, store_option

EXIT_ERRORS, EXIT_MASS_ENDING = 3, 4
_PULL_EXITS = {"errors": EXIT_ERRORS, "contract": EXIT_ERRORS, "mass-ending": EXIT_MASS_ENDING}
_RECONCILE_EXITS = {"different": EXIT_DIFFERENT, "silent": EXIT_UNUSABLE, "contract": EXIT_UNUSABLE}


@click.group("upstream")
def upstream() -> None:
    """The school system: rosters come from it, attendance goes back to it. Settings: HUDUR_UPSTREAM_*."""


@upstream.command("pull")
@click.option("--dry-run", is_flag=True, help="Compare and report; write nothing.")
@click.option("--allow-mass-ending", is_flag=True, help="Apply although over a third of a school's pupils would end.")
@click.option("--allow-vanished", is_flag=True, help="Apply although a field that was filled before is gone.")
@store_option
@json_option
def pull_(dry_run: bool, allow_mass_ending: bool, allow_vanished: bool, store: str, as_json: bool) -> None:
    """Bring the roster in as the school system has it now (OneRoster 1.2): whole, or not at all."""
    args = {"dry_run": dry_run, "allow_mass_ending": allow_mass_ending, "allow_vanished": allow_vanished}
    report = _order(store, "upstream-pull", args)
    _print(report, as_json, _show_pull)
    sys.exit(_PULL_EXITS.get(report["state"], 0))


def _show_pull(report: dict[str, Any], console: Console) -> None:
    from syncserver.cli_roster import show

    if report["state"] != "contract":
        show(report, console)
        return
    console.print(Text("Nothing was applied: upstream answered otherwise than agreed.", style="bold red"))
    for one in report["errors"]:
        console.print(Text(f"{one['en']}\n{one['ar']}"))


@upstream.command("status")
@store_option
@json_option
def status_(store: str, as_json: bool) -> None:
    """How old the status feed is, how far attendance is, what was refused, the last import and nights."""
    _print(_order(store, "upstream-status", {}), as_json, _show_status)


def _show_status(found: dict[str, Any], console: Console) -> None:
    fed, sent, roster = found["feed"], found["attendance"], found["roster"]
    stale = "STALE: " if fed["stale"] else ""
    rows = [
        ("upstream", found["upstream"] or "not set (HUDUR_UPSTREAM_URL)"),
        ("status feed", f"{stale}last heard {_when(fed['looked_ms'])}, {fed['last_result'] or 'no try yet'}"),
        ("ended by it", fed["ended"]),
        ("attendance", f"up to {sent['sent_seq']}, {sent['waiting']} wait; {sent['last_result'] or 'no try yet'}"),
        ("roster", "never pulled" if roster is None else f"{_when(roster['at_ms'])}, {roster['state']}"),
        ("roster behind", "enrolments changed since: pull" if found["roster_behind"] else "no"),
    ]
    console.print(_table(("", ""), rows))
    if sent["refused"]:
        console.print(_letters("refused by upstream", sent["refused"]))
    if found["nights"]:
        nights = [(one["date"], one["state"], _when(one["at_ms"]), one["made_by"]) for one in found["nights"]]
        console.print(_table(("date compared", "found", "when", "by"), nights))


@upstream.command("requeue")
@click.argument("letter", type=int, required=False)
@click.option("--cause", help="Every refused event of this cause (see `hudur upstream status`).")
@click.option("--all", "every", is_flag=True, help="Every refused event.")
@click.option("--reason", required=True, help="For the audit.")
@store_option
@json_option
def requeue_(letter: int | None, cause: str | None, every: bool, reason: str, store: str, as_json: bool) -> None:
    """Send refused events to the school system again."""
    if [letter is not None, cause is not None, every].count(True) != 1:
        raise click.UsageError("name one refused event, --cause, or --all")
    done = _order(store, "upstream-requeue", {"id": letter, "cause": cause, "all": every, "reason": reason})
    _print(done, as_json, lambda one, con: con.print(f"requeued: {len(one['requeued'])}"))


@click.command("reconcile")
@click.option("--date", help="Which date (YYYY-MM-DD) [yesterday].")
@store_option
@json_option
def reconcile(date: str | None, store: str, as_json: bool) -> None:
    """Compare a date with what the school system holds. Exit code 3 when they differ."""
    report = _order(store, "reconcile", {} if date is None else {"date": date})
    _print(report, as_json, _show_report)
    sys.exit(_RECONCILE_EXITS.get(report["state"], 0))


def _show_report(report: dict[str, Any], console: Console) -> None:
    state = report["state"]
    console.print(Text(f"{report['date']}: {state}", style="bold green" if state == "same" else "bold red"))
    if "why" in report:
        console.print(Text(report["why"]))
    else:
        totals = report["totals"]
        console.print(
            f"answers here {totals['here']}, upstream {totals['upstream']}; classes {totals['classes']}, "
            f"of which {report['classes_differing']} differ"
        )
        rows = [
            (one["school"], one["class"], *(pupil[name] for name in ("session", "pupil", "cause", "ours", "theirs")))
            for one in report["classes"]
            for pupil in one["pupils"]
        ]
        if rows:
            console.print(_table(("school", "class", "session", "pupil", "cause", "here", "upstream"), rows))
    letters, feed, lag = report["dead_letters"], report["feed"], report["lag"]
    for title, some in (("dead letters here", letters["here"]), ("refused by upstream", letters["upstream"])):
        if some:
            console.print(_letters(title, some))
    console.print(f"status feed: {'STALE, ' if feed['stale'] else ''}{feed['age_s']} s old")
    sinks = ", ".join(f"{one['name']} {one['events']}" for one in lag["sinks"])
    console.print(
        f"waiting: {lag['settle_offsets']} changes to settle, {lag['upstream_events']} events for upstream; "
        f"webhooks: {sinks or 'none'}"
    )


def _letters(title: str, some: list[dict[str, Any]]) -> Any:
    rows = [(one["cause"], one["letters"], _when(one["oldest_ms"]), one["schools"]) for one in some]
    return _table((title, "letters", "oldest", "schools"), rows)


def _when(at_ms: int | None) -> str:
    zone = ZoneInfo(os.environ.get("HUDUR_ZONE", "Africa/Cairo"))
    return "never" if at_ms is None else datetime.fromtimestamp(at_ms / 1000, tz=zone).strftime("%Y-%m-%d %H:%M")
