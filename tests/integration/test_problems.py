"""Every row of the problem table (docs/protocol.md section 9), by real bytes against the real application."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import httpx
import pytest
from starlette.types import Receive, Scope, Send

from clientcore.exchange import MEDIA_TYPE, write_call, write_enrol, write_sync
from clientcore.frame import NO_PREV, ClockEvidence, FramedChange, seal_frame, write_bundle
from clientcore.keys import SigningKey, device_id
from clientcore.wire import pack
from syncserver import body as body_module
from syncserver.app import create_app
from syncserver.config import Config
from syncserver.entrance import LATER
from syncserver.problems import KINDS
from syncserver.quota import SAME_BYTES_PER_MINUTE
from tests.support.server.world import OTHER_SCHOOL, SCHOOL, TODAY, Phone, World, open_world

REGISTER = f"c-3a/{TODAY}/day"
ORDER = {"content-type": "application/octet-stream"}


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    """A server whose consumer stands still."""
    async with open_world(tmp_path / "store.db", background=False) as opened:
        yield opened


async def refused(world: World, path: str, body: bytes, slug: str, **headers: str) -> dict[str, object]:
    """Post and demand this problem, complete, with nothing stored."""
    before = await world.count("frames"), await world.count("changes")
    reply = await world.http.post(path, content=body, headers={"content-type": MEDIA_TYPE, **headers})
    document: dict[str, object] = reply.json()
    assert (reply.status_code, document["type"]) == (KINDS[slug].status, f"/problems/{slug}"), reply.text
    assert reply.headers["content-type"] == "application/problem+json"
    assert document["retry"] == KINDS[slug].retry
    assert document["safe"] is True
    assert {"title", "detail", "held", "status"} <= document.keys()
    assert ("retry-after" in reply.headers) == (reply.status_code in (429, 503))
    if slug != "revoked":
        assert (await world.count("frames"), await world.count("changes")) == before
    return document


def sealed(phone: Phone, **changed: object) -> bytes:
    """A sync body with one register, in a frame of which some fields are others than they should be."""
    change = phone.take(REGISTER, {"s001": "P"})
    fields: dict[str, object] = {
        "env": phone.me.env,
        "school": phone.me.school,
        "device": phone.me.device,
        "number": 1,
        "prev": NO_PREV,
        "clock": ClockEvidence(wall_ms=1, mono_ms=1, session=bytes(8)),
        "changes": [FramedChange(register=REGISTER, chunk=change.chunk)],
        "ask": None,
    }
    key = changed.pop("key", phone.key)
    return write_sync([seal_frame(key, **{**fields, **changed}).raw])  # type: ignore[arg-type]


async def test_declared_or_streamed_too_much_is_413(world: World) -> None:
    """A body over the limit is refused by its declared length, and as soon as it streams past it."""
    await refused(world, "/v1/sync", b"x" * 262_145, "too-large")

    async def stream() -> AsyncIterator[bytes]:
        for _ in range(5):
            yield b"x" * 65_536

    reply = await world.http.post("/v1/sync", content=stream(), headers={"content-type": MEDIA_TYPE})
    assert reply.json()["type"] == "/problems/too-large"


async def test_more_than_512_changes_in_a_request_is_413(world: World) -> None:
    """Changes are counted over all frames of a request, before any signature is looked at."""
    phone = await world.phone()
    chunk = phone.take(REGISTER, {"s001": "P"}).chunk
    frames = [phone.frame([(REGISTER, chunk[:12])] * 300, ask=False) for _ in range(2)]
    await refused(world, "/v1/sync", write_sync([frame.raw for frame in frames]), "too-many-changes")
    await refused(world, "/v1/sync", pack(["sync1", [b"x"] * 33]), "too-many-changes")


async def test_a_body_that_never_ends_is_408(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """A body that is not complete in time is given up."""
    monkeypatch.setattr(body_module, "BODY_DEADLINE_S", 0.01)

    async def stream() -> AsyncIterator[bytes]:
        yield b"x"
        await asyncio.Event().wait()

    reply = await world.http.post("/v1/sync", content=stream(), headers={"content-type": MEDIA_TYPE})
    assert (reply.status_code, reply.json()["type"]) == (408, "/problems/slow-body")


async def test_other_media_types_and_encodings_are_415(world: World) -> None:
    """Only our type is taken, never encoded: nothing can inflate here."""
    await refused(world, "/v1/sync", b"{}", "media-type", **{"content-type": "application/json"})
    await refused(world, "/v1/sync", b"{}", "media-type", **{"content-encoding": "gzip"})


@pytest.mark.parametrize(
    ("body", "slug"),
    [
        (b"", "bad-frame"),
        (b"\xc1", "bad-frame"),
        (pack(["sync1", [b"x" * 70]]) + b"\0", "bad-frame"),
        (b"\x82\xa1a\x01\xa1a\x02", "bad-frame"),
        (b"\x92\xa5sync1\x91\xcb" + bytes(8), "bad-frame"),
        (pack(["sync1", []]), "bad-frame"),
        (pack(["sync1", ["text"]]), "bad-frame"),
        (pack(["sync2", [b"x"]]), "version"),
        (pack(["sync1", [b"x"]]), "frame-limits"),
        (b"\x91" * 200_000, "frame-limits"),
        (b"\xdd\x7f\xff\xff\xff", "frame-limits"),
        (pack(["sync1", [b"\x91\xa6hudur2" + bytes(64)]]), "version"),
    ],
)
async def test_bytes_that_are_no_request_are_400(world: World, body: bytes, slug: str) -> None:
    """Truncated, doubled, nested, lying or foreign bytes get the row of the table they belong to."""
    document = await refused(world, "/v1/sync", body, slug)
    assert ("range" in document) == (slug == "version")


async def test_a_device_nobody_enrolled_is_401_rekey(world: World) -> None:
    """An unknown device is told to enrol again."""
    phone = await world.phone()
    stranger = SigningKey.generate()
    await refused(world, "/v1/sync", sealed(phone, key=stranger, device=device_id(stranger.public)), "unknown-device")


async def test_a_forged_frame_is_401(world: World) -> None:
    """A frame that names a device but was signed by another key stores nothing."""
    phone = await world.phone()
    await refused(world, "/v1/sync", sealed(phone, key=SigningKey.generate()), "bad-signature")


async def test_another_school_or_environment_is_401(world: World) -> None:
    """A frame made for another school or environment is refused although its signature is good."""
    phone = await world.phone()
    await refused(world, "/v1/sync", sealed(phone, school=OTHER_SCHOOL), "wrong-audience")
    await refused(world, "/v1/sync", sealed(phone, env="prod"), "wrong-audience")


async def test_frames_of_two_devices_need_a_bundle(world: World) -> None:
    """One sync request speaks for one device."""
    one, two = await world.phone(), await world.phone("t2", seed=2)
    frames = [phone.frame([], ask=False).raw for phone in (one, two)]
    await refused(world, "/v1/sync", write_sync(frames), "bad-frame")


async def test_a_revoked_device_is_403_and_its_work_is_kept_held(world: World) -> None:
    """Revocation refuses the device, never the work: the changes are stored as held, and told so."""
    phone = await world.phone()
    async with world.db.transaction() as tx:
        await tx.execute("UPDATE devices SET revoked_ms = ? WHERE id = ?", (world.clock.wall_ms(), phone.me.device))
    body = sealed(phone)
    assert (await refused(world, "/v1/sync", body, "revoked"))["held"] == 1
    assert await world.db.fetch_one("SELECT held FROM changes") == ("revoked",)
    assert (await refused(world, "/v1/sync", body, "revoked"))["held"] == 1
    assert await world.count("changes") == 1


async def test_a_user_withdrawn_upstream_is_revoked_at_once(world: World) -> None:
    """Rights are looked up when a change is stored, so an import that ends a user needs nothing to expire."""
    phone = await world.phone()
    async with world.db.transaction() as tx:
        await tx.execute("UPDATE users SET active = 0, ended_at_ms = 1 WHERE school = ? AND id = 't1'", (SCHOOL,))
    await refused(world, "/v1/sync", sealed(phone), "revoked")
    assert (await phone.call("devices")).json()["type"] == "/problems/revoked"


async def test_too_many_requests_of_one_device_are_429(tmp_path: Path) -> None:
    """A device over its quota is told when to come back; others are not touched, time gives it new tries."""
    config = Config(store=tmp_path / "store.db", device_burst=3, device_per_minute=60)
    async with open_world(tmp_path / "store.db", background=False, config=config) as world:
        phone, other = await world.phone(), await world.phone("t2", seed=2)
        for _ in range(3):
            await phone.sync()
        body = write_sync([phone.frame([]).raw])
        await refused(world, "/v1/sync", body, "slow-down")
        await other.sync()
        world.clock.advance(1_000)
        await phone.sync()


async def test_replayed_bytes_use_up_nobodys_quota(tmp_path: Path) -> None:
    """Old frames and calls, sent again by whoever has them, cost their device nothing, and are slowed by themselves."""
    config = Config(store=tmp_path / "store.db", device_burst=3, device_per_minute=60)
    async with open_world(tmp_path / "store.db", background=False, config=config) as world:
        champion = await world.phone("ch1", seed=2)
        frame = champion.frame([(REGISTER, champion.take(REGISTER, {"s001": "P"}).chunk)])
        await champion.send([frame])
        call = write_call(
            champion.key,
            env=champion.me.env,
            school=SCHOOL,
            device=champion.me.device,
            nonce=bytes(8),
            wall_ms=1,
            command="devices",
            args=[],
        )
        again = write_sync([frame.raw])
        for _ in range(SAME_BYTES_PER_MINUTE - 1):
            assert (await champion.post("/v1/sync", again)).status_code == 200
            assert (await champion.post("/v1/call", call)).json()["type"] == "/problems/stale-nonce"
        await champion.post("/v1/call", call)
        await refused(world, "/v1/sync", again, "slow-down")
        await refused(world, "/v1/call", call, "slow-down")
        await champion.sync()
        await champion.sync()
        await refused(world, "/v1/sync", write_sync([champion.frame([]).raw]), "slow-down")
        for _ in range(3):
            assert (await champion.call("devices")).status_code == 200
        assert (await champion.call("devices")).json()["type"] == "/problems/slow-down"


async def test_pushes_that_come_at_once_are_paid_for_afterwards(tmp_path: Path) -> None:
    """A burst over the quota goes into debt, so that in the long run no device gets more than its rate."""
    config = Config(store=tmp_path / "store.db", device_burst=2, device_per_minute=60)
    async with open_world(tmp_path / "store.db", background=False, config=config) as world:
        phone = await world.phone()
        bodies = [write_sync([phone.frame([], ask=False).raw]) for _ in range(5)]
        replies = await asyncio.gather(*(phone.post("/v1/sync", body) for body in bodies))
        taken = sum(reply.status_code == 200 for reply in replies)
        assert 2 <= taken <= 5
        world.clock.advance(1_000 * (taken - 2))
        await refused(world, "/v1/sync", write_sync([phone.frame([], ask=False).raw]), "slow-down")
        world.clock.advance(1_000)
        await phone.sync()


async def test_a_full_queue_is_503_busy(tmp_path: Path) -> None:
    """Beyond the hard bound the server sheds: nothing is stored, nothing is decided, Retry-After says when."""
    config = Config(store=tmp_path / "store.db", inside_max=1, waiting_max=1)
    async with open_world(tmp_path / "store.db", background=False, config=config) as world:
        phone = await world.phone()
        inside = await world.server.entrance.enter(LATER, 0)
        waiting = asyncio.create_task(phone.post("/v1/sync", sealed(phone)))
        while not world.server.entrance.waiting:
            await asyncio.sleep(0)
        assert "work is safe" in str((await refused(world, "/v1/sync", sealed(phone) + bytes(1_000), "busy"))["detail"])
        world.server.entrance.leave(inside)
        assert (await waiting).status_code == 200


async def test_calls_have_their_own_refusals(world: World) -> None:
    """A teacher may not give a champion's command; an old nonce is answered with the one to use."""
    teacher = await world.phone()
    assert (await teacher.call("devices")).json()["type"] == "/problems/forbidden"
    champion = await world.phone("ch1", seed=2)
    good, champion.nonce = champion.nonce, bytes(8)
    reply = await champion.call("devices")
    assert (reply.status_code, reply.json()["type"], reply.json()["retry"]) == (409, "/problems/stale-nonce", "same")
    assert reply.json()["nonce"] == (good or b"").hex()
    champion.nonce = bytes.fromhex(reply.json()["nonce"])
    assert (await champion.call("devices")).status_code == 200
    assert (await champion.call("no-such-command")).json()["type"] == "/problems/bad-frame"
    champion.key = SigningKey.generate()
    assert (await champion.call("devices")).json()["type"] == "/problems/bad-signature"


