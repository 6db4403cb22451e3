"""Registers as people fill them: phones that mark, learn from each other, are copied, restored and lose messages.

`Phone` builds honest changes on what it has seen. `play` turns a list of small steps into changes, so that a property
test shrinks to the shortest story that breaks a claim; `steps()` draws such lists, `seeded_steps` takes a seed.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from hypothesis import strategies as st

from clientcore.change import Change, Op, actor_of, encode
from clientcore.frame import ClockEvidence
from clientcore.history import History, merge
from clientcore.register import RegisterId
from reconciliation.calendar import day_window
from reconciliation.clocks import zone_table
from reconciliation.model import Context, Receipt, Right

REGISTER = RegisterId("eg-07-113", "c-3a", "2026-11-22", "day")
ZONE = zone_table("2026-09-01", "2027-07-31")
DAY = day_window(REGISTER, ZONE)
EIGHT_MS = 8 * 3_600_000
"""08:00 on the clock, in milliseconds since local midnight."""

PUPILS = ("s1", "s2", "s3")
STRANGER = "s9"
"""A pupil of no roster."""

CODES = ("P", "L", "X", "A", "E", "U", "D", "S")


@dataclass(slots=True)
class Phone:
    """One app session of one user's device, with the changes it has seen."""

    label: str
    user: str
    seen: dict[bytes, Change] = field(default_factory=dict)
    session: int = 0

    @property
    def device(self) -> bytes:
        """The device's id, from its label."""
        return hashlib.sha256(b"device " + self.label.encode()).digest()[:16]

    @property
    def nonce(self) -> bytes:
        """The running app session."""
        return hashlib.sha256(f"{self.label} {self.session}".encode()).digest()[:8]

    @property
    def actor(self) -> bytes:
        """The actor of the running app session."""
        return actor_of(self.device, self.nonce)

    def history(self) -> History:
        """What this phone sees."""
        return merge(self.seen.values())

    def learn(self, changes: Iterable[Change]) -> None:
        """Take in changes made elsewhere."""
        self.seen.update({change.hash: change for change in changes})

    def restart(self) -> None:
        """A new app session: a new actor."""
        self.session += 1

    def mark(self, values: dict[str, str], *, sealed_s: int | None = None) -> Change:
        """Seal one change that puts `values` over everything this phone sees at those keys."""
        shown = self.history().visible()
        ops = [
            Op(key=key, value=value, preds=tuple(sorted(put.id for put in shown.get(key, ()))))
            for key, value in values.items()
        ]
        return self._seal(ops, sealed_s)

    def keep_winner(self, key: str) -> Change | None:
        """As Automerge does when the winning value is assigned again: delete the losers. None without a dispute."""
        losers = self.history().visible().get(key, [])[:-1]
        if not losers:
            return None
        return self._seal([Op(key=key, value=None, preds=tuple(sorted(put.id for put in losers)))], None)

    def _seal(self, ops: Sequence[Op], sealed_s: int | None) -> Change:
        history = self.history()
        change = encode(
            actor=self.actor,
            seq=history.last_seq(self.actor) + 1,
            start_op=history.max_op + 1,
            time_s=(DAY.opens_ms + EIGHT_MS) // 1000 if sealed_s is None else sealed_s,
            deps=history.heads,
            ops=ops,
        )
        self.seen[change.hash] = change
        return change


def contradicting(change: Change) -> Change:
    """A change that claims operation numbers its own dependencies forbid."""
    return encode(
        actor=actor_of(bytes(16), change.hash[:8]),
        seq=1,
        start_op=change.max_op + 7,
        time_s=change.time_s,
        deps=[change.hash],
        ops=[Op(key="s1", value="A1")],
    )


def prompt_clock(phone: Phone, received_at_ms: int) -> ClockEvidence:
    """A right clock, signed at the moment of receipt, without a beacon."""
    return ClockEvidence(wall_ms=received_at_ms, mono_ms=60_000, session=phone.nonce)


