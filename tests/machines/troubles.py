"""What can go wrong in one step, as values, and how often by a weak-network profile.

Invariants:
  1. A trouble of the network comes only under profiles that have it; deaths, failing disks and restores come under all.
  2. A third of the draws are `Nothing`: a profile's own rates (1 request in 20 is cut) need thousands of steps.
     Among the others the profile's proportions hold, with a floor so that every possible trouble is met.
  3. The first element of every choice is the most harmless one: failures shrink towards it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from hypothesis import strategies as st

from clientcore.device import CRASH_POINTS as DEVICE_POINTS
from syncserver.ports import BUNDLE_CRASH_POINTS, CRASH_POINTS
from tests.weaknet.profile import Link, Profile

How = Literal["kill", "power none", "power some", "power all", "eio", "enospc"]
"""The process dies; the power goes and none, some or all of the unsynced writes are kept; the disk fails."""

PHONE_POINTS = ("log.before_commit", "log.after_commit", *DEVICE_POINTS)
SERVER_POINTS = (*CRASH_POINTS, *BUNDLE_CRASH_POINTS)
TICKETS = 36  # of a lottery: a third are blanks, each possible trouble has at least one
BYTES_MAX = 900  # of one request or answer: a class of three pupils fits three times


@dataclass(frozen=True, slots=True)
class Nothing:
    """It works."""


@dataclass(frozen=True, slots=True)
class Refused:
    """No connection."""


@dataclass(frozen=True, slots=True)
class CutRequest:
    """The connection dies when `at` bytes of the request have arrived; `silent`: nobody is told."""

    at: int
    silent: bool


@dataclass(frozen=True, slots=True)
class CutAnswer:
    """The server has done its work; `at` bytes of its answer come back."""

    at: int
    silent: bool


@dataclass(frozen=True, slots=True)
class ShortAnswer:
    """The answer's first `at` bytes, handed over by somebody in between as if they were all."""

    at: int


@dataclass(frozen=True, slots=True)
class Twice:
    """The request arrives twice; the phone gets the second answer (or the first)."""

    second: bool


@dataclass(frozen=True, slots=True)
class Earlier:
    """The `back`-th last request of this phone arrives again just before this one."""

    back: int


@dataclass(frozen=True, slots=True)
class OldAnswer:
    """Somebody in between gives the phone the answer to its `back`-th last answered request."""

    back: int


@dataclass(frozen=True, slots=True)
class StrangersPage:
    """A top-up page with status 200; `ours`: it claims to be of our media type."""

    ours: bool


@dataclass(frozen=True, slots=True)
class Busy:
    """A gateway's 503."""

    retry_after_s: int


@dataclass(frozen=True, slots=True)
class Meanwhile:
    """Not a fault: a finger taps while the answer is on its way."""

    class_id: str
    day: int
    pupil: int
    code: str


@dataclass(frozen=True, slots=True)
class Blow:
    """A machine is hit in this step: at its `at`-th disk operation, or when it passes a named point the `nth` time."""

    on: Literal["phone", "server"]
    at: int | str
    how: How
    nth: int = 1


@dataclass(frozen=True, slots=True)
class Jump:
    """A phone's wall clock moves by seconds, or to an instant (seconds since 1970)."""

    by_s: float | None = None
    to_epoch_s: float | None = None


Trouble = (
    Nothing
    | Refused
    | CutRequest
    | CutAnswer
    | ShortAnswer
    | Twice
    | Earlier
    | OldAnswer
    | StrangersPage
    | Busy
    | Meanwhile
    | Blow
)

CLASSES = ("c1", "c2")
CODES = ("P", "A", "L")
_at = st.integers(0, BYTES_MAX)
_back = st.integers(0, 3)
meanwhiles = st.builds(
    Meanwhile, st.sampled_from(CLASSES), st.integers(0, 1), st.integers(0, 1), st.sampled_from(CODES)
)
deaths: st.SearchStrategy[How] = st.sampled_from(("kill", "power none", "power some", "power all"))
_disk_fails = st.sampled_from(("eio", "enospc"))


def blows(on: Literal["phone", "server"], *, reach: int = 80) -> st.SearchStrategy[Blow]:
    """Deaths and disk errors of one machine, within `reach` disk operations: a tap has 15, a sync of a phone 80."""
    points = PHONE_POINTS if on == "phone" else SERVER_POINTS
    return st.one_of(
        st.builds(Blow, st.just(on), st.sampled_from(points), deaths, st.integers(1, 3)),
        st.builds(Blow, st.just(on), st.integers(1, reach), deaths),
        st.builds(Blow, st.just(on), st.integers(1, reach), _disk_fails),
    )


