"""Every night: what the school system holds of the last dates, beside what is official here.

Both sides are counted per class and digested (`upstream/digests.py`); only where a class differs are its pupils looked
at, by id. What was found is stored with everything else a person wants to see in the morning: dead letters of both
kinds by cause, the age of the status feed, and how far every consumer is behind. Nothing is mended here: a comparison
that also wrote could hide what it should tell.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Coroutine, Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any
from zoneinfo import ZoneInfo

from syncserver.calendar import local_date
from syncserver.config import Config
from syncserver.errors import StoreFailed
from syncserver.ports import Aside, ServerPorts
from syncserver.problems import trace
from syncserver.store import consuming
from syncserver.store import sinks as sink_rows
from syncserver.store import upstream as rows
from syncserver.store.packed import pack_json, unpack_outcome
from syncserver.store.port import Database, Reader
from syncserver.upstream import feed as status_feed
from syncserver.upstream import writeback
from syncserver.upstream.digests import (
    NOTHING,
    ClassKey,
    Difference,
    Line,
    Tally,
    differences,
    lines_of,
    tally,
    total,
)
from syncserver.upstream.port import ContractBroken, Upstream, UpstreamSilent
from syncserver.upstream.rest import open_upstream

_LOG = logging.getLogger("hudur.nightly")
SAME, DIFFERENT, SILENT, CONTRACT = "same", "different", "silent", "contract"
NIGHT_FROM_HOUR, NIGHT_UNTIL_HOUR = 2, 6  # local: the evening's late arrivals are in, the morning's have not begun
DATES_BACK = 7  # changes made later than that are compared by hand; a night that was missed is made up for
RETRY_MS = 15 * 60_000
CLASSES_DRILLED_MAX = 200
PUPILS_TOLD_MAX = 2_000
_DEAD = """SELECT code, count(*), min(at_ms), count(DISTINCT school) FROM dead_letters WHERE requeued = 0
GROUP BY code ORDER BY 2 DESC, 1"""

Stage = Callable[[], Coroutine[Any, Any, None]]


def handoff_stages(db: Database, config: Config, ports: ServerPorts) -> dict[str, Stage]:
    """What runs beside the requests where a school system is set: status feed, attendance, the night."""
    if config.upstream is None:
        return {}
    stages = {"upstream feed": status_feed.run, "write-back": writeback.run, "night": run}
    return {name: partial(stage, db, config, ports) for name, stage in stages.items()}


async def run(db: Database, config: Config, ports: ServerPorts) -> None:
    """Compare once a night; runs until cancelled."""
    night = Night(db, config, ports)
    async with open_upstream(config, ports) as upstream:
        while True:
            went = False
            try:
                went = await night.step(upstream)
            except StoreFailed as failed:
                _LOG.error("the night waits for the store: %s", failed)
            except Exception as fault:  # ours: it must not end the stage, and the next night tries again
                _LOG.error("fault in the night: %s", trace(fault))
                night.rest()
            if not went:
                await status_feed.pause(config)


class Night:
    """Knows which dates are due."""

    def __init__(self, db: Database, config: Config, ports: ServerPorts) -> None:
        self._db, self._config, self._ports = db, config, ports
        self._not_before_ms = 0

    def rest(self) -> None:
        """Try nothing for a while."""
        self._not_before_ms = self._ports.clock.wall_ms() + RETRY_MS

    async def step(self, upstream: Upstream) -> bool:
        """Compare one date, if one is due; whether there was one."""
        now_ms = self._ports.clock.wall_ms()
        if now_ms < self._not_before_ms <= now_ms + RETRY_MS:
            return False
        local = datetime.fromtimestamp(now_ms / 1000, tz=UTC).astimezone(ZoneInfo(self._config.zone))
        if not NIGHT_FROM_HOUR <= local.hour < NIGHT_UNTIL_HOUR:
            return False
        night = local.date().isoformat()
        done = await rows.compared_on(self._db, night)
        dates = [(local.date() - timedelta(days=back)).isoformat() for back in range(1, DATES_BACK + 1)]
        due = [date for date in dates if date not in done]
        if not due:
            return False
        report = await reconcile(self._db, self._ports, upstream, due[0], actor="server", night=night)
        if report["state"] in (SILENT, CONTRACT):
            self.rest()
        return True


async def reconcile(
    db: Database,
    ports: ServerPorts,
    upstream: Upstream,
    date: str,
    *,
    actor: str,
    night: str | None = None,
) -> dict[str, Any]:
    """Compare a date and store what was found; the report as plain data.

    `state`: `same`, `different`, or `silent` and `contract` where the other side was not heard.
    """
    try:
        found = await _compare(db, ports.aside, upstream, date)
    except (UpstreamSilent, ContractBroken) as failed:
        found = {"state": SILENT if isinstance(failed, UpstreamSilent) else CONTRACT, "why": str(failed)}
    now_ms = ports.clock.wall_ms()
    report = {"date": date, "at_ms": now_ms, **found, **await surroundings(db, now_ms)}
    async with db.transaction() as tx:
        await rows.write_night(
            tx, date=date, night=night, at_ms=now_ms, made_by=actor, state=report["state"], body=pack_json(report)
        )
    return report


async def surroundings(reader: Reader, now_ms: int) -> dict[str, Any]:
    """What else a person wants to see: dead letters by cause, the feed's age, who is behind."""
    lag = await consuming.read_lag(reader)
    state, sent = await rows.read_feed(reader), await rows.read_sent(reader)
    names = ("cause", "letters", "oldest_ms", "schools")
    return {
        "dead_letters": {
            "here": [dict(zip(names, row, strict=True)) for row in await reader.fetch_all(_DEAD)],
            "upstream": await rows.letters_by_cause(reader),
        },
        "feed": {
            "stale": status_feed.is_stale(state, now_ms),
            "age_s": None if state is None else state.age_ms(now_ms) // 1000,
            "last_result": "" if state is None else state.last_result,
        },
        "lag": {
            "settle_offsets": lag.offsets,
            "settle_age_s": 0 if lag.oldest_ms is None else max(0, now_ms - lag.oldest_ms) // 1000,
            "upstream_events": await rows.unsent(reader, sent.sent_seq),
            "sinks": [
                {"name": sink.name, "events": (await sink_rows.read_backlog(reader, sink)).events}
                for sink in await sink_rows.read_sinks(reader)
                if sink.state != sink_rows.ENDED
            ],
        },
    }


