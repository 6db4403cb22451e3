"""Every night: both sides counted, differences down to the pupil-day, and what else is to be seen in the morning."""

from __future__ import annotations

import json
import zlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from syncserver import nightly
from syncserver.cli import main
from syncserver.config import Config, UpstreamConfig
from syncserver.nightly import Night
from syncserver.upstream import writeback
from syncserver.upstream.digests import Cause, Line, differences, tally, total
from syncserver.upstream.http import UpstreamHttp, open_http
from syncserver.upstream.rest import RestUpstream
from tests.support.server.orders import operator
from tests.support.server.world import OTHER_SCHOOL, SCHOOL, TODAY, Phone, World, address_of, open_world
from tests.support.sis.data import objects_of, small_roster
from tests.support.sis.server import TOKEN, Sis, open_sis

HOUR_MS = 3_600_000
REGISTER = f"c-3a/{TODAY}/day"
PUPILS = ("s001", "s002", "s003")


@dataclass(slots=True)
class Both:
    """A server that has handed everything over to a school system."""

    world: World
    sis: Sis
    upstream: RestUpstream
    carrier: writeback.Carrier
    phones: dict[str, Phone]

    async def reconcile(self, date: str = TODAY) -> dict[str, Any]:
        return await operator(self.world, "reconcile", date=date)

    def event(self, pupil: str, school: str = SCHOOL) -> dict[str, Any]:
        found = [one for one in self.sis.events.values() if one["subject"] == f"{school}/{REGISTER}/{pupil}"]
        assert len(found) == 1
        return found[0]

    async def mark(self, school: str, marks: dict[str, str]) -> None:
        await self.phones[school].sync((REGISTER, self.phones[school].take(REGISTER, marks)))
        await self.world.settle()


@pytest.fixture
async def both(tmp_path: Path) -> AsyncIterator[Both]:
    async with both_of(tmp_path) as made:
        yield made


@asynccontextmanager
async def both_of(tmp_path: Path) -> AsyncIterator[Both]:
    async with open_sis(objects_of(small_roster(1))) as sis, open_http() as http:
        upstream = UpstreamConfig(url=sis.url, token=TOKEN)
        config = Config(store=tmp_path / "store.db", poll_ms=50, upstream=upstream)
        async with open_world(tmp_path / "store.db", config=config, background=False) as world:
            rest = RestUpstream(UpstreamHttp(upstream, world.server.ports, http))
            phones = {
                SCHOOL: await world.phone("t1"),
                OTHER_SCHOOL: await world.phone("t1", school=OTHER_SCHOOL, seed=2),
            }
            carrier = writeback.Carrier(world.db, world.server.ports, rest)
            made = Both(world=world, sis=sis, upstream=rest, carrier=carrier, phones=phones)
            for school in (SCHOOL, OTHER_SCHOOL):
                await made.mark(school, {"s001": "P", "s002": "L:7", "s003": "E:sick"})
            assert await carrier.step()
            yield made


async def test_two_sides_that_agree(both: Both) -> None:
    """The same counts by two programs that share no code, and no class is looked into."""
    report = await both.reconcile()
    assert (report["state"], report["totals"]) == ("same", {"here": 6, "upstream": 6, "classes": 2})
    assert (report["schools"], report["classes"]) == ([], [])
    assert not [one for one in both.sis.asked if one.startswith("marks/")]
    empty = await both.reconcile("2026-11-15")
    assert (empty["state"], empty["totals"]["here"]) == ("same", 0)


async def test_amendments_and_withdrawals_agree_too(both: Both) -> None:
    """What stands is the last revision; what was taken back stands on neither side."""
    await both.mark(SCHOOL, {"s001": "A", "s002": "P"})
    waiting = await both.reconcile()
    assert waiting["causes"] == {"waiting": 2}
    assert waiting["lag"]["upstream_events"] == 2
    assert await both.carrier.step()
    assert (await both.reconcile())["state"] == "same"
    await both.mark(SCHOOL, {"~session": "N:storm"})
    assert await both.carrier.step()
    report = await both.reconcile()
    assert (report["state"], report["totals"]["here"], report["totals"]["upstream"]) == ("same", 3, 3)


