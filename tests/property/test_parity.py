"""Parity and gate over generated schools: functions of a set, exact, and not to be helped by leaving things out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from fractions import Fraction

from hypothesis import given, settings
from hypothesis import strategies as st

from clientcore.register import Code
from reconciliation.anomalies import Kind, Sign, examine
from reconciliation.gate import WEEKS_NEEDED, gate
from reconciliation.paper import Document, Entry, Family, Sheet, SheetState, read_sheet
from reconciliation.parity import (
    COVERAGE_MIN,
    EXCLUDED_MAX,
    PASS_FROM,
    Digital,
    Key,
    Status,
    WeekParity,
    weigh,
)
from tests.support.school_weeks import WEEK, by_hand, days, marks, outcome, register, taken, verdict, weeks

pure = settings(derandomize=True, deadline=None, max_examples=200)

PUPILS = ("s1", "s2", "s3")
KEYS: tuple[Key, ...] = tuple((f"c-{n}", days()[0], "day") for n in range(12))
FLAG = Sign(kind=Kind.COPIED_PATTERN, score=Fraction(1), count=38, of=38)

codes = st.sampled_from((Code.ABSENT, Code.ABSENT_EXCUSED, Code.LATE))
papers = st.dictionaries(st.sampled_from(PUPILS), codes, max_size=2)
readings = st.sampled_from((None, Family.PRESENT, Family.PRESENT, Family.PRESENT, Family.LATE, Family.ABSENT))


@st.composite
def entries(draw: st.DrawFn) -> list[Entry]:
    """Several people's readings of one sheet."""
    return [
        Entry(
            id=number,
            document=draw(st.sampled_from(Document)),
            signed_by="t1",
            entered_by=draw(st.sampled_from(("a", "b", "c"))),
            marks=draw(papers),
            at_ms=number,
        )
        for number in range(draw(st.integers(0, 6)))
    ]


@st.composite
def school(draw: st.DrawFn) -> tuple[dict[Key, Digital], dict[Key, Sheet], set[Key]]:
    """Registers, their paper, and which of them are flagged. Mostly both records agree."""
    digital: dict[Key, Digital] = {}
    sheets: dict[Key, Sheet] = {}
    for key in KEYS:
        marks_on_paper: Mapping[str, Code] = draw(papers)
        agrees = draw(st.integers(0, 9)) > 0
        families = {pupil: _family(marks_on_paper.get(pupil)) if agrees else draw(readings) for pupil in PUPILS}
        if draw(st.integers(0, 19)):
            digital[key] = Digital(families=families, no_session=draw(st.integers(0, 19)) == 0)
        if draw(st.integers(0, 19)):
            sheets[key] = Sheet(state=SheetState.COUNTS, marks=marks_on_paper, entries=())
    flagged = draw(st.sets(st.sampled_from(KEYS), max_size=3))
    return digital, sheets, flagged


def _family(code: Code | None) -> Family:
    return Family.PRESENT if code is None else Family.LATE if code is Code.LATE else Family.ABSENT


def weighed(digital: Mapping[Key, Digital], sheets: Mapping[Key, Sheet], flagged: set[Key]) -> WeekParity:
    """The week."""
    return weigh(
        WEEK,
        document=Document.PERIOD_SHEET,
        open_days=5,
        expected=dict.fromkeys(KEYS, frozenset(PUPILS)),
        digital=digital,
        sheets=sheets,
        signs=dict.fromkeys(flagged, (FLAG,)),
    )


@pure
@given(entries(), st.randoms(use_true_random=False), st.booleans())
def test_the_order_of_entries_does_not_matter(some: list[Entry], chance, two_person: bool) -> None:  # type: ignore[no-untyped-def]
    """A sheet is a function of the set of entries."""
    shuffled = list(some)
    chance.shuffle(shuffled)
    for document in Document:
        assert read_sheet(some, document, two_person=two_person) == read_sheet(
            shuffled, document, two_person=two_person
        )


@pure
@given(entries())
def test_what_counts_for_two_people_counts_for_one_and_was_read_by_two(some: list[Entry]) -> None:
    """Asking for a second person never lets anything through that one person's word would not."""
    two = read_sheet(some, Document.PERIOD_SHEET, two_person=True)
    one = read_sheet(some, Document.PERIOD_SHEET, two_person=False)
    if two is not None and two.state is SheetState.COUNTS:
        assert one is not None
        assert (one.state, one.marks) == (SheetState.COUNTS, two.marks)
        families = {pupil: _family(code) for pupil, code in two.marks.items()}
        assert len({entry.entered_by for entry in two.entries if entry.families == families}) >= 2


