"""Orders about who may take which register in whose stead: delegations, made in seconds by whoever has the post."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

from clientcore.register import is_date
from reconciliation.calendar import SchoolCalendar
from reconciliation.clocks import midnight_ms
from reconciliation.delegation import Wish, dates_of, list_dates, refuse
from reconciliation.model import Context, Right, Zone
from syncserver.access import ApiRole, Args, Desk, Order, named_school, only, refusal, roles, text
from syncserver.calendar import local_date, zone_table
from syncserver.errors import RequestProblem
from syncserver.store import audit, roster
from syncserver.store.port import Reader, Transaction
from syncserver.store.surroundings import context_of

_CLASSES_MAX = 40
_MS_MAX = 4_102_444_800_000  # the year 2100; beyond it nobody means what was typed
_SHOWN_MAX = 500
_ROW = ("id", "class", "by", "to", "from_ms", "until_ms", "reason", "made_ms", "ended_ms")


async def order_delegate(desk: Desk, args: Args, _: bytes) -> dict[str, Any]:
    """`school`, `classes` (ids), `to` (user id), `from`, `until`, `reason`.

    A moment is in ms, or ISO in the school's local time (`2026-11-22T08:00`); a date alone is the whole day.
    """
    school, reason, by = text(args, "school"), text(args, "reason"), desk.who.user_id
    assert by is not None  # only people of the school have the roles for this order
    wish = Wish(
        by=by,
        to=text(args, "to", chars_max=36),
        classes=_classes(args),
        from_ms=_moment(desk, args, "from"),
        until_ms=_moment(desk, args, "until"),
    )
    async with desk.db.transaction() as tx:
        contexts = {name: await _class_context(tx, desk, school, name) for name in wish.classes}
        calendar = contexts[wish.classes[0]].calendar
        assert calendar is not None
        found = refuse(
            wish,
            now_ms=desk.now_ms,
            calendar=calendar,
            rights={name: context.entitled.get(by, ()) for name, context in contexts.items()},
            delegate_spans=await _staff_spans(tx, school, wish.to, calendar.zone),
        )
        if found is not None:
            raise refusal(found.rule, found.detail, arabic=found.arabic, who=found.who, closed_on=found.closed_on)
        made = await _store(tx, desk, school, wish, calendar, reason)
    return {"school": school, "to": wish.to, "from_ms": wish.from_ms, "until_ms": wish.until_ms, "delegations": made}


def _classes(args: Args) -> tuple[str, ...]:
    given = args.get("classes")
    if type(given) is not list or not 0 < len(given) <= _CLASSES_MAX or any(type(one) is not str for one in given):
        raise RequestProblem("bad-request", f"classes is a list of 1 to {_CLASSES_MAX} class ids")
    return tuple(sorted(set(given)))


def _moment(desk: Desk, args: Args, name: str) -> int:
    """A moment in ms; of a date alone its first millisecond, or as an end the first one after it."""
    given = args.get(name)
    at_ms = given if type(given) is int else _local_ms(desk, str(given), is_end=name == "until")
    if at_ms is None or not 0 < at_ms < _MS_MAX:
        raise RequestProblem("bad-request", f"{name} is a moment: ms, or local time like 2026-11-22T08:00")
    return at_ms


def _local_ms(desk: Desk, written: str, *, is_end: bool) -> int | None:
    if is_date(written):
        return midnight_ms(written, zone_table(desk.config.zone, int(written[:4])), days_later=int(is_end))
    try:
        moment = datetime.fromisoformat(written)
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=ZoneInfo(desk.config.zone))
        return int(moment.timestamp() * 1000)
    except (ValueError, OverflowError):
        return None


async def _class_context(tx: Transaction, desk: Desk, school: str, class_id: str) -> Context:
    """What the settle stage knows of a class: its rights and its calendar are those it will ask for each mark."""
    today = local_date(desk.now_ms, desk.config.zone).isoformat()
    if class_id not in {one.id for one in await roster.classes_in(tx, school, today)}:
        raise RequestProblem("not-found", f"{class_id}: the school has no such class")
    return await context_of(tx, (school, class_id, today, "day"), desk.config.zone)


async def _staff_spans(reader: Reader, school: str, user_id: str, table: Zone) -> list[Right]:
    """When somebody is active staff of the school."""
    row = await reader.fetch_one(
        "SELECT from_date, until_date FROM users WHERE school = ? AND id = ? AND active = 1 AND role <> 'pupil'",
        (school, user_id),
    )
    if row is None:
        return []
    from_ms = 0 if row[0] is None else midnight_ms(row[0], table)
    return [Right(from_ms=from_ms, until_ms=None if row[1] is None else midnight_ms(row[1], table))]


async def _store(
    tx: Transaction, desk: Desk, school: str, wish: Wish, calendar: SchoolCalendar, reason: str
) -> dict[str, str]:
    """Write one row a class; the same wish again is the delegation that is there already."""
    span = (wish.from_ms, wish.until_ms)
    known: dict[str, str] = dict(
        await tx.fetch_all(
            """SELECT class_id, id FROM delegations WHERE school = ? AND by_user = ? AND to_user = ? AND from_ms = ?
            AND until_ms = ? AND ended_ms IS NULL""",
            (school, wish.by, wish.to, *span),
        )
    )
    made = {name: known.get(name) or f"d{desk.ports.random.bytes(8).hex()}" for name in wish.classes}
    new = {name: number for name, number in made.items() if name not in known}
    if not new:
        return made
    audit_id = await audit.record(
        tx,
        at_ms=desk.now_ms,
        actor=desk.who.actor,
        action="delegate",
        subject=f"{school}/{wish.to}",
        reason=reason,
        after={"delegations": new, "from_ms": wish.from_ms, "until_ms": wish.until_ms},
    )
    first, until = list_dates(*span, calendar)
    for name, number in new.items():
        await tx.execute(
            "INSERT INTO delegations VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, NULL, ?)",
            (number, school, name, wish.by, wish.to, *span, reason, desk.now_ms, audit_id),
        )
        await tx.execute(
            "INSERT INTO delegated_lists VALUES (?, ?, ?, ?, ?, ?)", (number, school, name, wish.to, first, until)
        )
        await _settle_again(tx, school, name, dates_of(*span, calendar), desk.now_ms)
    await roster.bump_version(tx, school)
    return made


async def _settle_again(tx: Transaction, school: str, class_id: str, dates: tuple[str, ...], now_ms: int) -> None:
    await tx.executemany(
        "INSERT INTO settle_again (school, class_id, date, cause, at_ms) VALUES (?, ?, ?, 'delegation', ?)",
        [(school, class_id, day, now_ms) for day in dates],
    )


async def about_delegation(reader: Reader, args: Args) -> str | None:
    """The school of the delegation in `id`."""
    row = await reader.fetch_one("SELECT school FROM delegations WHERE id = ?", (text(args, "id"),))
    if row is None:
        raise RequestProblem("not-found", f"{args['id']}: no such delegation")
    return str(row[0])


async def order_end(desk: Desk, args: Args, _: bytes) -> dict[str, Any]:
    """`id`, `reason`: it ends now. What was marked inside it counts, however late it arrives."""
    name, reason = text(args, "id"), text(args, "reason")
    async with desk.db.transaction() as tx:
        row = await tx.fetch_one(
            "SELECT school, class_id, by_user, from_ms, until_ms, ended_ms FROM delegations WHERE id = ?", (name,)
        )
        if row is None:
            raise RequestProblem("not-found", f"{name}: no such delegation")
        school, class_id, by, from_ms, until_ms, ended_ms = row
        if desk.who.role is ApiRole.TEACHER and desk.who.user_id != by:
            raise refusal(
                "delegation-maker",
                "a delegation is ended by who made it",
                arabic="إنهاء التفويض يكون ممن أصدره",
                who=f"user {by}, or a champion of the school",
            )
        if ended_ms is None and desk.now_ms < until_ms:
            ended_ms = desk.now_ms
            await tx.execute("UPDATE delegations SET ended_ms = ? WHERE id = ?", (ended_ms, name))
            today = local_date(desk.now_ms, desk.config.zone)
            await tx.execute(
                "UPDATE delegated_lists SET until_date = ? WHERE delegation = ?", (today.isoformat(), name)
            )
            table = zone_table(desk.config.zone, today.year)
            await _settle_again(
                tx, school, class_id, dates_of(from_ms, until_ms, SchoolCalendar(zone=table)), desk.now_ms
            )
            await roster.bump_version(tx, school)
            await audit.record(
                tx, at_ms=desk.now_ms, actor=desk.who.actor, action="delegation-end", subject=f"{school}/{name}",
                reason=reason, before={"until_ms": until_ms}, after={"ended_ms": ended_ms},
            )  # fmt: skip
    return {"id": name, "school": school, "class": class_id, "until_ms": until_ms, "ended_ms": ended_ms}


async def order_delegations(desk: Desk, args: Args, _: bytes) -> dict[str, Any]:
    """`school`; `running` (true: only those that are not over). A teacher sees those they made or stand in by."""
    school = text(args, "school")
    where, params = "", list[object]()
    if desk.who.role is ApiRole.TEACHER:
        where += " AND (by_user = ? OR to_user = ?)"
        params += [desk.who.user_id] * 2
    if args.get("running") is True:
        where += " AND ended_ms IS NULL AND until_ms > ?"
        params.append(desk.now_ms)
    rows = await desk.db.fetch_all(
        f"""SELECT id, class_id, by_user, to_user, from_ms, until_ms, reason, made_ms, ended_ms FROM delegations
        WHERE school = ?{where} ORDER BY from_ms DESC, id LIMIT {_SHOWN_MAX}""",
        (school, *params),
    )
    return {"school": school, "delegations": [dict(zip(_ROW, row, strict=True)) for row in rows]}


_MAKERS = only(ApiRole.CHAMPION, ApiRole.TEACHER)
ORDERS: Mapping[str, Order] = {
    "delegate": Order(run=order_delegate, roles=_MAKERS, about=named_school),
    "delegation-end": Order(run=order_end, roles=_MAKERS, about=about_delegation),
    "delegations": Order(
        run=order_delegations,
        roles=roles(ApiRole.CHAMPION, ApiRole.TEACHER, ApiRole.DISTRICT, ApiRole.CENTRAL, ApiRole.AUDITOR),
        about=named_school,
    ),
}
