"""Back-off and request sizes."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from clientcore.backoff import frames_per_request, wait_ms


@given(st.integers(1, 10_000), st.floats(0, 1, exclude_max=True), st.none() | st.floats(0, 3_600))
def test_waiting_is_jittered_capped_and_never_shorter_than_asked(
    failures: int, fraction: float, retry_after_s: float | None
) -> None:
    """Full jitter below 900 s, whatever the count; Retry-After is a floor."""
    ceiling_ms = min(900_000.0, 5_000 * 2.0 ** min(failures - 1, 30))
    waited = wait_ms(failures, fraction=fraction, retry_after_s=retry_after_s)
    assert waited == int(max(ceiling_ms * fraction, 1_000 * (retry_after_s or 0)))
    assert waited <= max(900_000, 1_000 * (retry_after_s or 0))


def test_the_first_wait_is_within_five_seconds() -> None:
    """N counts from 0: after the first failure the ceiling is 5 s, after the second 10 s."""
    assert wait_ms(1, fraction=0.999) == 4_995
    assert wait_ms(2, fraction=0.999) == 9_990
    assert wait_ms(1, fraction=0.0) == 0


def test_requests_halve_down_to_one_frame() -> None:
    """32, 16, … 1, and never nothing."""
    assert [frames_per_request(n) for n in range(8)] == [32, 16, 8, 4, 2, 1, 1, 1]
    assert frames_per_request(10_000) == 1
