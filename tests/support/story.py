"""A school to tell stories about: the real server and store, phones that tap by the clock, people who decide.

A story moves the clock to what a wall clock in Cairo shows, lets people act, and asks what is official. Phones are
offline until they `meet` the server.
"""

from __future__ import annotations

import json
import random
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

from clientcore.change import Change, Op, actor_of, deflate, encode
from clientcore.exchange import write_sync
from clientcore.history import merge
from clientcore.ports import ManualClock
from syncserver.calendar import calendar_of
from syncserver.enrol import make_code
from syncserver.store.registers import outcome_of
from syncserver.store.roster import end_person
from tests.support.server.orders import ask, give, operator, token
from tests.support.server.phone import Phone
from tests.support.server.world import World, open_world

CAIRO = ZoneInfo("Africa/Cairo")
SCHOOL = "eg-st-1"
CODES = {"present": "P", "absent": "A", "late": "L", "excused": "E", "left early": "X"}
TAP_MS = (400, 2_600)  # how long a finger takes from one pupil to the next


def moment_ms(wall: str) -> int:
    """`2026-11-22 08:00` on a clock in Cairo."""
    return int(datetime.fromisoformat(wall).replace(tzinfo=CAIRO).timestamp() * 1000)


@dataclass(slots=True)
class TeachersPhone(Phone):
    """A phone whose taps bear the moment at which they were made. It keeps what it has not sent."""

    hand: random.Random = field(default_factory=lambda: random.Random(7))
    unsent: list[tuple[str, Change]] = field(default_factory=list)

    def mark(self, register: str, codes: Mapping[str, str], *, at_ms: int | None = None) -> Change:
        """Tap pupil after pupil, now (or all in one moment), and seal."""
        known = self.changes.setdefault(register, [])
        history = merge(known)
        actor = actor_of(self.me.device, self.app_session)
        visible = history.visible()
        midnight = moment_ms(register.split("/")[1] + " 00:00")
        tapped_ms, ops = self.clock.wall_ms(), []
        for key, code in codes.items():
            tapped_ms += self.hand.randrange(*TAP_MS)
            letter, _, reason = code.partition(":")
            value = f"{letter}{(tapped_ms if at_ms is None else at_ms) - midnight}" + (f":{reason}" if reason else "")
            ops.append(Op(key=key, value=value, preds=tuple(sorted(put.id for put in visible.get(key, [])))))
        self.clock.advance(tapped_ms - self.clock.wall_ms())
        change = encode(
            actor=actor,
            seq=history.last_seq(actor) + 1,
            start_op=history.max_op + 1,
            time_s=self.clock.wall_ms() // 1000,
            deps=history.heads,
            ops=ops,
        )
        known.append(change)
        self.unsent.append((register, change))
        return change

    async def meet(self) -> None:
        """There is a network: everything unsent goes, and what the phone lacks comes."""
        # Two exchanges, as every phone has them: the first brings a nonce, the second carries it.
        for register, change in self.unsent:
            await self.send([self.frame([(register, deflate(change.chunk))])])
        self.unsent = []
        await self.pull()


