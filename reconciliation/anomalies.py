"""Registers whose stamps no hand makes: copied, scripted, filled in for many days at once. Pure.

The purpose is one: such registers prove nothing about how well digital and paper agree, so parity leaves them out and
shows them as excluded. Nobody is accused: a sign describes stamps, names no person, and ranks nothing.

Every check gives a score from 0 to 1 and says in words what it saw. A register is flagged by its highest score; scores
are never added up. How a wrong clock is kept from flagging anybody:

  - A mark whose moment is known with low confidence, was contradicted by the server (`clock` flag) or was cut off at
    its receipt has no *stamp*: checks of moments do not see it.
  - Distances between the taps of one sitting do not depend on the clock being right. The check for copies uses them as
    the phone gave them, and passes by registers whose distances are too coarse to tell one sitting from another.
  - A clock of whole seconds or tenths makes equal stamps and steady paces by itself. Of its taps more is asked: more
    in one step than a hand makes, a pace of several steps, two rooms of one person, all distances of a register.
  - "Days later" counts from the earliest moment possible: doubt speaks for the author.
  - The sign for moved clocks never reaches the threshold.

"All present" (`~bulk`) is one act for many pupils: marks made by it share their moment, and inside this one register
that needs no other explanation.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from fractions import Fraction
from itertools import pairwise
from math import gcd
from typing import Any, NamedTuple

from clientcore.register import RegisterId

FLAG_FROM = Fraction(4, 5)
"""A register with a score of this or more is excluded from parity."""
TOLD_FROM = Fraction(1, 4)  # what shows less is not worth a word
TAPS_MIN = 8  # with fewer marks of its own kind, chance and habit explain anything
EQUAL_MIN = 3  # two fingers may meet in one millisecond
STEADY_MS = 20  # a hand does not keep its pace to this, one tap after another
HUMAN_GAP_MS = 60  # nobody marks pupil after pupil in less
COARSE_MS = (1_000, 100)  # the steps of clocks that show whole seconds, or tenths as some browsers do
COARSE_STEADY = 5  # from a pace of so many steps on such a clock would show a hand's variance
COARSE_GAPS_MIN = (
    20  # fewer distances, or fewer than `TAPS_MIN` unlike the rest, may be those of two sittings by chance
)
BULK_SPAN_MS = 1_000  # marks of one "all present" are written within this behind it
BATCH_SPAN_MS = 3_600_000  # one sitting
DAYS_LATE_MS = 86_400_000  # a whole day after the register's day has ended
_CLOCK_SHARE = Fraction(1, 2)  # what a register gets whose every mark has a wrong clock: less than `FLAG_FROM`


class Kind(StrEnum):
    """What was seen."""

    IDENTICAL_STAMPS = "identical_stamps"
    NO_VARIANCE = "no_variance"
    BATCH_AFTER_DAYS = "batch_after_days"
    COPIED_PATTERN = "copied_pattern"
    SHARED_STAMPS = "shared_stamps"
    IMPOSSIBLE_RATE = "impossible_rate"
    CLOCK_MOVES = "clock_moves"


_ENGLISH = {
    Kind.IDENTICAL_STAMPS: "{count} of {of} marks bear the same moment, and “all present” was not pressed",
    Kind.NO_VARIANCE: "{count} of {of} distances between taps are the same to {steady} ms",
    Kind.BATCH_AFTER_DAYS: "registers of {count} days were filled in within one hour, days later",
    Kind.COPIED_PATTERN: "{count} of {of} distances between taps are those of another register",
    Kind.SHARED_STAMPS: "{count} of {of} marks bear moments that also stand in another register",
    Kind.IMPOSSIBLE_RATE: "{count} of {of} marks followed the one before in less than {human} ms",
    Kind.CLOCK_MOVES: "the clock was wrong or moved for {count} of {of} marks (never a reason to exclude)",
}
_ARABIC = {
    Kind.IDENTICAL_STAMPS: "تطابق لحظة التسجيل في {count} من {of} علامة دون الضغط على «الكل حاضر»",
    Kind.NO_VARIANCE: "تساوي {count} من {of} فاصل زمني بين اللمسات في حدود {steady} مللي ثانية",
    Kind.BATCH_AFTER_DAYS: "تسجيل سجلات {count} أيام خلال ساعة واحدة بعد مرور أيام",
    Kind.COPIED_PATTERN: "تطابق {count} من {of} فاصل زمني بين اللمسات مع سجل آخر",
    Kind.SHARED_STAMPS: "تكرار لحظة التسجيل في {count} من {of} علامة مع سجل آخر",
    Kind.IMPOSSIBLE_RATE: "تسجيل {count} من {of} علامة بعد سابقتها بأقل من {human} مللي ثانية",
    Kind.CLOCK_MOVES: "خطأ أو تغيير في ساعة الهاتف عند {count} من {of} علامة (لا يكفي وحده للاستبعاد)",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Sign:
    """One thing seen in one register.

    Attributes:
        kind: What.
        score: 0 to 1.
        count: How many marks, distances or days show it.
        of: Of how many.
    """

    kind: Kind
    score: Fraction
    count: int
    of: int

    def in_words(self, language: str = "ar") -> str:
        """One sentence, Arabic or (`en`) English."""
        text = (_ENGLISH if language == "en" else _ARABIC)[self.kind]
        return text.format(count=self.count, of=self.of, steady=STEADY_MS, human=HUMAN_GAP_MS)


class Tap(NamedTuple):
    """One official mark, as evidence of how the register was filled in.

    `phone_ms` is since local midnight by the phone, the other moments are server time; `has_stamp`: see above.
    """

    pupil: str
    code: str
    author: str
    phone_ms: int
    at_ms: int
    from_ms: int
    received_ms: int
    has_stamp: bool
    clock_flag: bool
    by_bulk: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Taken:
    """How one register was filled in.

    Attributes:
        register: Which.
        ended_ms: First moment after its civil day.
        taps: Its official marks.
        coarse: Authors whose clock is coarse, by all their marks, and its steps (ms).
    """

    register: RegisterId
    ended_ms: int
    taps: tuple[Tap, ...]
    coarse: Mapping[str, int] = field(init=False, compare=False)

    def __post_init__(self) -> None:
        shared: dict[str, int] = {}
        for tap in self.taps:
            shared[tap.author] = gcd(shared.get(tap.author, 0), tap.phone_ms)
        coarse = {author: next((s for s in COARSE_MS if ms % s == 0), 0) for author, ms in shared.items()}
        object.__setattr__(self, "coarse", {author: step for author, step in coarse.items() if step})

    @property
    def own(self) -> list[Tap]:
        """Marks that were made one by one."""
        return [tap for tap in self.taps if not tap.by_bulk]

    @property
    def stamped(self) -> list[Tap]:
        """Marks that were made one by one and have a stamp."""
        return [tap for tap in self.taps if tap.has_stamp and not tap.by_bulk]


Signs = dict[RegisterId, tuple[Sign, ...]]


def read_taken(wire: Mapping[str, Any], ended_ms: int) -> Taken:
    """From an outcome's plain data (`Outcome.to_wire`).

    Args:
        wire: The outcome.
        ended_ms: First moment after the register's civil day.
    """
    bulk, sources, taps = wire["bulk"], wire["sources"], []
    for pupil, row in wire["answers"].items():
        if row is None or row[1] is None:
            continue
        value, source, at_ms, from_ms, _, confidence, clock_flag, _ = row[0][row[1]]
        author, received_ms = sources[source][1:]
        taps.append(
            Tap(
                pupil=pupil,
                code=value[0],
                author=author,
                phone_ms=int(value[1:].partition(":")[0]),
                at_ms=at_ms,
                from_ms=from_ms,
                received_ms=received_ms,
                has_stamp=confidence != "low" and not clock_flag and at_ms < received_ms,
                clock_flag=clock_flag,
                by_bulk=value[0] == "P" and any(0 <= at_ms - act_ms <= BULK_SPAN_MS for act_ms in bulk),
            )
        )
    return Taken(register=RegisterId.parse(wire["register"]), ended_ms=ended_ms, taps=tuple(taps))


def is_flagged(signs: Iterable[Sign]) -> bool:
    """Whether a register with these signs is excluded from parity."""
    return any(sign.score >= FLAG_FROM for sign in signs)


def examine(week: Iterable[Taken], before: Iterable[Taken] = ()) -> Signs:
    """Look at the registers of one school and week; only those with a sign are named.

    Args:
        week: In any order.
        before: Those of the week before, which may have been copied from; nothing is said of them.
    """
    taken = sorted(week, key=_order)
    found: defaultdict[RegisterId, list[Sign]] = defaultdict(list)
    shared, copied, batches = _shared(taken), _copied(taken, sorted(before, key=_order)), _batches(taken)
    for one in taken:
        signs = (
            _identical(one),
            _steady(one),
            batches.get(one.register),
            copied.get(one.register),
            shared.get(one.register),
            _fast(one),
            _clock(one),
        )
        found[one.register] = [sign for sign in signs if sign is not None and sign.score >= TOLD_FROM]
    return {register: tuple(signs) for register, signs in found.items() if signs}


def _order(taken: Taken) -> tuple[int, RegisterId]:
    """By arrival at the server, which nobody's clock can move."""
    return min((tap.received_ms for tap in taken.taps), default=0), taken.register


