"""Orders that read the audit trail; nobody can order a change of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from syncserver import trail
from syncserver.access import ApiRole, Args, Desk, Order, every_school, roles
from syncserver.errors import RequestProblem

_LIMIT_MAX = 1_000


async def order_audit(desk: Desk, args: Args, _: bytes) -> dict[str, Any]:
    """`after` (row id), `limit`, `about` (a school, register or id in subject or actor)."""
    after, limit, about = args.get("after", 0), args.get("limit", 100), args.get("about")
    if type(after) is not int or type(limit) is not int or not 1 <= limit <= _LIMIT_MAX:
        raise RequestProblem("bad-request", f"after and limit (1 to {_LIMIT_MAX}) are numbers")
    if about is not None and not isinstance(about, str):
        raise RequestProblem("bad-request", "about is a text")
    return {"rows": await trail.read_trail(desk.db, after=after, limit=limit, about=about)}


async def order_audit_verify(desk: Desk, args: Args, _: bytes) -> dict[str, Any]:
    """`head`: first hex digits (8 or more) of a head somebody kept; optional."""
    head = args.get("head")
    if head is not None and (not isinstance(head, str) or len(head) < 8):
        raise RequestProblem("bad-request", "head is 8 hex digits or more")
    return asdict(await trail.verify(desk.db, known_head=head))


_READERS = roles(ApiRole.AUDITOR, ApiRole.CENTRAL)
ORDERS: Mapping[str, Order] = {
    "audit": Order(run=order_audit, roles=_READERS, about=every_school),
    "audit-verify": Order(run=order_audit_verify, roles=_READERS, about=every_school),
}