async def test_bundles_that_are_none_or_another_schools(world: World) -> None:
    """A file of something else is `not-an-export`; one that holds only another school's frames is `relay-scope`."""
    champion = await world.phone("ch1", seed=2)
    stranger = await world.phone("t1", school=OTHER_SCHOOL, seed=3)
    assert (await champion.call("bundle", b"PK\x03\x04", path="/v1/bundles")).json()[
        "type"
    ] == "/problems/not-an-export"
    foreign = write_bundle([stranger.frame([], ask=False).raw])
    await champion.sync()
    reply = await champion.call("bundle", foreign, path="/v1/bundles")
    assert (reply.status_code, reply.json()["type"]) == (403, "/problems/relay-scope")


async def test_enrolment_refuses_forged_requests(world: World) -> None:
    """Who does not own the key it brings is refused before any code is looked at."""
    good = write_enrol(SigningKey.generate(), school=SCHOOL, code="BCDFGHJKLM", label="x", app="t")
    await refused(world, "/v1/enrol", good[:-1] + bytes((good[-1] ^ 1,)), "bad-signature")
    await refused(world, "/v1/enrol", good + b"x" * 1_100, "too-large")


async def test_unknown_paths_and_methods_are_problems_too(world: World) -> None:
    """Nothing of this server answers in another form."""
    assert (await world.http.get("/nothing")).json()["type"] == "/problems/not-found"
    assert (await world.http.get("/v1/sync")).json()["type"] == "/problems/method"
    assert (await world.http.get("/v1/events?after=x")).json()["type"] == "/problems/bad-request"


