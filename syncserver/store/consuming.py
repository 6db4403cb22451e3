"""How far the log is settled and what is next: positions, fences, new changes, orders to settle again, the lag."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from syncserver.errors import Fenced
from syncserver.store.key import Key
from syncserver.store.port import Reader, Transaction

LARGE = "large"  # cause of an order in `settle_again`: new changes of a register that takes long to settle


@dataclass(frozen=True, slots=True, kw_only=True)
class Fresh:
    """A change behind the consumer's offset."""

    log_offset: int
    key: Key
    received_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Again:
    """A register to be settled for another reason than a new change."""

    id: int
    key: Key
    at_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Lag:
    """How far the consumer is behind; a large register that waits for its turn counts as one."""

    offsets: int
    oldest_ms: int | None
    dead_letters: int


async def read_position(reader: Reader, partition: int) -> int:
    """Offset of the last change that was settled; 0 before the first."""
    row = await reader.fetch_one("SELECT log_offset FROM consumers WHERE partition_no = ?", (partition,))
    return 0 if row is None else int(row[0])


async def read_settled_up_to(reader: Reader) -> int:
    """Offset up to which every partition is settled; 0 before anything was."""
    row = await reader.fetch_one("SELECT coalesce(min(log_offset), 0) FROM consumers")
    assert row is not None
    return int(row[0])


async def set_position(tx: Transaction, partition: int, log_offset: int) -> None:
    """Begin at an offset: for a store into which settled registers were written, and that nobody consumes yet."""
    await tx.execute(
        """INSERT INTO consumers (partition_no, log_offset) VALUES (?, ?)
        ON CONFLICT (partition_no) DO UPDATE SET log_offset = excluded.log_offset""",
        (partition, log_offset),
    )


async def take_fence(tx: Transaction, partition: int) -> int:
    """Become the partition's consumer: whoever was it before writes nothing any more. Returns the new fence."""
    await tx.execute(
        """INSERT INTO consumers (partition_no, log_offset, fence) VALUES (?, 0, 1)
        ON CONFLICT (partition_no) DO UPDATE SET fence = consumers.fence + 1""",
        (partition,),
    )
    row = await tx.fetch_one("SELECT fence FROM consumers WHERE partition_no = ?", (partition,))
    assert row is not None
    return int(row[0])


async def write_position(tx: Transaction, partition: int, log_offset: int, fence: int) -> None:
    """Move the consumer's offset.

    Raises:
        Fenced: another consumer has the partition now.
    """
    moved = await tx.execute(
        "UPDATE consumers SET log_offset = ? WHERE partition_no = ? AND fence = ?", (log_offset, partition, fence)
    )
    if moved != 1:
        raise Fenced("fenced", f"partition {partition} has another consumer")


async def read_head(reader: Reader) -> int:
    """Offset of the last change in the log; 0 before the first."""
    row = await reader.fetch_one("SELECT coalesce(max(log_offset), 0) FROM changes")
    assert row is not None
    return int(row[0])


async def read_last_offset(reader: Reader, key: Key) -> int | None:
    """Offset of a register's last change; None without any."""
    row = await reader.fetch_one(
        "SELECT max(log_offset) FROM changes WHERE school = ? AND class_id = ? AND date = ? AND session = ?", key
    )
    return None if row is None else row[0]


async def read_fresh(reader: Reader, position: int, limit: int, *, changes: str = "changes") -> list[Fresh]:
    """The next changes of the log, or of a part of it, in order."""
    found = await reader.fetch_all(
        f"""SELECT c.log_offset, c.school, c.class_id, c.date, c.session, f.received_ms
        FROM {changes} c JOIN frames f ON f.id = c.frame_id WHERE c.log_offset > ? ORDER BY c.log_offset LIMIT ?""",
        (position, limit),
    )
    return [Fresh(log_offset=row[0], key=(row[1], row[2], row[3], row[4]), received_ms=row[5]) for row in found]


