"""Orders through the doors of people: a phone's signed call, and a token over HTTP."""

from __future__ import annotations

import json
from typing import Any

import httpx

from clientcore.limits import BUNDLE_BYTES_MAX
from clientcore.wire import unpack
from tests.support.server.phone import Phone
from tests.support.server.world import World

ORDER_TYPE = {"content-type": "application/octet-stream"}


async def ask(phone: Phone, name: str, /, **args: object) -> httpx.Response:
    """The raw reply to an order given by a phone."""
    reply = await phone.call("order", name, json.dumps(args))
    if reply.status_code == 409 and reply.json()["type"] == "/problems/stale-nonce":  # a refused call used it up
        phone.nonce = bytes.fromhex(reply.json()["nonce"])
        reply = await phone.call("order", name, json.dumps(args))
    return reply


async def give(phone: Phone, name: str, /, **args: object) -> dict[str, Any]:
    """An order given by a phone that must be carried out."""
    reply = await ask(phone, name, **args)
    assert reply.status_code == 200, reply.text
    payload = unpack(reply.content, bytes_max=BUNDLE_BYTES_MAX)[3]
    result: dict[str, Any] = json.loads(unpack(payload, bytes_max=BUNDLE_BYTES_MAX))
    return result


async def refused(phone: Phone, name: str, /, **args: object) -> dict[str, Any]:
    """An order of a phone that a rule must stand against; the problem document."""
    reply = await ask(phone, name, **args)
    document: dict[str, Any] = reply.json()
    assert document["type"] == "/problems/rule", document
    assert document["rule"]
    assert document["who"]
    assert document["ar"]
    return document


async def token(world: World, name: str, role: str, **scope: object) -> str:
    """A granted token."""
    made = await operator(world, "access-grant", name=name, role=role, **(scope or {"all": True}))
    return str(made["token"])


async def operator(world: World, order: str, /, **args: object) -> dict[str, Any]:
    """An order of the operator at the machine that must be carried out; also one with an argument `name`."""
    reply = await world.http.post(f"/v1/operator/{order}", params={"args": json.dumps(args)}, headers=ORDER_TYPE)
    assert reply.status_code == 200, reply.text
    result: dict[str, Any] = reply.json()
    return result


async def ask_with(world: World, bearer: str, order: str, /, **args: object) -> httpx.Response:
    """The raw reply to an order given with a token."""
    return await world.http.post(
        f"/v1/operator/{order}",
        params={"args": json.dumps(args)},
        headers={**ORDER_TYPE, "authorization": f"Bearer {bearer}"},
    )
