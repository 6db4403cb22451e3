"""Invariants looked at with the world's own eyes: raw rows, the taps as they happened, and no rule of the product.

`Final` computes outcomes anew with the product's rules and compares; a wrong rule is wrong in both. Here the rules are
stated a second time, as plainly as they can be: a merge of fifteen lines (reliability.md, appendix B), the windows by
`zoneinfo`, rights and rosters by SQL, the true moment of each tap by the ledger.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date as Date
from datetime import datetime, time, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from clientcore.change import Change, parse
from clientcore.exchange import read_signed_part
from clientcore.wire import unpack
from syncserver.store.packed import unpack_wire
from syncserver.store.port import Database
from tests.simulator.lab import Lab
from tests.simulator.phone import LOG, PhoneHost

ABSENCES, PRESENCES = frozenset("AEU"), frozenset("PLXD")
WORDS = {
    "P": "present",
    "L": "late",
    "X": "left_early",
    "A": "absent",
    "E": "absent_excused",
    "U": "absent_unexcused",
    "D": "official_duty",
    "S": "suspended",
}
HELD = frozenset(("revoked", "out-of-scope", "no-receipt"))
HIDDEN = frozenset(
    ("out-of-scope", "revoked", "equivocation", "inconsistent", "register-full", "pending", "no-receipt", "poison")
)  # words after which nobody but its author sees a change
LATE = frozenset(("window-closed", "adjustment-locked", "calendar", "future", "no-session"))
UNMERGED = frozenset(("pending", "inconsistent", "equivocation", "poison", "register-full"))
SLACK_MS = 300_000  # drift of a week, a server's clock half a minute off
BURIED_MS = 75 * 3_600_000  # 72 hours, and the next round of the settle stage
RECENT = timedelta(days=21)

_CHANGES = """
SELECT c.school || '/' || c.class_id || '/' || c.date || '/' || c.session, c.hash,
  substr(f.body, c.chunk_at, c.chunk_bytes), f.device, f.received_ms, s.state, s.slug,
  d.revoked_ms, CASE WHEN u.active = 0 THEN u.ended_at_ms END
