"""Restore: a backup proved by restoring it, put in the place of a store, under a log epoch that no phone has seen.

Invariants:
  1. A backup is judged by what a restored copy of it holds: pages, log, audit trail, every register settled anew from
     offset 0 and merged by an independent implementation. What does not agree is put in place only if a person says so.
  2. What stands at the store's place at any moment is the old store, or the restored one with its epoch raised.
  3. The old store is moved aside, never deleted.
  4. The new epoch is greater than every epoch any phone can have seen, also when one backup is restored twice: at least
     the second in which the restore is made.
  5. Nothing that was issued after the backup is issued again with another meaning: revisions, sequences of the feed and
     ids of directives go on behind a gap, codes expire, nonces change.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from clientcore.errors import HudurError
from clientcore.ports import Reached, not_watched
from syncserver import feed
from syncserver.backup import Manifest, read_manifest, server_name
from syncserver.errors import RestoreRefused, StoreFailed
from syncserver.files import write_synced
from syncserver.ports import ServerPorts
from syncserver.store import audit
from syncserver.store.digest import LogHead, digest_of
from syncserver.store.meta import read_numbers, write_numbers
from syncserver.store.packed import pack_json
from syncserver.store.port import Database, Reader, Transaction
from syncserver.store.sqlite import open_sqlite, open_sqlite_reader
from syncserver.store.swap import beside, exchange, finish_exchange, hold, plan_path
from syncserver.store.told import last_seq
from syncserver.verify import Verified, verify

REASON = "the server was restored from a backup"
_BEYOND_MAX = 200  # audit rows that the report names one by one
_NOBODY = bytes(16)


# ---- the epoch --------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Raised:
    """What a new log epoch changed.

    Attributes:
        epoch: The new one.
        void_after: Sequence of the last event the restored store knows.
        feed_from: Sequence of the mark of the restore; what was told between the two is void.
        archived: Offset up to which the log is archived.
        rebuilds: Devices that are asked to offer everything, archived changes too.
        audit_id: Row of the audit trail that tells of the restore.
    """

    epoch: int
    void_after: int
    feed_from: int
    archived: int
    rebuilds: int
    audit_id: int


async def raise_epoch(
    db: Database,
    *,
    now_ms: int,
    above: int = 0,
    archived: int | None = None,
    whole_offer: bool = True,
    reason: str = REASON,
    evidence: Mapping[str, object] | None = None,
) -> Raised:
    """Begin a new log epoch in a restored store, in one transaction, before anything is served from it.

    Args:
        db: The restored store.
        now_ms: Server time.
        above: An epoch that phones may have seen besides those the store knows.
        archived: Offset up to which the log is archived from now on; None: as the backup says.
        whole_offer: Ask every device to offer archived changes too. Needed unless it is certain that nothing was ever
            called archived that this store lacks.
        reason: For the audit and for the people whose devices are asked.
        evidence: What the audit row keeps besides.

    Raises:
        RestoreRefused: `empty-store`: no server ever served it.
        BadInput: `bad-epoch`.
    """
    async with db.transaction() as tx:
        numbers = await read_numbers(tx)
        if "epoch" not in numbers:
            raise RestoreRefused("empty-store", "no server has ever served this store")
        epoch = max(numbers["epoch"], above, now_ms // 1000 - 1) + 1
        void_after = await last_seq(tx)
        feed_from = feed.first_after_restore(epoch, void_after)
        event = feed.restored_event(
            epoch=epoch, continues=numbers["epoch"], last_seq=void_after, first_seq=feed_from, at_ms=now_ms
        )
        await tx.execute(
            "INSERT INTO events VALUES (?, ?, ?, ?, ?)",
            (feed_from, feed_from, feed.EVERY_SCHOOL, event["subject"], pack_json([event])),
        )
        kept = numbers.get("archived", 0) if archived is None else archived
        await write_numbers(tx, epoch=epoch, feed_from=feed_from, archived=kept)
        rebuilds = await _order_rebuilds(tx, first_id=feed_from, whole=whole_offer, reason=reason, now_ms=now_ms)
        await _renew_nonces(tx, epoch)
        await tx.execute("UPDATE codes SET expires_ms = ? WHERE used_ms IS NULL AND expires_ms > ?", (now_ms, now_ms))
        audit_id = await audit.record(
            tx,
            at_ms=now_ms,
            actor="operator",
            action="restore",
            subject=f"epoch/{epoch}",
            reason=reason,
            before={"epoch": numbers["epoch"], "archived": numbers.get("archived", 0), **(evidence or {})},
            after={"epoch": epoch, "feed_from": feed_from, "archived": kept, "rebuilds": rebuilds},
        )
    return Raised(
        epoch=epoch, void_after=void_after, feed_from=feed_from, archived=kept, rebuilds=rebuilds, audit_id=audit_id
    )


async def _order_rebuilds(tx: Transaction, *, first_id: int, whole: bool, reason: str, now_ms: int) -> int:
    """Directives go on with ids that no phone can have carried out already; `first_id` itself is nobody's."""
    rows = await tx.fetch_all("SELECT id FROM devices WHERE revoked_ms IS NULL ORDER BY id") if whole else []
    await tx.execute(
        """INSERT INTO directives (id, device, level, reason, made_by, made_ms, delivered_ms, done_ms)
        VALUES (?, ?, 'nudge', ?, 'operator', ?, ?, ?)""",
        (first_id, _NOBODY, reason, now_ms, now_ms, now_ms),
    )
    await tx.executemany(
        """INSERT INTO directives (id, device, level, reason, made_by, made_ms)
        VALUES (?, ?, 'rebuild', ?, 'operator', ?)""",
        [(first_id + n, row[0], reason, now_ms) for n, row in enumerate(rows, 1)],
    )
    return len(rows)


