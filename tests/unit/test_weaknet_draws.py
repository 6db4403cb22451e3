"""The deterministic draw and the quantile table."""

from __future__ import annotations

import json
import math
import subprocess
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.weaknet.draws import Stream, Table, uniform
from tests.weaknet.profile import FOLDER, load

VECTORS = json.loads((FOLDER / "vectors.json").read_text())["vectors"]
PROPOSED = [
    ("upper-egypt-edge-rural", 5, "sim.on", 0.951667520224, 226.145843),
    ("upper-egypt-edge-rural", 5, "sim.off", 0.892106056248, 16.427902),
    ("after-school-home-wifi", 0, "home-wifi.up_kbps", 0.715307523401, 3416.077387),
    ("dst-clock-chaos", 3, "device.offset_s", 0.891675386797, 212.156426),
]


def table_of(profile_id: str, stream: str) -> Table:
    profile = load(profile_id)
    owner, field = stream.split(".")
    if owner == "device":
        found: Any = getattr(profile.device.clock, field)
    elif owner == "carry":
        found = getattr(profile.carry, field)
    else:
        link = next(link for link in profile.links if link.name == owner)
        found = getattr(link.flap, f"{field}_s") if field in ("on", "off") else getattr(link, field)
    assert isinstance(found, Table)
    return found


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: f"{vector['stream']}.{vector['k']}")
def test_the_vectors_hold(vector: dict[str, Any]) -> None:
    """Every draw of vectors.json comes out to the last bit, and its value within the tolerance."""
    u = uniform(vector["id"], vector["seed"], vector["stream"], vector["k"])
    assert u == vector["u"]
    assert table_of(vector["id"], vector["stream"]).at(u) == pytest.approx(vector["value"], rel=1e-9)


@pytest.mark.parametrize(("profile_id", "seed", "stream", "u", "value"), PROPOSED)
def test_the_four_first_vectors_are_those_of_the_format(
    profile_id: str, seed: int, stream: str, u: float, value: float
) -> None:
    """The check values the format was proposed with, written down independently of this code."""
    assert uniform(profile_id, seed, stream, 0) == pytest.approx(u, abs=1e-12)
    assert table_of(profile_id, stream).at(uniform(profile_id, seed, stream, 0)) == pytest.approx(value, abs=1e-6)
    assert any(one["stream"] == stream and one["k"] == 0 and one["seed"] == seed for one in VECTORS)


NODE = """
const { createHash } = require('node:crypto');
const u = ({ id, seed, stream, k }) => {
  const head = createHash('sha256').update(`weaknet/1|${id}|${seed}|${stream}|${k}`).digest();
  return Number(head.readBigUInt64BE(0) >> 11n) / 2 ** 53;
};
const at = ({ points, scale }, share) => {
  let i = points.length - 2;
  while (i > 0 && share < points[i][0] / 100) i--;
  const [[low, first], [high, last]] = points.slice(i, i + 2);
  const along = (share - low / 100) / ((high - low) / 100);
  return (first > 0 && last > 0 ? first * (last / first) ** along : first + along * (last - first)) * scale;
};
const asked = JSON.parse(require('node:fs').readFileSync(0, 'utf8'));
console.log(JSON.stringify(asked.map((one) => [u(one), at(one, u(one))])));
"""


def test_another_language_draws_the_same() -> None:
    """Twenty lines of JavaScript, written from the README alone, reproduce every vector."""
    asked = []
    for vector in VECTORS:
        table = table_of(vector["id"], vector["stream"])
        asked.append({**vector, "seed": str(vector["seed"]), "points": table.points, "scale": table.scale})
    done = subprocess.run(["node", "-e", NODE], input=json.dumps(asked), capture_output=True, text=True, check=True)
    for vector, (u, value) in zip(VECTORS, json.loads(done.stdout), strict=True):
        assert u == vector["u"]
        assert value == pytest.approx(vector["value"], rel=1e-9)


def test_log_linear_between_positive_values_and_linear_elsewhere() -> None:
    """Half-way between 1 and 100 lies 10; between 0 and 100, 50; between -100 and -1, -50.5."""
    assert Table(points=((0, 1), (100, 100))).at(0.5) == pytest.approx(10)
    assert Table(points=((0, 0), (100, 100))).at(0.5) == pytest.approx(50)
    assert Table(points=((0, -100), (100, -1))).at(0.5) == pytest.approx(-50.5)
    assert Table(points=((0, 1), (100, 100)), scale=3).at(0.5) == pytest.approx(30)
    assert Table.constant(7).at(0.3) == 7


# Nothing in a profile is finer than a billionth; beyond that the ratio of two values leaves the range of doubles.
numbers = st.floats(-1e6, 1e6).map(lambda number: number if abs(number) >= 1e-9 else 0.0)
values = st.lists(numbers, min_size=2, max_size=8).map(sorted)


@given(values, st.floats(0, 1), st.floats(0, 1))
def test_a_table_never_falls_and_keeps_its_ends(found: list[float], one: float, other: float) -> None:
    """Monotone in u, between first and last value, exact at listed percentiles."""
    points = tuple((100 * place / (len(found) - 1), value) for place, value in enumerate(found))
    table = Table(points=points)
    low, high = sorted((one, other))
    slack = 1e-9 * max(1.0, abs(found[0]), abs(found[-1]))
    assert table.at(low) <= table.at(high) + slack
    assert found[0] - slack <= table.at(one) <= found[-1] + slack


@given(values.filter(lambda found: found[-1] - found[0] < 1e5))
def test_the_mean_is_that_of_the_draws(found: list[float]) -> None:
    """`mean` agrees with a fine sum over the table."""
    table = Table(points=tuple((100 * place / (len(found) - 1), value) for place, value in enumerate(found)))
    fine = sum(table.at((step + 0.5) / 7_000) for step in range(7_000)) / 7_000
    assert table.mean == pytest.approx(fine, rel=0.02, abs=0.002 * (found[-1] - found[0]) + 1e-3)


def test_draws_are_uniform_and_gaps_exponential() -> None:
    """2,000 draws of a stream have the mean and the spread they should."""
    stream = Stream("cairo-4g-good", 1, "device.try")
    us = [stream.u(k) for k in range(2_000)]
    assert all(0 <= u < 1 for u in us)
    assert sum(us) / 2_000 == pytest.approx(0.5, abs=0.03)
    assert sum(u < 0.25 for u in us) / 2_000 == pytest.approx(0.25, abs=0.04)
    gaps = [stream.wait(0.5, k) for k in range(2_000)]
    assert sum(gaps) / 2_000 == pytest.approx(2, rel=0.1)
    assert sum(gap > 2 for gap in gaps) / 2_000 == pytest.approx(math.exp(-1), abs=0.04)


def test_streams_do_not_hang_together() -> None:
    """Another profile, seed, stream or index gives another number."""
    draws = {
        uniform(profile, seed, stream, k)
        for profile in ("a", "b")
        for seed in (0, 1, -1)
        for stream in ("sim.on", "sim.off")
        for k in (0, 1)
    }
    assert len(draws) == 24
