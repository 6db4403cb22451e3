"""`hudur device` as a person uses it: words, JSON, exit codes."""

from __future__ import annotations

import json
import stat
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from clientcore.cli import Doors, device
from clientcore.enrolment import parse_target
from clientcore.errors import BadInput
from clientcore.ports import Clock, HttpReply, ManualClock, SeededRandom
from tests.support.fake_server import CLASS, CODE, PUPILS, SCHOOL, FakeServer, offline, problem

URL = "http://hudur.test"


@dataclass
class Wire:
    """The fake server behind an address."""

    server: FakeServer

    async def post(self, path: str, body: bytes, *, content_type: str, deadline_s: float) -> HttpReply:
        return await self.server.post(path, body, content_type=content_type, deadline_s=deadline_s)

    async def close(self) -> None:
        return None


@dataclass
class Desk:
    """A person at a computer. Every command is a process of its own: chance goes on, nothing else does."""

    home: Path
    server: FakeServer
    clock: ManualClock
    chance: SeededRandom = field(default_factory=lambda: SeededRandom(5))

    def run(self, *args: str, home: Path | None = None) -> Result:
        def network(url: str, _clock: Clock) -> Wire:
            assert url == URL
            return Wire(self.server)

        self.clock.advance(1_000)
        doors = Doors(clock=self.clock, random=self.chance, network=network)
        where = () if args[0] == "bundle" else ("--home", str(home or self.home))
        line = (
            (args[0], args[1], "--home", str(home or self.home), *args[2:])
            if not where
            else (args[0], *where, *args[1:])
        )
        return CliRunner().invoke(device, line, obj=doors)

    def json(self, *args: str, code: int = 0, home: Path | None = None) -> dict[str, Any]:
        done = self.run(*args, "--json", home=home)
        assert done.exit_code == code, done.output
        told = json.loads(done.stdout)
        assert isinstance(told, dict)
        return told

    def enrol(self, home: Path | None = None, code: str = CODE) -> dict[str, Any]:
        return self.json("enrol", "--server", URL, "--code", f"{SCHOOL}.{code}", home=home)


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    clock = ManualClock()
    return Desk(home=tmp_path / "home", server=FakeServer(clock), clock=clock)


STATUS_KEYS = {
    "pending",
    "saved",
    "sent",
    "confirmed",
    "needs_review",
    "last_complete_sync_at_ms",
    "identity",
    "notices",
}


def test_enrol_take_sync_status(desk: Desk) -> None:
    """The main road: every step says what it did, and the numbers move from saved to confirmed."""
    told = desk.enrol()
    assert told["identity"]["user_id"] == "t1"
    assert told["identity"]["server"] == URL
    taken = desk.json(
        "take", "--class", CLASS, "--absent", "s001,s002", "--late", "s003:12,s004", "--excused", "s005:sick"
    )
    assert taken["counts"] == {"absent": 2, "absent_excused": 1, "late": 2, "present": 35}
    assert (taken["pending"], taken["saved"], taken["sent"], taken["confirmed"]) == (1, 1, 0, 0)
    assert taken["register"] == f"{SCHOOL}/{CLASS}/2026-11-22/day"
    synced = desk.json("sync")
    assert (synced["outcome"], synced["receipts"]["durable"]) == ("ok", 1)
    status = desk.json("status")
    assert status.keys() >= STATUS_KEYS
    assert (status["pending"], status["saved"], status["sent"], status["confirmed"]) == (0, 0, 0, 1)
    assert status["last_complete_sync_at_ms"] > 0
    visible = desk.server.visible(f"{CLASS}/2026-11-22/day")
    assert visible["s003"][0].endswith(":12")
    assert visible["s005"][0].endswith(":sick")


def test_the_words_for_a_person(desk: Desk) -> None:
    """Without --json the same facts are sentences."""
    desk.enrol()
    assert "38 present" in desk.run("take", "--class", CLASS, "--absent", "s001,s002").output
    assert "Waiting to be sent: 1. They are safe on this device." in desk.run("status").output
    assert "1 durable" in desk.run("sync").output
    assert "1 confirmed" in desk.run("status").output
    assert "confirmed; 2 absent, 38 present" in desk.run("registers").output
    assert f"{CLASS}  3/A  40 pupils" in desk.run("classes").output
    assert PUPILS[0][1] in desk.run("classes", "--class", CLASS).output
    assert "In step with the server." in desk.run("sync").output


