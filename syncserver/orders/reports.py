"""Orders about reports, printed sheets and exports. Every export leaves an audit row; a report is only read."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping
from datetime import date as Date
from typing import Any

from clientcore.errors import BadInput
from clientcore.register import RegisterId, is_date
from syncserver import portability
from syncserver.access import (
    ApiRole,
    Args,
    Desk,
    Order,
    every_school,
    named_school,
    only,
    roles,
    text,
)
from syncserver.errors import RequestProblem
from syncserver.export import export_json
from syncserver.prove import export_automerge
from syncserver.reports.build import read_wish, report, schools_meant, today_of
from syncserver.reports.codes import STANDARDS, export_codes
from syncserver.reports.sheet import find_sheets, read_sheet, register_meant, write_html
from syncserver.store import audit
from syncserver.store.port import Reader
from syncserver.store.registers import changes_of

_EXPORT_DAYS_MAX = 92  # of a large school some 40 MB of lines, which are made in memory


async def order_report(desk: Desk, args: Args, _: bytes) -> dict[str, Any]:
    """`kind` (class, school, district), `school`, `class`, `district`, `day`, `period` (day, week)."""
    wish = read_wish(text(args, "kind"), args, today_of(desk.now_ms, desk.config.zone))
    return await report(desk.db, wish, zone=desk.config.zone, now_ms=desk.now_ms, who=desk.who)


async def about_report(reader: Reader, args: Args) -> str | None:
    """About the school it names, or the first one of its district: `report` itself checks them all."""
    if args.get("school"):
        return text(args, "school")
    _, schools = await schools_meant(reader, read_wish("district", args, "2000-01-01"))
    return schools[0]


async def order_sheet(desk: Desk, args: Args, _: bytes) -> dict[str, Any]:
    """`register`: school/class, or school/class/date/session. Gives `html`, to be printed."""
    register = await register_meant(desk.db, text(args, "register"), today_of(desk.now_ms, desk.config.zone))
    sheet = await read_sheet(desk.db, register)
    html = write_html(sheet).decode()
    return {"register": str(register), "code": sheet.code, "pupils": len(sheet.pupils), "html": html}


async def about_sheet(_: Reader, args: Args) -> str | None:
    """About the school before the first slash."""
    return text(args, "register").partition("/")[0]


async def order_sheet_find(desk: Desk, args: Args, _: bytes) -> dict[str, Any]:
    """`school`, `code`: the registers whose printed sheet has this code."""
    school, code = text(args, "school"), text(args, "code", chars_max=20)
    found = await find_sheets(desk.db, school, code, today_of(desk.now_ms, desk.config.zone), desk.ports.aside)
    return {"school": school, "registers": [str(register) for register in found]}


async def order_export_codes(desk: Desk, args: Args, _: bytes) -> dict[str, Any]:
    """`school`, `standard` (edfi, ceds), `from`, `to`: the official answers as JSON Lines in `lines`."""
    school, standard, first, last = (text(args, name) for name in ("school", "standard", "from", "to"))
    if standard not in STANDARDS or not is_date(first) or not is_date(last) or last < first:
        raise RequestProblem("bad-request", "the standard is edfi or ceds; from and to are dates, in this order")
    if (Date.fromisoformat(last) - Date.fromisoformat(first)).days >= _EXPORT_DAYS_MAX:
        raise RequestProblem("bad-request", f"at most {_EXPORT_DAYS_MAX} days at once: a term in two files")
    done = await export_codes(desk.db, school, first, last, standard)
    async with desk.db.transaction() as tx:
        audit_id = await audit.record(
            tx, at_ms=desk.now_ms, actor=desk.who.actor, action=f"export-{standard}", subject=school, reason="",
            after={"from": first, "to": last, "registers": done.registers, "answers": done.answers,
                   "disputed": done.disputed, "sha256": hashlib.sha256(done.data).hexdigest()},
        )  # fmt: skip
    return {"school": school, "standard": standard, "registers": done.registers, "answers": done.answers,
            "disputed": done.disputed, "audit": audit_id, "lines": done.data.decode()}  # fmt: skip


async def order_export_register(desk: Desk, args: Args, _: bytes) -> dict[str, Any]:
    """`register`, `format` (json, automerge): every mark ever made, or the document; base64 in `data`."""
    try:
        register = RegisterId.parse(text(args, "register"))
    except BadInput as error:
        raise RequestProblem("bad-request", error.detail) from None
    form = args.get("format", "json")
    if form not in ("json", "automerge"):
        raise RequestProblem("bad-request", "the format is json or automerge")
    key = (register.school, register.class_id, register.date, register.session)
    stored = await changes_of(desk.db, key, 1 << 53)
    if not stored:
        raise RequestProblem("not-found", f"{register}: not taken. Nothing has arrived for this register.")
    if form == "json":
        data = export_json(str(register), stored)
    else:
        data = await desk.ports.aside.run(lambda: export_automerge([one.chunk for one in stored]))
    digest = hashlib.sha256(data).hexdigest()
    async with desk.db.transaction() as tx:
        audit_id = await audit.record(
            tx, at_ms=desk.now_ms, actor=desk.who.actor, action="export-register", subject=str(register), reason="",
            after={"format": form, "changes": len(stored), "sha256": digest},
        )  # fmt: skip
    return {"register": str(register), "format": form, "sha256": digest, "audit": audit_id,
            "data": base64.b64encode(data).decode()}  # fmt: skip


async def order_export_school(desk: Desk, args: Args, _: bytes) -> dict[str, Any]:
    """`school`, `reason`: everything of a school as one zip, base64 in `zip`."""
    school, reason = text(args, "school"), text(args, "reason")
    async with desk.db.transaction() as tx:  # one moment of the store; nothing is written here
        rows = await portability.read_school(tx, school)
    made = await desk.ports.aside.run(lambda: portability.pack_school(rows))
    digest = hashlib.sha256(made.data).hexdigest()
    async with desk.db.transaction() as tx:
        audit_id = await audit.record(
            tx, at_ms=desk.now_ms, actor=desk.who.actor, action="export-school", subject=school, reason=reason,
            after={"sha256": digest, "files": len(made.manifest["files"]), "log": made.manifest["digests"]["log"]},
        )  # fmt: skip
    return {"school": school, "sha256": digest, "manifest": made.manifest, "audit": audit_id,
            "zip": base64.b64encode(made.data).decode()}  # fmt: skip


async def order_import_school(desk: Desk, args: Args, data: bytes) -> dict[str, Any]:
    """The zip is the body; `reason`. Only into a store without schools; what it says is settled anew afterwards."""
    reason = text(args, "reason")
    try:
        taken = await desk.ports.aside.run(lambda: portability.unpack_school(data))
    except BadInput as wrong:
        raise RequestProblem("bad-request", wrong.detail) from None
    async with desk.db.transaction() as tx:
        await portability.check_empty(tx)
        audit_id = await audit.record(
            tx, at_ms=desk.now_ms, actor=desk.who.actor, action="import-school", subject=taken.school, reason=reason,
            after={"sha256": hashlib.sha256(data).hexdigest(), "digests": taken.manifest["digests"],
                   "counts": taken.manifest["counts"]},
        )  # fmt: skip
        await portability.write_school(tx, taken, audit_id=audit_id, now_ms=desk.now_ms)
    return {"school": taken.school, "manifest": taken.manifest, "audit": audit_id}


_READERS = roles(ApiRole.CHAMPION, ApiRole.DISTRICT, ApiRole.CENTRAL, ApiRole.AUDITOR)
ORDERS: Mapping[str, Order] = {
    "export-codes": Order(
        run=order_export_codes, roles=roles(ApiRole.CONSUMER, ApiRole.CENTRAL, ApiRole.AUDITOR), about=named_school
    ),
    "export-register": Order(
        run=order_export_register, roles=roles(ApiRole.CENTRAL, ApiRole.AUDITOR), about=about_sheet
    ),
    "export-school": Order(run=order_export_school, roles=roles(ApiRole.CENTRAL), about=named_school),
    "import-school": Order(run=order_import_school, roles=only(ApiRole.OPERATOR), about=every_school),
    "report": Order(run=order_report, roles=_READERS, about=about_report),
    "sheet": Order(run=order_sheet, roles=roles(ApiRole.TEACHER, ApiRole.CHAMPION), about=about_sheet),
    "sheet-find": Order(run=order_sheet_find, roles=roles(ApiRole.CHAMPION), about=named_school),
}
