"""The OneRoster reader: what crosses, what is dropped, and how every bad row and hostile zip is named."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from syncserver import oneroster, oneroster_zip, roster_messages, rostergen, rosterwrite
from syncserver.rostermodel import Role, RosterImport
from tests.support.rosters import FIRST_DAY, UNTIL_DAY, Export, zip_of


def read(data: bytes) -> RosterImport:
    return oneroster.read(io.BytesIO(data))


def found(data: bytes) -> list[tuple[str, int, str, str]]:
    result = read(data)
    assert all(roster_messages.message(row.code)[1] for row in result.errors)
    return [(row.file, row.line, row.column, row.code) for row in result.errors]


def test_only_ids_names_roles_and_classes_cross() -> None:
    """Everything else is dropped at the door, counted by column, word and file, and no value of it survives."""
    export = Export()
    export.extra["demographics.csv"] = b"sourcedId,birthDate\r\np1,2012-01-01\r\n"
    result = read(export.zip())
    assert result.errors == ()
    assert result.dropped.columns["users.csv:email"] == 2
    assert result.dropped.columns["users.csv:username"] == 6
    assert "users.csv:givenName" not in result.dropped.columns
    assert result.dropped.rows == {"orgs.csv:district": 1, "roles.csv:guardian": 1, "users.csv:no role here": 1}
    assert result.dropped.files == {"demographics.csv": 36}
    assert "school.example" not in repr(result)
    assert "2012-01-01" not in repr(result)


def test_names_keep_their_spelling_and_preferred_forms_win() -> None:
    """The display name is given, middle and family name as upstream spells them; a preferred part replaces its own."""
    names = {user.user_id: user.name for user in read(Export().zip()).users}
    assert names["p1"] == "أحمد علي السيد"
    assert names["p3"] == "سوسو عوض"


def test_roles_are_mapped_per_school() -> None:
    """A teacher of two schools is a teacher in both; a site administrator is the school's champion."""
    users = {(user.school, user.user_id): user.role for user in read(Export().zip()).users}
    assert users == {
        ("sc1", "p1"): Role.PUPIL,
        ("sc1", "p2"): Role.PUPIL,
        ("sc2", "p3"): Role.PUPIL,
        ("sc1", "t1"): Role.TEACHER,
        ("sc2", "t1"): Role.TEACHER,
        ("sc1", "c1"): Role.CHAMPION,
    }


def test_the_stronger_role_wins() -> None:
    """A principal who also teaches is a champion, whichever row comes first."""
    export = Export()
    export.add(
        "roles.csv", sourcedId="r8", userSourcedId="t1", roleType="secondary", role="principal", orgSourcedId="sc1"
    )
    export.add(
        "roles.csv", sourcedId="r9", userSourcedId="c1", roleType="secondary", role="teacher", orgSourcedId="sc1"
    )
    result = read(export.zip())
    assert result.errors == ()
    roles = {user.user_id: user.role for user in result.users if user.school == "sc1"}
    assert (roles["t1"], roles["c1"]) == (Role.CHAMPION, Role.CHAMPION)


def test_classes_carry_their_grade_in_words() -> None:
    """CEDS codes become the words on Egyptian registers; a grade in words stays."""
    export = Export()
    export.row("classes.csv", "k2")["grades"] = "تمهيدي"
    grades = {row.class_id: (row.name, row.grade) for row in read(export.zip()).classes}
    assert grades == {"k1": ("٣/أ", "الثالث الإعدادي"), "k2": ("١/ب", "تمهيدي")}


def test_enrolments_last_as_long_as_their_dates_or_their_terms() -> None:
    """Own dates first, else those of the class's terms; the roll counts pupils in the order of the file."""
    export = Export()
    export.row("enrollments.csv", "e2")["beginDate"] = "2026-11-01"
    rows = {(row.class_id, row.user_id): row for row in read(export.zip()).enrolments}
    first, second, teacher = rows["k1", "p1"], rows["k1", "p2"], rows["k1", "t1"]
    assert (first.from_date, first.until_date, first.roll) == (FIRST_DAY, UNTIL_DAY, 1)
    assert (second.from_date, second.until_date, second.roll) == ("2026-11-01", UNTIL_DAY, 2)
    assert (teacher.role, teacher.roll) == (Role.TEACHER, 0)


