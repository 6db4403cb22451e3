"""A compiled timeline as a picture in the terminal (rich), 100 columns wide."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich.console import Console, Group, RenderableType
from rich.text import Text

from tests.weaknet.draws import Table
from tests.weaknet.profile import Link, Profile
from tests.weaknet.strips import MEANINGS, Cell, Strip, rate_of_height, strips
from tests.weaknet.timeline import Timeline

WIDTH = 100
BLOCKS = " ▁▂▃▄▅▆▇█"
OFF = "·"
LINK_STYLES = ("green", "cyan", "blue", "magenta")
REFUSED_STYLE = "red"
REFUSED_FROM = 0.2
_LABEL, _CELLS = 11, 75


def show(timeline: Timeline, console: Console) -> None:
    """Print the picture."""
    console.print(picture(timeline))


def picture(timeline: Timeline) -> RenderableType:
    """Title, links, one strip a day, legend, clock."""
    days = strips(timeline)
    parts: list[RenderableType] = [_title(timeline), _links(timeline.profile), Text()]
    parts.append(_axis())
    for day in days:
        parts += _day(day)
    parts += [Text(), *_legend(days), _device(timeline)]
    return Group(*parts)


def _title(timeline: Timeline) -> Text:
    profile = timeline.profile
    title = Text.assemble((profile.id, "bold"), f"  {profile.title}\n")
    first = profile.span.start.isoformat()
    title.append(f"{timeline.days.count} days from {first}, {profile.span.tz}, seed {timeline.seed}", "dim")
    return title


def _links(profile: Profile) -> RenderableType:
    if not profile.links:
        return Text("no network at all: a courier only", "dim")
    lines = Text()
    for place, link in enumerate(profile.links):
        traffic, trouble = link_facts(link)
        lines.append(f"{BLOCKS[5]} {link.name} {link.tech}  ", _link_style(place))
        lines.append(traffic + "\n")
        lines.append(f"    {trouble}\n" if trouble else "", "dim")
    lines.rstrip()
    return lines


def link_facts(link: Link) -> tuple[str, str]:
    """(what a link carries, what is wrong with it) as short texts; three numbers are p5, median and p95."""
    rates = f"down {span_of(link.down_kbps)}, up {span_of(link.up_kbps)} kbit/s"
    traffic = f"{rates}, rtt {span_of(link.rtt_ms)} ms, loss {link.mean_loss:.1%}"
    trouble: list[str] = []
    failing = ((link.dns_fail, "names"), (link.connect_fail, "connects"))
    if link.flap is not None:
        off, on = link.flap.off_s, link.flap.on_s
        share = off.mean / (off.mean + on.mean)
        trouble.append(f"off {share:.0%} of open time, spells of {short(off.median)} s (p90 {short(off.at(0.9))} s)")
    if link.cut is not None:
        trouble.append(f"{link.cut.per_conn:.0%} of connections cut")
    trouble += [f"{share:.0%} of {what} fail" for share, what in failing if share]
    if link.budget is not None:
        trouble.append(f"after {link.budget.bytes_per_day / 1e6:g} MB a day {link.budget.then}")
    if link.gate is not None:
        trouble.append("behind a gateway")
    return traffic, ", ".join(trouble)


def span_of(table: Table) -> str:
    """p5, median and p95 of a table, or its only value."""
    if table.is_constant:
        return short(table.low)
    return "/".join(short(table.at(u)) for u in (0.05, 0.5, 0.95))


def short(value: float) -> str:
    """At most four characters for what profiles hold: 26, 0.5, 840, 1.3k, 14k."""
    if abs(value) >= 9_950:
        return f"{value / 1_000:.0f}k"
    if abs(value) >= 1_000:
        return f"{value / 1_000:.1f}k"
    return f"{value:.0f}" if abs(value) >= 10 or value == int(value) else f"{value:.1f}"


def _axis() -> Text:
    hours = "".join(f"{hour:02d}".ljust(9) for hour in range(0, 24, 3))
    return Text(f"{'':{_LABEL}}{hours:{_CELLS}}  on  kbit/s", "dim")


def _day(day: Strip) -> Iterator[Text]:
    label = day.day.strftime("%a %d %b").ljust(_LABEL)
    line = Text(label, "bold" if day.day.weekday() in (6, 0, 1, 2, 3) else "dim")
    for cell in day.cells:
        line.append(*_drawn(cell))
    line.append(" " * (_CELLS - len(day.cells)))
    line.append(f"{day.on:4.0%} {short(day.up_kbps) if day.on else '-':>6}", "dim")
    if day.hours != 24:
        line.append(f"\n{'':{_LABEL}}{day.hours:g} hours: the clocks change", "yellow")
    yield line
    if any(cell.letter for cell in day.cells):
        letters = Text(" " * _LABEL)
        for cell in day.cells:
            letters.append(cell.letter or " ", "dim" if cell.letter == "k" else "bold yellow")
        yield letters


def _drawn(cell: Cell) -> tuple[str, str]:
    if cell.link is None:
        return OFF, "dim"
    style = REFUSED_STYLE if cell.refused >= REFUSED_FROM else _link_style(cell.link)
    return BLOCKS[cell.height], f"dim {style}" if cell.on < 0.5 else style


def _link_style(place: int) -> str:
    return LINK_STYLES[place % len(LINK_STYLES)]


def _legend(days: Sequence[Strip]) -> Iterator[Text]:
    heights = "  ".join(f"{BLOCKS[place]} {short(rate_of_height(place))}" for place in (1, 3, 5, 8)) + " kbit/s up"
    line = Text(f"{heights}   {OFF} nothing usable   pale: mostly off   ", "dim")
    line.append(BLOCKS[5], REFUSED_STYLE)
    line.append(f" {REFUSED_FROM:.0%}+ of connects fail", "dim")
    yield line
    seen = {cell.letter for day in days for cell in day.cells}
    letters = [f"{letter} {meaning}" for letter, meaning in MEANINGS.items() if letter in seen]
    if letters:
        yield Text("   ".join(letters), "dim")


def _device(timeline: Timeline) -> Text:
    device = timeline.profile.device
    facts = [f"clock {timeline.offset_s:+.1f} s, drift {timeline.drift_ppm:+.0f} ppm"]
    if timeline.zone_error_s:
        facts.append(f"zone rules {timeline.zone_error_s:+.0f} s")
    if device.kill_in_sync:
        facts.append(f"ended in {device.kill_in_sync:.0%} of syncs")
    if device.people > 1:
        facts.append(f"{device.people} teachers")
    if timeline.profile.peer is not None and timeline.profile.peer.overload > 1:
        facts.append(f"server at {timeline.profile.peer.overload:g} times its load in some hours")
    return Text("this device: " + ", ".join(facts), "dim")
