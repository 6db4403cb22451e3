"""Intake: verdicts, one commit for all who wait, and nothing acknowledged that is not on disk."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import pytest

from clientcore.change import Change, Op, actor_of, deflate, encode
from clientcore.errors import ChangeRefused
from clientcore.exchange import DUPLICATE, DURABLE, REFUSED, Verdict, read_answer, write_sync
from clientcore.frame import write_bundle
from clientcore.ports import ManualClock
from clientcore.wire import unpack
from syncserver import checking, intake
from syncserver.config import Config
from syncserver.store.log import Appended, Push, append
from syncserver.store.port import Transaction
from syncserver.store.sqlite import SqliteDatabase
from tests.support.server.world import PUPILS, TODAY, World, open_world, sqlite_only

REGISTER = f"c-3a/{TODAY}/day"


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    """A server whose consumer stands still."""
    async with open_world(tmp_path / "store.db", background=False) as opened:
        yield opened


async def test_each_change_has_its_own_verdict(world: World) -> None:
    """Refused changes of one frame block none of the good ones; each says why."""
    phone = await world.phone()
    good = phone.take(REGISTER, {"s001": "P"})
    foreign = encode(
        actor=actor_of(bytes(16), bytes(8)), seq=1, start_op=1, time_s=1, deps=(), ops=[Op(key="s001", value="A1")]
    )
    checksum = good.chunk[:4] + bytes(4) + good.chunk[8:]
    unknown_type = good.chunk[:8] + b"\x07" + good.chunk[9:]
    answer = await phone.send(
        [
            phone.frame(
                [
                    (REGISTER, checksum),
                    (REGISTER, deflate(good.chunk)),
                    (REGISTER, foreign.chunk),
                    (REGISTER, b"not a chunk at all"),
                    (REGISTER, unknown_type),
                    ("c-3a/2026-02-30/day", good.chunk),
                    (REGISTER, good.chunk),
                ]
            )
        ]
    )
    assert answer.answer.receipts == (
        (
            Verdict(REFUSED, "chunk-checksum"),
            Verdict(DURABLE),
            Verdict(REFUSED, "actor"),
            Verdict(REFUSED, "chunk-magic"),
            Verdict(REFUSED, "chunk-type"),
            Verdict(REFUSED, "register-mismatch"),
            Verdict(DUPLICATE),
        ),
    )
    assert await world.count("changes") == 1


async def test_a_change_refused_once_is_taken_when_the_rules_are_relaxed(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The frame is known, its change is not: sent again it is durable, points into the known frame, and settles."""
    phone = await world.phone()
    change = phone.take(REGISTER, {"s001": "A"})
    first = phone.frame([("c-3a/2026-11-21/day", phone.take("c-3a/2026-11-21/day", {"s001": "P"}).chunk)])
    await phone.send([first])
    frame = phone.frame([(REGISTER, change.chunk)])

    def refuse(_: bytes) -> Change:
        raise ChangeRefused("profile", "an older rule")

    with monkeypatch.context() as older:
        older.setattr(checking, "parse", refuse)
        assert (await phone.send([frame])).answer.receipts == ((Verdict(REFUSED, "profile"),),)
    assert (await phone.send([frame])).answer.receipts == ((Verdict(DURABLE),),)
    rows = await world.db.fetch_all("SELECT frame_id FROM changes ORDER BY log_offset")
    assert rows == [(1,), (2,)]
    await world.settle()
    assert len(await world.events()) == 2


async def test_the_chunk_is_a_slice_of_the_frame(world: World) -> None:
    """Bytes are stored once: the log points into the frame, and reads back exactly what was sent."""
    phone = await world.phone()
    sent = [deflate(phone.take(f"c-3a/{TODAY}/am{n}", {"s001": "P"}).chunk) for n in (1, 2)]
    await phone.send([phone.frame([(f"c-3a/{TODAY}/am{n}", chunk) for n, chunk in enumerate(sent, 1)])])
    rows = await world.db.fetch_all(
        """SELECT substr(f.body, c.chunk_at, c.chunk_bytes), f.body FROM changes c
        JOIN frames f ON f.id = c.frame_id ORDER BY c.log_offset"""
    )
    assert [row[0] for row in rows] == sent
    assert {row[1] for row in rows} == {phone.frames[-1].raw}


