"""The roster tables: what the server asks of them, and how an import is written.

Every question takes the civil date it is about: the roster of a past day stays readable.

The version served for a class on a day is its stored version plus the number of distinct days, up to that one, on which
a pupil's stay begins or ends: so it also rises when a dated change comes into force without any import. An import lifts
the stored version above everything that could have been served before (`rosterplan`).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from syncserver.rostermodel import Role, School, SchoolClass, User
from syncserver.rosterplan import ClassKey, Roster, RosterPlan, Spell, SpellKey
from syncserver.store import audit
from syncserver.store.port import Reader, Transaction, placeholders

SESSIONS_DEFAULT = "day"


@dataclass(frozen=True, slots=True)
class UserRow:
    """A person in a school. `active`: not withdrawn, and the day lies within the person's dates."""

    id: str
    school: str
    name: str
    role: str
    active: bool


@dataclass(frozen=True, slots=True)
class ClassRow:
    """A class as a device shows it; `version` only ever rises."""

    id: str
    name: str
    grade: str
    version: int


@dataclass(frozen=True, slots=True)
class StaffRow:
    """A teacher or champion; `classes`: names of the classes taught on the day."""

    id: str
    name: str
    role: str
    active: bool
    classes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Stay:
    """One stay of a person in a class, `until_date` the first day after it."""

    user_id: str
    role: str
    from_date: str
    until_date: str | None

    def covers(self, day: str) -> bool:
        """Whether the day lies in it."""
        return self.from_date <= day and (self.until_date is None or day < self.until_date)


# Half-open periods; each use takes the day twice.
_MEMBER_ON = "m.from_date <= ? AND (m.until_date IS NULL OR m.until_date > ?)"
_USER_ON = "(u.from_date IS NULL OR u.from_date <= ?) AND (u.until_date IS NULL OR u.until_date > ?)"
_VERSION = """c.version + (SELECT COUNT(*) FROM (
    SELECT p.from_date AS day FROM members p
     WHERE p.school = c.school AND p.class_id = c.id AND p.role = 'pupil' AND p.from_date <= ?
    UNION
    SELECT p.until_date AS day FROM members p
     WHERE p.school = c.school AND p.class_id = c.id AND p.role = 'pupil' AND p.until_date <= ?
  ) AS passed)"""
_STAYS = """
SELECT w.school, w.class_id, c.version, m.user_id, m.role, m.from_date, m.until_date FROM wanted w
JOIN classes c ON c.school = w.school AND c.id = w.class_id
LEFT JOIN members m ON m.school = w.school AND m.class_id = w.class_id"""
_CHAMPIONS = """
SELECT u.school, u.id, u.from_date, u.until_date FROM users u
WHERE u.role = 'champion' AND u.role <> 'pupil' AND u.school IN ({0})
UNION ALL
SELECT p.school, p.user_id, p.from_date, p.until_date FROM past_roles p
WHERE p.role = 'champion' AND p.school IN ({0})"""
_IN_MAX = 500  # names in one list
_CLASS = f"SELECT c.id, c.name, c.grade, {_VERSION} FROM classes c WHERE c.school = ?"


async def school_name(db: Reader, school: str) -> str | None:
    """The school's display name, or None for an unknown school."""
    row = await db.fetch_one("SELECT name FROM schools WHERE school = ?", (school,))
    return None if row is None else str(row[0])


async def sessions_of(db: Reader, school: str) -> list[str]:
    """Sessions in use at the school; empty for an unknown school."""
    row = await db.fetch_one("SELECT sessions FROM schools WHERE school = ?", (school,))
    return [] if row is None else str(row[0]).split()


async def roster_version(db: Reader, school: str) -> int:
    """Rises with every import that changes anything of the school; 0 for an unknown school."""
    row = await db.fetch_one("SELECT roster_version FROM schools WHERE school = ?", (school,))
    return 0 if row is None else int(row[0])


