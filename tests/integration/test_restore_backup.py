"""What a backup must be, what the proof of one finds, and how it is put in the place of a store."""

from __future__ import annotations

import asyncio
import hashlib
import json
import random
import sqlite3
import stat
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from clientcore.exchange import read_sync
from clientcore.frame import parse_frame
from syncserver.archive import mark_archived
from syncserver.backup import Manifest, file_digest, make_backup, manifest_path, read_manifest
from syncserver.errors import RestoreRefused, StoreFailed, StoreInUse
from syncserver.ports import RESTORE_CRASH_POINTS, ServerPorts
from syncserver.restore import Wish, restore
from syncserver.store.digest import LogHead, digest_of, read_head
from syncserver.store.meta import read_numbers
from syncserver.store.sqlite import open_sqlite, open_sqlite_reader
from syncserver.store.swap import plan_path
from syncserver.verify import Verified, verify
from tests.integration.test_restore_lossless import AFTER, BEFORE, take_all
from tests.support.devices import Phone
from tests.support.restored import QUICK, ZONE, Killed, School, names, talk

FILES = ("", "-wal", "-shm", ".manifest.json")


@pytest.fixture
async def school(tmp_path: Path) -> School:
    """A school with two settled registers in `backup.db`, and three more in the store."""
    school = School(tmp_path)
    async with school.served() as world:
        phone = await school.join(world, "a")
        take_all(phone, BEFORE, "s001")
        await talk(world, phone)
        await school.backup()
        take_all(phone, AFTER, "s002")
        await talk(world, phone)
        phone.close()
    return school


async def proof_of(school: School, *, proof: bool = False) -> Verified:
    file = school.folder / "backup.db"
    scratch = school.folder / "scratch.db"
    return await verify(file, scratch, zone=ZONE, clock=school.clock, manifest=read_manifest(file), proof=proof)


def write_manifest(file: Path, manifest: Manifest) -> None:
    manifest_path(file).write_text(manifest.to_json())


def alter(file: Path, sql: str, *, told: bool = True) -> None:
    """Change rows of a backup; `told`: with a manifest that names the new bytes."""
    with closing(sqlite3.connect(file)) as connection:
        assert connection.execute(sql).rowcount > 0
        connection.commit()
    if told:
        size, digest = file.stat().st_size, file_digest(file)
        write_manifest(file, replace(read_manifest(file), bytes=size, sha256=digest))


# ---- making one -------------------------------------------------------------------------------------------------


async def test_a_backup_is_one_private_file_with_a_manifest_and_overwrites_nothing(school: School) -> None:
    """Owner-only, no companion of SQLite's, digests that are its own; a second one into the same name is refused."""
    file = school.folder / "backup.db"
    manifest = read_manifest(file)
    for path in (file, manifest_path(file)):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert sorted(path.name for path in school.folder.glob("backup*")) == ["backup.db", "backup.db.manifest.json"]
    assert hashlib.sha256(file.read_bytes()).hexdigest() == manifest.sha256
    assert (manifest.log_offset, manifest.settled_offset, manifest.registers, manifest.epoch) == (2, 2, 2, 1)
    before = file.read_bytes()
    with pytest.raises(RestoreRefused, match="exists"):
        await school.backup()
    file.unlink()
    with pytest.raises(RestoreRefused, match="exists"):
        await school.backup()
    assert not file.exists()
    assert before.startswith(b"SQLite format 3")


async def test_a_backup_while_the_server_writes_is_one_moment(tmp_path: Path) -> None:
    """Pushes go on while it is taken: its log is a beginning of the store's, and the proof agrees."""
    school = School(tmp_path)
    async with school.served() as world:
        phone = await school.join(world, "a")

        async def busy() -> None:
            for day in range(2, 20):
                phone.take(date=f"2026-11-{day:02d}")
                assert (await phone.device.sync(confirm=False)).outcome == "ok"

        async def copies() -> None:
            for number in range(6):
                await make_backup(school.store, tmp_path / f"b{number}.db", school.clock)
                await asyncio.sleep(0)

        await asyncio.gather(busy(), copies())
        for number in range(6):
            file = tmp_path / f"b{number}.db"
            manifest = read_manifest(file)
            found = await verify(file, tmp_path / "s.db", zone=ZONE, clock=school.clock, manifest=manifest, proof=False)
            assert found.findings == ()
            log = await digest_of(world.db, LogHead(frame_id=manifest.frame_id, log_offset=manifest.log_offset))
            assert log.digest.hex() == manifest.log_digest


