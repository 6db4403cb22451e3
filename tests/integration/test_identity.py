"""Duplicate records at a running server: merged and taken back without a mark being rewritten."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from syncserver.errors import RequestProblem
from syncserver.store.registers import outcome_of
from tests.support.server.desks import central, champion
from tests.support.server.world import OTHER_SCHOOL, SCHOOL, TODAY, World, open_world

REGISTER = f"c-3a/{TODAY}/day"
HOUR_MS = 3_600_000


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    """A server whose consumer is moved by hand."""
    async with open_world(tmp_path / "store.db", background=False) as opened:
        yield opened


async def bodies(world: World) -> dict[str, bytes]:
    """Every outcome, byte for byte."""
    rows = await world.db.fetch_all("SELECT school, class_id, date, session FROM outcomes")
    found = {}
    for row in rows:
        stored = await outcome_of(world.db, (row[0], row[1], row[2], row[3]))
        assert stored is not None
        found["/".join(row)] = stored.body
    return found


async def taken(world: World) -> None:
    """s002 is s001 registered twice: her teacher marked one row present and called the other absent. s003 likewise."""
    phone = await world.phone("t1")
    for register in (REGISTER, "c-3b/2026-11-22/day"):  # c-3b has none of them on its roster
        change = phone.take(register, {"s001": "P", "s002": "A", "s003": "E:sick", "s004": "P"})
        await phone.sync((register, change))
    await world.settle()


async def merge(world: World, alias: str, canonical: str) -> int:
    """The champion merges two records."""
    done = await champion(world).does(
        "pupil-merge", school=SCHOOL, alias=alias, canonical=canonical, reason="one child"
    )
    return int(done["merge"])


async def code(world: World, pupil: str) -> str | None:
    """What stands for a pupil; "-" when the register does not know the record."""
    stored = await outcome_of(world.db, (SCHOOL, "c-3a", TODAY, "day"))
    assert stored is not None
    answer = stored.outcome.answers.get(pupil)
    return "-" if answer is None else None if answer.code is None else answer.code.value


async def test_a_merge_makes_one_answer_and_its_undo_brings_everything_back_byte_for_byte(world: World) -> None:
    """Present under any record decides; the feed withdraws the duplicate's answer and tells it again."""
    await taken(world)
    before = await bodies(world)
    number = await merge(world, "s002", "s001")
    assert (await code(world, "s001"), await code(world, "s002")) == ("P", "-")
    stored = await outcome_of(world.db, (SCHOOL, "c-3a", TODAY, "day"))
    assert stored is not None
    answer = stored.outcome.answers["s001"]
    assert (answer.labels, answer.disputed, len(answer.values)) == (("merged-record",), False, 2)
    assert [e["type"].split(".")[-2] for e in await world.events() if e["subject"].endswith("s002")] == [
        "recorded", "withdrawn",
    ]  # fmt: skip
    await champion(world).does("pupil-merge-undo", school=SCHOOL, merge=number, reason="twins after all")
    assert await bodies(world) == before
    last = [e for e in await world.events() if e["subject"].endswith("s002")][-1]
    assert last["data"]["code"] == "absent"


@pytest.mark.parametrize("order", list(itertools.permutations(range(2))))
async def test_a_record_merged_into_one_that_is_merged_later_goes_along(world: World, order: tuple[int, int]) -> None:
    """s003 into s002, then s002 into s001: one pupil. Undone in either order everything is back."""
    await taken(world)
    before = await bodies(world)
    numbers = [await merge(world, "s003", "s002"), await merge(world, "s002", "s001")]
    assert [await code(world, pupil) for pupil in ("s001", "s002", "s003")] == ["P", "-", "-"]
    merges = (await champion(world).does("pupil-merges", school=SCHOOL))["merges"]
    assert [(one["alias"], one["stands_for_it"]) for one in merges] == [("s003", "s001"), ("s002", "s001")]
    for at in order:
        await champion(world).does("pupil-merge-undo", school=SCHOOL, merge=numbers[at], reason="wrong")
        if at == order[0]:
            known = {0: ("P", "-", "E"), 1: ("P", "A", "-")}[at]
            assert tuple([await code(world, pupil) for pupil in ("s001", "s002", "s003")]) == known
    assert await bodies(world) == before


