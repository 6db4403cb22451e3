"""The phone's codec and the server's are twins: no mutant is a change to one and not to the other."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from clientcore.change import parse
from clientcore.errors import ChangeRefused
from clientcore.history import History, merge
from tests.fuzz.campaign import case
from tests.fuzz.corpus import registers
from tests.fuzz.test_fuzz import SEED
from tests.support.automerge_oracle import Oracle

MUTANTS = 20_000
TWIN = Path(__file__).parents[1] / "support" / "twin.mjs"


@pytest.fixture(scope="module")
def twin() -> Iterator[Oracle]:
    with Oracle(["node", str(TWIN)]) as child:
        yield child


def ours(chunk: bytes) -> str | dict[str, str]:
    try:
        return parse(chunk).hash.hex()
    except ChangeRefused as refusal:
        return {"refused": refusal.code}


def shown(history: History) -> dict[str, Any]:
    return {
        "heads": [head.hex() for head in history.heads],
        "visible": {key: [put.value for put in puts] for key, puts in history.visible().items()},
        "pending": sorted(digest.hex() for digest in history.pending),
        "inconsistent": {digest.hex(): reason for digest, reason in history.inconsistent.items()},
        "equivocations": sorted(digest.hex() for digest in history.equivocations),
    }


def test_both_twins_admit_the_same_mutants_and_give_them_the_same_hash(twin: Oracle) -> None:
    """Of 20,000 cases, every change is admitted by both or refused by both, for the same rule wherever one is broken.

    Where a mutant breaks two rules at once, either may be named: the twins read columns in different orders.
    """
    mutants = [data for kind, _, data in (case(SEED + 2, number) for number in range(MUTANTS)) if kind == "change"]
    theirs = twin.ask({"chunks": [data.hex() for data in mutants]})["verdicts"]
    other_rule = 0
    for data, found in zip(mutants, theirs, strict=True):
        expected = ours(data)
        if found == expected:
            continue
        assert isinstance(expected, dict), f"only the server admits {data.hex()}: {found}"
        assert isinstance(found, dict), f"only the phone admits {data.hex()}: {expected}"
        assert "refused" in found, f"the phone breaks on {data.hex()}: {found}"
        other_rule += 1
    assert other_rule < len(mutants) / 50
    assert sum(isinstance(found, str) for found in theirs) > len(mutants) / 20


def test_both_twins_merge_mutants_alike(twin: Oracle) -> None:
    """With a mutant in a register: the same heads, marks, and the same changes set aside for the same reasons."""
    sets: list[list[bytes]] = []
    for number in range(MUTANTS // 2):
        _, origin, data = case(SEED + 3, number)
        if origin is not None and isinstance(ours(data), str):
            register, place = origin
            base = [change.chunk for change in registers()[register]]
            sets.append([*base[:place], data, *base[place + number % 2 :]])
    theirs = twin.ask({"sets": [[chunk.hex() for chunk in chunks] for chunks in sets]})["histories"]
    expected = [shown(merge(map(parse, chunks))) for chunks in sets]
    for chunks, found, right in zip(sets, theirs, expected, strict=True):
        assert found == right, [chunk.hex() for chunk in chunks]
    reasons = {reason for right in expected for reason in right["inconsistent"].values()}
    assert len(reasons) == 5
    assert sum(bool(right["equivocations"]) for right in expected) > 20
