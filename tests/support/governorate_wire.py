"""A planned register as the plain data that the settle stage stores: its outcome, its summary, its sheet.

It is written directly, which is much faster than settling sixteen million marks. `prove` compares it with what the real
code makes of it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from clientcore.register import Code
from reconciliation.clocks import DAY_MS, midnight_ms, zone_table
from reconciliation.model import Occasion, Outcome
from reconciliation.reports import CODE_WORDS, Summary, summary_of
from reconciliation.wire import canonical
from tests.support.governorate import SESSION, Register, Size, class_name, pupil_names

ZONE_NAME = "Africa/Cairo"
_LETTERS = tuple(code.value for code in Code)
_ADJUSTED_MS = 2 * DAY_MS + 32_400_000  # nine o'clock two days later

Plain = dict[str, Any]


@lru_cache(maxsize=1_000)
def day_ms(date: str) -> int:
    """The moment at which a civil date begins."""
    return midnight_ms(date, zone_table(f"{date[:4]}-01-01", f"{date[:4]}-12-31", ZONE_NAME))


@lru_cache(maxsize=1_000)
def closed_by(size: Size, date: str) -> str | None:
    """The holiday of a date."""
    return next((why for first, last, why, _ in size.holidays if first <= date <= last), None)


# ---- one register ------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Writing:
    """An outcome that is being written: its sources, and what it says of each pupil."""

    school: str
    one: Register
    sources: list[tuple[str, str, int]] = field(default_factory=list)
    changes: list[list[object]] = field(default_factory=list)

    def source(self, user: str, received_ms: int, *, waits: bool = False, held: bool = False) -> str:
        """A new change; returns its hash."""
        name = f"{self.school}/{self.one.class_no}/{self.one.date}/{len(self.changes)}"
        digest = hashlib.sha256(name.encode()).hexdigest()
        self.changes.append([digest, 2 if waits else 1, "window-closed" if waits else None, None])
        if not held:
            self.sources.append((digest, user, received_ms))
        return digest


def _mark(value: str, digest: str, at_ms: int, timeliness: str) -> list[object]:
    return [value, digest, at_ms, at_ms, at_ms + 1_000, "medium", False, timeliness]


def plain_outcome(size: Size, school: str, one: Register) -> Plain:
    """The outcome of a register, as `Outcome.to_wire` spells it."""
    assert one.codes is not None
    writing, pupils, day = _Writing(school, one), pupil_names(size, one.class_no), day_ms(one.date)
    teacher = f"t{one.class_no:02d}"
    answers: Plain = {}
    held: list[list[object]] = []
    if one.no_session or one.in_review:
        received = day + 3 * DAY_MS if one.in_review else day + 28_900_000
        digest = writing.source(teacher, received, waits=one.in_review, held=True)
        answers = dict.fromkeys(pupils)
        if one.in_review:
            held = [[pupil, f"P{2 * DAY_MS + 1_500 * n}", "window-closed", teacher, digest]
                    for n, pupil in enumerate(pupils)]  # fmt: skip
    else:
        answers = _answers(writing, pupils, teacher, day)
        held = _held(writing, pupils, teacher, day)
    index = {digest: n for n, (digest, _, _) in enumerate(sorted(writing.sources))}
    for row in answers.values():
        if row is not None:
            for mark in row[0]:
                mark[1] = index[mark[1]]
            if len(row) > 4:
                row[4][0][1] = index[row[4][0][1]]
    closed = closed_by(size, one.date)
    labels = [("calendar", closed), ("disputed", one.disputed), ("window-closed", one.waiting or one.in_review)]
    return {
        "v": 2,
        "register": f"{school}/{class_name(one.class_no)}/{one.date}/{SESSION}",
        "roster_version": "1",
        "occasion": "no_session" if one.no_session else "unstated",
        "no_session_reason": "weather" if one.no_session else None,
        "closed": closed,
        "labels": [label for label, holds in labels if holds],
        "bulk": [] if one.bulk_ms is None else [day + one.bulk_ms],
        "sources": [list(source) for source in sorted(writing.sources)],
        "answers": answers,
        "held": held,
        "changes": sorted(writing.changes, key=lambda change: str(change[0])),
    }


def _answers(writing: _Writing, pupils: Sequence[str], teacher: str, day: int) -> Plain:
    one = writing.one
    assert one.codes is not None
    last_ms, is_late = day + max(one.stamps), "L" in one.times
    first = writing.source(teacher, last_ms + (2 * DAY_MS if is_late else 601_000))
    timeliness = "late_arrival" if is_late else "on_time"
    second = writing.source("ch1", last_ms + 3_000_000) if one.disputed else ""
    later = writing.source(teacher, day + 2 * DAY_MS + 33_000_000) if "A" in one.times else ""
    found: Plain = {}
    for place, (pupil, code, ms) in enumerate(zip(pupils, one.codes, one.stamps, strict=True)):
        if code == ".":
            found[pupil] = None
        elif one.times[place] == "A":
            adjusted_ms = _ADJUSTED_MS + 1_700 * place
            mark = _mark(f"{code}{adjusted_ms}:sick", later, day + adjusted_ms, "adjustment")
            original = _mark(f"P{ms}", first, day + ms, timeliness)
            found[pupil] = [[mark], 0, False, ["adjusted"], [original, None, None]]
        elif place in one.disputed:
            other_ms = max(one.stamps) + 2_400_000 + 900 * place
            marks = [
                _mark(f"A{other_ms}", second, day + other_ms, "on_time"),
                _mark(f"P{ms}", first, day + ms, timeliness),
            ]
            found[pupil] = [marks, 1, True, []]
        else:
            found[pupil] = [[_mark(f"{code}{ms}", first, day + ms, timeliness)], 0, False, []]
    return found


def _held(writing: _Writing, pupils: Sequence[str], teacher: str, day: int) -> list[list[object]]:
    one = writing.one
    held: list[list[object]] = []
    if one.waiting:
        digest = writing.source(teacher, day + 4 * DAY_MS, waits=True, held=True)
        held = [[pupils[place], f"L{3 * DAY_MS + place}", "window-closed", teacher, digest] for place in one.waiting]
    if one.has_stranger:
        digest = str(writing.changes[0][0])
        held.append(["p99999", f"P{one.stamps[0]}", "unknown-pupil", teacher, digest])
    return held


def plain_summary(size: Size, one: Register, wire: Plain) -> Summary:
    """Its summary."""
    codes = "".join(one.codes or ())
    day, moments = day_ms(one.date), []
    for place, code in enumerate(codes):
        if code != ".":
            adjusted = one.times[place] == "A"
            moments.append(day + (_ADJUSTED_MS + 1_700 * place if adjusted else one.stamps[place]))
    waiting = len(one.waiting) + (size.pupils if one.in_review else 0)
    return Summary(
        key=(class_name(one.class_no), one.date, SESSION),
        roster=size.pupils,
        codes={word: codes.count(letter) for word, letter in zip(CODE_WORDS, _LETTERS, strict=True) if letter in codes},
        not_taken=codes.count("."),
        late_arrivals=one.times.count("L"),
        adjustments=one.times.count("A"),
        waiting=waiting,
        disputed=len(one.disputed),
        held=waiting + one.has_stranger,
        occasion=Occasion(wire["occasion"]),
        closed=wire["closed"],
        first_captured_ms=min(moments, default=None),
        last_captured_ms=max(moments, default=None),
    )


def paper_marks(size: Size, one: Register) -> str:
    """Its sheet as stored: whoever was absent or late."""
    pupils = pupil_names(size, one.class_no)
    marks = {pupil: letter for pupil, letter in zip(pupils, one.paper or (), strict=True) if letter != "P"}
    return canonical(marks).decode()


class Unfaithful(Exception):
    """What was written directly is not what the real code writes."""


def prove(wire: Plain, body: bytes, summary: Summary) -> None:
    """Compare one register with what the real code makes of it.

    Raises:
        Unfaithful: they differ.
    """
    outcome = Outcome.from_wire(json.loads(body))
    real = summary_of(outcome)
    if canonical(outcome.to_wire()) != body or real != summary:
        raise Unfaithful(f"{wire['register']}: {real} is not {summary}, or the outcome is spelled differently")
