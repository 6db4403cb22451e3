"""Every event keeps its published schema, and the schemas cannot express what must never be told."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import jsonschema  # type: ignore[import-untyped]
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clientcore.history import merge
from clientcore.register import Code
from reconciliation import reconcile as rules
from reconciliation.events import AMENDED, RECORDED, WITHDRAWN, Event, event_state, events, schema_of
from reconciliation.model import Context, Outcome, first_receipts
from reconciliation.reconcile import reconcile
from syncserver.feed import RESTORED, restored_event
from syncserver.openapi import document
from syncserver.restore import raise_epoch
from syncserver.schemas import SCHEMAS
from tests.support.decided import Word, afterthoughts, decided, words
from tests.support.histories import PUPILS, REGISTER, Played, Step, play, quarrels, steps, story_context
from tests.support.server.orders import token
from tests.support.server.world import OTHER_SCHOOL, SCHOOL, TODAY, World, open_world

ABOUT_PUPILS = (RECORDED, AMENDED, WITHDRAWN)
CODES = {code.word for code in Code}
VALIDATORS = {
    name.removesuffix(".json"): jsonschema.Draft202012Validator(
        json.loads(text), format_checker=jsonschema.Draft202012Validator.FORMAT_CHECKER
    )
    for name, text in SCHEMAS.items()
}
FEED = document()["paths"]["/v1/events"]["get"]["responses"]["200"]["content"]
ENVELOPE = jsonschema.Draft202012Validator(FEED["application/cloudevents-batch+json"]["schema"]["items"])
RUN = settings(max_examples=60, derandomize=True, deadline=None, print_blob=True)
STORIES = st.one_of(steps(), quarrels(), afterthoughts())


def wrong(event: Mapping[str, Any]) -> list[str]:
    """What an event has against its schema and its envelope."""
    envelope = {"sequence": "0" * 20, **event}
    found = [*ENVELOPE.iter_errors(envelope), *VALIDATORS[event["type"]].iter_errors(event["data"])]
    return [f"{error.json_path}: {error.message}" for error in found]


def outcomes(played: Played, said: list[Word]) -> list[Outcome]:
    """A register as it becomes: a third of its changes, all of them, with decisions, with a shorter roster, closed."""

    def settle(count: int, around: Context) -> Outcome:
        return reconcile(REGISTER, merge(played.changes[:count]), first_receipts(played.receipts[:count]), around)

    count, around = len(played.changes), story_context()
    plain = settle(count, around)
    with_words = decided(played, plain, said)
    fewer = replace(with_words, roster=frozenset(PUPILS[1:]))
    seen = [settle(count // 3, around), plain, settle(count, with_words), settle(count, fewer)]
    return [*seen, settle(count, replace(with_words, closed="holiday")), settle(count, around)]


def tell(seen: list[Outcome], *, above: int = 0) -> list[Event]:
    revisions: dict[str, int] = {}
    previous, found = None, []
    for n, outcome in enumerate(seen):
        batch, revisions = events(previous, outcome, revisions, time_ms=1_795_334_400_000 + n, above=above)
        found += batch
        previous = outcome
    return found


def test_there_is_one_schema_for_each_type_and_it_is_one() -> None:
    """Draft 2020-12, each under the address that its events name."""
    assert set(VALIDATORS) == {*ABOUT_PUPILS, RESTORED}
    for kind, validator in VALIDATORS.items():
        jsonschema.Draft202012Validator.check_schema(validator.schema)
        assert validator.schema["$id"] == schema_of(kind)
        assert validator.schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"


def objects(schema: object) -> list[dict[str, Any]]:
    if isinstance(schema, list):
        return [found for one in schema for found in objects(one)]
    if not isinstance(schema, dict):
        return []
    own = [schema] if schema.get("type") == "object" else []
    return own + [found for one in schema.values() for found in objects(one)]


@pytest.mark.parametrize("kind", sorted(VALIDATORS))
def test_every_object_is_closed(kind: str) -> None:
    """No property slips in unnamed."""
    found = objects(VALIDATORS[kind].schema)
    assert found
    assert all(one["additionalProperties"] is False for one in found)


def test_the_schemas_words_are_those_of_the_rules() -> None:
    """Codes and labels are closed sets; a new one fails here before it fails at a consumer's."""
    properties = VALIDATORS[AMENDED].schema["properties"]
    assert set(VALIDATORS[AMENDED].schema["$defs"]["code"]["enum"]) == CODES
    assert set(properties["labels"]["items"]["enum"]) == {
        rules.ADJUSTED, rules.CALENDAR, rules.CLOCK, rules.FUTURE, rules.MERGED_RECORD, rules.RELEASED, rules.RULED,
        rules.SETTLED_BY_PERSON,
    }  # fmt: skip


