"""After a restore from an older backup the phones bring back what it lacks: nothing lost, nothing doubled."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from clientcore.device import BUNDLES_PATH
from clientcore.errors import Problem
from clientcore.exchange import read_answer, read_sync
from clientcore.frame import parse_frame, write_bundle
from syncserver.enrol import make_code
from syncserver.feed import RESTORED
from tests.support.devices import Phone, absent, open_phone
from tests.support.restored import Killed, School, names, talk
from tests.support.server.world import SCHOOL, World

BEFORE = ("2026-11-16", "2026-11-17")
AFTER = ("2026-11-18", "2026-11-19", "2026-11-22")


@pytest.fixture
def school(tmp_path: Path) -> School:
    return School(tmp_path)


def take_all(phone: Phone, dates: tuple[str, ...], *pupils: str) -> None:
    for date in dates:
        phone.take(absent(*pupils), date=date)


async def codes(world: World) -> dict[tuple[str, str], object]:
    """What the feed says in the end of every pupil in every register, read as a consumer who starts now reads it."""
    return fold([], await world.events())


def fold(known: list[dict[str, Any]], told: list[dict[str, Any]]) -> dict[tuple[str, str], object]:
    """A consumer's table after `known` (read before a restore) and `told`: what a restore made void is taken back."""
    marks = [event["data"] for event in told if event["type"] == RESTORED]
    kept = [
        event
        for event in [*known, *told]
        if not any(mark["void_after"] < event["sequence"] < mark["void_before"] for mark in marks)
    ]
    table: dict[tuple[str, str], object] = {}
    for event in kept:
        if event["type"] != RESTORED:
            table[event["data"]["register"], event["data"]["pupil"]] = event["data"].get("code")
    return table


async def test_every_acknowledged_change_is_there_after_the_phones_next_contact(school: School) -> None:
    """Three phones, three acknowledged days after the backup: 0 changes missing, the same official answers, all
    confirmed, no phone taken for a copy.
    """
    async with school.served() as world:
        phones = [
            await school.join(world, "a", user="t1", seed=1),
            await school.join(world, "b", user="t2", seed=2),
            await school.join(world, "c", user="ch1", seed=3),
        ]
        take_all(phones[0], BEFORE, "s001")
        await talk(world, *phones)
        await school.backup()
        take_all(phones[0], AFTER, "s002")
        take_all(phones[1], AFTER[:2], "s003")
        await talk(world, *phones)
        wanted, answers = await names(world.db), await codes(world)
        numbers = [phone.device.state.last_number for phone in phones]
    assert (await school.restore()).verified.agrees
    async with school.served() as world:
        lacking = wanted - await names(world.db)
        assert len(lacking) == 5
        await talk(world, *phones)
        assert await names(world.db) == wanted
        assert await codes(world) == answers
        for phone, number in zip(phones, numbers, strict=True):
            assert phone.device.state.pending == 0
            assert phone.slugs() == []
            assert phone.device.state.last_number > number
            assert set(phone.steps()) <= {"confirmed", "needs_review"}
        assert await world.count("security_events") == 0


async def test_a_backup_restored_twice_loses_nothing_twice(school: School) -> None:
    """The same file put back after the phones had brought everything: the epoch rises again and they bring it again."""
    async with school.served() as world:
        phone = await school.join(world, "a")
        await talk(world, phone)
        await school.backup()
        take_all(phone, AFTER, "s001")
        await talk(world, phone)
        wanted = await names(world.db)
    epochs = []
    for _ in range(3):
        epochs.append((await school.restore()).raised.epoch)
        async with school.served() as world:
            assert await names(world.db) == set()
            await talk(world, phone)
            assert await names(world.db) == wanted
    assert epochs == sorted(set(epochs))


