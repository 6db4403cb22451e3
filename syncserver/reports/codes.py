"""Official answers of a school in the words of another standard, as JSON Lines: one line for each pupil and register.

Only answers are written. *Not taken* and *no session* have no line, so a program that counts lines counts nothing that
nobody said; disputed answers are provisional and wait until somebody has settled them.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from clientcore.register import Code, RegisterId
from reconciliation.mapping import ceds_event, edfi_event
from syncserver.store.packed import unpack_outcome
from syncserver.store.port import Reader

STANDARDS: Mapping[str, Callable[[RegisterId, str, Code, str | None], dict[str, object]]] = {
    "edfi": edfi_event,
    "ceds": ceds_event,
}
_PAGE = 20  # outcomes that are read and written in some 25 ms, between which the server does other work
_OUTCOMES = """SELECT class_id, date, session, body FROM whole_outcomes WHERE school = ? AND date >= ? AND date <= ?
AND (class_id, date, session) > (?, ?, ?) ORDER BY class_id, date, session LIMIT ?"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Exported:
    """What was written, from how many registers, and how many answers were left out because they are disputed."""

    data: bytes
    registers: int
    answers: int
    disputed: int


async def export_codes(reader: Reader, school: str, first: str, last: str, standard: str) -> Exported:
    """The answers of a span of dates, both ends included, in the order of register and pupil."""
    write = STANDARDS[standard]
    lines: list[str] = []
    registers = disputed = 0
    at: tuple[Any, ...] = ("", "", "")
    while page := await reader.fetch_all(_OUTCOMES, (school, first, last, *at, _PAGE)):
        for row in page:
            outcome = unpack_outcome(row[-1], "/".join((school, *row[:3])))
            registers += 1
            for pupil, answer in outcome.answers.items():
                if answer.code is None:
                    continue
                if answer.disputed:
                    disputed += 1
                    continue
                record = write(outcome.register, pupil, answer.code, answer.reason)
                lines.append(json.dumps(record, ensure_ascii=False, separators=(",", ":")) + "\n")
        at = page[-1][:3]
    return Exported(data="".join(lines).encode(), registers=registers, answers=len(lines), disputed=disputed)
