"""Our history equals the `automerge` package's on random registers, and our codec reads what that core writes."""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from clientcore.change import canonical_body, encode, parse
from clientcore.history import merge
from tests.property.equality import arrangements, consistent, ours
from tests.support.automerge_oracle import Oracle, python_oracle
from tests.support.random_registers import grow

REGISTERS = 3_000
BATCH = 200


@pytest.fixture(scope="module")
def core() -> Iterator[Oracle]:
    with python_oracle() as oracle:
        yield oracle


def test_heads_and_winners_equal_the_core_on_thousands_of_registers(core: Oracle) -> None:
    """3,000 registers of 1 to 14 changes, each in three arrangements; each saved by the core and loaded again."""
    disputed = deleted = changes_seen = 0
    for start in range(0, REGISTERS, BATCH):
        histories, sets = [], []
        for seed in range(start, start + BATCH):
            source = random.Random(seed)
            changes = grow(source, changes=source.randint(1, 14), authors=source.randint(1, 5))
            history = consistent(changes)
            changes_seen += len(changes)
            disputed += any(len(puts) > 1 for puts in history.visible().values())
            deleted += any(op.value is None for change in changes for op in change.ops)
            for chunks in arrangements(changes, source):
                histories.append((seed, history))
                sets.append(chunks)
        for (seed, history), found in zip(histories, core.registers(sets), strict=True):
            assert found == {**ours(history), "reloads": True}, f"seed {seed}"
    assert disputed > REGISTERS / 4
    assert deleted > REGISTERS / 20
    assert changes_seen > REGISTERS * 5


def test_the_comparison_can_fail(core: Oracle) -> None:
    """Were the first visible value the winner, or one change lost, the comparison would say so."""
    other_winner = lost = 0
    for seed in range(60):
        made = grow(random.Random(seed), changes=10)
        history = consistent(made)
        (found,) = core.registers([[change.chunk for change in made]])
        other_winner += found["values"] != {key: puts[0].value for key, puts in history.visible().items()}
        lost += found["heads"] != ours(merge(made[:-1]))["heads"]
    assert other_winner > 30
    assert lost == 60


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    seed=st.integers(0, 2**64),
    changes=st.integers(1, 40),
    authors=st.integers(1, 12),
    pupils=st.integers(1, 6),
    deletes=st.floats(0, 1),
    blind=st.floats(0, 1),
)
def test_any_shape_of_register_equals_the_core(
    core: Oracle, seed: int, changes: int, authors: int, pupils: int, deletes: float, blind: float
) -> None:
    """Hypothesis chooses the shape: crowds, lone authors, only deletes, only blind puts; failures shrink."""
    source = random.Random(seed)
    made = grow(source, changes=changes, authors=authors, pupils=pupils, deletes=deletes, blind=blind)
    sets = arrangements(made, source)
    assert core.registers(sets) == [{**ours(consistent(made)), "reloads": True}] * len(sets)


@given(seed=st.integers(0, 2**64), changes=st.integers(1, 25))
@settings(max_examples=100, deadline=None)
def test_a_history_depends_on_the_set_only(seed: int, changes: int) -> None:
    """Any order and any duplicates give the same history, canonical order of changes included."""
    source = random.Random(seed)
    made = grow(source, changes=changes)
    missing = source.sample(made, source.randint(0, len(made)))
    expected = merge(missing)
    again = source.sample(missing, len(missing)) + source.choices(missing or made[:1], k=3 if missing else 0)
    source.shuffle(again)
    found = merge(again)
    assert found == expected
    assert list(found.merged) == list(expected.merged)


def test_registers_written_by_the_core_are_read_and_spelt_alike(core: Oracle) -> None:
    """600 documents of the core's own making: every change is in profile, re-encodes to its bytes, and merges alike."""
    made = core.ask({"seeds": list(range(600)), "rounds": 16})["made"]
    count = 0
    for document in made:
        changes = [parse(bytes.fromhex(chunk)) for chunk in document["chunks"]]
        assert [change.hash.hex() for change in changes] == document["hashes"]
        for change in changes:
            parts = {name: getattr(change, name) for name in ("actor", "seq", "start_op", "time_s", "deps", "ops")}
            assert encode(**parts) == change
            assert change.chunk.endswith(canonical_body(**parts))
        assert ours(consistent(changes)) == {name: document[name] for name in ("heads", "values")}
        count += len(changes)
    assert count > 600 * 10
