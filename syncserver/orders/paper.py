"""Orders about the paper record: type a sheet in, bring many in, see what was typed, say which paper is compared."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from datetime import date as Date
from typing import Any

from clientcore.errors import BadInput
from clientcore.register import RegisterId, is_date, is_id
from reconciliation.calendar import days_of_week, week_of
from reconciliation.gate import next_week
from reconciliation.paper import Entry, Sheet, read_sheet
from reconciliation.parity import Key
from syncserver.access import (
    ApiRole,
    Args,
    Desk,
    Order,
    every_school,
    named_register,
    named_school,
    refusal,
    roles,
    text,
)
from syncserver.calendar import local_date
from syncserver.errors import RequestProblem
from syncserver.paper_file import ERRORS_MAX, Checker, read_document, read_file, read_marks
from syncserver.store import audit
from syncserver.store import paper as rows
from syncserver.store.paper import ALL_SCHOOLS, NewEntry, PaperRule
from syncserver.store.port import Reader

_YEAR_MIN, _YEAR_MAX = 2000, 2100


def _today(desk: Desk) -> str:
    return local_date(desk.now_ms, desk.config.zone).isoformat()


async def order_paper_enter(desk: Desk, args: Args, _: bytes) -> dict[str, Any]:
    """`register`, `document`, `signed_by`, `marks`: pupil to code, only who was absent or late."""
    try:
        register = RegisterId.parse(text(args, "register"))
    except BadInput as error:
        raise RequestProblem("bad-request", error.detail) from None
    marks = args.get("marks", {})
    if not isinstance(marks, Mapping):
        raise RequestProblem("bad-request", "marks is an object: pupil to code")
    entry = NewEntry(
        school=register.school,
        key=(register.class_id, register.date, register.session),
        document=read_document(text(args, "document")),
        signed_by=text(args, "signed_by", chars_max=36),
        marks=read_marks(marks),
    )
    mistakes = await Checker(reader=desk.db, today=_today(desk)).check(entry)
    if mistakes:
        raise RequestProblem(
            "bad-request", "; ".join(one.en for one in mistakes), extra={"ar": "؛ ".join(one.ar for one in mistakes)}
        )
    async with desk.db.transaction() as tx:
        before = (await rows.last_said(tx, [entry], desk.who.actor)).get(entry.sheet)
        if before == entry.said:
            return {"register": str(register), "state": "unchanged"}
        audit_id = await audit.record(
            tx,
            at_ms=desk.now_ms,
            actor=desk.who.actor,
            action="paper",
            subject=str(register),
            reason="",
            before={} if before is None else {"signed_by": before[0], "marks": before[1]},
            after={"document": entry.document.value, "signed_by": entry.signed_by, "marks": entry.said[1]},
        )
        ids = await rows.write_entries(tx, [entry], entered_by=desk.who.actor, at_ms=desk.now_ms, audit_id=audit_id)
    return {"register": str(register), "state": "entered", "entry": ids[0], "audit": audit_id}


async def order_paper_import(desk: Desk, args: Args, data: bytes) -> dict[str, Any]:
    """A CSV file is the body; `dry_run`. With one mistake in it, nothing is written."""
    dry_run, actor = args.get("dry_run") is True, desk.who.actor
    entries, mistakes, lines = await read_file(data, Checker(reader=desk.db, today=_today(desk)))
    report = {
        "state": "errors" if mistakes else "dry-run" if dry_run else "applied",
        "lines": lines,
        "sheets": len(entries),
        "errors": [one.plain() for one in mistakes[:ERRORS_MAX]],
        "error_count": len(mistakes),
    }
    if mistakes or dry_run:
        known = {} if mistakes else await rows.last_said(desk.db, entries, actor)
        return {**report, "added": 0, "would_add": sum(known.get(one.sheet) != one.said for one in entries)}
    async with desk.db.transaction() as tx:
        known = await rows.last_said(tx, entries, actor)
        new = [one for one in entries if known.get(one.sheet) != one.said]
        if new:
            audit_id = await audit.record(
                tx, at_ms=desk.now_ms, actor=actor, action="paper-import", subject=hashlib.sha256(data).hexdigest(),
                reason="", after={"lines": lines, "sheets": len(entries), "added": len(new)},
            )  # fmt: skip
            await rows.write_entries(tx, new, entered_by=actor, at_ms=desk.now_ms, audit_id=audit_id)
    return {**report, "added": len(new)}


async def paper_list(reader: Reader, school: str, week: str) -> dict[str, Any]:
    """What was typed of a school's sheets in one week, and what of it counts."""
    days = days_of_week(week)
    rule = rows.rule_in(await rows.rules_of(reader, school), week)
    entries = await rows.entries_of(reader, school, days[0], days[-1])
    sheets = []
    for key, some in sorted(entries.items()):
        sheet = read_sheet(some, rule.document, two_person=rule.two_person)
        sheets.append(_plain_sheet(key, some, sheet))
    return {
        "school": school,
        "week": week,
        "document": rule.document.value,
        "two_person": rule.two_person,
        "sheets": sheets,
    }


