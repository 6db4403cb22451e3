"""The usual register, the short way: one change, on the roster, in time or late, that nobody decided about. Pure.

Nine registers of ten are like that. For them everything `reconcile` asks of each mark has one answer for the whole
change, so it is asked once. Whatever is not plain in this sense is left to `reconcile`; where this module answers, it
answers the same (property-tested), and what a store holds is proved with `reconcile` alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import repeat

from clientcore.change import Change
from clientcore.frozen import frozen_rows
from clientcore.history import merge
from clientcore.register import RegisterId
from reconciliation.calendar import day_window, lies_ahead
from reconciliation.clocks import steady_reading
from reconciliation.decisions import NONE
from reconciliation.model import (
    NOT_TAKEN,
    Answer,
    Capture,
    Context,
    Occasion,
    Outcome,
    Receipt,
    Settled,
    State,
    Timeliness,
    VisibleMark,
)
from reconciliation.reconcile import reconcile
from reconciliation.scope import held_because

_CONFIRMED = Settled(state=State.CONFIRMED)


def settle_changes(
    register: RegisterId, changes: Sequence[Change], receipts: Mapping[bytes, Receipt], context: Context
) -> Outcome:
    """Merge and reconcile, the short way where there is one.

    Args:
        register: Which register.
        changes: All its changes.
        receipts: The first receipt of each.
        context: What surrounds it.
    """
    if len(changes) == 1 and changes[0].hash in receipts:
        found = plain_outcome(register, changes[0], receipts[changes[0].hash], context)
        if found is not None:
            return found
    return reconcile(register, merge(changes), receipts, context)


def plain_outcome(register: RegisterId, change: Change, receipt: Receipt, context: Context) -> Outcome | None:
    """What `reconcile` gives for a register with this one change; None where it is not plain."""
    if change.deps or change.seq != 1 or change.start_op != 1:
        return None
    if context.closed is not None or context.aliases or context.decisions != NONE:
        return None
    values: dict[str, str] = {op.key: op.value for op in change.ops if op.value is not None and not op.preds}
    taps = [int(value[1:].partition(":")[0]) for value in values.values()]
    marks = {key: value for key, value in values.items() if key[0] != "~"}
    if len(values) != len(change.ops) or not context.roster.issuperset(marks):
        return None
    session, day = values.get("~session", "H"), day_window(register, context.zone)
    if session[0] != "H" or (marks and lies_ahead(day, receipt.received_at_ms)):
        return None
    first, last = day.opens_ms + min(taps), day.opens_ms + max(taps)
    reading = steady_reading(receipt, actor=change.actor, midnight=day.opens_ms, first_ms=first, last_ms=last)
    if reading is None:
        return None
    earliest, latest = reading.interval
    # One right that meets the last mark's earliest and the first mark's latest moment meets every mark between them.
    whole = Capture(at_ms=first, interval=(last + earliest, first + latest), confidence=reading.confidence,
                    clock_flag=False)  # fmt: skip
    when = _timeliness(last + earliest, receipt.received_at_ms, context.window.closes_ms)
    if when is None or held_because(receipt, [whole], day, context) is not None:
        return None
    if len(marks) != len(values):
        taps = [tap for key, tap in zip(values, taps, strict=True) if key[0] != "~"]
    moments = [day.opens_ms + tap for tap in taps]
    answers = dict(zip(marks, _answers(list(marks.values()), moments, reading, when, change, receipt), strict=True))
    return Outcome(
        register=register,
        roster_version=context.roster_version,
        occasion=Occasion.HELD if "~session" in values else Occasion.UNSTATED,
        no_session_reason=None,
        closed=None,
        labels=(),
        answers={pupil: answers.get(pupil, NOT_TAKEN) for pupil in sorted(context.roster)},
        held=(),
        changes={change.hash: _CONFIRMED},
        bulk_at_ms=_bulk(values, day.opens_ms + reading.at_ms),
    )


def _timeliness(earliest_of_last_ms: int, received_ms: int, closes_ms: int) -> Timeliness | None:
    """That of every mark; None where a mark may be an adjustment."""
    if received_ms < closes_ms:
        return Timeliness.ON_TIME
    return Timeliness.LATE_ARRIVAL if earliest_of_last_ms < closes_ms else None


def _bulk(values: Mapping[str, str], base_ms: int) -> tuple[int, ...]:
    return (base_ms + int(values["~bulk"][1:]),) if "~bulk" in values else ()


def _answers(
    values: Sequence[str], moments: Sequence[int], reading: Capture, when: Timeliness, change: Change, receipt: Receipt
) -> list[Answer]:
    """One answer for each mark; `reading` says how far each of its moments lies from the tap."""
    count = len(values)
    at, (earliest, latest) = reading.at_ms, reading.interval
    captured = frozen_rows(
        Capture,
        count,
        at_ms=[tap + at for tap in moments],
        interval=[(tap + earliest, tap + latest) for tap in moments],
        confidence=repeat(reading.confidence),
        clock_flag=repeat(False),
    )
    visible = frozen_rows(
        VisibleMark,
        count,
        value=values,
        user_id=repeat(receipt.user_id),
        change_hash=repeat(change.hash),
        received_at_ms=repeat(receipt.received_at_ms),
        captured=captured,
        timeliness=repeat(when),
    )
    return frozen_rows(
        Answer,
        count,
        mark=visible,
        disputed=repeat(False),
        values=[(mark,) for mark in visible],
        labels=repeat(()),
        ruling=repeat(None),
        original=repeat(None),
        chosen_by=repeat(None),
    )
