"""Who may let whom take a register in their stead, for how long. Pure.

A delegation is made in seconds, by whoever has the post, without a form. That is safe because it is small: some
classes, one named colleague, a few school days, never passed on. `refuse` names the first rule that stands against one;
nothing of this is asked again when a mark is settled: then only the span counts (`scope.py`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date as Date
from datetime import timedelta

from reconciliation.calendar import SchoolCalendar
from reconciliation.model import Right

SCHOOL_DAYS_MAX = 5
DAYS_MAX = 31
"""Civil days from the first to the last, so that a holiday does not stretch five school days over a summer."""
LATE_WORKING_DAYS_MAX = 3
"""How far back a span may begin: as long as an adjustment may be decided at school."""
AHEAD_DAYS_MAX = 60
"""How far ahead a span may begin: a planned absence is known in the same term."""
LIST_DAYS_BEFORE = 3
"""The class stands on the substitute's phone this many days before: Thursday's network serves for Sunday morning."""

DELEGATION_AHEAD = "delegation-ahead"
DELEGATION_DELEGATE = "delegation-delegate"
DELEGATION_DEPTH = "delegation-depth"
DELEGATION_LATE = "delegation-late"
DELEGATION_LENGTH = "delegation-length"
DELEGATION_RIGHT = "delegation-right"
DELEGATION_SELF = "delegation-self"
DELEGATION_SPAN = "delegation-span"

_DAY_MS = 86_400_000
_CHAMPION = "a champion of the school"


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What is asked for.

    Attributes:
        by: Who delegates (user id).
        to: Who shall stand in.
        classes: Which classes.
        from_ms: First millisecond of the span.
        until_ms: First millisecond after it.
    """

    by: str
    to: str
    classes: tuple[str, ...]
    from_ms: int
    until_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """Why not.

    Attributes:
        rule: Slug.
        detail: One English sentence with the limit.
        arabic: The same.
        who: Who can do it, or open it.
        closed_on: Civil date since which it is closed, where there is one.
    """

    rule: str
    detail: str
    arabic: str
    who: str
    closed_on: str | None = None


def refuse(
    wish: Wish,
    *,
    now_ms: int,
    calendar: SchoolCalendar,
    rights: Mapping[str, Sequence[Right]],
    delegate_spans: Sequence[Right],
) -> Refusal | None:
    """The first rule against a delegation; None when it may be made.

    Args:
        wish: What is asked for.
        now_ms: Server time.
        calendar: The school's.
        rights: Class to the rights of `wish.by` for it, delegated ones included; a class that is not there is missing.
        delegate_spans: When `wish.to` is active staff of the school; empty when never.
    """
    return (
        _against_people(wish, delegate_spans)
        or _against_span(wish, now_ms, calendar)
        or _against_delegate(wish, delegate_spans)
        or next((found for name in wish.classes if (found := _against_class(wish, name, rights)) is not None), None)
    )


def _against_people(wish: Wish, delegate_spans: Sequence[Right]) -> Refusal | None:
    if wish.by == wish.to:
        return Refusal(
            rule=DELEGATION_SELF,
            detail="a delegation is to somebody else; who has a post needs none",
            arabic="التفويض لا يكون للشخص نفسه، فصاحب الفصل لا يحتاج إلى تفويض",
            who=_CHAMPION,
        )
    if not delegate_spans:
        return Refusal(
            rule=DELEGATION_DELEGATE,
            detail="only active staff of the same school can stand in; nobody active has this id",
            arabic="التفويض لا يكون إلا لمعلم أو معلمة على قوة المدرسة نفسها",
            who="the school system, by entering the person; then a champion of the school",
        )
    return None


