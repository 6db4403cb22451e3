"""The packet link: rate, queue, delay, loss and off spells on real packets, and a device that syncs through it."""

from __future__ import annotations

import http.client
import json
import os
import socket
import subprocess
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.support.demo import HUDUR, Demo
from tests.support.weak import NOON_MS, Remembering, made, table
from tests.weaknet.namespace import CONGESTION, why_not
from tests.weaknet.profile import Flap, Loss, load
from tests.weaknet.timeline import Timeline, compile_timeline
from tests.weaknet.tun import FAR, PHONE, TCP_CONGESTION, TunLink

REASON = why_not()
pytestmark = [
    pytest.mark.process,
    pytest.mark.skipif(REASON is not None, reason=f"driver (c) needs TUN and namespaces: {REASON}"),
]

EDGE = "upper-egypt-edge-rural"
UDP_PORT = 9000
UDP_BYTES = 50
HEADERS_BYTES = 28  # IPv4 and UDP
CALM_MS = 25_000
SYNC_S = 60.0


def udp(address: str, port: int = 0) -> socket.socket:
    made_ = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    made_.bind((address, port))
    made_.settimeout(1.0)
    return made_


def post(link: TunLink, answer_bytes: int, body: bytes) -> tuple[int, bytes, float, bytes]:
    """One POST from the phone's side: status, body, seconds, congestion control of the phone's socket."""

    def run() -> tuple[int, bytes, float, bytes]:
        with closing(http.client.HTTPConnection(FAR, link.port, timeout=20)) as client:
            began = time.monotonic()
            client.connect()
            client.request("POST", f"/{answer_bytes}", body)
            reply = client.getresponse()
            data = reply.read()
            used = client.sock.getsockopt(socket.IPPROTO_TCP, TCP_CONGESTION, 16).rstrip(b"\0")
            return reply.status, data, time.monotonic() - began, used

    return link.phone.run(run)


def test_packets_take_the_time_that_rate_and_round_trip_say() -> None:
    """20 kB up at 400 kbit/s and 100 ms: never faster than that, nor much slower, with the phones' congestion control.

    The quickest of three tells the link's time: a machine that stands still for a moment makes one of them slow.
    """
    profile = made(up_kbps=table(400), down_kbps=table(400), rtt_ms=table(100))
    with Remembering() as server, TunLink(server.port, compile_timeline(profile, 1), NOON_MS) as link:
        posts = [post(link, 100, b"u" * 20_000) for _ in range(3)]
        stats = link.stats
    assert [(status, len(data)) for status, data, _, _ in posts] == [(200, 100)] * 3
    least_s = 0.2 + 20_000 * 8 / 400_000
    assert least_s <= min(took_s for _, _, took_s, _ in posts) < 3 * least_s
    assert {used for _, _, _, used in posts} == {CONGESTION}
    assert stats["up"].delivered > 15
    assert all(way.lost == way.queue_full == way.link_off == 0 for way in stats.values())
    assert stats["up"].bytes > 20_000


def test_the_queue_drops_at_its_end() -> None:
    """A burst that is larger than the buffer loses exactly what does not fit, and the rest comes in order."""
    profile = made(up_kbps=table(40), queue_kb=5, rtt_ms=table(10))
    with Remembering() as server, TunLink(server.port, compile_timeline(profile, 1), NOON_MS) as link:
        came, sent_s = burst(link, 300)
        up = link.stats["up"]
    assert up.packets == 300
    assert up.queue_full + up.delivered == 300
    assert up.delivered == len(came)
    packet_bytes, passed_bytes = UDP_BYTES + HEADERS_BYTES, sent_s * 40_000 / 8  # what left the buffer meanwhile
    assert 5_000 // packet_bytes <= up.delivered <= (5_000 + passed_bytes) // packet_bytes + 1
    assert up.queue_full > 0
    assert came == sorted(came)


def test_loss_is_the_profile_s() -> None:
    """2,000 packets at a mean loss of 7.7 %: within four deviations of it, and losses come in bursts."""
    loss = Loss(g2b=0.0546, b2g=0.3, bad=0.5, good=0)
    profile = made(up_kbps=table(8_000), queue_kb=1_000, loss=loss, rtt_ms=table(2))
    with Remembering() as server, TunLink(server.port, compile_timeline(profile, 11), NOON_MS) as link:
        came, _ = burst(link, 2_000)
        up = link.stats["up"]
    assert up.lost + len(came) == 2_000
    burst_factor = 2 / loss.b2g  # neighbours are not independent: the variance is at most this much larger
    deviation = (2_000 * loss.mean * (1 - loss.mean) * burst_factor) ** 0.5
    assert abs(up.lost - 2_000 * loss.mean) < 4 * deviation
    gone = set(range(2_000)) - set(came)
    pairs = sum(number + 1 in gone for number in gone)
    assert pairs > 2 * len(gone) * loss.mean


