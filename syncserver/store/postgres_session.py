"""A session with PostgreSQL: how it is set, and what its errors mean to us."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import asyncpg

from syncserver.errors import ConstraintBroken, StoreBusy, StoreFailed

SETTINGS = {
    "application_name": "hudur",
    "synchronous_commit": "on",
    "default_transaction_isolation": "read committed",  # a lane sees what was committed while it waited for its lock
    "lock_timeout": "30s",
    "idle_in_transaction_session_timeout": "15s",  # a process that froze in a lane loses it before others give up
    "statement_timeout": "120s",
    "tcp_keepalives_idle": "10",
    "tcp_keepalives_interval": "5",
    "tcp_keepalives_count": "3",
    "jit": "off",
}
# The last: a migration added a column to what a cached statement reads.
AGAIN = (asyncpg.DeadlockDetectedError, asyncpg.SerializationError, asyncpg.InvalidCachedStatementError)
# The second: what asyncpg says when the session ends between two steps of one statement.
CUT = (asyncpg.InterfaceError, asyncpg.InternalClientError, OSError, TimeoutError)
_BUSY = (asyncpg.LockNotAvailableError, asyncpg.QueryCanceledError)
_OURS = (asyncpg.SyntaxOrAccessError, asyncpg.DataError)  # faults of our code: let them be seen as they are


@contextlib.contextmanager
def translated() -> Iterator[None]:
    """Turns the driver's errors into ours. No text of the server is passed on: it may hold data."""
    try:
        yield
    except asyncpg.IntegrityConstraintViolationError as error:
        raise ConstraintBroken("constraint", f"{type(error).__name__}: {error.constraint_name}") from error
    except (*AGAIN, *_OURS):
        raise
    except _BUSY as error:
        raise StoreBusy("busy", f"PostgreSQL: {type(error).__name__}") from error
    except (asyncpg.PostgresError, *CUT) as error:
        raise StoreFailed("storage", f"PostgreSQL: {type(error).__name__}") from error
