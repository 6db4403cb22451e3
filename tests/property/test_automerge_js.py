"""Our history equals npm @automerge/automerge's, disagreements included, and our codec reads what that core writes."""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from clientcore.change import encode, parse
from tests.property.equality import arrangements, consistent, ours_with_conflicts
from tests.support.automerge_oracle import Oracle, js_oracle
from tests.support.random_registers import grow

REGISTERS = 2_000
BATCH = 200


@pytest.fixture(scope="module")
def core() -> Iterator[Oracle]:
    with js_oracle() as oracle:
        yield oracle


def test_heads_winners_and_all_visible_values_equal_the_core_on_thousands_of_registers(core: Oracle) -> None:
    """2,000 registers, shuffled and with duplicates; every disputed value is found under the same operation id."""
    disputed = 0
    for start in range(0, REGISTERS, BATCH):
        histories, sets = [], []
        for seed in range(start, start + BATCH):
            source = random.Random(f"js {seed}")
            changes = grow(source, changes=source.randint(1, 14), authors=source.randint(1, 5))
            histories.append((seed, consistent(changes)))
            sets.append(source.choice(arrangements(changes, source)))
        for (seed, history), found in zip(histories, core.registers(sets), strict=True):
            expected = ours_with_conflicts(history)
            assert found == {**expected, "reloads": True}, f"seed {seed}"
            disputed += bool(expected["conflicts"])
    assert disputed > REGISTERS / 4


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    seed=st.integers(0, 2**64),
    changes=st.integers(1, 30),
    authors=st.integers(1, 12),
    pupils=st.integers(1, 6),
    deletes=st.floats(0, 1),
    blind=st.floats(0, 1),
)
def test_any_shape_of_register_equals_the_core(
    core: Oracle, seed: int, changes: int, authors: int, pupils: int, deletes: float, blind: float
) -> None:
    """Hypothesis chooses the shape; failures shrink."""
    source = random.Random(seed)
    made = grow(source, changes=changes, authors=authors, pupils=pupils, deletes=deletes, blind=blind)
    sets = arrangements(made, source)
    assert core.registers(sets) == [{**ours_with_conflicts(consistent(made)), "reloads": True}] * len(sets)


def test_registers_written_by_the_core_are_read_and_spelt_alike(core: Oracle) -> None:
    """200 documents of the core's own making, with its deletes of losers: all in profile, all equal."""
    deletes = 0
    for document in core.ask({"seeds": list(range(200)), "rounds": 16})["made"]:
        changes = [parse(bytes.fromhex(chunk)) for chunk in document["chunks"]]
        assert [change.hash.hex() for change in changes] == document["hashes"]
        for change in changes:
            parts = {name: getattr(change, name) for name in ("actor", "seq", "start_op", "time_s", "deps", "ops")}
            assert encode(**parts) == change
            deletes += any(op.value is None for op in change.ops)
        expected = ours_with_conflicts(consistent(changes))
        assert expected == {name: document[name] for name in ("heads", "values", "conflicts")}
    assert deletes > 100
