"""What can be wrong with a profile or a recording.

    WeaknetError(ValueError)
    ├── ProfileRefused      a file that is not a weaknet/1 profile
    └── RecordingRefused    a recording that cannot be read, or holds too little to say anything

Every error carries a stable `code`; none is retryable: the file has to change.
"""

from __future__ import annotations


class WeaknetError(ValueError):
    """Root of this library's errors.

    Attributes:
        code: Stable slug.
        detail: What is wrong and where (a JSON pointer, a line), in words.
    """

    retryable = False

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(f"{code}: {detail}")
        self.code = code
        self.detail = detail


class ProfileRefused(WeaknetError):
    """Not a weaknet/1 profile. Codes: `unknown-profile`, `not-json`, `bad-profile`, `no-basis`."""


class RecordingRefused(WeaknetError):
    """Codes: `not-a-recording`, `bad-line`, `too-little`."""
