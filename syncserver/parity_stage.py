"""Judging school weeks: outcomes, paper and calendar in, verdicts and retired paper out. Nobody chooses what comes out.

Invariants:
  1. Every verdict is a function of what the store held at one moment, which stands beside it (`log_offset`). Nothing is
     judged while changes of the school wait to become official.
  2. Nothing is judged before it is due, and a school is looked at once a civil day: who asks early or often changes
     nothing.
  3. Verdicts are only added. A gate fires once, in the transaction of its audit row; what would change it afterwards
     raises a finding and leaves it as it is.
  4. Evaluating again gives the same verdicts: a week is weighed anew only when something that goes into it has changed.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import dataclass, field

from reconciliation.gate import Gate, Verdict, gate
from reconciliation.parity import WeekParity
from syncserver.calendar import local_date
from syncserver.config import Config
from syncserver.errors import StoreFailed
from syncserver.parity_weeks import read_school, weeks_due, weigh_changed
from syncserver.ports import Aside, InlineAside, ServerPorts
from syncserver.problems import trace
from syncserver.store import audit
from syncserver.store import parity as rows
from syncserver.store.port import Database, Transaction

_LOG = logging.getLogger("hudur.parity")
WOULD_NOT_HOLD = "gate-would-not-hold"
_LOOK_EVERY_S = 600
_TRIES = 3  # a school whose registers change while they are weighed is weighed again, or at the next look


@dataclass(slots=True)
class Evaluated:
    """What one look at one school gave.

    Attributes:
        school: Which.
        judged: Verdicts that are new or have changed.
        fired: Paper has retired by this look.
        finding: Name of a finding it raised.
        waits: Nothing was judged: changes wait to become official.
    """

    school: str
    judged: list[Verdict] = field(default_factory=list)
    fired: bool = False
    finding: str | None = None
    waits: bool = False


async def run(db: Database, config: Config, ports: ServerPorts) -> None:
    """Judge whatever is due; runs until cancelled.

    Waiting is real time, as in the settle stage; *whether* something is due is asked of the clock port.
    """
    nobody = asyncio.Event()
    while True:
        try:
            await evaluate(db, config, ports.clock.wall_ms(), aside=ports.aside)
        except StoreFailed as failed:
            _LOG.error("judging waits for the store: %s", failed)
        except Exception as fault:  # ours: it must not end the stage, and the next look tries again
            _LOG.error("fault in the parity stage: %s", trace(fault))
        try:
            async with asyncio.timeout(_LOOK_EVERY_S):
                await nobody.wait()
        except TimeoutError:
            pass


def today_at(now_ms: int, zone: str) -> str:
    """The civil date at the schools."""
    return local_date(now_ms, zone).isoformat()


async def evaluate(db: Database, config: Config, now_ms: int, *, aside: Aside | None = None) -> list[Evaluated]:
    """Judge what is due at every school that was not looked at today.

    Args:
        db: The store.
        config: For the schools' zone.
        now_ms: Server time.
        aside: Where weeks are weighed; inline by default.
    """
    today = today_at(now_ms, config.zone)
    done = []
    for name in await rows.due_schools(db, today):
        for _ in range(_TRIES):
            result = await _evaluate_school(db, config.zone, name, now_ms, today, aside or InlineAside())
            if result is not None:
                done.append(result)
                break
    return done


async def _evaluate_school(
    db: Database, zone: str, name: str, now_ms: int, today: str, aside: Aside
) -> Evaluated | None:
    """One look at one school; None when its registers changed meanwhile."""
    moment = await rows.moment_of(db, name)
    if not moment.is_settled:
        return Evaluated(school=name, waits=True)
    school = await read_school(db, name, zone, today)
    stored = await rows.weeks_of(db, name)
    due = await weeks_due(db, school, today)
    weighed = await weigh_changed(db, school, due, await rows.inputs_of(db, name), aside)
    new = [week for week, _ in weighed if is_news(stored.get(week.week), week)]
    result = Evaluated(school=name, judged=[Verdict.of(week) for week in new])
    async with db.transaction() as tx:
        if await rows.moment_of(tx, name) != moment:
            return None
        if await rows.was_looked_at(tx, name, today):
            return Evaluated(school=name)
        for week in new:
            await rows.write_week(tx, name, week, judged_ms=now_ms, log_offset=moment.log_offset)
        await rows.write_inputs(tx, name, {week.week: inputs for week, inputs in weighed})
        verdicts = {week: one.verdict for week, one in stored.items()} | {one.week: one for one in result.judged}
        await _settle_gate(tx, result, list(verdicts.values()), now_ms, moment.log_offset)
        await rows.write_run(tx, name, today, at_ms=now_ms)
    return result


def is_news(stored: rows.StoredWeek | None, week: WeekParity) -> bool:
    """Whether a week that was weighed says something else than its last verdict."""
    return stored is None or (stored.document, stored.body) != (week.document.value, rows.packed(week))


async def _settle_gate(
    tx: Transaction, result: Evaluated, verdicts: Sequence[Verdict], now_ms: int, log_offset: int
) -> None:
    """Fire the gate, or say what has become of one that has fired."""
    fired, now = await rows.gate_of(tx, result.school), gate(verdicts)
    if fired is not None:
        await _watch_gate(tx, result, fired, now, verdicts, now_ms)
    elif now.fired_week is not None:
        weeks = [_plain(one) for one in now.run]
        audit_id = await audit.record(
            tx, at_ms=now_ms, actor="server", action="gate", subject=result.school,
            reason="digital equals paper: paper has retired", before={"paper": True},
            after={"paper": False, "weeks": weeks, "log_offset": log_offset},
        )  # fmt: skip
        await rows.write_gate(
            tx, result.school, now.fired_week, weeks, fired_ms=now_ms, log_offset=log_offset, audit_id=audit_id
        )
        result.fired = True


async def _watch_gate(
    tx: Transaction,
    result: Evaluated,
    fired: rows.StoredGate,
    now: Gate,
    verdicts: Sequence[Verdict],
    now_ms: int,
) -> None:
    """A gate stays fired. That later corrections would change it is told, once, and so is that they do not any more."""
    holds = now.fired_week is not None and now.fired_week <= fired.week
    open_ones = [one for one in await rows.findings_of(tx, result.school) if one.resolved_ms is None]
    decisive = [_plain(one) for one in verdicts if one.week in fired.weeks]
    if holds:
        if open_ones:
            await rows.resolve_findings(tx, [one.id for one in open_ones], at_ms=now_ms)
            await audit.record(
                tx, at_ms=now_ms, actor="server", action="gate-finding-resolved", subject=result.school, reason="",
                after={"weeks": decisive},
            )  # fmt: skip
        return
    if open_ones:
        return
    detail = {"weeks": decisive, "fired_ms": fired.fired_ms}
    audit_id = await audit.record(
        tx, at_ms=now_ms, actor="server", action=WOULD_NOT_HOLD, subject=result.school,
        reason="a later correction would change the gate; it stays fired", after=detail,
    )  # fmt: skip
    await rows.write_finding(tx, result.school, WOULD_NOT_HOLD, detail, at_ms=now_ms, audit_id=audit_id)
    result.finding = WOULD_NOT_HOLD


def _plain(verdict: Verdict) -> dict[str, object]:
    return {
        "week": verdict.week,
        "status": verdict.status.value,
        "matched": verdict.matched,
        "compared": verdict.compared + verdict.against,
    }
