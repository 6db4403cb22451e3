"""The server's calendar: which dates are closed, the zone's offsets, and exceptions with their audit reference.

The school week is Sunday to Thursday. Exceptions come from people, are never computed, and re-label registers that were
already taken; they never touch a mark.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from datetime import MAXYEAR, MINYEAR, date, datetime, timedelta
from functools import lru_cache
from zoneinfo import ZoneInfo

from clientcore.register import is_date, is_id
from clientcore.wire import pack
from reconciliation import clocks
from reconciliation.calendar import SchoolCalendar
from reconciliation.layers import layered
from reconciliation.model import Zone
from syncserver.errors import RequestProblem
from syncserver.store import audit
from syncserver.store.calendars import layers_of, lift, place_of
from syncserver.store.port import Database, Reader

WEEKEND = "weekend"
_FRIDAY, _SATURDAY = 4, 5
ALL_SCHOOLS = "*"

Exceptions = Mapping[str, tuple[bool, str]]
"""Date to (is open, reason slug)."""


def local_date(now_ms: int, zone: str) -> date:
    """The civil date in `zone` at a moment."""
    return datetime.fromtimestamp(now_ms / 1000, tz=ZoneInfo(zone)).date()


def closed_reason(day: date, exceptions: Exceptions) -> str | None:
    """Why the school is closed on `day`; None when it is open."""
    found = exceptions.get(day.isoformat())
    if found is not None:
        is_open, reason = found
        return None if is_open else reason
    return WEEKEND if day.weekday() in (_FRIDAY, _SATURDAY) else None


def school_days_between(first: date, last: date, exceptions: Exceptions) -> int:
    """Number of open days after `first`, up to and including `last`."""
    days = range(1, min((last - first).days, 400) + 1)
    return sum(closed_reason(first + timedelta(days=n), exceptions) is None for n in days)


@lru_cache(maxsize=64)
def zone_table(zone: str, year: int) -> Zone:
    """UTC offsets (from ms, offset s) in force from the start of the year before `year` to the end of the one after.

    Years 1 to 9999: a phone with a broken clock, or a hostile one, may name any date that exists.
    """
    first, last = date(max(year - 1, MINYEAR), 1, 1), date(min(year + 1, MAXYEAR), 12, 31)
    return clocks.zone_table(first.isoformat(), last.isoformat(), zone)


def window_of(today: date) -> tuple[date, date]:
    """First and last date a phone is told about: last month, this one and the next, so that it changes once a month."""
    first = (today.replace(day=1) - timedelta(days=1)).replace(day=1)
    last = (today.replace(day=1) + timedelta(days=63)).replace(day=1) - timedelta(days=1)
    return first, last


def calendar_item(
    today: date, exceptions: Exceptions, sessions: list[str], zone: str
) -> tuple[int, tuple[object, ...]]:
    """The `calendar` item of a pull and its version: a digest of what it says."""
    first, last = window_of(today)
    days = [first + timedelta(days=n) for n in range((last - first).days + 1)]
    closed = [[day.isoformat(), reason] for day in days if (reason := closed_reason(day, exceptions)) is not None]
    offsets = [list(entry) for entry in zone_table(zone, today.year)]
    version = int.from_bytes(hashlib.sha256(pack([offsets, closed, sessions])).digest()[:4], "big")
    return version, ("calendar", version, offsets, closed, sessions)


async def calendar_of(reader: Reader, school: str, zone_name: str, year: int) -> SchoolCalendar:
    """The calendar of a school: the plan, what holds for every school, what holds in its governorate.

    Args:
        reader: The store.
        school: Its id; one the store does not know has the calendar of every school.
        zone_name: Of the time zone.
        year: The table of offsets covers it, the year before and the year after.
    """
    place = await place_of(reader, school)
    national, governorate = await layers_of(reader, place.governorate)
    return layered(
        zone=zone_table(zone_name, year), sessions=place.sessions, national=national, governorate=governorate
    )


async def exceptions_of(reader: Reader, school: str) -> dict[str, tuple[bool, str]]:
    """All dates that differ from the week's pattern in a school."""
    calendar = await calendar_of(reader, school, "UTC", 2026)
    return {day: (rule.is_open, rule.reason) for day, rule in calendar.days.items()}


async def set_exception(
    db: Database, school: str, day: str, *, is_open: bool, reason: str, actor: str, now_ms: int
) -> int:
    """Open or close one date; registers already taken that day are settled again. Returns the audit row.

    Raises:
        RequestProblem: `bad-request` when date, school or reason cannot be read.
    """
    if not is_date(day) or not (school == ALL_SCHOOLS or is_id(school)) or not reason.strip():
        raise RequestProblem("bad-request", "a date YYYY-MM-DD, a school and a reason are needed")
    async with db.transaction() as tx:
        before = await tx.fetch_one(
            "SELECT is_open, reason FROM calendar_exceptions WHERE scope = ? AND date = ?", (school, day)
        )
        after = {"is_open": is_open, "reason": reason}
        audit_id = await audit.record(
            tx,
            at_ms=now_ms,
            actor=actor,
            action="calendar",
            subject=f"{school}/{day}",
            reason=reason,
            before={} if before is None else {"is_open": bool(before[0]), "reason": before[1]},
            after=after,
        )
        await tx.execute(
            """INSERT INTO calendar_exceptions (scope, date, is_open, reason, reference, audit_id)
            VALUES (?, ?, ?, ?, '', ?) ON CONFLICT (scope, date) DO UPDATE SET is_open = excluded.is_open,
            reason = excluded.reason, audit_id = excluded.audit_id""",
            (school, day, int(is_open), reason, audit_id),
        )
        await lift(tx, school, audit_id)
        await tx.execute(
            "INSERT INTO settle_again (school, date, cause, at_ms) VALUES (?, ?, ?, ?)",
            (school, day, "calendar", now_ms),
        )
    return audit_id
