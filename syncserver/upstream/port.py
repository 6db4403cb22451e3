"""The door to the school system: what is asked of one, whatever it speaks.

`rest.py` is the one that speaks OneRoster 1.2 and our own attendance routes (docs/handoff.md). Another system gets a
class of its own behind the same door; everything else of this package knows only what stands here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from clientcore.errors import RemoteError, TransportError
from syncserver.upstream.digests import ClassKey, Line, Tally


class UpstreamSilent(TransportError):
    """It did not answer, or said that it cannot now: the same question is put again later.

    Attributes:
        status: HTTP status; 0 when nothing usable came.
        retry_after: Its `Retry-After`, as it stands.
    """

    retryable = True

    def __init__(self, endpoint: str, detail: str, *, status: int = 0, retry_after: str | None = None) -> None:
        super().__init__("upstream-silent", f"{endpoint}: {detail}")
        self.endpoint, self.status, self.retry_after = endpoint, status, retry_after


class ContractBroken(RemoteError):
    """It answered something else than was agreed; nothing of the answer is used. Never quotes a value.

    Attributes:
        endpoint: Where, e.g. `users`.
        field: Which, e.g. `[3].roles[0].org.sourcedId`; empty: the answer as a whole.
        expected: What stands there by the agreement.
    """

    def __init__(self, endpoint: str, field: str, expected: str, found: str) -> None:
        super().__init__("upstream-contract", f"{endpoint}{field}: expected {expected}, found {found}")
        self.endpoint, self.field, self.expected, self.found = endpoint, field, expected, found


@dataclass(frozen=True, slots=True, kw_only=True)
class Pulled:
    """A whole roster.

    Attributes:
        archive: The OneRoster CSV zip it comes to: every rule of an import is that of a file.
        dropped: `users.email` to how many values of it stayed outside.
        fields: Per endpoint, the fields we use that were filled at least once.
    """

    archive: bytes
    dropped: Mapping[str, int]
    fields: Mapping[str, Sequence[str]]


@dataclass(frozen=True, slots=True, kw_only=True)
class PersonNow:
    """What upstream says of a person who changed.

    Attributes:
        user_id: Upstream's id, which is ours.
        modified_ms: When it changed, by upstream's clock.
        withdrawn: Deleted, or not permitted to use systems.
        posts: Where the person is staff: school to the first day after it, None while it has no end. A post that
            was taken away is not among them.
    """

    user_id: str
    modified_ms: int
    withdrawn: bool
    posts: Mapping[str, str | None] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """What became of one event; `cause` is None when it was accepted."""

    id: str
    cause: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class DayThere:
    """What upstream holds of a date: a tally per class."""

    classes: Mapping[ClassKey, Tally]


class Upstream(Protocol):
    """A school system.

    Every method raises `UpstreamSilent` and `ContractBroken`, and gives all or nothing.
    """

    async def roster(self) -> Pulled:
        """Everything, as it is now."""
        ...

    async def people_changed(self, since_ms: int) -> list[PersonNow]:
        """People whose record changed after a moment of upstream's clock."""
        ...

    async def enrolments_changed(self, since_ms: int) -> list[int]:
        """When each enrolment changed that did so after a moment, by upstream's clock."""
        ...

    async def send(self, events: Sequence[Mapping[str, Any]]) -> list[Reply]:
        """Hand over events of the feed; each gets its own word."""
        ...

    async def day(self, date: str) -> DayThere:
        """What it holds of a date, counted."""
        ...

    async def lines(self, key: ClassKey, date: str) -> list[Line]:
        """What it holds of a class on a date, pupil by pupil."""
        ...
