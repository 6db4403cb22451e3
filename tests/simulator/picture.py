"""Lateness per profile as a picture: a range from p5 to the maximum, a dot at the median, time logarithmic."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

MARKS_MS = (
    (100, "0.1 s"),
    (1_000, "1 s"),
    (10_000, "10 s"),
    (60_000, "1 min"),
    (600_000, "10 min"),
    (3_600_000, "1 h"),
    (21_600_000, "6 h"),
    (86_400_000, "1 d"),
    (1_209_600_000, "2 weeks"),
)
LEFT, TOP, ROW, WIDTH, RIGHT = 230, 44, 24, 620, 30
INK, PALE, DOT = "#6b7280", "#9aa0a6", "#2a9fb5"


@dataclass(frozen=True, slots=True, kw_only=True)
class Spread:
    """One profile's lateness in milliseconds."""

    name: str
    p5: int
    p50: int
    p95: int
    greatest: int

    @classmethod
    def of(cls, name: str, lateness_ms: Sequence[int]) -> Spread:
        """Of some changes, at least one."""
        ordered = sorted(lateness_ms)

        def at(share: int) -> int:
            return ordered[min(len(ordered) - 1, len(ordered) * share // 100)]

        return cls(name=name, p5=at(5), p50=at(50), p95=at(95), greatest=ordered[-1])


def place(lateness_ms: float) -> float:
    """Where a lateness stands on the axis, in pixels."""
    low, high = math.log10(MARKS_MS[0][0]), math.log10(MARKS_MS[-1][0])
    share = (math.log10(max(lateness_ms, MARKS_MS[0][0])) - low) / (high - low)
    return round(LEFT + WIDTH * min(1.0, share), 1)


def svg(spreads: Sequence[Spread], title: str) -> str:
    """SVG 1.1 without script or font from elsewhere; the slowest profile stands last."""
    rows = sorted(spreads, key=lambda one: (one.p50, one.name))
    height, width = TOP + ROW * len(rows) + 44, LEFT + WIDTH + RIGHT
    base = TOP + ROW * len(rows)
    parts = [
        (
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}"'
            f' font-family="system-ui, sans-serif" font-size="12" fill="{INK}" role="img">'
        ),
        f"<title>{title}</title>",
        f'<text x="{LEFT}" y="20" font-size="14" font-weight="bold">{title}</text>',
    ]
    for mark_ms, words in MARKS_MS:
        x = place(mark_ms)
        parts.append(f'<path d="M{x} {TOP - 8}V{base}" stroke="{PALE}" stroke-width="0.5" stroke-opacity="0.6"/>')
        parts.append(f'<text x="{x}" y="{base + 16}" text-anchor="middle">{words}</text>')
    for number, one in enumerate(rows):
        parts += _row(one, TOP + ROW * number + ROW // 2)
    parts.append(
        f'<text x="{LEFT}" y="{base + 36}">dot: median; thick: 5th to 95th percentile; thin: to the latest</text>'
    )
    return "\n".join([*parts, "</svg>"]) + "\n"


def _row(one: Spread, y: int) -> Sequence[str]:
    p5, p50, p95, last = (place(value) for value in (one.p5, one.p50, one.p95, one.greatest))
    return (
        f'<text x="{LEFT - 12}" y="{y + 4}" text-anchor="end">{one.name}</text>',
        f'<path d="M{p5} {y}H{last}" stroke="{DOT}" stroke-width="1"/>',
        f'<path d="M{p5} {y}H{p95}" stroke="{DOT}" stroke-width="6" stroke-opacity="0.45" stroke-linecap="round"/>',
        f'<circle cx="{p50}" cy="{y}" r="5" fill="{DOT}"/>',
    )