async def test_a_store_that_contradicts_itself_is_backed_up_all_the_same_and_said_to(school: School) -> None:
    """A backup of a damaged store is better than none; the flaws are named."""
    with closing(sqlite3.connect(school.store)) as connection:
        connection.execute("UPDATE audit SET reason = 'nothing happened' WHERE id = 1")
        connection.execute("DELETE FROM changes WHERE log_offset = 4")
        connection.commit()
    made = await school.backup("second.db")
    assert [flaw.split(":")[0] for flaw in made.flaws] == ["log", "audit"]
    assert (school.folder / "second.db").exists()


@pytest.mark.parametrize("where", ["nowhere.db", "empty.db"])
async def test_there_is_no_backup_of_nothing(tmp_path: Path, where: str) -> None:
    """A store that is not there, or that no server ever served; nothing is left behind."""
    if where == "empty.db":
        await (await open_sqlite(tmp_path / where)).close()
    with pytest.raises((StoreFailed, RestoreRefused)):
        await make_backup(tmp_path / where, tmp_path / "b.db", ServerPorts().clock)
    assert list(tmp_path.glob("b.db*")) == []


# ---- the proof --------------------------------------------------------------------------------------------------


async def test_an_untouched_backup_is_verified_by_both_implementations(school: School) -> None:
    """Every register settled anew, and merged by the Automerge core."""
    found = await proof_of(school, proof=True)
    assert found.findings == ()
    assert (found.registers, found.compared, found.unsettled, found.changes) == (2, 2, 0, 2)


ALTERATIONS = {
    "a change taken out": "DELETE FROM changes WHERE log_offset = 2",
    "a receipt moved": "UPDATE frames SET received_ms = received_ms + 1 WHERE id = 2",
    "a frame's byte": """UPDATE frames SET body = CAST(substr(body, 1, 60) || x'00' || substr(body, 62) AS BLOB)
        WHERE id = 2""",
    "an outcome's revision": "UPDATE outcomes SET revision = 7 WHERE date = '2026-11-16'",
    "an audit row": "UPDATE audit SET actor = 'user:x/y' WHERE id = 2",
    "another epoch": "UPDATE meta SET value = CAST('9' AS BLOB) WHERE name = 'epoch'",
    "the consumer set back": "UPDATE consumers SET log_offset = 1",
}


@pytest.mark.parametrize("name", ALTERATIONS)
async def test_rows_that_were_altered_in_a_backup_are_found(school: School, name: str) -> None:
    """Even with a manifest that names the altered file's own bytes."""
    alter(school.folder / "backup.db", ALTERATIONS[name])
    found = await proof_of(school)
    assert not found.agrees
    with pytest.raises(RestoreRefused, match="differences"):
        await school.restore()


async def test_an_outcome_that_does_not_follow_from_the_log_is_found(school: School) -> None:
    """The digest of the outcomes in the manifest may be wrong as well: settling anew from offset 0 tells."""
    file = school.folder / "backup.db"
    alter(
        file,
        """UPDATE outcomes SET (body, source_offset) = (SELECT body, NULL FROM whole_outcomes
        WHERE date = '2026-11-17') WHERE date = '2026-11-16'""",
    )
    found = await proof_of(school)
    digest = next(one for one in found.findings if one.startswith("digest of the outcomes")).split()[5].rstrip(",")
    write_manifest(file, replace(read_manifest(file), registers_digest=digest))
    found = await proof_of(school)
    assert len(found.findings) == 1
    assert "settled anew from offset 0" in found.findings[0]


