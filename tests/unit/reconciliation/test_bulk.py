"""Plans of bulk operations: which cells, what stands against them, and when a plan still holds."""

from __future__ import annotations

from dataclasses import replace

import pytest

from clientcore.change import Change
from clientcore.history import merge
from clientcore.register import Code
from reconciliation.bulk import CELLS_ALONE_MAX, Bar, Cell, Wish, cells_of, needs_second, plan_digest, stands
from reconciliation.decisions import Decisions, Level, Ruling
from reconciliation.model import Context, Outcome, first_receipts
from reconciliation.reconcile import reconcile
from tests.support.histories import REGISTER, Phone, context, receipt

WISH = Wish(code=Code.OFFICIAL_DUTY, reason="trip", by="head", level=Level.SCHOOL)


def settle(*sent: tuple[Change, Phone], around: Context | None = None) -> Outcome:
    receipts = first_receipts(receipt(change, phone, offset=n) for n, (change, phone) in enumerate(sent))
    return reconcile(REGISTER, merge(change for change, _ in sent), receipts, around or context())


def register(around: Context | None = None) -> Outcome:
    """s1 present, s2 absent, s3 not taken."""
    amal = Phone(label="a", user="amal")
    return settle((amal.mark({"s1": "P28800000", "s2": "A28800001"}), amal), around=around)


def bars(wish: Wish, outcome: Outcome, *, locked: bool = False, ahead: bool = False) -> dict[str, Bar | None]:
    return {cell.pupil: cell.bar for cell in cells_of(outcome, wish, locked=locked, ahead=ahead)}


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        (Code.OFFICIAL_DUTY, {"s1": None, "s2": None, "s3": None}),
        (Code.PRESENT, {"s2": None, "s3": Bar.UNSEEN}),
        (Code.LATE, {"s1": None, "s2": None, "s3": Bar.UNSEEN}),
        (Code.ABSENT_EXCUSED, {"s1": Bar.ABSENCE, "s2": None, "s3": Bar.ABSENCE}),
        (Code.SUSPENDED, {"s1": Bar.ABSENCE, "s2": None, "s3": Bar.ABSENCE}),
    ],
)
def test_a_list_puts_nobody_where_nobody_saw_them(code: Code, expected: dict[str, Bar | None]) -> None:
    """Nor away where nobody missed them; a cell that says it already is none."""
    assert bars(replace(WISH, code=code, reason=None), register()) == expected


def test_only_the_cells_asked_for() -> None:
    """By what they say now, *not taken* included, and by pupil."""
    assert bars(replace(WISH, present=frozenset((None, Code.ABSENT))), register()) == {"s2": None, "s3": None}
    assert bars(replace(WISH, pupils=frozenset(("s1", "s9"))), register()) == {"s1": None}


def test_what_keeps_a_register_out() -> None:
    """Locked at school, closed, not begun, not held."""
    everybody = {"s1", "s2", "s3"}
    outcome = register()
    assert bars(WISH, outcome, locked=True) == dict.fromkeys(everybody, Bar.LOCKED)
    assert bars(replace(WISH, level=Level.CENTRAL), outcome, locked=True) == dict.fromkeys(everybody)
    assert bars(WISH, outcome, ahead=True) == dict.fromkeys(everybody, Bar.FUTURE)
    assert bars(WISH, register(context(closed="feast"))) == dict.fromkeys(everybody, Bar.CALENDAR)
    amal = Phone(label="a", user="amal")
    strike = settle((amal.mark({"~session": "N30000000:strike", "s1": "P28800000"}), amal))
    assert bars(WISH, strike) == dict.fromkeys(everybody, Bar.NO_SESSION)


def test_disputes_and_own_marks_are_not_for_a_list() -> None:
    """Whoever asks has made none of the marks; whoever settles a dispute has looked at both."""
    amal, basma = Phone(label="a", user="amal"), Phone(label="b", user="basma")
    outcome = settle((amal.mark({"s1": "P1", "s2": "P2"}), amal), (basma.mark({"s1": "A3"}), basma))
    assert bars(WISH, outcome) == {"s1": Bar.DISPUTED, "s2": None, "s3": None}
    assert bars(replace(WISH, by="amal"), outcome) == {"s1": Bar.DISPUTED, "s2": Bar.OWN_MARK, "s3": None}


def test_the_digest_changes_with_the_wish_and_with_the_cells() -> None:
    """Another code, another mark, a new obstacle: another plan. The same again: the same."""
    outcome = register()
    cells = cells_of(outcome, WISH, locked=False, ahead=False)
    assert plan_digest(WISH, cells) == plan_digest(WISH, cells_of(register(), WISH, locked=False, ahead=False))
    others = [
        plan_digest(replace(WISH, reason="visit"), cells),
        plan_digest(WISH, cells[:-1]),
        plan_digest(WISH, [replace(cells[0], among=(b"x" * 32,)), *cells[1:]]),
        plan_digest(WISH, [replace(cells[0], bar=Bar.LOCKED), *cells[1:]]),
    ]
    assert plan_digest(WISH, cells) not in others
    assert len(set(others)) == 4


def test_500_cells_are_one_persons_501_are_not() -> None:
    """Only cells that would be changed count."""
    cell = Cell(register="r", pupil="s", among=(), code=None, reason=None)
    barred = replace(cell, bar=Bar.FUTURE)
    assert not needs_second([cell] * CELLS_ALONE_MAX + [barred] * 9)
    assert needs_second([cell] * (CELLS_ALONE_MAX + 1))


def test_a_cell_stands_while_its_marks_are_those_ruled_upon() -> None:
    """Also under the ruling itself; not for a pupil who left the list."""
    amal = Phone(label="a", user="amal")
    change = amal.mark({"s1": "A28800000"})
    ruling = Ruling(
        pupil="s1", among=frozenset((change.hash,)), code=Code.PRESENT, reason=None, bulk=1, by="head", at_ms=1
    )  # fmt: skip
    around = replace(context(), decisions=Decisions(rulings={"s1": (ruling,)}))
    ruled = settle((change, amal), around=around).answers["s1"]
    assert (ruled.code, ruled.labels) == (Code.PRESENT, ("ruled",))
    assert stands(ruled, ruling.among)
    assert not stands(settle((change, amal), (amal.mark({"s1": "P2"}), amal)).answers["s1"], ruling.among)
    assert not stands(None, ruling.among)


@pytest.mark.parametrize(
    ("code", "reason", "right"),
    [
        (Code.ABSENT_EXCUSED, "sick", True),
        (Code.LATE, "12", True),
        (Code.LATE, "sick", False),
        (Code.PRESENT, None, True),
        (Code.PRESENT, "Not A Slug", False),
        (Code.PRESENT, "x" * 25, False),
    ],
)
def test_a_wish_is_in_the_grammar_of_marks(code: Code, reason: str | None, right: bool) -> None:
    """So that what it says can be told like a mark."""
    assert replace(WISH, code=code, reason=reason).is_written_right() is right