@pure
@given(school())
def test_the_sums_are_those_of_a_plain_recount(made: tuple[dict[Key, Digital], dict[Key, Sheet], set[Key]]) -> None:
    """Cell by cell, by another road."""
    digital, sheets, flagged = made
    matched = compared = against = covered = expected = 0
    for key in KEYS:
        taken_, paper = digital.get(key), sheets.get(key)
        if paper is None:
            expected += not (taken_ is not None and taken_.no_session)
            continue
        expected += 1
        said = {} if taken_ is None or taken_.no_session else taken_.families
        agree = sum(said.get(pupil) is _family(paper.marks.get(pupil)) for pupil in PUPILS)
        is_taken = any(family is not None for family in said.values())
        covered += is_taken
        if is_taken and key in flagged:
            against += len(PUPILS) - agree
        else:
            matched, compared = matched + agree, compared + len(PUPILS)
    week = weighed(digital, sheets, flagged)
    assert (week.matched, week.compared, week.against) == (matched, compared, against)
    assert (week.covered, week.expected) == (covered, expected)
    passes = (
        compared + against > 0
        and covered >= COVERAGE_MIN * expected
        and week.excluded <= EXCLUDED_MAX * covered
        and matched >= PASS_FROM * (compared + against)
    )
    assert (week.status is Status.PASSED) == passes


@pure
@given(school(), st.sets(st.sampled_from(KEYS)))
def test_more_exclusions_never_help_to_pass(
    made: tuple[dict[Key, Digital], dict[Key, Sheet], set[Key]], more: set[Key]
) -> None:
    """Whatever else is flagged: a week that did not pass does not pass by it, and its rate does not rise."""
    digital, sheets, flagged = made
    fewer, many = weighed(digital, sheets, flagged), weighed(digital, sheets, flagged | more)
    assert (many.status is Status.PASSED) <= (fewer.status is Status.PASSED)
    if many.guarded is not None:
        assert fewer.guarded is not None
        assert many.guarded <= fewer.guarded


@pure
@given(school(), st.sets(st.sampled_from(KEYS)))
def test_leaving_out_paper_never_raises_the_coverage(
    made: tuple[dict[Key, Digital], dict[Key, Sheet], set[Key]], gone: set[Key]
) -> None:
    """Sheets that are not typed are missed."""
    digital, sheets, flagged = made
    digital = {key: replace(one, no_session=False) for key, one in digital.items()}
    fewer = {key: one for key, one in sheets.items() if key not in gone}
    assert weighed(digital, fewer, flagged).coverage <= weighed(digital, sheets, flagged).coverage


statuses = st.lists(st.sampled_from(Status), max_size=14)


@pure
@given(statuses)
def test_the_gate_is_what_a_plain_reading_of_the_weeks_gives(some: list[Status]) -> None:
    """The first window of passed weeks, paused ones set aside."""
    names = weeks(len(some))
    counted = [(week, status) for week, status in zip(names, some, strict=True) if status is not Status.PAUSED]
    expected = None
    for at in range(WEEKS_NEEDED, len(counted) + 1):
        if all(status is Status.PASSED for _, status in counted[at - WEEKS_NEEDED : at]):
            expected = counted[at - 1][0]
            break
    assert gate(verdict(week, status) for week, status in zip(names, some, strict=True)).fired_week == expected


@pure
@given(statuses, st.integers(0, 13), st.sampled_from((Status.FAILED, Status.NOT_EVALUABLE)))
def test_a_worse_week_never_fires_a_gate_earlier(some: list[Status], at: int, worse: Status) -> None:
    """Passed turned into failed or unevaluable can only delay."""
    if at >= len(some) or some[at] is not Status.PASSED:
        return
    names = weeks(len(some))

    def fires(statuses: list[Status]) -> str | None:
        return gate(verdict(week, status) for week, status in zip(names, statuses, strict=True)).fired_week

    before, after = fires(some), fires([*some[:at], worse, *some[at + 1 :]])
    assert after is None or (before is not None and before <= after)


@settings(derandomize=True, deadline=None, max_examples=25)
@given(st.permutations(range(4)), st.booleans())
def test_signs_depend_on_the_set_of_registers_only(order: list[int], copied: bool) -> None:
    """In whatever order the registers of a week are read."""
    stamps = [by_hand(1 if copied and n == 2 else n) for n in range(4)]
    week = [taken(outcome(register(days()[n]), marks(stamps[n]))) for n in range(4)]
    found = examine([week[n] for n in order])
    assert found == examine(week)
    assert set(found) == ({register(days()[2])} if copied else set())
