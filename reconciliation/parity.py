"""Paper and digital of one school and week, cell by cell. Pure; exact rationals, never floats.

A cell is one pupil of one register that somebody has on paper. It matches when both records put the pupil in the same
family (`paper.FAMILIES`); a pupil who is *not taken* digitally is in none, so that is a mismatch, and never *absent*.

The digital side is what marks say: the official answer with approved adjustments, but without bulk rulings, which are
laid over many cells from a desk and are no record made in a class.

Excluding a register can never help: its agreements count for nothing, its disagreements still stand against the week
(`WeekParity.guarded`). And what is missing is never left out of the sum: paper without digital is a mismatch, and
registers without paper lower the coverage.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from fractions import Fraction
from typing import Any

from clientcore.register import Code
from reconciliation.anomalies import Sign, is_flagged
from reconciliation.paper import FAMILIES, Document, Family, Sheet, SheetState

PASS_FROM = Fraction(98, 100)
COVERAGE_MIN = Fraction(9, 10)
EXCLUDED_MAX = Fraction(1, 10)
OPEN_DAYS_MIN = 3
"""With fewer open days a week says little about a school: the gate pauses."""

Key = tuple[str, str, str]
"""class, date, session: a register of one school."""
NOT_TAKEN = "not_taken"


class Standing(StrEnum):
    """What became of one expected register in the comparison."""

    COMPARED = "compared"
    EXCLUDED = "excluded"  # its stamps prove nothing; see its signs
    DIGITAL_MISSING = "digital_missing"  # paper, but nobody's mark: every cell is a mismatch
    PAPER_MISSING = "paper_missing"
    PAPER_WAITING = "paper_waiting"  # the second person has not typed it yet
    PAPER_DIFFERENT = "paper_different"  # people read different things
    NO_SESSION = "no_session"


class Status(StrEnum):
    """What a week is to the gate."""

    PASSED = "passed"
    FAILED = "failed"
    NOT_EVALUABLE = "not_evaluable"  # cannot pass: too little was compared, or too much excluded
    PAUSED = "paused"  # (almost) no school: neither counts nor breaks


@dataclass(frozen=True, slots=True, kw_only=True)
class Digital:
    """One register as marks say it.

    Attributes:
        families: Pupil of the roster to family; None: not taken.
        no_session: The session did not take place.
    """

    families: Mapping[str, Family | None]
    no_session: bool = False

    @property
    def is_taken(self) -> bool:
        """Whether there is anything to compare."""
        return any(family is not None for family in self.families.values())


_LETTERS = {code.value: family for code, family in FAMILIES.items()}


def read_digital(wire: Mapping[str, Any]) -> Digital:
    """From an outcome's plain data (`Outcome.to_wire`)."""
    return Digital(
        families={
            pupil: None if row is None or row[1] is None else _LETTERS[row[0][row[1]][0][0]]
            for pupil, row in wire["answers"].items()
        },
        no_session=wire["occasion"] == "no_session",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class RegisterParity:
    """One expected register.

    Attributes:
        key: Which.
        standing: What became of it.
        cells: Pupils compared; of an excluded register: that would have been.
        matched: Of these, in how many both records agree.
        kinds: Mismatches by `paper/digital`, e.g. `absent/present`, `present/not_taken`.
        signs: Why it is excluded, and what else was seen.
    """

    key: Key
    standing: Standing
    cells: int = 0
    matched: int = 0
    kinds: Mapping[str, int] = field(default_factory=dict)
    signs: tuple[Sign, ...] = ()


def share(part: int, whole: int) -> Fraction | None:
    """Exactly `part` of `whole`; None where there is no whole."""
    return Fraction(part, whole) if whole else None


@dataclass(frozen=True, slots=True, kw_only=True)
class WeekParity:
    """One school week.

    Attributes:
        week: Its Saturday.
        document: Which paper was compared.
        open_days: Number of days with school.
        registers: Every expected one, by key.
    """

    week: str
    document: Document
    open_days: int
    registers: tuple[RegisterParity, ...]

    def count(self, *standings: Standing) -> int:
        """Registers with one of these standings."""
        return sum(one.standing in standings for one in self.registers)

    @property
    def expected(self) -> int:
        """Registers that paper and digital should both have: those of sessions that took place."""
        return len(self.registers) - self.count(Standing.NO_SESSION)

    @property
    def covered(self) -> int:
        """Registers that both have."""
        return self.count(Standing.COMPARED, Standing.EXCLUDED)

    @property
    def excluded(self) -> int:
        """Registers that both have and that prove nothing."""
        return self.count(Standing.EXCLUDED)

    @property
    def compared(self) -> int:
        """Cells compared."""
        return sum(one.cells for one in self.registers if one.standing in _WEIGHED)

    @property
    def matched(self) -> int:
        """Cells in which both agree."""
        return sum(one.matched for one in self.registers if one.standing in _WEIGHED)

    @property
    def against(self) -> int:
        """Disagreements in excluded registers."""
        return sum(one.cells - one.matched for one in self.registers if one.standing is Standing.EXCLUDED)

    @property
    def rate(self) -> Fraction | None:
        """Matched of compared; None when nothing was compared."""
        return share(self.matched, self.compared)

    @property
    def guarded(self) -> Fraction | None:
        """The same with the disagreements of excluded registers: what has to reach `PASS_FROM`."""
        return share(self.matched, self.compared + self.against)

    @property
    def coverage(self) -> Fraction:
        """Covered of expected; 0 when nothing is expected."""
        return Fraction(self.covered, self.expected) if self.expected else Fraction(0)

    @property
    def excluded_share(self) -> Fraction:
        """Excluded of covered."""
        return Fraction(self.excluded, self.covered) if self.covered else Fraction(0)

    @property
    def status(self) -> Status:
        """What the week is to the gate, once it is judged."""
        if self.open_days < OPEN_DAYS_MIN:
            return Status.PAUSED
        if self.guarded is None or self.coverage < COVERAGE_MIN or self.excluded_share > EXCLUDED_MAX:
            return Status.NOT_EVALUABLE
        return Status.PASSED if self.guarded >= PASS_FROM else Status.FAILED


_WEIGHED = (Standing.COMPARED, Standing.DIGITAL_MISSING)


def expected_registers(
    rosters: Mapping[str, Mapping[str, frozenset[str]]],
    sessions: Mapping[str, tuple[str, ...]],
    seen: Collection[Key],
) -> dict[Key, frozenset[str]]:
    """The registers a week should have, with their pupils.

    In a school of two shifts a class is expected in the shifts in which anything of it was seen that week, on paper or
    digitally; a class of which nothing was seen, in the first.

    Args:
        rosters: Date to class to pupils; classes without pupils are not expected.
        sessions: Date to the sessions of the calendar; closed dates have none.
        seen: Registers of which there is paper or a mark, about a pupil or about the session.
    """
    shifts: dict[str, set[str]] = {}
    for class_id, _, session in seen:
        shifts.setdefault(class_id, set()).add(_shift(session))
    found: dict[Key, frozenset[str]] = {}
    for date, names in sessions.items():
        used = {_shift(name) for name in names}
        for class_id, pupils in rosters.get(date, {}).items():
            own = used
            if len(used) > 1:
                own = used & shifts.get(class_id, set()) or {_shift(names[0])}
            if pupils:
                found |= {(class_id, date, name): pupils for name in names if _shift(name) in own}
    return found


def _shift(session: str) -> str:
    """`day`, `am` or `pm`."""
    return session.rstrip("12345678")


def weigh(
    week: str,
    *,
    document: Document,
    open_days: int,
    expected: Mapping[Key, frozenset[str]],
    digital: Mapping[Key, Digital],
    sheets: Mapping[Key, Sheet],
    signs: Mapping[Key, Iterable[Sign]],
) -> WeekParity:
    """Compare one week. What is not expected is not compared.

    Args:
        week: Its Saturday.
        document: Which paper the sheets are read from.
        open_days: Days with school.
        expected: See `expected_registers`.
        digital: Registers that were settled.
        sheets: Registers somebody has typed from paper.
        signs: What was seen in them (`anomalies.examine`).
    """
    return WeekParity(
        week=week,
        document=document,
        open_days=open_days,
        registers=tuple(
            _weigh(key, pupils, digital.get(key), sheets.get(key), tuple(signs.get(key, ())))
            for key, pupils in sorted(expected.items())
        ),
    )


def _weigh(
    key: Key, pupils: frozenset[str], digital: Digital | None, sheet: Sheet | None, signs: tuple[Sign, ...]
) -> RegisterParity:
    if sheet is None or sheet.state is not SheetState.COUNTS:
        if digital is not None and digital.no_session and sheet is None:
            return RegisterParity(key=key, standing=Standing.NO_SESSION)
        return RegisterParity(key=key, standing=_WITHOUT_PAPER[None if sheet is None else sheet.state], signs=signs)
    said: Mapping[str, Family | None] = dict.fromkeys(pupils) if digital is None else digital.families
    if digital is not None and digital.no_session:
        # Signed paper contradicts it: nobody is taken, in every cell. Calling sessions off is no way to lose bad ones.
        said = dict.fromkeys(said)
    cells = [(_on_paper(sheet.marks.get(pupil)), family) for pupil, family in said.items()]
    kinds = Counter(f"{paper}/{family or NOT_TAKEN}" for paper, family in cells if paper is not family)
    standing = Standing.COMPARED
    if not any(family is not None for family in said.values()):
        standing = Standing.DIGITAL_MISSING
    elif is_flagged(signs):
        standing = Standing.EXCLUDED
    return RegisterParity(
        key=key,
        standing=standing,
        cells=len(cells),
        matched=len(cells) - kinds.total(),
        kinds=dict(sorted(kinds.items())),
        signs=signs,
    )


_WITHOUT_PAPER = {
    None: Standing.PAPER_MISSING,
    SheetState.SECOND_MISSING: Standing.PAPER_WAITING,
    SheetState.DIFFERENT: Standing.PAPER_DIFFERENT,
}


def _on_paper(code: Code | None) -> Family:
    return Family.PRESENT if code is None else FAMILIES[code]
