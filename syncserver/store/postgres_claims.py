"""Claims on PostgreSQL: advisory locks of one session (see `syncserver.store.claims`)."""

from __future__ import annotations

import asyncio
import contextlib
import zlib

import asyncpg

from syncserver.store.postgres_schema import SPACE
from syncserver.store.postgres_session import CUT, SETTINGS, translated

_PRESENT = 5
# Asked every `poll_ms`; a process that froze says nothing, and its claims end. A cut connection does not show that.
_SETTINGS = {**SETTINGS, "application_name": "hudur claims", "idle_session_timeout": "15s"}


class PostgresClaims:
    """Claims as advisory locks of one session (see `syncserver.store.claims.Claims`)."""

    def __init__(self, inner: asyncpg.Connection) -> None:
        self._inner = inner
        self._ours: set[str] = set()

    @classmethod
    async def open(cls, dsn: str) -> PostgresClaims:
        """Begin a session."""
        inner = await asyncpg.connect(dsn, server_settings=_SETTINGS, timeout=10)
        await inner.execute(f"SELECT pg_advisory_lock_shared({SPACE}, {_PRESENT})")
        return cls(inner)

    async def present(self) -> int:
        """See `Claims`."""
        with translated():
            return int(
                await self._inner.fetchval(
                    """SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND granted AND classid = $1
                    AND objid = $2 AND database = (SELECT oid FROM pg_database WHERE datname = current_database())""",
                    SPACE,
                    _PRESENT,
                )
            )

    async def claim(self, name: str) -> bool:
        """See `Claims`."""
        if name in self._ours:
            return True
        with translated():
            if await self._inner.fetchval("SELECT pg_try_advisory_lock($1, $2)", SPACE, _number(name)):
                self._ours.add(name)
        return name in self._ours

    async def release(self, name: str) -> None:
        """See `Claims`."""
        with translated():
            await self._inner.execute("SELECT pg_advisory_unlock($1, $2)", SPACE, _number(name))
        self._ours.discard(name)

    async def close(self) -> None:
        """See `Claims`."""
        with contextlib.suppress(asyncpg.PostgresError, *CUT):
            await asyncio.wait_for(self._inner.close(), timeout=5)


def _number(name: str) -> int:
    return (zlib.crc32(name.encode()) & 0x3FFFFFFF) + 100  # beyond the numbers that mean something
