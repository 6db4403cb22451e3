"""Who may let whom stand in, for how long: every rule, its limit, and that a refusal is of use."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reconciliation.calendar import DayRule, SchoolCalendar
from reconciliation.clocks import DAY_MS, midnight_ms
from reconciliation.delegation import (
    AHEAD_DAYS_MAX,
    DAYS_MAX,
    SCHOOL_DAYS_MAX,
    Refusal,
    Wish,
    covers,
    dates_of,
    list_dates,
    refuse,
    school_days,
)
from reconciliation.model import Right
from tests.support.histories import ZONE

HOUR = 3_600_000
SUNDAY = "2026-11-22"
CALENDAR = SchoolCalendar(zone=ZONE)
ALWAYS = (Right(from_ms=0),)


def at(day: str, hour: int = 0) -> int:
    """A moment of the school's clock."""
    return midnight_ms(day, ZONE) + hour * HOUR


def asked(
    first: int = at(SUNDAY, 8),
    until: int = at(SUNDAY, 11),
    *,
    by: str = "amal",
    to: str = "basma",
    classes: tuple[str, ...] = ("c-3a",),
    now: int = at(SUNDAY, 7),
    rights: Sequence[Right] = ALWAYS,
    staff: Sequence[Right] = ALWAYS,
    calendar: SchoolCalendar = CALENDAR,
) -> Refusal | None:
    wish = Wish(by=by, to=to, classes=classes, from_ms=first, until_ms=until)
    return refuse(wish, now_ms=now, calendar=calendar, rights={"c-3a": rights}, delegate_spans=staff)


def rule(found: Refusal | None) -> str | None:
    return None if found is None else found.rule


def test_a_morning_is_lent_in_one_step() -> None:
    """Whoever has the class lets a colleague of the school take it; nothing else is asked."""
    assert asked() is None


def test_nobody_stands_in_for_themselves() -> None:
    """It would only stretch one's own right."""
    assert rule(asked(to="amal")) == "delegation-self"


@pytest.mark.parametrize(
    ("staff", "expected"),
    [
        ((), "delegation-delegate"),
        ((Right(from_ms=at(SUNDAY, 9)),), "delegation-delegate"),
        ((Right(from_ms=0, until_ms=at(SUNDAY, 10)),), "delegation-delegate"),
        ((Right(from_ms=0, until_ms=at(SUNDAY, 11)),), None),
    ],
)
def test_who_stands_in_is_staff_for_the_whole_span(staff: Sequence[Right], expected: str | None) -> None:
    """Nobody from outside, nobody who leaves in the middle of it."""
    assert rule(asked(staff=staff)) == expected


@pytest.mark.parametrize(
    ("first", "last", "expected"),
    [
        ("2026-11-22", "2026-11-26", None),  # Sunday to Thursday
        ("2026-11-22", "2026-11-28", None),  # the weekend costs nothing
        ("2026-11-22", "2026-11-29", "delegation-length"),  # a sixth school day
        ("2026-11-24", "2026-11-30", None),  # five school days across a weekend
        ("2026-11-24", "2026-12-01", "delegation-length"),
    ],
)
def test_at_most_five_school_days(first: str, last: str, expected: str | None) -> None:
    """Counted by the school's calendar, weekends left out."""
    assert rule(asked(at(first), at(last, 24))) == expected


def test_a_holiday_is_no_school_day() -> None:
    """Six weekdays with a holiday among them are five school days."""
    holiday = SchoolCalendar(zone=ZONE, days={"2026-11-23": DayRule(is_open=False, reason="holiday")})
    assert rule(asked(at(SUNDAY), at("2026-11-29", 24))) == "delegation-length"
    assert asked(at(SUNDAY), at("2026-11-29", 24), calendar=holiday) is None


def test_a_minute_of_a_day_is_a_school_day() -> None:
    """A span that only touches a sixth day is over the limit."""
    assert asked(at(SUNDAY, 8), at("2026-11-29")) is None
    assert rule(asked(at(SUNDAY, 8), at("2026-11-29") + 1)) == "delegation-length"


def test_a_long_holiday_does_not_stretch_a_delegation() -> None:
    """Five school days with a summer between them are not one absence."""
    summer = {
        (date(2026, 11, 23) + timedelta(days=n)).isoformat(): DayRule(is_open=False, reason="x") for n in range(90)
    }
    closed = SchoolCalendar(zone=ZONE, days=summer)
    assert asked(at(SUNDAY), at(SUNDAY) + DAYS_MAX * DAY_MS, calendar=closed) is None
    assert rule(asked(at(SUNDAY), at(SUNDAY) + DAYS_MAX * DAY_MS + 1, calendar=closed)) == "delegation-length"


@pytest.mark.parametrize("until", [at(SUNDAY, 8), at(SUNDAY, 7)])
def test_a_span_has_a_length(until: int) -> None:
    """It ends after it begins."""
    assert rule(asked(at(SUNDAY, 8), until)) == "delegation-span"


def test_it_may_be_made_after_the_marks() -> None:
    """For three working days a forgotten delegation can be made; the refusal then says since when, and who."""
    last = asked(now=at("2026-11-25", 24) - 1)
    late = asked(now=at("2026-11-25", 24))
    assert last is None
    assert late is not None
    assert (late.rule, late.closed_on) == ("delegation-late", "2026-11-25")
    assert "champion" in late.who


