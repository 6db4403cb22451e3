"""What surrounds registers on their days: rosters, rights, calendars, decisions; for many registers at once.

A round of the settle stage asks for hundreds of classes of many schools, so each table is asked once, for all of them,
and what belongs to a school or a governorate is put together once.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date as Date

from clientcore.register import RegisterId
from reconciliation.calendar import SchoolCalendar
from reconciliation.clocks import midnight_ms
from reconciliation.decisions import NONE, Decisions
from reconciliation.model import Context, Right, Zone
from syncserver.calendar import calendars_of, zone_table
from syncserver.store.decisions import aliases_of_all, decisions_of_all
from syncserver.store.key import Key
from syncserver.store.port import Reader, placeholders
from syncserver.store.roster import Stay, champions_of_all, stays_of_all

_IN_MAX = 500  # names in one IN list

# Rights are judged by dates alone; that upstream ended a *person* acts by the moment of receipt, like a lost phone.
_REVOKED = """
SELECT d.school, d.id, d.revoked_ms, CASE WHEN u.active = 0 THEN u.ended_at_ms END FROM devices d
LEFT JOIN users u ON u.school = d.school AND u.id = d.user_id
WHERE d.school IN ({}) AND (d.revoked_ms IS NOT NULL OR u.active = 0)"""
_DELEGATED = """
SELECT school, class_id, id, to_user, from_ms, until_ms, ended_ms FROM delegations WHERE school IN ({}) ORDER BY id"""

Class = tuple[str, str]
"""school, class."""

_Spell = tuple[str, str | None, str | None]
"""User, first day or None, first day after or None."""


async def context_of(reader: Reader, key: Key, zone: str) -> Context:
    """What surrounds one register, as the store knows it now.

    Args:
        reader: The store.
        key: The register.
        zone: The schools' time zone (IANA name).
    """
    return (await contexts_of(reader, [key], zone))[key]


async def contexts_of(reader: Reader, keys: Sequence[Key], zone: str) -> dict[Key, Context]:
    """What surrounds some registers, as the store knows it now; see `context_of`."""
    schools, classes = sorted({key[0] for key in keys}), sorted({key[:2] for key in keys})
    gathered = _Gathered(
        zone=zone,
        calendars=await calendars_of(reader, schools),
        revoked=await _revoked_devices(reader, schools),
        aliases=await aliases_of_all(reader, schools),
        stays=await stays_of_all(reader, classes),
        champions=await champions_of_all(reader, schools),
        delegated=await _delegated(reader, schools),
        decisions=await decisions_of_all(reader, keys),
    )
    return {key: gathered.context(key) for key in keys}


async def _revoked_devices(reader: Reader, schools: Sequence[str]) -> dict[str, dict[bytes, int]]:
    """Per school, device to the moment (ms) from which what arrives of it is held.

    That is when it was revoked, or when an import ended its person, whichever came first.
    """
    found: defaultdict[str, dict[bytes, int]] = defaultdict(dict)
    for at in range(0, len(schools), _IN_MAX):
        some = schools[at : at + _IN_MAX]
        for school, device, *moments in await reader.fetch_all(_REVOKED.format(placeholders(len(some))), some):
            known = [moment_ms for moment_ms in moments if moment_ms is not None]
            if known:
                found[school][device] = min(known)
    return found


async def _delegated(reader: Reader, schools: Sequence[str]) -> dict[Class, list[tuple[str, Right]]]:
    """User and right of every delegation, by class."""
    found: defaultdict[Class, list[tuple[str, Right]]] = defaultdict(list)
    for at in range(0, len(schools), _IN_MAX):
        some = schools[at : at + _IN_MAX]
        for school, class_id, name, user, from_ms, until_ms, ended_ms in await reader.fetch_all(
            _DELEGATED.format(placeholders(len(some))), some
        ):
            last_ms = until_ms if ended_ms is None else min(until_ms, ended_ms)
            if from_ms < last_ms:
                found[school, class_id].append((user, Right(from_ms=from_ms, until_ms=last_ms, delegation=name)))
    return found


@dataclass(slots=True, kw_only=True)
class _Gathered:
    """Everything that was read, and what was put together from it."""

    zone: str
    calendars: Mapping[str, SchoolCalendar]
    revoked: Mapping[str, Mapping[bytes, int]]
    aliases: Mapping[str, Mapping[str, str]]
    stays: Mapping[Class, tuple[int, Sequence[Stay]]]
    champions: Mapping[str, Sequence[_Spell]]
    delegated: Mapping[Class, Sequence[tuple[str, Right]]]
    decisions: Mapping[Key, Decisions]
    zoned: dict[tuple[int, int], SchoolCalendar] = field(default_factory=dict)
    days: dict[tuple[str, str, str], tuple[frozenset[str], str | None]] = field(default_factory=dict)
    rights: dict[tuple[str, str, int], dict[str, tuple[Right, ...]]] = field(default_factory=dict)

    def context(self, key: Key) -> Context:
        """What surrounds one of the registers."""
        school, class_id, day, _ = key
        year = Date.fromisoformat(day).year
        calendar = self._calendar(school, year)
        roster, version = self._day(school, class_id, day)
        return Context(
            roster=roster,
            roster_version=version,
            zone=calendar.zone,
            window=calendar.window(RegisterId(*key)),
            closed=calendar.closed(day),
            entitled=self._entitled(school, class_id, year, calendar.zone),
            revoked_devices=self.revoked.get(school, {}),
            calendar=calendar,
            decisions=self.decisions.get(key, NONE),
            aliases=self.aliases.get(school, {}),
        )

    def _calendar(self, school: str, year: int) -> SchoolCalendar:
        """The school's calendar with the offsets around a year; schools of one place share it."""
        plain = self.calendars[school]
        known = self.zoned.get((id(plain), year))
        if known is None:
            known = self.zoned[id(plain), year] = replace(plain, zone=zone_table(self.zone, year))
        return known

    def _day(self, school: str, class_id: str, day: str) -> tuple[frozenset[str], str | None]:
        """Roster of a class's day and its version; None for a class nobody knows."""
        key = (school, class_id, day)
        known = self.days.get(key)
        if known is None:
            version, stays = self.stays.get((school, class_id), (None, ()))
            pupils = [one for one in stays if one.role == "pupil"]
            present = frozenset(one.user_id for one in pupils if one.covers(day))
            told = None if version is None else str(version + _passed(pupils, day))
            known = self.days[key] = (present, told)
        return known

    def _entitled(self, school: str, class_id: str, year: int, zone: Zone) -> dict[str, tuple[Right, ...]]:
        known = self.rights.get((school, class_id, year))
        if known is not None:
            return known
        found: defaultdict[str, list[Right]] = defaultdict(list)
        _, stays = self.stays.get((school, class_id), (None, ()))
        teachers = [(one.user_id, one.from_date, one.until_date) for one in stays if one.role == "teacher"]
        for user_id, from_date, until_date in (*teachers, *self.champions.get(school, ())):
            found[user_id].append(
                Right(
                    from_ms=zone[0][0] if from_date is None else midnight_ms(from_date, zone),
                    until_ms=None if until_date is None else midnight_ms(until_date, zone),
                )
            )
        for user_id, right in self.delegated.get((school, class_id), ()):
            found[user_id].append(right)
        rights = self.rights[school, class_id, year] = {user_id: tuple(some) for user_id, some in found.items()}
        return rights


def _passed(pupils: Sequence[Stay], day: str) -> int:
    """Distinct days up to `day` on which a pupil's stay begins or ends: what a list's version has risen by."""
    passed = {one.from_date for one in pupils if one.from_date <= day}
    passed |= {one.until_date for one in pupils if one.until_date is not None and one.until_date <= day}
    return len(passed)
