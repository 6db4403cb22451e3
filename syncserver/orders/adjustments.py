"""Orders about adjustments: what is asked, until when the school can decide, and the decision itself."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from clientcore.change import Change
from clientcore.register import Mark
from reconciliation.adjustments import Request, Stage, request_of
from reconciliation.decisions import Level, Reason
from reconciliation.model import Receipt, Timeliness
from reconciliation.reconcile import ADJUSTMENT_LOCKED, ADJUSTMENT_REJECTED, WINDOW_CLOSED
from reconciliation.wire import iso
from syncserver.access import ApiRole, Args, Desk, Order, named_register, named_school, only, refusal, roles, text
from syncserver.errors import RequestProblem
from syncserver.orders.deciding import (
    REGISTERS_MAX,
    Sheet,
    change_of,
    key_of,
    level_of,
    need_sheet,
    reference_of,
    register_of,
    sheets_of,
    shown,
    span_of,
)
from syncserver.store import audit
from syncserver.store.deciding import review_keys, settle_again, write_decision

_HELD = frozenset((WINDOW_CLOSED, ADJUSTMENT_LOCKED, ADJUSTMENT_REJECTED))


async def order_adjustments(desk: Desk, args: Args, _: bytes) -> dict[str, Any]:
    """`school`; `from`, `until`: dates; `all` true: also what is decided."""
    school, (first, last) = text(args, "school"), span_of(args)
    kinds = ("approve", "reject") if args.get("all") is True else ()
    keys = await review_keys(desk.db, school, kinds=kinds, first=first, last=last, limit=REGISTERS_MAX + 1)
    found: list[dict[str, Any]] = []
    async for sheet in sheets_of(desk, keys[:REGISTERS_MAX]):
        found += [one for one in _requests(sheet, desk.now_ms) if kinds or one["stage"] in ("waiting", "locked")]
    return {"school": school, "requests": found, "more": len(keys) > REGISTERS_MAX}


def _requests(sheet: Sheet, now_ms: int) -> list[dict[str, Any]]:
    found = []
    for digest, (change, receipt) in sheet.changes.items():
        cells = _cells(sheet, digest)
        request = request_of(sheet.register, change, receipt, sheet.context) if cells else None
        if request is not None:
            found.append(_shown_request(sheet, change, receipt, request, cells, now_ms))
    return found


def _cells(sheet: Sheet, digest: bytes) -> list[dict[str, Any]]:
    """What one change asks for, and what stands: of marks that nobody wrote over."""
    outcome, aliases = sheet.outcome, sheet.context.aliases
    cells: list[dict[str, Any]] = []
    for held in outcome.held:
        if held.change_hash == digest and held.slug in _HELD:
            stands = outcome.answers.get(aliases.get(held.key, held.key))
            now = None if held.key.startswith("~") else shown(stands)
            cells.append({"key": held.key, "now": now, "asked": _asked(held.key, held.value), "original": None})
    for pupil, answer in outcome.answers.items():
        if answer.change_hash == digest and answer.timeliness is Timeliness.ADJUSTMENT and answer.mark is not None:
            before = None if answer.original is None else answer.original.code.word
            asked = _asked(pupil, answer.mark.value)
            cells.append({"key": pupil, "now": shown(answer), "asked": asked, "original": before})
    return cells


def _asked(key: str, value: str) -> dict[str, object]:
    if key.startswith("~"):
        return {"code": value[0], "reason": value.partition(":")[2] or None}
    mark = Mark.parse(value)
    return {"code": mark.code.word, "reason": mark.reason}


def _shown_request(
    sheet: Sheet, change: Change, receipt: Receipt, request: Request, cells: list[dict[str, Any]], now_ms: int
) -> dict[str, Any]:
    calendar, locked_ms = sheet.calendar, request.locked_since_ms(now_ms)
    last_day = calendar.date_at(request.decide_by_ms - 1)
    waits = request.stage is Stage.WAITING and locked_ms is None
    word = request.approval
    return {
        "register": str(sheet.register),
        "change": change.hash.hex(),
        "author": receipt.user_id,
        "received_at": iso(receipt.received_at_ms),
        "cells": cells,
        "stage": Stage.LOCKED.value if locked_ms is not None else request.stage.value,
        "decide_until": last_day,
        "days_left": calendar.working_days_between(calendar.date_at(now_ms), last_day) if waits else None,
        "locked_since": None if locked_ms is None else iso(locked_ms),
        "who": None if not waits and locked_ms is None else "central" if locked_ms is not None else "champion",
        "decided": None if word is None else {
            "approved": word.approved, "reason": word.reason.value, "by": word.by, "level": word.level.value,
            "reference": word.reference, "at": iso(word.at_ms),
        },
    }  # fmt: skip


async def order_approve(desk: Desk, args: Args, _: bytes) -> dict[str, Any]:
    """`register`, `change` (hex, 8 digits at least), `reason` (a code of `decisions.Reason`), `reference`."""
    return await _decide(desk, args, approved=True)


async def order_reject(desk: Desk, args: Args, _: bytes) -> dict[str, Any]:
    """`register`, `change` (hex, 8 digits at least), `reason` (a code of `decisions.Reason`), `reference`."""
    return await _decide(desk, args, approved=False)


async def _decide(desk: Desk, args: Args, *, approved: bool) -> dict[str, Any]:
    register, reason = register_of(args), _reason(args)
    reference, level, by, now_ms = reference_of(desk, args), level_of(desk), desk.who.by_id, desk.now_ms
    if reason is Reason.DOCUMENTED and not reference:
        raise refusal(
            "reference-needed",
            "The reason `documented` names the document.",
            arabic="سبب «مستند» يلزم معه ذكر رقم المستند.",
            who="whoever names the document",
        )
    key, action = key_of(register), "adjustment-approve" if approved else "adjustment-reject"
    async with desk.db.transaction() as tx:
        sheet = await need_sheet(desk, register, tx)
        digest = change_of(sheet, args)
        change, receipt = sheet.changes[digest]
        request = request_of(register, change, receipt, sheet.context)
        _check(sheet, receipt, request, by=by, level=level, approved=approved, now_ms=now_ms)
        assert request is not None
        before = {"stage": request.stage.value} | ({} if request.approval is None else {"by": request.approval.by})
        after = {"stage": (Stage.APPROVED if approved else Stage.REJECTED).value, "level": level.value,
                 "reference": reference, "cells": _cells(sheet, digest)}  # fmt: skip
        audit_id = await audit.record(
            tx, at_ms=now_ms, actor=desk.who.actor, action=action, subject=f"{register}/{digest.hex()}",
            reason=reason.value, before=before, after=after,
        )  # fmt: skip
        body = {"reason": reason.value, "asked_by_ms": request.asked_by_ms, "decide_by_ms": request.decide_by_ms}
        await write_decision(
            tx, key, kind="approve" if approved else "reject", change=digest, body=body, by=by, level=level,
            reference=reference, at_ms=now_ms, audit_id=audit_id,
        )  # fmt: skip
        await settle_again(tx, [key], at_ms=now_ms)
    return {"register": str(register), "change": digest.hex(), **after, "reason": reason.value, "audit": audit_id}


def _reason(args: Args) -> Reason:
    try:
        return Reason(text(args, "reason"))
    except ValueError:
        raise RequestProblem("bad-request", f"the reason is one of {', '.join(Reason)}") from None


def _check(
    sheet: Sheet, receipt: Receipt, request: Request | None, *, by: str, level: Level, approved: bool, now_ms: int
) -> None:
    """Whether this person may decide this request now.

    Raises:
        RequestProblem: `rule`, which says the rest.
    """
    same = None if request is None or request.approval is None else request.approval.approved is approved
    if request is None or same or sheet.outcome.changes[receipt.change_hash].slug in ("out-of-scope", "revoked"):
        raise refusal(
            "nothing-to-decide",
            "This change holds no adjustment, it is held for another reason, or this is decided already.",
            arabic="لا يوجد في هذا التغيير طلب تعديل ينتظر قرارًا، أو تم اتخاذ هذا القرار من قبل.",
            who="nobody",
        )
    if by == receipt.user_id:
        raise refusal(
            "approver-is-author",
            "Nobody decides an adjustment of their own.",
            arabic="لا يعتمد أحد طلب تعديل قدّمه بنفسه.",
            who="another champion of the school, or central",
        )
    if level is Level.CENTRAL:
        return
    if request.approval is not None and request.approval.level is Level.CENTRAL:
        raise refusal(
            "decided-centrally",
            "The central office has decided this; only it can decide again.",
            arabic="صدر في هذا الطلب قرار مركزي، ولا يتغيّر إلا بقرار مركزي.",
            who="central, with a reference",
            closed_on=iso(request.approval.at_ms),
        )
    closed_ms = request.locked_since_ms(now_ms)
    if closed_ms is None and request.approval is not None and now_ms >= request.decide_by_ms:
        closed_ms = request.decide_by_ms
    if closed_ms is not None:
        day = sheet.calendar.date_at(closed_ms - 1)
        raise refusal(
            "adjustment-locked",
            f"The three working days ended with {day}; the school can no longer decide.",
            arabic=f"انتهت مهلة أيام العمل الثلاثة بنهاية يوم {day}، ولم يعد القرار للمدرسة.",
            who="central, with a reference",
            closed_on=day,
        )


_DECIDERS = only(ApiRole.CHAMPION, ApiRole.CENTRAL)
ORDERS: Mapping[str, Order] = {
    "adjustments": Order(
        run=order_adjustments,
        roles=roles(ApiRole.CHAMPION, ApiRole.DISTRICT, ApiRole.CENTRAL, ApiRole.AUDITOR),
        about=named_school,
    ),
    "adjustment-approve": Order(run=order_approve, roles=_DECIDERS, about=named_register),
    "adjustment-reject": Order(run=order_reject, roles=_DECIDERS, about=named_register),
}
