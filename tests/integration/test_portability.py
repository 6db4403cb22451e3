"""A school leaves a server in one file and comes out the same in an empty store; an altered file changes nothing."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import zipfile
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from clientcore.errors import BadInput
from clientcore.exchange import write_sync
from clientcore.history import merge
from syncserver import portability, portability_tables
from syncserver.access import Desk, give
from syncserver.cli import main
from syncserver.errors import RequestProblem
from syncserver.orders import ORDERS
from syncserver.prove import Limits, core_states
from syncserver.store.digest import digest_of, digest_registers, read_head
from syncserver.store.packed import unpack_wire
from syncserver.store.port import Database
from syncserver.store.sqlite import open_sqlite
from tests.support.server.desks import central, champion
from tests.support.server.orders import operator
from tests.support.server.world import OTHER_SCHOOL, PUPILS, SCHOOL, TODAY, World, address_of, open_world, sqlite_only

REGISTER = f"c-3a/{TODAY}/day"
FULL = f"{SCHOOL}/{REGISTER}"


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    """Two schools at work: a dispute that was settled, a merge, a revoked phone, a holiday, paper, a token."""
    async with open_world(tmp_path / "from.db", background=False) as opened:
        await live(opened)
        yield opened


async def live(world: World) -> None:
    one, two = await world.phone("t1"), await world.phone("t2", seed=2)
    far = await world.phone("t1", school=OTHER_SCHOOL, seed=3)
    await far.sync((REGISTER, far.take(REGISTER, dict.fromkeys(PUPILS, "P"))))
    await one.sync((REGISTER, one.take(REGISTER, {**dict.fromkeys(PUPILS, "P"), "s001": "A", "s002": "E:sick"})))
    await far.sync((REGISTER, far.take(REGISTER, {"s001": "A"})))
    await two.sync((REGISTER, two.take(REGISTER, {"s001": "P"})))
    await world.settle()
    change = await change_of(world, "t2")
    await champion(world).does("dispute-settle", register=FULL, pupil="s001", change=change, reason="I saw her")
    await champion(world).does("pupil-merge", school=SCHOOL, alias="s040", canonical="s039", reason="one pupil")
    await operator(world, "place", school=SCHOOL, district="d1", governorate="g1", reference="r")
    await central(world).does("calendar", date="2026-12-01", open=False, reason="storm", reference="decree 1")
    await operator(world, "revoke", device=two.me.device.hex(), reason="lost")
    held = two.frame([(f"c-3a/{TODAY}/am1", two.take(f"c-3a/{TODAY}/am1", {"s003": "A"}).chunk)])
    assert (await two.post("/v1/sync", write_sync([held.raw]))).json()["held"] == 1
    await champion(world).does(
        "paper-enter", register=FULL, document="period_sheet", signed_by="t1", marks={"s001": "absent"}
    )
    await operator(world, "access-grant", name="ministry", role="central", all=True)
    await world.settle()


async def change_of(world: World, user: str) -> str:
    row = await world.db.fetch_one(
        """SELECT c.hash FROM changes c JOIN frames f ON f.id = c.frame_id JOIN devices d ON d.id = f.device
        WHERE d.user_id = ? AND c.school = ? ORDER BY c.log_offset""",
        (user, SCHOOL),
    )
    assert row is not None
    return str(row[0].hex())


@dataclass(frozen=True)
class Out:
    """An export: the zip, its manifest, its files."""

    data: bytes
    manifest: dict[str, Any]

    @property
    def files(self) -> dict[str, bytes]:
        with zipfile.ZipFile(io.BytesIO(self.data)) as archive:
            return {name: archive.read(name) for name in archive.namelist()}


async def export(world: World) -> Out:
    made = await operator(world, "export-school", school=SCHOOL, reason="the school moves")
    return Out(data=base64.b64decode(made["zip"]), manifest=made["manifest"])


def import_into(path: Path, data: bytes, *, status: int = 0) -> Any:
    """`hudur import school` as a person gives it."""
    file = path.with_suffix(".zip")
    file.write_bytes(data)
    done = CliRunner().invoke(main, ["import", "school", str(file), "--store", f"sqlite:{path}", "--json"])
    assert done.exit_code == status, done.output
    return json.loads(done.stdout) if status == 0 else done.output


def repacked(out: Out, change: Callable[[dict[str, bytes]], None], *, honest: bool = False) -> bytes:
    """The zip with other files; `honest`: with a manifest that says so."""
    files = out.files
    change(files)
    if honest:
        manifest = json.loads(files["manifest.json"])
        manifest["files"] = {
            name: {"bytes": len(body), "sha256": hashlib.sha256(body).hexdigest()}
            for name, body in files.items()
            if name != "manifest.json"
        }
        files["manifest.json"] = json.dumps(manifest).encode()
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as archive:
        for name, body in files.items():
            archive.writestr(name, body)
    return made.getvalue()


# ---- there and back ---------------------------------------------------------------------------------------------


async def outcomes(db: Database) -> list[tuple[Any, ...]]:
    """Every official register with its revision and its numbers, and what it says, however it is stored."""
    rows = await db.fetch_all(
        """SELECT school, class_id, date, session, revision, counts, body FROM whole_outcomes WHERE school = ?
        ORDER BY 1, 2, 3, 4""",
        (SCHOOL,),
    )
    return [(*row[:-1], unpack_wire(row[-1], "/".join(row[:4]))) for row in rows]


async def test_an_imported_school_settles_to_the_same_digests(world: World, tmp_path: Path) -> None:
    """Log, official registers with their revisions, and what the events say in the end: all settled anew."""
    out = await export(world)
    done = await run_import(tmp_path / "to.db", out.data)
    assert done["findings"] == []
    db = await open_sqlite(tmp_path / "to.db")
    try:
        log = await digest_of(db, await read_head(db))
        assert (log.digest.hex(), log.gaps, log.strange_frames) == (out.manifest["digests"]["log"], 0, ())
        assert (await digest_registers(db)).digest.hex() == out.manifest["digests"]["outcomes"]
        assert await outcomes(db) == await outcomes(world.db)
        words = """SELECT c.hash, s.state, s.slug FROM settlements s JOIN changes c ON c.log_offset = s.log_offset
        WHERE c.school = ? ORDER BY c.log_offset"""
        assert await db.fetch_all(words, (SCHOOL,)) == await world.db.fetch_all(words, (SCHOOL,))
        assert await db.fetch_all("SELECT DISTINCT school FROM changes UNION SELECT school FROM users") == [(SCHOOL,)]
        rows = await db.fetch_all("SELECT action, reason FROM audit")
        assert rows == [("import-school", "the school moves")]
    finally:
        await db.close()
    audit = await world.db.fetch_one("SELECT subject, reason FROM audit WHERE action = 'export-school'")
    assert audit == (SCHOOL, "the school moves")


async def run_import(path: Path, data: bytes) -> dict[str, Any]:
    """The command's own work, inside the test's loop."""
    from syncserver.cli_reports import _import

    return await _import(path, data, "the school moves")


async def test_without_the_outcomes_it_would_not_be_believed(world: World, tmp_path: Path) -> None:
    """What is official is computed: an outcome that a file claims against its changes is found out."""
    out = await export(world)

    def lie(files: dict[str, bytes]) -> None:
        files["registers/outcomes.jsonl"] = files["registers/outcomes.jsonl"].replace(b'["E', b'["A')

    with pytest.raises(BadInput, match="digests"):
        portability.unpack_school(repacked(out, lie, honest=True))

    def lie_well(files: dict[str, bytes]) -> None:
        lie(files)
        taken = portability.School(
            school=SCHOOL,
            rows={name: [] for name in portability_tables.EXPORTED}
            | {
                "outcomes": [
                    portability_tables.from_line("outcomes", json.loads(line))
                    for line in files["registers/outcomes.jsonl"].splitlines()
                ]
            },
            events=[],
            audit=[],
        )
        manifest = json.loads(files["manifest.json"])
        manifest["digests"]["outcomes"] = portability.digests_of(taken)["outcomes"]
        files["manifest.json"] = json.dumps(manifest).encode()

    done = await run_import(tmp_path / "to.db", repacked(out, lie_well, honest=True))
    assert done["findings"]
    assert "outcomes" in done["findings"][0]


async def test_two_exports_of_the_same_rows_are_the_same_bytes(world: World) -> None:
    async with world.db.transaction() as tx:
        taken = await portability.read_school(tx, SCHOOL)
    assert portability.pack_school(taken).data == portability.pack_school(taken).data


async def test_an_imported_school_can_leave_again(world: World, tmp_path: Path) -> None:
    """The second file differs in the trail and in what points to it, and in nothing else."""
    out = await export(world)
    await run_import(tmp_path / "to.db", out.data)
    db = await open_sqlite(tmp_path / "to.db")
    try:
        async with db.transaction() as tx:
            again = portability.pack_school(await portability.read_school(tx, SCHOOL))
    finally:
        await db.close()
    assert again.manifest["digests"] == out.manifest["digests"]
    differ = {n for n, one in again.manifest["files"].items() if one != out.manifest["files"][n]}
    pointing = {table.file for name, table in portability_tables.EXPORTED.items()
                if "audit_id" in portability_tables.columns()[name]}  # fmt: skip
    assert "audit/audit.jsonl" in differ
    assert differ <= {"audit/audit.jsonl", *pointing}


# ---- what is in it ----------------------------------------------------------------------------------------------


async def test_no_secret_and_nothing_of_another_school_is_in_the_file(world: World) -> None:
    out = await export(world)
    whole = b"".join(out.files.values())
    (key,) = [row[0] for row in await world.db.fetch_all("SELECT value FROM meta WHERE name = 'server_key'")]
    secrets = [key, *(row[0].hex().encode() for row in await world.db.fetch_all("SELECT digest FROM tokens"))]
    secrets += [row[0].encode() for row in await world.db.fetch_all("SELECT digest FROM codes")]
    secrets += [row[0].hex().encode() for row in await world.db.fetch_all("SELECT nonce FROM devices")]
    assert len(secrets) > 4
    assert [secret for secret in secrets if secret in whole] == []
    assert OTHER_SCHOOL.encode() not in whole
    assert not [name for name in out.files if "token" in name or "code" in name]


async def test_every_file_is_named_with_its_checksum(world: World) -> None:
    out = await export(world)
    files = out.files
    manifest = json.loads(files.pop("manifest.json"))
    assert manifest == out.manifest
    assert {n: (len(b), hashlib.sha256(b).hexdigest()) for n, b in files.items()} == {
        name: (one["bytes"], one["sha256"]) for name, one in manifest["files"].items()
    }
    assert "لم يُسجَّل بعد" in files["README.md"].decode()
    assert "Not taken" in files["README.md"].decode()
    assert len(files["roster/users.jsonl"].splitlines()) == manifest["counts"]["roster/users.jsonl"] == 43


async def test_registers_open_in_any_automerge(world: World) -> None:
    """The document as the native core reads it says what our own merge says."""
    out = await export(world)
    document = out.files[f"registers/automerge/{REGISTER}.automerge"]
    (state,) = core_states([[document]], Limits())
    async with world.db.transaction() as tx:
        taken = await portability.read_school(tx, SCHOOL)
    chunks = [portability._chunk(row_body(taken, row), row) for row in taken.rows["changes"] if row["session"] == "day"]
    from clientcore.change import parse

    history = merge(parse(chunk) for chunk in chunks)
    assert state["heads"] == [head.hex() for head in history.heads]
    assert state["values"] == {key: puts[-1].value for key, puts in history.visible().items()}


def row_body(taken: portability.School, row: dict[str, Any]) -> bytes:
    return bytes(next(frame["body"] for frame in taken.rows["frames"] if frame["id"] == row["frame_id"]))


def test_every_table_is_exported_or_left_out_for_a_reason() -> None:
    """A new table fails here until somebody has decided whether it belongs to a school (`portability_tables.py`)."""
    known = {*portability_tables.EXPORTED, *portability_tables.ELSEWHERE, *portability_tables.LEFT_OUT}
    assert set(portability_tables.columns()) == known
    assert all(portability_tables.LEFT_OUT.values())


# ---- what is refused --------------------------------------------------------------------------------------------


def cut(files: dict[str, bytes]) -> None:
    files["log/frames.bin"] = files["log/frames.bin"][:-1]


def other_answer(files: dict[str, bytes]) -> None:
    files["decisions/decisions.jsonl"] = files["decisions/decisions.jsonl"].replace(b"choose", b"reject")


def one_more(files: dict[str, bytes]) -> None:
    files["roster/more.jsonl"] = b"{}\n"


def one_less(files: dict[str, bytes]) -> None:
    del files["audit/audit.jsonl"]


def no_manifest(files: dict[str, bytes]) -> None:
    del files["manifest.json"]


def other_mark(files: dict[str, bytes]) -> None:
    files["log/frames.bin"] = files["log/frames.bin"].replace(files["log/frames.bin"][200:204], b"\0\0\0\0", 1)


def other_author(files: dict[str, bytes]) -> None:
    lines = files["log/devices.jsonl"].splitlines()
    one, two = (json.loads(line) for line in lines[:2])
    one["public_key"], two["public_key"] = two["public_key"], one["public_key"]
    files["log/devices.jsonl"] = b"".join(json.dumps(d).encode() + b"\n" for d in (one, two))


def other_school(files: dict[str, bytes]) -> None:
    files["roster/users.jsonl"] = files["roster/users.jsonl"].replace(SCHOOL.encode(), OTHER_SCHOOL.encode(), 1)


def number_ahead(files: dict[str, bytes]) -> None:
    """A device that has sent less than the file holds: its next frame would be taken for new, or for known."""
    lines = [json.loads(line) for line in files["log/devices.jsonl"].splitlines()]
    files["log/devices.jsonl"] = b"".join(json.dumps({**one, "last_number": 0}).encode() + b"\n" for one in lines)


def frame_twice(files: dict[str, bytes]) -> None:
    lines = [json.loads(line) for line in files["log/frames.jsonl"].splitlines()]
    last, end = lines[-1], len(files["log/frames.bin"])
    files["log/frames.bin"] += files["log/frames.bin"][last["at"] :]
    lines.append({**last, "id": last["id"] + 1, "at": end})
    files["log/frames.jsonl"] = b"".join(json.dumps(one).encode() + b"\n" for one in lines)


def other_column(files: dict[str, bytes]) -> None:
    files["roster/users.jsonl"] = files["roster/users.jsonl"].replace(b'"name"', b'"nome"', 1)


def other_kind(files: dict[str, bytes]) -> None:
    files["roster/users.jsonl"] = files["roster/users.jsonl"].replace(b'"active":1', b'"active":"1"', 1)


@pytest.mark.parametrize("change", [cut, other_answer, one_more, one_less, no_manifest], ids=lambda one: one.__name__)
async def test_an_altered_file_is_refused(world: World, change: Callable[[dict[str, bytes]], None]) -> None:
    out = await export(world)
    with pytest.raises(BadInput, match="not-portable"):
        portability.unpack_school(repacked(out, change))


@pytest.mark.parametrize(
    "change",
    [cut, other_mark, other_author, other_school, other_column, other_kind],
    ids=lambda one: one.__name__,
)
async def test_a_manifest_that_covers_for_it_does_not_help(
    world: World, change: Callable[[dict[str, bytes]], None]
) -> None:
    """Devices signed their frames: no manifest makes another mark, author or school of them."""
    out = await export(world)
    with pytest.raises(BadInput, match="not-portable"):
        portability.unpack_school(repacked(out, change, honest=True))


@pytest.mark.parametrize(("change", "why"), [(number_ahead, "has not reached"), (frame_twice, "stands there twice")])
async def test_frames_are_what_their_devices_have_sent_and_once(
    world: World, change: Callable[[dict[str, bytes]], None], why: str
) -> None:
    """Whoever makes a file makes its manifest, digests included: this is looked at before them."""
    out = await export(world)
    with pytest.raises(BadInput, match=why):
        portability.unpack_school(repacked(out, change, honest=True))


@pytest.mark.parametrize(("schema", "is_read"), [(3, False), (4, True), (5, True), (6, False)])
async def test_files_since_schema_4_are_read(world: World, schema: int, is_read: bool) -> None:
    """Version 5 stores outcomes in another way and tells them in the same: its own files differ by this number only."""

    def made_at(files: dict[str, bytes]) -> None:
        manifest = json.loads(files["manifest.json"])
        assert manifest["schema"] == 5
        files["manifest.json"] = json.dumps({**manifest, "schema": schema}).encode()

    data = repacked(await export(world), made_at)
    if is_read:
        assert portability.unpack_school(data).school == SCHOOL
    else:
        with pytest.raises(BadInput, match=f"schema {schema}"):
            portability.unpack_school(data)


@pytest.mark.parametrize("data", [b"", b"PK\x05\x06" + bytes(18), b"no zip at all"])
def test_other_files_are_refused(data: bytes) -> None:
    with pytest.raises(BadInput, match="not-portable"):
        portability.unpack_school(data)


async def test_a_refused_import_writes_nothing(world: World, tmp_path: Path) -> None:
    """Altered, or into a store that has a school: not one row, not even in the trail."""
    out = await export(world)
    db = await open_sqlite(tmp_path / "to.db")
    try:
        desk = Desk(config=world.server.config, db=db, ports=world.server.ports)
        with pytest.raises(RequestProblem, match="altered"):
            await give(ORDERS["import-school"], desk, {"reason": "x"}, repacked(out, other_answer))
        for name in portability_tables.columns():
            if name != "schema_version":
                assert await db.fetch_one(f"SELECT 1 FROM {name}") is None, name
        await give(ORDERS["import-school"], desk, {"reason": "x"}, out.data)
        before = await db.fetch_all("SELECT * FROM audit")
        with pytest.raises(RequestProblem, match="empty store"):
            await give(ORDERS["import-school"], desk, {"reason": "x"}, out.data)
        assert await db.fetch_all("SELECT * FROM audit") == before
    finally:
        await db.close()


async def test_a_school_with_waiting_changes_is_not_exported(world: World) -> None:
    phone = await world.phone("t1", seed=9)
    name = f"c-3b/{TODAY}/day"
    await phone.sync((name, phone.take(name, {"s001": "P"})))
    with pytest.raises(RequestProblem, match="busy"):
        async with world.db.transaction() as tx:
            await portability.read_school(tx, SCHOOL)


# ---- by command -------------------------------------------------------------------------------------------------


@sqlite_only
async def test_phones_go_on_after_a_move(world: World, tmp_path: Path) -> None:
    """The next server settles what comes: revisions and feed go on, no event id comes twice."""
    out = await export(world)
    await run_import(tmp_path / "to.db", out.data)
    told = {event["id"] for event in await world.events() if event["data"].get("school") == SCHOOL}
    clock = world.clock
    async with open_world(tmp_path / "to.db", background=False, clock=clock) as moved:
        events = await moved.events()
        assert {event["id"] for event in events} == told
        phone = await moved.phone("t1", seed=11)
        await phone.pull()
        await phone.sync((REGISTER, phone.take(REGISTER, {"s002": "P"})))
        await moved.settle()
        fresh = (await moved.events())[len(events) :]
        assert [event["data"]["previous"]["code"] for event in fresh] == ["absent_excused"]
        assert not {event["id"] for event in fresh} & told


def test_the_commands(tmp_path: Path) -> None:
    """Out of one store and into another, as a person does it; a store that is not empty says so."""
    import asyncio

    async def prepare() -> None:
        async with open_world(tmp_path / "from.db", background=False) as opened:
            await live(opened)

    asyncio.run(prepare())
    where, file = address_of(tmp_path / "from.db"), tmp_path / "school.zip"
    done = CliRunner().invoke(main, ["export", "school", SCHOOL, "--out", str(file), "--store", where, "--json"])
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["sha256"] == hashlib.sha256(file.read_bytes()).hexdigest()
    assert file.stat().st_mode & 0o077 == 0  # names of pupils are in it
    assert import_into(tmp_path / "to.db", file.read_bytes())["registers"] == 2
    assert "empty store" in import_into(tmp_path / "to.db", file.read_bytes(), status=1)
    assert CliRunner().invoke(main, ["export", "--store", where, "school", SCHOOL]).exit_code == 2
    lines = CliRunner().invoke(main, ["export", "edfi", SCHOOL, "--from", TODAY, "--to", TODAY, "--store", where])
    assert len(lines.stdout.splitlines()) == 39
    one = CliRunner().invoke(main, ["export", "--register", FULL, "--store", where])
    assert json.loads(one.stdout)["register"] == FULL
