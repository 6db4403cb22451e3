"""kill -9 at random instants while tapping: nothing shown as saved is lost, the file stays whole."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.support.codes import code_for
from tests.support.demo import Demo
from tests.support.kills import Campaign

pytestmark = [pytest.mark.browser, pytest.mark.xdist_group("browser")]

KILLS = int(os.environ.get("HUDUR_KILLS", "6"))
# The page believes that a tap was written; nothing was.
FORGET = """const put = IDBObjectStore.prototype.put; IDBObjectStore.prototype.put = function (...words) {
  return document.querySelector('.pupil.wait') ? undefined : put.apply(this, words); }; 0"""
SEED = int(os.environ.get("HUDUR_SEED", "11"))


def test_nothing_shown_as_saved_is_lost_when_the_browser_is_killed(demo: Demo, tmp_path: Path) -> None:
    """First sessions and later ones: every tap shown as saved is in the log, and the screen shows what the log says."""
    school = demo.info["schools"][1]
    room = school["classes"][0]
    campaign = Campaign(
        demo.port, school["id"], room["pupils"], lambda: code_for(demo, school["id"], room["id"]), tmp_path, seed=SEED
    )
    for loss in campaign.run(KILLS):
        assert (loss.lost, loss.damaged_files, loss.wrong_screens) == (0, 0, 0), loss
    assert campaign.loss.kills == KILLS
    assert campaign.loss.shown >= KILLS  # something was at stake


def test_a_page_that_says_saved_too_early_is_found_out(demo: Demo, tmp_path: Path) -> None:
    """The campaign sees the loss when taps are shown as saved and never reach the disk."""
    school = demo.info["schools"][1]
    room = school["classes"][1]
    campaign = Campaign(
        demo.port,
        school["id"],
        room["pupils"],
        lambda: code_for(demo, school["id"], room["id"]),
        tmp_path,
        seed=SEED,
        sabotage=FORGET,
    )
    [loss] = campaign.run(1)
    assert loss.lost > 0