def test_taking_again_corrects_and_a_third_time_changes_nothing(desk: Desk) -> None:
    """Only what is different is put."""
    desk.enrol()
    desk.json("take", "--class", CLASS, "--absent", "s001")
    again = desk.json("take", "--class", CLASS, "--absent", "s002")
    assert (again["by_name"], again["in_bulk"], again["unchanged"]) == (2, 0, 38)
    assert desk.json("take", "--class", CLASS, "--absent", "s002")["marked"] == 0
    desk.json("sync")
    assert len(desk.server.stored) == 2


def test_no_network_is_exit_3_and_the_work_is_safe(desk: Desk) -> None:
    """The person is told that nothing answered, that the work is kept, and what to do."""
    desk.enrol()
    desk.json("take", "--class", CLASS)
    desk.server.before = offline
    done = desk.run("sync")
    assert done.exit_code == 3
    assert "Everything is kept on this device." in done.output
    told = desk.json("sync", code=3)
    assert (told["ok"], told["outcome"], told["error"], told["pending"]) == (False, "no-answer", "offline", 1)
    assert told["retry_in_ms"] > 0


def test_tries_wait_by_the_clock_port(desk: Desk) -> None:
    """--tries goes on after the back-off until an answer comes."""
    desk.enrol()
    desk.json("take", "--class", CLASS)
    left = 3

    def flaky(path: str, body: bytes) -> HttpReply | None:
        nonlocal left
        left -= 1
        return offline(path, body) if left > 0 else None

    desk.server.before = flaky
    assert desk.json("sync", "--tries", "5")["confirmed"] == 1


@pytest.mark.parametrize(
    ("reply", "code", "outcome"),
    [(problem("revoked", 403, "never"), 1, "refused"), (problem("busy", 503, "after", retry_after_s=9), 3, "busy")],
)
def test_a_servers_no_has_its_exit_code(desk: Desk, reply: HttpReply, code: int, outcome: str) -> None:
    """403 is 1, 503 is 3; both keep the register."""
    desk.enrol()
    desk.json("take", "--class", CLASS)
    desk.server.before = lambda _path, _body: reply
    told = desk.json("sync", code=code)
    assert (told["outcome"], told["pending"]) == (outcome, 1)
    assert told["do"]


def test_a_refused_change_is_exit_1_and_stays(desk: Desk) -> None:
    """The server's refusal of one change is said aloud."""
    desk.enrol()
    desk.json("take", "--class", CLASS)
    desk.server.refuse = lambda _frame, _at: "bad-mark"
    assert desk.json("sync", code=1)["refused_changes"] == 1
    assert "refused by the server" in desk.run("status").output


@pytest.mark.parametrize(
    ("args", "error"),
    [
        (["--absent", "nobody"], "unknown-pupil"),
        (["--absent", "s001", "--late", "s001"], "bad-list"),
        (["--absent", "s001,s001"], "bad-list"),
        (["--late", "s001:soon"], "bad-list"),
        (["--excused", "s001:Sick!"], "bad-list"),
        (["--date", "2026-02-30"], "bad-register"),
        (["--session", "noon"], "bad-register"),
        (["--class", "c-9z"], "unknown-class"),
        (["--class", "../etc"], "bad-register"),
    ],
)
def test_what_cannot_be_taken_is_exit_2_and_writes_nothing(desk: Desk, args: list[str], error: str) -> None:
    """A wrong list, date, session or class is named; no tap is written."""
    desk.enrol()
    rows = desk.json("status")["log_rows"]
    assert desk.json("take", "--class", CLASS, *args, code=2)["error"] == error
    assert desk.json("status")["log_rows"] == rows


def test_a_clock_behind_the_server_does_not_guess_the_date(desk: Desk) -> None:
    """In 1970 the date must be given; with it the register is taken."""
    desk.enrol()
    desk.json("sync")
    desk.clock.set_wall_ms(0)
    assert desk.json("take", "--class", CLASS, code=2)["error"] == "clock"
    assert desk.json("take", "--class", CLASS, "--date", "2026-11-22")["saved"] == 1


def test_commands_before_the_enrolment_say_so_and_leave_no_files(desk: Desk) -> None:
    """Nothing is created by looking."""
    for command in (["status"], ["sync"], ["take", "--class", CLASS], ["registers"]):
        assert desk.json(*command, code=2)["error"] == "not-enrolled"
    assert not desk.home.exists()


def test_an_enrolment_whose_answer_was_lost_is_repeated_with_the_same_code(desk: Desk) -> None:
    """The key is kept, so the code works again for the same device and for no other."""
    desk.server.after = lambda path, body, reply: offline(path, body) or reply
    assert desk.json("enrol", "--server", URL, "--code", f"{SCHOOL}.{CODE}", code=3)["error"] == "offline"
    desk.server.after = FakeServer.after
    desk.enrol()
    other = desk.home.with_name("other")
    assert desk.json("enrol", "--server", URL, "--code", f"{SCHOOL}.{CODE}", code=1, home=other)["error"] == "code-used"
    assert desk.json("enrol", "--server", URL, "--code", f"{SCHOOL}.{CODE}", code=2)["error"] == "already-enrolled"


