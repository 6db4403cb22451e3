"""A backup: one consistent copy of a store, and a manifest that says what a restored copy must hold.

Invariants:
  1. The copy is one moment of the store, taken by SQLite's backup API through a read-only connection, also while a
     server runs on it. The server's one writer stays the only one; its WAL is not reset until the copy is done.
  2. File and manifest appear whole and synced, or not at all; neither ever overwrites anything.
  3. The manifest describes the copy: it is computed from it, not from the store that goes on.
"""

from __future__ import annotations

import hashlib
import json
import os
import sqlite3
from contextlib import closing
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from clientcore.keys import SigningKey
from clientcore.ports import Clock
from syncserver.errors import RestoreRefused, StoreFailed
from syncserver.files import sync_folder, touch_private, write_synced
from syncserver.store.digest import AuditHead, LogDigest, check_audit, digest_of, digest_registers, read_head
from syncserver.store.port import Reader
from syncserver.store.sqlite import open_sqlite_reader
from syncserver.store.told import LAST_SEQ

FORMAT = "hudur-backup/1"
_READ_BYTES = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """What stands in a backup; digests in hex.

    Attributes:
        format: `FORMAT`.
        made_ms: When it was made, UTC.
        schema: Version of the schema.
        server: First 16 bytes of SHA-256 of the server's public key: whose backup it is.
        epoch: Log epoch.
        frame_id, log_offset: The log's head.
        settled_offset: How far the log was settled.
        log_digest: See `store.digest.digest_of`.
        registers, registers_digest: Number of outcomes, and `digest_registers` of them.
        audit_id, audit_head: Last row of the audit trail, and its hash.
        feed_seq: Sequence of the last event.
        bytes, sha256: Of the file.
    """

    format: str
    made_ms: int
    schema: int
    server: str
    epoch: int
    frame_id: int
    log_offset: int
    settled_offset: int
    log_digest: str
    registers: int
    registers_digest: str
    audit_id: int
    audit_head: str
    feed_seq: int
    bytes: int
    sha256: str

    def to_json(self) -> str:
        """As it stands beside the file."""
        return json.dumps(asdict(self), indent=1) + "\n"


def manifest_path(file: Path) -> Path:
    """Where the manifest of a backup stands."""
    return file.with_name(f"{file.name}.manifest.json")


def read_manifest(file: Path) -> Manifest:
    """The manifest beside a backup.

    Raises:
        RestoreRefused: `no-manifest`, `bad-manifest`.
    """
    path = manifest_path(file)
    try:
        data = json.loads(path.read_text("utf-8"))
        manifest = Manifest(**data)
        kinds = {"int": int, "str": str}
        if not all(type(data[field.name]) is kinds[str(field.type)] for field in fields(Manifest)):
            raise TypeError("a value of the wrong kind")
    except FileNotFoundError:
        raise RestoreRefused("no-manifest", f"{path} is missing: nothing says what the backup must hold") from None
    except (ValueError, TypeError) as fault:
        raise RestoreRefused("bad-manifest", f"{path}: {fault}") from None
    if manifest.format != FORMAT:
        raise RestoreRefused("bad-manifest", f"{path} has format {manifest.format!r}, this program reads {FORMAT!r}")
    return manifest


@dataclass(frozen=True, slots=True, kw_only=True)
class Backup:
    """What was made.

    Attributes:
        manifest: Of the copy.
        flaws: Where the store contradicts itself. The copy is made all the same: it is better than none.
    """

    manifest: Manifest
    flaws: tuple[str, ...]


def flaws_of(log: LogDigest, audit: AuditHead) -> list[str]:
    """What the rows of a store say against each other, whatever a manifest says."""
    found = [f"frame {frame_id}: its bytes are not what its hash says" for frame_id in log.strange_frames]
    if log.gaps:
        found.append(f"log: {log.gaps} offsets have no change")
    if audit.broken_at is not None:
        found.append(f"audit: row {audit.broken_at} does not follow from the row before it")
    return found


