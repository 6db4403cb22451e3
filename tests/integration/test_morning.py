"""The national morning, small: the same code with 1,000 phones and a real server, and what its checks would find."""

from __future__ import annotations

import io
import socketserver
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import datetime
from pathlib import Path

import pytest
from rich.console import Console

from bench.morning import plan
from bench.morning.asking import Asking, cursor_of
from bench.morning.client import Load
from bench.morning.door import Door
from bench.morning.frames import parts_in, read_jobs, write_part
from bench.morning.plan import Phase, Size
from bench.morning.proof import prove
from bench.morning.report import Findings, to_result
from bench.morning.slow import drips
from bench.morning.tally import AGAIN, SINCE_DUE, SLOWLY, Tally
from bench.morning.whole import Wish, whole_in
from clientcore.errors import FrameRefused
from clientcore.exchange import (
    DURABLE,
    REFUSED,
    Answer,
    Verdict,
    read_sync,
    request_digest,
    sign_answer,
    write_sync,
)
from clientcore.frame import Ask, ClockEvidence, parse_frame, seal_frame
from clientcore.keys import SigningKey
from clientcore.wire import Value, pack

WISH = Wish(sessions=1_000, over_s=4.0, overload=0.2, capacity=200, patience=0.1, seed=7)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("morning")


@pytest.fixture(scope="module")
def findings(folder: Path) -> Findings:
    return whole_in(folder, WISH, Console(file=io.StringIO(), width=200))


def test_every_register_of_a_morning_is_in_the_log_once_and_says_what_was_sent(findings: Findings) -> None:
    assert findings.problems() == []
    assert findings.proof["registers"] > WISH.sessions * 1.2
    assert findings.proof["registers"] == findings.proof["in the log"]
    assert findings.proof["marks"] == findings.proof["registers"] * plan.PUPILS


def test_the_morning_has_slow_phones_lost_answers_and_torn_requests(findings: Findings) -> None:
    tally = findings.morning.tally
    assert tally.counts["failed: lost"] == tally.counts["duplicate"] > 0
    assert tally.counts["failed: torn"] > 0
    assert len(tally.waits_s(SLOWLY, since=SINCE_DUE)) > WISH.sessions * plan.SLOW_SHARE / 2
    assert tally.counts["proved"] > 0
    assert len(tally.told_s) == WISH.sessions
    assert {row.name: row.met for row in to_result(findings).rows}["lost"] is True


def test_the_capacity_is_measured_again_beside_a_crowd_at_another_door(findings: Findings) -> None:
    assert findings.capacity.knocked_per_s > 0
    assert findings.capacity.beside_per_s > 0
    pushed = [tally.counts["accepted"] for tally in findings.capacity.tallies]
    assert pushed[0] > 0
    assert pushed[1] > 0


def test_everybody_who_knocks_at_another_door_is_answered_in_whole() -> None:
    with closing(Door()) as door:
        for due in (100, 36, *([0] * 20)):
            door.turn(due)
        assert door.knocked == door.answered == 100  # no more than 64 in a turn


def test_a_register_that_is_missing_doubled_or_absent_by_mistake_is_found(folder: Path, findings: Findings) -> None:
    size = findings.size
    file = parts_in(folder)[0].with_suffix(".registers")
    sent = file.read_bytes()
    at = sent.index(b"A", 39)  # the first record: 7 bytes of head, 32 of hash, then the codes
    file.write_bytes(sent[:at] + b"P" + sent[at + 1 :])
    with closing(sqlite3.connect(folder / "store.db")) as db, db:
        db.execute("DELETE FROM outcomes WHERE rowid = (SELECT max(rowid) FROM outcomes)")
        db.execute(
            """INSERT INTO changes SELECT log_offset + 1, hash, school, class_id, date, 'pm8', frame_id, chunk_at,
            chunk_bytes, delegation, held FROM changes ORDER BY log_offset DESC LIMIT 1"""
        )
    counts, found = prove(folder / "store.db", folder, size, processes=1)
    assert (counts["lost"], counts["doubled"], counts["unsettled"]) == (1, 1, 1), found
    assert counts["false absent"] >= 1, found


