"""A short campaign of kill -9 over real processes, a real store and links that cut; and what its checks notice."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import pytest

from clientcore.home import LOG
from tests.process.campaign import Campaign

pytestmark = pytest.mark.process

KILLS = 20


def test_kills_lose_nothing_that_was_told() -> None:
    """20 SIGKILLs of server and `hudur device`, at points and at random: every receipt, saved tap and event holds."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.process.campaign", "--kills", str(KILLS), "--seed", "3", "--json"],
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    told = json.loads(done.stdout)
    assert told["violations"] == []
    assert done.returncode == 0, done.stderr
    assert sum(told["kills"].values()) == KILLS
    assert sum(count for kind, count in told["kills"].items() if kind.startswith("server")) == KILLS // 2
    assert len(told["kills"]) >= 6
    assert told["receipts"] > 20
    assert told["taps_saved"] > 20
    assert told["events_read"] > 100


class _Forgetful(Campaign):
    """After the kills somebody takes rows out of each store: what lost commits would look like."""

    async def _finish(self, homes: Sequence[tuple[Path, str]]) -> None:
        self._read = self._read or await self._whole_feed()
        for home, _ in homes:
            with closing(sqlite3.connect(home / LOG)) as log:
                log.execute("DELETE FROM log WHERE kind = 'tap'")
                log.commit()
        await self._stop(self._serving)
        with closing(sqlite3.connect(self._store)) as store:
            store.execute("DELETE FROM events WHERE first_seq = (SELECT min(first_seq) FROM events)")
            store.execute("DELETE FROM changes WHERE log_offset = (SELECT min(log_offset) FROM changes)")
            store.commit()
        self._serving = await self._start("-", 1)
        await super()._finish(homes)


async def test_what_is_lost_is_noticed(tmp_path: Path) -> None:
    """Taps, a change and a batch of events taken away: each is told."""
    summary = await _Forgetful(tmp_path, seed=6, kills=6).run()
    found = " | ".join(summary.violations)
    assert "saved taps are gone" in found
    assert "durable receipt are gone" in found
    assert "events that were read are lost" in found
