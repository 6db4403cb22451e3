"""Orders about many cells at once: preview, apply, a second person where it is large, undo for 72 hours."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from typing import Any

from reconciliation.bulk import CELLS_ALONE_MAX, UNDO_MS, Wish, needs_second, stands, word_of
from reconciliation.decisions import Level
from reconciliation.wire import iso
from syncserver.access import ApiRole, Args, Desk, Order, named_school, number, only, refusal, roles, text
from syncserver.errors import RequestProblem
from syncserver.orders.bulk_plan import CODES, Plan, plan_of, shown_plan, still_holds, wish_of
from syncserver.orders.deciding import check_central, level_of, reference_of, shown
from syncserver.orders.identity import undo_closed
from syncserver.store import audit
from syncserver.store.deciding import settle_again, write_decisions
from syncserver.store.key import Key
from syncserver.store.packed import unpack_outcome
from syncserver.store.port import Reader, Row, Transaction

_ARGS = ("school", "classes", "from", "until", "session", "pupils", "present", "code", "code_reason")
_CELLS = """
SELECT d.school, d.class_id, d.date, d.session, d.pupil, d.body_json, (SELECT count(*) FROM decisions n
  WHERE n.school = d.school AND n.class_id = d.class_id AND n.date = d.date AND n.session = d.session
  AND n.pupil = d.pupil AND n.kind = 'rule' AND n.id > d.id AND n.undone_ms IS NULL)
FROM decisions d WHERE d.bulk_id = ? AND d.undone_ms IS NULL ORDER BY d.id"""
_OUTCOMES = """
SELECT o.school, o.class_id, o.date, o.session, o.body FROM whole_outcomes o
JOIN (SELECT DISTINCT school, class_id, date, session FROM decisions WHERE bulk_id = ?) AS d
ON d.school = o.school AND d.class_id = o.class_id AND d.date = o.date AND d.session = o.session"""
_BULK = """SELECT id, school, state, cells, plan_json, reason, by_id, second_by, asked_ms, applied_ms, undone_ms
FROM bulks WHERE school = ?"""


async def order_preview(desk: Desk, args: Args, _: bytes) -> dict[str, Any]:
    """`school`, `from`, `until`, `code` (a word); perhaps `classes`, `session`, `pupils`, `present` (words: only cells
    that say one of these now), `code_reason` (slug, for *late* minutes).
    """
    return shown_plan(await plan_of(desk, args, wish_of(desk, args)))


async def order_apply(desk: Desk, args: Args, _: bytes) -> dict[str, Any]:
    """The preview's arguments, its `digest`, `reason`; `reference` from central. Over 500 cells wait for another."""
    digest, reason, reference = text(args, "digest"), text(args, "reason"), reference_of(desk, args)
    school, now_ms, plan = text(args, "school"), desk.now_ms, await _held_plan(desk, args, wish_of(desk, args), digest)
    waits, wish = needs_second(plan.cells), plan.wish
    async with desk.db.transaction() as tx:
        await _check_still(tx, args, plan)
        row = await tx.fetch_one("SELECT coalesce(max(id), 0) + 1 FROM bulks")
        assert row is not None
        bulk_id = int(row[0])
        after = {"bulk": bulk_id, "state": "waiting" if waits else "applied", "cells": len(plan.free), "digest": digest,
                 "code": wish.code.word, "code_reason": wish.reason, "reference": reference}  # fmt: skip
        audit_id = await audit.record(
            tx, at_ms=now_ms, actor=desk.who.actor, action="bulk-apply", subject=f"{school}/bulk/{bulk_id}",
            reason=reason, before=dict(Counter(word_of(one.code) for one in plan.free)), after=after,
        )  # fmt: skip
        kept = {"args": {name: args[name] for name in _ARGS if args.get(name)}, "digest": digest,
                "level": wish.level.value, "reference": reference}  # fmt: skip
        await tx.execute(
            """INSERT INTO bulks (id, school, state, cells, plan_json, reason, by_id, asked_ms, applied_ms, audit_id)
            VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)""",
            (bulk_id, school, after["state"], len(plan.free), json.dumps(kept, sort_keys=True), reason, wish.by,
             now_ms, None if waits else now_ms, audit_id),
        )  # fmt: skip
        if not waits:
            await _rule(tx, plan, bulk_id, reference, now_ms, audit_id)
    return {**after, "school": school, "audit": audit_id}


