"""The device when it was copied, restored or wiped, and when the server was: nothing lost, nothing doubled."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from clientcore.errors import NotEnrolled, TransportError
from clientcore.frame import Ask
from clientcore.ports import HttpReply, ManualClock
from tests.support.conversations import REGISTER, codes, pair
from tests.support.devices import absent, enrolled, memory_phone, open_phone
from tests.support.fake_server import CLASS, PUPILS, FakeServer


async def test_a_restored_old_copy_loses_nothing_unsent_and_doubles_nothing(tmp_path: Path) -> None:
    """Copy the home, go on, put the copy back: the device is told, takes a new actor, and gets its own work back."""
    clock = ManualClock()
    server = FakeServer(clock)
    home, copy = tmp_path / "home", tmp_path / "copy"
    phone = await enrolled(open_phone(home, server, clock, seed=1))
    phone.take(absent("s001"), date="2026-11-22")  # unsent when the copy is made
    phone.close()
    shutil.copytree(home, copy)
    phone = open_phone(home, server, clock, seed=2)
    phone.take(absent("s002"), date="2026-11-23")
    await phone.sync()
    phone.close()
    shutil.rmtree(home)
    shutil.copytree(copy, home)
    phone = open_phone(home, server, clock, seed=3)
    phone.take(absent("s003"), date="2026-11-24")
    report = await phone.sync()
    assert report.outcome == "ok"
    assert "restored-copy" in phone.slugs()
    assert len(server.stored) == 3
    assert phone.steps() == {"confirmed": 3}
    assert codes(server, f"{CLASS}/2026-11-22/day")["s001"] == ["A"]
    known = server.devices[phone.device.journal.device]
    assert max(known.numbers) == phone.device.state.last_number
    before = list(server.events)
    phone.take(absent("s004"), date="2026-11-24")
    await phone.sync()
    assert server.events == before
    assert len(server.stored) == 4


async def test_two_clones_of_one_home_never_share_an_actor(tmp_path: Path) -> None:
    """Both clones mark the same register; both are kept, none is an equivocation, the server is told of the copy."""
    clock = ManualClock()
    server = FakeServer(clock)
    phone = await enrolled(open_phone(tmp_path / "a", server, clock, seed=1))
    phone.take()
    await phone.sync()
    phone.close()
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    a, b = (open_phone(tmp_path / name, server, clock, seed=seed) for name, seed in (("a", 2), ("b", 3)))
    a.take(absent("s001"))
    b.take(absent("s002"))
    for phone in (a, b, a, b):
        assert (await phone.sync()).outcome == "ok"
    assert "push-number-reused" in server.events
    assert len(server.stored) == 3
    assert a.device.state.registers[REGISTER].values() == b.device.state.registers[REGISTER].values()
    assert {phone.device.state.pending for phone in (a, b)} == {0}


async def test_a_lost_log_with_its_key_still_there_starts_behind_the_servers_numbers(tmp_path: Path) -> None:
    """The log is gone: the enrolment is adopted from beside it, numbering goes on, own work comes back by the pull."""
    clock = ManualClock()
    server = FakeServer(clock)
    phone = await enrolled(open_phone(tmp_path, server, clock, seed=1))
    phone.take(absent("s001"))
    await phone.sync()
    enrolment = phone.device.journal.enrolment
    phone.close()
    (tmp_path / "log.db").unlink()
    phone = open_phone(tmp_path, server, clock, seed=2)
    with pytest.raises(NotEnrolled):
        await phone.sync()
    assert phone.device.journal.adopt(enrolment)
    phone.take(absent("s002"), date="2026-11-23")
    assert (await phone.sync()).outcome == "ok"
    assert phone.slugs() == ["empty-log", "restored-copy"]
    assert phone.steps() == {"confirmed": 2}
    assert len(server.stored) == 2


async def test_a_log_put_back_to_an_older_state_voids_the_newer_cursor(tmp_path: Path) -> None:
    """The cache says "told up to here", the older log does not know: everything is fetched again."""
    clock = ManualClock()
    server = FakeServer(clock)
    server.codes["NPQRSTVWXZ"] = None
    other = await enrolled(memory_phone(server, clock, seed=9), code="NPQRSTVWXZ")
    phone = await enrolled(open_phone(tmp_path, server, clock, seed=1))
    phone.close()
    old = (tmp_path / "log.db").read_bytes()
    other.take(absent("s001"))
    await other.sync()
    phone = open_phone(tmp_path, server, clock, seed=2)
    await phone.sync()
    assert len(phone.device.state.entries) == 1
    phone.close()
    (tmp_path / "log.db").write_bytes(old)
    phone = open_phone(tmp_path, server, clock, seed=3)
    await phone.sync()
    assert len(phone.device.state.entries) == 1


async def test_losing_the_cache_costs_a_pull_and_nothing_else(tmp_path: Path) -> None:
    """Names and cursor come again; a cache of garbage is begun anew."""
    clock = ManualClock()
    server = FakeServer(clock)
    phone = await enrolled(open_phone(tmp_path, server, clock, seed=1))
    phone.take()
    phone.close()
    (tmp_path / "cache.db").write_bytes(b"garbage" * 1_000)
    phone = open_phone(tmp_path, server, clock, seed=2)
    assert phone.device.cache.roster(CLASS) == []
    assert (await phone.sync()).outcome == "ok"
    assert len(phone.device.cache.roster(CLASS)) == 40
    assert phone.steps() == {"confirmed": 1}


async def test_no_name_ever_enters_the_log(tmp_path: Path) -> None:
    """Names of pupils and classes are in the cache file and nowhere in the log file."""
    clock = ManualClock()
    server = FakeServer(clock)
    phone = await enrolled(open_phone(tmp_path, server, clock, seed=1))
    phone.take()
    await phone.sync()
    phone.close()
    for name in (PUPILS[0][1], "3/A"):
        assert name.encode() in (tmp_path / "cache.db").read_bytes()
        assert name.encode() not in (tmp_path / "log.db").read_bytes()


@pytest.mark.parametrize("level", ["nudge", "repull", "rebuild"])
@pytest.mark.parametrize("unsent", [True, False])
async def test_each_strength_of_resync_keeps_unsent_work_and_is_told_done(level: str, unsent: bool) -> None:
    """The order is carried out once and reported; unsent work arrives; nothing is stored twice."""
    server, phone = await pair()
    phone.take(absent("s001"), date="2026-11-20")
    await phone.sync()
    server.directives.append(["directive", 7, level, "test", server.clock.wall_ms()])
    if unsent:
        phone.take(absent("s002"), date="2026-11-21")
    server.asks.clear()
    assert (await phone.sync()).outcome == "ok"
    asks = [ask for ask in server.asks if isinstance(ask, Ask)]
    assert server.done[phone.device.journal.device] == 7
    assert (any(ask.cursor is None for ask in asks)) == (level != "nudge")
    assert (any(ask.have is not None for ask in asks)) == (level == "rebuild")
    assert phone.steps() == {"confirmed": 1 + unsent}
    assert len(server.stored) == 1 + unsent
    server.asks.clear()
    await phone.sync()
    assert all(isinstance(ask, Ask) and ask.cursor is not None and ask.have is None for ask in server.asks)


@pytest.mark.parametrize("level", ["repull", "rebuild"])
async def test_a_resync_cut_off_in_the_middle_is_finished_by_the_next_sync(level: str) -> None:
    """The order stays open until it is carried out, whatever the network does meanwhile."""
    server, phone = await pair()
    phone.take()
    await phone.sync()
    server.directives.append(["directive", 3, level, "test", 1])
    answered: list[bytes] = []

    def cut(_path: str, body: bytes, reply: HttpReply) -> HttpReply:
        answered.append(body)
        if len(answered) > 1:
            raise TransportError("broken", "cut")
        return reply

    server.after = cut
    assert (await phone.sync()).outcome == "no-answer"
    server.after = FakeServer.after
    assert (await phone.sync()).outcome == "ok"
    assert server.done[phone.device.journal.device] == 3


async def test_a_restored_server_gets_back_what_it_lost() -> None:
    """The epoch rises: the device offers all it holds, and sends again what the server lacks, as not yet sent."""
    server, phone = await pair()
    phone.take(absent("s001"), date="2026-11-20")
    await phone.sync()
    backup = dict(server.stored)
    phone.take(absent("s002"), date="2026-11-21")
    phone.take(absent("s003"), date="2026-11-22")
    await phone.sync()
    everything = dict(server.stored)
    server.restore(backup)
    seen: list[int] = []

    def look(path: str, body: bytes, reply: HttpReply) -> HttpReply:
        seen.append(phone.device.state.pending)
        return reply

    server.after = look
    report = await phone.sync()
    assert report.wanted == 2
    assert max(seen) == 2
    assert server.stored == everything
    assert phone.steps() == {"confirmed": 3}
    server.asks.clear()
    await phone.sync()
    assert all(isinstance(ask, Ask) and ask.have is None for ask in server.asks)


async def test_a_reoffer_survives_a_kill_between_the_want_and_the_sending(tmp_path: Path) -> None:
    """The wanted changes are in frames on disk before they are sent; a new process sends them."""
    clock = ManualClock()
    server = FakeServer(clock)
    phone = await enrolled(open_phone(tmp_path, server, clock, seed=1))
    phone.take()
    await phone.sync()
    server.restore({})
    count = 0

    def cut(_path: str, body: bytes) -> HttpReply | None:
        nonlocal count
        count += 1
        if count == 3:
            raise TransportError("offline", "gone")
        return None

    server.before = cut
    await phone.sync()
    assert len(server.stored) == 0
    phone.close()
    server.before = FakeServer.before
    phone = open_phone(tmp_path, server, clock, seed=2)
    assert phone.device.state.pending == 1
    await phone.sync()
    assert len(server.stored) == 1
    assert phone.steps() == {"confirmed": 1}


async def test_a_hash_list_longer_than_one_frame_is_offered_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every change is offered exactly once, in as many asks as it takes."""
    monkeypatch.setattr("clientcore.outbox.HAVE_HASHES_MAX", 4)
    server, phone = await pair()
    for n in range(1, 11):
        phone.take(date=f"2026-11-{n:02d}")
    await phone.sync()
    server.restore({})
    server.asks.clear()
    report = await phone.sync()
    offered = b"".join(ask.have or b"" for ask in server.asks if isinstance(ask, Ask))
    assert sorted(offered[at : at + 8] for at in range(0, len(offered), 8)) == sorted(phone.device.state.entries)
    assert report.wanted == 10
    assert len(server.stored) == 10