def burst(link: TunLink, count: int) -> tuple[list[int], float]:
    """Send numbered datagrams from the phone, as fast as they go; the numbers that came, as they came, and how many
    seconds the sending took.
    """
    up = link.stats["up"]
    with link.phone.run(lambda: udp(PHONE)) as sender, link.far.run(lambda: udp(FAR, UDP_PORT)) as receiver:
        receiver.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
        began_s = time.monotonic()
        for number in range(count):
            sender.sendto(number.to_bytes(4, "big").ljust(UDP_BYTES, b"."), (FAR, UDP_PORT))
            while up.packets <= number:  # not faster than the device's own queue
                pass
        sent_s = time.monotonic() - began_s
        came: list[int] = []
        while True:
            is_over = up.delivered + up.queue_full + up.lost + up.link_off >= count  # before the last look, not after
            try:
                came.append(int.from_bytes(receiver.recv(UDP_BYTES)[:4], "big"))
            except TimeoutError:
                if is_over:
                    return came, sent_s


def test_packets_are_dropped_while_the_link_is_off_and_tcp_gets_over_it() -> None:
    """Half a second on, 0.7 s off: an upload that meets it arrives whole, by the kernel's retransmissions."""
    profile = made(up_kbps=table(200), flap=Flap(on_s=table(0.5), off_s=table(0.7)), rtt_ms=table(20))
    with Remembering() as server, TunLink(server.port, compile_timeline(profile, 1), NOON_MS) as link:
        status, _, took_s, _ = post(link, 10, b"u" * 16_000)
        stats = link.stats
    assert status == 200
    assert server.got[0][2] == 16_000
    assert stats["up"].link_off + stats["down"].link_off >= 1
    assert took_s > 1.2


def calm_instant(timeline: Timeline) -> int:
    """An instant of the first school morning with network for a while: where an excerpt of half a minute can sync."""
    at_ms = timeline.days.elapsed_ms(0, 8 * 60)
    while (segment := timeline.segment_at(at_ms)).to_ms < timeline.length_ms:
        on_from_ms = at_ms
        while segment.link is not None:
            if segment.to_ms - on_from_ms >= CALM_MS:
                return on_from_ms
            segment = timeline.segment_at(segment.to_ms)
        at_ms = segment.to_ms
    raise AssertionError("no calm stretch in the whole span")


def device(link: TunLink | None, home: Path, *args: str) -> dict[str, Any]:
    command = [HUDUR, "device", args[0], "--home", str(home), "--json", *args[1:]]
    environment = {**os.environ, "PYTHONWARNINGS": "error"}
    if link is None:
        done = subprocess.run(command, capture_output=True, text=True, timeout=SYNC_S, check=False, env=environment)
        out, err, code = done.stdout, done.stderr, done.returncode
    else:
        process = link.popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment)
        out, err = process.communicate(timeout=SYNC_S)
        code = process.returncode
    assert code == 0, f"{args}: {code}\n{out}\n{err}"
    told: dict[str, Any] = json.loads(out)
    return told


def test_a_device_syncs_over_edge_packets(tmp_path: Path) -> None:
    """Enrol, take, sync with the real CLI in the phone's namespace, at the EDGE profile's rates, delays and losses."""
    timeline = compile_timeline(load(EDGE), 1)
    with Demo(tmp_path / "demo") as demo, TunLink(demo.port, timeline, calm_instant(timeline)) as link:
        school = demo.info["schools"][0]
        room = school["classes"][1]
        code = f"{school['id']}.{demo.info['codes'][room['id']]}"
        device(link, tmp_path / "home", "enrol", "--server", link.url, "--code", code)
        device(None, tmp_path / "home", "take", "--class", room["id"])
        told = device(link, tmp_path / "home", "sync", "--no-confirm")
        stats = link.stats
        events_of: set[str] = set()
        until_s = time.monotonic() + SYNC_S
        while not events_of >= set(room["pupils"]) and time.monotonic() < until_s:  # a receipt is not settled yet
            events_of = {event["data"]["pupil"] for event in demo.events()}
    assert (told["pending"], told["sent"] + told["confirmed"]) == (0, 1)
    assert events_of >= set(room["pupils"])
    assert stats["up"].delivered > 10
    assert stats["down"].delivered > 10


def test_nothing_is_left_behind() -> None:
    """Neither devices nor namespaces nor addresses, also when the test inside fails."""
    before = traces()
    with (
        Remembering() as server,
        pytest.raises(ZeroDivisionError),
        TunLink(server.port, compile_timeline(made(), 1), NOON_MS),
    ):
        raise ZeroDivisionError
    assert traces() == before


def traces() -> tuple[object, ...]:
    """This process's network devices and descriptors, and the machine's named namespaces."""
    named = Path("/run/netns")
    descriptors = sorted(path.name for path in Path("/proc/self/fd").iterdir())
    return socket.if_nameindex(), descriptors, sorted(path.name for path in named.iterdir()) if named.exists() else []
