"""When a tap happened: midnight in Cairo, and the interval that a frame's clocks prove."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from clientcore.frame import ClockEvidence
from reconciliation.clocks import DAY_MS, capture_reader, midnight_ms, zone_table
from reconciliation.errors import BadContext
from reconciliation.model import Capture, Confidence, Timeliness, Window
from reconciliation.timeliness import timeliness
from tests.support.histories import DAY, EIGHT_MS, ZONE, Phone, receipt

MINUTE = 60_000
HOUR = 60 * MINUTE
PHONE = Phone(label="a", user="amal")
EIGHT = DAY.opens_ms + EIGHT_MS
CAIRO = ZoneInfo("Africa/Cairo")


def utc_ms(*parts: int) -> int:
    return int(datetime(*parts, tzinfo=UTC).timestamp() * 1000)  # type: ignore[arg-type, misc]


def captured(
    ms: int = EIGHT_MS,
    *,
    received: int = EIGHT + MINUTE,
    wall: int = EIGHT + MINUTE,
    mono: int = 10 * MINUTE,
    beacon: tuple[int, int] | None = None,
    session: bytes = PHONE.nonce,
    floor: int | None = None,
) -> Capture:
    change = PHONE.mark({"s1": "P1"})
    clock = ClockEvidence(wall_ms=wall, mono_ms=mono, session=session, beacon=beacon)
    read = capture_reader(
        replace(receipt(change, PHONE, received_at_ms=received, clock=clock), offset_floor_ms=floor),
        actor=PHONE.actor,
        midnight=DAY.opens_ms,
        window=DAY,
    )
    return read(ms)


@pytest.mark.parametrize(
    ("civil_date", "utc"),
    [
        ("2026-11-22", (2026, 11, 21, 22)),  # winter, UTC+2
        ("2026-10-01", (2026, 9, 30, 21)),  # summer, UTC+3
        ("2026-10-29", (2026, 10, 28, 21)),  # the last summer day: 25 hours long
        ("2026-10-30", (2026, 10, 29, 22)),
        ("2027-04-30", (2027, 4, 29, 22)),  # its midnight does not exist: the day begins at the switch
        ("2027-05-01", (2027, 4, 30, 21)),
    ],
)
def test_midnight_in_cairo(civil_date: str, utc: tuple[int, ...]) -> None:
    """A civil date begins at its local midnight, also where summer time begins and ends."""
    assert midnight_ms(civil_date, ZONE) == utc_ms(*utc)


def test_midnight_agrees_with_zoneinfo_on_every_day_of_the_school_year() -> None:
    """The table gives what the zone database gives, day by day."""
    day = datetime(2026, 9, 1, tzinfo=CAIRO)
    while day.year < 2027 or day.month < 8:
        assert midnight_ms(day.date().isoformat(), ZONE) == int(day.timestamp() * 1000), day
        day += timedelta(days=1)


def test_a_midnight_that_comes_twice_is_the_later_one() -> None:
    """In a zone that turns its clocks back across midnight the phone and the server choose the same of the two."""
    back_at = utc_ms(2026, 11, 21, 21, 30)  # 00:30 at UTC+3 becomes 23:30 at UTC+2
    zone = ((0, 10_800), (back_at, 7_200))
    assert midnight_ms("2026-11-22", zone) == utc_ms(2026, 11, 21, 22)


def test_the_first_offset_serves_all_before_it() -> None:
    """A register older than the table still has a midnight."""
    assert midnight_ms("2020-01-05", ZONE) == utc_ms(2020, 1, 4, 21)


def test_zone_table_holds_each_switch_to_the_second() -> None:
    """The school year 2026/27 has three spans: summer, winter from 29 October 21:00 UTC, summer from 29 April 22:00."""
    assert [offset for _, offset in ZONE] == [10_800, 7_200, 10_800]
    assert [start for start, _ in ZONE][1:] == [utc_ms(2026, 10, 29, 21), utc_ms(2027, 4, 29, 22)]


@given(st.dates(), st.sampled_from(["Africa/Cairo", "America/Los_Angeles", "Pacific/Kiritimati"]))
@example(date(1, 1, 1), "Pacific/Kiritimati")
@example(date(9999, 12, 31), "America/Los_Angeles")
def test_every_date_has_its_table(day: date, zone_name: str) -> None:
    """The table is total: a date a broken clock made up must not stop anybody."""
    table = zone_table(day.isoformat(), day.isoformat(), zone_name)
    opens_ms = midnight_ms(day.isoformat(), table)
    assert table[0][0] <= opens_ms < midnight_ms(day.isoformat(), table, days_later=1)


def test_zone_table_refuses_dates_in_the_wrong_order() -> None:
    """An empty span is a mistake of the caller."""
    with pytest.raises(BadContext):
        zone_table("2027-01-01", "2026-01-01")


def test_a_right_clock_is_believed() -> None:
    """A frame that comes promptly from a phone with the right time: the tap happened when it said."""
    found = captured()
    assert found == Capture(at_ms=EIGHT, interval=(EIGHT, EIGHT), confidence=Confidence.MEDIUM, clock_flag=False)


def test_a_fast_clock_is_corrected_by_the_receipt() -> None:
    """Three hours fast: the tap cannot lie after its receipt, and the distance to the signing is kept; flagged."""
    found = captured(EIGHT_MS + 3 * HOUR, wall=EIGHT + MINUTE + 3 * HOUR)
    assert (found.at_ms, found.interval, found.clock_flag) == (EIGHT, (DAY.opens_ms - DAY_MS, EIGHT), True)
    assert found.confidence is Confidence.LOW


def test_a_slow_clock_and_a_slow_network_look_the_same() -> None:
    """Without a beacon every story stays possible, a fast clock too; the moment shown is the phone's word."""
    found = captured(received=EIGHT + MINUTE + 20 * HOUR)
    assert found.interval == (DAY.opens_ms - DAY_MS, EIGHT + 20 * HOUR)
    assert (found.at_ms, found.confidence, found.clock_flag) == (EIGHT, Confidence.LOW, False)


