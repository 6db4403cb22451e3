"""The fold: any prefix of any log, never too optimistic."""

from __future__ import annotations

import asyncio
import hashlib
import random
from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from clientcore.change import parse
from clientcore.errors import TransportError
from clientcore.exchange import REFUSED, read_signed_part
from clientcore.fold import DeviceState, fold
from clientcore.frame import Frame
from clientcore.log import Row
from clientcore.ports import HttpReply, ManualClock
from clientcore.states import CONFIRMED, Step
from clientcore.wire import pack, unpack
from tests.support.devices import absent, enrolled, memory_phone
from tests.support.fake_server import PUPILS, FakeServer, offline

KINDS = [
    "enrol",
    "start",
    "tap",
    "change",
    "pulled",
    "frame",
    "receipt",
    "settled",
    "roster",
    "calendar",
    "directive",
    "clock",
    "attempt",
    "notice",
    "other",
]
DATES = ("2026-11-22", "2026-11-23", "2026-11-24")


def lose_answer(path: str, body: bytes, reply: HttpReply) -> HttpReply:
    raise TransportError("timeout", "the answer was lost")


def refuse(_frame: Frame, _at: int) -> str | None:
    return "bad-mark"


async def lived(seed: int) -> list[Row]:
    """The log of a device that had a random life: takes, lost answers, no network, refusals, a restore."""
    chance = random.Random(seed)
    clock = ManualClock()
    server = FakeServer(clock, seed=seed)
    phone = await enrolled(memory_phone(server, clock, seed=seed))
    backup = dict(server.stored)
    for _ in range(chance.randrange(3, 12)):
        act = chance.randrange(8)
        server.before, server.after = FakeServer.before, FakeServer.after
        server.settles = chance.random() < 0.7
        server.refuse = FakeServer.refuse if chance.random() < 0.9 else refuse
        if act < 3:
            wishes = absent(*chance.sample([pupil for pupil, _ in PUPILS], chance.randrange(4)))
            phone.take(wishes, date=chance.choice(DATES))
        elif act == 3:
            journal, register = phone.device.journal, phone.register(chance.choice(DATES))
            key = chance.choice(PUPILS)[0]
            value = f"P{journal.capture_ms(register, phone.device.offsets())}" if chance.random() < 0.6 else None
            journal.tap(register, [(key, value)])
        elif act == 4:
            server.before = offline
            await phone.sync()
        elif act == 5:
            server.after = lose_answer
            await phone.sync()
        elif act == 6:
            server.restore(backup)
        else:
            backup = dict(server.stored)
            await phone.sync()
    rows = phone.log._db.execute("SELECT seq, kind, register, at_ms, body FROM log ORDER BY seq").fetchall()
    phone.close()
    return [Row(seq=s, kind=k, register=r, at_ms=a, body=b) for s, k, r, a, b in rows]


def unsent_by_hand(rows: list[Row]) -> set[str]:
    """Registers with a tap or change for which no receipt followed its last frame, computed without the fold."""
    waiting: dict[str, set[bytes]] = {}
    where: dict[bytes, str] = {}
    frames: dict[bytes, list[bytes]] = {}
    taps: dict[str, dict[str, int]] = {}
    for row in rows:
        body = unpack(row.body, bytes_max=70_000)
        if row.kind == "tap":
            count = taps.setdefault(row.register or "", {})
            count[body[0]] = max(0, count.get(body[0], 0) + (1 if body[1] is not None else -1))
        elif row.kind == "change":
            change = parse(body[0])
            where[change.hash[:8]] = row.register or ""
            waiting.setdefault(row.register or "", set()).add(change.hash[:8])
            for op in change.ops:
                taps.get(row.register or "", {}).pop(op.key, None)
        elif row.kind == "frame":
            frames[hashlib.sha256(body[2][:-64]).digest()[:16]] = body[1]
            for name in body[1]:
                waiting[where[name]].add(name)
        elif row.kind == "receipt":
            for name, verdicts in zip(body[2], read_signed_part(body[0])[0].receipts, strict=True):
                assert not isinstance(verdicts, str)
                for change_name, verdict in zip(frames[name], verdicts, strict=True):
                    if verdict.kind != REFUSED:
                        waiting[where[change_name]].discard(change_name)
    return {name for name, found in waiting.items() if found} | {n for n, c in taps.items() if any(c.values())}


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32))
def test_pending_is_exactly_the_work_without_a_receipt_at_every_row(seed: int) -> None:
    """I9, after every prefix of a lived log: no register with unsent work is ever missing from `pending`."""
    rows = asyncio.run(lived(seed))
    state = DeviceState()
    for count, row in enumerate(rows, 1):
        state.apply(row)
        assert state.pending_registers == unsent_by_hand(rows[:count])
    assert state.unreadable == 0
    assert state.unknown == 0


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32))
def test_confirmed_needs_a_settled_row_for_every_change(seed: int) -> None:
    """Without its `settled` rows the same log confirms nothing; with them, only what they name."""
    rows = asyncio.run(lived(seed))
    bare = fold(row for row in rows if row.kind != "settled")
    assert bare.step_counts()[Step.CONFIRMED] == bare.step_counts()[Step.NEEDS_REVIEW] == 0
    state = fold(rows)
    for register in state.registers.values():
        if register.step is Step.CONFIRMED:
            assert all(entry.settled == CONFIRMED and entry.is_sent for entry in register.entries.values())
    assert sum(state.step_counts().values()) == sum(register.is_ours for register in state.registers.values())


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32), st.integers(0, 10_000))
def test_an_answer_confirms_only_if_it_was_received(seed: int, cut: int) -> None:
    """A log without one of its receipts never has fewer pending registers than with it."""
    rows = asyncio.run(lived(seed))
    receipts = [at for at, row in enumerate(rows) if row.kind == "receipt"]
    if not receipts:
        return
    gone = receipts[cut % len(receipts)]
    assert fold(rows[:gone] + rows[gone + 1 :]).pending_registers >= fold(rows).pending_registers


