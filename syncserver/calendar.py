"""The server's calendar: which days a school has, what a phone is told of them, and how a decision about them is kept.

The rules are in `reconciliation/calendar.py` and `layers.py`. A decision about the calendar re-labels registers that
were already taken, by having them settled again; it never touches a mark.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from datetime import MAXYEAR, MINYEAR, date, datetime, timedelta
from functools import lru_cache
from zoneinfo import ZoneInfo

from clientcore.wire import pack
from reconciliation import clocks
from reconciliation.adjustments import WORKING_DAYS
from reconciliation.calendar import DayRule, SchoolCalendar
from reconciliation.layers import layered
from reconciliation.model import Zone
from syncserver.store import audit, calendars
from syncserver.store.calendars import EVERY_SCHOOL
from syncserver.store.port import Reader, Transaction

SHOWN_DAYS = 14  # a phone's screen goes back so many days; registers of their sessions must still be takable
_SILENCE_DAYS_MAX = 400
_NO_OFFSETS: Zone = ((0, 0),)


def local_date(now_ms: int, zone: str) -> date:
    """The civil date in `zone` at a moment."""
    return datetime.fromtimestamp(now_ms / 1000, tz=ZoneInfo(zone)).date()


@lru_cache(maxsize=64)
def zone_table(zone: str, year: int) -> Zone:
    """UTC offsets (from ms, offset s) in force from the start of the year before `year` to the end of the one after.

    Years 1 to 9999: a phone with a broken clock, or a hostile one, may name any date that exists.
    """
    first, last = date(max(year - 1, MINYEAR), 1, 1), date(min(year + 1, MAXYEAR), 12, 31)
    return clocks.zone_table(first.isoformat(), last.isoformat(), zone)


async def calendar_of(reader: Reader, school: str, zone_name: str, year: int) -> SchoolCalendar:
    """The calendar of a school: the plan, what holds for every school, what holds in its governorate.

    Args:
        reader: The store.
        school: Its id; one the store does not know has the calendar of every school.
        zone_name: Of the time zone.
        year: The table of offsets covers it, the year before and the year after.
    """
    return replace((await calendars_of(reader, [school]))[school], zone=zone_table(zone_name, year))


async def calendars_of(reader: Reader, schools: Sequence[str]) -> dict[str, SchoolCalendar]:
    """The calendars of some schools, without offsets: put in those of a year (`zone_table`).

    Schools of one governorate with the same sessions share one value.
    """
    places = await calendars.places_of(reader, schools)
    kinds = {(place.governorate, place.sessions) for place in places.values()}
    layers = {name: await calendars.layers_of(reader, name) for name in {name for name, _ in kinds}}
    made = {
        (name, sessions): layered(
            zone=_NO_OFFSETS, sessions=sessions, national=layers[name][0], governorate=layers[name][1]
        )
        for name, sessions in kinds
    }
    return {school: made[place.governorate, place.sessions] for school, place in places.items()}


async def governorate_calendar(
    reader: Reader, governorate: str | None, zone_name: str, year: int, *, sessions: tuple[str, ...] = ()
) -> SchoolCalendar:
    """The calendar of a governorate's schools that use these sessions; None: of schools that nobody placed."""
    national, local = await calendars.layers_of(reader, governorate)
    return layered(zone=zone_table(zone_name, year), sessions=sessions, national=national, governorate=local)


def silent_days(first: date, last: date, calendar: SchoolCalendar) -> int:
    """School days after `first`, up to and including `last`; of a longer silence the last 400 days."""
    first = max(first, last - timedelta(days=_SILENCE_DAYS_MAX))
    return calendar.working_days_between(first.isoformat(), last.isoformat())


# ---- what a phone is told ---------------------------------------------------------------------------------------


def window_of(today: date) -> tuple[date, date]:
    """First and last date a phone is told about: last month, this one and the next, so that it changes once a month."""
    first = (today.replace(day=1) - timedelta(days=1)).replace(day=1)
    last = (today.replace(day=1) + timedelta(days=63)).replace(day=1) - timedelta(days=1)
    return first, last


def sessions_shown(today: date, calendar: SchoolCalendar) -> list[str]:
    """The sessions a phone offers: those of any day its screen shows, so that a late register still finds its own."""
    days = ((today + timedelta(days=n)).isoformat() for n in range(-SHOWN_DAYS, 2))
    held = {session for day in days for session in calendar.sessions_held(day)}
    return [session for session in calendar.sessions if session in held]


def calendar_item(today: date, calendar: SchoolCalendar) -> tuple[int, tuple[object, ...]]:
    """The `calendar` item of a pull and its version: a digest of what it says."""
    first, last = window_of(today)
    days = [(first + timedelta(days=n)).isoformat() for n in range((last - first).days + 1)]
    closed = [[day, reason] for day in days if (reason := calendar.closed(day)) is not None]
    offsets = [list(entry) for entry in calendar.zone]
    sessions = sessions_shown(today, calendar)
    version = int.from_bytes(hashlib.sha256(pack([offsets, closed, sessions])).digest()[:4], "big")
    return version, ("calendar", version, offsets, closed, sessions)


# ---- decisions --------------------------------------------------------------------------------------------------


async def decide_days(
    tx: Transaction,
    scope: str,
    days: Mapping[str, DayRule | None],
    *,
    reference: str,
    reason: str,
    actor: str,
    now_ms: int,
    zone_name: str,
) -> int:
    """Open or close dates in the schools of a scope, with one audit row; returns it.

    Args:
        tx: The transaction.
        scope: `*` or a governorate.
        days: Date to what holds; None takes an exception back.
        reference: The decision it rests on.
        reason: For the audit, in words or as a slug.
        actor: Who decided.
        now_ms: Server time.
        zone_name: Of the time zone, for the working days that end later or earlier by it.
    """
    dates = sorted(days)
    before = await calendars.read_days_of(tx, scope, dates)
    audit_id = await audit.record(
        tx,
        at_ms=now_ms,
        actor=actor,
        action="calendar",
        subject=f"{scope}/{dates[0]}" if len(dates) == 1 else f"{scope}/{dates[0]}..{dates[-1]}",
        reason=reason,
        before={"days": {day: _told(before.get(day)) for day in dates}},
        after={"reference": reference, "days": {day: _told(days[day]) for day in dates}},
    )
    await calendars.write_days(tx, scope, days, audit_id)
    await calendars.lift(tx, scope, audit_id)
    await calendars.settle_dates(tx, scope, dates, now_ms)
    await settle_clocks(tx, scope, dates, now_ms=now_ms, zone_name=zone_name)
    return audit_id


def _told(rule: DayRule | None) -> dict[str, object] | None:
    return None if rule is None else asdict(rule)


async def settle_clocks(tx: Transaction, scope: str, dates: Sequence[str], *, now_ms: int, zone_name: str) -> None:
    """Settle again what waits for a person on days whose three working days reach one of `dates`."""
    places = [None, *await calendars.governorates(tx)] if scope == EVERY_SCHOOL else [scope]
    reached: set[str] = set()
    for governorate in places:
        calendar = await governorate_calendar(tx, governorate, zone_name, date.fromisoformat(dates[0]).year)
        for day in dates:
            first = date.fromisoformat(calendar.first_reaching(day, WORKING_DAYS))
            reached |= {(first + timedelta(days=n)).isoformat() for n in range((date.fromisoformat(day) - first).days)}
    if reached:
        first_day = min(reached)
        table = zone_table(zone_name, date.fromisoformat(first_day).year)
        await calendars.settle_adjusted(tx, scope, sorted(reached), clocks.midnight_ms(first_day, table), now_ms)
