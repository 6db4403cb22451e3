"""Counts of registers, where a register stands, shares: exact, additive, and no absence out of silence."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clientcore.history import merge
from clientcore.register import Code, RegisterId
from reconciliation.calendar import SchoolCalendar, SessionTime, Timetable
from reconciliation.clocks import midnight_ms
from reconciliation.model import Occasion, first_receipts
from reconciliation.reconcile import reconcile
from reconciliation.reports import (
    ABSENT,
    ATTENDED,
    CODE_WORDS,
    COUNTS,
    Contact,
    Line,
    Standing,
    Summary,
    begins_ms,
    count,
    lines,
    share,
    shares,
    standing,
    summary_of,
)
from reconciliation.sheets import plain_sheet_code, sheet_code
from tests.support.histories import DAY, REGISTER, ZONE, Phone, context, play, receipt, steps, story_context

CALENDAR = SchoolCalendar(zone=ZONE)
KEY = ("c-3a", "2026-11-22", "day")
BEGINS = midnight_ms("2026-11-22", ZONE)
LATER = BEGINS + 40 * 3_600_000
PUPILS = frozenset(("s1", "s2", "s3"))


def settle(*sent: tuple[object, Phone], received_at_ms: int = DAY.opens_ms + 29_000_000) -> Summary:
    receipts = first_receipts(receipt(c, p, offset=i, received_at_ms=received_at_ms) for i, (c, p) in enumerate(sent))  # type: ignore[arg-type]
    return summary_of(reconcile(REGISTER, merge(c for c, _ in sent), receipts, context()))  # type: ignore[misc]


def one(summary: Summary | None = None, *, arrived: bool = False, contacts: tuple[Contact, ...] = ()) -> Standing:
    return standing(summary, arrived=arrived, contacts=contacts, begins_ms=BEGINS, now_ms=LATER)


# ---- summaries --------------------------------------------------------------------------------------------------


def test_a_summary_counts_answers_by_code_and_the_rest_as_not_taken() -> None:
    amal = Phone(label="phone 1", user="amal")
    found = settle((amal.mark({"s1": "P28800000", "s2": "A28801500"}), amal))
    assert (found.key, found.roster, found.codes, found.not_taken) == (KEY, 3, {"present": 1, "absent": 1}, 1)
    assert (found.first_captured_ms, found.last_captured_ms) == (DAY.opens_ms + 28_800_000, DAY.opens_ms + 28_801_500)


def test_a_summary_tells_late_arrivals_disputes_and_what_waits() -> None:
    amal, basma = Phone(label="phone 1", user="amal"), Phone(label="phone 2", user="basma")
    taken, other = amal.mark({"s1": "P28800000", "s2": "A28801500"}), basma.mark({"s2": "P28860000"})
    assert settle((taken, amal), (other, basma)).disputed == 1
    two_days = DAY.opens_ms + 57 * 3_600_000
    assert settle((taken, amal), received_at_ms=two_days).late_arrivals == 2
    tuesday = Phone(label="phone 3", user="amal").mark({"s1": f"A{28_800_000 + 48 * 3_600_000}"})
    found = settle((tuesday, amal), received_at_ms=two_days)
    assert (found.waiting, found.held, found.not_taken, dict(found.codes)) == (1, 1, 3, {})


def test_no_session_has_no_answers() -> None:
    amal = Phone(label="phone 1", user="amal")
    taken = amal.mark({"s1": "A28800000"})
    found = settle((taken, amal), (amal.mark({"~session": "N30000000:strike"}), amal))
    assert (found.occasion, dict(found.codes), found.not_taken) == (Occasion.NO_SESSION, {}, 3)


@given(steps())
@settings(max_examples=150, deadline=None, derandomize=True)
def test_no_summary_counts_an_absence_that_no_mark_made(story: list[object]) -> None:
    """Of any story: as many absences as answers whose own mark, by somebody entitled, says so."""
    played = play(story)  # type: ignore[arg-type]
    outcome = reconcile(REGISTER, merge(played.changes), first_receipts(played.receipts), story_context())
    found = summary_of(outcome)
    marked = [a for a in outcome.answers.values() if a.mark is not None and a.mark.value[0] in "AEU"]
    assert sum(found.codes.get(word, 0) for word in ABSENT) == len(marked)
    assert sum(found.codes.values()) + found.not_taken == found.roster == len(outcome.answers)


# ---- standings --------------------------------------------------------------------------------------------------


def test_a_missing_register_is_told_apart_by_what_its_phones_said() -> None:
    """Unsent work told since: not arrived. Nobody heard since: silent. Heard, and nothing unsent: not taken."""
    before, after = BEGINS - 1, BEGINS
    assert one() is Standing.NOT_TAKEN  # no phone at all: it was not taken on one
    assert one(contacts=(Contact(last_ms=before, unsent=3),)) is Standing.SILENT
    assert one(contacts=(Contact(last_ms=None, unsent=0),)) is Standing.SILENT
    assert one(contacts=(Contact(last_ms=after, unsent=1),)) is Standing.NOT_ARRIVED
    assert one(contacts=(Contact(last_ms=after, unsent=0),)) is Standing.NOT_TAKEN
    heard, silent = Contact(last_ms=after, unsent=0), Contact(last_ms=before, unsent=0)
    assert one(contacts=(silent, heard)) is Standing.NOT_TAKEN
    assert one(contacts=(silent, Contact(last_ms=after, unsent=2))) is Standing.NOT_ARRIVED


def test_what_arrived_is_in_review_whatever_the_phones_said() -> None:
    held = Summary(key=KEY, roster=3, codes={}, not_taken=3, held=2)
    assert one(held, contacts=(Contact(last_ms=None, unsent=0),)) is Standing.IN_REVIEW
    assert one(arrived=True) is Standing.IN_REVIEW


def test_a_session_that_has_not_begun_is_not_due() -> None:
    """Nine o'clock's lesson is not missing at eight; what a phone said at eight says nothing of it."""
    lessons = (
        SessionTime(session="am1", starts_min=480, ends_min=525),
        SessionTime(session="am2", starts_min=540, ends_min=585),
    )
    table = Timetable(kind="regular", from_date="2026-09-01", until_date="2027-06-01", sessions=lessons)
    calendar = SchoolCalendar(zone=ZONE, sessions=("am1", "am2"), timetables=(table,))
    assert begins_ms(calendar, "2026-11-22", "am2") == BEGINS + 9 * 3_600_000
    expected = {("c-3a", "2026-11-22", name): PUPILS for name in ("am1", "am2")}
    contacts = {"c-3a": [Contact(last_ms=BEGINS + 8 * 3_600_000, unsent=0)]}

    def at(hour: int) -> list[Standing]:
        found = lines(
            expected, {}, arrived=(), contacts=contacts, calendar=calendar, now_ms=BEGINS + hour * 3_600_000 + 60_000
        )
        return [line.standing for line in found]

    assert at(7) == [Standing.NOT_DUE, Standing.NOT_DUE]
    assert at(8) == [Standing.NOT_TAKEN, Standing.NOT_DUE]
    assert at(9) == [Standing.NOT_TAKEN, Standing.SILENT]


def test_marks_of_a_day_that_is_not_expected_are_in_no_count_of_pupils() -> None:
    amal = Phone(label="phone 1", user="amal")
    taken = settle((amal.mark({"s1": "A28800000"}), amal))
    found = count(lines({}, {KEY: taken}, arrived=(), contacts={}, calendar=CALENDAR, now_ms=LATER))
    assert {name: n for name, n in found.items() if n} == {"registers_unexpected": 1}


# ---- counts and shares ------------------------------------------------------------------------------------------

SUMMARIES = st.builds(
    lambda codes, rest, extra: Summary(
        key=KEY, roster=sum(codes.values()) + rest, codes={w: n for w, n in codes.items() if n}, not_taken=rest,
        late_arrivals=extra, held=extra,
    ),
    st.fixed_dictionaries({word: st.integers(0, 3) for word in CODE_WORDS}), st.integers(0, 5), st.integers(0, 2),
)  # fmt: skip
LINES = st.builds(
    lambda where, roster: Line(key=KEY, standing=where, roster=roster),
    st.sampled_from([Standing.NOT_TAKEN, Standing.SILENT, Standing.NOT_ARRIVED, Standing.NOT_DUE]), st.integers(1, 40),
) | st.builds(
    lambda where, summary: Line(key=KEY, standing=where, roster=summary.roster, summary=summary),
    st.sampled_from([Standing.TAKEN, Standing.UNEXPECTED]), SUMMARIES,
)  # fmt: skip


@given(st.lists(LINES, max_size=8), st.lists(LINES, max_size=8))
@settings(max_examples=150, deadline=None, derandomize=True)
def test_counts_add_up_and_every_pupil_is_somewhere_once(some: list[Line], others: list[Line]) -> None:
    found, rest, all_of_them = count(some), count(others), count([*some, *others])
    assert {name: found[name] + rest[name] for name in COUNTS} == all_of_them
    assert (
        all_of_them["attended"] + all_of_them["absent_all"] + all_of_them["suspended"] + all_of_them["not_taken"]
        == all_of_them["roster"]
    )
    parts = ("no_mark", "in_review", "not_arrived", "silent")
    assert sum(all_of_them[f"not_taken_{part}"] for part in parts) == all_of_them["not_taken"]
    assert {*ATTENDED, *ABSENT, "suspended"} == {code.word for code in Code}


@given(st.lists(LINES, max_size=8))
@settings(max_examples=100, deadline=None, derandomize=True)
def test_silence_makes_no_absence(some: list[Line]) -> None:
    """Whatever is missing: absences are those of the taken registers."""
    taken = [line for line in some if line.standing is Standing.TAKEN]
    assert count(some)["absent_all"] == count(taken)["absent_all"]


@given(st.integers(0, 5_000), st.integers(1, 5_000))
@settings(max_examples=300, deadline=None, derandomize=True)
def test_a_share_is_near_and_whole_only_where_it_is(part: int, whole: int) -> None:
    part = min(part, whole)
    found = share(part, whole)
    assert found is not None
    assert abs(Fraction(str(found)) - Fraction(100 * part, whole)) <= Fraction(1, 10)
    assert (found == 0, found == 100) == (part == 0, part == whole)


def test_where_nobody_was_marked_only_not_taken_has_a_share() -> None:
    """Nought percent attended would be said of pupils nobody looked at."""
    silent = count([Line(key=KEY, standing=Standing.SILENT, roster=40)])
    assert shares(silent) == {
        "attended_pct": None, "absent_pct": None, "suspended_pct": None, "not_taken_pct": 100.0
    }  # fmt: skip
    assert set(shares(count([])).values()) == {None}
    assert share(1, 8) == 12.5
    assert share(1, 16) == 6.3  # 6.25: half up


# ---- sheet codes ------------------------------------------------------------------------------------------------


def test_a_sheet_code_is_short_stable_and_typed_in_any_way() -> None:
    code = sheet_code(REGISTER)
    assert code == sheet_code(RegisterId.parse(str(REGISTER)))
    assert len(code) == 7
    assert plain_sheet_code(f" {code.lower().replace('-', ' ')}") == code
    many = {
        sheet_code(RegisterId("eg-07-113", f"c-{n}", f"2026-11-{d:02d}", "day"))
        for n in range(40)
        for d in range(1, 31)
    }
    assert len(many) == 1_200


@pytest.mark.parametrize("typed", ["", "a", "!!!!", "ABCDEFGHIJKLMN"])
def test_a_mistyped_code_is_no_fault(typed: str) -> None:
    assert plain_sheet_code(typed) != sheet_code(REGISTER)
