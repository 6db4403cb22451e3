"""The school system: a real HTTP server on a loopback port, a real store; every claim of syncserver/upstream."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from clientcore.exchange import write_sync
from clientcore.ports import ManualClock
from reconciliation.wire import iso
from syncserver import oneroster
from syncserver.cli import main
from syncserver.config import UpstreamConfig, read_config
from syncserver.errors import ConfigError
from syncserver.rosterwrite import write_zip
from syncserver.upstream import feed
from syncserver.upstream.feed import Ending, endings
from syncserver.upstream.port import ContractBroken, PersonNow, UpstreamSilent
from tests.support.server.orders import ask_with, operator, token
from tests.support.server.wait import until
from tests.support.server.world import OTHER_SCHOOL, SCHOOL, TODAY
from tests.support.sis.data import small_roster
from tests.support.sis.server import CLIENT, SECRET, Sis, open_sis
from tests.support.sis.world import client_of, settings_of, world_of

NOW_MS = ManualClock().now_ms
MINUTE_MS = 60_000
PUPILS = ("s001", "s002", "s003")


@pytest.fixture
async def sis() -> AsyncIterator[Sis]:
    async with open_sis() as made:
        yield made


def with_staff(sis: Sis, *people: str) -> None:
    """The staff of the tests' own two schools, as upstream knows them."""
    made = sis.find("users", "t101001")
    for one in people:
        sis.objects["users"].append({**made, "sourcedId": one, "roles": posts_at(sis, SCHOOL, OTHER_SCHOOL)})


def posts_at(sis: Sis, *schools: str) -> list[dict[str, Any]]:
    role = sis.find("users", "t101001")["roles"][0]
    return [{**role, "org": {"sourcedId": school, "href": "x", "type": "org"}} for school in schools]


# ---- rosters ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("links", "totals", "page_max"), [(True, True, 300), (False, True, 70), (False, False, 1_000)])
async def test_a_pull_gives_the_same_import_as_the_file(sis: Sis, links: bool, totals: bool, page_max: int) -> None:
    """Same schools, people, classes, stays and rolls as OneRoster's own CSV of the same schools; however it pages."""
    sis.links, sis.totals, sis.page_max = links, totals, page_max
    async with client_of(settings_of(sis)) as upstream:
        pulled = await upstream.roster()
        again = await upstream.roster()
    rest = oneroster.read(io.BytesIO(pulled.archive))
    file = oneroster.read(io.BytesIO(write_zip(small_roster())))
    assert rest.errors == file.errors == ()
    assert (rest.orgs, rest.classes, rest.terms) == (file.orgs, tuple(sorted(file.classes, key=by_id)), file.terms)
    assert by_person(rest.users) == by_person(tuple(replace_dates(one) for one in file.users))
    assert {(one.class_id, one.user_id, one.roll) for one in rest.enrolments} == {
        (one.class_id, one.user_id, one.roll) for one in file.enrolments
    }
    assert again.archive == pulled.archive


def by_id(one: Any) -> str:
    return str(one.class_id)


def by_person(users: Any) -> list[Any]:
    return sorted(users, key=lambda one: (one.school, one.user_id))


def replace_dates(user: Any) -> Any:
    return replace(user, from_date="2026-08-01")  # REST gives a begin, the file does not


async def test_what_is_not_ours_is_counted_and_never_written(sis: Sis) -> None:
    """E-mail, phone, user name: not in the zip, not by value in any report."""
    async with client_of(settings_of(sis)) as upstream:
        pulled = await upstream.roster()
    people = len(sis.objects["users"])
    assert pulled.dropped["users.email"] == pulled.dropped["users.phone"] == people
    assert pulled.dropped["users.roles.userProfile"] == people
    with zipfile.ZipFile(io.BytesIO(pulled.archive)) as archive:
        text = b"".join(archive.read(name) for name in archive.namelist())
    assert b"@school.example" not in text
    assert b"+2010" not in text


