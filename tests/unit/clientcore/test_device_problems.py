"""The device when the server says no: nothing is deleted, nothing is blocked."""

from __future__ import annotations

import pytest

from clientcore.ports import HttpReply
from tests.support.conversations import codes, frames_of, lose, pair
from tests.support.devices import absent
from tests.support.fake_server import FakeServer, problem


@pytest.mark.parametrize(
    ("slug", "status", "retry", "outcome"),
    [
        ("unknown-device", 401, "rekey", "refused"),
        ("bad-signature", 401, "never", "refused"),
        ("revoked", 403, "never", "refused"),
        ("version", 400, "upgrade", "refused"),
        ("busy", 503, "after", "busy"),
        ("slow-down", 429, "after", "busy"),
        ("storage", 503, "after", "busy"),
    ],
)
async def test_no_problem_ever_deletes_work(slug: str, status: int, retry: str, outcome: str) -> None:
    """401, 403 and the rest leave everything pending; what can pass later is tried later, never before Retry-After."""
    server, phone = await pair()
    phone.take()
    server.before = lambda _path, _body: problem(slug, status, retry, retry_after_s=7)
    report = await phone.sync()
    assert (report.outcome, phone.steps()) == (outcome, {"saved": 1})
    assert report.wait_ms >= 7_000 if outcome == "busy" else report.wait_ms == 0
    server.before = FakeServer.before
    await phone.sync()
    assert phone.steps() == {"confirmed": 1}


async def test_too_large_requests_are_halved_until_they_pass() -> None:
    """413 halves the number of frames, down to one; all arrive, each with unchanged bytes."""
    server, phone = await pair()
    for n in range(1, 29):
        phone.take(absent("s001"), date=f"2026-09-{n:02d}")
        phone.device.journal.seal()
        phone.device.journal.frame()
    server.before = lambda _path, body: problem("too-large", 413, "split") if len(frames_of(body)) > 3 else None
    report = await phone.sync()
    assert report.outcome == "ok"
    assert phone.steps() == {"confirmed": 28}
    assert len(phone.device.state.frames) <= 30


@pytest.mark.parametrize("slow", ["silence", "slow-body"])
async def test_a_timeout_halves_the_next_request(slow: str) -> None:
    """After silence or a 408 a smaller request follows, also when another process makes it."""
    server, phone = await pair(**({"after": lose} if slow == "silence" else {}))
    if slow == "slow-body":
        server.before = lambda _path, _body: problem("slow-body", 408, "same")
    for n in range(1, 9):
        phone.take(date=f"2026-09-{n:02d}")
        phone.device.journal.frame()
    sizes = []
    for _ in range(4):
        await phone.sync()
        sizes.append(len(frames_of(server.requests[-1])))
    assert sizes == [9, 9, 8, 4]
    assert phone.device.state.shrinks == 4


async def test_a_frame_the_server_cannot_read_never_blocks_the_others() -> None:
    """The bad frame is tried twice, set aside, and its change goes alone in a new frame; everything arrives."""
    server, phone = await pair()
    phone.take(date="2026-11-20")
    phone.device.journal.frame()
    poison = next(iter(phone.device.state.frames.values())).name
    phone.take(date="2026-11-21")

    def unreadable(_path: str, body: bytes) -> HttpReply | None:
        bad = any(frame.hash[:16] == poison for frame in frames_of(body))
        return problem("bad-frame", 400, "same") if bad else None

    server.before = unreadable
    report = await phone.sync()
    assert report.outcome == "ok"
    assert phone.steps() == {"confirmed": 2}
    assert phone.slugs() == ["frame-refused"]


async def test_a_change_nobody_can_read_rests_until_the_next_app_session() -> None:
    """Two refused frames of one change do not loop; the work stays pending and a later session tries again."""
    server, phone = await pair()
    phone.take()
    server.before = lambda _path, body: problem("frame-limits", 400, "never") if frames_of(body)[0].changes else None
    await phone.sync()
    assert phone.steps() == {"saved": 1}
    assert len(phone.device.state.set_aside) == 1
    assert len(server.requests) < 8
    server.before = FakeServer.before
    with phone.device.journal.act() as act:
        phone.device.journal.begin_session(act)
    await phone.sync()
    assert phone.steps() == {"confirmed": 1}


async def test_a_refused_change_is_kept_shown_and_not_built_upon() -> None:
    """The register stays pending; taking it again makes a change that does not depend on the refused one."""
    server, phone = await pair(refuse=lambda _frame, _at: "bad-mark")
    phone.take()
    report = await phone.sync()
    assert (report.changes["refused"], phone.steps(), phone.device.state.pending) == (1, {"saved": 1}, 1)
    server.refuse = FakeServer.refuse
    await phone.sync()
    assert len(server.stored) == 0
    taken = phone.take(absent("s001"))
    assert len(taken.plan.by_name) + len(taken.plan.rest) == 40
    await phone.sync()
    assert codes(server)["s001"] == ["A"]
    assert phone.steps() == {"saved": 1}


async def test_held_work_is_sent_and_needs_review() -> None:
    """A held change counts as sent, then as in need of review, and never as confirmed."""
    server, phone = await pair(settles=False)
    phone.take()
    phone.device.journal.seal()
    server.review = set(phone.device.state.entries)
    await phone.sync()
    assert phone.steps() == {"sent": 1}
    server.settles = True
    await phone.sync()
    assert phone.steps() == {"needs_review": 1}
    assert phone.device.state.pending == 0
