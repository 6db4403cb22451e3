"""The screens on a small phone: accessible, big enough for a finger, few taps, one host, two languages."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.chromium import Chromium, Page
from tests.support.demo import Demo

pytestmark = [pytest.mark.browser, pytest.mark.xdist_group("browser")]

PWA = Path(__file__).parents[2] / "pwa"
STANDARDS = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]
FINGER_PX = 48
SENDING, CONFIRMED = "يجري الإرسال", "تم التأكيد"
HOME = "document.querySelector('[id^=\"c-\"]')"
CHECK = f"""axe.run(document, {{runOnly: {STANDARDS}}}).then((found) => found.violations.map((one) =>
  one.id + ': ' + one.nodes.map((node) => node.html.slice(0, 120) + ' ' + node.failureSummary).join(' | ')))"""
SMALL = f"""Array.from(document.querySelectorAll('button, summary, select, input')).filter((one) => {{
  const box = one.getBoundingClientRect(); const radio = one.type === 'radio';
  const target = radio ? one.closest('label').getBoundingClientRect() : box;
  return box.width && (target.width < {FINGER_PX} - 0.5 || target.height < {FINGER_PX} - 0.5);
}}).map((one) => one.outerHTML.slice(0, 100) + ' ' + JSON.stringify(one.getBoundingClientRect()))"""


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Demo]:
    with Demo(tmp_path_factory.mktemp("demo")) as running:
        yield running


class Phone:
    """One enrolled phone: a browser profile, its open page, and what it may take registers of."""

    def __init__(self, demo: Demo, browser: Chromium, who: str) -> None:
        self.url = f"http://127.0.0.1:{demo.port}/"
        self.page: Page = browser.page()
        self.taps = 0
        self._school, self._code = find_school(demo, who), demo.info["codes"][who]

    def open_link(self) -> None:
        self.page.goto(f"{self.url}#e={self._school}.{self._code}")
        self.page.wait("document.querySelector('form button.main')")

    def enrol(self) -> Phone:
        self.open_link()
        self.page.tap("form button.main")
        self.page.wait("document.querySelector('#short')")
        self.page.tap("button.main")
        self.page.wait(HOME)
        return self

    def tap(self, selector: str) -> None:
        self.page.tap(selector)
        self.taps += 1

    def classes(self) -> list[str]:
        found: list[str] = self.page.evaluate("Array.from(document.querySelectorAll('.open')).map((one) => one.id)")
        return found

    def home(self) -> None:
        """The classes of today, when the sending that opening begins is over: a sync seals, and a seal ends "undo"."""
        self.page.goto(self.url)
        self.page.wait("performance.getEntriesByType('resource').some((one) => one.name.endsWith('/v1/sync'))")
        self.page.wait(f"{HOME} && document.getElementById('status').textContent.indexOf({SENDING!r}) < 0")


def find_school(demo: Demo, who: str) -> str:
    """School of a code of the demo: a class's own, else the first one's."""
    schools = demo.info["schools"]
    owner = next((s for s in schools if any(room["id"] == who for room in s["classes"])), schools[0])
    return str(owner["id"])


@pytest.fixture(scope="module")
def champion(demo: Demo, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Phone]:
    with Chromium(tmp_path_factory.mktemp("champion")) as browser:
        yield Phone(demo, browser, "champion").enrol()


@pytest.fixture(scope="module")
def teacher(demo: Demo, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Phone]:
    with Chromium(tmp_path_factory.mktemp("teacher")) as browser:
        yield Phone(demo, browser, "teacher").enrol()


def sound(page: Page, name: str) -> None:
    """No violation of WCAG 2.2 AA that a machine can see; targets fit a finger. Keeps a picture when asked to."""
    if "axe" not in page.evaluate("Object.keys(window).filter((key) => key === 'axe').join()"):
        page.evaluate((PWA / "node_modules/axe-core/axe.min.js").read_text() + ";0")
    if pictures := os.environ.get("HUDUR_SCREENSHOTS"):
        page.screenshot(Path(pictures) / f"{name}.png")
    assert page.evaluate(CHECK) == [], name
    assert page.evaluate(SMALL) == [], name


def switch_language(page: Page, name: str) -> None:
    page.evaluate("location.hash = 's'")
    page.wait("document.querySelector('.facts, .note .btn')")
    page.evaluate(
        f"Array.from(document.querySelectorAll('.btn')).filter((one) => one.textContent === {name!r})[0].click()"
    )


def test_enrolment_is_accessible_and_says_what_is_wrong(demo: Demo, tmp_path: Path) -> None:
    """A wrong code gives a sentence about the code, not a server's text, and the form stays."""
    with Chromium(tmp_path) as browser:
        phone = Phone(demo, browser, "teacher")
        phone.open_link()
        sound(phone.page, "enrol")
        phone.page.type("#e-code", "BBBBBBBBBB")
        phone.page.tap("form button.main")
        phone.page.wait("document.querySelector('.note.act')")
        sound(phone.page, "enrol-refused")
        assert "الرمز غير صحيح" in phone.page.text()


