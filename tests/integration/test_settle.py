"""Settle: outcomes that depend on the set only, dead letters that delay nobody, and work that is done again."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from clientcore.change import Change, Op, actor_of, encode
from clientcore.exchange import write_sync
from clientcore.register import RegisterId
from reconciliation.plain import settle_changes
from syncserver import settle as settle_module
from syncserver import settling, sight
from syncserver.feed import read_page
from syncserver.store.audit import row_hash
from syncserver.store.registers import outcome_of
from tests.support.server.world import PUPILS, SCHOOL, TODAY, World, open_world

REGISTER = f"c-3a/{TODAY}/day"
KEY = (SCHOOL, "c-3a", TODAY, "day")


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    """A server whose consumer is moved by hand."""
    async with open_world(tmp_path / "store.db", background=False) as opened:
        yield opened


async def body_of(world: World, key: tuple[str, str, str, str] = KEY) -> dict[str, object]:
    """A register's outcome as plain data."""
    stored = await outcome_of(world.db, key)
    assert stored is not None
    found: dict[str, object] = json.loads(stored.body)
    return found


@pytest.mark.parametrize("first_to_sync", [0, 1])
async def test_two_phones_that_disagree_give_one_outcome_whoever_syncs_first(
    tmp_path: Path, first_to_sync: int
) -> None:
    """Different for two pupils: both values kept, the dispute is visible, and *absent* never wins over a witness."""
    async with open_world(tmp_path / "store.db", background=False) as world:
        phones = [await world.phone("t1", seed=1), await world.phone("t2", seed=2)]
        marks = dict.fromkeys(PUPILS, "P")
        changes = [
            phones[0].take(REGISTER, {**marks, "s001": "A"}),
            phones[1].take(REGISTER, {**marks, "s002": "A"}),
        ]
        for at in (first_to_sync, 1 - first_to_sync):
            await phones[at].sync((REGISTER, changes[at]))
            await world.settle()
        stored = await outcome_of(world.db, KEY)
        assert stored is not None
        answers = stored.outcome.answers
        assert {pupil for pupil, answer in answers.items() if answer.disputed} == {"s001", "s002"}
        assert all(answer.code is not None and answer.code.value == "P" for answer in answers.values())
        assert all(len(answers[pupil].values) == 2 for pupil in ("s001", "s002"))
        last = {event["subject"]: event["data"] for event in await world.events()}
        assert len(last) == 40
        assert {name.rpartition("/")[2] for name, data in last.items() if data["disputed"]} == {"s001", "s002"}


async def test_settling_in_pieces_equals_settling_at_once(tmp_path: Path) -> None:
    """Incremental outcome = outcome from offset 0 (I4)."""
    async with open_world(tmp_path / "store.db", background=False) as world:
        phone, other = await world.phone(), await world.phone("t2", seed=2)
        for n in range(4):
            author = (phone, other)[n % 2]
            await author.sync((REGISTER, author.take(REGISTER, {f"s{n:03d}": "A", "s010": "PLEA"[n]})))
            await world.settle()
        piecemeal = await body_of(world)
        async with world.db.transaction() as tx:
            for table in ("outcomes", "events", "settlements"):
                await tx.execute(f"DELETE FROM {table}")
            await tx.execute("UPDATE consumers SET log_offset = 0")
        await world.settle()
        assert await body_of(world) == piecemeal


async def test_a_mark_before_its_roster_is_held_and_joins(world: World) -> None:
    """An unknown pupil's mark is no answer until the roster arrives; then it joins by itself, and the phone is told."""
    phone = await world.phone()
    change = phone.take(REGISTER, {"s001": "P", "new1": "A"})
    await phone.sync((REGISTER, change))
    await world.settle()
    assert len(await world.events()) == 1
    await phone.pull()
    assert phone.settled()[change.hash[:8]] == (2, "unknown-pupil")
    async with world.db.transaction() as tx:
        await tx.execute("INSERT INTO users VALUES (?, 'new1', 'جديد', 'pupil', NULL, NULL, 1, NULL)", (SCHOOL,))
        await tx.execute(
            "INSERT INTO members VALUES (?, 'c-3a', 'new1', 'pupil', 1, '2026-09-01', NULL, 99, 1, NULL)", (SCHOOL,)
        )
        await tx.execute("UPDATE classes SET version = 2 WHERE school = ? AND id = 'c-3a'", (SCHOOL,))
        await tx.execute("UPDATE schools SET roster_version = 2 WHERE school = ?", (SCHOOL,))
        await tx.execute(
            "INSERT INTO settle_again (school, class_id, cause, at_ms) VALUES (?, 'c-3a', 'roster-import', ?)",
            (SCHOOL, world.clock.wall_ms()),
        )
    await world.settle()
    events = await world.events()
    assert [event["data"]["code"] for event in events] == ["present", "absent"]
    await phone.pull()
    assert phone.settled()[change.hash[:8]] == (1, None)
    assert len(phone.items("roster")[-2][3]) == 41


