"""Invariants looked at while the world runs: at every opening of the server, every answer, every page of the feed."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from typing import Any

from reconciliation.events import WITHDRAWN
from syncserver.errors import StoreFailed
from syncserver.feed import RESTORED
from syncserver.store.port import Database
from tests.simulator.asgi import Answered
from tests.simulator.lab import Lab
from tests.simulator.ledger import ChangeName
from tests.simulator.server import ServerHost, Unreachable

SMALL_PAGE, LARGE_PAGE = 7, 500  # events of one register come in batches of one row: pages end within them
SETTLED_WITHIN_MS = 60_000  # a failed round waits a second and is tried again; a restart takes at most five minutes
_NEWLY_CONFIRMED = """
SELECT s.seq, c.school || '/' || c.class_id || '/' || c.date || '/' || c.session, c.hash FROM settlements s
JOIN changes c ON c.log_offset = s.log_offset WHERE s.seq > ? AND s.state = 1 ORDER BY s.seq"""
_ALL_CHANGES = "SELECT school || '/' || class_id || '/' || date || '/' || session, hash FROM changes"
_OLDEST_UNSETTLED = """
SELECT min(f.received_ms) FROM changes c JOIN frames f ON f.id = c.frame_id
WHERE c.log_offset > (SELECT coalesce(max(log_offset), 0) FROM consumers)"""


@dataclass(slots=True)
class Watch:
    """The checks of one world that follow the server."""

    lab: Lab
    host: ServerHost
    lateness_ms: list[int] = field(default_factory=list)
    restores: int = 0
    _confirmed_seq: int = 0
    _up_since_ms: int = 0
    _disk_faults: int = 0

    def attach(self) -> None:
        """Be told what the server does."""
        self.lab.server_opened = self.opened
        self.lab.server_answered = self.answered
        self.lab.server_reached = self.reached
        self.lab.server_restored = self.restored

    async def opened(self, host: ServerHost) -> None:
        """I2: everything promised is in the log, whatever the last process died of."""
        self._up_since_ms = self.lab.now_ms
        self._note_confirmed(host)  # the last process may have died of the commit itself
        stored = await self.stored(host.database)
        ledger = self.lab.ledger
        missing = [name for name in ledger.promised if name not in stored and name not in ledger.owed]
        ledger.check("I2", not missing, f"promised and not in the log after a start: {_names(missing)}")
        ledger.owed -= stored  # once back it may not be lost again

    async def stored(self, db: Database) -> set[ChangeName]:
        """Every change of the log."""
        return {(register, digest) for register, digest in await db.fetch_all(_ALL_CHANGES)}

    async def answered(self, host: ServerHost, path: str, body: bytes, answered: Answered) -> None:
        """Look at one answer before it leaves: what it promises, and whether the consumer keeps up."""
        ledger, now_ms = self.lab.ledger, self.lab.now_ms
        self.lab.trace("server", f"{path} {answered.status}", answered.body)
        ledger.check("I7", answered.status != 500, f"{path}: 500 {answered.body[:200]!r}")
        if answered.status == 403 and path == "/v1/sync":
            problem = json.loads(answered.body)
            if problem.get("type") == "/problems/revoked":
                ledger.refused_device(path, body, int(problem.get("held", -1)))
        if answered.status != 200 or path not in ("/v1/sync", "/v1/bundles") or host.key is None:
            return
        new = ledger.answered(path, body, answered.body, server_key=host.key.public, at_ms=now_ms)
        for register, digest in new:
            self._arrived(register, digest, now_ms)
        await self.look(host)

    def _arrived(self, register: str, digest: bytes, now_ms: int) -> None:
        tapped = [
            self.lab.ledger.tapped[mark][2]
            for mark in self.lab.ledger.marks_of(register, digest)
            if mark in self.lab.ledger.tapped
        ]
        if tapped:
            self.lateness_ms.append(now_ms - min(tapped))

    def reached(self, host: ServerHost, point: str) -> None:
        """Keep what the store calls confirmed at the very commit: a moment later the word may be another one."""
        if point == "settle.after_commit":
            self._note_confirmed(host)

    def _note_confirmed(self, host: ServerHost) -> None:
        for seq, register, digest in host.rows(_NEWLY_CONFIRMED, (self._confirmed_seq,)):
            self._confirmed_seq = seq
            self.lab.ledger.confirmed.add((register, digest))

    async def look(self, host: ServerHost) -> None:
        """See that the consumer keeps up (I7)."""
        if not host.is_open:
            return  # it died with the answer in its hands
        try:
            lag = await host.database.fetch_one(_OLDEST_UNSETTLED)
        except StoreFailed:
            return
        if host.disk.faults.total() != self._disk_faults:  # a disk that failed a moment ago has its time to be mended
            self._disk_faults, self._up_since_ms = host.disk.faults.total(), self.lab.now_ms
        oldest_ms = None if lag is None or lag[0] is None else host.clock.wall_ms() - lag[0]
        quiet = self.lab.now_ms - self._up_since_ms > SETTLED_WITHIN_MS and not host.disk.is_armed
        if quiet:
            late = oldest_ms is not None and oldest_ms > SETTLED_WITHIN_MS
            self.lab.ledger.check("I7", not late, f"a change waits {oldest_ms} ms for the consumer")

    def restored(self) -> None:
        """The log was set back: sequences begin again."""
        self.restores += 1
        self.lab.ledger.epochs += 1
        self._confirmed_seq = 0


def _names(names: list[ChangeName]) -> str:
    return ", ".join(f"{register} {digest.hex()[:12]}" for register, digest in names[:3])


@dataclass(slots=True)
class Reader:
    """A consumer of the feed that forgets nothing (I6)."""

    lab: Lab
    host: ServerHost
    after: int = 0
    seen: dict[str, bytes] = field(default_factory=dict)
    order: list[tuple[str, int]] = field(default_factory=list)
    told: set[str] = field(default_factory=set)  # since the beginning, or since it began again
    epoch: int = 1
    again: int = 0
    events: list[tuple[int, dict[str, Any]]] = field(default_factory=list)
    void: list[tuple[int, int]] = field(default_factory=list)

    async def read(self) -> None:
        """Read what is new; an event is never told again with other content, nor a sequence skipped."""
        while True:
            page = await self._page(self.after, limit=LARGE_PAGE)
            if not page:
                return
            for event in page:
                self._take(event)
                if not self.after:
                    break  # begun again: the rest of this page comes once more

    async def read_again(self) -> None:
        """From the beginning: the same events, in the same order."""
        after, told = 0, []
        while page := await self._page(after, limit=SMALL_PAGE):
            told += page
            after = int(page[-1]["sequence"])
        ids = [str(event["id"]) for event in told]
        kept = [name for name, sequence in self.order if not self._is_void(sequence)]
        self.lab.ledger.check(
            "I6", ids == kept, f"read again: {len(ids)} events, kept of the first reading {len(kept)}"
        )
        self.lab.ledger.check("I6", len(set(ids)) == len(ids), "an event id stands twice in the feed")
        for event in told:
            same = self.seen.get(str(event["id"])) == _digest(event)
            self.lab.ledger.check("I6", same, f"event {event['id']} reads differently now")

    async def _page(self, after: int, *, limit: int) -> list[dict[str, Any]]:
        while True:
            await self.host.up()
            try:
                return await self.host.feed(after, limit=limit)
            except Unreachable:
                await self.lab.sleep_ms(5_000)

    def _take(self, event: dict[str, Any]) -> None:
        ledger, name, sequence = self.lab.ledger, str(event["id"]), int(event["sequence"])
        if event["type"] == RESTORED and int(event["data"]["continues"]) != self.epoch:
            self._begin_again(name)  # it followed a log that was replaced since
            return
        if event["type"] == RESTORED:  # what lies between was told by a log that is no more
            self.epoch = int(event["data"]["epoch"])
            self.void.append((int(event["data"]["void_after"]), int(event["data"]["void_before"])))
            ledger.check("I6", sequence == self.void[-1][1] > self.after, f"restored at {sequence} after {self.after}")
        else:
            ledger.check("I6", sequence == self.after + 1, f"sequence {sequence} follows {self.after}")
        digest = _digest(event)
        known = self.seen.setdefault(name, digest)
        ledger.check("I6", known == digest, f"event {name} told with other content")
        ledger.check("I6", name not in self.told, f"event {name} told twice")
        self.told.add(name)
        self.order.append((name, sequence))
        self.events.append((sequence, event))
        self.after = sequence

    def _begin_again(self, mark: str) -> None:
        """Forget the position; what was seen under an id must still read the same."""
        self.after, self.epoch = 0, 1
        self.order, self.events, self.void, self.told = [], [], [], set()
        self.again += 1
        self.lab.ledger.check("I6", self.again <= self.host.restores, f"asked to begin again by {mark}")

    def _is_void(self, sequence: int) -> bool:
        return any(low < sequence < high for low, high in self.void)

    def standing(self) -> dict[str, dict[str, dict[str, Any]]]:
        """Per register and pupil the last thing said that still stands."""
        state: dict[str, dict[str, dict[str, Any]]] = {}
        for sequence, event in self.events:
            if event["type"] == RESTORED or self._is_void(sequence):
                continue
            data = event["data"]
            pupils = state.setdefault(str(data["register"]), {})
            if event["type"] == WITHDRAWN:
                pupils.pop(str(data["pupil"]), None)
            else:
                pupils[str(data["pupil"])] = data
        return state


def _digest(event: dict[str, Any]) -> bytes:
    return hashlib.sha256(repr(sorted(event.items())).encode()).digest()
