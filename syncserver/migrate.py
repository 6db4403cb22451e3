"""A store moves house: from SQLite to PostgreSQL, or back. Every row is copied, then both sides are compared.

Invariants:
  1. Nobody writes either store meanwhile: a SQLite file is locked, in PostgreSQL no server may be there and every other
     writer is excluded.
  2. Until both sides were found equal the target has the schema version `UNFINISHED`, which no program opens.
  3. The source is only read.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass

from clientcore.wire import pack
from syncserver.config import PostgresAddress, StoreAddress, store_text
from syncserver.errors import MigrationRefused, StoreInUse
from syncserver.feed import read_page
from syncserver.store.consuming import read_settled_up_to, set_position
from syncserver.store.dialect import DIVIDED
from syncserver.store.digest import check_audit, digest_of, digest_registers, read_head
from syncserver.store.open import open_store
from syncserver.store.packed import pack_outcome, unpack_outcome
from syncserver.store.port import Database, Reader, Row, Transaction, placeholders
from syncserver.store.schema import SCHEMA_VERSION, schema_statements

UNFINISHED = 0
_OWN = ("schema_version", "consumers")  # every store has rows of its own there
_PARTITIONS = "partitions"
_PAGE, _FEED_PAGE = 500, 5_000
_CREATE = re.compile(r"CREATE TABLE (\w+) \((.*)\) STRICT", re.DOTALL)
_COLUMN = re.compile(r"(\w+) (?:INTEGER|TEXT|BLOB)\b")
_KEYS = re.compile(r"PRIMARY KEY \(([^)]*)\)")
_KEY = re.compile(r"(\w+) (?:INTEGER|TEXT|BLOB) PRIMARY KEY")

Told = Callable[[str, int], None]
"""Is told how many rows of a table are in the target by now."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """What there is to copy: columns in the schema's order, and those of the key."""

    name: str
    columns: tuple[str, ...]
    key: tuple[str, ...]
    is_numbered: bool

    @property
    def source(self) -> str:
        """From where its rows are read: an outcome with the change it refers to behind its body."""
        return "whole_outcomes" if self.name == "outcomes" else self.name

    def page_sql(self, *, first: bool) -> str:
        """The statement for the next rows behind a key."""
        keys = ", ".join(self.key)
        where = "" if first else f"WHERE ({keys}) > ({placeholders(len(self.key))}) "
        return f"SELECT {', '.join(self.columns)} FROM {self.source} {where}ORDER BY {keys} LIMIT {_PAGE}"

    def whole(self, row: Row) -> Row:
        """A row as the target gets it: an outcome that refers to nothing, whoever will read it there."""
        if self.source == self.name:
            return row
        values = dict(zip(self.columns, row, strict=True))
        if values["source_offset"] is None:
            return row
        register = "/".join(values[name] for name in self.key)
        values |= {"body": pack_outcome(unpack_outcome(values["body"], register)), "source_offset": None}
        return tuple(values.values())


@dataclass(frozen=True, slots=True, kw_only=True)
class Migrated:
    """What was copied: rows of each table, and what differs afterwards (nothing, when all is well)."""

    source: str
    target: str
    tables: dict[str, int]
    log_offset: int
    events: int
    differences: tuple[str, ...]


def tables() -> Iterator[Table]:
    """The tables of the schema, but for those in which every store has rows of its own."""
    for statement in schema_statements():
        found = _CREATE.match(statement)
        if found is None or found[1] in _OWN:
            continue
        keys, key = _KEYS.search(found[2]), _KEY.search(found[2])
        names = keys[1].split(", ") if keys is not None else [key[1]] if key is not None else []
        yield Table(
            name=found[1],
            columns=tuple(_COLUMN.findall(found[2])),
            key=tuple(names),
            is_numbered=key is not None and f"{key[1]} INTEGER PRIMARY KEY" in found[2],
        )


async def migrate(source: StoreAddress, target: StoreAddress, told: Told = lambda _table, _rows: None) -> Migrated:
    """Copy one store into another, empty one, and compare.

    Raises:
        StoreInUse: somebody works on one of them.
        MigrationRefused: `not-empty`: something is in the target; `schema`: the source is of another version.
        StoreFailed: one of them cannot be read or written; the target cannot be used then.
    """
    old = await open_store(source)
    try:
        new = await open_store(target)
        try:
            await _check_alone(old, source)
            await _check_alone(new, target)
            async with old.transaction() as reading:  # in PostgreSQL this keeps every other writer out
                if isinstance(source, PostgresAddress):  # it is idle while the target is written
                    await reading.execute("SET LOCAL idle_in_transaction_session_timeout = 0")
                if await reading.fetch_one("SELECT version FROM schema_version") != (SCHEMA_VERSION,):
                    raise MigrationRefused("schema", f"the source has another schema than {SCHEMA_VERSION}")
                return await _migrate(reading, new, store_text(source), store_text(target), told)
        finally:
            await new.close()
    finally:
        await old.close()


