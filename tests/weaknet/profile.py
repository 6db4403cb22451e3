"""A weaknet/1 profile as values: what one school's network and phones do (fixtures/weak-networks/README.md).

Invariants:
  1. Everything is immutable and hashable: a profile can key a cache and be shared by a thousand devices.
  2. A `Profile` was read strictly (tests/weaknet/reading.py): no unknown key, no wrong type, no number out of range.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import date
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

from tests.weaknet.draws import Table
from tests.weaknet.errors import ProfileRefused

FOLDER = Path(__file__).parents[2] / "fixtures" / "weak-networks"
PACKET_BYTES = 1_400  # payload of one TCP segment behind a mobile carrier's tunnels
MATHIS = 1.22  # Mathis et al. 1997: rate <= 1.22 * segment / (round trip * sqrt(loss)); cubic does no worse here

Tech = Literal["2g", "3g", "4g", "wifi"]
After = Literal["blackhole", "portal", "throttle"]
Kind = Literal["measured", "derived", "assumed"]
KINDS: tuple[Kind, ...] = ("measured", "derived", "assumed")


@dataclass(frozen=True, slots=True, kw_only=True)
class Days:
    """Which days a window is true for.

    Attributes:
        weekdays: Monday is 0; all seven for `*`; empty when `numbers` decides.
        numbers: Days of the span, the first is 0; they come again when a timeline is longer than the span.
    """

    weekdays: frozenset[int] = frozenset()
    numbers: frozenset[int] = frozenset()

    def hold(self, number: int, weekday: int) -> bool:
        """Whether the window is true on the span's day `number`, which is a `weekday`."""
        return weekday in self.weekdays or number in self.numbers


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """A stretch of local wall time, minutes since midnight; `to_min` is greater than `from_min` and at most 1440."""

    days: Days
    from_min: int
    to_min: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Loss:
    """Gilbert-Elliott: chance per packet to turn bad and to turn good again, and the loss in each state."""

    g2b: float
    b2g: float
    bad: float
    good: float

    @property
    def mean(self) -> float:
        """Share of packets lost in the long run."""
        total = self.g2b + self.b2g
        share_bad = self.g2b / total if total else 0.0
        return self.bad * share_bad + self.good * (1 - share_bad)


@dataclass(frozen=True, slots=True, kw_only=True)
class Closure:
    """A closure of `for_min` placed at random inside a window of each day, both ends blurred by up to `slack_min`."""

    window: Window
    for_min: float
    slack_min: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Condition:
    """What else holds inside a window. None leaves the link's own value."""

    window: Window
    rate_scale: float = 1.0
    connect_fail: float | None = None
    dns_fail: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Flap:
    """Alternating spells inside open time; seconds."""

    on_s: Table
    off_s: Table