@RUN
@given(STORIES, words(), st.sampled_from((0, 7_000_000)))
def test_every_event_of_generated_histories_keeps_its_schema(story: list[Step], said: list[Word], above: int) -> None:
    """With decisions, corrections, rosters that change; and what stands at the end is the last outcome's answers."""
    seen = outcomes(play(story), said)
    told = tell(seen, above=above)
    for event in told:
        assert wrong(json.loads(json.dumps(event.to_wire()))) == []
    answered = {pupil: answer.code.word for pupil, answer in seen[-1].answers.items() if answer.code is not None}
    assert {pupil: one["code"] for pupil, one in event_state(told).items()} == answered


@RUN
@given(STORIES, words())
def test_not_taken_and_no_session_are_never_told(story: list[Step], said: list[Word]) -> None:
    """Told are the eight codes people mark and nothing else; a pupil nobody marked is in no event."""
    seen = outcomes(play(story), said)
    told = tell(seen)
    for event in told:
        assert event.data.get("code") in CODES if event.type != WITHDRAWN else "code" not in event.data
        assert event.data.get("previous", {}).get("code", "present") in CODES
    ever = {pupil for one in seen for pupil, answer in one.answers.items() if answer.code is not None}
    assert {event.pupil for event in told} <= ever


def one_of(kind: str) -> dict[str, Any]:
    """A good event's data."""
    amended: dict[str, Any] = {
        "register": str(REGISTER), "school": REGISTER.school, "class": REGISTER.class_id, "date": REGISTER.date,
        "session": "day", "pupil": "s1", "code": "late", "reason": None, "minutes_late": 5, "disputed": False,
        "labels": [], "ruled_at": "2026-11-22T06:00:00.000Z", "bulk": 1, "revision": 2,
        "supersedes": f"{REGISTER}/s1/1", "changed": ["code"], "previous": {"code": "present"},
    }  # fmt: skip
    without = {
        RECORDED: ("supersedes", "changed", "previous"),
        AMENDED: (),
        WITHDRAWN: ("code", "reason", "minutes_late", "disputed", "labels", "ruled_at", "bulk"),
    }
    return {key: value for key, value in amended.items() if key not in without[kind]}


@pytest.mark.parametrize("kind", ABOUT_PUPILS)
def test_the_schemas_cannot_express_that_nobody_took_the_register(kind: str) -> None:
    """Neither as a code, nor as no code, nor as a word beside it, nor as what stood before."""
    good = one_of(kind)
    assert list(VALIDATORS[kind].iter_errors(good)) == []
    tries = [{**good, "code": word} for word in ("not_taken", "no_session", None, "", "unknown")]
    tries += [{**good, name: True} for name in ("not_taken", "no_session", "occasion", "closed")]
    tries += [{**good, "labels": [word]} for word in ("not_taken", "no-session")]
    tries += [{**good, "previous": {"code": word}} for word in ("not_taken", "no_session", None)]
    tries += [{key: value for key, value in good.items() if key != "code"}] if kind != WITHDRAWN else []
    assert [one for one in tries if VALIDATORS[kind].is_valid(one)] == []


def test_an_answer_says_where_it_comes_from() -> None:
    """From a mark or from a bulk operation; with neither there is no answer."""
    good = one_of(RECORDED)
    bare = {key: value for key, value in good.items() if key not in ("ruled_at", "bulk")}
    assert not VALIDATORS[RECORDED].is_valid(bare)
    assert not VALIDATORS[RECORDED].is_valid({**good, "code": "present"})  # minutes late, and not late
    assert not VALIDATORS[RECORDED].is_valid({**good, "reason": "12"})


