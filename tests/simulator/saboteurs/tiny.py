"""The smallest world: a stand-in for the simulator, to test the hunt itself.

It knows three things of the product: waiting has a cap (`back-off-without-cap` breaks it from seed 9 on), a busy server
is heard (`retry-after-ignored`: here an exception), a count has bounds (`run-length-bomb`: here an endless loop).
`shaky` finds something by itself in seed 9.
"""

from __future__ import annotations

from dataclasses import dataclass

from clientcore.backoff import wait_ms
from clientcore.columns import read_keys
from clientcore.errors import ChangeRefused
from clientcore.leb128 import sleb


@dataclass(frozen=True, slots=True, kw_only=True)
class Violation:
    """As the simulator's."""

    invariant: str
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """As the simulator's."""

    violations: tuple[Violation, ...]
    digest: str


def simulate(seed: int) -> Report:
    """One look at the product."""
    waited = wait_ms(seed, fraction=0.99)
    try:
        read_keys(sleb(1_000) + b"\1a", 8)
    except ChangeRefused as refused:
        if refused.code != "too-many-ops":
            raise
    else:
        while True:
            pass
    if wait_ms(1, fraction=0.0, retry_after_s=7.0) != 7_000:
        raise AssertionError("a busy server was not heard")
    violations = (Violation(invariant="I8", detail=f"waits {waited} ms"),) if waited > 900_000 else ()
    return Report(violations=violations, digest=str(waited))


def shaky(seed: int) -> Report:
    """As `simulate`, but the control fails in seed 9."""
    found = simulate(seed)
    if seed == 9:
        return Report(violations=(Violation(invariant="I4", detail="always"),), digest=found.digest)
    return found