@pytest.mark.parametrize("seed", range(8))
async def test_flipped_bits_and_cut_files_are_found_and_never_put_in_place(school: School, seed: int) -> None:
    """A byte changed or the end cut off anywhere: findings, and the store stays what it was."""
    source = random.Random(seed)
    file = school.folder / "backup.db"
    data = bytearray(file.read_bytes())
    if seed % 2:
        data[source.randrange(len(data))] ^= 1 << source.randrange(8)
    else:
        del data[source.randrange(len(data)) :]
    file.write_bytes(data)
    before = school.store.read_bytes()
    assert not (await proof_of(school)).agrees
    with pytest.raises(RestoreRefused, match="differences"):
        await school.restore()
    assert school.store.read_bytes() == before
    assert not list(school.folder.glob("*.restoring*"))


async def test_what_waited_to_be_settled_is_no_difference(tmp_path: Path) -> None:
    """A backup between receipt and settlement: nothing to compare yet, and said so; archived is what is settled."""
    school = School(tmp_path)
    async with school.served() as world:
        phone = await school.join(world, "a")
        take_all(phone, BEFORE, "s001")
        await phone.sync()
        await school.backup()
        found = await proof_of(school)
        assert (found.findings, found.compared, found.unsettled) == ((), 0, 2)
        await world.settle()
        phone.close()
    assert (await school.restore()).raised.archived == 0


async def test_a_manifest_is_needed_and_must_be_whole(school: School) -> None:
    """Without one nothing says what the backup must hold."""
    file = school.folder / "backup.db"
    path = manifest_path(file)
    text = path.read_text()
    for broken, code in (("{}", "bad-manifest"), ("[1", "bad-manifest"), (text.replace("/1", "/2"), "bad-manifest")):
        path.write_text(broken)
        with pytest.raises(RestoreRefused, match=code):
            read_manifest(file)
    path.write_text(json.dumps({**json.loads(text), "epoch": "1"}))
    with pytest.raises(RestoreRefused, match="bad-manifest"):
        read_manifest(file)
    path.unlink()
    with pytest.raises(RestoreRefused, match="no-manifest"):
        await school.restore()


# ---- putting it in place ----------------------------------------------------------------------------------------


async def state(path: Path) -> tuple[int, int]:
    """(epoch, last offset) of the store, opened as a server opens it."""
    db = await open_sqlite(path)
    try:
        return (await read_numbers(db))["epoch"], (await read_head(db)).log_offset
    finally:
        await db.close()


@pytest.mark.parametrize("times", [1, 2, 3])
@pytest.mark.parametrize("point", RESTORE_CRASH_POINTS)
async def test_a_restore_that_ends_anywhere_leaves_the_old_store_or_the_new_one(
    school: School, point: str, times: int
) -> None:
    """The old store has a hot WAL beside it. After the end of the process at any point the next opener finds all five
    changes under the old epoch, or the backup's two under a new one; and a second restore works.
    """
    (school.folder / "store.db-wal").touch()
    left = times

    def end() -> None:
        nonlocal left
        left -= 1
        if left == 0:
            raise Killed

    school.points.acts[point] = end
    try:
        await school.restore()
        assert point != "restore.between_moves" or times == 3
        assert left > 0
    except Killed:
        pass
    school.points.acts.clear()
    epoch, offset = await state(school.store)
    early = point in ("restore.before_copy", "restore.before_epoch", "restore.after_epoch") and left == 0
    assert (offset, epoch > 1) == ((5, False) if early else (2, True))
    assert not plan_path(school.store).exists()
    second = await school.restore()
    assert second.raised.epoch > epoch
    assert (await state(school.store))[1] == 2


async def test_an_unfinished_exchange_keeps_readers_out(school: School) -> None:
    """What stands at the place may be half of the old store: nobody looks at it before the exchange is finished."""

    def end() -> None:
        raise Killed

    school.points.acts["restore.after_plan"] = end
    with pytest.raises(Killed):
        await school.restore()
    with pytest.raises(StoreFailed, match="restore-plan"):
        await open_sqlite_reader(school.store)
    assert (await state(school.store))[1] == 2
    await (await open_sqlite_reader(school.store)).close()


