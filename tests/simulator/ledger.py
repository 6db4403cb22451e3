"""What was said to whom: the memory against which every invariant is checked. It trusts nobody's store.

A *mark* is (register, key, value); values carry their capture time, so each tap is one mark. A change is known by
(register, hash), because Automerge's hash does not cover the register.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field

from clientcore.change import Change, parse
from clientcore.errors import ChangeRefused, FrameRefused, RemoteError
from clientcore.exchange import DURABLE, read_answer, read_call, read_sync
from clientcore.frame import Frame, parse_frame, read_bundle
from clientcore.wire import shape

ChangeName = tuple[str, bytes]
MarkName = tuple[str, str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Violation:
    """A broken invariant: which, when (ms since the world began), and what was seen."""

    invariant: str
    at_ms: int
    detail: str


@dataclass(slots=True)
class Trace:
    """A digest over everything that happens, and the last lines of it in words."""

    keep: int = 0
    lines: list[str] = field(default_factory=list)
    count: int = 0
    _hash: hashlib._Hash = field(default_factory=hashlib.sha256)

    def add(self, at_ms: int, who: str, what: str, data: bytes = b"") -> None:
        """One event."""
        self.count += 1
        line = f"{at_ms} {who} {what}"
        self._hash.update(line.encode() + b"\0" + hashlib.sha256(data).digest()[:8] if data else line.encode() + b"\n")
        if self.keep:
            self.lines.append(f"{line} {hashlib.sha256(data).hexdigest()[:8] if data else ''}")
            del self.lines[: -self.keep]

    def digest(self) -> str:
        """Hex; equal digests mean the same run."""
        return self._hash.hexdigest()


@dataclass(slots=True)
class Ledger:
    """Everything that was told, across all machines and all their deaths.

    Attributes:
        promised: Changes the server called durable, duplicate or held in an answer that left it, with the true time
            (ms) of the first such answer.
        safe_marks: Marks inside promised changes, by register.
        tapped: Every mark a finger came down for: who (user id), on which phone, true time (ms).
        tappers: Everybody whose finger came down for it: in one millisecond two may make marks that read the same.
        owed: Promised changes that a restore took back; empty again once the phones have offered them.
        gone: Promised changes that a restore took back and whose phone was lost: nobody can bring them.
        seen: Of every tap, the changes of the register that its phone held at that moment.
        epochs: How often the log was restored.
        confirmed: Changes the settle stage has called confirmed at some time.
        checks: How often each invariant was looked at.
    """

    promised: dict[ChangeName, int] = field(default_factory=dict)
    safe_marks: set[MarkName] = field(default_factory=set)
    tapped: dict[MarkName, tuple[str, str, int]] = field(default_factory=dict)
    tappers: dict[MarkName, set[str]] = field(default_factory=dict)
    owed: set[ChangeName] = field(default_factory=set)
    confirmed: set[ChangeName] = field(default_factory=set)
    violations: list[Violation] = field(default_factory=list)
    checks: Counter[str] = field(default_factory=Counter)
    gone: set[ChangeName] = field(default_factory=set)
    seen: dict[MarkName, frozenset[bytes]] = field(default_factory=dict)
    epochs: int = 0
    frames_told: int = 0
    refused: int = 0
    now_ms: Callable[[], int] = lambda: 0
    _parsed: dict[bytes, Change] = field(default_factory=dict)
    _durables: set[tuple[int, str, bytes]] = field(default_factory=set)
    _by_hash: dict[bytes, Change] = field(default_factory=dict)

    def finger(self, mark: MarkName, user_id: str, phone: str, at_ms: int) -> None:
        """Somebody marks a pupil."""
        self.tapped.setdefault(mark, (user_id, phone, at_ms))
        self.tappers.setdefault(mark, set()).add(user_id)

    def sees(self, mark: MarkName, changes: frozenset[bytes]) -> None:
        """What whoever made the mark could see; of two who made the same one, what both saw together."""
        self.seen[mark] = self.seen.get(mark, frozenset()) | changes

    def check(self, invariant: str, holds: bool, detail: str = "") -> None:
        """Count one look at an invariant; keep what was wrong."""
        self.checks[invariant] += 1
        if not holds and len(self.violations) < 100:
            self.violations.append(Violation(invariant=invariant, at_ms=self.now_ms(), detail=detail))

    def answered(self, path: str, body: bytes, answer: bytes, *, server_key: bytes, at_ms: int) -> list[ChangeName]:
        """The server sent a 200 of ours: what does it promise, and does it account for everything (I3)?

        Returns:
            What it promises for the first time.
        """
        new: list[ChangeName] = []
        try:
            frames = [parse_frame(raw) for raw in _frames_of(path, body)]
            receipts = read_answer(answer, server_key=server_key, request=body).answer.receipts
        except (FrameRefused, RemoteError) as wrong:
            self.check("I3", False, f"an answer to {path} that cannot be read: {wrong}")
            return new
        if path == "/v1/bundles":
            self.check("I3", len(receipts) <= len(frames), f"{len(receipts)} receipts for {len(frames)} frames")
        else:
            self.check("I3", len(receipts) == len(frames), f"{len(receipts)} receipts for {len(frames)} frames")
        for frame, verdicts in zip(frames, receipts, strict=False):
            self.frames_told += 1
            if isinstance(verdicts, str):
                continue
            same = len(verdicts) == len(frame.changes)
            self.check("I3", same, f"{len(verdicts)} verdicts for {len(frame.changes)} changes")
            for framed, verdict in zip(frame.changes, verdicts, strict=False):
                self.refused += not verdict.is_safe
                if verdict.kind == DURABLE:
                    self._durable(f"{frame.school}/{framed.register}", framed.chunk)
                if verdict.is_safe:
                    new += self._promise(frame, framed.register, framed.chunk, at_ms)
        return new

    def _durable(self, register: str, chunk: bytes) -> None:
        """I3: *durable* is said of a change once in an epoch, *duplicate* from then on."""
        change = self.change(chunk)
        if change is not None:
            name = (self.epochs, register, change.hash)
            self.check("I3", name not in self._durables, f"{register}: called durable twice in one epoch")
            self._durables.add(name)

    def refused_device(self, path: str, body: bytes, held: int) -> None:
        """A device without rights was told how many of its changes are held: every authentic one (I3)."""
        with suppress(FrameRefused, RemoteError):
            frames = [parse_frame(raw) for raw in _frames_of(path, body)]
            readable = sum(self.change(framed.chunk) is not None for frame in frames for framed in frame.changes)
            self.check("I3", held == readable, f"{held} changes called held, {readable} were sent")

    def _promise(self, frame: Frame, register: str, chunk: bytes, at_ms: int) -> list[ChangeName]:
        change = self.change(chunk)
        full = f"{frame.school}/{register}"
        if change is None:
            self.check("I3", False, f"{full}: a change no strict parser takes was called durable")
            return []
        self.owed.discard((full, change.hash))
        if (full, change.hash) not in self.promised:
            self.promised[full, change.hash] = at_ms
            for op in change.ops:
                if op.value is not None:
                    self.safe_marks.add((full, op.key, op.value))
            return [(full, change.hash)]
        return []

    def marks_of(self, register: str, digest: bytes) -> list[MarkName]:
        """The marks inside a promised change."""
        return [(register, op.key, op.value) for op in self._by_hash[digest].ops if op.value is not None]

    def change(self, chunk: bytes) -> Change | None:
        """The parsed change, once; None when it is outside the profile."""
        found = self._parsed.get(chunk)
        if found is None:
            try:
                found = self._parsed[chunk] = parse(chunk)
            except ChangeRefused:
                return None
            self._by_hash[found.hash] = found
        return found


def _frames_of(path: str, body: bytes) -> list[bytes]:
    if path == "/v1/sync":
        return list(read_sync(body))
    call = read_call(body)
    (file,) = shape(list(call.args), bytes)
    return list(read_bundle(file).frames)


def percentiles(values: list[int]) -> Mapping[str, int]:
    """p50, p95 and max; empty for no values."""
    if not values:
        return {}
    ordered = sorted(values)
    return {
        "p50": ordered[len(ordered) // 2],
        "p95": ordered[min(len(ordered) - 1, len(ordered) * 95 // 100)],
        "max": ordered[-1],
    }
