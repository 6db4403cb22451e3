"""A list of holidays, read from an iCalendar file (RFC 5545): all-day events, and nothing that leaves a doubt."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Any, cast

from icalendar import Calendar, Component, Event

from syncserver.errors import RequestProblem

FILE_BYTES_MAX = 1 << 20
_DAYS_MAX = 2_000
_NAMED_MAX = 20_000  # dates of all events together: the same long holiday ten thousand times is no calendar
_FIRST, _UNTIL = date(2000, 1, 1), date(2100, 1, 1)
_SLUG = re.compile(r"[a-z0-9_]{1,24}")
_DAY = timedelta(days=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadDay:
    """One date of a file."""

    is_open: bool
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadDays:
    """What a file says: dates, and the events that were left out with the cause."""

    days: Mapping[str, ReadDay]
    skipped: tuple[str, ...]


def read_days(data: bytes, *, default: str) -> ReadDays:
    """The all-day events of an .ics file as closed days.

    Args:
        data: The file.
        default: Reason slug of events that carry none (`X-HUDUR-REASON`, or a `CATEGORIES` that is a slug).

    Raises:
        RequestProblem: `bad-request` when any of it cannot be read; nothing of the file is to be used then.
    """
    if len(data) > FILE_BYTES_MAX:
        raise RequestProblem("bad-request", f"the file is over {FILE_BYTES_MAX >> 20} MB")
    try:
        file = Component.from_ical(data)
    except (ValueError, IndexError, KeyError, TypeError, RecursionError) as wrong:
        raise RequestProblem("bad-request", f"the file is no iCalendar: {str(wrong)[:200]}") from None
    if not isinstance(file, Calendar):
        raise RequestProblem("bad-request", "the file is no iCalendar: it does not begin with BEGIN:VCALENDAR")
    days: dict[str, ReadDay] = {}
    skipped: list[str] = []
    named = 0
    for event in cast(Iterable[Event], file.walk("VEVENT")):
        name = str(event.get("SUMMARY", event.get("UID", "an event")))[:80]
        why = _why_skipped(event, name)
        if why is not None:
            skipped.append(f"{name}: {why}")
            continue
        one = ReadDay(is_open=str(event.get("X-HUDUR-OPEN", "")).upper() == "TRUE", reason=_reason(event, default))
        dates = _dates(event, name)
        named += len(dates)
        if named > _NAMED_MAX:
            raise RequestProblem("bad-request", "the file names the same days too often")
        for day in dates:
            if days.setdefault(day, one).is_open != one.is_open:
                raise _wrong(name, f"{day} is both open and closed")
        if len(days) > _DAYS_MAX:
            raise RequestProblem("bad-request", f"the file names over {_DAYS_MAX} days")
    if not days and not skipped:
        raise RequestProblem("bad-request", "the file holds no event")
    return ReadDays(days=days, skipped=tuple(skipped))


def _why_skipped(event: Event, name: str) -> str | None:
    if event.errors:
        raise _wrong(name, f"{event.errors[0][0] or 'a line'} cannot be read")
    if str(event.get("STATUS", "")).upper() == "CANCELLED":
        return "cancelled"
    start = _moment(event, "DTSTART", name)
    if start is None:
        raise _wrong(name, "DTSTART is missing")
    if isinstance(start, datetime):
        return "not a whole day"
    if any(part in event for part in ("RRULE", "RDATE", "EXDATE", "RECURRENCE-ID")):
        raise _wrong(name, "it repeats; name every date")
    return None


def _dates(event: Event, name: str) -> list[str]:
    """Every date of an all-day event; its end is the first day after it."""
    first = cast(date, _moment(event, "DTSTART", name))
    until = _moment(event, "DTEND", name)
    if until is None:
        try:
            until = first + _length(event, name)
        except OverflowError:
            raise _wrong(name, f"its dates are not between {_FIRST} and {_UNTIL}") from None
    if isinstance(until, datetime) or until < first:
        raise _wrong(name, "DTEND is no date after DTSTART")
    until = max(until, first + _DAY)  # some programs end a single day where it begins
    if not _FIRST <= first < until <= _UNTIL or (until - first).days > _DAYS_MAX:
        raise _wrong(name, f"its dates are not between {_FIRST} and {_UNTIL}")
    return [(first + timedelta(days=n)).isoformat() for n in range((until - first).days)]


def _length(event: Event, name: str) -> timedelta:
    if "DURATION" not in event:
        return _DAY
    length: Any = getattr(event["DURATION"], "dt", None)
    if not isinstance(length, timedelta) or length < _DAY or length % _DAY:
        raise _wrong(name, "DURATION is no number of days")
    return length


def _moment(event: Event, part: str, name: str) -> date | None:
    """A date, or a datetime (which is a date to Python); None where the event does not say."""
    if part not in event:
        return None
    value: Any = getattr(event[part], "dt", None)
    if not isinstance(value, date):
        raise _wrong(name, f"{part} is no date")
    return value


def _reason(event: Event, default: str) -> str:
    own = str(event.get("X-HUDUR-REASON", ""))
    if _SLUG.fullmatch(own):
        return own
    found = event.get("CATEGORIES")
    groups = found if isinstance(found, list) else [found]
    names = (str(name) for group in groups for name in getattr(group, "cats", ()))
    return next((name for name in names if _SLUG.fullmatch(name)), default)


def _wrong(name: str, why: str) -> RequestProblem:
    return RequestProblem("bad-request", f"nothing was applied: {name}: {why}")
