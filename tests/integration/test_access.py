"""Tokens of offices and programs: granted once, known by their digest, bound to their schools, taken back."""

from __future__ import annotations

import hashlib
import json
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from syncserver.config import Config
from tests.support.server.orders import ORDER_TYPE, ask, ask_with, give, operator, refused, token
from tests.support.server.world import OTHER_SCHOOL, SCHOOL, TODAY, World, open_world

REGISTER = f"c-3a/{TODAY}/day"


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    """A server whose consumer is moved by hand."""
    async with open_world(tmp_path / "store.db", background=False) as opened:
        yield opened


async def status(world: World, path: str, bearer: str, **params: str) -> int:
    """Status of a GET with a token."""
    reply = await world.http.get(path, params=params, headers={"authorization": f"Bearer {bearer}"})
    return reply.status_code


async def test_a_token_is_shown_once_and_kept_as_a_digest(world: World) -> None:
    """Not in the table, not in the list, not in the audit: whoever reads the store cannot speak for anybody."""
    made = await operator(world, "access-grant", name="sis", role="consumer", schools=[SCHOOL], reason="pilot")
    shown = str(made["token"])
    assert len(bytes.fromhex(shown.removeprefix("hudur_"))) * 8 >= 128
    rows = await world.db.fetch_all("SELECT * FROM tokens")
    assert rows[0][1] == hashlib.sha256(shown.encode()).digest()
    listed = await operator(world, "access-list")
    audit = await world.db.fetch_all("SELECT * FROM audit")
    assert shown not in f"{rows}{listed}{audit}"
    assert [(row[2], row[3], row[4], row[5]) for row in audit] == [
        ("operator", "access-grant", "token:sis", "pilot"),
    ]
    assert await status(world, "/v1/events", shown) == 200


async def test_a_revoked_token_opens_nothing_and_its_name_is_used_up(world: World) -> None:
    """From the next request on; and nobody else becomes `sis` in the audit."""
    shown = await token(world, "sis", "consumer")
    assert await status(world, "/v1/events", shown) == 200
    await operator(world, "access-revoke", name="sis", reason="the contract ended")
    reply = await world.http.get("/v1/events", headers={"authorization": f"Bearer {shown}"})
    assert (reply.status_code, reply.json()["type"]) == (401, "/problems/operator")
    assert reply.headers["www-authenticate"] == "Bearer"
    again = await ask_with(world, shown, "access-grant", name="sis", role="consumer", all=True)
    assert again.status_code == 401
    with pytest.raises(AssertionError, match="belongs to one holder for ever"):
        await token(world, "sis", "consumer")


@pytest.mark.parametrize(
    ("args", "code"),
    [
        ({"name": "x", "role": "operator", "all": True}, "bad-request"),
        ({"name": "x", "role": "champion", "schools": [SCHOOL]}, "bad-request"),
        ({"name": "Amal Hassan", "role": "auditor", "all": True}, "bad-request"),
        ({"name": "x", "role": "auditor"}, "bad-request"),
        ({"name": "x", "role": "auditor", "all": True, "schools": [SCHOOL]}, "bad-request"),
        ({"name": "x", "role": "auditor", "schools": ["nowhere"]}, "not-found"),
        ({"name": "x", "role": "auditor", "schools": [7]}, "bad-request"),
        ({"name": "x", "role": "district", "district": "nowhere"}, "not-found"),
    ],
)
async def test_what_cannot_be_granted(world: World, args: dict[str, object], code: str) -> None:
    """No operators, no people of a school, no scope that is empty, double or unknown."""
    reply = await world.http.post(
        "/v1/operator/access-grant",
        params={"args": json.dumps(args)},
        headers=ORDER_TYPE,
    )
    assert reply.json()["type"] == f"/problems/{code}"
    assert await world.count("tokens") == 0


async def test_a_wrong_token_does_not_become_the_operator_at_home(world: World) -> None:
    """On this machine nobody needs a token; whoever shows one is judged by it."""
    assert (await world.http.get("/v1/events")).status_code == 200
    for shown in ("nonsense", "", "hudur_" + "0" * 40):
        assert await status(world, "/v1/events", shown) == 401


async def test_beside_the_operators_token(tmp_path: Path) -> None:
    """Where the operator has a token, granted ones work as well, and nothing works without one."""
    config = replace(Config(store=tmp_path / "store.db"), operator_token="secret")
    async with open_world(tmp_path / "store.db", background=False, config=config) as world:
        assert (await world.http.get("/metrics")).status_code == 401
        assert await status(world, "/metrics", "secret") == 200
        made = await ask_with(world, "secret", "access-grant", name="inspection", role="auditor", all=True)
        shown = made.json()["token"]
        assert await status(world, "/metrics", shown) == 200
        await ask_with(world, "secret", "access-revoke", name="inspection", reason="over")
        assert await status(world, "/metrics", shown) == 401


