"""Our codes in other standards: one to one, with descriptors that the standard has."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clientcore.register import Code, RegisterId
from reconciliation.errors import BadContext
from reconciliation.mapping import (
    EDFI_NAMESPACE,
    Ceds,
    EdFi,
    ceds_event,
    code_of_ceds,
    edfi_event,
    from_edfi,
    school_year,
    to_ceds,
    to_edfi,
)

DAY = RegisterId("007", "c-3a", "2026-11-22", "day")
LESSON = RegisterId("007", "c-3a", "2026-11-22", "am2")
REASONS = st.none() | st.from_regex(r"[a-z0-9_]{1,24}", fullmatch=True)
# The seven values of Ed-Fi's AttendanceEventCategoryDescriptor, and CEDS' attendance statuses.
EDFI = {"In Attendance", "Present", "Tardy", "Early departure", "Partial", "Excused Absence", "Unexcused Absence"}
CEDS = {"Present", "ExcusedAbsence", "UnexcusedAbsence", "Tardy", "EarlyDeparture"}
PRESENT_CATEGORIES = {str(n) for n in range(13_288, 13_293)}
ABSENT_CATEGORIES = {str(n) for n in range(13_293, 13_304)}


@given(st.sampled_from(list(Code)), REASONS)
def test_edfi_and_back_is_the_same(code: Code, reason: str | None) -> None:
    said = to_edfi(code, reason)
    assert said.descriptor.removeprefix(f"{EDFI_NAMESPACE}#") in EDFI
    assert len(said.reason) <= 48  # longest reason slug and longest word; Ed-Fi takes 255
    assert from_edfi(said) == (code, reason)


@given(st.sampled_from(list(Code)), REASONS)
def test_ceds_and_back_is_the_same_code(code: Code, reason: str | None) -> None:
    said = to_ceds(code, reason)
    assert said.status in CEDS
    assert said.category is None or said.category in (
        PRESENT_CATEGORIES if code.witnesses_presence else ABSENT_CATEGORIES
    )
    assert code_of_ceds(said) is code


def test_no_two_codes_are_the_same_thing_elsewhere() -> None:
    assert len({to_edfi(code) for code in Code}) == len({to_ceds(code) for code in Code}) == len(Code)


def test_presence_never_leaves_as_an_absence() -> None:
    """Nor the other way."""
    for code in Code:
        assert ("Absence" in to_edfi(code).descriptor) is not code.witnesses_presence
        assert ("Absence" in to_ceds(code).status) is not code.witnesses_presence


@pytest.mark.parametrize("said", [EdFi(descriptor=f"{EDFI_NAMESPACE}#Tardy", reason="present"),
                                  EdFi(descriptor=f"{EDFI_NAMESPACE}#Present", reason="nonsense")])  # fmt: skip
def test_what_we_never_say_is_not_read(said: EdFi) -> None:
    with pytest.raises(BadContext):
        from_edfi(said)
    with pytest.raises(BadContext):
        code_of_ceds(Ceds(status="Tardy", category="13302"))


def test_an_edfi_event_of_a_day_is_the_schools_and_of_a_lesson_its_sections() -> None:
    event = edfi_event(DAY, "0042", Code.ABSENT_EXCUSED, "sick")
    assert event == {
        "resource": "studentSchoolAttendanceEvents",
        "data": {
            "schoolReference": {"schoolId": "007"},
            "sessionReference": {"schoolId": "007", "schoolYear": 2027, "sessionName": "2026-2027"},
            "studentReference": {"studentUniqueId": "0042"},
            "eventDate": "2026-11-22",
            "attendanceEventCategoryDescriptor": "uri://ed-fi.org/AttendanceEventCategoryDescriptor#Excused Absence",
            "attendanceEventReason": "absent_excused:sick",
        },
    }
    assert edfi_event(LESSON, "0042", Code.LATE, "12")["resource"] == "studentSectionAttendanceEvents"


def test_a_ceds_event_names_the_category_by_what_it_is() -> None:
    assert ceds_event(DAY, "0042", Code.ABSENT_EXCUSED, "sick")["AbsentAttendanceCategory"] == "13295"
    assert ceds_event(LESSON, "0042", Code.PRESENT, None) == {
        "SchoolIdentifier": "007", "StudentIdentifier": "0042", "AttendanceEventDate": "2026-11-22",
        "AttendanceEventType": "ClassSectionAttendance", "CourseSectionIdentifier": "c-3a/am2",
        "AttendanceStatus": "Present", "PresentAttendanceCategory": "13288",
    }  # fmt: skip


def test_a_school_year_turns_in_summer() -> None:
    assert [school_year(date) for date in ("2026-07-31", "2026-08-01", "2027-01-10")] == [2026, 2027, 2027]
