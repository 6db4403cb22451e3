"""`hudur simulate`: play worlds, say what they did, and for each broken invariant how to see it again."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence

import click

from tests.simulator.crew import CPU_S, play_all
from tests.simulator.record import Job, Record
from tests.simulator.saboteurs import BY_NAME
from tests.simulator.screen import show, watched
from tests.simulator.shrink import TRIES_MAX, shrink
from tests.simulator.summary import Summary
from tests.simulator.swarm import CLASSES
from tests.simulator.world import Size
from tests.weaknet.profile import names

ALL, NONE = "all", "none"
_SIZE = Size()


def _classes(_: click.Context, __: click.Parameter, value: str | None) -> tuple[str, ...] | None:
    """Fault classes by name or by their beginning (`phone.`), in the swarm's order; `none` for no class."""
    if value is None:
        return None
    words = [] if value == NONE else [word.strip() for word in value.split(",")]
    for word in words:
        if not any(_is(name, word) for name in CLASSES):
            raise click.BadParameter(f"{word!r} is no fault class. There are: {', '.join(CLASSES)}")
    return tuple(name for name in CLASSES if any(_is(name, word) for word in words))


def _is(name: str, word: str) -> bool:
    return name == word or (word.endswith(".") and name.startswith(word))


def _profiles(_: click.Context, __: click.Parameter, value: str) -> Sequence[str]:
    if value == ALL:
        return names()
    if value not in names():
        raise click.BadParameter(f"{value!r} is no profile. There are: {ALL}, {', '.join(names())}")
    return [value]


@click.command()
@click.argument("profiles", metavar="PROFILE|all", callback=_profiles)
@click.option("--seed", default=1, show_default=True, help="First seed; one seed is one world.")
@click.option("--seeds", default=1, show_default=True, type=click.IntRange(1), help="So many, one after the other.")
@click.option("--days", default=_SIZE.days, show_default=True, type=click.IntRange(1, 400), help="Days of a world.")
@click.option("--schools", default=_SIZE.schools, show_default=True, type=click.IntRange(1, 200))
@click.option(
    "--devices", default=_SIZE.teachers, show_default=True, type=click.IntRange(1, 200), help="Teachers per school."
)
@click.option("--pupils", default=_SIZE.pupils, show_default=True, type=click.IntRange(1, 99), help="Per class.")
@click.option("--quiet-faults", is_flag=True, help="No injected faults: the profile's own weather only.")
@click.option(
    "--only",
    callback=_classes,
    metavar="CLASS,...",
    help="These fault classes alone, where the seed draws them; or none.",
)
@click.option("--jobs", default=2, show_default=True, type=click.IntRange(1, 64), help="Processes at once.")
@click.option("--cpu", default=CPU_S, show_default=True, help="Seconds of processor time a world may take.")
@click.option("--saboteur", type=click.Choice(sorted(BY_NAME)), metavar="NAME", help="Plant this bug first.")
@click.option("--trace", default=0, metavar="N", help="Print the last N lines of what happened, for one world.")
@click.option("--shrink", "is_shrinking", is_flag=True, help="Look for a smaller world with the same violation.")
@click.option("--json", "as_json", is_flag=True, help="Print one line of JSON.")
def simulate(
    *,
    profiles: Sequence[str],
    seed: int,
    seeds: int,
    days: int,
    schools: int,
    devices: int,
    pupils: int,
    quiet_faults: bool,
    only: tuple[str, ...] | None,
    jobs: int,
    cpu: int,
    saboteur: str | None,
    trace: int,
    is_shrinking: bool,
    as_json: bool,
) -> None:
    """Play a school term on a virtual clock, faults and all, and check every invariant. Same seed, same digest.

    PROFILE is one of `hudur profiles`; with `all` every profile plays each seed. Exit code 1 when an invariant broke;
    each violation comes with the command that shows it again.
    """
    size = Size(days=days, schools=schools, teachers=devices, pupils=pupils)
    wanted = [
        Job(seed=number, profile=profile, size=size, only=only, quiet=quiet_faults, keep=trace, saboteur=saboteur)
        for number in range(seed, seed + seeds)
        for profile in profiles
    ]
    began_s = time.monotonic()
    summary, broken = Summary(), []
    played = play_all(wanted, processes=min(jobs, len(wanted)), cpu_s=cpu)
    for record in watched(played, summary, worlds=len(wanted), quiet=as_json):
        if trace and not as_json:
            _show_trace(record)
        if record.violations:
            broken.append(record)
    smaller = [shrink(record, cpu_s=cpu, jobs=jobs) for record in broken[:1]] if is_shrinking else []
    if as_json:
        plain = {**summary.to_plain(), "wall_s": round(time.monotonic() - began_s, 1)}
        plain["digests"] = _digests(summary)
        click.echo(json.dumps({**plain, "smallest": [one.job.command() for one in smaller]}))
    else:
        show(summary)
        for one in smaller:
            click.echo(f"smallest found in at most {TRIES_MAX} tries ({one.violations[0].invariant}):")
            click.echo(f"    {one.job.command()}")
        if len(wanted) == 1:
            click.echo(f"digest {summary.digests[0][2] or '(it did not end)'}")
    sys.exit(bool(broken))


def _digests(summary: Summary) -> list[dict[str, object]]:
    return [{"profile": name, "seed": seed, "digest": digest} for name, seed, digest in sorted(summary.digests)]


def _show_trace(record: Record) -> None:
    click.echo(
        f"# {record.job.profile}, seed {record.job.seed}: ms since the world began, who, what, hash of the bytes"
    )
    for line in record.tail:
        click.echo(line)
    for seen in record.violations:
        click.echo(f"{seen.at_ms} VIOLATION {seen.invariant} {seen.detail}")
