"""A long run of worlds that can be stopped and continued: one line of JSON for each world, in a file.

    python -m tests.simulator.campaign --out FILE.jsonl --school-days 100000 --minutes 90 --jobs 2

Seeds go up from `--from-seed`; those in FILE are not played again. It ends when the file holds enough school-days or
the time is over (worlds under way are then given up), prints the summary of the whole file, and exits with 1 if any
world in it broke an invariant. Its processes live for some dozen worlds and read the code anew: play long runs from a
copy of the tree (`git worktree add`) while somebody edits this one.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import click

from tests.simulator.crew import CPU_S, play_all
from tests.simulator.record import Job, Record
from tests.simulator.run import profile_of
from tests.simulator.screen import show, watched
from tests.simulator.summary import Summary
from tests.simulator.world import Size


def read(file: Path) -> list[Record]:
    """The records of a file; a last line that was cut short (the run was killed) is cut off.

    Raises:
        ValueError: a line in the middle is no record.
    """
    if not file.exists():
        return []
    text = file.read_bytes()
    whole, _, rest = text.rpartition(b"\n")
    if rest:
        file.write_bytes(whole + b"\n" if whole else b"")
    return [Record.from_json(line) for line in whole.decode().splitlines()]


def seeds_left(first: int, known: set[int]) -> Iterator[int]:
    """Seeds from `first` on that are not known."""
    seed = first
    while True:
        if seed not in known:
            yield seed
        seed += 1


@click.command()
@click.option(
    "--out", type=click.Path(dir_okay=False, path_type=Path), required=True, help="The file; continued if it is there."
)
@click.option("--from-seed", default=1, show_default=True, help="First seed.")
@click.option("--school-days", default=1_000, show_default=True, help="Stop when the file holds so many.")
@click.option("--minutes", default=60.0, show_default=True, help="Stop after so long.")
@click.option("--jobs", default=2, show_default=True, type=click.IntRange(1, 64), help="Processes at once.")
@click.option("--days", default=Size().days, show_default=True)
@click.option("--schools", default=Size().schools, show_default=True)
@click.option("--devices", default=Size().teachers, show_default=True, help="Teachers with a phone, per school.")
@click.option("--pupils", default=Size().pupils, show_default=True, help="Per class.")
@click.option("--quiet-faults", "quiet", is_flag=True, help="Only what the profiles hold: no fault classes of ours.")
@click.option("--cpu", "cpu_s", default=CPU_S, show_default=True, help="Seconds of processor time a world may take.")
@click.option("--json", "as_json", is_flag=True, help="Print one line of JSON.")
def main(
    *,
    out: Path,
    from_seed: int,
    school_days: int,
    minutes: float,
    jobs: int,
    days: int,
    schools: int,
    devices: int,
    pupils: int,
    quiet: bool,
    cpu_s: int,
    as_json: bool,
) -> None:
    """Play worlds, all profiles in turn, until there are enough of them."""
    size = Size(days=days, schools=schools, teachers=devices, pupils=pupils)
    known = read(out)
    summary = Summary.of(known)
    ends_s = time.monotonic() + minutes * 60
    left = seeds_left(from_seed, {record.job.seed for record in known})

    def is_over() -> bool:
        return time.monotonic() >= ends_s

    def wanted() -> Iterator[Job]:
        while summary.whole.school_days < school_days and not is_over():
            seed = next(left)
            yield Job(seed=seed, profile=profile_of(seed), size=size, quiet=quiet)

    played = play_all(wanted(), processes=jobs, cpu_s=cpu_s, is_over=is_over)
    with out.open("a", encoding="utf-8") as file:
        for record in watched(played, summary, worlds=None):
            file.write(f"{record.to_json()}\n")
            file.flush()
    if as_json:
        click.echo(json.dumps(summary.to_plain()))
    else:
        show(summary)
    sys.exit(bool(summary.whole.broken))


if __name__ == "__main__":
    main()
