"""`hudur profiles`: list the weak-network profiles, draw one, or make one from a recording of the field."""

from __future__ import annotations

import json
from pathlib import Path

import click
from rich.console import Console
from rich.table import Table as Grid
from rich.text import Text

from tests.weaknet.errors import WeaknetError
from tests.weaknet.fit import fit
from tests.weaknet.picture import WIDTH, show, span_of
from tests.weaknet.profile import KINDS, Kind, Profile, load, load_file, names, read_json
from tests.weaknet.provenance import count_kinds, written
from tests.weaknet.recording import read_recordings
from tests.weaknet.svg import svg
from tests.weaknet.timeline import compile_timeline


class _Profiles(click.Group):
    """`profiles` lists, `profiles NAME` draws: what is no command is the name of a profile."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Put the command in that was left out."""
        asks_help = bool(args) and args[0] in ctx.help_option_names
        if not asks_help and (not args or args[0] not in self.commands):
            args.insert(0, "draw" if any(not arg.startswith("-") for arg in args[:1]) else "list")
        return super().parse_args(ctx, args)


@click.group(cls=_Profiles, subcommand_metavar="[NAME] [OPTIONS]  |  fit RECORDING... [OPTIONS]")
def profiles() -> None:
    """Weak-network profiles: list them, draw NAME's timeline, or `fit` one to recordings of the field."""


@profiles.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print one line of JSON.")
def list_all(as_json: bool) -> None:
    """All profiles with where their numbers come from. The same as `hudur profiles` alone."""
    rows = [(load(name), count_kinds(read_json(name))) for name in names()]
    if as_json:
        click.echo(json.dumps([{"id": one.id, "title": one.title, **kinds} for one, kinds in rows]))
        return
    console = Console(width=max(WIDTH, Console().width))
    console.print(_listed(rows))
    total = {kind: sum(kinds[kind] for _, kinds in rows) for kind in KINDS}
    console.print(
        f"{len(rows)} profiles, {sum(total.values())} numbers (m/d/a): {_share_words(total)}", highlight=False
    )
    console.print("[dim]`hudur profiles NAME --seed N` draws one; every number's source stands in its file.[/dim]")


def _share_words(total: dict[Kind, int]) -> str:
    return ", ".join(f"{total[kind]} {kind}" for kind in KINDS)


def _listed(rows: list[tuple[Profile, dict[Kind, int]]]) -> Grid:
    grid = Grid(box=None, padding=(0, 1), header_style="dim")
    grid.add_column("profile", no_wrap=True)
    grid.add_column("what, and its links: kbit/s up and round trip (p5/median/p95)", width=48)
    grid.add_column("days", justify="right")
    grid.add_column("m/d/a %", justify="right", no_wrap=True)
    for profile, kinds in rows:
        links = [f"{link.tech} {span_of(link.up_kbps)}, {span_of(link.rtt_ms)} ms" for link in profile.links]
        share = "/".join(f"{100 * kinds[kind] / sum(kinds.values()):.0f}" for kind in KINDS)
        about = Text.assemble((profile.title, ""), "\n", ("; ".join(links) or "none: by courier", "dim"))
        grid.add_row(Text(profile.id, "bold"), about, str(profile.span.days), share)
    return grid


@profiles.command()
@click.argument("name")
@click.option("--seed", default=0, show_default=True, help="Which device, which run.")
@click.option("--days", type=click.IntRange(1, 400), help="Local days instead of the profile's span.")
@click.option(
    "--svg", "svg_file", type=click.Path(dir_okay=False, path_type=Path), help="Write a picture file instead."
)
def draw(name: str, seed: int, days: int | None, svg_file: Path | None) -> None:
    """Draw the timeline of NAME (or of a profile's file). The same as `hudur profiles NAME`."""
    try:
        profile = load_file(Path(name)) if name.endswith(".json") else load(name)
    except (WeaknetError, OSError) as error:
        raise click.ClickException(str(error)) from error
    timeline = compile_timeline(profile, seed, days=days)
    if svg_file is None:
        show(timeline, Console(width=max(WIDTH, Console().width)))
        return
    svg_file.write_text(svg(timeline), encoding="utf-8")
    click.echo(f"wrote {svg_file}")


@profiles.command("fit")
@click.argument("recordings", nargs=-1, required=True, type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--id", "profile_id", required=True, help="Id of the new profile, such as minya-2027-term1.")
@click.option("--title", help="Its title; the id where none is given.")
@click.option("--base", default="delta-3g-congested-morning", show_default=True, help="Gives what cannot be measured.")
@click.option("--link", help="Only attempts over this type of link.")
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), help="File to write; default ID.json here.")
@click.option("--json", "as_json", is_flag=True, help="Print one line of JSON.")
def fit_recordings(
    recordings: tuple[Path, ...],
    profile_id: str,
    title: str | None,
    base: str,
    link: str | None,
    out: Path | None,
    as_json: bool,
) -> None:
    """Make a profile from recordings: exported device logs, or JSON lines (see fixtures/weak-networks/README.md)."""
    target = out or Path(f"{profile_id}.json")
    try:
        read = read_recordings(recordings)
        fitted = fit(read, read_json(base), profile_id=profile_id, title=title or profile_id, link=link)
        target.write_text(written(fitted.plain), encoding="utf-8")
    except (WeaknetError, OSError) as error:
        raise click.ClickException(str(error)) from error
    if as_json:
        told = {"file": str(target), "measured": fitted.measured, "kept": fitted.kept, "unreadable": read.unreadable}
        click.echo(json.dumps(told))
        return
    for what in fitted.measured:
        click.echo(f"measured  {what}")
    for what in fitted.kept:
        click.echo(f"kept      {what}")
    if read.unreadable:
        click.echo(f"{read.unreadable} rows could not be read")
    click.echo(f"wrote {target}; everything else is {base}'s, with its basis. Look: hudur profiles {target}")


if __name__ == "__main__":
    profiles(prog_name="hudur profiles")
