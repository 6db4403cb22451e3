"""What the store knows of itself: the server's key, the log's epoch."""

from __future__ import annotations

from dataclasses import dataclass

from clientcore.keys import SigningKey
from syncserver.store.port import Database


@dataclass(frozen=True, slots=True, kw_only=True)
class Meta:
    """The server's signing key and the log's epoch (rises at every restore)."""

    key: SigningKey
    epoch: int


async def read_meta(db: Database) -> Meta:
    """Read both; the first start makes them."""
    async with db.transaction() as tx:
        found = dict(await tx.fetch_all("SELECT name, value FROM meta"))
        if "server_key" not in found:
            found = {"server_key": SigningKey.generate().to_pem(), "epoch": b"1"}
            await tx.executemany("INSERT INTO meta (name, value) VALUES (?, ?)", sorted(found.items()))
    return Meta(key=SigningKey.from_pem(found["server_key"]), epoch=int(found["epoch"]))
