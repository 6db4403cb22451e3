"""Roster zips for tests: a small good one, and ways to spoil single cells of it."""

from __future__ import annotations

import csv
import io
import zipfile
from collections.abc import Callable, Mapping

Rows = list[dict[str, str]]
FIRST_DAY, UNTIL_DAY = "2026-09-19", "2027-06-11"

SMALL: Mapping[str, str] = {
    "academicSessions.csv": f"""\
sourcedId,status,dateLastModified,title,type,startDate,endDate,parentSourcedId,schoolYear
y,,,2026/2027,schoolYear,{FIRST_DAY},{UNTIL_DAY},,2027
""",
    "orgs.csv": """\
sourcedId,status,dateLastModified,name,type,identifier,parentSourcedId
d,,,إدارة منوف,district,,
sc1,,,مدرسة النيل,school,,d
sc2,,,مدرسة طيبة,school,,d
""",
    "users.csv": """\
sourcedId,status,dateLastModified,enabledUser,username,givenName,familyName,middleName,email,preferredGivenName
p1,,,true,p1,أحمد,السيد,علي,p1@school.example,
p2,,,true,p2,منى,حسن,,,
p3,,,true,p3,سارة,عوض,,,سوسو
t1,,,true,t1,هدى,سالم,,t1@school.example,
c1,,,true,c1,خالد,رزق,,,
g1,,,true,g1,علي,السيد,,,
""",
    "roles.csv": """\
sourcedId,status,dateLastModified,userSourcedId,roleType,role,beginDate,endDate,orgSourcedId,userProfileSourcedId
r1,,,p1,primary,student,,,sc1,
r2,,,p2,primary,student,,,sc1,
r3,,,p3,primary,student,,,sc2,
r4,,,t1,primary,teacher,,,sc1,
r5,,,t1,secondary,teacher,,,sc2,
r6,,,c1,primary,siteAdministrator,,,sc1,
r7,,,g1,primary,guardian,,,sc1,
""",
    "classes.csv": """\
sourcedId,status,dateLastModified,title,grades,courseSourcedId,classCode,classType,location,schoolSourcedId,termSourcedIds
k1,,,٣/أ,09,co,,homeroom,,sc1,y
k2,,,١/ب,07,co,,homeroom,,sc2,y
""",
    "enrollments.csv": """\
sourcedId,status,dateLastModified,classSourcedId,schoolSourcedId,userSourcedId,role,primary,beginDate,endDate
e1,,,k1,sc1,p1,student,,,
e2,,,k1,sc1,p2,student,,,
e3,,,k2,sc2,p3,student,,,
e4,,,k1,sc1,t1,teacher,true,,
e5,,,k2,sc2,t1,teacher,true,,
""",
}


class Export:
    """A editable export: `export["users.csv"]` is its list of rows."""

    def __init__(self) -> None:
        self.files: dict[str, Rows] = {
            name: list(csv.DictReader(io.StringIO(text, newline=""))) for name, text in SMALL.items()
        }
        self.extra: dict[str, bytes] = {}
        self.manifest = {"manifest.version": "1.0", "oneroster.version": "1.2"}

    def __getitem__(self, file: str) -> Rows:
        return self.files[file]

    def row(self, file: str, source_id: str) -> dict[str, str]:
        return next(row for row in self.files[file] if row["sourcedId"] == source_id)

    def add(self, file: str, **cells: str) -> None:
        self.files[file].append({**dict.fromkeys(self.files[file][0], ""), **cells})

    def remove(self, file: str, source_id: str) -> None:
        self.files[file].remove(self.row(file, source_id))

    def text(self, file: str) -> str:
        out = io.StringIO(newline="")
        writer = csv.DictWriter(out, list(self.files[file][0]))
        writer.writeheader()
        writer.writerows(self.files[file])
        return out.getvalue()

    def zip(self, *, edit: Callable[[str, bytes], bytes] = lambda _, content: content) -> bytes:
        modes = {f"file.{name.removesuffix('.csv')}": "bulk" for name in self.files} | self.manifest
        manifest = "propertyName,value\r\n" + "".join(f"{key},{value}\r\n" for key, value in modes.items())
        files = (
            {"manifest.csv": manifest.encode()} | {name: self.text(name).encode() for name in self.files} | self.extra
        )
        return zip_of({name: edit(name, content) for name, content in files.items()})


def zip_of(files: Mapping[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return buffer.getvalue()