async def test_a_dry_run_writes_nothing_and_a_pull_writes_once(sis: Sis, tmp_path: Path) -> None:
    """The same report as for a file; pulled again, nothing changes."""
    async with world_of(sis, tmp_path) as world:
        before = await world.count("users")
        dry = await operator(world, "upstream-pull", dry_run=True)
        assert (dry["state"], dry["applied"], await world.count("users")) == ("dry-run", False, before)
        done = await operator(world, "upstream-pull")
        assert done["state"] == "applied"
        assert done["counts"] == dry["counts"]
        assert done["dropped"]["columns"]["users.email"] == len(sis.objects["users"])
        assert await world.count("users") > before + 500
        assert (await operator(world, "upstream-pull"))["state"] == "unchanged"
        status = await operator(world, "upstream-status")
        assert (status["upstream"], status["roster"]["state"]) == ("127.0.0.1", "unchanged")
        names = [one["givenName"] for one in sis.objects["users"]]
        rows = await world.db.fetch_all("SELECT fields_json, dropped_json FROM upstream_pulls")
        assert not [name for name in names if any(name in text for row in rows for text in row)]


async def test_half_a_roster_is_refused(sis: Sis, tmp_path: Path) -> None:
    """A total that is not met, a page elsewhere, a class whose pupils stay out: nothing is applied."""
    async with world_of(sis, tmp_path) as world:
        assert (await operator(world, "upstream-pull"))["state"] == "applied"
        before = await world.db.fetch_all("SELECT * FROM members ORDER BY 1, 2, 3, 4, 5")
        sis.spoil = lambda name, value: {name: value[name][:-1]} if name == "enrollments" else value
        refused = await operator(world, "upstream-pull")
        assert refused["state"] == "contract"
        assert "X-Total-Count" in refused["errors"][0]["en"]
        sis.spoil, sis.totals, kept = None, False, sis.objects["enrollments"]
        sis.objects["users"] = [one for one in sis.objects["users"] if not one["sourcedId"].startswith("s101")]
        sis.objects["enrollments"] = [one for one in kept if not one["user"]["sourcedId"].startswith("s101")]
        ending = await operator(world, "upstream-pull")
        assert (ending["state"], list(ending["mass_ending"])) == ("mass-ending", ["eg-mn-101"])
        assert await world.db.fetch_all("SELECT * FROM members ORDER BY 1, 2, 3, 4, 5") == before


async def test_next_pages_on_another_host_are_not_followed(sis: Sis) -> None:
    """They would be handed our token."""
    sis.page_max = 100
    async with open_sis() as other, client_of(settings_of(sis)) as upstream:
        sis.links_to = other.url
        with pytest.raises(ContractBroken, match="users Link: expected the next page of the same address"):
            await upstream.roster()
        assert other.asked == []


async def test_tokens_are_made_kept_and_renewed(sis: Sis) -> None:
    """Client credentials: one token for many requests, a new one before it runs out, and when it is not taken."""
    clock = ManualClock()
    config = UpstreamConfig(url=sis.url, client_id=CLIENT, client_secret=SECRET, token_url=f"{sis.url}/token")
    async with client_of(config, clock) as upstream:
        await upstream.roster()
        assert sis.tokens_made == 1
        clock.advance(3_600_000)
        await upstream.day(TODAY)
        assert sis.tokens_made == 2
        sis.tokens.clear()
        await upstream.day(TODAY)
        assert sis.tokens_made == 3
    wrong = UpstreamConfig(url=sis.url, client_id=CLIENT, client_secret="no", token_url=f"{sis.url}/token")
    async with client_of(wrong) as upstream:
        with pytest.raises(UpstreamSilent, match="token: http 401"):
            await upstream.day(TODAY)
    assert SECRET not in repr(config)


async def test_a_silent_upstream_is_told_in_words(sis: Sis, tmp_path: Path) -> None:
    """Nothing is applied, and the order says that it may be tried again."""
    async with world_of(sis, tmp_path) as world:
        sis.status = 503
        reply = await ask_with(world, await token(world, "m", "central"), "upstream-pull")
        assert reply.status_code == 403  # who keeps the server pulls
        reply = await world.http.post(
            "/v1/operator/upstream-pull", headers={"content-type": "application/octet-stream"}
        )
        assert (reply.status_code, reply.json()["type"]) == (503, "/problems/busy")
        assert "orgs" in reply.json()["detail"] or "academicSessions" in reply.json()["detail"]


