"""What a phone's screen says, held against what was tapped, what the server answered, and what its store holds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from clientcore.states import Step
from clientcore.wire import unpack

if TYPE_CHECKING:
    from tests.simulator.phone import PhoneHost

TapName = tuple[str, str]
"""(class/date/session, key)"""


def check_saved(phone: PhoneHost) -> None:
    """I1: every mark shown as saved is in the log."""
    found: dict[TapName, set[str]] = {}
    standing: dict[TapName, list[str]] = {}
    unsealed: dict[str, dict[str, int]] = {}
    for row in phone.read_at_start:
        if row.register is None or row.kind not in ("tap", "change"):
            continue
        waiting = unsealed.setdefault(row.register, {})
        if row.kind == "change":
            waiting.clear()
            continue
        key, value, _ = unpack(row.body, bytes_max=4_096)
        name = (row.register, key)
        if value is not None:
            found.setdefault(name, set()).add(value)
            standing.setdefault(name, []).append(value)
            waiting[key] = waiting.get(key, 0) + 1
        elif waiting.get(key):
            standing[name].pop()
            waiting[key] -= 1
    phone.read_at_start = []
    phone.standing = standing  # what the app died of may have reached the log without having been shown
    phone.doubtful.clear()
    missing = [
        (name, value) for name, values in phone.shown.items() for value in values if value not in found.get(name, ())
    ]
    phone.lab.ledger.check("I1", not missing, f"{phone.name}: shown as saved and gone: {missing[:3]}")


def _last(phone: PhoneHost, name: TapName, values: Sequence[str]) -> tuple[str | None, str | None]:
    """The mark that stands, None for none: if no doubtful taking back came about, and if every one did."""
    sure = [value for value in values if (name, value) not in phone.doubtful]
    return values[-1] if values else None, sure[-1] if sure else None


def check_pending(phone: PhoneHost) -> None:
    """I9: pending is never lower than the registers with a mark no receipt covers; "confirmed" is the server's."""
    device = phone.device
    if device is None or phone.enrolment is None:
        return
    ledger, state = phone.lab.ledger, device.state
    pending = state.pending_registers
    hidden = [
        name
        for name, values in phone.standing.items()
        if name[0] not in pending
        and not any(
            last is None or (f"{phone.school}/{name[0]}", name[1], last) in ledger.safe_marks
            for last in _last(phone, name, values)
        )
    ]
    ledger.check("I9", not hidden, f"{phone.name}: not pending, yet no receipt covers {hidden[:3]}")
    if ledger.owed and state.epoch >= phone.server.epoch and not state.needs_offer:
        lost = [
            register
            for register, digest in sorted(ledger.owed)
            for own in (state.entries.get(digest[:8]),)
            if own is not None
            and own.own
            and register == f"{phone.school}/{own.register}"
            and own.register not in pending
        ]
        ledger.check("I9", not lost, f"{phone.name}: offered all, yet not pending and in no log: {lost[:3]}")
    for name, register in state.registers.items():
        if register.step is Step.CONFIRMED:
            full = f"{phone.school}/{name}"
            unproved = [
                entry.change.hash.hex()[:12]
                for entry in register.entries.values()
                if entry.own and (full, entry.change.hash) not in ledger.confirmed
            ]
            ledger.check("I9", not unproved, f"{phone.name}: {name} shown as confirmed without {unproved[:3]}")
            untold = [one.slug for one in register.entries.values() if one.own and one.settled != 1]
            ledger.check("I9", not untold, f"{phone.name}: {name} shown as confirmed, never told of {untold[:3]}")
