"""Zero-rated means one name; a repeat visit asks the network for nothing; the policy lets nothing else in."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from tests.support.chromium import Chromium, Page
from tests.support.codes import code_for
from tests.support.demo import Demo
from tests.support.shaper import PLAIN, Shaper
from tests.support.teacher import Teacher

pytestmark = [pytest.mark.browser, pytest.mark.xdist_group("browser")]

VIOLATIONS = """window.violations = [];
document.addEventListener('securitypolicyviolation', (e) => violations.push(e.violatedDirective + e.blockedURI));"""


def enrolled(demo: Demo, shaper: Shaper, browser: Chromium) -> Teacher:
    """A phone of the first class, whose page reports breaches of the policy."""
    school = demo.info["schools"][0]
    room = school["classes"][0]
    teacher = Teacher(browser, shaper.port)
    teacher.page.send("Page.addScriptToEvaluateOnNewDocument", source=VIOLATIONS)
    teacher.page.send("Log.enable")
    return teacher.enrol(school["id"], code_for(demo, school["id"], room["id"]))


def walk(teacher: Teacher) -> None:
    """Every page of a teacher, both languages, a register, the sheets."""
    for _ in range(2):
        teacher.open_register(teacher.today())
        teacher.page.tap(".roll .more")
        teacher.page.wait("document.querySelector('dialog[open]')")
        teacher.page.evaluate("document.querySelector('dialog').close()")
        teacher.mark([0])
        teacher.page.tap("#status")
        teacher.page.wait("document.querySelector('dialog[open]')")
        teacher.page.evaluate("document.querySelector('dialog').close()")
        teacher.go("s")
        teacher.page.wait("document.querySelectorAll('.note .btn').length > 1")
        lang = teacher.page.evaluate("document.documentElement.lang")
        teacher.page.evaluate("document.querySelectorAll('.scroll .note')[1].querySelector('.btn').click()")
        teacher.page.wait(f"document.documentElement.lang !== {lang!r}")
        teacher.open()


def asked(page: Page) -> list[dict[str, Any]]:
    """Every request of the page so far."""
    page.evaluate("0")  # takes in what has come meanwhile
    return [event["params"] for event in page.events if event["method"] == "Network.requestWillBeSent"]


def test_only_our_own_host_is_asked_and_the_policy_is_never_broken(demo: Demo, tmp_path: Path) -> None:
    """All requests of all screens go to the page's own origin; no breach, no error in the console."""
    with Shaper(demo.port) as shaper, Chromium(tmp_path / "profile") as browser:
        teacher = enrolled(demo, shaper, browser)
        walk(teacher)
        urls = [one["request"]["url"] for one in asked(teacher.page)]
        hosts = {urlsplit(url).netloc for url in urls if not url.startswith(("data:", "blob:", "about:"))}
        assert hosts == {f"127.0.0.1:{shaper.port}"}
        assert any(url.endswith("/v1/sync") for url in urls)  # it has seen what it should see
        assert teacher.page.evaluate("violations") == []
        said = [event["params"]["entry"] for event in teacher.page.events if event["method"] == "Log.entryAdded"]
        assert [entry["text"] for entry in said if entry["level"] == "error"] == []


def test_the_policy_is_strict_and_really_in_force(demo: Demo, tmp_path: Path) -> None:
    """No inline script but our own, no other host, no frame around us; what breaks it is stopped and reported."""
    with Shaper(demo.port) as shaper, Chromium(tmp_path / "profile") as browser:
        teacher = enrolled(demo, shaper, browser)
        page = teacher.page
        page.events.clear()
        page.goto(teacher.url + "?again")
        page.wait("document.querySelector('[id^=c-]')")
        answers = [one["params"]["response"] for one in page.events if one["method"] == "Network.responseReceived"]
        heads = next(answer["headers"] for answer in answers if urlsplit(answer["url"]).path == "/")
        policy = {name.lower(): value for name, value in heads.items()}["content-security-policy"]
        rules = {words[0]: words[1:] for words in (part.split() for part in policy.split(";")) if words}
        assert rules["default-src"] == ["'none'"]
        assert rules["frame-ancestors"] == ["'none'"]
        assert rules["base-uri"] == ["'none'"]
        assert not any("unsafe" in source or "*" in source or "http" in source for r in rules.values() for source in r)
        page.evaluate("""(() => { const s = document.createElement('script'); s.textContent = 'window.broken = true';
          document.head.appendChild(s); const i = new Image(); i.src = 'http://127.0.0.2:9/x.png'; })()""")
        page.wait("violations.length >= 2")
        assert page.evaluate("window.broken === undefined")


def test_a_repeat_visit_sends_no_byte_before_it_is_usable(demo: Demo, tmp_path: Path) -> None:
    """Counted where the bytes would pass: nothing until the page says that a tap can be made durable."""
    with Shaper(demo.port) as shaper, Chromium(tmp_path / "profile") as browser:
        teacher = enrolled(demo, shaper, browser)
        teacher.wait_for_worker()
        teacher.wait_until_idle()
        teacher.page.goto("about:blank?closed")
        shaper.shape(PLAIN)
        started_s = time.time()
        teacher.open()
        usable_at_s = teacher.page.evaluate(
            "(performance.timeOrigin + performance.getEntriesByName('usable')[0].startTime) / 1000"
        )
        assert usable_at_s > started_s
        teacher.page.wait("performance.getEntriesByType('resource').some((one) => /v1.sync$/.test(one.name))")
        assert shaper.requests_before(usable_at_s) == []
        assert shaper.bytes_up_before(usable_at_s) == 0
        assert "POST /v1/sync" in shaper.requests_before(time.time())  # the counter does count
