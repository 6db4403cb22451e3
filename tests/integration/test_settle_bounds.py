"""Settle under one hostile or broken phone: bounded work for its register, and nobody else waits for it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

import pytest

from clientcore.change import Change, Op, actor_of, deflate, encode
from clientcore.register import RegisterId
from reconciliation.plain import settle_changes
from syncserver import settle as settle_module
from syncserver import settling, sight
from syncserver.settling import CHANGES_PER_REGISTER_MAX, OPERATIONS_PER_REGISTER_MAX
from syncserver.store.registers import outcome_of
from syncserver.store.surroundings import contexts_of
from tests.support.server.world import SCHOOL, TODAY, Phone, World, open_world

T = TypeVar("T")
REGISTER = f"c-3a/{TODAY}/day"
FRAME_CHANGES = 60


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    """A server whose consumer is moved by hand."""
    async with open_world(tmp_path / "store.db", background=False) as opened:
        yield opened


@dataclass(slots=True)
class Counted:
    """Counts the runs of the pure middle, and how many changes each had."""

    sizes: list[int] = field(default_factory=list)


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> Counted:
    """The settle stage with its pure middle counted."""
    found, real = Counted(), settling.settle

    def settle(task: Any, stored: Sequence[Any], **more: Any) -> Any:
        found.sizes.append(len(stored))
        return real(task, stored, **more)

    monkeypatch.setattr(sight, "settle", settle)
    return found


@dataclass(slots=True)
class Gate:
    """Slow work that takes until the test says so."""

    entered: asyncio.Event = field(default_factory=asyncio.Event)
    open: asyncio.Event = field(default_factory=asyncio.Event)

    async def run(self, work: Callable[[], T]) -> T:
        """See `Aside`."""
        self.entered.set()
        await self.open.wait()
        return work()


def flood(phone: Phone, count: int, operations: int, *, first: int = 0) -> list[Change]:
    """Changes that have not seen each other: each marks the same pupils, and all stay visible."""
    return [
        encode(
            actor=actor_of(phone.me.device, n.to_bytes(8, "big")),
            seq=1,
            start_op=1,
            time_s=1,
            deps=(),
            ops=[Op(key=f"s{k:03d}", value=f"P{36_000_000 + n}") for k in range(1, operations + 1)],
        )
        for n in range(first, first + count)
    ]


async def pour(phone: Phone, register: str, changes: Sequence[Change]) -> None:
    """Send many changes, some frames in a request."""
    for at in range(0, len(changes), FRAME_CHANGES):
        part = [(register, deflate(change.chunk)) for change in changes[at : at + FRAME_CHANGES]]
        await phone.send([phone.frame(part, ask=False)])


async def slugs(world: World) -> list[tuple[str | None, int]]:
    """How many changes have which slug."""
    found = await world.db.fetch_all("SELECT slug, count(*) FROM settlements GROUP BY slug ORDER BY coalesce(slug, '')")
    return [(row[0], row[1]) for row in found]


async def test_a_register_has_room_for_so_many_operations(world: World, counted: Counted) -> None:
    """Beyond the bound changes are kept and told so; what comes then costs a word each and no settling."""
    phone = await world.phone()
    room = OPERATIONS_PER_REGISTER_MAX // 40
    changes = flood(phone, room + 20, 40)
    await pour(phone, REGISTER, changes)
    await world.settle()
    assert await slugs(world) == [(None, room), ("register-full", 20)]
    stored = await outcome_of(world.db, (SCHOOL, "c-3a", TODAY, "day"))
    assert stored is not None
    assert len(stored.outcome.changes) == room
    counted.sizes.clear()
    late = flood(phone, 1, 1, first=900)[0]
    await phone.sync((REGISTER, late))
    await world.settle()
    assert counted.sizes == []
    await phone.pull()
    assert phone.settled()[late.hash[:8]] == (2, "register-full")
    assert phone.settled()[changes[room].hash[:8]] == (2, "register-full")
    assert {item[2] for item in phone.items("settled")} == {stored.revision}


async def test_a_register_has_room_for_so_many_changes(world: World, counted: Counted) -> None:
    """Small changes are bounded by their number; whoever settles the register reads no more than that."""
    phone = await world.phone()
    await pour(phone, REGISTER, flood(phone, CHANGES_PER_REGISTER_MAX + 30, 1))
    await world.settle()
    assert await slugs(world) == [(None, CHANGES_PER_REGISTER_MAX), ("register-full", 30)]
    assert max(counted.sizes) == CHANGES_PER_REGISTER_MAX
    await world.order("calendar", date=TODAY, reason="storm", reference="decree 1", open=False)
    await world.settle()
    assert await slugs(world) == [("calendar", CHANGES_PER_REGISTER_MAX), ("register-full", 30)]


async def test_large_registers_take_turns_and_ordinary_ones_never_wait(world: World, counted: Counted) -> None:
    """Twenty large registers in front of one teacher's: hers is official after the first round, theirs one a round."""
    bad, good = await world.phone(), await world.phone("t2", seed=2)
    large = [f"c-3b/2026-11-{n:02d}/day" for n in range(1, 21)]
    for n, register in enumerate(large):
        await pour(bad, register, flood(bad, 10, 40, first=100 * n))
    await good.sync((REGISTER, good.take(REGISTER, {"s001": "A"})))
    assert await world.server.settler.round()
    assert [event["data"]["class"] for event in await world.events() if event["data"]["class"] == "c-3a"] == ["c-3a"]
    assert sorted(counted.sizes) == [1, 10]
    text = (await world.http.get("/metrics")).text
    assert "hudur_consumer_lag_offsets 19.0" in text
    rounds = 0
    while await world.server.settler.round():
        rounds += 1
    assert rounds == 19
    assert await world.count("outcomes") == 21
    assert await world.count("settle_again") == 0
    assert "hudur_consumer_lag_offsets 0.0" in (await world.http.get("/metrics")).text


