"""A school in turmoil: marks, decisions, calendars and rights come in any order, and every step is computed anew.

After each step, for every register: what the consumer stored step by step is what a fresh start computes from the log;
downstream has been told exactly that; and nobody is absent without a mark that says so, by somebody who may make it.

One seed is one story. Replay: `HUDUR_TURMOIL=SEED python -m pytest tests/integration/test_turmoil.py -k replayed`.
"""

from __future__ import annotations

import json
import os
import random
from collections import Counter
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from clientcore.change import parse
from clientcore.history import merge
from clientcore.limits import BUNDLE_BYTES_MAX
from clientcore.register import Code, RegisterId
from clientcore.wire import unpack
from reconciliation.decisions import ABSENCES
from reconciliation.model import Outcome, first_receipts
from reconciliation.reconcile import reconcile
from reconciliation.wire import canonical
from syncserver import trail
from syncserver.backup import make_backup, read_manifest
from syncserver.orders import adjustments, bulk, disputes, identity
from syncserver.settling import settle_anew
from syncserver.store import calendars
from syncserver.store.key import Key
from syncserver.store.registers import changes_of, outcome_of
from syncserver.store.surroundings import context_of
from syncserver.verify import verify
from tests.support.server.orders import ask
from tests.support.server.world import ON_POSTGRES
from tests.support.story import SCHOOL, Story, a_school, moment_ms

SEEDS = tuple(range(1, 13))
STEPS = 70
PUPILS = ("s1", "s2", "s3", "s4", "s5")
DAYS = ("2026-11-22", "2026-11-23", "2026-11-24", "2026-11-25")
TEACHERS = {"Adel": ["3a"], "Basma": ["3a"], "Dina": ["5b"]}
BEGINS = "2026-11-22 07:00"
ABSENT_WORDS = {code.word for code in ABSENCES}


