"""The compiled timeline: contiguous, deterministic, and true to the profile's tables."""

from __future__ import annotations

import copy
import hashlib
import math
import os
import subprocess
import sys
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.weaknet.calendar import merged, without
from tests.weaknet.profile import Profile, load, names, read_json
from tests.weaknet.reading import read_profile
from tests.weaknet.timeline import Segment, Timeline, compile_timeline

ROOT = Path(__file__).parents[2]
HOUR_MS, DAY_MS = 3_600_000, 86_400_000
ALWAYS = {"open": [{"days": "*", "from": "00:00", "to": "24:00"}]}
ONE_RATE = {"down_kbps": 100, "up_kbps": 100}
CAIRO = ZoneInfo("Africa/Cairo")


def changed(name: str, **fields: Any) -> Profile:
    """A profile with other fields; `link` changes the first link's."""
    plain = copy.deepcopy(read_json(name))
    plain["links"][:1] = [{**one, **fields.pop("link", {})} for one in plain["links"][:1]]
    return read_profile({**plain, **fields})


def wall(timeline: Timeline, at_ms: int) -> datetime:
    return datetime.fromtimestamp((timeline.start_ms + at_ms) / 1000, UTC).astimezone(CAIRO)


def on_stretches(segments: list[Segment]) -> list[tuple[int, int]]:
    return list(merged((one.from_ms, one.to_ms) for one in segments if one.link is not None))


