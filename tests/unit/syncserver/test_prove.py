"""The proof agrees on real registers, finds a wrong merge, survives what kills the core, and exports real documents."""

from __future__ import annotations

import random
from collections.abc import Iterable
from dataclasses import replace

import pytest

from clientcore.change import Change, parse
from clientcore.errors import BadInput, ChangeRefused
from clientcore.history import History, Put, merge
from syncserver import prove_worker
from syncserver.prove import Difference, Limits, core_states, export_automerge, prove
from tests.property.equality import ours, ours_with_conflicts
from tests.support.automerge_oracle import js_oracle, python_oracle
from tests.support.random_registers import grow
from tests.vectors.cases import histories
from tests.vectors.cases.refused import REPRODUCERS

SMALL = Limits(memory_bytes=1 << 29, cpu_s=1)


def registers(count: int) -> list[tuple[str, list[bytes]]]:
    return [
        (f"sch/c/2026-11-22/p{seed}", [change.chunk for change in grow(random.Random(seed), changes=6)])
        for seed in range(count)
    ]


def test_the_proof_agrees_on_more_registers_than_one_child_takes() -> None:
    """450 registers in three children: all agree, all are counted."""
    report = prove(registers(450))
    assert report.agrees
    assert (report.registers, report.changes, report.set_aside) == (450, 450 * 6, 0)


def test_changes_that_are_set_aside_are_counted_and_not_compared() -> None:
    """The vectors hold pending, inconsistent and equivocating changes: the merged rest is proved."""
    given = histories.cases()
    report = prove((name, [change.chunk for change in changes]) for name, changes in given)
    assert report.differences == ()
    expected = [merge(changes) for _, changes in given]
    assert report.changes == sum(len(history.merged) for history in expected)
    assert report.set_aside == sum(
        len(history.pending) + len(history.inconsistent) + len(history.equivocations) for history in expected
    )


class FirstWins(History):
    """A history with the wrong winner."""

    def visible(self) -> dict[str, list[Put]]:
        shown = merge(self.merged.values()).visible()
        return {key: puts[::-1] for key, puts in shown.items()}


def first_wins(changes: Iterable[Change]) -> History:
    found = merge(changes)
    return FirstWins(
        merged=found.merged,
        pending=found.pending,
        inconsistent=found.inconsistent,
        equivocations=found.equivocations,
        heads=found.heads,
    )


def test_a_wrong_winner_is_found() -> None:
    """A merge that lets the first value win is caught, with the key and both values."""
    report = prove(registers(40), our_merge=first_wins)
    assert not report.agrees
    assert {difference.what for difference in report.differences} == {"winners"}
    assert "ours " in report.differences[0].detail
    assert "core " in report.differences[0].detail


def test_wrong_heads_are_found() -> None:
    """A merge that forgets a head is caught."""
    report = prove(registers(3), our_merge=lambda changes: replace(merge(changes), heads=()))
    assert [difference.what for difference in report.differences] == ["heads"] * 3


def test_a_stored_change_that_we_cannot_read_is_reported() -> None:
    """A chunk that rotted on disk is named; the rest of its register is proved."""
    ((register, chunks),) = registers(1)
    rotten = chunks[0][:-1] + bytes((chunks[0][-1] ^ 1,))
    report = prove([(register, [*chunks, rotten])])
    assert [(found.register, found.what) for found in report.differences] == [(register, "unreadable")]
    assert "chunk-checksum" in report.differences[0].detail
    assert report.changes == len(chunks)


def test_what_kills_the_core_delays_nobody_else() -> None:
    """Chunks that abort, hang or break the core are errors of their own; the registers around them are answered."""
    good = [change.chunk for change in grow(random.Random(5), changes=4)]
    harmful = [bytes.fromhex(data) for name, _, data in REPRODUCERS if "sync message" not in name]
    sets = [good, *([chunk] for chunk in harmful), good]
    states = core_states(sets, SMALL)
    assert states[0] == states[-1]
    assert "values" in states[0]
    failed = [state["error"] for state in states[1:-1] if "error" in state]
    assert any("SIGXCPU" in error or "SIGKILL" in error for error in failed)  # the 100,000 puts
    assert any("SIGABRT" in error for error in failed)  # the predecessor group of 10^12


def test_a_core_that_fails_is_a_difference(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the core says instead of a state stands in the report."""
    panicked = {"error": "the core panicked"}
    monkeypatch.setattr("syncserver.prove.core_states", lambda sets, _: [panicked] * len(sets))
    assert prove([("r", [])]).differences == (Difference(register="r", what="core", detail="the core panicked"),)


def test_a_child_that_cannot_start_is_said_at_once() -> None:
    """With too little memory to import the core, the proof stops instead of reporting every register."""
    with pytest.raises(BadInput) as refusal:
        prove(registers(1), limits=Limits(memory_bytes=1 << 24))
    assert refusal.value.code == "no-core"


def test_a_child_that_takes_too_long_is_ended() -> None:
    """The wall limit ends a child; one that has not even started counts as no core."""
    with pytest.raises(BadInput, match="took too long"):
        prove(registers(1), limits=Limits(wall_s=0.001))


def test_an_exported_register_opens_in_both_cores() -> None:
    """The document holds heads, winners and disagreements as we show them; Python and JavaScript both load it."""
    for seed in range(5):
        changes = grow(random.Random(seed), changes=12)
        document = export_automerge([change.chunk for change in changes])
        assert document[:4] == changes[0].chunk[:4]
        with python_oracle() as python, js_oracle() as js:
            (by_python,) = python.registers([[document]])
            by_js = js.ask({"document": document.hex()})
        assert by_python == {**ours(merge(changes)), "reloads": True}
        assert by_js == ours_with_conflicts(merge(changes))


def test_an_empty_register_exports_an_empty_document() -> None:
    """No change at all still gives a document that loads."""
    with python_oracle() as python:
        assert python.registers([[export_automerge([])]]) == [{"heads": [], "values": {}, "reloads": True}]


def test_a_register_outside_the_profile_is_not_exported() -> None:
    """Bytes that are no change of ours are refused before any core sees them."""
    with pytest.raises(ChangeRefused):
        export_automerge([bytes.fromhex(REPRODUCERS[2][2])])


def test_an_export_that_the_core_reads_otherwise_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """No document leaves that says something else than the register."""
    wrong = [{"heads": [], "values": {}, "saved": ""}]
    monkeypatch.setattr("syncserver.prove.core_states", lambda *_, **__: wrong)
    with pytest.raises(BadInput) as refusal:
        export_automerge([grow(random.Random(1), changes=1)[0].chunk])
    assert refusal.value.code == "not-exportable"


def test_the_worker_answers_in_this_process_too() -> None:
    """The worker's own reading of a set: state, document, and a failure as words."""
    from automerge import core

    changes = grow(random.Random(3), changes=5)
    chunks = [change.chunk for change in changes]
    found = prove_worker.answer(core, chunks, True)
    assert found == {**ours(merge(changes)), "saved": found["saved"]}
    assert prove_worker.answer(core, chunks[1:], False)["error"]
    assert parse(chunks[0]).hash.hex() not in found["heads"]
