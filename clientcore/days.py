"""Civil days over a table of UTC offsets (docs/protocol.md section 1, Mark value). Pure but for `zone_offsets`.

The table comes with the calendar, because the zone data of old machines is wrong; `zone_offsets` is the stand-in until
the first calendar has come. Where summer time skips midnight (Egypt, a Friday in April) the day begins at the switch.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from datetime import date as Date
from zoneinfo import ZoneInfo

from clientcore.errors import BadInput
from clientcore.register import DAY_MS, is_date

Offsets = Sequence[tuple[int, int]]
"""(from, UTC milliseconds; offset, seconds), ascending. The first entry also serves what lies before it."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def local_ms(offsets: Offsets, utc_ms: int) -> int:
    """`utc_ms` moved to local time: its UTC fields read as local ones."""
    offset_s = offsets[0][1]
    for from_ms, seconds in offsets:
        if from_ms <= utc_ms:
            offset_s = seconds
    return utc_ms + offset_s * 1000


def civil_date(offsets: Offsets, utc_ms: int) -> str:
    """The date people of the zone write at `utc_ms`, as `YYYY-MM-DD`.

    Raises:
        BadInput: `clock` when the instant lies outside the years 1 to 9999.
    """
    try:
        return (_EPOCH + timedelta(milliseconds=local_ms(offsets, utc_ms))).date().isoformat()
    except OverflowError:
        raise BadInput("clock", "this machine's clock shows no date of the calendar; set it, or give --date") from None


def midnight_ms(offsets: Offsets, date: str) -> int:
    """The instant (UTC milliseconds) at which the civil `date` begins.

    Raises:
        BadInput: `bad-date`.
    """
    if not is_date(date):
        raise BadInput("bad-date", f"the date must exist and read YYYY-MM-DD, not {date!r}")
    local = (Date.fromisoformat(date).toordinal() - _EPOCH.toordinal()) * DAY_MS
    for from_ms, seconds in reversed(offsets[1:]):
        begins = local - seconds * 1000
        if begins >= from_ms:
            return begins
    begins = local - offsets[0][1] * 1000
    # A midnight that the clock skips lies behind the switch by the old offset: the day begins at the switch.
    return min(begins, offsets[1][0]) if len(offsets) > 1 else begins


def zone_offsets(zone: str, around_ms: int) -> list[tuple[int, int]]:
    """The offsets of `zone` from two years before `around_ms` to two years after it, from this machine's zone data."""
    info = ZoneInfo(zone)
    centre = min(max(around_ms // 1000, 0), 4_102_444_800)  # 1970 to 2100: a broken clock still gets a table
    table: list[tuple[int, int]] = []
    step = 86_400
    for at_s in range(centre - 730 * step, centre + 730 * step, step):
        offset_s = _offset_s(info, at_s)
        if not table:
            table.append((at_s * 1000, offset_s))
        elif table[-1][1] != offset_s:
            table.append((_switch_s(info, at_s - step, at_s) * 1000, offset_s))
    return table


def _offset_s(info: ZoneInfo, at_s: int) -> int:
    offset = (_EPOCH + timedelta(seconds=at_s)).astimezone(info).utcoffset()
    return 0 if offset is None else int(offset.total_seconds())


def _switch_s(info: ZoneInfo, before_s: int, after_s: int) -> int:
    """First second with the later offset, by bisection."""
    after = _offset_s(info, after_s)
    while after_s - before_s > 1:
        middle = (before_s + after_s) // 2
        if _offset_s(info, middle) == after:
            after_s = middle
        else:
            before_s = middle
    return after_s
