"""What the store knows of itself: the server's key, the log's epoch."""

from __future__ import annotations

from dataclasses import dataclass

from clientcore.keys import SigningKey
from syncserver.store.port import Database, Reader, Transaction


@dataclass(frozen=True, slots=True, kw_only=True)
class Meta:
    """What was fixed when the store was made or last restored.

    Attributes:
        key: The server's signing key.
        epoch: The log's epoch; rises at every restore.
        feed_from: Sequence of the feed's last mark of a restore; revisions go on above it too. 0: never restored.
    """

    key: SigningKey
    epoch: int
    feed_from: int = 0


async def read_meta(db: Database) -> Meta:
    """Read both; the first start makes them."""
    async with db.transaction() as tx:
        found = dict(await tx.fetch_all("SELECT name, value FROM meta"))
        if "server_key" not in found:
            found = {"server_key": SigningKey.generate().to_pem(), "epoch": b"1"}
            await tx.executemany("INSERT INTO meta (name, value) VALUES (?, ?)", sorted(found.items()))
    return Meta(
        key=SigningKey.from_pem(found["server_key"]),
        epoch=int(found["epoch"]),
        feed_from=int(found.get("feed_from", b"0")),
    )


async def read_numbers(reader: Reader) -> dict[str, int]:
    """`epoch`, `feed_from` and `archived` (offset up to which the log is archived), as far as they are set."""
    rows = await reader.fetch_all("SELECT name, value FROM meta WHERE name IN ('epoch', 'feed_from', 'archived')")
    return {name: int(value) for name, value in rows}


async def write_numbers(tx: Transaction, **numbers: int) -> None:
    """Set some of the numbers of `read_numbers`."""
    await tx.executemany(
        "INSERT INTO meta (name, value) VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET value = excluded.value",
        [(name, b"%d" % number) for name, number in sorted(numbers.items())],
    )
