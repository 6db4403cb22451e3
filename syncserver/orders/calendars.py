"""Orders of the central office: the school calendar, decided for all schools or a governorate, never for one school."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from datetime import date as Date
from datetime import timedelta
from functools import partial
from typing import Any

from clientcore.register import is_date
from reconciliation.calendar import REGULAR, DayRule, SessionTime, Timetable, Week
from reconciliation.errors import BadContext
from syncserver.access import ApiRole, Args, Desk, Order, every_school, number, refusal, roles, text
from syncserver.calendar import decide_days, settle_clocks
from syncserver.errors import RequestProblem
from syncserver.ical_read import read_days
from syncserver.store import audit, calendars
from syncserver.store.calendars import EVERY_SCHOOL
from syncserver.store.port import Reader, Transaction

WEEKDAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_SLUG = re.compile(r"[a-z0-9_]{1,24}")
_TIME = re.compile(r"([01]?\d|2[0-3]):([0-5]\d)|24:00")
_FIRST_YEAR, _LAST_YEAR = 2000, 2100
_DAYS_MAX = 400
_TOLD_MAX = 20  # events left out that an answer names


async def order_calendar(desk: Desk, args: Args, _: bytes) -> dict[str, Any]:
    """`date`, perhaps `to` (the last one); `open` (bool), or `clear`: true; `reason` (slug), `reference`, `scope`."""
    scope = await read_scope(desk.db, args)
    first = read_date(args, "date")
    last = read_date(args, "to") if args.get("to") is not None else first
    reason, reference = read_slug(args, "reason"), text(args, "reference")
    if args.get("clear") is True:
        rule, state = None, "cleared"
    elif isinstance(args.get("open"), bool):
        rule = DayRule(is_open=args["open"], reason=reason, reference=reference)
        state = "open" if rule.is_open else "closed"
    else:
        raise RequestProblem("bad-request", "open is true or false, or clear is true")
    count = (last - first).days + 1
    if not 1 <= count <= _DAYS_MAX:
        raise RequestProblem("bad-request", f"to is a date from {first}, at most {_DAYS_MAX} days later")
    days = {(first + timedelta(days=n)).isoformat(): rule for n in range(count)}
    async with desk.db.transaction() as tx:
        audit_id = await _decide(tx, desk, scope, days, reference=reference, reason=reason)
    return {"scope": scope, "date": first.isoformat(), "to": last.isoformat(), "state": state, "audit": audit_id}


async def order_import(desk: Desk, args: Args, data: bytes) -> dict[str, Any]:
    """The .ics file is the body; `reference`, `scope`, `reason` (slug of events that name none), `dry_run`."""
    scope, reference = await read_scope(desk.db, args), text(args, "reference")
    default = read_slug(args, "reason") if args.get("reason") is not None else "holiday"
    found = await desk.ports.aside.run(partial(read_days, data, default=default))
    days = {
        day: DayRule(is_open=one.is_open, reason=one.reason, reference=reference)
        for day, one in sorted(found.days.items())
    }
    audit_id: int | None = None
    async with desk.db.transaction() as tx:
        known = await calendars.read_days_of(tx, scope, list(days))
        fresh = {day: rule for day, rule in days.items() if not _says_the_same(known.get(day), rule)}
        if fresh and args.get("dry_run") is not True:
            digest = hashlib.sha256(data).hexdigest()
            audit_id = await _decide(tx, desk, scope, fresh, reference=reference, reason=f"file {digest}")
    return {
        "state": "dry-run" if args.get("dry_run") is True else "applied" if fresh else "unchanged",
        "scope": scope,
        "days": [[day, "open" if rule.is_open else "closed", rule.reason] for day, rule in fresh.items()],
        "unchanged": len(days) - len(fresh),
        "skipped": list(found.skipped[:_TOLD_MAX]),
        "skipped_count": len(found.skipped),
        "audit": audit_id,
    }


def _says_the_same(known: DayRule | None, rule: DayRule) -> bool:
    return known is not None and (known.is_open, known.reason) == (rule.is_open, rule.reason)


async def _decide(
    tx: Transaction, desk: Desk, scope: str, days: Mapping[str, DayRule | None], *, reference: str, reason: str
) -> int:
    return await decide_days(
        tx,
        scope,
        days,
        reference=reference,
        reason=reason,
        actor=desk.who.actor,
        now_ms=desk.now_ms,
        zone_name=desk.config.zone,
    )


async def order_week(desk: Desk, args: Args, _: bytes) -> dict[str, Any]:
    """`days` (sat, sun, …), `from`, perhaps `to` (the last day), `reference`, `scope`; or `end`: the number of one."""
    if args.get("end") is not None:
        return await _end(desk, args, "calendar_weeks", "calendar-week")
    scope, reference = await read_scope(desk.db, args), text(args, "reference")
    names = args.get("days")
    if not isinstance(names, list) or not names or not all(name in WEEKDAYS for name in names):
        raise RequestProblem("bad-request", f"days is a list of some of {', '.join(WEEKDAYS)}")
    first, until = read_date(args, "from"), None
    if args.get("to") is not None:
        until = (read_date(args, "to") + timedelta(days=1)).isoformat()
    try:
        week = Week(
            from_date=first.isoformat(),
            until_date=until,
            open_weekdays=frozenset(WEEKDAYS.index(name) for name in names),
            reference=reference,
        )
    except BadContext as wrong:
        raise RequestProblem("bad-request", wrong.detail) from None
    told = {"days": names, "from_date": week.from_date, "until_date": until, "reference": reference}
    async with desk.db.transaction() as tx:
        audit_id = await _note(tx, desk, "calendar-week", scope, reason=reference, after=told)
        row_id = await calendars.write_week(tx, scope, week, audit_id)
        await _settle_span(tx, desk, scope, week.from_date, until, working_days=True)
    return {"id": row_id, "scope": scope, **told, "audit": audit_id}


async def order_timetable(desk: Desk, args: Args, _: bytes) -> dict[str, Any]:
    """`kind`, `from`, `to`, `sessions`, `provisional`, `reference`, `scope`, perhaps `replaces` (a number); or `end`.

    `sessions`: `[["day", "08:00", "13:30", "15:00" or null], …]`: starts, ends, closes.
    """
    if args.get("end") is not None:
        return await _end(desk, args, "timetables", "timetable")
    scope, reference = await read_scope(desk.db, args), text(args, "reference")
    try:
        table = Timetable(
            kind=read_slug(args, "kind") if args.get("kind") is not None else REGULAR,
            from_date=read_date(args, "from").isoformat(),
            until_date=(read_date(args, "to") + timedelta(days=1)).isoformat(),
            sessions=read_session_times(args.get("sessions")),
            reference=reference,
            provisional=args.get("provisional") is True,
        )
    except BadContext as wrong:
        raise RequestProblem("bad-request", wrong.detail) from None
    told = {
        "kind": table.kind,
        "from_date": table.from_date,
        "until_date": table.until_date,
        "sessions": [[one.session, one.starts_min, one.ends_min, one.closes_min] for one in table.sessions],
        "provisional": table.provisional,
        "reference": reference,
    }
    async with desk.db.transaction() as tx:
        before = None
        if args.get("replaces") is not None:
            before = await _end_in(tx, desk, "timetables", number(args, "replaces"), scope=scope)
        audit_id = await _note(tx, desk, "timetable", scope, reason=reference, before=before, after=told)
        row_id = await calendars.write_timetable(tx, scope, table, audit_id)
        await _settle_span(tx, desk, scope, table.from_date, table.until_date)
    return {"id": row_id, "scope": scope, **told, "audit": audit_id}


async def _end(desk: Desk, args: Args, table: str, action: str) -> dict[str, Any]:
    """A week or timetable was a mistake, or its dates were announced otherwise: it counts for no date any more."""
    row_id, reference = number(args, "end"), text(args, "reference")
    async with desk.db.transaction() as tx:
        before = await _end_in(tx, desk, table, row_id)
        scope = str(before["scope"])
        audit_id = await _note(
            tx, desk, action, scope, reason=reference, before=before, after={"ended": row_id, "reference": reference}
        )
    return {"ended": row_id, "scope": scope, "audit": audit_id}


async def _end_in(tx: Transaction, desk: Desk, table: str, row_id: int, *, scope: str | None = None) -> dict[str, Any]:
    span = await calendars.read_span(tx, table, row_id)
    if span is None or scope not in (None, span.scope):
        raise RequestProblem("not-found", f"{row_id}: none of that number is in force in this scope")
    await calendars.end_span(tx, table, row_id, desk.now_ms)
    is_week = table == "calendar_weeks"
    await _settle_span(tx, desk, span.scope, span.from_date, span.until_date, working_days=is_week)
    return span.told


async def _note(
    tx: Transaction,
    desk: Desk,
    action: str,
    scope: str,
    *,
    reason: str,
    after: Mapping[str, object],
    before: Mapping[str, object] | None = None,
) -> int:
    audit_id = await audit.record(
        tx, at_ms=desk.now_ms, actor=desk.who.actor, action=action, subject=scope, reason=reason, before=before,
        after=after,
    )  # fmt: skip
    await calendars.lift(tx, scope, audit_id)
    return audit_id


async def _settle_span(
    tx: Transaction, desk: Desk, scope: str, from_date: str, until: str | None, *, working_days: bool = False
) -> None:
    await calendars.settle_span(tx, scope, from_date, until, desk.now_ms)
    if working_days:
        await settle_clocks(tx, scope, [from_date], now_ms=desk.now_ms, zone_name=desk.config.zone)


# ---- reading arguments ------------------------------------------------------------------------------------------


async def read_scope(reader: Reader, args: Args) -> str:
    """`scope`: `*`, or a governorate in which a school was placed.

    Raises:
        RequestProblem: `rule` for one school; `not-found` for a governorate of no school.
    """
    scope = str(args.get("school") or args.get("scope") or EVERY_SCHOOL)
    if scope == EVERY_SCHOOL:
        return scope
    if args.get("school") or await reader.fetch_one("SELECT 1 FROM schools WHERE school = ?", (scope,)):
        raise refusal(
            "central-only",
            "the calendar is decided for every school or for a governorate, never for one school",
            arabic="يُحدَّد التقويم الدراسي لكل المدارس أو لمحافظة كاملة، ولا يُحدَّد لمدرسة واحدة",
            who="central, for a governorate or every school",
        )
    if await reader.fetch_one("SELECT 1 FROM places WHERE governorate = ? LIMIT 1", (scope,)) is None:
        raise RequestProblem("not-found", f"{scope}: no school was placed in a governorate of this name")
    return scope


def read_date(args: Args, name: str) -> Date:
    """A needed civil date of this century.

    Raises:
        RequestProblem: `bad-request`.
    """
    value = args.get(name)
    if not isinstance(value, str) or not is_date(value) or not _FIRST_YEAR <= int(value[:4]) < _LAST_YEAR:
        raise RequestProblem("bad-request", f"{name} is a date YYYY-MM-DD, from {_FIRST_YEAR} to {_LAST_YEAR - 1}")
    return Date.fromisoformat(value)


def read_slug(args: Args, name: str) -> str:
    """A needed slug: it travels to phones and into events, in which no free text stands.

    Raises:
        RequestProblem: `bad-request`.
    """
    value = args.get(name)
    if not isinstance(value, str) or _SLUG.fullmatch(value) is None:
        raise RequestProblem("bad-request", f"{name} is a slug of 1 to 24 letters a-z, digits and _")
    return value


def read_session_times(value: object) -> tuple[SessionTime, ...]:
    """Session times from `[[session, starts, ends, closes or null], …]`, times as HH:MM.

    Raises:
        RequestProblem: `bad-request`.
        BadContext: when the times contradict each other.
    """
    if not isinstance(value, list) or not value or len(value) > 32:
        raise RequestProblem("bad-request", "sessions is a list of [session, starts, ends, closes or null]")
    found = []
    for entry in value:
        if not isinstance(entry, list) or len(entry) not in (3, 4) or not isinstance(entry[0], str):
            raise RequestProblem("bad-request", "a session is [session, starts, ends, closes or null]")
        closes = entry[3] if len(entry) == 4 else None
        found.append(
            SessionTime(
                session=entry[0],
                starts_min=_minutes(entry[1]),
                ends_min=_minutes(entry[2]),
                closes_min=None if closes is None else _minutes(closes),
            )
        )
    return tuple(found)


def _minutes(value: object) -> int:
    found = _TIME.fullmatch(value) if isinstance(value, str) else None
    if found is None:
        raise RequestProblem("bad-request", f"a time reads HH:MM, not {value!r}")
    return 1_440 if found[1] is None else int(found[1]) * 60 + int(found[2])


_CENTRAL = roles(ApiRole.CENTRAL)
ORDERS: Mapping[str, Order] = {
    "calendar": Order(run=order_calendar, roles=_CENTRAL, about=every_school),
    "calendar-import": Order(run=order_import, roles=_CENTRAL, about=every_school),
    "calendar-week": Order(run=order_week, roles=_CENTRAL, about=every_school),
    "timetable": Order(run=order_timetable, roles=_CENTRAL, about=every_school),
}