async def test_operator_routes_need_the_token_when_there_is_one(tmp_path: Path) -> None:
    """With a token set, events, metrics and orders are for who has it."""
    config = replace(Config(store=tmp_path / "store.db"), operator_token="secret")
    async with open_world(tmp_path / "store.db", background=False, config=config) as world:
        for path in ("/v1/events", "/metrics"):
            assert (await world.http.get(path)).status_code == 401
            assert (await world.http.get(path, headers={"authorization": "Bearer wrong"})).status_code == 401
            assert (await world.http.get(path, headers={"authorization": "Bearer secret"})).status_code == 200
        assert (await world.http.post("/v1/operator/devices", headers=ORDER)).json()["type"] == "/problems/operator"
        assert (await world.http.get("/healthz")).status_code == 200


async def test_a_foreign_page_cannot_give_orders_in_an_operators_browser(world: World) -> None:
    """Without a token: no simple cross-site request, no foreign name that points here."""
    simple = await world.http.post("/v1/operator/devices", headers={"content-type": "text/plain"}, content=b"")
    assert simple.json()["type"] == "/problems/media-type"
    for path in ("/v1/events", "/metrics"):
        rebound = await world.http.get(path, headers={"host": "evil.example"})
        assert rebound.json()["type"] == "/problems/operator"