def _sign(kind: Kind, count: int, of: int, score: Fraction | None = None) -> Sign | None:
    return Sign(kind=kind, score=min(Fraction(1), score or Fraction(count, of)), count=count, of=of) if count else None


# ---- one register ------------------------------------------------------------------------------------------------


def _identical(taken: Taken) -> Sign | None:
    """Half of the marks in one millisecond is as good as all; a second may hold several taps of a quick hand."""
    taps = taken.stamped
    if len(taps) < TAPS_MIN:
        return None
    coarse = taken.coarse
    equal = Counter(tap.at_ms for tap in taps if tap.author not in coarse)
    stepped = Counter(tap.at_ms for tap in taps if tap.author in coarse)
    most = max([*equal.values(), *(count for count in stepped.values() if count > TAPS_MIN)], default=0)
    return _sign(Kind.IDENTICAL_STAMPS, most, len(taps), Fraction(2 * most, len(taps))) if most >= EQUAL_MIN else None


def _gaps(taken: Taken) -> dict[str, list[int]]:
    """Distances between the taps of one person that follow each other; people may take a register together."""
    sittings: defaultdict[str, set[int]] = defaultdict(set)
    for tap in taken.stamped:
        sittings[tap.author].add(tap.at_ms)
    return {
        author: sorted(later - earlier for earlier, later in pairwise(sorted(moments)))
        for author, moments in sittings.items()
    }


