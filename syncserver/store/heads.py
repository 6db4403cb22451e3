"""How far a school's roster, calendar and settlements have come in a store, or in a replica of it."""

from __future__ import annotations

from dataclasses import dataclass

from syncserver.store.port import Reader


@dataclass(frozen=True, slots=True, kw_only=True)
class Heads:
    """Of one school; each as in `store.log.Contact`."""

    roster: int
    calendar: int
    settled: int
    archived: int


async def read_heads(reader: Reader, school: str) -> Heads:
    """What one look at a store shows; zeros for a school that is not in it (yet)."""
    row = await reader.fetch_one(
        """SELECT coalesce((SELECT roster_version FROM schools WHERE school = ?), 0),
          coalesce((SELECT max(x.audit_id) FROM calendar_heads x WHERE x.name IN ('*', ?,
            (SELECT governorate FROM places WHERE school = ?))), 0),
          coalesce((SELECT seq FROM settled_heads WHERE school = ?), 0),
          (SELECT m.value FROM meta m WHERE m.name = 'archived')""",
        (school,) * 4,
    )
    assert row is not None
    return Heads(roster=row[0], calendar=row[1], settled=row[2], archived=int(row[3] or 0))