@pytest.mark.parametrize("path", ["/v1/events", "/metrics"])
@pytest.mark.parametrize(
    "header", ["forwarded", "via", "x-real-ip", "x-forwarded-for", "x-forwarded-host", "x-forwarded-proto"]
)
async def test_without_a_token_a_proxy_on_this_machine_opens_nothing(world: World, path: str, header: str) -> None:
    """Whoever speaks for others needs the token, although it is a loopback peer under a loopback name."""
    assert (await world.http.get(path)).status_code == 200
    assert (await world.http.get(path, headers={header: "127.0.0.1"})).json()["type"] == "/problems/operator"
    order = await world.http.post("/v1/operator/devices", headers={**ORDER, header: "127.0.0.1"})
    assert order.json()["type"] == "/problems/operator"


async def test_without_a_token_the_peer_itself_is_on_this_machine(world: World) -> None:
    """A foreign peer that says a loopback name, and the HTTP/1.0 of a bare proxy, are refused."""
    app = create_app(world.server)
    for client in (("10.0.0.7", 4_000), ("2001:db8::1", 4_000)):
        transport = httpx.ASGITransport(app=app, client=client)
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as http:
            assert (await http.get("/v1/events")).json()["type"] == "/problems/operator"

    async def older(scope: Scope, receive: Receive, send: Send) -> None:
        await app({**scope, "http_version": "1.0"}, receive, send)

    async with httpx.AsyncClient(transport=httpx.ASGITransport(app=older), base_url="http://127.0.0.1") as http:
        assert (await http.get("/v1/events")).json()["type"] == "/problems/operator"


