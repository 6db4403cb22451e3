"""Who comes, when, and with what. Pure: a size and a seed give the same morning on every machine (keys excepted).

A school has 1,200 pupils in 30 groups of 40. Each group has four lists (the day's own, three subjects), each list is
taken four times: 480 phones, every one with another register. So 1,000 schools give 480,000 phones and as many
registers, on the rosters of 1.2 million pupils (the country's 19 million would only make the store larger: settling
reads the list it settles). With its receipt a phone gets what the three others of its list have sent; in a school where
each list is taken once in a morning it would get nothing.
"""

from __future__ import annotations

import math
import random
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from enum import IntEnum

GROUPS = 30
CLASSES = GROUPS * 4
PUPILS = 40
SESSIONS = ("day", "am1", "am2", "am3")
PHONES_PER_SCHOOL = CLASSES * len(SESSIONS)
MORNING_S = 45 * 60  # 07:30 to 08:15

SLOW_SHARE = 0.10
BACKLOG_SHARE = 0.05
PULL_SHARE = 0.05  # new phones in the first weeks of a term: no cursor, so classes, rosters and calendar are due
LOST_SHARE = 0.03  # the answer never arrives; the same bytes come again
TORN_SHARE = 0.01  # the connection breaks in the middle of the body
BACKLOG_DAYS = (2, 4)
ABSENT_MAX = 6
TAPPING_MS = 120_000  # longer than anybody needs for forty pupils
_BELL_MS = 28_812_345  # 08:00:12.345
_WEEKEND = (5, 6)


class Phase(IntEnum):
    """To which part of the run a request belongs."""

    CAPACITY = 0
    MORNING = 1
    OVERLOAD = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """What is asked for.

    Attributes:
        sessions: Device sessions of the morning.
        capacity_sessions: Sessions by which the capacity is measured, of schools of their own.
        overload_sessions: Sessions of the overload: like those of the morning, of schools of their own.
        on: The school day.
        tapped_ms: When the first pupil of each register was tapped, in milliseconds of that day.
        seed: Of everything that is drawn.
    """

    sessions: int
    capacity_sessions: int
    overload_sessions: int
    on: str
    tapped_ms: int = _BELL_MS
    seed: int = 1

    @property
    def capacity_schools(self) -> int:
        """Schools whose phones measure the capacity; they have the lowest numbers."""
        return math.ceil(self.capacity_sessions / PHONES_PER_SCHOOL)

    @property
    def overload_from(self) -> int:
        """The first school of the overload, behind those of the morning."""
        return self.capacity_schools + math.ceil(self.sessions / PHONES_PER_SCHOOL)

    @property
    def schools(self) -> int:
        """All schools."""
        return self.overload_from + math.ceil(self.overload_sessions / PHONES_PER_SCHOOL)

    def phase(self, school: int) -> Phase:
        """What the phones of a school are for."""
        if school < self.capacity_schools:
            return Phase.CAPACITY
        return Phase.MORNING if school < self.overload_from else Phase.OVERLOAD

    def phones(self, school: int) -> int:
        """Phones of one school that take part."""
        first, of = {
            Phase.CAPACITY: (0, self.capacity_sessions),
            Phase.MORNING: (self.capacity_schools, self.sessions),
            Phase.OVERLOAD: (self.overload_from, self.overload_sessions),
        }[self.phase(school)]
        return min(PHONES_PER_SCHOOL, of - (school - first) * PHONES_PER_SCHOOL)


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """One phone's morning.

    Attributes:
        registers: Per request of the phone: its phase and its registers (date, session).
        slow: Comes through one of the slowest networks.
        pull: Has no cursor.
        lost: Its first answer never arrives.
        torn: Its first try breaks in the middle of the body.
    """

    phone: int
    class_no: int
    session: str
    registers: tuple[tuple[Phase, tuple[tuple[str, str], ...]], ...]
    slow: bool = False
    pull: bool = False
    lost: bool = False
    torn: bool = False


def school_name(school: int) -> str:
    """Its id."""
    return f"eg-{school:05d}"


def class_name(class_no: int) -> str:
    """Its id, the same in every school."""
    return f"c{class_no + 1:03d}"


def teacher_name(phone: int) -> str:
    """Whose phone it is."""
    return f"t{phone:04d}"


def pupil_names(school: int, class_no: int) -> list[str]:
    """The class's pupils, in order of their ids; the four classes of a group have the same."""
    return [f"s{school:05d}{class_no % GROUPS * PUPILS + number:04d}" for number in range(PUPILS)]


def school_day(now: datetime) -> tuple[str, int]:
    """The day that is called over and when the first pupil was tapped, in milliseconds of that day.

    Today at 08:00, or two minutes ago where that is still to come: nothing may be marked in the future. Without school
    that day, and in its first minutes, it is the last school day; then all registers are of an earlier day.

    Args:
        now: The school's date and time.
    """
    today, now_ms = now.date(), (now.hour * 60 + now.minute) * 60_000 + now.second * 1_000
    if today.isoweekday() in _WEEKEND or now_ms < TAPPING_MS:
        return school_days_before(today, 1)[0], _BELL_MS
    return today.isoformat(), min(_BELL_MS, now_ms - TAPPING_MS)


