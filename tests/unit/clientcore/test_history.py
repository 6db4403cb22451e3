"""A register's history: what counts, what stays, and what it may cost."""

from __future__ import annotations

import random
import tracemalloc

from clientcore.history import EMPTY, merge
from tests.support.random_registers import grow
from tests.vectors.cases.changes import A, B, build, put


def test_nothing_merges_to_the_empty_history() -> None:
    """No change: no head, no mark, counters at zero."""
    assert merge([]) == EMPTY
    assert (EMPTY.max_op, EMPTY.last_seq(A), EMPTY.puts(), EMPTY.visible()) == (0, 0, [], {})


def test_every_mark_ever_made_is_kept_in_order() -> None:
    """Superseded marks stay in `puts`; only `visible` drops them."""
    first = build([put("s1", "P1"), put("s2", "P2")])
    second = build([put("s1", "A3", (1, A))], seq=2, start_op=3, deps=[first.hash])
    history = merge([second, first])
    assert [(one.id, one.key, one.value) for one in history.puts()] == [
        ((1, A), "s1", "P1"),
        ((2, A), "s2", "P2"),
        ((3, A), "s1", "A3"),
    ]
    assert {key: [one.value for one in shown] for key, shown in history.visible().items()} == {
        "s1": ["A3"],
        "s2": ["P2"],
    }
    assert (history.max_op, history.last_seq(A), history.last_seq(B)) == (3, 2, 0)


def test_every_change_is_accounted_for() -> None:
    """Merged, pending, inconsistent and equivocations are disjoint and together all there is."""
    for seed in range(40):
        source = random.Random(seed)
        changes = grow(source, changes=8)
        twin = build([put("s1", "P1")], author=changes[0].actor)
        bad = build([put("s1", "P1")], author=B, start_op=99, deps=[changes[0].hash])
        given = [*source.sample(changes, 5), twin, bad]
        history = merge(given)
        groups = [set(history.merged), set(history.pending), set(history.inconsistent), set(history.equivocations)]
        assert sum(map(len, groups)) == len(set().union(*groups))
        assert set().union(*groups) == {change.hash for change in given}


def test_a_long_history_costs_little_memory() -> None:
    """3,000 changes in a row, a day's worst, merge within 8 MB: one could not fill the server's memory with a register.

    (Sets of hashes instead of bits took 215 MB.)
    """
    chain = [build([put("s1", "P1")])]
    for i in range(2, 3_001):
        chain.append(build([put("s1", f"P{i}", (i - 1, A))], seq=i, start_op=i, deps=[chain[-1].hash]))
    tracemalloc.start()
    try:
        history = merge(chain)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert len(history.merged) == 3_000
    assert peak < 8_000_000