async def test_a_fault_of_ours_is_a_problem_and_quotes_nothing(
    world: World, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Whatever breaks: the device learns that its work is safe and when to come; the log has the place, no data."""
    phone = await world.phone()
    secret = "secret-of-a-pupil"

    async def breaks(*_: object) -> bytes:
        raise ValueError(secret)

    monkeypatch.setattr(world.server.intake, "commit", breaks)
    body = sealed(phone)
    reply = await world.http.post("/v1/sync", content=body, headers={"content-type": MEDIA_TYPE})
    document = reply.json()
    assert (reply.status_code, document["type"], document["retry"]) == (500, "/problems/fault", "after")
    assert document["safe"] is True
    assert int(reply.headers["retry-after"]) > 0
    assert reply.headers["content-type"] == "application/problem+json"
    assert reply.headers["x-content-type-options"] == "nosniff"
    assert secret not in reply.text + caplog.text
    assert "test_problems.py" in caplog.text
    assert 'hudur_problems_total{slug="fault"} 1.0' in (await world.http.get("/metrics")).text
    assert 'hudur_requests_total{route="/v1/sync",status="500"} 1.0' in (await world.http.get("/metrics")).text


async def test_the_lag_is_told_when_the_consumer_stands_still(world: World) -> None:
    """Offsets and seconds are counted at the scrape, not by the consumer that may be stuck."""
    phone = await world.phone()
    await phone.sync((REGISTER, phone.take(REGISTER, {"s001": "P"})))
    world.clock.advance(90_000)
    text = (await world.http.get("/metrics")).text
    assert "hudur_consumer_lag_offsets 1.0" in text
    assert "hudur_consumer_lag_seconds 90.0" in text
    await world.settle()
    text = (await world.http.get("/metrics")).text
    assert "hudur_consumer_lag_offsets 0.0" in text
    assert "hudur_consumer_lag_seconds 0.0" in text