async def user(db: Reader, school: str, user_id: str, on: str) -> UserRow | None:
    """One person of a school, pupils included, or None."""
    sql = f"SELECT u.name, u.role, CASE WHEN u.active = 1 AND {_USER_ON} THEN 1 ELSE 0 END"
    row = await db.fetch_one(f"{sql} FROM users u WHERE u.school = ? AND u.id = ?", (on, on, school, user_id))
    return None if row is None else UserRow(user_id, school, row[0], row[1], bool(row[2]))


async def class_of(db: Reader, school: str, class_id: str, on: str) -> ClassRow | None:
    """One class, ended or not, or None."""
    row = await db.fetch_one(f"{_CLASS} AND c.id = ?", (on, on, school, class_id))
    return None if row is None else ClassRow(*row)


async def classes_in(db: Reader, school: str, on: str) -> list[ClassRow]:
    """All classes of the school that are not ended, by id."""
    rows = await db.fetch_all(f"{_CLASS} AND c.active = 1 ORDER BY c.id", (on, on, school))
    return [ClassRow(*row) for row in rows]


async def class_ids_of(db: Reader, school: str, user_id: str, on: str) -> frozenset[str] | None:
    """The classes whose register the person may take on the day, ended ones among them; None: all of the school.

    Classes they stand in for are among them from a few days before until the last day (`delegated_lists`).
    """
    person = await user(db, school, user_id, on)
    if person is None or not person.active:
        return frozenset()
    if person.role == Role.CHAMPION:
        return None
    of_user = "m.school = ? AND m.user_id = ? AND m.role = 'teacher'"
    taught = f"SELECT m.class_id FROM members m WHERE {of_user} AND {_MEMBER_ON}"
    lent = "SELECT l.class_id FROM delegated_lists l WHERE l.school = ? AND l.user_id = ?"
    lent += " AND l.from_date <= ? AND l.until_date > ?"
    rows = await db.fetch_all(f"{taught} UNION {lent}", (school, user_id, on, on) * 2)
    return frozenset(row[0] for row in rows)


async def classes_of(db: Reader, school: str, user_id: str, on: str) -> list[ClassRow]:
    """The classes whose register the person may take on the day, by id: a champion's are all of the school."""
    ids = await class_ids_of(db, school, user_id, on)
    return [one for one in await classes_in(db, school, on) if ids is None or one.id in ids]


async def pupils_version(db: Reader, school: str, class_id: str, on: str) -> int:
    """The version of the class's list on the day; 0 for an unknown class."""
    row = await class_of(db, school, class_id, on)
    return 0 if row is None else row.version


async def roster_of(db: Reader, school: str, class_id: str, on: str) -> list[tuple[str, str]]:
    """Pupil id and display name of the class's pupils on the day, in roll order."""
    rows = await db.fetch_all(
        "SELECT m.user_id, u.name FROM members m JOIN users u ON u.school = m.school AND u.id = m.user_id"
        f" WHERE m.school = ? AND m.class_id = ? AND m.role = 'pupil' AND {_MEMBER_ON}"
        " GROUP BY m.user_id, u.name ORDER BY min(m.roll), m.user_id",  # who left and came back today has two stays
        (school, class_id, on, on),
    )
    return [(row[0], row[1]) for row in rows]


async def roster_on(db: Reader, school: str, class_id: str, on: str) -> list[str]:
    """Pupil ids of the class on the day, in roll order."""
    return [pupil for pupil, _ in await roster_of(db, school, class_id, on)]


async def stays_of_all(
    reader: Reader, classes: Sequence[tuple[str, str]]
) -> dict[tuple[str, str], tuple[int, list[Stay]]]:
    """Version and every stay of those of the given classes (school, class) that the store knows.

    Ended stays are among them: whoever left the class was on its list, or entitled to take it, on the days before.
    """
    found: dict[tuple[str, str], tuple[int, list[Stay]]] = {}
    for at in range(0, len(classes), _IN_MAX):
        some = classes[at : at + _IN_MAX]
        head = f"WITH wanted (school, class_id) AS (VALUES {', '.join(['(?, ?)'] * len(some))})"
        for school, class_id, version, user_id, *rest in await reader.fetch_all(
            head + _STAYS, [name for one in some for name in one]
        ):
            stays = found.setdefault((school, class_id), (version, []))[1]
            if user_id is not None:
                stays.append(Stay(user_id, *rest))
    return found


