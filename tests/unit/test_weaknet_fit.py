"""From a recording back to a profile: what is known comes out again, what cannot be known is not made up."""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from clientcore.ports import ManualClock
from tests.support.conversations import lose
from tests.support.devices import absent, enrolled, open_phone
from tests.support.fake_server import FakeServer, offline
from tests.weaknet.cli import profiles
from tests.weaknet.errors import RecordingRefused
from tests.weaknet.fit import fit, quantiles, spells
from tests.weaknet.profile import load_file, read_json
from tests.weaknet.provenance import basis_of, count_kinds, numbers
from tests.weaknet.reading import read_profile
from tests.weaknet.recording import Attempt, Recording, read_recordings
from tests.weaknet.timeline import Timeline, compile_timeline

DEVICES = 6
ON = {"q": {"0": 60, "50": 600, "100": 3_600}}
OFF = {"q": {"0": 30, "50": 240, "100": 1_800}}


def known() -> dict[str, Any]:
    """EDGE rates and round trips, spells long enough to be seen, nothing cut."""
    plain = copy.deepcopy(read_json("upper-egypt-edge-rural"))
    plain["links"][0].update(flap={"on_s": ON, "off_s": OFF}, dns_fail=0)
    plain["links"][0]["open"] = [{"days": "sun-thu", "from": "07:30", "to": "14:00"}]
    del plain["links"][0]["cut"]
    return plain


class Probe:
    """One phone that asks every 10 to 40 seconds on school mornings, as the device's log would tell it."""

    def __init__(self, timeline: Timeline, name: str, seed: int) -> None:
        self.timeline, self.name = timeline, name
        self.source = random.Random(seed)
        self.boot_ms = self.source.randrange(10**9)
        self.connections = 0

    def rows(self, days: int) -> Iterator[dict[str, Any]]:
        for day in range(days):
            at_ms, end_ms = (self.timeline.days.elapsed_ms(day, minute) for minute in (450, 840))
            yield {"kind": "start", "device": self.name, "at_ms": self._wall(at_ms)}
            kept = False
            while at_ms < end_ms:
                row, over_ms = self._attempt(at_ms, kept=kept)
                if row["outcome"] == "ok":
                    server_ms = self.timeline.start_ms + over_ms
                    clock = {"kind": "clock", "device": self.name, "at_ms": self._wall(over_ms)}
                    yield {**clock, "mono_ms": self.boot_ms + over_ms, "server_ms": server_ms}
                yield row
                kept = row["outcome"] == "ok" and self.source.random() < 0.4
                at_ms = over_ms + (1_000 if kept else self.source.randrange(10_000, 40_000))

    def _wall(self, at_ms: int) -> int:
        drift_ms = at_ms * self.timeline.drift_ppm / 1e6
        return int(self.timeline.start_ms + at_ms + self.timeline.offset_s * 1_000 + drift_ms)

    def _attempt(self, at_ms: int, *, kept: bool) -> tuple[dict[str, Any], int]:
        up, down = self.source.choice([300, 700, 9_000, 40_000]), self.source.choice([200, 5_000])
        outcome, took_ms, first_ms = self._exchange(at_ms, up, down, kept=kept)
        row = {"kind": "attempt", "device": self.name, "at_ms": self._wall(at_ms), "mono_ms": self.boot_ms + at_ms}
        row |= {"took_ms": took_ms, "bytes_up": up, "bytes_down": down if outcome == "ok" else 0}
        return {**row, "outcome": outcome, "first_byte_ms": first_ms, "link": None}, at_ms + took_ms

    def _exchange(self, at_ms: int, up: int, down: int, *, kept: bool) -> tuple[str, int, int]:
        if self.timeline.segment_at(at_ms).link is None:
            return "offline", 300, 0
        connection = self.timeline.connection(self.connections, at_ms)
        self.connections += 1
        now_ms = at_ms
        if not kept:
            now_ms = self._carry(now_ms + int(3 * connection.rtt_ms), 900, up=True)
            now_ms = self._carry(now_ms, 4_096, up=False)
        first_ms = self._carry(now_ms, up, up=True) + int(connection.rtt_ms)
        over_ms = self._carry(first_ms, down, up=False)
        if over_ms - at_ms > 60_000:
            return "timeout", 60_000, 0
        return "ok", over_ms - at_ms, first_ms - at_ms

    def _carry(self, at_ms: int, count: int, *, up: bool) -> int:
        done = self.timeline.carried_ms(at_ms, count, up=up)
        assert done is not None
        return done


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Path:
    profile = read_profile(known())
    target = tmp_path_factory.mktemp("field") / "pilot.jsonl"
    with target.open("w") as file:
        for seed in range(DEVICES):
            probe = Probe(compile_timeline(profile, seed, days=14), f"phone-{seed}", seed)
            for row in probe.rows(5):
                file.write(json.dumps(row) + "\n")
    return target


