"""The loopback proxy: what it does to real sockets is what the timeline says, measured from outside."""

from __future__ import annotations

import http.client
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from functools import partial
from typing import Any

import pytest

from tests.support.weak import NOON_MS, Remembering, made, table
from tests.weaknet import passage
from tests.weaknet.draws import Table
from tests.weaknet.gateway import PORTAL
from tests.weaknet.line import NO_SET_UP
from tests.weaknet.pipe import OVERHEAD
from tests.weaknet.profile import Budget, Cut, Days, Deliver, Flap, Gate, Loss, Peer, Profile, Window
from tests.weaknet.proxy import Proxy
from tests.weaknet.timeline import compile_timeline

pytestmark = pytest.mark.process

EVERY_DAY = Days(weekdays=frozenset(range(7)))
SEEDS = 20
CLIENT_S = 20.0
SILENCE_S = {"rst": CLIENT_S, "blackhole": 1.0}  # a reset is heard; silence needs a clock
BUSY_S = 0.6  # what a busy machine may add; lower bounds need no such thing
LOOKS = 30  # for a quiet moment


@pytest.fixture
def server() -> Iterator[Remembering]:
    with Remembering() as running:
        yield running


def weak(server: Remembering, profile: Profile, *, seed: int = 1, set_up: bool = False) -> Proxy:
    timeline = compile_timeline(profile, seed)
    return Proxy(server.port, timeline, set_up=None if set_up else NO_SET_UP)


def ask(
    connection: http.client.HTTPConnection, answer_bytes: int, body: bytes = b"", *, method: str = "POST"
) -> tuple[int, bytes, float]:
    """One request on an open connection; returns status, body and how many seconds it took."""
    began = time.monotonic()
    connection.request(method, f"/{answer_bytes}", body)
    reply = connection.getresponse()
    data = reply.read()
    return reply.status, data, time.monotonic() - began


def client(proxy: Proxy, *, timeout_s: float = CLIENT_S) -> closing[http.client.HTTPConnection]:
    return closing(http.client.HTTPConnection("127.0.0.1", proxy.port, timeout=timeout_s))


def once(
    proxy: Proxy, answer_bytes: int, body: bytes = b"", *, method: str = "POST", timeout_s: float = CLIENT_S
) -> tuple[int, bytes, float]:
    """One request on a connection of its own."""
    with client(proxy, timeout_s=timeout_s) as connection:
        return ask(connection, answer_bytes, body, method=method)


def again_s(connection: http.client.HTTPConnection) -> float:
    """How long one small request takes on an open connection."""
    return ask(connection, 10)[2]


def quickest_s(take: Callable[[], float], under_s: float) -> float:
    """The shortest of some takes, the last as soon as one is under `under_s`: a busy machine only adds."""
    shortest_s = take()
    for _ in range(LOOKS):
        if shortest_s < under_s:
            break
        shortest_s = min(shortest_s, take())
    return shortest_s


def test_bytes_take_the_time_that_the_rates_say(server: Remembering) -> None:
    """10 kB up at 160 kbit/s and 10 kB down at 320 kbit/s take the sum of both, 5 % headers and one round trip."""
    profile = made(up_kbps=table(160), down_kbps=table(320), rtt_ms=table(60))
    with weak(server, profile) as proxy:
        proxy.begin(NOON_MS)
        must_s = 10_000 * 8 * OVERHEAD * (1 / 160_000 + 1 / 320_000) + 0.06

        def take() -> float:
            status, data, took_s = once(proxy, 10_000, b"u" * 10_000)
            assert (status, len(data)) == (200, 10_000)
            return took_s

        assert must_s <= quickest_s(take, must_s * 1.1 + BUSY_S) < must_s * 1.1 + BUSY_S


def test_connections_share_the_rate(server: Remembering) -> None:
    """Two uploads at once take as long as both after each other: there is one radio."""
    profile = made(up_kbps=table(400), queue_kb=3)
    together_s = 24_000 * 8 * OVERHEAD / 400_000
    shortest_s: list[float] = []
    with weak(server, profile) as proxy:
        proxy.begin(NOON_MS)

        def take() -> float:
            took: list[float] = []
            threads = [
                threading.Thread(target=lambda: took.append(once(proxy, 10, b"u" * 12_000)[2])) for _ in range(2)
            ]
            began_s = time.monotonic()
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            shortest_s.append(min(took))
            return time.monotonic() - began_s

        assert together_s <= quickest_s(take, together_s * 1.1 + BUSY_S) < together_s * 1.1 + BUSY_S
    assert min(shortest_s) > together_s * 0.55  # alone it would be half


