"""Many cells at once: what a bulk operation would make of each, and what an undo gives back. Pure.

A bulk operation is a list of rulings (`decisions.Ruling`), one a cell, laid over the marks. It is planned, shown, and
applied only while the plan still holds. What stands against a cell keeps that cell out and no other:

  - it may not put anybody where nobody saw them, or away where nobody missed them (`decisions.may_rule`);
  - it is no way around the clocks: what is locked at school is locked for a bulk operation as well;
  - nobody changes their own marks with it, and disputes are settled one by one, by somebody who looked at both.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum

from clientcore.register import Code, is_value
from reconciliation.decisions import Level, may_rule
from reconciliation.model import Answer, Occasion, Outcome
from reconciliation.wire import NOT_TAKEN_WORD, canonical

CELLS_ALONE_MAX = 500
"""More cells than this need a second person."""
CELLS_MAX = 20_000
"""A school of 1,000 pupils for four weeks: what is larger is no correction."""
UNDO_MS = 72 * 3_600_000


class Bar(StrEnum):
    """What keeps a cell out of a bulk operation."""

    NO_SESSION = "no-session"  # the session did not take place
    CALENDAR = "calendar"  # the school was closed
    FUTURE = "future"
    LOCKED = "adjustment-locked"  # the clock for asking has run out: central, with a reference
    DISPUTED = "disputed"
    OWN_MARK = "approver-is-author"
    ABSENCE = "absence-needs-a-mark"
    UNSEEN = "presence-needs-a-mark"


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What is asked for.

    Attributes:
        code: What the cells shall say.
        reason: Reason slug of the code, or None; minutes for *late*.
        present: Only cells that say one of these now (None: not taken); empty: whatever they say.
        pupils: Only these pupils; empty: all.
        by: Who asks: nobody changes their own marks.
        level: School, or central.
    """

    code: Code
    reason: str | None
    by: str
    level: Level
    present: frozenset[Code | None] = frozenset()
    pupils: frozenset[str] = frozenset()

    def is_written_right(self) -> bool:
        """Whether a mark with this code and reason would be in the grammar."""
        tail = "" if self.reason is None else f":{self.reason}"
        minutes = self.code is not Code.LATE or self.reason is None or self.reason.isdecimal()
        return minutes and is_value(b"s", f"{self.code}0{tail}".encode())


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """One pupil of one register.

    Attributes:
        register: Its name.
        pupil: Canonical id.
        among: Changes whose marks are visible, ascending: the plan holds for these.
        code: What it says now; None: not taken.
        reason: Reason slug of that.
        bar: What keeps it out; None: it would be changed.
    """

    register: str
    pupil: str
    among: tuple[bytes, ...]
    code: Code | None
    reason: str | None
    bar: Bar | None = None


def cells_of(outcome: Outcome, wish: Wish, *, locked: bool, ahead: bool) -> list[Cell]:
    """The cells of one register that a wish is about, by pupil. Those that say it already are none of them.

    Args:
        outcome: The register as it stands.
        wish: What is asked for.
        locked: Whether the register can no longer be corrected at school.
        ahead: Whether its day has not begun.
    """
    found = []
    for pupil, answer in outcome.answers.items():
        if (wish.pupils and pupil not in wish.pupils) or (wish.present and answer.code not in wish.present):
            continue
        if (answer.code, answer.reason) == (wish.code, wish.reason) and not answer.disputed:
            continue
        found.append(
            Cell(
                register=str(outcome.register),
                pupil=pupil,
                among=tuple(sorted({mark.change_hash for mark in answer.values})),
                code=answer.code,
                reason=answer.reason,
                bar=_bar(answer, outcome, wish, locked=locked, ahead=ahead),
            )
        )
    return found


def _bar(answer: Answer, outcome: Outcome, wish: Wish, *, locked: bool, ahead: bool) -> Bar | None:
    marked = None if answer.mark is None else answer.mark.code
    bars = (
        (outcome.occasion is Occasion.NO_SESSION, Bar.NO_SESSION),
        (outcome.closed is not None, Bar.CALENDAR),
        (ahead, Bar.FUTURE),
        (answer.disputed, Bar.DISPUTED),
        (not may_rule(wish.code, marked), Bar.UNSEEN if marked is None and not _is_away(wish.code) else Bar.ABSENCE),
        (locked and wish.level is Level.SCHOOL, Bar.LOCKED),
        (any(mark.user_id == wish.by for mark in answer.values), Bar.OWN_MARK),
    )
    return next((bar for holds, bar in bars if holds), None)


def _is_away(code: Code) -> bool:
    return not may_rule(code, Code.PRESENT)


def plan_digest(wish: Wish, cells: Sequence[Cell]) -> str:
    """What a preview is known by: the same wish over the same cells in the same state, or another digest."""
    said = [
        wish.code.value,
        wish.reason,
        [
            [
                one.register,
                one.pupil,
                [digest.hex() for digest in one.among],
                word_of(one.code),
                one.reason,
                None if one.bar is None else one.bar.value,
            ]
            for one in cells
        ],
    ]
    return hashlib.sha256(canonical(said)).hexdigest()[:32]


def needs_second(cells: Iterable[Cell]) -> bool:
    """Whether a second person must agree."""
    return sum(one.bar is None for one in cells) > CELLS_ALONE_MAX


def stands(answer: Answer | None, among: Iterable[bytes]) -> bool:
    """Whether the marks of a cell are still those it was ruled upon."""
    return answer is not None and {mark.change_hash for mark in answer.values} == set(among)


def word_of(code: Code | None) -> str:
    """The code's word, or *not taken*."""
    return NOT_TAKEN_WORD if code is None else code.word
