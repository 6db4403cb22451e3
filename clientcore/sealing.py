"""Unsealed taps → changes that every merge takes as consistent (docs/protocol.md section 2, stateful rules). Pure."""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass

from clientcore.change import Change, Op, deflate, encode
from clientcore.errors import ChangeRefused
from clientcore.history import History, merge
from clientcore.limits import DEPS_MAX, OPS_PER_CHANGE_MAX, PREDS_PER_OP_MAX
from clientcore.states import RegisterState, Tap

CHUNK_TARGET_BYTES = 12_288  # leaves room in a frame of 16 KiB for everything else, whatever DEFLATE makes of it


def seal(
    register: RegisterState,
    *,
    taps: Mapping[str, Sequence[Tap]],
    actor: bytes,
    time_s: int,
    taken: Container[bytes] = frozenset(),
) -> list[Change]:
    """Changes that put `taps` on top of all that this device has seen of it.

    Normally one; more when the taps do not fit the limits of one change.

    Args:
        register: What is known of it; it is not altered.
        taps: Unsealed taps by key, the latest last: that one is sealed.
        actor: This app session's actor.
        time_s: Seconds since 1970 by the device's clock. Raised by one until the change's hash is new: a hash does
            not cover its register, and the same marks in two registers must not be one change.
        taken: Short hashes (8 bytes) of all changes this device knows, of whatever register.

    Raises:
        ChangeRefused: when a single tap is outside the profile.
    """
    latest = [(key, of_key[-1].value) for key, of_key in taps.items()]
    sealed: list[Change] = []
    for start in range(0, len(latest), OPS_PER_CHANGE_MAX):
        make = _Maker(register.history, actor, time_s, taken, sealed)
        make.seal(latest[start : start + OPS_PER_CHANGE_MAX])
    return sealed


def _buildable(history: History, actor: bytes) -> History:
    """The part of `history` that one change can name as its past: all of it, unless it has more than 32 heads."""
    if len(history.heads) <= DEPS_MAX:
        return history
    pasts = {head: _past(history, head) for head in history.heads}
    own = [digest for digest, change in history.merged.items() if change.actor == actor]
    chosen = sorted(history.heads, key=lambda head: (not pasts[head].issuperset(own), head))[:DEPS_MAX]
    known = frozenset[bytes]().union(*(pasts[head] for head in chosen))
    return merge(history.merged[digest] for digest in known)


def _past(history: History, head: bytes) -> frozenset[bytes]:
    found: set[bytes] = set()
    ahead = [head]
    while ahead:
        digest = ahead.pop()
        if digest not in found:
            found.add(digest)
            ahead.extend(history.merged[digest].deps)
    return frozenset(found)


@dataclass(frozen=True, slots=True)
class _Maker:
    """Appends changes to `sealed`, each upon `seen` and those before it."""

    seen: History
    actor: bytes
    time_s: int
    taken: Container[bytes]
    sealed: list[Change]

    def seal(self, taps: Sequence[tuple[str, str]]) -> None:
        """One change with `taps`; in halves, one upon the other, when they are too much for one."""
        try:
            change = self._change(taps)
            if len(deflate(change.chunk)) <= CHUNK_TARGET_BYTES or len(taps) == 1:
                self.sealed.append(change)
                return
        except ChangeRefused:
            if len(taps) == 1:
                raise
        middle = len(taps) // 2
        self.seal(taps[:middle])
        self.seal(taps[middle:])

    def _change(self, taps: Sequence[tuple[str, str]]) -> Change:
        history = _buildable(merge([*self.seen.merged.values(), *self.sealed]), self.actor)
        visible = history.visible()
        ops = [
            Op(key=key, value=value, preds=tuple(put.id for put in visible.get(key, ())[-PREDS_PER_OP_MAX:]))
            for key, value in taps
        ]
        time_s = self.time_s
        while True:
            change = encode(
                actor=self.actor,
                seq=history.last_seq(self.actor) + 1,
                start_op=history.max_op + 1,
                time_s=time_s,
                deps=history.heads,
                ops=ops,
            )
            if change.hash[:8] not in self.taken:
                return change
            time_s += 1
