"""The order `explain`: reads everything about one pupil in one register and lets the rules put it in words."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from clientcore.change import Change, parse
from clientcore.register import RegisterId, is_id
from reconciliation.explain import Explanation, Trail, explain
from reconciliation.model import Context, Outcome
from syncserver.access import ApiRole, Args, Desk, Order, named_register, roles, text
from syncserver.errors import RequestProblem
from syncserver.orders.deciding import key_of, register_of
from syncserver.settling import CHANGES_PER_REGISTER_MAX, settle_anew
from syncserver.store.key import Key
from syncserver.store.port import Reader, placeholders
from syncserver.store.registers import StoredChange, changes_of, outcome_of
from syncserver.store.surroundings import context_of
from syncserver.store.told import told_of

_AUDIT = "SELECT id, at_ms, actor, action, reason FROM audit WHERE"
_AUDIT_MAX = 200
_IN_MAX = 500

AuditRow = tuple[int, int, str, str, str]
"""id, at_ms, actor, action, reason."""


async def order_explain(desk: Desk, args: Args, _: bytes) -> dict[str, Any]:
    """`register`, `pupil`: why this pupil's answer is what it is, step by step, in Arabic and English."""
    register, pupil = register_of(args), text(args, "pupil")
    if not is_id(pupil):
        raise RequestProblem("bad-request", "pupil is an id")
    return await explained(desk.db, desk, register, pupil)


async def explained(reader: Reader, desk: Desk, register: RegisterId, pupil: str) -> dict[str, Any]:
    """The explanation as plain data, with the register's revision."""
    key = key_of(register)
    stored = await changes_of(reader, key, 1 << 53, CHANGES_PER_REGISTER_MAX)
    context = await context_of(reader, key, desk.config.zone)
    last = await outcome_of(reader, key)
    if last is None and not stored and pupil not in context.roster:
        raise RequestProblem("not-found", f"{register}: not taken, and {pupil} is not on the list of that day")
    ids = _ids(pupil, context)
    trail = Trail(
        told=await _told(reader, register, ids[0]),
        audit=await _audit(reader, key, ids, stored, context),
        dead=await _dead(reader, key),
    )
    body = None if last is None else last.body
    made = await desk.ports.aside.run(lambda: _explain(key, stored, context, pupil, trail, body))
    return {**made.to_wire(), "revision": None if last is None else last.revision}


def _explain(
    key: Key, stored: Sequence[StoredChange], context: Context, pupil: str, trail: Trail, body: bytes | None
) -> Explanation:
    """What is official is computed from the log; when the settle stage is behind, the last step says so."""
    anew = settle_anew(key, stored, context)
    outcome = Outcome.from_wire(json.loads(anew))
    known: list[Change] = [parse(one.chunk) for one in stored if one.hash in outcome.changes]
    unsettled = anew != body and (body is not None or bool(stored))
    trail = Trail(told=trail.told, audit=trail.audit, dead=trail.dead, unsettled=unsettled)
    return explain(pupil, known, {one.hash: one.receipt for one in stored}, context, outcome, trail)


def _ids(pupil: str, context: Context) -> list[str]:
    """The canonical id, then every record merged into it."""
    canonical = context.aliases.get(pupil, pupil)
    return [canonical, *sorted(alias for alias, stands in context.aliases.items() if stands == canonical)]


async def _told(reader: Reader, register: RegisterId, pupil: str) -> list[dict[str, Any]]:
    told = await told_of(reader, key_of(register))
    return [
        {**event["data"], "type": event["type"], "time": event["time"]}
        for _, events in told
        for event in events
        if event["data"].get("pupil") == pupil
    ]


async def _audit(
    reader: Reader, key: Key, ids: Sequence[str], stored: Sequence[StoredChange], context: Context
) -> list[AuditRow]:
    """Rows about the pupil, changes with their authors and devices, merges, bulk operations, delegations, the day."""
    register, school = "/".join(key), key[0]
    authors = {one.receipt.user_id for one in stored}
    bulks = await reader.fetch_all(
        f"""SELECT DISTINCT bulk_id FROM decisions WHERE school = ? AND class_id = ? AND date = ? AND session = ?
        AND kind = 'rule' AND pupil IN ({placeholders(len(ids))})""",
        [*key, *ids],
    )
    subjects = [
        *(f"{register}/{name}" for name in ids),
        *(f"{school}/{name}" for name in {*ids, *authors}),
        *(f"{register}/{one.hash.hex()}" for one in stored),
        *{one.receipt.device.hex() for one in stored},
        *(f"{school}/bulk/{row[0]}" for row in bulks),
        register,
    ]
    found: dict[int, AuditRow] = {}
    for at in range(0, len(subjects), _IN_MAX):
        part = subjects[at : at + _IN_MAX]
        await _add(reader, found, f"subject IN ({placeholders(len(part))}) AND action NOT IN ('enrol', 'code')", part)
    used = sorted(
        {r.delegation for name in authors for r in context.entitled.get(name, ()) if r.delegation is not None}
    )
    if used:
        where = f"id IN (SELECT audit_id FROM delegations WHERE id IN ({placeholders(len(used))}))"
        await _add(reader, found, where, used)
    await _add(reader, found, "id IN (SELECT audit_id FROM calendar_exceptions WHERE date = ?)", [key[2]])
    return [found[row_id] for row_id in sorted(found)]


async def _add(reader: Reader, found: dict[int, AuditRow], where: str, params: Sequence[object]) -> None:
    for row in await reader.fetch_all(f"{_AUDIT} {where} ORDER BY id LIMIT {_AUDIT_MAX}", params):
        found[row[0]] = (row[0], row[1], row[2], row[3], row[4])


async def _dead(reader: Reader, key: Key) -> list[tuple[int, str]]:
    rows = await reader.fetch_all(
        """SELECT log_offset, code FROM dead_letters WHERE school = ? AND class_id = ? AND date = ? AND session = ?
        AND requeued = 0 ORDER BY log_offset""",
        key,
    )
    return [(row[0], row[1]) for row in rows]


ORDERS: Mapping[str, Order] = {
    "explain": Order(
        run=order_explain,
        roles=roles(ApiRole.CHAMPION, ApiRole.DISTRICT, ApiRole.CENTRAL, ApiRole.AUDITOR),
        about=named_register,
    ),
}