# ---- the status feed --------------------------------------------------------------------------------------------


async def test_a_terminated_teacher_is_held_within_a_minute(sis: Sis, tmp_path: Path) -> None:
    """The real stages on a manual clock: ended upstream, learnt with the next look, and what comes then is held."""
    with_staff(sis, "t1", "t2")
    async with world_of(sis, tmp_path, background=True) as world:
        phone = await world.phone("t1")
        register = f"c-3a/{TODAY}/day"
        await phone.sync((register, phone.take(register, {"s001": "P"})))
        await until(lambda: operator(world, "upstream-status"), lambda seen: seen["feed"]["looked_ms"] is not None)
        await until(world.events, lambda seen: len(seen) == 1)
        sis.change("users", "t1", iso(world.clock.wall_ms()), status="tobedeleted")
        world.clock.advance(feed.EVERY_MS + feed.JITTER_MS)
        await until(lambda: operator(world, "upstream-status"), lambda seen: seen["feed"]["ended"] == 2)  # two posts
        assert world.clock.wall_ms() - NOW_MS <= MINUTE_MS
        late = phone.frame([(register, phone.take(register, {"s002": "A"}).chunk)])
        reply = await phone.post("/v1/sync", write_sync([late.raw]))
        assert (reply.status_code, reply.json()["type"], reply.json()["held"]) == (403, "/problems/revoked", 1)
        await until(lambda: operator(world, "held", school=SCHOOL), lambda seen: "s002" in json.dumps(seen))
        assert [one["data"]["pupil"] for one in await world.events()] == ["s001"]  # what was official stays
        row = await world.db.fetch_one(
            "SELECT actor, subject, reason FROM audit WHERE action = 'person-end' ORDER BY id"
        )
        assert row == ("server", f"{SCHOOL}/t1", "upstream: withdrawn")


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"enabledUser": "false"}, "withdrawn"),
        ({"enabledUser": False}, "withdrawn"),
        ({"status": "tobedeleted"}, "withdrawn"),
        ({"roles": []}, "no post at this school"),
    ],
)
async def test_every_way_of_ending_somebody(sis: Sis, tmp_path: Path, change: dict[str, Any], why: str) -> None:
    """At once, from the moment we learnt it; seen again in the overlap it does nothing."""
    with_staff(sis, "t1")
    async with world_of(sis, tmp_path) as world, client_of(settings_of(sis)) as upstream:
        assert await feed.step(world.db, world.server.config, world.server.ports, upstream)
        sis.change("users", "t1", iso(NOW_MS), **change)
        world.clock.advance(MINUTE_MS)
        for _ in range(2):
            assert await feed.step(world.db, world.server.config, world.server.ports, upstream)
            world.clock.advance(MINUTE_MS)
        rows = await world.db.fetch_all("SELECT reason FROM audit WHERE action = 'person-end'")
        assert rows == [(f"upstream: {why}",)] * 2
        user = await world.db.fetch_one(
            "SELECT active, ended_at_ms FROM users WHERE school = ? AND id = 't1'", (SCHOOL,)
        )
        assert user == (0, NOW_MS + MINUTE_MS)


async def test_who_comes_back_comes_with_the_next_pull(sis: Sis, tmp_path: Path) -> None:
    """What was held meanwhile is settled then; the feed itself brings nobody back."""
    async with world_of(sis, tmp_path) as world, client_of(settings_of(sis)) as upstream:
        await operator(world, "upstream-pull")
        phone = await world.phone("t101001", school="eg-mn-101")
        row = await world.db.fetch_one("SELECT class_id FROM members WHERE user_id = 't101001' AND role = 'teacher'")
        assert row is not None
        pupil = await world.db.fetch_one("SELECT user_id FROM members WHERE class_id = ? AND role = 'pupil'", row)
        assert pupil is not None
        sis.change("users", "t101001", iso(NOW_MS), enabledUser="false")
        assert await feed.step(world.db, world.server.config, world.server.ports, upstream)
        world.clock.advance(MINUTE_MS)
        register = f"{row[0]}/{TODAY}/day"
        late = phone.frame([(register, phone.take(register, {pupil[0]: "P"}).chunk)])
        assert (await phone.post("/v1/sync", write_sync([late.raw]))).json()["held"] == 1
        sis.change("users", "t101001", iso(NOW_MS + MINUTE_MS), enabledUser="true")
        assert await feed.step(world.db, world.server.config, world.server.ports, upstream)
        await world.settle()
        assert await world.events() == []
        assert (await operator(world, "upstream-pull"))["state"] == "applied"
        await world.settle()
        assert [one["data"]["pupil"] for one in await world.events()] == [pupil[0]]


