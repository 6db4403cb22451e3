"""Device and server keys: ECDSA P-256 with SHA-256, raw 64-byte signatures as WebCrypto gives them.

P-256 because phones of 2018 sign with it through WebCrypto and lack Ed25519 (Chrome for Android has it since 137).
A signature is never an identity: (r, s) and (r, n-s) both verify, so frames are known by the hash of what was signed.
"""

from __future__ import annotations

import hashlib
from functools import lru_cache

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature

from clientcore.errors import BadInput, FrameRefused

SIGNATURE_BYTES = 64
PUBLIC_KEY_BYTES = 65
# RFC 6979: a signature needs no randomness, so a poor source of it can never give the key away.
_ALGORITHM = ec.ECDSA(hashes.SHA256(), deterministic_signing=True)


class SigningKey:
    """A private key. Made by the device itself; never leaves it, never printed."""

    def __init__(self, private: ec.EllipticCurvePrivateKey) -> None:
        self._private = private
        self.public = private.public_key().public_bytes(
            serialization.Encoding.X962, serialization.PublicFormat.UncompressedPoint
        )

    @classmethod
    def generate(cls) -> SigningKey:
        """A new key from the operating system's randomness (never from a seeded port: keys must not repeat)."""
        return cls(ec.generate_private_key(ec.SECP256R1()))

    @classmethod
    def from_pem(cls, pem: bytes) -> SigningKey:
        """Read an unencrypted PKCS #8 key.

        Raises:
            BadInput: `bad-key`.
        """
        try:
            private = serialization.load_pem_private_key(pem, password=None)
        except (ValueError, TypeError):
            raise BadInput("bad-key", "the key file cannot be read") from None
        if not isinstance(private, ec.EllipticCurvePrivateKey) or private.curve.name != "secp256r1":
            raise BadInput("bad-key", "the key is not a P-256 key")
        return cls(private)

    def to_pem(self) -> bytes:
        """PKCS #8, unencrypted: the caller must write it readable by the owner only."""
        return self._private.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )

    def sign(self, message: bytes) -> bytes:
        """64 bytes r ‖ s, big-endian."""
        r, s = decode_dss_signature(self._private.sign(message, _ALGORITHM))
        return r.to_bytes(32, "big") + s.to_bytes(32, "big")


@lru_cache(maxsize=32_768)
def _public(point: bytes) -> ec.EllipticCurvePublicKey:
    if len(point) != PUBLIC_KEY_BYTES:  # the compressed spelling of a key would give one key two device ids
        raise ValueError("a public key has 65 bytes")
    return ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), point)


def verify(public_key: bytes, message: bytes, signature: bytes) -> bool:
    """Whether `signature` (64 bytes) over `message` was made by the owner of `public_key` (65 bytes)."""
    try:
        der = encode_dss_signature(int.from_bytes(signature[:32], "big"), int.from_bytes(signature[32:], "big"))
        _public(public_key).verify(der, message, _ALGORITHM)
    except (InvalidSignature, ValueError):
        return False
    return True


def check_public_key(point: bytes) -> None:
    """Refuse bytes that are no point of the curve.

    Raises:
        FrameRefused: `bad-frame`.
    """
    try:
        _public(point)
    except ValueError:
        raise FrameRefused("bad-frame", "public key") from None


def device_id(public_key: bytes) -> bytes:
    """16 bytes naming the device: bound to its key."""
    return hashlib.sha256(b"device1" + public_key).digest()[:16]


def short_number(public_key: bytes) -> str:
    """Six digits that phone and champion compare by eye after an enrolment."""
    return f"{int.from_bytes(hashlib.sha256(b'short1' + public_key).digest()[:4], 'big') % 1_000_000:06d}"
