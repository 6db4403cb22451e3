"""One register's official answer: history, receipts and context in, outcome out. Pure; the only caller of the rules.

Invariants (property-tested):
  1. The outcome depends on the *set* of changes, their first receipts and the context. Order, duplicates, batching and
     restarts do not exist here.
  2. A code other than *not taken* comes only from a visible mark of an author entitled to make it, or from a ruling of
     a named person; *absent* only from a mark.
  3. Nothing is dropped: every change the history knows has its state, every mark kept out is listed as held.
  4. One bad change holds back no other.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from clientcore.change import Change, OpId
from clientcore.history import History, Put
from clientcore.register import RegisterId
from reconciliation.adjustments import Request, Stage, captures_of, request
from reconciliation.calendar import SchoolCalendar, day_window, lies_ahead
from reconciliation.conflicts import Sight, provisional, visible_puts
from reconciliation.decisions import Choice, may_rule
from reconciliation.identity import gather
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

ADJUSTED = "adjusted"
ADJUSTMENT_LOCKED = "adjustment-locked"
ADJUSTMENT_REJECTED = "adjustment-rejected"
CALENDAR = "calendar"
CLOCK = "clock"
DISPUTED = "disputed"
EQUIVOCATION = "equivocation"
FUTURE = "future"
INCONSISTENT = "inconsistent"
MERGED_RECORD = "merged-record"
NO_RECEIPT = "no-receipt"
NO_SESSION = "no-session"
PENDING = "pending"
RELEASED = "released"
RULED = "ruled"
SETTLED_BY_PERSON = "settled-by-person"
UNKNOWN_PUPIL = "unknown-pupil"
WINDOW_CLOSED = "window-closed"

# When several reasons ask for a person, the one told is the one that concerns the whole register first.
_REVIEW_ORDER = (
    FUTURE, CALENDAR, NO_SESSION, WINDOW_CLOSED, ADJUSTMENT_LOCKED, ADJUSTMENT_REJECTED, UNKNOWN_PUPIL, DISPUTED,
)  # fmt: skip
_REGISTER_LABELS = frozenset((CALENDAR, DISPUTED, FUTURE, WINDOW_CLOSED))
_STAGES = {
    Stage.WAITING: WINDOW_CLOSED,
    Stage.LOCKED: ADJUSTMENT_LOCKED,
    Stage.REJECTED: ADJUSTMENT_REJECTED,
}
_OF_REQUESTS = frozenset(_STAGES.values())


def reconcile(register: RegisterId, history: History, receipts: Mapping[bytes, Receipt], context: Context) -> Outcome:
    """Settle one register.

    Args:
        register: Which register; its date decides the day.
        history: All its changes, merged.
        receipts: The *first* receipt of each change (`first_receipts`); those of other changes do no harm.
        context: Roster, calendar, rights of that day and class.
    """
    day = day_window(register, context.zone)
    judged = {
        digest: _judge(register, change, receipts.get(digest), day, context)
        for digest, change in history.merged.items()
    }
    counted = {digest for digest, judgement in judged.items() if judgement.held is None}
    aside = {name for judgement in judged.values() for name in judgement.aside}
    visible = visible_puts(history, counted, aside)
    occasion, no_session_reason = _occasion(visible.get("~session", ()))
    marks = _marks(visible, judged)
    roster = {context.aliases.get(pupil, pupil) for pupil in context.roster}
    reasons = _reasons(history, judged, visible, marks, roster, context, occasion)
    originals = _originals(history, counted, judged) if any(j.adjusting for j in judged.values()) else None
    answers = {pupil: _answer(pupil, marks, judged, reasons, originals, occasion, context) for pupil in sorted(roster)}
    for answer in answers.values():
        if answer.disputed:
            for mark in answer.values:
                reasons[mark.change_hash].add(DISPUTED)
    held = _held_marks(history, judged, aside, marks, roster, context)
    return Outcome(
        register=register,
        roster_version=context.roster_version,
        occasion=occasion,
        no_session_reason=no_session_reason,
        closed=context.closed,
        labels=_register_labels(visible, held, reasons, context),
        answers=answers,
        held=held,
        changes=_settled(history, judged, reasons),
        bulk_at_ms=_bulk_acts(history, counted, aside, judged),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Judgement:
    """One merged change on its own: why it is held, and when each of its marks was made (by operation counter).

    `adjusting` are its operations that were certainly made after the window, `request` is where they stand.
    """

    receipt: Receipt | None
    held: str | None
    captured: Mapping[int, Capture]
    timeliness: Mapping[int, Timeliness]
    ahead: bool
    adjusting: frozenset[OpId] = frozenset()
    request: Request | None = None
    released: bool = False

    @property
    def aside(self) -> frozenset[OpId]:
        """Operations that do not count (yet)."""
        approved = self.request is None or self.request.stage is Stage.APPROVED
        return frozenset() if approved or self.held is not None else self.adjusting


def _judge(register: RegisterId, change: Change, receipt: Receipt | None, day: Window, context: Context) -> _Judgement:
    if receipt is None:
        return _Judgement(receipt=None, held=NO_RECEIPT, captured={}, timeliness={}, ahead=False)
    captured = captures_of(register, change, receipt, context)
    received = receipt.received_at_ms
    times = {at: timeliness(capture, received, context.window) for at, capture in captured.items()}
    late = [at for at, time in times.items() if time is Timeliness.ADJUSTMENT]
    return _Judgement(
        receipt=receipt,
        held=held_because(receipt, list(captured.values()), day, context),
        captured=captured,
        timeliness=times,
        ahead=lies_ahead(day, received),
        adjusting=frozenset((at, change.actor) for at in late),
        request=None if not late else request(
            register,
            [captured[at] for at in late],
            receipt,
            context.calendar or SchoolCalendar(zone=context.zone),
            context.decisions.approvals.get(change.hash, ()),
        ),
        released=change.hash in context.decisions.releases,
    )  # fmt: skip


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


def _marks(visible: Mapping[str, list[Put]], judged: Mapping[bytes, _Judgement]) -> dict[str, tuple[VisibleMark, ...]]:
    return {
        key: tuple(_mark(put, judged[put.change_hash]) for put in puts)
        for key, puts in visible.items()
        if not key.startswith("~")
    }


def _bulk_acts(
    history: History, counted: set[bytes], aside: set[OpId], judged: Mapping[bytes, _Judgement]
) -> tuple[int, ...]:
    """When "all present" was pressed: every act, since the marks of each may still stand."""
    found = []
    for digest in counted:
        change = history.merged[digest]
        for counter, op in enumerate(change.ops, change.start_op):
            if op.key == "~bulk" and op.value is not None and (counter, change.actor) not in aside:
                found.append(judged[digest].captured[counter].at_ms)
    return tuple(sorted(found))


def _originals(
    history: History, counted: set[bytes], judged: Mapping[bytes, _Judgement]
) -> dict[str, tuple[VisibleMark, ...]]:
    """What would stand without any adjustment."""
    adjusting = {name for judgement in judged.values() for name in judgement.adjusting}
    return _marks(visible_puts(history, counted, adjusting), judged)


def _reasons(
    history: History,
    judged: Mapping[bytes, _Judgement],
    visible: Mapping[str, list[Put]],
    marks: Mapping[str, tuple[VisibleMark, ...]],
    roster: set[str],
    context: Context,
    occasion: Occasion,
) -> dict[bytes, set[str]]:
    """Per counted change, every reason for which a person should look at it; disputes of pupils are added later."""
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
        if judgement.request is not None and judgement.request.stage in _STAGES:
            found.add(_STAGES[judgement.request.stage])
        if not roster.issuperset(context.aliases.get(pupil, pupil) for pupil in pupils):
            found.add(UNKNOWN_PUPIL)
    for key, values in marks.items():  # of strangers, and of a session that did not take place, nobody is answered
        unanswered = occasion is Occasion.NO_SESSION or context.aliases.get(key, key) not in roster
        if unanswered and provisional(values)[1]:
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


def _answer(
    pupil: str,
    marks: Mapping[str, tuple[VisibleMark, ...]],
    judged: Mapping[bytes, _Judgement],
    reasons: Mapping[bytes, set[str]],
    originals: Mapping[str, tuple[VisibleMark, ...]] | None,
    occasion: Occasion,
    context: Context,
) -> Answer:
    found = gather(pupil, marks, context.aliases)
    if occasion is Occasion.NO_SESSION:
        return NOT_TAKEN if not found.values else Answer(values=found.values)
    if not found.values:
        return _ruled(pupil, NOT_TAKEN, context)
    mark, disputed, chosen_by = found.mark, found.disputed, None
    choice = context.decisions.choices.get(pupil)
    if disputed and choice is not None and _may_choose(choice, found.values):
        # Of a merged record one change may hold several marks; a choice made in sight of one row speaks for no other.
        of_change = [one for one in found.values if one.change_hash == choice.chosen]
        best = provisional(of_change)[0] if of_change else None
        if best is not None and best.value == choice.value:
            mark, disputed, chosen_by = best, False, choice.by
    assert mark is not None
    judgement = judged[mark.change_hash]
    labels = reasons[mark.change_hash] & {CALENDAR, FUTURE}
    for label, holds in (
        (CLOCK, mark.captured.clock_flag),
        (ADJUSTED, mark.timeliness is Timeliness.ADJUSTMENT),
        (RELEASED, judgement.released),
        (MERGED_RECORD, found.merged),
        (SETTLED_BY_PERSON, chosen_by is not None),
    ):
        if holds:
            labels.add(label)
    # An adjustment can also move the answer to a mark made in time, by taking away the one that stood.
    original = None if originals is None else gather(pupil, originals, context.aliases).mark
    if original == mark or (original == found.mark and ADJUSTED not in labels):
        original = None
    answer = Answer(
        mark=mark,
        disputed=disputed,
        values=found.values,
        labels=tuple(sorted(labels)),
        original=original,
        chosen_by=chosen_by,
    )
    return _ruled(pupil, answer, context)


def _may_choose(choice: Choice, values: Sequence[VisibleMark]) -> bool:
    """Whether a choice was made about exactly these marks, by somebody who made none of them."""
    return choice.among == {one.change_hash for one in values} and all(one.user_id != choice.by for one in values)


def _ruled(pupil: str, answer: Answer, context: Context) -> Answer:
    """The answer under the last ruling that was made in sight of exactly these marks."""
    seen = {mark.change_hash for mark in answer.values}
    for ruling in reversed(context.decisions.rulings.get(pupil, ())):
        if ruling.among == seen and may_rule(ruling.code, None if answer.mark is None else answer.mark.code):
            return replace(
                answer,
                ruling=ruling,
                disputed=False,
                original=answer.original or answer.mark,
                labels=tuple(sorted({*answer.labels, RULED})),
            )
    return answer


def _register_labels(
    visible: Mapping[str, list[Put]],
    held: tuple[HeldMark, ...],
    reasons: Mapping[bytes, set[str]],
    context: Context,
) -> tuple[str, ...]:
    """What is to be said of the register as a whole, from the changes that still show in it and from open requests."""
    shown = {put.change_hash for puts in visible.values() for put in puts}
    shown |= {mark.change_hash for mark in held if mark.slug in _OF_REQUESTS}
    labels = {slug for digest in shown for slug in reasons[digest]}
    if len({put.value[0] for put in visible.get("~session", ())}) > 1 or NO_SESSION in labels:
        labels.add(DISPUTED)
    if context.closed is not None:
        labels.add(CALENDAR)
    return tuple(sorted(labels & _REGISTER_LABELS))


def _held_marks(
    history: History,
    judged: Mapping[bytes, _Judgement],
    aside: set[OpId],
    marks: Mapping[str, tuple[VisibleMark, ...]],
    roster: set[str],
    context: Context,
) -> tuple[HeldMark, ...]:
    """Marks kept out: of held changes and requests, and of pupils not on the roster.

    What its own author, or a mark that counts, wrote over is none of them; what only others' held marks wrote over is.
    """
    held = [
        HeldMark(key=key, value=m.value, slug=UNKNOWN_PUPIL, user_id=m.user_id, change_hash=m.change_hash)
        for key, values in marks.items()
        if context.aliases.get(key, key) not in roster
        for m in values
    ]
    if aside or any(judgement.held is not None for judgement in judged.values()):
        later = _written_over_by(history, judged, aside)
        for put in history.puts():
            judgement = judged[put.change_hash]
            slug = judgement.held
            if put.id in aside and judgement.request is not None:
                slug = _STAGES[judgement.request.stage]
            user_id = None if judgement.receipt is None else judgement.receipt.user_id
            if slug is not None and later.get(put.id, _NOBODY).isdisjoint((_COUNTED, user_id)):
                held.append(
                    HeldMark(key=put.key, value=put.value, slug=slug, user_id=user_id, change_hash=put.change_hash)
                )
    return tuple(sorted(held, key=lambda mark: (mark.key, mark.change_hash, mark.value)))


_COUNTED = ""  # no user has this id
_NOBODY: frozenset[str | None] = frozenset()


def _written_over_by(
    history: History, judged: Mapping[bytes, _Judgement], aside: set[OpId]
) -> dict[OpId, frozenset[str | None]]:
    """Operation to the authors of everything that was written over it, one after another; `_COUNTED`: it counts."""
    found: dict[OpId, frozenset[str | None]] = {}
    for digest in reversed(tuple(history.merged)):  # what was written later comes first
        change, judgement = history.merged[digest], judged[digest]
        user_id = None if judgement.receipt is None else judgement.receipt.user_id
        for counter, op in enumerate(change.ops, change.start_op):
            name = (counter, change.actor)
            counts = judgement.held is None and name not in aside
            authors = found.get(name, _NOBODY) | {user_id, *([_COUNTED] if counts else [])}
            for pred in op.preds:
                found[pred] = found.get(pred, _NOBODY) | authors
    return found


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