async def _renew_nonces(tx: Transaction, epoch: int) -> None:
    """The nonces in a backup were used since: a frame that was overheard then must not be served a pull now."""
    row = await tx.fetch_one("SELECT value FROM meta WHERE name = 'server_key'")
    assert row is not None
    known = await tx.fetch_all("SELECT id FROM devices WHERE nonce IS NOT NULL")
    # Nobody but the owner of the server's key can foretell them, and no chance is needed.
    fresh = [
        (hashlib.sha256(row[0] + device + b"%d" % epoch).digest()[:4] + audit.NO_WITNESS, device) for (device,) in known
    ]
    await tx.executemany("UPDATE devices SET nonce = ? WHERE id = ?", fresh)


# ---- the store that is replaced ---------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Replaced:
    """What the store in the backup's future place knows, as far as it can still be read.

    Attributes:
        trouble: Why it cannot be read; None when it can.
        server: See `Manifest.server`.
        continues: Its log begins with the backup's whole log.
        changes, devices: How many it has that the backup lacks.
        audit: Its decisions that the backup lacks, oldest first: a person must make them again.
    """

    trouble: str | None = None
    server: str | None = None
    epoch: int = 0
    archived: int = 0
    continues: bool = False
    changes: int = 0
    devices: int = 0
    audit_head: str | None = None
    audit: tuple[str, ...] = ()


async def look_at(store: Path, manifest: Manifest) -> Replaced | None:
    """Read what is going to be replaced; None when there is nothing. Never fails for what is damaged there."""
    if not store.exists():
        return None
    try:
        reader = await open_sqlite_reader(store, any_version=True)
    except HudurError as failed:
        return Replaced(trouble=str(failed))
    try:
        return await _read_replaced(reader, manifest)
    except (HudurError, ValueError) as failed:  # ValueError: a key or number in it that is none
        return Replaced(trouble=str(failed))
    finally:
        with suppress(HudurError):
            await reader.close()


async def _read_replaced(reader: Reader, manifest: Manifest) -> Replaced:
    meta: dict[str, bytes] = dict(await reader.fetch_all("SELECT name, value FROM meta"))
    if "server_key" not in meta:
        return Replaced(trouble="no server has ever served it")
    head = LogHead(frame_id=manifest.frame_id, log_offset=manifest.log_offset)
    log = await digest_of(reader, head)
    beyond = await reader.fetch_one(
        """SELECT (SELECT count(*) FROM changes WHERE log_offset > ?),
        (SELECT count(*) FROM devices WHERE enrolled_ms > ?)""",
        (manifest.log_offset, manifest.made_ms),
    )
    last = await reader.fetch_one("SELECT hash FROM audit ORDER BY id DESC LIMIT 1")
    rows = await reader.fetch_all(
        "SELECT id, actor, action, subject, reason FROM audit WHERE id > ? ORDER BY id LIMIT ?",
        (manifest.audit_id, _BEYOND_MAX),
    )
    assert beyond is not None
    return Replaced(
        server=server_name(meta["server_key"]),
        epoch=int(meta["epoch"]),
        archived=int(meta.get("archived", b"0")),
        continues=log.digest.hex() == manifest.log_digest,
        changes=beyond[0],
        devices=beyond[1],
        audit_head=None if last is None else last[0].hex(),
        audit=tuple(f"{row[0]} {row[1]}: {row[2]} {row[3]} {row[4]}".rstrip() for row in rows),
    )