async def test_the_same_bytes_in_two_registers_are_two_changes(world: World) -> None:
    """A change's hash does not cover its register; equal bytes in another register are no duplicate."""
    phone = await world.phone()
    chunk = phone.take(f"c-3a/{TODAY}/am1", {"s001": "A"}).chunk
    frames = [phone.frame([(f"c-3a/{TODAY}/am{n}", chunk)]) for n in (1, 2)]
    answer = await phone.send(frames)
    assert answer.answer.receipts == ((Verdict(DURABLE),), (Verdict(DURABLE),))
    await world.settle()
    assert len(await world.events()) == 2


async def test_requests_that_wait_share_one_commit(world: World) -> None:
    """Thirty pushes at one moment are stored in few commits, and each gets its own receipt."""
    phones = [await world.phone("t1", seed=n) for n in range(1, 31)]
    for phone in phones:
        await phone.sync()  # the server knows who they are: no push waits for a look into the store
    frames = []
    for n, phone in enumerate(phones):
        change = phone.take(f"c-3a/2026-11-{1 + n % 20:02d}/am{1 + n // 20}", {"s001": "P"})
        frames.append(phone.frame([(f"c-3a/2026-11-{1 + n % 20:02d}/am{1 + n // 20}", change.chunk)]))
    before = len(world.points.passed)
    answers = await asyncio.gather(*(phone.send([frame]) for phone, frame in zip(phones, frames, strict=True)))
    assert all(answer.answer.receipts == ((Verdict(DURABLE),),) for answer in answers)
    commits = world.points.passed[before:].count("intake.after_commit")
    assert 1 <= commits <= 5
    assert await world.count("changes") == 30
    rows = await world.db.fetch_all("SELECT log_offset FROM changes ORDER BY log_offset")
    assert [row[0] for row in rows] == list(range(1, 31))