def test_a_first_request_pays_for_its_connection(server: Remembering) -> None:
    """Three round trips and the certificates before the first byte; the next request on it pays one round trip."""
    with weak(server, made(rtt_ms=table(100), down_kbps=table(400)), set_up=True) as proxy:
        proxy.begin(NOON_MS)
        firsts, seconds = [], []

        def first() -> float:
            with client(proxy) as one:
                took_s = ask(one, 10)[2]
                seconds.append(ask(one, 10)[2])
            firsts.append(took_s)
            return took_s if seconds[-1] < 0.2 else 0.6  # both in one quiet moment

        quickest_s(first, 0.6)
    assert 0.4 <= min(firsts) < 0.6
    assert 0.1 <= min(seconds) < 0.2


def test_round_trips_are_those_of_the_timeline_s_connections(server: Remembering) -> None:
    """Each connection has its own round trip, drawn for it and for no other."""
    timeline = compile_timeline(made(rtt_ms=Table(points=((0.0, 20.0), (100.0, 200.0)))), 4)
    with Proxy(server.port, timeline, set_up=NO_SET_UP) as proxy:
        proxy.begin(NOON_MS)
        for k in range(4):
            rtt_s = timeline.connection(k, NOON_MS).rtt_ms / 1000
            with client(proxy) as one:
                assert rtt_s <= quickest_s(partial(again_s, one), rtt_s + 0.06) < rtt_s + 0.06


@pytest.mark.parametrize("how", ["rst", "blackhole"])
def test_a_connection_dies_at_the_byte_it_was_drawn_for(server: Remembering, how: str) -> None:
    """Over many seeds cuts fall into requests and into answers, at that byte; in answers the server has it all."""
    cut = Cut(per_conn=1, rst=float(how == "rst"), blackhole=float(how == "blackhole"))
    profile = made(cut=cut, rtt_ms=table(1), up_kbps=table(40_000), down_kbps=table(40_000))
    places = set()
    for seed in range(SEEDS):
        before = len(server.got)
        with weak(server, profile, seed=seed) as proxy:
            proxy.begin(NOON_MS)
            with pytest.raises((OSError, http.client.HTTPException)) as met:
                once(proxy, 600, b"u" * 400, timeout_s=SILENCE_S[how])
            (exchange,) = proxy.exchanges
            injected = proxy.injected
            share = proxy.timeline.connection(0, NOON_MS).cut_at
        place = exchange.fault or ""
        places.add(place)
        assert injected[place] == sum(injected.values()) == 1
        assert isinstance(met.value, TimeoutError) == (how == "blackhole")
        if place == f"cut-{how}-request":
            assert exchange.up_bytes == int(share * (exchange.request_bytes + 700)) < exchange.request_bytes
            assert len(server.got) == before
        else:
            assert exchange.up_bytes == exchange.request_bytes
            assert exchange.answer_bytes is not None
            assert exchange.down_bytes < exchange.answer_bytes
            assert len(server.got) == before + 1
    assert places == {f"cut-{how}-request", f"cut-{how}-answer"}


def test_bytes_wait_through_a_spell_without_network(server: Remembering) -> None:
    """On for 0.4 s, off for 0.5 s: an upload of 0.6 s takes as long as the compiled timeline says, not longer."""
    profile = made(up_kbps=table(200), flap=Flap(on_s=table(0.4), off_s=table(0.5)), rtt_ms=table(10))
    timeline = compile_timeline(profile, 1)
    with Proxy(server.port, timeline, set_up=NO_SET_UP) as proxy:
        proxy.begin(NOON_MS)
        began_ms = int(proxy.now_ms())
        took_s = once(proxy, 10, b"u" * 15_000)[2]
    done_ms = timeline.carried_ms(began_ms, int(15_000 * OVERHEAD), up=True)
    assert done_ms is not None
    assert (
        (done_ms - began_ms) / 1000 <= took_s < (done_ms - began_ms) / 1000 + 0.5 + BUSY_S
    )  # the answer may meet the next one
    assert took_s > 1.0
    assert proxy.injected["off-stall"] >= 1


def test_a_nat_forgets_an_idle_connection_without_a_word(server: Remembering) -> None:
    """Bytes that were held up longer than the carrier remembers the connection vanish; a new connection works."""
    profile = made(up_kbps=table(200), flap=Flap(on_s=table(0.3), off_s=table(0.6)), nat_idle_s=0.4)
    with weak(server, profile) as proxy:
        proxy.begin(NOON_MS)
        with pytest.raises(TimeoutError):
            once(proxy, 10, b"u" * 10_000, timeout_s=1.5)
        assert proxy.injected["nat-idle"] == 1
        assert server.got == []
        assert once(proxy, 10)[0] == 200