@dataclass(frozen=True, slots=True, kw_only=True)
class Cut:
    """Share of connections that die part-way, and how: the shares of `rst` and `blackhole` (silence) add up to 1."""

    per_conn: float
    rst: float
    blackhole: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """Bytes a local day, both ways together, and what comes after them."""

    bytes_per_day: int
    then: After
    throttle_kbps: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Gate:
    """A zero-rating proxy: which hosts pass and what it does to requests."""

    allow: tuple[str, ...]
    others: Literal["timeout", "rst", "portal"]
    tls: Literal["pass", "terminate"]
    strip_headers: tuple[str, ...] = ()
    add_headers: tuple[str, ...] = ()
    methods: tuple[str, ...] | None = None
    upgrade: bool = True
    max_body_kb: float | None = None
    cache_get_s: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Link:
    """One way to the server. Rates in kbit/s, times in ms or as named, chances from 0 to 1.

    Attributes:
        queue_kb: Buffer of the bottleneck, kilobytes.
        open: When the link can exist; None means always.
        nat_idle_s: After how many idle seconds the carrier forgets a connection, without a word; None: never.
    """

    name: str
    tech: Tech
    down_kbps: Table
    up_kbps: Table
    rtt_ms: Table
    queue_kb: float
    loss: Loss
    open: tuple[Window, ...] | None = None
    shut: tuple[Closure, ...] = ()
    when: tuple[Condition, ...] = ()
    flap: Flap | None = None
    cut: Cut | None = None
    connect_fail: float = 0.0
    dns_fail: float = 0.0
    nat_idle_s: float | None = None
    new_ip_per_h: float = 0.0
    budget: Budget | None = None
    gate: Gate | None = None

    @property
    def mean_loss(self) -> float:
        """Share of packets lost in the long run."""
        return self.loss.mean

    def goodput_kbps(self, rate_kbps: float, rtt_ms: float) -> float:
        """Rate that is left when lost packets are sent again and TCP slows down for them.

        The lesser of what the link carries once (rate less the share lost) and Mathis's bound for this loss and round
        trip. For drivers that have no packets.
        """
        loss = self.mean_loss
        left = rate_kbps * (1 - loss)
        if loss <= 0 or rtt_ms <= 0:
            return left
        return min(left, MATHIS * PACKET_BYTES * 8 / (rtt_ms * float(loss**0.5)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Jump:
    """A share of devices has its clock moved `by_s` seconds, or set to an instant, on a day of the span."""

    day: int
    at_min: int
    why: str
    by_s: float | None = None
    to_epoch_s: float | None = None
    share: float = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceClock:
    """Offset from true time in seconds, drift in parts per million, error of the zone rules in seconds."""

    offset_s: Table
    drift_ppm: Table
    jumps: tuple[Jump, ...]
    zone_error_s: Table


@dataclass(frozen=True, slots=True, kw_only=True)
class Battery:
    """How often it runs flat and for how many hours the phone is then off."""

    dead_per_week: float
    off_h: Table


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """What happens to a phone.

    Attributes:
        kill_per_h: The app is ended that often an hour, at any time.
        kill_in_sync: Chance that it is ended inside one sync.
        free_mb: Free storage, megabytes; None: enough.
        wipe_per_run: Chance that all its data are cleared once in a span.
        people: Teachers who share it.
        handover: Minutes since local midnight, on school days (Sunday to Thursday).
    """

    clock: DeviceClock
    kill_per_h: float
    kill_in_sync: float
    people: int
    battery: Battery | None = None
    free_mb: Table | None = None
    wipe_per_run: float = 0.0
    handover: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Carry:
    """A courier takes the phone's file every so many days; it may come late, never, twice, or be an older copy."""

    every_days: int
    late_days: Table
    lost: float
    twice: float
    old_copy: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Deliver:
    """Chances that a request arrives twice, or after a later one."""

    duplicate: float
    reorder: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Peer:
    """The server has `overload` times the work it can do during some windows."""

    overload: float = 1.0
    during: tuple[Window, ...] = ()
    retry_after_s: Table | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Excerpt:
    """A stretch for drivers that run in real time: day of the span, minutes since midnight, seconds (at most 120)."""

    name: str
    day: int
    at_min: int
    for_s: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """The simulated stretch: its first local day, how many days, and the zone (IANA name)."""

    start: date
    days: int
    tz: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Basis:
    """Where the numbers under a JSON pointer come from. `ref`: names in SOURCES.json."""

    pointer: str
    kind: Kind
    ref: tuple[str, ...]
    note: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """One school's network and phones. `links` in order of preference: the first usable one carries the traffic."""

    id: str
    title: str
    span: Span
    links: tuple[Link, ...]
    device: Device
    deliver: Deliver
    basis: tuple[Basis, ...]
    carry: Carry | None = None
    peer: Peer | None = None
    excerpts: tuple[Excerpt, ...] = ()


# ---- files ------------------------------------------------------------------------------------------------------


def names(folder: Path = FOLDER) -> tuple[str, ...]:
    """Ids of all profiles, sorted."""
    return tuple(sorted(path.stem for path in (folder / "profiles").glob("*.json")))


def read_json(name: str, folder: Path = FOLDER) -> dict[str, Any]:
    """The file of a profile as plain JSON.

    Raises:
        ProfileRefused: `unknown-profile` (with the names there are) or `not-json`.
    """
    if name not in names(folder):
        raise ProfileRefused("unknown-profile", f"{name!r}; there are: {', '.join(names(folder))}")
    path = folder / "profiles" / f"{name}.json"
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as broken:
        raise ProfileRefused("not-json", f"{path.name}: {broken}") from None
    if not isinstance(found, dict):
        raise ProfileRefused("not-json", f"{path.name}: not an object")
    return found


@lru_cache(maxsize=64)
def load(name: str, folder: Path = FOLDER) -> Profile:
    """A profile by its id.

    Raises:
        ProfileRefused: when there is none, or its file breaks the format (the detail names the JSON pointer).
    """
    from tests.weaknet.reading import read_profile

    profile = read_profile(read_json(name, folder))
    if profile.id != name:
        raise ProfileRefused("bad-profile", f"/id: {profile.id!r} stands in {name}.json")
    return profile


def load_file(path: Path) -> Profile:
    """A profile from any file: one made by `fit` that is not among the fixtures yet.

    Raises:
        ProfileRefused: as `load`.
    """
    from tests.weaknet.reading import read_profile

    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as broken:
        raise ProfileRefused("not-json", f"{path.name}: {broken}") from None
    return read_profile(found)