async def test_a_poison_change_is_a_dead_letter_and_delays_nobody(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever raises while a change is settled: it waits with its cause; its register and all others go on."""
    phone = await world.phone()
    good, poison = phone.take(REGISTER, {"s001": "P"}), phone.take(REGISTER, {"s002": "A"})
    other = phone.take(f"c-3b/{TODAY}/day", {"s003": "P"})
    await phone.sync((REGISTER, good), (REGISTER, poison), (f"c-3b/{TODAY}/day", other))

    def breaks(register: RegisterId, changes: Sequence[Change], *rest: Any) -> Any:
        if any(change.hash == poison.hash for change in changes):
            raise RecursionError("poison")
        return settle_changes(register, changes, *rest)

    monkeypatch.setattr(settling, "settle_changes", breaks)
    await world.settle()
    letters = await world.db.fetch_all("SELECT log_offset, code, detail FROM dead_letters")
    assert [(row[0], row[1]) for row in letters] == [(2, "poison")]
    assert letters[0][2].startswith("RecursionError at tests.")
    assert [event["data"]["pupil"] for event in await world.events()] == ["s001"]
    assert await outcome_of(world.db, (SCHOOL, "c-3b", TODAY, "day")) is not None
    assert "hudur_dead_letters 1.0" in (await world.http.get("/metrics")).text

    assert await world.order("dlq-requeue", id=1) == {"requeued": [1]}
    await world.settle()
    assert await world.db.fetch_all("SELECT log_offset, requeued FROM dead_letters") == [(2, 0)]

    monkeypatch.setattr(settling, "settle_changes", settle_changes)
    assert [one["cause"] for one in (await world.order("dlq-causes"))["causes"]] == ["poison"]  # type: ignore[attr-defined]
    await world.order("dlq-requeue", cause="poison", reason="mended")
    await world.settle()
    assert sorted(event["data"]["pupil"] for event in await world.events()) == ["s001", "s002"]
    assert await world.db.fetch_all("SELECT requeued FROM dead_letters") == [(1,)]


@pytest.mark.parametrize("day", ["0001-01-01", "0002-02-28", "0900-01-01", "1000-01-01", "9998-01-01", "9999-12-31"])
async def test_a_date_far_away_is_settled_like_any_other(world: World, day: str) -> None:
    """What was told durable never becomes a dead letter for the year it names: it is settled, with a reason to look."""
    phone = await world.phone()
    register = f"c-3a/{day}/day"
    change = phone.take(register, {"s001": "P"})
    await phone.sync((register, change))
    await world.settle()
    assert await world.count("dead_letters") == 0
    assert await outcome_of(world.db, (SCHOOL, "c-3a", day, "day")) is not None
    await phone.pull()
    state, slug = phone.settled()[change.hash[:8]]
    assert (state, slug) in {(2, "future"), (2, "out-of-scope"), (2, "calendar"), (2, "window-closed")}


async def test_an_outcome_that_cannot_be_read_back_stops_only_its_register(world: World) -> None:
    """A damaged row is found in steps of one; the change behind it is a dead letter, the others are settled."""
    phone = await world.phone()
    names = [f"c-3a/{TODAY}/am{n}" for n in (1, 2, 3)]
    await phone.sync(*((name, phone.take(name, {"s001": "P"})) for name in names))
    await world.settle()
    async with world.db.transaction() as tx:
        await tx.execute("UPDATE outcomes SET body = ? WHERE session = 'am2'", (b"damaged",))
    await phone.sync(*((name, phone.take(name, {"s001": "A"})) for name in names))
    await world.settle()
    assert await world.db.fetch_all("SELECT log_offset, session, code FROM dead_letters") == [(5, "am2", "poison")]
    assert [event["data"]["session"] for event in await world.events(after=3)] == ["am1", "am3"]
    world.clock.advance(2_000)  # a partition with nothing to do says so once a second
    await world.settle()
    position = await world.db.fetch_one("SELECT min(log_offset) FROM consumers")
    assert position == (6,)


async def test_an_inconsistent_change_is_a_dead_letter(world: World) -> None:
    """A change that contradicts its own past is stored, set aside with its cause, and shown as needing review."""
    phone = await world.phone()
    lie = encode(
        actor=actor_of(phone.me.device, phone.app_session),
        seq=2,
        start_op=1,
        time_s=1,
        deps=(),
        ops=[Op(key="s001", value="A36000000")],
    )
    await phone.sync((REGISTER, lie))
    await world.settle()
    assert await world.db.fetch_all("SELECT code, detail FROM dead_letters") == [("inconsistent", "seq")]
    assert await world.events() == []
    await phone.pull()
    assert phone.settled()[lie.hash[:8]] == (2, "inconsistent")


async def test_a_change_without_its_past_waits_and_then_joins(world: World) -> None:
    """Missing dependencies: waiting, told so; a dead letter after three days; and still merged when they come."""
    phone = await world.phone()
    first, second = phone.take(REGISTER, {"s001": "P"}), phone.take(REGISTER, {"s001": "L:5"})
    await phone.sync((REGISTER, second))
    await world.settle()
    await phone.pull()
    assert phone.settled()[second.hash[:8]] == (3, "pending")
    await world.server.settler.bury_pending()
    assert await world.count("dead_letters") == 0
    world.clock.advance(3 * 86_400_000 + 1)
    await world.server.settler.bury_pending()
    assert await world.db.fetch_all("SELECT code FROM dead_letters") == [("pending",)]
    await phone.sync((REGISTER, first))
    await world.settle()
    await phone.pull()
    assert phone.settled()[second.hash[:8]][0] != 3
    assert [event["data"]["minutes_late"] for event in await world.events()] == [5]


async def test_two_changes_under_one_name_are_kept_and_never_both_merged(world: World) -> None:
    """Equivocation: the smaller hash is merged, the other is held, and a security event names the device."""
    phone = await world.phone()
    one = phone.take(REGISTER, {"s001": "P"})
    phone.changes[REGISTER].clear()
    two = phone.take(REGISTER, {"s001": "A"})
    await phone.sync((REGISTER, one), (REGISTER, two))
    await world.settle()
    await phone.pull()
    smaller, greater = sorted((one, two), key=lambda change: change.hash)
    assert phone.settled()[smaller.hash[:8]] == (1, None)
    assert phone.settled()[greater.hash[:8]] == (2, "equivocation")
    assert await world.db.fetch_all("SELECT kind FROM security_events") == [("equivocation",)]


async def test_a_calendar_exception_relabels_and_touches_no_mark(world: World) -> None:
    """A day closed afterwards: the answers stay, with a label; opened again, the label goes."""
    phone = await world.phone()
    await phone.sync((REGISTER, phone.take(REGISTER, {"s001": "A"})))
    await world.settle()
    before = await body_of(world)
    await world.order("calendar", date=TODAY, reason="storm", reference="decree 1", open=False)
    await world.settle()
    closed = await body_of(world)
    assert (closed["closed"], closed["labels"]) == ("storm", ["calendar"])
    assert list(closed["answers"]) == list(before["answers"])  # type: ignore[call-overload]
    await phone.pull()
    assert [TODAY, "storm"] in phone.items("calendar")[-1][3]
    await world.order("calendar", date=TODAY, reason="storm_over", reference="decree 2", open=True)
    await world.settle()
    assert await body_of(world) == before


async def test_a_revoked_device_alters_nothing_and_is_released_by_name(world: World) -> None:
    """Held work joins when a named person takes the revocation back; what was there before stays throughout."""
    phone = await world.phone()
    await phone.sync((REGISTER, phone.take(REGISTER, {"s001": "P"})))
    await world.settle()
    world.clock.advance(1_000)
    device = phone.me.device.hex()
    await world.order("revoke", device=device, reason="lost phone")
    world.clock.advance(1_000)
    late = phone.frame([(REGISTER, phone.take(REGISTER, {"s002": "A"}).chunk)])
    assert (await phone.post("/v1/sync", write_sync([late.raw]))).status_code == 403
    await world.settle()
    assert [event["data"]["pupil"] for event in await world.events()] == ["s001"]
    await world.order("revoke", device=device, reason="found again", undo=True)
    await world.settle()
    assert [event["data"]["pupil"] for event in await world.events()] == ["s001", "s002"]


async def test_a_device_revoked_twice_stays_revoked_since_the_first_time(world: World) -> None:
    """What came after the first revocation stays held: a second order must never release it."""
    phone = await world.phone()
    device = phone.me.device.hex()
    await world.order("revoke", device=device, reason="stolen")
    first = await world.db.fetch_one("SELECT revoked_ms FROM devices")
    world.clock.advance(60_000)
    change = phone.take(REGISTER, dict.fromkeys(PUPILS, "A"))
    reply = await phone.post("/v1/sync", write_sync([phone.frame([(REGISTER, change.chunk)]).raw]))
    assert (reply.status_code, reply.json()["held"]) == (403, 1)
    for _ in range(2):
        await world.settle()
        assert await world.db.fetch_all("SELECT state, slug FROM settlements") == [(2, "revoked")]
        assert len((await body_of(world))["held"]) == len(PUPILS)  # type: ignore[arg-type]
        assert await world.events() == []
        world.clock.advance(60_000)
        await world.order("revoke", device=device, reason="stolen, said again")
    assert await world.db.fetch_one("SELECT revoked_ms FROM devices") == first


async def test_the_audit_is_one_chain(world: World) -> None:
    """Each row's hash covers the row before and every field; the head travels in every answer."""
    phone = await world.phone()
    answer = await phone.sync()
    rows = await world.db.fetch_all("SELECT * FROM audit ORDER BY id")
    assert [row[3] for row in rows] == ["code", "enrol"]
    before = bytes(32)
    for row in rows:
        assert row[8] == before
        assert row[9] == row_hash(before, row[:8])
        before = row[9]
    assert answer.answer.head == before[:16]


async def test_a_register_that_is_too_full_holds_the_rest(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond the bound changes are kept and shown as held; those within it are settled."""
    monkeypatch.setattr(settle_module, "CHANGES_PER_REGISTER_MAX", 2)
    monkeypatch.setattr(sight, "LARGE_CHANGES_MIN", 3)
    phone = await world.phone()
    changes = [phone.take(REGISTER, {f"s00{n}": "P"}) for n in (1, 2, 3)]
    await phone.sync(*((REGISTER, change) for change in changes))
    await world.settle()
    await phone.pull()
    assert [phone.settled()[change.hash[:8]] for change in changes] == [(1, None), (1, None), (2, "register-full")]


async def test_what_was_told_reads_the_same_before_and_after_it_is_replaced(world: World) -> None:
    """First events follow from the outcome that stands, later ones are written down: a reader sees no difference."""
    phone = await world.phone()
    first = phone.take(REGISTER, {"s001": "P", "s002": "A"})
    await phone.sync((REGISTER, first))
    await world.settle()
    assert await world.count("events") == 0
    told = (await read_page(world.db, after=0)).to_bytes()
    alone = (await read_page(world.db, after=1, limit=1)).to_bytes()
    later = phone.take(REGISTER, {"s002": "L"})
    await phone.sync((REGISTER, later))
    await world.settle()
    assert await world.count("events") == 2
    again = await read_page(world.db, after=0)
    assert (await read_page(world.db, after=0, limit=2)).to_bytes() == told
    assert (await read_page(world.db, after=1, limit=1)).to_bytes() == alone
    assert [event["type"].rsplit(".", 2)[-2] for event in again.events] == ["recorded", "recorded", "amended"]
    assert [int(event["sequence"]) for event in again.events] == [1, 2, 3]