def test_every_page_of_a_teacher_is_accessible_in_both_languages(teacher: Phone) -> None:
    """Home, the last 14 days, register, long choice, status sheet and settings, in Arabic and in English."""
    page = teacher.page
    for language, other in (("ar", "English"), ("en", "العربية")):
        teacher.home()
        sound(page, f"home-{language}")
        page.tap("summary")
        page.wait("document.querySelector('.strip button')")
        sound(page, f"days-{language}")
        page.tap("#status")
        page.wait("document.querySelector('dialog[open]')")
        sound(page, f"status-{language}")
        page.evaluate("document.querySelector('dialog').close()")
        page.tap(".open")
        page.wait("document.querySelector('.roll .mark')")
        sound(page, f"register-{language}")
        page.tap(".roll .more")
        page.wait("document.querySelector('dialog[open]')")
        sound(page, f"choice-{language}")
        page.evaluate("document.querySelector('dialog').close()")
        page.evaluate("location.hash = 's'")
        page.wait("document.querySelector('.scroll .note .row')")
        sound(page, f"settings-{language}")
        switch_language(page, other)
        page.wait(f"document.documentElement.dir === {'ltr' if language == 'ar' else 'rtl'!r}")
    assert page.evaluate("document.documentElement.lang") == "ar-EG"


def test_nobody_absent_takes_three_taps_and_all_present_can_be_taken_back(teacher: Phone) -> None:
    """Open, all present, done; before that, one undo brings the whole class back to not taken."""
    teacher.home()
    room = teacher.classes()[-1]
    page = teacher.page
    page.tap(f"#{room}")
    page.tap("#all")
    page.wait("!document.querySelector('.pupil.wait') && !document.querySelector('li.k-none')")
    page.tap("#all")
    page.wait("!document.querySelector('.pupil.wait') && !document.querySelector('li.k-P')")
    teacher.home()
    teacher.taps = 0
    teacher.tap(f"#{room}")
    teacher.tap("#all")
    teacher.tap("#done")
    page.wait(HOME)
    assert teacher.taps <= 3
    page.wait(f"document.getElementById({room!r}).textContent.indexOf({CONFIRMED!r}) >= 0", timeout_ms=30_000)


def test_three_absent_take_at_most_eight_taps(teacher: Phone) -> None:
    """From home to sent; counts are shown while tapping, and a pupil is absent only by a tap on that pupil."""
    teacher.home()
    room = teacher.classes()[0]
    page = teacher.page
    teacher.taps = 0
    teacher.tap(f"#{room}")
    pupils = page.wait("document.querySelectorAll('.pupil').length")
    for row in (2, 5, 9):
        teacher.tap(f".roll > li:nth-child({row}) .mark")
    assert page.evaluate("document.querySelectorAll('li.k-none').length") == pupils - 3
    teacher.tap("#all")
    page.wait("!document.querySelector('.pupil.wait')")
    assert page.evaluate("document.querySelectorAll('li.k-A').length") == 3
    assert page.evaluate("document.querySelectorAll('li.k-P').length") == pupils - 3
    teacher.tap("#done")
    page.wait(HOME)
    assert teacher.taps <= 8
    page.wait(f"document.getElementById({room!r}).textContent.indexOf({CONFIRMED!r}) >= 0", timeout_ms=30_000)


