"""Held work: stored, visible, in nobody's answer; let in by a named person who did not make it; upstream endings."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from clientcore.change import Change
from clientcore.exchange import write_sync
from syncserver.roster import import_zip
from syncserver.store.registers import outcome_of
from syncserver.store.roster import end_person
from tests.support.rosters import Export
from tests.support.server.orders import ask, ask_with, give, operator, refused, token
from tests.support.server.world import OTHER_SCHOOL, SCHOOL, TODAY, Phone, World, open_world

CLASS = "c-3a"
REGISTER = f"{CLASS}/{TODAY}/day"
FULL = f"{SCHOOL}/{REGISTER}"
KEY = (SCHOOL, CLASS, TODAY, "day")
HOUR_MS, MINUTE_MS = 3_600_000, 60_000


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    """A server whose consumer is moved by hand; t3 has no class, ch2 is a second champion."""
    async with open_world(tmp_path / "store.db", background=False) as opened:
        async with opened.db.transaction() as tx:
            await tx.executemany(
                "INSERT INTO users VALUES (?, ?, 'شخص', ?, NULL, NULL, 1, NULL)",
                [(SCHOOL, "t3", "teacher"), (SCHOOL, "ch2", "champion")],
            )
        yield opened


async def out_of_scope(world: World, marks: dict[str, str] | None = None) -> Change:
    """t3 marks a class that is not theirs; sent and settled."""
    phone = await world.phone("t3", seed=31)
    change = phone.take(REGISTER, marks or {"s001": "A", "s002": "P"})
    await phone.sync((REGISTER, change))
    await world.settle()
    return change


def this(change: Change, reason: str = "seen by me") -> dict[str, Any]:
    """Arguments that name a change."""
    return {"register": FULL, "change": change.hash.hex(), "reason": reason}


async def codes(world: World) -> dict[str, str]:
    """Pupil to the last code the feed says."""
    return {event["data"]["pupil"]: event["data"]["code"] for event in await world.events()}


async def test_held_work_is_listed_with_its_cause_age_author_and_who_can_open_it(world: World) -> None:
    """By ids; and no answer, no event has anything of it."""
    change = await out_of_scope(world)
    world.clock.advance(2 * HOUR_MS)
    champion = await world.phone("ch1")
    (row,) = (await give(champion, "held", school=SCHOOL))["held"]
    assert (row["register"], row["change"], row["cause"], row["by"]) == (FULL, change.hash.hex(), "out-of-scope", "t3")
    assert row["age_ms"] == 2 * HOUR_MS
    assert set(row["marks"]) == {"s001", "s002"}
    assert row["releasable"]
    assert "champion" in row["who"]
    assert row["ar"]
    stored = await outcome_of(world.db, KEY)
    assert stored is not None
    assert {answer.code for answer in stored.outcome.answers.values()} == {None}
    assert await world.events() == []


async def test_a_release_lets_a_change_count_and_taking_it_back_holds_it(world: World) -> None:
    """By name, with a reason and a trail; the answers carry the label `released`."""
    change, champion = await out_of_scope(world), await world.phone("ch1")
    done = await give(champion, "release", **this(change))
    assert (done["released"], done["by"]) == (True, "t3")
    await world.settle()
    assert await codes(world) == {"s001": "absent", "s002": "present"}
    stored = await outcome_of(world.db, KEY)
    assert stored is not None
    assert stored.outcome.answers["s001"].labels == ("released",)
    assert (await give(champion, "held", school=SCHOOL))["held"] == []
    await give(champion, "release-undo", **this(change, "a mistake"))
    await world.settle()
    assert [event["type"].split(".")[-2] for event in await world.events(after=2)] == ["withdrawn", "withdrawn"]
    assert len((await give(champion, "held", school=SCHOOL))["held"]) == 1
    rows = await world.db.fetch_all("SELECT actor, action, subject, reason FROM audit WHERE action LIKE 'release%'")
    who, what = f"user:{SCHOOL}/ch1", f"{FULL}/{change.hash.hex()}"
    assert rows == [(who, "release", what, "seen by me"), (who, "release-undo", what, "a mistake")]


async def test_released_twice_is_one_decision(world: World) -> None:
    """The answer was lost; the phone asks again."""
    change, champion = await out_of_scope(world), await world.phone("ch1")
    for _ in range(2):
        await give(champion, "release", **this(change))
        await world.settle()
    assert await world.count("decisions") == 1


async def test_the_first_digits_of_a_change_name_it(world: World) -> None:
    """As `hudur held` shows it; too few, or those of another register, do not."""
    change, champion = await out_of_scope(world), await world.phone("ch1")
    short = {**this(change), "change": change.hash.hex()[:16].upper()}
    for wrong, code in (({"change": "abc"}, "bad-request"), ({"change": "z" * 16}, "bad-request"),
                        ({"change": "0" * 64}, "not-found"), ({"register": "x"}, "forbidden"),
                        ({"register": f"{SCHOOL}/x"}, "bad-request"),
                        ({"register": f"{SCHOOL}/c-3b/{TODAY}/day"}, "not-found")):  # fmt: skip
        reply = await ask(champion, "release", **{**short, **wrong})
        assert reply.json()["type"] == f"/problems/{code}", wrong
    assert (await give(champion, "release", **short))["change"] == change.hash.hex()


async def test_nobody_releases_their_own_change(world: World) -> None:
    """A champion who was withdrawn and is back asks another one; the list says so."""
    phone, other = await world.phone("ch1"), await world.phone("ch2", seed=2)
    async with world.db.transaction() as tx:
        await tx.execute("UPDATE users SET from_date = '2026-11-23' WHERE school = ? AND id = 'ch1'", (SCHOOL,))
    change = phone.take(REGISTER, {"s001": "A"})
    frame = phone.frame([(REGISTER, change.chunk)])
    await phone.post("/v1/sync", write_sync([frame.raw]))
    await world.settle()
    world.clock.advance(24 * HOUR_MS)
    assert (await give(phone, "held", school=SCHOOL))["held"][0]["releasable"] is False
    document = await refused(phone, "release", **this(change))
    assert document["rule"] == "own-work"
    assert "another champion" in document["who"]
    assert await world.count("decisions") == 0
    assert (await give(other, "held", school=SCHOOL))["held"][0]["releasable"] is True
    await give(other, "release", **this(change))
    await world.settle()
    assert await codes(world) == {"s001": "absent"}


async def test_what_is_not_held_for_its_author_is_not_released(world: World) -> None:
    """A change that counts, one that was not looked at yet, one held for another cause: each says what helps."""
    teacher, champion = await world.phone("t1"), await world.phone("ch1", seed=2)
    change = teacher.take(REGISTER, {"s001": "P"})
    await teacher.sync((REGISTER, change))
    assert (await refused(champion, "release", **this(change)))["rule"] == "not-settled"
    await world.settle()
    assert (await refused(champion, "release", **this(change)))["rule"] == "not-held"
    stranger = teacher.take(REGISTER, {"x99": "P"})
    await teacher.sync((REGISTER, stranger))
    await world.settle()
    document = await refused(champion, "release", **this(stranger))
    assert (document["rule"], "roster" in document["who"]) == ("not-held", True)
    assert (await ask(champion, "release-undo", **this(change))).json()["type"] == "/problems/not-found"


async def test_what_central_released_only_central_holds_again(world: World) -> None:
    """Levels: the school does not overrule the ministry; the ministry's decision names its token and reference."""
    change, champion = await out_of_scope(world), await world.phone("ch1")
    ministry = await token(world, "ministry", "central")
    reply = await ask_with(world, ministry, "release", **this(change), reference="letter 12")
    assert reply.status_code == 200
    decision = await world.db.fetch_all("SELECT by_id, level, reference FROM decisions")
    assert decision == [("token:ministry", "central", "letter 12")]
    assert (await refused(champion, "release-undo", **this(change)))["rule"] == "central-decision"
    assert (await ask_with(world, ministry, "release-undo", **this(change))).status_code == 200


