"""قرارات on the champion's phone: late, different and held marks are decided; refusals in their own words."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.browser.test_school import room_of
from tests.browser.test_screens import CHECK, PWA, SMALL
from tests.support.chromium import Chromium, Page
from tests.support.codes import code_for
from tests.support.demo import HUDUR, Demo
from tests.support.link import Link
from tests.support.teacher import HOME, Teacher

pytestmark = [pytest.mark.browser, pytest.mark.xdist_group("browser")]

LOADED = (
    "document.querySelectorAll('section > .part').length === 3 && !document.querySelector('[role=status]').textContent"
)
LOOKS = 200  # of 50 ms each


@pytest.fixture(scope="module")
def network(demo: Demo) -> Iterator[Link]:
    """The champion's network."""
    with Link(demo.port) as running:
        yield running


@pytest.fixture(scope="module")
def champion(demo: Demo, network: Link, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Teacher]:
    with Chromium(tmp_path_factory.mktemp("champion")) as browser:
        phone = Teacher(browser, network.port).enrol(demo.info["schools"][0]["id"], demo.info["codes"]["champion"])
        phone.wait_for_worker()
        yield phone


def decisions(champion: Teacher, page: Page | None = None) -> Page:
    """Open the page afresh, as a finger does: the school, then the button; wait for its three lists."""
    page = page or champion.page
    page.goto(champion.url)
    page.wait("document.querySelector('[id^=\"c-\"]')")
    page.evaluate("location.hash = 'm'; 0")
    page.tap(".decide")
    page.wait(LOADED)
    return page


def keep_picture(page: Page, name: str) -> None:
    """A picture of the screen, when asked for."""
    if pictures := os.environ.get("HUDUR_SCREENSHOTS"):
        page.screenshot(Path(pictures) / f"decisions-{name}.png")


def sound(page: Page, name: str) -> None:
    """Accessible as far as a machine can see, and big enough for a finger."""
    page.evaluate((PWA / "node_modules/axe-core/axe.min.js").read_text() + ";0")
    keep_picture(page, name)
    assert page.evaluate(CHECK) == [], name
    assert page.evaluate(SMALL) == [], name


def card(page: Page, part: int, text: str) -> str:
    """Selector of the one card of a list (0, 1, 2) that holds `text`."""
    found = f"Array.from(document.querySelectorAll('section')[{part}].querySelectorAll('.case'))"
    ids = page.evaluate(
        f"{found}.filter((one) => one.textContent.indexOf({json.dumps(text)}) >= 0)"
        f".map((one, i) => (one.id = 'case-{part}-' + {len(text)} + '-' + i))"
    )
    assert len(ids) == 1, page.text()
    return f"#{ids[0]}"


def open_days(phone: Teacher) -> list[str]:
    """Registers of the first class on the last 13 days before today on which the school was open, the newest first."""
    phone.page.tap("summary")
    phone.page.wait("document.querySelector('.strip button')")
    days: list[str] = phone.page.evaluate(
        "Array.from(document.querySelector('.strip').querySelectorAll('button:not(.k-closed)'))"
        ".map((one) => one.id.slice(2))"
    )
    today = phone.today()
    return [day for day in reversed(days) if day != today]


def name_of(phone: Teacher, register: str, row: int) -> str:
    """The pupil in a row of the roll, as the screen names them."""
    phone.open_register(register)
    return str(
        phone.page.evaluate(f"document.querySelectorAll('.roll > li')[{row}].querySelector('.grow bdi').textContent")
    )


def pupil_at(demo: Demo, class_id: str, row: int) -> str:
    """Id of the pupil in a row of the roll."""
    (room,) = [one for one in demo.info["schools"][0]["classes"] if one["id"] == class_id]
    return str(room["pupils"][row])


def told(demo: Demo, page: Page, register: str, pupil: str, code: str) -> list[dict[str, Any]]:
    """Wait until the feed tells `code` of the pupil; the events of that pupil in that register."""
    for _ in range(LOOKS):
        found = [
            event["data"]
            for event in demo.events()
            if event["data"].get("pupil") == pupil and event["data"]["register"].endswith(register)
        ]
        if found and found[-1]["code"] == code:
            return found
        page.evaluate("new Promise((go) => setTimeout(go, 50))")
    raise AssertionError(found)


