"""What happens to one device besides its network: kills, flat batteries, clock jumps, wipes, couriers. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from tests.weaknet.calendar import DAY_MS, HOUR_MS, LocalDays, Stretch
from tests.weaknet.draws import Stream
from tests.weaknet.profile import Battery, Carry, Profile

PICK_UP_MIN = 480  # the courier comes at 08:00
_SCHOOL_WEEK = frozenset({6, 0, 1, 2, 3})  # Sunday to Thursday


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceEvent:
    """Something that happens to the device.

    Attributes:
        at_ms: Elapsed milliseconds since the timeline's start.
        kind: `kill`, `battery-off`, `battery-on`, `clock-jump`, `wipe`, `handover` or `carry`.
        detail: `clock-jump`: `by_s` or `to_epoch_s`. `carry` (a file arrives): `captured_to_ms`, elapsed time up
            to which it holds the device's log; `twice`, `old_copy`, `lost`: 1.0 or 0.0 (a lost one never arrives).
    """

    at_ms: int
    kind: str
    detail: Mapping[str, float]


class _Streams:
    def __init__(self, profile: Profile, seed: int) -> None:
        self._id, self._seed = profile.id, seed

    def __getitem__(self, name: str) -> Stream:
        return Stream(self._id, self._seed, name)


def happenings(profile: Profile, seed: int, days: LocalDays) -> tuple[DeviceEvent, ...]:
    """All events of a device, in order of time."""
    streams = _Streams(profile, seed)
    off = tuple(_off_spells(profile.device.battery, streams, days.length_ms))
    events = [*_kills(profile, streams, days.length_ms, off), *_battery(off, days.length_ms)]
    events += _jumps(profile, streams, days)
    events += _wipes(profile, streams, days)
    events += _handovers(profile, days)
    if profile.carry is not None:
        events += _carries(profile.carry, streams, days)
    inside = (event for event in events if event.at_ms < days.length_ms)
    return tuple(sorted(inside, key=lambda event: (event.at_ms, event.kind)))


def _off_spells(battery: Battery | None, streams: _Streams, length_ms: int) -> Iterator[Stretch]:
    if battery is None or battery.dead_per_week <= 0:
        return
    gaps, spells = streams["device.battery"], streams["device.off_h"]
    at_ms, k = 0.0, 0
    while (at_ms := at_ms + gaps.wait(battery.dead_per_week, k) * 7 * DAY_MS) < length_ms:
        off_ms = max(1, round(spells.value(battery.off_h, k) * HOUR_MS))
        yield int(at_ms), int(at_ms) + off_ms
        at_ms, k = at_ms + off_ms, k + 1


def _battery(off: tuple[Stretch, ...], length_ms: int) -> Iterator[DeviceEvent]:
    for first, last in off:
        yield DeviceEvent(at_ms=first, kind="battery-off", detail={})
        if last < length_ms:
            yield DeviceEvent(at_ms=last, kind="battery-on", detail={})


def _kills(profile: Profile, streams: _Streams, length_ms: int, off: tuple[Stretch, ...]) -> Iterator[DeviceEvent]:
    per_ms = profile.device.kill_per_h / HOUR_MS
    if per_ms <= 0:
        return
    gaps = streams["device.kill"]
    at_ms, k = gaps.wait(per_ms, 0), 0
    while at_ms < length_ms:
        if not any(first <= at_ms < last for first, last in off):
            yield DeviceEvent(at_ms=int(at_ms), kind="kill", detail={})
        k += 1
        at_ms += gaps.wait(per_ms, k)


def _rounds(days: LocalDays) -> range:
    """How often the span is played; what happens once a span happens once in each."""
    return range(math.ceil(days.count / days.span.days))


def _jumps(profile: Profile, streams: _Streams, days: LocalDays) -> Iterator[DeviceEvent]:
    for place, jump in enumerate(profile.device.clock.jumps):
        share = streams[f"device.jump.{place}"]
        for played in _rounds(days):
            day = played * days.span.days + jump.day
            if jump.day >= days.span.days or day >= days.count or share.u(played) >= jump.share:
                continue
            detail = {"by_s": jump.by_s} if jump.by_s is not None else {"to_epoch_s": jump.to_epoch_s or 0.0}
            yield DeviceEvent(at_ms=days.elapsed_ms(day, jump.at_min), kind="clock-jump", detail=detail)


def _wipes(profile: Profile, streams: _Streams, days: LocalDays) -> Iterator[DeviceEvent]:
    if profile.device.wipe_per_run <= 0:
        return
    whether, when = streams["device.wipe"], streams["device.wipe_at"]
    for played in _rounds(days):
        first = days.stretch_of(played * days.span.days)[0]
        last = days.stretch_of(min((played + 1) * days.span.days, days.count) - 1)[1]
        if whether.u(played) < profile.device.wipe_per_run:
            yield DeviceEvent(at_ms=first + int(when.u(played) * (last - first)), kind="wipe", detail={})


def _handovers(profile: Profile, days: LocalDays) -> Iterator[DeviceEvent]:
    for day in range(days.count):
        if days.weekday(day) in _SCHOOL_WEEK:
            for minute in profile.device.handover:
                yield DeviceEvent(at_ms=days.elapsed_ms(day, minute), kind="handover", detail={})


def _carries(carry: Carry, streams: _Streams, days: LocalDays) -> Iterator[DeviceEvent]:
    late, lost = streams["carry.late_days"], streams["carry.lost"]
    twice, old = streams["carry.twice"], streams["carry.old_copy"]
    taken_ms = 0
    for k, day in enumerate(range(carry.every_days, days.count, carry.every_days)):
        before_ms, taken_ms = taken_ms, days.elapsed_ms(day, PICK_UP_MIN)
        is_old = old.u(k) < carry.old_copy
        yield DeviceEvent(
            at_ms=taken_ms + round(late.value(carry.late_days, k) * DAY_MS),
            kind="carry",
            detail={
                "captured_to_ms": float(before_ms if is_old else taken_ms),
                "twice": float(twice.u(k) < carry.twice),
                "old_copy": float(is_old),
                "lost": float(lost.u(k) < carry.lost),
            },
        )