async def test_the_epoch_rises_on_another_machine_that_knows_nothing_of_the_first_restore(tmp_path: Path) -> None:
    """Restored here, then from the same file in an empty place: the phone that saw the first epoch still offers all."""
    school = School(tmp_path / "one")
    school.folder.mkdir()
    async with school.served() as world:
        phone = await school.join(world, "a")
        await talk(world, phone)
        await school.backup()
        take_all(phone, AFTER, "s001")
        await talk(world, phone)
        wanted = await names(world.db)
    first = await school.restore()
    async with school.served() as world:
        await talk(world, phone)
    other = School(tmp_path / "two", clock=school.clock, road=school.road)
    other.folder.mkdir()
    for suffix in ("", ".manifest.json"):
        shutil.copy(school.folder / f"backup.db{suffix}", other.folder / f"backup.db{suffix}")
    done = await other.restore()
    assert (done.replaced, done.aside) == (None, None)
    assert done.raised.epoch > first.raised.epoch
    async with other.served() as world:
        await talk(world, phone)
        assert await names(world.db) == wanted


async def test_a_device_enrolled_after_the_backup_keeps_its_work_and_enrols_again(school: School) -> None:
    """The restored server does not know it: refused, nothing dropped; a new code, the same key, everything arrives. A
    code that stands in the backup may have been used since, and does not work any more.
    """
    async with school.served() as world:
        live = await make_code(
            world.db, world.server.ports, school=SCHOOL, user_id="t2", made_by="operator", valid_ms=86_400_000
        )
        await school.backup()
        phone = await school.join(world, "a")
        take_all(phone, AFTER, "s001")
        await talk(world, phone)
        wanted, device = await names(world.db), phone.device.journal.device
    await school.restore()
    async with school.served() as world:
        report = await phone.sync()
        assert (report.outcome, getattr(report.error, "code", None)) == ("refused", "unknown-device")
        assert len(phone.device.state.entries) == 3
        phone.close()
        phone = open_phone(school.folder / "a", school.road, school.clock, seed=5)
        with pytest.raises(Problem, match="code-expired"):
            await phone.device.enrol(school=SCHOOL, code=live[0], label="a")
        code, _ = await make_code(world.db, world.server.ports, school=SCHOOL, user_id="t1", made_by="operator")
        await phone.device.enrol(school=SCHOOL, code=code, label="a")
        assert phone.device.journal.device == device
        await talk(world, phone)
        assert await names(world.db) == wanted
        assert phone.device.state.pending == 0


async def test_what_a_courier_brought_is_brought_again(school: School) -> None:
    """A phone that never has network: its file, carried after the backup, is carried once more and counts once."""
    async with school.served() as world:
        silent = await school.join(world, "silent", user="t1", seed=1)
        courier = await school.join(world, "courier", user="ch1", seed=2)
        await school.backup()
        take_all(silent, AFTER, "s001")
        file = write_bundle(silent.device.frames_to_carry())
        await talk(world, courier)
        await courier.device.call("bundle", [file], path=BUNDLES_PATH)
        wanted = await names(world.db)
        assert len(wanted) == 3
    await school.restore()
    async with school.served() as world:
        assert await names(world.db) == set()
        again = write_bundle(silent.device.frames_to_carry())
        assert again == file
        await courier.device.call("bundle", [again], path=BUNDLES_PATH)
        assert await names(world.db) == wanted
        await talk(world, silent, courier)
        assert await names(world.db) == wanted
        assert silent.steps() == {"confirmed": 1, "needs_review": 2} or silent.device.state.pending == 0


async def test_an_offer_cut_short_is_made_again(school: School) -> None:
    """Every answer of the first contact after the restore is lost, the app is killed: the next contact offers all."""
    async with school.served() as world:
        phone = await school.join(world, "a")
        await talk(world, phone)
        await school.backup()
        take_all(phone, AFTER, "s001")
        await talk(world, phone)
        wanted = await names(world.db)
    await school.restore()
    for cuts in range(3):  # the answer that names the epoch, the one that names what is wanted, the receipts
        async with school.served() as world:
            school.road.answers_left = cuts
            with pytest.raises(Killed):
                await phone.sync()
            phone.close()
            phone = open_phone(school.folder / "a", school.road, school.clock, seed=10 + cuts)
            school.road.answers_left = None
    async with school.served() as world:
        await talk(world, phone)
        assert await names(world.db) == wanted
        assert phone.device.state.pending == 0


