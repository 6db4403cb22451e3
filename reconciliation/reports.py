"""What a report says: where each expected register stands, and counts that can be added up. Pure.

Invariants:
  1. A count of any absence counts official answers of that code and nothing else: silence, a held mark, a register that
     is still on a phone are *not taken*, with the reason for it beside (`Standing`).
  2. The denominator is the roster of the day and is always shown. Attended, absent, suspended and not taken add up to
     it, so no share of one can be read as the rest of another.
  3. Counts are exact and additive; a share is rounded last, and never to 0 or 100 unless it is exactly that.
  4. Lines come in the order of their ids. Nothing here sorts by a number.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from clientcore.register import Code
from reconciliation.calendar import SchoolCalendar
from reconciliation.clocks import midnight_ms
from reconciliation.decisions import ABSENCES
from reconciliation.model import Occasion, Outcome, Timeliness

Key = tuple[str, str, str]
"""class, date, session: a register of one school."""

REQUESTS = frozenset(("window-closed", "adjustment-locked"))
"""Slugs of held marks that are adjustments nobody has decided."""
CODE_WORDS = tuple(code.word for code in Code)
ATTENDED = tuple(code.word for code in Code if code.witnesses_presence)
ABSENT = tuple(code.word for code in Code if code in ABSENCES)
_WORD = {code: code.word for code in Code}  # an answer's word is asked for with every settling: a property is slower
_MINUTE_MS = 60_000


# ---- one settled register ---------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """What reports need of one settled register, computed once when it is settled.

    Attributes:
        key: Which register of its school.
        roster: Pupils of the day's roster.
        codes: Word of a code to the number of pupils with that answer; codes nobody has are left out.
        not_taken: Pupils without an answer.
        late_arrivals: Answers made in time that came after the window.
        adjustments: Answers that an approved adjustment gave.
        waiting: Marks made after the window that wait for a decision.
        disputed: Pupils whose authors disagree.
        held: Marks kept out of the answers, the waiting ones included.
        occasion: Whether the session took place.
        closed: Reason when the calendar says closed.
        first_captured_ms, last_captured_ms: Earliest and latest moment of a mark that answers.
    """

    key: Key
    roster: int
    codes: Mapping[str, int]
    not_taken: int
    late_arrivals: int = 0
    adjustments: int = 0
    waiting: int = 0
    disputed: int = 0
    held: int = 0
    occasion: Occasion = Occasion.UNSTATED
    closed: str | None = None
    first_captured_ms: int | None = None
    last_captured_ms: int | None = None


def summary_of(outcome: Outcome) -> Summary:
    """The summary of an outcome."""
    codes: Counter[str] = Counter()
    times: Counter[Timeliness] = Counter()
    captured: list[int] = []
    disputed = 0
    for answer in outcome.answers.values():
        disputed += answer.disputed
        code = answer.code
        if code is None:
            continue
        codes[_WORD[code]] += 1
        if answer.mark is not None:
            times[answer.mark.timeliness] += 1
            captured.append(answer.mark.captured.at_ms)
    register = outcome.register
    return Summary(
        key=(register.class_id, register.date, register.session),
        roster=len(outcome.answers),
        codes=codes,
        not_taken=len(outcome.answers) - codes.total(),
        late_arrivals=times[Timeliness.LATE_ARRIVAL],
        adjustments=times[Timeliness.ADJUSTMENT],
        waiting=sum(held.slug in REQUESTS for held in outcome.held),
        disputed=disputed,
        held=len(outcome.held),
        occasion=outcome.occasion,
        closed=outcome.closed,
        first_captured_ms=min(captured, default=None),
        last_captured_ms=max(captured, default=None),
    )


# ---- where a register stands ------------------------------------------------------------------------------------


class Standing(StrEnum):
    """Where one register stands. Of all but the first nobody's absence follows."""

    TAKEN = "taken"  # at least one pupil has an official answer
    NO_SESSION = "no_session"  # a person said that it did not take place
    IN_REVIEW = "in_review"  # something of it is here, and no mark of it counts (yet)
    NOT_ARRIVED = "not_arrived"  # a phone of the class has told of work that it has not sent
    SILENT = "silent"  # no phone of the class has been heard since: nobody can know
    NOT_TAKEN = "not_taken"
    NOT_DUE = "not_due"  # its session has not begun
    UNEXPECTED = "unexpected"  # marks on a closed day or in a session the calendar does not have: counted apart


@dataclass(frozen=True, slots=True, kw_only=True)
class Contact:
    """What was last heard of one device of a class's teachers: when (None: never), and how much it had not sent."""

    last_ms: int | None
    unsent: int


def standing(
    summary: Summary | None, *, arrived: bool, contacts: Iterable[Contact], begins_ms: int, now_ms: int
) -> Standing:
    """Where an expected register stands.

    Args:
        summary: Of its outcome; None while there is none.
        arrived: Something of it lies in the log.
        contacts: The devices of those who may take this class by a post or a delegation.
        begins_ms: When its session begins; what a phone said before that says nothing about it.
        now_ms: Server time.
    """
    if summary is not None and summary.occasion is Occasion.NO_SESSION:
        return Standing.NO_SESSION
    if summary is not None and summary.codes:
        return Standing.TAKEN
    if summary is not None or arrived:
        return Standing.IN_REVIEW
    if now_ms < begins_ms:
        return Standing.NOT_DUE
    devices = list(contacts)
    heard = [one for one in devices if one.last_ms is not None and one.last_ms >= begins_ms]
    if any(one.unsent for one in heard):
        return Standing.NOT_ARRIVED
    return Standing.SILENT if devices and not heard else Standing.NOT_TAKEN


