"""The order that says where schools lie: the calendar of a governorate holds for its schools."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from itertools import islice
from typing import Any

from clientcore.register import is_id
from syncserver.access import ApiRole, Args, Desk, Order, every_school, roles, text
from syncserver.errors import RequestProblem
from syncserver.store import audit, calendars
from syncserver.store.port import Reader, Transaction

_COLUMNS = ("school", "district", "governorate")
_LINES_MAX = 100_000  # there are some 60,000 schools in the country
_TOLD_MAX = 20  # unknown schools and wrong lines named in an answer

Places = dict[str, tuple[str, str]]
"""School to (district, governorate)."""


async def order_place(desk: Desk, args: Args, data: bytes) -> dict[str, Any]:
    """`school`, `district`, `governorate`, `reference`; or a CSV file with these columns as the body, `dry_run`.

    Of a file, lines of schools that nobody knows here are listed and left out; a line that cannot be read refuses it
    whole.
    """
    reference = text(args, "reference")
    places = _read_csv(data) if data else _read_one(args)
    dry_run = args.get("dry_run") is True
    async with desk.db.transaction() as tx:
        known = {row[0] for row in await tx.fetch_all("SELECT school FROM schools")}
        await _check_names(tx, places, known)
        unknown = sorted(places.keys() - known)
        if unknown and not data:
            raise RequestProblem("not-found", f"{unknown[0]}: no such school")
        before = await _places(tx)
        fresh = {school: place for school, place in places.items() if school in known and before.get(school) != place}
        audit_id = await _apply(tx, desk, fresh, before, reference) if fresh and not dry_run else None
    return {
        "state": "dry-run" if dry_run else "applied" if fresh else "unchanged",
        "placed": len(fresh),
        "unchanged": len(places) - len(fresh) - len(unknown),
        "unknown": unknown[:_TOLD_MAX],
        "unknown_count": len(unknown),
        "audit": audit_id,
    }


async def _apply(
    tx: Transaction, desk: Desk, fresh: Places, before: Mapping[str, tuple[str, str]], reference: str
) -> int:
    audit_id = await audit.record(
        tx,
        at_ms=desk.now_ms,
        actor=desk.who.actor,
        action="place",
        subject=next(iter(fresh)) if len(fresh) == 1 else f"{len(fresh)} schools",
        reason=reference,
        before={"places": {school: before[school] for school in sorted(fresh) if school in before}},
        after={"places": dict(sorted(fresh.items())), "reference": reference},
    )
    await calendars.write_places(tx, fresh, audit_id)
    # Another governorate is another calendar: every register of the school may be on another side of a holiday.
    moved = [school for school, (_, governorate) in fresh.items() if before.get(school, ("", ""))[1] != governorate]
    await tx.executemany(
        "INSERT INTO settle_again (school, class_id, date, session, cause, at_ms) VALUES (?, NULL, NULL, NULL, ?, ?)",
        [(school, "calendar", desk.now_ms) for school in moved],
    )
    return audit_id


async def _places(reader: Reader) -> Places:
    rows = await reader.fetch_all("SELECT school, district, governorate FROM places")
    return {school: (district, governorate) for school, district, governorate in rows}


async def _check_names(reader: Reader, places: Places, known: set[str]) -> None:
    """A governorate is no school: scopes of the calendar are told apart by their names."""
    taken = known | places.keys()
    wrong = sorted({governorate for _, governorate in places.values()} & taken)
    if wrong:
        raise RequestProblem("bad-request", f"{wrong[0]} is a school, not a governorate")
    old = await reader.fetch_all("SELECT DISTINCT governorate FROM places")
    wrong = sorted({row[0] for row in old} & places.keys())
    if wrong:
        raise RequestProblem("bad-request", f"{wrong[0]} is a governorate, not a school")


def _read_one(args: Args) -> Places:
    school, district, governorate = (text(args, name, chars_max=36) for name in _COLUMNS)
    for name, value in zip(_COLUMNS, (school, district, governorate), strict=True):
        if not is_id(value):
            raise RequestProblem("bad-request", f"{name} is an id: letters, digits, . _ - (1 to 36)")
    return {school: (district, governorate)}


def _read_csv(data: bytes) -> Places:
    try:
        content = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise RequestProblem("bad-request", "the file is not UTF-8") from None
    try:
        lines = list(islice(csv.reader(io.StringIO(content), strict=True), _LINES_MAX + 1))
    except csv.Error as wrong:
        raise RequestProblem("bad-request", f"the file is no CSV: {wrong}") from None
    if len(lines) > _LINES_MAX:
        raise RequestProblem("bad-request", f"more than {_LINES_MAX} lines: cut the file")
    if not lines or tuple(name.strip().lower() for name in lines[0]) != _COLUMNS:
        raise RequestProblem("bad-request", f"the first line reads {','.join(_COLUMNS)}")
    places: Places = {}
    wrong_lines = []
    for number, line in enumerate(lines[1:], 2):
        cells = [cell.strip() for cell in line]
        if not any(cells):
            continue
        if len(cells) != len(_COLUMNS) or not all(map(is_id, cells)) or cells[0] in places:
            wrong_lines.append(number)
            continue
        places[cells[0]] = (cells[1], cells[2])
    if wrong_lines or not places:
        where = ", ".join(map(str, wrong_lines[:_TOLD_MAX])) or "none"
        raise RequestProblem("bad-request", f"nothing was applied; lines that cannot be read or come twice: {where}")
    return places


ORDERS: Mapping[str, Order] = {"place": Order(run=order_place, roles=roles(ApiRole.CENTRAL), about=every_school)}