async def test_what_must_not_be_merged_is_refused_with_the_rule(world: World) -> None:
    """Itself, in a circle, twice, across schools, a stranger, a teacher."""
    await taken(world)
    await merge(world, "s002", "s001")
    named = {"school": SCHOOL, "reason": "x"}
    for alias, canonical, rule in (
        ("s003", "s003", "same-record"),
        ("s001", "s002", "same-record"),
        ("s002", "s003", "merged-already"),
        ("s004", f"{OTHER_SCHOOL}/s001", "one-school"),
    ):
        said = await champion(world).is_refused("pupil-merge", **named, alias=alias, canonical=canonical)
        assert said["rule"] == rule
    for alias in ("s999", "t1"):
        with pytest.raises(RequestProblem) as refused:
            await champion(world).does("pupil-merge", **named, alias=alias, canonical="s001")
        assert refused.value.code == "not-found"


async def test_a_merge_can_be_taken_back_for_72_hours_and_centrally_after(world: World) -> None:
    """The refusal says since when, and who can."""
    await taken(world)
    before = await bodies(world)
    number = await merge(world, "s002", "s001")
    world.clock.advance(72 * HOUR_MS)
    named = {"school": SCHOOL, "merge": number, "reason": "twins"}
    said = await champion(world).is_refused("pupil-merge-undo", **named)
    assert (said["rule"], said["closed_on"], said["who"]) == (
        "undo-closed", "2026-11-25T08:00:00.000Z", "central, with a reference",
    )  # fmt: skip
    assert (await central(world).is_refused("pupil-merge-undo", **named))["rule"] == "reference-needed"
    await central(world).does("pupil-merge-undo", **named, reference="letter 5")
    assert await bodies(world) == before
    assert (await champion(world).is_refused("pupil-merge-undo", **named))["rule"] == "undone-already"


async def test_names_that_differ_in_spelling_only_are_candidates_and_nothing_more(world: World) -> None:
    """Same class only; twins with one name would be among them, so nothing is merged by it."""
    names = {"s001": "آية مصطفى", "s002": "أية مصطفي", "s003": "عبد الرَّحمن علي", "s004": "عبدالرحمن على"}
    async with world.db.transaction() as tx:
        await tx.executemany(
            "UPDATE users SET name = ? WHERE school = ? AND id = ?", [(n, SCHOOL, p) for p, n in names.items()]
        )
    await taken(world)
    before = await bodies(world)
    found = await champion(world).does("duplicates", school=SCHOOL)
    assert found["candidates"] == [
        {"class": "c-3a", "pupils": ["s001", "s002"]},
        {"class": "c-3a", "pupils": ["s003", "s004"]},
    ]
    assert await bodies(world) == before
    assert not any(name in str(found) for name in names.values())
    await merge(world, "s002", "s001")
    assert len((await champion(world).does("duplicates", school=SCHOOL))["candidates"]) == 1


async def test_phones_show_one_row_for_a_merged_record_and_two_again_after_the_undo(world: World) -> None:
    """The list of the class comes with the next pull, shorter by the duplicate; its number only ever rises."""
    phone = await world.phone()

    async def listed() -> tuple[int, list[str]]:
        await phone.pull()
        _, _, version, pupils = [item for item in phone.items("roster") if item[1] == "c-3a"][-1]
        return version, [pupil for pupil, _ in pupils]

    first, whole = await listed()
    assert {"s001", "s002"} <= set(whole)
    done = await champion(world).does("pupil-merge", school=SCHOOL, alias="s002", canonical="s001", reason="twice")
    second, shorter = await listed()
    assert shorter == [pupil for pupil in whole if pupil != "s002"]
    await champion(world).does("pupil-merge-undo", school=SCHOOL, merge=done["merge"], reason="twins")
    third, again = await listed()
    assert again == whole
    assert first < second < third
