"""Duplicate records: what their marks say together, how merges are followed, and which names are alike."""

from __future__ import annotations

from dataclasses import replace

import pytest

from reconciliation.errors import BadContext
from reconciliation.identity import candidates, fold, follow, gather
from reconciliation.model import Capture, Confidence, Timeliness, VisibleMark
from tests.support.histories import DAY, context


def mark(value: str, user: str = "amal", change: str = "one") -> VisibleMark:
    captured = Capture(at_ms=0, interval=(0, 0), confidence=Confidence.LOW, clock_flag=False)
    return VisibleMark(
        value=value, user_id=user, change_hash=change.encode(), received_at_ms=DAY.opens_ms, captured=captured,
        timeliness=Timeliness.ON_TIME,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("own", "other", "code", "disputed"),
    [
        ([mark("P1")], [mark("A2")], "P", False),  # one sitting: the duplicate's row was called absent
        ([mark("A1")], [mark("P2")], "P", False),
        ([mark("A1")], [mark("E2:sick", "basma", "two")], "A", True),
        ([mark("P1")], [mark("A2", "basma", "two")], "P", True),
        ([mark("P1")], [mark("P2", "basma", "two")], "P", False),
        ([mark("A1")], [mark("E2:sick", "amal", "two")], "A", False),  # the same author, later: no dispute
        ([mark("P1"), mark("A2", "basma", "two")], [], "P", True),
        ([], [mark("A2")], "A", False),
        ([], [], None, False),
    ],
)
def test_a_witness_under_any_record_decides(
    own: list[VisibleMark], other: list[VisibleMark], code: str | None, disputed: bool
) -> None:
    """And what one author says of both rows is no dispute."""
    marks = {name: tuple(found) for name, found in (("s1", own), ("dup", other)) if found}
    found = gather("s1", marks, {"dup": "s1", "elsewhere": "s2"})
    assert (None if found.mark is None else found.mark.code, found.disputed) == (code, disputed)
    assert found.values == (*other, *own)
    assert found.merged is bool(other)


def test_a_record_merged_later_takes_along_what_was_merged_into_it() -> None:
    """Undoing either brings back what it took."""
    first, second = ("s3", "s2"), ("s2", "s1")
    assert follow([first, second]) == {"s3": "s1", "s2": "s1"}
    assert follow([first]) == {"s3": "s2"}
    assert follow([second]) == {"s2": "s1"}


def test_what_should_never_have_been_written_down_is_passed_over() -> None:
    """Circles, merges with oneself, a second merge of the same record."""
    assert follow([("s1", "s1")]) == {}
    assert follow([("s1", "s2"), ("s2", "s1")]) == {"s1": "s2"}
    assert follow([("s1", "s2"), ("s2", "s3"), ("s3", "s1")]) == {"s1": "s3", "s2": "s3"}
    assert follow([("s1", "s2"), ("s1", "s3")]) == {"s1": "s2"}


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("أحمد", "احمد"),
        ("إسراء", "اسراء"),
        ("آية", "اية"),
        ("مصطفى", "مصطفي"),
        ("فاطمة", "فاطمه"),
        ("مُحَمَّد", "محمد"),
        ("محـــمد", "محمد"),
        ("عبد الرحمن", "عبدالرحمن"),
        ("  منة   الله ", "منة الله"),
        ("Aya", "aya"),
    ],
)
def test_spelling_that_arabic_leaves_open_is_folded(one: str, other: str) -> None:
    """Hamza on alif, ya, ta marbuta, vowels, tatweel, spaces."""
    assert fold(one) == fold(other)


@pytest.mark.parametrize(("one", "other"), [("علي", "علا"), ("هدى", "هادي"), ("حسن", "حسين"), ("سلمى", "سليم")])
def test_different_names_stay_different(one: str, other: str) -> None:
    """Folding goes no further than spelling."""
    assert fold(one) != fold(other)


def test_candidates_share_a_class_and_a_name() -> None:
    """A namesake in another class is none; a name without letters is none."""
    pupils = [
        ("b", "s9", "منى علي"),
        ("a", "s2", "مني على"),
        ("a", "s1", "منى علي"),
        ("a", "s4", "—"),
        ("a", "s5", "-"),
    ]
    assert candidates(pupils) == [("a", ("s1", "s2"))]


def test_a_context_with_a_chain_is_refused() -> None:
    """The rules are never given one; whoever forgets to follow the pairs is told at once."""
    with pytest.raises(BadContext):
        replace(context(), aliases={"s3": "s2", "s2": "s1"})
