"""From outcomes to clean events: what downstream is told, once, and never takes back silently. Pure.

Invariants (property-tested):
  1. Only answers are told. *Not taken* and *no session* are never an event about a pupil; an answer that goes away
     after it was told is withdrawn.
  2. An event is never edited. What changed comes as a new revision that names the one it supersedes.
  3. Ids and content depend on the outcome told before and on the new one only: telling again after a crash gives the
     same bytes, and an outcome that says nothing new gives no event.
  4. What stands at the end (`event_state`) is the last outcome's answers, whatever came in between.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from clientcore.register import Code, RegisterId
from reconciliation.model import Answer, Outcome
from reconciliation.wire import iso

RECORDED = "eg.hudur.mark.recorded.v1"
AMENDED = "eg.hudur.mark.amended.v1"
WITHDRAWN = "eg.hudur.mark.withdrawn.v1"

_MINUTES_DIGITS_MAX = 4  # more is no delay but a reason that happens to be all digits
_CHAINED = ("revision", "supersedes", "changed", "previous")  # parts of an event that tell of its place in the chain

Said = dict[str, Any]
"""What an event says of a pupil: plain data, without revision and chain."""


Revisions = Mapping[str, int]
"""Per pupil of one register, the number of the last event; kept beside the outcome, which never holds it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """One CloudEvents 1.0 event about one pupil in one register.

    Attributes:
        id: `<register>/<pupil>/<revision>`.
        type: `RECORDED`, `AMENDED` or `WITHDRAWN`; each has a schema that its `data` keep (`schema_of`).
        source: `/schools/<school>`.
        subject: `<register>/<pupil>`.
        time_ms: When it was settled, as the caller's log says; UTC.
        pupil: Whom it is about.
        revision: From 1, per pupil of a register; rises, with a gap where the log was restored.
        data: The payload, plain data.
    """

    id: str
    type: str
    source: str
    subject: str
    time_ms: int
    pupil: str
    revision: int
    data: Mapping[str, Any]

    def to_wire(self) -> dict[str, object]:
        """The event in CloudEvents' JSON format."""
        return {
            "specversion": "1.0",
            "id": self.id,
            "source": self.source,
            "type": self.type,
            "subject": self.subject,
            "time": iso(self.time_ms),
            "datacontenttype": "application/json",
            "dataschema": schema_of(self.type),
            "data": dict(self.data),
        }


def schema_of(kind: str) -> str:
    """Where a server gives the JSON Schema of the data of this type of event: a path, so that bytes name no host."""
    return f"/v1/schemas/{kind}.json"


def events(
    previous: Outcome | None, outcome: Outcome, revisions: Revisions, *, time_ms: int, above: int = 0
) -> tuple[list[Event], dict[str, int]]:
    """What downstream must be told so that it knows `outcome`.

    Args:
        previous: The outcome downstream knows; None when it was told nothing of this register.
        outcome: What is official now.
        revisions: Number of the last event per pupil, as this function returned it with `previous`.
        time_ms: The events' time. Take it from the log (receipt of the newest change that was settled), not from a
            clock, so that settling again gives the same bytes.
        above: New revisions are greater than this: after a restore, than any that was told before it, so that no id
            ever comes twice with another content.

    Returns:
        Events by pupil id, ascending, and the revisions after them.
    """
    before = {} if previous is None else previous.answers
    numbers = dict(revisions)
    found: list[Event] = []
    for pupil in sorted(before.keys() | outcome.answers.keys()):
        was, now = before.get(pupil), outcome.answers.get(pupil)
        if was == now:
            continue
        event = _event(outcome.register, pupil, _said(was), _said(now), numbers.get(pupil, 0), above, time_ms)
        if event is not None:
            found.append(event)
            numbers[pupil] = event.revision
    return found, dict(sorted(numbers.items()))


def event_state(told: Iterable[Event]) -> dict[str, Said]:
    """What stands after reading events in order: per pupil the last thing said, nothing for the withdrawn."""
    state: dict[str, Said] = {}
    for event in told:
        if event.type == WITHDRAWN:
            state.pop(event.pupil, None)
        else:
            state[event.pupil] = {key: value for key, value in event.data.items() if key not in _CHAINED}
    return dict(sorted(state.items()))


def _said(answer: Answer | None) -> Said | None:
    """What an event says of this answer; None when there is nothing to say."""
    if answer is None or answer.code is None:
        return None
    mark, ruling, reason = answer.mark, answer.ruling, answer.reason
    minutes = _minutes(answer.code, reason)
    said: Said = {
        "code": answer.code.word,
        "reason": reason if minutes is None else None,
        "minutes_late": minutes,
        "disputed": answer.disputed,
        "labels": list(answer.labels),
    }
    if mark is not None:
        said |= {
            "captured_at": iso(mark.captured.at_ms),
            "captured_between": [iso(at_ms) for at_ms in mark.captured.interval],
            "clock_confidence": mark.captured.confidence.value,
            "received_at": iso(mark.received_at_ms),
            "timeliness": mark.timeliness.value,
        }
    if ruling is not None:
        said |= {"ruled_at": iso(ruling.at_ms), "bulk": ruling.bulk}
    if answer.original is not None:
        said["original"] = {"code": answer.original.code.word, "received_at": iso(answer.original.received_at_ms)}
    return said


def _minutes(code: Code, reason: str | None) -> int | None:
    if code is Code.LATE and reason and reason.isdecimal() and len(reason) <= _MINUTES_DIGITS_MAX:
        return int(reason)
    return None


def _event(
    register: RegisterId, pupil: str, was: Said | None, now: Said | None, last: int, above: int, time_ms: int
) -> Event | None:
    if was == now:
        return None
    subject, revision = f"{register}/{pupil}", max(last, above) + 1
    data: dict[str, Any] = {
        "register": str(register),
        "school": register.school,
        "class": register.class_id,
        "date": register.date,
        "session": register.session,
        "pupil": pupil,
        **(now or {}),
        "revision": revision,
    }
    if last:
        known = was or {}
        data["supersedes"] = f"{subject}/{last}"
        data["changed"] = [key for key in sorted(known | (now or {})) if known.get(key) != (now or {}).get(key)]
        data["previous"] = {key: known[key] for key in data["changed"] if key in known}
    return Event(
        id=f"{subject}/{revision}",
        type=WITHDRAWN if now is None else AMENDED if last else RECORDED,
        source=f"/schools/{register.school}",
        subject=subject,
        time_ms=time_ms,
        pupil=pupil,
        revision=revision,
        data=data,
    )
