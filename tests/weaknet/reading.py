"""Plain JSON to a `Profile`, strictly: what the format does not know is refused, with the JSON pointer of the place."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import date
from itertools import pairwise
from typing import Any, cast
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from tests.weaknet.draws import FORMAT, Table
from tests.weaknet.errors import ProfileRefused
from tests.weaknet.profile import (
    KINDS,
    After,
    Basis,
    Battery,
    Budget,
    Carry,
    Closure,
    Condition,
    Cut,
    Days,
    Deliver,
    Device,
    DeviceClock,
    Excerpt,
    Flap,
    Gate,
    Jump,
    Kind,
    Link,
    Loss,
    Peer,
    Profile,
    Span,
    Tech,
    Window,
)
from tests.weaknet.strict import StrictObject, as_minute, as_number, refusal

DAY_MIN = 1_440
DAYS_MAX = 60
EXCERPT_S_MAX = 120
_ID = re.compile(r"[a-z0-9]+(?:-[a-z0-9]+)*")
_START = re.compile(r"(\d{4}-\d\d-\d\d)T00:00")
_PERCENTILE = re.compile(r"\d{1,3}(?:\.\d+)?")
_WEEK = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_BYTES_MAX = 10**9


def read_profile(plain: object) -> Profile:
    """Read a whole profile.

    Raises:
        ProfileRefused: `bad-profile`; the detail begins with the JSON pointer.
    """
    top = StrictObject(plain, "")
    if top.take("format", str) != FORMAT:
        raise refusal("/format", f"only {FORMAT} can be read")
    profile = Profile(
        id=top.text("id", _ID),
        title=top.text("title", re.compile(r"(?s).{1,100}")),
        span=_span(top.object("span")),
        links=top.items("links", _link),
        device=_device(top.object("device")),
        deliver=_deliver(top.object("deliver")),
        basis=_basis(top.object("basis")),
        carry=top.maybe("carry", _carry),
        peer=top.maybe("peer", _peer),
        excerpts=top.items("excerpts", _excerpt, needed=False),
    )
    top.end()
    if len({link.name for link in profile.links} | {"device", "carry"}) != len(profile.links) + 2:
        raise refusal("/links", "names must differ, and `device` and `carry` are taken")
    return profile


def _table(owner: StrictObject, key: str, low: float, high: float) -> Table:
    """A number, or `{"q": {percentile: value}, "scale": s, "hold_s": s}`."""
    plain, pointer = owner.take(key, object), owner.at(key)
    if not isinstance(plain, Mapping):
        return Table.constant(as_number(plain, pointer, low, high))
    whole = StrictObject(plain, pointer)
    quantiles = whole.object("q")
    points = []
    for percentile in quantiles.keys:
        if not _PERCENTILE.fullmatch(percentile):
            raise refusal(quantiles.at(percentile), "a percentile is expected")
        points.append((float(percentile), quantiles.number(percentile, low, high)))
    points.sort()
    places = [place for place, _ in points]
    if len(points) < 2 or places[0] != 0 or places[-1] != 100 or len(set(places)) != len(places):
        raise refusal(quantiles.pointer, "different percentiles from 0 to 100 are expected, both ends among them")
    if any(first > last for (_, first), (_, last) in pairwise(points)):
        raise refusal(quantiles.pointer, "values must not fall")
    table = Table(
        points=tuple(points),
        scale=whole.number("scale", 1e-6, 1e6, 1.0),
        hold_s=whole.number("hold_s", 0, 86_400, 0.0),
    )
    whole.end()
    return table


def _days(plain: object, pointer: str) -> Days:
    if plain == "*":
        return Days(weekdays=frozenset(range(7)))
    if isinstance(plain, list):
        if not all(isinstance(day, int) and not isinstance(day, bool) and 0 <= day < DAYS_MAX for day in plain):
            raise refusal(pointer, "days of the span are expected")
        return Days(numbers=frozenset(plain))
    parts = plain.split("-") if isinstance(plain, str) else []
    if len(parts) != 2 or not set(parts) <= set(_WEEK):
        raise refusal(pointer, "`*`, a range such as sun-thu, or a list of days is expected")
    first, last = (_WEEK.index(part) for part in parts)
    return Days(weekdays=frozenset((first + step) % 7 for step in range((last - first) % 7 + 1)))


def _window(whole: StrictObject) -> Window:
    window = _part_of_window(whole)
    whole.end()
    return window


def _part_of_window(whole: StrictObject) -> Window:
    days = _days(whole.take("days", object), whole.at("days"))
    window = Window(days=days, from_min=whole.minute("from"), to_min=whole.minute("to"))
    if window.to_min <= window.from_min:
        raise refusal(whole.pointer, "a window ends after it begins; write one that crosses midnight as two")
    return window


def _span(whole: StrictObject) -> Span:
    start = whole.text("start", _START)
    zone = whole.take("tz", str)
    try:
        span = Span(start=date.fromisoformat(start[:10]), days=whole.whole("days", 1, DAYS_MAX), tz=zone)
        ZoneInfo(zone)
    except (ValueError, ZoneInfoNotFoundError) as broken:
        if isinstance(broken, ProfileRefused):
            raise
        raise refusal(whole.pointer, str(broken)) from None
    whole.end()
    return span


def _link(whole: StrictObject) -> Link:
    link = Link(
        name=whole.text("name", _ID),
        tech=cast(Tech, whole.word("tech", "2g", "3g", "4g", "wifi")),
        down_kbps=_table(whole, "down_kbps", 0, 1e7),
        up_kbps=_table(whole, "up_kbps", 0, 1e7),
        rtt_ms=_table(whole, "rtt_ms", 0, 600_000),
        queue_kb=whole.number("queue_kb", 1, 1e6),
        loss=_loss(whole.object("loss")),
        open=whole.items("open", _window) if whole.has("open") else None,
        shut=whole.items("shut", _closure, needed=False),
        when=whole.items("when", _condition, needed=False),
        flap=whole.maybe("flap", _flap),
        cut=whole.maybe("cut", _cut),
        connect_fail=whole.chance("connect_fail", 0.0),
        dns_fail=whole.chance("dns_fail", 0.0),
        nat_idle_s=whole.number("nat_idle_s", 1, 1e6) if whole.has("nat_idle_s") else None,
        new_ip_per_h=whole.number("new_ip_per_h", 0, 3_600, 0.0),
        budget=whole.maybe("budget", _budget),
        gate=whole.maybe("gate", _gate),
    )
    whole.end()
    return link


def _loss(whole: StrictObject) -> Loss:
    loss = Loss(**{key: whole.chance(key) for key in ("g2b", "b2g", "bad", "good")})
    whole.end()
    return loss


def _closure(whole: StrictObject) -> Closure:
    within = whole.take("within", list)
    if len(within) != 2:
        raise refusal(whole.at("within"), "two times are expected")
    window = Window(
        days=_days(whole.take("days", object), whole.at("days")),
        from_min=as_minute(within[0], whole.at("within/0")),
        to_min=as_minute(within[1], whole.at("within/1")),
    )
    closure = Closure(
        window=window,
        for_min=whole.number("for_min", 0, window.to_min - window.from_min),
        slack_min=whole.number("slack_min", 0, DAY_MIN),
    )
    whole.end()
    return closure


def _condition(whole: StrictObject) -> Condition:
    window = _part_of_window(whole)
    change = whole.object("set")
    condition = Condition(
        window=window,
        rate_scale=change.number("rate_scale", 0, 1e3, 1.0),
        connect_fail=change.chance("connect_fail") if change.has("connect_fail") else None,
        dns_fail=change.chance("dns_fail") if change.has("dns_fail") else None,
    )
    change.end()
    whole.end()
    return condition


def _flap(whole: StrictObject) -> Flap:
    flap = Flap(on_s=_table(whole, "on_s", 0.01, 1e6), off_s=_table(whole, "off_s", 0.01, 1e6))
    whole.end()
    if flap.on_s.mean + flap.off_s.mean < 0.1:
        raise refusal(whole.pointer, "spells shorter than 0.1 s on average are packet loss, not spells")
    return flap


def _cut(whole: StrictObject) -> Cut:
    how = whole.object("how")
    cut = Cut(per_conn=whole.chance("per_conn"), rst=how.chance("rst", 0.0), blackhole=how.chance("blackhole", 0.0))
    how.end()
    whole.end()
    if abs(cut.rst + cut.blackhole - 1) > 1e-9:
        raise refusal(how.pointer, "the shares must add up to 1")
    return cut


def _budget(whole: StrictObject) -> Budget:
    budget = Budget(
        bytes_per_day=whole.whole("bytes_per_day", 0, _BYTES_MAX),
        then=cast(After, whole.word("then", "blackhole", "portal", "throttle")),
        throttle_kbps=whole.number("throttle_kbps", 0.1, 1e6) if whole.has("throttle_kbps") else None,
    )
    whole.end()
    if (budget.then == "throttle") != (budget.throttle_kbps is not None):
        raise refusal(whole.pointer, "throttle_kbps belongs to `throttle`")
    return budget


def _gate(whole: StrictObject) -> Gate:
    gate = Gate(
        allow=whole.words("allow"),
        others=cast(Any, whole.word("others", "timeout", "rst", "portal")),
        tls=cast(Any, whole.word("tls", "pass", "terminate")),
        strip_headers=whole.words("strip_headers") if whole.has("strip_headers") else (),
        add_headers=whole.words("add_headers") if whole.has("add_headers") else (),
        methods=whole.words("methods") if whole.has("methods") else None,
        upgrade=whole.take("upgrade", bool) if whole.has("upgrade") else True,
        max_body_kb=whole.number("max_body_kb", 0, 1e6) if whole.has("max_body_kb") else None,
        cache_get_s=whole.number("cache_get_s", 0, 1e6, 0.0),
    )
    whole.end()
    return gate


def _device(whole: StrictObject) -> Device:
    storage = whole.object("storage") if whole.has("storage") else None
    device = Device(
        clock=_clock(whole.object("clock")),
        kill_per_h=whole.number("kill_per_h", 0, 3_600),
        kill_in_sync=whole.chance("kill_in_sync"),
        people=whole.whole("people", 1, 100),
        battery=whole.maybe("battery", _battery),
        free_mb=_table(storage, "free_mb", 0, 1e7) if storage is not None and storage.has("free_mb") else None,
        wipe_per_run=storage.chance("wipe_per_run", 0.0) if storage is not None else 0.0,
        handover=_times(whole, "handover"),
    )
    if storage is not None:
        storage.end()
    whole.end()
    return device


def _times(whole: StrictObject, key: str) -> tuple[int, ...]:
    if not whole.has(key):
        return ()
    return tuple(as_minute(one, f"{whole.at(key)}/{place}") for place, one in enumerate(whole.take(key, list)))


def _clock(whole: StrictObject) -> DeviceClock:
    no_error = Table.constant(0.0)
    clock = DeviceClock(
        offset_s=_table(whole, "offset_s", -1e10, 1e10),
        drift_ppm=_table(whole, "drift_ppm", -1e6, 1e6),
        zone_error_s=_table(whole, "zone_error_s", -86_400, 86_400) if whole.has("zone_error_s") else no_error,
        jumps=whole.items("jumps", _jump),
    )
    whole.end()
    return clock


def _jump(whole: StrictObject) -> Jump:
    jump = Jump(
        day=whole.whole("day", 0, DAYS_MAX),
        at_min=whole.minute("at"),
        why=whole.take("why", str),
        by_s=whole.number("by_s", -1e10, 1e10) if whole.has("by_s") else None,
        to_epoch_s=whole.number("to_epoch_s", 0, 1e11) if whole.has("to_epoch_s") else None,
        share=whole.chance("share", 1.0),
    )
    whole.end()
    if (jump.by_s is None) == (jump.to_epoch_s is None):
        raise refusal(whole.pointer, "either by_s or to_epoch_s is expected")
    return jump


def _battery(whole: StrictObject) -> Battery:
    battery = Battery(dead_per_week=whole.number("dead_per_week", 0, 1_000), off_h=_table(whole, "off_h", 0, 10_000))
    whole.end()
    return battery


def _carry(whole: StrictObject) -> Carry:
    carry = Carry(
        every_days=whole.whole("every_days", 1, DAYS_MAX),
        late_days=_table(whole, "late_days", 0, 1_000),
        lost=whole.chance("lost"),
        twice=whole.chance("twice"),
        old_copy=whole.chance("old_copy"),
    )
    whole.end()
    return carry


def _deliver(whole: StrictObject) -> Deliver:
    deliver = Deliver(duplicate=whole.chance("duplicate"), reorder=whole.chance("reorder"))
    whole.end()
    return deliver


def _peer(whole: StrictObject) -> Peer:
    peer = Peer(
        overload=whole.number("overload", 1, 1e6, 1.0),
        during=whole.items("during", _window, needed=False),
        retry_after_s=_table(whole, "retry_after_s", 0, 1e6) if whole.has("retry_after_s") else None,
    )
    whole.end()
    return peer


def _excerpt(whole: StrictObject) -> Excerpt:
    excerpt = Excerpt(
        name=whole.text("name", _ID),
        day=whole.whole("day", 0, DAYS_MAX),
        at_min=whole.minute("at"),
        for_s=whole.whole("for_s", 1, EXCERPT_S_MAX),
    )
    whole.end()
    return excerpt


def _basis(whole: StrictObject) -> tuple[Basis, ...]:
    found = []
    for pointer in whole.keys:
        if not pointer.startswith("/"):
            raise refusal(whole.at(pointer), "a JSON pointer is expected")
        one = whole.object(pointer)
        kind = cast(Kind, one.word("kind", *KINDS))
        ref = one.words("ref")
        if not ref:
            raise refusal(one.at("ref"), "at least one source is expected")
        found.append(Basis(pointer=pointer, kind=kind, ref=ref, note=one.take("note", str) if one.has("note") else ""))
        one.end()
    return tuple(found)
