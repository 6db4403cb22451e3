"""The words of the domain: register ids, marks, codes (docs/protocol.md section 1, docs/glossary.md). Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import date as Date
from enum import StrEnum

from clientcore.errors import BadInput, ChangeRefused
from clientcore.limits import VALUE_BYTES_MAX

ID = r"[A-Za-z0-9][A-Za-z0-9._-]{0,35}"
_ID = re.compile(ID)
_SESSION = re.compile(r"day|(?:am|pm)[1-8]")
_DATE = re.compile(r"\d{4}-\d{2}-\d{2}")
_MS = r"(-?(?:0|[1-9][0-9]{0,12}))"
_MARK = re.compile(rf"([PLXAEUDS]){_MS}(?::([a-z0-9_]{{1,24}}))?")
_BULK = re.compile(rf"B{_MS}")
_SESSION_MARK = re.compile(rf"(?:H{_MS}|N{_MS}:([a-z0-9_]{{1,24}}))")
_KEY = re.compile(rf"(?:{ID}|~bulk|~session)")
_KEY_BYTES = re.compile(_KEY.pattern.encode())
_MARK_BYTES = re.compile(_MARK.pattern.encode())

# The same grammar again, for all entries of a change at once (`are_entries`). Every entry can be read in one way only,
# so a mismatch is found in linear time. No possessive quantifiers: CPython 3.11.2 (Debian 12) matches them wrongly.
_MS_ONCE = r"(?!-0)-?(?:0|[1-9][0-9]{0,12})"
_ENTRY = (
    rf"(?:[A-Za-z0-9][A-Za-z0-9._-]{{0,35}}(?:=[PLXAEUDS]{_MS_ONCE}(?::[a-z0-9_]{{1,24}})?|!)"
    rf"|~bulk(?:=B{_MS_ONCE}|!)|~session(?:=(?:H{_MS_ONCE}|N{_MS_ONCE}:[a-z0-9_]{{1,24}})|!))\n"
)
_ENTRIES = re.compile(rf"(?:{_ENTRY})*")

DAY_MS = 86_400_000


class Code(StrEnum):
    """What a mark says of a pupil; the value is the letter stored (see docs/glossary.md for the Ed-Fi mapping)."""

    PRESENT = "P"
    LATE = "L"
    LEFT_EARLY = "X"
    ABSENT = "A"
    ABSENT_EXCUSED = "E"
    ABSENT_UNEXCUSED = "U"
    OFFICIAL_DUTY = "D"
    SUSPENDED = "S"

    @property
    def word(self) -> str:
        """The code's name in events and exports, e.g. `left_early`."""
        return self.name.lower()

    @property
    def witnesses_presence(self) -> bool:
        """Whether whoever made such a mark saw the pupil (or knows them on duty): never to be shown as absent."""
        return self in (Code.PRESENT, Code.LATE, Code.LEFT_EARLY, Code.OFFICIAL_DUTY)


@dataclass(frozen=True, slots=True, order=True)
class RegisterId:
    """One class, one civil date, one session of one school. Text form `school/class/date/session`."""

    school: str
    class_id: str
    date: str
    session: str

    def __post_init__(self) -> None:
        if not is_id(self.school) or not is_id(self.class_id):
            raise BadInput("bad-register", f"school and class need letters, digits, . _ - (1 to 36): {self}")
        if not is_session(self.session):
            raise BadInput("bad-register", f"the session is day, am1-am8 or pm1-pm8, not {self.session!r}")
        if not is_date(self.date):
            raise BadInput("bad-register", f"the date must exist and read YYYY-MM-DD, not {self.date!r}")

    def __str__(self) -> str:
        return f"{self.school}/{self.class_id}/{self.date}/{self.session}"

    @property
    def within_school(self) -> str:
        """Short form `class/date/session`, as it stands in a frame that names the school."""
        return f"{self.class_id}/{self.date}/{self.session}"

    @classmethod
    def parse(cls, text: str) -> RegisterId:
        """Read `school/class/date/session`.

        Raises:
            BadInput: `bad-register` when a part is missing or outside its grammar.
        """
        parts = text.split("/")
        if len(parts) != 4:
            raise BadInput("bad-register", f"a register reads school/class/date/session, not {text!r}")
        return cls(*parts)


@dataclass(frozen=True, slots=True, kw_only=True)
class Mark:
    """One pupil's entry in one register: immutable, only superseded.

    Attributes:
        code: What it says.
        captured_ms: Milliseconds from local midnight of the register's date to the tap, by the device's clock.
        reason: Reason slug; for `L` the minutes late in decimal; None when not given.
    """

    code: Code
    captured_ms: int
    reason: str | None = None

    def __str__(self) -> str:
        tail = f":{self.reason}" if self.reason is not None else ""
        return f"{self.code.value}{self.captured_ms}{tail}"

    @classmethod
    def parse(cls, value: str) -> Mark:
        """Read a stored value such as `E28815000:sick`.

        Raises:
            ChangeRefused: `bad-mark`.
        """
        found = _MARK.fullmatch(value)
        if found is None or found[2] == "-0" or len(value) > VALUE_BYTES_MAX:
            raise ChangeRefused("bad-mark", repr(value))
        return cls(code=Code(found[1]), captured_ms=int(found[2]), reason=found[3])


def is_id(text: str) -> bool:
    """Whether `text` may name a school, class, user or pupil."""
    return _ID.fullmatch(text) is not None


def is_session(text: str) -> bool:
    """Whether `text` names a session: `day`, `am1`…`pm8`."""
    return _SESSION.fullmatch(text) is not None


def is_date(text: str) -> bool:
    """Whether `text` is an existing civil date `YYYY-MM-DD`."""
    if _DATE.fullmatch(text) is None:
        return False
    try:
        Date.fromisoformat(text)
    except ValueError:
        return False
    return True


def is_key(key: bytes) -> bool:
    """Whether a register document may have this key: a pupil id, `~bulk` or `~session`."""
    return _KEY_BYTES.fullmatch(key) is not None


def is_value(key: bytes, value: bytes) -> bool:
    """Whether `value` obeys the grammar that belongs to `key`."""
    if len(value) > VALUE_BYTES_MAX:
        return False
    if not key.startswith(b"~"):
        found = _MARK_BYTES.fullmatch(value)
        return found is not None and found[2] != b"-0"
    text = value.decode("ascii", "replace")
    return is_bulk_value(text) if key == b"~bulk" else is_session_value(text)


def are_entries(lines: str, count: int) -> bool:
    """Whether `lines` are `count` lines `key=value` or `key!` (no value), each ended by a newline, all in the grammar.

    The hot path of the change parser: one expression for a whole change is 4 times faster than two for every mark. A
    newline inside a key or value would add to the count; `=` and `!` are in neither grammar.
    """
    return lines.count("\n") == count and _ENTRIES.fullmatch(lines) is not None


def is_bulk_value(value: str) -> bool:
    """Whether `value` records the "all present" act: `B<ms>`."""
    found = _BULK.fullmatch(value)
    return found is not None and found[1] != "-0"


def is_session_value(value: str) -> bool:
    """Whether `value` says that the session was held (`H<ms>`) or why it was not (`N<ms>:<reason>`)."""
    found = _SESSION_MARK.fullmatch(value)
    return found is not None and "-0" not in (found[1], found[2])
