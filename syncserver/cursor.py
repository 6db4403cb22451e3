"""How far a device has been told: the cursor it brings and takes home, opaque to it. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from clientcore.errors import ChangeRefused
from clientcore.leb128 import read_uleb, uleb

_VERSION = 2
# Digests: a calendar or a person's classes change too seldom for 16 million values to meet.
TEACHING_BYTES, CALENDAR_BYTES, CLASSES_BYTES = 4, 3, 3
_HEAD_BYTES = 1 + TEACHING_BYTES + CALENDAR_BYTES + CLASSES_BYTES
CALENDAR_MASK = (1 << 8 * CALENDAR_BYTES) - 1
_NUMBER_MAX = 1 << 49
ALL_ROSTERS = 0  # otherwise 1 + index of the next class
REBUILDS = 8  # this walk was started by a rebuild and is not over: registers of any age, own changes too


@dataclass(frozen=True, slots=True, kw_only=True)
class Cursor:
    """How far a device has been told.

    Attributes:
        teaching: Digest of its classes and their roster versions.
        classes: Digest of which classes these are; another one, and what they hold is told from the beginning.
        next_roster: 1 + index of the next class whose roster is due; 0 (`ALL_ROSTERS`) when all were told.
        notices: Bits of the notices told, and `REBUILDS`; four bits.
        seq: Settlement sequence told.
        archived: Offset up to which it was told which of its changes are archived; on the wire only once it is not 0.
    """

    epoch: int
    teaching: int = 0
    calendar: int = 0
    classes: int = 0
    next_roster: int = 1
    notices: int = 0
    seq: int = 0
    archived: int = 0

    @property
    def has_rosters(self) -> bool:
        """Whether its device was told all its rosters, and no rebuild is under way."""
        return self.next_roster == ALL_ROSTERS and not self.notices & REBUILDS

    def to_bytes(self) -> bytes:
        """The wire form: about 16 bytes, since it travels both ways with every sync."""
        return b"".join(
            (
                bytes((_VERSION << 4 | self.notices,)),
                self.teaching.to_bytes(TEACHING_BYTES, "big"),
                self.calendar.to_bytes(CALENDAR_BYTES, "big"),
                self.classes.to_bytes(CLASSES_BYTES, "big"),
                uleb(self.epoch),
                uleb(self.next_roster),
                uleb(self.seq),
                uleb(self.archived) if self.archived else b"",
            )
        )

    @classmethod
    def read(cls, data: bytes | None, epoch: int) -> Cursor:
        """The cursor a device brings, or a fresh one."""
        fresh = cls(epoch=epoch)
        at = _HEAD_BYTES
        if not data or data[0] >> 4 != _VERSION or len(data) < at:
            return fresh
        numbers: list[int] = []
        try:
            while len(numbers) < 3 or (len(numbers) == 3 and at < len(data)):
                number, at = read_uleb(data, at, _NUMBER_MAX)
                numbers.append(number)
        except ChangeRefused:
            return fresh
        if numbers[0] != epoch or at != len(data):
            return fresh
        calendar_at = 1 + TEACHING_BYTES
        classes_at = calendar_at + CALENDAR_BYTES
        return cls(
            epoch=epoch,
            teaching=int.from_bytes(data[1:calendar_at], "big"),
            calendar=int.from_bytes(data[calendar_at:classes_at], "big"),
            classes=int.from_bytes(data[classes_at:_HEAD_BYTES], "big"),
            next_roster=numbers[1],
            notices=data[0] & 0x0F,
            seq=numbers[2],
            archived=numbers[3] if len(numbers) == 4 else 0,
        )
