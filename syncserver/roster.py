"""A roster import, whole or not at all: read the zip, compare with the store, write the difference in one transaction.

Invariants:

1. One error in the export, and nothing is written.
2. The comparison is made inside the transaction that writes it: no other import can slip in between.
3. A dry run takes the same road and writes nothing.
4. An import that would end more than a third of a school's pupils is refused unless it is asked for by name: that is
   the look of a truncated export, and every phone of the school would lose its list.
"""

from __future__ import annotations

import io
import json
from collections import Counter
from collections.abc import Mapping
from typing import Any

from clientcore.errors import BadInput
from syncserver import oneroster
from syncserver.roster_messages import message
from syncserver.rostermodel import Dropped, Role, RosterImport, RowError
from syncserver.rosterplan import Roster, RosterPlan, plan
from syncserver.store import audit
from syncserver.store.port import Database, Reader
from syncserver.store.roster import load_roster, write_import, write_plan

ENDING_SHARE_MAX = 1 / 3  # a big transfer wave stays far below; a file cut in half does not
ENDING_PUPILS_MIN = 20  # below this a small school would trip over a handful of transfers


async def import_zip(
    db: Database,
    data: bytes,
    *,
    dry_run: bool,
    now_ms: int,
    on: str,
    actor: str = "operator",
    allow_mass_ending: bool = False,
) -> dict[str, Any]:
    """Import a OneRoster zip; the report is ready for JSON and says everything an operator needs (see `report`).

    Args:
        db: The store.
        data: The zip.
        dry_run: Compare only.
        now_ms: Server time.
        on: Civil date of the import at the schools.
        actor: Who asked, for the audit.
        allow_mass_ending: Let invariant 4 pass.
    """
    incoming = oneroster.read(io.BytesIO(data))
    if incoming.errors_found:
        return report(incoming, None, applied=False, dry_run=dry_run)
    if dry_run:
        made = await plan_against(db, incoming, on=on)
        return report(incoming, made, applied=False, dry_run=True, mass_ending=mass_endings(*made))
    async with db.transaction() as tx:
        made = await plan_against(tx, incoming, on=on)
        too_many = {} if allow_mass_ending else mass_endings(*made)
        if too_many:
            return report(incoming, made, applied=False, dry_run=False, mass_ending=too_many)
        await write_plan(tx, made[1], now_ms)
        await audit.record(
            tx,
            at_ms=now_ms,
            actor=actor,
            action="roster-import",
            subject=incoming.digest,
            reason="",
            after=made[1].counts(),
        )
        await write_import(
            tx,
            at_ms=now_ms,
            digest=incoming.digest,
            made_by=actor,
            counts_json=json.dumps(made[1].counts()),
            dropped_json=json.dumps(_dropped(incoming.dropped)),
        )
    return report(incoming, made, applied=True, dry_run=False)


async def plan_against(db: Reader, incoming: RosterImport, *, on: str) -> tuple[Roster, RosterPlan]:
    """What is stored of the schools in question, and what the import would change of it.

    Raises:
        BadInput: `roster-errors` when the import has errors: it cannot be applied in part.
    """
    if incoming.errors_found:
        raise BadInput("roster-errors", f"{incoming.errors_found} errors in the export: mend them and export again")
    current = await load_roster(db, [row.school for row in incoming.orgs])
    return current, plan(current, incoming, today=on)


def mass_endings(current: Roster, made: RosterPlan) -> dict[str, tuple[int, int]]:
    """Schools of which the plan ends suspiciously many pupils: school → (ended, before)."""
    before = Counter(row.school for row in current.users.values() if row.role == Role.PUPIL and not row.ended)
    ended = Counter(row.school for row in made.users.ended if row.role == Role.PUPIL)
    return {
        school: (count, before[school])
        for school, count in sorted(ended.items())
        if count >= ENDING_PUPILS_MIN and count > before[school] * ENDING_SHARE_MAX
    }


def report(
    incoming: RosterImport,
    made: tuple[Roster, RosterPlan] | None,
    *,
    applied: bool,
    dry_run: bool,
    mass_ending: Mapping[str, tuple[int, int]] | None = None,
) -> dict[str, Any]:
    """The import as JSON values.

    `state`: `applied`, `unchanged`, `dry-run`, `errors` or `mass-ending`; `counts`: per table added, changed, ended;
    `read`: rows kept of the export; `dropped`: what stayed outside; `errors`: file, line, column, code, detail, en, ar.
    """
    counts = made[1].counts() if made else None
    if incoming.errors_found:
        state = "errors"
    elif mass_ending and not dry_run:
        state = "mass-ending"
    elif dry_run:
        state = "dry-run"
    else:
        state = "unchanged" if made and made[1].is_empty else "applied"
    return {
        "state": state,
        "applied": applied,
        "digest": incoming.digest,
        "read": {
            "schools": len(incoming.orgs),
            "users": dict(sorted(Counter(row.role.value for row in incoming.users).items())),
            "classes": len(incoming.classes),
            "enrolments": len(incoming.enrolments),
            "terms": len(incoming.terms),
        },
        "counts": counts,
        "versions_risen": len(made[1].versions) if made else 0,
        "mass_ending": {school: list(numbers) for school, numbers in (mass_ending or {}).items()},
        "dropped": _dropped(incoming.dropped),
        "errors_found": incoming.errors_found,
        "errors": [_error(row) for row in incoming.errors],
    }


def _dropped(dropped: Dropped) -> dict[str, dict[str, int]]:
    return {"columns": dict(dropped.columns), "rows": dict(dropped.rows), "files": dict(dropped.files)}


def _error(row: RowError) -> dict[str, Any]:
    english, arabic = message(row.code)
    return {
        "file": row.file,
        "line": row.line,
        "column": row.column,
        "code": row.code,
        "detail": row.detail,
        "en": english,
        "ar": arabic,
    }
