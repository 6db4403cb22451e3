"""The difference between the roster we have and the one that came: what is added, changed and ended. Pure.

Rules:

1. Nothing is removed. What upstream withdraws (`tobedeleted`) or no longer names is *ended*, as of the day after the
   import; its past stays. The day of the import still belongs to it: its morning may be marked already. Who must stop
   at once is stopped by `ended_at_ms` of the person, when work arrives.
2. A bulk export speaks for the schools it names, and for no others: a school it leaves out is untouched.
3. The same export twice is no change, whatever the day.
4. Who gets another role has it from this day on, unless upstream says since when, and keeps the old one for the days
   before: the role of a register's day decides about it.
5. A first day that has come never moves later: an upstream that issues its enrolments anew for the second term must not
   take the pupils and the teachers out of the registers of the first.
6. A class's version rises whenever the list a phone shows of it may have changed, above every version ever served
   (`store/roster.py`).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import date, timedelta
from typing import Generic, TypeVar

from syncserver.rostermodel import Enrolment, Role, RosterImport, School, SchoolClass, User

ClassKey = tuple[str, str]
"""School id, class id."""
SpellKey = tuple[str, str, str, Role]
"""School id, class id, user id, role in the class."""
T = TypeVar("T")
K = TypeVar("K", bound=Hashable)


@dataclass(frozen=True, slots=True, kw_only=True)
class Spell:
    """One stay of a person in a class, as stored: like `Enrolment`, numbered, and with a first day in every case."""

    school: str
    class_id: str
    user_id: str
    role: Role
    spell: int
    from_date: str
    until_date: str | None
    roll: int
    ended: bool = False

    @property
    def key(self) -> SpellKey:
        """What all stays of one person in one class share."""
        return (self.school, self.class_id, self.user_id, self.role)


@dataclass(frozen=True, slots=True, kw_only=True)
class Roster:
    """The stored roster of the schools in question, ended rows included."""

    schools: Mapping[str, School] = field(default_factory=dict)
    users: Mapping[tuple[str, str], User] = field(default_factory=dict)
    classes: Mapping[ClassKey, SchoolClass] = field(default_factory=dict)
    versions: Mapping[ClassKey, int] = field(default_factory=dict)
    spells: Mapping[SpellKey, tuple[Spell, ...]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class TableChange(Generic[T]):
    """Rows of one table as they shall be."""

    added: tuple[T, ...] = ()
    changed: tuple[T, ...] = ()
    ended: tuple[T, ...] = ()

    def counts(self) -> dict[str, int]:
        """How many rows each part has."""
        return {"added": len(self.added), "changed": len(self.changed), "ended": len(self.ended)}

    @property
    def rows(self) -> tuple[T, ...]:
        """Everything that changes."""
        return self.added + self.changed + self.ended


@dataclass(frozen=True, slots=True, kw_only=True)
class RosterPlan:
    """What an import will do.

    Attributes:
        schools: Rows of `schools`.
        users: Rows of `users`.
        classes: Rows of `classes`.
        members: Rows of `members`.
        versions: The new version of every class whose list changes, new classes included.
        past_roles: People as they were, for those who get another role; `until_date` is set.
        touched: Classes in which a member or someone's right to mark changes: their registers must be settled again.
    """

    schools: TableChange[School]
    users: TableChange[User]
    classes: TableChange[SchoolClass]
    members: TableChange[Spell]
    versions: Mapping[ClassKey, int]
    touched: frozenset[ClassKey]
    past_roles: tuple[User, ...] = ()

    def counts(self) -> dict[str, dict[str, int]]:
        """Added, changed and ended rows per table."""
        return {
            "schools": self.schools.counts(),
            "users": self.users.counts(),
            "classes": self.classes.counts(),
            "members": self.members.counts(),
        }

    @property
    def schools_touched(self) -> frozenset[str]:
        """Schools in which any row changes."""
        tables = (self.schools, self.users, self.classes, self.members)
        return frozenset(row.school for table in tables for row in table.rows)

    @property
    def is_empty(self) -> bool:
        """Whether nothing would change."""
        return not (self.schools.rows or self.users.rows or self.classes.rows or self.members.rows)


def plan(current: Roster, incoming: RosterImport, *, today: str) -> RosterPlan:
    """Compare; `today` is the civil date of the import, the last day of what has no other end.

    `current` must hold every row of the schools that `incoming` names.
    """
    tomorrow = (date.fromisoformat(today) + timedelta(days=1)).isoformat()
    schools = _compare(current.schools, {row.school: row for row in incoming.orgs}, _end_flag)
    people = {(row.school, row.user_id): _dated(current, row, today) for row in incoming.users}
    users = _compare(current.users, people, _user_ender(tomorrow))
    classes = _compare(current.classes, {(row.school, row.class_id): row for row in incoming.classes}, _end_flag)
    members = _compare_members(current.spells, incoming.enrolments, today, tomorrow)
    return RosterPlan(
        schools=schools,
        users=users,
        classes=classes,
        members=members,
        versions=_versions(current, users, classes, members),
        touched=frozenset((row.school, row.class_id) for row in members.rows) | _classes_of_changed(current, users),
        past_roles=_past_roles(current, users, tomorrow),
    )


Endable = TypeVar("Endable", School, User, SchoolClass)


def _compare(
    current: Mapping[K, Endable], incoming: Mapping[K, Endable], end: Callable[[Endable, Endable | None], Endable]
) -> TableChange[Endable]:
    added, changed, ended = [], [], []
    for key, row in incoming.items():
        known = current.get(key)
        if known is None:
            if not row.ended:
                added.append(row)
        elif row.ended:
            if not known.ended:
                ended.append(end(known, row))
        elif row != known:
            changed.append(row)
    ended += [end(row, None) for key, row in current.items() if not row.ended and key not in incoming]
    return TableChange(added=tuple(added), changed=tuple(changed), ended=tuple(ended))


def _end_flag(known: Endable, _: Endable | None) -> Endable:
    return replace(known, ended=True)


def _user_ender(tomorrow: str) -> Callable[[User, User | None], User]:
    def end(known: User, withdrawn: User | None) -> User:
        until = _earliest(tomorrow, known.until_date, withdrawn.until_date if withdrawn else None)
        return replace(known, ended=True, until_date=until)

    return end


def _dated(current: Roster, row: User, today: str) -> User:
    """The incoming person with the first day of the role as we know it (rules 4 and 5)."""
    known = current.users.get((row.school, row.user_id))
    if known is None or row.ended:
        return row
    if row.role != known.role:
        return replace(row, from_date=row.from_date or today)
    return replace(row, from_date=_first_day(known.from_date, row.from_date, today))


def _first_day(known: str | None, said: str | None, today: str) -> str | None:
    """The first day of what is stored with `known` when upstream says `said` (rule 5); None reaches back for ever."""
    if said is None or known is None or known <= min(said, today):
        return known
    return said


def _past_roles(current: Roster, users: TableChange[User], tomorrow: str) -> tuple[User, ...]:
    """Who gets another role, as they were until now; the day of the import belongs to both roles."""
    before = [(current.users[row.school, row.user_id], row) for row in users.changed]
    return tuple(
        replace(known, until_date=_earliest(tomorrow, known.until_date))
        for known, row in before
        if known.role != row.role
    )


def _earliest(*dates: str | None) -> str:
    return min(one for one in dates if one is not None)


def _compare_members(
    current: Mapping[SpellKey, tuple[Spell, ...]], incoming: Iterable[Enrolment], today: str, tomorrow: str
) -> TableChange[Spell]:
    wanted: defaultdict[SpellKey, list[Enrolment]] = defaultdict(list)
    for row in incoming:
        wanted[row.school, row.class_id, row.user_id, row.role].append(row)
    added: list[Spell] = []
    changed: list[Spell] = []
    ended: list[Spell] = []
    for key in [*wanted, *(key for key in current if key not in wanted)]:
        spells, enrolments = list(current.get(key, ())), wanted.get(key, [])
        pairs, new = _pair(spells, [row for row in enrolments if not row.ended])
        for spell, row in pairs:
            first = _first_day(spell.from_date, row.from_date, today) or spell.from_date
            better = replace(spell, from_date=first, until_date=row.until_date, roll=row.roll, ended=False)
            if better != spell:
                changed.append(better)
        last = max((spell.spell for spell in spells), default=0)
        added += [_new_spell(row, number, today) for number, row in enumerate(new, last + 1)]
        kept = {spell.spell for spell, _ in pairs}
        withdrawn = [row for row in enrolments if row.ended]
        ended += [_end_spell(s, withdrawn, tomorrow) for s in spells if not s.ended and s.spell not in kept]
    return TableChange(added=tuple(added), changed=tuple(changed), ended=tuple(ended))


def _pair(spells: list[Spell], rows: list[Enrolment]) -> tuple[list[tuple[Spell, Enrolment]], list[Enrolment]]:
    """Which stored stay each enrolment is: the one with the same first day (even an ended one: upstream takes the end
    back), else the oldest open one left. What is left over is new."""
    left = sorted(spells, key=lambda spell: (spell.from_date, spell.spell))
    pairs: list[tuple[Spell, Enrolment]] = []
    rest: list[Enrolment] = []
    for row in sorted(rows, key=lambda row: row.from_date or ""):
        same = next((spell for spell in left if spell.from_date == row.from_date), None)
        if same is None:
            rest.append(row)
        else:
            left.remove(same)
            pairs.append((same, row))
    new: list[Enrolment] = []
    for row in rest:
        open_one = next((spell for spell in left if not spell.ended), None)
        if open_one is None:
            new.append(row)
        else:
            left.remove(open_one)
            pairs.append((open_one, row))
    return pairs, new


def _new_spell(row: Enrolment, number: int, today: str) -> Spell:
    return Spell(
        school=row.school,
        class_id=row.class_id,
        user_id=row.user_id,
        role=row.role,
        spell=number,
        from_date=row.from_date or today,
        until_date=row.until_date,
        roll=row.roll,
    )


def _end_spell(spell: Spell, withdrawn: list[Enrolment], tomorrow: str) -> Spell:
    """End a stay with this day, or on the earlier day that the stay itself or its withdrawn row names."""
    named = [row.until_date for row in withdrawn if row.from_date in (None, spell.from_date)]
    until = max(spell.from_date, _earliest(tomorrow, spell.until_date, *named))
    return replace(spell, ended=True, until_date=until)


def _classes_of_changed(current: Roster, users: TableChange[User]) -> frozenset[ClassKey]:
    """Classes whose teachers' rights change because the person did (ended, another role, other dates)."""
    rights = {
        (row.school, row.user_id)
        for row in users.changed + users.ended
        if replace(row, name="") != replace(current.users[row.school, row.user_id], name="")
    }
    return frozenset(key[:2] for key in current.spells if (key[0], key[2]) in rights)


def _versions(
    current: Roster, users: TableChange[User], classes: TableChange[SchoolClass], members: TableChange[Spell]
) -> dict[ClassKey, int]:
    versions = {(row.school, row.class_id): 1 for row in classes.added}
    risen = {(row.school, row.class_id) for row in members.rows if row.role == Role.PUPIL}
    risen |= {(row.school, row.class_id) for row in classes.changed + classes.ended}
    renamed = {(row.school, row.user_id) for row in users.changed if row.role == Role.PUPIL}
    risen |= {key[:2] for key in current.spells if key[3] == Role.PUPIL and (key[0], key[2]) in renamed}
    boundaries: defaultdict[ClassKey, set[str]] = defaultdict(set)
    for key, spells in current.spells.items():
        if key[:2] in risen and key[3] == Role.PUPIL:
            for spell in spells:
                boundaries[key[:2]].update(day for day in (spell.from_date, spell.until_date) if day)
    for class_key in risen - versions.keys():
        versions[class_key] = current.versions.get(class_key, 0) + len(boundaries[class_key]) + 1
    return versions
