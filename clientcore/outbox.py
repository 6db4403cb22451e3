"""What goes into the next frames and the next request. Pure.

Newest school day first: the register taken this morning is never kept waiting by a term of backlog.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable

from clientcore.change import deflate
from clientcore.fold import DeviceState
from clientcore.frame import FramedChange
from clientcore.limits import CHANGES_PER_FRAME_MAX, FRAME_BYTES_MAX, SYNC_BODY_BYTES_MAX
from clientcore.states import Entry, FrameState
from clientcore.wire import pack

FRAME_OVERHEAD_BYTES = 512  # names, clock evidence, ask without `have`, signature: measured 190, bounded by the grammar
REQUEST_OVERHEAD_BYTES = 256
HAVE_HASHES_MAX = 1_900  # x 8 bytes fit one frame with nothing else in it
Batch = list[tuple[Entry, FramedChange]]


def frame_batches(entries: Iterable[Entry]) -> list[Batch]:
    """Group changes into frames, newest school day first, a register's changes in the order they were made."""
    batches: list[Batch] = []
    size = 0
    for entry in sorted(entries, key=_newest_first):
        framed = FramedChange(register=entry.register, chunk=deflate(entry.change.chunk))
        length = len(pack([framed.register, framed.delegation, framed.chunk]))
        alone = entry.strikes > 0  # a frame with it could not be read: nothing else shall wait for it
        too_long = size + length > FRAME_BYTES_MAX - FRAME_OVERHEAD_BYTES
        if not batches or too_long or alone or len(batches[-1]) >= CHANGES_PER_FRAME_MAX:
            batches.append([])
            size = 0
        batches[-1].append((entry, framed))
        size += FRAME_BYTES_MAX if alone else length
    return batches


def _newest_first(entry: Entry) -> tuple[int, int]:
    # Registers read class/date/session; sorting is stable, so equal dates keep the order of the log.
    parts = entry.register.split("/")
    date = parts[1] if len(parts) == 3 else ""
    return (entry.strikes, -int(date.replace("-", "") or 0) if date.replace("-", "").isdecimal() else 0)


def request_frames(state: DeviceState, *, frames_max: int) -> list[FrameState]:
    """Frames of the next request: those with the newest school day first, sent in the order of their numbers."""
    chosen: list[FrameState] = []
    size = REQUEST_OVERHEAD_BYTES
    # A greeting that a later frame has overtaken says nothing any more.
    live = [frame for frame in state.open_frames() if frame.changes or frame.number == state.last_number]
    for frame in sorted(live, key=lambda frame: _newest_day(state, frame), reverse=True):
        size += len(frame.raw) + 5
        if len(chosen) == frames_max or size > SYNC_BODY_BYTES_MAX:
            break
        chosen.append(frame)
    return sorted(chosen, key=lambda frame: frame.number)


def _newest_day(state: DeviceState, frame: FrameState) -> tuple[str, int]:
    known = (state.entries[name] for name in frame.changes if name in state.entries)
    return max(
        (entry.register.split("/")[1] for entry in known if entry.register.count("/") == 2), default=""
    ), -frame.number


def unsent_registers(state: DeviceState, carried: Collection[bytes]) -> int:
    """Registers with work that is not among the `carried` changes (short hashes)."""
    left = 0
    for name in state.pending_registers:
        register = state.registers[name]
        missing = any(not e.is_sent and short not in carried for short, e in register.entries.items())
        left += bool(register.taps or register.damaged or missing)
    return left


def offers(state: DeviceState) -> list[bytes]:
    """The hash list of what the device holds, in parts that fit one frame each; at least one part, maybe empty.

    After a new log epoch alone, what is archived is left out: the server was restored from a backup that has it.
    """
    left_out = set() if state.needs_whole_offer else state.archived
    names = [name for name in state.entries if name not in left_out]
    parts = [names[at : at + HAVE_HASHES_MAX] for at in range(0, len(names), HAVE_HASHES_MAX)]
    return [b"".join(part) for part in parts] or [b""]
