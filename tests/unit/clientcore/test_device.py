"""The device on its road: taking, sending, waiting, and everything that is no answer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from clientcore.exchange import MEDIA_TYPE, Verdict
from clientcore.keys import SigningKey
from clientcore.limits import FRAME_BYTES_MAX
from clientcore.ports import HttpReply, ManualClock
from clientcore.register import Code
from tests.support.conversations import REGISTER, codes, frames_of, lose, pair
from tests.support.devices import TODAY, absent, enrolled, memory_phone, open_phone
from tests.support.fake_server import CLASS, FakeServer, offline


async def test_a_register_of_forty_goes_in_one_round_trip() -> None:
    """One request carries the register and its ask; the answer carries the receipt and the confirmation."""
    server, phone = await pair()
    phone.take(absent("s001", "s002", "s003"))
    assert phone.steps() == {"saved": 1}
    before = len(server.requests)
    report = await phone.sync()
    assert (report.outcome, report.changes["durable"], len(server.requests) - before) == ("ok", 1, 1)
    assert len(server.requests[-1]) <= 560
    assert phone.steps() == {"confirmed": 1}
    assert sorted(set(map(tuple, codes(server).values()))) == [("A",), ("P",)]
    assert phone.device.state.last_complete_sync_at_ms == server.clock.wall_ms()


async def test_the_confirmation_is_asked_for_once_more_after_three_seconds() -> None:
    """A server that settles a moment later is asked again, by the clock port, and only once."""
    server, phone = await pair(settles=False)
    phone.take()
    began_ms = phone.clock.mono_ms() + 1_000
    report = await phone.sync()
    assert phone.steps() == {"sent": 1}
    assert (report.requests, phone.clock.mono_ms() - began_ms) == (2, 3_000)
    server.settles = True
    await phone.sync()
    assert phone.steps() == {"confirmed": 1}


async def test_a_correction_puts_only_what_is_different() -> None:
    """Taking the register again with one pupil changed makes one mark, which supersedes the old one."""
    server, phone = await pair()
    phone.take(absent("s001"))
    await phone.sync()
    taken = phone.take({"s001": (Code.LATE, "12")})
    assert (taken.plan.by_name, taken.plan.rest) == ((("s001", (Code.LATE, "12")),), ())
    await phone.sync()
    assert server.visible(REGISTER)["s001"][0].endswith(":12")
    assert len(server.stored) == 2
    assert phone.take({"s001": (Code.LATE, "12")}).plan.by_name == ()


async def test_capture_times_are_real_and_never_repeat() -> None:
    """40 marks carry 40 instants, rising in the order they were made, from local midnight."""
    server, phone = await pair()
    phone.take(absent("s040", "s002"))
    await phone.sync()
    values = {key: value for key, [value] in server.visible(REGISTER).items()}
    instants = sorted(int(value[1:]) for value in values.values())
    assert len(set(instants)) == 41
    assert instants[0] == (8 + 2) * 3_600_000 + 1_000
    assert int(values["s002"][1:]) < int(values["s040"][1:]) < int(values["~bulk"][1:]) < int(values["s001"][1:])


async def test_others_marks_come_and_a_disagreement_can_be_settled() -> None:
    """Two devices mark offline; each sees the other's mark after its sync, and a new mark supersedes both."""
    server, mine = await pair()
    server.codes["NPQRSTVWXZ"] = None
    other = await enrolled(memory_phone(server, server.clock, seed=2), code="NPQRSTVWXZ")
    mine.take(absent("s001"))
    other.take(absent("s002"))
    await mine.sync()
    await other.sync()
    await mine.sync()
    assert len(mine.device.state.registers[REGISTER].values()["s001"]) == 2
    mine.take(absent("s001", "s002"))
    await mine.sync()
    assert codes(server)["s001"] == codes(server)["s002"] == ["A"]
    await other.sync()
    assert other.steps() == {"confirmed": 1}


async def test_a_backlog_goes_newest_school_day_first() -> None:
    """After weeks offline the register of today is in the first frame, and every day arrives."""
    server, phone = await pair()
    days = [f"2026-{month:02d}-{day:02d}" for month in (9, 10, 11) for day in range(1, 23)]
    for date in days:
        phone.take(absent("s001"), date=date)
    report = await phone.sync()
    assert report.outcome == "ok"
    assert phone.steps() == {"confirmed": len(days)}
    sent = [change.register for body in server.requests[1:] for frame in frames_of(body) for change in frame.changes]
    assert [name.split("/")[1] for name in sent] == sorted(days, reverse=True)
    assert all(len(frame.raw) <= FRAME_BYTES_MAX for body in server.requests[1:] for frame in frames_of(body))