def maybe(rare: st.SearchStrategy[Trouble], *, blanks: int = 2) -> st.SearchStrategy[Trouble]:
    """Nothing, or once in `blanks` + 1 draws something."""
    return st.sampled_from((*[False] * blanks, True)).flatmap(lambda hit: rare if hit else st.just(Nothing()))


def troubles(profile: Profile) -> st.SearchStrategy[Trouble]:
    """What one exchange of a phone under `profile` may meet."""
    rates = {name: rate for name, rate in _rates(profile).items() if rate > 0}
    whole = sum(rates.values())
    tickets = ["nothing"] * (TICKETS // 3)
    for name, rate in rates.items():
        tickets += [name] * max(1, round(TICKETS * 2 / 3 * rate / whole))
    return st.sampled_from(tickets).flatmap(_STRATEGIES.__getitem__)


_STRATEGIES: dict[str, st.SearchStrategy[Trouble]] = {
    "nothing": st.just(Nothing()),
    "refused": st.just(Refused()),
    "request reset": st.builds(CutRequest, _at, st.just(False)),
    "request silent": st.builds(CutRequest, _at, st.just(True)),
    "answer reset": st.builds(CutAnswer, _at, st.just(False)),
    "answer silent": st.builds(CutAnswer, _at, st.just(True)),
    "short": st.builds(ShortAnswer, _at),
    "twice": st.builds(Twice, st.booleans()),
    "earlier": st.builds(Earlier, _back),
    "old answer": st.builds(OldAnswer, _back),
    "page": st.builds(StrangersPage, st.booleans()),
    "busy": st.builds(Busy, st.sampled_from((1, 30, 120))),
    "meanwhile": meanwhiles,
    "phone": blows("phone"),
    "server": blows("server"),
}


def _rates(profile: Profile) -> dict[str, float]:
    """Chance per exchange of each trouble; what no profile states is *assumed* here."""
    links = profile.links
    cut = max((link.cut.per_conn for link in links if link.cut), default=0.0)
    silent = max((link.cut.blackhole for link in links if link.cut), default=0.0)
    gates = any(link.gate for link in links)
    pages = any(link.budget and link.budget.then == "portal" for link in links) or gates
    overload = profile.peer.overload if profile.peer else 1.0
    return {
        "refused": max((_unreachable(link) for link in links), default=0.0),
        "request reset": cut * (1 - silent) / 2,
        "request silent": cut * silent / 2,
        "answer reset": cut * (1 - silent) / 2,
        "answer silent": cut * silent / 2,
        "short": cut / 10 if gates else 0.0,  # only who ends the connection can end the body early
        "twice": profile.deliver.duplicate,
        "earlier": profile.deliver.reorder if links else 0.0,
        "old answer": 0.01 if gates else 0.0,  # a cache that does not care for the method
        "page": 0.05 if pages else 0.0,
        "busy": 0.1 if overload > 1 else 0.01,
        "meanwhile": 0.05,
        "phone": max(profile.device.kill_in_sync, 0.02),
        "server": 0.05,
    }


def _unreachable(link: Link) -> float:
    worst = max((one.connect_fail or 0.0 for one in link.when), default=0.0)
    dns = max((one.dns_fail or 0.0 for one in link.when), default=0.0)
    empty = 0.05 if link.budget and link.budget.then == "blackhole" else 0.0
    return max(link.connect_fail, worst) + max(link.dns_fail, dns) + empty


def jumps(profile: Profile) -> Sequence[Jump]:
    """How a phone's clock may move: every error the profile's phones have, and their dated jumps; small ones first."""
    clock = profile.device.clock
    errors = {value * clock.offset_s.scale for _, value in clock.offset_s.points if value}
    errors |= {jump.by_s for jump in clock.jumps if jump.by_s}
    dated = sorted({jump.to_epoch_s for jump in clock.jumps if jump.to_epoch_s is not None})
    steps = [Jump(by_s=value) for value in sorted(errors, key=lambda value: (abs(value), value))]
    return [*steps, *(Jump(to_epoch_s=value) for value in dated)]
