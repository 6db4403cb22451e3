"""The part of the app that reads sealed marks comes late, on a phone whose cache is gone: nothing false is shown."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.chromium import Chromium
from tests.support.codes import code_for
from tests.support.demo import Demo
from tests.support.teacher import HOME, Teacher

pytestmark = [pytest.mark.browser, pytest.mark.xdist_group("browser")]


def test_sealed_marks_never_look_untaken_while_their_reader_is_on_its_way(demo: Demo, tmp_path: Path) -> None:
    """A register taken before must not be offered as empty: "all present" on it would write over the absent ones."""
    school = demo.info["schools"][0]
    room = school["classes"][0]
    with Chromium(tmp_path) as browser:
        teacher = Teacher(browser, demo.port).enrol(school["id"], code_for(demo, school["id"], room["id"]))
        register = teacher.today()
        teacher.open_register(register)
        teacher.fill([4, 17])
        teacher.page.tap("#done")
        teacher.wait_for_step(room["id"], "confirmed")

        page = teacher.page
        page.goto("about:blank?closed")
        page.send("Storage.clearDataForOrigin", origin=teacher.url[:-1], storageTypes="service_workers,cache_storage")
        page.send("Network.clearBrowserCache")
        page.send("Network.setBlockedURLs", urls=["*/m/ledger*"])
        page.goto(teacher.url)
        page.wait(HOME)
        teacher.go(f"r/{register}")
        page.wait("document.querySelector('.roll .mark') || document.querySelector('.note')")
        assert page.evaluate("document.querySelectorAll('.roll > li.k-none').length") == 0
        assert page.evaluate("document.querySelector('#all') === null")

        page.send("Network.setBlockedURLs", urls=[])
        page.goto(teacher.url)
        page.wait(HOME)
        teacher.go(f"r/{register}")
        page.wait("document.querySelectorAll('.roll > li.k-A').length === 2")
