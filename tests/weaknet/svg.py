"""A compiled timeline as an SVG picture for a page: no script, no font from elsewhere, readable on light and dark."""

from __future__ import annotations

from collections.abc import Iterator
from xml.sax.saxutils import escape

from tests.weaknet.picture import REFUSED_FROM, link_facts, short
from tests.weaknet.strips import MEANINGS, Cell, Strip, strips
from tests.weaknet.timeline import Timeline

CELL, ROW, LEFT, TOP, RIGHT = 10, 46, 96, 40, 130
BAR = 30
LINK_COLOURS = ("#2e9e5b", "#2a9fb5", "#4169c8", "#a050b0")
REFUSED_COLOUR = "#d0453a"
LINE_COLOUR, TEXT_COLOUR = "#9aa0a6", "#6b7280"


def svg(timeline: Timeline) -> str:
    """The picture as a text of SVG 1.1, the same bytes for the same timeline."""
    days = strips(timeline)
    profile = timeline.profile
    facts = [
        f"{link.name} ({link.tech}): {', '.join(part for part in link_facts(link) if part)}" for link in profile.links
    ]
    top = TOP + 18 * max(1, len(facts)) + 22
    width = LEFT + CELL * max(len(day.cells) for day in days) + RIGHT
    height = top + ROW * len(days) + 46
    body = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}"',
        f'font-family="system-ui, sans-serif" font-size="12" fill="{TEXT_COLOUR}" role="img">',
        f"<title>{escape(profile.id)}: {escape(profile.title)}</title>",
        f'<text x="8" y="22" font-size="15" font-weight="bold">{escape(profile.id)}</text>',
        f'<text x="{width - 8}" y="22" text-anchor="end">{escape(profile.title)}, seed {timeline.seed}</text>',
    ]
    for place, fact in enumerate(facts or ["no network at all: a courier only"]):
        body.append(f'<text x="8" y="{TOP + 18 * place + 4}" fill="{_colour(place)}">{escape(fact)}</text>')
    body += _hours(top, len(days))
    for place, day in enumerate(days):
        body += _day(day, top + ROW * place)
    body += _legend(days, top + ROW * len(days) + 22)
    body.append("</svg>")
    return "\n".join(body) + "\n"


def _hours(top: int, days: int) -> Iterator[str]:
    for hour in range(0, 25, 3):
        x = LEFT + hour * 3 * CELL
        yield f'<text x="{x}" y="{top - 8}" text-anchor="middle">{hour:02d}</text>'
        bottom = top + ROW * days
        yield f'<path d="M{x} {top}V{bottom}" stroke="{LINE_COLOUR}" stroke-width="0.5" stroke-opacity="0.5"/>'


def _day(day: Strip, top: int) -> Iterator[str]:
    base = top + BAR
    length = CELL * len(day.cells)
    note = "" if day.hours == 24 else f" ({day.hours:g} h)"
    yield f'<text x="8" y="{base}">{day.day.strftime("%a %d %b")}{note}</text>'
    yield f'<path d="M{LEFT} {base}H{LEFT + length}" stroke="{LINE_COLOUR}" stroke-width="0.5"/>'
    for place, cell in enumerate(day.cells):
        x = LEFT + CELL * place
        if cell.link is not None:
            high = BAR * cell.height / 8
            yield (
                f'<rect x="{x}" y="{base - high:g}" width="{CELL - 1}" height="{high:g}" fill="{_fill(cell)}" '
                f'fill-opacity="{0.25 + 0.75 * cell.on:.2f}"/>'
            )
        if cell.letter:
            weight = "normal" if cell.letter == "k" else "bold"
            yield (
                f'<text x="{x + CELL // 2}" y="{base + 12}" text-anchor="middle" font-size="10" '
                f'font-weight="{weight}">{cell.letter}</text>'
            )
    rate = f", {short(day.up_kbps)} kbit/s up" if day.on else ""
    yield f'<text x="{LEFT + length + 10}" y="{base}">on {day.on:.0%}{rate}</text>'


def _fill(cell: Cell) -> str:
    return REFUSED_COLOUR if cell.refused >= REFUSED_FROM else _colour(cell.link or 0)


def _colour(place: int) -> str:
    return LINK_COLOURS[place % len(LINK_COLOURS)]


def _legend(days: tuple[Strip, ...], top: int) -> Iterator[str]:
    seen = {cell.letter for day in days for cell in day.cells}
    letters = ", ".join(f"{letter} {meaning}" for letter, meaning in MEANINGS.items() if letter in seen)
    scale = "height: rate up, 8 to 16k kbit/s, logarithmic; paler: on for less of the 20 minutes"
    red = f'<tspan fill="{REFUSED_COLOUR}">red: {REFUSED_FROM:.0%} and more of connects fail</tspan>'
    yield f'<text x="8" y="{top}">{scale}; {red}</text>'
    yield f'<text x="8" y="{top + 16}">{escape(letters)}</text>'
