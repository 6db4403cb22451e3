"""Everything that can go wrong in the server, as one tree under clientcore's root.

HudurError
├── StoreError
│   ├── StoreFailed        the disk failed; nothing is acknowledged until the store was reopened and verified
│   │   └── StoreBusy      others held what was needed for too long: nothing was written, the store is fine
│   ├── ReplicaBehind      the copy to read from is too old, or out of reach: nothing was read
│   ├── ConstraintBroken   rows that contradict the schema: a fault of ours, nothing was written
│   └── StoreInUse         another server holds the store file
├── LocalError
│   ├── ConfigError        the configuration cannot be used; says what to change
│   └── RestoreRefused     a backup that must not be made, trusted or put in place; says why
└── RequestProblem         a request that gets an RFC 9457 problem (docs/protocol.md section 9)
"""

from __future__ import annotations

from collections.abc import Mapping

from clientcore.errors import HudurError, LocalError, StoreError


class StoreFailed(StoreError):
    """The disk failed: nothing is acknowledged until the store was reopened and verified."""


class StoreBusy(StoreFailed):
    """Others held what was needed for too long: nothing was written, and the store need not be reopened."""


class ReplicaBehind(StoreError):
    """The copy to read from is older than the bound, or out of reach; the store itself may be well."""


class ConstraintBroken(StoreError):
    """Rows contradict the schema; nothing was written."""

    retryable = False


class StoreInUse(StoreError):
    """Another server holds the store file: a second writer could corrupt it."""


class Fenced(StoreError):
    """Somebody else has taken over what this process was doing; nothing of it was written."""

    retryable = False


class ConfigError(LocalError):
    """The configuration cannot be used."""


class RestoreRefused(LocalError):
    """A backup or restore that would overwrite, mix up or lose something; nothing was changed."""


class MigrationRefused(LocalError):
    """A store cannot be copied into another."""


class RequestProblem(HudurError):
    """A request that cannot be served; becomes a problem document.

    Attributes:
        held: Number of changes that were kept all the same.
        retry_after_s: Whole seconds for `Retry-After`, or None.
        extra: Further members of the document, e.g. `nonce`, `range`.
    """

    def __init__(
        self,
        code: str,
        detail: str = "",
        *,
        held: int = 0,
        retry_after_s: int | None = None,
        extra: Mapping[str, str | int] | None = None,
    ) -> None:
        super().__init__(code, detail)
        self.held = held
        self.retry_after_s = retry_after_s
        self.extra = dict(extra or {})