def test_done_with_names_left_asks_and_never_guesses(teacher: Phone) -> None:
    """Finishing with unmarked pupils asks; 'like this' leaves them not taken."""
    teacher.home()
    page = teacher.page
    page.evaluate(f"document.getElementById({teacher.classes()[0]!r}).closest('li').querySelector('summary').click()")
    page.wait("document.querySelector('.strip button')")
    page.tap(".strip button:nth-child(12)")
    page.tap(".roll > li:nth-child(1) .mark")
    page.tap("#done")
    page.wait("document.querySelector('dialog[open]')")
    sound(page, "rest")
    page.tap("dialog .btn:not(.main):not(.plain)")
    page.wait(HOME)
    page.evaluate("history.back()")
    teacher.home()
    page.evaluate("document.querySelector('summary').click()")
    page.wait("document.querySelector('.strip button:nth-child(12).k-none') === null")


def test_only_one_host_is_ever_asked(teacher: Phone) -> None:
    """Zero-rated means one name: fonts, icons, everything comes from where the page came from."""
    names = teacher.page.evaluate("performance.getEntries().map((entry) => entry.name)")
    hosts = {name.split("/")[2] for name in names if name.startswith("http")}
    assert hosts == {teacher.url.split("/")[2]}


def test_the_champion_sees_phones_makes_a_code_and_asks_one_to_send(
    champion: Phone, teacher: Phone, demo: Demo, tmp_path: Path
) -> None:
    """The school's page: devices without names of pupils, a code as text, picture and link, a request with a reason."""
    page = champion.page
    champion.home()
    page.evaluate("location.hash = 'm'")
    page.wait(
        "document.querySelectorAll('.device').length >= 2 && document.querySelector('#user option')", timeout_ms=20_000
    )
    sound(page, "school")
    page.tap("select#user ~ p .main")
    page.wait(
        "document.querySelector('.qr path') && document.querySelector('.code input').value.indexOf('#e=') > 0",
        timeout_ms=20_000,
    )
    sound(page, "code")
    code = page.evaluate("document.querySelector('.code .big').textContent")
    assert len(code.replace("-", "")) == 10
    with Chromium(tmp_path) as browser:  # the code works: another phone enrols with it, typed in small letters
        new = browser.page()
        new.goto(champion.url)
        new.wait("document.querySelector('#e-school')")
        new.type("#e-school", find_school(demo, "champion"))
        new.type("#e-code", code.lower())
        new.tap("form button.main")
        new.wait("document.querySelector('#short')")
    page.tap(".device .btn")
    page.wait("document.querySelector('dialog[open] #why')")
    sound(page, "resync")
    page.type("#why", "لم يصل شيء منذ أمس")
    page.tap("dialog .btn.main")
    page.wait("document.querySelector('dialog h2') && !document.querySelector('dialog #why')", timeout_ms=20_000)
    sound(page, "resync-sent")
    page.evaluate("document.querySelector('dialog').close()")


def test_a_file_that_is_none_of_ours_is_refused_in_words(champion: Phone, tmp_path: Path) -> None:
    """Importing a stray file says that it is not a Hudur file and that nothing was taken."""
    page = champion.page
    champion.home()
    page.evaluate("location.hash = 'm'")
    page.wait("document.querySelector('#file') && document.querySelector('#user option')", timeout_ms=20_000)
    stray = tmp_path / "photo.jpg"
    stray.write_bytes(b"\xff\xd8\xff\xe0 not ours")
    page.send("DOM.enable")
    root: dict[str, Any] = page.send("DOM.getDocument")["root"]
    node = page.send("DOM.querySelector", nodeId=root["nodeId"], selector="#file")["nodeId"]
    page.send("DOM.setFileInputFiles", files=[str(stray)], nodeId=node)
    page.wait("document.body.innerText.indexOf('هذا ليس ملف حضور') >= 0", timeout_ms=20_000)