def test_withdrawn_rows_are_ended() -> None:
    """`tobedeleted` marks a row as ended, and with a class or a person go the stays in it."""
    export = Export()
    export.row("classes.csv", "k2")["status"] = "tobedeleted"
    export.row("users.csv", "p2")["status"] = "tobedeleted"
    export.row("enrollments.csv", "e4")["status"] = "tobedeleted"
    result = read(export.zip())
    assert result.errors == ()
    assert {row.class_id for row in result.classes if row.ended} == {"k2"}
    assert {row.user_id for row in result.users if row.ended} == {"p2"}
    ended = {(row.class_id, row.user_id) for row in result.enrolments if row.ended}
    assert ended == {("k2", "p3"), ("k2", "t1"), ("k1", "p2"), ("k1", "t1")}


def test_enabled_user_false_ends_staff_and_says_nothing_of_pupils() -> None:
    """A pupil never signs in; a teacher without permission to use systems has no rights here."""
    export = Export()
    export.row("users.csv", "p1")["enabledUser"] = "false"
    export.row("users.csv", "t1")["enabledUser"] = "false"
    ended = {(user.school, user.user_id) for user in read(export.zip()).users if user.ended}
    assert ended == {("sc1", "t1"), ("sc2", "t1")}


@pytest.mark.parametrize("bom", [b"", b"\xef\xbb\xbf"])
def test_files_are_read_with_and_without_byte_order_mark(bom: bytes) -> None:
    """Spreadsheet programs write one, machines do not."""
    result = read(Export().zip(edit=lambda _, content: bom + content))
    assert (result.errors, len(result.users)) == ((), 6)


Spoil = Callable[[Export], None]


def cell(file: str, source_id: str, column: str, value: str) -> Spoil:
    def spoil(export: Export) -> None:
        export.row(file, source_id)[column] = value

    return spoil


def more(file: str, **cells: str) -> Spoil:
    return lambda export: export.add(file, **cells)


BAD_ROWS: list[tuple[Spoil, tuple[str, int, str, str]]] = [
    (cell("users.csv", "p2", "sourcedId", "طالب 2"), ("users.csv", 3, "sourcedId", "bad-id")),
    (cell("users.csv", "p2", "sourcedId", ""), ("users.csv", 3, "sourcedId", "value-missing")),
    (cell("users.csv", "p2", "sourcedId", "p1"), ("users.csv", 3, "sourcedId", "duplicate-id")),
    (cell("users.csv", "p2", "status", "deleted"), ("users.csv", 3, "status", "bad-status")),
    (cell("users.csv", "p2", "enabledUser", "yes"), ("users.csv", 3, "enabledUser", "bad-boolean")),
    (cell("users.csv", "p2", "givenName", "م\u202eنى"), ("users.csv", 3, "givenName", "control-characters")),
    (cell("users.csv", "p2", "givenName", "م" * 200), ("users.csv", 3, "givenName", "value-long")),
    (cell("orgs.csv", "sc2", "type", "madrasa"), ("orgs.csv", 4, "type", "bad-type")),
    (cell("orgs.csv", "sc2", "name", ""), ("orgs.csv", 4, "name", "value-missing")),
    (
        cell("academicSessions.csv", "y", "startDate", "2026-02-30"),
        ("academicSessions.csv", 2, "startDate", "bad-date"),
    ),
    (
        cell("academicSessions.csv", "y", "endDate", "2025-06-01"),
        ("academicSessions.csv", 2, "endDate", "dates-reversed"),
    ),
    (cell("academicSessions.csv", "y", "endDate", ""), ("academicSessions.csv", 2, "endDate", "value-missing")),
    (cell("academicSessions.csv", "y", "type", "semestre"), ("academicSessions.csv", 2, "type", "bad-type")),
    (cell("roles.csv", "r2", "role", "pupil"), ("roles.csv", 3, "role", "bad-role")),
    (cell("roles.csv", "r2", "roleType", "third"), ("roles.csv", 3, "roleType", "bad-type")),
    (cell("roles.csv", "r2", "orgSourcedId", "sc9"), ("roles.csv", 3, "orgSourcedId", "unknown-school")),
    (cell("roles.csv", "r2", "userSourcedId", "p9"), ("roles.csv", 3, "userSourcedId", "unknown-user")),
    (cell("classes.csv", "k2", "schoolSourcedId", "sc9"), ("classes.csv", 3, "schoolSourcedId", "unknown-school")),
    (cell("classes.csv", "k2", "termSourcedIds", "y,z"), ("classes.csv", 3, "termSourcedIds", "unknown-term")),
    (cell("classes.csv", "k2", "title", ""), ("classes.csv", 3, "title", "value-missing")),
    (cell("enrollments.csv", "e2", "classSourcedId", "k9"), ("enrollments.csv", 3, "classSourcedId", "unknown-class")),
    (cell("enrollments.csv", "e2", "userSourcedId", "p9"), ("enrollments.csv", 3, "userSourcedId", "unknown-user")),
    (
        cell("enrollments.csv", "e2", "userSourcedId", "p1"),
        ("enrollments.csv", 3, "userSourcedId", "duplicate-enrolment"),
    ),
    (cell("enrollments.csv", "e2", "userSourcedId", "p3"), ("enrollments.csv", 3, "userSourcedId", "no-role")),
    (cell("enrollments.csv", "e2", "userSourcedId", "g1"), ("enrollments.csv", 3, "userSourcedId", "no-role")),
    (
        cell("enrollments.csv", "e2", "schoolSourcedId", "sc2"),
        ("enrollments.csv", 3, "schoolSourcedId", "school-mismatch"),
    ),
    (cell("enrollments.csv", "e2", "role", "teacher"), ("enrollments.csv", 3, "role", "role-mismatch")),
    (cell("enrollments.csv", "e2", "role", "learner"), ("enrollments.csv", 3, "role", "bad-role")),
    (cell("enrollments.csv", "e2", "beginDate", "01/11/2026"), ("enrollments.csv", 3, "beginDate", "bad-date")),
    (
        more("roles.csv", sourcedId="r8", userSourcedId="p1", roleType="primary", role="teacher", orgSourcedId="sc1"),
        ("roles.csv", 9, "role", "pupil-and-staff"),
    ),
]


