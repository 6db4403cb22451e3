"""The store before the morning: schools, classes, people and phones, written as rows.

Enrolling 480,000 phones over HTTP would take longer than the morning (a code's digest is slow on purpose), so the rows
that an import and an enrolment leave are written directly, through the store's own transactions. What these phones
have been told already is asked of the server's own code.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import date
from pathlib import Path

from bench.morning.frames import ENV, read_phones
from bench.morning.plan import (
    CLASSES,
    GROUPS,
    PUPILS,
    SESSIONS,
    Size,
    class_name,
    pupil_names,
    school_name,
    teacher_name,
)
from clientcore.exchange import read_payload
from clientcore.frame import Ask
from clientcore.ports import SystemClock
from syncserver.config import Config
from syncserver.ports import ServerPorts
from syncserver.pull import Puller
from syncserver.store.devices import Identity
from syncserver.store.log import read_contact
from syncserver.store.meta import Meta, read_meta
from syncserver.store.port import Database, Row
from syncserver.store.sqlite import open_sqlite

_BATCH = 50_000
_DEVICE = """
INSERT INTO devices (id, school, user_id, public_key, label, app, enrolled_ms, nonce, last_number, unsent, done)
VALUES (?, ?, ?, ?, '', '1.0.0', ?, ?, 0, 0, 0)"""


async def make_roster(store: Path, size: Size) -> tuple[dict[int, bytes], bytes]:
    """Write every school's roster; returns the cursor of an informed phone of each class, and the server's key."""
    db = await open_sqlite(store)
    try:
        meta = await read_meta(db)
        for school in range(size.schools):
            await _school(db, size, school)
        return await _cursors(db, store, meta, size), meta.key.public
    finally:
        await db.close()


async def _school(db: Database, size: Size, school: int) -> None:
    name, since = school_name(school), f"{date.fromisoformat(size.on).year - 1}-09-01"
    phones, classes = range(size.phones(school)), range(min(CLASSES, size.phones(school)))
    pupils = [
        (class_no, roll, pupil) for class_no in classes for roll, pupil in enumerate(pupil_names(school, class_no))
    ]
    async with db.transaction() as tx:
        await tx.execute("INSERT INTO schools VALUES (?, ?, ?, 1, 1, NULL)", (name, name, " ".join(SESSIONS)))
        await tx.executemany(
            "INSERT INTO classes VALUES (?, ?, ?, '3', 1, 1, NULL)",
            [(name, class_name(class_no), class_name(class_no)) for class_no in classes],
        )
        users = [(name, pupil, f"تلميذ {roll} {PUPILS}", "pupil") for no, roll, pupil in pupils if no < GROUPS]
        users += [(name, teacher_name(phone), f"معلمة {phone}", "teacher") for phone in phones]
        await tx.executemany("INSERT INTO users VALUES (?, ?, ?, ?, NULL, NULL, 1, NULL)", users)
        members = [(name, class_name(class_no), pupil, "pupil", since, roll) for class_no, roll, pupil in pupils]
        members += [
            (name, class_name(phone % CLASSES), teacher_name(phone), "teacher", since, 0) for phone in phones
        ]  # fmt: skip
        await tx.executemany("INSERT INTO members VALUES (?, ?, ?, ?, 1, ?, NULL, ?, 1, NULL)", members)


async def _cursors(db: Database, store: Path, meta: Meta, size: Size) -> dict[int, bytes]:
    """What a phone of each class holds after it was told everything; classes are alike in every school."""
    last = max(range(size.schools), key=size.phones)
    puller = Puller(Config(store=store, env=ENV), db, ServerPorts(), meta.epoch)
    found: dict[int, bytes] = {}
    for class_no in range(min(CLASSES, size.phones(last))):
        probe = Identity(
            device=b"probe" + bytes(10) + bytes((class_no,)), school=school_name(last), user_id=teacher_name(class_no),
            public_key=bytes(65),
        )  # fmt: skip
        row = (probe.device, probe.school, probe.user_id, probe.public_key, SystemClock().wall_ms(), None)
        async with db.transaction() as tx:
            await tx.execute(_DEVICE, row)
        contact = await read_contact(db, probe.device)
        assert contact is not None
        cursor: bytes | None = None
        more = True
        while more:
            ask = Ask(nonce=None, cursor=cursor, have=None, app=None, unsent=0, done=0)
            payload = read_payload(await puller.build(probe, contact, ask))
            cursor, more = payload.cursor, payload.more
        assert cursor is not None
        found[class_no] = cursor
        async with db.transaction() as tx:
            await tx.execute("DELETE FROM devices WHERE id = ?", (probe.device,))
    return found


async def add_phones(store: Path, parts: Iterable[Path]) -> int:
    """Write the devices of all parts; returns how many."""
    now_ms = SystemClock().wall_ms()
    db = await open_sqlite(store)
    count = 0
    try:
        for part in parts:
            for rows in _batches((*row[:4], now_ms, row[4]) for row in read_phones(part)):
                async with db.transaction() as tx:
                    await tx.executemany(_DEVICE, rows)
                count += len(rows)
    finally:
        await db.close()
    return count


def _batches(rows: Iterator[Row]) -> Iterator[list[Row]]:
    batch: list[Row] = []
    for row in rows:
        batch.append(row)
        if len(batch) == _BATCH:
            yield batch
            batch = []
    if batch:
        yield batch
