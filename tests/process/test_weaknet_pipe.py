"""What the drivers compute before they touch a socket: the same times as the timeline, the same loss as the profile."""

from __future__ import annotations

import pytest

from tests.support.weak import NOON_MS, made, table
from tests.weaknet.draws import Stream
from tests.weaknet.gateway import answer_length, parse_head
from tests.weaknet.loss import GilbertElliott
from tests.weaknet.pipe import Pipe
from tests.weaknet.profile import load, names
from tests.weaknet.timeline import compile_timeline

MORNING_MIN = 8 * 60
PACKETS = 40_000
DEVIATIONS = 4


@pytest.mark.parametrize("name", names())
def test_a_pipe_keeps_the_timeline_s_time(name: str) -> None:
    """16 kB in pieces come out when the compiled timeline says, to a millisecond, on every profile with a link."""
    profile = load(name)
    timeline = compile_timeline(profile, 1)
    for up in (True, False):
        pipe = Pipe(timeline, up=up, overhead=1, resend=False)
        at_ms = timeline.days.elapsed_ms(0, MORNING_MIN)
        done_ms = [pipe.occupy(at_ms, 1_000) for _ in range(16)][-1]
        expected_ms = timeline.carried_ms(at_ms, 16_000, up=up)
        if expected_ms is None or done_ms is None:
            assert done_ms is expected_ms is None
            assert not profile.links
        else:
            assert abs(done_ms - expected_ms) <= 1.01


@pytest.mark.parametrize("name", names())
def test_losses_have_the_profile_s_mean(name: str) -> None:
    """Over many packets the share that is lost is the profile's, within four deviations of a bursty chain."""
    for link in load(name).links:
        draws, loss = Stream(name, 1, f"{link.name}.loss"), link.loss
        chain = GilbertElliott(g2b=loss.g2b, b2g=loss.b2g, bad=loss.bad, good=loss.good, uniform=draws.u)
        lost = sum(chain.lost() for _ in range(PACKETS))
        deviation = (PACKETS * link.mean_loss * (1 - link.mean_loss) * 2 / loss.b2g) ** 0.5
        assert abs(lost - PACKETS * link.mean_loss) <= DEVIATIONS * deviation
        assert (chain.packets, chain.lost_packets) == (PACKETS, lost)


def test_a_queue_has_room_when_its_first_bytes_are_out() -> None:
    """1,000 bytes at 80 kbit/s take 100 ms; until then a buffer of 1,500 that holds 2,000 is full."""
    pipe = Pipe(compile_timeline(made(up_kbps=table(80)), 1), up=True, overhead=1)
    assert pipe.room_at_ms(NOON_MS, 1_500) == NOON_MS
    assert [pipe.occupy(NOON_MS, 1_000) for _ in range(2)] == [NOON_MS + 100, NOON_MS + 200]
    assert pipe.backlog_bytes(NOON_MS + 50) == 2_000
    assert pipe.room_at_ms(NOON_MS + 50, 1_500) == NOON_MS + 100
    assert pipe.backlog_bytes(NOON_MS + 100) == 1_000


def test_heads_are_read_as_far_as_the_link_needs_them() -> None:
    """Method, target, length of the body; a body without a length is refused, for a cut could not be placed in it."""
    head = parse_head(b"POST /v1/sync HTTP/1.1\r\nHost: x\r\nContent-Length: 12\r\n\r\n")
    assert (head.method, head.target, head.headers["host"], head.body_bytes) == ("POST", "/v1/sync", "x", 12)
    with pytest.raises(ValueError, match="length"):
        parse_head(b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n")


@pytest.mark.parametrize(
    ("first", "method", "length"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", "GET", 43),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n", "HEAD", 38),
        (b"HTTP/1.1 304 Not Modified\r\n\r\n", "GET", 29),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", "GET", None),
        (b"HTTP/1.1 200 OK\r\nContent-Le", "GET", None),
    ],
)
def test_an_answer_s_length_is_known_from_its_head(first: bytes, method: str, length: int | None) -> None:
    """Where the cut falls in an answer follows from it."""
    assert answer_length(first, method=method) == length
