"""What can be wrong with a sheet somebody types in, and sheets as a CSV file. Nothing is written here.

    school,class,date,session,document,signed_by,pupil,code
    eg-07-113,c-3a,2026-11-22,day,period_sheet,t1,s007,absent

One row for each pupil who was absent or late; a sheet on which nobody was has one row without pupil and code.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import date as Date
from datetime import timedelta
from itertools import islice

from clientcore.errors import BadInput
from clientcore.register import Code, RegisterId
from reconciliation.paper import PAPER_CODES, Document
from syncserver.errors import RequestProblem
from syncserver.store.paper import NewEntry
from syncserver.store.parity import Members, members_of, rosters_on
from syncserver.store.port import Reader

COLUMNS = ("school", "class", "date", "session", "document", "signed_by", "pupil", "code")
ROWS_MAX = 200_000
ERRORS_MAX = 200  # told one by one; the rest is counted
DAYS_MAX = 400  # older than a school year, a sheet says nothing to the gate
SIGNER_ROLES = frozenset(("teacher", "supervisor", "principal", "champion"))
CODES: Mapping[str, Code] = {code.value: code for code in PAPER_CODES} | {code.word: code for code in PAPER_CODES}
_DOCUMENTS = frozenset(one.value for one in Document)
_DIGITS = str.maketrans("٠١٢٣٤٥٦٧٨٩", "0123456789")

_WORDS = {
    "bad-register": ("no register: {0}", "معرّف السجل غير صحيح: {0}"),
    "bad-document": ("the document is period_sheet or class_book, not {0}", "نوع المستند غير معروف: {0}"),
    "bad-code": ("{0}: a sheet says absent (A, E, U) or late (L)", "{0}: رمز غير معروف؛ المتاح غائب أو متأخر"),
    "future-date": ("{0} has not come yet", "{0} تاريخ لم يأتِ بعد"),
    "old-date": ("{0} is more than {1} days ago", "{0} أقدم من {1} يومًا"),
    "unknown-class": ("{0} has no pupils on that day", "لا يوجد تلاميذ في الفصل {0} في هذا اليوم"),
    "unknown-pupil": ("{0} is not on the class's list of that day", "{0} غير موجود في قائمة الفصل في هذا اليوم"),
    "unknown-signer": (
        "{0}: the id of somebody of the school's staff, or teacher, supervisor, principal, champion",
        "{0}: معرّف الموقّع أو صفته غير معروفة",
    ),
    "twice": ("{0} stands twice on this sheet", "تكرار {0} في الكشف نفسه"),
    "half-row": ("pupil and code come together, or neither", "كتابة التلميذ والرمز معًا أو تركهما معًا"),
    "columns": ("the first line must be: {0}", "السطر الأول يجب أن يكون: {0}"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Mistake:
    """One mistake: the line of the file (0: no file), a slug, and words."""

    row: int
    slug: str
    en: str
    ar: str

    def plain(self) -> dict[str, object]:
        """As JSON data."""
        return {"row": self.row, "slug": self.slug, "en": self.en, "ar": self.ar}


def _mistake(row: int, slug: str, *values: object) -> Mistake:
    english, arabic = (text.format(*values) for text in _WORDS[slug])
    return Mistake(row=row, slug=slug, en=english, ar=arabic)


@dataclass(slots=True)
class Checker:
    """Checks sheets against the lists of the store, read once a school.

    Attributes:
        reader: The store.
        today: Civil date at the schools.
    """

    reader: Reader
    today: str
    _members: dict[str, Members] = field(default_factory=dict)
    _staff: dict[str, frozenset[str]] = field(default_factory=dict)
    _rosters: dict[tuple[str, str], Mapping[str, frozenset[str]]] = field(default_factory=dict)

    async def check(self, entry: NewEntry, rows: Mapping[str, int] | None = None, row: int = 0) -> list[Mistake]:
        """Everything that is wrong with one sheet.

        Args:
            entry: The sheet.
            rows: Line of each pupil, for a file.
            row: The sheet's first line, for a file.
        """
        class_id, date, _ = entry.key
        if date > self.today:
            return [_mistake(row, "future-date", date)]
        if date < (Date.fromisoformat(self.today) - timedelta(days=DAYS_MAX)).isoformat():
            return [_mistake(row, "old-date", date, DAYS_MAX)]
        roster = await self._roster(entry.school, class_id, date)
        if not roster:
            return [_mistake(row, "unknown-class", f"{entry.school}/{class_id}")]
        found = [
            _mistake((rows or {}).get(pupil, row), "unknown-pupil", pupil)
            for pupil in entry.marks
            if pupil not in roster
        ]
        if entry.signed_by not in SIGNER_ROLES and entry.signed_by not in self._staff[entry.school]:
            found.append(_mistake(row, "unknown-signer", entry.signed_by))
        return found

    async def _roster(self, school: str, class_id: str, date: str) -> frozenset[str]:
        if school not in self._members:
            self._members[school] = await members_of(self.reader, school)
            staff = await self.reader.fetch_all("SELECT id FROM users WHERE school = ? AND role <> 'pupil'", (school,))
            self._staff[school] = frozenset(row[0] for row in staff)
        if (school, date) not in self._rosters:
            self._rosters[school, date] = rosters_on(self._members[school], date)
        return self._rosters[school, date].get(class_id, frozenset())


def read_marks(marks: Mapping[str, object]) -> dict[str, Code]:
    """Marks of a sheet from plain data.

    Raises:
        RequestProblem: `bad-request` for a code no sheet has.
    """
    found: dict[str, Code] = {}
    for pupil, word in marks.items():
        code = CODES.get(word) if isinstance(word, str) else None
        if code is None:
            raise RequestProblem("bad-request", _mistake(0, "bad-code", word).en)
        found[pupil] = code
    return found


def read_document(name: str) -> Document:
    """A document by its name.

    Raises:
        RequestProblem: `bad-request`.
    """
    try:
        return Document(name)
    except ValueError:
        raise RequestProblem("bad-request", _mistake(0, "bad-document", name).en) from None


@dataclass(slots=True)
class _Draft:
    """A sheet of a file, while its lines are read."""

    row: int
    register: RegisterId
    document: Document
    signed_by: str
    marks: dict[str, Code] = field(default_factory=dict)
    rows: dict[str, int] = field(default_factory=dict)


async def read_file(data: bytes, checker: Checker) -> tuple[list[NewEntry], list[Mistake], int]:
    """The sheets of a CSV file, everything that is wrong with it, and its number of lines.

    Raises:
        RequestProblem: `bad-request` when it is no CSV in UTF-8, or too long.
    """
    try:
        # Cut before it is read: a file of line ends alone is a hundred times its size in lists.
        lines = list(islice(csv.reader(io.StringIO(data.decode("utf-8-sig")), strict=True), ROWS_MAX + 2))
    except (UnicodeDecodeError, csv.Error) as error:
        raise RequestProblem("bad-request", f"no CSV file in UTF-8: {type(error).__name__}") from None
    if len(lines) > ROWS_MAX + 1:
        raise RequestProblem("bad-request", f"more than {ROWS_MAX} lines: cut the file")
    if not lines or tuple(lines[0]) != COLUMNS:
        return [], [_mistake(1, "columns", ",".join(COLUMNS))], 0
    drafts: dict[tuple[str, ...], _Draft] = {}
    mistakes: list[Mistake] = []
    for number, line in enumerate(lines[1:], 2):
        if line:
            mistakes += _read_line(number, line, drafts)
    entries = []
    for draft in drafts.values():
        register = draft.register
        entry = NewEntry(
            school=register.school,
            key=(register.class_id, register.date, register.session),
            document=draft.document,
            signed_by=draft.signed_by,
            marks=draft.marks,
        )
        mistakes += await checker.check(entry, draft.rows, draft.row)
        entries.append(entry)
    return entries, sorted(mistakes, key=lambda one: (one.row, one.slug)), len(lines) - 1


def _read_line(number: int, line: list[str], drafts: dict[tuple[str, ...], _Draft]) -> Iterator[Mistake]:
    if len(line) != len(COLUMNS):
        yield _mistake(number, "columns", ",".join(COLUMNS))
        return
    school, class_id, date, session, document, signed_by, pupil, word = (cell.strip() for cell in line)
    try:
        register = RegisterId(school, class_id, date.translate(_DIGITS), session)
    except BadInput:
        yield _mistake(number, "bad-register", "/".join(line[:4]))
        return
    if document not in _DOCUMENTS:
        yield _mistake(number, "bad-document", document)
        return
    draft = drafts.setdefault(
        (str(register), document),
        _Draft(row=number, register=register, document=Document(document), signed_by=signed_by),
    )
    if draft.signed_by != signed_by:
        yield _mistake(number, "unknown-signer", signed_by)
    if bool(pupil) != bool(word):
        yield _mistake(number, "half-row")
    elif pupil in draft.marks:
        yield _mistake(number, "twice", pupil)
    elif pupil:
        if word not in CODES:
            yield _mistake(number, "bad-code", word)
        else:
            draft.marks[pupil], draft.rows[pupil] = CODES[word], number