@pytest.fixture(scope="module")
def read(recording: Path) -> Recording:
    return read_recordings([recording])


def test_a_known_network_comes_out_again(read: Recording) -> None:
    """Round trip: simulate a known profile, fit, compare medians and spreads with what was put in."""
    truth = read_profile(known()).links[0]
    fitted = fit(read, known(), profile_id="found", title="Found")
    found = read_profile(fitted.plain).links[0]
    assert fitted.kept == ()
    assert truth.flap is not None
    assert found.flap is not None
    tolerances = (
        (found.rtt_ms, truth.rtt_ms, 0.15, 0.25),
        (found.down_kbps, truth.down_kbps, 0.15, 0.2),
        (found.up_kbps, truth.up_kbps, 0.25, 0.4),
        (found.flap.on_s, truth.flap.on_s, 0.25, 0.25),
        (found.flap.off_s, truth.flap.off_s, 0.25, 0.25),
    )
    for one, true, middle, spread in tolerances:
        assert one.median == pytest.approx(true.median, rel=middle)
        assert one.at(0.9) == pytest.approx(true.at(0.9), rel=spread)
        assert one.at(0.25) == pytest.approx(true.at(0.25), rel=spread + 0.1)


def test_the_clock_is_measured_per_device_and_day(read: Recording) -> None:
    """Offsets and drifts lie between those of the six devices; the median device comes out to the second."""
    timelines = [compile_timeline(read_profile(known()), seed) for seed in range(DEVICES)]
    fitted = fit(read, known(), profile_id="found", title="Found")
    clock = read_profile(fitted.plain).device.clock
    offsets = sorted(one.offset_s for one in timelines)
    drifts = sorted(one.drift_ppm for one in timelines)
    assert offsets[0] - 60 <= clock.offset_s.low <= clock.offset_s.high <= offsets[-1] + 60
    assert offsets[2] - 60 <= clock.offset_s.median <= offsets[3] + 60
    assert clock.drift_ppm.low == pytest.approx(drifts[0], abs=1)
    assert clock.drift_ppm.high == pytest.approx(drifts[-1], abs=1)


def test_measured_numbers_say_so_and_the_others_keep_their_basis(read: Recording) -> None:
    """Every number still has a basis; what was fitted is measured in the field, with how much it rests on."""
    base = known()
    fitted = fit(read, base, profile_id="found", title="Found").plain
    assert sum(count_kinds(fitted).values()) == len(list(numbers(fitted)))
    for pointer in ("/links/0/rtt_ms", "/links/0/up_kbps", "/links/0/flap/on_s", "/device/clock/offset_s"):
        one = fitted["basis"][pointer]
        assert (one["kind"], one["ref"]) == ("measured", ["field"])
        assert "6 devices, 30 device-days" in one["note"]
    assert fitted["basis"]["/links/0/loss"] == base["basis"]["/links/0/loss"]
    assert fitted["links"][0]["loss"] == base["links"][0]["loss"]
    hold = basis_of("/links/0/up_kbps/hold_s", fitted["basis"])
    assert hold == "/links/0/up_kbps/hold_s"
    assert fitted["basis"][hold]["kind"] == "assumed"


