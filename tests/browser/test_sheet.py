"""The printed register beside the phone: the same names in the same order under the same numbers, on one A4 page."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from clientcore.errors import BadInput
from syncserver.demo import STORE
from syncserver.reports.pdf import print_pdf
from tests.support.chromium import Chromium
from tests.support.demo import HUDUR, Demo
from tests.support.teacher import Teacher

pytestmark = [pytest.mark.browser, pytest.mark.xdist_group("browser")]

ON_SCREEN = """Array.from(document.querySelectorAll('.roll > li'))
  .map(li => [li.querySelector('.no').innerText.trim(), li.querySelector('.mark .grow bdi').innerText.trim()])"""
ON_PAPER = """Array.from(document.querySelectorAll('tr[data-pupil]'))
  .map(tr => [tr.querySelector('.no').innerText.trim(), tr.querySelector('.name').innerText.trim()])"""


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chromium]:
    with Chromium(tmp_path_factory.mktemp("sheet")) as started:
        yield started


@pytest.fixture(scope="module")
def teacher(demo: Demo, browser: Chromium) -> Teacher:
    return Teacher(browser, demo.port).enrol(demo.info["schools"][0]["id"], demo.info["codes"]["teacher"])


@pytest.fixture(scope="module")
def register(teacher: Teacher) -> str:
    """Today's register of the first class on the screen, as `class/date/session`."""
    return teacher.today()


def hudur_sheet(demo: Demo, register: str, out: Path, *more: str) -> dict[str, Any]:
    """The command, through the running server."""
    done = subprocess.run(
        [HUDUR, "sheet", register, "--store", f"sqlite:{STORE}", "--out", str(out), "--json", *more],
        cwd=demo.home, capture_output=True, text=True, timeout=90, check=True,
    )  # fmt: skip
    made: dict[str, Any] = json.loads(done.stdout)
    return made


def test_the_sheet_has_the_order_and_the_numbers_of_the_roll(
    demo: Demo, teacher: Teacher, register: str, tmp_path: Path
) -> None:
    count = teacher.open_register(register)
    on_screen = teacher.page.evaluate(ON_SCREEN)
    assert len(on_screen) == count > 10
    school = demo.info["schools"][0]["id"]
    made = hudur_sheet(demo, f"{school}/{register}", tmp_path / "sheet.html")
    paper = teacher.browser.page(width=800, height=1130)
    paper.goto((tmp_path / "sheet.html").as_uri())
    assert paper.evaluate(ON_PAPER) == on_screen
    assert made["pupils"] == count
    assert made["code"] in paper.text()
    assert paper.evaluate("performance.getEntriesByType('resource').length + document.scripts.length") == 0
    assert paper.evaluate("getComputedStyle(document.body).direction") == "rtl"
    paper.screenshot(tmp_path / "sheet.png")


def test_a_class_fits_one_page(demo: Demo, register: str, tmp_path: Path) -> None:
    school = demo.info["schools"][0]["id"]
    hudur_sheet(demo, f"{school}/{register}", tmp_path / "sheet.pdf", "--pdf")
    printed = (tmp_path / "sheet.pdf").read_bytes()
    assert printed.startswith(b"%PDF")
    assert re.findall(rb"/Count (\d+)", printed) == [b"1"]


def test_a_code_leads_back_to_its_register(demo: Demo, register: str, tmp_path: Path) -> None:
    school = demo.info["schools"][0]["id"]
    made = hudur_sheet(demo, f"{school}/{register}", tmp_path / "sheet.html")
    done = subprocess.run(
        [HUDUR, "sheet", "--find", school, made["code"].lower(), "--store", f"sqlite:{STORE}", "--json"],
        cwd=demo.home, capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    assert json.loads(done.stdout)["registers"] == [made["register"]]


def test_without_a_browser_it_says_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(BadInput, match="no-browser"):
        print_pdf(b"<p>")
    with pytest.raises(BadInput, match="not-printed"):
        print_pdf(b"<p>", browser="/bin/false")
