"""The command of tests/simulator/summary.py."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import click

from tests.simulator.campaign import read
from tests.simulator.crew import play_all
from tests.simulator.page import counts, weather_jobs, write
from tests.simulator.screen import show, watched
from tests.simulator.summary import Summary


@click.command()
@click.argument("files", nargs=-1, type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--write", "docs", type=click.Path(exists=True, file_okay=False, path_type=Path), help="The docs folder.")
@click.option("--seeds", default=20, show_default=True, help="Worlds for each profile.")
@click.option("--jobs", default=2, show_default=True, help="Processes at once.")
@click.option("--markdown", is_flag=True, help="The files' faults and checks as tables.")
@click.option("--json", "as_json", is_flag=True, help="Print one line of JSON.")
def main(files: tuple[Path, ...], *, docs: Path | None, seeds: int, jobs: int, markdown: bool, as_json: bool) -> None:
    """Add up campaign FILES; or play every profile's own weather and write docs/reliability.md's figures."""
    summary = Summary()
    for file in files:
        for record in read(file):
            summary.add(record)
    if docs is not None:
        wanted = weather_jobs(seeds)
        for _ in watched(play_all(wanted, processes=jobs), summary, worlds=len(wanted)):
            pass
        write(summary, docs, seeds)
    if as_json:
        click.echo(json.dumps(summary.to_plain()))
    elif markdown:
        click.echo(counts(summary))
    else:
        show(summary)
    sys.exit(bool(summary.whole.broken))
