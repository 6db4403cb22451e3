"""Reading from a hot standby of PostgreSQL, and knowing how old what it says is.

The process that holds the claim `heartbeat` writes the time into one row of the primary every second. The standby's age
is the time since the beat it shows: that counts a slow replay, a cut stream and a primary that stopped alike, and a
standby that nobody replays into cannot look fresh.

Invariants:
  1. Beat and data are read in one snapshot: nothing that is given out is older than the time given with it.
  2. Nothing older than the bound is given out, and nothing of a server that is no standby (promoted, or never one).
  3. Nothing is written, and the primary is not asked instead.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from contextvars import ContextVar
from typing import Any, TypeVar

import asyncpg

from clientcore.ports import Clock
from syncserver.errors import ReplicaBehind, StoreFailed
from syncserver.problems import trace
from syncserver.store.port import Database, Reader, Transaction
from syncserver.store.postgres import as_it_is, prepare
from syncserver.store.postgres_reader import PostgresReader
from syncserver.store.postgres_session import AGAIN, SETTINGS, translated

T = TypeVar("T")

AS_OF: ContextVar[int | None] = ContextVar("as_of", default=None)
"""What the request being answered was last told by a replica, for the header of a device's answer (`body.py`)."""

BEAT_S = 1.0
_READ_ONLY = {**SETTINGS, "application_name": "hudur replica", "default_transaction_read_only": "on"}
_POOL_MAX = 12
_CONNECT_S = 2
_REST_MS = 1_000  # after it could not be reached: whoever pulls meanwhile gets the receipts without waiting for it
_BEAT = "SELECT at_ms FROM heartbeat WHERE id = 1 AND pg_is_in_recovery()"
_LOG = logging.getLogger("hudur.replica")


class Replica:
    """A pool of reading connections to one standby; connects when it is first asked."""

    def __init__(self, dsn: str, clock: Clock, *, stale_max_ms: int) -> None:
        self._dsn, self._clock, self._stale_max_ms = dsn, clock, stale_max_ms
        self._pool: asyncpg.Pool | None = None
        self._opening = asyncio.Lock()
        self._rests_until_ms: int | None = None

    async def read(self, work: Callable[[Reader], Coroutine[Any, Any, T]]) -> tuple[T, int]:
        """Run `work` over one snapshot of the standby.

        Args:
            work: May await nothing but the reader it is given.

        Returns:
            Its result, and the moment of the primary it speaks of at least (ms since 1970).

        Raises:
            ReplicaBehind: older than the bound, out of reach, or cut off; `work` has told nobody anything.
        """
        if self._rests_until_ms is not None and self._clock.mono_ms() < self._rests_until_ms:
            raise ReplicaBehind("replica-behind", "the copy to read from cannot be reached")
        try:
            return await self._read(work)
        except (StoreFailed, *AGAIN) as failed:  # the second: the replay had to take away what was being read
            _LOG.warning("replica: %s", failed if isinstance(failed, StoreFailed) else type(failed).__name__)
            if isinstance(failed, StoreFailed):
                self._rests_until_ms = self._clock.mono_ms() + _REST_MS
            raise ReplicaBehind("replica-behind", "the copy to read from cannot be reached") from failed

    async def _read(self, work: Callable[[Reader], Coroutine[Any, Any, T]]) -> tuple[T, int]:
        pool = await self._open()
        with translated():
            inner = await pool.acquire(timeout=_CONNECT_S)
        try:
            with translated():
                snapshot = inner.transaction(isolation="repeatable_read", readonly=True)
                await snapshot.start()
            try:
                reader = PostgresReader(inner)
                as_of_ms = self._check_age(await reader.fetch_one(_BEAT))
                return await work(reader), as_of_ms
            finally:
                with translated():
                    await asyncio.shield(snapshot.rollback())
        finally:
            await pool.release(inner)

    def _check_age(self, beat: tuple[Any, ...] | None) -> int:
        if beat is None:
            raise ReplicaBehind("replica-behind", "what is read from is no copy that follows the store")
        age_ms = self._clock.wall_ms() - int(beat[0])
        if age_ms > self._stale_max_ms:
            raise ReplicaBehind("replica-behind", f"the copy to read from is {age_ms // 1_000} s behind")
        return int(beat[0])

    async def _open(self) -> asyncpg.Pool:
        async with self._opening:
            if self._pool is None:
                with translated():
                    self._pool = await asyncpg.create_pool(
                        self._dsn, min_size=0, max_size=_POOL_MAX, init=prepare, reset=as_it_is,
                        server_settings=_READ_ONLY, timeout=_CONNECT_S, command_timeout=60,
                        max_cached_statement_lifetime=0,
                    )  # fmt: skip
            return self._pool

    async def close(self) -> None:
        """End every connection."""
        pool, self._pool = self._pool, None
        if pool is not None:
            pool.terminate()  # they only read


async def read_from(
    replica: Replica | None, db: Database, work: Callable[[Reader], Coroutine[Any, Any, T]]
) -> tuple[T, int | None]:
    """Read from the replica where there is one, and when that was; else from the store, which is always the present.

    Raises:
        ReplicaBehind: see `Replica.read`.
    """
    return (await work(db), None) if replica is None else await replica.read(work)


async def beat(db: Database, clock: Clock) -> None:
    """Write the time once.

    Raises:
        StoreFailed: the store cannot be written.
    """

    async def write(tx: Transaction) -> None:
        await tx.execute(
            "INSERT INTO heartbeat VALUES (1, ?) ON CONFLICT (id) DO UPDATE SET at_ms = excluded.at_ms",
            (clock.wall_ms(),),
        )

    await db.atomically(write, lane="heartbeat")


async def run(db: Database, clock: Clock) -> None:
    """Beat once a second until cancelled; waiting is real time, as in the settle stage."""
    while True:
        try:
            await beat(db, clock)
        except StoreFailed as failed:
            _LOG.error("the heartbeat waits for the store: %s", failed)
        except Exception as fault:  # ours: it must not end the stage
            _LOG.error("fault in the heartbeat: %s", trace(fault))
        try:
            async with asyncio.timeout(BEAT_S):
                await asyncio.Event().wait()
        except TimeoutError:
            continue