async def champions_of_all(
    reader: Reader, schools: Sequence[str]
) -> dict[str, list[tuple[str, str | None, str | None]]]:
    """Who is or was champion of each of some schools: user id, first day or None, first day after or None."""
    found: dict[str, list[tuple[str, str | None, str | None]]] = {}
    for at in range(0, len(schools), _IN_MAX):
        some = schools[at : at + _IN_MAX]
        for school, *spell in await reader.fetch_all(_CHAMPIONS.format(placeholders(len(some))), [*some, *some]):
            found.setdefault(school, []).append((spell[0], spell[1], spell[2]))
    return found


async def entitled_users(db: Reader, school: str, class_id: str, on: str) -> set[str]:
    """Who was entitled to take the class's register on the day: its teachers and the school's champions."""
    _, stays = (await stays_of_all(db, [(school, class_id)])).get((school, class_id), (0, []))
    champions = (await champions_of_all(db, [school])).get(school, [])
    return {one.user_id for one in stays if one.role == "teacher" and one.covers(on)} | {
        one for one, first, until in champions if (first or "") <= on and (until is None or on < until)
    }


async def staff_of(db: Reader, school: str, on: str) -> list[StaffRow]:
    """Teachers and champions of the school, withdrawn ones included, by id."""
    people = await db.fetch_all(
        f"SELECT u.id, u.name, u.role, CASE WHEN u.active = 1 AND {_USER_ON} THEN 1 ELSE 0 END FROM users u"
        " WHERE u.school = ? AND u.role <> 'pupil' ORDER BY u.id",
        (on, on, school),
    )
    taught = await db.fetch_all(
        "SELECT DISTINCT m.user_id, c.name, c.id FROM members m"
        " JOIN classes c ON c.school = m.school AND c.id = m.class_id"
        f" WHERE m.school = ? AND m.role = 'teacher' AND {_MEMBER_ON} AND c.active = 1 ORDER BY c.id",
        (school, on, on),
    )
    classes: defaultdict[str, list[str]] = defaultdict(list)
    for user_id, name, _ in taught:
        classes[user_id].append(name)
    return [StaffRow(row[0], row[1], row[2], bool(row[3]), tuple(classes[row[0]])) for row in people]


async def bump_version(tx: Transaction, school: str) -> None:
    """Let every phone of the school look at its classes again with its next pull."""
    await tx.execute("UPDATE schools SET roster_version = roster_version + 1 WHERE school = ?", (school,))


async def end_person(tx: Transaction, school: str, user_id: str, at_ms: int, actor: str, reason: str) -> bool:
    """Upstream ended a person's employment: from `at_ms` on, whatever arrives of them is held.

    Takes effect with the next settle round, also for what arrived between `at_ms` and now. Their days before stay
    judged by their own dates. The next roster import says whether the person is still there.

    Args:
        tx: The feed's own transaction.
        school: School id.
        user_id: The person; pupils are ended by roster imports alone.
        at_ms: Server time from which it holds. What had arrived before stays official, so whoever calls this with a
            moment long past takes official marks back.
        actor: For the audit.
        reason: For the audit.

    Returns:
        False when nobody active has this id; then nothing is written.
    """
    ended = await tx.execute(
        "UPDATE users SET active = 0, ended_at_ms = ? WHERE school = ? AND id = ? AND active = 1 AND role <> 'pupil'",
        (at_ms, school, user_id),
    )
    if not ended:
        return False
    await bump_version(tx, school)
    await tx.execute(
        """INSERT INTO settle_again (school, class_id, date, session, cause, at_ms)
        SELECT DISTINCT c.school, c.class_id, c.date, c.session, 'person-ended', CAST(? AS INTEGER) FROM changes c
        JOIN frames f ON f.id = c.frame_id JOIN devices d ON d.id = f.device
        WHERE d.school = ? AND d.user_id = ? AND f.received_ms >= ?""",
        (at_ms, school, user_id, at_ms),
    )
    await audit.record(
        tx, at_ms=at_ms, actor=actor, action="person-end", subject=f"{school}/{user_id}", reason=reason,
        before={"active": True}, after={"active": False, "ended_at_ms": at_ms},
    )  # fmt: skip
    return True


