"""A backup that the program before this one made is proved and restored by this one."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from syncserver.backup import Manifest, file_digest, manifest_path, read_manifest
from syncserver.errors import RestoreRefused, StoreFailed
from syncserver.store import migrations
from syncserver.store.schema import SCHEMA_VERSION
from syncserver.store.sqlite import open_sqlite, open_sqlite_reader
from syncserver.verify import Verified, verify
from tests.integration.test_migrations import VERSIONS, old_rows, old_statements
from tests.integration.test_restore_lossless import AFTER, BEFORE, take_all
from tests.support.restored import ZONE, School, names, talk


async def backup_of(version: int, school: School) -> Path:
    """The backup as an earlier version had made it: its own tables, the same rows, a manifest that names its bytes."""
    file = school.folder / "backup.db"
    reader = await open_sqlite_reader(file)
    rows = await old_rows(reader, version)
    await reader.close()
    file.unlink()
    with closing(sqlite3.connect(file)) as old:
        for statement in old_statements(version):
            old.execute(statement)
        for name, some in rows.items():
            for row in some:
                old.execute(f"INSERT INTO {name} VALUES ({', '.join('?' * len(row))})", row)
        old.commit()
    write(file, schema=version)
    return file


def write(file: Path, **fields: int) -> Manifest:
    """A manifest that names the file as it is now."""
    manifest = replace(read_manifest(file), bytes=file.stat().st_size, sha256=file_digest(file), **fields)  # type: ignore[arg-type]
    manifest_path(file).write_text(manifest.to_json())
    return manifest


async def proof_of(school: School, file: Path) -> Verified:
    scratch = school.folder / "scratch.db"
    return await verify(file, scratch, zone=ZONE, clock=school.clock, manifest=read_manifest(file), proof=False)


@pytest.mark.parametrize("version", VERSIONS)
async def test_a_backup_of_an_earlier_version_is_proved_and_restored_without_loss(tmp_path: Path, version: int) -> None:
    """Its file stays as it was; the copy is brought to this version, proved there, and served; phones give the rest."""
    school = School(tmp_path)
    async with school.served() as world:
        phone = await school.join(world, "a")
        take_all(phone, BEFORE, "s001")
        await talk(world, phone)
        await school.backup()
        take_all(phone, AFTER, "s002")
        await talk(world, phone)
        everything = await names(world.db)
    file = await backup_of(version, school)
    before = file_digest(file)
    verified = await proof_of(school, file)
    assert verified.findings == ()
    assert verified.registers == len(BEFORE)
    school.store.unlink()
    await school.restore()
    assert file_digest(file) == before
    async with school.served() as world:
        assert await world.db.fetch_one("SELECT version FROM schema_version") == (SCHEMA_VERSION,)
        await talk(world, phone)
        assert await names(world.db) == everything
    phone.close()


@pytest.mark.parametrize("version", [2, SCHEMA_VERSION + 1])
async def test_a_backup_of_a_version_nobody_here_knows_is_refused(tmp_path: Path, version: int) -> None:
    school = School(tmp_path)
    async with school.served() as world:
        await (await school.join(world, "a")).sync()
        await school.backup()
    file = school.folder / "backup.db"
    with closing(sqlite3.connect(file)) as store:
        store.execute("UPDATE schema_version SET version = ?", (version,))
        store.commit()
    write(file, schema=version)
    with pytest.raises(RestoreRefused, match=str(version)):
        await proof_of(school, file)


async def test_a_store_that_was_not_migrated_yet_says_what_to_do_and_leaves_no_backup(tmp_path: Path) -> None:
    """The new program is installed and nobody has started it: a backup, and every look at the store, says so."""
    school = School(tmp_path)
    async with school.served() as world:
        await (await school.join(world, "a")).sync()
        await school.backup()
    old = await backup_of(VERSIONS[-1], school)
    old.rename(school.store)
    manifest_path(old).unlink()
    for look in (open_sqlite_reader(school.store), school.backup()):
        with pytest.raises(StoreFailed, match="a server that starts on it migrates it"):
            await look
    assert not [path for path in tmp_path.iterdir() if "backup" in path.name]


async def test_a_migration_that_is_cut_short_leaves_the_file_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One transaction: after a failure in the middle the old program would still open it, and the next try succeeds."""
    path = tmp_path / "old.db"
    with closing(sqlite3.connect(path)) as old:
        for statement in old_statements(VERSIONS[-1]):
            old.execute(statement)
        old.execute("INSERT INTO schema_version VALUES (?)", VERSIONS[-1:])
        old.commit()
        before = old.execute("SELECT name, sql FROM sqlite_schema ORDER BY name").fetchall()

    def cut(*_: object) -> list[str]:
        raise ZeroDivisionError

    with monkeypatch.context() as patch:
        patch.setattr(migrations, "missing", cut)
        with pytest.raises(ZeroDivisionError):
            await open_sqlite(path)
    with closing(sqlite3.connect(path)) as old:
        assert old.execute("SELECT name, sql FROM sqlite_schema ORDER BY name").fetchall() == before
        assert old.execute("SELECT version FROM schema_version").fetchall() == [VERSIONS[-1:]]
    await (await open_sqlite(path)).close()
    await (await open_sqlite_reader(path)).close()
