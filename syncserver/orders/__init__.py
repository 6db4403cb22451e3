"""Every order there is, by name; each module of this package holds those of one subject."""

from __future__ import annotations

from collections.abc import Mapping

from syncserver.access import Order
from syncserver.orders import access, auditing, operating, releases, rights

ORDERS: Mapping[str, Order] = {
    **access.ORDERS,
    **auditing.ORDERS,
    **operating.ORDERS,
    **releases.ORDERS,
    **rights.ORDERS,
}
