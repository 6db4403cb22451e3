"""Who may mark what, when: every way in which a change is held or counts."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reconciliation.clocks import DAY_MS
from reconciliation.decisions import Decisions, Release
from reconciliation.model import Capture, Confidence, Right
from reconciliation.scope import held_because
from tests.support.histories import DAY, EIGHT_MS, Phone, context, receipt

HOUR = 3_600_000
PHONE = Phone(label="a", user="amal")
CHANGE = PHONE.mark({"s1": "P28800000"})
EIGHT = DAY.opens_ms + EIGHT_MS


def verdict(
    *rights: Right,
    captured: tuple[int, ...] = (EIGHT,),
    received: int = EIGHT + HOUR,
    phone: Phone = PHONE,
    **around: int,
) -> str | None:
    captures = [Capture(at_ms=at, interval=(at, at), confidence=Confidence.MEDIUM, clock_flag=False) for at in captured]
    surroundings = context(
        entitled={"amal": rights} if rights else {},
        revoked_devices={PHONE.device: around["device_revoked"]} if around else {},
    )
    return held_because(receipt(CHANGE, phone, received_at_ms=received), captures, DAY, surroundings)


@pytest.mark.parametrize(
    ("right", "expected"),
    [
        (Right(from_ms=0), None),
        (Right(from_ms=EIGHT), None),
        (Right(from_ms=EIGHT + 1), "out-of-scope"),
        (Right(from_ms=0, until_ms=EIGHT + 1), None),
        (Right(from_ms=0, until_ms=EIGHT), "out-of-scope"),  # a substitution that ended before the tap
        (Right(from_ms=0, until_ms=DAY.opens_ms), "out-of-scope"),
        (Right(from_ms=DAY.closes_ms), "out-of-scope"),
        (Right(from_ms=0, until_ms=EIGHT + 2 * HOUR, revoked=True), None),  # it had arrived before the revocation
        (Right(from_ms=0, until_ms=EIGHT + HOUR, revoked=True), "revoked"),  # made before, arrived after
        (Right(from_ms=0, until_ms=EIGHT - HOUR, revoked=True), "revoked"),
        (Right(from_ms=0, until_ms=DAY.opens_ms - DAY_MS, revoked=True), "revoked"),
        (Right(from_ms=0, revoked=True), None),
    ],
)
def test_one_right(right: Right, expected: str | None) -> None:
    """A mark counts inside a right; an ordinary end asks when it was made, a revocation when it arrived."""
    assert verdict(right) == expected


def test_nobody_unknown_counts() -> None:
    """A user without any right for the class is out of scope."""
    assert verdict() == "out-of-scope"


def test_a_substitution_that_ran_out_counts_however_late_it_arrives() -> None:
    """Marked inside it, received a week later."""
    assert verdict(Right(from_ms=0, until_ms=EIGHT + 1, delegation="d1"), received=EIGHT + 7 * DAY_MS) is None


def test_doubt_about_the_moment_speaks_for_the_author() -> None:
    """An interval that touches the right is enough."""
    wide = Capture(at_ms=EIGHT, interval=(EIGHT - HOUR, EIGHT), confidence=Confidence.LOW, clock_flag=False)
    surroundings = context(entitled={"amal": (Right(from_ms=0, until_ms=EIGHT - HOUR + 1),)})
    assert held_because(receipt(CHANGE, PHONE), [wide], DAY, surroundings) is None


def test_one_mark_outside_holds_the_change() -> None:
    """A change counts as a whole or not at all."""
    assert verdict(Right(from_ms=0, until_ms=EIGHT + 1), captured=(EIGHT, EIGHT + HOUR)) == "out-of-scope"


def test_each_mark_may_lie_in_another_right() -> None:
    """Two rights that meet cover a sitting across the border between them."""
    rights = (Right(from_ms=0, until_ms=EIGHT + 1), Right(from_ms=EIGHT + 1))
    assert verdict(*rights, captured=(EIGHT, EIGHT + HOUR)) is None


def test_a_new_right_after_a_revocation_counts() -> None:
    """Un-revoking is a new right; it releases what was held."""
    assert verdict(Right(from_ms=0, until_ms=EIGHT - HOUR, revoked=True), Right(from_ms=EIGHT - HOUR)) is None


def test_a_stolen_phone_is_held_from_its_revocation_on() -> None:
    """What the device had brought before stays; its owner's other phone goes on."""
    right = Right(from_ms=0)
    assert verdict(right, device_revoked=EIGHT + HOUR) == "revoked"
    assert verdict(right, device_revoked=EIGHT + HOUR + 1) is None
    assert verdict(right, phone=Phone(label="b", user="amal"), device_revoked=0) is None


def released(by: str, *, change: bytes = CHANGE.hash, rights: tuple[Right, ...] = ()) -> str | None:
    """The verdict on amal's change when somebody has released one."""
    release = Release(change_hash=change, by=by, reason="known to me", at_ms=EIGHT)
    around = replace(
        context(entitled={"amal": rights}, revoked_devices={PHONE.device: 0}),
        decisions=Decisions(releases={change: release}),
    )
    capture = Capture(at_ms=EIGHT, interval=(EIGHT, EIGHT), confidence=Confidence.MEDIUM, clock_flag=False)
    return held_because(receipt(CHANGE, PHONE), [capture], DAY, around)


def test_a_release_by_another_person_sets_the_missing_right_aside() -> None:
    """Neither a right nor a living device is asked for then; what it names alone is released."""
    assert released("basma") is None
    assert released("token:ministry") is None
    assert released("basma", change=bytes(32)) == "revoked"


def test_nobody_releases_their_own() -> None:
    """A release in the author's own name counts for nothing, even if it stands in the store."""
    assert released("amal") == "revoked"


_SPANS = st.lists(
    st.builds(
        Right,
        from_ms=st.integers(EIGHT - 4, EIGHT + 4),
        until_ms=st.none() | st.integers(EIGHT - 4, EIGHT + 8),
        delegation=st.none() | st.just("d1"),
    ),
    max_size=4,
)
_MOMENTS = st.lists(st.integers(EIGHT - 6, EIGHT + 6), min_size=1, max_size=3)


@given(rights=_SPANS, more=_SPANS, captured=_MOMENTS, received=st.integers(EIGHT + 6, EIGHT + DAY_MS))
@settings(max_examples=300, derandomize=True, deadline=None)
def test_a_further_right_never_holds_what_counted(
    rights: list[Right], more: list[Right], captured: list[int], received: int
) -> None:
    """A delegation only ever adds, whenever it is made and the marks come; each mark needs a span of its own."""
    alone = verdict(*rights, captured=tuple(captured), received=received)
    both = verdict(*rights, *more, captured=tuple(captured), received=received)
    assert alone is not None or both is None
    inside = all(
        any(r.from_ms <= at and (r.until_ms is None or at < r.until_ms) for r in (*rights, *more)) for at in captured
    )
    assert (both is None) == inside
