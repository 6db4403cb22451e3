"""Pull and resync: what a device lacks, in rounds; directives in three strengths; unsent work always kept."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from clientcore.change import parse
from clientcore.exchange import Verdict, write_payload
from clientcore.wire import unpack
from syncserver import pull as pull_module
from syncserver.cursor import Cursor
from tests.support.server.world import PUPILS, SCHOOL, TODAY, Phone, World, open_world, sqlite_only

REGISTER = f"c-3a/{TODAY}/day"


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    """A server whose consumer is moved by hand."""
    async with open_world(tmp_path / "store.db", background=False) as opened:
        yield opened


async def result(phone: Phone, command: str, *args: object) -> object:
    """The result of a call that must succeed."""
    reply = await phone.call(command, *args)  # type: ignore[arg-type]
    assert reply.status_code == 200, reply.text
    return unpack(unpack(reply.content, bytes_max=200_000)[3], bytes_max=100_000)


async def test_an_enrolment_brings_classes_rosters_and_calendar(world: World) -> None:
    """The first payload has all classes, every roster in roll order, the zone's offsets and the closed dates."""
    phone = await world.phone()
    assert phone.items("classes") == [("classes", [["c-3a", "٣/أ", "3"], ["c-3b", "٣/ب", "3"]])]
    rosters = {item[1]: item[3] for item in phone.items("roster")}
    assert [row[0] for row in rosters["c-3a"]] == list(PUPILS)
    assert rosters["c-3b"] == []
    _, _, offsets, closed, sessions = phone.items("calendar")[0]
    assert sessions == ["day"]
    assert ["2026-11-20", "weekend"] in closed
    assert [TODAY, "weekend"] not in closed
    at = max(entry for entry in offsets if entry[0] <= world.clock.wall_ms())
    assert at[1] == 7_200
    await phone.sync()
    assert phone.payloads[-1].items == ()


async def test_others_changes_come_plain_and_only_of_the_devices_classes(world: World) -> None:
    """A colleague's change of a shared class arrives as a type 1 chunk with its author; another class's does not."""
    one, two = await world.phone("t1", seed=1), await world.phone("t2", seed=2)
    shared = one.take(REGISTER, dict.fromkeys(PUPILS, "P"))
    own = one.take(f"c-3b/{TODAY}/day", {"s001": "P"})
    await one.sync((REGISTER, shared), (f"c-3b/{TODAY}/day", own))
    await two.pull()
    assert two.items("change") == []  # nothing unsettled is shown to anybody
    await world.settle()
    await two.pull()
    assert [(item[1], item[2], parse(item[3]).hash) for item in two.items("change")] == [(REGISTER, "t1", shared.hash)]
    assert two.items("change")[0][3][8] == 1
    await two.pull()
    assert len(two.items("change")) == 1
    answer = two.take(REGISTER, {"s001": "A"})
    await two.sync((REGISTER, answer))
    await world.settle()
    await two.pull()
    assert two.settled() == {answer.hash[:8]: (1, None)}


async def test_held_work_is_shown_to_nobody_else(world: World) -> None:
    """A change out of its author's scope never reaches another phone."""
    outsider, teacher = await world.phone("t2", seed=2), await world.phone("t1", seed=1)
    change = outsider.take(f"c-3b/{TODAY}/day", {"s001": "A"})
    await outsider.sync((f"c-3b/{TODAY}/day", change))
    await world.settle()
    await outsider.pull()
    await teacher.pull()
    assert outsider.settled()[change.hash[:8]] == (2, "out-of-scope")
    assert teacher.items("change") == []