async def _migrate(old: Reader, new: Database, source: str, target: str, told: Told) -> Migrated:
    await _begin(new)
    counts = {table.name: await _copy(old, new, table, told) for table in tables()}
    position, head = await read_settled_up_to(old), await read_head(old)
    async with new.transaction() as tx:
        for partition in range(new.partitions):
            await set_position(tx, partition, position)
        if new.partitions > 1:
            await _number_on(tx)
    wanted, found = await look(old), await look(new)
    differences = tuple(name for name in wanted if wanted[name] != found[name])
    if not differences:
        async with new.transaction() as tx:
            await tx.execute("UPDATE schema_version SET version = ?", (SCHEMA_VERSION,))
    return Migrated(
        source=source,
        target=target,
        tables={name: count for name, count in counts.items() if count},
        log_offset=head.log_offset,
        events=int(wanted["feed"].split()[0]),
        differences=differences,
    )


async def _check_alone(db: Database, address: StoreAddress) -> None:
    claims = await db.claims()
    try:
        if await claims.present() > 1:
            raise StoreInUse("store-in-use", f"servers are running on {store_text(address)}: stop them first")
    finally:
        await claims.close()


async def _begin(new: Database) -> None:
    """See that the target is empty, and mark it as unfinished."""
    async with new.transaction() as tx:
        for table in tables():
            where = f"WHERE name <> '{_PARTITIONS}' " if table.name == "meta" else ""
            if await tx.fetch_one(f"SELECT 1 FROM {table.name} {where}LIMIT 1") is not None:
                raise MigrationRefused("not-empty", f"the target has rows in {table.name}: it must be a new store")
        await tx.execute("UPDATE schema_version SET version = ?", (UNFINISHED,))


async def _pages(reader: Reader, table: Table) -> AsyncIterator[list[Row]]:
    """A table's rows in the order of its key; what a store notes of its own partitions is left out."""
    places = [table.columns.index(name) for name in table.key]
    page = await reader.fetch_all(table.page_sql(first=True))
    while page:
        yield [table.whole(row) for row in page if table.name != "meta" or row[0] != _PARTITIONS]
        page = await reader.fetch_all(table.page_sql(first=False), tuple(page[-1][place] for place in places))


async def _copy(old: Reader, new: Database, table: Table, told: Told) -> int:
    insert = f"INSERT INTO {table.name} ({', '.join(table.columns)}) VALUES ({placeholders(len(table.columns))})"
    count = 0
    async for page in _pages(old, table):
        async with new.transaction() as tx:
            await tx.executemany(insert, page)
        count += len(page)
        told(table.name, count)
    return count


async def _number_on(tx: Transaction) -> None:
    """Let PostgreSQL's own numbers go on behind those that were copied."""
    for table in tables():
        if table.is_numbered:
            name, key = table.name, table.key[0]
            sequence = f"'{name}_{key}'" if name in DIVIDED else f"pg_get_serial_sequence('{name}', '{key}')"
            await tx.fetch_one(f"SELECT setval({sequence}, (SELECT coalesce(max({key}), 0) + 1 FROM {name}), false)")


# ---- comparing --------------------------------------------------------------------------------------------------


async def look(reader: Reader) -> dict[str, str]:
    """What two stores with the same content have in common, by name: the digests of a backup, the feed, every row."""
    log, registers = await digest_of(reader, await read_head(reader)), await digest_registers(reader)
    trail = await check_audit(reader)
    found = {
        "log": f"{log.digest.hex()} {log.gaps} {log.strange_frames}",
        "registers": f"{registers.count} {registers.digest.hex()}",
        "audit": f"{trail.id} {trail.hash.hex()} {trail.broken_at}",
        "feed": await _digest_feed(reader),
    }
    for table in tables():
        found[f"table {table.name}"] = await _digest_table(reader, table)
    return found


async def _digest_feed(reader: Reader) -> str:
    sha, count, after = hashlib.sha256(), 0, 0
    while (page := await read_page(reader, after=after, limit=_FEED_PAGE)).events:
        sha.update(page.to_bytes())
        count, after = count + len(page.events), page.next_after
    return f"{count} {sha.hexdigest()}"


async def _digest_table(reader: Reader, table: Table) -> str:
    sha, count = hashlib.sha256(), 0
    async for page in _pages(reader, table):
        for row in page:
            sha.update(pack(list(row)))
        count += len(page)
    return f"{count} {sha.hexdigest()}"