async def test_the_old_store_is_moved_aside_with_its_wal(school: School) -> None:
    """Nothing is deleted: what the old store knew can still be read where it is now."""
    done = await school.restore()
    assert done.aside is not None
    assert (await state(school.folder / done.aside))[1] == 5
    assert done.replaced is not None
    assert (done.replaced.changes, done.replaced.continues, done.replaced.trouble) == (3, True, None)


async def test_a_damaged_store_is_replaced_and_kept(school: School) -> None:
    """The usual reason for a restore: the store cannot be read. Every device is asked for everything."""
    school.store.write_bytes(b"not a database at all" * 1000)
    done = await school.restore()
    assert done.replaced is not None
    assert done.replaced.trouble is not None
    assert (done.raised.rebuilds, (await state(school.store))[1]) == (1, 2)
    assert done.aside is not None
    assert (school.folder / done.aside).read_bytes().startswith(b"not a database")


async def test_what_stands_against_a_restore(school: School, tmp_path_factory: pytest.TempPathFactory) -> None:
    """A running server, a backup of another server, a clock before the backup: refused, nothing changed."""
    async with school.served():
        with pytest.raises(StoreInUse):
            await school.restore()
    other = School(tmp_path_factory.mktemp("other"))
    async with other.served():
        pass
    for name in FILES:
        if (school.folder / f"backup.db{name}").exists():
            (other.folder / f"backup.db{name}").write_bytes((school.folder / f"backup.db{name}").read_bytes())
    with pytest.raises(RestoreRefused, match="other-server"):
        await other.restore()
    assert (await state(other.store))[0] == 1
    school.clock.set_wall_ms(1_000)
    with pytest.raises(RestoreRefused, match="clock"):
        await school.restore()
    done = await school.restore(wish=Wish(zone=ZONE, proof=False, epoch_above=2_000_000_000))
    assert done.raised.epoch == 2_000_000_001


async def test_findings_can_be_accepted_and_archive_nothing(school: School) -> None:
    """Sometimes a damaged backup is all there is: an explicit wish puts it in place and calls nothing archived."""
    alter(school.folder / "backup.db", ALTERATIONS["an audit row"])
    done = await school.restore(wish=Wish(zone=ZONE, proof=False, accept=True))
    assert done.verified.findings != ()
    assert (done.raised.archived, done.raised.rebuilds) == (0, 1)


async def test_the_audit_trail_tells_of_the_restore_and_of_what_was_lost(school: School) -> None:
    """The head that phones were told is gone from the chain: it stands in the row of the restore."""
    reader = await open_sqlite_reader(school.store)
    head = await reader.fetch_one("SELECT hash FROM audit ORDER BY id DESC LIMIT 1")
    await reader.close()
    assert head is not None
    done = await school.restore()
    reader = await open_sqlite_reader(school.store)
    row = await reader.fetch_one("SELECT action, before_json, after_json FROM audit ORDER BY id DESC LIMIT 1")
    await reader.close()
    assert row is not None
    before, after = json.loads(row[1]), json.loads(row[2])
    assert (row[0], before["replaced_audit_head"], before["epoch"]) == ("restore", head[0].hex(), 1)
    assert (after["epoch"], before["backup"]) == (done.raised.epoch, done.verified.manifest.sha256)


# ---- archived ---------------------------------------------------------------------------------------------------


def have(phone: Phone, since: int, school: School) -> list[bytes]:
    """Names of changes that were offered in requests behind the first `since`."""
    told: list[bytes] = []
    for path, body in school.road.asked[since:]:
        ask = parse_frame(read_sync(body)[-1]).ask if path == "/v1/sync" else None
        if ask is not None and ask.have:
            told += [ask.have[at : at + 8] for at in range(0, len(ask.have), 8)]
    return told