def test_it_may_be_made_some_weeks_ahead() -> None:
    """A planned absence; not next year's."""
    first = at(SUNDAY, 8)
    assert asked(now=first - AHEAD_DAYS_MAX * DAY_MS) is None
    assert rule(asked(now=first - AHEAD_DAYS_MAX * DAY_MS - 1)) == "delegation-ahead"


@pytest.mark.parametrize(
    ("rights", "expected"),
    [
        ((), "delegation-right"),
        ((Right(from_ms=at(SUNDAY, 9)),), "delegation-right"),
        ((Right(from_ms=0, until_ms=at(SUNDAY, 10)),), "delegation-right"),
        ((Right(from_ms=0, until_ms=at(SUNDAY, 9)), Right(from_ms=at(SUNDAY, 9))), None),
        ((Right(from_ms=0, until_ms=at(SUNDAY, 9)), Right(from_ms=at(SUNDAY, 9) + 1)), "delegation-right"),
        ((Right(from_ms=0, until_ms=at(SUNDAY, 24), delegation="d1"),), "delegation-depth"),
        ((Right(from_ms=0, until_ms=at(SUNDAY, 9)), Right(from_ms=0, delegation="d1")), "delegation-depth"),
        ((Right(from_ms=at(SUNDAY, 9), delegation="d1"),), "delegation-right"),
    ],
)
def test_only_a_post_for_the_whole_span_can_be_lent(rights: Sequence[Right], expected: str | None) -> None:
    """What one stands in for oneself is not passed on (depth 1); a hole in one's right is a hole."""
    assert rule(asked(rights=rights)) == expected


def test_every_class_is_asked_about() -> None:
    """One class without a right is enough."""
    found = asked(classes=("c-3a", "c-9z"))
    assert found is not None
    assert found.rule == "delegation-right"
    assert "c-9z" in found.detail


def test_a_span_of_ages_costs_nothing() -> None:
    """It is refused by arithmetic, not by counting its days."""
    assert rule(asked(0, 1 << 52)) == "delegation-length"


def test_the_list_is_there_before_and_gone_after() -> None:
    """Thursday's network brings the list for Sunday; the day after the last it is off the screen."""
    assert list_dates(at(SUNDAY, 8), at(SUNDAY, 11), CALENDAR) == ("2026-11-19", "2026-11-23")
    assert list_dates(at(SUNDAY), at("2026-11-24"), CALENDAR) == ("2026-11-19", "2026-11-24")


_DAYS = st.integers(min_value=-4, max_value=12)
_HOURS = st.integers(min_value=0, max_value=23)


@given(
    first=st.tuples(_DAYS, _HOURS),
    until=st.tuples(_DAYS, _HOURS),
    rights=st.lists(st.tuples(_DAYS, st.none() | _DAYS, st.booleans()), max_size=3),
    now=_DAYS,
)
@settings(max_examples=300, derandomize=True, deadline=None)
def test_what_is_granted_keeps_every_limit(
    first: tuple[int, int], until: tuple[int, int], rights: list[tuple[int, int | None, bool]], now: int
) -> None:
    """Whatever is asked: a granted span is short, covered at each hour by a post, and every refusal can be acted on."""

    def moment(days: int, hours: int = 0) -> int:
        return at(SUNDAY) + days * DAY_MS + hours * HOUR

    own = [
        Right(from_ms=moment(a), until_ms=None if b is None else moment(b), delegation="d1" if lent else None)
        for a, b, lent in rights
    ]
    wish = Wish(by="amal", to="basma", classes=("c-3a",), from_ms=moment(*first), until_ms=moment(*until))
    found = refuse(wish, now_ms=moment(now), calendar=CALENDAR, rights={"c-3a": own}, delegate_spans=ALWAYS)
    if found is not None:
        assert found.rule.startswith("delegation-")
        assert found.detail
        assert found.arabic
        assert found.who
        return
    assert wish.until_ms - wish.from_ms > 0
    assert school_days(wish, CALENDAR) <= SCHOOL_DAYS_MAX
    assert len(dates_of(wish.from_ms, wish.until_ms, CALENDAR)) <= DAYS_MAX
    for hour_ms in range(wish.from_ms, wish.until_ms, HOUR):
        assert any(
            one.delegation is None and one.from_ms <= hour_ms and (one.until_ms is None or hour_ms < one.until_ms)
            for one in own
        )


@given(st.lists(st.tuples(st.integers(0, 9), st.none() | st.integers(0, 9)), max_size=4), st.integers(0, 8))
@settings(max_examples=300, derandomize=True, deadline=None)
def test_covering_is_covering_every_moment(spans: list[tuple[int, int | None]], first: int) -> None:
    """Against the plain definition, moment by moment."""
    rights = [Right(from_ms=a, until_ms=b) for a, b in spans]
    plain = all(
        any(one.from_ms <= t and (one.until_ms is None or t < one.until_ms) for one in rights) for t in range(first, 9)
    )
    assert covers(rights, first, 9) == plain
