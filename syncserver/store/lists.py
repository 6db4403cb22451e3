"""The class list as people see it: on phones and sheets, one row for each pupil, whatever records there are."""

from __future__ import annotations

from syncserver.store.decisions import aliases_of
from syncserver.store.port import Reader
from syncserver.store.roster import roster_of


async def list_of(db: Reader, school: str, class_id: str, on: str) -> list[tuple[str, str]]:
    """Pupil id and display name in roll order, without the rows that were merged into another row of the list."""
    pupils, merged = await roster_of(db, school, class_id, on), await aliases_of(db, school)
    listed = {pupil for pupil, _ in pupils}
    return [one for one in pupils if merged.get(one[0]) not in listed]


async def merges_in(db: Reader, school: str) -> dict[str, int]:
    """Class to the number of times a record of it was merged, or taken back: rises with every change of its list."""
    rows = await db.fetch_all(
        """SELECT class_id, count(*) + count(undone_ms) FROM (
          SELECT DISTINCT a.id, a.undone_ms, m.class_id FROM aliases a
          JOIN members m ON m.school = a.school AND m.user_id = a.alias WHERE a.school = ? AND m.role = 'pupil'
        ) merged GROUP BY class_id""",
        (school,),
    )
    return {row[0]: row[1] for row in rows}