@pytest.mark.parametrize(
    ("spoil", "expected"), BAD_ROWS, ids=[f"{e[0]}:{e[2]}:{e[3]}:{i}" for i, (_, e) in enumerate(BAD_ROWS)]
)
def test_a_bad_row_is_named(spoil: Spoil, expected: tuple[str, int, str, str]) -> None:
    """Each fault is found with its file, line, column and code, and with words in two languages."""
    export = Export()
    spoil(export)
    assert expected in found(export.zip())


def test_a_bad_row_is_reported_once() -> None:
    """Rows that refer to a faulty row are not reported again: one fault, one line to mend."""
    export = Export()
    export.row("users.csv", "p1")["enabledUser"] = "yes"
    export.row("classes.csv", "k2")["title"] = ""
    assert found(export.zip()) == [
        ("classes.csv", 3, "title", "value-missing"),
        ("users.csv", 2, "enabledUser", "bad-boolean"),
    ]


@pytest.mark.parametrize(
    ("old", "new", "code"),
    [
        ("منى".encode(), "منى".encode("cp1256"), "not-utf8"),
        ("منى".encode(), '"منى'.encode(), "csv-quote"),
        ("منى".encode(), "منى,".encode(), "row-shape"),
    ],
)
def test_a_garbled_row_does_not_hide_the_others(old: bytes, new: bytes, code: str) -> None:
    """A wrong byte, an open quote or a stray comma spoils its own row; the rows after it are read and checked."""
    export = Export()
    export.row("users.csv", "t1")["enabledUser"] = "perhaps"
    result = found(export.zip(edit=lambda name, content: content.replace(old, new) if name == "users.csv" else content))
    assert [(line, found_code) for file, line, _, found_code in result if file == "users.csv"] == [
        (3, code),
        (5, "bad-boolean"),
    ]


@pytest.mark.parametrize(
    ("key", "value", "code"),
    [
        ("oneroster.version", "1.1", "version"),
        ("file.users", "delta", "delta"),
        ("file.users", "absent", "not-bulk"),
    ],
)
def test_another_version_or_mode_is_refused(key: str, value: str, code: str) -> None:
    """Only bulk exports of 1.2 are read, and the manifest decides."""
    export = Export()
    export.manifest[key] = value
    assert [row[3] for row in found(export.zip())] == [code]


def test_a_missing_file_or_column_is_named() -> None:
    """A zip without users.csv, and a users.csv without a needed column."""
    export = Export()
    del export.files["users.csv"]
    export.manifest["file.users"] = "bulk"
    assert found(export.zip()) == [("users.csv", 0, "", "file-missing")]
    export = Export()
    for row in export["users.csv"]:
        del row["enabledUser"]
    assert found(export.zip()) == [("users.csv", 1, "", "header-missing")]


def spoiled_flag(data: bytes) -> bytes:
    """Set the encryption bit of the first entry, in both of its headers."""
    at = data.index(b"PK\x01\x02")
    return data[:6] + b"\x01" + data[7 : at + 8] + b"\x01" + data[at + 9 :]


def bomb() -> bytes:
    export = Export()
    export.extra["resources.csv"] = b"0" * (8 << 20)
    return export.zip()