async def test_rounds_are_bounded_and_complete(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """A payload never exceeds its bound, `more` asks for the next round, and nothing is left out or told twice."""
    monkeypatch.setattr(pull_module, "_BUDGET_BYTES", 4_000)
    one = await world.phone("t1", seed=1)
    changes = {}
    for n in range(1, 21):
        name = f"c-3a/2026-11-{n:02d}/day"
        change = changes[name] = one.take(name, dict.fromkeys(PUPILS, "P"))
        await one.sync((name, change))
    await world.settle()
    two = await world.phone("t2", seed=2)
    while two.payloads[-1].more:
        await two.sync()
    assert len(two.payloads) > 3
    assert {item[1] for item in two.items("change")} == set(changes)
    assert len(two.items("change")) == len(changes)
    assert len(two.items("roster")) == 1
    await one.pull()
    assert len(one.settled()) == len(changes)


async def test_only_recent_registers_come_unless_a_rebuild_asks(world: World) -> None:
    """An old register is not pulled by a new phone; a rebuild takes it, and leaves out what the phone holds."""
    one = await world.phone("t1", seed=1)
    old, new = one.take("c-3a/2026-10-04/day", {"s001": "P"}), one.take(REGISTER, {"s001": "P"})
    await one.sync(("c-3a/2026-10-04/day", old), (REGISTER, new))
    await world.settle()
    two = await world.phone("t2", seed=2)
    assert [item[1] for item in two.items("change")] == [REGISTER]
    two.cursor = None
    await two.sync(have=new.hash[:8] + b"unknown!")
    assert [item[1] for item in two.items("change")] == [REGISTER, "c-3a/2026-10-04/day"]
    assert two.items("want")[-1] == ("want", b"unknown!")


@sqlite_only
async def test_a_pull_is_answered_in_place_however_far_the_others_are_and_a_rebuild_is_not(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a country's morning hundred thousands of registers lie between two contacts of a phone; few are its own."""
    asked: list[str] = []

    def counted(name: str) -> None:
        real = getattr(world.db, name)

        async def ask(work: object) -> object:
            asked.append(name)
            return await real(work)

        monkeypatch.setattr(world.db, name, ask)

    one, two = await world.phone("t1", seed=1), await world.phone("t2", seed=2)
    await one.sync((REGISTER, one.take(REGISTER, dict.fromkeys(PUPILS, "P"))))
    await world.settle()
    async with world.db.transaction() as tx:
        await tx.execute("UPDATE settled_heads SET seq = seq + 1000000")
    counted("glance")
    counted("snapshot")
    await two.pull()
    assert [item[1] for item in two.items("change")] == [REGISTER]
    assert set(asked) == {"glance"}
    asked.clear()
    two.cursor = None
    await two.sync(have=b"unknown!")
    assert set(asked) == {"snapshot"}


async def test_a_rebuild_restores_what_the_server_lost(world: World) -> None:
    """After a restore from an older copy the device's hash list names what is missing, and it is durable again."""
    phone = await world.phone()
    change = phone.take(REGISTER, {"s001": "A"})
    await phone.sync((REGISTER, change))
    await world.settle()
    async with world.db.transaction() as tx:
        for table in ("frames", "changes", "outcomes", "events", "settlements"):
            await tx.execute(f"DELETE FROM {table}")
        await tx.execute("UPDATE consumers SET log_offset = 0")
    phone.cursor = None
    await phone.sync(have=change.hash[:8])
    assert phone.items("want")[-1] == ("want", change.hash[:8])
    answer = await phone.sync((REGISTER, change))
    assert answer.answer.receipts == ((Verdict(0),),)
    await world.settle()
    assert len(await world.events()) == 1


async def test_a_rebuild_gives_back_the_devices_own_changes_too(world: World) -> None:
    """A phone restored from an old copy lacks some of its own changes: both sides get what the other lacks."""
    phone = await world.phone()
    kept, lost = phone.take(REGISTER, {"s001": "P"}), phone.take(REGISTER, {"s001": "A"})
    await phone.sync((REGISTER, kept), (REGISTER, lost))
    await world.settle()
    phone.cursor = None
    await phone.sync(have=kept.hash[:8])
    assert [(item[1], item[2], parse(item[3]).hash) for item in phone.items("change")] == [(REGISTER, "t1", lost.hash)]
    assert set(phone.settled()) == {kept.hash[:8], lost.hash[:8]}


async def test_a_cursor_is_small(world: World) -> None:
    """It travels both ways with every sync: at most 17 bytes, also late in a term."""
    assert len(Cursor(epoch=9, seq=10_000_000, teaching=1, calendar=1, classes=1).to_bytes()) <= 17
    phone = await world.phone()
    assert len(phone.cursor or b"") <= 14


@pytest.mark.parametrize(
    "cursor",
    [b"", b"\0" * 24, b"\x20" + b"\xff" * 23, b"x" * 32, b"\x20" + bytes(10) + b"\x02\x00\x00", b"\x10" + bytes(10)],
)
async def test_a_cursor_that_cannot_be_read_starts_again(world: World, cursor: bytes) -> None:
    """Foreign or damaged cursors, and those of another epoch, get everything from the beginning."""
    phone = await world.phone()
    phone.cursor = cursor
    await phone.sync()
    assert {item[0] for item in phone.payloads[-1].items} == {"classes", "roster", "calendar"}


@pytest.mark.parametrize("level", ["nudge", "repull", "rebuild"])
async def test_a_forced_resync_is_waiting_then_delivered_then_done(world: World, level: str) -> None:
    """The champion sees each step; the phone gets the reason, repeated until it says that it is done."""
    champion, phone = await world.phone("ch1", seed=1), await world.phone("t1", seed=2)

    async def seen() -> object:
        rows = await result(champion, "devices")
        return next(row[12] for row in rows if row[0] == phone.me.device)  # type: ignore[attr-defined]

    assert await seen() is None
    ids = await result(champion, "resync", phone.me.device, level, "ناقص درس الأحد")
    assert isinstance(ids, list)
    assert await seen() == [*ids, level, "waiting"]
    await phone.sync()
    await phone.sync()
    assert [item[1:4] for item in phone.items("directive")] == [(*ids, level, "ناقص درس الأحد")] * 2
    assert await seen() == [*ids, level, "delivered"]
    phone.done = ids[0]
    await phone.sync()
    assert await seen() == [*ids, level, "done"]
    await phone.sync()
    assert len(phone.items("directive")) == 2
    actions = await world.db.fetch_all("SELECT actor, action, reason FROM audit WHERE action = 'resync'")
    assert actions == [(f"user:{SCHOOL}/ch1", "resync", "ناقص درس الأحد")]


async def test_a_resync_needs_a_reason_a_level_and_ones_own_school(world: World) -> None:
    """Nothing is forced without saying why, and nobody else's device is touched."""
    champion = await world.phone("ch1", seed=1)
    stranger = await world.phone("t1", school="eg-07-200", seed=2)
    for args in ((None, "nudge", " "), (None, "erase", "why"), (champion.me.device, "nudge", "x" * 201)):
        await champion.sync()
        assert (await champion.call("resync", *args)).status_code == 400
    await champion.sync()
    reply = await champion.call("resync", stranger.me.device, "nudge", "why")
    assert reply.json()["type"] == "/problems/forbidden"
    await champion.sync()
    ids = await result(champion, "resync", None, "nudge", "all of you")
    assert len(ids) == 1  # type: ignore[arg-type]


async def test_the_champions_list_says_who_is_silent(world: World) -> None:
    """Silence is counted in school days: a weekend and a closed day are none; the worst stand first."""
    quiet, champion = await world.phone("t1", seed=1), await world.phone("ch1", seed=2)
    await quiet.sync()
    world.clock.advance(7 * 86_400_000)  # Sunday to Sunday: five school days
    await champion.sync()
    rows = await result(champion, "devices")
    assert isinstance(rows, list)
    assert [(row[1], row[7], row[11]) for row in rows] == [("t1", 5, "silent"), ("ch1", 0, "ok")]
    users = await result(champion, "users")
    assert users == [
        ["ch1", "منسقة", "champion", [], 1],
        ["t1", "معلمة أولى", "teacher", ["٣/أ", "٣/ب"], 1],
        ["t2", "معلم ثان", "teacher", ["٣/أ"], 0],
    ]


async def test_a_champions_code_enrols_a_teacher(world: World) -> None:
    """The code works on a new phone; codes for pupils and strangers are not made."""
    champion = await world.phone("ch1", seed=1)
    made = await result(champion, "code", "t2")
    assert isinstance(made, list)
    phone = Phone(http=world.http, clock=world.clock, seed=5)
    enrolled = await phone.enrol(SCHOOL, made[0])
    assert (enrolled.user_id, enrolled.role) == ("t2", "teacher")
    for user_id in ("s001", "nobody"):
        await champion.sync()
        assert (await champion.call("code", user_id)).json()["type"] == "/problems/forbidden"


async def teach(world: World, user_id: str, class_id: str) -> None:
    """Another class for somebody, as an import writes it."""
    async with world.db.transaction() as tx:
        await tx.execute(
            "INSERT INTO members VALUES (?, ?, ?, 'teacher', 1, '2026-09-01', NULL, 0, 1, NULL)",
            (SCHOOL, class_id, user_id),
        )
        await tx.execute("UPDATE schools SET roster_version = roster_version + 1 WHERE school = ?", (SCHOOL,))


@pytest.mark.parametrize("budget", [1_500, pull_module._BUDGET_BYTES])
async def test_a_new_class_brings_what_was_marked_there_before(
    world: World, monkeypatch: pytest.MonkeyPatch, budget: int
) -> None:
    """A cursor that has gone past the class's marks goes back for them, also when the answer takes several rounds."""
    one, two = await world.phone("t1", seed=1), await world.phone("t2", seed=2)
    earlier = one.take(f"c-3b/{TODAY}/day", {"s001": "A"})
    await one.sync((f"c-3b/{TODAY}/day", earlier))
    await world.settle()
    shared = one.take(REGISTER, {"s001": "P"})
    await one.sync((REGISTER, shared))
    await world.settle()
    await two.pull()
    assert set(two.changes) == {REGISTER}
    await teach(world, "t2", "c-3b")
    monkeypatch.setattr(pull_module, "_BUDGET_BYTES", budget)
    await two.pull()
    assert {name: [change.hash for change in known] for name, known in two.changes.items()} == {
        REGISTER: [shared.hash],
        f"c-3b/{TODAY}/day": [earlier.hash],
    }
    told = len(two.items("change"))
    await two.pull()
    assert len(two.items("change")) == told


async def test_a_new_list_of_the_same_classes_brings_no_change_twice(world: World) -> None:
    """Only another class is a reason to walk again: a roster import of a whole term's school must stay cheap."""
    one, two = await world.phone("t1", seed=1), await world.phone("t2", seed=2)
    await one.sync((REGISTER, one.take(REGISTER, {"s001": "P"})))
    await world.settle()
    await two.pull()
    async with world.db.transaction() as tx:
        await tx.execute("UPDATE classes SET version = version + 1 WHERE school = ?", (SCHOOL,))
        await tx.execute("UPDATE schools SET roster_version = roster_version + 1 WHERE school = ?", (SCHOOL,))
    await two.pull()
    assert (len(two.items("roster")), len(two.items("change"))) == (2, 1)


async def test_after_a_rebuild_own_changes_are_not_sent_back(world: World) -> None:
    """A rebuild ends with its walk: the register taken next costs as few bytes down as before."""
    phone = await world.phone()

    async def day(date: str) -> tuple[int, list[str]]:
        """Bytes and kinds of items that a register of that day brings down."""
        change = phone.take(f"c-3a/{date}/day", dict.fromkeys(PUPILS, "P"))
        await phone.sync((f"c-3a/{date}/day", change))
        await world.settle()
        await phone.sync()
        items = phone.payloads[-1].items
        return len(write_payload(phone.payloads[-1])), [str(item[0]) for item in items]

    before = await day("2026-11-18")
    phone.cursor = None
    await phone.sync(have=b"")
    assert len(phone.items("change")) == 1  # the rebuild itself gives back what it has
    after = await day("2026-11-19")
    assert (before[1], after[1]) == (["settled"], ["settled"])
    assert after[0] <= before[0] + 2


async def test_a_rebuild_of_several_rounds_gives_everything_back(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """The walk is not over while more is announced: the last round still brings own changes of any age."""
    phone = await world.phone()
    names = [f"c-3a/2026-10-{n:02d}/day" for n in range(1, 13)]
    for name in names:
        await phone.sync((name, phone.take(name, dict.fromkeys(PUPILS, "P"))))
    await world.settle()
    monkeypatch.setattr(pull_module, "_BUDGET_BYTES", 3_000)
    phone.cursor = None
    await phone.sync(have=b"")
    rounds = 1
    while phone.payloads[-1].more:
        await phone.sync()
        rounds += 1
    assert rounds > 3
    assert [item[1] for item in phone.items("change")] == names


async def test_a_cursor_ahead_of_the_log_starts_again_and_is_reported(world: World) -> None:
    """A copy restored without a new epoch: the phone gets everything, what follows too, and the operator can see it."""
    one, two = await world.phone("t1", seed=1), await world.phone("t2", seed=2)
    change = one.take(REGISTER, {"s001": "A"})
    await one.sync((REGISTER, change))
    await world.settle()
    await two.pull()
    two.changes.clear()
    now = Cursor.read(two.cursor, 1)
    two.cursor = ahead = replace(now, seq=now.seq + 7).to_bytes()
    await two.sync()
    assert [known.hash for known in two.changes[REGISTER]] == [change.hash]
    two.cursor = ahead  # the answer was lost
    await two.sync()
    events = await world.db.fetch_all("SELECT device, kind, detail FROM security_events")
    assert events == [(two.me.device, "cursor-ahead", f"told {now.seq + 7}, head {now.seq}")]
    await two.sync()
    assert two.payloads[-1].items == ()
    later = one.take(REGISTER, {"s002": "P"})
    await one.sync((REGISTER, later))
    await world.settle()
    await two.pull()
    assert [known.hash for known in two.changes[REGISTER]] == [change.hash, later.hash]
    assert await world.count("security_events") == 1
