"""Attendance back to the school system: the clean events, in the feed's order, each with its own answer.

Invariants:
  1. Our place moves only when every event of a batch has its answer: accepted, or rejected with a cause.
  2. A batch whose answer was lost is sent again; event ids make that harmless (docs/handoff.md).
  3. A refused event holds nobody up: it is kept with its cause, for a person to send again.
  4. An event that a later one about the same pupil has followed is never sent again.
  5. A system that is silent is asked again for as long as it takes, in growing gaps; nothing is skipped.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

from syncserver import feed
from syncserver.config import Config
from syncserver.errors import StoreFailed
from syncserver.ports import ServerPorts
from syncserver.problems import trace
from syncserver.store import upstream as rows
from syncserver.store.port import Database
from syncserver.upstream.feed import pause
from syncserver.upstream.port import ContractBroken, Reply, Upstream, UpstreamSilent
from syncserver.upstream.rest import open_upstream
from syncserver.webhooks import cut, gap_ms, is_due, retry_after_ms

_LOG = logging.getLogger("hudur.upstream")
BATCH_EVENTS_MAX = 500
REQUEUED_MAX = 100
TOO_LARGE = 413
_TOO_LARGE_CAUSE = "too-large"
Events = list[dict[str, Any]]


async def run(db: Database, config: Config, ports: ServerPorts) -> None:
    """Hand over whatever comes; runs until cancelled."""
    async with open_upstream(config, ports) as upstream:
        carrier = Carrier(db, ports, upstream)
        while True:
            went = False
            try:
                went = await carrier.step()
            except StoreFailed as failed:
                _LOG.error("attendance waits for the store: %s", failed)
            except Exception as fault:  # ours: it must not end the stage; the lag grows, and the night tells it
                _LOG.error("fault while handing over attendance: %s", trace(fault))
            if not went:
                await pause(config)


class Carrier:
    """Carries events, batch by batch."""

    def __init__(self, db: Database, ports: ServerPorts, upstream: Upstream) -> None:
        self._db, self._ports, self._upstream = db, ports, upstream
        self._limit = BATCH_EVENTS_MAX

    async def step(self) -> bool:
        """Send what is due, at most one batch; whether one was taken."""
        state = await rows.read_sent(self._db)
        now_ms = self._ports.clock.wall_ms()
        if not is_due(state.next_try_ms, now_ms):
            return False
        again = await self._again(now_ms)
        batch = again or await self._next(state.sent_seq)
        if not batch:
            return False
        sent_seq = state.sent_seq if again else int(batch[-1]["sequence"])
        try:
            replies = await self._upstream.send(batch)
        except (UpstreamSilent, ContractBroken) as failed:
            if not (isinstance(failed, UpstreamSilent) and failed.status == TOO_LARGE):
                return await self._failed(state, failed)
            if len(batch) > 1:
                self._limit = len(batch) // 2
                return True
            replies = [Reply(id=batch[0]["id"], cause=_TOO_LARGE_CAUSE)]
        await self._taken(batch, replies, sent_seq)
        return True

    async def _again(self, now_ms: int) -> Events:
        """Refused events that a person wants sent again, and that are still the last word about their pupil.

        An older word sent after a newer one could bring back an absence that was corrected long ago.
        """
        found: Events = []
        for seq in await rows.requeued(self._db, min(self._limit, REQUEUED_MAX)):
            found += (await feed.read_page(self._db, after=seq - 1, limit=1, up_to=seq)).events
        revisions = await rows.last_revisions(self._db, [str(one["data"].get("register", "")) for one in found])
        old = [one for one in found if _is_superseded(one, revisions)]
        if old:
            async with self._db.transaction() as tx:
                await rows.write_superseded(tx, [int(one["sequence"]) for one in old], now_ms=now_ms)
        return cut([one for one in found if one not in old])

    async def _next(self, sent_seq: int) -> Events:
        return cut((await feed.read_page(self._db, after=sent_seq, limit=self._limit)).events)

    async def _failed(self, state: rows.SentState, failed: UpstreamSilent | ContractBroken) -> bool:
        now_ms = self._ports.clock.wall_ms()
        asked_ms = retry_after_ms(getattr(failed, "retry_after", None), now_ms)
        gap = gap_ms(state.failures, self._ports.random.fraction(), asked_ms)
        async with self._db.transaction() as tx:
            await rows.write_failed(tx, next_try_ms=now_ms + gap, result=str(failed))
        _LOG.warning("attendance was not taken: %s", failed)
        return False

    async def _taken(self, batch: Events, replies: Sequence[Reply], sent_seq: int) -> None:
        causes = {reply.id: reply.cause for reply in replies}
        refused = [_letter(event, cause) for event in batch if (cause := causes[event["id"]]) is not None]
        accepted = [int(event["sequence"]) for event in batch if causes[event["id"]] is None]
        async with self._db.transaction() as tx:
            await rows.write_taken(
                tx, sent_seq=sent_seq, refused=refused, accepted=accepted, now_ms=self._ports.clock.wall_ms()
            )
        self._limit = BATCH_EVENTS_MAX


def _is_superseded(event: dict[str, Any], revisions: dict[str, dict[str, int]]) -> bool:
    data = event["data"]
    last = revisions.get(data.get("register", ""), {}).get(data.get("pupil", ""), 0)
    return last > rows.revision_of(event["id"])


def _letter(event: dict[str, Any], cause: str) -> rows.Letter:
    data = event["data"]
    return rows.Letter(
        seq=int(event["sequence"]),
        event=event["id"],
        school=data.get("school", feed.EVERY_SCHOOL),
        register=data.get("register", ""),
        pupil=data.get("pupil", ""),
        cause=cause,
    )
