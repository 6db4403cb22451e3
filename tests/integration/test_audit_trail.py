"""The trail of decisions: a row that is altered, removed, moved or cut off is found, and phones are witnesses."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from syncserver import trail
from syncserver.store.audit import NO_WITNESS
from syncserver.store.sqlite import open_sqlite_reader
from tests.support.server.world import SCHOOL, TODAY, World, open_world

REGISTER = f"c-3a/{TODAY}/day"


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with open_world(tmp_path / "hudur.db", background=False) as world:
        yield world


async def decide(world: World, times: int) -> None:
    for number in range(times):
        await world.order("code", user=f"{SCHOOL}/t{1 + number % 2}")


async def tamper(world: World, *statements: str) -> trail.Verdict:
    """What somebody with the file in their hands does, past the server; then the proof of `hudur audit verify`."""
    path = world.server.config.store
    assert isinstance(path, Path)
    connection = sqlite3.connect(path)
    for statement in statements:
        connection.execute(statement)
    connection.commit()
    connection.close()
    reader = await open_sqlite_reader(path)
    try:
        return await trail.verify(reader)
    finally:
        await reader.close()


async def test_a_trail_nobody_touched_is_whole(world: World) -> None:
    """Codes, an enrolment, frames: no finding, and the phone's witness was heard."""
    phone = await world.phone()
    await phone.sync((REGISTER, phone.take(REGISTER, {"s001": "P"})))
    verdict = await tamper(world)
    assert verdict.findings == ()
    assert verdict.witnesses > 0
    assert verdict.rows == await world.count("audit")


@pytest.mark.parametrize(
    ("statement", "kind", "row"),
    [
        ("UPDATE audit SET reason = 'nothing' WHERE id = 3", "altered", 3),
        ("UPDATE audit SET at_ms = at_ms + 1 WHERE id = 1", "altered", 1),
        ("DELETE FROM audit WHERE id = 3", "removed", 3),
        ("DELETE FROM audit WHERE id = 1", "removed", 1),
    ],
)
async def test_an_altered_or_removed_row_is_found(world: World, statement: str, kind: str, row: int) -> None:
    """Each act is named with its row."""
    await decide(world, 5)
    findings = (await tamper(world, statement)).findings
    assert (kind, row) in [(one.kind, one.row) for one in findings]


async def test_two_rows_that_changed_places_are_found(world: World) -> None:
    """Their contents swapped, hashes and all: neither follows from the row before it."""
    await decide(world, 5)
    swap = [
        "UPDATE audit SET id = 100 WHERE id = 2",
        "UPDATE audit SET id = 2 WHERE id = 3",
        "UPDATE audit SET id = 3 WHERE id = 100",
    ]
    findings = (await tamper(world, *swap)).findings
    assert {one.row for one in findings} >= {2, 3}


async def test_an_end_that_was_cut_off_is_found_by_what_phones_have_signed(world: World) -> None:
    """The rows that are left are a whole chain; a phone's frame says that there was more."""
    phone = await world.phone()
    await decide(world, 3)
    await phone.sync()
    await phone.sync((REGISTER, phone.take(REGISTER, {"s001": "P"})))
    verdict = await tamper(world, "DELETE FROM audit WHERE id > 3")
    assert {one.kind for one in verdict.findings} == {"cut-off"}


async def test_a_head_somebody_kept_must_be_there(world: World) -> None:
    """From a receipt: found by its first digits; after the rows are gone it is not."""
    await decide(world, 3)
    row = await world.db.fetch_one("SELECT hash FROM audit WHERE id = 2")
    assert row is not None
    head = row[0].hex()[:16]
    assert (await trail.verify(world.db, known_head=head)).findings == ()
    unknown = await trail.verify(world.db, known_head="0123456789abcdef")
    assert [one.kind for one in unknown.findings] == ["unknown-head"]


async def test_the_next_contact_of_a_phone_tells_when_the_head_it_was_told_is_gone(world: World) -> None:
    """The nonce carries the head, the phone signs it back; a trail without it is a security event; work is taken."""
    phone = await world.phone()
    await decide(world, 1)
    await phone.sync()
    quiet = await world.db.fetch_all("SELECT kind FROM security_events")
    async with world.db.transaction() as tx:
        await tx.execute("DELETE FROM audit WHERE id = (SELECT max(id) FROM audit)")
    answer = await phone.sync((REGISTER, phone.take(REGISTER, {"s001": "P"})))
    found = await world.db.fetch_all("SELECT kind, device FROM security_events")
    assert (quiet, found) == ([], [("audit-head-unknown", phone.me.device)])
    verdicts = answer.answer.receipts[0]
    assert not isinstance(verdicts, str)
    assert [verdict.kind for verdict in verdicts] == [0]


async def test_every_nonce_carries_the_head_of_the_trail(world: World) -> None:
    """Of an enrolment, of a sync, of a call: the last four bytes of what the device signs next."""
    phone = await world.phone(user_id="ch1")
    nonces = [phone.nonce]
    await phone.sync()
    nonces.append(phone.nonce)
    known = {row[0] for row in await world.db.fetch_all("SELECT witness FROM audit")}
    assert all(nonce is not None and nonce[4:] in known and nonce[4:] != NO_WITNESS for nonce in nonces)


async def test_rows_are_read_by_what_they_are_about(world: World) -> None:
    """One school's decisions, through the order."""
    await decide(world, 2)
    everything = await world.order("audit")
    about = await world.order("audit", about=f"{SCHOOL}/t1")
    assert len(everything["rows"]) == 2  # type: ignore[arg-type]
    assert [row["subject"] for row in about["rows"]] == [f"{SCHOOL}/t1"]  # type: ignore[attr-defined]
    assert (await world.order("audit-verify"))["findings"] == []