# ---- comparing --------------------------------------------------------------------------------------------------


async def _compare(db: Reader, aside: Aside, upstream: Upstream, date: str) -> dict[str, Any]:
    theirs = (await upstream.day(date)).classes
    ours = await tallies_here(db, aside, date)
    differing = sorted(key for key in ours.keys() | theirs.keys() if ours.get(key, NOTHING) != theirs.get(key, NOTHING))
    waiting = await rows.unsent_registers(db, (await rows.read_sent(db)).sent_seq, date) if differing else set()
    drilled = [await _drill(db, aside, upstream, key, date, waiting) for key in differing[:CLASSES_DRILLED_MAX]]
    classes = [one for one in drilled if one["causes"]]
    told = 0
    for one in classes:
        one["pupils"] = one["pupils"][: PUPILS_TOLD_MAX - told]
        told += len(one["pupils"])
    same_meanwhile = len(drilled) - len(classes)
    return {
        "state": DIFFERENT if len(differing) > same_meanwhile else SAME,
        "totals": {"here": _sum(ours), "upstream": _sum(theirs), "classes": len(ours.keys() | theirs.keys())},
        "schools": _schools(ours, theirs),
        "classes_differing": len(differing) - same_meanwhile,
        "same_meanwhile": same_meanwhile,
        "classes": classes,
        "causes": _causes(classes),
    }


async def tallies_here(db: Reader, aside: Aside, date: str) -> dict[ClassKey, Tally]:
    """What is official here on a date, counted per class that has a line; one school at a time."""
    found: dict[ClassKey, Tally] = {}
    for (school,) in await db.fetch_all("SELECT school FROM schools ORDER BY school"):
        bodies = await rows.outcome_bodies(db, school, date)
        for class_id, one in (await aside.run(partial(_tallies, bodies))).items():
            found[school, class_id] = one
    return found


def _tallies(bodies: Sequence[tuple[str, bytes]]) -> dict[str, Tally]:
    lines: dict[str, list[Line]] = {}
    for register, body in bodies:
        lines.setdefault(register.split("/")[1], []).extend(_lines(register, body))
    return {class_id: tally(some) for class_id, some in lines.items() if some}


def _lines(register: str, body: bytes) -> list[Line]:
    return lines_of(unpack_outcome(body, register))


async def _drill(
    db: Reader, aside: Aside, upstream: Upstream, key: ClassKey, date: str, waiting: Collection[str]
) -> dict[str, Any]:
    """One class that differs, down to the pupil-day.

    Both sides are read now, a moment after they were counted: what came in between may have mended it, and then no
    cause stands here.
    """
    theirs = await upstream.lines(key, date)
    bodies = await rows.class_bodies(db, *key, date)
    ours = await aside.run(lambda: [line for register, body in bodies for line in _lines(register, body)])
    prefix = f"{key[0]}/{key[1]}/{date}/"
    sessions = {line.session for line in (*ours, *theirs)}
    refused = await rows.refused_cells(db, [prefix + session for session in sorted(sessions)])
    found = differences(
        ours,
        theirs,
        waiting={name.removeprefix(prefix) for name in waiting if name.startswith(prefix)},
        rejected={(register.removeprefix(prefix), pupil) for register, pupil in refused},
    )
    return {
        "school": key[0],
        "class": key[1],
        "here": asdict(tally(ours)),
        "upstream": asdict(tally(theirs)),
        "causes": _count(found),
        "pupils": [asdict(one) for one in found],
    }


def _schools(ours: Mapping[ClassKey, Tally], theirs: Mapping[ClassKey, Tally]) -> list[dict[str, Any]]:
    """Schools that differ, both sides counted; those that do not are in the totals."""
    found = []
    for school in sorted({key[0] for key in (*ours, *theirs)}):
        here, there = (
            total({name: one for (its, name), one in side.items() if its == school}) for side in (ours, theirs)
        )
        if here != there:
            found.append({"school": school, "here": asdict(here), "upstream": asdict(there)})
    return found


def _sum(side: Mapping[ClassKey, Tally]) -> int:
    return sum(one.count for one in side.values())


def _count(found: Sequence[Difference]) -> dict[str, int]:
    causes: dict[str, int] = {}
    for one in found:
        causes[one.cause.value] = causes.get(one.cause.value, 0) + 1
    return dict(sorted(causes.items()))


def _causes(classes: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    causes: dict[str, int] = {}
    for one in classes:
        for cause, count in one["causes"].items():
            causes[cause] = causes.get(cause, 0) + count
    return dict(sorted(causes.items()))


def yesterday(now_ms: int, zone: str) -> str:
    """The date that is compared where none is named."""
    return (local_date(now_ms, zone) - timedelta(days=1)).isoformat()
