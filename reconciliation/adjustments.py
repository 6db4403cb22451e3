"""Marks made after the window: who may let them in, and until when. Pure; no clock is asked.

Two clocks of three working days each (the school calendar's: weekends and holidays do not count):

  - *Asking*: a register may be corrected until the end of the third working day after its own day. A request with a
    mark that was certainly captured later is locked at school level; doubt speaks for the author.
  - *Deciding*: the school has until the end of the third working day after the request reached the server. Then it is
    locked at school level, however early it was asked.

A locked request can be decided centrally, with an audit reference, and what was decided centrally is not decided again
at school. The approver is never the author. Until a valid approval, the marks alter no answer: what stood before
stands. A decision made in time stays made, also when a later change of the calendar moves the ends of the clocks.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from clientcore.change import Change
from clientcore.register import RegisterId
from reconciliation.calendar import SchoolCalendar, day_window
from reconciliation.clocks import capture_reader
from reconciliation.decisions import Approval, Level
from reconciliation.model import Capture, Context, Receipt, Timeliness
from reconciliation.timeliness import timeliness

WORKING_DAYS = 3


class Stage(StrEnum):
    """Where a request stands."""

    WAITING = "waiting"
    APPROVED = "approved"
    REJECTED = "rejected"
    LOCKED = "locked"  # asked too late: only the central office can decide


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """The adjusting marks of one change, as a request.

    Attributes:
        stage: Where it stands; a request whose time to decide has run out is still `WAITING` here: see `decide_by_ms`.
        asked_by_ms: First moment at which a correction of this register is locked at school.
        decide_by_ms: First moment at which the school can no longer decide.
        approval: The decision that counts, if any.
    """

    stage: Stage
    asked_by_ms: int
    decide_by_ms: int
    approval: Approval | None

    def locked_at(self, now_ms: int) -> bool:
        """Whether the school can no longer decide."""
        return self.locked_since_ms(now_ms) is not None

    def locked_since_ms(self, now_ms: int) -> int | None:
        """The first moment at which the school could no longer decide; None while it can, or when it has decided."""
        if self.stage is Stage.LOCKED:
            return self.asked_by_ms
        return self.decide_by_ms if self.stage is Stage.WAITING and now_ms >= self.decide_by_ms else None


def request(
    register: RegisterId,
    captured: Iterable[Capture],
    receipt: Receipt,
    calendar: SchoolCalendar,
    approvals: Iterable[Approval],
) -> Request:
    """Where the request of one change stands.

    Args:
        register: The register it corrects.
        captured: When its adjusting marks were made; at least one.
        receipt: The change's first receipt.
        calendar: The school's.
        approvals: Everything that was decided about this change.
    """
    asked_by_ms = asking_ends_ms(register, calendar)
    decide_by_ms = _end_of_working_days(calendar.date_at(receipt.received_at_ms), calendar)
    asked_last_ms = max(capture.interval[0] for capture in captured)
    asked_late = asked_last_ms >= asked_by_ms
    found: Approval | None = None
    for approval in sorted(approvals, key=lambda one: (one.level is Level.CENTRAL, one.id)):
        if is_valid(approval, receipt, asked_last_ms=asked_last_ms, asked_by_ms=asked_by_ms, decide_by_ms=decide_by_ms):
            found = approval
    if found is not None:
        stage = Stage.APPROVED if found.approved else Stage.REJECTED
    else:
        stage = Stage.LOCKED if asked_late else Stage.WAITING
    return Request(stage=stage, asked_by_ms=asked_by_ms, decide_by_ms=decide_by_ms, approval=found)


def is_valid(approval: Approval, receipt: Receipt, *, asked_last_ms: int, asked_by_ms: int, decide_by_ms: int) -> bool:
    """Whether a decision counts; what should never have been written down changes nothing.

    Args:
        approval: The decision.
        receipt: The first receipt of the change it is about.
        asked_last_ms: The earliest moment at which the last adjusting mark can have been made.
        asked_by_ms: End of the first clock as the calendar has it now.
        decide_by_ms: End of the second clock as the calendar has it now.
    """
    if approval.by == receipt.user_id or approval.at_ms < receipt.received_at_ms:
        return False
    if approval.level is Level.CENTRAL:
        return bool(approval.reference.strip())
    asked_by_ms, decide_by_ms = max(asked_by_ms, approval.asked_by_ms), max(decide_by_ms, approval.decide_by_ms)
    return asked_last_ms < asked_by_ms and approval.at_ms < decide_by_ms


def asking_ends_ms(register: RegisterId, calendar: SchoolCalendar) -> int:
    """The first moment at which a register is no longer corrected at school."""
    return _end_of_working_days(register.date, calendar)


def captures_of(register: RegisterId, change: Change, receipt: Receipt, context: Context) -> dict[int, Capture]:
    """When each operation of a change was made, by operation counter."""
    midnight = day_window(register, context.zone).opens_ms
    read = capture_reader(receipt, actor=change.actor, midnight=midnight, window=context.window)
    # What only drops the losers of a disagreement has no tap; the moment of its sealing stands for it.
    return {
        counter: read(change.time_s * 1000 - midnight if op.value is None else int(op.value[1:].partition(":")[0]))
        for counter, op in enumerate(change.ops, change.start_op)
    }


def request_of(register: RegisterId, change: Change, receipt: Receipt, context: Context) -> Request | None:
    """Where the request of a change stands; None when it holds no mark made after the window."""
    late = [
        capture
        for capture in captures_of(register, change, receipt, context).values()
        if timeliness(capture, receipt.received_at_ms, context.window) is Timeliness.ADJUSTMENT
    ]
    if not late:
        return None
    calendar = context.calendar or SchoolCalendar(zone=context.zone)
    return request(register, late, receipt, calendar, context.decisions.approvals.get(change.hash, ()))


def _end_of_working_days(date: str, calendar: SchoolCalendar) -> int:
    return calendar.end_of_day_ms(calendar.add_working_days(date, WORKING_DAYS))
