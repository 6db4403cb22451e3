"""Counting attendance so that two systems can compare it: lines, tallies, differences. Pure.

A *line* is what one register says of one pupil. A class's tally on a date is the number of its lines and the SHA-256
over them: sorted, each as `session TAB pupil TAB code TAB reason LF` in UTF-8. *Not taken* has no line on either side.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum

from reconciliation.model import Outcome

ClassKey = tuple[str, str]
"""School, class."""


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Line:
    """One pupil in one register of a class and date.

    Attributes:
        session: Which register of that date.
        pupil: Id, never a name.
        code: The word of docs/glossary.md.
        reason: Slug; for *late* the minutes in decimal; empty without one.
    """

    session: str
    pupil: str
    code: str
    reason: str = ""

    @property
    def cell(self) -> tuple[str, str]:
        """What it is about."""
        return self.session, self.pupil

    def text(self) -> str:
        """As it goes into the digest."""
        return f"{self.session}\t{self.pupil}\t{self.code}\t{self.reason}\n"


@dataclass(frozen=True, slots=True, kw_only=True)
class Tally:
    """A number of lines and their digest (SHA-256, hex)."""

    count: int
    digest: str


NOTHING = Tally(count=0, digest=hashlib.sha256(b"").hexdigest())


def tally(lines: Iterable[Line]) -> Tally:
    """Count lines, in whatever order they come.

    >>> tally([]) == NOTHING
    True
    >>> one, two = Line(session="day", pupil="s1", code="present"), Line(session="day", pupil="s2", code="late")
    >>> tally([one, two]) == tally([two, one])
    True
    """
    texts = sorted(line.text() for line in lines)
    return Tally(count=len(texts), digest=hashlib.sha256("".join(texts).encode()).hexdigest())


def total(classes: Mapping[str, Tally]) -> Tally:
    """A school's tally from those of its classes: SHA-256 over `class TAB count TAB digest LF`, sorted.

    A class without lines does not count: the other side may never have heard of it.
    """
    texts = sorted(f"{name}\t{one.count}\t{one.digest}\n" for name, one in classes.items() if one.count)
    return Tally(
        count=sum(one.count for one in classes.values()), digest=hashlib.sha256("".join(texts).encode()).hexdigest()
    )


def lines_of(outcome: Outcome) -> list[Line]:
    """What an official register says, as lines."""
    return [
        Line(session=outcome.register.session, pupil=pupil, code=answer.code.word, reason=answer.reason or "")
        for pupil, answer in outcome.answers.items()
        if answer.code is not None
    ]


class Cause(StrEnum):
    """Why a pupil-day differs."""

    WAITING = "waiting"  # an event about the register has not been sent yet
    REJECTED = "rejected"  # upstream refused an event about this pupil
    MISSING_UPSTREAM = "missing-upstream"
    MISSING_HERE = "missing-here"
    OTHER_CODE = "different-code"
    OTHER_REASON = "different-reason"


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """One pupil-day on which the two sides do not say the same; `ours`, `theirs`: code, or None for no line."""

    session: str
    pupil: str
    cause: Cause
    ours: str | None
    theirs: str | None


def differences(
    ours: Iterable[Line],
    theirs: Iterable[Line],
    *,
    waiting: Collection[str] = (),
    rejected: Collection[tuple[str, str]] = (),
) -> list[Difference]:
    """Every pupil-day that differs, by session and pupil.

    Args:
        ours: Lines of a class and date here.
        theirs: The same upstream.
        waiting: Sessions of which an event has not been sent yet.
        rejected: Sessions and pupils of whom upstream refused an event.
    """
    here, there = ({line.cell: line for line in lines} for lines in (ours, theirs))
    found = []
    for cell in sorted(here.keys() | there.keys()):
        one, other = here.get(cell), there.get(cell)
        if one != other:
            session, pupil = cell
            cause = Cause.REJECTED if cell in rejected else Cause.WAITING if session in waiting else _cause(one, other)
            said = (None if line is None else line.code for line in (one, other))
            found.append(Difference(session=session, pupil=pupil, cause=cause, ours=next(said), theirs=next(said)))
    return found


def _cause(one: Line | None, other: Line | None) -> Cause:
    if one is None:
        return Cause.MISSING_HERE
    if other is None:
        return Cause.MISSING_UPSTREAM
    return Cause.OTHER_REASON if one.code == other.code else Cause.OTHER_CODE
