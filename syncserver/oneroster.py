"""A OneRoster 1.2 CSV zip, bulk files → one cross-checked `RosterImport`. Pure.

What crosses: the school, people's ids and display names, one role a school, classes with their grade, who belongs to
which class and when. Every other column, row and file is dropped where it is read, and counted.

Roles (`roles.csv`, per school; the strongest wins, `primary` and `secondary` alike):

| OneRoster role | here |
|---|---|
| `student` | pupil |
| `teacher` | teacher |
| `principal`, `siteAdministrator` | champion |
| `aide`, `counselor`, `proctor`, `guardian`, `parent`, `relative` | dropped, counted |
| `districtAdministrator`, `systemAdministrator` | dropped, counted |

Enrolments: `student` → pupil, `teacher` → teacher, `administrator` and `proctor` → dropped, counted. An enrolment
without dates of its own lasts as long as its class's terms. `status=tobedeleted` ends a thing, never deletes it; in a
bulk export so does leaving it out (`rosterplan`). `enabledUser=false` ends a member of staff here (no permission to use
systems); for pupils, who never sign in, it means nothing.

An import with one error is unusable as a whole: it is mended upstream and read again. A row with a fault is reported
once; rows that refer to it are not reported again.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import BinaryIO

from clientcore.register import is_date, is_id
from syncserver.oneroster_zip import ArchiveRefused, Columns, Report, RosterZip, Row
from syncserver.rostermodel import Enrolment, Role, RosterImport, School, SchoolClass, Term, User

VERSION = "1.2"
NAME_CHARS_MAX = 120
TITLE_CHARS_MAX = 60

FILES = {
    "academicSessions.csv": Columns(needed=("sourcedId", "startDate", "endDate", "type")),
    "orgs.csv": Columns(needed=("sourcedId", "name", "type")),
    "users.csv": Columns(
        needed=("sourcedId", "enabledUser", "givenName", "familyName"),
        wanted=("middleName", "preferredGivenName", "preferredMiddleName", "preferredFamilyName"),
    ),
    "roles.csv": Columns(
        needed=("sourcedId", "userSourcedId", "roleType", "role", "orgSourcedId"), wanted=("beginDate", "endDate")
    ),
    "classes.csv": Columns(needed=("sourcedId", "title", "schoolSourcedId", "termSourcedIds"), wanted=("grades",)),
    "enrollments.csv": Columns(
        needed=("sourcedId", "classSourcedId", "schoolSourcedId", "userSourcedId", "role"),
        wanted=("beginDate", "endDate"),
    ),
}
MANIFEST = Columns(needed=("propertyName", "value"))

ROLES = {
    "student": Role.PUPIL,
    "teacher": Role.TEACHER,
    "principal": Role.CHAMPION,
    "siteAdministrator": Role.CHAMPION,
}
ROLES_DROPPED = frozenset(
    {
        "aide",
        "counselor",
        "proctor",
        "guardian",
        "parent",
        "relative",
        "districtAdministrator",
        "systemAdministrator",
    }
)
ENROLMENT_ROLES = {"student": Role.PUPIL, "teacher": Role.TEACHER}
ENROLMENT_ROLES_DROPPED = frozenset({"administrator", "proctor"})
ORG_TYPES_DROPPED = frozenset({"department", "district", "local", "state", "national"})
TERM_TYPES = frozenset({"gradingPeriod", "semester", "schoolYear", "term"})
_STRENGTH = {Role.PUPIL: 0, Role.TEACHER: 1, Role.CHAMPION: 2}

# The words printed on Egyptian registers for the CEDS grade codes of OneRoster; any other word is kept as it is.
_ORDINALS = ("الأول", "الثاني", "الثالث", "الرابع", "الخامس", "السادس")
GRADES = (
    {"KG": "رياض الأطفال"}
    | {f"{n:02d}": f"{_ORDINALS[n - 1]} الابتدائي" for n in range(1, 7)}
    | {f"{n:02d}": f"{_ORDINALS[n - 7]} الإعدادي" for n in range(7, 10)}
    | {f"{n:02d}": f"{_ORDINALS[n - 10]} الثانوي" for n in range(10, 13)}
)


def read(source: BinaryIO) -> RosterImport:
    """Read a zip from a seekable binary file. Never raises for what is in it: see `RosterImport.errors`."""
    reading = _Reading()
    report = reading.report
    digest = ""
    try:
        archive = RosterZip(source, report)
        digest = archive.digest
        archive.drop_others(frozenset({"manifest.csv", *FILES}))
        if _manifest_is_usable(archive, report):
            reading.run(archive)
    except ArchiveRefused as refused:
        report.error(refused.file, refused.line, "", refused.code, refused.detail)
    return RosterImport(
        digest=digest,
        orgs=tuple(reading.orgs.values()),
        users=tuple(reading.users.values()),
        classes=tuple(reading.classes.values()),
        enrolments=tuple(reading.enrolments),
        terms=tuple(reading.terms.values()),
        dropped=report.dropped(),
        errors=report.errors,
        errors_found=report.errors_found,
    )


def _manifest_is_usable(archive: RosterZip, report: Report) -> bool:
    """Whether the zip declares OneRoster 1.2 and holds all six files in bulk; reports each fault."""
    if "manifest.csv" not in archive.names():
        report.error("manifest.csv", 0, "", "file-missing", "manifest.csv")
        return False
    declared = {row["propertyName"]: (row.line, row["value"]) for row in archive.rows("manifest.csv", MANIFEST)}
    before = report.errors_found
    line, version = declared.get("oneroster.version", (0, ""))
    if version not in (VERSION, f"{VERSION}.0", f"{VERSION}.1"):
        report.error("manifest.csv", line, "value", "version", version)
    for file in FILES:
        line, mode = declared.get(f"file.{file.removesuffix('.csv')}", (0, "absent"))
        if mode == "delta":
            report.error("manifest.csv", line, "value", "delta", file)
        elif mode != "bulk":
            report.error("manifest.csv", line, "value", "not-bulk", f"{file}: {mode}")
        elif file not in archive.names():
            report.error(file, 0, "", "file-missing", file)
    return report.errors_found == before


@dataclass(frozen=True, slots=True, kw_only=True)
class _Person:
    """A row of users.csv, until roles.csv says in which schools it counts."""

    name: str
    enabled: bool
    ended: bool


class _Reading:
    """The state of one pass: each file may refer to the files read before it."""

    def __init__(self) -> None:
        self.report = Report()
        self.terms: dict[str, Term] = {}
        self.orgs: dict[str, School] = {}
        self.other_orgs: set[str] = set()
        self.persons: dict[str, _Person] = {}
        self.without_role: set[str] = set()
        self.users: dict[tuple[str, str], User] = {}
        self.classes: dict[str, SchoolClass] = {}
        self.class_terms: dict[str, tuple[str | None, str | None]] = {}
        self.enrolments: list[Enrolment] = []
        self._spells: dict[tuple[str, str, Role], list[Enrolment]] = {}
        self._rolls: dict[str, int] = {}

    def run(self, archive: RosterZip) -> None:
        """Read all files. One that cannot be read to its end ends the pass: what refers to it would all look wrong."""
        steps: dict[str, Callable[[Row, bool], None]] = {
            "academicSessions.csv": self.term,
            "orgs.csv": self.org,
            "users.csv": self.person,
            "roles.csv": self.role,
            "classes.csv": self.school_class,
            "enrollments.csv": self.enrolment,
        }
        for file, take in steps.items():
            for row, ended in self._new_rows(archive, file):
                take(row, ended)
            if file == "roles.csv":
                self._drop_people_without_role()

    def _new_rows(self, archive: RosterZip, file: str) -> Iterator[tuple[Row, bool]]:
        """Rows with a fresh sourcedId and a known status, each with whether upstream withdrew it."""
        seen: set[str] = set()
        for row in archive.rows(file, FILES[file]):
            source_id, status = row["sourcedId"], row["status"]
            if source_id == "":
                self.error(row, "sourcedId", "value-missing")
            elif source_id in seen:
                self.error(row, "sourcedId", "duplicate-id", source_id)
            elif status not in ("", "active", "tobedeleted"):
                self.error(row, "status", "bad-status", status)
            else:
                seen.add(source_id)
                before = self.report.errors_found
                yield row, status == "tobedeleted"
                if self.report.errors_found > before:
                    self.report.poisoned.add(source_id)

    def error(self, row: Row, column: str, code: str, detail: str = "") -> None:
        self.report.error(row.file, row.line, column, code, detail)

    def drop(self, row: Row, why: str) -> None:
        self.report.rows[f"{row.file}:{why}"] += 1

    def id_of(self, row: Row) -> str | None:
        """The row's sourcedId if it may name something here."""
        source_id = row["sourcedId"]
        if is_id(source_id):
            return source_id
        self.error(row, "sourcedId", "bad-id", source_id)
        return None

    def period(self, row: Row, begin: str, end: str) -> tuple[str | None, str | None] | None:
        """Two optional dates in order, or None after reporting what is wrong with them."""
        dates = (row[begin] or None, row[end] or None)
        for column, value in zip((begin, end), dates, strict=True):
            if value is not None and not is_date(value):
                self.error(row, column, "bad-date", value)
                return None
        if dates[0] is not None and dates[1] is not None and dates[1] < dates[0]:
            self.error(row, end, "dates-reversed", f"{dates[0]} > {dates[1]}")
            return None
        return dates

    def term(self, row: Row, ended: bool) -> None:
        term_id, dates = self.id_of(row), self.period(row, "startDate", "endDate")
        if row["type"] not in TERM_TYPES:
            self.error(row, "type", "bad-type", row["type"])
        if term_id is None or dates is None:
            return
        if dates[0] is None or dates[1] is None:
            self.error(row, "startDate" if dates[0] is None else "endDate", "value-missing")
            return
        self.terms[term_id] = Term(term_id=term_id, from_date=dates[0], until_date=dates[1], ended=ended)

    def org(self, row: Row, ended: bool) -> None:
        kind = row["type"]
        if kind in ORG_TYPES_DROPPED:
            self.other_orgs.add(row["sourcedId"])
            self.drop(row, kind)
            return
        school, name = self.id_of(row), self.text(row, "name", row["name"], NAME_CHARS_MAX)
        if kind != "school":
            self.error(row, "type", "bad-type", kind)
        elif school is not None and name is not None:
            self.orgs[school] = School(school=school, name=name, ended=ended)

    def text(self, row: Row, column: str, text: str, chars_max: int) -> str | None:
        """`text` if it is there and of a length a phone can show."""
        if text and len(text) <= chars_max:
            return text
        self.error(
            row, column, "value-long" if text else "value-missing", "" if not text else f"{len(text)} > {chars_max}"
        )
        return None

    def person(self, row: Row, ended: bool) -> None:
        user_id = self.id_of(row)
        name = self.text(row, "givenName", display_name(row), NAME_CHARS_MAX)
        if row["enabledUser"] not in ("true", "false"):
            self.error(row, "enabledUser", "bad-boolean", row["enabledUser"])
        elif user_id is not None and name is not None:
            self.persons[user_id] = _Person(name=name, enabled=row["enabledUser"] == "true", ended=ended)

    def role(self, row: Row, ended: bool) -> None:
        word, user_id, org = row["role"], row["userSourcedId"], row["orgSourcedId"]
        if word in ROLES_DROPPED:
            self.drop(row, word)
            return
        dates = self.period(row, "beginDate", "endDate")
        if word not in ROLES:
            self.error(row, "role", "bad-role", word)
        elif row["roleType"] not in ("primary", "secondary"):
            self.error(row, "roleType", "bad-type", row["roleType"])
        elif org in self.other_orgs:
            self.drop(row, "not a school")
        elif org not in self.orgs:
            self._unknown(row, "orgSourcedId", "unknown-school", org, ended)
        elif user_id not in self.persons:
            self._unknown(row, "userSourcedId", "unknown-user", user_id, ended)
        elif dates is not None:
            self._take_role(row, ROLES[word], dates, ended)

    def _take_role(self, row: Row, role: Role, dates: tuple[str | None, str | None], ended: bool) -> None:
        user_id, school = row["userSourcedId"], row["orgSourcedId"]
        person = self.persons[user_id]
        out = ended or person.ended or self.orgs[school].ended or (role != Role.PUPIL and not person.enabled)
        user = User(
            school=school,
            user_id=user_id,
            name=person.name,
            role=role,
            from_date=dates[0],
            until_date=dates[1],
            ended=out,
        )
        known = self.users.get((school, user_id))
        if known is not None and not known.ended and not out and (known.role == Role.PUPIL) != (role == Role.PUPIL):
            self.error(row, "role", "pupil-and-staff", user_id)
        elif known is None or (known.ended, -_STRENGTH[known.role]) > (out, -_STRENGTH[role]):
            self.users[school, user_id] = user

    def _drop_people_without_role(self) -> None:
        known = {user_id for _, user_id in self.users}
        without = self.persons.keys() - known
        if without:
            self.report.rows["users.csv:no role here"] += len(without)
        for user_id in without:
            del self.persons[user_id]
        self.without_role = without

    def school_class(self, row: Row, ended: bool) -> None:
        class_id, school = self.id_of(row), row["schoolSourcedId"]
        name = self.text(row, "title", row["title"], TITLE_CHARS_MAX)
        terms = [term for term in re.split(r"\s*,\s*", row["termSourcedIds"]) if term]
        unknown = [term for term in terms if term not in self.terms]
        if school not in self.orgs:
            self._unknown(row, "schoolSourcedId", "unknown-school", school, ended)
        elif unknown:
            self._unknown(row, "termSourcedIds", "unknown-term", ",".join(unknown), ended)
        elif class_id is not None and name is not None:
            grade = grade_name(row["grades"])
            out = ended or self.orgs[school].ended
            self.classes[class_id] = SchoolClass(school=school, class_id=class_id, name=name, grade=grade, ended=out)
            periods = [self.terms[term] for term in terms]
            self.class_terms[class_id] = (
                min((term.from_date for term in periods), default=None),
                max((term.until_date for term in periods), default=None),
            )

    def enrolment(self, row: Row, ended: bool) -> None:
        word, class_id, user_id = row["role"], row["classSourcedId"], row["userSourcedId"]
        if word in ENROLMENT_ROLES_DROPPED:
            self.drop(row, word)
            return
        dates = self.period(row, "beginDate", "endDate")
        role = ENROLMENT_ROLES.get(word)
        if role is None:
            self.error(row, "role", "bad-role", word)
        elif class_id not in self.classes:
            self._unknown(row, "classSourcedId", "unknown-class", class_id, ended)
        elif self.classes[class_id].school != row["schoolSourcedId"]:
            self.error(row, "schoolSourcedId", "school-mismatch", row["schoolSourcedId"])
        elif user_id not in self.persons and user_id not in self.without_role:
            self._unknown(row, "userSourcedId", "unknown-user", user_id, ended)
        elif (user := self.users.get((row["schoolSourcedId"], user_id))) is None:
            self._unknown(row, "userSourcedId", "no-role", user_id, ended)
        elif (user.role == Role.PUPIL) != (role == Role.PUPIL) and not ended:
            self.error(row, "role", "role-mismatch", f"{word} / {user.role.value}")
        elif dates is not None:
            self._take_enrolment(row, user, role, dates, ended)

    def _take_enrolment(
        self, row: Row, user: User, role: Role, dates: tuple[str | None, str | None], ended: bool
    ) -> None:
        school_class = self.classes[row["classSourcedId"]]
        first, last = self.class_terms[school_class.class_id]
        roll = 0
        out = ended or user.ended or school_class.ended
        if role == Role.PUPIL and not out:
            roll = self._rolls[school_class.class_id] = self._rolls.get(school_class.class_id, 0) + 1
        taken = Enrolment(
            school=user.school,
            class_id=school_class.class_id,
            user_id=user.user_id,
            role=role,
            from_date=dates[0] or first,
            until_date=dates[1] or last,
            roll=roll,
            ended=out,
        )
        others = self._spells.setdefault((taken.class_id, taken.user_id, role), [])
        if any(_overlap(taken, other) for other in others if not other.ended and not out):
            self.error(row, "userSourcedId", "duplicate-enrolment", user.user_id)
            return
        others.append(taken)
        self.enrolments.append(taken)

    def _unknown(self, row: Row, column: str, code: str, detail: str, ended: bool) -> None:
        """A reference that leads nowhere: an error, unless the row is itself withdrawn and so ends nothing we know, or
        what it leads to was reported already."""
        if ended:
            self.drop(row, "tobedeleted, unknown")
        elif not self.report.poisoned.intersection(detail.split(",")):
            self.error(row, column, code, detail)
        else:
            self.report.poisoned.add(row["sourcedId"])


def display_name(row: Row) -> str:
    """The name as upstream spells it: given, middle (in Egypt the father's) and family part, preferred forms first."""
    parts = (row[f"preferred{part}Name"] or row[f"{part.lower()}Name"] for part in ("Given", "Middle", "Family"))
    return " ".join(part for part in parts if part)


def grade_name(grades: str) -> str:
    """A list of CEDS grade codes in words (`09` → الثالث الإعدادي); unknown words stay as they are."""
    words = [grade for grade in re.split(r"\s*,\s*", grades) if grade]
    return "، ".join(GRADES.get(word.zfill(2) if word.isdecimal() else word, word) for word in words)[:TITLE_CHARS_MAX]


def _overlap(one: Enrolment, other: Enrolment) -> bool:
    """Whether two periods share a day; an open end reaches for ever."""
    starts_before = one.from_date is None or other.until_date is None or one.from_date < other.until_date
    ends_after = one.until_date is None or other.from_date is None or other.from_date < one.until_date
    return starts_before and ends_after