def school_days_before(day: date, count: int) -> list[str]:
    """The last `count` school days before a date, the latest first."""
    found: list[str] = []
    while len(found) < count:
        day -= timedelta(days=1)
        if day.isoweekday() not in _WEEKEND:
            found.append(day.isoformat())
    return found


def sessions_of(size: Size, school: int) -> Iterator[Session]:
    """The phones of one school."""
    chance, phase = random.Random(f"{size.seed} sessions {school}"), size.phase(school)
    earlier = school_days_before(date.fromisoformat(size.on), BACKLOG_DAYS[1])
    for phone in range(size.phones(school)):
        class_no, session = phone % CLASSES, SESSIONS[phone // CLASSES]
        today = ((size.on, session),)
        slow, pull, lost, torn, behind = (
            chance.random() < share for share in (SLOW_SHARE, PULL_SHARE, LOST_SHARE, TORN_SHARE, BACKLOG_SHARE)
        )
        if phase is Phase.CAPACITY:  # the same work; what keeps a phone waiting says nothing of the server
            slow = lost = torn = False
        requests: list[tuple[Phase, tuple[tuple[str, str], ...]]] = [(phase, today)]
        if behind:
            days = earlier[: chance.randint(*BACKLOG_DAYS)]
            requests.append((phase, tuple((day, session) for day in days)))
        yield Session(
            phone=phone, class_no=class_no, session=session, registers=tuple(requests),
            slow=slow, pull=pull, lost=lost, torn=torn and not lost,
        )  # fmt: skip


# ---- the curve ---------------------------------------------------------------------------------------------------


def density(second: float) -> float:
    """Arrivals at a second after 07:30, any unit: teachers who start early, the bell at 08:00, the stragglers.

    The shape is assumed: nobody has counted such a morning. A twentieth of all come in the worst minute, more than a
    third in the ten worst.
    """
    early = 0.75 * math.exp(-(((second - 1_500) / 900) ** 2))
    since_bell = second - 1_800
    bell = 0.0 if since_bell < 0 else 1.9 * (1 - math.exp(-since_bell / 15)) * math.exp(-since_bell / 240)
    return 0.35 + early + bell


_CURVE = [density(second + 0.5) for second in range(MORNING_S)]
_TOTAL = sum(_CURVE)
_CUMULATED: list[float] = []
for _value in _CURVE:
    _CUMULATED.append((_CUMULATED[-1] if _CUMULATED else 0.0) + _value / _TOTAL)

PEAK_TO_MEAN = max(_CURVE) / (_TOTAL / MORNING_S)
PEAK_AT = _CURVE.index(max(_CURVE)) / MORNING_S
PEAK_FROM, PEAK_UNTIL = (
    (min if end == 0 else max)(s for s, v in enumerate(_CURVE) if v >= 0.8 * max(_CURVE)) / MORNING_S for end in (0, 1)
)
"""Parts of the morning between which the rate is at least 80% of the highest."""


def arrival(share: float) -> float:
    """When the phone comes before which `share` of all have come, as a part of the morning."""
    second = min(bisect_left(_CUMULATED, share), MORNING_S - 1)
    before = _CUMULATED[second - 1] if second else 0.0
    within = (share - before) / (_CUMULATED[second] - before)
    return (second + min(1.0, within)) / MORNING_S


def arrivals(count: int, chance: random.Random) -> list[float]:
    """When each of `count` phones comes, as parts of the morning, ascending."""
    return [arrival((number + chance.random()) / count) for number in range(count)]


def rates(parts: int) -> Sequence[float]:
    """The share of all phones that come in each of `parts` equal parts of the morning."""
    ends = [_CUMULATED[min(MORNING_S, round((part + 1) * MORNING_S / parts)) - 1] for part in range(parts)]
    return [end - start for start, end in zip([0.0, *ends], ends, strict=False)]


def lag_after_peak_s(sessions: int, over_s: float, *, push_s: float, settle_s: float, wait_s: float) -> float:
    """Seconds of unsettled work `wait_s` after the peak, when settling gets what pushes leave of one core.

    Args:
        sessions: Registers of the morning.
        over_s: Its length.
        push_s: CPU of one push.
        settle_s: CPU of settling one register.
        wait_s: How long after the end of the peak.
    """
    parts = 300
    shares = rates(parts)
    step_s = over_s / parts
    until_s = PEAK_UNTIL * over_s + wait_s
    came = settled = 0.0
    history: list[tuple[float, float]] = []
    for part in range(math.ceil(until_s / step_s)):
        new = shares[part] * sessions if part < parts else 0.0
        came += new
        history.append((came, (part + 1) * step_s))
        free_s = max(0.02 * step_s, step_s - new * push_s)
        settled += min(came - settled, free_s / settle_s)
    oldest_s = next((at_s for total, at_s in history if total > settled + 1), until_s)
    return max(0.0, until_s - oldest_s)


def length_s(sessions: int, *, capacity_per_s: float, at_share: float, push_s: float, settle_s: float) -> float:
    """The shortest morning whose peak is at most `at_share` of the capacity and that is settled 90 s after its peak."""
    over_s = sessions * PEAK_TO_MEAN / (at_share * capacity_per_s)
    while over_s < MORNING_S and lag_after_peak_s(sessions, over_s, push_s=push_s, settle_s=settle_s, wait_s=90) > 4:
        over_s *= 1.03
    return min(over_s, MORNING_S)