async def test_taps_left_unsealed_by_a_kill_go_with_the_next_sync(tmp_path: Path) -> None:
    """A process that dies right after a tap loses nothing; the next one seals and sends it under a new actor."""
    clock = ManualClock()
    server = FakeServer(clock)
    phone = await enrolled(open_phone(tmp_path, server, clock, seed=1))
    journal = phone.device.journal
    register = phone.register()
    journal.tap(register, [("s001", f"A{journal.capture_ms(register, phone.device.offsets())}")])
    phone.close()
    again = open_phone(tmp_path, server, clock, seed=2)
    assert again.device.state.pending == 1
    await again.sync()
    assert codes(server) == {"s001": ["A"]}
    assert again.device.state.pending == 0


async def test_more_marks_than_one_change_holds_are_sealed_in_several() -> None:
    """300 long keys are split into consistent changes that each fit a frame."""
    server, phone = await pair()
    journal, register = phone.device.journal, phone.register()
    keys = [f"pupil-with-a-very-long-identifier.{n:03d}"[-36:] for n in range(300)]
    journal.tap(register, [(key, f"E{1_000_000_000 + n}:long_reason_of_24_chars_") for n, key in enumerate(keys)])
    report = await phone.sync()
    assert report.outcome == "ok"
    assert len(server.stored) > 1
    assert len(server.visible(REGISTER)) == 300


async def test_a_lost_answer_is_followed_by_the_same_bytes_and_one_effect() -> None:
    """The request is repeated byte for byte; the server has the change once; the receipt then comes."""
    server, phone = await pair(after=lose)
    phone.take()
    report = await phone.sync()
    assert (report.outcome, phone.steps()) == ("no-answer", {"saved": 1})
    lost = server.requests[-1]
    server.after = lambda _path, _body, reply: reply
    report = await phone.sync()
    again = next(body for body in server.requests if body != lost and body != server.requests[0])
    assert server.requests.count(lost) == 2
    assert again is not None
    assert report.changes["duplicate"] == 1
    assert len(server.stored) == 1
    assert phone.steps() == {"confirmed": 1}


async def test_days_without_a_network_make_one_frame_and_no_heap_of_greetings() -> None:
    """Fifty vain tries resend one frame; its bytes never change."""
    server, phone = await pair(before=offline)
    phone.take()
    for _ in range(50):
        report = await phone.sync()
        assert report.outcome == "no-answer"
        assert 0 < report.wait_ms <= 900_000
    assert len(set(server.requests[1:])) == 1
    assert len(phone.device.state.frames) == 1


FORGERIES: dict[str, Callable[[FakeServer, bytes, HttpReply], HttpReply]] = {
    "portal page": lambda _s, _b, _r: HttpReply(status=200, content_type="text/html", body=b"<html>Top up!</html>"),
    "portal page in our type": lambda _s, _b, _r: HttpReply(status=200, content_type=MEDIA_TYPE, body=b"<html>"),
    "truncated": lambda _s, _b, r: replace(r, body=r.body[:-1]),
    "one bit over": lambda _s, _b, r: replace(r, body=r.body[:40] + bytes([r.body[40] ^ 1]) + r.body[41:]),
    "nothing": lambda _s, _b, r: replace(r, body=b""),
    "status 201": lambda _s, _b, r: replace(r, status=201),
    "redirect": lambda _s, _b, _r: HttpReply(status=302, content_type="", body=b""),
    "error page": lambda _s, _b, _r: HttpReply(status=500, content_type="text/plain", body=b"oops"),
    "problem of a stranger": lambda _s, _b, _r: HttpReply(
        status=403, content_type="application/problem+json", body=b"{}"
    ),
    "deep problem": lambda _s, _b, _r: HttpReply(
        status=403, content_type="application/problem+json", body=b"[" * 100_000
    ),
}


@pytest.mark.parametrize("name", FORGERIES)
async def test_only_our_signed_answer_is_a_receipt(name: str) -> None:
    """A portal page, a cut or bent answer, a redirect: nothing changes, and the same bytes go again."""
    server, phone = await pair()
    phone.take()
    server.after = lambda _path, body, reply: FORGERIES[name](server, body, reply)
    report = await phone.sync()
    assert (report.outcome, phone.steps()) == ("no-answer", {"saved": 1})
    assert report.error is not None
    assert report.error.code == "not-ours"
    server.after = lambda _path, _body, reply: reply
    await phone.sync()
    assert phone.steps() == {"confirmed": 1}
    assert len(server.stored) == 1