async def test_a_token_called_like_the_author_is_not_the_author(world: World) -> None:
    """A token's name and a user's id are different things."""
    change = await out_of_scope(world)
    reply = await ask_with(world, await token(world, "t3", "central"), "release", **this(change), reference="letter 3")
    assert reply.status_code == 200
    await world.settle()
    assert "s001" in await codes(world)


async def test_nobody_else_releases(world: World) -> None:
    """Teachers, auditors, districts, the operator: each is told who can."""
    change, teacher = await out_of_scope(world), await world.phone("t1")
    tokens = [await token(world, role, role) for role in ("auditor", "district", "consumer")]
    replies = [await ask_with(world, one, "release", **this(change)) for one in tokens]
    for reply in (await ask(teacher, "release", **this(change)), *replies):
        assert (reply.status_code, reply.json()["rule"]) == (403, "role")
        assert "champion" in reply.json()["who"]
    assert await world.count("decisions") == 0


# ---- upstream endings -------------------------------------------------------------------------------------------


async def made_at_ten_to(world: World) -> tuple[Phone, Phone, Change, bytes]:
    """Two hours before noon: t2's phone, the champion's, and a change made ten minutes ago that was not sent."""
    phone, champion = await world.phone("t2"), await world.phone("ch1", seed=2)
    world.clock.advance(-10 * MINUTE_MS)
    phone.taken = -10  # 9:50
    change = phone.take(REGISTER, {"s001": "A", "s002": "P"})
    frame = phone.frame([(REGISTER, change.chunk)])
    world.clock.advance(10 * MINUTE_MS)
    return phone, champion, change, write_sync([frame.raw])


