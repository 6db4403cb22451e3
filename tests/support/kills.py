"""kill -9 of the whole browser while a finger taps: is what the page showed as saved still there?

A kill comes the moment the page has shown the n-th tap as saved (n from a seed) while further taps are on their way.
Every other kill ends the very first session of a new profile, where a store that does not sync its directory loses
everything.
"""

from __future__ import annotations

import base64
import json
import random
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path

from tests.support import phone_log
from tests.support.chromium import Chromium, Page, PageError
from tests.support.teacher import CODES, Teacher

# Reports each tap whose row the page stops showing as "being saved": [row, how many taps on it so far].
TAP_AND_TELL = """new Promise((enough) => {
  const [steps, until] = ARGUMENTS;
  const rows = Array.from(document.querySelectorAll('.roll > li'));
  const tapped = rows.map(() => 0), shown = rows.map(() => 0);
  let told = 0;
  new MutationObserver((seen) => seen.forEach(({ target }) => {
    const row = rows.indexOf(target);
    if (row < 0 || target.classList.contains('wait') || shown[row] === tapped[row]) return;
    shown[row] = tapped[row];
    tell(JSON.stringify([row, tapped[row]]));
    if (++told >= until) enough();
  })).observe(document.querySelector('.roll'), { subtree: true, attributes: true, attributeFilter: ['class'] });
  let at = 0;
  const tap = () => {
    const [row, pause] = steps[at++ % steps.length];
    tapped[row]++;
    rows[row].querySelector('.mark').click();
    setTimeout(tap, pause);
  };
  tap();
})"""
# What is on the disk: the pages as they lie in IndexedDB, without the app's help.
READ_PAGES = """new Promise((done, failed) => {
  const opening = indexedDB.open('hudur');
  opening.onerror = () => failed(opening.error);
  opening.onsuccess = () => {
    const all = opening.result.transaction('pages').objectStore('pages').getAll();
    all.onerror = () => failed(all.error);
    all.onsuccess = () => {
      opening.result.close();
      const reader = new FileReader();
      reader.onload = () => done(reader.result.split(',')[1]);
      reader.readAsDataURL(new Blob(all.result));
    };
  };
})"""


@dataclass(slots=True, kw_only=True)
class Loss:
    """What a campaign found. `shown`: taps the page had shown as saved; `lost`: those of them that were gone."""

    kills: int = 0
    first_session_kills: int = 0
    shown: int = 0
    lost: int = 0
    damaged_files: int = 0
    wrong_screens: int = 0


def read_log(page: Page, path: Path) -> Path:
    """Write the phone's log, as it lies in the browser's storage, to `path`."""
    path.write_bytes(base64.b64decode(page.evaluate(READ_PAGES)))
    return path


class Campaign:
    """Kills phones of one class, one after the other. `new_code` makes an enrolment code for its teacher."""

    def __init__(
        self,
        port: int,
        school: str,
        pupils: list[str],
        new_code: Callable[[], str],
        folder: Path,
        *,
        seed: int,
        first_day_back: int = 0,
        sabotage: str = "",
    ) -> None:
        self._port, self._school, self._pupils, self._new_code = port, school, pupils, new_code
        self._folder, self._first_day_back = folder, first_day_back
        self._sabotage = sabotage  # script that spoils the page, to see that the campaign would notice
        self._random = random.Random(seed)
        self.loss = Loss()

    def run(self, kills: int) -> Iterator[Loss]:
        """Two kills a profile: its first session, and the next one. Yields after each kill is verified."""
        for profile in range((kills + 1) // 2):
            browser = Chromium(self._folder / f"profile{profile}").start()
            try:
                yield from self._profile(browser, profile, min(2, kills - 2 * profile))
            finally:
                browser.close()

    def _profile(self, browser: Chromium, number: int, kills: int) -> Iterator[Loss]:
        teacher = Teacher(browser, self._port).enrol(self._school, self._new_code())
        # A day of its own for each phone: what the others took is not on its screen.
        class_id, today, session_name = teacher.today().split("/")
        register = (
            f"{class_id}/{date.fromisoformat(today) - timedelta(days=self._first_day_back + number)}/{session_name}"
        )
        in_log: Counter[str] = Counter()
        for session in range(kills):
            teacher.open_register(register)
            shown = self._tap_until_killed(browser, teacher.page)
            self.loss.kills += 1
            self.loss.first_session_kills += session == 0
            teacher = Teacher(browser.start(), self._port).open()
            in_log = self._verify(teacher, register, in_log + shown)
            yield self.loss

    def _tap_until_killed(self, browser: Chromium, page: Page) -> Counter[str]:
        """Taps per pupil that the page had shown as saved when SIGKILL came."""
        source = self._random
        steps = [(source.randrange(len(self._pupils)), source.choice((0, 0, 1, 4, 9))) for _ in range(200)]
        page.send("Runtime.addBinding", name="tell")
        page.evaluate(self._sabotage or "0")
        page.evaluate(TAP_AND_TELL.replace("ARGUMENTS", json.dumps([steps, source.randint(1, 30)])))
        browser.kill9()
        told: Counter[str] = Counter()
        for event in page.events:
            if event["method"] == "Runtime.bindingCalled":
                row, taps = json.loads(event["params"]["payload"])
                told[self._pupils[row]] = max(told[self._pupils[row]], taps)
        self.loss.shown += told.total()
        return told

    def _verify(self, teacher: Teacher, register: str, shown: Counter[str]) -> Counter[str]:
        """Compare file and screen with what had been shown; returns the taps per pupil in the log."""
        teacher.wait_until_idle()
        path = read_log(teacher.page, self._folder / "log.sqlite")
        try:
            phone_log.check(path)
        except AssertionError:
            self.loss.damaged_files += 1
        found = [tap for tap in phone_log.taps(path) if tap.register == register]
        in_log = phone_log.count_keys(found, register)
        self.loss.lost += (shown - in_log).total()
        teacher.open_register(register)
        last = {tap.key: (tap.value or ".")[0] for tap in found}
        wanted = "".join(last.get(pupil, ".") for pupil in self._pupils)
        try:
            teacher.page.wait(f"{CODES} === {json.dumps(wanted)}")
        except PageError:
            self.loss.wrong_screens += 1
        return in_log
