"""One register's official answer: history, receipts and context in, outcome out. Pure; the only caller of the rules.

Invariants (property-tested):
  1. The outcome depends on the *set* of changes, their first receipts and the context. Order, duplicates, batching and
     restarts do not exist here.
  2. A code other than *not taken* comes only from a visible mark of an author entitled to make it; so does *absent*.
  3. Nothing is dropped: every change the history knows has its state, every mark kept out is listed as held.
  4. One bad change holds back no other.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from clientcore.change import Change
from clientcore.history import History, Put
from clientcore.register import RegisterId
from reconciliation.calendar import day_window, lies_ahead
from reconciliation.clocks import capture_reader
from reconciliation.conflicts import Sight, provisional, visible_puts
from reconciliation.model import (
    NOT_TAKEN,
    Answer,
    Capture,
    Context,
    HeldMark,
    Occasion,
    Outcome,
    Receipt,
    Settled,
    State,
    Timeliness,
    VisibleMark,
    Window,
)
from reconciliation.scope import held_because
from reconciliation.timeliness import timeliness

CALENDAR = "calendar"
CLOCK = "clock"
DISPUTED = "disputed"
EQUIVOCATION = "equivocation"
FUTURE = "future"
INCONSISTENT = "inconsistent"
NO_RECEIPT = "no-receipt"
NO_SESSION = "no-session"
PENDING = "pending"
UNKNOWN_PUPIL = "unknown-pupil"
WINDOW_CLOSED = "window-closed"

# When several reasons ask for a person, the one told is the one that concerns the whole register first.
_REVIEW_ORDER = (FUTURE, CALENDAR, NO_SESSION, WINDOW_CLOSED, UNKNOWN_PUPIL, DISPUTED)
_LABELS = frozenset((CALENDAR, CLOCK, FUTURE, WINDOW_CLOSED))
_REGISTER_LABELS = frozenset((CALENDAR, DISPUTED, FUTURE, WINDOW_CLOSED))


def reconcile(register: RegisterId, history: History, receipts: Mapping[bytes, Receipt], context: Context) -> Outcome:
    """Settle one register.

    Args:
        register: Which register; its date decides the day.
        history: All its changes, merged.
        receipts: The *first* receipt of each change (`first_receipts`); those of other changes do no harm.
        context: Roster, calendar, rights of that day and class.
    """
    day = day_window(register, context.zone)
    judged = {digest: _judge(change, receipts.get(digest), day, context) for digest, change in history.merged.items()}
    counted = {digest for digest, judgement in judged.items() if judgement.held is None}
    visible = visible_puts(history, counted)
    occasion, no_session_reason = _occasion(visible.get("~session", ()))
    marks = {
        key: tuple(_mark(put, judged[put.change_hash]) for put in puts)
        for key, puts in visible.items()
        if not key.startswith("~")
    }
    reasons = _reasons(history, judged, visible, marks, context, occasion)
    answers = {
        pupil: _answer(marks[pupil], reasons, occasion) if pupil in marks else NOT_TAKEN
        for pupil in sorted(context.roster)
    }
    return Outcome(
        register=register,
        roster_version=context.roster_version,
        occasion=occasion,
        no_session_reason=no_session_reason,
        closed=context.closed,
        labels=_register_labels(visible, reasons, context),
        answers=answers,
        held=_held_marks(history, judged, marks, context),
        changes=_settled(history, judged, reasons),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Judgement:
    """One merged change on its own: why it is held, and when each of its marks was made (by operation counter)."""

    receipt: Receipt | None
    held: str | None
    captured: Mapping[int, Capture]
    timeliness: Mapping[int, Timeliness]
    ahead: bool


def _judge(change: Change, receipt: Receipt | None, day: Window, context: Context) -> _Judgement:
    if receipt is None:
        return _Judgement(receipt=None, held=NO_RECEIPT, captured={}, timeliness={}, ahead=False)
    read = capture_reader(receipt, actor=change.actor, midnight=day.opens_ms, window=context.window)
    captured = {
        counter: read(_capture_ms(op.value))
        for counter, op in enumerate(change.ops, change.start_op)
        if op.value is not None
    }
    # A change that only drops the losers of a disagreement has no tap; the moment of its sealing stands for it.
    moments = list(captured.values()) or [read(change.time_s * 1000 - day.opens_ms)]
    received = receipt.received_at_ms
    return _Judgement(
        receipt=receipt,
        held=held_because(receipt, moments, day, context),
        captured=captured,
        timeliness={at: timeliness(capture, received, context.window) for at, capture in captured.items()},
        ahead=lies_ahead(day, received),
    )


def _capture_ms(value: str) -> int:
    """Milliseconds since local midnight in any stored value: one letter, the number, perhaps a reason."""
    return int(value[1:].partition(":")[0])


def _occasion(puts: list[Put] | tuple[()]) -> tuple[Occasion, str | None]:
    """Whether the session took place. Who says that it was held outweighs who says that it was not."""
    if not puts:
        return Occasion.UNSTATED, None
    if any(put.value.startswith("H") for put in puts):
        return Occasion.HELD, None
    return Occasion.NO_SESSION, puts[-1].value.partition(":")[2]


def _mark(put: Put, judgement: _Judgement) -> VisibleMark:
    assert judgement.receipt is not None  # only counted changes are visible, and no receipt means held
    counter = put.id[0]
    return VisibleMark(
        value=put.value,
        user_id=judgement.receipt.user_id,
        change_hash=put.change_hash,
        received_at_ms=judgement.receipt.received_at_ms,
        captured=judgement.captured[counter],
        timeliness=judgement.timeliness[counter],
    )


def _reasons(
    history: History,
    judged: Mapping[bytes, _Judgement],
    visible: Mapping[str, list[Put]],
    marks: Mapping[str, tuple[VisibleMark, ...]],
    context: Context,
    occasion: Occasion,
) -> dict[bytes, set[str]]:
    """Per counted change, every reason for which a person should look at it."""
    reasons: dict[bytes, set[str]] = {}
    for digest, judgement in judged.items():
        if judgement.held is not None:
            continue
        found = reasons[digest] = set()
        pupils = [op.key for op in history.merged[digest].ops if op.value is not None and not op.key.startswith("~")]
        if pupils and judgement.ahead:
            found.add(FUTURE)
        if pupils and context.closed is not None:
            found.add(CALENDAR)
        if Timeliness.ADJUSTMENT in judgement.timeliness.values():
            found.add(WINDOW_CLOSED)
        if not context.roster.issuperset(pupils):
            found.add(UNKNOWN_PUPIL)
    for values in marks.values():
        if provisional(values)[1]:
            for mark in values:
                reasons[mark.change_hash].add(DISPUTED)
    if occasion is Occasion.NO_SESSION:
        for put in _marks_beside_no_session(history, visible):
            reasons[put.change_hash].add(NO_SESSION)
    return reasons


def _marks_beside_no_session(history: History, visible: Mapping[str, list[Put]]) -> list[Put]:
    """Visible marks of pupils that nobody who said "it did not take place" had in sight."""
    sight = Sight(history)
    seen = sight.of(put.change_hash for put in visible["~session"])
    return [
        put
        for key, puts in visible.items()
        if not key.startswith("~")
        for put in puts
        if not sight.has(seen, put.change_hash)
    ]


def _answer(values: tuple[VisibleMark, ...], reasons: Mapping[bytes, set[str]], occasion: Occasion) -> Answer:
    if occasion is Occasion.NO_SESSION:
        return Answer(values=values)
    mark, disputed = provisional(values)
    labels = reasons[mark.change_hash] & {CALENDAR, FUTURE}
    if mark.captured.clock_flag:
        labels.add(CLOCK)
    if mark.timeliness is Timeliness.ADJUSTMENT:
        labels.add(WINDOW_CLOSED)
    return Answer(mark=mark, disputed=disputed, values=values, labels=tuple(sorted(labels)))


def _register_labels(
    visible: Mapping[str, list[Put]], reasons: Mapping[bytes, set[str]], context: Context
) -> tuple[str, ...]:
    """What is to be said of the register as a whole, from the changes that still show in it."""
    labels = {slug for puts in visible.values() for put in puts for slug in reasons[put.change_hash]}
    if len({put.value[0] for put in visible.get("~session", ())}) > 1 or NO_SESSION in labels:
        labels.add(DISPUTED)
    if context.closed is not None:
        labels.add(CALENDAR)
    return tuple(sorted(labels & _REGISTER_LABELS))


def _held_marks(
    history: History,
    judged: Mapping[bytes, _Judgement],
    marks: Mapping[str, tuple[VisibleMark, ...]],
    context: Context,
) -> tuple[HeldMark, ...]:
    """Marks kept out: of held changes, unless somebody wrote over them since; and of pupils not on the roster."""
    held = [
        HeldMark(key=key, value=m.value, slug=UNKNOWN_PUPIL, user_id=m.user_id, change_hash=m.change_hash)
        for key, values in marks.items()
        if key not in context.roster
        for m in values
    ]
    if any(judgement.held is not None for judgement in judged.values()):
        for key, puts in history.visible().items():
            for put in puts:
                judgement = judged[put.change_hash]
                if judgement.held is not None:
                    user_id = None if judgement.receipt is None else judgement.receipt.user_id
                    held.append(
                        HeldMark(
                            key=key,
                            value=put.value,
                            slug=judgement.held,
                            user_id=user_id,
                            change_hash=put.change_hash,
                        )
                    )
    return tuple(sorted(held, key=lambda mark: (mark.key, mark.change_hash, mark.value)))


def _settled(
    history: History, judged: Mapping[bytes, _Judgement], reasons: Mapping[bytes, set[str]]
) -> dict[bytes, Settled]:
    settled = {digest: Settled(state=State.WAITING, slug=PENDING) for digest in history.pending}
    for digest, detail in history.inconsistent.items():
        settled[digest] = Settled(state=State.NEEDS_REVIEW, slug=INCONSISTENT, detail=detail)
    for digest in history.equivocations:
        settled[digest] = Settled(state=State.NEEDS_REVIEW, slug=EQUIVOCATION)
    for digest, judgement in judged.items():
        if judgement.held == NO_RECEIPT:
            settled[digest] = Settled(state=State.WAITING, slug=NO_RECEIPT)
        elif judgement.held is not None:
            settled[digest] = Settled(state=State.NEEDS_REVIEW, slug=judgement.held)
        else:
            slug = next((slug for slug in _REVIEW_ORDER if slug in reasons[digest]), None)
            settled[digest] = Settled(state=State.CONFIRMED if slug is None else State.NEEDS_REVIEW, slug=slug)
    return dict(sorted(settled.items()))
