"""The page in a real Chromium on a spent bundle: a top-up page is no receipt, and all comes when it is paid."""

from __future__ import annotations

from collections import Counter
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.support.demo import Demo
from tests.weaknet.profile import load
from tests.weaknet.proxy import Proxy
from tests.weaknet.road_phones import ChromiumPhone, Room
from tests.weaknet.timeline import compile_timeline

pytestmark = [pytest.mark.browser, pytest.mark.xdist_group("browser")]

PROFILE = "sim-balance-gone-portal"
TOP_UP_AFTER_MS = 20_000
SEEDS = 200
CONNECTIONS = 12
LIMIT_S = 60.0


def healthy_seed() -> int:
    """The first seed whose first connections neither fail nor fall silent: this test is about the portal alone."""
    profile = load(PROFILE)
    for seed in range(SEEDS):
        timeline = compile_timeline(profile, seed, days=1)
        at_ms = timeline.days.elapsed_ms(0, 8 * 60)
        draws = [timeline.connection(k, at_ms) for k in range(CONNECTIONS)]
        if all(one.cut is None and one.fails is None for one in draws):
            return seed
    raise AssertionError("no such seed")


def test_a_top_up_page_is_no_receipt_and_nothing_is_lost(demo: Demo, tmp_path: Path) -> None:
    """With the balance gone the register stays saved and the feed empty; after the top-up it is confirmed, once."""
    timeline = compile_timeline(load(PROFILE), healthy_seed(), days=1)
    excerpt_ms = timeline.days.elapsed_ms(0, 8 * 60)
    budget = timeline.profile.links[0].budget
    assert budget is not None
    school = demo.info["schools"][2]
    room = school["classes"][0]
    before = len(demo.events())
    with ExitStack() as stack:
        proxy = stack.enter_context(Proxy(demo.port, timeline))
        code = demo.info["codes"][room["id"]]
        phone = ChromiumPhone(
            room=Room(school=school["id"], class_id=room["id"], pupils=tuple(room["pupils"]), code=code),
            proxy=proxy,
            home=tmp_path / "profile",
            stack=stack,
        )
        phone.enrol()
        proxy.begin(excerpt_ms, spent_bytes=budget.bytes_per_day, top_up_at_ms=excerpt_ms + TOP_UP_AFTER_MS)
        phone.take()
        page = phone.teacher.page
        while not proxy.injected["portal-page"]:
            page.evaluate("new Promise((go) => setTimeout(go, 25))")
            assert proxy.now_ms() < excerpt_ms + TOP_UP_AFTER_MS
        phone.teacher.wait_until_idle()
        step, looked_at_ms = phone.step(), proxy.now_ms()
        assert looked_at_ms < excerpt_ms + TOP_UP_AFTER_MS
        assert step == "saved"
        assert len(demo.events()) == before
        while proxy.now_ms() < excerpt_ms + TOP_UP_AFTER_MS:
            page.evaluate("new Promise((go) => setTimeout(go, 250))")
        phone.teacher.network_is_back()  # without it the back-off may be long by now
        assert phone.deliver(LIMIT_S)
        assert proxy.now_ms() >= excerpt_ms + TOP_UP_AFTER_MS
    events = [event["data"] for event in demo.events()[before:]]
    assert Counter(data["pupil"] for data in events) == Counter(room["pupils"])
    assert [data["pupil"] for data in events if data["code"] == "absent"] == [room["pupils"][1]]
