"""`GET /v1/calendar.ics`: the calendar of a school, of a governorate, or of every school. Anybody may read it."""

from __future__ import annotations

from dataclasses import replace
from datetime import date

from starlette.requests import Request
from starlette.responses import Response

from clientcore.register import is_id
from reconciliation.calendar import SchoolCalendar
from syncserver.calendar import governorate_calendar, local_date
from syncserver.config import Config
from syncserver.errors import RequestProblem
from syncserver.ical import MEDIA_TYPE, school_year, write_calendar
from syncserver.ports import ServerPorts
from syncserver.store import calendars
from syncserver.store.port import Database

ALL_SESSIONS = ("day", *(f"{shift}{number}" for shift in ("am", "pm") for number in range(1, 9)))
_HEADERS = {"cache-control": "public, max-age=3600"}
_KEPT_MAX = 256  # files; the least lately made goes first

_Key = tuple[str | None, str | None, tuple[str, ...], int, date]


class CalendarFeed:
    """Writes calendars and keeps what it wrote: strangers must not be able to make the server work."""

    def __init__(self, config: Config, db: Database, ports: ServerPorts) -> None:
        self._config, self._db, self._ports = config, db, ports
        self._kept: dict[_Key, bytes] = {}

    async def get(self, request: Request) -> Response:
        """`school`, else `governorate`, else what holds for every school; of the running school year."""
        school, governorate = (_name(request, name) for name in ("school", "governorate"))
        sessions: tuple[str, ...] = ()
        if school is not None:
            if await self._db.fetch_one("SELECT 1 FROM schools WHERE school = ?", (school,)) is None:
                raise RequestProblem("not-found", "no such school")
            place = await calendars.place_of(self._db, school)
            governorate, sessions = place.governorate, place.sessions
        elif governorate is not None and governorate not in await calendars.governorates(self._db):
            raise RequestProblem("not-found", "no such governorate")
        head, stamp_ms = await calendars.read_head(self._db, school, governorate)
        today = local_date(self._ports.clock.wall_ms(), self._config.zone)
        first = school_year(today)[0]
        key = (school, governorate, sessions, head, first)
        if key not in self._kept:
            calendar = await governorate_calendar(
                self._db, governorate, self._config.zone, first.year, sessions=sessions
            )
            if len(self._kept) >= _KEPT_MAX:
                del self._kept[next(iter(self._kept))]
            self._kept[key] = write_calendar(
                calendar,
                views(calendar) if school is None else [calendar],
                name=school or governorate or "all",
                zone_name=self._config.zone,
                today=today,
                stamp_ms=stamp_ms,
            )
        return Response(self._kept[key], media_type=f"{MEDIA_TYPE}; charset=utf-8", headers=_HEADERS)


def views(calendar: SchoolCalendar) -> list[SchoolCalendar]:
    """A calendar as schools see it that use one session: a timetable of shifts is not the one of a school without."""
    return [replace(calendar, sessions=(session,)) for session in ALL_SESSIONS]


def _name(request: Request, name: str) -> str | None:
    value = request.query_params.get(name)
    if value is not None and not is_id(value):
        raise RequestProblem("bad-request", f"{name} is an id")
    return value