def test_links_that_cannot_be_told_apart_become_one(read: Recording) -> None:
    """A base with two links keeps the first only, and no basis speaks of the other."""
    fitted = fit(read, read_json("shared-phone-two-teachers"), profile_id="f", title="f").plain
    assert len(fitted["links"]) == 1
    assert not [pointer for pointer in fitted["basis"] if pointer.startswith("/links/1")]


def attempt(at_s: float, outcome: str = "ok", *, device: str = "a", took_ms: int = 0, first_ms: int = 5) -> Attempt:
    return Attempt(
        device=device,
        at_ms=int(at_s * 1_000),
        mono_ms=0,
        took_ms=took_ms,
        bytes_up=100,
        bytes_down=100,
        outcome=outcome,
        first_byte_ms=first_ms,
        link=None,
    )


def test_spells_lie_half_way_between_attempts_and_unseen_beginnings_are_left_out() -> None:
    """On on | off off | on, then silence: one off spell of 200 s, one on spell censored at the last sign of life."""
    seen = [attempt(0), attempt(100), attempt(200, "offline"), attempt(300, "timeout"), attempt(400), attempt(500)]
    assert spells([*seen, attempt(9_000)]) == {True: [(150.0, False)], False: [(200.0, True)]}
    assert spells(seen[:2]) == {True: [], False: []}


def test_a_server_that_refuses_is_a_link_that_works_and_a_portal_is_no_proof() -> None:
    """`busy` counts as on; `broken`, `not-ours` and a page from somebody count as neither; a failed fetch as off."""
    before = [attempt(0), attempt(100, "offline", first_ms=0)]
    assert spells([*before, attempt(200, "busy"), attempt(300, "offline")])[False] == [(100.0, True), (50.0, False)]
    for unsure in (attempt(150, "broken"), attempt(150, "not-ours"), attempt(150, "no-answer", first_ms=7)):
        assert spells([*before, unsure, attempt(200)])[False] == [(100.0, True)]
    assert spells([attempt(0), attempt(100, "no-answer", first_ms=0), attempt(200)])[False] == [(100.0, True)]


def test_devices_do_not_mix() -> None:
    """One phone's failure is not another's spell."""
    both = [attempt(0), attempt(50, "offline", device="b"), attempt(100), attempt(150, "offline", device="b")]
    assert spells(both) == {True: [], False: []}


def test_censored_spells_lengthen_the_table() -> None:
    """Kaplan and Meier: nine of ten values censored above the median move the upper quantiles, not the lower."""
    plain = quantiles([(float(value), True) for value in range(1, 101)])
    assert (plain["0"], plain["50"], plain["100"]) == (1.0, 50.0, 100.0)
    cut = quantiles([(float(value), value <= 50) for value in range(1, 101)])
    assert (cut["25"], cut["50"], cut["75"], cut["100"]) == (25.0, 50.0, 100.0, 100.0)
    half = quantiles([(1.0, True), (2.0, False), (3.0, True), (4.0, True)] * 2)
    assert half["50"] == 3.0  # of the two thirds left after 2, half end at 3


def test_too_little_is_said_and_not_used() -> None:
    """A handful of attempts measures nothing; an empty recording makes no profile."""
    few = [attempt(at) for at in (0, 1, 2)]
    with pytest.raises(RecordingRefused, match="too few") as refused:
        fit(
            Recording(devices=("a",), attempts=tuple(few), beacons=(), unreadable=0),
            read_json("cairo-4g-good"),
            profile_id="x",
            title="x",
        )
    assert refused.value.code == "too-little"