async def test_a_post_that_is_lost_ends_at_that_school_alone(sis: Sis, tmp_path: Path) -> None:
    """And a post whose day after the last has come; one that ends later does not."""
    with_staff(sis, "t1", "t2")
    async with world_of(sis, tmp_path) as world, client_of(settings_of(sis)) as upstream:
        left = posts_at(sis, SCHOOL, OTHER_SCHOOL)
        left[0]["endDate"], left[1]["endDate"] = TODAY, "2026-11-23"
        sis.change("users", "t1", iso(NOW_MS), roles=left)
        sis.change("users", "t2", iso(NOW_MS), roles=posts_at(sis, OTHER_SCHOOL))
        assert await feed.step(world.db, world.server.config, world.server.ports, upstream)
        rows = await world.db.fetch_all("SELECT subject FROM audit WHERE action = 'person-end' ORDER BY id")
        assert rows == [(f"{SCHOOL}/t1",), (f"{SCHOOL}/t2",)]


async def test_an_upstream_whose_clock_is_off_is_not_missed(sis: Sis, tmp_path: Path) -> None:
    """An hour behind ours, and a record dated into next year: neither hides what comes after."""
    with_staff(sis, "t1", "t2")
    hour = 60 * MINUTE_MS
    async with world_of(sis, tmp_path) as world, client_of(settings_of(sis)) as upstream:

        async def look() -> None:
            world.clock.advance(MINUTE_MS)
            assert await feed.step(world.db, world.server.config, world.server.ports, upstream)

        await look()
        sis.change("users", "t101001", "2027-11-22T08:00:00.000Z")
        await look()
        sis.change("users", "t1", iso(world.clock.wall_ms()), status="tobedeleted")
        await look()
        assert (await operator(world, "upstream-status"))["feed"]["ended"] == 2
    async with open_sis() as slow, client_of(settings_of(slow)) as upstream:
        with_staff(slow, "t1", "t2")
        (tmp_path / "b").mkdir()
        async with world_of(slow, tmp_path / "b") as world:
            ports, config = world.server.ports, world.server.config
            slow.change("users", "t101001", iso(NOW_MS - hour))
            assert await feed.step(world.db, config, ports, upstream)
            world.clock.advance(MINUTE_MS)
            slow.change("users", "t2", iso(NOW_MS - hour + MINUTE_MS), status="tobedeleted")
            assert await feed.step(world.db, config, ports, upstream)
            assert (await operator(world, "upstream-status"))["feed"]["ended"] == 2


async def test_a_feed_that_is_not_heard_raises_an_alarm(sis: Sis, tmp_path: Path) -> None:
    """Ten minutes: the status says stale, the metric grows; heard again, it is over."""
    async with world_of(sis, tmp_path) as world, client_of(settings_of(sis)) as upstream:
        ports, config = world.server.ports, world.server.config
        assert await feed.step(world.db, config, ports, upstream)
        assert not (await operator(world, "upstream-status"))["feed"]["stale"]
        sis.status = 500
        world.clock.advance(feed.STALE_MS + 1_000)
        assert await feed.step(world.db, config, ports, upstream)
        assert not await feed.step(world.db, config, ports, upstream)  # not before the next look is due
        told = (await operator(world, "upstream-status"))["feed"]
        assert (told["stale"], told["failures"], told["age_s"]) == (True, 1, 601)
        assert told["last_result"] == "upstream-silent: users: http 500"
        assert "hudur_upstream_feed_age_seconds 601.0" in (await world.http.get("/metrics")).text
        sis.status = None
        world.clock.advance(MINUTE_MS)
        assert await feed.step(world.db, config, ports, upstream)
        assert not (await operator(world, "upstream-status"))["feed"]["stale"]