async def test_every_cause_is_found_and_only_differing_classes_are_looked_into(both: Both) -> None:
    """By id, with what each side says; the other school is not asked for."""
    both.event("s001")["data"]["code"] = "absent"
    both.event("s002")["data"]["minutes_late"] = 9
    both.event("s003")["type"] = "eg.hudur.mark.withdrawn.v1"
    extra = json.loads(json.dumps(both.event("s001")))
    extra["subject"], extra["data"]["pupil"] = f"{SCHOOL}/{REGISTER}/s009", "s009"
    both.sis.events["extra"] = extra
    report = await both.reconcile()
    assert report["state"] == "different"
    assert [(one["school"], one["class"]) for one in report["classes"]] == [(SCHOOL, "c-3a")]
    assert [one["school"] for one in report["schools"]] == [SCHOOL]
    found = {(one["pupil"], one["cause"], one["ours"], one["theirs"]) for one in report["classes"][0]["pupils"]}
    assert found == {
        ("s001", "different-code", "present", "absent"),
        ("s002", "different-reason", "late", "late"),
        ("s003", "missing-upstream", "absent_excused", None),
        ("s009", "missing-here", None, "absent"),
    }
    assert [one for one in both.sis.asked if one.startswith("marks/")] == ["marks/c-3a"]
    body = await both.world.db.fetch_one("SELECT date, state, body FROM nightly_runs")
    assert body is not None
    stored = json.loads(zlib.decompress(body[2]))
    assert (body[0], body[1], stored["causes"]) == (TODAY, "different", report["causes"])
    assert "تلميذ" not in json.dumps(stored, ensure_ascii=False)  # ids, never names


async def test_what_was_refused_is_told_as_refused_and_by_cause(both: Both) -> None:
    """With the dead letters of both kinds beside it."""
    both.sis.refuse = lambda event: "unknown-pupil" if event["data"]["pupil"] == "s004" else None
    await both.mark(SCHOOL, {"s004": "P"})
    assert await both.carrier.step()
    report = await both.reconcile()
    assert report["causes"] == {"rejected": 1}
    (refused,) = report["dead_letters"]["upstream"]
    assert (refused["cause"], refused["letters"], refused["schools"]) == ("unknown-pupil", 1, 1)
    assert report["dead_letters"]["here"] == []
    both.sis.refuse = lambda _: None
    await operator(both.world, "upstream-requeue", cause="unknown-pupil", reason="the pupil was added")
    assert await both.carrier.step()
    assert (await both.reconcile())["state"] == "same"


async def test_not_taken_is_on_neither_side(both: Both) -> None:
    """A pupil without a mark is nobody's difference, and never absent."""
    report = await both.reconcile()
    assert report["totals"]["here"] == 6  # of 80 pupils on the roll
    assert "absent" not in json.dumps(report)


async def test_a_class_that_is_mended_while_it_is_looked_at_is_no_difference(both: Both) -> None:
    """The second look finds both sides the same, and says so."""
    spoilt: list[str] = []

    def once(name: str, value: Any) -> Any:
        if name == "attendance/digests":
            spoilt.append(name)
            value["classes"] = [one for one in value["classes"] if one["school"] != SCHOOL]
        return value

    both.sis.spoil = once
    report = await both.reconcile()
    assert spoilt
    assert (report["state"], report["classes_differing"], report["same_meanwhile"]) == ("same", 0, 1)