async def load_roster(db: Reader, schools: Iterable[str]) -> Roster:
    """Everything stored of the given schools, ended rows included."""
    known: dict[str, School] = {}
    users: dict[tuple[str, str], User] = {}
    classes: dict[ClassKey, SchoolClass] = {}
    versions: dict[ClassKey, int] = {}
    spells: dict[SpellKey, tuple[Spell, ...]] = {}
    for school in schools:
        for name, active in await db.fetch_all("SELECT name, active FROM schools WHERE school = ?", (school,)):
            known[school] = School(school=school, name=name, ended=not active)
        for stored in await _load_users(db, school):
            users[school, stored.user_id] = stored
        for class_id, name, grade, version, active in await db.fetch_all(
            "SELECT id, name, grade, version, active FROM classes WHERE school = ?", (school,)
        ):
            classes[school, class_id] = SchoolClass(
                school=school, class_id=class_id, name=name, grade=grade, ended=not active
            )
            versions[school, class_id] = version
        for spell in await _load_spells(db, school):
            spells[spell.key] = (*spells.get(spell.key, ()), spell)
    return Roster(schools=known, users=users, classes=classes, versions=versions, spells=spells)


async def _load_users(db: Reader, school: str) -> list[User]:
    rows = await db.fetch_all(
        "SELECT id, name, role, from_date, until_date, active FROM users WHERE school = ?", (school,)
    )
    return [
        User(school=school, user_id=r[0], name=r[1], role=Role(r[2]), from_date=r[3], until_date=r[4], ended=not r[5])
        for r in rows
    ]


async def _load_spells(db: Reader, school: str) -> list[Spell]:
    rows = await db.fetch_all(
        "SELECT class_id, user_id, role, spell, from_date, until_date, roll, active FROM members"
        " WHERE school = ? ORDER BY class_id, user_id, role, spell",
        (school,),
    )
    return [
        Spell(
            school=school,
            class_id=r[0],
            user_id=r[1],
            role=Role(r[2]),
            spell=r[3],
            from_date=r[4],
            until_date=r[5],
            roll=r[6],
            ended=not r[7],
        )
        for r in rows
    ]


async def write_plan(tx: Transaction, plan: RosterPlan, now_ms: int) -> None:
    """Write every row of the plan, the new versions, and the classes that must be settled again."""
    await _write_schools(tx, plan, now_ms)
    await _write_users(tx, plan, now_ms)
    await _write_classes(tx, plan, now_ms)
    await _write_members(tx, plan, now_ms)
    await tx.executemany(
        "UPDATE schools SET roster_version = roster_version + 1 WHERE school = ?",
        [(school,) for school in sorted(plan.schools_touched)],
    )
    await tx.executemany(
        "INSERT INTO settle_again (school, class_id, cause, at_ms) VALUES (?, ?, 'roster-import', ?)",
        [(school, class_id, now_ms) for school, class_id in sorted(plan.touched)],
    )
    # Champions, and whoever stood in by a delegation, have marks in classes of which they are no member.
    await tx.executemany(
        """INSERT INTO settle_again (school, class_id, date, session, cause, at_ms)
        SELECT DISTINCT c.school, c.class_id, c.date, c.session, 'roster-import', CAST(? AS INTEGER) FROM devices d
        JOIN settlements s ON s.device = d.id JOIN changes c ON c.log_offset = s.log_offset
        WHERE d.school = ? AND d.user_id = ?""",
        [(now_ms, u.school, u.user_id) for u in plan.users.changed + plan.users.ended if u.role != Role.PUPIL],
    )


