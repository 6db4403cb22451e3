"""Duplicate records of one pupil: how the marks of several ids become one answer. Pure.

Records are merged, never deleted: the duplicate becomes an alias of a canonical id, marks keep the id they were made
with, and taking the alias back brings everything back. Whoever took the register saw the pupil once and the duplicate's
row stayed empty or was called absent; so a witness of presence under any of the ids decides, and what one author says of
both rows in one sitting is no dispute.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from reconciliation.conflicts import provisional
from reconciliation.model import VisibleMark


@dataclass(frozen=True, slots=True, kw_only=True)
class Gathered:
    """What the marks say of one pupil.

    Attributes:
        values: Every visible mark under any of the pupil's ids, the canonical id's last.
        mark: The provisional answer; None without marks.
        disputed: Whether authors disagree.
        merged: Whether marks of more than the canonical id are among them.
    """

    values: tuple[VisibleMark, ...]
    mark: VisibleMark | None
    disputed: bool
    merged: bool


_NOTHING = Gathered(values=(), mark=None, disputed=False, merged=False)


def gather(pupil: str, marks: Mapping[str, tuple[VisibleMark, ...]], aliases: Mapping[str, str]) -> Gathered:
    """The marks of a pupil under all ids.

    Args:
        pupil: The canonical id.
        marks: Visible marks by the id they were made with, the winner last.
        aliases: Duplicate id to canonical id.
    """
    own = marks.get(pupil, ())
    others = (
        [marks[alias] for alias in sorted(aliases) if aliases[alias] == pupil and alias in marks] if aliases else []
    )
    if not others:
        if not own:
            return _NOTHING
        mark, disputed = provisional(own)
        return Gathered(values=own, mark=mark, disputed=disputed, merged=False)
    groups = [*others, *([own] if own else [])]
    answers = [provisional(group) for group in groups]
    chosen = [mark for mark, _ in answers]
    witnesses = [mark for mark in chosen if mark.code.witnesses_presence]
    disputed = any(one for _, one in answers) or (
        len({mark.code for mark in chosen}) > 1 and len({mark.change_hash for mark in chosen}) > 1
        and len({mark.user_id for mark in chosen}) > 1
    )  # fmt: skip
    return Gathered(
        values=tuple(mark for group in groups for mark in group),
        mark=(witnesses or chosen)[-1],
        disputed=disputed,
        merged=True,
    )
