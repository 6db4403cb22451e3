"""The proof of a backup: restore it to a scratch store and look whether everything is there and means the same.

A file that can be read is not yet a backup that can be used. Here its copy must be a sound database, hold the log, the
audit trail and the outcomes its manifest names, and every register must come out the same when it is settled anew from
offset 0: by our own rules, and its merge by the independent Automerge core.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from clientcore.change import parse
from clientcore.errors import ChangeRefused, LocalError
from clientcore.ports import Clock
from reconciliation.model import Context
from syncserver.backup import Manifest, copy_file, flaws_of, server_name
from syncserver.errors import RestoreRefused
from syncserver.prove import prove
from syncserver.settling import CHANGES_PER_REGISTER_MAX, settle_anew
from syncserver.store import consuming
from syncserver.store.digest import LogHead, check_audit, digest_of, digest_registers, read_head
from syncserver.store.key import Key
from syncserver.store.migrations import FIRST
from syncserver.store.port import Reader
from syncserver.store.registers import StoredChange, changes_of, outcome_of
from syncserver.store.schema import SCHEMA_VERSION
from syncserver.store.sqlite import open_sqlite, open_sqlite_reader
from syncserver.store.surroundings import contexts_of

_PAGE = 200
_TOLD_MAX = 20  # differences of one kind that are named one by one
_KEYS = """SELECT DISTINCT school, class_id, date, session FROM changes
WHERE (school, class_id, date, session) > (?, ?, ?, ?) ORDER BY school, class_id, date, session LIMIT ?"""
_UNSETTLED = """SELECT school, class_id, date, session FROM changes WHERE log_offset > ?
UNION SELECT a.school, c.class_id, c.date, c.session FROM settle_again a JOIN changes c
ON (c.school = a.school OR a.school = '*') AND (c.class_id = a.class_id OR a.class_id IS NULL)
AND (c.date = a.date OR a.date IS NULL) AND (c.session = a.session OR a.session IS NULL)"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Verified:
    """What a proof found.

    Attributes:
        manifest: Of the backup.
        findings: What does not agree; empty when the backup was restored and verified.
        registers: Registers settled anew.
        compared: Those of them whose stored outcome was compared.
        unsettled: Those that were waiting to be settled when the backup was made: merged, but nothing to compare with.
        changes: Changes merged by the independent core.
        took_ms: How long each step took, in milliseconds.
    """

    manifest: Manifest
    findings: tuple[str, ...]
    registers: int
    compared: int
    unsettled: int
    changes: int
    took_ms: dict[str, int]

    @property
    def agrees(self) -> bool:
        """Whether this is a verified restore."""
        return not self.findings


@dataclass(slots=True)
class _Proof:
    """A proof under way."""

    clock: Clock
    findings: list[str] = field(default_factory=list)
    took_ms: dict[str, int] = field(default_factory=dict)
    registers: int = 0
    compared: int = 0
    unsettled: int = 0
    changes: int = 0

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        started_ms = self.clock.mono_ms()
        try:
            yield
        except LocalError:
            raise  # not the backup's fault
        except Exception as fault:  # whatever breaks on damaged data is what a proof is for
            self.findings.append(f"{name}: {type(fault).__name__}: {fault}")
        finally:
            self.took_ms[name] = self.clock.mono_ms() - started_ms

    def same(self, what: str, found: object, wanted: object) -> None:
        if found != wanted:
            self.findings.append(f"{what} is {found}, the manifest says {wanted}")


async def verify(
    file: Path, scratch: Path, *, zone: str, clock: Clock, manifest: Manifest, proof: bool = True
) -> Verified:
    """Restore `file` to `scratch` and prove the copy; the copy stays there for whoever called.

    A backup of an earlier version is brought to this one in the copy, and what came of it is proved.

    Args:
        file: The backup; only read.
        scratch: Where the copy goes; overwritten.
        zone: The schools' time zone (IANA name), the server's HUDUR_ZONE.
        clock: For the durations.
        manifest: What the backup must hold.
        proof: Merge every register with the independent core as well.

    Raises:
        RestoreRefused: `schema`: the backup is of a version that this program does not know.
        BadInput: `no-core`.
        OSError: the copy cannot be made.
    """
    run = _Proof(clock)
    with run.step("copy"):
        run.same("sha256 of the file", copy_file(file, scratch), manifest.sha256)
    with run.step("pages"):
        reader = await open_sqlite_reader(scratch, any_version=True)
        try:
            is_older = await _check_pages(reader, run)
        finally:
            await reader.close()
        if is_older:
            await (await open_sqlite(scratch)).close()
    if not any(finding.startswith("pages") for finding in run.findings):
        reader = await open_sqlite_reader(scratch)
        try:
            await _check_rows(reader, manifest, run)
            await _check_registers(reader, zone, run, proof=proof)
        finally:
            await reader.close()
    return Verified(
        manifest=manifest,
        findings=tuple(run.findings),
        registers=run.registers,
        compared=run.compared,
        unsettled=run.unsettled,
        changes=run.changes,
        took_ms=run.took_ms,
    )


