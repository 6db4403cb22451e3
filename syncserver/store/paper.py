"""The paper record in the store: entries that are only added, and the rules of which ones count."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from clientcore.register import Code
from reconciliation.paper import Document, Entry
from reconciliation.parity import Key
from syncserver.store.port import Reader, Row, Transaction

ALL_SCHOOLS = "*"

_ENTRIES = """SELECT id, class_id, date, session, document, signed_by, marks_json, entered_by, at_ms
FROM paper_entries WHERE school = ? AND date >= ? AND date <= ?"""


@dataclass(frozen=True, slots=True, kw_only=True)
class PaperRule:
    """From the week `from_week` on: which document is compared, and whether two people must have typed the same."""

    from_week: str
    document: Document
    two_person: bool


FIRST_RULE = PaperRule(from_week="0001-01-01", document=Document.PERIOD_SHEET, two_person=False)


async def entries_of(reader: Reader, school: str, first: str, last: str) -> dict[Key, list[Entry]]:
    """Every entry for the registers of a span of dates, both ends included, in the order in which they came."""
    found: defaultdict[Key, list[Entry]] = defaultdict(list)
    for row in await reader.fetch_all(f"{_ENTRIES} ORDER BY id", (school, first, last)):
        found[row[1], row[2], row[3]].append(_entry(row))
    return found


def _entry(row: Row) -> Entry:
    number, _, _, _, document, signed_by, marks_json, entered_by, at_ms = row
    return Entry(
        id=number,
        document=Document(document),
        signed_by=signed_by,
        entered_by=entered_by,
        marks={pupil: Code(letter) for pupil, letter in json.loads(marks_json).items()},
        at_ms=at_ms,
    )


def marks_json(marks: Mapping[str, Code]) -> str:
    """How an entry's marks are stored."""
    return json.dumps({pupil: code.value for pupil, code in marks.items()}, sort_keys=True, separators=(",", ":"))


@dataclass(frozen=True, slots=True, kw_only=True)
class NewEntry:
    """What one person read from one sheet, to be stored."""

    school: str
    key: Key
    document: Document
    signed_by: str
    marks: Mapping[str, Code]

    @property
    def sheet(self) -> tuple[str, ...]:
        """Which sheet."""
        return (self.school, *self.key, self.document.value)

    @property
    def said(self) -> tuple[str, str]:
        """What it says, as stored."""
        return self.signed_by, marks_json(self.marks)


async def last_said(reader: Reader, entries: Sequence[NewEntry], entered_by: str) -> dict[tuple[str, ...], Row]:
    """What the same person said of these sheets last: signer and marks, by sheet."""
    spans: dict[str, tuple[str, str]] = {}
    for one in entries:
        first, last = spans.get(one.school, (one.key[1], one.key[1]))
        spans[one.school] = (min(first, one.key[1]), max(last, one.key[1]))
    found: dict[tuple[str, ...], Row] = {}
    for school, span in spans.items():
        for row in await reader.fetch_all(
            """SELECT class_id, date, session, document, signed_by, marks_json FROM paper_entries
            WHERE school = ? AND date >= ? AND date <= ? AND entered_by = ? ORDER BY id""",
            (school, *span, entered_by),
        ):
            found[(school, *row[:4])] = row[4:]
    return found


async def write_entries(
    tx: Transaction, entries: Sequence[NewEntry], *, entered_by: str, at_ms: int, audit_id: int
) -> list[int]:
    """Add entries; returns their ids."""
    row = await tx.fetch_one("SELECT coalesce(max(id), 0) FROM paper_entries")
    assert row is not None
    ids = list(range(row[0] + 1, row[0] + 1 + len(entries)))
    await tx.executemany(
        "INSERT INTO paper_entries VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        [
            (number, *one.sheet, *one.said, entered_by, at_ms, audit_id)
            for number, one in zip(ids, entries, strict=True)
        ],
    )
    return ids


async def rules_of(reader: Reader, school: str) -> list[PaperRule]:
    """The rules that hold for a school, the weightiest last."""
    rows = await reader.fetch_all(
        "SELECT school, from_week, document, two_person FROM paper_rules WHERE school IN (?, ?) ORDER BY id",
        (school, ALL_SCHOOLS),
    )
    rows.sort(key=lambda row: (row[0] != ALL_SCHOOLS, row[1]))
    return [PaperRule(from_week=row[1], document=Document(row[2]), two_person=bool(row[3])) for row in rows]


def rule_in(rules: list[PaperRule], week: str) -> PaperRule:
    """The rule of one week."""
    return next((rule for rule in reversed(rules) if rule.from_week <= week), FIRST_RULE)


async def write_rule(tx: Transaction, school: str, rule: PaperRule, *, at_ms: int, audit_id: int) -> None:
    """Add one rule."""
    await tx.execute(
        """INSERT INTO paper_rules (school, from_week, document, two_person, at_ms, audit_id)
        VALUES (?, ?, ?, ?, ?, ?)""",
        (school, rule.from_week, rule.document.value, int(rule.two_person), at_ms, audit_id),
    )


async def schools_with_paper(reader: Reader) -> list[str]:
    """Schools of which anything was typed from paper."""
    return [row[0] for row in await reader.fetch_all("SELECT DISTINCT school FROM paper_entries ORDER BY school")]


async def paper_days(reader: Reader, school: str) -> tuple[str, str] | None:
    """First and last date anything was typed of; None without paper."""
    row = await reader.fetch_one("SELECT min(date), max(date) FROM paper_entries WHERE school = ?", (school,))
    return None if row is None or row[0] is None else (row[0], row[1])
