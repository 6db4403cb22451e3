"""What a champion is shown and may order: the school's devices, its people, directives."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from clientcore.keys import short_number
from reconciliation.calendar import SchoolCalendar
from syncserver.calendar import local_date, silent_days
from syncserver.store import audit
from syncserver.store.port import Database, Reader, Row
from syncserver.store.roster import staff_of

LEVELS = ("nudge", "repull", "rebuild")
SILENT_DAYS = 2  # school days without contact after which somebody should ask
FLAG_SHOWN_MS = 14 * 86_400_000
_RANK = {"wiped-phone": 0, "restored-copy": 1, "silent": 2, "never": 3, "ok": 4, "revoked": 5}


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceRow:
    """One device as the champion sees it; see docs/protocol.md section 8, `devices`."""

    device: bytes
    user_id: str
    user_name: str
    role: str
    label: str
    classes: tuple[str, ...]
    last_contact_ms: int
    school_days_silent: int
    unsent: int
    clock_offset_ms: int | None
    app: str
    state: str
    directive: tuple[int, str, str] | None
    short_number: str


async def devices_of(
    reader: Reader, school: str, *, now_ms: int, zone: str, calendar: SchoolCalendar
) -> list[DeviceRow]:
    """The devices of a school, those that need somebody first; people are never ranked."""
    today = local_date(now_ms, zone)
    staff = {one.id: one for one in await staff_of(reader, school, today.isoformat())}
    orders: dict[bytes, tuple[int, str, str]] = {}
    for order_id, device, level, delivered, done in await reader.fetch_all(
        """SELECT w.id, w.device, w.level, w.delivered_ms, w.done_ms FROM directives w
        JOIN devices d ON d.id = w.device WHERE d.school = ? ORDER BY w.id""",
        (school,),
    ):
        state = "done" if done is not None else "delivered" if delivered is not None else "waiting"
        orders[device] = (order_id, level, state)
    found = []
    for row in await reader.fetch_all(
        """SELECT id, user_id, label, app, enrolled_ms, revoked_ms, last_contact_ms, unsent, clock_offset_ms,
          flag, flag_ms, public_key FROM devices WHERE school = ?""",
        (school,),
    ):
        person = staff.get(row[1])
        contact_ms = max(row[4], row[6] or 0)
        silent = silent_days(local_date(contact_ms, zone), today, calendar)
        gone = row[5] is not None or person is None or not person.active
        found.append(
            DeviceRow(
                device=row[0],
                user_id=row[1],
                user_name="" if person is None else person.name,
                role="" if person is None else str(person.role),
                label=row[2],
                classes=() if person is None else person.classes,
                last_contact_ms=contact_ms,
                school_days_silent=silent,
                unsent=row[7],
                clock_offset_ms=row[8],
                app=row[3],
                state=_state(row, silent=silent, gone=gone, now_ms=now_ms),
                directive=orders.get(row[0]),
                short_number=short_number(row[11]),
            )
        )
    found.sort(key=lambda one: (_RANK[one.state], -one.school_days_silent, -one.unsent, one.device))
    return found


def _state(row: Row, *, silent: int, gone: bool, now_ms: int) -> str:
    flag, flag_ms = row[9], row[10]
    if gone:
        return "revoked"
    if flag is not None and now_ms - flag_ms < FLAG_SHOWN_MS:
        return str(flag)
    if silent >= SILENT_DAYS:
        return "silent"
    return "never" if row[6] is None else "ok"


async def order_resync(
    db: Database, *, devices: Sequence[bytes], level: str, reason: str, actor: str, subject: str, now_ms: int
) -> list[int]:
    """Give every device a directive; returns their ids, in the order of `devices`."""
    ids = []
    async with db.transaction() as tx:
        last = await tx.fetch_one("SELECT max(id) FROM directives")
        next_id = 1 + ((last[0] if last is not None else None) or 0)
        for device in devices:
            ids.append(next_id)
            await tx.execute(
                "INSERT INTO directives (id, device, level, reason, made_by, made_ms) VALUES (?, ?, ?, ?, ?, ?)",
                (next_id, device, level, reason, actor, now_ms),
            )
            next_id += 1
        await audit.record(
            tx,
            at_ms=now_ms,
            actor=actor,
            action="resync",
            subject=subject,
            reason=reason,
            after={"level": level, "directives": ids, "devices": [device.hex() for device in devices]},
        )
    return ids


async def living_devices(reader: Reader, school: str) -> list[bytes]:
    """Devices of a school that may still talk to us."""
    rows = await reader.fetch_all(
        """SELECT d.id FROM devices d JOIN users u ON u.school = d.school AND u.id = d.user_id
        WHERE d.school = ? AND d.revoked_ms IS NULL AND u.active = 1 ORDER BY d.id""",
        (school,),
    )
    return [row[0] for row in rows]


async def device_counts(reader: Reader, school: str) -> dict[str, int]:
    """Number of devices per person."""
    return dict(
        await reader.fetch_all("SELECT user_id, count(*) FROM devices WHERE school = ? GROUP BY user_id", (school,))
    )