def test_no_network_for_long_is_a_refused_connection(server: Remembering) -> None:
    """Outside its window nobody listens; when the window opens the same port answers."""
    window = Window(days=EVERY_DAY, from_min=720, to_min=735)
    with weak(server, made(open=(window,))) as proxy:
        proxy.begin(NOON_MS - 3_000)
        with pytest.raises(ConnectionRefusedError):
            once(proxy, 10)
        refused = 0
        while True:
            try:
                status, _, _ = once(proxy, 10)
                break
            except ConnectionRefusedError:
                refused += 1
                assert proxy.now_ms() < NOON_MS + 20_000
        assert status == 200
        assert proxy.now_ms() >= NOON_MS
        assert proxy.injected["no-network"] == 1


@pytest.mark.parametrize(("field", "kind"), [("dns_fail", "dns-fail"), ("connect_fail", "connect-fail")])
def test_a_share_of_connections_fails_as_drawn(server: Remembering, field: str, kind: str) -> None:
    """Exactly the connections whose draw says so are reset before the server sees a byte."""
    link: dict[str, Any] = {"rtt_ms": table(1), field: 0.5}
    timeline = compile_timeline(made(**link), 3)
    with Proxy(server.port, timeline, set_up=NO_SET_UP) as proxy:
        proxy.begin(NOON_MS)
        failed = []
        for k in range(12):
            try:
                once(proxy, 1)
            except (OSError, http.client.HTTPException):
                failed.append(k)
    assert failed == [k for k in range(12) if timeline.connection(k, NOON_MS).fails is not None]
    assert 0 < len(failed) < 12
    assert proxy.injected == {kind: len(failed)}
    assert len(server.got) == 12 - len(failed)


def test_a_spent_bundle_gets_a_top_up_page_until_somebody_pays(server: Remembering) -> None:
    """200 and HTML to everything, nothing reaches the server; after the top-up the server answers again."""
    profile = made(budget=Budget(bytes_per_day=5_000, then="portal"))
    with weak(server, profile) as proxy:
        proxy.begin(NOON_MS, spent_bytes=5_000, top_up_at_ms=NOON_MS + 3_000)
        status, data, _ = once(proxy, 10, b"u" * 100)
        assert (status, data) == (200, PORTAL)
        assert server.got == []
        while data == PORTAL:
            status, data, _ = once(proxy, 10)
            assert proxy.now_ms() < NOON_MS + 20_000
        assert (status, data) == (200, b"x" * 10)
        assert proxy.now_ms() >= NOON_MS + 3_000
    assert proxy.injected["portal-page"] >= 1


def test_a_bundle_that_ends_in_an_exchange_ends_in_silence(server: Remembering) -> None:
    """The byte that is one too many does not come, and neither does any after it."""
    profile = made(budget=Budget(bytes_per_day=5_000, then="portal"))
    with weak(server, profile) as proxy:
        proxy.begin(NOON_MS)
        with pytest.raises(TimeoutError):
            once(proxy, 8_000, timeout_s=2.0)
        (exchange,) = proxy.exchanges
        assert exchange.fault == "budget-gone"
        assert exchange.up_bytes + exchange.down_bytes == 5_000
        assert once(proxy, 10)[1] == PORTAL


def test_a_throttled_bundle_goes_on_slowly(server: Remembering) -> None:
    """After the budget the rate is the throttled one."""
    profile = made(budget=Budget(bytes_per_day=2_000, then="throttle", throttle_kbps=80))
    with weak(server, profile) as proxy:
        proxy.begin(NOON_MS, spent_bytes=2_000)

        def take() -> float:
            status, data, took_s = once(proxy, 5_000)
            assert (status, len(data)) == (200, 5_000)
            return took_s

        assert 5_000 * 8 * OVERHEAD / 80_000 <= quickest_s(take, 0.6 + BUSY_S) < 0.6 + BUSY_S


def test_an_overloaded_front_says_503_and_when_to_come_back(server: Remembering) -> None:
    """At three times the load two thirds are turned away by something that is not our server."""
    peer = Peer(overload=3, during=(Window(days=EVERY_DAY, from_min=719, to_min=780),), retry_after_s=table(7))
    with weak(server, made(rtt_ms=table(1), peer=peer)) as proxy:
        proxy.begin(NOON_MS)
        said = []
        for _ in range(30):
            with client(proxy) as one:
                one.request("POST", "/5", b"u")
                reply = one.getresponse()
                reply.read()
            said.append(reply.status)
            if reply.status == 503:
                assert reply.headers["retry-after"] == "7"
                assert reply.headers["server"] == "overloaded-front"
                assert reply.headers["content-type"] == "text/plain"
    assert 12 <= said.count(503) <= 27
    assert said.count(200) == len(server.got) == 30 - proxy.injected["overload-503"]


