"""Enrolled devices: who a device is (never changes) and what is known of it (changes with every contact)."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

from syncserver.store.port import Database, Reader

_CACHE_MAX = 32_768  # a province's phones; about 300 bytes each


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """What never changes about an enrolled device."""

    device: bytes
    school: str
    user_id: str
    public_key: bytes


class DeviceBook:
    """Identities by device id, read once each. Nothing that can be revoked is kept here."""

    def __init__(self, db: Database) -> None:
        self._db = db
        self._known: OrderedDict[bytes, Identity] = OrderedDict()

    async def warm(self) -> None:
        """Read the devices that were here last, so that a morning does not begin with one read for each."""
        rows = await self._db.fetch_all(
            "SELECT id, school, user_id, public_key FROM devices ORDER BY last_contact_ms DESC LIMIT ?", (_CACHE_MAX,)
        )
        for device, school, user_id, public_key in reversed(rows):
            self._known[device] = Identity(device=device, school=school, user_id=user_id, public_key=public_key)

    def known(self, device: bytes) -> Identity | None:
        """Who `device` is, if it was asked for before; None says nothing about whether it is enrolled."""
        return self._known.get(device)

    async def identity(self, device: bytes) -> Identity | None:
        """Who `device` is; None when it was never enrolled here (not remembered: it may enrol in a moment)."""
        found = self._known.get(device)
        if found is not None:
            return found
        found = await self._db.glance(lambda reader: read_identity(reader, device))
        if found is not None:
            self._known[device] = found
            if len(self._known) > _CACHE_MAX:
                self._known.popitem(last=False)
        return found


async def read_identity(reader: Reader, device: bytes) -> Identity | None:
    """Who `device` is, from the store."""
    row = await reader.fetch_one("SELECT school, user_id, public_key FROM devices WHERE id = ?", (device,))
    if row is None:
        return None
    return Identity(device=device, school=row[0], user_id=row[1], public_key=row[2])
