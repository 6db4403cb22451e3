"""Hunt saboteurs from the command line.

    python -m tests.simulator.saboteurs [NAME ...] [--seeds 300] [--jobs 2] [--quick] [--json] [--write PAGE]

Exit code 1 when a saboteur was not found, or the control failed.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import click

from tests.simulator.saboteurs import BY_NAME, SABOTEURS
from tests.simulator.saboteurs.hunt import CPU_S, ENTRY, Catch, Control, hunt
from tests.simulator.saboteurs.table import as_json, line, page, read_found, write_found


@click.command()
@click.argument("names", nargs=-1, type=click.Choice(sorted(BY_NAME)))
@click.option("--seeds", default=300, show_default=True, help="Seeds to try for each.")
@click.option("--jobs", default=2, show_default=True, help="Processes at once.")
@click.option(
    "--control", "control_seeds", default=10, show_default=True, help="Control these many first seeds at least."
)
@click.option("--cpu", "cpu_s", default=CPU_S, show_default=True, help="Seconds of processor time a seed may take.")
@click.option("--entry", default=ENTRY, show_default=True, help="What to run for a seed: MODULE:FUNCTION.")
@click.option("--quick", is_flag=True, help="Look first where each was found when the page was last written.")
@click.option("--json", "is_json", is_flag=True, help="Print one JSON object.")
@click.option("--write", type=click.Path(path_type=Path), default=None, help="Write the page, and the seeds.")
def main(
    names: tuple[str, ...],
    *,
    seeds: int,
    jobs: int,
    control_seeds: int,
    cpu_s: int,
    entry: str,
    quick: bool,
    is_json: bool,
    write: Path | None,
) -> None:
    """Plant one bug after the other, and see how many seeds the simulator needs to notice it."""

    def tell(catch: Catch) -> None:
        if not is_json:
            click.echo(line(catch))

    if quick and write is not None:
        raise click.UsageError("the page tells how many seeds a hunt needs: it is not written from a quick one")
    control = Control(entry, cpu_s)
    control.run(range(1, (0 if quick else control_seeds) + 1), jobs=jobs)
    chosen = [BY_NAME[name] for name in names] or list(SABOTEURS)
    catches = hunt(chosen, control, seeds=seeds, jobs=jobs, tell=tell, known=read_found() if quick else {})
    found = [catch for catch in catches if catch.seen is not None]
    if is_json:
        click.echo(json.dumps(as_json(catches, control)))
    else:
        click.echo(
            f"{len(found)} of {len(catches)} found; control: {len(control.seen)} seeds, {len(control.failures)} failed"
        )
        for failed in control.failures:
            click.echo(f"  control, seed {failed.seed}: {failed.invariant or failed.kind}: {failed.detail[:200]}")
    if write is not None:
        write.write_text(page(catches, control, seeds=seeds), encoding="utf-8")
        write_found(catches)
    sys.exit(len(found) < len(catches) or bool(control.failures))


if __name__ == "__main__":
    main()
