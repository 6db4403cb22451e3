"""The status feed: whoever upstream ends is held from the moment we learn it, within a minute.

Invariants:
  1. An answer that cannot be read whole changes nothing: everything is read before anything is written, and what is
     written, with how far we have come, is one transaction.
  2. How far we have come is told by upstream's own clock, and each look begins some minutes before it: neither a clock
     that is off nor a change that was stored late is missed. Seeing a change twice does nothing.
  3. Ending somebody takes effect from the moment we learnt it, never from one long past: official marks stay.
  4. It only ever ends. Who comes back comes with the next import, and what was held meanwhile is settled.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

from syncserver.calendar import local_date
from syncserver.config import Config
from syncserver.errors import StoreFailed
from syncserver.metrics import Metrics
from syncserver.ports import ServerPorts
from syncserver.problems import trace
from syncserver.store import roster
from syncserver.store import upstream as rows
from syncserver.store.port import Database, Reader, Transaction
from syncserver.upstream.port import ContractBroken, PersonNow, Upstream, UpstreamSilent
from syncserver.upstream.rest import open_upstream
from syncserver.webhooks import retry_after_ms

_LOG = logging.getLogger("hudur.upstream")
EVERY_MS, JITTER_MS = 15_000, 10_000  # a look every 15 to 25 s
OVERLAP_MS = 10 * 60_000
STALE_MS = 10 * 60_000  # no look succeeded for so long: an alarm
FIRST_LOOK_BACK_MS = 48 * 3_600_000  # before the first look, imports have told of whoever ended
_ASKED_PATIENCE_MAX_MS = 120_000  # a wish to be left alone counts up to here: the promise to schools is an hour
_WAIT_MAX_MS = _ASKED_PATIENCE_MAX_MS + EVERY_MS + JITTER_MS
_ACTOR = "server"


@dataclass(frozen=True, slots=True, kw_only=True)
class Ending:
    """Somebody whose post at a school upstream ended."""

    school: str
    user_id: str
    why: str


async def run(db: Database, config: Config, ports: ServerPorts) -> None:
    """Look again and again; runs until cancelled.

    Waiting is real time, as in the settle stage; *whether* a look is due is asked of the clock port.
    """
    async with open_upstream(config, ports) as upstream:
        while True:
            try:
                await step(db, config, ports, upstream)
            except StoreFailed as failed:
                _LOG.error("the status feed waits for the store: %s", failed)
            except Exception as fault:  # ours: it must not end the stage; the feed grows old, and that is an alarm
                _LOG.error("fault in the status feed: %s", trace(fault))
            await pause(config)


async def pause(config: Config) -> None:
    """Some time until the next look at the clock."""
    with suppress(TimeoutError):
        async with asyncio.timeout(config.poll_ms / 1000):
            await asyncio.Event().wait()


async def step(db: Database, config: Config, ports: ServerPorts, upstream: Upstream) -> bool:
    """Look, if it is time; whether it was."""
    now_ms = ports.clock.wall_ms()
    state = await rows.read_feed(db)
    if state is None:
        async with db.transaction() as tx:
            await rows.start_feed(tx, now_ms=now_ms, horizon_ms=now_ms - FIRST_LOOK_BACK_MS)
        state = await rows.read_feed(db)
        assert state is not None
    # Further off than we ever wait: the clock was put back.
    if now_ms < state.next_try_ms <= now_ms + _WAIT_MAX_MS:
        return False
    next_ms = EVERY_MS + int(JITTER_MS * ports.random.fraction())
    try:
        await look(db, config, ports, upstream, state, next_in_ms=next_ms)
    except (UpstreamSilent, ContractBroken) as failed:
        asked_ms = retry_after_ms(getattr(failed, "retry_after", None), now_ms) or 0
        wait_ms = max(next_ms, min(asked_ms, _ASKED_PATIENCE_MAX_MS))
        async with db.transaction() as tx:
            await rows.write_unheard(tx, next_try_ms=now_ms + wait_ms, result=str(failed))
        _LOG.warning("the status feed was not heard: %s", failed)
    return True


async def look(
    db: Database, config: Config, ports: ServerPorts, upstream: Upstream, state: rows.FeedState, *, next_in_ms: int
) -> list[Ending]:
    """Ask what changed and end whoever was ended.

    Raises:
        UpstreamSilent, ContractBroken: nothing was changed.
    """
    people = await upstream.people_changed(state.horizon_ms - OVERLAP_MS)
    enrolments = await upstream.enrolments_changed(state.enrolments_ms - OVERLAP_MS)
    now_ms = ports.clock.wall_ms()
    today = local_date(now_ms, config.zone).isoformat()
    async with db.transaction() as tx:
        found = endings(people, await rows.active_staff(tx, [one.user_id for one in people]), today)
        for one in found:
            await _end(tx, one, now_ms)
        await rows.write_looked(
            tx,
            now_ms=now_ms,
            next_try_ms=now_ms + next_in_ms,
            horizon_ms=_horizon([one.modified_ms for one in people], state.horizon_ms, now_ms),
            enrolments_ms=_horizon(enrolments, state.enrolments_ms, now_ms),
            ended=len(found),
        )
    return found


async def _end(tx: Transaction, one: Ending, now_ms: int) -> None:
    """Writes its own audit row, and orders what must be settled again."""
    await roster.end_person(tx, one.school, one.user_id, now_ms, _ACTOR, f"upstream: {one.why}")


def endings(people: Sequence[PersonNow], staff: dict[str, list[str]], today: str) -> list[Ending]:
    """Whom of our staff upstream has ended.

    Args:
        people: What upstream says now.
        staff: Who is staff here and not ended: id to schools.
        today: The civil date at the schools.

    Returns:
        The person's posts that are over: all when withdrawn, else those at schools where none is left.
    """
    found: list[Ending] = []
    for person in people:
        for school in staff.get(person.user_id, ()):
            until = person.posts.get(school, "")
            if person.withdrawn:
                found.append(Ending(school=school, user_id=person.user_id, why="withdrawn"))
            elif until is not None and until <= today:  # the day after the last: OneRoster's end is exclusive
                found.append(Ending(school=school, user_id=person.user_id, why="no post at this school"))
    return found


def _horizon(moments_ms: Sequence[int], known_ms: int, now_ms: int) -> int:
    """The newest change, but never beyond now: one dated wrongly into the future must not hide those that follow."""
    return max(known_ms, min(max(moments_ms, default=known_ms), now_ms))


async def tell_age(reader: Reader, metrics: Metrics, now_ms: int) -> None:
    """Bring the gauge up to date: asked at every scrape."""
    state = await rows.read_feed(reader)
    if state is not None:
        metrics.feed_age_s.set(state.age_ms(now_ms) / 1000)


def is_stale(state: rows.FeedState | None, now_ms: int) -> bool:
    """Whether upstream was not heard for so long that somebody must look."""
    return state is None or state.age_ms(now_ms) > STALE_MS
