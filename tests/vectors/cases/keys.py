"""What follows from keys: device ids, short numbers, actors, signatures."""

from __future__ import annotations

import hashlib
from typing import Any

from clientcore.change import actor_of
from clientcore.keys import device_id, short_number, verify
from tests.support.fixed import PHONE, FixedKey
from tests.support.quick import ORDER_P256


def _devices() -> list[dict[str, str]]:
    keys = [FixedKey(f"device {i}").public for i in range(8)]
    keys += [key for key in (FixedKey(f"short {i}").public for i in range(40)) if short_number(key).startswith("0")][:1]
    return [{"public_key": key.hex(), "device": device_id(key).hex(), "short": short_number(key)} for key in keys]


def _actors() -> list[dict[str, str]]:
    pairs = [
        (device_id(FixedKey(f"device {i}").public), hashlib.sha256(f"nonce {i}".encode()).digest()[:8])
        for i in range(4)
    ]
    return [
        {"device": device.hex(), "nonce": nonce.hex(), "actor": actor_of(device, nonce).hex()}
        for device, nonce in pairs
    ]


def _signatures() -> list[dict[str, Any]]:
    message = b"attendance"
    good = PHONE.sign(message)
    s = int.from_bytes(good[32:], "big")
    twin = good[:32] + (ORDER_P256 - s).to_bytes(32, "big")
    other = FixedKey("other").public
    found = [
        ("good", PHONE.public, message, good),
        ("the other spelling of the same signature", PHONE.public, message, twin),
        ("empty message", PHONE.public, b"", PHONE.sign(b"")),
        ("other message", PHONE.public, message + b"!", good),
        ("other key", other, message, good),
        ("one bit", PHONE.public, message, bytes((good[0] ^ 1,)) + good[1:]),
        ("zeros", PHONE.public, message, bytes(64)),
        ("halves swapped", PHONE.public, message, good[32:] + good[:32]),
        ("r beyond the order", PHONE.public, message, b"\xff" * 32 + good[32:]),
    ]
    return [
        {
            "name": name,
            "public_key": key.hex(),
            "message": text.hex(),
            "signature": signature.hex(),
            "valid": verify(key, text, signature),
        }
        for name, key, text, signature in found
    ]


def produce() -> dict[str, Any]:
    return {"devices": _devices(), "actors": _actors(), "signatures": _signatures()}