@pytest.mark.parametrize("name", names())
def test_segments_are_contiguous_and_agree_with_every_question(name: str) -> None:
    """They cover the span without gap or overlap, and `segment_at` gives the same whatever was asked before."""
    timeline = compile_timeline(load(name), 7, days=1)
    segments = timeline.segments
    assert segments[0].from_ms == 0
    assert segments[-1].to_ms == timeline.length_ms
    assert all(one.from_ms < one.to_ms for one in segments)
    assert all(one.to_ms == after.from_ms for one, after in pairwise(segments))
    fresh = compile_timeline(load(name), 7, days=1)
    for one in reversed(segments[:: max(1, len(segments) // 200)]):
        assert fresh.segment_at(one.to_ms - 1) == one == fresh.segment_at(one.from_ms)
    assert all(one.link is None or one.link < len(timeline.profile.links) for one in segments)


@pytest.mark.parametrize("name", names())
def test_more_days_change_nothing_before_them(name: str) -> None:
    """A run of three days begins like a run of one: the same segments, the same events."""
    short, long = compile_timeline(load(name), 3, days=1), compile_timeline(load(name), 3, days=3)
    probes = range(0, short.length_ms - DAY_MS // 48, DAY_MS // 48)
    assert [short.segment_at(at).link for at in probes] == [long.segment_at(at).link for at in probes]
    assert [short.segment_at(at).up_kbps for at in probes] == [long.segment_at(at).up_kbps for at in probes]
    if not load(name).device.wipe_per_run:  # its instant is drawn within the whole round
        assert short.events == tuple(event for event in long.events if event.at_ms < short.length_ms)
    assert short.offset_s == long.offset_s


def test_a_time_outside_the_span_is_an_error() -> None:
    """No answer is made up before the start or after the end."""
    timeline = compile_timeline(load("cairo-4g-good"), 0)
    for at_ms in (-1, timeline.length_ms):
        with pytest.raises(ValueError, match="outside"):
            timeline.segment_at(at_ms)


def test_windows_are_wall_time_on_their_weekdays() -> None:
    """The rooftop has its quarter of an hour from Sunday to Thursday at 13:40, and nothing else."""
    profile = changed("gprs-rooftop-once-a-day")
    timeline = compile_timeline(profile, 1)
    stretches = on_stretches(list(timeline.segments))
    assert {wall(timeline, first).strftime("%a") for first, _ in stretches} == {"Sun", "Mon", "Tue", "Wed", "Thu"}
    assert all(wall(timeline, first).strftime("%H:%M") >= "13:40" for first, _ in stretches)
    assert all(wall(timeline, last - 1).strftime("%H:%M") < "13:55" for _, last in stretches)
    starts = [wall(timeline, first).strftime("%H:%M:%S") for first, _ in stretches]
    assert starts.count("13:40:00") == 5  # open time begins with an on spell


def test_numbered_days_come_again_after_the_span_and_weekdays_follow_the_calendar() -> None:
    """The Sinai nights repeat every 13 days; the school's windows stay on school days."""
    sinai = compile_timeline(load("sinai-night-window"), 0, days=26)
    evenings = [sinai.segment_at(sinai.days.elapsed_ms(day, 23 * 60 + 30)).link is not None for day in range(26)]
    assert evenings[:13] == [True, True, False, False] + [True] * 9
    assert evenings[13:] == evenings[:13]
    school = compile_timeline(changed("minya-school-wifi-herd", span={**_span(), "days": 3}), 0, days=14)
    mornings = [school.segment_at(school.days.elapsed_ms(day, 8 * 60)).link is not None for day in range(14)]
    assert mornings == ([True] * 5 + [False] * 2) * 2


def _span() -> dict[str, Any]:
    return {"start": "2026-10-04T00:00", "days": 7, "tz": "Africa/Cairo"}


@pytest.mark.parametrize(("start", "hours", "day"), [("2026-10-25T00:00", 25, 4), ("2027-04-25T00:00", 23, 5)])
def test_the_day_of_the_clock_change_has_its_real_length(start: str, hours: int, day: int) -> None:
    """Thursday 29 October 2026 has 25 hours, Friday 30 April 2027 has 23; windows after the change keep their hour."""
    window = [{"days": "*", "from": "07:30", "to": "13:30"}]
    profile = changed("school-dsl-quota-spent", span={**_span(), "start": start}, link={"open": window})
    timeline = compile_timeline(profile, 0)
    lengths = [last - first for first, last in map(timeline.days.stretch_of, range(7))]
    assert lengths[day] == hours * HOUR_MS
    assert sorted(lengths)[3] == 24 * HOUR_MS
    assert timeline.length_ms == sum(lengths)
    stretches = on_stretches(list(timeline.segments))
    assert [wall(timeline, first).strftime("%H:%M") for first, _ in stretches] == ["07:30"] * 7
    assert [wall(timeline, last).strftime("%H:%M") for _, last in stretches] == ["13:30"] * 7
    assert timeline.start_ms == datetime.fromisoformat(start).replace(tzinfo=CAIRO).timestamp() * 1000


def test_a_window_in_the_hour_that_is_left_out_is_empty() -> None:
    """Between 00:10 and 00:50 on 30 April 2027 there is no time at all."""
    window = [{"days": [5], "from": "00:10", "to": "00:50"}]
    profile = changed("dst-clock-chaos", link={"open": window})
    assert on_stretches(list(compile_timeline(profile, 0).segments)) == []


def test_a_closure_lies_in_its_window_every_day() -> None:
    """Two hours between 11 and 17, ten minutes of slack at each end, at another place each day."""
    profile = load("load-shedding-two-hours")
    always = changed("load-shedding-two-hours", links=[{**read_json("load-shedding-two-hours")["links"][0], **ALWAYS}])
    begun = set()
    for seed in range(6):
        timeline = compile_timeline(always, seed)
        for day in range(7):
            first, last = timeline.days.stretch_of(day)
            off = without([(first, last)], _stretches_of(timeline, 0, first, last))
            assert len(off) == 1
            assert 100 * 60_000 <= off[0][1] - off[0][0] <= 140 * 60_000
            assert off[0][0] - first >= 10 * HOUR_MS + 50 * 60_000
            assert off[0][1] - first <= 17 * HOUR_MS + 10 * 60_000
            begun.add(off[0][0] - first)
    assert len(begun) == 42
    assert profile.links[0].shut


def _stretches_of(timeline: Timeline, link: int, first: int, last: int) -> list[tuple[int, int]]:
    return list(merged((one.from_ms, one.to_ms) for one in timeline.between(first, last) if one.link == link))


def test_the_first_usable_link_carries_the_traffic() -> None:
    """In a power cut the phone falls back to the SIM; with the Wi-Fi there it is Wi-Fi."""
    timeline = compile_timeline(load("load-shedding-two-hours"), 2)
    middays = [(timeline.days.elapsed_ms(day, 660), timeline.days.elapsed_ms(day, 810)) for day in range(5)]
    assert {one.link for first, last in middays for one in timeline.between(first, last)} == {0, 1}
    assert timeline.segment_at(timeline.days.elapsed_ms(0, 480)).link == 0
    assert timeline.segment_at(timeline.days.elapsed_ms(0, 1_200)).link == 1


@pytest.mark.parametrize("name", ["upper-egypt-edge-rural", "microbus-lte-handover"])
def test_spells_follow_their_tables(name: str) -> None:
    """Median and p90 of on and off spells, and the share of time off, are those of the table."""
    profile = changed(name, link={**ALWAYS, **ONE_RATE})  # short windows would cut spells short
    flap = profile.links[0].flap
    assert flap is not None
    found: dict[bool, list[float]] = {True: [], False: []}
    for seed in range(3 if name.startswith("upper") else 10):
        timeline = compile_timeline(profile, seed, days=2)
        for first, last in timeline._links[0].open_pieces():
            on = _stretches_of(timeline, 0, first, last)
            off = without([(first, last)], on)
            found[True] += [(to - since) / 1000 for since, to in on if to < last]
            found[False] += [(to - since) / 1000 for since, to in off if to < last]
    for is_on, table in ((True, flap.on_s), (False, flap.off_s)):
        spells = sorted(found[is_on])
        assert len(spells) > 300
        assert spells[len(spells) // 2] == pytest.approx(table.median, rel=0.2)
        assert spells[len(spells) * 9 // 10] == pytest.approx(table.at(0.9), rel=0.25)
    share = sum(found[False]) / (sum(found[False]) + sum(found[True]))
    assert share == pytest.approx(flap.off_s.mean / (flap.off_s.mean + flap.on_s.mean), abs=0.04)


def test_rates_follow_their_table_and_hold_as_long_as_it_says() -> None:
    """Two-second draws of the 3G link: quantiles of the table; edges on whole holds."""
    profile = load("delta-3g-congested-morning")
    table = profile.links[0].up_kbps
    timeline = compile_timeline(profile, 4, days=1)
    noon = timeline.days.elapsed_ms(0, 720)
    seen = list(timeline.between(noon, noon + HOUR_MS))
    assert {one.from_ms % 2_000 for one in seen} == {0}
    rates = sorted(one.up_kbps for one in seen)
    for share in (0.25, 0.5, 0.75):
        assert rates[int(share * len(rates))] == pytest.approx(table.at(share), rel=0.12)


def test_a_rate_without_hold_is_one_draw_for_the_run_and_another_for_the_next_phone() -> None:
    """Home Wi-Fi: one rate per device and run, spread over devices as the table says."""
    profile = load("after-school-home-wifi")
    rates: list[float] = []
    for seed in range(200):
        evening = compile_timeline(profile, seed)
        found = {one.up_kbps for one in evening.segments if one.link is not None}
        assert len(found) == 1
        rates += found
    assert sorted(rates)[100] == pytest.approx(profile.links[0].up_kbps.median, rel=0.5)
    assert len(set(rates)) == 200


def test_conditions_change_rates_and_failures_inside_their_window() -> None:
    """The first lesson halves the rate and lets 5% of connects fail; the outage's last listed window decides."""
    timeline = compile_timeline(load("delta-3g-congested-morning"), 1)
    usual = compile_timeline(changed("delta-3g-congested-morning", link={"when": []}), 1)
    for minute, scale, fails in ((449, 1, 0), (450, 0.5, 0.05), (539, 0.5, 0.05), (540, 1, 0)):
        at = timeline.days.elapsed_ms(2, minute)
        assert timeline.segment_at(at).up_kbps == pytest.approx(usual.segment_at(at).up_kbps * scale)
        assert timeline.segment_at(at).connect_fail == fails
    saturday = timeline.days.elapsed_ms(6, 480)
    assert timeline.segment_at(saturday).connect_fail == 0
    outage = compile_timeline(load("ramses-national-outage"), 1)
    assert outage.segment_at(outage.days.elapsed_ms(2, 600)).connect_fail == 0.56
    assert outage.segment_at(outage.days.elapsed_ms(2, 600)).dns_fail == 0.3


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 6 * 86_400),
    st.integers(1, 60_000),
    st.booleans(),
    st.sampled_from(
        ["upper-egypt-edge-rural", "delta-3g-congested-morning", "gprs-rooftop-once-a-day", "load-shedding-two-hours"]
    ),
)
def test_bytes_pass_when_the_segments_have_carried_them(at_s: int, count: int, up: bool, name: str) -> None:
    """`carried_ms` is what adding up the segments' capacities gives, to the millisecond."""
    timeline = compile_timeline(load(name), 11)
    done = timeline.carried_ms(at_s * 1_000, count, up=up)
    end = timeline.length_ms if done is None else done
    bits = 0.0
    for one in timeline.between(at_s * 1_000, end):
        rate = one.up_kbps if up else one.down_kbps
        bits += rate * (min(one.to_ms, end) - max(one.from_ms, at_s * 1_000))
    if done is None:
        assert bits < count * 8
    else:
        last = timeline.segment_at(min(done, timeline.length_ms) - 1 if done > at_s * 1_000 else done)
        rate = last.up_kbps if up else last.down_kbps
        assert count * 8 - 1e-3 <= bits <= count * 8 + rate + 1e-3


def test_bytes_wait_through_the_night_and_may_never_pass() -> None:
    """From the evening on, the rooftop's bytes pass the next day at 13:40; after the last window, never."""
    timeline = compile_timeline(load("gprs-rooftop-once-a-day"), 0)
    done = timeline.carried_ms(timeline.days.elapsed_ms(0, 1_200), 100, up=True)
    assert done is not None
    assert wall(timeline, done).strftime("%a %H:%M:%S") == "Mon 13:40:00"
    assert timeline.carried_ms(timeline.days.elapsed_ms(4, 1_200), 100, up=True) is None
    assert compile_timeline(load("sinai-no-signal-weekly-courier"), 0).carried_ms(0, 1, up=True) is None


def test_loss_folded_in_makes_it_slower() -> None:
    """With a round trip given, lost packets cost time; Mathis bounds fast lossy links."""
    profile = load("minya-school-wifi-herd")
    timeline = compile_timeline(profile, 0)
    at = timeline.days.elapsed_ms(0, 480)
    plain, lossy = timeline.carried_ms(at, 20_000, up=True), timeline.carried_ms(at, 20_000, up=True, rtt_ms=260)
    assert plain is not None
    assert lossy is not None
    assert lossy - at > (plain - at) * 1.05
    assert profile.links[0].mean_loss == pytest.approx(0.077, abs=0.001)
    assert profile.links[0].goodput_kbps(1e6, 260) == pytest.approx(
        1.22 * 1_400 * 8 / (260 * math.sqrt(0.077)), rel=0.01
    )


def test_connections_fail_and_are_cut_as_often_as_the_profile_says() -> None:
    """Shares over 3,000 connections; the places of cuts are uniform; a connection's draws never change."""
    profile = load("minya-school-wifi-herd")
    timeline = compile_timeline(profile, 5)
    at = timeline.days.elapsed_ms(1, 600)
    met = [timeline.connection(k, at) for k in range(3_000)]
    dns = sum(one.fails == "dns" for one in met) / 3_000
    connect = sum(one.fails == "connect" for one in met) / 3_000
    cut = [one for one in met if one.cut is not None]
    assert dns == pytest.approx(0.05, abs=0.012)
    assert connect == pytest.approx(0.95 * 0.12, abs=0.018)
    assert len(cut) / 3_000 == pytest.approx(0.1, abs=0.016)
    assert sum(one.cut == "rst" for one in cut) / len(cut) == pytest.approx(0.5, abs=0.09)
    assert sum(one.cut_at for one in cut) / len(cut) == pytest.approx(0.5, abs=0.05)
    rtts = sorted(one.rtt_ms for one in met)
    assert rtts[1_500] == pytest.approx(260, rel=0.1)
    assert [compile_timeline(profile, 5).connection(k, at) for k in (2_999, 0, 17)] == [met[2_999], met[0], met[17]]


def test_without_a_link_a_connection_fails() -> None:
    """Nothing usable, nothing opened."""
    timeline = compile_timeline(load("sinai-no-signal-weekly-courier"), 0)
    assert timeline.connection(0, 5_000).fails == "connect"


def test_device_events_come_as_often_as_the_profile_says() -> None:
    """Kills per hour, flat batteries per week, hand-overs on school days, jumps by share, wipes per run."""
    shared = [compile_timeline(load("shared-phone-two-teachers"), seed) for seed in range(150)]
    kinds = [[event.kind for event in timeline.events] for timeline in shared]
    assert sum(one.count("kill") for one in kinds) / (150 * 168) == pytest.approx(2, rel=0.03)
    assert {one.count("handover") for one in kinds} == {5}
    handover = next(event for event in shared[0].events if event.kind == "handover")
    assert wall(shared[0], handover.at_ms).strftime("%a %H:%M") == "Sun 12:20"
    assert sum(one.count("wipe") for one in kinds) in range(10)
    chaos = [compile_timeline(load("dst-clock-chaos"), seed) for seed in range(200)]
    jumps = [event for timeline in chaos for event in timeline.events if event.kind == "clock-jump"]
    assert len(jumps) / 200 == pytest.approx(0.2 + 0.05 + 0.15 + 0.02, abs=0.12)
    assert {next(iter(jump.detail)) for jump in jumps} == {"by_s", "to_epoch_s"}
    for timeline in chaos:
        at = [event.at_ms for event in timeline.events]
        assert at == sorted(at)
        assert all(0 <= one < timeline.length_ms for one in at)
        off = False
        for event in timeline.events:
            assert not (off and event.kind == "kill")  # a phone that is off runs no app
            off = {"battery-off": True, "battery-on": False}.get(event.kind, off)
    flat = sum(event.kind == "battery-off" for timeline in chaos for event in timeline.events)
    assert flat / 200 == pytest.approx(9 / 7, rel=0.2)


def test_the_courier_comes_weekly_late_twice_with_an_older_copy_or_never() -> None:
    """Over 400 phones: three rounds in four weeks, the shares of the profile, and a file never holds the future."""
    carries = []
    for seed in range(400):
        timeline = compile_timeline(load("sinai-no-signal-weekly-courier"), seed)
        rounds = [event for event in timeline.events if event.kind == "carry"]
        assert len(rounds) <= 3
        assert all(event.detail["captured_to_ms"] <= event.at_ms for event in rounds)
        carries += rounds
    count = len(carries)
    assert count > 1_000
    assert sum(event.detail["lost"] for event in carries) / count == pytest.approx(0.03, abs=0.02)
    assert sum(event.detail["twice"] for event in carries) / count == pytest.approx(0.1, abs=0.03)
    assert sum(event.detail["old_copy"] for event in carries) / count == pytest.approx(0.05, abs=0.025)
    assert max(event.at_ms - event.detail["captured_to_ms"] for event in carries) > 7 * DAY_MS


def test_what_happens_once_a_run_happens_once_in_each_round() -> None:
    """Two spans of clock chaos have each dated jump at most twice, on the matching days."""
    timeline = compile_timeline(load("dst-clock-chaos"), 3, days=18)
    days = {timeline.days.day_at(event.at_ms) % 9 for event in timeline.events if event.kind == "clock-jump"}
    assert days <= {5, 6, 7}


FINGERPRINT = """
import hashlib
from tests.weaknet.profile import load, names
from tests.weaknet.timeline import compile_timeline
seen = hashlib.sha256()
for name in names():
    timeline = compile_timeline(load(name), 42, days=2)
    at = timeline.days.elapsed_ms(1, 480)
    for part in (list(timeline.between(at, at + 600_000)), timeline.events, timeline.offset_s, timeline.drift_ppm,
                 timeline.carried_ms(at, 8_000, up=True), timeline.connection(1, at)):
        seen.update(repr(part).encode())
print(seen.hexdigest())
"""


def test_the_same_seed_gives_the_same_bytes_under_any_hash_seed() -> None:
    """Two interpreters with different PYTHONHASHSEED agree on every profile; another seed does not."""
    found = [
        subprocess.run(
            [sys.executable, "-c", FINGERPRINT],
            cwd=ROOT,
            env={**os.environ, "PYTHONHASHSEED": hash_seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()
        for hash_seed in ("1", "2")
    ]
    assert found[0] == found[1]
    assert len(found[0]) == hashlib.sha256().digest_size * 2
    one, other = (compile_timeline(load("upper-egypt-edge-rural"), seed, days=1) for seed in (1, 2))
    assert one.segments != other.segments
    assert one.events != other.events
