"""What Prometheus is told. One registry per application, so that two servers in one process never share a counter."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from clientcore.exchange import SYNC_PATH
from syncserver.admission import Lane

_SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256)
_SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5)

__all__ = ["CONTENT_TYPE_LATEST", "Metrics"]


class Metrics:
    """The server's instruments; names as they stand in docs/operations.md."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        self.requests = Counter("hudur_requests", "Requests answered", ["route", "status"], registry=registry)
        self.sync_busy = self.requests.labels(SYNC_PATH, "503")
        self.request_s = Histogram(
            "hudur_request_seconds",
            "From the request's head to the end of its answer",
            buckets=_SECONDS,
            registry=registry,
        )
        verdicts = Counter("hudur_changes", "Changes received, by verdict", ["verdict"], registry=registry)
        self.verdicts = [verdicts.labels(name) for name in ("durable", "duplicate", "held", "refused")]
        self.frames = Counter("hudur_frames", "Frames received", registry=registry)
        self.problems = Counter("hudur_problems", "Problems answered", ["slug"], registry=registry)
        self.commit_size = Histogram(
            "hudur_commit_batch_size", "Pushes in one durable commit", buckets=_SIZES, registry=registry
        )
        self.commit_s = Histogram(
            "hudur_commit_seconds", "Time of one durable commit", buckets=_SECONDS, registry=registry
        )
        shed = Counter("hudur_shed", "Requests asked to come later", ["lane"], registry=registry)
        self.shed = [shed.labels(lane.name.lower()) for lane in Lane]
        self.postponed = Counter("hudur_pulls_postponed", "Pulls answered later than the push", registry=registry)
        self.entrance_waiting = Gauge(
            "hudur_entrance_waiting", "Requests waiting for their turn", ["lane"], registry=registry
        )
        self.entrance_delay_s = Gauge(
            "hudur_entrance_delay_seconds", "Shortest delay of the last interval", ["lane"], registry=registry
        )
        self.entrance_sheds = Gauge(
            "hudur_entrance_shedding", "1 while this lane or a more urgent one sheds", ["lane"], registry=registry
        )
        self.loop_lag_s = Gauge("hudur_loop_lag_seconds", "Last round of the event loop", registry=registry)
        self.waiting = Gauge("hudur_commit_waiting", "Pushes waiting for a commit", registry=registry)
        self.store_failures = Counter("hudur_store_failures", "Commits that failed", registry=registry)
        self.lag_offsets = Gauge("hudur_consumer_lag_offsets", "Changes not settled yet", registry=registry)
        self.lag_s = Gauge("hudur_consumer_lag_seconds", "Age of the oldest change not settled yet", registry=registry)
        self.dead_letters = Gauge("hudur_dead_letters", "Changes nobody could process", registry=registry)
        self.sink_backlog = Gauge("hudur_webhook_backlog_events", "Events that wait", ["sink"], registry=registry)
        self.sink_lag_s = Gauge("hudur_webhook_lag_seconds", "Age of the oldest of them", ["sink"], registry=registry)
        self.sink_failures = Gauge(
            "hudur_webhook_failures", "Tries since the last that was taken", ["sink"], registry=registry
        )
        self.feed_age_s = Gauge("hudur_upstream_feed_age_seconds", "Since upstream was last heard", registry=registry)
        self.settled = Counter("hudur_settled_registers", "Registers settled", registry=registry)
        self.events = Counter("hudur_events", "Events written", registry=registry)

    def write(self) -> bytes:
        """The exposition."""
        return generate_latest(self.registry)
