"""The restore drill: everything that would have to work after a disaster, done today beside the running server.

A backup is made (or one that exists is taken), restored to a scratch place under a new epoch and proved; a real server
process is started on it; the phones' next contact is played: copies of devices on this machine offer what they hold,
and what the store has that the backup lacks is sent again, the very bytes that the phones signed. Then both are
compared, change by change and register by register. The running server is only read, until the last step marks what
was proved as archived.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import httpx

from clientcore.errors import HudurError
from clientcore.exchange import MEDIA_TYPE, write_sync
from clientcore.frame import parse_frame
from clientcore.limits import FRAMES_PER_REQUEST_MAX, REQUEST_DEADLINE_S, SYNC_BODY_BYTES_MAX
from clientcore.ports import Clock
from syncserver.archive import check_continues, mark_archived
from syncserver.backup import Manifest, make_backup, read_manifest
from syncserver.errors import RestoreRefused
from syncserver.ports import ServerPorts
from syncserver.restore import Restored, Wish, restore
from syncserver.store.digest import LogHead, read_head
from syncserver.store.log import known_changes
from syncserver.store.port import Reader
from syncserver.store.registers import outcome_of
from syncserver.store.sqlite import open_sqlite_reader

_PAGE = 500
_LOOK_MS = 50
_SETTLE_DEADLINE_MS = 600_000
_TOLD_MAX = 20
_TRIES = 5
_REASON = "restore drill"
_FRAMES = "SELECT id, device, body FROM frames WHERE id > ? AND id <= ? ORDER BY id LIMIT ?"
_NAMES = """SELECT c.log_offset, c.hash, c.school, c.class_id, c.date, c.session, f.device FROM changes c
JOIN frames f ON f.id = c.frame_id WHERE c.log_offset > ? AND c.log_offset <= ? ORDER BY c.log_offset LIMIT ?"""
_OUTCOMES = """SELECT school, class_id, date, session FROM outcomes
WHERE (school, class_id, date, session) > (?, ?, ?, ?) ORDER BY school, class_id, date, session LIMIT ?"""


@dataclass(slots=True, kw_only=True)
class Drill:
    """The report of a drill.

    Attributes:
        findings: What was not as it must be; empty when the drill succeeded.
        devices: Copies of devices on this machine that offered what they hold.
        frames: Frames sent again that the backup lacks.
        changes: Changes of the store that were looked for in the restored one.
        lacked: Those of them that the backup did not have.
        missing: Those that were still not there after the re-offer.
        unknown: Missing ones of devices that enrolled after the backup: their phones keep them and enrol again.
        registers: Registers whose answers were compared.
        differing: Those that came out differently.
        archived: Offset up to which the store's log is archived now; None when nothing was marked.
        took_ms: How long each step took, in milliseconds.
    """

    manifest: Manifest
    findings: list[str] = field(default_factory=list)
    devices: int = 0
    frames: int = 0
    changes: int = 0
    lacked: int = 0
    missing: int = 0
    unknown: int = 0
    registers: int = 0
    differing: int = 0
    epoch: int = 0
    archived: int | None = None
    took_ms: dict[str, int] = field(default_factory=dict)

    @property
    def succeeded(self) -> bool:
        """Whether everything was as it must be."""
        return not self.findings

    def to_plain(self) -> dict[str, Any]:
        """As plain data."""
        return {"succeeded": self.succeeded, **asdict(self)}

    def tell(self, finding: str) -> None:
        """Add a finding, one of the first twenty."""
        if len(self.findings) < _TOLD_MAX:
            self.findings.append(finding)


@dataclass(frozen=True, slots=True, kw_only=True)
class DrillWish:
    """What to do.

    Attributes:
        zone: The schools' time zone.
        homes: Home directories of devices on this machine; they are copied, never used.
        archive: Mark what was proved as archived in the store, in the end.
        proof: Merge with the independent core as well.
    """

    zone: str
    homes: Sequence[Path] = ()
    archive: bool = True
    proof: bool = True


async def drill(file: Path, store: Path, wish: DrillWish, ports: ServerPorts) -> Drill:
    """Carry out a drill.

    Args:
        file: The backup; made now if it does not exist. It is kept.
        store: The store, with a server on it or without.
        wish: See there.
        ports: Clock and chance.

    Raises:
        HudurError: it cannot be carried out at all.
        OSError: a disk is full, a file cannot be read.
    """
    took_ms: dict[str, int] = {}
    if not file.exists():
        with _timed(took_ms, "backup", ports.clock):
            await make_backup(store, file, ports.clock)
    report = Drill(manifest=read_manifest(file), took_ms=took_ms)
    with tempfile.TemporaryDirectory(prefix=f"{file.name}.drill-", dir=file.parent) as folder:
        scratch = Path(folder) / "store.db"
        await check_continues(store, report.manifest)
        with _timed(took_ms, "restore", ports.clock):
            done = await restore(
                file, scratch, Wish(zone=wish.zone, reason=_REASON, accept=True, proof=wish.proof), ports
            )
        report.findings += done.verified.findings
        report.epoch = done.raised.epoch
        took_ms |= {f"verify.{name}": ms for name, ms in done.verified.took_ms.items()}
        live = await open_sqlite_reader(store)
        try:
            await _play(live, scratch, Path(folder), wish, ports, report)
        finally:
            await live.close()
    if wish.archive and report.succeeded:
        report.archived = await _archive(store, done, ports, report)
    return report


async def _archive(store: Path, done: Restored, ports: ServerPorts, report: Drill) -> int | None:
    with _timed(report.took_ms, "archive", ports.clock):
        return await mark_archived(store, done.verified, reason=_REASON)


async def _play(live: Reader, scratch: Path, folder: Path, wish: DrillWish, ports: ServerPorts, report: Drill) -> None:
    """Start a server on the restored store, let everybody talk to it, compare."""
    head = await read_head(live)
    restored = await open_sqlite_reader(scratch)
    try:
        report.changes, lacking = await _lacking(live, restored, head)
        report.lacked = len(lacking)
        with _timed(report.took_ms, "start", ports.clock):
            process, url = await _start(scratch)
        try:
            with _timed(report.took_ms, "re-offer", ports.clock):
                for at, home in enumerate(wish.homes):
                    await _offer(home, folder / f"device{at}", url, report)
                await _send_again(live, restored, head, url, ports.clock, report)
            with _timed(report.took_ms, "settle", ports.clock):
                await _settled(restored, ports.clock, report)
        finally:
            process.terminate()
            status = await process.wait()
        if status != 0:
            report.tell(f"the server on the restored store ended with status {status}")
        with _timed(report.took_ms, "compare", ports.clock):
            await _compare(live, restored, head, report)
    finally:
        await restored.close()


# ---- the server -------------------------------------------------------------------------------------------------


async def _start(scratch: Path) -> tuple[asyncio.subprocess.Process, str]:
    """A server process on the scratch store; and where it answers, on this machine only."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", "from syncserver.cli import main; main()",
        "serve", "--store", f"sqlite:{scratch}", "--host", "127.0.0.1", "--port", "0", "--json",
        stdout=asyncio.subprocess.PIPE,
        env={**os.environ, "HUDUR_OPERATOR_TOKEN": ""},
    )  # fmt: skip
    assert process.stdout is not None
    line = await process.stdout.readline()
    if not line:
        raise RestoreRefused("no-server", f"no server starts on the restored store (status {await process.wait()})")
    return process, str(json.loads(line)["url"])


