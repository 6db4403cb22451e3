"""Orders about disputes: two people marked a pupil differently without having seen each other's mark.

Nobody was wrong to write down what they saw. A named person who made none of the marks says which one stands; the
others stay where they are. The word holds for exactly the marks that person saw: a new one opens the question again.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from reconciliation.conflicts import provisional
from reconciliation.decisions import Level
from reconciliation.model import Answer, VisibleMark
from syncserver.access import ApiRole, Args, Desk, Order, named_register, named_school, only, refusal, roles, text
from syncserver.orders.deciding import (
    REGISTERS_MAX,
    Sheet,
    change_of,
    check_central,
    key_of,
    level_of,
    need_sheet,
    reference_of,
    register_of,
    sheets_of,
    shown,
    shown_mark,
    span_of,
)
from syncserver.store import audit
from syncserver.store.deciding import review_keys, settle_again, write_decision
from syncserver.store.key import Key
from syncserver.store.port import Reader

_CALM = (
    "Different marks were made by people who had not seen each other's. All are kept and nobody is at fault.",
    "سجّل أكثر من شخص علامات مختلفة قبل أن يرى أحدهم علامة الآخر. كل العلامات محفوظة، ولا خطأ من أحد.",
)


async def order_disputes(desk: Desk, args: Args, _: bytes) -> dict[str, Any]:
    """`school`; `from`, `until`: dates; `all` true: also those that a person has settled."""
    school, (first, last) = text(args, "school"), span_of(args)
    kinds = ("choose",) if args.get("all") is True else ()
    keys = await review_keys(desk.db, school, kinds=kinds, first=first, last=last, limit=REGISTERS_MAX + 1)
    found: list[dict[str, Any]] = []
    async for sheet in sheets_of(desk, keys[:REGISTERS_MAX]):
        for pupil, answer in sheet.outcome.answers.items():
            if answer.disputed or (kinds and answer.chosen_by is not None):
                found.append(_shown_dispute(sheet, pupil, answer))
    return {"school": school, "en": _CALM[0], "ar": _CALM[1], "disputes": found, "more": len(keys) > REGISTERS_MAX}


def _shown_dispute(sheet: Sheet, pupil: str, answer: Answer) -> dict[str, Any]:
    return {
        "register": str(sheet.register),
        "pupil": pupil,
        "state": "open" if answer.disputed else "settled",
        "stands": shown(answer),
        "chosen_by": answer.chosen_by,
        "values": [shown_mark(mark) for mark in answer.values],
    }


async def order_settle(desk: Desk, args: Args, _: bytes) -> dict[str, Any]:
    """`register`, `pupil`, `change` (hex, 8 digits at least: its mark stands), `reason`; `reference` from central."""
    register = register_of(args)
    reason, reference, by, now_ms = text(args, "reason"), reference_of(desk, args), desk.who.by_id, desk.now_ms
    key = key_of(register)
    async with desk.db.transaction() as tx:
        sheet = await need_sheet(desk, register, tx)
        digest, named = change_of(sheet, args), text(args, "pupil")
        pupil = sheet.context.aliases.get(named, named)
        answer = sheet.outcome.answers.get(pupil)
        mark = _chosen(answer, digest, by)
        assert answer is not None
        if answer.chosen_by is not None:
            check_central(desk, await _chosen_from(tx, key, pupil))
        among = sorted({one.change_hash.hex() for one in answer.values})
        after = {"change": digest.hex(), "code": mark.code.word, "reference": reference}
        audit_id = await audit.record(
            tx, at_ms=now_ms, actor=desk.who.actor, action="dispute-settle", subject=f"{register}/{pupil}",
            reason=reason, before={**shown(answer), "disputed": answer.disputed, "among": among}, after=after,
        )  # fmt: skip
        await write_decision(
            tx, key, kind="choose", pupil=pupil, body={"among": among, "chosen": digest.hex(), "value": mark.value},
            by=by, level=level_of(desk), reference=reference, at_ms=now_ms, audit_id=audit_id,
        )  # fmt: skip
        await settle_again(tx, [key], at_ms=now_ms)
    return {"register": str(register), "pupil": pupil, **after, "audit": audit_id}


async def _chosen_from(reader: Reader, key: Key, pupil: str) -> Level:
    """From where the choice came that counts now."""
    row = await reader.fetch_one(
        """SELECT level FROM decisions WHERE school = ? AND class_id = ? AND date = ? AND session = ? AND pupil = ?
        AND kind = 'choose' AND undone_ms IS NULL ORDER BY id DESC LIMIT 1""",
        (*key, pupil),
    )
    return Level.SCHOOL if row is None else Level(row[0])


def _chosen(answer: Answer | None, digest: bytes, by: str) -> VisibleMark:
    """The mark that shall stand.

    Raises:
        RequestProblem: `rule`: there is nothing in dispute, or this person made one of the marks.
    """
    marks = [] if answer is None else [one for one in answer.values if one.change_hash == digest]
    if answer is None or not marks or not (answer.disputed or answer.chosen_by is not None):
        raise refusal(
            "nothing-to-decide",
            "This pupil is in no dispute, or this change has no mark in it. A new mark may have ended or changed it.",
            arabic="لا خلاف على علامة هذا التلميذ، أو لا توجد له علامة في هذا التغيير. ربما أنهته علامة جديدة.",
            who="nobody",
        )
    if by in {one.user_id for one in answer.values}:
        raise refusal(
            "party-to-the-dispute",
            "Whoever made one of the marks does not choose between them.",
            arabic="من سجّل إحدى العلامات لا يفصل بينها.",
            who="another champion of the school, or central",
        )
    return provisional(marks)[0]


ORDERS: Mapping[str, Order] = {
    "disputes": Order(
        run=order_disputes,
        roles=roles(ApiRole.CHAMPION, ApiRole.DISTRICT, ApiRole.CENTRAL, ApiRole.AUDITOR),
        about=named_school,
    ),
    "dispute-settle": Order(run=order_settle, roles=only(ApiRole.CHAMPION, ApiRole.CENTRAL), about=named_register),
}
