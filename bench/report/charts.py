"""Pictures of results: small SVG that any repository host shows, light or dark, the same bytes for the same figures.

Two kinds, lines over named steps and bars, and neither font nor script from elsewhere; a plotting library would be a
hundred times the size of what is needed.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from xml.sax.saxutils import escape

from bench.results import Chart, number

WIDTH, HEIGHT = 760, 320
LEFT, RIGHT, TOP, BOTTOM = 70, 110, 44, 34
BAR, LABEL_SHARE = 26, 0.45
LABELS_MAX = 12
COLOURS = ("#0e7fb0", "#d2571b", "#5b8c1f", "#8e44c9", "#b07d0a")
TEXT, GRID = "#6b7280", "#9aa0a6"


def draw(chart: Chart) -> bytes:
    """The picture as SVG 1.1 in UTF-8."""
    height = HEIGHT if chart.kind == "line" else TOP + BAR * len(chart.x) * len(chart.lines) + 16
    parts = _lines(chart) if chart.kind == "line" else _bars(chart)
    text = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}" viewBox="0 0 {WIDTH} {height}"',
        f'font-family="system-ui, sans-serif" font-size="12" fill="{TEXT}" role="img">',
        f"<title>{escape(chart.title)}</title>",
        _text(8, 20, f"{chart.title} ({chart.unit})", 'font-size="15" font-weight="bold"'),
        *parts,
        "</svg>",
    ]
    return ("\n".join(text) + "\n").encode()


# ---- lines ------------------------------------------------------------------------------------------------------


def _lines(chart: Chart) -> Iterator[str]:
    values = [value for line in chart.lines.values() for value in line if value is not None]
    ticks = decades(values) if chart.logarithmic else steps(max(values, default=1))
    low, high = _scaled(ticks[0], chart), _scaled(ticks[-1], chart)

    def y_of(value: float) -> float:
        return HEIGHT - BOTTOM - (HEIGHT - BOTTOM - TOP) * (_scaled(value, chart) - low) / (high - low)

    def x_of(at: int) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * (at / (len(chart.x) - 1) if len(chart.x) > 1 else 0.5)

    for tick in ticks:
        y = y_of(tick)
        yield f'<path d="M{LEFT} {y:.1f}H{WIDTH - RIGHT}" stroke="{GRID}" stroke-width="0.5"/>'
        yield _text(LEFT - 8, y + 4, number(tick), 'text-anchor="end"')
    every = -(-len(chart.x) // LABELS_MAX)
    for at, label in enumerate(chart.x):
        if at % every == 0:
            yield _text(x_of(at), HEIGHT - 12, label, 'text-anchor="middle"')
    for place, (name, line) in enumerate(chart.lines.items()):
        yield from _line(name, [(x_of(at), y_of(value)) for at, value in enumerate(line) if value is not None], place)


def _line(name: str, points: Sequence[tuple[float, float]], place: int) -> Iterator[str]:
    if not points:
        return
    colour = COLOURS[place % len(COLOURS)]
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    yield f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>'
    if len(points) <= LABELS_MAX:
        yield from (f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colour}"/>' for x, y in points)
    yield _text(points[-1][0] + 8, points[-1][1] + 4, name, f'fill="{colour}"')


def _scaled(value: float, chart: Chart) -> float:
    return math.log10(max(value, 1e-9)) if chart.logarithmic else value


def steps(most: float) -> list[float]:
    """Three to six round numbers from 0 to at least `most`."""
    most = most if most > 0 else 1
    power = 10.0 ** math.floor(math.log10(most))
    width = next(power * part for part in (0.2, 0.5, 1, 2) if most / (power * part) <= 5)
    return [width * count for count in range(math.ceil(most / width) + 1)]


def decades(values: Sequence[float]) -> list[float]:
    """The powers of ten around positive values, at least two."""
    logs = [math.log10(value) for value in values if value > 0] or [0.0]
    low, high = math.floor(min(logs)), math.ceil(max(logs))
    return [10.0**power for power in range(low, max(high, low + 1) + 1)]


# ---- bars -------------------------------------------------------------------------------------------------------


def _bars(chart: Chart) -> Iterator[str]:
    start = LEFT + (WIDTH - LEFT) * LABEL_SHARE
    room = WIDTH - start - 60
    most = max((value for line in chart.lines.values() for value in line if value is not None), default=1) or 1
    y = float(TOP)
    for at, label in enumerate(chart.x):
        for place, line in enumerate(chart.lines.values()):
            value = line[at]
            if place == 0:
                yield _text(start - 8, y + 15, label, 'text-anchor="end"')
            if value is not None:
                length = max(0.0, value) / most * room
                colour = COLOURS[place % len(COLOURS)]
                yield f'<rect x="{start:.1f}" y="{y:.1f}" width="{length:.1f}" height="{BAR - 8}" fill="{colour}"/>'
                yield _text(start + length + 6, y + 14, number(value))
            y += BAR
    if len(chart.lines) > 1:
        for place, name in enumerate(chart.lines):
            yield _text(WIDTH - 8 - 130 * place, 20, name, f'text-anchor="end" fill="{COLOURS[place % len(COLOURS)]}"')


def _text(x: float, y: float, text: str, attributes: str = "") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" {attributes}>{escape(text)}</text>'.replace(" >", ">")