def test_what_an_earlier_frame_proved_of_the_clock_holds_for_one_without_a_beacon() -> None:
    """Two hours fast by yesterday's beacon, signed at ten by its clock, received the next day: at eight or later."""
    found = captured(EIGHT_MS + 2 * HOUR, wall=EIGHT + MINUTE + 2 * HOUR, received=EIGHT + 20 * HOUR, floor=-2 * HOUR)
    assert found.interval == (EIGHT - 5 * MINUTE, EIGHT + 20 * HOUR - MINUTE)
    assert not found.clock_flag


def test_a_clock_that_was_moved_since_its_last_beacon_is_not_believed() -> None:
    """The last beacon said right; this frame was received before its own clock's time: the old proof is void."""
    found = captured(EIGHT_MS + 2 * HOUR, wall=EIGHT + MINUTE + 2 * HOUR, received=EIGHT + MINUTE, floor=0)
    assert found.interval == (DAY.opens_ms - DAY_MS, EIGHT)


def test_a_register_of_tomorrow_is_not_read_as_made_when_it_came() -> None:
    """Marked at eight the morning before, received twenty hours later: nothing bounds it from below."""
    found = captured(EIGHT_MS - DAY_MS, received=EIGHT - 4 * HOUR, wall=EIGHT - DAY_MS + MINUTE)
    assert found.interval[0] <= EIGHT - DAY_MS
    assert found.at_ms == EIGHT - DAY_MS


def test_a_fast_clock_without_a_beacon_makes_no_adjustment_of_a_register_taken_in_time() -> None:
    """Seven hours fast, taken at eight, sent the next morning: after the window by its clock, yet a late arrival."""
    window = Window(opens_ms=DAY.opens_ms, closes_ms=DAY.opens_ms + 14 * HOUR)
    received = EIGHT + 24 * HOUR
    found = captured(EIGHT_MS + 7 * HOUR, wall=EIGHT + MINUTE + 7 * HOUR, received=received)
    assert found.at_ms >= window.closes_ms
    assert timeliness(found, received, window) is Timeliness.LATE_ARRIVAL


def test_a_beacon_tells_a_slow_clock_from_a_slow_network() -> None:
    """The phone heard the server nine minutes before it signed: its clock is two hours slow, and that is corrected."""
    found = captured(
        EIGHT_MS - 2 * HOUR,
        wall=EIGHT + MINUTE - 2 * HOUR,
        beacon=(EIGHT + MINUTE - 9 * MINUTE, MINUTE),
    )
    assert found == Capture(at_ms=EIGHT, interval=(EIGHT, EIGHT), confidence=Confidence.HIGH, clock_flag=False)


