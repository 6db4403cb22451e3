"""Paper: what people typed, and what of it counts."""

from __future__ import annotations

import pytest

from clientcore.register import Code
from reconciliation.errors import BadContext
from reconciliation.paper import FAMILIES, Document, Family, SheetState, read_sheet
from tests.support.school_weeks import entry

SHEET = Document.PERIOD_SHEET


def state(*entries, two_person: bool = False):  # type: ignore[no-untyped-def]
    """The state, what counts, and the differences."""
    found = read_sheet(entries, SHEET, two_person=two_person)
    assert found is not None
    return found.state, dict(found.marks), found.differences


def test_a_sheet_names_only_who_was_absent_or_late() -> None:
    """A sheet with *present* on it is a mistake of the caller."""
    with pytest.raises(BadContext):
        entry(1, {"s001": "P"})


def test_every_code_belongs_to_one_family() -> None:
    """The table is total: no code of a register is left without a place in the comparison."""
    assert set(FAMILIES) == set(Code)
    assert [FAMILIES[code] for code in (Code.OFFICIAL_DUTY, Code.LATE, Code.SUSPENDED)] == [
        Family.PRESENT,
        Family.LATE,
        Family.ABSENT,
    ]


def test_a_later_entry_of_the_same_person_replaces_the_earlier_one_and_both_stay() -> None:
    """Who mistyped types again; the last word is theirs."""
    first, second = entry(1, {"s001": "A"}), entry(2, {"s002": "L"})
    assert state(first, second) == (SheetState.COUNTS, {"s002": Code.LATE}, ())


def test_only_the_document_that_is_compared_counts() -> None:
    """What was typed from the class book says nothing of the period sheet."""
    book = entry(1, {"s001": "A"}, document=Document.CLASS_BOOK)
    assert read_sheet([book], SHEET, two_person=False) is None
    assert read_sheet([book], Document.CLASS_BOOK, two_person=False) is not None


def test_two_people_must_have_typed_the_same_where_two_are_asked_for() -> None:
    """One person twice is one person."""
    mine, again, hers = entry(1, {"s001": "A"}), entry(2, {"s001": "A"}), entry(3, {"s001": "E"}, by="user:t2")
    assert state(mine, again, two_person=True) == (SheetState.SECOND_MISSING, {}, ())
    assert state(mine, again, hers, two_person=True)[:2] == (SheetState.COUNTS, {"s001": Code.ABSENT_EXCUSED})


@pytest.mark.parametrize("two_person", [False, True])
def test_while_people_read_different_things_nothing_counts_and_a_third_look_decides(two_person: bool) -> None:
    """The differences name the pupils; the third entry gives one reading the majority."""
    mine, hers = entry(1, {"s001": "A", "s002": "L"}), entry(2, {"s001": "A", "s003": "L"}, by="user:t2")
    assert state(mine, hers, two_person=two_person) == (SheetState.DIFFERENT, {}, ("s002", "s003"))
    third = entry(3, {"s001": "A", "s003": "L"}, by="user:t3")
    assert state(mine, hers, third, two_person=two_person) == (
        SheetState.COUNTS,
        {"s001": Code.ABSENT, "s003": Code.LATE},
        ("s002", "s003"),
    )


def test_a_sheet_on_which_nobody_was_absent_is_a_sheet() -> None:
    """Empty is something somebody said."""
    assert state(entry(1, {})) == (SheetState.COUNTS, {}, ())
