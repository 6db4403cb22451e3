"""What is visible when some changes do not count, and what to answer where authors disagree. Pure.

Two rules carry this file:

  - *Who wrote later, knowing, decides.* A mark is superseded by every counted mark of the same pupil whose author had
    it in sight, also when the sight was through a held change: what a held change had replaced stays replaced for
    those who built on it, and comes back for everybody else. So marks of someone without the right hide nobody's.
  - *Never absent where somebody saw the pupil.* Among disagreeing marks the answer is Automerge's winner, but among the
    witnesses of presence if there is one. The answer is provisional; all values stay.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence, Set

from clientcore.change import Op, OpId
from clientcore.history import History, Put
from reconciliation.model import VisibleMark


class Sight:
    """What the author of each merged change had seen. A set is the bits of one integer: half a MB for 2,000 changes."""

    def __init__(self, history: History) -> None:
        self._bit = {digest: 1 << place for place, digest in enumerate(history.merged)}
        self._sight: dict[bytes, int] = {}
        for digest, change in history.merged.items():  # in causal order: what it depends on stands before it
            seen = self._bit[digest]
            for dep in change.deps:
                seen |= self._sight[dep]
            self._sight[digest] = seen

    def of(self, digests: Iterable[bytes]) -> int:
        """Everything that at least one of these changes had in sight, the changes themselves included."""
        seen = 0
        for digest in digests:
            seen |= self._sight[digest]
        return seen

    def has(self, seen: int, digest: bytes) -> bool:
        """Whether `digest` is in a set that `of` gave."""
        return bool(seen & self._bit[digest])


def visible_puts(history: History, counted: Set[bytes], aside: Set[OpId] = frozenset()) -> dict[str, list[Put]]:
    """Visible marks per key of what counts, the winner last; with all counted, exactly Automerge's answer.

    Args:
        history: The merged changes.
        counted: Changes that count.
        aside: Single operations of them that do not (adjustments that wait for an approval).
    """
    if not aside and len(counted) == len(history.merged):
        return history.visible()
    replaced = _replaced_through_held(history, counted, aside) | {
        pred
        for digest in counted
        for name, op in _operations(history, digest)
        if name not in aside
        for pred in op.preds
    }
    shown: dict[str, list[Put]] = {}
    for put in history.puts():
        if put.change_hash in counted and put.id not in aside and put.id not in replaced:
            shown.setdefault(put.key, []).append(put)
    return shown


def _operations(history: History, digest: bytes) -> Iterable[tuple[OpId, Op]]:
    change = history.merged[digest]
    return (((change.start_op + at, change.actor), op) for at, op in enumerate(change.ops))


def _replaced_through_held(history: History, counted: Set[bytes], aside: Set[OpId]) -> set[OpId]:
    """What held operations had replaced in the sight of authors who then wrote the same key themselves."""
    marked: dict[str, set[bytes]] = {}  # key -> counted changes that mark it
    for digest in counted:
        for name, op in _operations(history, digest):
            if op.value is not None and name not in aside:
                marked.setdefault(op.key, set()).add(digest)
    sight = Sight(history)
    seen = {key: sight.of(digests) for key, digests in marked.items()}
    return {
        pred
        for digest in history.merged
        for name, op in _operations(history, digest)
        if (digest not in counted or name in aside) and op.key in seen and sight.has(seen[op.key], digest)
        for pred in op.preds
    }


def provisional(values: Sequence[VisibleMark]) -> tuple[VisibleMark, bool]:
    """The answer among visible marks (at least one, winner last) and whether it is disputed.

    Identical codes are no dispute, whatever their times and reasons.
    """
    if len(values) == 1:
        return values[0], False
    witnesses = [mark for mark in values if mark.code.witnesses_presence]
    return (witnesses or values)[-1], len({mark.code for mark in values}) > 1