async def describe(reader: Reader, *, made_ms: int, size: int, sha256: str) -> Backup:
    """The manifest of a store that does not change while this runs.

    Raises:
        RestoreRefused: `empty-store`: no server ever served it.
    """
    head, audit = await read_head(reader), await check_audit(reader)
    log, registers = await digest_of(reader, head), await digest_registers(reader)
    meta: dict[str, bytes] = dict(await reader.fetch_all("SELECT name, value FROM meta"))
    if "server_key" not in meta:
        raise RestoreRefused("empty-store", "no server has ever served this store")
    row = await reader.fetch_one(
        f"""SELECT (SELECT version FROM schema_version), coalesce((SELECT max(log_offset) FROM consumers), 0),
        {LAST_SEQ}"""
    )
    assert row is not None
    manifest = Manifest(
        format=FORMAT,
        made_ms=made_ms,
        schema=row[0],
        server=server_name(meta["server_key"]),
        epoch=int(meta["epoch"]),
        frame_id=head.frame_id,
        log_offset=head.log_offset,
        settled_offset=row[1],
        log_digest=log.digest.hex(),
        registers=registers.count,
        registers_digest=registers.digest.hex(),
        audit_id=audit.id,
        audit_head=audit.hash.hex(),
        feed_seq=row[2],
        bytes=size,
        sha256=sha256,
    )
    return Backup(manifest=manifest, flaws=tuple(flaws_of(log, audit)))


def server_name(key_pem: bytes) -> str:
    """How manifests name a server: by its public key."""
    return hashlib.sha256(SigningKey.from_pem(key_pem).public).hexdigest()[:32]


async def make_backup(store: Path, to: Path, clock: Clock) -> Backup:
    """Back `store` up into the file `to`, with its manifest beside it; both are on disk when this returns.

    Raises:
        RestoreRefused: `exists`, `empty-store`.
        StoreFailed: the store cannot be read.
        OSError: the copy cannot be written; nothing is left at `to`.
    """
    for path in (to, manifest_path(to)):
        if path.exists():
            raise RestoreRefused("exists", f"{path} is there already; a backup never overwrites anything")
    if not store.exists():
        raise StoreFailed("storage", f"there is no store at {store}")
    made_ms = clock.wall_ms()
    part, part_manifest = (path.with_name(f"{path.name}.part") for path in (to, manifest_path(to)))
    try:
        _copy_pages(store, part)
        reader = await open_sqlite_reader(part)
        try:
            made = await describe(reader, made_ms=made_ms, size=part.stat().st_size, sha256=file_digest(part))
        finally:
            await reader.close()
        write_synced(part_manifest, made.manifest.to_json().encode())
        _publish(part_manifest, manifest_path(to))
        _publish(part, to)
    finally:
        part.unlink(missing_ok=True)
        part_manifest.unlink(missing_ok=True)
    sync_folder(to.parent)
    return made


def _copy_pages(store: Path, part: Path) -> None:
    part.unlink(missing_ok=True)
    touch_private(part)
    try:
        with (
            closing(sqlite3.connect(f"{store.absolute().as_uri()}?mode=ro", uri=True)) as source,
            closing(sqlite3.connect(part)) as copy,
        ):
            source.backup(copy)  # all pages in one step: one read transaction, one moment
            copy.execute("PRAGMA journal_mode = DELETE")  # the copy is one file, whoever opens it
    except sqlite3.Error as failed:
        raise StoreFailed("storage", f"the store cannot be copied: {failed}") from failed
    _sync_file(part)


def _publish(part: Path, to: Path) -> None:
    """Give a finished file its name, unless something bears it."""
    try:
        os.link(part, to)
    except FileExistsError:
        raise RestoreRefused("exists", f"{to} has appeared meanwhile; a backup never overwrites anything") from None


def file_digest(path: Path) -> str:
    """SHA-256 of a file, hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def copy_file(source: Path, target: Path) -> str:
    """Copy a file for its owner alone, synced; returns the SHA-256 (hex) of the bytes that were copied."""
    sha = hashlib.sha256()
    target.unlink(missing_ok=True)
    touch_private(target)
    with source.open("rb") as file, target.open("wb") as out:
        while data := file.read(_READ_BYTES):
            sha.update(data)
            out.write(data)
        out.flush()
        os.fsync(out.fileno())
    return sha.hexdigest()


def _sync_file(path: Path) -> None:
    with path.open("rb+") as file:
        os.fsync(file.fileno())