async def test_a_changed_enrolment_says_that_the_roster_is_behind(sis: Sis, tmp_path: Path) -> None:
    """The feed ends people only; the rest comes with the next import, and the status asks for it."""
    async with world_of(sis, tmp_path) as world, client_of(settings_of(sis)) as upstream:
        ports, config = world.server.ports, world.server.config
        await operator(world, "upstream-pull")
        assert await feed.step(world.db, config, ports, upstream)
        assert not (await operator(world, "upstream-status"))["roster_behind"]
        world.clock.advance(MINUTE_MS)
        sis.change("enrollments", sis.objects["enrollments"][0]["sourcedId"], iso(NOW_MS + MINUTE_MS))
        assert await feed.step(world.db, config, ports, upstream)
        assert (await operator(world, "upstream-status"))["roster_behind"]
        world.clock.advance(MINUTE_MS)
        await operator(world, "upstream-pull")
        assert not (await operator(world, "upstream-status"))["roster_behind"]


POSTS = st.dictionaries(
    st.sampled_from(["a", "b"]), st.none() | st.sampled_from(["2026-11-21", "2026-11-22", "2026-11-23"])
)


@settings(derandomize=True, deadline=None)
@given(POSTS, st.booleans(), st.sets(st.sampled_from(["a", "b"])))
def test_who_is_ended(posts: dict[str, str | None], withdrawn: bool, here: set[str]) -> None:
    """Exactly the posts here that upstream does not give, or whose day after the last has come; all when withdrawn."""
    person = PersonNow(user_id="t1", modified_ms=1, withdrawn=withdrawn, posts=posts)
    found = endings([person], {"t1": sorted(here)} if here else {}, "2026-11-22")
    lasting = {school for school, until in posts.items() if until is None or until > "2026-11-22"}
    assert {one.school for one in found} == (here if withdrawn else here - lasting)
    assert all(isinstance(one, Ending) and one.why for one in found)


# ---- settings, commands -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("said", "fault"),
    [
        ({"URL": "http://sis.example", "TOKEN": "x"}, "https only"),
        ({"URL": "https://sis.example"}, "TOKEN"),
        ({"URL": "https://sis.example", "TOKEN": "x", "CLIENT_ID": "y"}, "not both"),
        ({"URL": "https://sis.example", "CLIENT_ID": "y", "CLIENT_SECRET": "z"}, "TOKEN_URL"),
        ({"URL": "https://me:pw@sis.example", "TOKEN": "x"}, "without a name"),
        ({"URL": "https://[", "TOKEN": "x"}, "HUDUR_UPSTREAM_URL"),
        (
            {"URL": "https://sis.example", "CLIENT_ID": "y", "CLIENT_SECRET": "z", "TOKEN_URL": "http://sis.example/t"},
            "HUDUR_UPSTREAM_TOKEN_URL",
        ),
    ],
)
def test_settings_that_cannot_be_used_are_refused(said: dict[str, str], fault: str) -> None:
    """Said at the start, with what to change."""
    environment = {f"HUDUR_UPSTREAM_{name}": value for name, value in said.items()}
    with pytest.raises(ConfigError, match=fault):
        read_config(environment, store="sqlite:x.db")


def test_settings_are_read_and_secrets_are_not_shown() -> None:
    environment = {"HUDUR_UPSTREAM_URL": "https://sis.example/api/", "HUDUR_UPSTREAM_TOKEN": "hidden"}
    config = read_config(environment, store="sqlite:x.db")
    assert config.upstream is not None
    assert config.upstream.url == "https://sis.example/api"
    assert "hidden" not in repr(config)
    assert read_config({}, store="sqlite:x.db").upstream is None


def test_commands_without_an_upstream_say_what_to_set(tmp_path: Path) -> None:
    """One line, exit code 1; the status answers all the same."""
    store = f"sqlite:{tmp_path / 'store.db'}"
    for words in (["upstream", "pull"], ["reconcile"]):
        done = CliRunner().invoke(main, [*words, "--store", store])
        assert (done.exit_code, "HUDUR_UPSTREAM_URL" in done.output) == (1, True)
    shown = CliRunner().invoke(main, ["upstream", "status", "--store", store])
    assert (shown.exit_code, "not set" in shown.output) == (0, True)