@dataclass(slots=True)
class Story:
    """One school and what happens in it."""

    world: World
    pupils: dict[str, tuple[str, ...]]
    phones: dict[str, TeachersPhone] = field(default_factory=dict)
    office: str = ""

    # ---- time ----

    def it_is(self, wall: str) -> None:
        """The clock on the wall shows this; it only goes forward."""
        self.world.clock.advance(moment_ms(wall) - self.world.clock.wall_ms())

    # ---- people ----

    async def phone_of(self, person: str) -> TeachersPhone:
        """The person's phone, enrolled by the champion's code."""
        if person not in self.phones:
            code, _ = await make_code(
                self.world.db, self.world.server.ports, school=SCHOOL, user_id=person, made_by="operator"
            )
            phone = TeachersPhone(http=self.world.http, clock=self.world.clock, seed=len(self.phones) + 1)
            await phone.enrol(SCHOOL, code, label=f"phone of {person}")
            await phone.pull()
            self.phones[person] = phone
        return self.phones[person]

    async def takes_the_register(
        self,
        person: str,
        class_id: str,
        date: str,
        exceptions: Mapping[str, str] | None = None,
        *,
        session: str = "day",
        only: Iterable[str] | None = None,
    ) -> Change:
        """Everybody is present but for the exceptions (`{"Hassan": "absent"}`). Nothing is sent yet."""
        told = exceptions or {}
        listed = self.pupils[class_id] if only is None else only
        phone = await self.phone_of(person)
        codes = {pupil: CODES[told.get(pupil, "present")] for pupil in listed}
        return phone.mark(f"{class_id}/{date}/{session}", codes)

    async def sends(self, person: str) -> None:
        """The phone finds a network, and the server settles what came."""
        await (await self.phone_of(person)).meet()
        await self.settles()

    async def settles(self) -> None:
        """The server does its work."""
        while await self.world.server.settler.round():
            pass

    async def decides(self, person: str, order: str, /, **args: object) -> dict[str, Any]:
        """Somebody of the school decides, from their phone."""
        result = await give(await self.phone_of(person), order, school=SCHOOL, **args)
        await self.settles()
        return result

    async def is_refused(self, person: str, order: str, /, **args: object) -> dict[str, Any]:
        """Somebody tries, and a rule or a right stands against it."""
        reply = await ask(await self.phone_of(person), order, school=SCHOOL, **args)
        assert reply.status_code in (403, 409), reply.text
        problem: dict[str, Any] = reply.json()
        return problem

    async def central_office(self, order: str, /, **args: object) -> dict[str, Any]:
        """The central office decides, with its token."""
        if not self.office:
            self.office = await token(self.world, "central", "central")
        reply = await self.world.http.post(
            f"/v1/operator/{order}",
            params={"args": json.dumps(args)},
            headers={"content-type": "application/octet-stream", "authorization": f"Bearer {self.office}"},
        )
        assert reply.status_code == 200, reply.text
        await self.settles()
        result: dict[str, Any] = reply.json()
        return result

    async def operator(self, order: str, data: bytes = b"", /, **args: object) -> dict[str, Any]:
        """Whoever keeps the server."""
        reply = await self.world.http.post(
            f"/v1/operator/{order}",
            params={"args": json.dumps(args)},
            content=data,
            headers={"content-type": "application/octet-stream"},
        )
        assert reply.status_code == 200, reply.text
        await self.settles()
        result: dict[str, Any] = reply.json()
        return result

    async def ends(self, person: str) -> None:
        """The school system says that the person has left; the feed tells the server."""
        async with self.world.db.transaction() as tx:
            await end_person(tx, SCHOOL, person, self.world.clock.wall_ms(), "upstream", "ended upstream")

    async def brings_the_phone_of(self, person: str) -> None:
        """What the phone of somebody who left still holds comes in by its own connection: refused, and kept."""
        phone = self.phones[person]
        frames = [phone.frame([(register, deflate(change.chunk))]) for register, change in phone.unsent]
        body = write_sync([frame.raw for frame in frames])
        reply = await phone.post("/v1/sync", body)
        assert reply.status_code in (200, 403), reply.text
        await self.settles()

    # ---- what is official ----

    async def official(self, class_id: str, date: str, *, session: str = "day") -> dict[str, str]:
        """Pupil to word; `not taken` where nobody's mark counts."""
        found = await outcome_of(self.world.db, (SCHOOL, class_id, date, session))
        if found is None:
            return dict.fromkeys(self.pupils[class_id], "not taken")
        return {
            pupil: answer.code.word.replace("_", " ") if answer.code else "not taken"
            for pupil, answer in found.outcome.answers.items()
        }

    async def about(self, class_id: str, date: str, pupil: str, *, session: str = "day") -> dict[str, Any]:
        """Everything official about one pupil of one register."""
        found = await outcome_of(self.world.db, (SCHOOL, class_id, date, session))
        assert found is not None
        answer = found.outcome.answers[pupil]
        return {
            "code": answer.code.word if answer.code else "not taken",
            "timeliness": None if answer.timeliness is None else answer.timeliness.value,
            "labels": set(answer.labels),
            "disputed": answer.disputed,
            "original": answer.original.code.word if answer.original else None,
        }

    async def sessions_expected(self, date: str) -> tuple[str, ...]:
        """The sessions for which the school's calendar expects registers on a date."""
        calendar = await calendar_of(self.world.db, SCHOOL, "Africa/Cairo", int(date[:4]))
        return calendar.sessions_on(date)

    async def told_downstream(self, date: str) -> list[tuple[str, str, str | None]]:
        """What the feed said about a date: what happened, about whom, which code."""
        return [
            (event["type"].split(".")[-2], event["data"]["pupil"], event["data"].get("code"))
            for event in await self.world.events()
            if event["data"].get("date") == date
        ]


@asynccontextmanager
async def a_school(
    folder: Path,
    *,
    classes: Mapping[str, Sequence[str]],
    teachers: Mapping[str, Sequence[str]],
    sessions: str = "day",
    begins: str = "2026-09-20 07:00",
) -> AsyncIterator[Story]:
    """A school with one champion, Huda, and whoever else the story needs.

    Args:
        folder: For the store.
        classes: Class to its pupils.
        teachers: Teacher to the classes they teach.
        sessions: Sessions the school uses.
        begins: What the clock shows at first.
    """
    clock = ManualClock(now_ms=moment_ms(begins))
    async with open_world(folder / "story.db", background=False, clock=clock) as world:
        people = [(name, "teacher") for name in teachers] + [("Huda", "champion"), ("Nadia", "champion")]
        people += [(pupil, "pupil") for pupils in classes.values() for pupil in pupils]
        members = [(c, t, "teacher", 0) for t, own in teachers.items() for c in own]
        members += [(c, pupil, "pupil", n) for c, pupils in classes.items() for n, pupil in enumerate(pupils)]
        async with world.db.transaction() as tx:
            await tx.execute("INSERT INTO schools VALUES (?, 'مدرسة النيل', ?, 1, 1, NULL)", (SCHOOL, sessions))
            await tx.executemany(
                "INSERT INTO users VALUES (?, ?, ?, ?, NULL, NULL, 1, NULL)",
                [(SCHOOL, name, name, role) for name, role in people],
            )
            await tx.executemany(
                "INSERT INTO classes VALUES (?, ?, ?, '3', 1, 1, NULL)", [(SCHOOL, name, name) for name in classes]
            )
            await tx.executemany(
                "INSERT INTO members VALUES (?, ?, ?, ?, 1, '2026-09-01', NULL, ?, 1, NULL)",
                [(SCHOOL, *one) for one in members],
            )
        await operator(world, "place", school=SCHOOL, district="d-1", governorate="menoufia", reference="letter 1")
        yield Story(world=world, pupils={name: tuple(pupils) for name, pupils in classes.items()})
