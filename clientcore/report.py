"""What the commands say: the same facts as JSON objects and as lines for a person. No decisions here."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from clientcore.advice import explain
from clientcore.bundles import BundleResult, Rescue
from clientcore.days import civil_date, local_ms
from clientcore.device import Device, SyncReport
from clientcore.home import Settings
from clientcore.states import OFFERED, OFFERED_UNARCHIVED, RegisterState, Step
from clientcore.taking import Taken, counts

_NOTICES = {
    "quarantine": "The log was damaged. It is kept beside as {detail}; try `import-log` on it.",
    "empty-log": "The log was empty though this device had been enrolled before: unsent work of that time is not here.",
    "restored-copy": "The server knows later work of this device: this is an older copy, or a copy of it is in use.",
    "wiped-phone": "This person had a device before; this one began empty. Unsent work of the old one is only there.",
    "revoked": "This device or its user was revoked. Ask the champion.",
    "frame-refused": "The server could not read one frame; its marks go again in another.",
}
_QUIET = frozenset((OFFERED, OFFERED_UNARCHIVED))  # evidence for the fold, no news for a person


def status(device: Device, settings: Settings) -> dict[str, Any]:
    """The state of this device. `saved`, `sent`, `confirmed`, `needs_review` count registers, each register once."""
    state = device.state
    steps = state.step_counts()
    school_name, user_name = device.cache.names()
    refused = [entry for entry in state.entries.values() if entry.own and entry.is_refused]
    return {
        "pending": state.pending,
        **{step.value: count for step, count in steps.items()},
        "refused_changes": len(refused),
        "unsealed_taps": sum(len(register.taps) for register in state.registers.values()),
        "unanswered_frames": sum(bool(frame.changes) for frame in state.open_frames()),
        "last_complete_sync_at_ms": state.last_complete_sync_at_ms,
        "last_outcome": state.last_outcome,
        "last_attempt_at_ms": state.last_attempt_at_ms,
        "epoch": state.epoch_seen or state.epoch,
        "log_rows": state.rows,
        "unreadable_rows": state.unreadable,
        "identity": {
            "env": settings.enrolment.env,
            "school": settings.enrolment.school,
            "school_name": school_name,
            "user_id": settings.enrolment.user_id,
            "user_name": user_name,
            "role": settings.enrolment.role,
            "device": settings.enrolment.device.hex(),
            "short_number": device.short_number,
            "server": settings.server,
        },
        "notices": [
            {"slug": slug, "detail": detail, "at_ms": at_ms}
            for slug, detail, at_ms in state.notices
            if slug not in _QUIET
        ],
    }


def status_lines(device: Device, settings: Settings) -> list[str]:
    """`status` for a person."""
    state = device.state
    told = status(device, settings)
    identity = told["identity"]
    user = identity["user_name"] or identity["user_id"]
    school = identity["school_name"] or identity["school"]
    lines = [
        f"{user} ({identity['role']}), {school}, device {identity['short_number']}",
        *step_lines(device),
        "Last complete sync: " + _instant(device, state.last_complete_sync_at_ms),
    ]
    if state.last_outcome not in (None, "ok"):
        lines.append(f"Last try: {_instant(device, state.last_attempt_at_ms)}, {state.last_outcome}")
    if told["refused_changes"]:
        lines.append(
            f"{told['refused_changes']} changes were refused by the server and are kept: take those registers again."
        )
    if state.unreadable:
        lines.append(f"{state.unreadable} rows of the log cannot be read; they are kept.")
    lines += dict.fromkeys(
        _NOTICES.get(slug, slug + ": {detail}").format(detail=detail)
        for slug, detail, _ in state.notices
        if slug not in _QUIET
    )
    return lines


def step_lines(device: Device) -> list[str]:
    """One line with the steps, one with what waits."""
    steps = device.state.step_counts()
    line = (
        f"Registers: {steps[Step.SAVED]} saved here, {steps[Step.SENT]} sent, {steps[Step.CONFIRMED]} confirmed, "
        f"{steps[Step.NEEDS_REVIEW]} need review"
    )
    pending = device.state.pending
    return [line, f"Waiting to be sent: {pending}. They are safe on this device." if pending else "Nothing waits."]


def synced(done: SyncReport) -> dict[str, Any]:
    """What a sync did."""
    told: dict[str, Any] = {
        "outcome": done.outcome,
        "requests": done.requests,
        "frames_sent": done.frames,
        "bytes_up": done.bytes_up,
        "bytes_down": done.bytes_down,
        "receipts": done.changes,
        "pulled_changes": done.pulled,
        "settled_registers": done.settled,
        "wanted_again": done.wanted,
        "unreadable_items": done.unreadable,
        "retry_in_ms": done.wait_ms or None,
    }
    if done.error is not None:
        told |= {"error": done.error.code, **explain(done.error)}
    return told


def synced_lines(done: SyncReport) -> list[str]:
    """`synced` for a person."""
    lines: list[str] = []
    if done.error is not None:
        lines += explain(done.error).values()
        if done.wait_ms:
            lines.append(f"A good time to try again: in {max(1, round(done.wait_ms / 1000))} s.")
    sent = {word: count for word, count in done.changes.items() if count}
    if sent:
        lines.append("The server answered for: " + ", ".join(f"{count} {word}" for word, count in sent.items()))
    if done.pulled:
        lines.append(f"Changes made elsewhere that came: {done.pulled}.")
    if done.wanted:
        lines.append(f"The server asked again for {done.wanted} changes and got them.")
    return lines or ["In step with the server."]


def taken(done: Taken) -> dict[str, Any]:
    """What taking a register did."""
    return {
        "register": str(done.register),
        "marked": len(done.plan.by_name) + len(done.plan.rest),
        "by_name": len(done.plan.by_name),
        "in_bulk": len(done.plan.rest),
        "unchanged": done.plan.unchanged,
        "counts": dict(done.counts),
    }


def taken_lines(device: Device, done: Taken) -> list[str]:
    """`taken` for a person."""
    said = ", ".join(f"{count} {word.replace('_', ' ')}" for word, count in done.counts.items())
    marked = len(done.plan.by_name) + len(done.plan.rest)
    calendar = device.cache.calendar()
    closed = dict(calendar.closed).get(done.register.date) if calendar else None
    lines = [f"{done.register}: {said}.", f"{marked} marks saved on this device; {done.plan.unchanged} stood already."]
    if closed is not None:
        lines.append(f"The calendar calls {done.register.date} closed ({closed}): the register is kept all the same.")
    return lines


def registers(device: Device) -> list[dict[str, Any]]:
    """Every register with marks, newest day first."""
    found = sorted(device.state.registers.values(), key=lambda r: (_date(r), r.register), reverse=True)
    return [
        {
            "register": f"{device.journal.enrolment.school}/{register.register}",
            "step": register.step.value,
            "ours": register.is_ours,
            "counts": counts(register.values()),
            "disputed": sorted(key for key, values in register.values().items() if len(values) > 1),
            "slugs": sorted({entry.slug for entry in register.entries.values() if entry.slug}),
            "unsealed_taps": len(register.taps),
        }
        for register in found
        if register.step is not None
    ]


def register_lines(device: Device) -> list[str]:
    """`registers` for a person."""
    lines = []
    for told in registers(device):
        said = ", ".join(f"{count} {word.replace('_', ' ')}" for word, count in told["counts"].items())
        more = "".join(f" [{slug}]" for slug in told["slugs"])
        disputed = f"; authors disagree on {', '.join(told['disputed'])}" if told["disputed"] else ""
        origin = "" if told["ours"] else " (taken elsewhere)"
        lines.append(f"{told['register']}: {told['step'].replace('_', ' ')}{more}{origin}; {said}{disputed}")
    return lines or ["No register yet."]


def classes(device: Device, class_id: str | None = None) -> list[dict[str, Any]]:
    """Classes; with their pupils when one is named."""
    found = []
    for item in device.cache.classes():
        roster = device.cache.roster(item.id)
        told: dict[str, Any] = {"id": item.id, "name": item.name, "grade": item.grade, "pupils": len(roster)}
        if class_id == item.id:
            told["roster"] = [{"id": pupil, "name": name} for pupil, name in roster]
        if class_id in (None, item.id):
            found.append(told)
    return found


def class_lines(device: Device, class_id: str | None = None) -> list[str]:
    """`classes` for a person."""
    lines = []
    for told in classes(device, class_id):
        lines.append(f"{told['id']}  {told['name']}  {told['pupils']} pupils")
        lines += [f"  {pupil['id']}  {pupil['name']}" for pupil in told.get("roster", [])]
    return lines or ["No class yet; run `sync`."]


def handed_in(results: Sequence[BundleResult]) -> dict[str, Any]:
    """What bundles brought, added up."""
    return {
        "ok": not any(result.refused for result in results),
        "frames": sum(result.frames for result in results),
        "durable": sum(result.durable for result in results),
        "duplicate": sum(result.duplicate for result in results),
        "held": sum(result.held for result in results),
        "refused": sum(result.refused for result in results),
        "devices": [
            {"device": name.hex(), "user_id": user, "registers": registers_, "changes_new": new}
            for result in results
            for name, user, registers_, new in result.devices
        ],
    }


def handed_in_lines(results: Sequence[BundleResult]) -> list[str]:
    """`handed_in` for a person."""
    told = handed_in(results)
    if not told["frames"]:
        return ["Nothing in it that the server has not answered."]
    line = f"Handed in: frames {told['frames']}; changes: {told['durable']} new, {told['duplicate']} known already"
    people = [f"  {d['user_id']}: {d['registers']} registers, new changes: {d['changes_new']}" for d in told["devices"]]
    return [f"{line}, {told['held']} held for a person, {told['refused']} refused.", *people]


def rescued(found: Rescue) -> dict[str, Any]:
    """What a phone's log holds that only the phone itself can send."""
    enrolment = found.state.enrolment
    return {
        "log": {
            "rows": found.state.rows,
            "unreadable_rows": found.state.unreadable,
            "school": enrolment.school if enrolment else None,
            "user_id": enrolment.user_id if enrolment else None,
            "device": enrolment.device.hex() if enrolment else None,
            "pending": found.state.pending,
        },
        "unsigned_changes": [
            {"register": register, "hash": change.hash.hex(), "marks": len(change.ops)}
            for register, change in found.unframed
        ],
        "unsealed_taps": [
            {"register": register, "key": key, "value": value} for register, key, value in found.unsealed
        ],
    }


def rescued_lines(found: Rescue) -> list[str]:
    """`rescued` for a person."""
    lines = []
    if found.unframed or found.unsealed:
        lines.append("Only the phone itself can sign these; open the app on it, or take the register again:")
    lines += [f"  {register}: a change with {len(change.ops)} marks" for register, change in found.unframed]
    lines += [f"  {register}: {key} = {value}" for register, key, value in found.unsealed]
    if found.state.unreadable:
        lines.append(f"{found.state.unreadable} rows of that log cannot be read.")
    return lines


def _date(register: RegisterState) -> str:
    return register.register.split("/")[1] if register.register.count("/") == 2 else ""


def _instant(device: Device, at_ms: int | None) -> str:
    if at_ms is None:
        return "never"
    offsets = device.offsets()
    minutes = local_ms(offsets, at_ms) // 60_000 % 1_440
    return f"{civil_date(offsets, at_ms)} {minutes // 60:02d}:{minutes % 60:02d}"
