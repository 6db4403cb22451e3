"""Duplicate records of one pupil: how the marks of several ids become one answer. Pure.

Records are merged, never deleted: the duplicate becomes an alias of a canonical id, marks keep the id they were made
with, and taking the alias back brings everything back. Whoever took the register saw the pupil once and the
duplicate's row stayed empty or was called absent; so a witness of presence under any of the ids decides, and what one
author says of both rows in one sitting is no dispute.

What was decided is a list of pairs (duplicate, canonical), one a decision. `follow` reads it to the end, so that the
rules never meet a chain: a record merged into another that is merged itself later goes along, and comes back when
either merge is taken back.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Mapping
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


def follow(pairs: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Duplicate id to the id that stands for it in the end.

    Args:
        pairs: (duplicate, canonical) in the order of the decisions. One that would lead back to itself, or that merges
            what is merged already, is passed over: it should never have been written down.
    """
    one_step: dict[str, str] = {}
    for alias, canonical in pairs:
        if alias not in one_step and _end(canonical, one_step) != alias:
            one_step[alias] = canonical
    return {alias: _end(alias, one_step) for alias in one_step}


def _end(pupil: str, one_step: Mapping[str, str]) -> str:
    while pupil in one_step:
        pupil = one_step[pupil]
    return pupil


_ONE_LETTER = str.maketrans({"أ": "ا", "إ": "ا", "آ": "ا", "ٱ": "ا", "ى": "ي", "ة": "ه", "ـ": None})


def fold(name: str) -> str:
    """A name without what Arabic spelling leaves open: hamza on alif, ya and ta marbuta, vowels, tatweel, spaces."""
    letters = unicodedata.normalize("NFKC", name).casefold().translate(_ONE_LETTER)
    return "".join(
        letter
        for letter in unicodedata.normalize("NFD", letters)
        if letter.isalnum() and not unicodedata.combining(letter)
    )


def candidates(pupils: Iterable[tuple[str, str, str]]) -> list[tuple[str, tuple[str, ...]]]:
    """Records that may be one pupil's: the same folded name in the same class. Twins and namesakes are among them.

    Args:
        pupils: (class, pupil id, name).

    Returns:
        Class and ids, both ascending.
    """
    found: dict[tuple[str, str], set[str]] = {}
    for class_id, pupil, name in pupils:
        folded = fold(name)
        if folded:
            found.setdefault((class_id, folded), set()).add(pupil)
    return sorted((class_id, tuple(sorted(ids))) for (class_id, _), ids in found.items() if len(ids) > 1)
