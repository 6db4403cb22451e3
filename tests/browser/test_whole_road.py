"""The whole road in a real browser: enrol, no network, kill -9, network back, clean events, each once."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tests.support.chromium import Chromium, Page
from tests.support.demo import Demo
from tests.support.link import Link

pytestmark = [pytest.mark.browser, pytest.mark.xdist_group("browser")]

SAVED, SENT, CONFIRMED = "محفوظ على هذا الهاتف", "تم الإرسال", "تم التأكيد"
READY = "document.querySelector('[id^=\"c-\"]')"


def class_of_40(demo: Demo) -> tuple[dict[str, Any], dict[str, Any]]:
    """A school and its class of exactly 40 pupils."""
    return next((s, c) for s in demo.info["schools"] for c in s["classes"] if len(c["pupils"]) == 40)


def enrol(page: Page, link: Link, school: str, code: str) -> None:
    """Open the link of the QR code, press the one button, and wait for the classes."""
    page.goto(f"http://127.0.0.1:{link.port}/#e={school}.{code}")
    page.tap("form button.main")
    page.wait("document.querySelector('#short')")
    assert page.evaluate("document.querySelector('#short').textContent.length") == 6
    page.tap("button.main")
    page.wait(READY)


def worker_is_ready(page: Page) -> None:
    """The service worker holds every file of the app: from here on no network is needed to open it."""
    page.wait("navigator.serviceWorker && navigator.serviceWorker.ready.then(r => !!r.active)")
    page.wait("navigator.serviceWorker.ready.then(r => r.active.state === 'activated')")


def chip(class_id: str) -> str:
    return f"document.getElementById('c-{class_id}').querySelector('.chip').textContent"


def test_a_register_taken_offline_survives_kill_and_becomes_events_once(demo: Demo, link: Link, tmp_path: Path) -> None:
    """Enrol, network off, cold start, 40 pupils, three absent, kill -9, still there, network back: 40 events, once."""
    school, room = class_of_40(demo)
    code = demo.info["codes"][room["id"]]
    absent = [4, 17, 39]
    before = len(demo.events())
    browser = Chromium(tmp_path / "profile").start()
    try:
        page = browser.page()
        enrol(page, link, school["id"], code)
        worker_is_ready(page)
        link.off()
        browser.kill9()

        page = browser.start().page()
        page.goto(f"http://127.0.0.1:{link.port}/")
        page.tap(f"#c-{room['id']}")
        for index in absent:
            page.tap(f".roll > li:nth-child({index + 1}) .mark")
        page.tap("#all")
        page.wait("!document.querySelector('.pupil.wait')")
        page.wait(f"document.body.innerText.indexOf({SAVED!r}) >= 0")
        browser.kill9()

        page = browser.start().page()
        page.goto(f"http://127.0.0.1:{link.port}/")
        page.wait(f"{READY} && {chip(room['id'])}.indexOf({SAVED!r}) >= 0")
        page.tap(f"#c-{room['id']}")
        page.wait("document.querySelectorAll('.roll > li.k-A').length === 3")
        assert page.evaluate("document.querySelectorAll('.roll > li.k-P').length") == 37
        assert len(demo.events()) == before

        link.on()
        page.evaluate("window.dispatchEvent(new Event('online'))")
        page.tap("#done")
        page.wait(f"{READY} && {chip(room['id'])}.indexOf({CONFIRMED!r}) >= 0", timeout_ms=60_000)
    finally:
        browser.close()

    events = demo.events()[before:]
    assert Counter(event["data"]["pupil"] for event in events) == Counter(room["pupils"])
    codes = {event["data"]["pupil"]: event["data"]["code"] for event in events}
    assert sorted(pupil for pupil, said in codes.items() if said == "absent") == sorted(
        room["pupils"][index] for index in absent
    )


def test_a_captive_portal_is_never_a_receipt(demo: Demo, link: Link, tmp_path: Path) -> None:
    """A top-up page answering 200 with HTML to everything leaves the register saved, not sent; then it goes through."""
    school, room = demo.info["schools"][1], demo.info["schools"][1]["classes"][0]
    with Chromium(tmp_path / "profile") as browser:
        page = browser.page()
        enrol(page, link, school["id"], demo.info["codes"][room["id"]])
        worker_is_ready(page)
        link.portal()
        page.tap(f"#c-{room['id']}")
        page.tap("#all")
        page.wait("!document.querySelector('.pupil.wait')")
        page.tap("#done")
        page.wait(f"{READY} && document.getElementById('status').className.indexOf('l-wait') >= 0", timeout_ms=60_000)
        assert SAVED in page.evaluate(chip(room["id"]))
        link.on()
        page.evaluate("window.dispatchEvent(new Event('online'))")
        page.wait(f"{chip(room['id'])}.indexOf({CONFIRMED!r}) >= 0", timeout_ms=60_000)
