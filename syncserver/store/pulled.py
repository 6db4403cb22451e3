"""What a pull reads: settlements and others' changes of a device's classes, directives, names the log knows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from syncserver.store.devices import Identity
from syncserver.store.port import Database, Reader, placeholders

_NAMES_MAX = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class PulledWord:
    """One row for a device: the word on its own change, or a change that somebody else made (with its chunk)."""

    seq: int
    register: str
    revision: int
    hash: bytes
    state: int
    slug: str | None
    user_id: str
    is_own: bool
    chunk: bytes | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Directive:
    """What the champion asks of a device."""

    id: int
    level: str
    reason: str
    made_ms: int


async def read_words(
    reader: Reader, identity: Identity, classes: Sequence[str], seq: int, since: str, limit: int, *, own_chunks: bool
) -> list[PulledWord]:
    """The next rows behind `seq`, in order.

    Args:
        reader: The store.
        identity: The device.
        classes: Its user's classes.
        seq: What it was told.
        since: Others' changes only from this date on.
        limit: Rows at most.
        own_chunks: Its own changes come with their chunks too, for a device that may have lost them.
    """
    names = list(classes) or [""]
    width = 1 << (len(names) - 1).bit_length()  # few statements to compile
    names += [names[-1]] * (width - len(names))
    own = "'' AS user_id, CAST(NULL AS BLOB) AS chunk"
    if own_chunks:
        own = "CAST(? AS TEXT) AS user_id, substr(f.body, c.chunk_at, c.chunk_bytes) AS chunk"
    found = await reader.fetch_all(
        f"""SELECT * FROM (
          SELECT s.seq, c.class_id, c.date, c.session, s.revision, c.hash, s.state, s.slug, 1 AS is_own, {own}
          FROM settlements s JOIN changes c ON c.log_offset = s.log_offset JOIN frames f ON f.id = c.frame_id
          WHERE s.device = ? AND s.seq > ? ORDER BY s.seq LIMIT ?) own
        UNION ALL SELECT * FROM (
          SELECT s.merged_seq, c.class_id, c.date, c.session, s.revision, c.hash, s.state, s.slug, 0, d.user_id,
            substr(f.body, c.chunk_at, c.chunk_bytes)
          FROM settlements s JOIN changes c ON c.log_offset = s.log_offset JOIN frames f ON f.id = c.frame_id
          JOIN devices d ON d.id = f.device
          WHERE s.school = ? AND s.class_id IN ({placeholders(width)}) AND s.merged_seq > ? AND s.device <> ?
            AND c.date >= ? ORDER BY s.merged_seq LIMIT ?) others
        ORDER BY 1 LIMIT ?""",
        (
            *([identity.user_id] if own_chunks else []),
            identity.device,
            seq,
            limit,
            identity.school,
            *names,
            seq,
            identity.device,
            since,
            limit,
            limit,
        ),
    )
    return [
        PulledWord(
            seq=row[0],
            register=f"{row[1]}/{row[2]}/{row[3]}",
            revision=row[4],
            hash=row[5],
            state=row[6],
            slug=row[7],
            is_own=bool(row[8]),
            user_id=row[9],
            chunk=row[10],
        )
        for row in found
    ]


async def read_archived(reader: Reader, device: bytes, told: int, archived: int, limit: int) -> list[tuple[int, bytes]]:
    """Offset and hash of the device's own changes behind `told` and up to `archived`, in order, at most `limit`."""
    found = await reader.fetch_all(
        """SELECT c.log_offset, c.hash FROM settlements s JOIN changes c ON c.log_offset = s.log_offset
        WHERE s.device = ? AND s.log_offset > ? AND s.log_offset <= ? ORDER BY s.log_offset LIMIT ?""",
        (device, told, archived, limit),
    )
    return [(row[0], row[1]) for row in found]


async def take_directives(db: Database, device: bytes, *, done: int, now_ms: int) -> list[Directive]:
    """Note what the device has carried out, and what is handed to it now."""
    async with db.transaction() as tx:
        await tx.execute(
            "UPDATE directives SET done_ms = ? WHERE device = ? AND id <= ? AND done_ms IS NULL", (now_ms, device, done)
        )
        waiting = await tx.fetch_all(
            "SELECT id, level, reason, made_ms FROM directives WHERE device = ? AND done_ms IS NULL ORDER BY id",
            (device,),
        )
        await tx.execute(
            "UPDATE directives SET delivered_ms = ? WHERE device = ? AND done_ms IS NULL AND delivered_ms IS NULL",
            (now_ms, device),
        )
    return [Directive(id=row[0], level=row[1], reason=row[2], made_ms=row[3]) for row in waiting]


async def note_ahead(db: Database, device: bytes, *, told: int, head: int, now_ms: int) -> None:
    """Keep that a device was told more than the log holds; once for each cursor, however often it asks with it."""
    row = (device, "cursor-ahead", f"told {told}, head {head}")
    async with db.transaction() as tx:
        if not await tx.fetch_one("SELECT 1 FROM security_events WHERE device = ? AND kind = ? AND detail = ?", row):
            await tx.execute(
                "INSERT INTO security_events (device, kind, detail, at_ms) VALUES (?, ?, ?, ?)", (*row, now_ms)
            )


async def known_names(
    reader: Reader, device: bytes, school: str, classes: Sequence[str], names: Sequence[bytes]
) -> set[bytes]:
    """Which of these 8-byte names of changes the log holds."""
    rows = await reader.fetch_all(
        f"""SELECT substr(c.hash, 1, 8) FROM changes c WHERE c.school = ?
        AND c.class_id IN ({placeholders(max(1, len(classes)))})
        UNION SELECT substr(c.hash, 1, 8) FROM settlements s JOIN changes c ON c.log_offset = s.log_offset
        WHERE s.device = ?""",
        (school, *(classes or [""]), device),
    )
    known = {row[0] for row in rows}
    missing = sorted(set(names) - known)
    for at in range(0, len(missing), _NAMES_MAX):
        part = missing[at : at + _NAMES_MAX]
        where = " OR ".join(["hash BETWEEN ? AND ?"] * len(part))
        bounds = [bound for name in part for bound in (name + bytes(24), name + b"\xff" * 24)]
        known |= {
            row[0] for row in await reader.fetch_all(f"SELECT substr(hash, 1, 8) FROM changes WHERE {where}", bounds)
        }
    return known


async def has_unsettled(reader: Reader, device: bytes) -> bool:
    """Whether the consumer has still to come to a change of this device."""
    row = await reader.fetch_one(
        """SELECT 1 FROM changes c JOIN frames f ON f.id = c.frame_id
        WHERE f.device = ? AND c.log_offset > (SELECT coalesce(min(log_offset), 0) FROM consumers) LIMIT 1""",
        (device,),
    )
    return row is not None
