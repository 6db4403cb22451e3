"""The deterministic draw and the quantile table. Pure; any language gets the same numbers (see vectors.json).

Invariants:
  1. A draw depends on (profile id, seed, stream, k) and on nothing else: not on the order of reading, not on other
     fields, not on the process.
  2. `Table.at` never decreases with u and stays between the table's first and last value times its scale.
"""

from __future__ import annotations

import hashlib
import math
from bisect import bisect_right
from dataclasses import dataclass, field
from itertools import pairwise

FORMAT = "weaknet/1"
_UNIT = 2.0**-53


def uniform(profile_id: str, seed: int, stream: str, k: int) -> float:
    """The k-th number of a stream, in [0, 1).

    Args:
        profile_id: `id` of the profile.
        seed: Seed of the run: one device, one run.
        stream: `<link name>.<field>` or `device.<field>`.
        k: Index of the draw, from 0.
    """
    return Stream(profile_id, seed, stream).u(k)


class Stream:
    """One stream of draws; the constant part of the hashed text is prepared once."""

    __slots__ = ("_head",)

    def __init__(self, profile_id: str, seed: int, stream: str) -> None:
        self._head = hashlib.sha256(f"{FORMAT}|{profile_id}|{seed}|{stream}|".encode())

    def u(self, k: int) -> float:
        """The k-th number, in [0, 1)."""
        digest = self._head.copy()
        digest.update(b"%d" % k)
        return (int.from_bytes(digest.digest()[:8], "big") >> 11) * _UNIT

    def value(self, table: Table, k: int) -> float:
        """The k-th value of a field with this table."""
        return table.at(self.u(k))

    def wait(self, per: float, k: int) -> float:
        """The k-th gap of a Poisson process of `per` events a unit: exponential, in units."""
        return -math.log1p(-self.u(k)) / per


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """A distribution as quantiles. A plain number is a table of one value.

    Attributes:
        points: (percentile, value), percentiles rising from 0 to 100, values never falling.
        scale: Factor on every value.
        hold_s: For rates: seconds one draw holds; 0 means one draw for the whole run.
    """

    points: tuple[tuple[float, float], ...]
    scale: float = 1.0
    hold_s: float = 0.0
    _edges: tuple[float, ...] = field(init=False, repr=False, compare=False)
    _steps: tuple[tuple[bool, float, float], ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        edges, steps = [], []
        for (low, first), (high, last) in pairwise(self.points):
            share = (high - low) / 100
            bends = first > 0 and last > 0
            steps.append((bends, first, (math.log(last / first) if bends else last - first) / share))
            edges.append(low / 100)
        object.__setattr__(self, "_edges", tuple(edges))
        object.__setattr__(self, "_steps", tuple(steps))

    @classmethod
    def constant(cls, value: float) -> Table:
        """The table of a plain number."""
        return cls(points=((0.0, value), (100.0, value)))

    @property
    def is_constant(self) -> bool:
        """Whether every draw gives the same value."""
        return self.points[0][1] == self.points[-1][1]

    @property
    def low(self) -> float:
        """Least value, scaled."""
        return self.points[0][1] * self.scale

    @property
    def high(self) -> float:
        """Greatest value, scaled."""
        return self.points[-1][1] * self.scale

    @property
    def median(self) -> float:
        """Value at u = 0.5."""
        return self.at(0.5)

    @property
    def mean(self) -> float:
        """Mean of the distribution the table describes (exact for the interpolation of `at`)."""
        total = 0.0
        for (low, first), (high, last) in pairwise(self.points):
            bends = first > 0 and last > 0 and abs(last / first - 1) > 1e-9
            total += (high - low) / 100 * ((last - first) / math.log(last / first) if bends else (first + last) / 2)
        return total * self.scale

    def at(self, u: float) -> float:
        """The value below which a share `u` lies: log-linear between two positive values, linear otherwise.

        Args:
            u: In [0, 1].
        """
        place = bisect_right(self._edges, u) - 1
        bends, first, slope = self._steps[place]
        along = (u - self._edges[place]) * slope
        return (first * math.exp(along) if bends else first + along) * self.scale
