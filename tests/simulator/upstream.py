"""What the ministry's system says of the schools: a OneRoster export, changed now and then and imported."""

from __future__ import annotations

import csv
import io
import random
import zipfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import date as Date
from datetime import timedelta

from tests.simulator.school import School

FIRST_DAY, UNTIL_DAY = "2026-09-01", "2027-06-11"
_HEADS = {
    "academicSessions": "sourcedId,status,dateLastModified,title,type,startDate,endDate,parentSourcedId,schoolYear",
    "orgs": "sourcedId,status,dateLastModified,name,type,identifier,parentSourcedId",
    "users": "sourcedId,status,dateLastModified,enabledUser,username,givenName,familyName",
    "roles": "sourcedId,status,dateLastModified,userSourcedId,roleType,role,beginDate,endDate,orgSourcedId",
    "classes": (
        "sourcedId,status,dateLastModified,title,grades,courseSourcedId,classType,schoolSourcedId,termSourcedIds"
    ),
    "enrollments": (
        "sourcedId,status,dateLastModified,classSourcedId,schoolSourcedId,userSourcedId,role,beginDate,endDate"
    ),
}
_STAMP = (2026, 9, 1, 0, 0, 0)


@dataclass(slots=True)
class Upstream:
    """The export and its changes.

    Attributes:
        left: (school, class, pupil) to the first civil date on which the pupil is no longer there.
        assigned: (school, class, teacher) that were not there from the beginning, to their first date.
        ended: (school, teacher) who are not employed any more.
    """

    schools: Sequence[School]
    left: dict[tuple[str, str, str], str] = field(default_factory=dict)
    assigned: dict[tuple[str, str, str], str] = field(default_factory=dict)
    ended: set[tuple[str, str]] = field(default_factory=set)

    def change(self, source: random.Random, today: Date) -> str:
        """Something changes upstream; returns what."""
        school = source.choice(list(self.schools))
        how = source.randrange(4)
        if how == 0 and len(school.teachers) > 1 and not self.ended:
            self.ended.add((school.id, school.teachers[-1]))
            return "teacher-ended"
        if how == 1:
            class_id = source.choice(list(school.classes))
            for teacher in school.teachers:
                if teacher not in school.classes[class_id]:
                    since = (today - timedelta(days=source.randrange(4))).isoformat()
                    self.assigned.setdefault((school.id, class_id, teacher), since)
                    return "teacher-assigned"
        class_id = source.choice(list(school.classes))
        pupil = source.choice(school.pupils[class_id])
        if (school.id, class_id, pupil) in self.left:
            del self.left[school.id, class_id, pupil]
            return "pupil-back"
        if sum(key[:2] == (school.id, class_id) for key in self.left) + 1 < len(school.pupils[class_id]):
            self.left[school.id, class_id, pupil] = (today - timedelta(days=source.randrange(-1, 4))).isoformat()
        return "pupil-left"

    def export(self) -> bytes:
        """The zip as of now; ids of pupils and classes are the school's own, with its id before them."""
        rows: dict[str, list[Sequence[str]]] = {name: [] for name in _HEADS}
        rows["academicSessions"].append(("y", "", "", "2026/2027", "schoolYear", FIRST_DAY, UNTIL_DAY, "", "2027"))
        rows["orgs"].append(("d", "", "", "District", "district", "", ""))
        for school in self.schools:
            rows["orgs"].append((school.id, "", "", f"School {school.id}", "school", "", "d"))
            self._people(school, rows)
            for class_id in school.classes:
                rows["classes"].append((class_id, "", "", class_id.upper(), "03", "co", "homeroom", school.id, "y"))
                rows["enrollments"] += self._members(school, class_id)
        return _zip(rows)

    def _people(self, school: School, rows: dict[str, list[Sequence[str]]]) -> None:
        people = [(one, "teacher") for one in school.teachers if (school.id, one) not in self.ended]
        people += [(school.champion, "siteAdministrator")]
        people += [(pupil, "student") for pupils in school.pupils.values() for pupil in pupils]
        for one, role in people:
            rows["users"].append((one, "", "", "true", one, one.upper(), "X"))
            rows["roles"].append((f"r-{one}", "", "", one, "primary", role, "", "", school.id))

    def _members(self, school: School, class_id: str) -> Iterable[Sequence[str]]:
        for teacher in school.classes[class_id]:
            if (school.id, teacher) not in self.ended:
                yield (f"e-{class_id}-{teacher}", "", "", class_id, school.id, teacher, "teacher", "", "")
        for (at, place, teacher), since in self.assigned.items():
            if (at, place) == (school.id, class_id) and (school.id, teacher) not in self.ended:
                yield (f"e-{class_id}-{teacher}", "", "", class_id, school.id, teacher, "teacher", since, "")
        for pupil in school.pupils[class_id]:
            until = self.left.get((school.id, class_id, pupil), "")
            yield (f"e-{class_id}-{pupil}", "", "", class_id, school.id, pupil, "student", "", until)


def _zip(rows: dict[str, list[Sequence[str]]]) -> bytes:
    manifest = [("propertyName", "value"), ("manifest.version", "1.0"), ("oneroster.version", "1.2")]
    manifest += [(f"file.{name}", "bulk") for name in _HEADS]
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr(zipfile.ZipInfo("manifest.csv", _STAMP), _csv(manifest))
        for name, head in _HEADS.items():
            archive.writestr(zipfile.ZipInfo(f"{name}.csv", _STAMP), _csv([head.split(","), *rows[name]]))
    return buffer.getvalue()


def _csv(rows: Iterable[Sequence[str]]) -> str:
    out = io.StringIO(newline="")
    csv.writer(out).writerows(rows)
    return out.getvalue()