async def _check_pages(reader: Reader, run: _Proof) -> bool:
    """Whether the copy is whole but of an earlier version."""
    rows = await reader.fetch_all("PRAGMA integrity_check")
    if rows != [("ok",)]:
        run.findings.append(f"pages: {rows[:3]}")
        return False
    row = await reader.fetch_one("SELECT version FROM schema_version")
    if row is None or not FIRST <= row[0] <= SCHEMA_VERSION:
        raise RestoreRefused("schema", f"the backup has schema {row}, this program {SCHEMA_VERSION}")
    return bool(row[0] < SCHEMA_VERSION)


async def _check_rows(reader: Reader, manifest: Manifest, run: _Proof) -> None:
    with run.step("log"):
        head = await read_head(reader)
        run.same("head of the log", head, LogHead(frame_id=manifest.frame_id, log_offset=manifest.log_offset))
        log, trail = await digest_of(reader, head), await check_audit(reader)
        run.findings += flaws_of(log, trail)
        run.same("digest of the log", log.digest.hex(), manifest.log_digest)
        run.same("head of the audit trail", (trail.id, trail.hash.hex()), (manifest.audit_id, manifest.audit_head))
        meta: dict[str, bytes] = dict(await reader.fetch_all("SELECT name, value FROM meta"))
        run.same("epoch", int(meta.get("epoch", b"0")), manifest.epoch)
        run.same("server", server_name(meta.get("server_key", b"")), manifest.server)
        position = await consuming.read_settled_up_to(reader)
        run.same("offset up to which it is settled", position, manifest.settled_offset)
    with run.step("outcomes"):
        found = await digest_registers(reader)
        run.same("number of outcomes", found.count, manifest.registers)
        run.same("digest of the outcomes", found.digest.hex(), manifest.registers_digest)


async def _check_registers(reader: Reader, zone: str, run: _Proof, *, proof: bool) -> None:
    """Settle every register anew; and merge it with the independent core, some hundred in one child."""
    run.took_ms["core"] = 0
    with run.step("registers"):
        position = await consuming.read_settled_up_to(reader)
        unsettled = {tuple(row) for row in await reader.fetch_all(_UNSETTLED, (position,))}
        async for keys in _pages_of_keys(reader):
            chunks: list[tuple[str, list[bytes]]] = []
            contexts = await contexts_of(reader, keys, zone)
            for key in keys:
                stored = await changes_of(reader, key, 1 << 53, CHANGES_PER_REGISTER_MAX)
                chunks.append(("/".join(key), [one.chunk for one in stored]))
                run.registers += 1
                await _check_register(reader, key, stored, contexts[key], run, waits=key in unsettled)
            if proof:
                _ask_core(chunks, run)
    run.took_ms["registers"] -= run.took_ms["core"]


async def _pages_of_keys(reader: Reader) -> AsyncIterator[list[Key]]:
    at: tuple[Any, ...] = ("", "", "", "")
    while page := await reader.fetch_all(_KEYS, (*at, _PAGE)):
        yield [(row[0], row[1], row[2], row[3]) for row in page]
        at = page[-1]


async def _check_register(
    reader: Reader,
    key: Key,
    stored: list[StoredChange],
    context: Context,
    run: _Proof,
    *,
    waits: bool,
) -> None:
    name = "/".join(key)
    for one in stored:
        try:
            wrong = "" if parse(one.chunk).hash == one.hash else "is not what its hash says"
        except ChangeRefused as refused:
            wrong = f"cannot be read: {refused.code}"
        if wrong:
            _tell(run, f"{name}: change {one.log_offset} {wrong}")
            return
    if waits:
        run.unsettled += 1
        return
    found = await outcome_of(reader, key)
    run.compared += 1
    anew = settle_anew(key, stored, context) if stored else None
    if (None if found is None else found.body) != anew:
        _tell(run, f"{name}: settled anew from offset 0 it comes out differently")


def _ask_core(chunks: list[tuple[str, list[bytes]]], run: _Proof) -> None:
    started_ms = run.clock.mono_ms()
    report = prove(chunks)
    run.changes += report.changes
    for difference in report.differences:
        _tell(run, f"{difference.register}: the independent core says otherwise ({difference.what})")
    run.took_ms["core"] += run.clock.mono_ms() - started_ms


def _tell(run: _Proof, finding: str) -> None:
    if len(run.findings) < _TOLD_MAX:
        run.findings.append(finding)
    elif len(run.findings) == _TOLD_MAX:
        run.findings.append("and more")