def test_the_home_is_the_owners_only(desk: Desk) -> None:
    """Key, cache and directory are readable by the owner only."""
    desk.enrol()
    assert stat.S_IMODE(desk.home.stat().st_mode) == 0o700
    for name in ("key.pem", "cache.db", "device.json"):
        assert stat.S_IMODE((desk.home / name).stat().st_mode) == 0o600


def test_a_damaged_log_goes_on_with_the_enrolment_kept_beside_it(desk: Desk) -> None:
    """The log is garbage: it is kept, a new one begins, and the device still speaks for itself."""
    desk.enrol()
    desk.json("take", "--class", CLASS)
    desk.json("sync")
    (desk.home / "log.db").write_bytes(b"garbage" * 1_000)
    status = desk.json("status")
    assert [notice["slug"] for notice in status["notices"]] == ["quarantine", "empty-log"]
    assert (desk.home / "log.db.damaged-1").exists()
    assert desk.json("sync")["outcome"] == "ok"
    assert desk.json("status")["confirmed"] == 1


def test_a_bundle_twice_and_then_http_has_one_effect(desk: Desk, tmp_path: Path) -> None:
    """Exported frames are handed in by another device, again, and then sent by the phone itself."""
    desk.enrol()
    desk.server.codes["NPQRSTVWXZ"] = None
    champion = tmp_path / "champion"
    desk.enrol(home=champion, code="NPQRSTVWXZ")
    desk.json("take", "--class", CLASS, "--absent", "s001")
    file = tmp_path / "work.hudur"
    assert desk.json("bundle", "export", str(file))["frames"] == 1
    assert desk.json("bundle", "export", str(file), code=2)["error"] == "file-exists"
    assert desk.json("status")["pending"] == 1
    first = desk.json("bundle", "import", str(file), home=champion)
    assert (first["durable"], first["duplicate"]) == (1, 0)
    second = desk.json("bundle", "import", str(file), home=champion)
    assert (second["durable"], second["duplicate"]) == (0, 1)
    assert desk.json("sync")["receipts"]["duplicate"] == 1
    assert len(desk.server.stored) == 1
    assert desk.json("status")["confirmed"] == 1
    assert desk.json("bundle", "export", str(tmp_path / "none"))["frames"] == 0


def test_a_bundle_through_ones_own_call_brings_the_receipt(desk: Desk, tmp_path: Path) -> None:
    """A device that hands in its own file counts those registers as sent."""
    desk.enrol()
    desk.json("take", "--class", CLASS)
    file = tmp_path / "work.hudur"
    desk.json("bundle", "export", str(file))
    desk.json("bundle", "import", str(file))
    assert desk.json("status")["sent"] == 1


def test_a_bundle_cut_short_keeps_its_whole_frames(desk: Desk, tmp_path: Path) -> None:
    """The end of the file is missing: what is whole counts, and the cut is said."""
    desk.enrol()
    desk.json("take", "--class", CLASS)
    file = tmp_path / "work.hudur"
    desk.json("bundle", "export", str(file))
    file.write_bytes(file.read_bytes() + b"\0\0\1\0half a frame")
    told = desk.json("bundle", "import", str(file))
    assert (told["durable"], told["truncated"]) == (1, True)
    (tmp_path / "other").write_bytes(b"GIF89a")
    assert desk.json("bundle", "import", str(tmp_path / "other"), code=1)["error"] == "not-an-export"


def test_a_rescued_log_hands_in_what_has_no_receipt_and_names_the_rest(desk: Desk, tmp_path: Path) -> None:
    """Frames go as a bundle; a tap that only the phone can sign is listed; a second import changes nothing."""
    desk.enrol()
    desk.server.codes["NPQRSTVWXZ"] = None
    champion = tmp_path / "champion"
    desk.enrol(home=champion, code="NPQRSTVWXZ")
    desk.json("take", "--class", CLASS, "--date", "2026-11-19")
    desk.json("sync")
    desk.json("take", "--class", CLASS, "--date", "2026-11-22", "--absent", "s001")
    desk.server.before = offline
    desk.json("sync", code=3)
    desk.server.before = FakeServer.before
    desk.json("take", "--class", CLASS, "--date", "2026-11-23")
    told = desk.json("import-log", str(desk.home / "log.db"), home=champion)
    assert (told["frames"], told["durable"]) == (1, 1)
    assert told["log"]["user_id"] == "t1"
    assert [item["register"] for item in told["unsigned_changes"]] == [f"{CLASS}/2026-11-23/day"]
    assert desk.json("import-log", str(desk.home / "log.db"), home=champion)["duplicate"] == 1
    assert "Only the phone itself can sign" in desk.run("import-log", str(desk.home / "log.db"), home=champion).output
    assert desk.json("import-log", str(desk.home / "key.pem"), home=champion, code=2)["error"] == "not-a-log"
    desk.json("sync")
    assert len(desk.server.stored) == 3


