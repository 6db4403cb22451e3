"""Our codes in the words of two standards, one to one, so that nothing is lost on the way out. Pure.

*Ed-Fi* (Data Standard 3 to 6) has seven attendance categories and a free reason. Several of our codes share a category;
the reason begins with our own word, so that both together name one code: `Unexcused Absence` + `absent` is an absence
whose reason nobody knows yet, `Unexcused Absence` + `absent_unexcused` one that was found to have none.

*CEDS* has an attendance status and, beside it, a category of presence or of absence, each with a number.

*Not taken* and *no session* have no code in either, and none is made up: they are not exported.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from clientcore.register import Code, RegisterId
from reconciliation.errors import BadContext

EDFI_NAMESPACE = "uri://ed-fi.org/AttendanceEventCategoryDescriptor"
EDFI_CATEGORIES: Mapping[Code, str] = {
    Code.PRESENT: "In Attendance",
    Code.LATE: "Tardy",
    Code.LEFT_EARLY: "Early departure",
    Code.ABSENT: "Unexcused Absence",  # until somebody says why: Ed-Fi knows no open reason
    Code.ABSENT_EXCUSED: "Excused Absence",
    Code.ABSENT_UNEXCUSED: "Unexcused Absence",
    Code.OFFICIAL_DUTY: "In Attendance",  # away on the school's own errand
    Code.SUSPENDED: "Excused Absence",  # the school sent the pupil away: nobody stayed away without leave
}


@dataclass(frozen=True, slots=True, kw_only=True)
class EdFi:
    """A category and reason as Ed-Fi's attendance events carry them."""

    descriptor: str
    reason: str


def to_edfi(code: Code, reason: str | None = None) -> EdFi:
    """Our code and reason slug (for *late* the minutes) as Ed-Fi has them."""
    return EdFi(
        descriptor=f"{EDFI_NAMESPACE}#{EDFI_CATEGORIES[code]}",
        reason=code.word if reason is None else f"{code.word}:{reason}",
    )


def from_edfi(said: EdFi) -> tuple[Code, str | None]:
    """The code and reason that `to_edfi` was given.

    Raises:
        BadContext: `bad-mapping`, for what it never gives.
    """
    word, separator, reason = said.reason.partition(":")
    code = next((code for code in Code if code.word == word), None)
    if code is None or said.descriptor != f"{EDFI_NAMESPACE}#{EDFI_CATEGORIES[code]}":
        raise BadContext("bad-mapping", f"{said.descriptor} {said.reason}")
    return code, reason if separator else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Ceds:
    """A status and the number of a category, of presence where the pupil is present, else of absence."""

    status: str
    category: str | None


_CEDS: Mapping[Code, Ceds] = {
    Code.PRESENT: Ceds(status="Present", category="13288"),  # in school, regular programme
    Code.LATE: Ceds(status="Tardy", category="13288"),
    Code.LEFT_EARLY: Ceds(status="EarlyDeparture", category="13288"),
    Code.ABSENT: Ceds(status="UnexcusedAbsence", category="13303"),  # situation unknown
    Code.ABSENT_EXCUSED: Ceds(status="ExcusedAbsence", category=None),
    Code.ABSENT_UNEXCUSED: Ceds(status="UnexcusedAbsence", category=None),  # 13302 would say why, and accuse
    Code.OFFICIAL_DUTY: Ceds(status="Present", category="13291"),  # out of school, part of the programme
    Code.SUSPENDED: Ceds(status="ExcusedAbsence", category="13297"),  # disciplinary, without instruction
}
_CEDS_REASONS: Mapping[str, str] = {"sick": "13295", "family": "13296", "travel": "13299"}
"""Categories of an excused absence whose reason is one of the phone's."""


def to_ceds(code: Code, reason: str | None = None) -> Ceds:
    """Our code and reason as CEDS has them."""
    category = _CEDS_REASONS.get(reason or "") if code is Code.ABSENT_EXCUSED else None
    return _CEDS[code] if category is None else Ceds(status=_CEDS[code].status, category=category)


def code_of_ceds(said: Ceds) -> Code:
    """The code that `to_ceds` was given.

    Raises:
        BadContext: `bad-mapping`, for what it never gives.
    """
    if said.status == "ExcusedAbsence" and said.category in _CEDS_REASONS.values():
        return Code.ABSENT_EXCUSED
    for code, known in _CEDS.items():
        if known == said:
            return code
    raise BadContext("bad-mapping", f"{said.status} {said.category}")


# ---- records ----------------------------------------------------------------------------------------------------

_YEAR_TURNS_IN = "08"  # the school year that ends in summer has the name of that summer's year


def school_year(date: str) -> int:
    """The school year of a date as Ed-Fi names it: 2027 for September 2026 to July 2027."""
    return int(date[:4]) + (date[5:7] >= _YEAR_TURNS_IN)


def edfi_event(register: RegisterId, pupil: str, code: Code, reason: str | None) -> dict[str, object]:
    """One official answer in the shape of an Ed-Fi resource, which `resource` names.

    The register of a whole day is an event of the school, a lesson's register one of its section. Ids are ours, as
    text: whoever sends the record on knows the numbers of its own Ed-Fi system.
    """
    year, said = school_year(register.date), to_edfi(code, reason)
    term = {"schoolId": register.school, "schoolYear": year, "sessionName": f"{year - 1}-{year}"}
    event: dict[str, object] = {
        "studentReference": {"studentUniqueId": pupil},
        "eventDate": register.date,
        "attendanceEventCategoryDescriptor": said.descriptor,
        "attendanceEventReason": said.reason,
    }
    if register.session == "day":
        where = {"schoolReference": {"schoolId": register.school}, "sessionReference": term}
        return {"resource": "studentSchoolAttendanceEvents", "data": {**where, **event}}
    section = {**term, "sectionIdentifier": register.class_id, "localCourseCode": register.session}
    return {"resource": "studentSectionAttendanceEvents", "data": {"sectionReference": section, **event}}


def ceds_event(register: RegisterId, pupil: str, code: Code, reason: str | None) -> dict[str, object]:
    """One official answer with the names of CEDS elements."""
    said = to_ceds(code, reason)
    kind = "PresentAttendanceCategory" if code.witnesses_presence else "AbsentAttendanceCategory"
    return {
        "SchoolIdentifier": register.school,
        "StudentIdentifier": pupil,
        "AttendanceEventDate": register.date,
        "AttendanceEventType": "DailyAttendance" if register.session == "day" else "ClassSectionAttendance",
        "CourseSectionIdentifier": f"{register.class_id}/{register.session}",
        "AttendanceStatus": said.status,
        kind: said.category,
    }