async def test_a_consumer_reads_its_own_schools_only(world: World) -> None:
    """One school or several: their feed without asking for it, or one of them. Never another's."""
    for seed, school in enumerate((SCHOOL, OTHER_SCHOOL), 1):
        phone = await world.phone(school=school, seed=seed)
        await phone.sync((REGISTER, phone.take(REGISTER, {"s001": "P"})))
    await world.settle()
    one = await token(world, "one", "consumer", schools=[SCHOOL])
    reply = await world.http.get("/v1/events", headers={"authorization": f"Bearer {one}"})
    assert [event["subject"].partition("/")[0] for event in reply.json()] == [SCHOOL]
    other = await world.http.get(
        "/v1/events", params={"school": OTHER_SCHOOL}, headers={"authorization": f"Bearer {one}"}
    )
    assert (other.status_code, other.json()["rule"]) == (403, "other-school")
    both = await token(world, "both", "consumer", schools=[SCHOOL, OTHER_SCHOOL])
    reply = await world.http.get("/v1/events", headers={"authorization": f"Bearer {both}"})
    assert {event["subject"].partition("/")[0] for event in reply.json()} == {SCHOOL, OTHER_SCHOOL}
    assert await status(world, "/v1/events", both, school=OTHER_SCHOOL) == 200
    every = await token(world, "every", "consumer")
    assert await status(world, "/v1/events", every, school=OTHER_SCHOOL) == 200


async def test_a_district_speaks_about_the_schools_it_has_today(world: World) -> None:
    """A school that moves to another district moves with its next request."""
    async with world.db.transaction() as tx:
        await tx.execute("INSERT INTO places VALUES (?, 'shibin', 'menoufia', 1)", (SCHOOL,))
    shown = await token(world, "shibin", "district", district="shibin")
    assert (await ask_with(world, shown, "devices", school=SCHOOL)).status_code == 200
    assert (await ask_with(world, shown, "devices", school=OTHER_SCHOOL)).status_code == 403
    async with world.db.transaction() as tx:
        await tx.execute("UPDATE places SET district = 'ashmoun'")
    assert (await ask_with(world, shown, "devices", school=SCHOOL)).status_code == 403


async def test_a_champions_phone_gives_orders_about_its_own_school(world: World) -> None:
    """The same table as over HTTP; the actor in the audit is the person."""
    phone = await world.phone("ch1")
    assert (await give(phone, "devices", school=SCHOOL))["devices"]
    other = await ask(phone, "devices", school=OTHER_SCHOOL)
    assert (other.status_code, other.json()["rule"]) == (403, "other-school")
    assert (await ask(phone, "access-list")).json()["rule"] == "role"
    assert (await ask(phone, "no-such-order")).json()["type"] == "/problems/not-found"
    made = await give(phone, "code", user=f"{SCHOOL}/t1")
    assert made["school"] == SCHOOL
    actors = await world.db.fetch_all("SELECT actor FROM audit WHERE action = 'code' ORDER BY id")
    assert actors[-1] == (f"user:{SCHOOL}/ch1",)


async def test_arguments_that_are_no_object_are_refused(world: World) -> None:
    """Also when they are nested beyond reason."""
    phone = await world.phone("ch1")
    for written in ("[]", "nonsense", "[" * 12_000):
        reply = await phone.call("order", "devices", written)
        if reply.json()["type"] == "/problems/stale-nonce":
            phone.nonce = bytes.fromhex(reply.json()["nonce"])
            reply = await phone.call("order", "devices", written)
        assert reply.json()["type"] == "/problems/bad-request"


async def test_the_role_is_that_of_today(world: World) -> None:
    """A teacher who became champion gives a champion's orders with the same phone, and the other way round."""
    phone = await world.phone("t1")
    assert (await ask(phone, "devices", school=SCHOOL)).status_code == 403
    async with world.db.transaction() as tx:
        await tx.execute("UPDATE users SET role = 'champion' WHERE school = ? AND id = 't1'", (SCHOOL,))
    assert (await ask(phone, "devices", school=SCHOOL)).status_code == 200


async def test_nobody_releases_their_own_stolen_phone(world: World) -> None:
    """A champion revokes any phone of the school; taking it back is another's decision when it is one's own."""
    phone, second = await world.phone("ch1"), await world.phone("ch1", seed=2)
    theft = {"device": second.me.device.hex(), "reason": "stolen"}
    assert (await give(phone, "revoke", **theft))["revoked"]
    reply = await ask(phone, "revoke", **theft, undo=True)
    assert (reply.status_code, reply.json()["rule"]) == (409, "own-work")
    assert (await world.order("revoke", **theft, undo=True))["revoked"] is False


async def test_a_champion_cannot_become_the_other_champion(world: World) -> None:
    """Whoever could enrol as the second champion would approve their own late marks; a code for oneself is fine."""
    async with world.db.transaction() as tx:
        await tx.execute("INSERT INTO users VALUES (?, 'ch2', 'منسق ثان', 'champion', NULL, NULL, 1, NULL)", (SCHOOL,))
    phone = await world.phone("ch1", seed=41)
    said = await refused(phone, "code", user=f"{SCHOOL}/ch2")
    assert (said["rule"], said["who"]) == ("code-for-champion", "operator")
    reply = await phone.call("code", "ch2")
    if reply.status_code == 409 and reply.json()["type"] == "/problems/stale-nonce":
        phone.nonce = bytes.fromhex(reply.json()["nonce"])
        reply = await phone.call("code", "ch2")
    assert reply.json()["rule"] == "code-for-champion"
    assert (await give(phone, "code", user=f"{SCHOOL}/ch1"))["user"] == "ch1"
    assert (await world.order("code", user=f"{SCHOOL}/ch2"))["user"] == "ch2"
