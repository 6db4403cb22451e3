"""A roster from the school system, through the same door as a file: whole or not at all, dry runs, the same report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from syncserver.calendar import local_date
from syncserver.config import Config
from syncserver.roster import import_zip
from syncserver.store import upstream as rows
from syncserver.store.port import Database
from syncserver.upstream.port import ContractBroken, Pulled, Upstream
from syncserver.upstream.tables import ENDPOINT_OF

VANISHED = "field-vanished"
CONTRACT = "contract"
_BROKEN_AR = "ردّ نظام المدرسة مخالف للمتفق عليه: لم يُستورد شيء، ويلزم إبلاغ مسؤولي النظام."
_VANISHED_AR = "حقل كان موجودًا في الاستيراد السابق اختفى: لم يُستورد شيء، ويلزم إبلاغ مسؤولي النظام."


async def pull(
    db: Database,
    config: Config,
    upstream: Upstream,
    *,
    dry_run: bool,
    now_ms: int,
    actor: str,
    allow_mass_ending: bool = False,
    allow_vanished: bool = False,
) -> dict[str, Any]:
    """Bring the roster in; the report is that of `roster.import_zip`, with endpoints for files.

    Its `state` may also be `contract`: an answer that was not as agreed; nothing was applied.

    Args:
        db: The store.
        config: For the schools' zone.
        upstream: The school system.
        dry_run: Compare only.
        now_ms: Server time.
        actor: Who asked.
        allow_mass_ending: As for a file.
        allow_vanished: Apply although a field we use, filled before, is empty everywhere.

    Raises:
        UpstreamSilent: it did not answer; nothing was applied.
    """
    try:
        pulled = await upstream.roster()
    except ContractBroken as broken:
        return _refused(dry_run, [_fault(broken)])
    known = await rows.last_pull(db)
    gone = [] if allow_vanished or known is None else vanished(known["fields"], pulled.fields)
    if gone:
        return _refused(dry_run, gone)
    report = await import_zip(
        db,
        pulled.archive,
        dry_run=dry_run,
        now_ms=now_ms,
        on=local_date(now_ms, config.zone).isoformat(),
        actor=actor,
        allow_mass_ending=allow_mass_ending,
    )
    told = _told(report, pulled)
    if not dry_run:
        async with db.transaction() as tx:
            await rows.write_pull(
                tx, at_ms=now_ms, made_by=actor, state=report["state"], digest=report["digest"], fields=pulled.fields,
                dropped=pulled.dropped,
            )  # fmt: skip
    return told


def vanished(before: Mapping[str, Sequence[str]], now: Mapping[str, Sequence[str]]) -> list[dict[str, Any]]:
    """Fields we use that were filled somewhere at the last import and nowhere now: renamed, most likely.

    A field that may be empty cannot be missed in one object. Missing in all, names would lose a part in silence.
    """
    return [
        {
            "file": endpoint, "line": 0, "column": name, "code": VANISHED, "detail": "",
            "en": f"{endpoint}: expected {name}, which was filled at the last import, found it nowhere: renamed?",
            "ar": _VANISHED_AR,
        }
        for endpoint, names in sorted(before.items())
        for name in sorted(set(names) - set(now.get(endpoint, ())))
    ]  # fmt: skip


def _fault(broken: ContractBroken) -> dict[str, Any]:
    return {
        "file": broken.endpoint, "line": 0, "column": broken.field, "code": broken.code,
        "detail": f"expected {broken.expected}, found {broken.found}", "en": broken.detail, "ar": _BROKEN_AR,
    }  # fmt: skip


def _refused(dry_run: bool, errors: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "state": CONTRACT, "applied": False, "dry_run": dry_run, "digest": "", "read": {}, "counts": None,
        "versions_risen": 0, "mass_ending": {}, "dropped": {"columns": {}, "rows": {}, "files": {}},
        "errors_found": len(errors), "errors": errors,
    }  # fmt: skip


def _told(report: dict[str, Any], pulled: Pulled) -> dict[str, Any]:
    """The report in the words of endpoints; `line` is the row of the zip it came to."""
    dropped = report["dropped"]
    return {
        **report,
        "dropped": {**dropped, "columns": {**dropped["columns"], **pulled.dropped}},
        "errors": [{**one, "file": ENDPOINT_OF.get(one["file"], one["file"])} for one in report["errors"]],
    }
