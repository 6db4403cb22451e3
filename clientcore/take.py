"""Taking a register as a list: who is marked by name, and the rest present. Pure.

Taking it again states the whole register again; only pupils for whom something is different are put.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from clientcore.errors import BadInput, ChangeRefused
from clientcore.register import Code, Mark, is_id

_REASON = re.compile(r"[a-z0-9_]{1,24}")
_MINUTES = re.compile(r"0|[1-9][0-9]{0,3}")
Wish = tuple[Code, str | None]
"""What somebody says of a pupil: code and reason."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What has to be tapped: pupils marked by name, one act each, and the rest, one act for all of them."""

    by_name: tuple[tuple[str, Wish], ...]
    rest: tuple[str, ...]
    unchanged: int


def parse_list(text: str, code: Code) -> dict[str, Wish]:
    """Read `ID[:REASON],…`.

    Raises:
        BadInput: `bad-list`.
    """
    wishes: dict[str, Wish] = {}
    for item in filter(None, (part.strip() for part in text.split(","))):
        pupil, colon, reason = item.partition(":")
        fits = _MINUTES if code is Code.LATE else _REASON
        if not is_id(pupil) or (colon and fits.fullmatch(reason) is None):
            meant = "ID or ID:MINUTES" if code is Code.LATE else "ID or ID:reason (a-z, 0-9, _)"
            raise BadInput("bad-list", f"{item!r}: write {meant}")
        if pupil in wishes:
            raise BadInput("bad-list", f"{pupil} stands twice in one list")
        wishes[pupil] = (code, reason if colon else None)
    return wishes


def plan(roster: Sequence[str], wishes: Mapping[str, Wish], seen: Mapping[str, Sequence[str]]) -> Plan:
    """What to tap so that the register says `wishes`, and present for everybody else of `roster`.

    Args:
        roster: Pupil ids in roll order.
        wishes: By pupil id.
        seen: Visible values per key, the one in force last; several mean that authors disagree.

    Raises:
        BadInput: `unknown-pupil` when a wish names nobody of the roster.
    """
    strangers = sorted(wishes.keys() - set(roster))
    if strangers:
        raise BadInput("unknown-pupil", f"not in this class: {', '.join(strangers)}")
    by_name: list[tuple[str, Wish]] = []
    rest: list[str] = []
    for pupil in roster:
        wish = wishes.get(pupil, (Code.PRESENT, None))
        if _says(seen.get(pupil, ())) == wish:
            continue
        if pupil in wishes or seen.get(pupil):
            by_name.append((pupil, wish))  # a correction is always an act of its own
        else:
            rest.append(pupil)
    return Plan(by_name=tuple(by_name), rest=tuple(rest), unchanged=len(roster) - len(by_name) - len(rest))


def _says(values: Sequence[str]) -> Wish | None:
    """What the register says of one pupil; None when nothing, or when authors disagree."""
    if len(values) != 1:
        return None
    try:
        mark = Mark.parse(values[0])
    except ChangeRefused:
        return None
    return mark.code, mark.reason