def receipt(
    change: Change,
    phone: Phone,
    *,
    received_at_ms: int = DAY.opens_ms + EIGHT_MS + 600_000,
    offset: int = 1,
    clock: ClockEvidence | None = None,
    relayed: bool = False,
) -> Receipt:
    """The receipt of a change that came straight from a phone with a right clock, ten past eight."""
    return Receipt(
        change_hash=change.hash,
        device=phone.device,
        user_id=phone.user,
        received_at_ms=received_at_ms,
        offset=offset,
        clock=prompt_clock(phone, received_at_ms) if clock is None else clock,
        relayed=relayed,
    )


def context(
    users: Iterable[str] = ("amal", "basma"),
    *,
    roster: Iterable[str] = PUPILS,
    closed: str | None = None,
    entitled: dict[str, tuple[Right, ...]] | None = None,
    revoked_devices: dict[bytes, int] | None = None,
) -> Context:
    """The school day of `REGISTER` with `users` entitled for the whole term."""
    return Context(
        roster=frozenset(roster),
        roster_version="r1",
        zone=ZONE,
        window=DAY,
        closed=closed,
        entitled={user: (Right(from_ms=0),) for user in users} if entitled is None else entitled,
        revoked_devices=revoked_devices or {},
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One thing that happens. Numbers are indices, taken modulo what there is.

    Attributes:
        what: `mark`, `learn` (from one other), `meet` (learn from all), `follow` (meet, then mark), `keep`,
            `restart`, `contradict`, or `copy` (the phone is cloned and both mark).
        phone: Who does it.
        key: Which pupil, the stranger, or (beyond) a key about the register.
        code: Which code.
        other: From whom it learns.
        minutes: When: minutes from 08:00 of the register's day.
        came_after: Minutes from then to its receipt.
        clock_off: Minutes by which the phone's clock is wrong.
        told: Whether the frame carries a beacon.
    """

    what: str
    phone: int = 0
    key: int = 0
    code: int = 0
    other: int = 0
    minutes: int = 0
    came_after: int = 0
    clock_off: int = 0
    told: bool = False


USERS = ("amal", "basma", "amal", "omar", "nobody")
"""Users of the phones of a played story: two teachers (one with two phones), a revoked one, one without a right."""
REVOKED_AT_MS = DAY.opens_ms + EIGHT_MS + 15 * 60_000


def story_context() -> Context:
    """The rights that belong to the phones of a played story."""
    return context(
        entitled={
            "amal": (Right(from_ms=0),),
            "basma": (Right(from_ms=0),),
            "omar": (Right(from_ms=0, until_ms=REVOKED_AT_MS, revoked=True),),
        }
    )


@dataclass(slots=True)
class Played:
    """What a story left behind: every change ever made and how each first reached the server."""

    changes: list[Change] = field(default_factory=list)
    receipts: list[Receipt] = field(default_factory=list)
    makers: dict[bytes, str] = field(default_factory=dict)

    def add(self, change: Change, phone: Phone, step: Step) -> None:
        """Note a change and send it."""
        if change.hash in self.makers:
            return
        true_ms = DAY.opens_ms + EIGHT_MS + step.minutes * 60_000
        received_ms = true_ms + step.came_after * 60_000 + 2_000
        wall_ms = true_ms + step.clock_off * 60_000 + 1_000
        clock = ClockEvidence(
            wall_ms=wall_ms,
            mono_ms=300_000,
            session=phone.nonce,
            beacon=(true_ms - 200_000, 99_000) if step.told else None,
        )
        self.changes.append(change)
        self.makers[change.hash] = phone.user
        self.receipts.append(receipt(change, phone, received_at_ms=received_ms, offset=len(self.changes), clock=clock))


def play(steps: Sequence[Step]) -> Played:
    """Let a story happen."""
    phones = [Phone(label=f"phone {i}", user=user) for i, user in enumerate(USERS)]
    played = Played()
    for number, step in enumerate(steps):
        phone = phones[step.phone % len(phones)]
        if step.what == "learn":
            phone.learn(phones[step.other % len(phones)].seen.values())
        elif step.what == "meet":
            phone.learn(change for other in phones for change in other.seen.values())
        elif step.what == "restart":
            phone.restart()
        elif step.what == "keep":
            kept = phone.keep_winner(_key(step.key))
            if kept is not None:
                played.add(kept, phone, step)
        elif step.what == "contradict":
            if phone.seen:
                played.add(contradicting(phone.seen[max(phone.seen)]), phone, step)
        else:
            if step.what == "follow":
                phone.learn(change for other in phones for change in other.seen.values())
            if step.what == "copy":
                copy = Phone(label=phone.label, user=phone.user, seen=dict(phone.seen), session=phone.session)
                played.add(copy.mark({_key(step.key): _value(step, number + 500)}), copy, step)
            played.add(phone.mark({_key(step.key): _value(step, number)}), phone, step)
    return played


def _key(index: int) -> str:
    keys = (*PUPILS, STRANGER, "~session", "~bulk")
    return keys[index % len(keys)]


def _value(step: Step, number: int) -> str:
    ms = EIGHT_MS + (step.minutes + step.clock_off) * 60_000 + number
    key = _key(step.key)
    if key == "~bulk":
        return f"B{ms}"
    if key == "~session":
        return f"H{ms}" if step.code % 3 else f"N{ms}:strike"
    code = CODES[step.code % len(CODES)]
    return f"{code}{ms}" + {"L": ":12", "E": ":sick"}.get(code, "")


# Repeated entries weigh: most of a story is two teachers and a third person marking the same few pupils about eight
# o'clock, each learning from the others now and then; that is where disagreements and held marks meet.
_WHATS = ("mark",) * 9 + ("meet",) * 4 + ("learn",) * 3 + ("keep", "restart", "copy", "contradict")
_PHONES = (0, 0, 1, 1, 2, 3, 3, 4)
_KEYS = (0, 0, 0, 0, 1, 2, 3, 4, 5)
_MINUTES = (0, 0, 0, 1, 20, 300, 1_500, -2_000)
_CAME_AFTER = (0, 0, 0, 10, 10, 1_200, 4_000)
_CLOCK_OFF = (0, 0, 0, 0, -3, 200, -200, -30_000_000)


def steps(*, max_size: int = 16) -> st.SearchStrategy[list[Step]]:
    """Stories of up to `max_size` steps, shrinking towards short ones of plain marks in time."""
    return st.lists(
        st.builds(
            Step,
            what=st.sampled_from(_WHATS),
            phone=st.sampled_from(_PHONES),
            key=st.sampled_from(_KEYS),
            code=st.integers(0, len(CODES) - 1),
            other=st.sampled_from(_PHONES),
            minutes=st.sampled_from(_MINUTES),
            came_after=st.sampled_from(_CAME_AFTER),
            clock_off=st.sampled_from(_CLOCK_OFF),
            told=st.booleans(),
        ),
        min_size=max_size // 4,
        max_size=max_size,
    )


def quarrels(*, max_size: int = 10) -> st.SearchStrategy[list[Step]]:
    """Stories of one pupil: two teachers and somebody without the right, who meet and mark in turns, all in time."""
    return st.lists(
        st.builds(
            Step,
            what=st.sampled_from(("mark", "follow", "follow")),
            phone=st.sampled_from((0, 1, 4)),
            code=st.integers(0, len(CODES) - 1),
        ),
        min_size=max_size // 2,
        max_size=max_size,
    )


def seeded_steps(seed: int, count: int) -> list[Step]:
    """A story of `count` steps from a seed, for long runs without Hypothesis."""
    chance = random.Random(seed)
    return [
        Step(
            what=chance.choice(_WHATS),
            phone=chance.choice(_PHONES),
            key=chance.choice(_KEYS),
            code=chance.randrange(len(CODES)),
            other=chance.choice(_PHONES),
            minutes=chance.choice(_MINUTES),
            came_after=chance.choice(_CAME_AFTER),
            clock_off=chance.choice(_CLOCK_OFF),
            told=chance.random() < 0.5,
        )
        for _ in range(count)
    ]
