"""Take a register on this device: every named pupil is one act, the rest is one act, and then it is sealed.

A kill between two acts loses nothing that was acknowledged: taps are in the log, and the next `seal` takes them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from clientcore.device import Device
from clientcore.errors import BadInput, ChangeRefused
from clientcore.register import Code, Mark, RegisterId
from clientcore.take import Plan, Wish, plan


@dataclass(frozen=True, slots=True, kw_only=True)
class Taken:
    """What taking a register did; `counts` is the register now, by code word."""

    register: RegisterId
    plan: Plan
    counts: Mapping[str, int]


def take_register(device: Device, register: RegisterId, wishes: Mapping[str, Wish]) -> Taken:
    """Mark the pupils of `wishes`, everybody else of the class present, and seal. Only what is different is put.

    Raises:
        BadInput: `unknown-class` without a roster; `unknown-pupil`.
        StoreError: the act under way was not written; those before it were.
    """
    journal = device.journal
    roster = [pupil for pupil, _ in device.cache.roster(register.class_id)]
    if not roster:
        known = ", ".join(item.id for item in device.cache.classes()) or "none; run `sync` first"
        raise BadInput("unknown-class", f"{register.class_id} is no class of this device (it has: {known})")
    journal.refresh()
    journal.seal()  # taps a kill has left behind come first: they are older
    name = register.within_school
    seen = journal.state.registers[name].values() if name in journal.state.registers else {}
    steps = plan(roster, wishes, seen)
    offsets = device.offsets()

    def mark(wish: Wish) -> str:
        code, reason = wish
        return str(Mark(code=code, captured_ms=journal.capture_ms(register, offsets), reason=reason))

    for pupil, wish in steps.by_name:
        journal.tap(register, [(pupil, mark(wish))])
    if steps.rest:
        pressed = ("~bulk", f"B{journal.capture_ms(register, offsets)}")
        journal.tap(register, [pressed, *((pupil, mark((Code.PRESENT, None))) for pupil in steps.rest)])
    journal.seal()
    return Taken(register=register, plan=steps, counts=counts(journal.state.registers[name].values()))


def counts(values: Mapping[str, tuple[str, ...]]) -> dict[str, int]:
    """How many pupils stand at each code, by its word; disagreements count under the mark in force."""
    words: Counter[str] = Counter()
    for key, found in values.items():
        if key.startswith("~"):
            continue
        try:
            words[Mark.parse(found[-1]).code.word] += 1
        except ChangeRefused:
            words["unreadable"] += 1
    return dict(sorted(words.items()))
