"""What every decision about registers needs: who decides from where, about what, and on which ground."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass
from datetime import date as Date

from clientcore.change import Change, parse
from clientcore.errors import BadInput
from clientcore.register import RegisterId, is_date
from reconciliation.calendar import SchoolCalendar
from reconciliation.decisions import Level
from reconciliation.model import Answer, Context, Outcome, Receipt, VisibleMark
from reconciliation.wire import NOT_TAKEN_WORD, iso
from syncserver.access import ApiRole, Args, Desk, refusal, text
from syncserver.errors import RequestProblem
from syncserver.settling import CHANGES_PER_REGISTER_MAX
from syncserver.store.key import Key
from syncserver.store.port import Reader
from syncserver.store.registers import changes_of, outcome_of
from syncserver.store.surroundings import context_of

REGISTERS_MAX = 200
"""Registers one list looks into; narrower dates show the rest."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sheet:
    """One register as it stands: outcome, surroundings, and its changes with their receipts."""

    register: RegisterId
    outcome: Outcome
    context: Context
    changes: dict[bytes, tuple[Change, Receipt]]

    @property
    def calendar(self) -> SchoolCalendar:
        """The school's."""
        return self.context.calendar or SchoolCalendar(zone=self.context.zone)


def level_of(desk: Desk) -> Level:
    """From where somebody decides."""
    return Level.CENTRAL if desk.who.role is ApiRole.CENTRAL else Level.SCHOOL


def reference_of(desk: Desk, args: Args) -> str:
    """What a decision rests on: needed of a central office, optional at school.

    Raises:
        RequestProblem: `rule`, `reference-needed`.
    """
    found = args.get("reference")
    if isinstance(found, str) and found.strip() and len(found) <= 200:
        return found.strip()
    if level_of(desk) is Level.CENTRAL:
        raise refusal(
            "reference-needed",
            "A central decision names the document it rests on.",
            arabic="يلزم ذكر رقم المستند الذي يستند إليه القرار المركزي.",
            who="central, with a reference",
        )
    return ""


def check_central(desk: Desk, decided: Level) -> None:
    """What the central office decided, no school takes back.

    Raises:
        RequestProblem: `rule`, `central-decision`.
    """
    if decided is Level.CENTRAL and level_of(desk) is not Level.CENTRAL:
        raise refusal(
            "central-decision",
            "The central office has decided this; only it can decide again.",
            arabic="صدر في هذا قرار مركزي، ولا يتغيّر إلا بقرار مركزي.",
            who="central, with a reference",
        )


def register_of(args: Args) -> RegisterId:
    """The register in `register`.

    Raises:
        RequestProblem: `bad-request`.
    """
    try:
        return RegisterId.parse(text(args, "register"))
    except BadInput as wrong:
        raise RequestProblem("bad-request", wrong.detail) from None


def change_of(sheet: Sheet, args: Args) -> bytes:
    """The hash of the change in `change`: hex, 8 digits of it at least.

    Raises:
        RequestProblem: `bad-request`, `not-found`.
    """
    name = text(args, "change").lower()
    if not 8 <= len(name) <= 64 or not all(digit in "0123456789abcdef" for digit in name):
        raise RequestProblem("bad-request", "change is 8 to 64 hex digits")
    found = [digest for digest in sheet.changes if digest.hex().startswith(name)]
    if len(found) != 1:
        raise RequestProblem(
            "not-found", f"{name}: {'several changes' if found else 'no such change'} in this register"
        )
    return found[0]


def span_of(args: Args) -> tuple[str, str]:
    """The dates in `from` and `until`, both within; by default all.

    Raises:
        RequestProblem: `bad-request`.
    """
    first, last = args.get("from") or Date.min.isoformat(), args.get("until") or Date.max.isoformat()
    if not isinstance(first, str) or not isinstance(last, str) or not is_date(first) or not is_date(last):
        raise RequestProblem("bad-request", "from and until are dates YYYY-MM-DD")
    return first, last


def key_of(register: RegisterId) -> Key:
    """The store's name of a register."""
    return register.school, register.class_id, register.date, register.session


async def sheet_of(reader: Reader, key: Key, zone: str) -> Sheet | None:
    """A register as it stands; None when nothing of it was settled yet."""
    stored = await outcome_of(reader, key)
    if stored is None:
        return None
    context = await context_of(reader, key, zone)
    known = stored.outcome.changes
    changes = {
        one.hash: (parse(one.chunk), one.receipt)
        for one in await changes_of(reader, key, 1 << 53, CHANGES_PER_REGISTER_MAX)
        if one.hash in known  # the others wait for the settle stage
    }
    return Sheet(register=RegisterId(*key), outcome=stored.outcome, context=context, changes=changes)


async def need_sheet(desk: Desk, register: RegisterId, reader: Reader | None = None) -> Sheet:
    """A register that must be there.

    Raises:
        RequestProblem: `not-found`.
    """
    found = await sheet_of(reader or desk.db, key_of(register), desk.config.zone)
    if found is None:
        raise RequestProblem("not-found", f"{register}: not taken. Nothing has arrived for this register.")
    return found


async def sheets_of(desk: Desk, keys: Iterable[Key]) -> AsyncIterator[Sheet]:
    """The registers of one school that were settled, one after the other."""
    for key in keys:
        found = await sheet_of(desk.db, key, desk.config.zone)
        if found is not None:
            yield found


def shown(answer: Answer | None) -> dict[str, object]:
    """What stands for a pupil, in short."""
    if answer is None or answer.code is None:
        return {"code": NOT_TAKEN_WORD, "reason": None}
    return {"code": answer.code.word, "reason": answer.reason}


def shown_mark(mark: VisibleMark) -> dict[str, object]:
    """One mark with who made it and when."""
    return {
        "code": mark.code.word,
        "reason": mark.reason,
        "by": mark.user_id,
        "change": mark.change_hash.hex(),
        "captured_between": [iso(at_ms) for at_ms in mark.captured.interval],
        "clock_confidence": mark.captured.confidence.value,
        "received_at": iso(mark.received_at_ms),
    }
