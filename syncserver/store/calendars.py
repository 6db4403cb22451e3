"""The calendar tables: what was decided for every school and for a governorate, and where a school lies."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from reconciliation.calendar import DayRule, SessionTime, Timetable, Week
from reconciliation.layers import Layer
from syncserver.store.port import Reader, Row, Transaction

EVERY_SCHOOL = "*"
"""The scope of what holds in the whole country."""

_DAY, _WEEK, _TIMETABLE = "day", "week", "timetable"
_SCHOOL = """
SELECT s.sessions, p.governorate, p.district FROM schools s LEFT JOIN places p ON p.school = s.school
WHERE s.school = ?"""
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
    row = await reader.fetch_one(_SCHOOL, (school,))
    if row is None:
        return Place()
    return Place(sessions=tuple(row[0].split()), governorate=row[1], district=row[2])


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
