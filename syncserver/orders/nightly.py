"""The order to compare a date with the school system, outside the night in which the server does it by itself."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from clientcore.register import is_date
from syncserver import nightly
from syncserver.access import ApiRole, Args, Desk, Order, every_school, roles
from syncserver.errors import ConfigError, RequestProblem
from syncserver.upstream.rest import open_upstream


async def order_reconcile(desk: Desk, args: Args, _: bytes) -> dict[str, Any]:
    """`date` (yesterday): counts and digests of both sides, and where they differ, pupil by pupil."""
    date = args.get("date") or nightly.yesterday(desk.now_ms, desk.config.zone)
    if not isinstance(date, str) or not is_date(date):
        raise RequestProblem("bad-request", "date is a civil date: YYYY-MM-DD")
    try:
        async with open_upstream(desk.config, desk.ports) as upstream:
            return await nightly.reconcile(desk.db, desk.ports, upstream, date, actor=desk.who.actor)
    except ConfigError as missing:
        raise RequestProblem("not-found", missing.detail) from None


ORDERS: Mapping[str, Order] = {
    "reconcile": Order(run=order_reconcile, roles=roles(ApiRole.CENTRAL), about=every_school),
}
