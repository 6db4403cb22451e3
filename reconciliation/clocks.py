"""From what a phone's clock said to when a tap really happened, as an interval in server time. Pure.

The evidence is one frame: wall clock `wall` and monotonic clock `mono` at the moment of signing, perhaps a beacon (the
server's time as an earlier answer told it, with `mono` at its arrival), and the server's time of receipt. A tap says
`tap = midnight + ms` by the same wall clock. What follows:

  - Signing came before receipt, so the tap happened no later than `tap + (received - wall)`: the latest moment. It
    holds whatever the network did, because every delay only makes the bound wider.
  - A beacon proves that signing was no earlier than `server + (mono - came)`, which gives an earliest moment in the
    same way. (Some phones stop `mono` while they sleep; then the bound lies too early, which is safe.)
  - Without a beacon, the last earlier frame that had one tells how far the clock was ahead then; as long as this frame
    does not contradict it (the clock was moved), the same holds now, within the tolerance.
  - Without either, a fast clock with a slow network cannot be told from a right clock: only a frame whose clock agrees
    with its own receipt is believed, and nothing else bounds the tap from below.
  - A tap after its own signing, or one before anybody could have made it, breaks the relation between the two. Then
    the mark is flagged `clock` and only the receipt bounds it. It still counts: a wrong clock never costs a mark.

Device time moves the moment inside these bounds only; the windows themselves are server time.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, date, datetime
from zoneinfo import ZoneInfo

from clientcore.frame import ClockEvidence
from reconciliation.errors import BadContext
from reconciliation.model import Capture, Confidence, Receipt, Window, Zone

DAY_MS = 86_400_000
TOLERANCE_MS = 5 * 60_000
"""What two honest clocks may differ by before one is called wrong (the bad-input table's five minutes)."""

_EPOCH_DAYS = date(1970, 1, 1).toordinal()
# A register may bear any date that exists; zones can be asked only where the same moment exists in all of them.
_ASKED_FIRST_MS = (date(1, 1, 3).toordinal() - _EPOCH_DAYS) * DAY_MS
_ASKED_LAST_MS = (date(9999, 12, 29).toordinal() - _EPOCH_DAYS) * DAY_MS


def midnight_ms(civil_date: str, zone: Zone, *, days_later: int = 0) -> int:
    """The instant at which `civil_date` (YYYY-MM-DD), or the date some days later, begins, UTC.

    Where summer time skips midnight the day begins at the switch; where midnight comes twice, at the later one. The
    phone does the same with the same table, so that `midnight + ms` gives back its wall clock.
    """
    local_ms = (date.fromisoformat(civil_date).toordinal() + days_later - _EPOCH_DAYS) * DAY_MS
    for from_ms, offset_s in reversed(zone[1:]):
        start_ms = local_ms - offset_s * 1000
        if start_ms >= from_ms:
            return start_ms
    return local_ms - zone[0][1] * 1000


def zone_table(first_date: str, last_date: str, zone_name: str = "Africa/Cairo") -> Zone:
    """The UTC offsets in force from the beginning of `first_date` to the end of `last_date`.

    Phones get this table because their own zone data is often older than the last decree on summer time. It is total:
    every date from 0001-01-01 to 9999-12-31 has one; in the first and last days of all the nearest offset serves.

    Raises:
        BadContext: when the dates are in the wrong order.
    """
    zone = ZoneInfo(zone_name)
    at_ms = (date.fromisoformat(first_date).toordinal() - _EPOCH_DAYS - 1) * DAY_MS
    end_ms = (date.fromisoformat(last_date).toordinal() - _EPOCH_DAYS + 2) * DAY_MS
    if end_ms < at_ms + 3 * DAY_MS:
        raise BadContext("bad-context", f"{last_date} lies before {first_date}")
    table = [(at_ms, _offset_s(zone, at_ms))]
    while at_ms < end_ms:
        next_ms = at_ms + DAY_MS
        offset_s = _offset_s(zone, next_ms)
        if offset_s != table[-1][1]:
            table.append((_switch_ms(zone, at_ms, next_ms), offset_s))
        at_ms = next_ms
    return tuple(table)


def _offset_s(zone: ZoneInfo, at_ms: int) -> int:
    asked_ms = min(max(at_ms, _ASKED_FIRST_MS), _ASKED_LAST_MS)
    offset = datetime.fromtimestamp(asked_ms // 1000, UTC).astimezone(zone).utcoffset()
    assert offset is not None
    return int(offset.total_seconds())


def _switch_ms(zone: ZoneInfo, low_ms: int, high_ms: int) -> int:
    """First second in (low, high] with the offset of `high`; there is one switch at most between them."""
    target, low, high = _offset_s(zone, high_ms), low_ms // 1000, high_ms // 1000
    while high - low > 1:
        middle = (low + high) // 2
        if _offset_s(zone, middle * 1000) == target:
            high = middle
        else:
            low = middle
    return high * 1000


def capture_reader(receipt: Receipt, *, actor: bytes, midnight: int, window: Window) -> Callable[[int], Capture]:
    """How to read the capture times of one change: from `ms` since local midnight to a `Capture`.

    Args:
        receipt: The change's first receipt.
        actor: The change's actor; its first 8 bytes name the app session in which the taps were made.
        midnight: Start of the register's date, UTC ms.
        window: The register's window.
    """
    clock, received = receipt.clock, receipt.received_at_ms
    # Nobody marks a register more than a day before it or its receipt; nor before 1970, whatever date it claims.
    floor = max(min(midnight, received) - DAY_MS, 0)
    shift = received - clock.wall_ms  # phone time to the latest server time
    since_beacon = offset_floor_ms(clock, received)
    believed = _believed_shift(receipt, shift)
    same_session = actor[:8] == clock.session

    def read(ms: int) -> Capture:
        tap = midnight + ms
        latest = tap + shift
        if tap > clock.wall_ms + TOLERANCE_MS or latest < floor:
            return _by_receipt_alone(received, max(min(window.opens_ms, received), floor))
        latest = min(latest, received)
        believable = tap >= floor
        if since_beacon is not None:
            earliest = tap + since_beacon
        elif not believable:
            earliest = window.opens_ms
        elif believed is not None:
            earliest = tap + believed
        else:
            earliest = floor  # registers are marked the evening before as well
        earliest = min(max(earliest, floor), latest)
        at = latest if since_beacon is None and not believable else min(max(tap, earliest), latest)
        return Capture(
            at_ms=at,
            interval=(earliest, latest),
            confidence=_confidence(since_beacon is not None and same_session, latest - earliest, shift, believable),
            clock_flag=not believable or tap > received + TOLERANCE_MS,
        )

    return read


def steady_reading(receipt: Receipt, *, actor: bytes, midnight: int, first_ms: int, last_ms: int) -> Capture | None:
    """What `capture_reader` says of every tap between two, as distances from the tap.

    None where the distances differ, or the clock is not believed: then each tap is read alone.

    Args:
        receipt: The change's first receipt.
        actor: The change's actor.
        midnight: Start of the register's date, UTC ms.
        first_ms: The earliest tap by the phone's clock, UTC ms.
        last_ms: The latest.
    """
    clock, received = receipt.clock, receipt.received_at_ms
    floor = max(min(midnight, received) - DAY_MS, 0)
    shift = received - clock.wall_ms
    since_beacon = offset_floor_ms(clock, received)
    earliest = _believed_shift(receipt, shift) if since_beacon is None else since_beacon
    if earliest is None or last_ms > min(clock.wall_ms, received + TOLERANCE_MS):
        return None
    if first_ms + min(earliest, shift, 0) < floor:
        return None
    anchored = since_beacon is not None and actor[:8] == clock.session
    return Capture(
        at_ms=min(max(0, earliest), shift),
        interval=(earliest, shift),
        confidence=_confidence(anchored, shift - earliest, shift, True),
        clock_flag=False,
    )


def offset_floor_ms(clock: ClockEvidence, received_ms: int) -> int | None:
    """Phone time to the earliest server time: the least by which the server's clock is ahead, as one frame proves it.

    None without a beacon that can be true.
    """
    if clock.beacon is None:
        return None
    server_ms, came_ms = clock.beacon
    signed_ms = server_ms + clock.mono_ms - came_ms
    if came_ms > clock.mono_ms or signed_ms > received_ms + TOLERANCE_MS:
        return None
    return min(signed_ms, received_ms) - clock.wall_ms


def _believed_shift(receipt: Receipt, shift_ms: int) -> int | None:
    """Phone time to the earliest server time for a frame without a beacon; None: nothing is known.

    Args:
        receipt: With what earlier frames proved of the phone's clock.
        shift_ms: The receipt less the frame's wall clock: never less than the clock is behind, unless it was moved.
    """
    floor_ms = receipt.offset_floor_ms
    if floor_ms is not None and floor_ms <= shift_ms + TOLERANCE_MS:
        return min(floor_ms - TOLERANCE_MS, shift_ms)
    if abs(shift_ms) <= TOLERANCE_MS:
        return min(shift_ms, 0)  # the clock agrees with the receipt: right, and sent at once
    return None


def _by_receipt_alone(received_ms: int, earliest_ms: int) -> Capture:
    return Capture(
        at_ms=received_ms,
        interval=(earliest_ms, received_ms),
        confidence=Confidence.LOW,
        clock_flag=True,
    )


def _confidence(anchored: bool, width_ms: int, shift_ms: int, believable: bool) -> Confidence:
    if anchored and width_ms <= TOLERANCE_MS:
        return Confidence.HIGH
    if believable and (width_ms <= TOLERANCE_MS if anchored else abs(shift_ms) <= TOLERANCE_MS):
        return Confidence.MEDIUM
    return Confidence.LOW