def test_a_beacon_bounds_a_mark_that_waited_for_a_network() -> None:
    """Signed at 08:01 by server time, received twenty hours later: made at 08:00 at the earliest, and shown so."""
    found = captured(received=EIGHT + MINUTE + 20 * HOUR, beacon=(EIGHT - 8 * MINUTE, MINUTE))
    assert found.interval == (EIGHT, EIGHT + 20 * HOUR)
    assert found.at_ms == EIGHT


def test_a_beacon_of_another_app_session_is_less_sure() -> None:
    """The clock may have been moved between the tap's app session and the frame's."""
    found = captured(beacon=(EIGHT - 8 * MINUTE, MINUTE), session=b"another!")
    assert found.confidence is Confidence.MEDIUM


@pytest.mark.parametrize(
    "beacon",
    [
        (EIGHT - 8 * MINUTE, 11 * MINUTE),  # it came after the frame was signed
        (EIGHT + HOUR, MINUTE),  # it tells a time the server had not reached
    ],
)
def test_a_beacon_that_cannot_be_true_is_ignored(beacon: tuple[int, int]) -> None:
    """Evidence that contradicts itself proves nothing; the mark is read as without it."""
    assert captured(beacon=beacon) == captured()


def test_a_beacon_from_long_ago_does_not_reach_before_the_register() -> None:
    """The earliest moment is never more than a day before the register or its receipt."""
    assert captured(beacon=(0, MINUTE)).interval == (DAY.opens_ms - DAY_MS, EIGHT)


def test_a_tap_after_its_own_signing_is_flagged_and_bounded_by_the_receipt() -> None:
    """The clock was turned back between the tap and the frame: only the receipt is left, and the mark counts."""
    found = captured(EIGHT_MS + 3 * HOUR, wall=EIGHT + MINUTE)
    assert found.clock_flag
    assert found.interval == (DAY.opens_ms, EIGHT + MINUTE)
    assert found.at_ms == EIGHT + MINUTE
    assert found.confidence is Confidence.LOW


def test_a_tap_a_little_after_its_signing_still_comes_before_its_receipt() -> None:
    """Two minutes the wrong way round are within tolerance; the receipt stays the last possible moment."""
    found = captured(EIGHT_MS + 3 * MINUTE)
    assert (found.at_ms, found.interval) == (EIGHT + MINUTE, (EIGHT + MINUTE, EIGHT + MINUTE))
    assert not found.clock_flag


def test_a_clock_turned_forward_after_the_tap_is_flagged() -> None:
    """The frame says that the tap is years old: it cannot be older than its register."""
    found = captured(wall=EIGHT + 4_000 * DAY_MS)
    assert (found.clock_flag, found.interval) == (True, (DAY.opens_ms, EIGHT + MINUTE))


def test_a_phone_that_believes_it_is_1970_is_corrected() -> None:
    """An empty battery reset the clock: the distance from tap to signing still tells when it was."""
    found = captured(-DAY.opens_ms + HOUR, wall=HOUR + MINUTE)
    assert found == Capture(at_ms=EIGHT, interval=(DAY.opens_ms, EIGHT), confidence=Confidence.LOW, clock_flag=True)


def test_a_phone_that_believes_it_is_1970_and_heard_the_server_is_exact() -> None:
    """With a beacon even that clock gives a sharp interval; the flag stays."""
    found = captured(-DAY.opens_ms + HOUR, wall=HOUR + MINUTE, beacon=(EIGHT - 8 * MINUTE, MINUTE))
    assert (found.at_ms, found.interval, found.clock_flag) == (EIGHT, (EIGHT, EIGHT), True)
    assert found.confidence is Confidence.HIGH


def test_a_register_marked_the_evening_before_is_read_as_it_was() -> None:
    """Made and received before its day: in the interval, no flag."""
    evening = DAY.opens_ms - 4 * HOUR
    found = captured(-4 * HOUR, received=evening + MINUTE, wall=evening + MINUTE)
    assert (found.at_ms, found.clock_flag) == (evening, False)