async def test_the_rest_of_the_morning_stands_in_the_report(both: Both) -> None:
    """A stale feed, and how far every consumer is behind."""
    await operator(both.world, "sink-add", name="reports", url="https://hooks.example/x", all=True)
    report = await both.reconcile()
    assert report["feed"]["stale"]  # it never looked
    assert report["lag"]["sinks"] == [{"name": "reports", "events": 6}]
    assert (report["lag"]["settle_offsets"], report["lag"]["upstream_events"]) == (0, 0)


async def test_a_silent_upstream_is_never_the_same(both: Both) -> None:
    """The report says that nothing was heard, and is kept."""
    both.sis.status = 500
    report = await both.reconcile()
    assert (report["state"], report["why"]) == ("silent", "upstream-silent: attendance/digests: http 500")
    assert "totals" not in report
    assert [one["state"] for one in (await operator(both.world, "upstream-status"))["nights"]] == ["silent"]


# ---- by itself --------------------------------------------------------------------------------------------------


async def nights(world: World) -> list[tuple[str, str]]:
    rows = await world.db.fetch_all("SELECT night, date FROM nightly_runs WHERE night IS NOT NULL ORDER BY id")
    return [(row[0], row[1]) for row in rows]


async def test_the_server_compares_once_a_night_the_last_dates(both: Both) -> None:
    """After two in the morning, each of the last seven dates once; the next night again."""
    night = Night(both.world.db, both.world.server.config, both.world.server.ports)
    both.world.clock.advance(16 * HOUR_MS)  # 00:00 UTC is 02:00 in Cairo
    both.world.clock.advance(-HOUR_MS)
    assert not await night.step(both.upstream)
    both.world.clock.advance(HOUR_MS)
    for _ in range(nightly.DATES_BACK):
        assert await night.step(both.upstream)
    assert not await night.step(both.upstream)
    made = await nights(both.world)
    assert {one[0] for one in made} == {"2026-11-23"}
    assert [one[1] for one in made] == [f"2026-11-{day}" for day in range(22, 15, -1)]
    both.world.clock.advance(4 * HOUR_MS)
    assert not await night.step(both.upstream)  # phones come back: nothing is compared in the morning
    both.world.clock.advance(20 * HOUR_MS)
    assert await night.step(both.upstream)
    assert (await nights(both.world))[-1] == ("2026-11-24", "2026-11-23")


async def test_a_night_in_which_upstream_is_silent_is_tried_again(both: Both) -> None:
    """In a quarter of an hour, not at once; heard, the date is compared."""
    night = Night(both.world.db, both.world.server.config, both.world.server.ports)
    both.world.clock.advance(16 * HOUR_MS)
    both.sis.status = 503
    assert await night.step(both.upstream)
    assert not await night.step(both.upstream)
    both.sis.status = None
    both.world.clock.advance(nightly.RETRY_MS)
    assert await night.step(both.upstream)
    rows = await both.world.db.fetch_all("SELECT date, state FROM nightly_runs ORDER BY id")
    assert rows == [(TODAY, "silent"), (TODAY, "same")]


# ---- the command ------------------------------------------------------------------------------------------------


