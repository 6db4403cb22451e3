"""Everything that can go wrong in clientcore, as one tree.

    HudurError
    ├── LocalError            we were misused; nothing was sent
    │   ├── BadInput          a person or a file gave something that cannot be read
    │   └── NotEnrolled       the device has no enrolment yet
    ├── RemoteError           the peer's bytes break docs/protocol.md
    │   ├── ChangeRefused     a change outside the profile (a verdict, never a lost frame)
    │   ├── FrameRefused      a frame, request or bundle that cannot be taken
    │   └── Problem           the server answered with an RFC 9457 problem
    ├── TransportError        no answer of ours came back; the same bytes will be sent again
    └── StoreError            the disk failed; nothing was acknowledged

Every error carries a stable `code` (the slugs of docs/protocol.md) and says whether trying again can help.
"""

from __future__ import annotations


class HudurError(Exception):
    """Root of all our errors.

    Attributes:
        code: Stable slug, listed in docs/protocol.md where it crosses the wire.
        retryable: Whether the same act may succeed later without a change.
    """

    retryable = False

    def __init__(self, code: str, detail: str = "") -> None:
        super().__init__(f"{code}: {detail}" if detail else code)
        self.code = code
        self.detail = detail


class LocalError(HudurError):
    """We were asked for something that cannot be done; nothing was sent or stored."""


class BadInput(LocalError):
    """A person or a file gave something that cannot be read; the message says what to change."""


class NotEnrolled(LocalError):
    """This device has no enrolment: ask the school's champion for a code."""


class RemoteError(HudurError):
    """The other side's bytes break the protocol."""


class ChangeRefused(RemoteError):
    """A change outside the narrow profile, or not by the device that sent it."""


class FrameRefused(RemoteError):
    """A frame, request body, answer or bundle that cannot be taken."""


class Problem(RemoteError):
    """The server answered with a problem document.

    Attributes:
        status: HTTP status.
        retry: `never`, `same`, `after`, `split`, `rekey` or `upgrade`.
        retry_after_s: Seconds the server asks us to wait, if it said so.
        body: The problem document as received.
    """

    def __init__(
        self,
        code: str,
        detail: str,
        *,
        status: int,
        retry: str,
        retry_after_s: float | None,
        body: dict[str, object],
    ) -> None:
        super().__init__(code, detail)
        self.status = status
        self.retry = retry
        self.retry_after_s = retry_after_s
        self.body = body

    @property
    def retryable(self) -> bool:  # type: ignore[override]
        """Whether the server expects the same bytes again."""
        return self.retry in ("same", "after", "split")


class TransportError(HudurError):
    """No answer of ours came back: no network, a timeout, a captive portal. The same bytes will be sent again."""

    retryable = True


class StoreError(HudurError):
    """The disk failed. Nothing that was not yet acknowledged will be."""

    retryable = True