FROM changes c JOIN frames f ON f.id = c.frame_id JOIN devices d ON d.id = f.device
LEFT JOIN users u ON u.school = d.school AND u.id = d.user_id
LEFT JOIN settlements s ON s.log_offset = c.log_offset ORDER BY c.log_offset"""
_OUTCOMES = "SELECT school || '/' || class_id || '/' || date || '/' || session, body FROM whole_outcomes ORDER BY 1"
_ROSTER = """
SELECT DISTINCT user_id FROM members WHERE school = ? AND class_id = ? AND role = 'pupil' AND from_date <= ?
  AND (until_date IS NULL OR until_date > ?)"""
_TAUGHT = """
SELECT DISTINCT m.class_id FROM members m JOIN classes c ON c.school = m.school AND c.id = m.class_id AND c.active = 1
WHERE m.school = ? AND m.user_id = ? AND m.role = 'teacher' AND m.from_date <= ?
  AND (m.until_date IS NULL OR m.until_date > ?)"""
_REUSED = """
SELECT f.device FROM frames f WHERE NOT EXISTS (SELECT 1 FROM security_events e
WHERE e.device = f.device AND e.kind = 'number-reused' AND e.detail = 'frame ' || f.number)
GROUP BY f.device, f.number HAVING count(*) > 1"""
_TWICE = "SELECT hash FROM frames GROUP BY hash HAVING count(*) > 1"
_NUMBERS = """
SELECT d.id, d.last_number, max(f.number) FROM devices d JOIN frames f ON f.device = d.id GROUP BY d.id, d.last_number
HAVING d.last_number <> max(f.number)"""
_UNBURIED = """
SELECT c.log_offset FROM settlements s JOIN changes c ON c.log_offset = s.log_offset JOIN frames f ON f.id = c.frame_id
LEFT JOIN dead_letters x ON x.log_offset = c.log_offset
WHERE s.slug = 'pending' AND f.received_ms < ? AND x.id IS NULL"""

_LABELLED = """
SELECT id, flag, enrolled_ms, coalesce(last_contact_ms, 0) FROM devices WHERE label = ? AND revoked_ms IS NULL"""
_NUMBERED = "SELECT kind, body FROM log WHERE kind IN ('frame', 'receipt') ORDER BY seq"

Name = tuple[int, bytes]


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    """One change of the log, as its row says."""

    change: Change
    device: bytes
    received_ms: int
    state: int | None
    slug: str | None
    ended_ms: int | None  # when its device was revoked or its person ended, whichever came first

    @property
    def is_shown(self) -> bool:
        """Colleagues may see it."""
        return self.state is not None and self.slug not in HIDDEN

    @property
    def came_too_late(self) -> bool:
        """It arrived when its author could not speak any more."""
        return self.ended_ms is not None and self.received_ms >= self.ended_ms


@dataclass(slots=True, kw_only=True)
class Truth:
    """The second opinion on one world, at its end.

    Attributes:
        told: Register to pupil to the data of the last event that stands.
        hostile: Hashes of changes nobody answers for.
        start_ms: True UTC milliseconds at which the world began.
        zone: Of the schools (IANA name).
    """

    lab: Lab
    db: Database
    told: Mapping[str, Mapping[str, Mapping[str, Any]]]
    hostile: frozenset[bytes]
    start_ms: int
    zone: str
    phones: Sequence[PhoneHost] = ()
    _stored: dict[str, dict[bytes, Stored]] = field(default_factory=dict)

    async def look(self) -> None:
        """Everything."""
        for register, digest, chunk, device, received_ms, state, slug, *ends in await self.db.fetch_all(_CHANGES):
            self._stored.setdefault(register, {})[digest] = Stored(
                change=parse(chunk),
                device=device,
                received_ms=received_ms,
                state=state,
                slug=slug,
                ended_ms=min((end for end in ends if end is not None), default=None),
            )
        self._honest()
        await self._frames()
        for register, body in await self.db.fetch_all(_OUTCOMES):
            await self._register(register, unpack_wire(body, register))
        for phone in self.phones:
            await self._phone(phone)

    def _check(self, invariant: str, wrong: Iterable[object], what: str) -> None:
        """An invariant holds when nothing is wrong; the first three of what is wrong are told."""
        found = list(wrong)
        self.lab.ledger.check(invariant, not found, f"{what}: {found[:3]}")

    # ---- the log ----

    def _honest(self) -> None:
        """I10, S5: no honest device ever makes two changes of one name, or one that contradicts what it builds on."""
        self._check(
            "I10",
            (
                f"{register} {digest.hex()[:12]} {one.slug}"
                for register, changes in self._stored.items()
                for digest, one in changes.items()
                if one.slug in ("inconsistent", "equivocation") and digest not in self.hostile
            ),
            "an honest device's change cannot be merged",
        )
        if self._seen is not None:
            for register, changes in self._stored.items():
                self._check("C3", self._unseen(register, changes), f"{register}: replaced without having been seen")

    @property
    def _seen(self) -> Mapping[tuple[str, str, str], frozenset[bytes]] | None:
        """What each phone held of the register when a mark was tapped, where the ledger keeps it."""
        return getattr(self.lab.ledger, "seen", None)

    def _unseen(self, register: str, changes: Mapping[bytes, Stored]) -> Iterable[str]:
        makers = {
            (one.change.start_op + at, one.change.actor): digest
            for digest, one in changes.items()
            for at in range(len(one.change.ops))
        }
        for digest, one in changes.items():
            for op in one.change.ops:
                seen = None if op.value is None or self._seen is None else self._seen.get((register, op.key, op.value))
                if seen is None or digest in self.hostile:
                    continue
                for pred in op.preds:
                    maker = makers.get(pred)
                    if maker is not None and maker not in seen and changes[maker].device != one.device:
                        yield f"{op.key} {op.value} replaces {maker.hex()[:12]}"

    async def _frames(self) -> None:
        """S5: a frame number used twice is noticed, the last number is the greatest, no frame is stored twice.

        S2: nobody else is blamed.
        """
        self._check("S5", [row[0].hex() for row in await self.db.fetch_all(_TWICE)], "a frame is stored twice")
        self._check(
            "S5", [row[0].hex() for row in await self.db.fetch_all(_REUSED)], "a frame number used twice unnoticed"
        )
        self._check(
            "S5", [row[0].hex() for row in await self.db.fetch_all(_NUMBERS)], "last number is not the greatest"
        )
        if not self._copied:
            blamed = await self.db.fetch_all("SELECT device FROM security_events WHERE kind = 'number-reused'")
            self._check("S2", [row[0].hex() for row in blamed], "reported as a copy, and nobody was ever copied")
        now_ms = self.start_ms + self.lab.now_ms
        old = await self.db.fetch_all(_UNBURIED, (now_ms - BURIED_MS,))
        self._check("I7", [row[0] for row in old], "pending for more than three days, and no dead letter")

    @property
    def _copied(self) -> bool:
        """Some phone was copied, set back or lost its memory."""
        return any(self.lab.faults[kind] for kind in ("phone.clone", "phone.old_copy", "phone.wipe"))

    # ---- registers ----

    async def _register(self, name: str, outcome: Mapping[str, Any]) -> None:
        stored = self._stored.get(name, {})
        answers: dict[str, Any] = outcome["answers"]
        words = {bytes.fromhex(digest): (state, slug) for digest, state, slug, _ in outcome["changes"]}
        self._check(
            "I4",
            (
                f"{digest.hex()[:12]} {words.get(digest)} told as {(one.state, one.slug)}"
                for digest, one in stored.items()
                if one.slug not in ("poison", "register-full") and words.get(digest) != (one.state, one.slug)
            ),
            f"{name}: words differ from the outcome's",
        )
        school, class_id, date, _ = name.split("/")
        roster = {row[0] for row in await self.db.fetch_all(_ROSTER, (school, class_id, date, date))}
        self._check("I5", answers.keys() ^ roster, f"{name}: answers are not about the day's pupils")
        if outcome["occasion"] != "no_session":
            self._merge(name, stored, words, answers)
        self._disputes(name, outcome)
        self._confirmed(name, stored, words, outcome)
        self._times(name, date, outcome)
        self._events(name, answers)

    def _merge(
        self,
        name: str,
        stored: Mapping[bytes, Stored],
        words: Mapping[bytes, tuple[int, str | None]],
        answers: Mapping[str, Any],
    ) -> None:
        """I10: what is visible. I11: what is held hides nobody's mark and is nobody's answer."""
        merged = {digest: one for digest, one in stored.items() if words.get(digest, (0, "?"))[1] not in UNMERGED}
        counted = {digest: one for digest, one in merged.items() if words[digest][1] not in HELD}
        visible = materialise([one.change for one in counted.values()])
        shown = {pupil: [mark[0] for mark in row[0]] for pupil, row in answers.items() if row is not None}
        late_keys = self._perhaps_adjusted(name, counted, words)
        if len(counted) == len(merged):
            wanted = {pupil: values for pupil, values in visible.items() if pupil in answers}
            self._check(
                "I10",
                (
                    f"{p} {shown.get(p)} for {wanted.get(p)}"
                    for p in (wanted.keys() | shown) - late_keys
                    if shown.get(p) != wanted.get(p)
                ),
                f"{name}: other values are visible",
            )
        hidden = visible.keys() & answers.keys() - shown.keys() - late_keys
        self._check("I11", hidden, f"{name}: hidden by a mark that does not count")
        late = {digest for digest, one in stored.items() if one.came_too_late}
        self._check("I11", late & counted.keys(), f"{name}: counts what came after its author was revoked or ended")

    def _perhaps_adjusted(
        self, name: str, counted: Mapping[bytes, Stored], words: Mapping[bytes, tuple[int, str | None]]
    ) -> set[str]:
        """Pupils of whom a change that came after the window speaks, and that a person must look at.

        Nobody approves in this world, so adjustments answer nothing. Which of their marks were made after the window is
        the product's rule; `_times` holds it against the true moments of the taps.
        """
        closes_ms = self._closes_ms(name.split("/")[2])
        return {
            op.key
            for digest, one in counted.items()
            if words[digest][1] in LATE and one.received_ms >= closes_ms
            for op in one.change.ops
        }

    def _closes_ms(self, date: str) -> int:
        ends = datetime.combine(Date.fromisoformat(date) + timedelta(days=1), time(), ZoneInfo(self.zone))
        return int(ends.timestamp() * 1000)

    def _disputes(self, name: str, outcome: Mapping[str, Any]) -> None:
        """C3: two codes are a dispute and nothing else is. I5: no absence where somebody saw the pupil."""
        for pupil, row in outcome["answers"].items():
            if row is None:
                continue
            values, chosen, disputed, *_ = row
            codes = [mark[0][0] for mark in values]
            if chosen is None:
                continue
            self.lab.ledger.check(
                "C3", disputed == (len(set(codes)) > 1), f"{name}/{pupil}: {codes}, disputed {disputed}"
            )
            overruled = codes[chosen] in ABSENCES and bool(PRESENCES.intersection(codes))
            self.lab.ledger.check("I5", not overruled, f"{name}/{pupil}: {codes[chosen]} among {codes}")
            sources = [outcome["sources"][mark[1]] for mark in values]
            users = [user for digest, user, _ in sources if bytes.fromhex(digest) not in self.hostile]
            alone = len(users) > len(set(users)) and not self._copied
            self.lab.ledger.check(
                "C3", not alone, f"{name}/{pupil}: {codes} by {users}: somebody contradicts themselves"
            )

    def _confirmed(
        self,
        name: str,
        stored: Mapping[bytes, Stored],
        words: Mapping[bytes, tuple[int, str | None]],
        outcome: Mapping[str, Any],
    ) -> None:
        """I9: what is called confirmed is merged with all it builds on, and nothing of it is in dispute."""
        answers = outcome["answers"]
        disputed = {
            bytes.fromhex(outcome["sources"][mark[1]][0])
            for row in answers.values()
            if row is not None and row[2]
            for mark in row[0]
        }
        for digest, (state, slug) in words.items():
            if state != 1 or digest not in stored:
                continue
            change = stored[digest].change
            strangers = [
                op.key for op in change.ops if op.value and op.key not in answers and not op.key.startswith("~")
            ]
            lacking = [dep.hex()[:12] for dep in change.deps if words.get(dep, (0, "pending"))[1] in UNMERGED]
            wrong = [*strangers, *lacking, *([slug] if slug else []), *(["disputed"] if digest in disputed else [])]
            self._check("I9", wrong, f"{name}: {digest.hex()[:12]} is called confirmed in spite of")

    def _times(self, name: str, date: str, outcome: Mapping[str, Any]) -> None:
        """S11: server time decides. S12: the true moment lies in the interval, where a phone's clock stood still."""
        closes_ms = self._closes_ms(date)
        steady = {phone.name: phone for phone in self.phones} if not self.lab.faults["phone.clock"] else {}
        for pupil, row in outcome["answers"].items():
            for value, source, _, from_ms, to_ms, _, _, timeliness in row[0] if row is not None else ():
                received_ms = outcome["sources"][source][2]
                in_time = received_ms < closes_ms
                what = f"{name}/{pupil} {value}: {timeliness}, received {received_ms - closes_ms} ms after the window"
                self.lab.ledger.check("S11", in_time == (timeliness == "on_time"), what)
                tapped = self.lab.ledger.tapped.get((name, pupil, value))
                phone = None if tapped is None else steady.get(tapped[1])
                if tapped is None or phone is None:
                    continue
                true_ms = self.start_ms + tapped[2]
                self.lab.ledger.check(
                    "S12", true_ms <= to_ms + SLACK_MS, f"{name}/{pupil} {value}: made after its interval"
                )
                what = f"{name}/{pupil} {value}: made {from_ms - true_ms} ms before its interval"
                self.lab.ledger.check("S12", from_ms <= true_ms + SLACK_MS, what)
                self.lab.ledger.check("S11", timeliness != "adjustment", f"{name}/{pupil} {value}: nobody approved it")
        for pupil, value, slug, *_ in outcome["held"]:
            tapped = self.lab.ledger.tapped.get((name, pupil, value))
            if slug in LATE and tapped is not None and tapped[1] in steady:
                what = f"{name}/{pupil} {value}: made in time, called an adjustment"
                self.lab.ledger.check("S11", self.start_ms + tapped[2] >= closes_ms - SLACK_MS, what)

    def _events(self, name: str, answers: Mapping[str, Any]) -> None:
        """I6: downstream was told what the outcome says, pupil by pupil. I5: nobody is absent for want of a mark."""
        told = self.told.get(name, {})
        said = {
            pupil: (WORDS[row[0][row[1]][0][0]], row[2], row[3], row[0][row[1]][7])
            for pupil, row in answers.items()
            if row is not None and row[1] is not None
        }
        heard = {
            pupil: (data.get("code"), data.get("disputed"), data.get("labels"), data.get("timeliness"))
            for pupil, data in told.items()
        }
        made_up = [
            pupil for pupil, data in told.items() if str(data.get("code")).startswith("absent") and pupil not in said
        ]
        self._check("I5", made_up, f"{name}: told absent, and nobody said so")
        self._check(
            "I6",
            (
                f"{p} {heard.get(p)} for {said.get(p)}"
                for p in sorted(said.keys() | heard)
                if said.get(p) != heard.get(p)
            ),
            f"{name}: downstream knows another register",
        )

    # ---- phones ----

    async def _phone(self, phone: PhoneHost) -> None:
        """I8: whoever can talk has it all: colleagues' changes, its own, the words on them, lists and orders."""
        device = phone.device
        if device is not None:
            self._numbers(phone)
        if phone.retired or device is None or phone.refused is not None or phone.enrolment is None:
            return
        own_id = phone.enrolment.device
        if phone.copied:
            return  # two of one name take the nonce out of each other's hands, and share what each alone was told
        asked_ms = self.lab.now_ms if self.lab.last_asked_ms is None else self.lab.last_asked_ms
        today = datetime.fromtimestamp((self.start_ms + asked_ms) / 1000, ZoneInfo(self.zone)).date()
        classes = await self._classes(phone, today)
        held, lacking, words = device.state.entries, [], []
        for register, changes in self._stored.items():
            school, class_id, date, _ = register.split("/")
            near = school == phone.school and class_id in classes and Date.fromisoformat(date) >= today - RECENT
            for digest, one in changes.items():
                is_own = one.device == own_id
                if digest[:8] not in held:
                    if digest not in self.hostile and (is_own or (near and one.is_shown)):
                        lacking.append(f"{register} {digest.hex()[:12]}")
                elif is_own and held[digest[:8]].settled != one.state:
                    words.append(f"{register} {digest.hex()[:12]} {held[digest[:8]].settled} for {one.state}")
        self._check("I8", lacking, f"{phone.name}: never got")
        self._check("I8", words, f"{phone.name}: was not told what became of")
        for class_id in sorted(classes):
            rows = await self.db.fetch_all(_ROSTER, (phone.school, class_id, today.isoformat(), today.isoformat()))
            shown = {pupil for pupil, _ in device.cache.roster(class_id)}
            self._check("I8", shown ^ {row[0] for row in rows}, f"{phone.name}: has an old list of {class_id}")
        orders = await self.db.fetch_all(
            "SELECT id, level FROM directives WHERE device = ? AND done_ms IS NULL", (own_id,)
        )
        self._check("I8", orders, f"{phone.name}: never carried out")
        await self._amnesia(phone, own_id)

    def _numbers(self, phone: PhoneHost) -> None:
        """S5: no frame bears a number that the phone or the server has used before, as far as its log knows."""
        connection = phone.disk.connect(LOG)
        rows = connection.execute(
            "SELECT kind, body FROM log WHERE kind IN ('frame', 'receipt') ORDER BY seq"
        ).fetchall()
        connection.close()
        known, wrong = 0, []
        for kind, body in rows:
            said: list[Any] = unpack(bytes(body), bytes_max=1 << 20)
            if kind == "frame":
                if said[0] <= known:
                    wrong.append(f"{said[0]} after {known}")
                known = max(known, said[0])
            else:
                known = max(known, read_signed_part(said[0])[0].last_number)
        self._check("S5", wrong, f"{phone.name}: frame numbers used again")

    async def _classes(self, phone: PhoneHost, today: Date) -> set[str]:
        rows = await self.db.fetch_all(
            "SELECT role FROM users WHERE school = ? AND id = ?", (phone.school, phone.user_id)
        )
        if rows == [("champion",)]:
            found = await self.db.fetch_all("SELECT id FROM classes WHERE school = ? AND active = 1", (phone.school,))
        else:
            day = today.isoformat()
            found = await self.db.fetch_all(_TAUGHT, (phone.school, phone.user_id, day, day))
        return {row[0] for row in found}

    async def _amnesia(self, phone: PhoneHost, own_id: bytes) -> None:
        """D9: what this phone was before a wipe is known as wiped, unless it was revoked or talked later."""
        rows = await self.db.fetch_all(
            """SELECT id, flag, enrolled_ms, coalesce(last_contact_ms, 0) FROM devices WHERE label = ? AND NOT EXISTS
            (SELECT 1 FROM audit WHERE action = 'revoke' AND subject = lower(hex(devices.id)))""",
            (phone.name,),
        )
        mine = [row[2] for row in rows if row[0] == own_id]
        unnoticed = [
            row[0].hex() for row in rows if mine and row[2] < mine[0] and row[1] != "wiped-phone" and row[3] < mine[0]
        ]
        self._check("D9", unnoticed, f"{phone.name}: was wiped, and nobody noticed")


def materialise(changes: Sequence[Change]) -> dict[str, list[str]]:
    """Visible values per key, the winner last: the merge, once more, as plainly as it can be said."""
    replaced = {pred for change in changes for op in change.ops for pred in op.preds}
    puts: dict[Name, tuple[str, str]] = {
        (change.start_op + at, change.actor): (op.key, op.value)
        for change in changes
        for at, op in enumerate(change.ops)
        if op.value is not None
    }
    visible: dict[str, list[str]] = {}
    for name in sorted(puts.keys() - replaced):
        key, value = puts[name]
        visible.setdefault(key, []).append(value)
    return visible
