"""The whole road on the command line: real processes, a real socket that can be cut, what a person types."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.demo import HUDUR, Demo
from tests.support.link import Link

pytestmark = pytest.mark.process

NO_ANSWER = 3  # exit code: the work is safe here, nothing came back


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Demo]:
    with Demo(tmp_path_factory.mktemp("demo")) as running:
        yield running


def device(home: Path, *args: str, expect: int = 0) -> dict[str, Any]:
    """Run `hudur device …` and return its JSON."""
    words = 2 if args[0] == "bundle" else 1
    done = subprocess.run(
        [HUDUR, "device", *args[:words], "--home", str(home), "--json", *args[words:]],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONWARNINGS": "error"},
    )
    assert done.returncode == expect, f"{args}: {done.returncode}\n{done.stdout}\n{done.stderr}"
    told: dict[str, Any] = json.loads(done.stdout)
    return told


def enrolled(demo: Demo, link: Link, home: Path, index: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """A device of the tutor of some class of the second school; returns the school and the class."""
    school = demo.info["schools"][1]
    room = school["classes"][index]
    code = f"{school['id']}.{demo.info['codes'][room['id']]}"
    device(home, "enrol", "--server", f"http://127.0.0.1:{link.port}", "--code", code)
    return school, room


def confirmed(home: Path, count: int) -> dict[str, Any]:
    """Sync until so many registers are confirmed, or twenty times; each waits some seconds by itself. The status."""
    for _ in range(20):
        device(home, "sync")
        told = device(home, "status")
        if told["confirmed"] >= count:
            break
    return told


def test_a_register_taken_without_network_becomes_its_events_once(demo: Demo, tmp_path: Path) -> None:
    """Enrol, cut, take with three absent, try in vain, network back: confirmed, and the feed has each mark once."""
    home = tmp_path / "home"
    with Link(demo.port) as link:
        _, room = enrolled(demo, link, home, 0)
        before = len(demo.events())
        link.off()
        absent = sorted(room["pupils"])[:3]
        device(home, "take", "--class", room["id"], "--absent", ",".join(absent))
        status = device(home, "status")
        assert (status["pending"], status["saved"], status["sent"], status["confirmed"]) == (1, 1, 0, 0)
        device(home, "sync", expect=NO_ANSWER)
        link.portal()
        device(home, "sync", expect=NO_ANSWER)
        assert device(home, "status")["saved"] == 1
        link.on()
        status = confirmed(home, 1)
    assert (status["pending"], status["saved"], status["confirmed"]) == (0, 0, 1)
    assert status["last_complete_sync_at_ms"] > 0
    events = demo.events()[before:]
    assert Counter(event["data"]["pupil"] for event in events) == Counter(room["pupils"])
    assert sorted(e["data"]["pupil"] for e in events if e["data"]["code"] == "absent") == absent


def test_a_bundle_carried_by_somebody_and_the_phone_itself_count_once(demo: Demo, tmp_path: Path) -> None:
    """The same frames by file, by file again, and by HTTP afterwards: one effect, and the phone hears `duplicate`."""
    teacher, courier, file = tmp_path / "teacher", tmp_path / "courier", tmp_path / "work.hudur"
    with Link(demo.port) as link:
        _, room = enrolled(demo, link, teacher, 1)
        enrolled(demo, link, courier, 2)
        before = len(demo.events())
        device(teacher, "take", "--class", room["id"])
        device(teacher, "bundle", "export", str(file))
        device(courier, "bundle", "import", str(file))
        device(courier, "bundle", "import", str(file))
        assert confirmed(teacher, 1)["confirmed"] == 1
    events = demo.events()[before:]
    assert Counter(event["data"]["pupil"] for event in events) == Counter(room["pupils"])


def test_a_killed_server_loses_nothing_that_a_device_was_told(demo: Demo, tmp_path: Path) -> None:
    """Killed with -9 after a sync: what was sent stays sent, what was not waits, and work goes on after the restart."""
    home = tmp_path / "home"
    with Link(demo.port) as link:
        _, room = enrolled(demo, link, home, 3)
        before = len(demo.events())
        device(home, "take", "--class", room["id"], "--late", f"{sorted(room['pupils'])[0]}:12")
        device(home, "sync", "--no-confirm")
        demo.stop(signal.SIGKILL)
        device(home, "take", "--class", room["id"], "--session", "am1")
        device(home, "sync", expect=NO_ANSWER)
        demo.start()
        assert confirmed(home, 2)["confirmed"] == 2
    events = demo.events()[before:]
    assert len(events) == 2 * len(room["pupils"])
    assert len({event["id"] for event in events}) == len(events)
