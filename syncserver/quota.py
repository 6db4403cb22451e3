"""How often somebody may ask: token buckets in memory. A quota protects the others; it never decides about a mark."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

from clientcore.ports import Clock
from syncserver.errors import RequestProblem

_NAMES_MAX = 65_536
SAME_BYTES_PER_MINUTE = 20  # how often one frame or call may come again: a phone that waits as it should never does


@dataclass(slots=True)
class _Bucket:
    tokens: float
    at_ms: int


class Quota:
    """`burst` requests at once, `per_minute` in the long run, for each name.

    Forgetting the least recent name when there are too many gives it a full bucket again: never a wrong refusal.
    """

    def __init__(self, clock: Clock, *, burst: int, per_minute: int) -> None:
        self._clock, self._burst, self._per_ms = clock, burst, per_minute / 60_000
        self._buckets: OrderedDict[bytes | str, _Bucket] = OrderedDict()

    def take(self, name: bytes | str) -> None:
        """Count one request.

        Raises:
            RequestProblem: `slow-down`, with the seconds after which one more is free.
        """
        bucket = self._filled(name)
        self._check(bucket)
        bucket.tokens -= 1

    def check(self, name: bytes | str) -> None:
        """Whether a request may come now; `charge` counts it once it is known to be worth counting.

        Raises:
            RequestProblem: as `take`.
        """
        self._check(self._filled(name))

    def check_known(self, name: bytes | str) -> None:
        """As `check`, for a name that nobody has proved: it may be refused for what its owner did, leaves no trace.

        Raises:
            RequestProblem: as `take`.
        """
        if name in self._buckets:
            self._check(self._filled(name))

    def charge(self, name: bytes | str) -> None:
        """Count a request that was checked before. Many at once may go into debt: it is paid before the next one."""
        self._filled(name).tokens -= 1

    def _check(self, bucket: _Bucket) -> None:
        if bucket.tokens < 1:
            wait_s = 1 + int((1 - bucket.tokens) / self._per_ms / 1000)
            raise RequestProblem("slow-down", "too many requests; the work is safe", retry_after_s=wait_s)

    def _filled(self, name: bytes | str) -> _Bucket:
        now_ms = self._clock.mono_ms()
        bucket = self._buckets.get(name)
        if bucket is None:
            bucket = self._buckets[name] = _Bucket(float(self._burst), now_ms)
            if len(self._buckets) > _NAMES_MAX:
                self._buckets.popitem(last=False)
        bucket.tokens = min(self._burst, bucket.tokens + (now_ms - bucket.at_ms) * self._per_ms)
        bucket.at_ms = now_ms
        return bucket
