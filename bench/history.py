"""School days that have been, written into a store by the server's own intake and settle code, each at its morning.

Phones are put into the store as rows (an enrolment costs an argon2 digest, a thousand of them half a minute). No server
may be running on the store meanwhile.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, time
from pathlib import Path
from zoneinfo import ZoneInfo

from rich.console import Console
from rich.progress import track

from bench.site import APP, Phone
from clientcore.exchange import Enrolled, write_sync
from clientcore.keys import SigningKey, device_id
from clientcore.ports import SeededRandom, SystemClock
from syncserver.app import Server, open_server
from syncserver.config import Config
from syncserver.ports import ServerPorts
from syncserver.store.log import Push
from syncserver.store.meta import read_meta
from syncserver.store.port import Database
from syncserver.store.roster import classes_in, classes_of, roster_on, staff_of
from syncserver.store.sqlite import open_sqlite

MORNING = time(8, 40)
NONCE = bytes(8)
_TOGETHER = 64
_DEVICE = """INSERT INTO devices
  (id, school, user_id, public_key, label, app, enrolled_ms, nonce, last_number, unsent, done)
VALUES (?, ?, ?, ?, '', ?, 0, ?, 0, 0, 0)"""


class MorningClock(SystemClock):
    """The wall clock stands at a morning; waiting is real."""

    now_ms = 0

    def wall_ms(self) -> int:
        """The morning."""
        return self.now_ms


@dataclass(frozen=True, slots=True, kw_only=True)
class Taught:
    """One school as the load needs it: its classes with their pupils, and phones of its staff.

    Attributes:
        school: Its id.
        rooms: Pupils of each class.
        room: A class of 40.
        pair: Phones of two teachers of `room`.
    """

    school: str
    rooms: dict[str, list[str]]
    room: str
    pair: tuple[Phone, Phone]


async def write_history(
    store: Path, *, days: Sequence[str], on: str, classes: int | None, console: Console
) -> list[Taught]:
    """Fill the store with a register of each class (of the first `classes`) of every school on each of `days`."""
    clock = MorningClock()
    db = await open_sqlite(store)
    try:
        schools = await _add_phones(db, on)
        config = Config(store=store, consumes=False)
        server = await open_server(config, db, ServerPorts(clock=clock))
        writer = asyncio.create_task(server.intake.run())
        for day in track(days, "school days", console=console, transient=True):
            clock.now_ms = int(
                datetime.combine(datetime.fromisoformat(day), MORNING, ZoneInfo(config.zone)).timestamp()
            )
            clock.now_ms *= 1_000
            await _write_day(server, schools, day, classes, clock.now_ms)
            while await server.settler.round():
                pass
        await server.intake.drain()
        writer.cancel()
        await asyncio.gather(writer, return_exceptions=True)
    finally:
        await db.close()
    return schools


async def _write_day(server: Server, schools: Sequence[Taught], day: str, classes: int | None, now_ms: int) -> None:
    waiting = []
    for taught in schools:
        phone = taught.pair[0]
        for room in list(taught.rooms)[:classes]:
            frame = phone.frame([(f"{room}/{day}/day", phone.register(taught.rooms[room][:40]))], wall_ms=now_ms)
            waiting.append(write_sync([frame.raw]))
    for at in range(0, len(waiting), _TOGETHER):
        await asyncio.gather(*(_push(server, body) for body in waiting[at : at + _TOGETHER]))


async def _push(server: Server, body: bytes) -> None:
    identity, arrivals = await server.checker.read(body)
    push = Push(device=identity.device, arrivals=tuple(arrivals), nonce=server.intake.nonce(), asked_nonce=None)
    stored = await server.intake.commit(push)
    if stored.new_changes != 1:
        raise SystemExit(f"a day of the past was not stored: {stored.verdicts}")


async def _add_phones(db: Database, on: str) -> list[Taught]:
    """Two phones in every school, of two teachers of its class of 40."""
    meta = await read_meta(db)
    found, rows = [], []
    for number, (school,) in enumerate(await db.fetch_all("SELECT school FROM schools ORDER BY school")):
        rooms = {room.id: await roster_on(db, school, room.id, on) for room in await classes_in(db, school, on)}
        room = next(one for one, pupils in rooms.items() if len(pupils) == 40)
        teachers = [one.id for one in await staff_of(db, school, on) if one.role == "teacher"]
        of_room = [one for one in teachers if room in {own.id for own in await classes_of(db, school, one, on)}]
        pair = tuple(
            _phone(school, user, meta.key.public, meta.epoch, seed=2 * number + which)
            for which, user in enumerate(of_room[:2])
        )
        rows += [(one.enrolled.device, school, one.enrolled.user_id, one.key.public, APP, NONCE) for one in pair]
        found.append(Taught(school=school, rooms=rooms, room=room, pair=(pair[0], pair[1])))
    async with db.transaction() as tx:
        await tx.executemany(_DEVICE, rows)
    return found


def _phone(school: str, user: str, server_key: bytes, epoch: int, *, seed: int) -> Phone:
    key, random = SigningKey.generate(), SeededRandom(seed)
    enrolled = Enrolled(
        env="demo",
        school=school,
        school_name=school,
        device=device_id(key.public),
        user_id=user,
        user_name=user,
        role="teacher",
        server_key=server_key,
        server_ms=SystemClock().wall_ms(),
        epoch=epoch,
        nonce=NONCE,
        short_number="",
        payload=b"",
    )
    return Phone(key=key, enrolled=enrolled, random=random, session=random.bytes(8), nonce=NONCE, cursor=b"")
