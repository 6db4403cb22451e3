"""The agreement with a school system: every field that we use, renamed, removed or of another type, is noticed.

The error names the endpoint, the field and what stands there by the agreement; nothing is half applied. A field that is
new is dropped and counted.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from clientcore.ports import SeededRandom
from reconciliation.wire import iso
from syncserver import nightly
from syncserver.config import Config, UpstreamConfig
from syncserver.ports import InlineAside, ServerPorts
from syncserver.upstream import feed, writeback
from syncserver.upstream.http import UpstreamHttp, open_http
from syncserver.upstream.port import ContractBroken
from syncserver.upstream.rest import RestUpstream
from tests.support.server.orders import operator
from tests.support.server.world import TODAY, World, open_world
from tests.support.sis.data import objects_of, small_roster
from tests.support.sis.server import TOKEN, Sis, open_sis

ROSTER_FIELDS = {
    "academicSessions": ("sourcedId", "status", "startDate", "endDate", "type"),
    "orgs": ("sourcedId", "status", "name", "type"),
    "users": (
        *("sourcedId", "status", "enabledUser", "givenName", "familyName", "middleName", "preferredGivenName"),
        *("preferredMiddleName", "preferredFamilyName"),
        *("roles", "roles.roleType", "roles.role", "roles.org", "roles.org.sourcedId"),
        *("roles.beginDate", "roles.endDate"),
    ),
    "classes": (*("sourcedId", "status", "title", "school", "school.sourcedId", "terms", "terms.sourcedId", "grades"),),
    "enrollments": (
        *("sourcedId", "status", "class", "class.sourcedId", "school", "school.sourcedId", "user", "user.sourcedId"),
        *("role", "beginDate", "endDate"),
    ),
}
FEED_FIELDS = {
    "users": (
        *("sourcedId", "status", "enabledUser", "dateLastModified", "roles", "roles.role", "roles.org"),
        *("roles.org.sourcedId",),
    ),
    "enrollments": ("dateLastModified",),
}
DIGEST_FIELDS = {
    "attendance/digests": ("classes", "classes.school", "classes.class", "classes.count", "classes.digest"),
    "attendance/class": ("marks", "marks.session", "marks.pupil", "marks.code"),
}
ANSWER_FIELDS = {"attendance/events": ("results", "results.id", "results.status", "results.cause")}


@dataclass(frozen=True)
class Mutation:
    """One change of one field of an endpoint, in every object of the answer."""

    endpoint: str
    field: str
    how: str

    def __call__(self, endpoint: str, answer: Any) -> Any:
        if endpoint == self.endpoint:
            path = self.field.split(".")
            top = answer if path[0] in answer else answer[endpoint]
            _change(top, path, self.how)
        return answer

    def __str__(self) -> str:
        return f"{self.endpoint}-{self.field}-{self.how}"


def _change(value: Any, path: list[str], how: str) -> None:
    if isinstance(value, list):
        for one in value:
            _change(one, path, how)
        return
    name, *rest = path
    if rest:
        _change(value[name], rest, how)
    elif name in value:
        if how == "renamed":
            value[f"{name}New"] = value.pop(name)
        elif how == "removed":
            del value[name]
        else:
            value[name] = [7] if isinstance(value[name], dict) else {"x": 7}


def mutations(fields: Mapping[str, tuple[str, ...]]) -> list[Mutation]:
    return [
        Mutation(endpoint, field, how)
        for endpoint, names in fields.items()
        for field in names
        for how in ("renamed", "removed", "another type")
    ]


def full_objects() -> dict[str, list[dict[str, Any]]]:
    """A school in which every field that may be empty is filled somewhere."""
    objects = objects_of(small_roster(1))
    for user in [one for one in objects["users"] if one["sourcedId"].startswith("s")][:3]:
        user |= {"preferredGivenName": "نور", "preferredMiddleName": "علي", "preferredFamilyName": "حسن"}
        user["roles"][0]["endDate"] = "2027-10-01"
    return objects


@pytest.fixture(scope="module")
def objects() -> dict[str, list[dict[str, Any]]]:
    return full_objects()


@asynccontextmanager
async def talk(
    objects: dict[str, list[dict[str, Any]]], tmp_path: Path
) -> AsyncIterator[tuple[World, Sis, RestUpstream]]:
    async with open_sis(objects) as sis, open_http() as http:
        settings = UpstreamConfig(url=sis.url, token=TOKEN)
        config = Config(store=tmp_path / "store.db", poll_ms=50, upstream=settings)
        async with open_world(tmp_path / "store.db", config=config, background=False) as world:
            yield world, sis, RestUpstream(UpstreamHttp(settings, ports_of(world), http))


def ports_of(world: World) -> ServerPorts:
    return ServerPorts(clock=world.clock, random=SeededRandom(1), aside=InlineAside())


async def roster_rows(world: World) -> list[Any]:
    tables = ("schools", "users", "past_roles", "classes", "members", "settle_again")
    return [await world.db.fetch_all(f"SELECT * FROM {name}") for name in tables]


def last(field: str) -> str:
    return field.rpartition(".")[2]


async def test_every_roster_field(objects: dict[str, list[dict[str, Any]]], tmp_path: Path) -> None:
    """After a good pull, each mutation is refused by name and the roster stays as it was."""
    async with talk(objects, tmp_path) as (world, sis, _):
        sis.page_max = 5_000
        assert (await operator(world, "upstream-pull"))["state"] == "applied"
        before = await roster_rows(world)
        for mutation in mutations(ROSTER_FIELDS):
            sis.spoil = mutation
            report = await operator(world, "upstream-pull")
            assert (report["state"], report["applied"]) == ("contract", False), str(mutation)
            told = report["errors"][0]
            assert told["file"] == mutation.endpoint, str(mutation)
            assert last(mutation.field) in told["column"], (str(mutation), told)
            assert "expected" in told["en"]
            assert told["ar"]
            assert await roster_rows(world) == before, str(mutation)
        sis.spoil = None
        assert (await operator(world, "upstream-pull"))["state"] == "unchanged"


async def test_a_field_that_vanishes_on_purpose_can_be_let_go(
    objects: dict[str, list[dict[str, Any]]], tmp_path: Path
) -> None:
    """A person says so; from then on it is not missed."""
    async with talk(objects, tmp_path) as (world, sis, _):
        sis.page_max = 5_000
        await operator(world, "upstream-pull")
        sis.spoil = Mutation("users", "preferredMiddleName", "removed")
        assert (await operator(world, "upstream-pull"))["state"] == "contract"
        assert (await operator(world, "upstream-pull", allow_vanished=True))["state"] == "applied"
        assert (await operator(world, "upstream-pull"))["state"] == "unchanged"


async def test_every_field_of_the_status_feed(objects: dict[str, list[dict[str, Any]]], tmp_path: Path) -> None:
    """Nobody is ended, the feed has not moved, and what is wrong stands in the status."""
    async with talk(objects, tmp_path) as (world, sis, upstream):
        await operator(world, "upstream-pull")
        sis.change("users", "t101001", iso(world.clock.wall_ms()), enabledUser=False)
        sis.change("enrollments", sis.objects["enrollments"][0]["sourcedId"], iso(world.clock.wall_ms()))
        try:
            for mutation in mutations(FEED_FIELDS):
                sis.spoil = mutation
                world.clock.advance(60_000)
                assert await feed.step(world.db, world.server.config, ports_of(world), upstream)
                status = (await operator(world, "upstream-status"))["feed"]
                assert (status["ended"], status["looked_ms"]) == (0, None), str(mutation)
                assert status["last_result"].startswith(f"upstream-contract: {mutation.endpoint}[0]."), str(mutation)
                assert last(mutation.field) in status["last_result"]
            sis.spoil = None
            world.clock.advance(60_000)
            assert await feed.step(world.db, world.server.config, ports_of(world), upstream)
            assert (await operator(world, "upstream-status"))["feed"]["ended"] == 1
        finally:
            sis.change("users", "t101001", "2026-08-01T06:00:00.000Z", enabledUser=True)


@pytest.mark.parametrize("word", ["Teacher", "teaching"])
async def test_an_unknown_role_ends_nobody(objects: dict[str, list[dict[str, Any]]], tmp_path: Path, word: str) -> None:
    """Read as *no role*, a new word for teachers would end every teacher of the country."""
    async with talk(objects, tmp_path) as (world, sis, upstream):
        await operator(world, "upstream-pull")
        sis.change("users", "t101001", iso(world.clock.wall_ms()))
        sis.spoil = lambda name, value: _reworded(name, value, word)
        assert await feed.step(world.db, world.server.config, ports_of(world), upstream)
        status = (await operator(world, "upstream-status"))["feed"]
        assert status["ended"] == 0
        assert "roles[0].role: expected one of" in status["last_result"]
        sis.change("users", "t101001", "2026-08-01T06:00:00.000Z")


def _reworded(name: str, value: Any, word: str) -> Any:
    if name == "users":
        for user in value["users"]:
            for role in user["roles"]:
                role["role"] = word
    return value


async def taken_register(world: World) -> None:
    phone = await world.phone("t1")
    register = f"c-3a/{TODAY}/day"
    await phone.sync((register, phone.take(register, {"s001": "P", "s002": "L:5"})))
    await world.settle()


async def test_every_field_of_the_answer_to_attendance(
    objects: dict[str, list[dict[str, Any]]], tmp_path: Path
) -> None:
    """Our place does not move, nothing becomes a dead letter, and the same events go again."""
    async with talk(objects, tmp_path) as (world, sis, upstream):
        await taken_register(world)
        sis.refuse = lambda event: "unknown-pupil" if event["data"]["pupil"] == "s001" else None
        carrier = writeback.Carrier(world.db, ports_of(world), upstream)
        for mutation in mutations(ANSWER_FIELDS):
            sis.spoil = mutation
            world.clock.advance(86_400_000)
            assert not await carrier.step()
            status = (await operator(world, "upstream-status"))["attendance"]
            assert (status["sent_seq"], status["refused"]) == (0, []), str(mutation)
            assert status["last_result"].startswith("upstream-contract: attendance/events"), str(mutation)
            assert last(mutation.field) in status["last_result"]
        sis.spoil = lambda _, value: {"results": value["results"][:1]}
        world.clock.advance(86_400_000)
        assert not await carrier.step()
        sis.spoil = None
        world.clock.advance(86_400_000)
        assert await carrier.step()
        status = (await operator(world, "upstream-status"))["attendance"]
        assert (status["sent_seq"], len(status["refused"])) == (2, 1)


@pytest.mark.parametrize("mutation", mutations(DIGEST_FIELDS), ids=str)
async def test_every_field_of_the_comparison(
    objects: dict[str, list[dict[str, Any]]], tmp_path: Path, mutation: Mutation
) -> None:
    """The report says *not heard as agreed*, never *the same*."""
    async with talk(objects, tmp_path) as (world, sis, upstream):
        await taken_register(world)
        carrier = writeback.Carrier(world.db, ports_of(world), upstream)
        assert await carrier.step()
        next(iter(sis.events.values()))["data"]["code"] = "late"  # so that it drills down
        sis.spoil = mutation
        report = await nightly.reconcile(world.db, ports_of(world), upstream, TODAY, actor="operator")
        assert report["state"] == "contract"
        assert mutation.endpoint in report["why"]
        assert last(mutation.field) in report["why"]


async def test_a_new_field_is_dropped_and_counted(objects: dict[str, list[dict[str, Any]]], tmp_path: Path) -> None:
    """At every endpoint and inside every object of it."""
    async with talk(objects, tmp_path) as (world, sis, _):
        sis.spoil = _with_news
        report = await operator(world, "upstream-pull")
        assert report["state"] == "applied"
        dropped = report["dropped"]["columns"]
        for name, some in sis.objects.items():
            assert dropped[f"{name}.nationalNumber"] == len(some)
        assert dropped["users.roles.salary"] == sum(len(user["roles"]) for user in sis.objects["users"])
        assert dropped["enrollments.class.room"] == len(sis.objects["enrollments"])


def _with_news(name: str, value: Any) -> Any:
    for one in value[name]:
        one["nationalNumber"] = "2999"
        for role in one.get("roles", ()):
            role["salary"] = 1
        if "class" in one:
            one["class"]["room"] = "12"
    return value


@pytest.mark.parametrize("answer", [[], "text", 7, None, {"users": {}}, {"users": [7]}, {"users": [None]}])
async def test_other_shapes_of_an_answer(
    objects: dict[str, list[dict[str, Any]]], tmp_path: Path, answer: object
) -> None:
    """Whatever comes, it is told as a breach of the agreement."""
    async with talk(objects, tmp_path) as (world, sis, upstream):
        sis.spoil = lambda _, __: answer
        with pytest.raises(ContractBroken, match=r"^upstream-contract: users"):
            await upstream.people_changed(0)
        assert await world.count("nightly_runs") == 0