def test_the_command_says_it_in_words_and_by_its_exit_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """0 the same, 3 different, 1 not heard; a person reads which pupil, and why."""
    import asyncio
    import threading

    ready, done = threading.Event(), threading.Event()
    told: dict[str, Sis] = {}

    async def serve() -> None:
        async with both_of(tmp_path) as both:
            both.event("s001")["data"]["code"] = "absent"
            told["sis"] = both.sis
        async with open_sis(objects_of(small_roster(1))) as sis:
            sis.events = told["sis"].events
            told["now"] = sis
            ready.set()
            while not done.is_set():
                await asyncio.get_running_loop().run_in_executor(None, done.wait, 0.05)

    thread = threading.Thread(target=lambda: asyncio.run(serve()))
    thread.start()
    try:
        assert ready.wait(60)
        monkeypatch.setenv("HUDUR_UPSTREAM_URL", told["now"].url)
        monkeypatch.setenv("HUDUR_UPSTREAM_TOKEN", TOKEN)
        words = ["reconcile", "--date", TODAY, "--store", address_of(tmp_path / "store.db")]
        shown = CliRunner().invoke(main, words)
        assert shown.exit_code == 3, shown.output
        assert "1 differ" in shown.output
        assert "s001" in shown.output
        assert CliRunner().invoke(main, [*words[:2], "2026-11-15", *words[3:]]).exit_code == 0
        as_json = CliRunner().invoke(main, [*words, "--json"])
        assert json.loads(as_json.stdout)["causes"] == {"different-code": 1}
        status = CliRunner().invoke(main, ["upstream", "status", "--store", words[-1]])
        assert "different" in status.output
        told["now"].status = 500
        silent = CliRunner().invoke(main, words)
        assert (silent.exit_code, "http 500" in silent.output) == (1, True)
        told["now"].status = None
        pulled = CliRunner().invoke(main, ["upstream", "pull", "--dry-run", "--store", words[-1]])
        assert (pulled.exit_code, "Dry run" in pulled.output) == (0, True)
        told["now"].spoil = lambda _, value: {"nothing": value}
        broken = CliRunner().invoke(main, ["upstream", "pull", "--store", words[-1]])
        assert (broken.exit_code, "expected a list" in broken.output) == (3, True)
    finally:
        done.set()
        thread.join()


# ---- pure parts -------------------------------------------------------------------------------------------------

LINES = st.lists(
    st.builds(
        Line,
        session=st.sampled_from(["am1", "pm1"]),
        pupil=st.sampled_from(["s1", "s2", "s3"]),
        code=st.sampled_from(["present", "late", "absent"]),
        reason=st.sampled_from(["", "5"]),
    ),
    unique_by=lambda line: line.cell,
)


@settings(derandomize=True, deadline=None)
@given(LINES, LINES)
def test_differences_are_complete_and_true(ours: list[Line], theirs: list[Line]) -> None:
    """None where both tallies are the same; else exactly the cells that differ, each with its cause."""
    found = differences(ours, theirs)
    here, there = ({line.cell: line for line in some} for some in (ours, theirs))
    differing = {cell for cell in here.keys() | there.keys() if here.get(cell) != there.get(cell)}
    assert {(one.session, one.pupil) for one in found} == differing
    assert (tally(ours) == tally(theirs)) == (not found)
    for one in found:
        cell = (one.session, one.pupil)
        assert one.ours == (here[cell].code if cell in here else None)
        assert one.theirs == (there[cell].code if cell in there else None)
        assert (one.cause is Cause.MISSING_HERE) == (cell not in here)
        assert (one.cause is Cause.MISSING_UPSTREAM) == (cell not in there)
        assert (one.cause is Cause.OTHER_CODE) == (cell in here and cell in there and one.ours != one.theirs)


@settings(derandomize=True, deadline=None)
@given(LINES, LINES, st.sets(st.sampled_from(["am1", "pm1"])))
def test_what_explains_a_difference_makes_none(ours: list[Line], theirs: list[Line], waiting: set[str]) -> None:
    """Waiting and refused events only name the cause."""
    plain = {(one.session, one.pupil): one for one in differences(ours, theirs)}
    rejected = {("am1", "s1")}
    for one in differences(ours, theirs, waiting=waiting, rejected=rejected):
        cell = (one.session, one.pupil)
        cause = Cause.REJECTED if cell in rejected else Cause.WAITING if one.session in waiting else plain[cell].cause
        assert one.cause is cause
        plain.pop(cell)
    assert not plain


def test_a_school_is_the_sum_of_its_classes() -> None:
    """An empty class counts for nothing, and which class a line is in matters."""
    line = Line(session="day", pupil="s1", code="present")
    assert total({"a": tally([line]), "b": tally([])}) == total({"a": tally([line])})
    assert total({"a": tally([line])}) != total({"b": tally([line])})
    assert total({"a": tally([line])}).count == 1
