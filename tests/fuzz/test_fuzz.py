"""120,000 mutants: each is parsed or refused with a typed error, in bounded time and memory; none harms a core."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from clientcore.change import Change, parse
from clientcore.history import History, merge
from tests.fuzz import weaken
from tests.fuzz.corpus import registers
from tests.property.equality import ours, ours_with_conflicts
from tests.support.automerge_oracle import js_oracle, python_oracle

ROOT = Path(__file__).parents[2]
SEED = int(os.environ.get("HUDUR_FUZZ_SEED", "20261122"))
COUNT = int(os.environ.get("HUDUR_FUZZ_COUNT", "60000"))
"""Mutants of each of the two campaigns; nothing is shared between tests, so that they may run side by side."""
JS_SETS_MAX = 4_000
"""The JavaScript core takes ten times as long for a register as the Python one."""


def campaign(seed: int, count: int, weakness: str | None = None) -> dict[str, Any]:
    """The report of a campaign in a process of its own."""
    command = [sys.executable, "-m", "tests.fuzz.campaign", "--seed", str(seed), "--count", str(count)]
    command += ["--weaken", weakness] if weakness else []
    child = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600, check=False)
    assert child.returncode == 0, f"{' '.join(command)}: {child.stderr[-2_000:]}"
    report: dict[str, Any] = json.loads(child.stdout)
    return report


def assert_no_finding(report: dict[str, Any]) -> None:
    findings = report["findings"]
    shown = "\n".join(
        f"{found['wrong']}: {found['kind']} {found['bytes'][:200]}\n"
        f"again: python -m tests.fuzz.campaign --seed {report['seed']} --case {found['case']}"
        for found in findings[:5]
    )
    assert not findings, shown


@dataclass(frozen=True, slots=True)
class Hit:
    """A register that an admitted mutant became part of."""

    changes: list[Change]
    history: History


def hits(report: dict[str, Any]) -> list[Hit]:
    """Each admitted mutant in the place of the change it came from, and beside it, where our merge takes it in."""
    found: list[Hit] = []
    for register, place, chunk in report["admitted"]:
        mutant, base = parse(bytes.fromhex(chunk)), registers()[register]
        for changes in ([*base[:place], mutant, *base[place + 1 :]], [*base, mutant]):
            history = merge(changes)
            if mutant.hash in history.merged and mutant.hash != base[place].hash:
                found.append(Hit(changes, history))
    return found


def sets_of(found: list[Hit]) -> list[list[bytes]]:
    return [[change.chunk for change in hit.history.merged.values()] for hit in found]


def test_every_mutant_is_parsed_or_refused_with_a_typed_error() -> None:
    """No other exception, no more than 50 ms, no more than 64 MB, and nothing admitted that is not canonical."""
    report = campaign(SEED, COUNT)
    assert_no_finding(report)
    assert sum(report["verdicts"].values()) == COUNT


def test_the_mutants_reach_every_reader_and_every_refusal() -> None:
    """The fuzzer is neither so wild that nothing passes nor so tame that something is never refused."""
    count = 8_000
    verdicts = Counter(campaign(SEED, count)["verdicts"])
    kinds = {verdict.split()[0] for verdict in verdicts}
    assert kinds == {"change", "frame", "sync", "bundle", "wire", "answer", "payload", "enrol", "enrolled", "call"}
    refusals = {verdict.split()[1] for verdict in verdicts if verdict.startswith("change ")}
    assert refusals == {"admitted", "not-canonical", "bad-mark", "profile", "too-many-ops"} | {
        f"chunk-{what}" for what in ("checksum", "magic", "size", "type")
    }
    assert verdicts["change admitted"] > count / 20
    assert verdicts["frame admitted"] > count / 1_000


def test_what_is_admitted_harms_neither_core() -> None:
    """Registers with admitted mutants load, read as we read them, and load again when saved, in both cores."""
    report = campaign(SEED + 1, COUNT)
    assert_no_finding(report)
    found = hits(report)
    assert len(found) > COUNT / 100
    with python_oracle() as python:
        for start in range(0, len(found), 500):
            batch = found[start : start + 500]
            for hit, state in zip(batch, python.registers(sets_of(batch)), strict=True):
                assert state == {**ours(hit.history), "reloads": True}, [change.chunk.hex() for change in hit.changes]
    with js_oracle() as js:
        some = found[:: len(found) // JS_SETS_MAX + 1]
        for hit, state in zip(some, js.registers(sets_of(some)), strict=True):
            assert state == {**ours_with_conflicts(hit.history), "reloads": True}


@pytest.mark.parametrize(
    ("weakness", "count", "words"),
    [
        ("canonical", 2_000, "spelt otherwise"),
        ("actor", 2_000, "outside the profile"),
        ("grammar", 2_000, "outside the profile"),
        ("number", 2_000, "IndexError"),
        ("inflate", 2_000, "MemoryError"),
        ("time", 10, "ms of CPU"),
        ("types", 2_000, "outside the profile"),
    ],
)
def test_a_missing_rule_is_noticed(weakness: str, count: int, words: str) -> None:
    """With one rule taken out of the parsers, a few mutants are enough to see it, in the way that rule would fail."""
    findings = campaign(SEED, count, weakness)["findings"]
    assert any(words in finding["wrong"] for finding in findings), Counter(f["wrong"][:60] for f in findings)


def test_the_cores_notice_missing_stateful_rules() -> None:
    """Without the causal rules, the Python core meets registers it refuses, reads otherwise or cannot load again."""
    report = campaign(SEED, 4_000)
    with weaken.weakened("causal"):
        found = hits(report)
    with python_oracle() as python:
        states = python.registers(sets_of(found))
    harmed = [
        state for hit, state in zip(found, states, strict=True) if state != {**ours(hit.history), "reloads": True}
    ]
    assert len(harmed) > 20
