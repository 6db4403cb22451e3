"""A recording of the field: the `attempt` and `clock` rows of devices, from exported logs or from JSON lines.

Invariants:
  1. What cannot be read is refused (JSON lines) or counted in `unreadable` (rows of a log), never skipped in silence.
  2. Every attempt's `at_ms` is true time as well as the recording can tell it: the server's, carried by the device's
     monotonic clock from the nearest answer of the same app session; else the wall clock less its last known offset.
"""

from __future__ import annotations

import json
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from clientcore.errors import HudurError, RemoteError
from clientcore.limits import PAYLOAD_BYTES_MAX
from clientcore.log import Row, read_foreign
from clientcore.wire import shape, unpack
from tests.weaknet.errors import RecordingRefused

SQLITE_MAGIC = b"SQLite format 3\x00"
LINES_MAX = 5_000_000
_ATTEMPT = {
    "kind": str,
    "device": str,
    "at_ms": int,
    "mono_ms": int,
    "took_ms": int,
    "bytes_up": int,
    "bytes_down": int,
    "outcome": str,
    "first_byte_ms": int,
    "link": str,
}
_CLOCK = {"kind": str, "device": str, "at_ms": int, "mono_ms": int, "server_ms": int}
_START = {"kind": str, "device": str, "at_ms": int}
_KINDS: Mapping[str, Mapping[str, type]] = {"attempt": _ATTEMPT, "clock": _CLOCK, "start": _START}


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """One request of a device.

    Attributes:
        device: Name of the recording it comes from; no person's.
        at_ms: When it began, UTC milliseconds (see the module's second invariant).
        took_ms: Until it ended, in whatever way.
        bytes_up: Body sent; bytes_down: body received.
        outcome: `ok`, a transport's slug (`offline`, `timeout`, `broken`, `not-ours`; the page's `no-answer`), or a
            problem's slug.
        first_byte_ms: From its beginning to the first byte of the answer; 0 when none came.
        link: What the device knows of it: the page writes the browser's `effectiveType`, a guess of the speed; the
            command line writes None.
    """

    device: str
    at_ms: int
    mono_ms: int
    took_ms: int
    bytes_up: int
    bytes_down: int
    outcome: str
    first_byte_ms: int
    link: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Beacon:
    """A server's time seen by a device: `offset_ms` is device wall clock less server (half a round trip too much)."""

    device: str
    at_ms: int
    mono_ms: int
    server_ms: int

    @property
    def offset_ms(self) -> int:
        """Device less server, milliseconds."""
        return self.at_ms - self.server_ms


@dataclass(frozen=True, slots=True, kw_only=True)
class Recording:
    """What some devices recorded, each device's rows in order."""

    devices: tuple[str, ...]
    attempts: tuple[Attempt, ...]
    beacons: tuple[Beacon, ...]
    unreadable: int


def read_recordings(paths: Sequence[Path]) -> Recording:
    """Read exported logs (SQLite) and files of JSON lines; a log is one device, named after its file.

    Raises:
        RecordingRefused: `not-a-recording` or `bad-line`.
    """
    parts = [_read_file(path) for path in paths]
    names = tuple(name for part in parts for name in part.devices)
    if len(set(names)) != len(names):
        raise RecordingRefused("not-a-recording", f"two files speak of the same device: {', '.join(sorted(names))}")
    return Recording(
        devices=names,
        attempts=tuple(attempt for part in parts for attempt in part.attempts),
        beacons=tuple(beacon for part in parts for beacon in part.beacons),
        unreadable=sum(part.unreadable for part in parts),
    )


def _read_file(path: Path) -> Recording:
    try:
        with path.open("rb") as file:
            is_log = file.read(len(SQLITE_MAGIC)) == SQLITE_MAGIC
        if is_log:
            return _read_log(read_foreign(path), path.stem)
        with path.open(encoding="utf-8") as lines:
            return _read_lines(lines, path.name)
    except (OSError, UnicodeDecodeError) as broken:
        raise RecordingRefused("not-a-recording", f"{path.name}: {broken}") from None
    except HudurError as refused:
        raise RecordingRefused("not-a-recording", str(refused)) from None


# ---- the device's own log ---------------------------------------------------------------------------------------


def _read_log(rows: Iterable[Row], device: str) -> Recording:
    reader = _Device(device)
    unreadable = 0
    for row in rows:
        try:
            _take_row(reader, row)
        except RemoteError:
            unreadable += 1
    return reader.recording(unreadable)


