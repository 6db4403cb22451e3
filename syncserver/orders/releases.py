"""Orders about held changes: what waits, and a named person letting one change into the outcome."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from clientcore.change import parse
from clientcore.errors import HudurError
from clientcore.register import RegisterId
from reconciliation.decisions import Level
from reconciliation.scope import OUT_OF_SCOPE, REVOKED
from syncserver.access import ApiRole, Args, Desk, Order, named_register, named_school, only, refusal, roles, text
from syncserver.errors import RequestProblem
from syncserver.orders.deciding import reference_of
from syncserver.store import audit
from syncserver.store.port import Reader, Transaction, placeholders

RELEASE = "release"
RELEASABLE = frozenset((OUT_OF_SCOPE, REVOKED))
"""Causes a person may set aside: they are about the author's right. The others are about the change itself."""

_ANOTHER = "another champion of the school, or central"
_WHO_OPENS = {
    OUT_OF_SCOPE: (
        f"{_ANOTHER}, by `release`; or whoever has the class, by `delegate`",
        "اعتماد من منسّق آخر، أو تفويض",
    ),
    REVOKED: (f"{_ANOTHER}, by `release`", "اعتماد من منسّق آخر أو من الإدارة المركزية"),
    "unknown-pupil": ("the school system, by the roster; or identity, when it is a double record", "تحديث قائمة الفصل"),
    "equivocation": (
        "nobody: a copied phone said it twice, one of the two counts",
        "لا يلزم إجراء: إحدى النسختين محسوبة",
    ),
    "pending": ("the author's phone, by sending what it builds on", "إرسال ما يسبقه من هاتف صاحبه"),
    "inconsistent": ("an operator, see the dead letters", "مراجعة مشغّل النظام"),
    "poison": ("an operator, see the dead letters", "مراجعة مشغّل النظام"),
    "register-full": ("an operator: the register has more changes than a register can have", "مراجعة مشغّل النظام"),
}
_SHOWN_MAX = 200
_PREFIX_MIN = 8  # hex digits of a change's hash that name it inside one register

_HELD = f"""
SELECT c.log_offset, c.class_id, c.date, c.session, c.hash, s.slug, d.user_id, d.id, f.received_ms,
  substr(f.body, c.chunk_at, c.chunk_bytes)
FROM settlements s JOIN changes c ON c.log_offset = s.log_offset JOIN frames f ON f.id = c.frame_id
JOIN devices d ON d.id = f.device
WHERE s.school = ? AND s.slug IN ({placeholders(len(_WHO_OPENS))}) ORDER BY c.log_offset LIMIT {_SHOWN_MAX + 1}"""
_CHANGES = """
SELECT c.hash, d.user_id, s.slug, s.state FROM changes c JOIN frames f ON f.id = c.frame_id
JOIN devices d ON d.id = f.device LEFT JOIN settlements s ON s.log_offset = c.log_offset
WHERE c.school = ? AND c.class_id = ? AND c.date = ? AND c.session = ?"""


async def order_held(desk: Desk, args: Args, _: bytes) -> dict[str, Any]:
    """`school`: changes that are stored and wait, the oldest first: cause, age, author's id, who can open it."""
    school = text(args, "school")
    rows = await desk.db.fetch_all(_HELD, (school, *_WHO_OPENS))
    found = []
    for _offset, class_id, date, session, digest, slug, user_id, device, received_ms, chunk in rows[:_SHOWN_MAX]:
        who, arabic = _WHO_OPENS[slug]
        found.append(
            {
                "register": f"{school}/{class_id}/{date}/{session}",
                "change": digest.hex(),
                "cause": slug,
                "by": user_id,
                "device": device.hex(),
                "received_ms": received_ms,
                "age_ms": desk.now_ms - received_ms,
                "marks": {op.key: op.value for op in parse(chunk).ops if op.value is not None},
                "releasable": slug in RELEASABLE and user_id != desk.who.user_id,
                "who": who,
                "ar": arabic,
            }
        )
    return {"school": school, "held": found, "more": len(rows) > _SHOWN_MAX}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Named:
    """The change an order names, and what became of it."""

    register: RegisterId
    hash: bytes
    author: str
    slug: str | None
    settled: bool

    @property
    def key(self) -> tuple[str, str, str, str]:
        return (self.register.school, self.register.class_id, self.register.date, self.register.session)


async def _named(reader: Reader, args: Args) -> _Named:
    """The change in `register` and `change` (its hash, or enough first digits of it).

    Raises:
        RequestProblem: `bad-request`, `not-found`.
    """
    prefix = text(args, "change").lower()
    try:
        register = RegisterId.parse(text(args, "register"))
    except HudurError:
        raise RequestProblem("bad-request", "register is school/class/date/session") from None
    if len(prefix) < _PREFIX_MIN or set(prefix) - set("0123456789abcdef"):
        raise RequestProblem("bad-request", f"change is the hash in hex, at least {_PREFIX_MIN} digits of it")
    key = (register.school, register.class_id, register.date, register.session)
    rows = [row for row in await reader.fetch_all(_CHANGES, key) if row[0].hex().startswith(prefix)]
    if len(rows) != 1:
        raise RequestProblem("not-found", f"{prefix}: {len(rows)} changes of this register begin so")
    digest, author, slug, state = rows[0]
    return _Named(register=register, hash=digest, author=author, slug=slug, settled=state is not None)