async def test_a_consumer_that_was_ahead_skips_nothing_and_never_sees_an_id_twice(school: School) -> None:
    """It has read events that the backup lacks: it gets the mark of the restore, then all that was settled since, under
    new ids; what it knows in the end is what a consumer that starts anew knows.
    """
    async with school.served() as world:
        phone = await school.join(world, "a")
        take_all(phone, BEFORE, "s001")
        await talk(world, phone)
        await school.backup()
        take_all(phone, (*AFTER, BEFORE[0]), "s002")
        await talk(world, phone)
        known = await world.events()
        position = int(known[-1]["sequence"])
    done = await school.restore()
    async with school.served() as world:
        take_all(phone, BEFORE[:1], "s004")
        await talk(world, phone)
        told = await world.events(after=position)
        mark = told[0]
        assert (mark["type"], int(mark["sequence"])) == (RESTORED, done.raised.feed_from)
        assert int(mark["data"]["void_after"]) == done.raised.void_after < position
        assert len({event["id"] for event in [*known, *told]}) == len(known) + len(told)
        whole = await world.events()
        assert fold(known, told) == fold([], whole)
        by_id = {event["id"]: event for event in [*known, *told]}
        for event in told[1:]:
            before = event["data"].get("supersedes")
            assert before is None or before in {one["id"] for one in whole}
            assert by_id[event["id"]] == event
        of_school = (await world.http.get("/v1/events", params={"after": position, "school": SCHOOL})).json()
        assert of_school[0] == mark


async def test_orders_after_a_restore_are_obeyed_although_old_ones_had_later_numbers(school: School) -> None:
    """Directives given after the backup are forgotten by the server and remembered by the phone; a new one is not taken
    for one of those.
    """
    async with school.served() as world:
        phone = await school.join(world, "a")
        champion = await school.join(world, "ch", user="ch1", seed=2)
        await talk(world, phone, champion)
        await school.backup()
        for _ in range(3):
            await champion.device.call("resync", [phone.device.journal.device, "nudge", "test"])
            await talk(world, phone, champion, rounds=1)
        assert phone.device.state.done_directive == 3
    await school.restore()
    async with school.served() as world:
        await talk(world, phone, champion)
        await champion.device.call("resync", [phone.device.journal.device, "repull", "after the restore"])
        await talk(world, phone, champion)
        assert phone.device.state.directives[phone.device.state.done_directive].level == "repull"
        assert phone.device.state.open_directives() == []
        rows = await world.db.fetch_all("SELECT level FROM directives WHERE done_ms IS NULL")
        assert rows == []


async def test_a_frame_overheard_before_the_restore_gets_no_pull_from_the_restored_server(school: School) -> None:
    """Its nonce stands in the backup and its bytes do not: only receipts come back, no roster."""
    async with school.served() as world:
        phone = await school.join(world, "a")
        await talk(world, phone)
        await school.backup()
        row = await world.db.fetch_one("SELECT nonce FROM devices")
        assert row is not None
        await phone.sync()
    asks = [(body, parse_frame(read_sync(body)[-1]).ask) for path, body in school.road.asked if path == "/v1/sync"]
    overheard = [body for body, ask in asks if ask is not None and ask.nonce == row[0]]
    assert len(overheard) == 1
    await school.restore()
    async with school.served():
        assert school.road.line is not None
        for body in overheard:
            reply = await school.road.line.post("/v1/sync", body, content_type="application/x-hudur", deadline_s=9)
            answer = read_answer(reply.body, server_key=phone.device.journal.enrolment.server_key, request=body)
            assert answer.answer.payload is None


async def test_a_phone_that_lacks_nothing_is_asked_for_nothing(school: School) -> None:
    """Restored from a backup that has everything: the offer is heard, no frame with changes is sent."""
    async with school.served() as world:
        phone = await school.join(world, "a")
        take_all(phone, AFTER, "s001")
        await talk(world, phone)
        await school.backup()
        wanted = await names(world.db)
    await school.restore()
    async with school.served() as world:
        report = await phone.sync()
        assert (report.wanted, report.changes["durable"], report.changes["duplicate"]) == (0, 0, 0)
        assert await names(world.db) == wanted