def sent(phone: Teacher, register: str, rows: list[int]) -> None:
    """Mark rows absent by one tap each, finish "like this", and wait until it is settled: lists show what is."""
    phone.open_register(register)
    phone.mark(rows)
    phone.page.tap("#done")
    phone.page.tap("dialog .btn:not(.main):not(.plain)")
    phone.page.wait(HOME)
    phone.open_register(register)
    phone.wait_until_settled()


def confirm(page: Page, reason: str) -> None:
    """Fill in the open sheet and press its one button."""
    page.wait("document.querySelector('dialog[open] #why')")
    if page.evaluate("document.querySelector('#why').tagName") == "SELECT":
        page.evaluate(f"document.querySelector('#why').value = {json.dumps(reason)}; 0")
    else:
        page.type("#why", reason)
    page.tap("dialog .btn.main")


def test_a_late_mark_is_approved_and_becomes_official_and_a_second_decision_is_refused_in_words(
    demo: Demo, champion: Teacher, tmp_path: Path
) -> None:
    """What stands, what is asked, by whom, how long; then official. A page that has not heard of it is told so."""
    school, room = room_of(demo, 0)
    with Chromium(tmp_path) as browser:
        phone = Teacher(browser, demo.port).enrol(school, code_for(demo, school, room["id"]))
        days = open_days(phone)
        late, locked = days[0], days[-1]
        name, pupil = name_of(phone, late, 2), pupil_at(demo, room["id"], 2)
        sent(phone, late, [2])
        sent(phone, locked, [4])
        phone.go("s")
        author = phone.page.wait("(document.querySelector('.note h2') || {}).textContent")
    page = decisions(champion)
    page.wait(f"document.body.innerText.indexOf({author!r}) >= 0")  # the id has become a name
    waiting = card(page, 0, name)
    shown = page.text(waiting)
    assert page.evaluate(f"!!document.querySelector('{waiting} > div .k-L')")
    for expected in ("المسجَّل الآن", "لم يُسجَّل", "المطلوب", "غياب", author, "باقٍ بعد اليوم", "ينتظر قرارًا"):
        assert expected in shown or (expected.startswith("باقٍ") and "اليوم آخر يوم" in shown), (expected, shown)
    closed = card(page, 0, "مغلق في المدرسة")
    assert "مغلق هنا منذ" in page.text(closed)
    assert "الإدارة المركزية" in page.text(closed)
    assert page.evaluate(f"document.querySelectorAll('{closed} .btn').length") == 0
    sound(page, "adjustments")

    other = decisions(champion, champion.browser.page())  # the same list, before the decision
    page.send("Page.bringToFront")
    page.tap(f"{card(page, 0, name)} .btn.main")
    page.wait("document.querySelector('dialog[open] #why')")
    sound(page, "approve")
    confirm(page, "forgotten")
    page.wait(f"document.querySelector('{waiting} .state .k-confirmed')")
    keep_picture(page, "approved")
    (event,) = told(demo, page, late, pupil, "absent")
    assert "adjusted" in event["labels"]

    other.send("Page.bringToFront")
    other.tap(f"{card(other, 0, name)} .btn.main")
    confirm(other, "forgotten")
    other.wait("document.querySelector('dialog .note.act h2')")
    keep_picture(other, "refused")
    assert "أو تم اتخاذ هذا القرار من قبل" in other.text("dialog .note.act")

    other.send("Page.close")

    page.send("Page.bringToFront")
    decisions(champion)
    assert name not in page.text("section")


def test_two_different_marks_are_shown_and_one_is_chosen(demo: Demo, champion: Teacher, tmp_path: Path) -> None:
    """Both values with who and when; the chosen one is the official answer."""
    school, room = room_of(demo, 0)
    codes = (code_for(demo, school, room["id"]), demo.info["codes"]["teacher"])
    with (
        Link(demo.port) as first_link,
        Link(demo.port) as second_link,
        Chromium(tmp_path / "first") as first_browser,
        Chromium(tmp_path / "second") as second_browser,
    ):
        links = (first_link, second_link)
        phones = [
            Teacher(browser, link.port).enrol(school, code)
            for browser, link, code in zip((first_browser, second_browser), links, codes, strict=True)
        ]
        register = f"{room['id']}/{phones[0].today().partition('/')[2]}"
        name, pupil = name_of(phones[0], register, 6), pupil_at(demo, room["id"], 6)
        for phone, link, absent in zip(phones, links, ([6], []), strict=True):
            phone.wait_until_idle()
            link.off()
            phone.open_register(register)
            phone.fill(absent)
        for phone, link in zip(phones, links, strict=True):
            link.on()
            phone.network_is_back()
            phone.page.tap("#done")
            phone.wait_for_step(room["id"], "sent", "confirmed", "review")
    assert told(demo, champion.page, register, pupil, "present")  # provisional: somebody saw the pupil
    page = decisions(champion)
    differing = card(page, 1, name)
    page.evaluate(f"document.querySelector('{differing}').scrollIntoView()")
    assert page.evaluate(f"document.querySelectorAll('{differing} .group').length") == 2
    assert page.text(differing).count("وقت التسجيل") == 2
    sound(page, "dispute")
    page.evaluate(f"document.querySelector('{differing} .group .k-A').closest('.group').id = 'absent'; 0")
    page.tap("#absent .btn")
    page.wait("document.querySelector('dialog[open] #why')")
    page.tap("dialog .btn.main")  # without a reason nothing is sent
    assert page.evaluate("document.activeElement.id") == "why"
    confirm(page, "اتصل ولي الأمر")
    page.wait(f"document.querySelector('{differing} .state .k-confirmed')")
    assert told(demo, page, register, pupil, "absent")