def begins_ms(calendar: SchoolCalendar, date: str, session: str) -> int:
    """When a session begins by the timetable in force; where none says, when its day does."""
    day_ms, time = midnight_ms(date, calendar.zone), calendar.session_time(date, session)
    return day_ms if time is None else day_ms + time.starts_min * _MINUTE_MS


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One register in a report: which, where it stands, how many pupils were expected, and its outcome's summary."""

    key: Key
    standing: Standing
    roster: int
    summary: Summary | None = None


def lines(
    expected: Mapping[Key, Collection[str]],
    summaries: Mapping[Key, Summary],
    *,
    arrived: Collection[Key],
    contacts: Mapping[str, Sequence[Contact]],
    calendar: SchoolCalendar,
    now_ms: int,
) -> list[Line]:
    """Every register that was expected or is there, by its id.

    Args:
        expected: Registers the calendar expects, with their pupils.
        summaries: Registers that were settled.
        arrived: Registers of which the log holds something that was not settled, or could not be.
        contacts: Class to the devices of those who may take it.
        calendar: The school's.
        now_ms: Server time.
    """
    found = [
        Line(
            key=key,
            standing=standing(
                summaries.get(key),
                arrived=key in arrived,
                contacts=contacts.get(key[0], ()),
                begins_ms=begins_ms(calendar, key[1], key[2]),
                now_ms=now_ms,
            ),
            roster=summaries[key].roster if key in summaries else len(pupils),
            summary=summaries.get(key),
        )
        for key, pupils in expected.items()
    ]
    found += [
        Line(key=key, standing=Standing.UNEXPECTED, roster=0, summary=summary)
        for key, summary in summaries.items()
        if key not in expected
    ]
    return sorted(found, key=lambda line: line.key)


# ---- counts -----------------------------------------------------------------------------------------------------

REGISTER_COUNTS = (
    "registers_expected",
    *(f"registers_{one.value}" for one in Standing),
)
NOT_TAKEN_COUNTS = ("not_taken_no_mark", "not_taken_in_review", "not_taken_not_arrived", "not_taken_silent")
COUNTS = (
    *REGISTER_COUNTS,
    "roster",
    *CODE_WORDS,
    "attended",
    "absent_all",
    "not_taken",
    *NOT_TAKEN_COUNTS,
    "late_arrivals",
    "adjustments",
    "adjustments_waiting",
    "disputed",
    "held",
)
"""Names of all counts, in the order of the columns. `roster`: pupils expected in registers that took, or could have
taken, place; the codes, `not_taken` and its parts are pupils, `held` and `adjustments_waiting` marks."""
SHARES = ("attended_pct", "absent_pct", "suspended_pct", "not_taken_pct")

_OF_NOT_TAKEN = {
    Standing.IN_REVIEW: "not_taken_in_review",
    Standing.NOT_ARRIVED: "not_taken_not_arrived",
    Standing.SILENT: "not_taken_silent",
}
_NOBODY_EXPECTED = frozenset((Standing.NO_SESSION, Standing.NOT_DUE, Standing.UNEXPECTED))

Counts = dict[str, int]


def count(some: Iterable[Line]) -> Counts:
    """Everything a report counts in some registers."""
    found = dict.fromkeys(COUNTS, 0)
    for line in some:
        found[f"registers_{line.standing.value}"] += 1
        found["registers_expected"] += line.standing not in (Standing.UNEXPECTED, Standing.NOT_DUE)
        if line.standing not in _NOBODY_EXPECTED:
            _add_pupils(found, line)
    found["attended"] = sum(found[word] for word in ATTENDED)
    found["absent_all"] = sum(found[word] for word in ABSENT)
    return found


def _add_pupils(found: Counts, line: Line) -> None:
    summary = line.summary
    found["roster"] += line.roster
    not_taken = line.roster if summary is None else summary.not_taken
    found["not_taken"] += not_taken
    found[_OF_NOT_TAKEN.get(line.standing, "not_taken_no_mark")] += not_taken
    if summary is None:
        return
    for word, pupils in summary.codes.items():
        found[word] += pupils
    found["late_arrivals"] += summary.late_arrivals
    found["adjustments"] += summary.adjustments
    found["adjustments_waiting"] += summary.waiting
    found["disputed"] += summary.disputed
    found["held"] += summary.held


def shares(counts: Mapping[str, int]) -> dict[str, float | None]:
    """Shares of the roster in percent; where nobody was marked only *not taken* has one, for nothing else is known."""
    whole = counts["roster"]
    known = whole > counts["not_taken"]
    return {
        "attended_pct": share(counts["attended"], whole) if known else None,
        "absent_pct": share(counts["absent_all"], whole) if known else None,
        "suspended_pct": share(counts["suspended"], whole) if known else None,
        "not_taken_pct": share(counts["not_taken"], whole),
    }


def share(part: int, whole: int) -> float | None:
    """Percent with one decimal, half up; 0.0 and 100.0 only where it is exactly that. None of nothing."""
    if whole == 0:
        return None
    tenths = (2_000 * part + whole) // (2 * whole)
    if part:
        tenths = max(tenths, 1)
    if part < whole:
        tenths = min(tenths, 999)
    return tenths / 10
