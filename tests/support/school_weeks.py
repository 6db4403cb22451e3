"""School weeks as rules and the store see them: registers tapped by hand, pressed at once or copied, and their paper.

Everything goes through the real rules: a scripted phone makes changes, `reconcile` makes the outcome.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping, Sequence
from datetime import date as Date
from datetime import timedelta

from clientcore.change import Change
from clientcore.frame import ClockEvidence
from clientcore.history import merge
from clientcore.register import Code, RegisterId
from reconciliation.anomalies import Taken, read_taken
from reconciliation.calendar import SchoolCalendar, day_window
from reconciliation.clocks import zone_table
from reconciliation.decisions import Approval, Decisions, Level, Reason
from reconciliation.gate import Verdict
from reconciliation.model import Context, Outcome, Receipt, Right
from reconciliation.paper import Document, Entry, Sheet, read_sheet
from reconciliation.parity import Status
from reconciliation.reconcile import reconcile
from syncserver.store.packed import pack_json, pack_outcome
from syncserver.store.port import Database
from tests.support.histories import EIGHT_MS, Phone

SCHOOL = "eg-07-113"
WEEK = "2026-11-21"
"""A Saturday; school from Sunday 22 to Thursday 26 November."""
PUPILS = tuple(f"s{n:03d}" for n in range(1, 41))
ZONE = zone_table("2026-08-01", "2027-09-30")
CALENDAR = SchoolCalendar(zone=ZONE)
MINUTE = 60_000


def days(week: str = WEEK, count: int = 5) -> list[str]:
    """The first days of a school week, from Sunday on."""
    return [(Date.fromisoformat(week) + timedelta(days=1 + n)).isoformat() for n in range(count)]


def weeks(count: int, first: str = WEEK) -> list[str]:
    """Weeks in a row."""
    return [(Date.fromisoformat(first) + timedelta(days=7 * n)).isoformat() for n in range(count)]


def by_hand(seed: int, count: int = len(PUPILS), first_ms: int = EIGHT_MS) -> list[int]:
    """Moments of taps as hands make them: half a second to three seconds apart."""
    chance = random.Random(seed)
    at_ms, found = first_ms + chance.randrange(600_000), []
    for _ in range(count):
        at_ms += chance.randrange(500, 3_000)
        found.append(at_ms)
    return found


def marks(
    stamps: Sequence[int], codes: Mapping[str, str] | None = None, pupils: Sequence[str] = PUPILS
) -> dict[str, str]:
    """Stored values: present for whoever `codes` does not name."""
    told = codes or {}
    return {pupil: f"{told.get(pupil, 'P')}{ms}" for pupil, ms in zip(pupils, stamps, strict=True)}


def at_once(ms: int, codes: Mapping[str, str] | None = None, pupils: Sequence[str] = PUPILS) -> dict[str, str]:
    """ "All present" pressed at a moment."""
    return {"~bulk": f"B{ms}", **marks([ms] * len(pupils), codes, pupils)}


def outcome(
    register: RegisterId,
    *values: Mapping[str, str],
    user: str = "amal",
    pupils: Iterable[str] = PUPILS,
    sent_ms: int | None = None,
    clock_off_ms: int = 0,
    delay_ms: int = 1_000,
    approved: bool = False,
) -> Outcome:
    """A register as settled from one phone's changes, one for each of `values`.

    Args:
        register: Which.
        values: What each change writes.
        user: Who marked.
        pupils: The day's roster.
        sent_ms: True time at which the frame was signed, UTC; by default ten minutes after the last tap.
        clock_off_ms: What the phone's clock is ahead.
        delay_ms: From signing to receipt.
        approved: Adjustments were approved centrally.
    """
    day = day_window(register, ZONE)
    phone = Phone(label=f"phone of {user}", user=user)
    last = max(int(value[1:].partition(":")[0]) for some in values for value in some.values())
    signed_ms = day.opens_ms + last + 10 * MINUTE - clock_off_ms if sent_ms is None else sent_ms
    clock = ClockEvidence(wall_ms=signed_ms + clock_off_ms, mono_ms=60_000, session=phone.nonce)
    changes: list[Change] = [phone.mark(dict(some)) for some in values]
    receipts = {
        change.hash: Receipt(
            change_hash=change.hash,
            device=phone.device,
            user_id=user,
            received_at_ms=signed_ms + delay_ms,
            offset=number,
            clock=clock,
        )
        for number, change in enumerate(changes, 1)
    }
    words = {
        change.hash: (
            Approval(
                id=number, change_hash=change.hash, approved=True, reason=Reason.DOCUMENTED, by="office",
                level=Level.CENTRAL, reference="decree 1", at_ms=signed_ms + delay_ms,
            ),
        )
        for number, change in enumerate(changes)
        if approved
    }  # fmt: skip
    context = Context(
        roster=frozenset(pupils),
        roster_version="1",
        zone=ZONE,
        window=day,
        entitled={user: (Right(from_ms=0),)},
        decisions=Decisions(approvals=words),
    )
    return reconcile(register, merge(changes), receipts, context)


def taken(found: Outcome) -> Taken:
    """How a register was filled in."""
    return read_taken(found.to_wire(), day_window(found.register, ZONE).closes_ms)


def register(day: str, class_id: str = "c-3a", session: str = "day") -> RegisterId:
    """A register of the school."""
    return RegisterId(SCHOOL, class_id, day, session)


def entry(
    number: int, codes: Mapping[str, str], by: str = "user:ch1", document: Document = Document.PERIOD_SHEET
) -> Entry:
    """Somebody's reading of a sheet."""
    return Entry(
        id=number,
        document=document,
        signed_by="t1",
        entered_by=by,
        marks={pupil: Code(code) for pupil, code in codes.items()},
        at_ms=number,
    )


def sheet(codes: Mapping[str, str]) -> Sheet:
    """A sheet that counts."""
    found = read_sheet([entry(1, codes)], Document.PERIOD_SHEET, two_person=False)
    assert found is not None
    return found


def verdict(week: str, status: Status = Status.PASSED, matched: int = 98, compared: int = 100) -> Verdict:
    """A judged week."""
    return Verdict(week=week, status=status, matched=matched, compared=compared, covered=10, expected=10)


async def store_outcome(db: Database, found: Outcome, *, settled_ms: int = 0) -> None:
    """Put an outcome where the settle stage puts it; written again, its revision rises."""
    key = (found.register.school, found.register.class_id, found.register.date, found.register.session)
    async with db.transaction() as tx:
        await tx.execute(
            """INSERT INTO outcomes (school, class_id, date, session, revision, settled_ms, body, revisions)
            VALUES (?, ?, ?, ?, 1, ?, ?, ?) ON CONFLICT (school, class_id, date, session) DO UPDATE SET
            revision = outcomes.revision + 1, settled_ms = excluded.settled_ms, body = excluded.body""",
            (*key, settled_ms, pack_outcome(found), pack_json({})),
        )