@dataclass(slots=True)
class Turmoil:
    """One story: what may happen next, and what has happened."""

    school: Story
    chance: random.Random
    done: Counter[str] = field(default_factory=Counter)
    ended: bool = False
    lost: bool = False

    # ---- what people do ----

    async def somebody_marks(self) -> None:
        person = self.chance.choice(("Adel", "Adel", "Basma", "Dina"))
        if person not in self.school.phones and (self.ended or self.lost):
            return
        phone = await self.school.phone_of(person)
        day, session = self.chance.choice(self.days_so_far()), self.chance.choice(("am1", "am1", "am2"))
        if self.chance.random() < 0.1:
            codes = {"~session": self.chance.choice(("H", "N:strike"))}
        else:
            listed = self.chance.sample(PUPILS, self.chance.randint(1, len(PUPILS)))
            codes = {pupil: self.chance.choice(("P", "P", "A", "E:sick", "L:5", "D")) for pupil in listed}
        phone.mark(f"3a/{day}/{session}", codes)

    def days_so_far(self) -> list[str]:
        now = self.school.world.clock.wall_ms()
        return [day for day in DAYS if moment_ms(f"{day} 00:00") <= now] or [DAYS[0]]

    async def somebody_meets_the_server(self) -> None:
        person = self.chance.choice(("Adel", "Basma", "Dina"))
        phone = await self.school.phone_of(person)
        if (person == "Basma" and self.ended) or (person == "Dina" and self.lost):
            if phone.unsent:
                await self.school.brings_the_phone_of(person)
                phone.unsent = []
        else:
            await self.school.sends(person)

    async def time_passes(self) -> None:
        self.school.world.clock.advance(self.chance.choice((60_000, 3_600_000, 5 * 3_600_000, 20 * 3_600_000)))

    # ---- what people decide ----

    async def gives(self, person: str, order: str, /, **args: object) -> dict[str, Any] | None:
        """An order that may be refused; only by a rule or for want of something, never by a fault."""
        reply = await ask(await self.school.phone_of(person), order, school=SCHOOL, **args)
        await self.school.settles()
        if reply.status_code != 200:
            assert reply.status_code in (400, 403, 404, 409), reply.text
            return None
        self.done[order] += 1
        payload = unpack(reply.content, bytes_max=BUNDLE_BYTES_MAX)[3]
        result: dict[str, Any] = json.loads(unpack(payload, bytes_max=BUNDLE_BYTES_MAX))
        return result

    async def an_adjustment_is_decided(self) -> None:
        found = await self.gives("Huda", "adjustments", all=self.chance.random() < 0.3)
        assert found is not None
        if found["requests"]:
            one = self.chance.choice(found["requests"])
            order = self.chance.choice(("adjustment-approve", "adjustment-approve", "adjustment-reject"))
            await self.gives("Huda", order, register=one["register"], change=one["change"], reason="wrong_code")

    async def a_dispute_is_settled(self) -> None:
        found = await self.gives("Huda", "disputes", all=self.chance.random() < 0.3)
        assert found is not None
        if found["disputes"]:
            one = self.chance.choice(found["disputes"])
            mark = self.chance.choice(one["values"])
            await self.gives(
                "Huda",
                "dispute-settle",
                register=one["register"],
                pupil=one["pupil"],
                change=mark["change"],
                reason="?",
            )

    async def a_held_change_is_released(self) -> None:
        found = await self.gives("Huda", "held")
        assert found is not None
        if found["held"]:
            one = self.chance.choice(found["held"])
            await self.gives("Huda", "release", register=one["register"], change=one["change"], reason="seen")

    async def a_release_is_taken_back(self) -> None:
        rows = await self.school.world.db.fetch_all(
            """SELECT school, class_id, date, session, change_hash FROM decisions
            WHERE kind = 'release' AND undone_ms IS NULL ORDER BY id"""
        )
        if rows:
            *key, digest = self.chance.choice(rows)
            await self.gives("Huda", "release-undo", register="/".join(key), change=digest.hex(), reason="mistaken")

    async def records_are_merged(self) -> None:
        one, other = self.chance.sample(PUPILS, 2)
        await self.gives("Huda", "pupil-merge", alias=one, canonical=other, reason="twice on the list")

    async def a_merge_is_undone(self) -> None:
        found = await self.gives("Huda", "pupil-merges")
        assert found is not None
        if found["merges"]:
            one = self.chance.choice(found["merges"])
            await self.gives("Huda", "pupil-merge-undo", merge=one["merge"], reason="twins")

    async def many_cells_are_changed(self) -> None:
        wish: dict[str, object] = {
            "from": self.chance.choice(DAYS), "until": DAYS[-1],
            "code": self.chance.choice(("official_duty", "absent_excused", "present", "absent")),
        }  # fmt: skip
        found = await self.gives("Huda", "bulk-preview", **wish)
        if found is not None:
            await self.gives("Huda", "bulk-apply", **wish, digest=found["digest"], reason="trip")

    async def a_bulk_is_undone(self) -> None:
        found = await self.gives("Nadia", "bulks")
        assert found is not None
        if found["bulks"]:
            one = self.chance.choice(found["bulks"])
            await self.gives("Nadia", "bulk-undo", bulk=one["bulk"], reason="wrong day")

    async def somebody_stands_in(self) -> None:
        day = self.chance.choice(DAYS)
        await self.gives(
            "Huda", "delegate", classes=["3a"], to="Dina", reason="cover",
            **{"from": f"{day}T06:00", "until": f"{day}T{self.chance.choice(('08', '12'))}:00"},
        )  # fmt: skip

    async def the_calendar_changes(self) -> None:
        day = self.chance.choice(DAYS)
        if self.chance.random() < 0.4:
            await self.school.central_office(
                "timetable", **{"from": day, "to": day}, scope="*", reference="letter", kind="ramadan",
                sessions=[["am1", "09:00", "10:00", self.chance.choice(("10:30", "18:00"))]],
            )  # fmt: skip
        else:
            await self.school.central_office(
                "calendar", date=day, open=self.chance.random() < 0.3, reason="storm", reference="letter", scope="*"
            )
        self.done["calendar"] += 1

    async def a_phone_is_revoked_or_not(self) -> None:
        phone = await self.school.phone_of("Dina")
        undo = self.lost and self.chance.random() < 0.8
        self.lost = not undo
        await self.school.operator("revoke", device=phone.me.device.hex(), reason="lost", undo=undo)
        self.done["revoke"] += 1

    async def a_teacher_leaves(self) -> None:
        if not self.ended and "Basma" in self.school.phones:
            self.ended = True
            await self.school.ends("Basma")
            self.done["left"] += 1

    async def step(self) -> None:
        """The next thing that happens."""
        what: tuple[tuple[int, Callable[[], Coroutine[Any, Any, None]]], ...] = (
            (16, self.somebody_marks),
            (12, self.somebody_meets_the_server),
            (5, self.time_passes),
            (6, self.an_adjustment_is_decided),
            (5, self.a_dispute_is_settled),
            (4, self.a_held_change_is_released),
            (1, self.a_release_is_taken_back),
            (2, self.records_are_merged),
            (2, self.a_merge_is_undone),
            (3, self.many_cells_are_changed),
            (2, self.a_bulk_is_undone),
            (3, self.somebody_stands_in),
            (3, self.the_calendar_changes),
            (1, self.a_phone_is_revoked_or_not),
            (1, self.a_teacher_leaves),
        )
        (act,) = self.chance.choices([one for _, one in what], [weight for weight, _ in what])
        await act()
        await self.school.settles()

    # ---- what must hold ----

    async def look(self, *, whole: bool = False) -> None:
        """Every register, computed anew, and downstream."""
        db = self.school.world.db
        keys = await db.fetch_all("SELECT DISTINCT school, class_id, date, session FROM changes ORDER BY 1, 2, 3, 4")
        told = self.fold(await self.school.world.events())
        for row in keys:
            key: Key = (row[0], row[1], row[2], row[3])
            stored = await changes_of(db, key, 1 << 53)
            context = await context_of(db, key, "Africa/Cairo")
            found = await outcome_of(db, key)
            assert found is not None
            assert found.body == settle_anew(key, stored, context), f"{key}: from scratch it is another outcome"
            self.absences(key, found.outcome)
            said = {p: a.code.word for p, a in found.outcome.answers.items() if a.code is not None}
            assert told.get("/".join(key), {}) == said, f"{key}: downstream knows something else"
            if whole:
                shuffled = stored * 2
                self.chance.shuffle(shuffled)
                again = reconcile(
                    RegisterId(*key),
                    merge(parse(one.chunk) for one in shuffled),
                    first_receipts(one.receipt for one in shuffled),
                    context,
                )
                assert canonical(again.to_wire()) == found.body

    @staticmethod
    def absences(key: Key, outcome: Outcome) -> None:
        """Whoever is absent was marked absent, visibly; a ruling only ever changes the kind of an absence."""
        for pupil, answer in outcome.answers.items():
            if answer.code in ABSENCES:
                assert answer.mark is not None, f"{key}/{pupil}: absent, and nobody said so"
                assert Code(answer.mark.value[0]) in ABSENCES
                assert answer.mark in answer.values
                held = {(one.key, one.change_hash) for one in outcome.held}
                assert (pupil, answer.mark.change_hash) not in held

    @staticmethod
    def fold(events: list[dict[str, Any]]) -> dict[str, dict[str, str]]:
        """Register to pupil to code, as a consumer that reads everything knows it."""
        known: dict[str, dict[str, str]] = {}
        revisions: dict[str, int] = {}
        for event in events:
            data = event["data"]
            assert data["revision"] == revisions.get(event["subject"], 0) + 1
            revisions[event["subject"]] = data["revision"]
            register = known.setdefault(data["register"], {})
            if event["type"].endswith("withdrawn.v1"):
                register.pop(data["pupil"])
            else:
                register[data["pupil"]] = data["code"]
        return known

    async def every_output(self) -> None:
        """Whatever the system tells anybody of an absence, a mark that says so stands behind it."""
        school, absences, open_days = self.school, Counter[str](), set[str]()
        registers: dict[str, Outcome] = {}
        for row in await school.world.db.fetch_all("SELECT DISTINCT school, class_id, date, session FROM changes"):
            found = await outcome_of(school.world.db, (row[0], row[1], row[2], row[3]))
            assert found is not None
            registers["/".join(row)] = found.outcome
            if found.outcome.closed is None and row[3] in await school.sessions_expected(row[2]):
                absences[row[2]] += sum(answer.code in ABSENCES for answer in found.outcome.answers.values())
                open_days.add(row[2])
        report = await school.operator(
            "report", kind="class", school=SCHOOL, day=DAYS[0], period="week", **{"class": "3a"}
        )
        told = {one["date"]: one["absent_all"] for one in report["rows"] if one["session"] is None}
        assert {day: told[day] for day in open_days} == {day: absences[day] for day in open_days}
        assert sum(told.values()) == absences.total()

        span = {"from": DAYS[0], "to": DAYS[-1]}
        for standard in ("edfi", "ceds"):
            lines = str((await school.operator("export-codes", school=SCHOOL, standard=standard, **span))["lines"])
            assert "not_taken" not in lines
            assert "no_session" not in lines
            if standard == "edfi":
                assert lines.count("Absence") <= sum(
                    answer.code in ABSENCES for one in registers.values() for answer in one.answers.values()
                )
        for name, outcome in registers.items():
            for pupil, answer in outcome.answers.items():
                said = await school.operator("explain", register=name, pupil=pupil)
                assert said["code"] == (answer.code.word if answer.code else "not_taken"), (name, pupil)
        parity = await school.operator("parity", school=SCHOOL)
        assert all(one["matched"] == 0 for one in parity["weeks"])  # nobody has typed any paper: nothing can agree

    async def backup(self, folder: Path) -> None:
        """A copy of the store is proved as any backup is: every register settled anew, decisions and all."""
        world, clock = self.school.world, self.school.world.clock
        if ON_POSTGRES:  # copied by its own tools
            return
        store, file = world.server.config.store, folder / "backup.db"
        assert isinstance(store, Path)
        await make_backup(store, file, clock)
        scratch, manifest = folder / "scratch.db", read_manifest(file)
        found = await verify(file, scratch, zone="Africa/Cairo", clock=clock, manifest=manifest, proof=False)
        assert found.findings == ()
        assert (await trail.verify(world.db)).findings == ()

    async def replay(self) -> None:
        """The feed from any offset is the end of the feed from the beginning, byte for byte."""
        http = self.school.world.http
        whole = (await http.get("/v1/events", params={"after": 0, "limit": 5_000})).content
        events = json.loads(whole)
        for after in self.chance.sample(range(len(events)), min(5, len(events))):
            part = (await http.get("/v1/events", params={"after": after, "limit": 5_000})).content
            assert part == json.dumps(events[after:], ensure_ascii=False, separators=(",", ":")).encode()