GOOD = {"kind": "start", "device": "a", "at_ms": 5}


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("{", "not JSON"),
        ("[]", "kind"),
        ('{"kind": "tap"}', "kind"),
        (json.dumps({**GOOD, "pupil": "s1"}), "exactly"),
        (json.dumps({**GOOD, "at_ms": "5"}), "at_ms"),
        (json.dumps({**GOOD, "at_ms": True}), "at_ms"),
        (json.dumps({**GOOD, "at_ms": -5}), "at_ms"),
    ],
)
def test_a_line_that_is_not_ours_is_refused_with_its_number(tmp_path: Path, line: str, why: str) -> None:
    """Nothing is skipped: the file and line are named."""
    file = tmp_path / "r.jsonl"
    file.write_text(json.dumps(GOOD) + "\n\n" + line + "\n")
    with pytest.raises(RecordingRefused, match=r"r\.jsonl, line 3") as refused:
        read_recordings([file])
    assert refused.value.code == "bad-line"
    assert why in refused.value.detail


def test_other_files_are_no_recordings(tmp_path: Path) -> None:
    """Random bytes, a database of something else, the same phone twice: refused, in words."""
    noise = tmp_path / "noise"
    noise.write_bytes(b"\xff\xfe\x00")
    other = tmp_path / "other.db"
    other.write_bytes(b"SQLite format 3\x00" + bytes(200))
    for file in (noise, other):
        with pytest.raises(RecordingRefused) as refused:
            read_recordings([file])
        assert refused.value.code == "not-a-recording"
    lines = tmp_path / "a.jsonl"
    lines.write_text(json.dumps(GOOD) + "\n")
    with pytest.raises(RecordingRefused, match="same device"):
        read_recordings([lines, lines])


async def test_a_real_devices_log_is_a_recording(tmp_path: Path) -> None:
    """The log of a device that synced, lost an answer and was offline is read as it lies on disk."""
    clock = ManualClock()
    server = FakeServer(clock)
    phone = await enrolled(open_phone(tmp_path / "home", server, clock))
    phone.take()
    assert (await phone.sync()).outcome == "ok"
    done = len(server.requests) - 1  # the first was the enrolment
    phone.take(absent("s001"))
    server.after = lose
    assert (await phone.sync()).outcome == "no-answer"
    server.before = offline
    assert (await phone.sync()).outcome == "no-answer"
    phone.close()
    (log,) = [path for path in (tmp_path / "home").rglob("*") if path.is_file() and path.name.startswith("log")]
    recording = read_recordings([log])
    assert recording.unreadable == 0
    assert [one.outcome for one in recording.attempts] == ["ok"] * done + ["timeout", "offline"]
    assert len(recording.beacons) >= done
    assert all(one.bytes_up > 0 for one in recording.attempts)
    assert all((one.bytes_down > 0) == (one.outcome == "ok") for one in recording.attempts)
    assert {one.device for one in recording.attempts} == {log.stem}
    assert all(abs(one.at_ms - clock.wall_ms()) < 60_000 for one in recording.attempts)


def test_the_command_writes_a_profile_that_draws(recording: Path, tmp_path: Path) -> None:
    """`profiles fit` tells what it measured and what it kept, writes a file, and `profiles FILE` draws it."""
    target = tmp_path / "minya-2027-term1.json"
    args = ["fit", str(recording), "--id", "minya-2027-term1", "--base", "minya-school-wifi-herd", "--out", str(target)]
    result = CliRunner().invoke(profiles, args)
    assert result.exit_code == 0, result.output
    assert "round trips" in result.output
    assert "minya-school-wifi-herd" in result.output
    assert load_file(target).id == "minya-2027-term1"
    assert "minya-2027-term1" in CliRunner().invoke(profiles, [str(target)]).output
    told = json.loads(CliRunner().invoke(profiles, [*args, "--json"]).output)
    assert told["file"] == str(target)
    assert told["measured"]
    wrong = CliRunner().invoke(profiles, [*args, "--link", "wifi"])
    assert wrong.exit_code == 1
    assert "too-little" in wrong.output
