"""OneRoster REST objects → the rows of a OneRoster CSV zip, so that an import has one set of rules. Pure.

Only the columns the import reads are written; all other fields are counted and forgotten where they are read. What REST
says in another shape: a person's roles stand inside the person, and lists and references are objects. A list has no
order, so pupils are rolled by name, as a register is: given, middle and family name, then id.
"""

from __future__ import annotations

import csv
import io
import zipfile
from collections.abc import Callable, Sequence

from syncserver.upstream.contract import Item

_STATUS = frozenset(("active", "tobedeleted"))
_USER = ("givenName", "familyName", "middleName", "preferredGivenName", "preferredMiddleName", "preferredFamilyName")
COLUMNS: dict[str, Sequence[str]] = {
    "academicSessions.csv": ("sourcedId", "status", "startDate", "endDate", "type"),
    "orgs.csv": ("sourcedId", "status", "name", "type"),
    "users.csv": ("sourcedId", "status", "enabledUser", *_USER),
    "roles.csv": ("sourcedId", "status", "userSourcedId", "roleType", "role", "orgSourcedId", "beginDate", "endDate"),
    "classes.csv": ("sourcedId", "status", "title", "schoolSourcedId", "termSourcedIds", "grades"),
    "enrollments.csv": (
        *("sourcedId", "status", "classSourcedId", "schoolSourcedId", "userSourcedId", "role"),
        *("beginDate", "endDate"),
    ),
}
ENDPOINT_OF = {file: file.removesuffix(".csv") for file in COLUMNS} | {"roles.csv": "users"}
"""Where what a file of the zip says was read."""

Take = Callable[[Item], None]
RollKey = tuple[str, ...]


class Tables:
    """Collects the rows."""

    def __init__(self) -> None:
        self._texts = {file: io.StringIO(newline="") for file in COLUMNS}
        self._rows = {file: csv.writer(text) for file, text in self._texts.items()}
        self._names: dict[str, RollKey] = {}
        self._enrolments: list[tuple[RollKey, tuple[str, ...]]] = []
        for file, columns in COLUMNS.items():
            self._rows[file].writerow(columns)

    def takers(self) -> dict[str, Take]:
        """Collections to ask for, in order, each with what takes one object of it."""
        return {
            "academicSessions": self._session,
            "orgs": self._org,
            "users": self._user,
            "classes": self._class,
            "enrollments": self._enrolment,
        }

    def _session(self, item: Item) -> None:
        row = (*_head(item), item.text("startDate"), item.text("endDate"), item.text("type"))
        self._rows["academicSessions.csv"].writerow(row)

    def _org(self, item: Item) -> None:
        self._rows["orgs.csv"].writerow((*_head(item), item.text("name"), item.text("type")))

    def _user(self, item: Item) -> None:
        user, status = _head(item)
        enabled = "true" if item.flag("enabledUser") else "false"
        given, family = item.text("givenName"), item.text("familyName")
        names = (given, family, *(item.maybe(name) for name in _USER[2:]))
        self._rows["users.csv"].writerow((user, status, enabled, *names))
        self._names[user] = (given, names[2], family, user)
        for at, role in enumerate(item.many("roles")):
            row = (
                *(f"{user}/{at}", status, user, role.text("roleType"), role.text("role"), role.ref("org")),
                *(role.maybe("beginDate"), role.maybe("endDate")),
            )
            self._rows["roles.csv"].writerow(row)
            role.close()

    def _class(self, item: Item) -> None:
        row = (
            *(*_head(item), item.text("title"), item.ref("school")),
            *(",".join(item.refs("terms")), ",".join(item.texts("grades"))),
        )
        self._rows["classes.csv"].writerow(row)

    def _enrolment(self, item: Item) -> None:
        head, room, user = _head(item), item.ref("class"), item.ref("user")
        row = (
            *(*head, room, item.ref("school"), user, item.text("role")),
            *(item.maybe("beginDate"), item.maybe("endDate")),
        )
        self._enrolments.append(((room, *self._names.get(user, (user,)), row[0]), row))

    def archive(self) -> bytes:
        """The zip; the same rows give the same bytes, whatever the order in which enrolments came."""
        for _, row in sorted(self._enrolments):
            self._rows["enrollments.csv"].writerow(row)
        self._enrolments.clear()
        manifest = io.StringIO(newline="")
        lines = [("propertyName", "value"), ("manifest.version", "1.0"), ("oneroster.version", "1.2")]
        csv.writer(manifest).writerows(lines + [(f"file.{file.removesuffix('.csv')}", "bulk") for file in COLUMNS])
        made = io.BytesIO()
        with zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, text in {"manifest.csv": manifest, **self._texts}.items():
                entry = zipfile.ZipInfo(name, date_time=(2026, 9, 1, 0, 0, 0))  # no clock in the bytes
                entry.compress_type = zipfile.ZIP_DEFLATED
                archive.writestr(entry, text.getvalue().encode())
        return made.getvalue()


def _head(item: Item) -> tuple[str, str]:
    return item.text("sourcedId"), item.word("status", _STATUS)