# ---- the restore ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """How a restore shall be made.

    Attributes:
        zone: The schools' time zone.
        reason: For the audit.
        accept: Put it in place although the proof found differences.
        proof: Merge with the independent core as well.
        epoch_above: An epoch that phones may have seen.
    """

    zone: str
    reason: str = REASON
    accept: bool = False
    proof: bool = True
    epoch_above: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Restored:
    """What a restore did: the proof, what was replaced and where it is now, and the new epoch."""

    verified: Verified
    replaced: Replaced | None
    aside: str | None
    raised: Raised


def epochs_path(store: Path) -> Path:
    """Where the last epoch of a store's place is kept, for the day on which neither clock nor old store can be read."""
    return beside(store, ".epoch")


async def restore(file: Path, store: Path, wish: Wish, ports: ServerPorts) -> Restored:
    """Prove a backup and put it in the place of `store`, whose server must be stopped.

    Raises:
        StoreInUse: a server runs on the store.
        RestoreRefused: `differences` (the proof found some), `other-server`, `clock`; nothing was changed.
        StoreFailed, OSError: the disk failed; what stands at the store's place is still what stood there.
    """
    manifest = read_manifest(file)
    finish_exchange(store)
    with hold(store):
        ports.reached("restore.before_copy")
        scratch = beside(store, ".restoring")
        discard(scratch)  # of a restore that was killed before it was sure of itself
        try:
            verified = await verify(
                file, scratch, zone=wish.zone, clock=ports.clock, manifest=manifest, proof=wish.proof
            )
            if not verified.agrees and not wish.accept:
                raise RestoreRefused("differences", "; ".join(verified.findings[:5]))
            replaced = await look_at(store, manifest)
            above = _known_epoch(store, manifest, replaced, wish, now_ms=ports.clock.wall_ms())
            ports.reached("restore.before_epoch")
            raised = await _raise_in(scratch, verified, replaced, wish, above=above, ports=ports)
            ports.reached("restore.after_epoch")
            aside = _put(store, scratch, epoch=raised.epoch, reached=ports.reached)
        finally:
            if not plan_path(store).exists():  # else the scratch store is the one to be put in place
                discard(scratch)
    return Restored(verified=verified, replaced=replaced, aside=aside, raised=raised)


def _known_epoch(store: Path, manifest: Manifest, replaced: Replaced | None, wish: Wish, *, now_ms: int) -> int:
    """The greatest epoch that phones may have seen.

    Raises:
        RestoreRefused: `other-server`, `clock`.
    """
    if replaced is not None and replaced.server not in (None, manifest.server) and not wish.accept:
        raise RestoreRefused(
            "other-server", f"the backup is of server {manifest.server}, the store of {replaced.server}"
        )
    if now_ms < manifest.made_ms and not wish.epoch_above:
        raise RestoreRefused(
            "clock", "this machine's clock is before the backup was made: set it, or say --epoch-above"
        )
    kept = 0
    if epochs_path(store).exists():
        text = epochs_path(store).read_text("utf-8").strip()
        kept = int(text) if text.isdecimal() else 0
    return max(manifest.epoch, wish.epoch_above, kept, 0 if replaced is None else replaced.epoch)


async def _raise_in(
    scratch: Path, verified: Verified, replaced: Replaced | None, wish: Wish, *, above: int, ports: ServerPorts
) -> Raised:
    manifest = verified.manifest
    has_all = replaced is not None and replaced.continues and replaced.archived <= manifest.log_offset
    db = await open_sqlite(scratch)
    try:
        return await raise_epoch(
            db,
            now_ms=ports.clock.wall_ms(),
            above=above,
            archived=min(manifest.log_offset, manifest.settled_offset) if verified.agrees else 0,
            whole_offer=not (verified.agrees and has_all),
            reason=wish.reason,
            evidence={
                "backup": manifest.sha256,
                "made_ms": manifest.made_ms,
                "log_offset": manifest.log_offset,
                "findings": list(verified.findings),
                "replaced_epoch": None if replaced is None else replaced.epoch,
                "replaced_audit_head": None if replaced is None else replaced.audit_head,
            },
        )
    finally:
        await db.close()


def _put(store: Path, scratch: Path, *, epoch: int, reached: Reached = not_watched) -> str | None:
    """Exchange the files; returns where the old store is now."""
    write_synced(epochs_path(store), b"%d\n" % epoch)
    for suffix in ("-wal", "-shm"):
        if beside(scratch, suffix).exists():
            raise StoreFailed("storage", f"{beside(scratch, suffix)} is left: the restored store was not closed")
    had_one = store.exists()
    aside = beside(store, f".replaced-{epoch}")
    exchange(store, new=scratch, aside=aside, reached=reached)
    return aside.name if had_one else None


def discard(scratch: Path) -> None:
    """Remove a scratch store with all that belongs to it."""
    for suffix in ("", "-wal", "-shm", ".lock"):
        beside(scratch, suffix).unlink(missing_ok=True)


def as_plain(value: Any) -> Any:
    """A report as plain data for JSON."""
    return asdict(value)