async def _settled(restored: Reader, clock: Clock, report: Drill) -> None:
    """Wait until the consumer has come to the end of the log."""
    deadline_ms = clock.mono_ms() + _SETTLE_DEADLINE_MS
    while clock.mono_ms() < deadline_ms:
        row = await restored.fetch_one(
            """SELECT coalesce((SELECT max(log_offset) FROM changes), 0)
            - coalesce((SELECT max(log_offset) FROM consumers), 0) + (SELECT count(*) FROM settle_again)"""
        )
        if row == (0,):
            return
        await clock.sleep_ms(_LOOK_MS)
    report.tell("the consumer of the restored store has not come to the end of its log")


# ---- the phones -------------------------------------------------------------------------------------------------


async def _offer(home: Path, copy: Path, url: str, report: Drill) -> None:
    """A copy of a device makes its next contact, in a process of its own, with the restored server and no other."""
    shutil.copytree(home, copy)
    settings = copy / "device.json"
    told = json.loads(settings.read_text("utf-8"))
    settings.write_text(json.dumps({**told, "server": url}))
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", "from clientcore.cli import device; device()",
        "sync", "--home", str(copy), "--no-confirm", "--json",
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    said, words = await process.communicate()
    if process.returncode != 0 and b"unknown-device" not in said + words:  # those are counted when both are compared
        why = (words or said).decode(errors="replace").strip()[-300:]
        report.tell(f"device {home.name}: its contact ended with status {process.returncode} ({why})")
    report.devices += 1


async def _send_again(live: Reader, restored: Reader, head: LogHead, url: str, clock: Clock, report: Drill) -> None:
    """What the restored store lacks, as its phones signed it: the same bytes, device by device."""
    known = {row[0] for row in await restored.fetch_all("SELECT id FROM devices")}
    async with httpx.AsyncClient(base_url=url, timeout=REQUEST_DEADLINE_S, trust_env=False) as http:
        try:
            async for device, frames in _frames_beyond(live, report.manifest.frame_id, head.frame_id):
                if device in known:
                    await _post(http, frames, clock)
                    report.frames += len(frames)
        except (HudurError, httpx.HTTPError) as failed:
            report.tell(f"frames cannot be sent again: {type(failed).__name__}: {failed}")


