"""What the sandbox school system holds: OneRoster 1.2 objects made from a generated roster, private fields and all."""

from __future__ import annotations

from typing import Any

from syncserver.rostergen import GeneratedRoster, GeneratedSchool, Person, generate, members_of, people_of
from syncserver.rostermodel import Role
from syncserver.rosterwrite import _ROLE_WORDS

Objects = dict[str, list[dict[str, Any]]]
FIRST_MS = "2026-08-01T06:00:00.000Z"


def small_roster(schools: int = 2) -> GeneratedRoster:
    return generate(schools=schools, seed=5, first_day="2026-08-01", until_day="2027-10-01")


def objects_of(roster: GeneratedRoster) -> Objects:
    """The five collections, sorted by id as a server gives them."""
    made: Objects = {
        "academicSessions": [
            _base("term-1", title="الأول", type="term", startDate=roster.first_day, endDate=roster.middle_day),
            _base("term-2", title="الثاني", type="term", startDate=roster.middle_day, endDate=roster.until_day),
        ],
        "orgs": [_base("eg-mn", name="المنوفية", type="district", identifier="13")],
        "users": [],
        "classes": [],
        "enrollments": [],
    }
    for school in roster.schools:
        made["orgs"].append(_base(school.school, name=school.name, type="school", identifier="1"))
        made["users"] += _users(school)
        for part in school.classes:
            made["classes"].append(
                _base(
                    part.class_id,
                    title=part.title,
                    grades=[part.grade_code],
                    course=_ref("homeroom", "course"),
                    school=_ref(school.school, "org"),
                    terms=[_ref("term-1", "academicSession"), _ref("term-2", "academicSession")],
                    classType="homeroom",
                )
            )
            made["enrollments"] += [
                _base(
                    f"e-{part.class_id}-{person.person_id}",
                    user=_ref(person.person_id, "user"),
                    school=_ref(school.school, "org"),
                    role=_ROLE_WORDS[role],
                    primary=person is part.teachers[0],
                    beginDate=roster.first_day,
                    endDate=roster.until_day,
                    **{"class": _ref(part.class_id, "class")},
                )
                for person, role, _ in members_of(part)
            ]
    for objects in made.values():
        objects.sort(key=lambda one: str(one["sourcedId"]))
    return made


def _base(source_id: str, **fields: Any) -> dict[str, Any]:
    return {"sourcedId": source_id, "status": "active", "dateLastModified": FIRST_MS, **fields}


def _ref(source_id: str, kind: str) -> dict[str, str]:
    return {"href": f"https://sis.example/{kind}/{source_id}", "sourcedId": source_id, "type": kind}


def _users(school: GeneratedSchool) -> list[dict[str, Any]]:
    said = [(person, _ROLE_WORDS[role]) for person, role in people_of(school) if role is not Role.CHAMPION]
    said += [(school.coordinator, "siteAdministrator"), (school.principal, "principal")]
    said += [(guardian, "guardian") for guardian in school.guardians]
    return [_user(person, word, school.school) for person, word in said]


def _user(person: Person, word: str, school: str) -> dict[str, Any]:
    return _base(
        person.person_id,
        enabledUser="true",
        username=person.person_id,
        givenName=person.given,
        middleName=person.father,
        familyName=person.family,
        preferredFirstName=person.preferred,
        preferredGivenName=person.preferred,
        email=f"{person.person_id}@school.example",
        phone="+20100000000",
        roles=[
            {
                "roleType": "primary",
                "role": word,
                "org": _ref(school, "org"),
                "beginDate": "2026-08-01",
                "userProfile": "https://sis.example/profile",
            }
        ],
    )
