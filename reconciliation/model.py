"""The values the rules take and give: receipts and context in, one outcome out. Pure.

All times are integer milliseconds since 1970 UTC in *server* time unless a name says otherwise. An interval is
(from, to) with both ends possible. Hashes, devices and actors are bytes here and lower-case hex in plain data.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import IntEnum, StrEnum
from itertools import pairwise
from typing import TYPE_CHECKING

from clientcore.frame import ClockEvidence
from clientcore.register import Code, RegisterId
from reconciliation.decisions import NONE, Decisions, Ruling, check_aliases
from reconciliation.errors import BadContext

if TYPE_CHECKING:
    from reconciliation.calendar import SchoolCalendar

_CODES = {
    code.value: code for code in Code
}  # asked for with every mark: the enum's own look-up takes three times as long

Interval = tuple[int, int]
Zone = tuple[tuple[int, int], ...]
"""UTC offsets of the school's zone: (in force from, UTC ms; offset, s), ascending; the first also serves all before."""


class State(IntEnum):
    """What became of a change; the numbers are those of docs/protocol.md section 6 (`settled`)."""

    CONFIRMED = 1
    NEEDS_REVIEW = 2
    WAITING = 3


class Timeliness(StrEnum):
    """When a mark was made and came, measured against the register's window."""

    ON_TIME = "on_time"
    LATE_ARRIVAL = "late_arrival"
    ADJUSTMENT = "adjustment"


class Confidence(StrEnum):
    """How well the moment of capture is known (`clocks.py` says when which)."""

    HIGH = "high"
    MEDIUM = "medium"
    LOW = "low"


class Occasion(StrEnum):
    """Whether the session took place, by the marks at `~session`."""

    UNSTATED = "unstated"
    HELD = "held"
    NO_SESSION = "no_session"


