"""What the fold of a device's log is made of: registers, changes with their fate, frames, directives. Values, pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from clientcore.change import Change
from clientcore.exchange import Verdict
from clientcore.history import History, merge

SHORT_BYTES = 8  # how rows and receipts name a change
FRAME_NAME_BYTES = 16
CONFIRMED, NEEDS_REVIEW, WAITING = 1, 2, 3
RESTORED_COPY = "restored-copy"  # frames of ours exist that this log does not know
OFFERED = "offered"  # every change was offered anew; the detail is the log epoch of the server that heard it
OFFERED_UNARCHIVED = "offered-unarchived"  # the same, but for the archived changes
FROM_SERVER = "server"  # detail of a notice that the server sent
STRIKES_MAX = 2  # frames of one change that the server could not read before it rests until the next app session


class Step(StrEnum):
    """How far a register has come; each step is proved by rows of the server's, never inferred."""

    SAVED = "saved"
    SENT = "sent"
    CONFIRMED = "confirmed"
    NEEDS_REVIEW = "needs_review"


@dataclass(frozen=True, slots=True, kw_only=True)
class Enrolment:
    """For whom and where this device acts. `device` is 16 bytes, `server_key` the 65 bytes of a public point."""

    env: str
    school: str
    device: bytes
    user_id: str
    role: str
    server_key: bytes
    epoch: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Tap:
    """One tap that no change has sealed yet. `mono_ms` counts from the start of its app session."""

    value: str
    mono_ms: int


@dataclass(slots=True, kw_only=True)
class Entry:
    """One change of the log with what is known of its fate.

    Attributes:
        register: `class/date/session`.
        change: The parsed change.
        own: Whether this device made it (also when it came back by a pull after a restore).
        by: User id for a pulled change, else None.
        verdict: The server's word on it since it was last framed, or None.
        settled: 0 not settled; 1 confirmed, 2 needs review, 3 waiting for others.
        slug: Reason of the last verdict or settlement, if any.
        strikes: Frames with it that the server could not read.
        archived: The server holds it in a backup that was restored and verified: after a new log epoch it need not be
            offered again. Void as soon as it is framed again.
    """

    register: str
    change: Change
    own: bool
    by: str | None = None
    verdict: Verdict | None = None
    settled: int = 0
    slug: str | None = None
    strikes: int = 0
    archived: bool = False

    @property
    def is_sent(self) -> bool:
        """Whether the server has said that it holds this change."""
        return self.verdict is not None and self.verdict.is_safe

    @property
    def is_refused(self) -> bool:
        """Whether the server has said that it will not take this change."""
        return self.verdict is not None and not self.verdict.is_safe


@dataclass(slots=True, kw_only=True)
class FrameState:
    """One frame of this device. `open` until a receipt came or the server proved unable to read it."""

    number: int
    name: bytes
    changes: tuple[bytes, ...]
    raw: bytes
    open: bool = True


@dataclass(slots=True, kw_only=True)
class RegisterState:
    """One register on this device: its changes by short hash, and its unsealed taps by key, the latest last."""

    register: str
    entries: dict[bytes, Entry] = field(default_factory=dict)
    taps: dict[str, list[Tap]] = field(default_factory=dict)
    revision: int = -1
    damaged: int = 0
    settlements: dict[bytes, tuple[int, str | None]] = field(default_factory=dict)
    _history: History | None = None

    @property
    def is_ours(self) -> bool:
        """Whether this device made marks here."""
        return bool(self.taps or self.damaged) or any(entry.own for entry in self.entries.values())

    @property
    def step(self) -> Step | None:
        """See `Step`; None when nothing at all was marked.

        Own changes decide. What others made is on the server by nature, and its settlement is told to its author
        only. A register that holds nothing of ours is as far as the server said.
        """
        own = [entry for entry in self.entries.values() if entry.own]
        entries = own or list(self.entries.values())
        if self.taps or self.damaged or not all(entry.is_sent for entry in entries):
            return Step.SAVED
        if not entries:
            return None
        if any(entry.settled == NEEDS_REVIEW for entry in entries):
            return Step.NEEDS_REVIEW
        return Step.CONFIRMED if all(entry.settled == CONFIRMED for entry in entries) else Step.SENT

    @property
    def history(self) -> History:
        """The merge of all changes the server did not refuse: what a new change may build upon."""
        if self._history is None:
            self._history = merge(entry.change for entry in self.entries.values() if not entry.is_refused)
        return self._history

    def forget_merge(self) -> None:
        """Changes or verdicts are different now: merge anew when asked."""
        self._history = None

    def values(self) -> dict[str, tuple[str, ...]]:
        """Visible values per key with unsealed taps on top; the last of each is the one in force."""
        shown = {key: tuple(put.value for put in puts) for key, puts in self.history.visible().items()}
        shown.update({key: (taps[-1].value,) for key, taps in self.taps.items()})
        return shown


@dataclass(slots=True, kw_only=True)
class Directive:
    """An order of the champion. `level` is `nudge`, `repull` or `rebuild`."""

    id: int
    level: str
    reason: str
    done: bool = False
