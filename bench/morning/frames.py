"""Signing the morning beforehand, in processes of its own and onto disk: requests ready to be sent, and what they say.

A part is a range of schools in five files: `.requests` (whole HTTP requests, one after the other), `.jobs` (where each
is, what it is for and whose it is), `.phones` (rows for the store), `.keys` (what they sign with later) and
`.registers` (what was marked, for the proof).
"""

from __future__ import annotations

import random
import struct
from array import array
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import BinaryIO

from cryptography.hazmat.primitives.asymmetric import ec

from bench.morning.plan import (
    ABSENT_MAX,
    BACKLOG_DAYS,
    SESSIONS,
    Phase,
    Session,
    Size,
    class_name,
    pupil_names,
    school_days_before,
    school_name,
    sessions_of,
    teacher_name,
)
from clientcore.change import Op, actor_of, deflate, encode
from clientcore.exchange import MEDIA_TYPE, write_sync
from clientcore.frame import NO_PREV, Ask, ClockEvidence, Frame, FramedChange, seal_frame
from clientcore.keys import SigningKey, device_id
from clientcore.ports import SystemClock

ENV = "morning"
HEAD = (
    f"POST /v1/sync HTTP/1.1\r\nHost: hudur\r\nUser-Agent: Mozilla/5.0 (Linux; Android 8.1.0)\r\nAccept: */*\r\n"
    f"Content-Type: {MEDIA_TYPE}\r\nContent-Length: "
)
SLOW, PULL, LOST, TORN, FOLLOWS = 1, 2, 4, 8, 16
"""Flags of a job. FOLLOWS: the same phone sends it once the job before it was answered."""

_JOB = struct.Struct("<QIBBBI")
KEY_BYTES = 32
_PHONE = struct.Struct("<IH16s65s8s")
_REGISTER = struct.Struct("<IBBB32s40s")


@dataclass(slots=True)
class Jobs:
    """All requests, as columns: the part they lie in, where there, how long, what for, and which phone of the part."""

    part: array[int] = field(default_factory=lambda: array("H"))
    offset: array[int] = field(default_factory=lambda: array("Q"))
    length: array[int] = field(default_factory=lambda: array("I"))
    phase: array[int] = field(default_factory=lambda: array("B"))
    flags: array[int] = field(default_factory=lambda: array("B"))
    changes: array[int] = field(default_factory=lambda: array("B"))
    phone: array[int] = field(default_factory=lambda: array("I"))

    def __len__(self) -> int:
        return len(self.part)

    def registers(self, phase: Phase) -> int:
        """Registers in all requests of a phase."""
        return sum(changes for changes, at in zip(self.changes, self.phase, strict=True) if at == phase)

    def of(self, phase: Phase) -> list[int]:
        """The jobs of a phase that do not follow another."""
        pairs = enumerate(zip(self.phase, self.flags, strict=True))
        return [job for job, (at, flags) in pairs if at == phase and not flags & FOLLOWS]


def dates_of(size: Size) -> list[str]:
    """The dates of all registers; their places in this list stand in the files."""
    return [size.on, *school_days_before(date.fromisoformat(size.on), BACKLOG_DAYS[1])]


def write_part(size: Size, part: int, schools: range, folder: Path, cursors: Mapping[int, bytes]) -> int:
    """Sign everything of some schools; returns how many requests.

    Args:
        size: The morning.
        part: Number of the part.
        schools: Numbers of its schools.
        folder: Where its files go.
        cursors: Class number to the cursor of a phone that was told everything.
    """
    with _Writer(size, folder / f"{part:04d}", cursors) as out:
        for school in schools:
            for session in sessions_of(size, school):
                out.phone(school, session)
        return out.requests


