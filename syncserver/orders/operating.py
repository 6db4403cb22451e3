"""Orders that keep a server running: codes, devices, dead letters, roster imports, backups."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from syncserver.access import ApiRole, Args, Desk, Order, every_school, named_school, number, refusal, roles, text
from syncserver.calendar import calendar_of, local_date
from syncserver.enrol import check_code, make_code
from syncserver.errors import RequestProblem
from syncserver.roster import import_zip
from syncserver.store import audit, champion
from syncserver.store.meta import read_numbers, write_numbers
from syncserver.store.port import Reader, Row

_DIRECTIVE = ("id", "level", "state")


async def _person(reader: Reader, args: Args) -> tuple[str, str]:
    """School and id of the one member of staff that `user` names: an id, or `SCHOOL/ID` where several schools have it.

    Raises:
        RequestProblem: `not-found`.
    """
    name = text(args, "user")
    school, user_id = name.rpartition("/")[::2]
    rows = await reader.fetch_all(
        """SELECT school FROM users WHERE id = ? AND (school = ? OR ? = '') AND active = 1 AND role <> 'pupil'""",
        (user_id, school, school),
    )
    if len(rows) != 1:
        found = "nobody" if not rows else "people in several schools, say SCHOOL/ID"
        raise RequestProblem("not-found", f"{name}: {found}")
    return rows[0][0], user_id


async def about_person(reader: Reader, args: Args) -> str | None:
    """The school of the person in `user`."""
    return (await _person(reader, args))[0]


async def about_target(reader: Reader, args: Args) -> str | None:
    """The school in `target`, or that of its device."""
    target = text(args, "target")
    if await reader.fetch_one("SELECT 1 FROM schools WHERE school = ?", (target,)):
        return target
    row = await reader.fetch_one("SELECT school FROM devices WHERE id = ?", (await _target(reader, target),))
    assert row is not None
    return str(row[0])


async def _target(reader: Reader, target: str) -> bytes:
    rows = await reader.fetch_all("SELECT id FROM devices WHERE revoked_ms IS NULL")
    found: list[bytes] = [row[0] for row in rows if len(target) >= 4 and row[0].hex().startswith(target.lower())]
    if len(found) != 1:
        raise RequestProblem("not-found", f"{target}: neither a school nor one living device")
    return found[0]


async def about_device(reader: Reader, args: Args) -> str | None:
    """The school of the device in `device`."""
    row = await reader.fetch_one("SELECT school FROM devices WHERE id = ?", (_device(args),))
    if row is None:
        raise RequestProblem("not-found", f"{args['device']}: no such device")
    return str(row[0])


def _device(args: Args) -> bytes:
    try:
        return bytes.fromhex(text(args, "device"))
    except ValueError:
        raise RequestProblem("bad-request", "the device is 32 hex digits") from None


async def order_code(desk: Desk, args: Args, _: bytes) -> dict[str, Any]:
    """`user`: an id, or `SCHOOL/ID` where several schools have it."""
    school, user_id = await _person(desk.db, args)
    row = await desk.db.fetch_one("SELECT role FROM users WHERE school = ? AND id = ?", (school, user_id))
    check_code(desk.who.user_id, user_id, "" if row is None else row[0])
    code, expires_ms = await make_code(desk.db, desk.ports, school=school, user_id=user_id, made_by=desk.who.actor)
    shown = f"{code[:3]}-{code[3:7]}-{code[7:]}"
    return {"school": school, "user": user_id, "code": code, "shown": shown, "expires_ms": expires_ms,
            "link": f"/#e={school}.{code}"}  # fmt: skip


async def order_resync(desk: Desk, args: Args, _: bytes) -> dict[str, Any]:
    """`target`: a school, or the first hex digits of a device id; `level`; `reason`."""
    target, level, reason = text(args, "target"), text(args, "level"), text(args, "reason")
    if level not in champion.LEVELS:
        raise RequestProblem("bad-request", f"the level is one of {', '.join(champion.LEVELS)}")
    if await desk.db.fetch_one("SELECT 1 FROM schools WHERE school = ?", (target,)):
        devices, subject = await champion.living_devices(desk.db, target), target
    else:
        devices = [await _target(desk.db, target)]
        subject = devices[0].hex()
    ids = await champion.order_resync(
        desk.db, devices=devices, level=level, reason=reason, actor=desk.who.actor, subject=subject, now_ms=desk.now_ms
    )
    return {"directives": ids, "devices": [device.hex() for device in devices], "level": level}


async def order_devices(desk: Desk, args: Args, _: bytes) -> dict[str, Any]:
    """`school`."""
    school = text(args, "school")
    rows = await champion.devices_of(
        desk.db,
        school,
        now_ms=desk.now_ms,
        zone=desk.config.zone,
        calendar=await calendar_of(desk.db, school, desk.config.zone, local_date(desk.now_ms, desk.config.zone).year),
    )
    return {
        "devices": [
            {
                "device": one.device.hex(),
                "user": one.user_id,
                "role": one.role,
                "label": one.label,
                "classes": list(one.classes),
                "last_contact_ms": one.last_contact_ms,
                "school_days_silent": one.school_days_silent,
                "unsent": one.unsent,
                "clock_offset_ms": one.clock_offset_ms,
                "app": one.app,
                "state": one.state,
                "short_number": one.short_number,
                "directive": None if one.directive is None else dict(zip(_DIRECTIVE, one.directive, strict=True)),
            }
            for one in rows
        ]
    }  # fmt: skip


async def order_revoke(desk: Desk, args: Args, _: bytes) -> dict[str, Any]:
    """`device` (hex), `reason`: what comes from it is kept and held from now on. `undo` takes it back."""
    name, reason, undo = text(args, "device"), text(args, "reason"), args.get("undo") is True
    device = _device(args)
    async with desk.db.transaction() as tx:
        row = await tx.fetch_one("SELECT school, user_id, revoked_ms FROM devices WHERE id = ?", (device,))
        if row is None:
            raise RequestProblem("not-found", f"{name}: no such device")
        if undo and desk.who.user_id == row[1]:
            raise refusal(
                "own-work",
                "what your own device sent is not released by you",
                arabic="اعتماد العمل الخاص بالجهاز نفسه لا يكون من صاحبه",
                who="another champion of the school, or operator",
            )
        # Revoked again, it stays revoked since the first time: a later moment would release what came in between.
        revoked_ms = None if undo else row[2] if row[2] is not None else desk.now_ms
        await tx.execute("UPDATE devices SET revoked_ms = ? WHERE id = ?", (revoked_ms, device))
        await tx.execute(
            """INSERT INTO settle_again (school, class_id, date, session, cause, at_ms)
            SELECT DISTINCT c.school, c.class_id, c.date, c.session, 'revoke', CAST(? AS INTEGER) FROM settlements s
            JOIN changes c ON c.log_offset = s.log_offset WHERE s.device = ?""",
            (desk.now_ms, device),
        )
        await audit.record(
            tx,
            at_ms=desk.now_ms,
            actor=desk.who.actor,
            action="unrevoke" if undo else "revoke",
            subject=device.hex(),
            reason=reason,
            before={"revoked_ms": row[2]},
            after={"revoked_ms": revoked_ms},
        )
    return {"device": name, "school": row[0], "user": row[1], "revoked": not undo}


async def order_requeue(desk: Desk, args: Args, _: bytes) -> dict[str, Any]:
    """`id` of a dead letter, `cause` (its code) for all of a kind, or `all` true: settle their registers again."""
    which, params = _letters_meant(args)
    async with desk.db.transaction() as tx:
        rows = await tx.fetch_all(
            f"SELECT id, school, class_id, date, session FROM dead_letters WHERE requeued = 0 AND {which}", params
        )
        if params and not rows:
            raise RequestProblem("not-found", f"{params[0]}: no such dead letter waits")
        await tx.execute(f"UPDATE dead_letters SET requeued = 1 WHERE requeued = 0 AND {which}", params)
        await tx.executemany(
            """INSERT INTO settle_again (school, class_id, date, session, cause, at_ms)
            VALUES (?, ?, ?, ?, 'requeue', ?)""",
            [(*key, desk.now_ms) for key in sorted({tuple(row[1:]) for row in rows})],
        )
        await audit.record(
            tx, at_ms=desk.now_ms, actor=desk.who.actor, action="requeue",
            subject=",".join(str(row[0]) for row in rows), reason=str(args.get("reason") or ""),
        )  # fmt: skip
    return {"requeued": [row[0] for row in rows]}


def _letters_meant(args: Args) -> tuple[str, tuple[int | str, ...]]:
    if args.get("all") is True:
        return "1 = 1", ()
    if args.get("cause") is not None:
        return "code = ?", (text(args, "cause", chars_max=40),)
    return "id = ?", (number(args, "id"),)


async def order_dead_letters(desk: Desk, _: Args, __: bytes) -> dict[str, Any]:
    """No arguments: dead letters by cause, how many and since when; the most first."""
    rows = await desk.db.fetch_all(
        """SELECT code, count(*), min(at_ms), count(DISTINCT school) FROM dead_letters WHERE requeued = 0
        GROUP BY code ORDER BY 2 DESC, 1"""
    )
    names = ("cause", "letters", "oldest_ms", "schools")
    return {"causes": [dict(zip(names, row, strict=True)) for row in rows]}


async def order_roster_import(desk: Desk, args: Args, data: bytes) -> dict[str, Any]:
    """The zip is the body; `dry_run`, `allow_mass_ending`."""
    return await import_zip(
        desk.db,
        data,
        dry_run=args.get("dry_run") is True,
        now_ms=desk.now_ms,
        on=local_date(desk.now_ms, desk.config.zone).isoformat(),
        actor=desk.who.actor,
        allow_mass_ending=args.get("allow_mass_ending") is True,
    )


async def order_archive(desk: Desk, args: Args, _: bytes) -> dict[str, Any]:
    """`epoch`, `log_offset`, `backup` (SHA-256 of the file), `reason`: a restored copy of the backup was verified."""
    epoch, offset = args.get("epoch"), args.get("log_offset")
    backup, reason = text(args, "backup"), str(args.get("reason") or "")
    if type(epoch) is not int or type(offset) is not int:
        raise RequestProblem("bad-request", "epoch and log_offset are numbers")
    async with desk.db.transaction() as tx:
        numbers = await read_numbers(tx)
        row = await tx.fetch_one("SELECT coalesce(max(log_offset), 0) FROM consumers")
        if numbers.get("epoch") != epoch or row is None or not 0 <= offset <= row[0]:
            raise RequestProblem("bad-request", "the backup is not of this log, or this log is behind it")
        before = numbers.get("archived", 0)
        if offset > before:
            await write_numbers(tx, archived=offset)
            await audit.record(
                tx, at_ms=desk.now_ms, actor=desk.who.actor, action="archive", subject=f"log/{offset}", reason=reason,
                before={"archived": before}, after={"archived": offset, "backup": backup},
            )  # fmt: skip
    return {"archived": max(before, offset)}


_KEEPERS = roles()
_HELPERS = roles(ApiRole.CHAMPION)  # who helps the others of a school
_LOOKERS = roles(ApiRole.CHAMPION, ApiRole.DISTRICT, ApiRole.CENTRAL, ApiRole.AUDITOR)
ORDERS: Mapping[str, Order] = {
    "code": Order(run=order_code, roles=_HELPERS, about=about_person),
    "resync": Order(run=order_resync, roles=_HELPERS, about=about_target),
    "devices": Order(run=order_devices, roles=_LOOKERS, about=named_school),
    "revoke": Order(run=order_revoke, roles=_HELPERS, about=about_device),
    "dlq-causes": Order(run=order_dead_letters, roles=roles(ApiRole.AUDITOR), about=every_school),
    "dlq-requeue": Order(run=order_requeue, roles=_KEEPERS, about=every_school),
    "roster-import": Order(run=order_roster_import, roles=_KEEPERS, about=every_school),
    "archive": Order(run=order_archive, roles=_KEEPERS, about=every_school),
}


def dead_letter(row: Row) -> dict[str, Any]:
    """A dead letter as plain data; see `DEAD_LETTERS`."""
    names = ("id", "log_offset", "register", "code", "detail", "at_ms", "requeued")
    return dict(zip(names, (row[0], row[1], "/".join(row[2:6]), *row[6:9]), strict=True))


DEAD_LETTERS = """SELECT id, log_offset, school, class_id, date, session, code, detail, at_ms, requeued
FROM dead_letters"""
