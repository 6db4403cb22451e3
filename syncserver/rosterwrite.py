"""A generated roster as a OneRoster 1.2 CSV zip, bulk files. Pure.

The zip also holds what a real export holds and we must not keep (e-mail, phone, national numbers, birth dates,
guardians, courses), so that every demo and every test proves that it is dropped.
"""

from __future__ import annotations

import csv
import io
import zipfile
from collections.abc import Mapping, Sequence

from syncserver.rostergen import GeneratedRoster, GeneratedSchool, Person, members_of, people_of
from syncserver.rostermodel import Role


def write_zip(roster: GeneratedRoster, *, bom: bool = False) -> bytes:
    """The roster as a OneRoster 1.2 bulk zip.

    Args:
        roster: What to write.
        bom: Begin every file with a byte order mark, as spreadsheet programs do.
    """
    tables = _tables(roster)
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, (header, rows) in {"manifest.csv": _manifest(tables), **tables}.items():
            text = io.StringIO(newline="")
            writer = csv.writer(text)
            writer.writerow(header)
            writer.writerows(rows)
            # A fixed time stamp keeps the bytes a function of the seed.
            entry = zipfile.ZipInfo(name, date_time=(2026, 9, 1, 0, 0, 0))
            entry.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(entry, text.getvalue().encode("utf-8-sig" if bom else "utf-8"))
    return buffer.getvalue()


Table = tuple[tuple[str, ...], list[tuple[str, ...]]]
_FILES_OF_THE_STANDARD = (
    *("academicSessions", "categories", "classes", "classResources", "courses", "courseResources", "demographics"),
    *("enrollments", "lineItemLearningObjectiveIds", "lineItems", "lineItemScoreScales", "orgs", "resources"),
    *("resultLearningObjectiveIds", "results", "resultScoreScales", "roles", "scoreScales", "userProfiles"),
    *("userResources", "users"),
)


def _manifest(tables: Mapping[str, Table]) -> Table:
    rows = [("manifest.version", "1.0"), ("oneroster.version", "1.2")]
    rows += [(f"file.{name}", "bulk" if f"{name}.csv" in tables else "absent") for name in _FILES_OF_THE_STANDARD]
    rows += [("source.systemName", "hudur roster generate"), ("source.systemCode", "hudur")]
    return ("propertyName", "value"), list(rows)


def _tables(roster: GeneratedRoster) -> dict[str, Table]:
    first, middle, until = roster.first_day, roster.middle_day, roster.until_day
    schools = roster.schools
    orgs: list[tuple[str, ...]] = [("eg-mn", "", "", "مديرية التربية والتعليم بالمنوفية", "district", "13", "")]
    orgs += [(one.school, "", "", one.name, "school", one.school[-3:], "eg-mn") for one in schools]
    base = ("sourcedId", "status", "dateLastModified")
    return {
        "academicSessions.csv": (
            (*base, "title", "type", "startDate", "endDate", "parentSourcedId", "schoolYear"),
            [
                ("term-1", "", "", "الفصل الدراسي الأول", "term", first, middle, "", until[:4]),
                ("term-2", "", "", "الفصل الدراسي الثاني", "term", middle, until, "", until[:4]),
            ],
        ),
        "orgs.csv": (
            (*base, "name", "type", "identifier", "parentSourcedId"),
            orgs,
        ),
        "courses.csv": (
            (*base, "schoolYearSourcedId", "title", "courseCode", "grades", "orgSourcedId", "subjects", "subjectCodes"),
            [("homeroom", "", "", "", "الفصل", "HR", "", "eg-mn", "", "")],
        ),
        "classes.csv": _classes(schools),
        "users.csv": _users(schools),
        "demographics.csv": (
            (*base, "birthDate", "sex", "cityOfBirth"),
            [(p.person_id, "", "", p.born, _sex(p), "شبين الكوم") for one in schools for p, _ in people_of(one)],
        ),
        "roles.csv": _roles(schools),
        "enrollments.csv": _enrollments(schools),
    }


def _classes(schools: Sequence[GeneratedSchool]) -> Table:
    header = (
        *("sourcedId", "status", "dateLastModified", "title", "grades", "courseSourcedId", "classCode", "classType"),
        *("location", "schoolSourcedId", "termSourcedIds", "subjects", "subjectCodes", "periods"),
    )
    rows: list[tuple[str, ...]] = [
        (
            *(part.class_id, "", "", part.title, part.grade_code, "homeroom", part.class_id, "homeroom"),
            *(f"فصل {at}", one.school, "term-1,term-2", "", "", ""),
        )
        for one in schools
        for at, part in enumerate(one.classes, 1)
    ]
    return header, rows


def _users(schools: Sequence[GeneratedSchool]) -> Table:
    header = (
        *("sourcedId", "status", "dateLastModified", "enabledUser", "username", "userIds", "givenName", "familyName"),
        *("middleName", "identifier", "email", "sms", "phone", "agentSourcedIds", "grades", "password"),
        *("userMasterIdentifier", "resourceSourcedIds", "preferredGivenName", "preferredMiddleName"),
        *("preferredFamilyName", "primaryOrgSourcedId", "pronouns"),
    )
    rows: list[tuple[str, ...]] = []
    for one in schools:
        everyone = [person for person, _ in people_of(one)] + list(one.guardians)
        for p in everyone:
            number = f"{int(p.person_id[1:]):08d}"
            rows.append(
                (
                    *(p.person_id, "", "", "true", p.person_id, f"{{national:0{number}00000}}", p.given, p.family),
                    *(p.father, number, f"{p.person_id}@school.example", "", f"+2010{number}", "", "", ""),
                    *("", "", p.preferred, "", "", one.school, ""),
                )
            )
    return header, rows


_ROLE_WORDS = {Role.PUPIL: "student", Role.TEACHER: "teacher"}


def _roles(schools: Sequence[GeneratedSchool]) -> Table:
    header = (
        *("sourcedId", "status", "dateLastModified", "userSourcedId", "roleType", "role", "beginDate", "endDate"),
        *("orgSourcedId", "userProfileSourcedId"),
    )
    rows: list[tuple[str, ...]] = []
    for one in schools:
        said = [(person, _ROLE_WORDS[role]) for person, role in people_of(one) if role in _ROLE_WORDS]
        said += [(one.coordinator, "siteAdministrator"), (one.principal, "principal")]
        said += [(guardian, "guardian") for guardian in one.guardians]
        rows += [
            (f"r-{person.person_id}", "", "", person.person_id, "primary", word, "", "", one.school, "")
            for person, word in said
        ]
    return header, rows


def _enrollments(schools: Sequence[GeneratedSchool]) -> Table:
    header = (
        *("sourcedId", "status", "dateLastModified", "classSourcedId", "schoolSourcedId", "userSourcedId", "role"),
        *("primary", "beginDate", "endDate"),
    )
    rows: list[tuple[str, ...]] = [
        (
            *(f"e-{part.class_id}-{person.person_id}", "", "", part.class_id, one.school, person.person_id),
            *(_ROLE_WORDS[role], str(person is part.teachers[0]).lower(), "", ""),
        )
        for one in schools
        for part in one.classes
        for person, role, _ in members_of(part)
    ]
    return header, rows


def _sex(person: Person) -> str:
    return "female" if person.gender in ("girl", "woman") else "male"