async def read_again(reader: Reader, limit: int, *, orders: str = "settle_again") -> list[Again]:
    """Registers waiting to be settled again; see `spread_again` for whole classes and dates."""
    found = await reader.fetch_all(
        f"""SELECT id, school, class_id, date, session, at_ms FROM {orders}
        WHERE session IS NOT NULL ORDER BY id LIMIT ?""",
        (limit,),
    )
    return [Again(id=row[0], key=(row[1], row[2], row[3], row[4]), at_ms=row[5]) for row in found]


async def has_orders(reader: Reader, *, orders: str = "settle_again") -> bool:
    """Whether whole classes or dates are to be settled again."""
    return await reader.fetch_one(f"SELECT 1 FROM {orders} WHERE session IS NULL LIMIT 1") is not None


async def spread_again(tx: Transaction, position: int, *, orders: str = "settle_again") -> int:
    """Turn each order for a class or a date into one for every register that was settled; returns how many orders.

    Registers whose changes all lie behind `position` will be settled for the first time after it.
    """
    found = await tx.fetch_all(
        f"SELECT id, school, class_id, date, cause, at_ms FROM {orders} WHERE session IS NULL ORDER BY id"
    )
    for order_id, school, class_id, date, cause, at_ms in found:
        where, params = "1 = 1", []
        for column, value in (("school", school), ("class_id", class_id), ("date", date)):
            if value is not None:
                where += f" AND {column} = ?"
                params.append(value)
        await tx.execute(
            f"""INSERT INTO settle_again (school, class_id, date, session, cause, at_ms)
            SELECT DISTINCT school, class_id, date, session, CAST(? AS TEXT), CAST(? AS INTEGER) FROM changes
            WHERE {where} AND log_offset <= ?""",
            (cause, at_ms, *params, position),
        )
        await tx.execute("DELETE FROM settle_again WHERE id = ?", (order_id,))
    return len(found)


async def finish_again(tx: Transaction, ids: Sequence[int]) -> None:
    """These orders have been carried out."""
    await tx.executemany("DELETE FROM settle_again WHERE id = ?", [(one,) for one in ids])


async def defer(tx: Transaction, key: Key, *, at_ms: int) -> None:
    """Let a register wait for its turn among the large ones."""
    await tx.execute(
        """INSERT INTO settle_again (school, class_id, date, session, cause, at_ms) SELECT ?, ?, ?, ?, ?, ?
        WHERE NOT EXISTS (SELECT 1 FROM settle_again
        WHERE school = ? AND class_id = ? AND date = ? AND session = ? AND cause = ?)""",
        (*key, LARGE, at_ms, *key, LARGE),
    )


async def read_lag(reader: Reader, parts: Sequence[str] = ()) -> Lag:
    """How many changes wait, since when the oldest of them, and the dead letters.

    Args:
        reader: The store.
        parts: Every part of the table `changes`, by partition; without them a change may be counted that was settled
            beyond what all partitions have reached.
    """
    row = await reader.fetch_one(
        """SELECT (SELECT count(*) FROM dead_letters WHERE requeued = 0),
        (SELECT count(*) FROM settle_again WHERE cause = 'large'),
        (SELECT min(at_ms) FROM settle_again WHERE cause = 'large')"""
    )
    assert row is not None
    dead_letters, waiting, *oldest = row
    for number, changes in enumerate(parts or ("changes",)):
        position = await read_position(reader, number) if parts else await read_settled_up_to(reader)
        row = await reader.fetch_one(
            f"SELECT count(*), min(log_offset) FROM {changes} WHERE log_offset > ?", (position,)
        )
        if row is not None and row[0]:
            waiting += row[0]
            oldest += await _received_ms(reader, changes, row[1])
    known = [at_ms for at_ms in oldest if at_ms is not None]
    return Lag(offsets=waiting, oldest_ms=min(known, default=None), dead_letters=dead_letters)


async def _received_ms(reader: Reader, changes: str, log_offset: int) -> list[int]:
    found = await reader.fetch_all(
        f"SELECT f.received_ms FROM {changes} c JOIN frames f ON f.id = c.frame_id WHERE c.log_offset = ?",
        (log_offset,),
    )
    return [row[0] for row in found]
