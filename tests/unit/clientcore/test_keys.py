"""Keys: made by the device, kept as PEM, known by their hash; nothing but P-256 is taken."""

from __future__ import annotations

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519

from clientcore.errors import BadInput, FrameRefused
from clientcore.keys import PUBLIC_KEY_BYTES, SIGNATURE_BYTES, SigningKey, check_public_key, verify


def pem_of(private: ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey, password: bytes | None = None) -> bytes:
    locked = serialization.BestAvailableEncryption(password) if password else serialization.NoEncryption()
    return private.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, locked)


def test_a_key_survives_its_file() -> None:
    """Written and read, it signs for the same public key."""
    key = SigningKey.generate()
    again = SigningKey.from_pem(key.to_pem())
    signature = again.sign(b"attendance")
    assert again.public == key.public
    assert len(key.public) == PUBLIC_KEY_BYTES
    assert len(signature) == SIGNATURE_BYTES
    assert verify(key.public, b"attendance", signature)


def test_no_two_keys_are_alike() -> None:
    """Keys come from the system's randomness, never from a seed."""
    assert SigningKey.generate().public != SigningKey.generate().public


@pytest.mark.parametrize(
    "pem",
    [
        b"",
        b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n",
        pem_of(ec.generate_private_key(ec.SECP384R1())),
        pem_of(ed25519.Ed25519PrivateKey.generate()),
        pem_of(ec.generate_private_key(ec.SECP256R1()), b"secret"),
    ],
    ids=["empty", "garbage", "P-384", "Ed25519", "encrypted"],
)
def test_a_file_that_is_no_plain_p256_key_is_bad_input(pem: bytes) -> None:
    """The person who gave the file is told, in one error type."""
    with pytest.raises(BadInput) as refusal:
        SigningKey.from_pem(pem)
    assert refusal.value.code == "bad-key"


@pytest.mark.parametrize("point", [b"", bytes(65), b"\x04" + bytes(64), b"\x04" + b"\xff" * 64, b"\x02" + bytes(32)])
def test_bytes_that_are_no_point_are_no_key(point: bytes) -> None:
    """Off the curve, too short, all zeros: refused at enrolment, and no signature verifies under them."""
    with pytest.raises(FrameRefused):
        check_public_key(point)
    assert not verify(point, b"m", bytes(64))


def test_a_real_point_is_taken() -> None:
    """The check lets real keys pass."""
    check_public_key(SigningKey.generate().public)


@pytest.mark.parametrize("length", [0, 1, 63, 65, 128])
def test_a_signature_of_another_length_does_not_hold(length: int) -> None:
    """Short, long or empty signatures are simply wrong."""
    key = SigningKey.generate()
    assert not verify(key.public, b"m", (key.sign(b"m") * 2)[:length])
