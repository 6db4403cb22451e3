"""What our history and a native core's document of the same chunks must have in common."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

from clientcore.change import Change, deflate
from clientcore.history import History, merge


def arrangements(changes: Sequence[Change], source: random.Random) -> list[list[bytes]]:
    """The same set as made, as shuffled with duplicates, and as the wire carries it, backwards."""
    twice = [*changes, *source.choices(changes, k=len(changes) // 2)]
    source.shuffle(twice)
    return [
        [change.chunk for change in changes],
        [change.chunk for change in twice],
        [deflate(change.chunk) for change in reversed(changes)],
    ]


def ours(history: History) -> dict[str, Any]:
    """Heads and winners."""
    return {
        "heads": [head.hex() for head in history.heads],
        "values": {key: puts[-1].value for key, puts in history.visible().items()},
    }


def ours_with_conflicts(history: History) -> dict[str, Any]:
    """Heads, winners, and every visible value where there is more than one, by operation id."""
    return {
        **ours(history),
        "conflicts": {
            key: {f"{put.id[0]}@{put.id[1].hex()}": put.value for put in puts}
            for key, puts in history.visible().items()
            if len(puts) > 1
        },
    }


def consistent(changes: Sequence[Change]) -> History:
    """The history of changes of which none may be left out."""
    history = merge(changes)
    assert (history.pending, history.inconsistent, history.equivocations) == (frozenset(), {}, frozenset())
    return history
