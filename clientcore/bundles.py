"""Unsent work that travels in a file: bundles of frames, and logs rescued from a phone. Pure."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from clientcore.change import Change
from clientcore.errors import FrameRefused, RemoteError
from clientcore.fold import DeviceState, fold
from clientcore.frame import parse_frame
from clientcore.keys import SIGNATURE_BYTES, verify
from clientcore.limits import BUNDLE_BYTES_MAX, PAYLOAD_BYTES_MAX
from clientcore.log import Row
from clientcore.states import FRAME_NAME_BYTES, Enrolment
from clientcore.wire import shape, unpack

_CALL_OVERHEAD_BYTES = 1_024
FRAMES_PER_BUNDLE_MAX = 1_024  # one receipt a frame: the answer stays small


@dataclass(frozen=True, slots=True, kw_only=True)
class BundleResult:
    """What a bundle brought (docs/protocol.md section 8); `devices` = (device, user id, registers, changes new)."""

    frames: int
    durable: int
    duplicate: int
    held: int
    refused: int
    truncated: bool
    devices: tuple[tuple[bytes, str, int, int], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Rescue:
    """What a foreign log holds that the server may lack.

    Attributes:
        state: The log, folded; only receipts that *our* server signed were believed.
        frames: Raw frames with changes and without a receipt.
        unframed: (register, change) that only the phone itself can sign.
        unsealed: (register, key, value) of taps that only the phone itself can seal and sign.
    """

    state: DeviceState
    frames: tuple[bytes, ...]
    unframed: tuple[tuple[str, Change], ...]
    unsealed: tuple[tuple[str, str, str], ...]


def frame_name(raw: bytes) -> bytes:
    """First 16 bytes of a raw frame's hash."""
    return hashlib.sha256(raw[:-SIGNATURE_BYTES]).digest()[:FRAME_NAME_BYTES]


def split_bundle(frames: Sequence[bytes]) -> list[list[bytes]]:
    """Frames in groups whose bundle fits one call."""
    groups: list[list[bytes]] = []
    size = 0
    for frame in frames:
        size += len(frame) + 4
        if not groups or size > BUNDLE_BYTES_MAX - _CALL_OVERHEAD_BYTES or len(groups[-1]) >= FRAMES_PER_BUNDLE_MAX:
            groups.append([])
            size = len(frame) + 4
        groups[-1].append(frame)
    return groups


def read_result(data: bytes) -> BundleResult:
    """Read the result of the command `bundle`.

    Raises:
        FrameRefused: `bad-frame`.
    """
    frames, durable, duplicate, held, refused, truncated, devices = shape(
        unpack(data, bytes_max=PAYLOAD_BYTES_MAX), int, int, int, int, int, bool, list
    )
    rows = [shape(row, 16, str, int, int) for row in devices]
    return BundleResult(
        frames=frames,
        durable=durable,
        duplicate=duplicate,
        held=held,
        refused=refused,
        truncated=truncated,
        devices=tuple((device, user, registers, new) for device, user, registers, new in rows),
    )


def rescue(rows: Iterable[Row], ours: Enrolment) -> Rescue:
    """Find in a foreign log what is worth carrying to our server. A forged receipt cannot hide a frame.

    Args:
        rows: See `log.read_foreign`.
        ours: This device's own enrolment; its server key judges the receipts.
    """
    state = fold(row for row in rows if row.kind != "receipt" or _is_from(row, ours.server_key))
    frames = [frame.raw for frame in state.open_frames() if frame.changes and _is_frame(frame.raw)]
    return Rescue(
        state=state,
        frames=tuple(frames),
        unframed=tuple((entry.register, entry.change) for entry in state.unframed.values()),
        unsealed=tuple(
            (register.register, key, taps[-1].value)
            for register in state.registers.values()
            for key, taps in register.taps.items()
        ),
    )


def _is_from(row: Row, server_key: bytes) -> bool:
    try:
        signed, signature, _ = shape(unpack(row.body, bytes_max=PAYLOAD_BYTES_MAX), bytes, SIGNATURE_BYTES, list)
    except RemoteError:
        return False
    return verify(server_key, signed, signature)


def _is_frame(raw: bytes) -> bool:
    try:
        parse_frame(raw)
    except FrameRefused:
        return False
    return True