def forge_receipt(path: Path, change: Callable[[bytes], bytes]) -> None:
    import sqlite3
    from contextlib import closing

    with closing(sqlite3.connect(path)) as connection:
        rows = connection.execute("SELECT seq, body FROM log WHERE kind = 'receipt'").fetchall()
        connection.executemany("UPDATE log SET body = ? WHERE seq = ?", [(change(body), seq) for seq, body in rows])
        connection.commit()


def test_a_forged_receipt_in_a_foreign_log_hides_nothing(desk: Desk, tmp_path: Path) -> None:
    """Receipts our server did not sign are not believed: their frames are handed in all the same."""
    desk.enrol()
    desk.json("take", "--class", CLASS)
    desk.json("sync")
    assert desk.json("import-log", str(desk.home / "log.db"))["frames"] == 0
    copy = tmp_path / "copy.db"
    copy.write_bytes((desk.home / "log.db").read_bytes())
    forge_receipt(copy, lambda body: body[:30] + bytes([body[30] ^ 1]) + body[31:])
    assert desk.json("import-log", str(copy))["duplicate"] == 1


@pytest.mark.parametrize(
    ("text", "school", "server", "expected"),
    [
        ("bcd-fghj-klm", "eg-07-113", URL, ("eg-07-113", "BCDFGHJKLM", URL)),
        ("eg-07-113.BCDFGHJKLM", None, URL + "/", ("eg-07-113", "BCDFGHJKLM", URL)),
        ("eg.07.113.bcd fghj klm", None, URL, ("eg.07.113", "BCDFGHJKLM", URL)),
        (f"{URL}/#e=eg-07-113.BCDFGHJKLM", None, None, ("eg-07-113", "BCDFGHJKLM", URL)),
        (f"{URL}/sub/#e=eg-07-113.BCD-FGHJ-KLM", None, None, ("eg-07-113", "BCDFGHJKLM", f"{URL}/sub")),
    ],
)
def test_every_way_to_write_a_code(
    text: str, school: str | None, server: str | None, expected: tuple[str, str, str]
) -> None:
    """Code, SCHOOL.CODE and link are the same thing."""
    target = parse_target(text, school=school, server=server)
    assert (target.school, target.code, target.server) == expected


@pytest.mark.parametrize(
    ("text", "school", "server", "code"),
    [
        ("BCDFGHJKL", "s", URL, "bad-code"),
        ("ABCDEFGHIJ", "s", URL, "bad-code"),
        ("BCDFGHJKLM", None, URL, "bad-school"),
        ("BCDFGHJKLM", "no school!", URL, "bad-school"),
        ("other.BCDFGHJKLM", "mine", URL, "bad-school"),
        ("s.BCDFGHJKLM", None, None, "bad-server"),
        ("s.BCDFGHJKLM", None, "ftp://x", "bad-server"),
        ("s.BCDFGHJKLM", None, "http://x:notaport", "bad-server"),
        ("s.BCDFGHJKLM", None, "http://[", "bad-server"),
    ],
)
def test_a_wrong_code_is_named(text: str, school: str | None, server: str | None, code: str) -> None:
    """Each mistake has its own slug."""
    with pytest.raises(BadInput) as refused:
        parse_target(text, school=school, server=server)
    assert refused.value.code == code


def test_a_server_that_forgot_the_device_gets_everything_again_after_a_new_code(desk: Desk) -> None:
    """Restored from before the enrolment, the server knows nothing of us: same home, same key, all work comes again."""
    desk.enrol()
    desk.json("take", "--class", CLASS)
    assert desk.json("sync")["confirmed"] == 1
    desk.server.devices.clear()
    desk.server.stored.clear()
    desk.json("take", "--class", CLASS, "--session", "am1")
    assert desk.json("sync", code=1)["outcome"] == "refused"
    desk.server.codes["NPQRSTVWXZ"] = None
    desk.enrol(code="NPQRSTVWXZ")
    desk.json("sync")
    assert len(desk.server.stored) == 2
    assert desk.json("status")["confirmed"] == 2
