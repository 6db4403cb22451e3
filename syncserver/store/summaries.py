"""Summaries of settled registers in the rows of their outcomes, and what else a report reads of one school."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from clientcore.errors import FrameRefused
from clientcore.wire import pack, unpack
from reconciliation.model import Occasion
from reconciliation.reports import CODE_WORDS, Contact, Key, Summary, summary_of
from syncserver.store.key import BY_KEY, flat, wanted
from syncserver.store.packed import unpack_outcome
from syncserver.store.port import Reader, placeholders

_NUMBERS = ("not_taken", "late_arrivals", "adjustments", "waiting", "disputed", "held")
_COUNTS_BYTES_MAX = 1 << 16
_CLASSES_MAX = 200  # classes in one IN list
_BODIES_MAX = 100  # outcomes that are read at once where no summary stands


def pack_counts(revision: int, one: Summary) -> bytes:
    """A summary as it stands in its outcome's row: some 35 bytes.

    Args:
        revision: Of the outcome.
        one: Its summary.
    """
    first, last = one.first_captured_ms, one.last_captured_ms
    span = None if first is None or last is None else last - first
    occasion = None if one.occasion is Occasion.UNSTATED else one.occasion.value
    codes = [one.codes.get(word, 0) for word in CODE_WORDS]
    numbers = [getattr(one, name) for name in _NUMBERS]
    return pack([revision, one.roster, codes, *numbers, occasion, one.closed, first, span])


def unpack_counts(data: bytes | None, revision: int, key: Key) -> Summary | None:
    """The summary in a row; None where there is none, that of another revision, or one this version cannot read.

    Args:
        data: As stored.
        revision: Of the row.
        key: Of the register.
    """
    if data is None:
        return None
    try:
        known, roster, codes, *numbers, occasion, closed, first, span = unpack(data, bytes_max=_COUNTS_BYTES_MAX)
    except (FrameRefused, ValueError):  # the outcome is read instead: a report is slower, never wrong
        return None
    if known != revision or len(codes) != len(CODE_WORDS) or len(numbers) != len(_NUMBERS):
        return None
    return Summary(
        key=key,
        roster=roster,
        codes={word: count for word, count in zip(CODE_WORDS, codes, strict=True) if count},
        **dict(zip(_NUMBERS, numbers, strict=True)),
        occasion=Occasion.UNSTATED if occasion is None else Occasion(occasion),
        closed=closed,
        first_captured_ms=first,
        last_captured_ms=None if span is None else first + span,
    )


async def summaries_of(
    reader: Reader, school: str, classes: Sequence[str], first: str, last: str
) -> dict[Key, Summary]:
    """The summaries of some classes and a span of dates, both ends included.

    Where none stands in an outcome's row, or that of an earlier revision, the outcome itself is read: in rows of stores
    before version 5, and of servers of version 4.
    """
    found: dict[Key, Summary] = {}
    missing: list[Key] = []
    for at in range(0, len(classes), _CLASSES_MAX):
        some = classes[at : at + _CLASSES_MAX]
        for class_id, date, session, revision, counts in await reader.fetch_all(
            f"""SELECT class_id, date, session, revision, counts FROM outcomes
            WHERE school = ? AND class_id IN ({placeholders(len(some))}) AND date >= ? AND date <= ?""",
            (school, *some, first, last),
        ):
            key = (class_id, date, session)
            summary = unpack_counts(counts, revision, key)
            if summary is None:
                missing.append(key)
            else:
                found[key] = summary
    for at in range(0, len(missing), _BODIES_MAX):
        found |= await _from_outcomes(reader, school, missing[at : at + _BODIES_MAX])
    return found


async def _from_outcomes(reader: Reader, school: str, keys: Sequence[Key]) -> dict[Key, Summary]:
    names = [(school, *key) for key in keys]
    rows = await reader.fetch_all(
        f"""{wanted(names)} SELECT o.school, o.class_id, o.date, o.session, o.body
        FROM wanted w JOIN whole_outcomes o ON {BY_KEY}""",
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
