"""Who does what only one process may do: consumers of a partition, and the stages beside them.

A claim is held by a session with the database and ends with it, whatever became of the process. That a holder was lost
without knowing it (it slept, its session was cut) is what fences are for: see `syncserver.store.consuming.take_fence`.
"""

from __future__ import annotations

from typing import Protocol


class Claims(Protocol):
    """The claims of one process."""

    async def present(self) -> int:
        """How many processes take part, this one included.

        Raises:
            StoreFailed: the session is lost, and with it every claim.
        """
        ...

    async def claim(self, name: str) -> bool:
        """Take `name` if nobody holds it; whether it is ours now. Taking what is ours already is no harm.

        Raises:
            StoreFailed: as `present`.
        """
        ...

    async def release(self, name: str) -> None:
        """Let `name` go.

        Raises:
            StoreFailed: as `present`.
        """
        ...

    async def close(self) -> None:
        """End the session; every claim ends with it."""
        ...


class SoleClaims:
    """Of a store that one process alone can write: everything is its own."""

    async def present(self) -> int:
        """See `Claims`."""
        return 1

    async def claim(self, name: str) -> bool:  # noqa: ARG002  (nobody else is there to hold it)
        """See `Claims`."""
        return True

    async def release(self, name: str) -> None:
        """See `Claims`."""

    async def close(self) -> None:
        """See `Claims`."""