async def test_a_long_pull_goes_round_by_round_and_resumes_at_its_cursor() -> None:
    """`more` asks for the next round at once; a pull cut off goes on where it was."""
    server, mine = await pair(pages=5)
    server.codes["NPQRSTVWXZ"] = None
    other = await enrolled(memory_phone(server, server.clock, seed=2), code="NPQRSTVWXZ")
    for n in range(1, 11):
        mine.take(date=f"2026-11-{n:02d}")
    await mine.sync()
    server.asks.clear()
    report = await other.sync()
    assert report.pulled == 10
    assert len(server.asks) == 5
    assert (await other.sync()).pulled == 0


async def test_a_stale_nonce_costs_one_more_round() -> None:
    """When the last answer was lost the ask is stale: receipts come, and the next ask pulls."""
    server, phone = await pair()
    server.devices[phone.device.journal.device].nonce = b"elsewher"
    report = await phone.sync()
    assert (report.outcome, report.requests) == ("ok", 2)
    phone.device.cache.put_nonce(b"whatever")
    assert (await phone.sync()).requests == 1


async def test_an_offer_that_could_not_be_made_is_tried_again_after_the_back_off() -> None:
    """A copy of this phone takes every nonce out of its hands, so no pull is served while a restored server waits for
    the offer: that is no `ok`, and the next conversation makes it (found by the simulator).
    """
    server, phone = await pair()
    phone.take(absent("s001"))
    await phone.sync()
    server.restore({})

    def rob(_path: str, _body: bytes) -> None:
        for known in server.devices.values():
            known.nonce = b"the copy"

    plain, server.before = server.before, rob
    report = await phone.sync()
    assert report.outcome == "no-answer"
    assert report.wait_ms > 0
    assert phone.device.state.needs_offer
    server.before = plain
    assert (await phone.sync()).outcome == "ok"
    assert not phone.device.state.needs_offer
    assert len(server.stored) == 1