def lying_bomb() -> bytes:
    """users.csv inflates to 8 MB, both headers say 5,000 bytes."""
    export = Export()
    data = export.zip(edit=lambda name, content: content + b"x" * (8 << 20) if name == "users.csv" else content)
    real = len(export.text("users.csv").encode()) + (8 << 20)
    return data.replace(real.to_bytes(4, "little"), (5_000).to_bytes(4, "little"))


def many_entries() -> bytes:
    return zip_of({f"f{number}.csv": b"" for number in range(5_000)})


HOSTILE: list[tuple[str, Callable[[], bytes], str]] = [
    ("empty", lambda: b"", "zip-broken"),
    ("text", lambda: b"sourcedId,status\r\n" * 100, "zip-broken"),
    ("cut", lambda: Export().zip()[:-40], "zip-broken"),
    ("path", lambda: zip_of({"../users.csv": b""}), "zip-names"),
    ("absolute", lambda: zip_of({"/etc/passwd": b""}), "zip-names"),
    ("folder", lambda: zip_of({"roster/users.csv": b""}), "zip-names"),
    ("encrypted", lambda: spoiled_flag(Export().zip()), "zip-encrypted"),
    ("bomb", bomb, "zip-bomb"),
    ("lying bomb", lying_bomb, "zip-damaged"),
    ("entries", many_entries, "zip-directory"),
]


@pytest.mark.parametrize(("make", "code"), [row[1:] for row in HOSTILE], ids=[row[0] for row in HOSTILE])
def test_a_hostile_zip_is_refused_by_name(make: Callable[[], bytes], code: str) -> None:
    """Nothing of it is read further; the error says what to do."""
    assert [row[3] for row in found(make())] == [code]


def test_a_second_entry_of_one_name_is_refused() -> None:
    """Two users.csv: nobody could say which one counts."""
    buffer = io.BytesIO(Export().zip())
    with zipfile.ZipFile(buffer, "a") as archive, pytest.warns(UserWarning, match="Duplicate name"):
        archive.writestr("users.csv", b"")
    assert [row[3] for row in found(buffer.getvalue())] == ["zip-names"]


def test_inflated_bytes_are_counted_whatever_the_headers_say(monkeypatch: pytest.MonkeyPatch) -> None:
    """The cap is on bytes that came out, not on the size that the zip declares."""
    monkeypatch.setattr(oneroster_zip, "INFLATED_BYTES_MAX", 600)
    assert [row[3] for row in found(Export().zip())] == ["zip-bomb"]


def test_a_line_without_end_is_refused_before_it_is_held(monkeypatch: pytest.MonkeyPatch) -> None:
    """A line longer than any roster row ends the reading of its file."""
    monkeypatch.setattr(oneroster_zip, "LINE_CHARS_MAX", 500)
    export = Export()
    export.row("users.csv", "p1")["email"] = "x" * 501
    assert found(export.zip()) == [("users.csv", 2, "", "line-long")]


def test_every_code_has_words_and_errors_are_capped() -> None:
    """Two thousand bad rows give a thousand errors and the true number."""
    export = Export()
    for number in range(2_000):
        export.add("users.csv", sourcedId=f"x{number}", enabledUser="?", givenName="أ", familyName="ب")
    result = read(export.zip())
    assert (len(result.errors), result.errors_found) == (1_000, 2_000)


@settings(max_examples=12, deadline=None)
@given(seed=st.integers(0, 2**32), schools=st.integers(1, 3), bom=st.booleans())
def test_a_generated_roster_comes_out_as_it_was_generated(seed: int, schools: int, bom: bool) -> None:
    """Writing schools as OneRoster and reading them back gives the same people, classes and stays, and no guardian."""
    made = rostergen.generate(schools=schools, seed=seed, first_day=FIRST_DAY, until_day=UNTIL_DAY)
    result = read(rosterwrite.write_zip(made, bom=bom))
    assert result.errors == ()
    assert result.orgs == made.orgs()
    assert result.terms == made.terms()
    assert result.classes == made.classes()
    assert sorted(result.users, key=repr) == sorted(made.users(), key=repr)
    assert result.enrolments == made.enrolments()
    assert all(sum(len(part.pupils) == 40 for part in school.classes) >= 1 for school in made.schools)


@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_no_mutilated_zip_does_anything_but_be_read_or_named(data: st.DataObject) -> None:
    """Flip, cut or repeat bytes anywhere: the reader returns, and what it returns has words."""
    good = Export().zip()
    start = data.draw(st.integers(0, len(good) - 1))
    length = data.draw(st.integers(1, 64))
    patch = data.draw(st.binary(max_size=64))
    result = read(good[:start] + patch + good[start + length :])
    assert all(roster_messages.message(row.code) for row in result.errors)
