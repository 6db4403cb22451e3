"""The school calendar as iCalendar (RFC 5545), for anybody's calendar program.

Written are the dates that differ from the week's pattern, as all-day events, and the session times of each timetable
of the school year, as weekly events in the zone's own time. `X-HUDUR-REASON` and `X-HUDUR-OPEN` carry what other
programs need not know: read again (`ical_read.py`), the file gives the same days.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

from icalendar import Calendar, Event, Timezone, TimezoneDaylight, TimezoneStandard
from icalendar.prop import vRecur

from reconciliation.calendar import REGULAR, SchoolCalendar, SessionTime, Timetable
from reconciliation.model import Zone

MEDIA_TYPE = "text/calendar"
_DAY = timedelta(days=1)
_BYDAY = ("MO", "TU", "WE", "TH", "FR", "SA", "SU")

_REASONS = {
    "armed_forces_day": "عيد القوات المسلحة",
    "christmas": "عيد الميلاد المجيد",
    "revolution_police_day": "عيد ثورة ٢٥ يناير وعيد الشرطة",
    "sinai_liberation_day": "عيد تحرير سيناء",
    "sham_el_nessim": "شم النسيم",
    "labour_day": "عيد العمال",
    "eid_al_fitr": "عيد الفطر المبارك",
    "eid_al_adha": "عيد الأضحى المبارك",
    "islamic_new_year": "رأس السنة الهجرية",
    "mawlid": "المولد النبوي الشريف",
    "mid_year_break": "إجازة نصف العام",
    "weather": "سوء الأحوال الجوية",
    "holiday": "إجازة رسمية",
}
_CLOSED, _OPEN = "إجازة رسمية", "يوم دراسي"
_SESSIONS = {"day": "اليوم الدراسي", "am": "الفترة الصباحية، الحصة", "pm": "الفترة المسائية، الحصة"}
_KINDS = {"ramadan": "مواعيد رمضان", "exams": "مواعيد الامتحانات"}
_PROVISIONAL = "موعد مبدئي إلى حين الإعلان الرسمي"


def write_calendar(
    calendar: SchoolCalendar,
    views: Sequence[SchoolCalendar],
    *,
    name: str,
    zone_name: str,
    today: date,
    stamp_ms: int,
) -> bytes:
    """The calendar of a school or governorate as an .ics file; the same decisions give the same bytes.

    Args:
        calendar: Whose days to tell.
        views: Whose sessions to tell: the calendar itself, or what several kinds of schools see of it.
        name: School or governorate: the second half of every UID.
        zone_name: Of the time zone.
        today: Its school year (September to August) is told.
        stamp_ms: When the calendar was last decided about.
    """
    stamp = datetime.fromtimestamp(stamp_ms // 1000, tz=UTC)
    out = Calendar()
    out.add("prodid", "-//Hudur//school calendar//AR")
    out.add("version", "2.0")
    out.add("calscale", "GREGORIAN")
    out.add("x-wr-calname", f"التقويم الدراسي {name}")
    out.add("x-wr-timezone", zone_name)
    events = [*_days(calendar), *(event for view in views for event in _sessions(view, zone_name, today))]
    if any("RRULE" in event for event in events):  # all-day events are in no zone
        out.add_component(_timezone(calendar.zone, zone_name))
    for event in events:
        event["UID"] = f"{event['UID']}@{name}.hudur"
        event.add("dtstamp", stamp)
        out.add_component(event)
    return bytes(out.to_ical())


def school_year(today: date) -> tuple[date, date]:
    """First day of the school year of a date, and the first day after it."""
    year = today.year if today.month >= 9 else today.year - 1
    return date(year, 9, 1), date(year + 1, 9, 1)


def _days(calendar: SchoolCalendar) -> Iterator[Event]:
    for day, rule in sorted(calendar.days.items()):
        first = date.fromisoformat(day)
        event = Event()
        event.add("uid", f"day-{day}")
        if rule.is_open:
            event.add("summary", _OPEN)
            event.add("x-hudur-open", "TRUE")
        else:
            event.add("summary", _REASONS.get(rule.reason, _CLOSED))
        event.add("dtstart", first)
        event.add("dtend", first + _DAY)
        event.add("transp", "TRANSPARENT")
        event.add("x-hudur-reason", rule.reason)
        if rule.reference:
            event.add("comment", rule.reference)
        yield event


def _sessions(calendar: SchoolCalendar, zone_name: str, today: date) -> Iterator[Event]:
    """One weekly event for each session of each timetable that is in force on a day of the school year."""
    first, until = school_year(today)
    days = [(first + timedelta(days=n)).isoformat() for n in range((until - first).days)]
    held: dict[int, list[str]] = {}
    for day in days:
        table = calendar.timetable(day)
        if table is not None:
            held.setdefault(calendar.timetables.index(table), []).append(day)
    for index, covered in sorted(held.items()):
        open_days = [day for day in covered if calendar.closed(day) is None]
        if open_days:
            table = calendar.timetables[index]
            for time in table.sessions:
                if time.session in calendar.sessions:
                    yield _session(calendar, table, time, covered, open_days, zone_name)


def _session(
    calendar: SchoolCalendar,
    table: Timetable,
    time: SessionTime,
    covered: list[str],
    open_days: list[str],
    zone_name: str,
) -> Event:
    """A weekly event; days without school are taken out of it, school days outside the week are added."""
    weekdays = {weekday for day in covered for weekday in calendar.week_on(day)}
    first = next((day for day in open_days if _weekday(day) in weekdays), open_days[0])
    weekdays.add(_weekday(first))
    last = open_days[-1]
    count = (date.fromisoformat(last) - date.fromisoformat(first)).days + 1
    days = [(date.fromisoformat(first) + timedelta(days=n)).isoformat() for n in range(count)]
    pattern = {day for day in days if _weekday(day) in weekdays}  # also where another timetable lies between
    event = Event()
    event.add("uid", f"{table.kind}-{covered[0]}-{time.session}")  # of one date only one timetable is in force
    event.add("summary", _title(table, time))
    _add_local(event, "dtstart", [first], time.starts_min, zone_name)
    _add_local(event, "dtend", [first], time.ends_min, zone_name)
    until = datetime.fromtimestamp(calendar.end_of_day_ms(last) // 1000 - 1, tz=UTC)
    event.add("rrule", vRecur({"FREQ": "WEEKLY", "UNTIL": until, "BYDAY": [_BYDAY[day] for day in sorted(weekdays)]}))
    _add_local(event, "exdate", sorted(pattern - set(open_days)), time.starts_min, zone_name)
    _add_local(event, "rdate", sorted(set(open_days) - pattern), time.starts_min, zone_name)
    event.add("status", "TENTATIVE" if table.provisional else "CONFIRMED")
    if table.provisional:
        event.add("description", _PROVISIONAL)
    if table.reference:
        event.add("comment", table.reference)
    return event


def _weekday(day: str) -> int:
    return date.fromisoformat(day).weekday()


def _title(table: Timetable, time: SessionTime) -> str:
    shift, number = time.session[:2], time.session[2:]
    title = _SESSIONS["day"] if time.session == "day" else f"{_SESSIONS[shift]} {number}"
    return title if table.kind == REGULAR else f"{title} ({_KINDS.get(table.kind, 'مواعيد خاصة')})"


def _add_local(event: Event, name: str, days: list[str], minute: int, zone_name: str) -> None:
    """A property of local times; none for no days."""
    zone = ZoneInfo(zone_name)
    moments = [(datetime.fromisoformat(day) + timedelta(minutes=minute)).replace(tzinfo=zone) for day in days]
    if moments:
        event.add(name, moments if name in {"exdate", "rdate"} else moments[0])


def _timezone(zone: Zone, zone_name: str) -> Timezone:
    """The offsets that phones get too: the zone data of calendar programs is often older than the last decree."""
    out = Timezone()
    out.add("tzid", zone_name)
    standard_s = min(offset_s for _, offset_s in zone)
    before_s = zone[0][1]
    for from_ms, offset_s in zone:
        part = TimezoneStandard() if offset_s == standard_s else TimezoneDaylight()
        local = datetime.fromtimestamp(from_ms // 1000 + before_s, tz=UTC).replace(tzinfo=None)
        part.add("dtstart", local)
        part.add("tzoffsetfrom", timedelta(seconds=before_s))
        part.add("tzoffsetto", timedelta(seconds=offset_s))
        out.add_component(part)
        before_s = offset_s
    return out
