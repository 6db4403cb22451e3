"""Role x door x school, written out: who may do what. Every order and every route has its row, through the real app.

A row names the roles that may, in words, and whether it is about one school or about all. From that follow two columns:
the own school, and another one. Who is bound to some schools (people with a phone, tokens granted for a school or a
district) may speak about those; who is bound to none, about any. What is about every school is for the unbound.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.routing import Route

from syncserver.app import create_app
from syncserver.orders import ORDERS
from syncserver.pages import Pages
from tests.support.server.orders import ORDER_TYPE, ask, operator, token
from tests.support.server.world import OTHER_SCHOOL, SCHOOL, TODAY, Phone, World, open_world, tables

OWN, OTHER = SCHOOL, OTHER_SCHOOL
ONE, EVERY = "one school", "every school"
READERS = "champion district central auditor operator"
DECIDERS = "champion central"
KEEPERS = "operator"
OFFICES = "central operator"


@dataclass(frozen=True)
class Row:
    """Who may give an order, what it is about, and arguments that say so (`{school}`, `{device}` stand for each)."""

    able: str
    about: str = ONE
    args: Mapping[str, Any] = field(default_factory=lambda: {"school": "{school}"})


REGISTER = {"register": f"{{school}}/c-3a/{TODAY}/day"}
TABLE: dict[str, Row] = {
    # tokens
    "access-grant": Row(KEEPERS, EVERY, {"role": "nothing"}),
    "access-list": Row("auditor operator", EVERY),
    "access-revoke": Row(KEEPERS, EVERY, {"name": "unknown", "reason": "x"}),
    # keeping a server and helping a school
    "archive": Row(KEEPERS, EVERY, {}),
    "code": Row("champion operator", ONE, {"user": "{school}/t1"}),
    "devices": Row(READERS),
    "dlq-requeue": Row(KEEPERS, EVERY, {"id": 7}),
    "resync": Row("champion operator", ONE, {"target": "{device}", "level": "nudge", "reason": "x"}),
    "revoke": Row("champion operator", ONE, {"device": "{device}", "reason": "x"}),
    "roster-import": Row(KEEPERS, EVERY, {}),
    # who may mark, and what waits
    "delegate": Row("teacher champion", ONE, {"school": "{school}", "to": "t2", "reason": "x"}),
    "delegation-end": Row("teacher champion", ONE, {"id": "d-{school}", "reason": "x"}),
    "delegations": Row(f"teacher {READERS}"),
    "held": Row(READERS),
    "release": Row(DECIDERS, ONE, {**REGISTER, "change": "0" * 64, "reason": "x"}),
    "release-undo": Row(DECIDERS, ONE, {**REGISTER, "change": "0" * 64, "reason": "x"}),
    # adjustments, disputes, identity, bulk operations
    "adjustment-approve": Row(DECIDERS, ONE, REGISTER),
    "adjustment-reject": Row(DECIDERS, ONE, REGISTER),
    "adjustments": Row(READERS),
    "bulk-apply": Row(DECIDERS),
    "bulk-preview": Row(READERS),
    "bulk-second": Row("champion district central"),
    "bulk-undo": Row(DECIDERS),
    "bulks": Row(READERS),
    "dispute-settle": Row(DECIDERS, ONE, REGISTER),
    "disputes": Row(READERS),
    "duplicates": Row(READERS),
    "explain": Row(READERS, ONE, {**REGISTER, "pupil": "s001"}),
    "pupil-merge": Row(DECIDERS),
    "pupil-merge-undo": Row(DECIDERS),
    "pupil-merges": Row(READERS),
    # calendar: never a school's own
    "calendar": Row(OFFICES, EVERY),
    "calendar-import": Row(OFFICES, EVERY),
    "calendar-week": Row(OFFICES, EVERY),
    "place": Row(OFFICES, EVERY),
    "timetable": Row(OFFICES, EVERY),
    # paper, parity, gate: nobody can start, stop or override the gate
    "gate": Row(READERS),
    "paper-enter": Row("champion operator", ONE, REGISTER),
    "paper-import": Row(KEEPERS, EVERY),
    "paper-list": Row(READERS),
    "paper-rule": Row(OFFICES, EVERY),
    "parity": Row(READERS),
    "parity-evaluate": Row(KEEPERS, EVERY),
    # reports, printed sheets, exports
    "export-codes": Row("consumer central auditor operator", ONE, {"school": "{school}", "standard": "x"}),
    "export-register": Row("central auditor operator", ONE, {"register": "{school}/c-3a/2026-11-22/day"}),
    "export-school": Row(OFFICES),
    "import-school": Row(KEEPERS, EVERY, {}),
    "report": Row(READERS, ONE, {"kind": "school", "school": "{school}"}),
    "sheet": Row("teacher champion operator", ONE, {"register": "{school}/c-3a"}),
    "sheet-find": Row("champion operator", ONE, {"school": "{school}", "code": "x"}),
    # who is sent events
    "sink-add": Row(OFFICES, EVERY, {"name": "unknown"}),
    "sink-list": Row("central auditor operator", EVERY, {}),
    "sink-pause": Row(OFFICES, EVERY, {"name": "unknown", "reason": "x"}),
    "sink-remove": Row(OFFICES, EVERY, {"name": "unknown", "reason": "x"}),
    "sink-requeue": Row(OFFICES, EVERY, {"name": "unknown", "from": 1, "reason": "x"}),
    "sink-resume": Row(OFFICES, EVERY, {"name": "unknown", "reason": "x"}),
    # the school system
    "reconcile": Row(OFFICES, EVERY, {}),
    "upstream-pull": Row(KEEPERS, EVERY, {}),
    "upstream-requeue": Row(OFFICES, EVERY, {"id": 7, "reason": "x"}),
    "upstream-status": Row("central auditor operator", EVERY, {}),
    # audit
    "audit": Row("central auditor operator", EVERY),
    "audit-verify": Row("central auditor operator", EVERY),
    "dlq-causes": Row("auditor operator", EVERY),
}

ANYBODY = "anybody"  # open by intent
DEVICES = "devices"  # a signature of an enrolled device; no token is one
TOKENS = "tokens"  # the orders above
ROUTES: dict[str, tuple[str, str]] = {
    "/v1/sync": (DEVICES, ONE),
    "/v1/enrol": (DEVICES, ONE),
    "/v1/call": (DEVICES, ONE),
    "/v1/bundles": (DEVICES, ONE),
    "/v1/operator/{order}": (TOKENS, ONE),
    "/v1/events": ("consumer auditor operator", ONE),
    "/v1/reports/class": ("district central auditor operator", ONE),
    "/v1/reports/school": ("district central auditor operator", ONE),
    "/v1/reports/district": ("district central auditor operator", ONE),
    "/metrics": ("auditor operator", EVERY),
    "/v1/schemas/{name}": (ANYBODY, EVERY),  # the form of events, none of their content
    "/v1/calendar.ics": (ANYBODY, EVERY),  # what every family may know: open days; nothing of persons or registers
    "/status": (ANYBODY, EVERY),  # what everybody may know of the server; no school, no person
    "/v1/status": (ANYBODY, EVERY),
    "/healthz": (ANYBODY, EVERY),
    "/readyz": (ANYBODY, EVERY),
    "/openapi.json": (ANYBODY, EVERY),
}

CALLS: dict[str, tuple[str, list[Any]]] = {
    "devices": ("champion", []),
    "users": ("champion", []),
    "code": ("champion", ["t1"]),
    "resync": ("champion", [None, "nudge", "x"]),
    "order": ("champion teacher", ["delegations", json.dumps({"school": SCHOOL})]),
}

PHONES = ("teacher", "champion")
TOKEN_ROLES = ("district", "central", "auditor", "consumer")
STRANGERS = ("nobody", "wrong token", "revoked token")
SPEAKERS = (*STRANGERS, *PHONES, *TOKEN_ROLES, *(f"{role} of all" for role in TOKEN_ROLES), "operator")


@dataclass(slots=True)
class Doors:
    """Everybody who may try, with what they hold."""

    world: World
    phones: dict[str, Phone]
    tokens: dict[str, str]
    devices: dict[str, str]

    def headers(self, who: str) -> dict[str, str]:
        if who == "nobody":
            return {"x-forwarded-for": "192.0.2.7"}  # comes through a proxy, without any token
        return {"authorization": f"Bearer {self.tokens[who]}"} if who != "operator" else {}

    def args(self, row: Row, school: str) -> dict[str, Any]:
        names = {"{school}": school, "{device}": self.devices[school]}
        found = json.dumps(dict(row.args))
        for name, value in names.items():
            found = found.replace(name, value)
        return dict(json.loads(found))

    async def order(self, who: str, name: str, args: dict[str, Any]) -> httpx.Response:
        if who in PHONES:
            return await ask(self.phones[who], name, **args)
        return await self.world.http.post(
            f"/v1/operator/{name}", params={"args": json.dumps(args)}, headers={**ORDER_TYPE, **self.headers(who)}
        )

    async def everything(self) -> dict[str, list[Any]]:
        """The whole store, but for what every signed call renews on its own device."""
        rows = {name: await self.world.db.fetch_all(f"SELECT * FROM {name}") for name in tables() if name != "devices"}
        rows["devices"] = await self.world.db.fetch_all("SELECT id, revoked_ms, flag FROM devices ORDER BY id")
        return rows


@pytest.fixture
async def doors(tmp_path: Path) -> AsyncIterator[Doors]:
    """Two schools, phones in the first, a device and a delegation in each, tokens of every role."""
    async with open_world(tmp_path / "store.db", background=False) as world:
        phones = {"teacher": await world.phone("t1"), "champion": await world.phone("ch1", seed=2)}
        others = {school: await world.phone("t2", school=school, seed=n) for n, school in enumerate((OWN, OTHER), 3)}
        async with world.db.transaction() as tx:
            await tx.execute("INSERT INTO places VALUES (?, 'd1', 'g1', 1)", (OWN,))
            await tx.executemany(
                "INSERT INTO delegations VALUES (?, ?, 'c-3a', 't1', 't2', 1, 2, 'x', 1, NULL, 1)",
                [(f"d-{school}", school) for school in (OWN, OTHER)],
            )
        tokens = {"wrong token": "hudur_" + "0" * 40}
        for role in TOKEN_ROLES:
            bound: dict[str, object] = {"district": "d1"} if role == "district" else {"schools": [OWN]}
            tokens[role] = await token(world, role, role, **bound)
            tokens[f"{role} of all"] = await token(world, f"{role}-all", role)
        tokens["revoked token"] = await token(world, "gone", "central")
        await operator(world, "access-revoke", name="gone", reason="x")
        devices = {school: phone.me.device.hex() for school, phone in others.items()}
        yield Doors(world=world, phones=phones, tokens=tokens, devices=devices)


def may(who: str, able: str, about: str, school: str) -> bool:
    """What the row says of a speaker and a school."""
    unbound = who == "operator" or who.endswith(" of all")
    return who.removesuffix(" of all") in able.split() and (unbound or (about == ONE and school == OWN))


def check_refused(who: str, reply: httpx.Response) -> None:
    """401 for whom nobody knows, 403 for who may not; as a problem that says what would help."""
    assert reply.headers["content-type"] == "application/problem+json"
    document = reply.json()
    if who in STRANGERS:
        assert (reply.status_code, document["type"]) == (401, "/problems/operator"), (who, document)
    else:
        assert (reply.status_code, document["type"]) == (403, "/problems/forbidden"), (who, document)
        assert document["rule"] in ("role", "other-school", "every-school")
        assert document["who"]


def test_every_order_has_its_row() -> None:
    """A new order without one fails here."""
    assert set(TABLE) == set(ORDERS)


async def test_every_route_has_its_row(tmp_path: Path) -> None:
    """A new route without one fails here; the phone's page is open and is no part of the table."""
    async with open_world(tmp_path / "store.db", background=False) as world:
        app = create_app(world.server, pages=Pages(by_path={}, policy=""))
        assert {route.path for route in app.routes if isinstance(route, Route)} - {"/"} == set(ROUTES)


