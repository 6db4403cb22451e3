"""When to try again (docs/protocol.md section 5). Pure.

Full jitter, because a thousand phones that lost the same mast at the same second must not come back together.
"""

from __future__ import annotations

from clientcore.limits import BACKOFF_BASE_S, BACKOFF_CAP_S, FRAMES_PER_REQUEST_MAX

_DOUBLINGS_MAX = 16  # 5 s x 2^16 is far above the cap; bounds the shift


def wait_ms(failures: int, *, fraction: float, retry_after_s: float | None = None) -> int:
    """Milliseconds to wait after the n-th failure in a row.

    Args:
        failures: Failures so far, at least 1.
        fraction: Uniform in [0, 1), from the random port.
        retry_after_s: The server's Retry-After in seconds; waiting is never shorter.
    """
    ceiling_s = min(BACKOFF_CAP_S, BACKOFF_BASE_S * 2.0 ** min(failures - 1, _DOUBLINGS_MAX))
    return int(1000 * max(ceiling_s * fraction, retry_after_s or 0.0))


def frames_per_request(shrinks: int) -> int:
    """How many frames one request may carry after `shrinks` too-large answers or time-outs in a row."""
    return max(1, FRAMES_PER_REQUEST_MAX >> min(shrinks, _DOUBLINGS_MAX))
