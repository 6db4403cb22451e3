"""Orders that show where a school stands between paper and digital. None of them decides anything.

`parity-evaluate` runs the same evaluation as the server's timer: what is due and was not looked at today. There is no
argument to it, and no order writes a verdict or a gate.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from reconciliation.calendar import week_of
from reconciliation.gate import (
    Gate,
    Verdict,
    due_date,
    gate,
    gate_in_words,
    next_week,
    percent,
    week_in_words,
)
from syncserver.access import ApiRole, Args, Desk, Order, every_school, named_school, roles, text
from syncserver.errors import RequestProblem
from syncserver.orders.paper import read_week
from syncserver.parity_stage import evaluate, is_news, today_at
from syncserver.parity_weeks import School, read_school, weigh_changed, weigh_week
from syncserver.ports import InlineAside
from syncserver.store import paper
from syncserver.store import parity as rows
from syncserver.store.port import Reader

_OPEN_MAX = 4  # weeks that are not judged yet and are shown as they stand


async def gate_view(reader: Reader, school: str, zone: str, now_ms: int) -> dict[str, Any]:
    """Where a school's gate stands, from what was judged: numbers, and words in both languages.

    Args:
        reader: The store.
        school: Which.
        zone: The schools' zone.
        now_ms: Server time.
    """
    facts = await read_school(reader, school, zone, today_at(now_ms, zone))
    return await _gate_view(reader, facts)


async def _gate_view(reader: Reader, school: School) -> dict[str, Any]:
    stored = await rows.weeks_of(reader, school.name)
    fired, days = await rows.gate_of(reader, school.name), await paper.paper_days(reader, school.name)
    verdicts = [one.verdict for one in stored.values()]
    if fired is not None:
        decisive = tuple(one for one in verdicts if one.week in fired.weeks)
        stands, waiting = Gate(run=decisive, fired_week=fired.week), None
    else:
        stands = gate(verdicts)
        waiting = None if days is None else _first_unjudged(week_of(days[0]), stored)
    due = None if waiting is None else due_date(waiting, school.calendar)
    last = verdicts[-1] if verdicts else None
    said = {language: gate_in_words(stands, last, due, language, paper=days is not None) for language in ("en", "ar")}
    return {
        "school": school.name,
        "paper": fired is None,
        "fired_ms": None if fired is None else fired.fired_ms,
        "audit": None if fired is None else fired.audit_id,
        "weeks": [one.week for one in stands.run],
        "missing": 0 if fired is not None else stands.missing,
        "next_week": waiting,
        "next_verdict": due,
        "findings": [
            {"id": one.id, "name": one.name, "at_ms": one.at_ms, "resolved_ms": one.resolved_ms, **one.detail}
            for one in await rows.findings_of(reader, school.name)
        ],
        "words": said,
    }


def _first_unjudged(week: str, stored: Mapping[str, object]) -> str:
    while week in stored:
        week = next_week(week)
    return week


async def parity_view(reader: Reader, school: str, zone: str, now_ms: int, week: str | None = None) -> dict[str, Any]:
    """The comparison of a school, week by week; with `week`, every register of that week.

    Weeks that are not judged yet are shown as they stand now, and called so.
    """
    today = today_at(now_ms, zone)
    facts = await read_school(reader, school, zone, today)
    stored = await rows.weeks_of(reader, school)
    found = await _gate_view(reader, facts)
    weeks = [
        _plain_week(one.verdict, document=one.document, judged_ms=one.judged_ms, due=None) for one in stored.values()
    ]
    for name in _open_weeks(found["next_week"], week_of(today)):
        parity, _ = await weigh_week(reader, facts, name, None, InlineAside())
        due = due_date(name, facts.calendar)
        weeks.append(_plain_week(Verdict.of(parity), document=parity.document.value, judged_ms=None, due=due))
    view: dict[str, Any] = {"school": school, "weeks": weeks, "gate": found}
    if week is not None:
        body = await rows.week_body(reader, school, week)
        if body is None:
            parity, _ = await weigh_week(reader, facts, week, None, InlineAside())
            body = rows.plain_registers(parity)
        view |= {"week": week, "judged": week in stored, "registers": body}
    return view


async def weigh_again(reader: Reader, school: str, zone: str, now_ms: int) -> dict[str, Any]:
    """Weigh every judged week of a school anew and compare with its verdict. Reads only.

    Returns:
        `weeks`: how many were weighed; `differ`: weeks whose inputs are those of the verdict and whose numbers are not
        (a fault); `changed`: weeks of which something came since, so that the next look will judge them anew.
    """
    today = today_at(now_ms, zone)
    facts, stored = await read_school(reader, school, zone, today), await rows.weeks_of(reader, school)
    known, differ, changed = await rows.inputs_of(reader, school), [], []
    weighed = await weigh_changed(reader, facts, sorted(stored), {}, InlineAside())
    for parity, inputs in weighed:
        verdict = stored[parity.week]
        if known.get(parity.week) != inputs:
            changed.append(parity.week)
        elif is_news(verdict, parity) or verdict.verdict != Verdict.of(parity):
            differ.append(parity.week)
    return {"weeks": len(weighed), "differ": differ, "changed": changed}


def _open_weeks(week: str | None, last: str) -> list[str]:
    found: list[str] = []
    while week is not None and week <= last and len(found) < _OPEN_MAX:
        found.append(week)
        week = next_week(week)
    return found


def _plain_week(verdict: Verdict, *, document: str, judged_ms: int | None, due: str | None) -> dict[str, Any]:
    return {
        "week": verdict.week,
        "status": verdict.status.value if judged_ms is not None else "open",
        "document": document,
        "matched": verdict.matched,
        "compared": verdict.compared,
        "against": verdict.against,
        "rate": percent(verdict.rate),
        "rate_with_excluded": percent(verdict.guarded),
        "covered": verdict.covered,
        "expected": verdict.expected,
        "excluded": verdict.excluded,
        "judged_ms": judged_ms,
        "due": due,
        "words": {
            language: week_in_words(verdict, language) if judged_ms is not None else _so_far(verdict, due, language)
            for language in ("en", "ar")
        },
    }


def _so_far(verdict: Verdict, due: str | None, language: str) -> str:
    rate, cells = percent(verdict.guarded), f"{verdict.compared + verdict.against:,}"
    if language == "en":
        return (
            f"week of {verdict.week} not judged before {due}: so far {rate} of {cells}, "
            f"{verdict.covered} of {verdict.expected} registers in both records"
        )
    return (
        f"أسبوع {verdict.week}: التقييم يوم {due}؛ حتى الآن {rate} من {cells}، "
        f"ووجود السجلين في {verdict.covered} من {verdict.expected}"
    )


async def known_school(reader: Reader, school: str) -> str:
    """The school, if there is one.

    Raises:
        RequestProblem: `not-found`.
    """
    if await reader.fetch_one("SELECT 1 FROM schools WHERE school = ?", (school,)) is None:
        raise RequestProblem("not-found", f"{school}: no such school")
    return school


async def order_parity(desk: Desk, args: Args, _: bytes) -> dict[str, Any]:
    """`school`; `week` (any date of it) for its registers."""
    school = await known_school(desk.db, text(args, "school"))
    today = today_at(desk.now_ms, desk.config.zone)
    week = read_week(args, today) if args.get("week") else None
    return await parity_view(desk.db, school, desk.config.zone, desk.now_ms, week)


async def order_gate(desk: Desk, args: Args, _: bytes) -> dict[str, Any]:
    """`school`."""
    school = await known_school(desk.db, text(args, "school"))
    return await gate_view(desk.db, school, desk.config.zone, desk.now_ms)


async def order_evaluate(desk: Desk, _: Args, __: bytes) -> dict[str, Any]:
    """No arguments: judges what is due at every school that was not looked at today."""
    done = await evaluate(desk.db, desk.config, desk.now_ms, aside=desk.ports.aside)
    return {
        "looked_at": len(done),
        "waiting": [one.school for one in done if one.waits],
        "judged": [
            {"school": one.school, "week": verdict.week, "status": verdict.status.value}
            for one in done
            for verdict in one.judged
        ],
        "fired": [one.school for one in done if one.fired],
        "findings": [{"school": one.school, "name": one.finding} for one in done if one.finding is not None],
    }


_READERS = roles(ApiRole.CHAMPION, ApiRole.DISTRICT, ApiRole.CENTRAL, ApiRole.AUDITOR)
ORDERS: Mapping[str, Order] = {
    "parity": Order(run=order_parity, roles=_READERS, about=named_school),
    "gate": Order(run=order_gate, roles=_READERS, about=named_school),
    "parity-evaluate": Order(run=order_evaluate, roles=roles(), about=every_school),
}