def _take_row(reader: _Device, row: Row) -> None:
    if row.kind not in ("start", "clock", "attempt"):
        return
    body: Any = unpack(row.body, bytes_max=PAYLOAD_BYTES_MAX)
    if row.kind == "start":
        reader.start()
    elif row.kind == "clock":
        mono_ms, server_ms = shape(body, int, int)
        reader.clock(at_ms=row.at_ms, mono_ms=mono_ms, server_ms=server_ms)
    else:
        started, took, up, down, outcome, first, link = shape(body, int, int, int, int, str, int, (str, None))
        reader.attempt(
            Attempt(
                device=reader.device,
                at_ms=row.at_ms - took,  # the row is written when the attempt is over
                mono_ms=started,
                took_ms=took,
                bytes_up=up,
                bytes_down=down,
                outcome=outcome,
                first_byte_ms=first,
                link=link,
            )
        )


# ---- JSON lines -------------------------------------------------------------------------------------------------


def _read_lines(lines: Iterable[str], name: str) -> Recording:
    readers: dict[str, _Device] = {}
    for number, line in enumerate(lines, start=1):
        if number > LINES_MAX:
            raise RecordingRefused("not-a-recording", f"{name} has more than {LINES_MAX} lines")
        if not line.strip():
            continue
        one = _line(line, f"{name}, line {number}")
        reader = readers.setdefault(one["device"], _Device(one["device"]))
        if one["kind"] == "start":
            reader.start()
        elif one["kind"] == "clock":
            reader.clock(at_ms=one["at_ms"], mono_ms=one["mono_ms"], server_ms=one["server_ms"])
        else:
            reader.attempt(Attempt(**{key: one[key] for key in _ATTEMPT if key != "kind"}))
    parts = [reader.recording(0) for reader in readers.values()]
    return Recording(
        devices=tuple(readers),
        attempts=tuple(attempt for part in parts for attempt in part.attempts),
        beacons=tuple(beacon for part in parts for beacon in part.beacons),
        unreadable=0,
    )


def _line(line: str, where: str) -> dict[str, Any]:
    try:
        one = json.loads(line)
    except ValueError:
        raise RecordingRefused("bad-line", f"{where}: not JSON") from None
    fields = _KINDS.get(str(one.get("kind"))) if isinstance(one, dict) else None
    if fields is None:
        raise RecordingRefused("bad-line", f"{where}: `kind` is attempt, clock or start")
    if set(one) != set(fields):
        raise RecordingRefused("bad-line", f"{where}: expected exactly {', '.join(fields)}")
    for key, kind in fields.items():
        absent = key == "link" and one[key] is None
        if not absent and (type(one[key]) is not kind or (kind is int and key != "mono_ms" and one[key] < 0)):
            raise RecordingRefused("bad-line", f"{where}: `{key}` is no {kind.__name__} that can be used")
    return dict(one)


# ---- true time --------------------------------------------------------------------------------------------------


class _Device:
    """Rows of one device in order, cut into app sessions: the monotonic clock counts within one only."""

    def __init__(self, device: str) -> None:
        self.device = device
        self._sessions: list[tuple[list[Attempt], list[Beacon]]] = [([], [])]

    def start(self) -> None:
        self._sessions.append(([], []))

    def attempt(self, attempt: Attempt) -> None:
        self._sessions[-1][0].append(attempt)

    def clock(self, *, at_ms: int, mono_ms: int, server_ms: int) -> None:
        beacon = Beacon(device=self.device, at_ms=at_ms, mono_ms=mono_ms, server_ms=server_ms)
        self._sessions[-1][1].append(beacon)

    def recording(self, unreadable: int) -> Recording:
        attempts = sorted(self._timed(), key=lambda attempt: attempt.at_ms)
        beacons = tuple(beacon for _, found in self._sessions for beacon in found)
        return Recording(devices=(self.device,), attempts=tuple(attempts), beacons=beacons, unreadable=unreadable)

    def _timed(self) -> Iterator[Attempt]:
        offset_ms = 0
        for attempts, unsorted in self._sessions:
            beacons = sorted(unsorted, key=lambda beacon: beacon.mono_ms)
            for attempt in attempts:
                if beacons:
                    near = _nearest(beacons, attempt.mono_ms)
                    yield replace(attempt, at_ms=near.server_ms + attempt.mono_ms - near.mono_ms)
                else:
                    yield replace(attempt, at_ms=attempt.at_ms - offset_ms)
            if beacons:
                offset_ms = beacons[-1].offset_ms


def _nearest(beacons: Sequence[Beacon], mono_ms: int) -> Beacon:
    place = bisect_left(beacons, mono_ms, key=lambda beacon: beacon.mono_ms)
    return min(beacons[max(0, place - 1) : place + 1], key=lambda beacon: abs(beacon.mono_ms - mono_ms))