def test_marks_of_a_stopped_phone_are_told_with_their_cause_and_let_in(
    demo: Demo, champion: Teacher, link: Link, tmp_path: Path
) -> None:
    """Held, with the cause in words; a release with a reason makes them count."""
    school, room = room_of(demo, 2)
    with Chromium(tmp_path) as browser:
        phone = Teacher(browser, link.port).enrol(school, code_for(demo, school, room["id"]))
        register = phone.today()
        class_id = register.partition("/")[0]
        phone.wait_until_idle()
        link.off()
        phone.open_register(register)
        phone.fill([1])
        device = newest_device(demo, school)
        command(demo, "revoke", device, "--reason", "lost")
        link.on()
        phone.page.tap("#done")
        for _ in range(LOOKS):  # each look takes a process's time
            if json.loads(command(demo, "held", school, "--json"))["held"]:
                break
    page = decisions(champion)
    held = card(page, 2, "بعد إيقاف صاحب التسجيل أو هاتفه")
    page.evaluate(f"document.querySelector('{held}').scrollIntoView()")
    assert page.evaluate(f"document.querySelectorAll('{held} details').length") >= 1  # a whole class, folded
    sound(page, "held")
    page.tap(f"{held} .btn.main")
    confirm(page, "سُجِّل قبل فقد الهاتف")
    page.wait(f"document.querySelector('{held} .state .k-confirmed')")
    assert told(demo, page, register, pupil_at(demo, class_id, 1), "absent")


def test_without_a_network_the_page_says_that_deciding_needs_one_and_nothing_is_lost(
    champion: Teacher, network: Link
) -> None:
    """The page opens from the cache; when the network is back, one press brings the lists."""
    champion.wait_until_idle()
    network.off()
    page = champion.page
    try:
        page.goto(champion.url)
        page.wait("document.querySelector('[id^=\"c-\"]')")
        page.evaluate("location.hash = 'm/d'; 0")
        page.wait("document.body.innerText.indexOf('اتخاذ القرار يحتاج إلى شبكة. لا يضيع شيء') >= 0")
        assert not page.evaluate("document.querySelector('.scroll .note.act')")
        sound(page, "offline")
    finally:
        network.on()
    page.tap("[role=status] .btn")
    page.wait(LOADED)


def test_the_page_reads_in_english_too(champion: Teacher) -> None:
    """The translation is whole, and accessible."""
    page = champion.page
    page.evaluate("localStorage.setItem('language', 'en'); 0")
    try:
        decisions(champion)
        assert page.evaluate("document.documentElement.dir") == "ltr"
        assert "Changes asked for after the day" in page.text()
        sound(page, "english")
    finally:
        page.evaluate("localStorage.setItem('language', 'ar'); 0")


def command(demo: Demo, *words: str) -> str:
    """One of the operator's commands on the demo's store."""
    store = f"sqlite:{demo.home / '.demo' / 'hudur.db'}"
    done = subprocess.run(
        [HUDUR, *words, "--store", store], capture_output=True, text=True, timeout=60, check=False, cwd=demo.home
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def newest_device(demo: Demo, school: str) -> str:
    """The device that was enrolled last."""
    with closing(sqlite3.connect(f"file:{demo.home / '.demo' / 'hudur.db'}?mode=ro", uri=True)) as db:
        row = db.execute("SELECT id FROM devices WHERE school = ? ORDER BY enrolled_ms DESC LIMIT 1", [school])
        return bytes(row.fetchone()[0]).hex()