async def _frames_beyond(live: Reader, after: int, up_to: int) -> AsyncIterator[tuple[bytes, list[bytes]]]:
    """Frames with changes behind the backup, as many of one device together as a request takes."""
    waiting: dict[bytes, list[bytes]] = {}
    sizes: dict[bytes, int] = {}
    while page := await live.fetch_all(_FRAMES, (after, up_to, _PAGE)):
        for _, device, raw in page:
            if not parse_frame(raw).changes:
                continue
            frames = waiting.setdefault(device, [])
            full = len(frames) == FRAMES_PER_REQUEST_MAX or sizes.get(device, 64) + len(raw) + 8 > SYNC_BODY_BYTES_MAX
            if full:
                yield device, frames
                frames = waiting[device] = []
                sizes[device] = 64
            frames.append(raw)
            sizes[device] = sizes.get(device, 64) + len(raw) + 8
        after = page[-1][0]
    for device, frames in waiting.items():
        yield device, frames


async def _post(http: httpx.AsyncClient, frames: Sequence[bytes], clock: Clock) -> None:
    """One request that must be taken; a server that asks to wait is waited for; of too many changes, half."""
    for _ in range(_TRIES):
        reply = await http.post("/v1/sync", content=write_sync(frames), headers={"content-type": MEDIA_TYPE})
        if reply.status_code == 200:
            return
        if reply.status_code == 413 and len(frames) > 1:
            for half in (frames[: len(frames) // 2], frames[len(frames) // 2 :]):
                await _post(http, half, clock)
            return
        if reply.status_code not in (429, 503):
            break
        await clock.sleep_ms(1000 * int(reply.headers.get("retry-after", "1")))
    slug = str(reply.json().get("type", "")).rpartition("/")[2]
    if slug == "revoked":
        return  # kept and held, as before
    raise RestoreRefused("not-taken", f"the restored server answers {reply.status_code} {slug}")


# ---- comparing --------------------------------------------------------------------------------------------------


async def _lacking(live: Reader, restored: Reader, head: LogHead) -> tuple[int, list[tuple[Any, ...]]]:
    """How many changes the live store has up to `head`, and those that the restored one has not: rows of `_NAMES`."""
    lacking: list[tuple[Any, ...]] = []
    at = count = 0
    while page := await live.fetch_all(_NAMES, (at, head.log_offset, _PAGE)):
        there = await known_changes(restored, [(row[1], row[2], row[3], row[4], row[5]) for row in page])
        lacking += [row for row in page if row[1:6] not in there]
        count += len(page)
        at = page[-1][0]
    return count, lacking


async def _compare(live: Reader, restored: Reader, head: LogHead, report: Drill) -> None:
    _, lacking = await _lacking(live, restored, head)
    known = {row[0] for row in await restored.fetch_all("SELECT id FROM devices")}
    report.missing = len(lacking)
    report.unknown = sum(row[6] not in known for row in lacking)
    for row in lacking:
        if row[6] in known:
            report.tell(f"{'/'.join(row[2:6])}: change {row[1].hex()[:16]} of device {row[6].hex()[:12]} is missing")
    short = {tuple(row[2:6]) for row in lacking}  # registers of phones that must enrol first cannot be the same yet
    at: tuple[Any, ...] = ("", "", "", "")
    while page := await live.fetch_all(_OUTCOMES, (*at, _PAGE)):
        for key in page:
            if key in short or await _is_ahead(live, key, head):
                continue
            ours, theirs = await outcome_of(live, key), await outcome_of(restored, key)
            report.registers += 1
            if _answers(ours) != _answers(theirs):
                report.differing += 1
                report.tell(f"{'/'.join(key)}: the restored server gives other answers")
        at = page[-1]


async def _is_ahead(live: Reader, key: tuple[Any, ...], head: LogHead) -> bool:
    """Whether a register got changes after the drill began, or waits to be settled."""
    row = await live.fetch_one(
        """SELECT 1 FROM changes WHERE school = ? AND class_id = ? AND date = ? AND session = ?
        AND (log_offset > ? OR log_offset > (SELECT coalesce(max(log_offset), 0) FROM consumers)) LIMIT 1""",
        (*key, head.log_offset),
    )
    return row is not None


def _answers(found: Any) -> dict[str, object]:
    """What a register says of its pupils; when a change was received is another matter after a restore."""
    if found is None:
        return {}
    return {
        pupil: (answer.code, answer.reason, answer.disputed)
        for pupil, answer in found.outcome.answers.items()
        if answer.mark is not None
    }


@contextmanager
def _timed(took_ms: dict[str, int], name: str, clock: Clock) -> Iterator[None]:
    started_ms = clock.mono_ms()
    try:
        yield
    finally:
        took_ms[name] = clock.mono_ms() - started_ms