async def archived_school(tmp_path: Path) -> tuple[School, Phone, set[tuple[bytes, str]]]:
    """Two registers in `old.db`, two more in `backup.db`, which was verified and marked; one more sent after that."""
    school = School(tmp_path)
    async with school.served() as world:
        phone = await school.join(world, "a")
        await talk(world, phone)
        await school.backup("empty.db")
        take_all(phone, BEFORE, "s001")
        await talk(world, phone)
        await school.backup("old.db")
        take_all(phone, AFTER[:2], "s001")
        await talk(world, phone)
        await school.backup()
        take_all(phone, AFTER[2:], "s002")
        await talk(world, phone)
    found = await proof_of(school)
    assert await mark_archived(school.store, found, reason="test") == 4
    async with school.served() as world:
        await talk(world, phone)
        return school, phone, await names(world.db)


async def test_a_phone_is_told_what_is_archived_and_offers_only_the_rest(tmp_path: Path) -> None:
    """Four of five changes lie in a verified backup; after a restore of it the fifth is offered, and nothing else."""
    school, phone, wanted = await archived_school(tmp_path)
    state_ = phone.device.state
    assert len(state_.archived) == 4
    assert {short for short, entry in state_.entries.items() if entry.archived} == state_.archived
    assert set(phone.steps()) <= {"confirmed", "needs_review"}
    assert (await school.restore()).raised.rebuilds == 0
    since = len(school.road.asked)
    async with school.served() as world:
        await talk(world, phone)
        assert await names(world.db) == wanted
        assert set(have(phone, since, school)) == set(state_.entries) - state_.archived
        assert len(state_.archived) == 4  # the one that was brought back is in no backup yet
        assert not state_.needs_offer


async def test_a_backup_older_than_the_archived_one_gets_the_archived_changes_too(tmp_path: Path) -> None:
    """The old store still says what it had called archived, so every device is asked for everything."""
    school, phone, wanted = await archived_school(tmp_path)
    assert (await school.restore("old.db")).raised.rebuilds == 1
    async with school.served() as world:
        assert len(await names(world.db)) == 2
        await talk(world, phone)
        assert await names(world.db) == wanted
        assert len(phone.device.state.archived) == 2
        assert phone.device.state.open_directives() == []


async def test_nobody_knows_what_was_archived_and_nothing_is_lost(tmp_path: Path) -> None:
    """The oldest backup, in a place where nothing is left of the old store: everything is asked for, all comes back."""
    school, phone, wanted = await archived_school(tmp_path)
    school.store.unlink()
    assert (await school.restore("empty.db")).raised.rebuilds == 1
    async with school.served() as world:
        assert await names(world.db) == set()
        await talk(world, phone)
        assert await names(world.db) == wanted
        assert phone.device.state.archived == set()
        assert phone.device.state.pending == 0


async def test_only_a_verified_backup_of_this_very_log_archives_anything(tmp_path: Path) -> None:
    """Findings, another epoch, an altered log: refused, and the mark stays where it was."""
    school, _, _ = await archived_school(tmp_path)
    found = await proof_of(school)
    with pytest.raises(RestoreRefused, match="differences"):
        await mark_archived(school.store, replace(found, findings=("x",)), reason="test")
    changes: list[dict[str, Any]] = [{"epoch": 2}, {"log_digest": "00" * 32}]
    for change in changes:
        other = replace(found, manifest=replace(found.manifest, **change))
        with pytest.raises(RestoreRefused, match="other-log"):
            await mark_archived(school.store, other, reason="test")
    await school.restore("old.db")
    with pytest.raises(RestoreRefused, match="other-log"):
        await mark_archived(school.store, found, reason="test")


async def test_the_epoch_file_counts_where_the_old_store_and_the_clock_do_not_help(school: School) -> None:
    """Restored in 2033 by a wrong clock, the store lost, the clock right again: the epoch still rises."""
    now_ms = school.clock.wall_ms()
    school.clock.set_wall_ms(2_000_000_000_000)
    first = await school.restore()
    school.store.unlink()
    school.clock.set_wall_ms(now_ms + 5_000)
    second = await restore(school.folder / "backup.db", school.store, QUICK, ServerPorts(clock=school.clock))
    assert second.raised.epoch == first.raised.epoch + 1