def test_a_zero_rating_gateway_changes_requests_and_keeps_answers(server: Remembering) -> None:
    """Headers go and come, large bodies and other methods are refused, a GET is answered from memory."""
    gate = Gate(
        allow=("sync",),
        others="portal",
        tls="terminate",
        strip_headers=("if-none-match",),
        add_headers=("x-msisdn",),
        methods=("GET", "POST"),
        upgrade=False,
        max_body_kb=1,
        cache_get_s=30,
    )
    with weak(server, made(gate=gate)) as proxy:
        proxy.begin(NOON_MS)
        with client(proxy) as one:
            one.request("GET", "/20", headers={"If-None-Match": "a", "Upgrade": "websocket", "X-Ours": "1"})
            assert one.getresponse().read() == b"x" * 20
        seen = server.got[0][1]
        assert "if-none-match" not in seen
        assert "upgrade" not in seen
        assert (seen["x-msisdn"], seen["x-ours"]) == ("weaknet", "1")
        assert once(proxy, 20, method="GET")[1] == b"x" * 20
        assert len(server.got) == 1
        assert once(proxy, 20, b"u" * 2_000)[0] == 413
        assert once(proxy, 20, method="PUT")[0] == 405
    assert proxy.injected == {"gate-cached": 1, "gate-refused": 2}


def test_loss_holds_up_what_comes_after_it(server: Remembering) -> None:
    """A lossy link carries everything in order, slower by the retransmissions' waits."""
    profile = made(loss=Loss(g2b=0.2, b2g=0.3, bad=0.5, good=0), rtt_ms=table(80))
    with weak(server, profile) as proxy:
        proxy.begin(NOON_MS)
        status, data, took_s = once(proxy, 40_000)
    assert (status, data) == (200, b"x" * 40_000)
    assert proxy.injected["loss-stall"] >= 1
    assert took_s > 40_000 * 8 * OVERHEAD / 1_000_000 + 0.08


def test_a_request_that_a_middlebox_sends_again_reaches_the_server_twice(server: Remembering) -> None:
    """The phone hears one answer; the server sees the same bytes two times."""
    with weak(server, made(deliver=Deliver(duplicate=1, reorder=0))) as proxy:
        proxy.begin(NOON_MS)
        assert once(proxy, 10, b"u" * 50)[0] == 200
        while len(server.got) < 2:
            assert proxy.now_ms() < NOON_MS + 20_000
        assert server.got[0] == server.got[1]
    assert proxy.injected == {"twice": 1}


def test_a_stray_copy_comes_after_a_later_request(server: Remembering, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first request is seen again after the second."""
    monkeypatch.setattr(passage, "LATER_MS", 3_000)
    with weak(server, made(deliver=Deliver(duplicate=0, reorder=1))) as proxy:
        proxy.begin(NOON_MS)
        assert once(proxy, 1, b"u" * 50)[0] == once(proxy, 2, b"u" * 50)[0] == 200
        while len(server.got) < 3:
            assert proxy.now_ms() < NOON_MS + 20_000
    assert [request for request, _, _ in server.got[:3]] == ["POST /1", "POST /2", "POST /1"]


def test_same_seed_same_faults_other_seed_others(server: Remembering) -> None:
    """What happens to the connections in order depends on profile and seed alone."""
    cut = Cut(per_conn=0.4, rst=1, blackhole=0)
    profile = made(cut=cut, connect_fail=0.2, rtt_ms=table(1), up_kbps=table(40_000), down_kbps=table(40_000))

    def faults(seed: int) -> list[tuple[str | None, int]]:
        with weak(server, profile, seed=seed) as proxy:
            proxy.begin(NOON_MS)
            for _ in range(10):
                with suppress(OSError, http.client.HTTPException):  # exactly what is compared
                    once(proxy, 100, b"u" * 100)
            return [(exchange.fault, exchange.up_bytes) for exchange in proxy.exchanges]

    assert faults(5) == faults(5) != faults(6)


def test_before_begin_and_after_clear_nothing_is_done_to_anybody(server: Remembering) -> None:
    """The proxy is transparent outside its excerpt."""
    with weak(server, made(connect_fail=1, down_kbps=table(100))) as proxy:
        assert once(proxy, 50_000)[2] < 50_000 * 8 / 100_000 / 2
        proxy.begin(NOON_MS)
        with pytest.raises((OSError, http.client.HTTPException)):
            once(proxy, 10)
        proxy.clear()
        assert once(proxy, 10)[0] == 200
    assert proxy.injected == {"connect-fail": 1}
