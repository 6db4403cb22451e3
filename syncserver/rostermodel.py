"""What a roster is once it has come through the door: the only values that cross from upstream. Pure.

Kept are ids, display names, roles, classes with their grade and the school (the product's rule: nothing else crosses).
Dates are civil dates `YYYY-MM-DD`; every period is half-open, `[from_date, until_date)`, as OneRoster 1.2 means its
begin (inclusive) and end (exclusive) dates.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum


class Role(StrEnum):
    """What a person is in one school."""

    PUPIL = "pupil"
    TEACHER = "teacher"
    CHAMPION = "champion"


@dataclass(frozen=True, slots=True, kw_only=True)
class School:
    """One school. `ended`: upstream withdrew it; its history stays."""

    school: str
    name: str
    ended: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class User:
    """One person in one school; a teacher of two schools is two of these.

    Attributes:
        school: School id.
        user_id: The person's upstream id, unchanged.
        name: Display name in its original spelling.
        role: The strongest role the person has in this school.
        from_date: First day of the role, or None when upstream gives none.
        until_date: First day after the role, or None.
        ended: Upstream withdrew the person, the role, or (staff only) their permission to use systems.
    """

    school: str
    user_id: str
    name: str
    role: Role
    from_date: str | None = None
    until_date: str | None = None
    ended: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class SchoolClass:
    """One class (section), e.g. name `٣/أ`, grade `الثالث الإعدادي`."""

    school: str
    class_id: str
    name: str
    grade: str
    ended: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Enrolment:
    """One person in one class for one period.

    Attributes:
        school: School id.
        class_id: Class id.
        user_id: Person.
        role: `pupil`, or `teacher` for whoever may take this class's register.
        from_date: First day; None when neither the row nor the class's terms say.
        until_date: First day after; None when open.
        roll: Place in the class list, from 1, in the order of the file; 0 for teachers.
        ended: Upstream withdrew it.
    """

    school: str
    class_id: str
    user_id: str
    role: Role
    from_date: str | None
    until_date: str | None
    roll: int
    ended: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Term:
    """A OneRoster academicSession: school year, term or grading period. Never our *session*."""

    term_id: str
    from_date: str
    until_date: str
    ended: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class RowError:
    """One thing that a person must put right in the export.

    Attributes:
        file: File inside the zip, empty when the zip itself is at fault.
        line: Line in that file (the header is 1); 0 when it is about the whole file.
        column: Column, empty when it is about the whole row.
        code: Stable slug; `roster_messages` has the words for it.
        detail: The offending value or name, shortened. Never a person's name.
    """

    file: str
    line: int
    column: str
    code: str
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Dropped:
    """What was left at the door, by name and number; no value of it was kept.

    Attributes:
        columns: `users.csv:email` → number of non-empty values.
        rows: `roles.csv:parent` (file and the word that excluded the row) → number of rows.
        files: File in the zip that was never opened → its size in bytes, uncompressed, as the zip declares it.
    """

    columns: Mapping[str, int] = field(default_factory=dict)
    rows: Mapping[str, int] = field(default_factory=dict)
    files: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class RosterImport:
    """A whole bulk export, read and cross-checked. Usable only when `errors` is empty.

    Attributes:
        digest: SHA-256 of the zip, hex: names the import in the audit.
        errors: The first problems, in file order; at most `ERRORS_KEPT_MAX`.
        errors_found: How many there were in all.
    """

    digest: str
    orgs: tuple[School, ...]
    users: tuple[User, ...]
    classes: tuple[SchoolClass, ...]
    enrolments: tuple[Enrolment, ...]
    terms: tuple[Term, ...]
    dropped: Dropped
    errors: tuple[RowError, ...]
    errors_found: int
