"""Marks made after the window: who may let them in, and until when. Pure; no clock is asked.

Two clocks of three working days each (the school calendar's: weekends and holidays do not count):

  - *Asking*: a register may be corrected until the end of the third working day after its own day. What was certainly
    captured later is locked at school level; doubt speaks for the author.
  - *Deciding*: the school has until the end of the third working day after the request reached the server. Then it is
    locked at school level, however early it was asked.

A locked request can be decided centrally, with an audit reference. The approver is never the author. Until a valid
approval, the marks alter no answer: what stood before stands.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from clientcore.register import RegisterId
from reconciliation.calendar import SchoolCalendar
from reconciliation.decisions import Approval, Level
from reconciliation.model import Capture, Receipt

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
        return self.stage is Stage.LOCKED or (self.stage is Stage.WAITING and now_ms >= self.decide_by_ms)


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
    asked_by_ms = _end_of_working_days(register.date, calendar)
    decide_by_ms = _end_of_working_days(calendar.date_at(receipt.received_at_ms), calendar)
    asked_late = all(capture.interval[0] >= asked_by_ms for capture in captured)
    found: Approval | None = None
    for approval in sorted(approvals, key=lambda one: one.id):
        if is_valid(approval, receipt, asked_late=asked_late, decide_by_ms=decide_by_ms):
            found = approval
    if found is not None:
        stage = Stage.APPROVED if found.approved else Stage.REJECTED
    else:
        stage = Stage.LOCKED if asked_late else Stage.WAITING
    return Request(stage=stage, asked_by_ms=asked_by_ms, decide_by_ms=decide_by_ms, approval=found)


def is_valid(approval: Approval, receipt: Receipt, *, asked_late: bool, decide_by_ms: int) -> bool:
    """Whether a decision counts; what should never have been written down changes nothing."""
    if approval.by == receipt.user_id or approval.at_ms < receipt.received_at_ms:
        return False
    if approval.level is Level.CENTRAL:
        return bool(approval.reference.strip())
    return not asked_late and approval.at_ms < decide_by_ms


def _end_of_working_days(date: str, calendar: SchoolCalendar) -> int:
    return calendar.end_of_day_ms(calendar.add_working_days(date, WORKING_DAYS))
