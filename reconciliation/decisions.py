"""What named people decided about registers: values that `reconcile` takes in beside the marks. Pure.

No decision rewrites a mark. Each is laid over the marks it was made about, names them, and stops to count by itself
when they are no longer what its maker had in sight; taking a decision back is leaving it out. So the outcome stays a
function of a set, and the original entry can always be shown beside the corrected one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from clientcore.register import Code
from reconciliation.errors import BadContext

ABSENCES = frozenset((Code.ABSENT, Code.ABSENT_EXCUSED, Code.ABSENT_UNEXCUSED))
NOT_THERE = ABSENCES | {Code.SUSPENDED}


class Level(StrEnum):
    """From where a decision comes: what is closed at school may still be opened centrally, with a reference."""

    SCHOOL = "school"
    CENTRAL = "central"


class Reason(StrEnum):
    """Why a register is changed after its window; every approval names one."""

    FORGOTTEN = "forgotten"  # the register was not taken in time
    WRONG_PUPIL = "wrong_pupil"
    WRONG_CODE = "wrong_code"
    EXCUSE_BROUGHT = "excuse_brought"  # the excuse came after the day
    ARRIVED_LATE = "arrived_late"
    DEVICE_FAILED = "device_failed"
    PAPER_FOUND = "paper_found"
    ROSTER_CORRECTED = "roster_corrected"
    DOCUMENTED = "documented"  # another reason, in the document the reference names


@dataclass(frozen=True, slots=True, kw_only=True)
class Release:
    """A held change is let into the outcome by a named person who did not make it.

    Attributes:
        change_hash: Which change of the register.
        by: User id, or the name of a token's holder.
        reason: In their words.
        at_ms: When.
    """

    change_hash: bytes
    by: str
    reason: str
    at_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Approval:
    """A word on the adjusting marks of one change.

    Attributes:
        id: Rises with every decision; of several valid ones the last counts.
        change_hash: Which change of the register.
        approved: Approved or rejected.
        reason: Why the register is changed.
        by: User id, or the name of a token's holder. Never the author: such an approval does not count.
        level: School, or central.
        reference: What a central decision rests on; without it a central one does not count.
        at_ms: When.
        asked_by_ms: End of the clock for asking as it stood when this was decided (see `adjustments`).
        decide_by_ms: End of the clock for deciding, likewise.
    """

    id: int
    change_hash: bytes
    approved: bool
    reason: Reason
    by: str
    level: Level
    reference: str
    at_ms: int
    asked_by_ms: int = 0
    decide_by_ms: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """A dispute was settled by a named person. It counts while the visible marks are those it was made about.

    Attributes:
        pupil: Whose answer.
        among: Hashes of the changes whose marks were visible.
        chosen: The change whose mark stands.
        value: That mark, as stored.
        by: Who settled it.
        at_ms: When.
    """

    pupil: str
    among: frozenset[bytes]
    chosen: bytes
    value: str
    by: str
    at_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Ruling:
    """One cell of a bulk operation. It counts while the visible marks are those it was made about.

    A ruling observes nobody: see `may_rule`.

    Attributes:
        pupil: Whose answer.
        among: Hashes of the changes whose marks were visible; empty: not taken.
        code: What it says.
        reason: Reason slug of the code, or None.
        bulk: Number of the bulk operation.
        by: Who ordered it.
        at_ms: When it was applied.
    """

    pupil: str
    among: frozenset[bytes]
    code: Code
    reason: str | None
    bulk: int
    by: str
    at_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Decisions:
    """Everything decided about one register.

    Attributes:
        releases: By change hash.
        approvals: By change hash, in the order of their ids.
        choices: By pupil.
        rulings: By pupil, the oldest first.
    """

    releases: Mapping[bytes, Release] = field(default_factory=dict)
    approvals: Mapping[bytes, tuple[Approval, ...]] = field(default_factory=dict)
    choices: Mapping[str, Choice] = field(default_factory=dict)
    rulings: Mapping[str, tuple[Ruling, ...]] = field(default_factory=dict)


NONE = Decisions()


def check_aliases(aliases: Mapping[str, str]) -> None:
    """Aliases lead to canonical ids in one step.

    Raises:
        BadContext: when one leads to another alias.
    """
    if any(canonical in aliases for canonical in aliases.values()):
        raise BadContext("bad-context", "an alias leads to an alias")


def may_rule(code: Code, present: Code | None) -> bool:
    """Whether a ruling may put `code` over what the marks say (`present`; None: not taken).

    Whoever rules has seen no pupil. So a ruling never turns anybody into somebody who was not there, it only changes
    the kind; and where nobody took the register it says what a document can know, never that somebody was there.
    """
    if code in NOT_THERE:
        return present in NOT_THERE
    return present is not None or code is Code.OFFICIAL_DUTY
