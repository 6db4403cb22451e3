"""One register from its changes to everything that is to be written of it. Pure.

What settling gives depends on the register's changes, their receipts, its surroundings and its last outcome; nothing
here reads or writes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from clientcore.change import Change, parse
from clientcore.history import merge
from clientcore.register import RegisterId
from reconciliation.events import events
from reconciliation.model import Context, Outcome, Settled, State
from reconciliation.plain import settle_changes
from reconciliation.reconcile import reconcile
from reconciliation.reports import summary_of
from reconciliation.wire import canonical
from syncserver.store.key import Key
from syncserver.store.packed import (
    FIRST_REVISIONS,
    first_events,
    first_revisions,
    pack_json,
    pack_outcome,
    pack_revisions,
)
from syncserver.store.registers import POISON, StoredChange, StoredOutcome
from syncserver.store.settled import Result, Word
from syncserver.store.summaries import pack_counts

# A class of 60 taken whole 80 times. The worst register within both bounds takes 0.35 s of CPU, an ordinary one 1 ms.
CHANGES_PER_REGISTER_MAX = 500
OPERATIONS_PER_REGISTER_MAX = 5_000
FULL = Settled(state=State.NEEDS_REVIEW, slug="register-full")
POISONED = Settled(state=State.NEEDS_REVIEW, slug=POISON)


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """One register to settle, the new changes that ask for it, and when the newest of its causes came (ms).

    `again_ids` are the orders in `settle_again` that name it.
    """

    key: Key
    new_offsets: tuple[int, ...]
    cause_ms: int
    again_ids: tuple[int, ...] = ()


def settle_anew(key: Key, stored: Sequence[StoredChange], context: Context) -> bytes:
    """A register's outcome from nothing but its changes, as canonical JSON: what a restored store must hold.

    Every mark is reconciled by itself here, never the short way.

    Args:
        key: The register.
        stored: Its changes in the order of the log, `CHANGES_PER_REGISTER_MAX` at most.
        context: Its surroundings.
    """
    parsed = [parse(one.chunk) for one in stored]
    taken = within_bounds(parsed)
    receipts = {one.hash: one.receipt for one in stored[:taken]}
    return canonical(reconcile(RegisterId(*key), merge(parsed[:taken]), receipts, context).to_wire())


def settle(
    task: Task,
    stored: Sequence[StoredChange],
    *,
    before: StoredOutcome | None,
    context: Context,
    above: int,
    refers: bool,
) -> Result:
    """Everything that settling a register writes.

    Args:
        task: What asks for it.
        stored: Its changes in the order of the log.
        before: Its last outcome.
        context: Its surroundings.
        above: New revisions of events are greater; see `reconciliation.events.events`.
        refers: An outcome of one change is written as a reference to it.
    """
    parsed = [parse(one.chunk) for one in stored]
    taken = within_bounds(parsed)
    receipts = {one.hash: one.receipt for one in stored[:taken]}
    outcome = settle_changes(RegisterId(*task.key), parsed[:taken], receipts, context)
    words = [outcome.changes[one.hash] for one in stored[:taken]] + [FULL] * (len(stored) - taken)
    changed = before is None or outcome != before.outcome
    told = _told(outcome, before, task.cause_ms, above) if changed else _NOTHING
    revision = (0 if before is None else before.revision) + changed
    source = parsed[0] if refers and len(parsed) == 1 else None
    return Result(
        key=task.key,
        revision=revision,
        changed=changed,
        settled_ms=task.cause_ms,
        body=pack_outcome(outcome, source) if changed else b"",
        source_offset=None if source is None else stored[0].log_offset,
        counts=pack_counts(revision, summary_of(outcome)) if changed else b"",
        is_first=before is None,
        revisions=told.revisions,
        events=told.body,
        event_count=told.count,
        first_events=told.of_first,
        words=[word_of(one.log_offset, one.receipt.device, word) for one, word in zip(stored, words, strict=True)],
        operations=sum(len(change.ops) for change in parsed[:taken]),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Told:
    """Events as they are stored: `of_first` writes down what has followed from the outcome that is replaced."""

    count: int
    body: bytes | None
    revisions: bytes
    of_first: bytes | None = None


_NOTHING = _Told(count=0, body=b"", revisions=b"")


def _told(outcome: Outcome, before: StoredOutcome | None, time_ms: int, above: int) -> _Told:
    if before is None and above == 0:
        return _Told(count=len(first_revisions(outcome)), body=None, revisions=FIRST_REVISIONS)
    told, revisions = events(
        None if before is None else before.outcome,
        outcome,
        {} if before is None else before.revisions,
        time_ms=time_ms,
        above=above,
    )
    of_first = None
    if before is not None and before.revision == 1:
        of_first = pack_json(first_events(before.outcome, time_ms=before.settled_ms))
    return _Told(
        count=len(told),
        body=pack_json([event.to_wire() for event in told]) if told else b"",
        revisions=pack_revisions(outcome, revisions),
        of_first=of_first,
    )


def within_bounds(parsed: Sequence[Change]) -> int:
    """How many changes, from the first, a register has room for; once one does not fit, none behind it does."""
    operations = 0
    for at, change in enumerate(parsed):
        operations += len(change.ops)
        if operations > OPERATIONS_PER_REGISTER_MAX:
            return at
    return len(parsed)


def word_of(log_offset: int, device: bytes, settled: Settled) -> Word:
    """The word on one change, as a row."""
    return Word(
        log_offset=log_offset,
        device=device,
        state=int(settled.state),
        slug=settled.slug,
        detail=settled.detail,
        dead=settled.dead_letter,
    )