def _steady(taken: Taken) -> Sign | None:
    coarse = taken.coarse
    gaps = sorted(
        gap
        for author, own in _gaps(taken).items()
        if own and (author not in coarse or own[len(own) // 2] >= COARSE_STEADY * coarse[author])
        for gap in own
    )
    if len(gaps) < TAPS_MIN - 1:
        return None
    middle = gaps[len(gaps) // 2]
    near = sum(abs(gap - middle) <= STEADY_MS for gap in gaps)
    return _sign(Kind.NO_VARIANCE, near, len(gaps))


def _fast(taken: Taken) -> Sign | None:
    gaps = [gap for own in _gaps(taken).values() for gap in own]
    if len(gaps) < TAPS_MIN - 1:
        return None
    return _sign(Kind.IMPOSSIBLE_RATE, sum(gap < HUMAN_GAP_MS for gap in gaps), len(gaps))


def _clock(taken: Taken) -> Sign | None:
    wrong, of = sum(tap.clock_flag for tap in taken.taps), len(taken.taps)
    return _sign(Kind.CLOCK_MOVES, wrong, of, _CLOCK_SHARE * Fraction(wrong, of)) if wrong else None


# ---- several registers -------------------------------------------------------------------------------------------


def _shared(week: Sequence[Taken]) -> dict[RegisterId, Sign]:
    """The same moments in several registers: nobody is in two rooms at once, "all present" or not.

    Two people meet in one second every morning, so a moment by a coarse clock is one of its author's. And of the marks
    of one moment only as many are shared as another register has at it: one tap elsewhere, in the very millisecond of
    an "all present", copies nothing.
    """
    most: dict[tuple[int, str], list[int]] = {}  # moment -> how many marks the registers have at it, the two greatest
    of_register: list[tuple[Taken, Counter[tuple[int, str]]]] = []
    for one in week:
        coarse = one.coarse
        stamps = Counter((tap.at_ms, tap.author if tap.author in coarse else "") for tap in one.taps if tap.has_stamp)
        for stamp, count in stamps.items():
            most[stamp] = sorted((*most.get(stamp, ()), count), reverse=True)[:2]
        of_register.append((one, stamps))
    found = {}
    for one, stamps in of_register:
        # Among all registers of a moment the least of the own number and the greatest other one: the second greatest,
        # unless the own number is smaller still.
        shared = sum(min(count, most[stamp][1]) for stamp, count in stamps.items() if len(most[stamp]) > 1)
        sign = _sign(Kind.SHARED_STAMPS, shared, stamps.total())
        if sign is not None and stamps.total() >= TAPS_MIN:
            found[one.register] = sign
    return found


def _copied(week: Sequence[Taken], before: Sequence[Taken]) -> dict[RegisterId, Sign]:
    """The distances of another register. The one that arrived first may be the original, and stays."""
    known: defaultdict[object, list[int]] = defaultdict(list)
    found: dict[RegisterId, Sign] = {}
    for number, one in enumerate([*before, *week]):
        marks = _fingerprint(one)
        alike = Counter(other for mark in marks for other in known[mark])
        most = max(alike.values(), default=0)
        # By a coarse clock one moment of the day comes twice by chance, but not three times.
        moment = _one_moment(one)
        once = len(alike) == 1 and moment is not None and moment % COARSE_MS[-1] == 0
        sign = _sign(Kind.COPIED_PATTERN, most, len(marks), Fraction(1, 2) if once else None) if most else None
        if sign is not None and number >= len(before):
            found[one.register] = sign
        for mark in marks:
            known[mark].append(number)
    return found


def _one_moment(taken: Taken) -> int | None:
    """The time of day, by the phone, that half of the marks share."""
    if len(taken.taps) < TAPS_MIN:
        return None
    moment, most = Counter(tap.phone_ms for tap in taken.taps).most_common(1)[0]
    return moment if 2 * most >= len(taken.taps) else None


def _fingerprint(taken: Taken) -> set[object]:
    """What no two sittings have in common: pairs of distances that follow each other, in milliseconds.

    Of a coarse clock all distances as one, for its pairs are those of every sitting. A register whose marks share one
    moment has one feature instead: that time of day, to the millisecond, in its class.
    """
    moment = _one_moment(taken)
    if moment is not None:
        return {(taken.register.class_id, moment)}
    sittings: defaultdict[str, list[int]] = defaultdict(list)
    for tap in taken.own:
        sittings[tap.author].append(tap.phone_ms)
    coarse, pairs = taken.coarse, []
    whole: set[object] = set()
    for author, own in sittings.items():
        gaps = [later - earlier for earlier, later in pairwise(sorted(own))]
        if author not in coarse:
            pairs += [pair for pair in pairwise(gaps) if pair != (0, 0)]
        elif len(gaps) >= COARSE_GAPS_MIN and len(gaps) - max(Counter(gaps).values()) >= TAPS_MIN:
            whole.add(tuple(gaps))
    distinct: set[object] = set(pairs)
    # Few different pairs (an even hand) say nothing.
    return whole | (distinct if len(pairs) >= TAPS_MIN - 2 and 2 * len(distinct) > len(pairs) else set())


def _batches(week: Sequence[Taken]) -> dict[RegisterId, Sign]:
    """Registers of several days that one person filled in within one sitting, certainly days later."""
    late: defaultdict[str, list[tuple[int, Taken]]] = defaultdict(list)
    for one in week:
        if len(one.taps) >= TAPS_MIN:
            earliest = sorted(tap.from_ms for tap in one.taps)
            middle_ms = earliest[len(earliest) // 2]
            if middle_ms >= one.ended_ms + DAYS_LATE_MS:
                author = min(Counter(tap.author for tap in one.taps).items(), key=lambda item: (-item[1], item[0]))[0]
                late[author].append((middle_ms, one))
    found: dict[RegisterId, Sign] = {}
    for registers in late.values():
        for at_ms, one in registers:
            days = {other.register.date for near_ms, other in registers if abs(near_ms - at_ms) <= BATCH_SPAN_MS}
            if len(days) > 1:
                score = Fraction(1, 2) if len(days) == 2 else Fraction(1)
                found[one.register] = Sign(kind=Kind.BATCH_AFTER_DAYS, score=score, count=len(days), of=len(days))
    return found