def test_the_mark_of_a_restore_keeps_its_schema() -> None:
    """It is about no pupil."""
    event = restored_event(epoch=1_795_334_400, continues=1, last_seq=7, first_seq=1_795_334_400 << 20, at_ms=0)
    assert wrong(event) == []
    assert "pupil" not in VALIDATORS[RESTORED].schema["properties"]


# ---- through HTTP -----------------------------------------------------------------------------------------------


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    """Two schools with marks, corrections and a dispute, restored once in the middle of it."""
    async with open_world(tmp_path / "store.db", background=False) as made:
        register = f"c-3a/{TODAY}/day"
        for n, school in enumerate((SCHOOL, OTHER_SCHOOL)):
            one = await made.phone("t1", school=school, seed=2 * n + 1)
            two = await made.phone("t2", school=school, seed=2 * n + 2)
            await one.sync((register, one.take(register, {"s001": "P", "s002": "A", "s003": "L"})))
            await made.settle()
            await two.sync((register, two.take(register, {"s001": "A", "s004": "E"})))
            await made.settle()
            if n:
                await one.sync((register, one.take(register, {"~session": "N:strike"})))
                await made.settle()
            if not n:
                await raise_epoch(made.db, now_ms=made.clock.wall_ms(), whole_offer=False)
        yield made


async def test_replay_from_any_place_gives_the_same_bytes(world: World) -> None:
    """Whatever the size of the pages, whoever reads, however often: the events' own bytes, one after another."""
    whole = (await world.http.get("/v1/events", params={"limit": 5_000})).content
    parts = [json.dumps(one, ensure_ascii=False, separators=(",", ":")).encode() for one in json.loads(whole)]
    assert b"[" + b",".join(parts) + b"]" == whole
    assert {json.loads(one)["type"] for one in parts} == {RECORDED, AMENDED, WITHDRAWN, RESTORED}
    places = [0, *(int(json.loads(one)["sequence"]) for one in parts)]
    for n, after in enumerate(places):
        for limit in (1, 2, 3, 5_000):
            reply = await world.http.get("/v1/events", params={"after": after, "limit": limit})
            assert reply.content == b"[" + b",".join(parts[n : n + limit]) + b"]"
            assert int(reply.headers["hudur-next-after"]) == places[min(n + limit, len(parts))]


async def test_every_event_of_the_feed_keeps_the_schema_its_server_gives(world: World) -> None:
    """`dataschema` leads to it, from where the feed was read, without a token."""
    found = await world.events()
    assert found
    for event in found:
        reply = await world.http.get(event["dataschema"], headers={"x-forwarded-for": "192.0.2.7"})
        assert (reply.status_code, reply.headers["content-type"]) == (200, "application/schema+json")
        assert list(jsonschema.Draft202012Validator(reply.json()).iter_errors(event["data"])) == []
        assert wrong(event) == []
    assert (await world.http.get("/v1/schemas/secret.json")).status_code == 404
    assert (await world.http.get("/v1/schemas/__init__.py")).status_code == 404


async def test_a_token_of_several_schools_reads_them_all_without_naming_one(world: World) -> None:
    """And of one school that one; the mark of a restore stands in the feed of each."""
    whole = await world.events()
    for schools in ([SCHOOL, OTHER_SCHOOL], [OTHER_SCHOOL]):
        bearer = await token(world, f"program-{len(schools)}", "consumer", schools=schools)
        reply = await world.http.get("/v1/events", headers={"authorization": f"Bearer {bearer}"})
        assert reply.status_code == 200
        sources = {"/", *(f"/schools/{school}" for school in schools)}
        assert reply.json() == [event for event in whole if event["source"] in sources]
        assert {event["source"] for event in reply.json()} == sources
        named = await world.http.get(
            "/v1/events", params={"school": OTHER_SCHOOL}, headers={"authorization": f"Bearer {bearer}"}
        )
        assert {event["source"] for event in named.json()} == {"/", f"/schools/{OTHER_SCHOOL}"}
