"""A synthetic governorate: what every pupil of every class was, digitally and on paper, through one term.

`plan_school` is the truth. From it `governorate_store.py` writes a store as the real stages would have, and, beside
it, rows that `governorate_check.py` counts in a second way. Schools differ in how well paper and digital agree
(`KINDS`), so that a gate opens early, late, never, or by exactly 98 of 100. Everything follows from the arguments and
the seed.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field, replace
from datetime import date as Date
from datetime import timedelta
from functools import lru_cache
from itertools import accumulate

GOVERNORATE = "eg-12"
SCHOOLS_PER_DISTRICT = 50
SESSION = "day"
KINDS = ("early", "exact", "below", "copied", "gappy", "never", "later", "mixed", "early", "later")
"""By number of the school: its records agree from the first week on; in exactly 98 of 100 cells; in one cell less;
well, but some weeks were copied; well, but paper is missing in some weeks; badly; badly at first; about 98 of 100."""

PLANNED = {"2026-10-06": "armed_forces_day", "2027-01-07": "christmas", "2027-01-25": "revolution_police_day"}

_LETTERS, _WEIGHTS = "PLXAEUDS", (915, 25, 4, 30, 10, 8, 4, 4)
_CUMULATIVE = tuple(accumulate(_WEIGHTS))
_ON_PAPER = {"P": "P", "X": "P", "D": "P", "L": "L", "A": "A", "E": "E", "U": "U", "S": "A", ".": "P"}
_WRONG = {"P": "AL", "L": "PA", "A": "PL", "E": "PL", "U": "PL"}
_EIGHT_MS, _BULK_FROM_MS = 8 * 3_600_000, 7 * 3_600_000 + 3_000_000
_MODULUS = 1_000  # more than a class has registers in a term


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """How large, and when.

    Attributes:
        first: The Saturday with which the term begins.
        today: The civil date of the commands; the term must have ended two weeks before.
        schools, classes, pupils: Of the governorate, of a school, of a class.
        weeks: Of the term.
        paused: Weeks with two school days (holidays).
        short: Weeks with one holiday, decided for the governorate alone.
        seed: Of everything.
    """

    first: str
    today: str
    schools: int = 500
    classes: int = 10
    pupils: int = 40
    weeks: int = 17
    paused: tuple[int, ...] = (7, 16)
    short: tuple[int, ...] = (2, 10)
    seed: int = 1

    def week(self, number: int) -> str:
        """The Saturday of a week of the term."""
        return _plus(self.first, 7 * number)

    @property
    def term_weeks(self) -> list[str]:
        """Every week of the term."""
        return [self.week(number) for number in range(self.weeks)]

    @property
    def last_due(self) -> str:
        """The Friday of the last week that is due on `today`: the one before last week."""
        return _plus(self.today, -8 - (Date.fromisoformat(self.today).weekday() - 5) % 7)

    @property
    def holidays(self) -> list[tuple[str, str, str, str]]:
        """First and last closed date, reason and scope of each decision.

        Schools stay closed from the term's end to this day but for the first three school days of last week: after them
        the weeks of the term and of the long holidays are due, and no other. What has no scope nobody needs to decide.
        """
        last_week = _plus(self.last_due, 1)
        open_days = [day for n in range(7) if _is_usual(day := _plus(last_week, n))]
        return [
            *((date, date, reason, "") for date, reason in PLANNED.items()),
            *((_plus(self.week(n), 1), _plus(self.week(n), 3), "eid", "*") for n in self.paused),
            *((_plus(self.week(n), 2), _plus(self.week(n), 2), "local_day", GOVERNORATE) for n in self.short),
            (self.week(self.weeks), _plus(last_week, -1), "long_holidays", "*"),
            (_plus(open_days[2], 1), _plus(self.today, 60), "winter_holidays", "*"),
        ]

    def is_open(self, date: str) -> bool:
        """Whether there is school: Sunday to Thursday without the holidays."""
        closed = any(first <= date <= last for first, last, _, _ in self.holidays)
        return not closed and _is_usual(date)

    def open_days(self, week: str) -> list[str]:
        """The school days of a week."""
        return [day for n in range(7) if self.is_open(day := _plus(week, n))]


def _is_usual(date: str) -> bool:
    """Whether there is school where nobody decides anything."""
    return Date.fromisoformat(date).weekday() in (6, 0, 1, 2, 3) and date not in PLANNED


def _plus(date: str, days: int) -> str:
    return (Date.fromisoformat(date) + timedelta(days=days)).isoformat()


def size_before(today: str, *, weeks_ago: int, **more: int | tuple[int, ...]) -> Size:
    """A size whose term began some weeks before the week of `today`."""
    day = Date.fromisoformat(today)
    saturday = day - timedelta(days=(day.weekday() - 5) % 7 + 7 * weeks_ago)
    return Size(first=saturday.isoformat(), today=today, **more)  # type: ignore[arg-type]


def school_name(number: int) -> str:
    """Id of a school."""
    return f"{GOVERNORATE}-{number:04d}"


def district_name(number: int) -> str:
    """Name of the district of a school."""
    return f"d-{number // SCHOOLS_PER_DISTRICT + 1:02d}"


def class_name(number: int) -> str:
    """Id of a class."""
    return f"c-{number:02d}"


@lru_cache(maxsize=1_000)
def pupil_names(size: Size, class_no: int) -> tuple[str, ...]:
    """Ids of the pupils of a class, ascending."""
    return tuple(f"p{class_no:02d}{n:03d}" for n in range(size.pupils))


# ---- one register ------------------------------------------------------------------------------------------------


@dataclass(slots=True, kw_only=True)
class Register:
    """One class on one day, as it was.

    Attributes:
        class_no, date: Which.
        codes: A letter for each pupil, `.` for one without a mark; None: nobody took the register.
        paper: What the signed sheet says; None: there is none.
        times: `L` where a mark came late, `A` where it is an approved adjustment, `.` else.
        stamps: Moment of each tap in milliseconds since midnight.
        disputed: Pupils whose authors disagree.
        waiting: Pupils with a late mark that waits for a decision.
        has_stranger: A mark for a pupil of no roster is held.
        no_session: It did not take place.
        in_review: Every mark of it came after the window: none counts.
        bulk_ms: When "all present" was pressed; None: it was not.
        copied: Its taps are those of another register.
    """

    class_no: int
    date: str
    codes: list[str] | None = None
    paper: list[str] | None = None
    times: list[str] = field(default_factory=list)
    stamps: list[int] = field(default_factory=list)
    disputed: list[int] = field(default_factory=list)
    waiting: list[int] = field(default_factory=list)
    has_stranger: bool = False
    no_session: bool = False
    in_review: bool = False
    bulk_ms: int | None = None
    copied: bool = False

    @property
    def is_taken(self) -> bool:
        """Whether any mark counts."""
        return self.codes is not None and not self.no_session and not self.in_review


@dataclass(frozen=True, slots=True, kw_only=True)
class Habits:
    """How a school keeps its records in one week; shares of cells or registers.

    `wrong`: cells in which paper says something else; None: as many as 98 of 100 leave, and `more` on top.
    `untaken` registers have neither record, of `lost` ones there is paper only, `unheld` sessions did not take place.
    """

    wrong: float | None = 0.008
    more: int = 0
    paperless: float = 0.02
    untaken: float = 0.004
    lost: float = 0.0
    unmarked: float = 0.03
    unheld: float = 0.006
    copies: float = 0.0


_EXACT = Habits(wrong=None, paperless=0.0, untaken=0.0, unmarked=0.0, unheld=0.0)


def habits(number: int, week_no: int, chance: random.Random) -> Habits:
    """How school `number` keeps its records in a week."""
    kind = KINDS[number % len(KINDS)]
    if kind == "exact":
        return _EXACT
    if kind == "below":
        return replace(_EXACT, more=1)
    if kind == "early":
        return Habits(paperless=0.0, untaken=0.0)  # its gate opens, on whatever date this is drawn
    if kind == "copied":
        return Habits(copies={1: 0.3, 2: 0.2, 4: 0.06}.get(week_no, 0.0))
    if kind == "gappy":
        return Habits(paperless=0.2 if week_no % 3 == 1 + number % 2 else 0.02)
    if kind == "never":
        return Habits(wrong=0.04, lost=0.02, untaken=0.01)
    if kind == "later" and week_no < 2 + number % 7:
        return Habits(wrong=0.035, lost=0.01)
    if kind == "mixed":
        return Habits(wrong=chance.uniform(0.01, 0.03), lost=0.002)
    return Habits()


def plan_school(size: Size, number: int) -> list[Register]:
    """Every register of one school in the term, by week; the same for the same arguments."""
    chance = random.Random(f"{size.seed}/{number}")
    found: list[Register] = []
    for week_no, week in enumerate(size.term_weeks):
        days = size.open_days(week)
        registers = [Register(class_no=c, date=day) for day in days for c in range(size.classes)]
        _plan_week(size, registers, habits(number, week_no, chance), chance, first_no=len(found))
        found += registers
    if number % 20 == 3:  # somebody takes a register on a holiday
        odd = Register(class_no=0, date=_plus(size.week(size.paused[0]), 1))
        _take(size, odd, Habits(), chance)
        found.append(odd)
    return found


def _plan_week(size: Size, registers: list[Register], how: Habits, chance: random.Random, *, first_no: int) -> None:
    for number, one in enumerate(registers, first_no):
        drawn = chance.random()
        if drawn < how.unheld:
            one.no_session, one.codes, one.times = True, ["."] * size.pupils, ["."] * size.pupils
            if how.lost and chance.random() < 0.5:  # signed paper contradicts it
                one.paper = ["P"] * size.pupils
        elif drawn < how.unheld + how.untaken:
            pass
        elif drawn < how.unheld + how.untaken + how.lost:
            one.paper = [_ON_PAPER[letter] for letter in _letters(size, chance)]
            if chance.random() < 0.5:
                one.in_review, one.codes, one.times = True, ["."] * size.pupils, ["."] * size.pupils
        else:
            _take(size, one, how, chance, bulk=chance.random() < 0.2, number=number)
            if chance.random() >= how.paperless:
                assert one.codes is not None
                one.paper = [_ON_PAPER[letter] for letter in one.codes]
    _copy(registers, how, chance)
    _disagree([one for one in registers if one.is_taken and one.paper], size.pupils, how, chance)


def _letters(size: Size, chance: random.Random) -> list[str]:
    return chance.choices(_LETTERS, cum_weights=_CUMULATIVE, k=size.pupils)


def _take(
    size: Size, one: Register, how: Habits, chance: random.Random, *, bulk: bool = False, number: int = 0
) -> None:
    """A register as hands take it: half a second to three seconds from tap to tap."""
    codes, times = _letters(size, chance), ["."] * size.pupils
    at_ms, stamps = _EIGHT_MS + int(chance.random() * 600_000), []
    for _ in codes:
        at_ms += 500 + int(chance.random() * 2_500)
        stamps.append(at_ms)
    if bulk:
        # Before eight, and in a millisecond that no other "all present" of the school shares.
        one.bulk_ms = _BULK_FROM_MS + int(chance.random() * 600) * _MODULUS + number % _MODULUS
        stamps = [one.bulk_ms if code == "P" else ms for code, ms in zip(codes, stamps, strict=True)]
    elif chance.random() < how.unmarked:
        for place in chance.sample(range(size.pupils), chance.randrange(1, 4)):
            codes[place] = "."
    if chance.random() < 0.03:
        times = ["L" if code != "." else "." for code in codes]
    one.codes, one.times, one.stamps = codes, times, stamps
    present = [place for place, code in enumerate(codes) if code == "P"]
    drawn = chance.random()
    if drawn < 0.02 and len(present) > 2:
        one.disputed = sorted(chance.sample(present, 2))
    elif drawn < 0.03:
        for place in chance.sample([place for place, code in enumerate(codes) if code != "."], 2):
            codes[place], times[place] = "E", "A"
    elif drawn < 0.04 and len(present) > 2:
        one.waiting = sorted(chance.sample(present, 2))
    elif drawn < 0.045:
        one.has_stranger = True


def _copy(registers: list[Register], how: Habits, chance: random.Random) -> None:
    """Give some registers the taps of the first one, minutes later."""
    plain = [one for one in registers if one.is_taken and one.bulk_ms is None and set(one.times) == {"."}]
    plain = [one for one in plain if "." not in (one.codes or ()) and not one.disputed]
    later = [one for one in plain if one.date != registers[0].date] if registers else []
    wanted = min(round(how.copies * len(registers)), len(later))
    if not wanted or plain[0].date != registers[0].date:
        return
    for one in sorted(chance.sample(later, wanted), key=lambda some: (some.date, some.class_no)):
        moved_ms = 1_800_000 + int(chance.random() * 600_000)
        one.stamps, one.copied = [ms + moved_ms for ms in plain[0].stamps], True


def _disagree(both: list[Register], pupils: int, how: Habits, chance: random.Random) -> None:
    """Write something else on paper for the wanted number of pupils."""
    cells = [(one, place) for one in both for place in range(pupils) if (one.codes or ())[place] != "."]
    exactly = len(both) * pupils * 2 // 100 + how.more
    wanted = exactly if how.wrong is None else round(how.wrong * len(cells) + chance.uniform(-2, 2))
    for one, place in chance.sample(cells, max(min(wanted, len(cells)), 0)):
        assert one.paper is not None
        one.paper[place] = chance.choice(_WRONG[one.paper[place]])
