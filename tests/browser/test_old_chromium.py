"""Capture, offline restart and sync on the Chromium builds that phones in schools really have.

`make browsers` runs all four; `make test` only the current one. A build that cannot be had is a failure.
"""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from tests.browser import old_chromium
from tests.support.chromium import Chromium
from tests.support.demo import Demo
from tests.support.link import Link
from tests.support.teacher import Teacher

pytestmark = [pytest.mark.browser, pytest.mark.xdist_group("browser")]

ABSENT = [4, 17, 30]
# Each build enrols in a class of its own, so that one demo serves all.
PLACES = {"64": 0, "109": 1, "138": 2, "current": 3}


@pytest.mark.oldbrowser
@pytest.mark.parametrize("major", [*old_chromium.BUILDS, old_chromium.CURRENT])
def test_capture_offline_restart_and_sync_work(demo: Demo, major: str, tmp_path: Path) -> None:
    """Enrol, network off, cold start, a register with three absent, kill -9, all there, network back, confirmed."""
    school = demo.info["schools"][2]
    room = school["classes"][PLACES[major]]
    before = len(demo.events())
    browser = Chromium(tmp_path / "profile", binary=str(old_chromium.fetch(major)), flags=old_chromium.flags_of(major))
    with Link(demo.port) as link, browser:
        teacher = Teacher(browser, link.port).enrol(school["id"], demo.info["codes"][room["id"]])
        agent = teacher.page.evaluate("navigator.userAgent")
        assert major == old_chromium.CURRENT or f"Chrome/{major}." in agent
        teacher.wait_for_worker()
        link.off()
        browser.kill9()

        teacher = Teacher(browser.start(), link.port).open()
        teacher.page.tap(f"#c-{room['id']}")
        teacher.fill(ABSENT)
        shown = teacher.codes()
        assert teacher.step() == "saved"
        browser.kill9()

        teacher = Teacher(browser.start(), link.port).open()
        teacher.wait_for_step(room["id"], "saved")
        teacher.page.tap(f"#c-{room['id']}")
        teacher.page.wait("document.querySelectorAll('.roll > li.k-A').length === 3")
        assert teacher.codes() == shown

        link.on()
        teacher.network_is_back()
        teacher.page.tap("#done")
        teacher.wait_for_step(room["id"], "confirmed")
        file = teacher.save_file(tmp_path / "out")
    with closing(sqlite3.connect(file)) as db:
        assert db.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    events = demo.events()[before:]
    assert sorted(event["data"]["pupil"] for event in events) == sorted(room["pupils"])
    absent = {event["data"]["pupil"] for event in events if event["data"]["code"] == "absent"}
    assert absent == {room["pupils"][row] for row in ABSENT}