@dataclass(frozen=True, slots=True, kw_only=True)
class Receipt:
    """How one change first reached the server. Later arrivals of the same change teach nothing and are left out.

    Attributes:
        change_hash: Identity of the change.
        device: 16 bytes; the device that made and signed it.
        user_id: Whose device it was at that moment: the author.
        received_at_ms: Server time of the durable commit.
        offset: Position in the change log.
        clock: What the device's clocks said when it signed the frame.
        relayed: Whether somebody else handed the frame in (bundle, file). For the trail: what the clocks prove holds
            for a frame that was carried as for one that waited for a network.
        delegation: Id of the delegation the author acted under, as the frame claims it. For the trail: what counts is
            the right in the context.
        offset_floor_ms: The least by which the server's time was ahead of the phone's clock (negative: behind it), as
            the last frame with a beacon before this one proved; None while none did.
    """

    change_hash: bytes
    device: bytes
    user_id: str
    received_at_ms: int
    offset: int
    clock: ClockEvidence
    relayed: bool = False
    delegation: str | None = None
    offset_floor_ms: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """When a register is taken in time: `opens_ms` belongs to it, `closes_ms` does not.

    Raises:
        BadContext: when it closes before it opens.
    """

    opens_ms: int
    closes_ms: int

    def __post_init__(self) -> None:
        if self.closes_ms <= self.opens_ms:
            raise BadContext("bad-context", f"a window closes after it opens: {self}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Right:
    """One span in which one user may mark one class: a post, a substitution, a delegation.

    Attributes:
        from_ms: First millisecond.
        until_ms: First millisecond after it; None while it has no end.
        revoked: The end is a revocation: what arrives after it is held, whenever it says it was made. After an
            ordinary end (a delegation ran out) marks made before it still count, however late they arrive.
        delegation: Id of the delegation it stems from, for the trail.
    """

    from_ms: int
    until_ms: int | None = None
    revoked: bool = False
    delegation: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """What surrounds a register on its day. A value: the same context and the same changes give the same outcome.

    Attributes:
        roster: Ids of the pupils expected that day.
        roster_version: Version of that roster, kept in the outcome as provenance; None while none has come.
        zone: UTC offsets of the school's zone.
        window: In server time; `calendar.day_window` gives the usual one.
        closed: Reason slug when the calendar says that the school is closed that day.
        entitled: User id to the rights for *this class*.
        revoked_devices: Device to the moment of its revocation.
        calendar: The school's, for working days; None: Sunday to Thursday without holidays.
        decisions: What people decided about this register.
        aliases: Duplicate pupil id to the id it was merged into.

    Raises:
        BadContext: when `zone` is empty or does not ascend, or an alias leads to an alias.
    """

    roster: frozenset[str]
    zone: Zone
    window: Window
    entitled: Mapping[str, tuple[Right, ...]]
    roster_version: str | None = None
    closed: str | None = None
    revoked_devices: Mapping[bytes, int] = field(default_factory=dict)
    calendar: SchoolCalendar | None = None
    decisions: Decisions = NONE
    aliases: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.zone or any(a[0] >= b[0] for a, b in pairwise(self.zone)):
            raise BadContext("bad-context", "the zone needs at least one offset, ascending")
        check_aliases(self.aliases)


@dataclass(frozen=True, slots=True, kw_only=True)
class Capture:
    """When a tap really happened, as far as the evidence goes.

    Attributes:
        at_ms: The moment shown: inside the interval, the one nearest to what the phone's clock said.
        interval: Earliest and latest moment possible; never after the receipt.
        confidence: How well it is known.
        clock_flag: The phone's clock contradicts the server or itself.
    """

    at_ms: int
    interval: Interval
    confidence: Confidence
    clock_flag: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class VisibleMark:
    """One mark that nothing supersedes, with where it comes from.

    Attributes:
        value: As stored, e.g. `E28815000:sick`.
        user_id: Its author.
        change_hash: The change that carries it.
        received_at_ms: When that change reached the server.
        captured: When it was made.
        timeliness: Against the register's window.
    """

    value: str
    user_id: str
    change_hash: bytes
    received_at_ms: int
    captured: Capture
    timeliness: Timeliness

    @property
    def code(self) -> Code:
        """What it says of the pupil."""
        return _CODES[self.value[0]]

    @property
    def reason(self) -> str | None:
        """Reason slug; for *late* the minutes in decimal."""
        return self.value.partition(":")[2] or None


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """The official answer for one pupil of the roster. Without a mark it is *not taken*, which is never *absent*.

    Attributes:
        mark: The visible mark that answers; None: not taken.
        disputed: Authors who had not seen each other's mark chose different codes; the code is provisional.
        values: Every visible mark, Automerge's winner last; kept also where the session did not take place.
        labels: Ascending slugs: `adjusted`, `calendar`, `clock`, `future`, `merged-record`, `released`, `ruled`,
            `settled-by-person`.
        ruling: The bulk operation that says something else than the mark.
        original: What stood before an approved adjustment or a ruling; None also when nothing did: see `labels`.
        chosen_by: Who settled a dispute.
    """

    mark: VisibleMark | None = None
    disputed: bool = False
    values: tuple[VisibleMark, ...] = ()
    labels: tuple[str, ...] = ()
    ruling: Ruling | None = None
    original: VisibleMark | None = None
    chosen_by: str | None = None

    @property
    def code(self) -> Code | None:
        """The official code; None: not taken."""
        if self.ruling is not None:
            return self.ruling.code
        return None if self.mark is None else self.mark.code

    @property
    def reason(self) -> str | None:
        """Reason slug; for *late* the minutes in decimal."""
        if self.ruling is not None:
            return self.ruling.reason
        return None if self.mark is None else self.mark.reason

    @property
    def captured_at_ms(self) -> int | None:
        """When the mark was made (`Capture.at_ms`)."""
        return None if self.mark is None else self.mark.captured.at_ms

    @property
    def captured_interval(self) -> Interval | None:
        """Earliest and latest moment at which it can have been made."""
        return None if self.mark is None else self.mark.captured.interval

    @property
    def received_at_ms(self) -> int | None:
        """When the server had it."""
        return None if self.mark is None else self.mark.received_at_ms

    @property
    def timeliness(self) -> Timeliness | None:
        """On time, late arrival or adjustment."""
        return None if self.mark is None else self.mark.timeliness

    @property
    def user_id(self) -> str | None:
        """Its author."""
        return None if self.mark is None else self.mark.user_id

    @property
    def change_hash(self) -> bytes | None:
        """The change that carries it."""
        return None if self.mark is None else self.mark.change_hash


NOT_TAKEN = Answer()


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldMark:
    """A mark that is stored and shown to the champion but is no answer until something or someone releases it.

    Attributes:
        key: Pupil id, or a key about the register itself.
        value: As stored.
        slug: Why: `unknown-pupil`, `out-of-scope`, `revoked`, `no-receipt`, `window-closed`, `adjustment-locked`,
            `adjustment-rejected`.
        user_id: Its author; None while no receipt names one.
        change_hash: The change that carries it.
    """

    key: str
    value: str
    slug: str
    user_id: str | None
    change_hash: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Settled:
    """What became of one change. `slug` says why it is not simply confirmed; `detail` is for operators only."""

    state: State
    slug: str | None = None
    detail: str | None = None

    @property
    def dead_letter(self) -> bool:
        """Whether no machine could process it: it contradicts its own dependencies."""
        return self.slug == "inconsistent"


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """The official register.

    Attributes:
        register: Which.
        roster_version: The roster it was computed with.
        occasion: Whether the session took place; under `no_session` all answers are *not taken*.
        no_session_reason: Reason slug of `no_session`.
        closed: Reason slug when the calendar says closed.
        bulk_at_ms: When "all present" was pressed, each time, by corrected time, ascending; acts that count only.
        labels: Ascending slugs of the register: `calendar`, `disputed`, `future`, `window-closed`.
        answers: One for each pupil of the roster, keys ascending.
        held: Marks kept out, by key, then change.
        changes: Every change the history knows, by hash, ascending.
    """

    register: RegisterId
    roster_version: str | None
    occasion: Occasion
    no_session_reason: str | None
    closed: str | None
    labels: tuple[str, ...]
    answers: Mapping[str, Answer]
    held: tuple[HeldMark, ...]
    changes: Mapping[bytes, Settled]
    bulk_at_ms: tuple[int, ...] = ()

    def to_wire(self) -> dict[str, object]:
        """Plain data of JSON types, the same for equal outcomes; `wire.canonical` turns it into bytes."""
        from reconciliation import wire

        return wire.outcome_to_wire(self)

    @classmethod
    def from_wire(cls, data: object) -> Outcome:
        """Read what `to_wire` gave.

        Raises:
            BadOutcome: when it is something else.
        """
        from reconciliation import wire

        return wire.outcome_from_wire(data)


def first_receipts(receipts: Iterable[Receipt]) -> dict[bytes, Receipt]:
    """The first receipt (lowest offset) of each change, by hash, whatever order they are handed in."""
    found: dict[bytes, Receipt] = {}
    for receipt in receipts:
        known = found.get(receipt.change_hash)
        if known is None or receipt.offset < known.offset:
            found[receipt.change_hash] = receipt
    return found
