"""Every order there is, by name; each module of this package holds those of one subject."""

from __future__ import annotations

from collections.abc import Mapping

from syncserver.access import Order
from syncserver.orders import (
    access,
    adjustments,
    auditing,
    bulk,
    calendars,
    disputes,
    explain,
    identity,
    nightly,
    operating,
    paper,
    parity,
    places,
    releases,
    reports,
    rights,
    sinks,
    upstream,
)

ORDERS: Mapping[str, Order] = {
    **access.ORDERS,
    **adjustments.ORDERS,
    **auditing.ORDERS,
    **bulk.ORDERS,
    **calendars.ORDERS,
    **disputes.ORDERS,
    **explain.ORDERS,
    **identity.ORDERS,
    **nightly.ORDERS,
    **operating.ORDERS,
    **paper.ORDERS,
    **parity.ORDERS,
    **places.ORDERS,
    **releases.ORDERS,
    **reports.ORDERS,
    **rights.ORDERS,
    **sinks.ORDERS,
    **upstream.ORDERS,
}
