"""Private mode, no IndexedDB, a full disk: the page says so plainly, keeps working, and offers the file."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support import phone_log
from tests.support.chromium import Chromium
from tests.support.codes import code_for
from tests.support.demo import Demo
from tests.support.teacher import SETTLED, Teacher

pytestmark = [pytest.mark.browser, pytest.mark.xdist_group("browser")]

SAYS_SO = "document.querySelector('.note.act') && document.getElementById('status').className === 'l-act'"
NOT_DURABLE = "لا يمكن الحفظ الدائم على هذا الهاتف"
SAVED_HERE = "محفوظ على هذا الهاتف"
WAYS = {
    "missing": "Object.defineProperty(window, 'indexedDB', { value: undefined });",
    "refused": "IDBFactory.prototype.open = () => { throw new DOMException('denied', 'SecurityError'); };",
}
FULL = """for (const name of ['put', 'add']) IDBObjectStore.prototype[name] = () => {
  throw new DOMException('full', 'QuotaExceededError'); }; 0"""


@pytest.mark.parametrize("way", WAYS)
def test_without_storage_the_page_says_so_and_offers_the_file(demo: Demo, way: str, tmp_path: Path) -> None:
    """A register can still be taken, is never called saved on this phone, and the file holds every tap of it."""
    school = demo.info["schools"][0]
    room = school["classes"][list(WAYS).index(way)]  # one each: a phone also shows what others took
    with Chromium(tmp_path / "profile") as browser:
        teacher = Teacher(browser, demo.port)
        teacher.page.send("Page.addScriptToEvaluateOnNewDocument", source=WAYS[way])
        teacher.enrol(school["id"], code_for(demo, school["id"], room["id"]))
        teacher.page.wait(SAYS_SO)
        assert NOT_DURABLE in teacher.page.text()
        assert teacher.page.evaluate("document.querySelector('.note.act .btn').textContent") == "حفظ الملف"
        register = teacher.today()
        teacher.open_register(register)
        teacher.fill([1, 2])
        assert SAVED_HERE not in teacher.page.text()
        file = teacher.save_file(tmp_path / "out")
    phone_log.check(file)
    marked = phone_log.count_keys(phone_log.taps(file), register)
    assert set(marked) == {*room["pupils"], "~bulk"}


def test_a_disk_that_fills_up_is_told_and_what_was_saved_stays(demo: Demo, tmp_path: Path) -> None:
    """Taps before are still there after a kill; taps after it are in the file while the page lives, and it says so."""
    school = demo.info["schools"][0]
    room = school["classes"][2]
    with Chromium(tmp_path / "profile") as browser:
        teacher = Teacher(browser, demo.port).enrol(school["id"], code_for(demo, school["id"], room["id"]))
        register = teacher.today()
        teacher.open_register(register)
        teacher.mark([0, 1, 2])
        teacher.page.evaluate(FULL)
        teacher.page.tap(".roll > li:nth-child(5) .mark")
        teacher.page.wait(f"{SETTLED} && document.getElementById('status').className === 'l-act'")
        file = teacher.save_file(tmp_path / "out")
        keys = [tap.key for tap in phone_log.taps(file)]
        assert keys == [room["pupils"][row] for row in (0, 1, 2, 4)]
        browser.kill9()
        teacher = Teacher(browser.start(), demo.port).open()
        teacher.open_register(register)
        assert teacher.codes()[:5] == "AAA.."