async def test_a_round_is_cut_where_its_work_is_done(
    world: World, counted: Counted, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After so many operations what is settled is committed; the next round goes on where the log was left."""
    monkeypatch.setattr(settle_module, "OPERATIONS_PER_ROUND_MAX", 100)
    phone = await world.phone()
    names = [f"c-3a/{TODAY}/am{n}" for n in range(1, 8)]
    changes = [(name, change) for name, change in zip(names, flood(phone, 7, 40), strict=True)]
    late = flood(phone, 1, 40, first=50)[0]
    await phone.sync(*changes, (names[0], late))
    positions = []
    while await world.server.settler.round():
        row = await world.db.fetch_one("SELECT min(log_offset) FROM consumers")
        assert row is not None
        positions.append(row[0])
    assert positions == [2, 5, 8]
    assert await slugs(world) == [(None, 8)]
    assert len(await world.events()) == 7 * 40
    assert (await world.db.fetch_all("SELECT DISTINCT revision FROM outcomes")) == [(1,)]


async def test_a_push_is_answered_while_a_large_register_is_settled(world: World) -> None:
    """The pure middle of a large register runs aside: the server takes and answers pushes meanwhile."""
    bad, good = await world.phone(), await world.phone("t2", seed=2)
    await world.settle()
    gate = Gate()
    await pour(bad, REGISTER, flood(bad, 20, 40))
    for settler in world.server.settler.held.values():
        settler._ports = replace(settler._ports, aside=gate)
    settling = asyncio.create_task(world.server.settler.round())
    await gate.entered.wait()
    other = f"c-3b/{TODAY}/day"
    answer = await good.sync((other, good.take(other, {"s001": "P"})))
    assert [len(verdicts) for verdicts in answer.answer.receipts] == [1]
    assert not settling.done()
    gate.open.set()
    assert await settling


async def test_a_poison_among_many_is_found_by_halves_and_told_to_its_author(
    world: World, counted: Counted, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One of 120 new changes breaks us: a handful of tries, the others settle, and its phone shows *needs review*."""
    phone = await world.phone()
    changes = flood(phone, 120, 2)
    poison = changes[77]
    real = settle_changes

    def breaks(register: RegisterId, some: Sequence[Change], *rest: Any) -> Any:
        if any(change.hash == poison.hash for change in some):
            raise RecursionError("poison")
        return real(register, some, *rest)

    monkeypatch.setattr(settling, "settle_changes", breaks)
    await pour(phone, REGISTER, changes)
    await world.settle()
    assert len(counted.sizes) <= 2 + 2 * (120).bit_length()
    assert await world.db.fetch_all("SELECT log_offset, code FROM dead_letters") == [(78, "poison")]
    assert await slugs(world) == [(None, 119), ("poison", 1)]
    await phone.pull()
    assert phone.settled()[poison.hash[:8]] == (2, "poison")
    assert {state for state, _ in phone.settled().values()} == {1, 2}

    other = await world.phone("t2", seed=2)
    assert poison.hash not in {change.hash for change in other.changes[REGISTER]}

    monkeypatch.setattr(settling, "settle_changes", real)
    await world.order("dlq-requeue", all=True, reason="mended")
    await world.settle()
    await phone.pull()
    assert phone.settled()[poison.hash[:8]] == (1, None)
    await other.pull()
    assert poison.hash in {change.hash for change in other.changes[REGISTER]}


async def test_a_change_nobody_can_place_is_told_to_its_author_too(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When not even the surroundings of a register can be read, the word is the same, and the offset goes on."""
    phone = await world.phone()
    change = phone.take(REGISTER, {"s001": "P"})

    async def breaks(*_: object) -> Any:
        raise ValueError("no context")

    monkeypatch.setattr(sight, "contexts_of", breaks)
    await phone.sync((REGISTER, change))
    await world.settle()
    await phone.pull()
    assert phone.settled()[change.hash[:8]] == (2, "poison")


async def test_an_order_nobody_can_carry_out_becomes_a_dead_letter_and_the_outcome_stands(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Settling again cannot even look: the cause is told, the official register stays, and it can be put back."""
    phone = await world.phone()
    await phone.sync((REGISTER, phone.take(REGISTER, {"s001": "P"})))
    await world.settle()
    before = await world.events()
    async with world.db.transaction() as tx:
        await tx.execute("INSERT INTO settle_again (school, cause, at_ms) VALUES (?, 'test', 1)", (SCHOOL,))

    async def breaks(*_: object) -> Any:
        raise ValueError("no context")

    real = contexts_of
    monkeypatch.setattr(sight, "contexts_of", breaks)
    await world.settle()
    assert await world.count("settle_again") == 0
    assert await world.db.fetch_all("SELECT log_offset, code, requeued FROM dead_letters") == [(1, "unsettled", 0)]
    assert await world.events() == before
    await phone.pull()
    assert {state for state, _ in phone.settled().values()} == {1}

    monkeypatch.setattr(sight, "contexts_of", real)
    await world.order("dlq-requeue", all=True, reason="mended")
    await world.settle()
    assert await world.db.fetch_all("SELECT requeued FROM dead_letters WHERE requeued = 0") == []
    assert await world.events() == before
    assert await outcome_of(world.db, (SCHOOL, "c-3a", TODAY, "day")) is not None