class _Writer:
    """The open files of one part."""

    def __init__(self, size: Size, stem: Path, cursors: Mapping[int, bytes]) -> None:
        self._size, self._cursors = size, cursors
        self._dates = {day: at for at, day in enumerate(dates_of(size))}
        self._files: list[BinaryIO] = [stem.with_suffix(end).open("wb") for end in _ENDS]
        self._at = 0
        self.requests = self._phones = 0

    def __enter__(self) -> _Writer:
        return self

    def __exit__(self, *_: object) -> None:
        for file in self._files:
            file.close()

    def phone(self, school: int, session: Session) -> None:
        """One phone: its key, its marks, its frames."""
        chance = random.Random(f"{self._size.seed} marks {school} {session.phone}")
        private = ec.generate_private_key(ec.SECP256R1())
        key = SigningKey(private)
        device, nonce = device_id(key.public), chance.randbytes(4) + bytes(4)
        self._files[2].write(_PHONE.pack(school, session.phone, device, key.public, nonce))
        self._files[4].write(private.private_numbers().private_value.to_bytes(KEY_BYTES, "big"))
        ask = Ask(
            nonce=nonce, cursor=None if session.pull else self._cursors[session.class_no], have=None,
            app="1.0.0", unsent=0, done=0,
        )  # fmt: skip
        app_session, prev = chance.randbytes(8), NO_PREV
        last: Phase | None = None
        for number, (phase, registers) in enumerate(session.registers, 1):
            changes = [self._change(school, session, day, what, device, app_session, chance) for day, what in registers]
            frame = _seal(key, school, device, number, prev, app_session, changes, ask if number == 1 else None)
            prev = frame.hash[:16]
            flags = FOLLOWS * (phase == last) | SLOW * session.slow
            if number == 1:
                flags |= PULL * session.pull | LOST * session.lost | TORN * session.torn
            last = phase
            self._request(write_sync([frame.raw]), phase, flags, len(changes))
        self._phones += 1

    def _change(
        self, school: int, session: Session, day: str, what: str, device: bytes, nonce: bytes, chance: random.Random
    ) -> FramedChange:
        at_ms, ops, codes = self._size.tapped_ms, [], bytearray()
        pupils = pupil_names(school, session.class_no)
        away = set(chance.sample(range(len(pupils)), chance.randint(0, ABSENT_MAX)))
        for index, pupil in enumerate(pupils):
            at_ms += 400 + int(chance.random() * 1_800)
            code = "P" if index not in away else chance.choice("AAAL")
            codes += code.encode()
            ops.append(Op(key=pupil, value=f"{code}{at_ms}" + (":12" if code == "L" else "")))
        change = encode(
            actor=actor_of(device, nonce), seq=1, start_op=1, time_s=1_795_334_400, deps=[], ops=ops
        )  # fmt: skip
        self._files[3].write(
            _REGISTER.pack(school, session.class_no, self._dates[day], SESSIONS.index(what), change.hash, bytes(codes))
        )
        return FramedChange(register=f"{class_name(session.class_no)}/{day}/{what}", chunk=deflate(change.chunk))

    def _request(self, body: bytes, phase: Phase, flags: int, changes: int) -> None:
        data = f"{HEAD}{len(body)}\r\n\r\n".encode() + body
        self._files[0].write(data)
        self._files[1].write(_JOB.pack(self._at, len(data), phase, flags, changes, self._phones))
        self._at += len(data)
        self.requests += 1


_ENDS = (".requests", ".jobs", ".phones", ".registers", ".keys")


def _seal(
    key: SigningKey, school: int, device: bytes, number: int, prev: bytes, app_session: bytes,
    changes: list[FramedChange], ask: Ask | None,
) -> Frame:  # fmt: skip
    wall_ms = SystemClock().wall_ms()
    clock = ClockEvidence(wall_ms=wall_ms, mono_ms=65_000, session=app_session, beacon=(wall_ms - 64_000, 1_000))
    return seal_frame(
        key, env=ENV, school=school_name(school), device=device, number=number, prev=prev, clock=clock,
        changes=changes, ask=ask,
    )  # fmt: skip


# ---- reading -----------------------------------------------------------------------------------------------------


def parts_in(folder: Path) -> list[Path]:
    """Every part's requests, by number."""
    return sorted(folder.glob("*.requests"))


def read_jobs(folder: Path) -> Jobs:
    """All jobs; parts are numbered as `parts_in` lists them."""
    jobs = Jobs()
    for part, file in enumerate(parts_in(folder)):
        for offset, length, phase, flags, changes, phone in _JOB.iter_unpack(file.with_suffix(".jobs").read_bytes()):
            jobs.part.append(part)
            jobs.offset.append(offset)
            jobs.length.append(length)
            jobs.phase.append(phase)
            jobs.flags.append(flags)
            jobs.changes.append(changes)
            jobs.phone.append(phone)
    return jobs


def read_phones(file: Path) -> Iterator[tuple[bytes, str, str, bytes, bytes]]:
    """(device, school, user, public key, nonce) of one part."""
    for school, phone, device, public, nonce in _PHONE.iter_unpack(file.with_suffix(".phones").read_bytes()):
        yield device, school_name(school), teacher_name(phone), public, nonce


def read_registers(file: Path) -> Iterator[tuple[str, str, int, str, bytes, str]]:
    """(school, class, place of the date in `dates_of`, session, hash, a letter for each pupil) of one part."""
    for school, class_no, day, what, digest, codes in _REGISTER.iter_unpack(
        file.with_suffix(".registers").read_bytes()
    ):
        yield school_name(school), class_name(class_no), day, SESSIONS[what], digest, codes.decode()