@pytest.mark.parametrize(
    ("now", "expected"),
    [
        ("2026-11-29T13:53:20", ("2026-11-29", 28_812_345)),  # a Sunday afternoon
        ("2026-11-29T05:33:20", ("2026-11-29", 19_880_000)),  # before the bell: nothing is marked in the future
        ("2026-11-29T00:01:59", ("2026-11-26", 28_812_345)),  # just after midnight
        ("2026-11-28T13:53:20", ("2026-11-26", 28_812_345)),  # a Saturday
    ],
)
def test_the_day_that_is_called_over_is_today_where_that_is_a_school_day(now: str, expected: tuple[str, int]) -> None:
    assert plan.school_day(datetime.fromisoformat(now)) == expected


# ---- what the phones believe -----------------------------------------------------------------------------------


KEY = SigningKey.generate()
SHED = b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1\r\nContent-Length: 2\r\n\r\n{}"


def answer(request: bytes, verdict: int, about: bytes | None = None, payload: bytes | None = None) -> bytes:
    body = request.partition(b"\r\n\r\n")[2]
    changes = parse_frame(read_sync(body)[0]).changes
    signed = sign_answer(
        KEY,
        Answer(
            request=request_digest(about or body), server_ms=1, epoch=1, nonce=bytes(8), last_number=1,
            receipts=(tuple(Verdict(verdict) if verdict < REFUSED else Verdict(REFUSED, "actor") for _ in changes),),
            payload=payload,
        ),
    )  # fmt: skip
    head = f"HTTP/1.1 200 OK\r\ncontent-type: application/x-hudur\r\ncontent-length: {len(signed)}\r\n\r\n"
    return head.encode() + signed


@contextmanager
def answering(answers: list[object]) -> Iterator[int]:
    """A server that gives each connection the next of `answers`; the last one stays."""

    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            request = self.request.recv(65_536)
            reply = answers.pop(0) if len(answers) > 1 else answers[0]
            self.request.sendall(reply(request) if callable(reply) else reply)

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield server.server_address[1]
        finally:
            server.shutdown()
            thread.join()


def sent(folder: Path, answers: list[object], *, confirms: bool = False, patience: float = 0.1) -> Tally:
    """What became of one phone's request."""
    size = Size(sessions=1, capacity_sessions=1, overload_sessions=0, on="2026-11-26")
    write_part(size, 0, range(1), folder, {0: b""})
    jobs = read_jobs(folder)
    with (
        answering(answers) as port,
        closing(
            Load(
                port,
                folder,
                jobs,
                server_key=KEY.public,
                drips=drips(1, seed=1, bytes_sent=900),
                seed=1,
                patience=patience,
            )
        ) as load,
    ):
        first = [(0.0, jobs.of(Phase.CAPACITY)[0])]
        return load.run(first, tick=lambda _: None, limit_s=20, confirms=confirms)


def receipt(request: bytes) -> bytes:
    return answer(request, DURABLE, payload=pack([b"cursor", False, []]))


def told(request: bytes) -> bytes:
    return answer(request, DURABLE, payload=pack([b"cursor", False, [["settled", "r", 1, [[bytes(8), 1, None]]]]]))


def test_a_phone_asks_until_it_is_told_and_comes_again_when_it_is_put_off(tmp_path: Path) -> None:
    tally = sent(tmp_path, [receipt, receipt, SHED, told], confirms=True, patience=0.001)
    assert (tally.counts["asks"], tally.counts["asks put off"], len(tally.told_s), tally.wrong) == (3, 1, 1, [])
    assert tally.told_s[0] > 1.0  # as long as it was put off for
    assert tally.counts["not told"] == 0


def test_a_phone_that_is_never_told_is_tired_of_asking_and_counted(tmp_path: Path) -> None:
    tally = sent(tmp_path, [receipt], confirms=True, patience=0.001)
    assert (tally.counts["asks"], tally.counts["not told"], len(tally.told_s), tally.wrong) == (4, 1, 0, [])


