"""A weaknet/1 profile from a recording: what attempts can tell, measured; everything else a base profile's.

What a device's attempts cannot tell (and is therefore copied with its own basis): packet loss, the queue, how
connections are cut (a cut by silence looks like an off spell), names and connects that fail on a link that is up, idle
time-outs, budgets, gates, kills, closures, and which of several links it was: the link a device writes is at best the
browser's guess of a speed. Spells shorter than the time between two attempts are not seen at all; a spell that nobody
saw end is censored.
"""

from __future__ import annotations

import copy
import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import pairwise
from statistics import median
from typing import Any
from zoneinfo import ZoneInfo

from tests.weaknet.errors import RecordingRefused
from tests.weaknet.reading import read_profile
from tests.weaknet.recording import Attempt, Beacon, Recording

FEW = 8  # fewer values than this make no table
DEVICE_DAYS_FEW = 5
SET_UP_TRIPS = 3  # DNS, TCP, TLS 1.3; the request itself is one more
SET_UP_BYTES = 900, 4_096  # up, down: TLS hello and finished; certificates
KEPT_MS, FORGOTTEN_MS = 4_000, 300_000  # after a shorter pause a connection is kept, after a longer one it is new
RATE_BYTES_MIN = 1_500  # a body that needs more than one packet
SENDING_TRIPS = 2  # a body tells the rate when sending it takes twice as long as the round trips around it
SILENCE_MS = 20 * 60_000  # longer than the longest back-off: nobody was looking
DRIFT_MS = 24 * 3_600_000  # a shorter base line drowns in the round trip
DRIFT_PPM_MAX = 1_000.0
JUMP_MS = 30_000
OFF_OUTCOMES = frozenset({"offline", "timeout", "no-answer"})  # `no-answer` is the phone's page for any failed fetch
UNSURE_OUTCOMES = frozenset({"broken", "not-ours"})  # something was there, and perhaps a cut; a top-up page is not off
_PERCENTILES = ((8, (0, 25, 50, 75, 100)), (20, (10, 90)), (60, (5, 95)), (200, (1, 99)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Fitted:
    """What came of it.

    Attributes:
        plain: The profile as JSON; it reads as a `Profile`.
        measured: What was measured, with how many values, in words.
        kept: What stayed the base's although a recording could tell it, and why.
    """

    plain: dict[str, Any]
    measured: tuple[str, ...]
    kept: tuple[str, ...]


def fit(
    recording: Recording, base: Mapping[str, Any], *, profile_id: str, title: str, link: str | None = None
) -> Fitted:
    """Make a profile.

    Args:
        recording: See `read_recordings`.
        base: A profile as plain JSON with at least one link; the first one's numbers are replaced, others are dropped.
        profile_id: Id of the new profile.
        title: Its title.
        link: Only attempts with this link type.

    Raises:
        RecordingRefused: `too-little` when nothing at all can be told.
    """
    attempts = [attempt for attempt in recording.attempts if link is None or attempt.link == link]
    if not base["links"]:
        raise RecordingRefused("too-little", f"{base['id']} has no link to start from; name another base")
    if not attempts:
        raise RecordingRefused("too-little", "there is no attempt" + (f" over {link}" if link is not None else ""))
    sheet = _Sheet(base, profile_id, title, _about(recording, attempts, base["span"]["tz"]))
    first = "/links/0"
    trips, ups, downs = _traffic(attempts)
    sheet.table(f"{first}/rtt_ms", trips, "round trips")
    sheet.table(f"{first}/up_kbps", ups, "rates up")
    sheet.table(f"{first}/down_kbps", downs, "rates down")
    sheet.spells(spells(attempts))
    by_day = _offsets_by_day(recording.beacons)
    sheet.table("/device/clock/offset_s", by_day, "clock offsets, one a device and day", few=DEVICE_DAYS_FEW)
    sheet.table("/device/clock/drift_ppm", list(_drifts(recording.beacons)), "clock drifts over a day or more")
    jumps = sum(1 for _ in _jumps(recording.beacons))
    if jumps:
        sheet.kept.append(f"clock jumps: {jumps} seen; dated jumps belong to days of a span and are left as they are")
    if not sheet.measured:
        raise RecordingRefused("too-little", f"{len(attempts)} attempts tell nothing: {'; '.join(sheet.kept)}")
    return sheet.done()


def _about(recording: Recording, attempts: Sequence[Attempt], zone: str) -> str:
    days = {
        (one.device, datetime.fromtimestamp(one.at_ms / 1000, UTC).astimezone(ZoneInfo(zone)).date())
        for one in attempts
    }
    return f"{len(recording.devices)} devices, {len(days)} device-days, {len(attempts)} attempts"


class _Sheet:
    """The new profile while it is written."""

    def __init__(self, base: Mapping[str, Any], profile_id: str, title: str, about: str) -> None:
        self._base, self._about = base, about
        self._plain: dict[str, Any] = copy.deepcopy(dict(base))
        self._plain.update(id=profile_id, title=title, links=[copy.deepcopy(base["links"][0])])
        other = tuple(f"/links/{place}" for place in range(1, len(base["links"])))
        self._basis = {key: value for key, value in base["basis"].items() if not _is_under(key, other)}
        self.measured: list[str] = []
        self.kept: list[str] = []

    def table(self, pointer: str, values: Sequence[float], what: str, *, few: int = FEW) -> None:
        if len(values) < few:
            self.kept.append(f"{what}: {len(values)} values are too few, kept from {self._base['id']}")
            return
        self._put(pointer, quantiles([(value, True) for value in values]), f"{len(values)} {what}")

    def spells(self, found: Mapping[bool, Sequence[tuple[float, bool]]]) -> None:
        ended = {is_on: sum(over for _, over in found[is_on]) for is_on in (True, False)}
        if min(ended.values()) < FEW:
            counts = f"{ended[True]} on and {ended[False]} off spells were seen to end"
            self.kept.append(f"spells: {counts}, too few; kept from {self._base['id']}")
            return
        self._plain["links"][0].setdefault("flap", {})
        for is_on, name in ((True, "on"), (False, "off")):
            what = f"{len(found[is_on])} {name} spells, {ended[is_on]} of them seen to end"
            self._put(f"/links/0/flap/{name}_s", quantiles(found[is_on]), what)

    def _put(self, pointer: str, table: dict[str, float], what: str) -> None:
        *way, last = pointer.strip("/").split("/")
        place: Any = self._plain
        for step in way:
            place = place[int(step)] if isinstance(place, list) else place[step]
        before = place.get(last)
        place[last] = {"q": table}
        if isinstance(before, Mapping) and "hold_s" in before:
            place[last]["hold_s"] = before["hold_s"]
            self._basis[f"{pointer}/hold_s"] = self._basis_before(pointer)
        self._basis = {key: value for key, value in self._basis.items() if key != pointer}
        self._basis[pointer] = {"kind": "measured", "ref": ["field"], "note": f"{what}; {self._about}"}
        self.measured.append(what)

    def _basis_before(self, pointer: str) -> Any:
        under = [key for key in self._base["basis"] if pointer == key or pointer.startswith(key + "/")]
        note = f"how long one draw holds, from {self._base['id']}"
        return {**self._base["basis"][max(under, key=len)], "kind": "assumed", "note": note}

    def done(self) -> Fitted:
        self._plain["basis"] = self._basis
        read_profile(self._plain)
        return Fitted(plain=self._plain, measured=tuple(self.measured), kept=tuple(self.kept))


def _is_under(pointer: str, prefixes: Iterable[str]) -> bool:
    return any(pointer == prefix or pointer.startswith(prefix + "/") for prefix in prefixes)


# ---- tables -----------------------------------------------------------------------------------------------------


def quantiles(values: Sequence[tuple[float, bool]]) -> dict[str, float]:
    """A quantile table of values, some of which are only known to be at least that long (censored: False).

    Kaplan and Meier's estimate; without censored values it is the ordinary empirical one. Where the longest values are
    censored, the table ends at the longest seen.
    """
    steps = list(_survival(values))
    longest = max(value for value, _ in values)
    places = sorted(place for least, some in _PERCENTILES if len(values) >= least or least == FEW for place in some)
    shortest = min(value for value, over in values if over)
    table = {}
    for place in places:
        if place == 0:
            found = shortest
        elif place == 100:
            found = longest
        else:
            found = next((value for value, left in steps if 1 - left >= place / 100 - 1e-12), longest)
        table[str(place)] = _round(found)
    return table


def _survival(values: Sequence[tuple[float, bool]]) -> Iterator[tuple[float, float]]:
    """(value, share that is longer), at each value seen to end."""
    left, share = len(values), 1.0
    by_value: dict[float, list[bool]] = defaultdict(list)
    for value, over in values:
        by_value[value].append(over)
    for value in sorted(by_value):
        ended = sum(by_value[value])
        if ended:
            share *= 1 - ended / left
            yield value, share
        left -= len(by_value[value])


def _round(value: float) -> float:
    """Four significant digits: no recording knows more."""
    if value == 0:
        return 0.0
    return float(round(value, 3 - math.floor(math.log10(abs(value)))))


# ---- round trips and rates --------------------------------------------------------------------------------------


def _traffic(attempts: Sequence[Attempt]) -> tuple[list[float], list[float], list[float]]:
    """(round trips in ms, rates up, rates down in kbit/s).

    First byte = round trips + body and set-up at the link's rates. Rates from bodies of several packets, round trips
    from small ones, each corrected with the other's median; three rounds are enough.
    """
    counted = [(one, is_new) for one, is_new in _with_set_up(attempts) if one.outcome == "ok" and one.first_byte_ms > 0]
    downs = [
        one.bytes_down * 8 / (one.took_ms - one.first_byte_ms)
        for one, _ in counted
        if one.bytes_down >= RATE_BYTES_MIN and one.took_ms > one.first_byte_ms
    ]
    trips: list[float] = []
    ups: list[float] = []
    up_rate = median(one.bytes_up * 8 / one.first_byte_ms for one, _ in counted) if counted else math.inf
    down_rate = median(downs) if downs else math.inf
    for _ in range(3):
        found = (_trip_ms(one, is_new, up_rate, down_rate) for one, is_new in counted if one.bytes_up < RATE_BYTES_MIN)
        trips = [trip for trip in found if trip > 0]
        if not trips:
            return [], [], downs
        ups = list(_rates_up(counted, median(trips), up_rate, down_rate))
        up_rate = median(ups) if ups else math.inf
    return trips, ups, downs


def _with_set_up(attempts: Sequence[Attempt]) -> Iterator[tuple[Attempt, bool]]:
    """Attempts of which we know whether they opened a connection."""
    before: dict[str, Attempt] = {}
    for one in attempts:
        last = before.get(one.device)
        before[one.device] = one
        pause_ms = math.inf if last is None else one.at_ms - last.at_ms - last.took_ms
        if last is None or last.outcome != "ok" or pause_ms > FORGOTTEN_MS:
            yield one, True
        elif pause_ms < KEPT_MS:
            yield one, False


def _trip_ms(one: Attempt, is_new: bool, up_rate: float, down_rate: float) -> float:
    up_bytes = one.bytes_up + (SET_UP_BYTES[0] if is_new else 0)
    down_bytes = SET_UP_BYTES[1] if is_new else 0
    carried_ms = up_bytes * 8 / up_rate + down_bytes * 8 / down_rate
    return (one.first_byte_ms - carried_ms) / (1 + SET_UP_TRIPS * is_new)


def _rates_up(
    counted: Sequence[tuple[Attempt, bool]], trip_ms: float, up_rate: float, down_rate: float
) -> Iterator[float]:
    """Rates of bodies long enough for this link: chosen by size, for to choose by time taken would choose the slow."""
    for one, is_new in counted:
        trips_ms = trip_ms * (1 + SET_UP_TRIPS * is_new)
        if one.bytes_up < max(RATE_BYTES_MIN, SENDING_TRIPS * trips_ms * min(up_rate, 1e6) / 8):
            continue
        sending_ms = one.first_byte_ms - trips_ms - (SET_UP_BYTES[1] * 8 / down_rate if is_new else 0)
        if sending_ms > 0:
            yield (one.bytes_up + (SET_UP_BYTES[0] if is_new else 0)) * 8 / sending_ms


# ---- spells -----------------------------------------------------------------------------------------------------


def spells(attempts: Sequence[Attempt]) -> dict[bool, list[tuple[float, bool]]]:
    """On (True) and off spells as (seconds, whether its end was seen).

    A spell ends half-way between the last attempt of its kind and the first of the other. One whose beginning nobody
    saw is left out; one during which the device fell silent for longer than `SILENCE_MS` is censored there.
    """
    found: dict[bool, list[tuple[float, bool]]] = {True: [], False: []}
    by_device: dict[str, list[Attempt]] = defaultdict(list)
    for one in attempts:
        if one.outcome not in UNSURE_OUTCOMES and not (one.outcome == "no-answer" and one.first_byte_ms > 0):
            by_device[one.device].append(one)
    for own in by_device.values():
        began: float | None = None
        last: Attempt | None = None
        for one in own:
            if last is not None and one.at_ms - _end_ms(last) > SILENCE_MS:
                if began is not None:
                    found[_is_on(last)].append(((_end_ms(last) - began) / 1_000, False))
                began = None
            elif last is not None and _is_on(one) != _is_on(last):
                edge = (_end_ms(last) + one.at_ms) / 2
                if began is not None and edge > began:
                    found[_is_on(last)].append(((edge - began) / 1_000, True))
                began = edge
            last = one
        if last is not None and began is not None and _end_ms(last) > began:
            found[_is_on(last)].append(((_end_ms(last) - began) / 1_000, False))
    return found


def _is_on(one: Attempt) -> bool:
    return one.outcome not in OFF_OUTCOMES


def _end_ms(one: Attempt) -> int:
    return one.at_ms + one.took_ms


# ---- clocks -----------------------------------------------------------------------------------------------------


def _of_devices(beacons: Sequence[Beacon]) -> Iterator[list[Beacon]]:
    by_device: dict[str, list[Beacon]] = defaultdict(list)
    for beacon in beacons:
        by_device[beacon.device].append(beacon)
    yield from by_device.values()


def _offsets_by_day(beacons: Sequence[Beacon]) -> list[float]:
    """Median offset of each device and UTC day, seconds."""
    by_day: dict[tuple[str, int], list[int]] = defaultdict(list)
    for beacon in beacons:
        by_day[beacon.device, beacon.server_ms // 86_400_000].append(beacon.offset_ms)
    return [median(offsets) / 1_000 for offsets in by_day.values()]


def _drifts(beacons: Sequence[Beacon]) -> Iterator[float]:
    """Parts per million between answers at least a day apart; what is faster than any oscillator is a jump."""
    for own in _of_devices(beacons):
        first = own[0]
        for beacon in own:
            if beacon.server_ms - first.server_ms < DRIFT_MS:
                continue
            drift = (beacon.offset_ms - first.offset_ms) / (beacon.server_ms - first.server_ms) * 1e6
            if abs(drift) <= DRIFT_PPM_MAX:
                yield drift
            first = beacon


def _jumps(beacons: Sequence[Beacon]) -> Iterator[float]:
    """Seconds by which a clock was moved between two answers."""
    for own in _of_devices(beacons):
        for before, after in pairwise(own):
            moved_ms = after.offset_ms - before.offset_ms
            if abs(moved_ms) > JUMP_MS:
                yield moved_ms / 1_000
