"""Who may mark what, when. Pure: the rights come in with the context; the answer is a slug or None.

A change of somebody without the right is stored, shown and held; it alters no answer and hides nobody else's mark. A
change counts as a whole or not at all: one mark outside the author's right holds it.
"""

from __future__ import annotations

from collections.abc import Sequence

from reconciliation.model import Capture, Context, Receipt, Right, Window

OUT_OF_SCOPE = "out-of-scope"
REVOKED = "revoked"


def held_because(receipt: Receipt, captures: Sequence[Capture], day: Window, context: Context) -> str | None:
    """Why a change is held: `out-of-scope`, `revoked`, or None when its author may make all its marks.

    A revocation holds all that arrives after it, whatever the phone says about when it was made: nothing signed by a
    revoked subject alters an outcome without a named person's release. What had arrived before it stays. Nobody
    releases a change of their own.

    Args:
        receipt: The change's first receipt.
        captures: When its marks were made; at least one.
        day: The civil day of the register.
        context: Rights, revoked devices and releases.
    """
    release = context.decisions.releases.get(receipt.change_hash)
    if release is not None and release.by != receipt.user_id:
        return None
    revoked_at_ms = context.revoked_devices.get(receipt.device)
    if revoked_at_ms is not None and receipt.received_at_ms >= revoked_at_ms:
        return REVOKED
    rights = context.entitled.get(receipt.user_id, ())
    of_day = [right for right in rights if _meets(right, day.opens_ms, day.closes_ms - 1)]
    living = [right for right in of_day if not _revoked_before(right, receipt)]
    if all(any(_meets(right, *captured.interval) for right in living) for captured in captures):
        return None
    return REVOKED if any(_revoked_before(right, receipt) for right in rights) else OUT_OF_SCOPE


def _meets(right: Right, first_ms: int, last_ms: int) -> bool:
    return right.from_ms <= last_ms and (right.until_ms is None or first_ms < right.until_ms)


def _revoked_before(right: Right, receipt: Receipt) -> bool:
    return right.revoked and right.until_ms is not None and receipt.received_at_ms >= right.until_ms