async def live(folder: Path, seed: int) -> Counter[str]:
    """Play one story and look after every step."""
    async with a_school(
        folder,
        classes={"3a": PUPILS, "5b": ("Sara",)},
        teachers=TEACHERS,
        sessions="am1 am2",
        begins="2026-11-22 07:00",
    ) as school:
        turmoil = Turmoil(school=school, chance=random.Random(seed))
        for number in range(STEPS):
            await turmoil.step()
            try:
                await turmoil.look(whole=number == STEPS - 1)
            except AssertionError as broken:
                raise AssertionError(f"seed {seed}, step {number + 1}: {broken}") from broken
        await turmoil.replay()
        await turmoil.every_output()
        await turmoil.backup(folder)
        return turmoil.done


async def all_stories(folder: Path) -> Counter[str]:
    """Play every story of the suite; what was done in all of them together."""
    done: Counter[str] = Counter()
    for seed in SEEDS:
        done += await live(folder / str(seed), seed)
    return done


async def test_every_step_is_what_a_fresh_start_computes(tmp_path: Path) -> None:
    """Twelve stories of seventy steps; every kind of decision was taken in some of them."""
    done = await all_stories(tmp_path)
    wanted = {
        "adjustment-approve", "adjustment-reject", "dispute-settle", "release", "pupil-merge", "pupil-merge-undo",
        "bulk-apply", "bulk-undo", "delegate", "calendar", "revoke", "left",
    }  # fmt: skip
    assert wanted <= {name for name, count in done.items() if count}


async def _forgotten(*_: object, **__: object) -> None:
    """What a decision that settles nothing again does."""


@pytest.mark.parametrize(
    ("module", "name"),
    [
        (adjustments, "settle_again"),
        (disputes, "settle_again"),
        (bulk, "settle_again"),
        (identity, "settle_again"),
        (calendars, "_settle"),
    ],
)
async def test_a_decision_that_settles_nothing_again_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, module: ModuleType, name: str
) -> None:
    """The look after each step can fail: it sees registers that a decision has left as they were."""
    monkeypatch.setattr(module, name, _forgotten)
    with pytest.raises(AssertionError, match="from scratch it is another outcome"):
        await all_stories(tmp_path)


@pytest.mark.skipif("HUDUR_TURMOIL" not in os.environ, reason="replays one seed")
async def test_one_story_is_replayed(tmp_path: Path) -> None:
    """The story of a seed."""
    await live(tmp_path, int(os.environ["HUDUR_TURMOIL"]))
