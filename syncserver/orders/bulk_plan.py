"""What a bulk operation would do: its cells from the stored outcomes, known by a digest."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from clientcore.register import Code, RegisterId, is_session
from reconciliation.adjustments import asking_ends_ms
from reconciliation.bulk import CELLS_MAX, Bar, Cell, Wish, cells_of, needs_second, plan_digest, word_of
from reconciliation.calendar import day_window
from reconciliation.wire import NOT_TAKEN_WORD
from syncserver.access import Args, Desk, text
from syncserver.calendar import calendar_of
from syncserver.errors import RequestProblem
from syncserver.orders.deciding import level_of, span_of
from syncserver.store.deciding import is_settling
from syncserver.store.decisions import aliases_of
from syncserver.store.packed import unpack_outcome
from syncserver.store.port import Reader, Row, placeholders

SHOWN_MAX = 500
"""Cells a preview lists; it counts them all."""
CODES: Mapping[str, Code | None] = {NOT_TAKEN_WORD: None, **{code.word: code for code in Code}}
_REGISTERS_MAX = 1_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Cells and the state of the registers they were read from: class, date, session, revision."""

    wish: Wish
    cells: tuple[Cell, ...]
    seen: tuple[Row, ...]

    @property
    def free(self) -> list[Cell]:
        """Cells that nothing stands against."""
        return [one for one in self.cells if one.bar is None]

    @property
    def digest(self) -> str:
        """What it is known by."""
        return plan_digest(self.wish, self.cells)


def wish_of(desk: Desk, args: Args) -> Wish:
    """What is asked for.

    Raises:
        RequestProblem: `bad-request`.
    """
    words, word = _names(args, "present"), text(args, "code")
    reason = args.get("code_reason")
    if word not in CODES or word == NOT_TAKEN_WORD or not set(words) <= CODES.keys():
        raise RequestProblem("bad-request", f"codes are {', '.join(CODES)}; a register is not made untaken")
    code = CODES[word]
    assert code is not None
    wish = Wish(
        code=code,
        reason=str(reason) if reason else None,
        present=frozenset(CODES[one] for one in words),
        pupils=frozenset(_names(args, "pupils")),
        by=desk.who.by_id,
        level=level_of(desk),
    )
    if not wish.is_written_right():
        raise RequestProblem("bad-request", "code_reason is a slug, or minutes when the code is late")
    return wish


def _names(args: Args, name: str) -> list[str]:
    found = args.get(name) or []
    if not isinstance(found, list) or not all(isinstance(one, str) for one in found) or len(found) > _REGISTERS_MAX:
        raise RequestProblem("bad-request", f"{name} is a list of names")
    return found


async def plan_of(desk: Desk, args: Args, wish: Wish) -> Plan:
    """Every cell in question, by class, date, session and pupil.

    Registers that nothing has arrived for are not among them: they are nobody's to fill by a list.

    Raises:
        RequestProblem: `bad-request`.
    """
    reader, school = desk.db, text(args, "school")
    rows = await _outcomes(reader, args, "class_id, date, session, revision, body")
    asking: dict[str, int] = {}
    ahead: dict[str, bool] = {}
    for day in sorted({row[1] for row in rows}):
        calendar = await calendar_of(reader, school, desk.config.zone, int(day[:4]))
        register = RegisterId(school, "c", day, "day")
        asking[day] = asking_ends_ms(register, calendar)
        ahead[day] = day_window(register, calendar.zone).opens_ms > desk.now_ms

    aliases = await aliases_of(reader, school)

    def work() -> list[Cell]:
        found: list[Cell] = []
        for class_id, day, session, _, body in rows:
            outcome = unpack_outcome(body, f"{school}/{class_id}/{day}/{session}")
            # What waits for another person's approval is not put through by its author as a list.
            own = {aliases.get(held.key, held.key) for held in outcome.held if held.user_id == wish.by}
            cells = cells_of(outcome, wish, locked=desk.now_ms >= asking[day], ahead=ahead[day])
            found += [
                replace(cell, bar=Bar.OWN_MARK) if cell.bar is None and cell.pupil in own else cell for cell in cells
            ]
        return found

    cells = await desk.ports.aside.run(work)
    if len(cells) > CELLS_MAX:
        raise RequestProblem("bad-request", f"{len(cells)} cells are no correction: at most {CELLS_MAX} at once")
    return Plan(wish=wish, cells=tuple(cells), seen=tuple(tuple(row[:4]) for row in rows))


async def still_holds(reader: Reader, args: Args, plan: Plan) -> bool:
    """Whether no register in question has changed since the plan was made, and none is about to."""
    if await is_settling(reader, text(args, "school")):
        return False
    rows = await _outcomes(reader, args, "class_id, date, session, revision")
    return tuple(rows) == plan.seen


async def _outcomes(reader: Reader, args: Args, columns: str) -> list[Row]:
    (first, last), session, classes = span_of(args), args.get("session"), _names(args, "classes")
    if not args.get("from") or not args.get("until"):
        raise RequestProblem("bad-request", "from and until are needed")
    sql = f"SELECT {columns} FROM whole_outcomes WHERE school = ? AND date >= ? AND date <= ?"
    params: list[object] = [text(args, "school"), first, last]
    if classes:
        sql += f" AND class_id IN ({placeholders(len(classes))})"
        params += classes
    if session is not None:
        if not isinstance(session, str) or not is_session(session):
            raise RequestProblem("bad-request", "the session is day, am1-am8 or pm1-pm8")
        sql += " AND session = ?"
        params.append(session)
    rows = await reader.fetch_all(f"{sql} ORDER BY class_id, date, session LIMIT {_REGISTERS_MAX + 1}", params)
    if len(rows) > _REGISTERS_MAX:
        raise RequestProblem("bad-request", f"more than {_REGISTERS_MAX} registers: fewer classes or days at once")
    return rows


def shown_plan(plan: Plan) -> dict[str, Any]:
    """A preview: what would be changed, and what stands against the rest."""
    wish, cells = plan.wish, plan.cells
    free = plan.free
    barred = [one for one in cells if one.bar is not None]
    return {
        "digest": plan.digest,
        "to": {"code": wish.code.word, "reason": wish.reason},
        "count": len(free),
        "needs_second": needs_second(cells),
        "cells": [_shown_cell(one) for one in free[:SHOWN_MAX]],
        "refused": [{**_shown_cell(one), "why": one.bar.value} for one in barred[:SHOWN_MAX] if one.bar],
        "refused_by": dict(Counter(one.bar.value for one in barred if one.bar is not None)),
    }


def _shown_cell(cell: Cell) -> dict[str, Any]:
    return {"register": cell.register, "pupil": cell.pupil, "now": word_of(cell.code), "now_reason": cell.reason}
