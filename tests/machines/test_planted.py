"""The machine finds what it is there for, and says it in a few lines: two bugs are planted."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from clientcore.log import Log
from syncserver.store.sqlite import SqliteDatabase
from tests.machines.machine import machine_of
from tests.machines.term import BrokenInvariant

HUNT = settings(
    max_examples=200,
    stateful_step_count=6,
    derandomize=True,
    database=None,
    deadline=None,
    phases=(Phase.generate, Phase.shrink),
    suppress_health_check=(HealthCheck.too_slow,),
)
STEPS_MAX = 4  # besides the school's beginning and the last checks


def steps_to(invariant: str, profile: str) -> list[str]:
    """The minimal example's steps; the machine must break, and at `invariant`."""
    with pytest.raises(BrokenInvariant, match=invariant) as found:
        run_state_machine_as_test(machine_of(profile), settings=HUNT)
    lines = [line.strip() for note in found.value.__notes__ for line in note.splitlines()]
    steps = [line for line in lines if line.startswith(("state.", "files_"))]
    assert steps[0] == "state.school_begins()"
    assert steps[-1] == "state.teardown()"
    return steps[1:-1]


def test_a_server_that_does_not_sync_is_found_in_few_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """An acknowledged change that a power cut takes away (I2) shrinks to a push and the cut."""
    inner = SqliteDatabase._connect

    async def careless(self: SqliteDatabase) -> None:
        await inner(self)
        assert self._writer is not None
        await self._writer.execute("PRAGMA synchronous = OFF")

    monkeypatch.setattr(SqliteDatabase, "_connect", careless)
    steps = steps_to("I2", "upper-egypt-edge-rural")
    assert len(steps) <= STEPS_MAX, steps
    assert any("power" in step for step in steps), steps


def test_a_phone_that_does_not_sync_its_log_is_found_in_few_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """The battery takes a mark shown as saved (I1), or frame numbers, which then come twice (S2)."""
    inner = Log.open

    def careless(*args: Any, **named: Any) -> Log:
        opened = inner(*args, **named)
        opened._db.execute("PRAGMA synchronous = OFF")
        return opened

    monkeypatch.setattr(Log, "open", careless)
    steps = steps_to("I1|S2", "load-shedding-two-hours")
    assert len(steps) <= STEPS_MAX, steps
    assert any("power" in step for step in steps), steps
