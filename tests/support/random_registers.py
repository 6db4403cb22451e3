"""Random registers, written by several authors who fork and merge at will, built with our own encoder.

`grow(random, ...)` gives the changes of one register in the order in which they were made. Every change obeys the
stateful rules; authors see a random subset of each other's work, so registers hold concurrent marks, disagreements,
deletes of losers, blind puts and several heads.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

from clientcore.change import Change, Op, OpId, encode
from clientcore.history import History, merge
from clientcore.limits import PREDS_PER_OP_MAX

TIME_S = 1_795_000_000
CODES = "PPPPLXAEUDS"


def grow(
    source: random.Random, *, changes: int, authors: int = 3, pupils: int = 4, deletes: float = 0.2, blind: float = 0.05
) -> list[Change]:
    """`changes` consistent changes of one register by `authors`.

    Args:
        source: Where all chance comes from.
        changes: How many.
        authors: How many app sessions take part.
        pupils: How many pupil ids; few make many disagreements.
        deletes: How often a disagreement is settled by deleting losers rather than by a put.
        blind: How often a put does not name what it saw.
    """
    actors = [source.randbytes(16) for _ in range(authors)]
    keys = [f"s{i}" for i in range(pupils)] + ["~bulk", "~session"]
    made: list[Change] = []
    known: dict[bytes, set[bytes]] = {actor: set() for actor in actors}
    by_hash: dict[bytes, Change] = {}
    for _ in range(changes):
        actor = source.choice(actors)
        if source.random() < 0.5:
            known[actor] |= known[source.choice(actors)]
        seen = merge(by_hash[digest] for digest in known[actor])
        change = _write(source, actor, seen, keys, deletes, blind)
        made.append(change)
        by_hash[change.hash] = change
        known[actor].add(change.hash)
    return made


def _write(
    source: random.Random, actor: bytes, seen: History, keys: Sequence[str], deletes: float, blind: float
) -> Change:
    start_op = seen.max_op + 1
    visible: dict[str, list[OpId]] = {key: [put.id for put in puts] for key, puts in seen.visible().items()}
    ops: list[Op] = []
    for _ in range(source.choice((1, 1, 1, 2, 3, 8, 12))):
        key = source.choice(keys)
        there = visible.get(key, [])
        if len(there) > 1 and source.random() < deletes:
            gone = sorted(source.sample(there, source.randint(1, min(len(there) - 1, PREDS_PER_OP_MAX))))
            ops.append(Op(key=key, value=None, preds=tuple(gone)))
            visible[key] = [name for name in there if name not in gone]
            continue
        preds = () if source.random() < blind else tuple(sorted(there)[-PREDS_PER_OP_MAX:])
        visible[key] = [*sorted(name for name in there if name not in preds), (start_op + len(ops), actor)]
        ops.append(Op(key=key, value=value_for(source, key), preds=preds))
    return encode(
        actor=actor,
        seq=seen.last_seq(actor) + 1,
        start_op=start_op,
        time_s=TIME_S + source.randint(0, 90_000),
        deps=seen.heads,
        ops=ops,
    )


def value_for(source: random.Random, key: str) -> str:
    """A random value that `key` may have; short numbers, so that equal values come up."""
    ms = source.choice((source.randint(-5, 9), source.randint(28_000_000, 50_000_000)))
    if key == "~bulk":
        return f"B{ms}"
    if key == "~session":
        return source.choice((f"H{ms}", f"N{ms}:strike"))
    code = source.choice(CODES)
    if code == "L":
        return f"L{ms}:{source.randint(1, 60)}"
    return f"{code}{ms}" + source.choice(("", "", "", ":sick"))
