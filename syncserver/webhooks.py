"""Signed webhooks (Standard Webhooks): each sink is served by a task of its own, from its own place in the feed.

Invariants:
  1. A sink's place moves only after its consumer answered 2xx: every event comes at least once, in the feed's order.
  2. A batch is planned in the store before its first try; every try of it, also after a crash, carries the same bytes
     under the same `webhook-id`.
  3. Nobody waits for anybody: a consumer that is slow, dead or hostile costs one connection, one deadline and a few
     kilobytes, and delays no other.
  4. A consumer that fails is tried again for as long as it takes, in growing gaps; nothing is skipped unless a person
     orders it. 410 Gone is the consumer's own word that it is over.
  5. Secrets, bodies and addresses are in no log.
"""

from __future__ import annotations

import asyncio
import json
import logging
import ssl
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from enum import Enum, auto
from typing import Any, cast

import httpx
from standardwebhooks import Webhook

from syncserver import feed
from syncserver.config import Config
from syncserver.errors import StoreFailed
from syncserver.metrics import Metrics
from syncserver.ports import ServerPorts
from syncserver.problems import trace
from syncserver.store import audit
from syncserver.store import sinks as rows
from syncserver.store.port import Database, Reader, Transaction

_LOG = logging.getLogger("hudur.webhooks")
BATCH_EVENTS_MAX, BATCH_BYTES_MAX = 500, 512_000
DEADLINE_S = 30  # from connecting to the head of the answer
GAP_FIRST_MS, GAP_MAX_MS = 5_000, 4 * 3_600_000  # a weekend of silence is some thirty tries
RETRY_AFTER_MAX_MS = 24 * 3_600_000
_GAP_MIN_MS = 1_000
_ANSWER_BYTES_MAX, _ANSWER_S = 16_384, 2  # read only so that the connection can be used again
_PASS_OVER_EVERY_MS = 60_000
_GONE = 410
_AGENT = "hudur-webhooks/1"


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """What one request carries."""

    id: str
    last_seq: int
    body: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What became of a try; `status` 0 when nothing usable came back."""

    status: int
    result: str
    retry_after: str | None = None

    @property
    def taken(self) -> bool:
        """Whether the consumer has the batch."""
        return 200 <= self.status < 300


class Step(Enum):
    """What one look at a sink came to."""

    TAKEN = auto()
    WAIT = auto()
    OVER = auto()


async def run(db: Database, config: Config, ports: ServerPorts) -> None:
    """Serve every active sink; runs until cancelled.

    Waiting is real time, as in the settle stage; *whether* a try is due is asked of the clock port.
    """
    for noisy in ("httpx", "httpcore"):  # they would log addresses, which may hold a consumer's own secret
        logging.getLogger(noisy).setLevel(logging.WARNING)
    serving: dict[str, asyncio.Task[None]] = {}
    try:
        while True:
            try:
                for name in await rows.active_names(db):
                    if name not in serving or serving[name].done():
                        serving[name] = asyncio.create_task(_serve(name, db, config, ports))
            except StoreFailed as failed:
                _LOG.error("webhooks wait for the store: %s", failed)
            except Exception as fault:  # ours: it must not end the stage
                _LOG.error("fault in the webhook stage: %s", trace(fault))
            await _pause(config)
    finally:
        for task in serving.values():
            task.cancel()
        await asyncio.gather(*serving.values(), return_exceptions=True)


async def _pause(config: Config) -> None:
    with suppress(TimeoutError):
        async with asyncio.timeout(config.poll_ms / 1000):
            await asyncio.Event().wait()


async def _serve(name: str, db: Database, config: Config, ports: ServerPorts) -> None:
    """Deliver to one sink until it is not active any more."""
    async with _client() as http:
        courier = Courier(name, db, ports, http)
        step = Step.WAIT
        while step is not Step.OVER:
            try:
                step = await courier.step()
            except StoreFailed as failed:
                _LOG.error("webhook %s waits for the store: %s", name, failed)
                step = Step.WAIT
            except Exception as fault:  # ours: this sink is tried again, the others do not notice
                _LOG.error("fault in webhook %s: %s", name, trace(fault))
                step = Step.WAIT
            if step is Step.WAIT:
                await _pause(config)


def _client() -> httpx.AsyncClient:
    """One connection; no proxies or certificates from the environment, no redirects: an address is what was agreed."""
    return httpx.AsyncClient(
        verify=ssl.create_default_context(),
        trust_env=False,
        follow_redirects=False,
        timeout=DEADLINE_S,
        limits=httpx.Limits(max_connections=1),
        headers={"user-agent": _AGENT, "content-type": feed.MEDIA_TYPE},
    )


class Courier:
    """Carries the feed to one sink, step by step."""

    def __init__(self, name: str, db: Database, ports: ServerPorts, http: httpx.AsyncClient) -> None:
        self._name, self._db, self._ports, self._http = name, db, ports, http
        self._nothing_to = 0  # no event up to here is for this sink and unsent
        self._passed_ms = 0

    async def step(self) -> Step:
        """Send what is due, at most one batch."""
        sink = await rows.read_sink(self._db, self._name)
        if sink is None or sink.state != rows.ACTIVE:
            return Step.OVER
        if not is_due(sink.next_try_ms, self._ports.clock.wall_ms()) or self._db.failed:
            return Step.WAIT  # what cannot be noted is not sent: it would be sent again with every look
        batch = await self._batch(sink)
        if batch is None:
            return Step.WAIT
        answer = await self._post(sink, batch)
        await self._note(sink, batch, answer)
        return Step.TAKEN if answer.taken else Step.WAIT

    async def _batch(self, sink: rows.Sink) -> Batch | None:
        """The batch that was planned, or a new one, planned; None when nothing waits."""
        events = await self._planned(sink) if sink.planned_seq is not None else await self._next(sink)
        if not events:
            return None
        first, last = int(events[0]["sequence"]), int(events[-1]["sequence"])
        if sink.planned_seq is None:
            async with self._db.transaction() as tx:
                if not await rows.plan(tx, sink, last):
                    return None
        return Batch(id=f"{sink.name}_{sink.generation}_{first}_{last}", last_seq=last, body=_write(events))

    async def _planned(self, sink: rows.Sink) -> list[dict[str, Any]]:
        assert sink.planned_seq is not None
        page = await feed.read_page(
            self._db, after=sink.sent_seq, limit=BATCH_EVENTS_MAX, schools=sink.schools, up_to=sink.planned_seq
        )
        return page.events

    async def _next(self, sink: rows.Sink) -> list[dict[str, Any]]:
        head = await feed.read_head(self._db)
        if head <= max(sink.sent_seq, self._nothing_to):
            return []
        page = await feed.read_page(self._db, after=sink.sent_seq, limit=BATCH_EVENTS_MAX, schools=sink.schools)
        if not page.events:
            self._nothing_to = head
            await self._pass_over(sink, head)
        return cut(page.events)

    async def _pass_over(self, sink: rows.Sink, head: int) -> None:
        """Now and then a sink of few schools moves over what is not for it, so that looking stays cheap."""
        now_ms = self._ports.clock.wall_ms()
        if abs(now_ms - self._passed_ms) >= _PASS_OVER_EVERY_MS:
            self._passed_ms = now_ms
            async with self._db.transaction() as tx:
                await rows.pass_over(tx, sink, head)

    async def _post(self, sink: rows.Sink, batch: Batch) -> Answer:
        at_s = self._ports.clock.wall_ms() // 1000
        headers = {
            "webhook-id": batch.id,
            "webhook-timestamp": str(at_s),
            "webhook-signature": Webhook(sink.secret).sign(batch.id, datetime.fromtimestamp(at_s, tz=UTC), batch.body),
        }
        request = self._http.build_request("POST", sink.url, content=batch.body.encode(), headers=headers)
        try:
            async with asyncio.timeout(DEADLINE_S):
                reply = await self._http.send(request, stream=True)
        except TimeoutError:
            return Answer(status=0, result="timeout")
        except (httpx.HTTPError, httpx.InvalidURL) as broken:
            return Answer(status=0, result=type(broken).__name__)
        try:
            await _drain(reply)
        finally:
            self._http.cookies.clear()
            await reply.aclose()
        return Answer(
            status=reply.status_code, result=f"http {reply.status_code}", retry_after=reply.headers.get("retry-after")
        )

    async def _note(self, sink: rows.Sink, batch: Batch, answer: Answer) -> None:
        now_ms = self._ports.clock.wall_ms()
        async with self._db.transaction() as tx:
            if answer.taken:
                await rows.write_taken(tx, sink, batch.last_seq, result=answer.result, now_ms=now_ms)
                return
            gap = gap_ms(sink.failures, self._ports.random.fraction(), retry_after_ms(answer.retry_after, now_ms))
            await rows.write_failed(tx, sink, result=answer.result, now_ms=now_ms, next_try_ms=now_ms + gap)
            if answer.status == _GONE:
                now = await rows.read_sink(tx, sink.name)
                if now is not None and (now.state, now.generation) == (rows.ACTIVE, sink.generation):
                    await _end(tx, now, now_ms)
        _LOG.warning("webhook %s did not take its batch: %s", sink.name, answer.result)


async def _end(tx: Transaction, sink: rows.Sink, now_ms: int) -> None:
    await audit.record(
        tx,
        at_ms=now_ms,
        actor="server",
        action="sink-ended",
        subject=f"sink:{sink.name}",
        reason="the consumer answered 410 Gone",
        before={"state": sink.state},
        after={"state": rows.ENDED, "sent_seq": sink.sent_seq},
    )
    await rows.set_state(tx, sink.name, rows.ENDED, ended_ms=now_ms)


async def _drain(reply: httpx.Response) -> None:
    """Read a short answer to its end; what is long, slow or broken after the status changes nothing."""
    size, raw = 0, cast("AsyncGenerator[bytes, None]", reply.aiter_raw())
    with suppress(TimeoutError, httpx.HTTPError):
        async with asyncio.timeout(_ANSWER_S), aclosing(raw) as parts:
            async for part in parts:
                size += len(part)
                if size > _ANSWER_BYTES_MAX:
                    return


def _write(events: Sequence[dict[str, Any]]) -> str:
    return f"[{','.join(_line(event) for event in events)}]"


def _line(event: dict[str, Any]) -> str:
    return json.dumps(event, ensure_ascii=False, separators=(",", ":"))


def cut(events: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """As many of the first events as one body may hold; one at least."""
    size = 1
    for count, event in enumerate(events):
        size += len(_line(event).encode()) + 1
        if size > BATCH_BYTES_MAX and count:
            return events[:count]
    return events


def is_due(next_try_ms: int, now_ms: int) -> bool:
    """Whether a try may be made; a wall clock that was put back makes nobody wait for more than the longest."""
    return not now_ms < next_try_ms <= now_ms + RETRY_AFTER_MAX_MS


def gap_ms(failures: int, fraction: float, asked_ms: int | None) -> int:
    """How long to wait after one more failure.

    Args:
        failures: How many came before it since the last success.
        fraction: Chance, in [0, 1): full jitter, so that many sinks of one host do not come back at one moment.
        asked_ms: What the consumer asked for; never waited shorter than that.
    """
    highest = min(GAP_MAX_MS, GAP_FIRST_MS << min(failures, 20))
    gap = max(_GAP_MIN_MS, int(highest * fraction))
    return gap if asked_ms is None else max(gap, min(asked_ms, RETRY_AFTER_MAX_MS))


def retry_after_ms(text: str | None, now_ms: int) -> int | None:
    """What a `Retry-After` asks for: seconds, or an HTTP date; None when it says nothing that can be read."""
    if text is None:
        return None
    if text.isascii() and text.isdecimal():
        return int(text[:9]) * 1000
    try:
        return max(0, int(parsedate_to_datetime(text).timestamp() * 1000) - now_ms)
    except (ValueError, OverflowError):
        return None


# ---- what the metrics tell --------------------------------------------------------------------------------------


async def tell_lag(reader: Reader, metrics: Metrics, now_ms: int) -> None:
    """Bring the gauges of every sink that has not ended up to date: asked at every scrape."""
    gauges = (metrics.sink_backlog, metrics.sink_lag_s, metrics.sink_failures)
    for gauge in gauges:
        gauge.clear()
    for sink in await rows.read_sinks(reader):
        if sink.state != rows.ENDED:
            waiting = await rows.read_backlog(reader, sink)
            lag_s = await age_ms(reader, waiting, now_ms) / 1000
            told = (waiting.events, lag_s, sink.failures)
            for gauge, value in zip(gauges, told, strict=True):
                gauge.labels(sink.name).set(value)


async def age_ms(reader: Reader, waiting: rows.Backlog, now_ms: int) -> int:
    """Age of the oldest event that waits."""
    if waiting.first_seq is None:
        return 0
    page = await feed.read_page(reader, after=waiting.first_seq - 1, limit=1)
    return max(0, now_ms - int(datetime.fromisoformat(page.events[0]["time"]).timestamp() * 1000))
