"""The interval of a capture against a world in which the true moment is known."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from clientcore.frame import ClockEvidence
from reconciliation.clocks import DAY_MS, TOLERANCE_MS, capture_reader
from reconciliation.model import Confidence
from tests.support.histories import DAY, Phone, receipt

RUN = settings(max_examples=200, derandomize=True, deadline=None, print_blob=True)
PHONE = Phone(label="a", user="amal")
CHANGE = PHONE.mark({"s1": "P1"})
MINUTE = 60_000


@RUN
@given(
    tapped_after=st.integers(0, DAY_MS - 1),
    signed_after=st.integers(0, 5 * DAY_MS),
    travelled=st.integers(0, 20 * DAY_MS),
    wrong_by=st.one_of(st.integers(-3 * 3_600_000, 3 * 3_600_000), st.integers(-(10**14), 10**14)),
    heard_before=st.integers(0, 10 * MINUTE),
    answer_took=st.integers(0, 90_000),
    with_beacon=st.booleans(),
    heard_lately=st.booleans(),
)
def test_the_true_moment_lies_in_the_interval(
    tapped_after: int,
    signed_after: int,
    travelled: int,
    wrong_by: int,
    heard_before: int,
    answer_took: int,
    with_beacon: bool,
    heard_lately: bool,
) -> None:
    """A clock that is wrong but not moved: the interval holds.

    One coincidence is believed, of a phone that was never heard with a beacon: fast by just as much as it was late.
    """
    tapped = DAY.opens_ms + tapped_after
    signed = tapped + signed_after
    received = signed + travelled
    clock = ClockEvidence(
        wall_ms=signed + wrong_by,
        mono_ms=20 * MINUTE,
        session=PHONE.nonce,
        beacon=(signed - heard_before - answer_took, 20 * MINUTE - heard_before) if with_beacon else None,
    )
    read = capture_reader(
        replace(
            receipt(CHANGE, PHONE, received_at_ms=received, clock=clock),
            offset_floor_ms=-wrong_by - answer_took if heard_lately else None,
        ),
        actor=PHONE.actor,
        midnight=DAY.opens_ms,
        window=DAY,
    )
    found = read(tapped + wrong_by - DAY.opens_ms)
    earliest, latest = found.interval
    assert tapped <= latest <= received
    if with_beacon or heard_lately or abs(travelled - wrong_by) > TOLERANCE_MS:
        assert earliest <= tapped
    if with_beacon and travelled <= 2 * MINUTE:
        assert found.confidence is Confidence.HIGH
        assert abs(found.at_ms - tapped) <= travelled + answer_took


@RUN
@given(
    ms=st.one_of(st.integers(-DAY_MS, 3 * DAY_MS), st.integers(-(10**13), 10**13)),
    wall=st.one_of(st.integers(-10 * MINUTE, 10 * MINUTE), st.integers(-(1 << 63), 1 << 64)),
    mono_ms=st.integers(0, 1 << 63),
    beacon=st.one_of(st.none(), st.tuples(st.integers(-(1 << 63), 1 << 64), st.integers(-(1 << 63), 1 << 64))),
    received_after=st.integers(-(10**12), 10**12),
)
def test_no_evidence_reaches_outside_the_bounds(
    ms: int, wall: int, mono_ms: int, beacon: tuple[int, int] | None, received_after: int
) -> None:
    """Whatever a phone claims: the moment lies inside the interval, after the floor and not after the receipt."""
    received = DAY.opens_ms + received_after
    wall_ms = wall if abs(wall) > DAY_MS else DAY.opens_ms + ms + wall
    clock = ClockEvidence(wall_ms=wall_ms, mono_ms=mono_ms, session=PHONE.nonce, beacon=beacon)
    read = capture_reader(
        receipt(CHANGE, PHONE, received_at_ms=received, clock=clock),
        actor=PHONE.actor,
        midnight=DAY.opens_ms,
        window=DAY,
    )
    found = read(ms)
    earliest, latest = found.interval
    assert max(0, min(DAY.opens_ms, received) - DAY_MS) <= earliest <= found.at_ms <= latest <= received
