"""The commands that show what waits for a person and carry the person's word: what an office types, and reads."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from clientcore.ports import ManualClock, SystemClock
from syncserver.cli import main
from tests.support.server.desks import operator
from tests.support.server.phone import CAPTURED_MS
from tests.support.server.world import PUPILS, SCHOOL, TODAY, World, address_of, open_world

NAME = f"{SCHOOL}/c-3a/{TODAY}/day"
DAY_MS = 86_400_000
MIDNIGHT_MS = 1_795_298_400_000


@pytest.fixture
def office(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """A store in which two teachers disagree and one of them asks late; a token of the central office."""
    store = tmp_path / "store.db"

    async def prepare() -> dict[str, str]:
        async with open_world(store, background=False) as world:
            names = await _story(world)
            granted = await operator(world).does("access-grant", name="ministry", role="central", all=True, reason="")
            return {**names, "token": str(granted["token"])}

    found = asyncio.run(prepare())
    # The commands' own clock: a day and an hour after the register was taken, whenever the test runs.
    monkeypatch.setattr(SystemClock, "wall_ms", lambda _: ManualClock().wall_ms() + DAY_MS + 3_600_000)
    monkeypatch.setenv("HUDUR_STORE", address_of(store))
    monkeypatch.setenv("HUDUR_TOKEN", found["token"])
    monkeypatch.setenv("COLUMNS", "240")
    return {**found, "store": str(store)}


async def _story(world: World) -> dict[str, str]:
    first, second = await world.phone("t1", seed=1), await world.phone("t2", seed=2)
    register = f"c-3a/{TODAY}/day"
    saw = first.take(register, {**dict.fromkeys(PUPILS, "P"), "s004": "A"})
    missed = second.take(register, {"s001": "A"})
    for phone, change in ((first, saw), (second, missed)):
        await phone.sync((register, change))
    await world.settle()
    world.clock.advance(DAY_MS)
    first.taken = (world.clock.wall_ms() - MIDNIGHT_MS - CAPTURED_MS) // 60_000
    late = first.take(register, {"s003": "A"})
    await first.sync((register, late))
    await world.settle()
    return {"saw": saw.hash.hex(), "missed": missed.hash.hex(), "late": late.hash.hex()}


def hudur(*args: str, fails: bool = False) -> str:
    """What a command prints."""
    done = CliRunner().invoke(main, args)
    assert (done.exit_code != 0) is fails, done.output
    return done.output


def data(*args: str) -> dict[str, Any]:
    """What a command prints with --json."""
    found: dict[str, Any] = json.loads(hudur(*args, "--json"))
    return found


def settle(office: dict[str, str]) -> None:
    """Let the server run for a moment."""

    async def run() -> None:
        async with open_world(Path(office["store"]), background=False) as world:
            await world.settle()

    asyncio.run(run())


def test_a_request_is_listed_approved_and_shown_beside_the_original(office: dict[str, str]) -> None:
    """With the eight digits of the list; a central office needs a reference, and is told so."""
    shown = hudur("adjustments", "list", SCHOOL)
    assert office["late"][:16] in shown
    assert "s003: present → absent" in shown
    refused = hudur("adjustments", "approve", NAME, office["late"][:16], "--reason", "wrong_code", fails=True)
    assert "names the document it rests on. (rule reference-needed; who can open it: central" in refused
    args = ("adjustments", "approve", NAME, office["late"][:8], "--reason", "wrong_code", "--reference", "letter 3")
    assert "approved" in hudur(*args)
    settle(office)
    assert data("adjustments", "list", SCHOOL)["requests"] == []
    assert data("register", "show", NAME)["answers"]["s003"]["original"]["code"] == "present"


def test_a_dispute_is_listed_settled_and_explained(office: dict[str, str]) -> None:
    """In both languages, or in one."""
    shown = hudur("disputes", "list", SCHOOL)
    assert "ولا خطأ من أحد" in shown
    assert office["missed"][:16] in shown
    args = ("--reason", "the parents called", "--reference", "call 7")
    assert "absent" in hudur("disputes", "settle", NAME, "s001", office["missed"][:16], *args)
    settle(office)
    told = hudur("explain", NAME, "s001")
    assert "The official answer: absent. settled by a person." in told
    assert "الإجابة الرسمية: غياب. فصل فيه شخص." in told
    assert "الإجابة" not in hudur("explain", NAME, "s001", "--lang", "en")
    assert "official" not in hudur("explain", NAME, "s001", "--lang", "ar").split("\n", 1)[1]
    assert data("explain", NAME, "s001")["code"] == "absent"


def test_records_are_merged_and_taken_back(office: dict[str, str]) -> None:
    """By the number the merge was given."""
    assert "records" in hudur("pupil", "duplicates", SCHOOL)
    word = ("--reason", "one child", "--reference", "letter 4")
    made = data("pupil", "merge", SCHOOL, "s004", "s001", *word)
    settle(office)
    assert "s004" not in data("register", "show", NAME)["answers"]
    assert str(made["undo_until"]) in hudur("pupil", "merges", SCHOOL)
    hudur("pupil", "undo", SCHOOL, str(made["merge"]), *word)
    settle(office)
    assert data("register", "show", NAME)["answers"]["s004"]["code"] == "absent"
    assert "taken back" in hudur("pupil", "merges", SCHOOL)


def test_a_bulk_operation_is_previewed_applied_listed_and_undone(office: dict[str, str]) -> None:
    """What stands against a cell is said; the digest goes from the preview to the deed."""
    wish = (SCHOOL, "official_duty", "--from", TODAY, "--until", TODAY, "--code-reason", "trip", "--class", "c-3a")
    shown = hudur("bulk", "preview", *wish)
    assert "39 cells would say official_duty; left out: disputed 1" in shown
    digest = shown.split("digest ")[1].strip()
    word = ("--reason", "trip", "--reference", "letter 5")
    assert "applied, 39 cells" in hudur("bulk", "apply", *wish, "--digest", digest, *word)
    settle(office)
    assert "not those of the preview" in hudur("bulk", "apply", *wish, "--digest", digest, *word, fails=True)
    assert "official_duty" in hudur("bulk", "list", SCHOOL)
    undone = hudur("bulk", "undo", SCHOOL, "1", *word)
    assert "39 cells restored" in undone
    settle(office)
    assert data("register", "show", NAME)["answers"]["s004"]["code"] == "absent"
    assert "No cell" in hudur("bulk", "second", SCHOOL, "1", *word, fails=True)


def test_deciding_without_a_token_is_refused_before_anything_is_asked(
    office: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who keeps the server decides nothing about people's work."""
    monkeypatch.delenv("HUDUR_TOKEN")
    assert "HUDUR_TOKEN" in hudur("pupil", "merge", SCHOOL, "s004", "s001", "--reason", "x", fails=True)
    assert data("pupil", "merges", SCHOOL)["merges"] == []