@pytest.mark.parametrize("name", sorted(TABLE))
async def test_who_may_give_an_order(doors: Doors, name: str) -> None:
    """Refused: said so, and nothing happened. Allowed: it comes as far as the order itself."""
    row = TABLE[name]
    tries = [(who, school) for who in SPEAKERS for school in (OWN, OTHER)]
    before = await doors.everything()
    for who, school in tries:
        if not may(who, row.able, row.about, school):
            check_refused(who, await doors.order(who, name, doors.args(row, school)))
    assert await doors.everything() == before
    for who, school in tries:
        if may(who, row.able, row.about, school):
            reply = await doors.order(who, name, doors.args(row, school))
            assert reply.status_code in (200, 400, 404, 409, 413, 415), (who, school, reply.text)


@pytest.mark.parametrize("path", sorted(ROUTES))
async def test_who_may_use_a_route(doors: Doors, path: str) -> None:
    """Open ones answer anybody; those of devices take no token for a signature; the others keep to role and school."""
    able, about = ROUTES[path]
    for who in (one for one in SPEAKERS if one not in PHONES):
        headers = doors.headers(who)
        if able == DEVICES:
            reply = await doors.world.http.post(path, content=b"\x90", headers=headers)
            assert reply.status_code == 415
        elif able == TOKENS:
            reply = await doors.world.http.post(path.format(order="x"), headers={**ORDER_TYPE, **headers})
            assert reply.status_code == (401 if who in STRANGERS else 404)
        elif able == ANYBODY:
            address = path.format(name="eg.hudur.mark.recorded.v1.json")
            assert (await doors.world.http.get(address, headers=headers)).status_code in (200, 400, 503)
        else:
            for school in (OWN, OTHER):
                reply = await doors.world.http.get(path, params={"school": school}, headers=headers)
                if may(who, able, about, school):
                    assert reply.status_code == 200, (who, school)
                else:
                    check_refused(who, reply)


@pytest.mark.parametrize("command", sorted(CALLS))
async def test_who_may_give_a_signed_command(doors: Doors, command: str) -> None:
    """The commands of a phone that are no orders, and the one that gives orders."""
    able, args = CALLS[command]
    for who in PHONES:
        reply = await doors.phones[who].call(command, *args)
        assert (reply.status_code == 200) == (who in able.split())
        assert reply.status_code in (200, 403)


async def test_a_revoked_person_gives_no_orders(doors: Doors) -> None:
    """Whatever the phone was."""
    async with doors.world.db.transaction() as tx:
        await tx.execute("UPDATE users SET active = 0, ended_at_ms = 1 WHERE school = ? AND id = 'ch1'", (SCHOOL,))
    reply = await ask(doors.phones["champion"], "devices", school=SCHOOL)
    assert (reply.status_code, reply.json()["type"]) == (403, "/problems/revoked")