async def _held_plan(desk: Desk, args: Args, wish: Wish, digest: str) -> Plan:
    """The plan, which must be the one that was previewed, and do something.

    It is made before the transaction: that takes long, and `_check_still` finds out in no time what has changed since.
    """
    plan = await plan_of(desk, args, wish)
    if plan.digest != digest:
        raise _changed()
    if not plan.free:
        raise _nothing()
    return plan


async def _check_still(tx: Transaction, args: Args, plan: Plan) -> None:
    if not await still_holds(tx, args, plan):
        raise _changed()


def _changed() -> RequestProblem:
    return refusal(
        "preview-changed",
        "The cells are not those of the preview any more. Look again before you decide.",
        arabic="تغيّرت البيانات بعد المعاينة. يلزم عرض معاينة جديدة قبل التنفيذ.",
        who="whoever asks, after a new preview",
    )


def _nothing() -> RequestProblem:
    return refusal(
        "nothing-to-decide",
        "No cell would be changed.",
        arabic="لا توجد خانة يمكن تغييرها.",
        who="nobody",
    )


async def _rule(tx: Transaction, plan: Plan, bulk_id: int, reference: str, now_ms: int, audit_id: int) -> None:
    rows, keys, wish = [], [], plan.wish
    for cell in plan.free:
        key = _key(cell.register)
        body = {"among": [one.hex() for one in cell.among], "code": wish.code.value, "reason": wish.reason}
        rows.append(
            ("rule", *key, cell.pupil, None, json.dumps(body, sort_keys=True), wish.by, wish.level.value, reference,
             now_ms, bulk_id, audit_id)
        )  # fmt: skip
        keys.append(key)
    await write_decisions(tx, rows)
    await settle_again(tx, keys, at_ms=now_ms)


def _key(register: str) -> Key:
    school, class_id, day, session = register.split("/")
    return school, class_id, day, session


async def order_second(desk: Desk, args: Args, _: bytes) -> dict[str, Any]:
    """`school`, `bulk` (number), `reason`; `reference` from central: the second person agrees, and it is applied."""
    school, bulk_id, reason = text(args, "school"), number(args, "bulk"), text(args, "reason")
    reference, now_ms = reference_of(desk, args), desk.now_ms
    row = await _bulk(desk.db, school, bulk_id)
    kept, asked_by = json.loads(row[4]), row[6]
    if row[2] != "waiting":
        raise _nothing()
    if desk.who.by_id == asked_by:
        raise refusal(
            "second-person",
            f"More than {CELLS_ALONE_MAX} cells need another person than the one who asked.",
            arabic=f"تغيير أكثر من {CELLS_ALONE_MAX} خانة يلزمه شخص آخر غير من طلبه.",
            who="another champion of the school, the district, or central",
        )
    plan = await _held_plan(desk, kept["args"], _wish_again(kept, asked_by), kept["digest"])
    async with desk.db.transaction() as tx:
        await _check_still(tx, kept["args"], plan)
        done = await tx.execute(
            "UPDATE bulks SET state = 'applied', second_by = ?, applied_ms = ? WHERE id = ? AND state = 'waiting'",
            (desk.who.by_id, now_ms, bulk_id),
        )
        if not done:
            raise _nothing()
        after = {"bulk": bulk_id, "state": "applied", "cells": len(plan.free), "digest": plan.digest,
                 "reference": reference}  # fmt: skip
        audit_id = await audit.record(
            tx, at_ms=now_ms, actor=desk.who.actor, action="bulk-second", subject=f"{school}/bulk/{bulk_id}",
            reason=reason, before={"state": "waiting", "by": asked_by}, after=after,
        )  # fmt: skip
        await _rule(tx, plan, bulk_id, kept["reference"], now_ms, audit_id)
    return {**after, "school": school, "audit": audit_id}


def _wish_again(plan: Mapping[str, Any], asked_by: str) -> Wish:
    """The wish of whoever asked, from the stored plan."""
    args = plan["args"]
    code = CODES[args["code"]]
    assert code is not None
    return Wish(
        code=code,
        reason=args.get("code_reason"),
        present=frozenset(CODES[one] for one in args.get("present", ())),
        pupils=frozenset(args.get("pupils", ())),
        by=asked_by,
        level=Level(plan["level"]),
    )


async def _bulk(reader: Reader, school: str, bulk_id: int) -> Row:
    row = await reader.fetch_one(f"{_BULK} AND id = ?", (school, bulk_id))
    if row is None:
        raise RequestProblem("not-found", f"{bulk_id}: no such bulk operation in this school")
    return row


