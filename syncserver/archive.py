"""Calling changes *archived*: they lie in a backup that was restored and verified, and its file is kept.

Only what a device was told to be archived may it one day prune, so the word is given by an operator's order after a
proof, for the log of one epoch, and never for a log that does not begin with the backup's.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from syncserver.backup import Manifest
from syncserver.errors import RestoreRefused
from syncserver.operator import Operator
from syncserver.store.digest import LogHead, digest_of
from syncserver.store.meta import read_numbers
from syncserver.store.sqlite import open_sqlite_reader
from syncserver.verify import Verified


async def check_continues(store: Path, manifest: Manifest) -> None:
    """Whether the store's log begins with the backup's whole log, in the backup's epoch.

    Raises:
        RestoreRefused: `other-log`.
        StoreFailed: the store cannot be read.
    """
    reader = await open_sqlite_reader(store)
    try:
        numbers = await read_numbers(reader)
        log = await digest_of(reader, LogHead(frame_id=manifest.frame_id, log_offset=manifest.log_offset))
    finally:
        await reader.close()
    if numbers.get("epoch") != manifest.epoch:
        raise RestoreRefused("other-log", f"the store is in epoch {numbers.get('epoch')}, the backup {manifest.epoch}")
    if log.digest.hex() != manifest.log_digest:
        raise RestoreRefused("other-log", "the store's log is not the one in the backup, or it was altered since")


async def mark_archived(store: Path, verified: Verified, *, reason: str) -> int:
    """Call archived what a verified backup of `store` holds; returns the offset up to which the log is archived now.

    Args:
        store: The store that goes on, with a server on it or without.
        verified: The proof of a backup of it.
        reason: For the audit.

    Raises:
        RestoreRefused: `differences`, `other-log`.
        HudurError: the server cannot be reached, or refused.
    """
    manifest = verified.manifest
    if not verified.agrees:
        raise RestoreRefused("differences", "a backup with findings archives nothing")
    await check_continues(store, manifest)
    async with Operator.connect(store) as operator:
        done: dict[str, Any] = await operator.call(
            "archive",
            {
                "epoch": manifest.epoch,
                # What waits to be settled has no word yet, and is told to be archived another time.
                "log_offset": min(manifest.log_offset, manifest.settled_offset),
                "backup": manifest.sha256,
                "reason": reason,
            },
        )
    return int(done["archived"])
