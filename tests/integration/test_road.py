"""The thin road: enrol, push, durable receipt, settle, events, confirmation."""

from __future__ import annotations

from pathlib import Path

from clientcore.exchange import DUPLICATE, DURABLE, Verdict
from tests.support.server.world import PUPILS, TODAY, open_world

REGISTER = f"c-3a/{TODAY}/day"


async def test_a_register_becomes_forty_events_once(tmp_path: Path) -> None:
    """A register of 40 is durable, then settled, then in the feed exactly once, then confirmed to the phone."""
    async with open_world(tmp_path / "store.db", background=False) as world:
        phone = await world.phone()
        assert [row[0] for row in phone.items("classes")[0][1]] == ["c-3a", "c-3b"]
        marks = {pupil: "A" if pupil in PUPILS[:3] else "P" for pupil in PUPILS}
        change = phone.take(REGISTER, marks)
        answer = (await phone.sync((REGISTER, change))).answer
        assert answer.receipts == ((Verdict(DURABLE),),)
        await world.settle()
        events = await world.events()
        assert len(events) == 40
        assert sum(event["data"]["code"] == "absent" for event in events) == 3
        again = await phone.send([phone.frames[-1]])
        assert again.answer.receipts == ((Verdict(DUPLICATE),),)
        assert again.answer.payload is None
        await phone.pull()
        assert phone.settled() == {change.hash[:8]: (1, None)}
        await world.settle()
        assert len(await world.events()) == 40