async def order_release(desk: Desk, args: Args, _: bytes) -> dict[str, Any]:
    """`register`, `change` (hex), `reason`; central also `reference`. The whole change counts from the next round."""
    reason, reference = text(args, "reason"), reference_of(desk, args)
    async with desk.db.transaction() as tx:
        one = await _named(tx, args)
        if await _released_by(tx, one) is None:
            _check_release(desk, one)
            audit_id = await _record(tx, desk, one, RELEASE, reason, after={"cause": one.slug, "reference": reference})
            await tx.execute(
                """INSERT INTO decisions (kind, school, class_id, date, session, change_hash, body_json, by_id, level,
                reference, at_ms, audit_id) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)""",
                (
                    *(RELEASE, *one.key, one.hash, json.dumps({"reason": reason}), desk.who.by_id),
                    *(_level(desk).value, reference, desk.now_ms, audit_id),
                ),
            )
    return {"register": str(one.register), "change": one.hash.hex(), "by": one.author, "released": True}


def _level(desk: Desk) -> Level:
    return Level.CENTRAL if desk.who.role is ApiRole.CENTRAL else Level.SCHOOL


def _check_release(desk: Desk, one: _Named) -> None:
    """Refuse by rule.

    Raises:
        RequestProblem: `rule`.
    """
    if one.author == desk.who.user_id:
        raise refusal(
            "own-work",
            "nobody releases a change of their own",
            arabic="اعتماد العمل لا يكون من صاحبه",
            who=_ANOTHER,
        )
    if not one.settled:
        raise refusal(
            "not-settled",
            "this change is being looked at; in a minute it counts or is held",
            arabic="هذا التسجيل قيد المراجعة الآلية؛ يُرجى المحاولة بعد دقيقة",
            who="you, in a minute",
        )
    if one.slug not in RELEASABLE:
        who, arabic = _WHO_OPENS.get(one.slug or "", ("nobody: it is not held", "لا يلزم إجراء: التسجيل غير معلّق"))
        raise refusal(
            "not-held",
            "a release sets aside the author's missing right; this change is not held for that"
            + (f" but as {one.slug}" if one.slug else ""),
            arabic=arabic,
            who=who,
        )


async def _released_by(tx: Transaction, one: _Named) -> tuple[int, str] | None:
    """Number and level of the release that counts for a change."""
    row = await tx.fetch_one(
        """SELECT id, level FROM decisions WHERE kind = 'release' AND school = ? AND class_id = ? AND date = ?
        AND session = ? AND change_hash = ? AND undone_ms IS NULL""",
        (*one.key, one.hash),
    )
    return None if row is None else (row[0], row[1])


async def order_undo(desk: Desk, args: Args, _: bytes) -> dict[str, Any]:
    """`register`, `change`, `reason`: the change is held again, unless its author has got the right meanwhile."""
    reason = text(args, "reason")
    async with desk.db.transaction() as tx:
        one = await _named(tx, args)
        release = await _released_by(tx, one)
        if release is None:
            raise RequestProblem("not-found", "nobody has released this change")
        number, level = release
        if level == Level.CENTRAL and _level(desk) is not Level.CENTRAL:
            raise refusal(
                "central-decision",
                "what the central office released, only the central office holds again",
                arabic="قرار الإدارة المركزية لا يُلغى إلا منها",
                who="central",
            )
        await tx.execute("UPDATE decisions SET undone_ms = ? WHERE id = ?", (desk.now_ms, number))
        await _record(tx, desk, one, "release-undo", reason, before={"decision": number})
    return {"register": str(one.register), "change": one.hash.hex(), "by": one.author, "released": False}


async def _record(
    tx: Transaction,
    desk: Desk,
    one: _Named,
    action: str,
    reason: str,
    before: Mapping[str, object] | None = None,
    after: Mapping[str, object] | None = None,
) -> int:
    """Audit the decision and have its register settled again."""
    await tx.execute(
        "INSERT INTO settle_again (school, class_id, date, session, cause, at_ms) VALUES (?, ?, ?, ?, ?, ?)",
        (*one.key, action, desk.now_ms),
    )
    return await audit.record(
        tx,
        at_ms=desk.now_ms,
        actor=desk.who.actor,
        action=action,
        subject=f"{one.register}/{one.hash.hex()}",
        reason=reason,
        before=before,
        after=after,
    )


_DECIDERS = only(ApiRole.CHAMPION, ApiRole.CENTRAL)
ORDERS: Mapping[str, Order] = {
    "held": Order(
        run=order_held,
        roles=roles(ApiRole.CHAMPION, ApiRole.DISTRICT, ApiRole.CENTRAL, ApiRole.AUDITOR),
        about=named_school,
    ),
    RELEASE: Order(run=order_release, roles=_DECIDERS, about=named_register),
    "release-undo": Order(run=order_undo, roles=_DECIDERS, about=named_register),
}
