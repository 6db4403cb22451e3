"""The gate: when digital equals paper for long enough, paper retires at that school by itself. Pure.

Its input is judged weeks, its output is computed. There is no argument by which anybody could start, stop, speed up or
override it. At least 98 of 100 in four school weeks in a row:

  - A week that failed, or in which too little was compared or too much excluded, begins the count anew.
  - A paused week (holidays) neither counts nor breaks: there was no school, so nothing was learnt either way.
  - A week that is missing breaks.

A week is judged when the third working day after its end is over: then its corrections can no longer come at school
level. What still comes later changes it all the same; a gate that has fired stays fired, and a finding says so.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date as Date
from datetime import timedelta
from fractions import Fraction

from reconciliation.adjustments import WORKING_DAYS
from reconciliation.calendar import SchoolCalendar, days_of_week
from reconciliation.parity import PASS_FROM, Status, WeekParity, share

WEEKS_NEEDED = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """A judged week, as the gate sees it.

    Attributes:
        week: Its Saturday.
        status: What it is to the gate.
        matched: Cells in which both records agree.
        compared: Cells compared.
        against: Disagreements in excluded registers.
        covered: Registers both records have.
        expected: Registers both should have.
        excluded: Of those covered, excluded ones.
    """

    week: str
    status: Status
    matched: int = 0
    compared: int = 0
    against: int = 0
    covered: int = 0
    expected: int = 0
    excluded: int = 0

    @classmethod
    def of(cls, week: WeekParity) -> Verdict:
        """The verdict on a compared week."""
        return cls(
            week=week.week,
            status=week.status,
            matched=week.matched,
            compared=week.compared,
            against=week.against,
            covered=week.covered,
            expected=week.expected,
            excluded=week.excluded,
        )

    @property
    def rate(self) -> Fraction | None:
        """Matched of compared."""
        return share(self.matched, self.compared)

    @property
    def guarded(self) -> Fraction | None:
        """What has to reach 98 of 100: see `parity.WeekParity.guarded`."""
        return share(self.matched, self.compared + self.against)


@dataclass(frozen=True, slots=True, kw_only=True)
class Gate:
    """Where a school stands.

    Attributes:
        run: The passed weeks in a row that count now; the decisive ones once it has fired.
        fired_week: The last of the decisive weeks; None while it has not fired.
    """

    run: tuple[Verdict, ...]
    fired_week: str | None

    @property
    def missing(self) -> int:
        """Weeks that are still needed."""
        return max(WEEKS_NEEDED - len(self.run), 0)


def gate(weeks: Iterable[Verdict]) -> Gate:
    """Where a school stands after these judged weeks, in whatever order they are handed in."""
    run: list[Verdict] = []
    last: str | None = None
    for verdict in sorted(weeks, key=lambda one: one.week):
        if last is not None and verdict.week != next_week(last):
            run = []
        last = verdict.week
        if verdict.status is Status.PAUSED:
            continue
        run = [*run, verdict] if verdict.status is Status.PASSED else []
        if len(run) == WEEKS_NEEDED:
            return Gate(run=tuple(run), fired_week=verdict.week)
    return Gate(run=tuple(run), fired_week=None)


def next_week(week: str) -> str:
    """The Saturday after."""
    return (Date.fromisoformat(week) + timedelta(days=7)).isoformat()


def due_date(week: str, calendar: SchoolCalendar) -> str:
    """The date on which a week is judged: the day after the third working day after its end."""
    last = calendar.add_working_days(days_of_week(week)[-1], WORKING_DAYS)
    return (Date.fromisoformat(last) + timedelta(days=1)).isoformat()


def is_due(week: str, calendar: SchoolCalendar, today: str) -> bool:
    """Whether a week can be judged on `today` (civil date at the school)."""
    return due_date(week, calendar) <= today


# ---- in words ----------------------------------------------------------------------------------------------------


def percent(rate: Fraction | None) -> str:
    """Rounded down to a tenth, so that 97.99 % is never shown as 98 %."""
    if rate is None:
        return "–"
    tenths = rate.numerator * 1_000 // rate.denominator
    return f"{tenths // 10}.{tenths % 10}%"


_ENGLISH = {
    Status.PASSED: "passed: {rate} of {compared}",
    Status.FAILED: "failed: {rate} of {compared}, {needed} needed",
    Status.NOT_EVALUABLE: "cannot be evaluated: {covered} of {expected} registers in both records, {excluded} excluded",
    Status.PAUSED: "paused: too few school days; it neither counts nor breaks",
}
_ARABIC = {
    Status.PASSED: "تحققت النسبة: {rate} من {compared}",
    Status.FAILED: "لم تتحقق النسبة: {rate} من {compared}، والمطلوب {needed}",
    Status.NOT_EVALUABLE: "تعذر التقييم: وجود السجلين الورقي والرقمي في {covered} من {expected}، واستبعاد {excluded}",
    Status.PAUSED: "توقف مؤقت لقلة أيام الدراسة: لا يُحتسب ولا يقطع التتابع",
}


def week_in_words(verdict: Verdict, language: str = "ar") -> str:
    """One sentence about a week, Arabic or (`en`) English."""
    text = (_ENGLISH if language == "en" else _ARABIC)[verdict.status].format(
        rate=percent(verdict.guarded),
        compared=f"{verdict.compared + verdict.against:,}",
        needed=percent(PASS_FROM),
        covered=verdict.covered,
        expected=verdict.expected,
        excluded=verdict.excluded,
    )
    return f"week of {verdict.week} {text}" if language == "en" else f"أسبوع {verdict.week}: {text}"


def gate_in_words(
    found: Gate, last: Verdict | None, next_date: str | None, language: str = "ar", *, paper: bool = True
) -> str:
    """Where a school stands and what is missing, in one line.

    Args:
        found: Where it stands.
        last: The last judged week, or None.
        next_date: When the next week is judged, or None.
        language: Arabic, or `en`.
        paper: Whether anything was ever typed from paper.
    """
    english = language == "en"
    if found.fired_week is not None:
        weeks = ", ".join(verdict.week for verdict in found.run)
        if english:
            return f"paper has retired: digital equals paper in the weeks of {weeks}"
        return f"انتهاء العمل بالسجل الورقي: تطابق الرقمي مع الورقي في أسابيع {weeks}"
    if not paper:
        return "no paper has been entered yet" if english else "لم يُسجَّل أي سجل ورقي بعد"
    parts = [f"{len(found.run)} of {WEEKS_NEEDED} weeks" if english else f"{len(found.run)} من {WEEKS_NEEDED} أسابيع"]
    if last is not None:
        parts.append(week_in_words(last, language))
    if next_date is not None:
        parts.append(f"the next verdict on {next_date}" if english else f"التقييم التالي يوم {next_date}")
    return ("; " if english else "؛ ").join(parts)
