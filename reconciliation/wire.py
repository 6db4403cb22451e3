"""Outcomes as plain data of JSON types: small and the same for equal values, and once in words. Pure.

An outcome is stored per register, so it is written as short arrays: each author's change is named once, in `sources`,
and marks point to it.

    {"v": 1, "register": text, "roster_version": text|null, "occasion": text, "no_session_reason": text|null,
     "closed": text|null, "labels": [slug],
     "sources": [[change hex, user id, received_at_ms]],
     "bulk": [at_ms],
     "answers": {pupil: null | [[mark], chosen index|null, disputed, [label], more?]},      null: not taken
     "held":    [[key, value, slug, user id|null, change hex]],
     "changes": [[change hex, state, slug|null, detail|null]]}
    mark = [value, source index, at_ms, from_ms, to_ms, confidence, clock flag, timeliness]
    more = [original mark|null, ruling|null, chosen by|null]      only where it says something
    ruling = [code letter, reason|null, [change hex], bulk, by, at_ms]
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any

from clientcore.errors import HudurError
from clientcore.register import Code, RegisterId
from reconciliation.decisions import Ruling
from reconciliation.errors import BadOutcome
from reconciliation.model import (
    NOT_TAKEN,
    Answer,
    Capture,
    Confidence,
    HeldMark,
    Occasion,
    Outcome,
    Settled,
    State,
    Timeliness,
    VisibleMark,
)

VERSION = 2
NOT_TAKEN_WORD = "not_taken"

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_FIRST_MS, _LAST_MS = -62_135_596_800_000, 253_402_300_799_999  # of the years 1 and 9999: a phone may name any date


@lru_cache(maxsize=4_096)  # one moment stands in many parts of an event and in many events
def iso(at_ms: int) -> str:
    """RFC 3339 in UTC with milliseconds, e.g. `2026-11-22T08:00:00.000Z`; beyond all dates the first or last moment."""
    moment = _EPOCH + timedelta(milliseconds=min(max(at_ms, _FIRST_MS), _LAST_MS))
    return moment.isoformat(timespec="milliseconds").removesuffix("+00:00") + "Z"


def canonical(data: object) -> bytes:
    """The one spelling of plain data: UTF-8 JSON, keys sorted, no spaces."""
    return json.dumps(data, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()


def outcome_to_wire(outcome: Outcome) -> dict[str, object]:
    """See `Outcome.to_wire`."""
    sources = sources_of(outcome)
    index = {source[0]: place for place, source in enumerate(sources)}
    return {
        "v": VERSION,
        "register": str(outcome.register),
        "roster_version": outcome.roster_version,
        "occasion": outcome.occasion.value,
        "no_session_reason": outcome.no_session_reason,
        "closed": outcome.closed,
        "labels": list(outcome.labels),
        "bulk": list(outcome.bulk_at_ms),
        "sources": [[digest.hex(), user_id, received_ms] for digest, user_id, received_ms in sources],
        "answers": {pupil: answer_to_wire(answer, index) for pupil, answer in outcome.answers.items()},
        "held": held_to_wire(outcome),
        "changes": [[d.hex(), int(s.state), s.slug, s.detail] for d, s in outcome.changes.items()],
    }


def sources_of(outcome: Outcome) -> list[tuple[bytes, str, int]]:
    """The changes that answers point to, by hash: hash, author, moment of receipt (ms)."""
    found: dict[bytes, tuple[bytes, str, int]] = {}
    for answer in outcome.answers.values():
        for mark in answer.values if answer.original is None else (*answer.values, answer.original):
            if mark.change_hash not in found:
                found[mark.change_hash] = (mark.change_hash, mark.user_id, mark.received_at_ms)
    return [found[digest] for digest in sorted(found)]


def held_to_wire(outcome: Outcome) -> list[list[object]]:
    """`held` of the wire."""
    return [[h.key, h.value, h.slug, h.user_id, h.change_hash.hex()] for h in outcome.held]


def readable(outcome: Outcome) -> dict[str, object]:
    """The outcome for people and other programs: one mapping per pupil, words for codes, ISO times. Not read back."""
    return {
        "register": str(outcome.register),
        "roster_version": outcome.roster_version,
        "session": outcome.occasion.value,
        "no_session_reason": outcome.no_session_reason,
        "closed": outcome.closed,
        "labels": list(outcome.labels),
        "answers": {pupil: _readable_answer(answer) for pupil, answer in outcome.answers.items()},
        "held": [
            {"key": h.key, "value": h.value, "why": h.slug, "user": h.user_id, "change": h.change_hash.hex()}
            for h in outcome.held
        ],
        "changes": {
            digest.hex(): {"state": settled.state.name.lower(), "why": settled.slug, "detail": settled.detail}
            for digest, settled in outcome.changes.items()
        },
    }


def _readable_answer(answer: Answer) -> dict[str, object]:
    said = {"code": NOT_TAKEN_WORD} if answer.mark is None else _readable_mark(answer.mark)
    if answer.ruling is not None:
        said = {**said, "code": answer.ruling.code.word, "reason": answer.ruling.reason, "bulk": answer.ruling.bulk}
    values = [_readable_mark(mark) for mark in answer.values]
    more = {} if answer.original is None else {"original": _readable_mark(answer.original)}
    return {**said, "disputed": answer.disputed, "labels": list(answer.labels), "values": values, **more}


def _readable_mark(mark: VisibleMark) -> dict[str, object]:
    return {
        "code": mark.code.word,
        "reason": mark.reason,
        "captured_at": iso(mark.captured.at_ms),
        "captured_between": [iso(at_ms) for at_ms in mark.captured.interval],
        "clock_confidence": mark.captured.confidence.value,
        "received_at": iso(mark.received_at_ms),
        "timeliness": mark.timeliness.value,
        "user": mark.user_id,
        "change": mark.change_hash.hex(),
    }


def outcome_from_wire(data: object) -> Outcome:
    """See `Outcome.from_wire`."""
    try:
        return _outcome(data)
    except (LookupError, TypeError, ValueError, AttributeError, HudurError) as error:
        raise BadOutcome("bad-outcome", f"{type(error).__name__}: {error}") from error


def _outcome(data: Any) -> Outcome:
    if data["v"] != VERSION:
        raise ValueError(f"version {data['v']}")
    sources = [(bytes.fromhex(digest), user, received) for digest, user, received in data["sources"]]
    return Outcome(
        register=RegisterId.parse(data["register"]),
        roster_version=data["roster_version"],
        occasion=Occasion(data["occasion"]),
        no_session_reason=data["no_session_reason"],
        closed=data["closed"],
        labels=tuple(data["labels"]),
        answers={pupil: _answer(pupil, row, sources) for pupil, row in data["answers"].items()},
        held=tuple(
            HeldMark(key=key, value=value, slug=slug, user_id=user, change_hash=bytes.fromhex(digest))
            for key, value, slug, user, digest in data["held"]
        ),
        changes={
            bytes.fromhex(digest): Settled(state=State(state), slug=slug, detail=detail)
            for digest, state, slug, detail in data["changes"]
        },
        bulk_at_ms=tuple(data["bulk"]),
    )


def answer_to_wire(answer: Answer, index: Mapping[bytes, int]) -> list[object] | None:
    """One value of `answers`; `index` gives the place of a change among the sources."""
    if answer == NOT_TAKEN:
        return None
    values = [_mark_to_wire(mark, index) for mark in answer.values]
    chosen = None if answer.mark is None else answer.values.index(answer.mark)
    row: list[object] = [values, chosen, answer.disputed, list(answer.labels)]
    if (answer.original, answer.ruling, answer.chosen_by) != (None, None, None):
        original = None if answer.original is None else _mark_to_wire(answer.original, index)
        row.append([original, _ruling_to_wire(answer.ruling), answer.chosen_by])
    return row


def _mark_to_wire(mark: VisibleMark, index: Mapping[bytes, int]) -> list[object]:
    return [
        mark.value,
        index[mark.change_hash],
        mark.captured.at_ms,
        *mark.captured.interval,
        mark.captured.confidence.value,
        mark.captured.clock_flag,
        mark.timeliness.value,
    ]


def _ruling_to_wire(ruling: Ruling | None) -> list[object] | None:
    if ruling is None:
        return None
    among = [digest.hex() for digest in sorted(ruling.among)]
    return [ruling.code.value, ruling.reason, among, ruling.bulk, ruling.by, ruling.at_ms]


def _answer(pupil: str, row: Any, sources: list[tuple[bytes, str, int]]) -> Answer:
    if row is None:
        return NOT_TAKEN
    rows, chosen, disputed, labels, *more = row
    values = tuple(_mark(sources, *mark) for mark in rows)
    original, ruling, chosen_by = more[0] if more else (None, None, None)
    return Answer(
        mark=None if chosen is None else values[chosen],
        disputed=disputed,
        values=values,
        labels=tuple(labels),
        ruling=None if ruling is None else _ruling(pupil, *ruling),
        original=None if original is None else _mark(sources, *original),
        chosen_by=chosen_by,
    )


def _ruling(pupil: str, code: str, reason: str | None, among: list[str], bulk: int, by: str, at_ms: int) -> Ruling:
    hashes = frozenset(bytes.fromhex(digest) for digest in among)
    return Ruling(pupil=pupil, among=hashes, code=Code(code), reason=reason, bulk=bulk, by=by, at_ms=at_ms)


def _mark(
    sources: list[tuple[bytes, str, int]],
    value: str,
    source: int,
    at_ms: int,
    from_ms: int,
    to_ms: int,
    confidence: str,
    clock_flag: bool,
    timeliness: str,
) -> VisibleMark:
    digest, user_id, received_at_ms = sources[source]
    return VisibleMark(
        value=value,
        user_id=user_id,
        change_hash=digest,
        received_at_ms=received_at_ms,
        captured=Capture(
            at_ms=at_ms, interval=(from_ms, to_ms), confidence=Confidence(confidence), clock_flag=clock_flag
        ),
        timeliness=Timeliness(timeliness),
    )
