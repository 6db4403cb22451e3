"""Every order there is, by name; each module of this package holds those of one subject."""

from __future__ import annotations

from collections.abc import Mapping

from syncserver.access import Order
from syncserver.orders import auditing, operating

ORDERS: Mapping[str, Order] = {
    **auditing.ORDERS,
    **operating.ORDERS,
}
