"""The feed after several restores: no two begin at one place, and each mark says which log it continues."""

from __future__ import annotations

from pathlib import Path

from syncserver.feed import RESTORED
from tests.support.devices import absent
from tests.support.restored import School, talk


async def test_restores_of_one_backup_begin_at_different_places_and_name_the_epoch_they_continue(
    tmp_path: Path,
) -> None:
    """A backup that itself holds the mark of a restore is put in place twice. A consumer that has read the second mark
    sees that the third does not continue it, and reads again (found by the state machine and the simulator).
    """
    school = School(tmp_path)
    async with school.served() as world:
        phone = await school.join(world, "a")
        phone.take(absent("s001"))
        await talk(world, phone)
    await school.backup("first.db")
    first = (await school.restore("first.db")).raised
    await school.backup("second.db")
    second = (await school.restore("second.db")).raised
    third = (await school.restore("second.db")).raised
    assert first.feed_from < second.feed_from < third.feed_from
    async with school.served() as world:
        marks = [event["data"] for event in await world.events() if event["type"] == RESTORED]
    assert [(mark["epoch"], mark["continues"]) for mark in marks] == [(first.epoch, 1), (third.epoch, first.epoch)]
    assert second.epoch not in {mark["continues"] for mark in marks}