junk = st.one_of(
    st.binary(max_size=60),
    st.recursive(
        st.none() | st.booleans() | st.integers(-(2**53) + 1, 2**53 - 1) | st.text(max_size=8) | st.binary(max_size=70),
        lambda inner: st.lists(inner, max_size=5),
        max_leaves=10,
    ).map(pack),
)


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(KINDS), st.none() | st.text(max_size=5), junk), max_size=12))
def test_hostile_rows_fold_without_an_error(rows: list[tuple[str, str | None, bytes]]) -> None:
    """Whatever stands in a log, it is counted and never raised; steps and values can still be asked for."""
    state = fold(Row(seq=n, kind=k, register=r, at_ms=0, body=b) for n, (k, r, b) in enumerate(rows, 1))
    assert state.rows == len(rows)
    for register in state.registers.values():
        register.values()
    assert sum(state.step_counts().values()) <= len(state.registers)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32), st.integers(0, 10_000), st.binary(min_size=1, max_size=40))
def test_a_damaged_row_never_hides_unsent_work(seed: int, at: int, noise: bytes) -> None:
    """A tap or change whose bytes fell over keeps its register pending, and everything else still folds."""
    rows = asyncio.run(lived(seed))
    work = [n for n, row in enumerate(rows) if row.kind in ("tap", "change")]
    if not work:
        return
    hit = work[at % len(work)]
    broken = replace(rows[hit], body=b"\xc1" + noise)
    state = fold([*rows[:hit], broken, *rows[hit + 1 :]])
    assert state.unreadable >= 1
    assert broken.register in state.pending_registers


def test_undo_takes_back_the_last_unsealed_tap_only() -> None:
    """A nil tap leaves the tap before it, and nothing when there was one."""

    def tap(seq: int, value: str | None) -> Row:
        return Row(seq=seq, kind="tap", register="c/2026-11-22/day", at_ms=0, body=pack(["s1", value, 5]))

    assert fold([tap(1, "P1"), tap(2, "A2"), tap(3, None)]).registers["c/2026-11-22/day"].values() == {"s1": ("P1",)}
    state = fold([tap(1, "P1"), tap(2, None), tap(3, None)])
    assert state.pending == 0
    assert state.registers["c/2026-11-22/day"].step is None


def test_a_directive_is_reported_done_only_when_all_before_it_are() -> None:
    """The server reads `done` as "up to": a nudge carried out must not close the rebuild asked for before it."""
    steps = ((7, "rebuild", "new"), (8, "nudge", "new"), (8, "nudge", "done"), (7, "rebuild", "done"))
    rows = [
        Row(seq=at, kind="directive", register=None, at_ms=1, body=pack([number, level, "why", word]))
        for at, (number, level, word) in enumerate(steps, 1)
    ]
    assert fold(rows[:3]).done_directive == 0
    assert fold(rows).done_directive == 8
