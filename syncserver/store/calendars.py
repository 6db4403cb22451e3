"""The calendar tables: what was decided for every school and for a governorate, and where a school lies."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from reconciliation.calendar import DayRule, SessionTime, Timetable, Week
from reconciliation.layers import Layer
from syncserver.store.port import Reader, Row, Transaction, placeholders

EVERY_SCHOOL = "*"
"""The scope of what holds in the whole country."""

_DAY, _WEEK = "day", "week"
_NEVER = "9999-99-99"
_IN_MAX = 500  # names in one IN list
_SCHOOLS = """
SELECT s.school, s.sessions, p.governorate, p.district FROM schools s LEFT JOIN places p ON p.school = s.school
WHERE s.school IN ({})"""
_RULES = """
SELECT 'timetable', scope, id, from_date, until_date, provisional, kind, sessions_json, reference FROM timetables
WHERE scope IN (?, ?) AND ended_ms IS NULL
UNION ALL
SELECT 'week', scope, id, from_date, until_date, 0, '', open_days, reference FROM calendar_weeks
WHERE scope IN (?, ?) AND ended_ms IS NULL
UNION ALL
SELECT 'day', scope, 0, date, NULL, is_open, reason, '', reference FROM calendar_exceptions
WHERE scope IN (?, ?) AND is_open IS NOT NULL
ORDER BY 3, 4"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """A school as the calendar sees it; one that nobody placed has neither district nor governorate."""

    sessions: tuple[str, ...] = ()
    governorate: str | None = None
    district: str | None = None


async def place_of(reader: Reader, school: str) -> Place:
    """Where a school lies, and which sessions it uses."""
    return (await places_of(reader, [school]))[school]


async def places_of(reader: Reader, schools: Sequence[str]) -> dict[str, Place]:
    """Where each of some schools lies; of one the store does not know, nothing is known."""
    found = dict.fromkeys(schools, Place())
    for at in range(0, len(schools), _IN_MAX):
        some = schools[at : at + _IN_MAX]
        for school, sessions, governorate, district in await reader.fetch_all(
            _SCHOOLS.format(placeholders(len(some))), some
        ):
            found[school] = Place(sessions=tuple(sessions.split()), governorate=governorate, district=district)
    return found


async def layers_of(reader: Reader, governorate: str | None) -> tuple[Layer, Layer]:
    """What was decided for every school, and for the schools of a governorate."""
    rows = await reader.fetch_all(_RULES, (EVERY_SCHOOL, governorate or EVERY_SCHOOL) * 3)
    return _layer(tuple(row for row in rows if row[1] == EVERY_SCHOOL)), _layer(
        tuple(row for row in rows if row[1] != EVERY_SCHOOL)
    )


@lru_cache(maxsize=256)
def _layer(rows: tuple[Row, ...]) -> Layer:
    """A layer from its rows; the settle stage asks for the same one with every school of a round."""
    days: dict[str, DayRule] = {}
    weeks: list[Week] = []
    tables: list[Timetable] = []
    for part, _, _, from_date, until_date, flag, word, body, reference in rows:
        if part == _DAY:
            days[from_date] = DayRule(is_open=bool(flag), reason=word, reference=reference)
        elif part == _WEEK:
            weeks.append(
                Week(from_date=from_date, until_date=until_date, open_weekdays=read_days(body), reference=reference)
            )
        else:
            tables.append(
                Timetable(
                    kind=word,
                    from_date=from_date,
                    until_date=until_date,
                    sessions=read_sessions(body),
                    reference=reference,
                    provisional=bool(flag),
                )
            )
    return Layer(days=days, weeks=tuple(weeks), timetables=tuple(tables))


def read_days(text: str) -> frozenset[int]:
    """Open weekdays from their digits."""
    return frozenset(int(digit) for digit in text)


def write_days_open(open_weekdays: frozenset[int]) -> str:
    """Open weekdays as digits."""
    return "".join(str(day) for day in sorted(open_weekdays))


def read_sessions(text: str) -> tuple[SessionTime, ...]:
    """Session times from `sessions_json`."""
    entries: list[list[Any]] = json.loads(text)
    return tuple(SessionTime(session=a, starts_min=b, ends_min=c, closes_min=d) for a, b, c, d in entries)


def write_sessions(sessions: tuple[SessionTime, ...]) -> str:
    """Session times as `sessions_json`."""
    return json.dumps([[one.session, one.starts_min, one.ends_min, one.closes_min] for one in sessions])


async def lift(tx: Transaction, name: str, audit_id: int) -> None:
    """Say that the calendar of a scope, or the place of a school, has changed."""
    await tx.execute(
        """INSERT INTO calendar_heads (name, audit_id) VALUES (?, ?)
        ON CONFLICT (name) DO UPDATE SET audit_id = excluded.audit_id""",
        (name, audit_id),
    )


async def governorates(reader: Reader) -> list[str]:
    """Every governorate in which somebody placed a school."""
    return [row[0] for row in await reader.fetch_all("SELECT DISTINCT governorate FROM places ORDER BY governorate")]


async def read_head(reader: Reader, school: str | None, governorate: str | None) -> tuple[int, int]:
    """The last audit row about the calendar of a school or governorate, and when it was written; zeros for none."""
    row = await reader.fetch_one(
        """SELECT a.id, a.at_ms FROM audit a WHERE a.id =
        (SELECT max(x.audit_id) FROM calendar_heads x WHERE x.name IN (?, ?, ?))""",
        (EVERY_SCHOOL, school or EVERY_SCHOOL, governorate or EVERY_SCHOOL),
    )
    return (0, 0) if row is None else (row[0], row[1])


async def read_decided(reader: Reader) -> dict[str, list[dict[str, Any]]]:
    """Every decision in force, as plain data, for people who want to change one."""
    names = {
        "weeks": ("calendar_weeks", ("id", "scope", "from_date", "until_date", "open_days", "reference", "audit_id")),
        "timetables": (
            "timetables",
            ("id", "scope", "kind", "from_date", "until_date", "provisional", "sessions_json", "reference", "audit_id"),
        ),
    }
    found = {}
    for name, (table, columns) in names.items():
        rows = await reader.fetch_all(f"SELECT {', '.join(columns)} FROM {table} WHERE ended_ms IS NULL ORDER BY id")
        found[name] = [dict(zip(columns, row, strict=True)) for row in rows]
    columns = ("scope", "date", "is_open", "reason", "reference", "audit_id")
    rows = await reader.fetch_all(
        f"SELECT {', '.join(columns)} FROM calendar_exceptions WHERE is_open IS NOT NULL ORDER BY date, scope"
    )
    found["dates"] = [dict(zip(columns, row, strict=True)) for row in rows]
    return found


# ---- writing ----------------------------------------------------------------------------------------------------


async def read_days_of(reader: Reader, scope: str, dates: Sequence[str]) -> dict[str, DayRule]:
    """What a scope says now of some dates; those it has taken back, or never named, are left out."""
    found: dict[str, DayRule] = {}
    for at in range(0, len(dates), _IN_MAX):
        some = dates[at : at + _IN_MAX]
        rows = await reader.fetch_all(
            f"""SELECT date, is_open, reason, reference FROM calendar_exceptions
            WHERE scope = ? AND is_open IS NOT NULL AND date IN ({placeholders(len(some))})""",
            (scope, *some),
        )
        found |= {day: DayRule(is_open=bool(a), reason=b, reference=c) for day, a, b, c in rows}
    return found


async def write_days(tx: Transaction, scope: str, days: Mapping[str, DayRule | None], audit_id: int) -> None:
    """Set dates of a scope; None takes the exception back."""
    await tx.executemany(
        """INSERT INTO calendar_exceptions (scope, date, is_open, reason, reference, audit_id) VALUES (?, ?, ?, ?, ?, ?)
        ON CONFLICT (scope, date) DO UPDATE SET is_open = excluded.is_open, reason = excluded.reason,
        reference = excluded.reference, audit_id = excluded.audit_id""",
        [(scope, day, *_day_columns(rule), audit_id) for day, rule in days.items()],
    )


def _day_columns(rule: DayRule | None) -> tuple[int | None, str, str]:
    return (None, "", "") if rule is None else (int(rule.is_open), rule.reason, rule.reference)


async def write_week(tx: Transaction, scope: str, week: Week, audit_id: int) -> int:
    """Add a school week; returns its number."""
    number = await _next(tx, "calendar_weeks")
    await tx.execute(
        "INSERT INTO calendar_weeks VALUES (?, ?, ?, ?, ?, ?, ?, NULL)",
        (number, scope, week.from_date, week.until_date, write_days_open(week.open_weekdays), week.reference, audit_id),
    )
    return number


async def write_timetable(tx: Transaction, scope: str, table: Timetable, audit_id: int) -> int:
    """Add a timetable; returns its number."""
    number = await _next(tx, "timetables")
    await tx.execute(
        "INSERT INTO timetables VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, NULL)",
        (
            number, scope, table.kind, table.from_date, table.until_date, write_sessions(table.sessions),
            int(table.provisional), table.reference, audit_id,
        ),
    )  # fmt: skip
    return number


async def _next(tx: Transaction, table: str) -> int:
    row = await tx.fetch_one(f"SELECT coalesce(max(id), 0) + 1 FROM {table}")
    assert row is not None
    return int(row[0])


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """A week or timetable that somebody wants to end: its scope, its dates, and all of it as plain data."""

    scope: str
    from_date: str
    until_date: str | None
    told: dict[str, Any]


async def read_span(reader: Reader, table: str, number: int) -> Span | None:
    """A week (`calendar_weeks`) or timetable (`timetables`) that has not ended, by its number."""
    columns = {
        "calendar_weeks": ("scope", "from_date", "until_date", "open_days", "reference"),
        "timetables": ("scope", "from_date", "until_date", "kind", "sessions_json", "provisional", "reference"),
    }[table]
    row = await reader.fetch_one(
        f"SELECT {', '.join(columns)} FROM {table} WHERE id = ? AND ended_ms IS NULL", (number,)
    )
    if row is None:
        return None
    return Span(
        scope=row[0], from_date=row[1], until_date=row[2], told={"id": number, **dict(zip(columns, row, strict=True))}
    )


async def end_span(tx: Transaction, table: str, number: int, now_ms: int) -> None:
    """A week or timetable does not count any more, for no date; the row stays."""
    await tx.execute(f"UPDATE {table} SET ended_ms = ? WHERE id = ?", (now_ms, number))


async def write_places(tx: Transaction, places: Mapping[str, tuple[str, str]], audit_id: int) -> None:
    """Say where schools lie: school to (district, governorate)."""
    await tx.executemany(
        """INSERT INTO places (school, district, governorate, audit_id) VALUES (?, ?, ?, ?)
        ON CONFLICT (school) DO UPDATE SET district = excluded.district, governorate = excluded.governorate,
        audit_id = excluded.audit_id""",
        [(school, *place, audit_id) for school, place in places.items()],
    )
    for school in places:
        await lift(tx, school, audit_id)


# ---- what has to be settled again -------------------------------------------------------------------------------


async def settle_dates(tx: Transaction, scope: str, dates: Sequence[str], now_ms: int) -> None:
    """Settle every register of these dates again, in the schools of a scope."""
    for at in range(0, len(dates), _IN_MAX):
        some = dates[at : at + _IN_MAX]
        await _settle(tx, "changes c", scope, f"c.date IN ({placeholders(len(some))})", some, now_ms)


async def settle_span(tx: Transaction, scope: str, from_date: str, until_date: str | None, now_ms: int) -> None:
    """Settle every register of a span of dates again, in the schools of a scope."""
    await _settle(tx, "changes c", scope, "c.date >= ? AND c.date < ?", (from_date, until_date or _NEVER), now_ms)


async def settle_adjusted(tx: Transaction, scope: str, dates: Sequence[str], decided_from_ms: int, now_ms: int) -> None:
    """Settle registers again whose adjustments a change of the working days may move.

    Those of the given dates where a person is needed (or which were not settled yet), and those of any date in which a
    decision was made since a moment.
    """
    for at in range(0, len(dates), _IN_MAX):
        some = dates[at : at + _IN_MAX]
        await _settle(
            tx,
            "changes c LEFT JOIN settlements s ON s.log_offset = c.log_offset",
            scope,
            f"(s.log_offset IS NULL OR s.slug IS NOT NULL) AND c.date IN ({placeholders(len(some))})",
            some,
            now_ms,
        )
    await _settle(
        tx, "decisions c", scope, "c.kind IN ('approve', 'reject') AND c.at_ms >= ?", (decided_from_ms,), now_ms
    )


async def _settle(tx: Transaction, source: str, scope: str, where: str, params: Sequence[Any], now_ms: int) -> None:
    if scope != EVERY_SCHOOL:
        where += " AND c.school IN (SELECT p.school FROM places p WHERE p.governorate = ?)"
        params = (*params, scope)
    await tx.execute(
        f"""INSERT INTO settle_again (school, class_id, date, session, cause, at_ms)
        SELECT DISTINCT c.school, c.class_id, c.date, c.session, 'calendar', CAST(? AS INTEGER)
        FROM {source} WHERE {where}""",
        (now_ms, *params),
    )