async def test_ended_at_ten_marked_before_and_sent_at_two(world: World) -> None:
    """Stored and held, told to the phone, seen by the champion, in no answer and no event; released, it counts."""
    phone, champion, change, push = await made_at_ten_to(world)
    async with world.db.transaction() as tx:
        assert await end_person(tx, SCHOOL, "t2", world.clock.wall_ms(), "feed:sis", "contract ended")
    world.clock.advance(4 * HOUR_MS)
    reply = await phone.post("/v1/sync", push)
    assert (reply.status_code, reply.json()["type"], reply.json()["held"]) == (403, "/problems/revoked", 1)
    await world.settle()
    (row,) = (await give(champion, "held", school=SCHOOL))["held"]
    assert (row["change"], row["cause"], row["by"]) == (change.hash.hex(), "revoked", "t2")
    assert await world.events() == []
    stored = await outcome_of(world.db, KEY)
    assert stored is not None
    assert {answer.code for answer in stored.outcome.answers.values()} == {None}
    assert (await phone.call("order", "held", "{}")).json()["type"] == "/problems/revoked"
    await give(champion, "release", **this(change, "I stood beside him"))
    await world.settle()
    assert await codes(world) == {"s001": "absent", "s002": "present"}
    audit = await world.db.fetch_all("SELECT actor, subject, reason FROM audit WHERE action = 'person-end'")
    assert audit == [("feed:sis", f"{SCHOOL}/t2", "contract ended")]


async def test_an_ending_learnt_a_minute_later_takes_back_what_came_in_between(world: World) -> None:
    """From the moment upstream names; what had arrived before stays, colleagues' work as well."""
    phone, colleague = await world.phone("t2"), await world.phone("t1", seed=2)
    early = phone.take(REGISTER, {"s001": "P"})
    await phone.sync((REGISTER, early))
    world.clock.advance(MINUTE_MS)
    ended_ms = world.clock.wall_ms()
    await phone.sync((REGISTER, phone.take(REGISTER, {"s002": "P"})))
    await colleague.sync((REGISTER, colleague.take(REGISTER, {"s003": "P"})))
    await world.settle()
    assert set(await codes(world)) == {"s001", "s002", "s003"}
    world.clock.advance(MINUTE_MS // 2)
    async with world.db.transaction() as tx:
        await end_person(tx, SCHOOL, "t2", ended_ms, "feed:sis", "ended")
    await world.settle()
    last = [(event["data"]["pupil"], event["type"].split(".")[-2]) for event in await world.events(after=3)]
    assert last == [("s002", "withdrawn")]


async def test_an_ending_is_of_staff_and_happens_once(world: World) -> None:
    """Pupils and strangers are not ended here; the same message twice writes nothing."""
    async with world.db.transaction() as tx:
        assert not await end_person(tx, SCHOOL, "s001", world.clock.wall_ms(), "feed:sis", "x")
        assert not await end_person(tx, SCHOOL, "nobody", world.clock.wall_ms(), "feed:sis", "x")
        assert await end_person(tx, SCHOOL, "t1", world.clock.wall_ms(), "feed:sis", "x")
        assert not await end_person(tx, SCHOOL, "t1", world.clock.wall_ms() + 1, "feed:sis", "x")
    assert await world.db.fetch_all("SELECT count(*) FROM audit") == [(1,)]
    other = await world.db.fetch_one("SELECT active FROM users WHERE school = ? AND id = 't1'", (OTHER_SCHOOL,))
    assert other == (1,)


async def test_a_roster_import_ends_a_person_the_same_way(world: World) -> None:
    """The next settle round knows, whichever way it came."""
    export = Export()
    report = await import_zip(world.db, export.zip(), dry_run=False, now_ms=world.clock.wall_ms(), on="2026-11-15")
    assert report["state"] == "applied"
    phone = await world.phone("t1", school="sc1")
    champion = await world.phone("c1", school="sc1", seed=2)
    register = f"k1/{TODAY}/day"
    change = phone.take(register, {"p1": "A"})
    frame = phone.frame([(register, change.chunk)])
    export.row("roles.csv", "r4")["status"] = "tobedeleted"
    await import_zip(world.db, export.zip(), dry_run=False, now_ms=world.clock.wall_ms(), on=TODAY)
    world.clock.advance(4 * HOUR_MS)
    assert (await phone.post("/v1/sync", write_sync([frame.raw]))).status_code == 403
    await world.settle()
    (row,) = (await give(champion, "held", school="sc1"))["held"]
    assert (row["cause"], row["by"]) == ("revoked", "t1")
    await give(champion, "release", register=f"sc1/{register}", change=row["change"], reason="known to me")
    await world.settle()
    assert await codes(world) == {"p1": "absent"}


async def test_an_ended_person_stands_in_for_nobody(world: World) -> None:
    """A delegation does not outlive its holder's employment."""
    teacher, substitute = await world.phone("t1"), await world.phone("t3", seed=2)
    span = {"from": TODAY, "until": TODAY}
    await give(teacher, "delegate", school=SCHOOL, classes=[CLASS], to="t3", reason="ill", **span)
    async with world.db.transaction() as tx:
        await end_person(tx, SCHOOL, "t3", world.clock.wall_ms(), "feed:sis", "ended")
    world.clock.advance(1_000)
    change = substitute.take(REGISTER, {"s001": "A"})
    await substitute.post("/v1/sync", write_sync([substitute.frame([(REGISTER, change.chunk)]).raw]))
    await world.settle()
    assert (await operator(world, "held", school=SCHOOL))["held"][0]["cause"] == "revoked"
    assert await world.events() == []
