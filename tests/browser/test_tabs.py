"""Several tabs take the same register at once: one log, no seq lost or doubled, and SQLite reads it."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from clientcore.change import parse
from clientcore.history import merge
from tests.support import phone_log
from tests.support.chromium import Chromium
from tests.support.demo import Demo
from tests.support.link import Link
from tests.support.teacher import HOME, SETTLED, Teacher

pytestmark = [pytest.mark.browser, pytest.mark.xdist_group("browser")]

TABS = 3
TAPS = int(os.environ.get("HUDUR_TAB_TAPS", "40"))  # per tab
# Tabs behind another get one timer a second; here all of them shall race.
ALL_AWAKE = ("--disable-background-timer-throttling", "--disable-renderer-backgrounding")
HUDUR = str(Path(sys.executable).with_name("hudur"))
# Starts tapping and returns at once, so that the tabs really work at the same time.
TAP_ALONG = """window.work = (async (steps) => {
  const rows = document.querySelectorAll('.roll .mark');
  for (const [row, pause] of steps) { rows[row].click(); await new Promise((go) => setTimeout(go, pause)); }
})(%s); 0"""


def hudur(*args: str | Path) -> Any:
    """A command's JSON."""
    done = subprocess.run([HUDUR, *args, "--json"], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(done.stdout)


def test_three_tabs_on_one_register_lose_and_double_nothing(demo: Demo, link: Link, tmp_path: Path) -> None:
    """Taps of all tabs are in the log once; its changes merge cleanly; a PC hands the file in for the phone."""
    school = demo.info["schools"][0]
    room = school["classes"][0]
    source = random.Random(20)
    expected: Counter[str] = Counter()
    with Chromium(tmp_path / "profile", flags=ALL_AWAKE) as browser:
        first = Teacher(browser, link.port).enrol(school["id"], demo.info["codes"][room["id"]])
        register = first.today()
        first.wait_until_idle()
        first.wait_for_worker()  # the other tabs open without a network
        link.off()  # what is made from here on travels in the file only
        tabs = [first, *(Teacher(browser, link.port).open() for _ in range(TABS - 1))]
        for tab in tabs:
            tab.open_register(register)
        for tab in tabs:
            steps = [(source.randrange(len(room["pupils"])), source.randrange(12)) for _ in range(TAPS)]
            expected.update(room["pupils"][row] for row, _ in steps)
            tab.page.evaluate(TAP_ALONG % json.dumps(steps))
        for tab in tabs:
            tab.page.wait(f"window.work.then(() => {SETTLED})")
        for tab in tabs:  # leaving the register seals it, in all tabs at once
            tab.page.evaluate("location.hash = ''; 0")
        for tab in tabs:
            tab.page.wait(HOME)
        file = first.save_file(tmp_path / "out")

    phone_log.check(file)
    found = phone_log.taps(file)
    assert phone_log.count_keys(found, register) == expected

    changes = [parse(chunk) for chunk in phone_log.chunks(file, register)]
    history = merge(changes)
    assert len(history.merged) == len(changes) == len({(change.actor, change.seq) for change in changes})
    last = {tap.key: tap.value for tap in found if tap.register == register}
    visible = history.visible()
    assert {key: [put.value for put in puts] for key, puts in visible.items()} == {k: [v] for k, v in last.items()}

    home = tmp_path / "pc"
    hudur("device", "enrol", "--home", home, "--server", demo.info["url"], "--code", demo.info["codes"]["champion"],
          "--school", school["id"])  # fmt: skip
    told = hudur("device", "import-log", "--home", home, file)
    assert told["durable"] == len(changes)
    assert told["refused"] == told["held"] == 0
    assert told["log"]["unreadable_rows"] == 0
    assert told["unsigned_changes"] == told["unsealed_taps"] == []
    again = hudur("device", "import-log", "--home", home, file)
    assert again["durable"] == 0
    assert again["duplicate"] == len(changes)
    phone_log.insert_further(file, 500)