async def order_undo(desk: Desk, args: Args, _: bytes) -> dict[str, Any]:
    """`school`, `bulk` (number), `reason`; `reference` from central, who may also after 72 hours."""
    school, bulk_id, reason = text(args, "school"), number(args, "bulk"), text(args, "reason")
    reference, now_ms = reference_of(desk, args), desk.now_ms
    _, _, state, cells, kept, _, _, _, _, applied_ms, _ = await _bulk(desk.db, school, bulk_id)
    check_central(desk, Level(json.loads(kept)["level"]))
    if applied_ms is not None and now_ms >= applied_ms + UNDO_MS and level_of(desk) is not Level.CENTRAL:
        raise undo_closed(applied_ms + UNDO_MS)
    restored, rest = await _standing(desk, bulk_id)
    async with desk.db.transaction() as tx:
        done = await tx.execute(
            "UPDATE bulks SET state = 'undone', undone_ms = ? WHERE id = ? AND state = ?", (now_ms, bulk_id, state)
        )
        if not done or state == "undone":
            raise _nothing()
        await tx.execute(
            "UPDATE decisions SET undone_ms = ? WHERE bulk_id = ? AND undone_ms IS NULL", (now_ms, bulk_id)
        )
        after = {"state": "undone", "restored": len(restored), "touched": len(rest), "reference": reference}
        audit_id = await audit.record(
            tx, at_ms=now_ms, actor=desk.who.actor, action="bulk-undo", subject=f"{school}/bulk/{bulk_id}",
            reason=reason, before={"state": state, "cells": cells}, after=after,
        )  # fmt: skip
        await settle_again(tx, [_key(one["register"]) for one in (*restored, *rest)], at_ms=now_ms)
    return {"bulk": bulk_id, "school": school, "state": "undone", "restored": restored, "touched": rest,
            "audit": audit_id}  # fmt: skip


async def _standing(desk: Desk, bulk_id: int) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Cells that still show what this operation said, and those that somebody touched since, with what they show.

    All its rulings end: one whose marks have changed says nothing already, and shall not speak again later.
    """
    rows = await desk.db.fetch_all(_CELLS, (bulk_id,))
    bodies = await desk.db.fetch_all(_OUTCOMES, (bulk_id,))

    def work() -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
        outcomes = {tuple(key): unpack_outcome(body, "/".join(key)) for *key, body in bodies}
        restored, rest = [], []
        for *key, pupil, body, newer in rows:
            answer = outcomes[tuple(key)].answers.get(pupil)
            cell = {"register": "/".join(key), "pupil": pupil}
            if not newer and stands(answer, (bytes.fromhex(one) for one in json.loads(body)["among"])):
                restored.append(cell)
            else:
                rest.append({**cell, "now": shown(answer)})
        return restored, rest

    return await desk.ports.aside.run(work)


async def order_bulks(desk: Desk, args: Args, _: bytes) -> dict[str, Any]:
    """`school`."""
    school = text(args, "school")
    return {
        "school": school,
        "bulks": [
            {
                "bulk": bulk_id,
                "state": state,
                "cells": cells,
                "asked": json.loads(plan)["args"],
                "reason": reason,
                "by": by,
                "second_by": second_by,
                "asked_at": iso(asked_ms),
                "applied_at": None if applied_ms is None else iso(applied_ms),
                "undone_at": None if undone_ms is None else iso(undone_ms),
                "undo_until": None if applied_ms is None else iso(applied_ms + UNDO_MS),
                "undo_open": undone_ms is None and (applied_ms is None or desk.now_ms < applied_ms + UNDO_MS),
            }
            for bulk_id, _, state, cells, plan, reason, by, second_by, asked_ms, applied_ms, undone_ms in (
                await desk.db.fetch_all(f"{_BULK} ORDER BY id", (school,))
            )
        ],
    }


_DECIDERS = (ApiRole.CHAMPION, ApiRole.CENTRAL)
_READERS = roles(ApiRole.CHAMPION, ApiRole.DISTRICT, ApiRole.CENTRAL, ApiRole.AUDITOR)
ORDERS: Mapping[str, Order] = {
    "bulk-preview": Order(run=order_preview, roles=_READERS, about=named_school),
    "bulk-apply": Order(run=order_apply, roles=only(*_DECIDERS), about=named_school),
    "bulk-second": Order(run=order_second, roles=only(*_DECIDERS, ApiRole.DISTRICT), about=named_school),
    "bulk-undo": Order(run=order_undo, roles=only(*_DECIDERS), about=named_school),
    "bulks": Order(run=order_bulks, roles=_READERS, about=named_school),
}