async def write_import(
    tx: Transaction, *, at_ms: int, digest: str, made_by: str, counts_json: str, dropped_json: str
) -> None:
    """Keep what was imported, by whom and to what effect."""
    await tx.execute(
        "INSERT INTO roster_imports (at_ms, digest, made_by, counts_json, dropped_json) VALUES (?, ?, ?, ?, ?)",
        (at_ms, digest, made_by, counts_json, dropped_json),
    )


def _state(ended: bool, now_ms: int) -> tuple[int, int | None]:
    """Columns `active`, `ended_at_ms`."""
    return (0, now_ms) if ended else (1, None)


async def _write_schools(tx: Transaction, plan: RosterPlan, now_ms: int) -> None:
    await tx.executemany(
        "INSERT INTO schools (school, name, sessions, roster_version, active) VALUES (?, ?, ?, 0, 1)",
        [(row.school, row.name, SESSIONS_DEFAULT) for row in plan.schools.added],
    )
    await tx.executemany(
        "UPDATE schools SET name = ?, active = ?, ended_at_ms = ? WHERE school = ?",
        [(row.name, *_state(row.ended, now_ms), row.school) for row in plan.schools.changed + plan.schools.ended],
    )


async def _write_users(tx: Transaction, plan: RosterPlan, now_ms: int) -> None:
    await tx.executemany(
        "INSERT INTO users (school, id, name, role, from_date, until_date, active) VALUES (?, ?, ?, ?, ?, ?, 1)",
        [(u.school, u.user_id, u.name, u.role.value, u.from_date, u.until_date) for u in plan.users.added],
    )
    await tx.executemany(
        "UPDATE users SET name = ?, role = ?, from_date = ?, until_date = ?, active = ?, ended_at_ms = ?"
        " WHERE school = ? AND id = ?",
        [
            (u.name, u.role.value, u.from_date, u.until_date, *_state(u.ended, now_ms), u.school, u.user_id)
            for u in plan.users.changed + plan.users.ended
        ],
    )
    await tx.executemany(
        "INSERT INTO past_roles (school, user_id, role, from_date, until_date) VALUES (?, ?, ?, ?, ?)",
        [(u.school, u.user_id, u.role.value, u.from_date, u.until_date) for u in plan.past_roles],
    )


async def _write_classes(tx: Transaction, plan: RosterPlan, now_ms: int) -> None:
    await tx.executemany(
        "INSERT INTO classes (school, id, name, grade, version, active) VALUES (?, ?, ?, ?, 0, 1)",
        [(c.school, c.class_id, c.name, c.grade) for c in plan.classes.added],
    )
    await tx.executemany(
        "UPDATE classes SET name = ?, grade = ?, active = ?, ended_at_ms = ? WHERE school = ? AND id = ?",
        [
            (c.name, c.grade, *_state(c.ended, now_ms), c.school, c.class_id)
            for c in plan.classes.changed + plan.classes.ended
        ],
    )
    await tx.executemany(
        "UPDATE classes SET version = ? WHERE school = ? AND id = ?",
        [(version, school, class_id) for (school, class_id), version in plan.versions.items()],
    )


async def _write_members(tx: Transaction, plan: RosterPlan, now_ms: int) -> None:
    await tx.executemany(
        "INSERT INTO members (school, class_id, user_id, role, spell, from_date, until_date, roll, active)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?, 1)",
        [
            (m.school, m.class_id, m.user_id, m.role.value, m.spell, m.from_date, m.until_date, m.roll)
            for m in plan.members.added
        ],
    )
    await tx.executemany(
        "UPDATE members SET from_date = ?, until_date = ?, roll = ?, active = ?, ended_at_ms = ?"
        " WHERE school = ? AND class_id = ? AND user_id = ? AND role = ? AND spell = ?",
        [
            (m.from_date, m.until_date, m.roll, *_state(m.ended, now_ms), *m.key[:3], m.role.value, m.spell)
            for m in plan.members.changed + plan.members.ended
        ],
    )
