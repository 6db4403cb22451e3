"""Slices of `python -m tests.weaknet.road`: the command-line device over EDGE, and the simulator beside it."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from tests.support.demo import Demo
from tests.weaknet.profile import load
from tests.weaknet.proxy import Proxy
from tests.weaknet.road import Road, spread
from tests.weaknet.road_model import simulated
from tests.weaknet.road_phones import CommandLinePhone, Room
from tests.weaknet.timeline import Timeline, compile_timeline

pytestmark = pytest.mark.process

EDGE = "upper-egypt-edge-rural"
SEEDS = 5_000
LATE_CUT = 0.8  # receipts of one register take more than the last fifth of a conversation's bytes
CALM_MS = 15_000
LIMIT_S = 60.0


def answer_is_lost() -> tuple[Timeline, int]:
    """The first seed whose first connection is reset in the answer, and whose next three are whole; and when."""
    profile = load(EDGE)
    for seed in range(SEEDS):
        timeline = compile_timeline(profile, seed, days=1)
        at_ms = timeline.days.elapsed_ms(0, 8 * 60)
        segment = timeline.segment_at(at_ms)
        if segment.link is None:
            continue
        first = timeline.connection(0, at_ms)
        if first.cut != "rst" or first.cut_at < LATE_CUT or first.fails is not None:
            continue
        rest = [timeline.connection(k, at_ms) for k in (1, 2, 3)]
        off_ms = sum(one.to_ms - one.from_ms for one in timeline.between(at_ms, at_ms + CALM_MS) if one.link is None)
        if all(one.cut is None and one.fails is None for one in rest) and off_ms < CALM_MS / 2:
            return timeline, at_ms
    raise AssertionError("no such seed")


def test_an_answer_lost_on_edge_costs_a_retry_and_nothing_else(tmp_path: Path) -> None:
    """The server commits, the answer dies on the way, the device tries again: confirmed, each mark once."""
    timeline, at_ms = answer_is_lost()
    with Demo(tmp_path / "demo") as demo, Proxy(demo.port, timeline) as proxy:
        school = demo.info["schools"][0]
        room = school["classes"][2]
        phone = CommandLinePhone(
            room=Room(
                school=school["id"],
                class_id=room["id"],
                pupils=tuple(room["pupils"]),
                code=demo.info["codes"][room["id"]],
            ),
            proxy=proxy,
            home=tmp_path / "home",
        )
        phone.enrol()
        phone.take()
        proxy.begin(at_ms)
        assert phone.deliver(LIMIT_S)
        first, *others = proxy.exchanges
        events = [event["data"] for event in demo.events()]
    assert first.fault == "cut-rst-answer"
    assert first.up_bytes == first.request_bytes
    assert first.answer_bytes is not None
    assert first.down_bytes < first.answer_bytes
    assert [one.fault for one in others if one.fault is not None] == []
    assert Counter(data["pupil"] for data in events) == Counter(room["pupils"])
    assert [data["pupil"] for data in events if data["code"] == "absent"] == [room["pupils"][1]]


def test_the_simulated_morning_is_the_same_each_time(tmp_path: Path) -> None:
    """Same profile, seeds, excerpt and chance: the same lateness to the millisecond; other chance, same weather."""
    with_demo = Road(load(EDGE), 3, Demo(tmp_path), tmp_path)
    morning = with_demo.morning(3)
    once = simulated(morning, chance=1)
    assert once == simulated(morning, chance=1)
    assert len(once) == len(simulated(morning, chance=2)) == 3


def test_percentiles_are_by_nearest_rank() -> None:
    """Of ten values the fifth is the median, the tenth is both p95 and the greatest."""
    found = spread([float(value) for value in range(10, 0, -1)])
    assert (found.registers, found.p50_s, found.p95_s, found.max_s) == (10, 5.0, 10.0, 10.0)
