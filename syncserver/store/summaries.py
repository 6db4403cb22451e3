"""Summaries of settled registers as rows, and what else a report reads of one school."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from reconciliation.model import Occasion
from reconciliation.reports import CODE_WORDS, Contact, Key, Summary, summary_of
from syncserver.store.key import BY_KEY, flat, wanted
from syncserver.store.packed import unpack_outcome
from syncserver.store.port import Reader, Row, Transaction, placeholders

_NUMBERS = ("roster", *CODE_WORDS, "not_taken", "late_arrivals", "adjustments", "waiting", "disputed", "held")
_REST = ("occasion", "closed", "first_captured_ms", "last_captured_ms")
_NAMES = ("school", "class_id", "date", "session", "revision", *_NUMBERS, *_REST)
_UPSERT = f"""INSERT INTO summaries ({", ".join(_NAMES)}) VALUES ({placeholders(len(_NAMES))})
ON CONFLICT (school, class_id, date, session) DO UPDATE SET
{", ".join(f"{name} = excluded.{name}" for name in _NAMES[4:])}"""
_CLASSES_MAX = 200  # classes in one IN list
_BODIES_MAX = 100  # outcomes that are read at once where no summary stands


async def write_summaries(tx: Transaction, school_rows: Sequence[tuple[str, int, Summary]]) -> None:
    """Write summaries beside their outcomes, in one call.

    Args:
        tx: The transaction that writes the outcomes.
        school_rows: School, revision of the outcome, summary.
    """
    await tx.executemany(_UPSERT, [_row(*one) for one in school_rows])


def _row(school: str, revision: int, one: Summary) -> tuple[object, ...]:
    return (
        school, *one.key, revision, one.roster, *(one.codes.get(word, 0) for word in CODE_WORDS), one.not_taken,
        one.late_arrivals, one.adjustments, one.waiting, one.disputed, one.held, one.occasion.value, one.closed,
        one.first_captured_ms, one.last_captured_ms,
    )  # fmt: skip


def _summary(key: Key, row: Row) -> Summary:
    numbers = dict(zip(_NUMBERS, row[: len(_NUMBERS)], strict=True))
    occasion, closed, first_ms, last_ms = row[len(_NUMBERS) :]
    return Summary(
        key=key,
        roster=numbers["roster"],
        codes={word: numbers[word] for word in CODE_WORDS if numbers[word]},
        not_taken=numbers["not_taken"],
        late_arrivals=numbers["late_arrivals"],
        adjustments=numbers["adjustments"],
        waiting=numbers["waiting"],
        disputed=numbers["disputed"],
        held=numbers["held"],
        occasion=Occasion(occasion),
        closed=closed,
        first_captured_ms=first_ms,
        last_captured_ms=last_ms,
    )


async def summaries_of(
    reader: Reader, school: str, classes: Sequence[str], first: str, last: str
) -> dict[Key, Summary]:
    """The summaries of some classes and a span of dates, both ends included.

    Where none stands beside an outcome, or that of an earlier revision, the outcome itself is read.
    """
    found: dict[Key, Summary] = {}
    missing: list[Key] = []
    columns = ", ".join(f"s.{name}" for name in (*_NUMBERS, *_REST))
    for at in range(0, len(classes), _CLASSES_MAX):
        some = classes[at : at + _CLASSES_MAX]
        for class_id, date, session, known, *row in await reader.fetch_all(
            f"""SELECT o.class_id, o.date, o.session, s.revision, {columns} FROM outcomes o
            LEFT JOIN summaries s ON s.school = o.school AND s.class_id = o.class_id AND s.date = o.date
            AND s.session = o.session AND s.revision = o.revision
            WHERE o.school = ? AND o.class_id IN ({placeholders(len(some))}) AND o.date >= ? AND o.date <= ?""",
            (school, *some, first, last),
        ):
            key = (class_id, date, session)
            if known is None:
                missing.append(key)
            else:
                found[key] = _summary(key, tuple(row))
    for at in range(0, len(missing), _BODIES_MAX):
        found |= await _from_outcomes(reader, school, missing[at : at + _BODIES_MAX])
    return found


async def _from_outcomes(reader: Reader, school: str, keys: Sequence[Key]) -> dict[Key, Summary]:
    names = [(school, *key) for key in keys]
    rows = await reader.fetch_all(
        f"""{wanted(names)} SELECT o.school, o.class_id, o.date, o.session, o.body
        FROM wanted w JOIN outcomes o ON {BY_KEY}""",
        flat(names),
    )
    found = [summary_of(unpack_outcome(body, "/".join(key))) for *key, body in rows]
    return {one.key: one for one in found}


async def classes_with_outcomes(reader: Reader, school: str) -> list[str]:
    """Classes of which a register was settled, whether or not the roster still has them."""
    rows = await reader.fetch_all(
        "SELECT DISTINCT class_id FROM outcomes WHERE school = ? ORDER BY class_id", (school,)
    )
    return [row[0] for row in rows]


async def arrived_unsettled(reader: Reader, school: str, first: str, last: str) -> set[Key]:
    """Registers of which the log holds changes that wait for the settle stage, or that no machine could process."""
    rows = await reader.fetch_all(
        """SELECT class_id, date, session FROM changes
        WHERE log_offset > (SELECT coalesce(min(log_offset), 0) FROM consumers)
        AND school = ? AND date >= ? AND date <= ?
        UNION SELECT class_id, date, session FROM dead_letters WHERE school = ? AND date >= ? AND date <= ?""",
        (school, first, last) * 2,
    )
    return {(row[0], row[1], row[2]) for row in rows}


async def on_paper(reader: Reader, school: str, first: str, last: str) -> set[Key]:
    """Registers of which somebody typed a sheet."""
    rows = await reader.fetch_all(
        "SELECT DISTINCT class_id, date, session FROM paper_entries WHERE school = ? AND date >= ? AND date <= ?",
        (school, first, last),
    )
    return {(row[0], row[1], row[2]) for row in rows}


async def contacts_of(reader: Reader, school: str, first: str, last: str) -> dict[str, list[Contact]]:
    """Class to the devices of those who teach it, or stand in for it, in a span of dates.

    Champions may take every class; that a champion's phone is silent says nothing of any.
    """
    rows = await reader.fetch_all(
        """SELECT t.class_id, d.id, d.last_contact_ms, d.unsent FROM (
          SELECT m.class_id, m.user_id FROM members m WHERE m.school = ? AND m.role = 'teacher'
            AND m.from_date <= ? AND (m.until_date IS NULL OR m.until_date > ?)
          UNION SELECT l.class_id, l.user_id FROM delegated_lists l WHERE l.school = ?
            AND l.from_date <= ? AND l.until_date > ?
        ) t JOIN devices d ON d.school = ? AND d.user_id = t.user_id ORDER BY t.class_id, d.id""",
        (school, last, first, school, last, first, school),
    )
    found: defaultdict[str, list[Contact]] = defaultdict(list)
    for class_id, _, last_ms, unsent in rows:
        found[class_id].append(Contact(last_ms=last_ms, unsent=unsent))
    return dict(found)


async def schools_of(reader: Reader, district: str) -> list[str]:
    """The schools somebody placed in a district, by id."""
    rows = await reader.fetch_all("SELECT school FROM places WHERE district = ? ORDER BY school", (district,))
    return [row[0] for row in rows]