async def test_an_answer_signed_by_another_key_or_to_another_request_is_no_receipt() -> None:
    """A server that lacks our server's key, and a true answer replayed, prove nothing."""
    server, phone = await pair()
    phone.take()
    honest, server.key = server.key, SigningKey.generate()
    assert (await phone.sync()).outcome == "no-answer"
    server.key = honest
    old: list[HttpReply] = []

    def keep(path: str, body: bytes, reply: HttpReply) -> HttpReply:
        old.append(reply)
        return reply

    server.after = keep
    await phone.sync()
    assert phone.steps() == {"confirmed": 1}
    phone.take(date="2026-11-23")
    server.after = lambda _path, _body, _reply: old[0]
    assert (await phone.sync()).outcome == "no-answer"
    assert phone.steps() == {"confirmed": 1, "saved": 1}


async def test_an_answer_without_the_receipt_is_not_taken_for_one() -> None:
    """An honest answer that speaks of fewer frames leaves the work pending, and the loop ends."""
    server, phone = await pair()
    phone.take()
    answer = server._answer

    def shorter(
        body: bytes, device: bytes, receipts: tuple[tuple[Verdict, ...] | str, ...], payload: bytes | None
    ) -> HttpReply:
        return answer(body, device, (), payload)

    server._answer = shorter  # type: ignore[method-assign]
    assert (await phone.sync()).outcome == "no-answer"
    assert phone.steps() == {"saved": 1}


@pytest.mark.parametrize("wall_ms", [0, -5_000, 1, 4_102_444_800_000, 2**45])
async def test_a_wrong_clock_never_blocks_a_mark(wall_ms: int) -> None:
    """A clock in 1970, before it, or in 2100: the register is taken, sent and confirmed."""
    server, phone = await pair()
    phone.clock.set_wall_ms(wall_ms)
    phone.take(absent("s001"))
    assert (await phone.sync()).outcome == "ok"
    assert codes(server)["s001"] == ["A"]


async def test_a_clock_moved_back_between_marks_leaves_them_in_order() -> None:
    """Causality orders marks: the later tap wins though its clock reads earlier."""
    server, phone = await pair()
    phone.take(absent("s001"))
    phone.clock.set_wall_ms(0)
    phone.take({})
    await phone.sync()
    assert codes(server)["s001"] == ["P"]


async def test_two_registers_sealed_in_one_act_are_two_changes() -> None:
    """The same words at the same millisecond in two sessions: both are sealed, sent and confirmed."""
    server, phone = await pair()
    journal = phone.device.journal
    for session in ("am1", "am2"):
        journal.tap(phone.device.register(CLASS, TODAY, session), [("~session", "H28800000")])
    assert journal.seal() == 2
    assert (await phone.sync()).outcome == "ok"
    assert len(server.stored) == 2
    assert phone.steps() == {"confirmed": 2}


async def test_a_lost_receipt_does_not_cost_the_confirmation() -> None:
    """The answer was lost after the commit; the next sync hears `duplicate` and still asks for the confirmation."""
    server, phone = await pair(settles=False, after=lose)
    phone.take()
    assert (await phone.sync()).outcome == "no-answer"
    server.after = lambda _path, _body, reply: reply
    server.settles = True
    assert (await phone.sync()).changes["duplicate"] == 1
    assert phone.steps() == {"confirmed": 1}


async def test_taps_made_while_an_answer_travels_do_not_hide_a_disagreement() -> None:
    """Another process taps while the answer with somebody else's mark is on its way: both marks stay visible."""
    server, phone = await pair()
    server.codes["NPQRSTVWXZ"] = None
    other = await enrolled(memory_phone(server, phone.clock, seed=9), code="NPQRSTVWXZ")
    other.take(absent("s001"))
    await other.sync()

    def tap_meanwhile(_path: str, _body: bytes, reply: HttpReply) -> HttpReply:
        server.after = lambda _path, _body, reply: reply  # once
        phone.device.journal.tap(phone.device.register(CLASS, TODAY, "day"), [("s001", "P28800000")])
        return reply

    server.after = tap_meanwhile
    await phone.sync()
    assert sorted(codes(server)["s001"]) == ["A", "P"]