def _against_span(wish: Wish, now_ms: int, calendar: SchoolCalendar) -> Refusal | None:
    if wish.until_ms <= wish.from_ms:
        return Refusal(
            rule=DELEGATION_SPAN,
            detail="a delegation ends after it begins",
            arabic="نهاية التفويض تكون بعد بدايته",
            who="whoever makes it, with another span",
        )
    # By milliseconds first: nobody may name a span whose days would have to be counted for hours.
    if wish.until_ms - wish.from_ms > DAYS_MAX * _DAY_MS or school_days(wish, calendar) > SCHOOL_DAYS_MAX:
        return Refusal(
            rule=DELEGATION_LENGTH,
            detail=f"a delegation covers at most {SCHOOL_DAYS_MAX} school days and {DAYS_MAX} days; for a longer "
            "absence the school system gives the class to somebody else",
            arabic=f"مدة التفويض لا تزيد على {SCHOOL_DAYS_MAX} أيام دراسية؛ "
            "والغياب الأطول يلزمه نقل الفصل في نظام المدرسة",
            who="the school system, by giving the class to another teacher",
        )
    if wish.from_ms - now_ms > AHEAD_DAYS_MAX * _DAY_MS:
        return Refusal(
            rule=DELEGATION_AHEAD,
            detail=f"a delegation begins within {AHEAD_DAYS_MAX} days",
            arabic=f"يبدأ التفويض خلال {AHEAD_DAYS_MAX} يومًا على الأكثر",
            who="whoever makes it, nearer to the day",
        )
    first = calendar.date_at(wish.from_ms)
    closes_on = calendar.add_working_days(first, LATE_WORKING_DAYS_MAX)
    if now_ms >= calendar.end_of_day_ms(closes_on):
        return Refusal(
            rule=DELEGATION_LATE,
            detail=f"a delegation may begin at most {LATE_WORKING_DAYS_MAX} working days back; what was marked before "
            "is released change by change",
            arabic=f"لا يبدأ التفويض قبل أكثر من {LATE_WORKING_DAYS_MAX} أيام عمل؛ "
            "وما سُجِّل قبل ذلك يلزمه اعتماد كل تسجيل على حدة",
            who="a champion of the school, by `release`",
            closed_on=closes_on,
        )
    return None


def _against_delegate(wish: Wish, delegate_spans: Sequence[Right]) -> Refusal | None:
    if covers(delegate_spans, wish.from_ms, wish.until_ms):
        return None
    return Refusal(
        rule=DELEGATION_DELEGATE,
        detail="who stands in must be staff of the school for the whole span",
        arabic="يلزم أن يكون البديل على قوة المدرسة طوال مدة التفويض",
        who="whoever makes it, with a span inside the person's dates",
    )


def _against_class(wish: Wish, name: str, rights: Mapping[str, Sequence[Right]]) -> Refusal | None:
    own = rights.get(name, ())
    if covers([right for right in own if right.delegation is None], wish.from_ms, wish.until_ms):
        return None
    if any(right.delegation is not None for right in own) and covers(own, wish.from_ms, wish.until_ms):
        return Refusal(
            rule=DELEGATION_DEPTH,
            detail=f"{name}: who stands in cannot pass it on",
            arabic="البديل لا يفوّض غيره",
            who=f"the class's own teacher, or {_CHAMPION}",
        )
    return Refusal(
        rule=DELEGATION_RIGHT,
        detail=f"{name}: only who may take its register for the whole span can delegate it",
        arabic="لا يفوّض في الفصل إلا من له حق تسجيل الحضور فيه طوال المدة",
        who=f"the class's own teacher, or {_CHAMPION}",
    )


def covers(rights: Sequence[Right], from_ms: int, until_ms: int) -> bool:
    """Whether the rights together cover a span without a gap."""
    at_ms = from_ms
    for right in sorted(rights, key=lambda one: one.from_ms):
        if right.from_ms > at_ms:
            break
        if right.until_ms is None:
            return True
        at_ms = max(at_ms, right.until_ms)
    return at_ms >= until_ms


def dates_of(from_ms: int, until_ms: int, calendar: SchoolCalendar) -> tuple[str, ...]:
    """The civil dates a span touches; it is at least a millisecond long."""
    first = Date.fromisoformat(calendar.date_at(from_ms))
    last = Date.fromisoformat(calendar.date_at(until_ms - 1))
    return tuple((first + timedelta(days=n)).isoformat() for n in range((last - first).days + 1))


def school_days(wish: Wish, calendar: SchoolCalendar) -> int:
    """How many school days a span touches."""
    return sum(calendar.closed(day) is None for day in dates_of(wish.from_ms, wish.until_ms, calendar))


def list_dates(from_ms: int, until_ms: int, calendar: SchoolCalendar) -> tuple[str, str]:
    """First date on which the class stands on the substitute's phone, and the first date after."""
    days = dates_of(from_ms, until_ms, calendar)
    first, last = Date.fromisoformat(days[0]), Date.fromisoformat(days[-1])
    return (first - timedelta(days=LIST_DAYS_BEFORE)).isoformat(), (last + timedelta(days=1)).isoformat()