@pytest.fixture
def commits(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many pushes each commit holds, in order."""
    sizes: list[int] = []

    async def counted(tx: Transaction, pushes: Sequence[Push], *, now_ms: int) -> list[Appended]:
        sizes.append(len(pushes))
        return await append(tx, pushes, now_ms=now_ms)

    monkeypatch.setattr(intake, "append", counted)
    return sizes


async def pushes_of(world: World, count: int) -> list[bytes]:
    """Bodies of as many pushes, each with a change, of one phone."""
    return [write_sync([raw]) for raw in await world.frames(REGISTER, count)]


def open_to_many(path: Path, *, inside_max: int = 256) -> AbstractAsyncContextManager[World]:
    """A server where one phone may send as much as it likes."""
    config = Config(store=path, inside_max=inside_max, device_burst=10_000, device_per_minute=10_000)
    return open_world(path, background=False, config=config)


async def test_those_who_are_being_checked_are_waited_for(tmp_path: Path, commits: list[int]) -> None:
    """They come to the writer lot by lot; one commit holds them all."""
    async with open_to_many(tmp_path / "store.db") as world:
        await asyncio.gather(*map(world.server.talk.sync, await pushes_of(world, 100)))
    assert commits == [100]


async def test_the_disk_is_not_kept_waiting_for_more_than_half(tmp_path: Path, commits: list[int]) -> None:
    """Of what may be inside: the other half is checked while the first is written."""
    async with open_to_many(tmp_path / "store.db", inside_max=64) as world:
        await asyncio.gather(*map(world.server.talk.sync, await pushes_of(world, 200)))
    assert 32 <= commits[0] < 100
    assert sum(commits) == 200


async def test_whoever_is_alone_is_written_at_once(
    world: World, commits: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The event loop goes round three times for the sake of others who might come, and no time passes."""
    (body,) = await pushes_of(world, 1)
    waits: list[int] = []
    sleep_ms = ManualClock.sleep_ms

    async def noted(clock: ManualClock, duration_ms: int) -> None:
        waits.append(duration_ms)
        await sleep_ms(clock, duration_ms)

    monkeypatch.setattr(ManualClock, "sleep_ms", noted)
    await world.server.talk.sync(body)
    assert commits == [1]
    assert waits == [0, 0, 0]


async def test_rounds_that_take_time_keep_nobody_waiting(tmp_path: Path, commits: list[int]) -> None:
    """Somebody new in every second round, and each round works for 5 ms: 20 ms are enough."""
    async with open_to_many(tmp_path / "store.db") as world:
        bodies = await pushes_of(world, 40)
        await world.server.talk.sync(bodies.pop())
        pushing = []
        for body in bodies:
            pushing.append(asyncio.ensure_future(world.server.talk.sync(body)))
            for _ in range(2):
                world.clock.advance(5)
                await asyncio.sleep(0)
        await asyncio.gather(*pushing)
    assert sum(commits) == 40
    assert commits[1] <= 6


async def test_the_same_change_in_one_batch_counts_once(world: World) -> None:
    """Two requests with the same frame at the same moment: one durable, one duplicate, one row."""
    phone = await world.phone()
    change = phone.take(REGISTER, {"s001": "P"})
    frame = phone.frame([(REGISTER, change.chunk)])
    answers = await asyncio.gather(phone.send([frame]), phone.send([frame]))
    assert {answer.answer.receipts for answer in answers} == {((Verdict(DURABLE),),), ((Verdict(DUPLICATE),),)}
    assert (await world.count("frames"), await world.count("changes")) == (1, 1)
    assert sum(answer.answer.payload is not None for answer in answers) == 1


async def test_a_replay_yields_receipts_only(world: World) -> None:
    """A frame sent again, by anybody, gets duplicates, no payload, and leaves the device's nonce and clock alone."""
    phone = await world.phone()
    change = phone.take(REGISTER, {"s001": "P"})
    frame = phone.frame([(REGISTER, change.chunk)])
    first = await phone.send([frame])
    assert first.answer.payload is not None
    world.clock.advance(3_600_000)
    before = await world.db.fetch_all("SELECT * FROM devices")
    again = await phone.send([frame])
    assert again.answer.receipts == ((Verdict(DUPLICATE),),)
    assert again.answer.payload is None
    assert again.answer.nonce == first.answer.nonce
    assert await world.db.fetch_all("SELECT * FROM devices") == before
    await phone.sync()
    assert phone.payloads[-1].cursor == phone.cursor


async def test_an_old_nonce_gets_no_payload(world: World) -> None:
    """A pull needs the nonce of the last answer; without it there are receipts and a fresh nonce."""
    phone = await world.phone()
    phone.nonce = bytes(8)
    answer = await phone.sync()
    assert answer.answer.payload is None
    assert (await phone.sync()).answer.payload is not None


async def test_a_number_used_again_is_stored_and_reported(world: World) -> None:
    """A restored copy sends other bytes under a known number: stored, reported, and told where to go on."""
    phone = await world.phone()
    await phone.sync((REGISTER, phone.take(REGISTER, {"s001": "P"})))
    await phone.sync()
    phone.number = 0
    answer = await phone.sync((REGISTER, phone.take(REGISTER, {"s002": "A"}, session=b"restored")))
    assert answer.answer.receipts == ((Verdict(DURABLE),),)
    assert answer.answer.last_number == 2
    assert await world.db.fetch_all("SELECT kind FROM security_events") == [("number-reused",)]
    assert await world.db.fetch_one("SELECT flag FROM devices") == ("restored-copy",)
    phone.number = answer.answer.last_number
    await phone.sync()
    await phone.sync()
    assert [tuple(item) for item in phone.items("notice")] == [("notice", "restored-copy")]


async def test_frames_of_one_number_are_each_known_when_they_come_again(world: World) -> None:
    """The number says where to look, the bytes decide: alone, in another order, and both in one request."""
    phone = await world.phone()
    first = phone.frame([(REGISTER, phone.take(REGISTER, {"s001": "P"}).chunk)])
    phone.number = 0
    other = phone.frame([(REGISTER, phone.take(REGISTER, {"s002": "A"}, session=b"restored").chunk)])
    assert first.number == other.number
    found = [await phone.send(frames) for frames in ([first], [other], [other], [first], [other, first])]
    assert [answer.answer.receipts for answer in found] == [
        ((Verdict(DURABLE),),), ((Verdict(DURABLE),),), *[((Verdict(DUPLICATE),),)] * 2, ((Verdict(DUPLICATE),),) * 2,
    ]  # fmt: skip
    assert await world.count("frames") == 2
    assert await world.db.fetch_all("SELECT kind FROM security_events") == [("number-reused",)]


async def test_a_late_frame_with_a_low_number_is_no_copy(world: World) -> None:
    """Frames may come out of order, e.g. in a bundle after later ones went by HTTP: that is no reuse."""
    phone = await world.phone()
    early = phone.frame([(REGISTER, phone.take(REGISTER, {"s001": "P"}).chunk)], ask=False)
    await phone.sync()
    await phone.send([early])
    assert await world.count("security_events") == 0


@sqlite_only
async def test_after_a_failed_commit_nothing_is_acknowledged_until_the_store_is_verified(tmp_path: Path) -> None:
    """A full disk: everybody waiting gets `storage`, nothing is half stored, and after the reopening the same bytes are
    durable, once.
    """
    async with open_world(tmp_path / "store.db", background=False) as world:
        phones = [await world.phone("t1", seed=n) for n in (1, 2)]
        assert isinstance(world.db, SqliteDatabase)
        assert world.db._writer is not None
        (pages,) = await world.db._writer.fetch_one("PRAGMA page_count") or (0,)
        await world.db._writer.execute(f"PRAGMA max_page_count = {pages}")
        # 16 kB frames: they do not fit the pages that are left
        bodies = []
        for phone in phones:
            changes = [(f"c-3a/2026-11-{n:02d}/day", dict.fromkeys(PUPILS, "P")) for n in range(1, 29)]
            frame = phone.frame([(name, phone.take(name, marks).chunk) for name, marks in changes][:15])
            bodies.append(write_sync([frame.raw]))
        replies = await asyncio.gather(*(p.post("/v1/sync", b) for p, b in zip(phones, bodies, strict=True)))
        assert {reply.status_code for reply in replies} == {503}
        assert {reply.json()["type"] for reply in replies} == {"/problems/storage"}
        assert all(int(reply.headers["retry-after"]) > 0 for reply in replies)
        await world.server.intake.idle()
        assert not world.db.failed
        assert (await world.count("frames"), await world.count("changes")) == (0, 0)
        for phone, body in zip(phones, bodies, strict=True):
            reply = await phone.post("/v1/sync", body)
            answer = read_answer(reply.content, server_key=phone.me.server_key, request=body).answer
            assert answer.receipts == ((Verdict(DURABLE),) * 15,)
        assert await world.count("changes") == 30


async def test_the_same_frame_by_http_by_file_and_twice_has_one_effect(world: World) -> None:
    """However a frame comes, it counts once; a bundle tells the carrier what was new."""
    author, champion = await world.phone(), await world.phone("ch1", seed=2)
    first = author.frame([(REGISTER, author.take(REGISTER, {"s001": "A"}).chunk)], ask=False)
    second = author.frame([(REGISTER, author.take(REGISTER, {"s002": "P"}).chunk)], ask=False)
    await author.send([first])
    forged = second.raw[:-1] + bytes((second.raw[-1] ^ 1,))
    file = write_bundle([first.raw, second.raw, forged, b"x" * 80]) + b"\0\0"
    reply = await champion.call("bundle", file, path="/v1/bundles")
    assert reply.status_code == 200, reply.text
    _, signed, _, payload = unpack(reply.content, bytes_max=10_000)
    assert unpack(payload, bytes_max=1_000) == [4, 1, 1, 0, 0, True, [[author.me.device, "t1", 1, 1]]]
    assert unpack(signed, bytes_max=1_000)[6] == [[1], [0], "bad-signature", "bad-frame"]
    await author.send([second])
    again = await champion.call("bundle", file, path="/v1/bundles")
    assert unpack(unpack(again.content, bytes_max=10_000)[3], bytes_max=1_000)[1:3] == [0, 2]
    assert (await world.count("frames"), await world.count("changes")) == (2, 2)
    carriers = await world.db.fetch_all("SELECT carrier FROM frames ORDER BY id")
    assert carriers == [(None,), (champion.me.device,)]


async def test_received_is_the_sum_of_the_verdicts(world: World) -> None:
    """The counters of /metrics add up to what was sent."""
    phone = await world.phone()
    change = phone.take(REGISTER, {"s001": "P"})
    await phone.send([phone.frame([(REGISTER, change.chunk), (REGISTER, change.chunk), (REGISTER, b"junk" * 4)])])
    text = (await world.http.get("/metrics")).text
    for verdict in ("durable", "duplicate", "refused"):
        assert f'hudur_changes_total{{verdict="{verdict}"}} 1.0' in text
    assert 'hudur_changes_total{verdict="held"} 0.0' in text
