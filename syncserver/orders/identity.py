"""Orders about duplicate records of one pupil: merged by a named person, never by a machine, taken back for 72 h."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from reconciliation.decisions import Level
from reconciliation.identity import candidates
from reconciliation.wire import iso
from syncserver.access import ApiRole, Args, Desk, Order, named_school, number, only, refusal, roles, text
from syncserver.calendar import local_date
from syncserver.errors import RequestProblem
from syncserver.orders.deciding import check_central, level_of, reference_of
from syncserver.store import audit
from syncserver.store.deciding import keys_of_pupils, settle_again
from syncserver.store.decisions import aliases_of
from syncserver.store.port import Reader, Transaction

UNDO_MS = 72 * 3_600_000
_MERGES = """SELECT id, alias, canonical, reason, by_id, at_ms, undone_ms FROM aliases WHERE school = ? ORDER BY id"""


async def order_merge(desk: Desk, args: Args, _: bytes) -> dict[str, Any]:
    """`school`, `alias` (the duplicate), `canonical` (the record that stays), `reason`; `reference` from central."""
    school, reason, reference = text(args, "school"), text(args, "reason"), reference_of(desk, args)
    now_ms = desk.now_ms
    async with desk.db.transaction() as tx:
        alias = await _pupil(tx, school, text(args, "alias"))
        canonical = await _pupil(tx, school, text(args, "canonical"))
        known = await aliases_of(tx, school)
        _check_merge(alias, canonical, known)
        audit_id = await audit.record(
            tx, at_ms=now_ms, actor=desk.who.actor, action="pupil-merge", subject=f"{school}/{alias}", reason=reason,
            before={"canonical": alias}, after={"canonical": canonical, "reference": reference},
        )  # fmt: skip
        await tx.execute(
            """INSERT INTO aliases (school, alias, canonical, reason, by_id, at_ms, audit_id)
            VALUES (?, ?, ?, ?, ?, ?, ?)""",
            (school, alias, canonical, reason, desk.who.by_id, now_ms, audit_id),
        )
        row = await tx.fetch_one("SELECT max(id) FROM aliases WHERE school = ?", (school,))
        assert row is not None
        registers = await _settle_pupils(tx, school, {alias, canonical}, known, now_ms)
    return {"merge": row[0], "school": school, "alias": alias, "canonical": canonical, "registers": registers,
            "undo_until": iso(now_ms + UNDO_MS), "audit": audit_id}  # fmt: skip


async def _pupil(reader: Reader, school: str, name: str) -> str:
    """A pupil's id, also as SCHOOL/ID.

    Raises:
        RequestProblem: `rule` for another school's, `not-found`.
    """
    of, _, pupil = name.rpartition("/")
    if of and of != school:
        raise refusal(
            "one-school",
            "Records are merged inside one school; a pupil who moved has a record in each.",
            arabic="لا يتم الدمج إلا داخل مدرسة واحدة؛ والتلميذ المنقول له سجل في كل مدرسة.",
            who="the school system, by correcting the records",
        )
    if await reader.fetch_one("SELECT 1 FROM users WHERE school = ? AND id = ? AND role = 'pupil'", (school, pupil)):
        return pupil
    raise RequestProblem("not-found", f"{pupil}: no pupil of this school")


def _check_merge(alias: str, canonical: str, known: Mapping[str, str]) -> None:
    stands = known.get(canonical, canonical)
    if stands == alias:
        raise refusal(
            "same-record",
            "This is one record already: nothing is merged with itself.",
            arabic="هذا سجل واحد بالفعل، ولا يُدمج سجل مع نفسه.",
            who="nobody",
        )
    if alias in known:
        raise refusal(
            "merged-already",
            f"{alias} is merged into {known[alias]}. Take that back first, or merge {known[alias]} itself.",
            arabic=f"تم دمج السجل {alias} في السجل {known[alias]} من قبل. يلزم التراجع عن ذلك أولًا.",
            who="champion, by undoing the merge",
        )


async def _settle_pupils(tx: Transaction, school: str, ids: set[str], known: Mapping[str, str], now_ms: int) -> int:
    """Have every register settled again that may hold one of the records, those merged into them included."""
    ends = {known.get(one, one) for one in ids}
    all_ids = ids | ends | {alias for alias, canonical in known.items() if canonical in ends | ids}
    keys = await keys_of_pupils(tx, school, all_ids)
    # Phones ask by this number whether their class lists have changed: see store/lists.py.
    await tx.execute("UPDATE schools SET roster_version = roster_version + 1 WHERE school = ?", (school,))
    await settle_again(tx, keys, at_ms=now_ms)
    return len(keys)


async def order_undo(desk: Desk, args: Args, _: bytes) -> dict[str, Any]:
    """`school`, `merge` (number), `reason`; `reference` from central, who may also after 72 hours."""
    school, merge_id, reason = text(args, "school"), number(args, "merge"), text(args, "reason")
    reference, now_ms = reference_of(desk, args), desk.now_ms
    async with desk.db.transaction() as tx:
        row = await tx.fetch_one(
            "SELECT alias, canonical, at_ms, undone_ms, by_id FROM aliases WHERE school = ? AND id = ?",
            (school, merge_id),
        )
        if row is None:
            raise RequestProblem("not-found", f"{merge_id}: no such merge in this school")
        alias, canonical, at_ms, undone_ms, by_id = row
        # Of those who may merge only the central office speaks with a token; no user id has a colon.
        check_central(desk, Level.CENTRAL if ":" in by_id else Level.SCHOOL)
        if undone_ms is not None:
            raise _undone(undone_ms)
        if now_ms >= at_ms + UNDO_MS and level_of(desk) is not Level.CENTRAL:
            raise undo_closed(at_ms + UNDO_MS)
        known = await aliases_of(tx, school)
        await tx.execute("UPDATE aliases SET undone_ms = ? WHERE id = ?", (now_ms, merge_id))
        audit_id = await audit.record(
            tx, at_ms=now_ms, actor=desk.who.actor, action="pupil-merge-undo", subject=f"{school}/{alias}",
            reason=reason, before={"canonical": canonical, "merge": merge_id},
            after={"canonical": alias, "reference": reference},
        )  # fmt: skip
        registers = await _settle_pupils(tx, school, {alias, canonical}, known, now_ms)
    return {"merge": merge_id, "school": school, "alias": alias, "registers": registers, "audit": audit_id}


def _undone(undone_ms: int) -> RequestProblem:
    return refusal(
        "undone-already",
        "This was taken back already.",
        arabic="تم التراجع عن هذا من قبل.",
        who="nobody",
        closed_on=iso(undone_ms),
    )


def undo_closed(closed_ms: int) -> RequestProblem:
    """What is told 72 hours after a merge or bulk operation."""
    return refusal(
        "undo-closed",
        f"It could be taken back for 72 hours, until {iso(closed_ms)}.",
        arabic=f"كان التراجع متاحًا لمدة ٧٢ ساعة، حتى {iso(closed_ms)}.",
        who="central, with a reference",
        closed_on=iso(closed_ms),
    )


async def order_merges(desk: Desk, args: Args, _: bytes) -> dict[str, Any]:
    """`school`."""
    school = text(args, "school")
    known = await aliases_of(desk.db, school)
    rows = await desk.db.fetch_all(_MERGES, (school,))
    return {
        "school": school,
        "merges": [
            {
                "merge": merge_id,
                "alias": alias,
                "canonical": canonical,
                "stands_for_it": None if undone_ms is not None else known.get(alias, canonical),
                "reason": reason,
                "by": by,
                "at": iso(at_ms),
                "undone_at": None if undone_ms is None else iso(undone_ms),
                "undo_until": iso(at_ms + UNDO_MS),
                "undo_open": undone_ms is None and desk.now_ms < at_ms + UNDO_MS,
            }
            for merge_id, alias, canonical, reason, by, at_ms, undone_ms in rows
        ],
    }


async def order_duplicates(desk: Desk, args: Args, _: bytes) -> dict[str, Any]:
    """`school`: records of one class with the same name, spelling aside. Nothing is merged by it: twins are real."""
    school, today = text(args, "school"), local_date(desk.now_ms, desk.config.zone).isoformat()
    known = await aliases_of(desk.db, school)
    rows = await desk.db.fetch_all(
        """SELECT DISTINCT m.class_id, m.user_id, u.name FROM members m
        JOIN users u ON u.school = m.school AND u.id = m.user_id
        WHERE m.school = ? AND m.role = 'pupil' AND m.from_date <= ? AND (m.until_date IS NULL OR m.until_date > ?)""",
        (school, today, today),
    )
    found = candidates((row[0], row[1], row[2]) for row in rows if row[1] not in known)
    return {"school": school, "candidates": [{"class": class_id, "pupils": list(ids)} for class_id, ids in found]}


_DECIDERS = only(ApiRole.CHAMPION, ApiRole.CENTRAL)
_READERS = roles(ApiRole.CHAMPION, ApiRole.DISTRICT, ApiRole.CENTRAL, ApiRole.AUDITOR)
ORDERS: Mapping[str, Order] = {
    "pupil-merge": Order(run=order_merge, roles=_DECIDERS, about=named_school),
    "pupil-merge-undo": Order(run=order_undo, roles=_DECIDERS, about=named_school),
    "pupil-merges": Order(run=order_merges, roles=_READERS, about=named_school),
    "duplicates": Order(run=order_duplicates, roles=_READERS, about=named_school),
}
