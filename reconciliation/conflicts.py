"""What is visible when some changes do not count, and what to answer where authors disagree. Pure.

Two rules carry this file:

  - *Who wrote later, knowing, decides.* A mark is superseded by every counted mark of the same pupil whose author had
    it in sight, also when the sight was through a held change: what a held change had replaced stays replaced for
    those who built on it, and comes back for everybody else. So marks of someone without the right hide nobody's.
  - *Never absent where somebody saw the pupil.* Among disagreeing marks the answer is Automerge's winner, but among the
    witnesses of presence if there is one. The answer is provisional; all values stay.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence, Set

from clientcore.change import OpId
from clientcore.history import History, Put
from reconciliation.model import VisibleMark


def causal_pasts(history: History) -> dict[bytes, frozenset[bytes]]:
    """Per merged change the hashes of all changes its author had seen, itself not among them."""
    pasts: dict[bytes, frozenset[bytes]] = {}
    for digest, change in history.merged.items():  # in causal order: what it depends on stands before it
        pasts[digest] = frozenset(change.deps).union(*(pasts[dep] for dep in change.deps))
    return pasts


def visible_puts(history: History, counted: Set[bytes]) -> dict[str, list[Put]]:
    """Visible marks per key of the counted changes, the winner last; with all counted, exactly Automerge's answer."""
    shown = history.visible(counted)
    if len(counted) == len(history.merged):
        return shown
    replaced = _replaced_through_held(history, counted)
    left = {key: [put for put in puts if put.id not in replaced] for key, puts in shown.items()}
    return {key: puts for key, puts in left.items() if puts}


def _replaced_through_held(history: History, counted: Set[bytes]) -> set[OpId]:
    """What held changes had replaced in the sight of authors who then wrote the same key themselves."""
    held_ops: dict[str, list[tuple[bytes, tuple[OpId, ...]]]] = {}
    for digest, change in history.merged.items():
        if digest not in counted:
            for op in change.ops:
                held_ops.setdefault(op.key, []).append((digest, op.preds))
    pasts = causal_pasts(history)
    return {
        pred
        for digest in counted
        for op in history.merged[digest].ops
        if op.value is not None
        for held, preds in held_ops.get(op.key, ())
        if held in pasts[digest]
        for pred in preds
    }


def provisional(values: Sequence[VisibleMark]) -> tuple[VisibleMark, bool]:
    """The answer among visible marks (at least one, winner last) and whether it is disputed.

    Identical codes are no dispute, whatever their times and reasons.
    """
    if len(values) == 1:
        return values[0], False
    witnesses = [mark for mark in values if mark.code.witnesses_presence]
    return (witnesses or values)[-1], len({mark.code for mark in values}) > 1


def unseen_by(put: Put, others: Collection[Put], pasts: dict[bytes, frozenset[bytes]]) -> bool:
    """Whether none of the authors of `others` had `put` in sight."""
    return all(put.change_hash not in pasts[o.change_hash] and put.change_hash != o.change_hash for o in others)