def _plain_sheet(key: Key, entries: list[Entry], sheet: Sheet | None) -> dict[str, Any]:
    counted = [] if sheet is None else [entry.id for entry in sheet.entries]
    return {
        "register": "/".join(key),
        "state": "other_document" if sheet is None else sheet.state.value,
        "marks": {} if sheet is None else {pupil: code.word for pupil, code in sorted(sheet.marks.items())},
        "differences": [] if sheet is None else list(sheet.differences),
        "entries": [
            {
                "id": one.id,
                "document": one.document.value,
                "signed_by": one.signed_by,
                "entered_by": one.entered_by,
                "at_ms": one.at_ms,
                "marks": {pupil: code.word for pupil, code in sorted(one.marks.items())},
                "replaced": sheet is not None and one.document in {e.document for e in sheet.entries}
                and one.id not in counted,
            }
            for one in entries
        ],
    }  # fmt: skip


def read_week(args: Args, today: str) -> str:
    """The week of the date in `week`; this week without one.

    Raises:
        RequestProblem: `bad-request`.
    """
    date = args.get("week") or today
    if not isinstance(date, str) or not is_date(date) or not _YEAR_MIN <= int(date[:4]) < _YEAR_MAX:
        raise RequestProblem("bad-request", f"week is a date YYYY-MM-DD, from {_YEAR_MIN} to {_YEAR_MAX - 1}")
    return week_of(date)


async def order_paper_list(desk: Desk, args: Args, _: bytes) -> dict[str, Any]:
    """`school`, `week` (any date of it): every entry, what counts, and where people read different things."""
    return await paper_list(desk.db, text(args, "school"), read_week(args, _today(desk)))


async def order_paper_rule(desk: Desk, args: Args, _: bytes) -> dict[str, Any]:
    """`school` (`*`: all), `document`, `two_person`, `from_week`, `reason`: holds from a week that has not begun."""
    school, reason, today = text(args, "school"), text(args, "reason"), _today(desk)
    if school != ALL_SCHOOLS and not is_id(school):
        raise RequestProblem("bad-request", "a school, or * for all")
    week = read_week({"week": args.get("from_week") or next_week(week_of(today))}, today)
    if Date.fromisoformat(week) <= Date.fromisoformat(today):
        raise refusal(
            "paper-rule-ahead",
            "Which paper is compared is settled before a week begins, so that nobody can choose by what a week shows.",
            arabic="تحديد المستند الورقي المعتمد للمقارنة يكون قبل بداية الأسبوع، ولا يسري على أسبوع بدأ.",
            who=f"central, for weeks from {next_week(week_of(today))} on",
            closed_on=week,
        )
    rule = PaperRule(
        from_week=week, document=read_document(text(args, "document")), two_person=args.get("two_person") is True
    )
    async with desk.db.transaction() as tx:
        before = rows.rule_in(await rows.rules_of(tx, school), week)
        audit_id = await audit.record(
            tx, at_ms=desk.now_ms, actor=desk.who.actor, action="paper-rule", subject=school, reason=reason,
            before={"document": before.document.value, "two_person": before.two_person},
            after={"document": rule.document.value, "two_person": rule.two_person, "from_week": week},
        )  # fmt: skip
        await rows.write_rule(tx, school, rule, at_ms=desk.now_ms, audit_id=audit_id)
    return {"school": school, "from_week": week, "document": rule.document.value, "two_person": rule.two_person,
            "audit": audit_id}  # fmt: skip


_READERS = roles(ApiRole.CHAMPION, ApiRole.DISTRICT, ApiRole.CENTRAL, ApiRole.AUDITOR)
ORDERS: Mapping[str, Order] = {
    "paper-enter": Order(run=order_paper_enter, roles=roles(ApiRole.CHAMPION), about=named_register),
    "paper-import": Order(run=order_paper_import, roles=roles(), about=every_school),
    "paper-list": Order(run=order_paper_list, roles=_READERS, about=named_school),
    "paper-rule": Order(run=order_paper_rule, roles=roles(ApiRole.CENTRAL), about=every_school),
}
