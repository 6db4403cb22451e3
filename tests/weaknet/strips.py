"""A timeline sampled for a picture: one strip a local day, cells of twenty minutes. Pure; terminal and SVG draw it.

A cell is the mean of looks at evenly spaced moments, so that the spells of a flapping link, seconds long, weigh what
they weigh in time.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date, timedelta

from tests.weaknet.calendar import HOUR_MS, MINUTE_MS
from tests.weaknet.timeline import Segment, Timeline

CELL_MS = 20 * MINUTE_MS
LOOKS_PER_CELL = 40
RATE_LOW_KBPS, RATE_HIGH_KBPS = 8.0, 16_384.0  # eight heights of a factor of 2.6: GPRS to good 4G
LETTERS = {
    "wipe": "W",
    "carry": "F",
    "clock-jump": "C",
    "battery-off": "o",
    "battery-on": "O",
    "handover": "H",
    "kill": "k",
}
MEANINGS = {
    "W": "all data cleared",
    "F": "courier's file arrives",
    "f": "courier's file lost",
    "C": "clock set",
    "o": "battery flat",
    "O": "on again",
    "H": "hand-over",
    "k": "app ended",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """Twenty minutes.

    Attributes:
        on: Share of the time in which a link can be used.
        link: The link that carried most of it; None when off throughout.
        up_kbps: Mean rate from the device while on.
        down_kbps: Mean rate to the device while on.
        refused: Share of connections that fail while on (names and connects).
        letter: The weightiest device event in it, or "".
    """

    on: float
    link: int | None
    up_kbps: float
    down_kbps: float
    refused: float
    letter: str

    @property
    def height(self) -> int:
        """0 when off, else 1 to 8 on a logarithmic scale of the upward rate."""
        if self.link is None:
            return 0
        ratio = math.log(max(self.up_kbps, 1e-9) / RATE_LOW_KBPS) / math.log(RATE_HIGH_KBPS / RATE_LOW_KBPS)
        return max(1, min(8, 1 + math.floor(ratio * 8)))


def rate_of_height(height: int) -> float:
    """The least rate, kbit/s, that is drawn `height` blocks high (the lowest takes everything below too)."""
    return float(RATE_LOW_KBPS * (RATE_HIGH_KBPS / RATE_LOW_KBPS) ** ((height - 1) / 8))


@dataclass(frozen=True, slots=True, kw_only=True)
class Strip:
    """One local day: 72 cells, 69 or 75 when the clocks change."""

    day: date
    hours: float
    cells: tuple[Cell, ...]

    @property
    def on(self) -> float:
        """Share of the day in which a link can be used."""
        return sum(cell.on for cell in self.cells) / len(self.cells)

    @property
    def up_kbps(self) -> float:
        """Median over the day's cells that are on; 0 when none is."""
        rates = sorted(cell.up_kbps for cell in self.cells if cell.link is not None)
        return rates[len(rates) // 2] if rates else 0.0


def strips(timeline: Timeline) -> tuple[Strip, ...]:
    """All days of a timeline."""
    letters: dict[int, list[str]] = {}
    for event in timeline.events:
        letter = "f" if event.kind == "carry" and event.detail["lost"] else LETTERS[event.kind]
        letters.setdefault(event.at_ms // CELL_MS, []).append(letter)
    return tuple(_strip(timeline, day, letters) for day in range(timeline.days.count))


def _strip(timeline: Timeline, day: int, letters: dict[int, list[str]]) -> Strip:
    first, last = timeline.days.stretch_of(day)
    return Strip(
        day=timeline.profile.span.start + timedelta(days=day),
        hours=(last - first) / HOUR_MS,
        cells=tuple(_cell(timeline, at_ms, letters) for at_ms in range(first, last, CELL_MS)),
    )


def _cell(timeline: Timeline, from_ms: int, letters: dict[int, list[str]]) -> Cell:
    seen = list(_looks(timeline, from_ms))
    on = [segment for segment in seen if segment.link is not None]
    here = letters.get(from_ms // CELL_MS, [])
    return Cell(
        on=len(on) / len(seen),
        link=_most(on),
        up_kbps=_mean([segment.up_kbps for segment in on]),
        down_kbps=_mean([segment.down_kbps for segment in on]),
        refused=_mean([1 - (1 - segment.connect_fail) * (1 - segment.dns_fail) for segment in on]),
        letter=min(here, key=list(MEANINGS).index, default=""),
    )


def _looks(timeline: Timeline, from_ms: int) -> Iterator[Segment]:
    step_ms = CELL_MS // LOOKS_PER_CELL
    for look in range(LOOKS_PER_CELL):
        at_ms = from_ms + look * step_ms + step_ms // 2
        if at_ms < timeline.length_ms:
            yield timeline.segment_at(at_ms)


def _most(on: Sequence[Segment]) -> int | None:
    links = [segment.link for segment in on if segment.link is not None]
    return max(sorted(set(links)), key=links.count, default=None)


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else 0.0
