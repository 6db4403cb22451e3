"""Keys and actors that are the same in every run: secrets of nobody."""

from __future__ import annotations

import hashlib

from cryptography.hazmat.primitives.asymmetric import ec

from clientcore.change import actor_of
from clientcore.keys import SigningKey, device_id


class FixedKey(SigningKey):
    """A key known by its label; signatures repeat (RFC 6979), so that vectors can be compared byte by byte."""

    def __init__(self, label: str) -> None:
        number = int.from_bytes(hashlib.sha256(b"fixed key " + label.encode()).digest(), "big") >> 8
        super().__init__(ec.derive_private_key(number, ec.SECP256R1()))


PHONE = FixedKey("phone")
OTHER_PHONE = FixedKey("other phone")
SERVER = FixedKey("server")


def actor(label: str) -> bytes:
    """The actor id of app session `label` of the fixed phone."""
    return actor_of(device_id(PHONE.public), hashlib.sha256(label.encode()).digest()[:8])
