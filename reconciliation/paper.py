"""The paper record: who was absent or late on a signed sheet, as people typed it in, and when it counts. Pure.

Only what differs from *present* is typed: everybody else of the day's roster was present on the sheet. Entries are only
added. A later entry of the same person replaces their earlier one, and both stay. What counts is what most people read
from the sheet, by the families that parity compares: one person is enough, or two where two are asked for; while as
many people read something else, it does not count, and the differences wait for a third look.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from clientcore.register import Code
from reconciliation.errors import BadContext


class Document(StrEnum):
    """Which paper a record was typed from; parity says which one it compares."""

    PERIOD_SHEET = "period_sheet"  # signed by whoever taught the period
    CLASS_BOOK = "class_book"  # the school's book, into which the sheets are copied


class Family(StrEnum):
    """What both records can say of a pupil; finer differences are not the paper's."""

    PRESENT = "present"
    LATE = "late"
    ABSENT = "absent"


FAMILIES: Mapping[Code, Family] = {
    Code.PRESENT: Family.PRESENT,
    Code.LEFT_EARLY: Family.PRESENT,  # was there when the sheet was signed
    Code.OFFICIAL_DUTY: Family.PRESENT,  # away on the school's behalf: no sheet calls that absent
    Code.LATE: Family.LATE,
    Code.ABSENT: Family.ABSENT,
    Code.ABSENT_EXCUSED: Family.ABSENT,
    Code.ABSENT_UNEXCUSED: Family.ABSENT,
    Code.SUSPENDED: Family.ABSENT,  # was not in the room, and the sheet has no sign of its own for it
}
PAPER_CODES = frozenset((Code.ABSENT, Code.ABSENT_EXCUSED, Code.ABSENT_UNEXCUSED, Code.LATE))
"""What a sheet can say of a pupil it names."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One person's reading of one sheet.

    Attributes:
        id: Rises with every entry.
        document: What it was read from.
        signed_by: Who signed the sheet: user id or role, never a name.
        entered_by: Who typed it in.
        marks: Pupil id to code; only who was absent or late.
        at_ms: Server time of the entry.

    Raises:
        BadContext: for a code that no sheet has.
    """

    id: int
    document: Document
    signed_by: str
    entered_by: str
    marks: Mapping[str, Code]
    at_ms: int

    def __post_init__(self) -> None:
        if not PAPER_CODES.issuperset(self.marks.values()):
            raise BadContext("bad-context", "a sheet names who was absent or late, nothing else")

    @property
    def families(self) -> dict[str, Family]:
        """What it says, as far as records are compared."""
        return {pupil: FAMILIES[code] for pupil, code in self.marks.items()}


class SheetState(StrEnum):
    """Whether the paper of one register is known."""

    COUNTS = "counts"
    SECOND_MISSING = "second_missing"  # two people are asked for, one has typed it
    DIFFERENT = "different"  # people read different things: a third look decides


@dataclass(frozen=True, slots=True, kw_only=True)
class Sheet:
    """What is known of the paper of one register.

    Attributes:
        state: Whether it counts.
        marks: What it says; empty unless it counts.
        entries: The last entry of each person, ascending.
        differences: Pupils about whom these entries do not say the same.
    """

    state: SheetState
    marks: Mapping[str, Code]
    entries: tuple[Entry, ...]
    differences: tuple[str, ...] = field(default=())


def read_sheet(entries: Iterable[Entry], document: Document, *, two_person: bool) -> Sheet | None:
    """What counts of all that was typed for one register; None when nothing was typed from this document.

    Args:
        entries: In any order.
        document: The document that is compared.
        two_person: Whether two different people must have typed the same.
    """
    last: dict[str, Entry] = {}
    for entry in sorted(entries, key=lambda one: one.id):
        if entry.document is document:
            last[entry.entered_by] = entry
    if not last:
        return None
    kept = tuple(sorted(last.values(), key=lambda one: one.id))
    readings: dict[tuple[tuple[str, Family], ...], list[Entry]] = {}
    for entry in kept:
        readings.setdefault(tuple(sorted(entry.families.items())), []).append(entry)
    most = max(len(people) for people in readings.values())
    leading = [people for people in readings.values() if len(people) == most]
    differences = _differences(kept) if len(readings) > 1 else ()
    if len(leading) > 1:
        return Sheet(state=SheetState.DIFFERENT, marks={}, entries=kept, differences=differences)
    if two_person and most < 2:
        return Sheet(state=SheetState.SECOND_MISSING, marks={}, entries=kept)
    return Sheet(state=SheetState.COUNTS, marks=leading[0][-1].marks, entries=kept, differences=differences)


def _differences(entries: tuple[Entry, ...]) -> tuple[str, ...]:
    """Pupils whom some entries put in another family than others."""
    said = [entry.families for entry in entries]
    pupils = {pupil for one in said for pupil in one}
    return tuple(sorted(p for p in pupils if len({one.get(p, Family.PRESENT) for one in said}) > 1))
