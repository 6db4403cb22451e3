"""Stand-ins that keep a promise without its cost: codes without argon2, keys from names."""

from __future__ import annotations

import random

from cryptography.hazmat.primitives.asymmetric import ec

from clientcore.keys import SigningKey

ORDER_P256 = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551


class QuickHasher:
    """Keeps the port's promises without argon2's cost; the real one has its own test."""

    async def digest(self, code: str) -> str:
        """See `CodeHasher`."""
        return f"quick:{code[::-1]}"

    async def matches(self, digest: str | None, code: str) -> bool:
        """See `CodeHasher`."""
        return digest == f"quick:{code[::-1]}"


def key_of(name: str) -> SigningKey:
    """A key from a name: the same run has the same devices and the same bytes.

    Not `fixed.FixedKey`: what a seed plays depends on the keys, and the planted bugs are recorded by seed.
    """
    number = random.Random(f"key|{name}").randrange(1, ORDER_P256)
    return SigningKey(ec.derive_private_key(number, ec.SECP256R1()))