def test_a_phone_with_a_backlog_is_told_when_it_was_told_of_all() -> None:
    """Two changes, one confirmed: it goes on asking, with the cursor of the last payload, or its own."""
    key = SigningKey.generate()
    frame = seal_frame(
        key, env="morning", school="s", device=bytes(16), number=1, prev=bytes(16),
        clock=ClockEvidence(wall_ms=1, mono_ms=1, session=bytes(8), beacon=None), changes=[],
        ask=Ask(nonce=bytes(8), cursor=b"own", have=None, app=None, unsent=0, done=0),
    )  # fmt: skip
    body = write_sync([frame.raw])

    def words(body: bytes, *names: bytes) -> bytes:
        items: list[Value] = [["settled", "r", 1, [[name, 1, None] for name in names]]]
        return sign_answer(KEY, Answer(
            request=request_digest(body), server_ms=1, epoch=1, nonce=bytes(8), last_number=1, receipts=((),),
            payload=pack([b"later", False, items]),
        ))  # fmt: skip

    receipted = answer(b"\r\n\r\n" + body, DURABLE).partition(b"\r\n\r\n")[2]
    assert cursor_of(body, receipted) == b"own"
    phone = Asking(bytes(31) + b"\1", 2, cursor_of(body, receipted), 0.0, body)
    assert not phone.take(receipted)
    assert phone.wait_s == 0.0  # the nonce was old
    phone.begin()
    asked = phone.body
    assert parse_frame(read_sync(asked)[0]).ask == Ask(
        nonce=bytes(8), cursor=b"own", have=None, app=None, unsent=0, done=0
    )
    assert not phone.take(words(asked, b"1" * 8))
    assert not phone.take(words(asked, b"1" * 8))
    assert phone.wait_s == 3.0
    assert phone.cursor == b"later"
    with pytest.raises(FrameRefused):
        phone.take(words(b"another request", b"2" * 8))
    assert phone.take(words(asked, b"2" * 8))


def test_a_phone_that_is_shed_comes_again_after_what_it_was_asked_to_wait(tmp_path: Path) -> None:
    tally = sent(tmp_path, [SHED, lambda request: answer(request, DURABLE)])
    assert tally.wrong == []
    assert (tally.counts["shed"], tally.counts["accepted"], tally.counts["proved"]) == (1, 1, 1)
    assert tally.waits_s(AGAIN, since=SINCE_DUE)[0] >= 1.0


@pytest.mark.parametrize(
    "reply",
    [
        b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 2\r\n\r\nok",
        b"HTTP/1.1 500 Oops\r\nContent-Length: 2\r\n\r\n{}",
        lambda request: answer(request, REFUSED),
    ],
    ids=["a page", "a fault", "a refusal"],
)
def test_what_is_no_receipt_of_every_change_counts_as_wrong(tmp_path: Path, reply: object) -> None:
    assert sent(tmp_path, [reply]).counts["wrong"] == 1


def test_an_answer_to_another_request_counts_as_wrong(tmp_path: Path) -> None:
    wrong = sent(tmp_path, [lambda request: answer(request, DURABLE, about=b"another")]).wrong
    assert "an answer to something else" in wrong
    assert any("answers another request" in line for line in wrong)  # one in fifty is read as the phone reads it


def test_a_shed_without_retry_after_counts_as_wrong(tmp_path: Path) -> None:
    bare = SHED.replace(b"Retry-After: 1\r\n", b"")
    assert sent(tmp_path, [bare, lambda request: answer(request, DURABLE)]).counts["wrong"] == 1


# ---- the plan --------------------------------------------------------------------------------------------------


def test_no_register_is_taken_by_two_phones() -> None:
    size = Size(sessions=1_000, capacity_sessions=500, overload_sessions=400, on="2026-11-26")
    taken = [
        (school, session.class_no, *register)
        for school in range(size.schools)
        for session in plan.sessions_of(size, school)
        for _, registers in session.registers
        for register in registers
    ]
    assert len(taken) == len(set(taken)) > 1_900


def test_a_morning_that_settles_slowly_is_made_longer() -> None:
    fast = plan.length_s(100_000, capacity_per_s=1_000, at_share=0.75, push_s=0.0003, settle_s=0.0003)
    slow = plan.length_s(100_000, capacity_per_s=1_000, at_share=0.75, push_s=0.0003, settle_s=0.004)
    assert slow > fast
    assert plan.lag_after_peak_s(100_000, slow, push_s=0.0003, settle_s=0.004, wait_s=90) <= 4
